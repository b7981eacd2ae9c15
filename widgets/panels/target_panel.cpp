#include "widgets/panels/target_panel.h"

#include <algorithm>

#include <QComboBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QScrollBar>
#include <QStackedLayout>
#include <QStandardItemModel>
#include <QTimer>
#include <QToolButton>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "widgets/common/empty_state.h"
#include "widgets/common/icons.h"
#include "widgets/forms/schema_form.h"
#include "widgets/models/counted.h"
#include "widgets/models/table_text.h"
#include "widgets/models/wrapping_delegate.h"

namespace quanvas {
namespace {

constexpr int kWhereWidth = 120, kLayerRole = Qt::UserRole;
QString qs(const std::string& s) {
  return QString::fromStdString(s);
}

QString refining_text() {
  return TargetPanel::tr("asking numbers…");
}

QIcon state_icon(LensState state) {
  return state == LensState::kFixable ? icon(QStringLiteral("warning"), IconRole::kWarning)
                                      : icon(QStringLiteral("error"), IconRole::kError);
}

}  // namespace

QString reason_text(const Refusal& r) {
  QString out = r.quantizer.empty() ? QString() : qs(r.quantizer) + QStringLiteral(": ");
  out += qs(r.rule);
  if (!r.got.empty()) out += QStringLiteral(": ") + qs(r.got);
  if (!r.allowed.empty()) out += TargetPanel::tr("; taken: %1").arg(qs(r.allowed));
  return out + QStringLiteral(".");
}

QString mending_text(const Refusal& r) {
  if (!can_mend(r)) return {};
  return r.fix ? qs(describe(*r.fix)) : TargetPanel::tr("float");
}

TargetPanel::TargetPanel(QWidget* parent)
    : Panel(QStringLiteral("target"), tr("Target"), parent),
      patience_(new QTimer(this)),
      targets_(new QComboBox(this)),
      fold_(new QToolButton(this)),
      options_(new SchemaForm(this)),
      summary_(new QLabel(this)),
      note_(new QLabel(this)),
      list_(new QTreeWidget(this)),
      fix_(new QToolButton(this)),
      fix_all_(new QToolButton(this)),
      export_(new QToolButton(this)),
      empty_(new EmptyState(QStringLiteral("export"), {}, {}, this)),
      stack_(new QStackedLayout) {
  targets_->setAccessibleName(tr("Export target"));
  targets_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  targets_->setMinimumContentsLength(12);
  options_->set_hide_disabled(true);
  fold_->setText(tr("Options"));
  fold_->setCheckable(true);
  fold_->setAutoRaise(true);
  fold_->setArrowType(Qt::RightArrow);
  fold_->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
  fold_->setToolTip(tr("What the target can be asked for; the table below is judged with it"));
  connect(fold_, &QToolButton::toggled, this, &TargetPanel::show_options);
  summary_->setWordWrap(true);
  summary_->setProperty("role", "muted");
  note_->setProperty("role", "muted");
  note_->setAccessibleName(tr("Whether the answer is still being completed"));
  note_->setToolTip(tr("What the formats say is shown; scales and weights are still being looked at."));
  note_->setMinimumWidth(note_->fontMetrics().horizontalAdvance(refining_text()));  // its place is kept: nothing moves
  patience_->setSingleShot(true);
  patience_->setInterval(kPatienceMs);
  connect(patience_, &QTimer::timeout, this, [this] { note_->setText(refining_text()); });
  list_->setHeaderLabels({tr("Layer"), tr("Why the target refuses it"), tr("What would mend it")});
  list_->setRootIsDecorated(false);
  list_->setWordWrap(true);
  list_->setAccessibleName(tr("Layers that the target refuses"));
  list_->setIconSize({15, 15});
  list_->setContextMenuPolicy(Qt::ActionsContextMenu);
  list_->setVerticalScrollMode(QAbstractItemView::ScrollPerPixel);
  list_->setTextElideMode(Qt::ElideMiddle);
  add_copy_actions(list_, list_->header());
  list_->setItemDelegate(new WrappingDelegate(list_));
  list_->header()->setSectionResizeMode(0, QHeaderView::Interactive);
  list_->header()->resizeSection(0, kWhereWidth);
  list_->header()->setSectionResizeMode(1, QHeaderView::Stretch);
  list_->header()->setSectionResizeMode(2, QHeaderView::Stretch);
  fix_->setText(tr("Fix layer"));
  fix_->setToolTip(tr("Give the selected layer the quantizers that this target takes; can be undone"));
  fix_all_->setText(tr("Fix all"));
  fix_all_->setToolTip(
      tr("Give every layer that can be mended the quantizers that this target takes; one step to undo"));
  export_->setText(tr("Export…"));

  auto* choice = new QHBoxLayout;
  choice->setSpacing(8);
  choice->addWidget(targets_, 1);
  for (auto* b : {fix_, fix_all_, export_}) choice->addWidget(b);
  auto* list_page = new QWidget(this);
  stack_->addWidget(empty_);
  stack_->addWidget(list_);
  list_page->setLayout(stack_);
  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(10, 8, 10, 8);
  layout->setSpacing(8);
  layout->addLayout(choice);
  layout->addWidget(fold_, 0, Qt::AlignLeft);
  layout->addWidget(options_);
  auto* state = new QHBoxLayout;
  state->setSpacing(8);
  state->addWidget(summary_, 1);
  state->addWidget(note_, 0, Qt::AlignTop);
  layout->addLayout(state);
  layout->addWidget(list_page, 1);

  connect(targets_, &QComboBox::activated, this, [this] {
    show_choice();
    Q_EMIT target_chosen(target(), options());
  });
  connect(options_, &SchemaForm::edited, this, [this] { Q_EMIT target_chosen(target(), options()); });
  connect(list_->header(), &QHeaderView::sectionResized, list_, &QTreeWidget::doItemsLayout);
  connect(list_, &QTreeWidget::itemSelectionChanged, this, &TargetPanel::update_buttons);
  connect(list_, &QTreeWidget::itemClicked, this,
          [this](QTreeWidgetItem* item) { Q_EMIT layer_activated(item->data(0, kLayerRole).toString()); });
  connect(list_, &QTreeWidget::itemActivated, this,
          [this](QTreeWidgetItem* item) { Q_EMIT layer_activated(item->data(0, kLayerRole).toString()); });
  connect(fix_, &QToolButton::clicked, this, [this] {
    if (const QString layer = chosen_layer(); !layer.isEmpty()) Q_EMIT fix_wanted(layer);
  });
  connect(fix_all_, &QToolButton::clicked, this, [this] { Q_EMIT fix_wanted({}); });
  connect(export_, &QToolButton::clicked, this, [this] { Q_EMIT export_wanted(target()); });
  set_targets({});
}

void TargetPanel::set_targets(const std::vector<PluginEntry>& targets) {
  const QString before = target();
  entries_ = targets;
  targets_->clear();
  targets_->addItem(tr("No target"), QString());
  for (const auto& t : entries_) {
    targets_->addItem(qs(t.title), qs(t.id));
    const int row = targets_->count() - 1;
    const std::string why = t.more.is_object() ? t.more.value("unavailable", std::string()) : std::string();
    targets_->setItemData(row, why.empty() ? qs(t.doc) : qs(why), Qt::ToolTipRole);
    auto* items = qobject_cast<QStandardItemModel*>(targets_->model());
    if (!why.empty() && items) items->item(row)->setEnabled(false);
  }
  choose(before);
}

QString TargetPanel::target() const {
  return targets_->currentData().toString();
}
json TargetPanel::options() const {
  return options_->schema().fields.empty() ? json::object() : options_->values();
}
QString TargetPanel::summary() const {
  return summary_->text();
}
QString TargetPanel::note() const {
  return note_->text();
}

void TargetPanel::choose(const QString& id) {
  targets_->setCurrentIndex(std::max(0, targets_->findData(id)));
  show_choice();
}

void TargetPanel::show_choice() {
  const auto* entry = find_entry(entries_, target().toStdString());
  options_->set_schema(entry ? entry->schema : Schema{});
  show_options();
  forget();
}

// Folded, the table has the panel's height; most keep them as they are.
void TargetPanel::show_options() {
  const bool any = !options_->schema().fields.empty();
  fold_->setVisible(any);
  fold_->setArrowType(fold_->isChecked() ? Qt::DownArrow : Qt::RightArrow);
  options_->setVisible(any && fold_->isChecked());
}

void TargetPanel::forget() {
  const bool chosen = !target().isEmpty();
  is_answered_ = is_whole_ = false;
  refusals_.clear();
  patience_->stop();
  note_->clear();
  note_->setVisible(chosen);
  lens_.clear();
  list_->clear();
  summary_->setText(chosen ? tr("Not asked yet") : QString());
  summary_->setVisible(chosen);
  empty_->set_icon(QStringLiteral("export"));
  if (chosen) empty_->set_text(tr("Not asked yet"), tr("The answer comes as soon as a model is open."));
  else empty_->set_text(tr("No target is chosen"), tr("Choose one to see which layers it can hold, and what would mend the others."));
  stack_->setCurrentWidget(empty_);
  set_subtitle({});
  update_buttons();
}

bool TargetPanel::set_refusals(const QString& id, const std::vector<Refusal>& refusals, const std::set<std::string>& layers,
                               const QString& trouble, bool is_whole) {
  if (id != target() || id.isEmpty()) return false;
  if (is_whole) {
    patience_->stop();
    note_->clear();
  } else if (!patience_->isActive() && note_->text().isEmpty()) {
    patience_->start();
  }
  const bool is_new = !is_answered_ || refusals != refusals_ || layers != layers_ || trouble != trouble_;
  // "Holds everything" stays until numbers say otherwise, and is said only with them.
  const bool completes = is_whole && !is_whole_ && refusals.empty();
  if (!is_new && !completes) return false;
  is_answered_ = true;
  is_whole_ = is_whole;
  refusals_ = refusals;
  layers_ = layers;
  trouble_ = trouble;
  if (is_new) show_list(layers);
  show_end();
  update_buttons();
  return is_new;
}

void TargetPanel::show_list(const std::set<std::string>& layers) {
  const QString selected = chosen_layer().isEmpty() ? layer_ : chosen_layer();
  const int scrolled = list_->verticalScrollBar()->value();
  const bool is_first = list_->topLevelItemCount() == 0;
  list_->setUpdatesEnabled(false);
  lens_ = lens(refusals_);
  list_->clear();
  int fixable = 0, impossible = 0, others = 0, left_out = 0;
  for (const LensLayer& l : lens_) {
    // Other nodes, tensors and the model as a whole are listed, too, but are no layers.
    (!layers.count(l.layer) ? others : l.state == LensState::kFixable ? fixable : impossible) += 1;
    // All that is wrong with one quantizer is one row.
    std::vector<std::pair<std::string, QTreeWidgetItem*>> rows;
    for (const Refusal& r : l.refusals) {
      const auto known = std::find_if(rows.begin(), rows.end(), [&](const auto& row) { return row.first == r.quantizer && !r.quantizer.empty(); });
      if (known != rows.end()) {
        Refusal rest = r;
        rest.quantizer.clear();
        known->second->setText(1, known->second->text(1) + u'\n' + reason_text(rest));
        known->second->setToolTip(1, known->second->text(1));
        continue;
      }
      if (list_->topLevelItemCount() >= kMostRows) {
        ++left_out;
        continue;
      }
      const QString where = l.layer.empty() ? tr("The model") : qs(l.layer);
      const QString mending = mending_text(r);
      auto* item = new QTreeWidgetItem(list_, {where, reason_text(r), mending.isEmpty() ? qs(r.suggestion) : mending});
      item->setIcon(0, state_icon(can_mend(r) ? LensState::kFixable : LensState::kImpossible));
      item->setData(0, kLayerRole, qs(l.layer));
      item->setData(0, Qt::AccessibleTextRole, (can_mend(r) ? tr("can be mended: %1") : tr("cannot be mended: %1")).arg(where));
      for (int c = 0; c < 3; ++c) item->setToolTip(c, item->text(c));
      if (!selected.isEmpty() && selected == qs(l.layer) && list_->selectedItems().isEmpty()) item->setSelected(true);
      rows.emplace_back(r.quantizer, item);
    }
  }
  if (left_out > 0) new QTreeWidgetItem(list_, {tr("…"), tr("and %1 more").arg(left_out), {}});
  list_->setUpdatesEnabled(true);
  list_->doItemsLayout();
  list_->verticalScrollBar()->setValue(scrolled);
  if (const auto chosen = list_->selectedItems(); is_first && !chosen.isEmpty()) list_->scrollToItem(chosen.front());
  const int legal = static_cast<int>(layers.size()) - fixable - impossible;
  if (!trouble_.isEmpty())
    summary_->setText(trouble_);
  else
    summary_->setText(tr("%1 of %2 legal, %3 can be fixed, %4 impossible")
                          .arg(legal)
                          .arg(counted(static_cast<double>(layers.size()), tr("1 layer"), tr("%1 layers")))
                          .arg(fixable)
                          .arg(impossible) +
                      (others == 0 ? QString() : tr("; refused beside them: %1").arg(counted(others, tr("1 node"), tr("%1 nodes")))));
}

void TargetPanel::show_end() {
  const bool is_well = trouble_.isEmpty();
  set_subtitle(lens_.empty() && is_well && is_whole_ ? tr("holds everything") : QString());
  empty_->set_icon(!is_well ? QStringLiteral("warning") : is_whole_ ? QStringLiteral("check") : QStringLiteral("export"));
  empty_->set_text(!is_well ? tr("The target could not be asked") : is_whole_ ? tr("This target can hold everything") : tr("No format is refused"),
                   is_well && !is_whole_ ? tr("Scales and weights are still being looked at.") : QString());
  stack_->setCurrentWidget(lens_.empty() ? static_cast<QWidget*>(empty_) : list_);
}

void TargetPanel::select_layer(const QString& name) {
  layer_ = name;
  if (chosen_layer() == name) return;
  list_->clearSelection();
  for (int i = 0; i < list_->topLevelItemCount(); ++i) {
    auto* item = list_->topLevelItem(i);
    if (item->data(0, kLayerRole).toString() != name || name.isEmpty()) continue;
    item->setSelected(true);
    return list_->scrollToItem(item);
  }
}

QString TargetPanel::chosen_layer() const {
  const auto items = list_->selectedItems();
  return items.isEmpty() ? QString() : items.front()->data(0, kLayerRole).toString();
}

void TargetPanel::update_buttons() {
  const QString layer = chosen_layer();
  const auto mendable = [&](const LensLayer& l) {
    return std::any_of(l.refusals.begin(), l.refusals.end(), can_mend);
  };
  fix_all_->setEnabled(std::any_of(lens_.begin(), lens_.end(), mendable));
  fix_->setEnabled(std::any_of(lens_.begin(), lens_.end(), [&](const LensLayer& l) {
    return qs(l.layer) == layer && !layer.isEmpty() && mendable(l);
  }));
  export_->setEnabled(!target().isEmpty());
}

}  // namespace quanvas
