#include "widgets/panels/panel.h"

#include <QHBoxLayout>
#include <QPainter>
#include <QScrollArea>
#include <QStackedLayout>
#include <QTabBar>

#include "widgets/common/theme.h"

namespace quanvas {

Panel::Panel(const QString& id, const QString& title, QWidget* parent) : QWidget(parent), name_(title), title_(title) {
  setObjectName(id);
  setAccessibleName(title);
  setAutoFillBackground(true);
  setBackgroundRole(QPalette::Base);
}

void Panel::set_name(const QString& name) {
  name_ = title_ = name;
  Q_EMIT header_changed();
}

void Panel::set_title(const QString& title) {
  title_ = title;
  Q_EMIT header_changed();
}

void Panel::set_subtitle(const QString& subtitle) {
  subtitle_ = subtitle;
  Q_EMIT header_changed();
}

PanelHeader::PanelHeader(Panel* panel, QWidget* parent)
    : QWidget(parent), panel_(panel), tabs_(new QTabBar(this)), tools_(new QHBoxLayout(this)) {
  setFixedHeight(30);
  tools_->setContentsMargins(4, 0, 6, 1);
  tools_->setSpacing(4);
  tabs_->setExpanding(false);
  tabs_->setDrawBase(false);
  tabs_->setStyleSheet(QStringLiteral("QTabBar::tab { padding: 2px 8px; margin: 3px 1px; }"));
  tabs_->setAccessibleName(tr("Panels here"));
  tabs_->hide();
  tools_->addWidget(tabs_);
  tools_->addStretch(1);
  for (QWidget* w : panel->header_widgets()) tools_->addWidget(w);
  connect(tabs_, &QTabBar::currentChanged, this, [this](int i) {
    if (i < 0 || i >= static_cast<int>(group_.size()) || group_[static_cast<std::size_t>(i)] == panel_) return;
    Panel* other = group_[static_cast<std::size_t>(i)];
    set_group(group_);  // here this panel stays the current one
    Q_EMIT tab_chosen(other);
  });
  connect(panel, &Panel::header_changed, this, qOverload<>(&QWidget::update));
  connect(&Theme::instance(), &Theme::changed, this, qOverload<>(&QWidget::update));
}

void PanelHeader::set_group(const std::vector<Panel*>& group) {
  const QSignalBlocker block(tabs_);
  if (group != group_) {
    for (Panel* p : group_) disconnect(p, &Panel::header_changed, this, &PanelHeader::update_tab_texts);
    group_ = group;
    while (tabs_->count()) tabs_->removeTab(0);
    for (Panel* p : group_) {
      tabs_->addTab(p->name());
      connect(p, &Panel::header_changed, this, &PanelHeader::update_tab_texts);
    }
  }
  for (std::size_t i = 0; i < group_.size(); ++i)
    if (group_[i] == panel_) tabs_->setCurrentIndex(static_cast<int>(i));
  tabs_->setVisible(group_.size() > 1);
  update();
}

void PanelHeader::update_tab_texts() {
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const int tab = static_cast<int>(i);
    if (tabs_->tabText(tab) != group_[i]->name()) tabs_->setTabText(tab, group_[i]->name());
  }
}

void PanelHeader::paintEvent(QPaintEvent*) {
  const Colors& c = colors();
  QPainter painter(this);
  painter.fillRect(rect(), c.panel);
  painter.fillRect(0, height() - 1, width(), 1, c.line);
  int right = width() - 8;
  for (const QWidget* w : panel_->header_widgets())
    if (w->isVisible()) right = std::min(right, w->x() - 6);
  int x = tabs_->isVisible() ? tabs_->geometry().right() + 10 : 10;
  if (!tabs_->isVisible()) {
    painter.setFont(text_font(12.5, QFont::DemiBold));
    painter.setPen(c.text);
    const QFontMetrics metrics(painter.font());
    const QString title = metrics.elidedText(panel_->title(), Qt::ElideMiddle, right - x);
    painter.drawText(QRect(x, 0, right - x, height() - 1), Qt::AlignVCenter | Qt::AlignLeft, title);
    x += metrics.horizontalAdvance(title) + 8;
  }
  painter.setFont(text_font(12.5));
  painter.setPen(c.muted);
  if (right - x > 20)
    painter.drawText(QRect(x, 0, right - x, height() - 1), Qt::AlignVCenter | Qt::AlignLeft,
                     QFontMetrics(painter.font()).elidedText(panel_->subtitle(), Qt::ElideRight, right - x));
}

void show_page(QStackedLayout* stack, QWidget* page) {
  if (stack->indexOf(page) < 0) stack->addWidget(page);
  stack->setCurrentWidget(page);
}

QWidget* scroll_page(QWidget* content, QWidget* parent) {
  auto* scroll = new QScrollArea(parent);
  scroll->setFrameShape(QFrame::NoFrame);
  scroll->setWidgetResizable(true);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  content->setAutoFillBackground(true);
  content->setBackgroundRole(QPalette::Base);
  content->setMinimumWidth(1);  // as wide as the view, also beside the scroll bar: what does not fit is elided or wrapped
  scroll->setWidget(content);
  return scroll;
}

}  // namespace quanvas
