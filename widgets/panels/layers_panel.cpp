#include "widgets/panels/layers_panel.h"

#include <set>

#include <QEvent>
#include <QGuiApplication>
#include <QHeaderView>
#include <QItemSelectionModel>
#include <QLabel>
#include <QLineEdit>
#include <QMenu>
#include <QTableView>
#include <QTextDocument>
#include <QVBoxLayout>

#include "core/recipe/recipe.h"
#include "widgets/common/format.h"
#include "widgets/common/theme.h"
#include "widgets/models/chip_delegate.h"
#include "widgets/models/table_fit.h"
#include "widgets/models/table_text.h"
#include "widgets/panels/inspector_state.h"
#include "widgets/panels/preset_menu.h"

namespace quanvas {
namespace {

// Names are told apart by their ends, types by their beginnings.
class LayersDelegate : public ChipDelegate {
 public:
  using ChipDelegate::ChipDelegate;

 protected:
  void initStyleOption(QStyleOptionViewItem* option, const QModelIndex& index) const override {
    ChipDelegate::initStyleOption(option, index);
    if (index.column() != LayersModel::kName) return;
    option->text = index.data(LayersModel::kShortNameRole).toString();
    option->textElideMode = Qt::ElideLeft;
  }
};

constexpr int kRowHeight = 25;
constexpr int kLeastName = 72, kLeastType = 64;

}  // namespace

LayersPanel::LayersPanel(QWidget* parent)
    : Panel(QStringLiteral("layers"), tr("Layers"), parent), model_(new LayersModel(this)),
      proxy_(new LayersProxy(this)), filter_(new QLineEdit(this)), error_(new QLabel(this)), none_(nullptr), table_(new QTableView(this)) {
  proxy_->setSourceModel(model_);
  filter_->setPlaceholderText(tr("Filter: name, type, bits<=4, sqnr<20…"));
  filter_->setClearButtonEnabled(true);
  filter_->setAccessibleName(tr("Filter layers"));
  filter_->setToolTip(tr("Words match name, type or scope. Conditions: bits<=4, abits=8, params>1k, macs>1M, sqnr<20 (output, dB),\n"
                         "wsqnr<16 (weight, dB), type:conv,gemm, name:fc*, scope:layer1, is:float, is:quantized, is:stale, is:selected.\n"
                         "'!' in front negates."));
  error_->setProperty("role", "error");
  error_->setWordWrap(true);
  error_->hide();
  table_->setModel(proxy_);
  table_->setItemDelegate(new LayersDelegate(LayersModel::kBitsRole, LayersModel::kSqnrRole, LayersModel::kStaleRole, table_));
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setSelectionMode(QAbstractItemView::ExtendedSelection);
  table_->setShowGrid(false);
  table_->setWordWrap(false);
  table_->setFont(text_font(12.5));
  table_->setSortingEnabled(true);
  table_->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  table_->setAccessibleName(tr("Layers"));
  table_->setContextMenuPolicy(Qt::CustomContextMenu);
  table_->verticalHeader()->hide();
  table_->verticalHeader()->setSectionResizeMode(QHeaderView::Fixed);
  table_->verticalHeader()->setDefaultSectionSize(kRowHeight);
  auto* header = table_->horizontalHeader();
  header->setHighlightSections(false);
  header->setFont(text_font(11.5));
  header->setStyleSheet(QStringLiteral("QHeaderView::section { font-size: 11px; padding: 5px 2px 5px 7px; }"));
  header->setMinimumSectionSize(30);
  header->setSectionsMovable(true);
  header->setContextMenuPolicy(Qt::CustomContextMenu);
  header->setSortIndicatorClearable(true);
  header->setSortIndicator(-1, Qt::AscendingOrder);
  for (const int c : {LayersModel::kShape, LayersModel::kOutput, LayersModel::kMacs}) table_->setColumnHidden(c, true);
  add_copy_actions(table_, header);
  table_->viewport()->installEventFilter(this);
  none_ = new QLabel(table_->viewport());
  none_->setProperty("role", "muted");
  none_->setWordWrap(true);
  none_->setAlignment(Qt::AlignCenter);
  none_->setTextInteractionFlags(Qt::LinksAccessibleByMouse | Qt::LinksAccessibleByKeyboard);
  none_->hide();
  auto* over = new QVBoxLayout(table_->viewport());
  over->addWidget(none_, 0, Qt::AlignTop);
  connect(none_, &QLabel::linkActivated, filter_, &QLineEdit::clear);

  auto* layout = new QVBoxLayout(this);
  layout->setContentsMargins(0, 7, 0, 0);
  layout->setSpacing(4);
  auto* box = new QVBoxLayout;
  box->setContentsMargins(10, 0, 10, 3);
  box->setSpacing(2);
  box->addWidget(filter_);
  box->addWidget(error_);
  layout->addLayout(box);
  layout->addWidget(table_, 1);

  connect(model_, &QAbstractItemModel::modelReset, this, [this] {
    new_layers_ = true;
    own_widths_ = false;
  });
  connect(filter_, &QLineEdit::textChanged, this, &LayersPanel::apply_filter);
  connect(table_->selectionModel(), &QItemSelectionModel::currentRowChanged, table_->viewport(), qOverload<>(&QWidget::update));
  connect(table_->selectionModel(), &QItemSelectionModel::selectionChanged, this, &LayersPanel::take_selection);
  connect(table_, &QTableView::activated, this, [this](const QModelIndex& i) { Q_EMIT activated(i.data(LayersModel::kNodeRole).toInt()); });
  connect(table_, &QTableView::customContextMenuRequested, this, &LayersPanel::show_menu);
  connect(header, &QHeaderView::sectionResized, this, [this] { own_widths_ = own_widths_ || (!fitting_ && QGuiApplication::mouseButtons()); });
  connect(header, &QHeaderView::customContextMenuRequested, this, &LayersPanel::show_columns_menu);
  update_subtitle();
}

void LayersPanel::set_rows(std::vector<LayerRow> rows) {
  change_rows([&] { model_->set_rows(std::move(rows)); });
}

void LayersPanel::update_rows(const std::vector<LayerRow>& changed) {
  change_rows([&] { model_->update_rows(changed); });
}

const LayerRow* LayersPanel::row(NodeId node) const {
  const int row = model_->row_of(node);
  return row < 0 ? nullptr : &model_->rows()[static_cast<std::size_t>(row)];
}

void LayersPanel::change_rows(const std::function<void()>& change) {
  const auto selected = selection();
  syncing_ = true;
  change();
  syncing_ = false;
  if (selection() != selected) set_selection(selected);
  if (show_columns_with_values() || new_layers_) fit_columns();
  new_layers_ = false;
  update_subtitle();
}

bool LayersPanel::show_columns_with_values() {
  if (model_->rows().empty()) return false;
  bool changed = false;
  for (const int c : {LayersModel::kWeight, LayersModel::kActivation, LayersModel::kWeightSqnr, LayersModel::kOutputSqnr}) {
    const bool hide = !model_->has_values(c);
    if (own_columns_.count(c) > 0 || table_->isColumnHidden(c) == hide) continue;
    table_->setColumnHidden(c, hide);
    changed = true;
  }
  return changed;
}

// The names get what the other columns leave, so that all columns are in view where that is possible.
void LayersPanel::fit_columns() {
  if (own_widths_ || fitting_ || model_->rows().empty()) return;
  fitting_ = true;
  quanvas::fit_columns(table_, LayersModel::kName, kLeastName, LayersModel::kType, kLeastType, LayersModel::kShortNameRole);
  const int left = table_->viewport()->width() - table_->horizontalHeader()->length();
  if (left > 0) table_->setColumnWidth(LayersModel::kName, table_->columnWidth(LayersModel::kName) + left);
  fitting_ = false;
}

bool LayersPanel::eventFilter(QObject* object, QEvent* event) {
  if (object == table_->viewport() && event->type() == QEvent::Resize) fit_columns();
  return Panel::eventFilter(object, event);
}

void LayersPanel::apply_filter(const QString& text) {
  const auto filter = LayerFilter::parse(text);
  error_->setText(filter.error());
  error_->setVisible(!filter.error().isEmpty());
  syncing_ = true;
  proxy_->set_filter(filter);
  syncing_ = false;
  update_subtitle();
}

QString LayersPanel::filter_error() const { return error_->text(); }

QString LayersPanel::empty_text() const {
  QTextDocument text;
  text.setHtml(none_->isHidden() ? QString() : none_->text());
  return text.toPlainText();
}

void LayersPanel::update_subtitle() {
  const bool none = proxy_->rowCount() == 0 && model_->rowCount() > 0;
  if (none)
    none_->setText(tr("None of the %1 layers matches.").arg(count_text(model_->rowCount())) +
                   QStringLiteral(" <a href=\"clear\" style=\"color:%1; text-decoration:none\">%2</a>").arg(colors().accent.name(), tr("Clear the filter")));
  none_->setVisible(none);
  double parameters = 0;
  for (const auto& r : model_->rows()) parameters += r.parameters;
  set_subtitle(model_->rows().empty() ? QString()
                                      : tr("%1 of %2, %3 parameters")
                                            .arg(count_text(proxy_->rowCount()), count_text(model_->rowCount()), count_text(parameters)));
}

std::vector<NodeId> LayersPanel::selection() const {
  std::set<int> rows;
  for (const auto& range : table_->selectionModel()->selection())
    for (int r = range.top(); r <= range.bottom(); ++r) rows.insert(r);
  std::vector<NodeId> nodes;
  for (const int r : rows) nodes.push_back(proxy_->index(r, 0).data(LayersModel::kNodeRole).toInt());
  return nodes;
}

void LayersPanel::take_selection() {
  if (syncing_) return;
  const auto nodes = selection();
  model_->set_selected(nodes);
  Q_EMIT selection_changed(nodes);
}

void LayersPanel::set_selection(const std::vector<NodeId>& nodes) {
  std::set<int> rows;
  for (const NodeId node : nodes)
    if (const int row = model_->row_of(node); row >= 0)
      if (const QModelIndex i = proxy_->mapFromSource(model_->index(row, 0)); i.isValid()) rows.insert(i.row());
  // Neighbours in one range: Qt's selections are slow with many.
  QItemSelection wanted;
  for (auto it = rows.begin(); it != rows.end();) {
    const int first = *it;
    int last = first;
    while (++it != rows.end() && *it == last + 1) last = *it;
    wanted.select(proxy_->index(first, 0), proxy_->index(last, LayersModel::kColumns - 1));
  }
  syncing_ = true;
  table_->selectionModel()->select(wanted, QItemSelectionModel::ClearAndSelect);
  if (!rows.empty()) {
    const QModelIndex first = proxy_->index(*rows.begin(), 0);
    table_->selectionModel()->setCurrentIndex(first, QItemSelectionModel::NoUpdate);
    table_->scrollTo(first);
  }
  syncing_ = false;
  model_->set_selected(nodes);
}

void LayersPanel::add_format_menu(QMenu* menu, SiteKind kind, const std::vector<NodeId>& nodes) {
  auto* sub = menu->addMenu(tr("%1 format").arg(site_title(kind)));
  sub->addAction(tr("Float"), this, [this, kind, nodes] {
    Q_EMIT format_chosen(nodes, kind, std::nullopt, tr("Set %1 to float").arg(site_word(kind)));
  });
  sub->addSeparator();
  fill_preset_menu(sub, PresetLibrary::builtin(), kind, [this, kind, nodes](const Preset& p) {
    Q_EMIT format_chosen(nodes, kind, p.spec, tr("Set %1 to %2").arg(site_word(kind), QString::fromStdString(p.title)));
  });
}

void LayersPanel::show_menu(const QPoint& at) {
  const auto nodes = selection();
  QMenu menu(this);
  if (!nodes.empty()) {
    for (const auto kind : {SiteKind::kWeight, SiteKind::kInput, SiteKind::kOutput}) add_format_menu(&menu, kind, nodes);
    menu.addAction(tr("Make a rule…"), this, [this, nodes] { Q_EMIT rule_wanted(nodes); });
    menu.addAction(tr("Show in graph"), this, [this, nodes] { Q_EMIT activated(nodes.front()); });
    menu.addSeparator();
  }
  menu.addActions(table_->actions());
  menu.exec(table_->viewport()->mapToGlobal(at));
}

void LayersPanel::show_columns_menu(const QPoint& at) {
  QMenu menu(this);
  for (int c = 0; c < LayersModel::kColumns; ++c) {
    auto* action = menu.addAction(model_->headerData(c, Qt::Horizontal, Qt::DisplayRole).toString());
    action->setCheckable(true);
    action->setChecked(!table_->isColumnHidden(c));
    action->setEnabled(c != LayersModel::kName);
    connect(action, &QAction::toggled, this, [this, c](bool on) {
      own_columns_[c] = on;
      table_->setColumnHidden(c, !on);
      if (on) table_->setColumnWidth(c, needed_width(*table_, c, LayersModel::kShortNameRole));
      fit_columns();
    });
  }
  menu.exec(table_->horizontalHeader()->mapToGlobal(at));
}

}  // namespace quanvas
