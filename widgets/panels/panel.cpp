#include "widgets/panels/panel.h"

#include <QHBoxLayout>
#include <QPainter>
#include <QScrollArea>
#include <QStackedLayout>

#include "widgets/common/theme.h"

namespace quanvas {

Panel::Panel(const QString& name, const QString& title, QWidget* parent) : QWidget(parent), title_(title) {
  setObjectName(name);
  setAccessibleName(title);
  setAutoFillBackground(true);
  setBackgroundRole(QPalette::Base);
}

void Panel::set_title(const QString& title) {
  title_ = title;
  Q_EMIT header_changed();
}

void Panel::set_subtitle(const QString& subtitle) {
  subtitle_ = subtitle;
  Q_EMIT header_changed();
}

PanelHeader::PanelHeader(Panel* panel, QWidget* parent) : QWidget(parent), panel_(panel), tools_(new QHBoxLayout(this)) {
  setFixedHeight(30);
  tools_->setContentsMargins(10, 2, 6, 2);
  tools_->setSpacing(4);
  tools_->addStretch(1);
  for (QWidget* w : panel->header_widgets()) tools_->addWidget(w);
  connect(panel, &Panel::header_changed, this, qOverload<>(&QWidget::update));
  connect(&Theme::instance(), &Theme::changed, this, qOverload<>(&QWidget::update));
}

void PanelHeader::set_title_visible(bool visible) {
  title_visible_ = visible;
  update();
}

void PanelHeader::paintEvent(QPaintEvent*) {
  const Colors& c = colors();
  QPainter painter(this);
  painter.fillRect(rect(), c.panel);
  painter.fillRect(0, height() - 1, width(), 1, c.line);
  int right = width() - 8;
  for (const QWidget* w : panel_->header_widgets())
    if (w->isVisible()) right = std::min(right, w->x() - 6);
  int x = 10;
  if (title_visible_) {
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
  scroll->setWidget(content);
  return scroll;
}

}  // namespace quanvas
