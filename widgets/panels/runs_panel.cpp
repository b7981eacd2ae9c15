#include "widgets/panels/runs_panel.h"

#include <algorithm>

#include <QHeaderView>
#include <QItemSelectionModel>
#include <QMenu>
#include <QStackedLayout>
#include <QTableView>
#include <QToolButton>

#include "widgets/common/empty_state.h"
#include "widgets/common/format.h"
#include "widgets/common/icons.h"
#include "widgets/common/theme.h"
#include "widgets/models/chip_delegate.h"
#include "widgets/models/table_fit.h"
#include "widgets/models/table_text.h"

namespace quanvas {

namespace {

constexpr int kLeastRecipe = 96;

}  // namespace

RunsPanel::RunsPanel(QWidget* parent)
    : Panel(QStringLiteral("runs"), tr("Runs"), parent), model_(new RunsModel(this)), proxy_(new RunsProxy(this)),
      table_(new QTableView(this)), compare_(new QToolButton(this)), restore_(new QToolButton(this)), details_(new QToolButton(this)),
      empty_(new EmptyState(QStringLiteral("run"), tr("No runs yet"), tr("Run the recipe: accuracy, size and errors are kept here, to compare and to restore."), this)),
      stack_(new QStackedLayout(this)) {
  proxy_->setSourceModel(model_);
  proxy_->setSortRole(RunsModel::kSortRole);
  table_->setModel(proxy_);
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setSelectionMode(QAbstractItemView::ExtendedSelection);
  table_->setShowGrid(false);
  table_->setItemDelegate(new RowDelegate(table_));
  table_->setWordWrap(false);
  table_->setSortingEnabled(true);
  table_->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  table_->sortByColumn(RunsModel::kId, Qt::AscendingOrder);
  table_->setAccessibleName(tr("Runs"));
  table_->setContextMenuPolicy(Qt::CustomContextMenu);
  table_->setIconSize({14, 14});
  table_->verticalHeader()->hide();
  table_->verticalHeader()->setDefaultSectionSize(25);
  table_->horizontalHeader()->setHighlightSections(false);
  table_->horizontalHeader()->setStyleSheet(QStringLiteral("QHeaderView::section { font-size: 11px; padding: 5px 2px 5px 7px; }"));
  table_->setFont(text_font(12.5));
  table_->horizontalHeader()->setSectionResizeMode(QHeaderView::Interactive);
  add_copy_actions(table_, table_->horizontalHeader());
  const auto tool = [this](QToolButton* b, const char* icon_name, const QString& title) {
    b->setIcon(icon(QLatin1String(icon_name)));
    b->setToolTip(title);
    b->setAccessibleName(title);
    b->setProperty("flat", true);
    add_header_widget(b);
  };
  tool(details_, "info", tr("Details of the run"));
  tool(restore_, "restore", tr("Make the run's recipe the current one"));
  tool(compare_, "compare", tr("Compare two selected runs layer by layer"));
  stack_->addWidget(empty_);
  stack_->addWidget(table_);

  const auto first = [this] { return selection().empty() ? 0 : selection().front(); };
  connect(compare_, &QToolButton::clicked, this, [this] {
    const auto ids = selection();
    if (ids.size() == 2) Q_EMIT compare_wanted(ids[0], ids[1]);
  });
  connect(restore_, &QToolButton::clicked, this, [this, first] { Q_EMIT restore_wanted(first()); });
  connect(details_, &QToolButton::clicked, this, [this, first] { Q_EMIT details_wanted(first()); });
  connect(table_, &QTableView::activated, this, [this](const QModelIndex& i) { Q_EMIT details_wanted(i.data(RunsModel::kRunRole).toLongLong()); });
  connect(table_, &QTableView::customContextMenuRequested, this, &RunsPanel::show_menu);
  connect(table_->selectionModel(), &QItemSelectionModel::currentRowChanged, table_->viewport(), qOverload<>(&QWidget::update));
  connect(table_->selectionModel(), &QItemSelectionModel::selectionChanged, this, [this] {
    update_buttons();
    Q_EMIT selection_changed(selection());
  });
  update_buttons();
}

void RunsPanel::set_runs(const std::vector<Run>& runs, const std::set<std::int64_t>& stale, std::int64_t current) {
  const auto selected = selection();
  const bool more = static_cast<int>(runs.size()) != model_->rowCount();
  model_->set_runs(runs, stale, current);
  if (more) {
    fit_columns(table_, RunsModel::kRecipe, kLeastRecipe);
    select(selected);
    table_->scrollToBottom();
  }
  stack_->setCurrentWidget(runs.empty() ? static_cast<QWidget*>(empty_) : table_);
  update_buttons();
}

void RunsPanel::set_marks(const std::set<std::int64_t>& stale, std::int64_t current) { model_->set_marks(stale, current); }

void RunsPanel::set_data_name(const QString& name, double samples) {
  set_subtitle(name.isEmpty() ? QString() : samples > 0 ? tr("%1, %2 samples").arg(name, count_text(samples)) : name);
}

std::vector<std::int64_t> RunsPanel::selection() const {
  std::vector<std::int64_t> ids;
  for (const auto& i : table_->selectionModel()->selectedRows()) ids.push_back(i.data(RunsModel::kRunRole).toLongLong());
  std::sort(ids.begin(), ids.end());
  return ids;
}

void RunsPanel::select(const std::vector<std::int64_t>& ids) {
  QItemSelection wanted;
  for (int r = 0; r < proxy_->rowCount(); ++r) {
    const QModelIndex i = proxy_->index(r, 0);
    if (std::find(ids.begin(), ids.end(), i.data(RunsModel::kRunRole).toLongLong()) != ids.end())
      wanted.select(i, i.siblingAtColumn(RunsModel::kColumns - 1));
  }
  table_->selectionModel()->select(wanted, QItemSelectionModel::ClearAndSelect);
}

void RunsPanel::update_buttons() {
  const auto ids = selection();
  const Run* run = ids.size() == 1 ? model_->run(ids.front()) : nullptr;
  compare_->setEnabled(ids.size() == 2);
  details_->setEnabled(run);
  restore_->setEnabled(run && run->kind == RunKind::kQuantize);
}

void RunsPanel::show_menu(const QPoint& at) {
  const auto ids = selection();
  QMenu menu(this);
  const auto add = [&](const QString& title, bool enabled, auto fn) {
    auto* action = menu.addAction(title, this, fn);
    action->setEnabled(enabled);
  };
  const Run* run = ids.size() == 1 ? model_->run(ids.front()) : nullptr;
  const bool quantized = run && run->kind == RunKind::kQuantize;
  add(tr("Details…"), run, [this, ids] { Q_EMIT details_wanted(ids.front()); });
  add(tr("Compare…"), ids.size() == 2, [this, ids] { Q_EMIT compare_wanted(ids[0], ids[1]); });
  add(tr("Restore recipe"), quantized, [this, ids] { Q_EMIT restore_wanted(ids.front()); });
  add(tr("Export this run…"), quantized && !run->artifact.empty(), [this, ids] { Q_EMIT export_wanted(ids.front()); });
  menu.addSeparator();
  menu.addActions(table_->actions());
  menu.exec(table_->viewport()->mapToGlobal(at));
}

}  // namespace quanvas
