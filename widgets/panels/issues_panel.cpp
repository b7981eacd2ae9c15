#include "widgets/panels/issues_panel.h"

#include <algorithm>

#include <QHeaderView>
#include <QStackedLayout>
#include <QToolButton>
#include <QTreeWidget>

#include "widgets/common/empty_state.h"
#include "widgets/common/icons.h"
#include "widgets/models/table_text.h"
#include "widgets/models/counted.h"
#include "widgets/models/wrapping_delegate.h"

namespace quanvas {

QIcon severity_icon(Severity s) {
  switch (s) {
    case Severity::kError: return icon(QStringLiteral("error"), IconRole::kError);
    case Severity::kWarning: return icon(QStringLiteral("warning"), IconRole::kWarning);
    case Severity::kInfo: return icon(QStringLiteral("info"), IconRole::kMuted);
  }
  return {};
}

namespace {

constexpr int kWhereWidth = 120;

}  // namespace

IssuesPanel::IssuesPanel(QWidget* parent)
    : Panel(QStringLiteral("issues"), tr("Issues"), parent), list_(new QTreeWidget(this)), clear_(new QToolButton(this)),
      empty_(new EmptyState(QStringLiteral("check"), tr("No issues"), {}, this)), stack_(new QStackedLayout(this)) {
  list_->setHeaderLabels({tr("Where"), tr("What"), tr("What to do")});
  list_->setRootIsDecorated(false);
  list_->setWordWrap(true);
  list_->setAccessibleName(tr("Issues"));
  list_->setSelectionMode(QAbstractItemView::ExtendedSelection);
  list_->setContextMenuPolicy(Qt::ActionsContextMenu);
  list_->setIconSize({15, 15});
  add_copy_actions(list_, list_->header());
  list_->setItemDelegate(new WrappingDelegate(list_));
  list_->setVerticalScrollMode(QAbstractItemView::ScrollPerPixel);
  list_->setTextElideMode(Qt::ElideMiddle);
  list_->header()->setSectionResizeMode(0, QHeaderView::Interactive);
  list_->header()->resizeSection(0, kWhereWidth);
  list_->header()->setSectionResizeMode(1, QHeaderView::Stretch);
  list_->header()->setSectionResizeMode(2, QHeaderView::Stretch);
  clear_->setText(tr("Clear"));
  clear_->setProperty("flat", true);
  add_header_widget(clear_);
  stack_->addWidget(empty_);
  stack_->addWidget(list_);
  connect(list_->header(), &QHeaderView::sectionResized, list_, &QTreeWidget::doItemsLayout);
  connect(clear_, &QToolButton::clicked, this, &IssuesPanel::clear_wanted);
  connect(list_, &QTreeWidget::itemActivated, this, [this](QTreeWidgetItem* item) { Q_EMIT activated(item->text(0)); });
  set_issues({});
}

void IssuesPanel::set_issues(const std::vector<Issue>& issues) {
  list_->clear();
  int bad = 0;
  for (const auto& i : issues) {
    auto* item = new QTreeWidgetItem(list_, {QString::fromStdString(i.where), QString::fromStdString(i.message), QString::fromStdString(i.hint)});
    item->setIcon(0, severity_icon(i.severity));
    item->setData(0, Qt::AccessibleTextRole, tr(enum_text(i.severity)) + QStringLiteral(": ") + item->text(0));
    for (int c = 0; c < 3; ++c) item->setToolTip(c, item->text(c));
    bad += i.severity != Severity::kInfo;
  }
  set_name(issues.empty() ? tr("Issues") : tr("Issues (%1)").arg(issues.size()));
  set_subtitle(bad ? counted(bad, tr("1 needs attention"), tr("%1 need attention")) : QString());
  clear_->setEnabled(!issues.empty());
  stack_->setCurrentWidget(issues.empty() ? static_cast<QWidget*>(empty_) : list_);
}

}  // namespace quanvas
