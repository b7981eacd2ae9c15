#include "widgets/models/layers_model.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "widgets/common/format.h"
#include "widgets/common/node_names.h"
#include "widgets/common/theme.h"
#include "widgets/models/shown_spec.h"

namespace quanvas {
namespace {

QString qs(const std::string& s) { return QString::fromStdString(s); }

struct ColumnText {
  const char* title;
  const char* tooltip;
  bool right;
};
const ColumnText kColumnTexts[LayersModel::kColumns] = {
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Layer"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "Name of the node"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Type"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "ONNX operator and its kernel"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Shape"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "Shape of the layer's output"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Weight"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "Number format of the weight"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Act."),
     QT_TRANSLATE_NOOP("quanvas::LayersModel", "Number format of the activation that the layer computes with; of its output when the input is float"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Output"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "Number format of the output"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Params"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "Learnt elements: weight, bias, batch normalization"), true},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "MACs"), QT_TRANSLATE_NOOP("quanvas::LayersModel", "Multiply-accumulates for one sample"), true},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Weight SQNR"),
     QT_TRANSLATE_NOOP("quanvas::LayersModel", "10·log10( Σw² / Σ(w−w~)² ) in dB: higher is better"), false},
    {QT_TRANSLATE_NOOP("quanvas::LayersModel", "Output SQNR"),
     QT_TRANSLATE_NOOP("quanvas::LayersModel", "10·log10( Σy² / Σ(y−y~)² ) in dB at the layer's output, only this layer quantized, on the calibration sample: higher is better"), false},
};

FormatCell format_cell(const Graph& graph, const Layer& layer, const Plan& plan, const Site& site) {
  FormatCell cell;
  const SitePlan* p = plan.find(site);
  if (!p) return cell;
  cell.why = qs(p->why);
  if (!p->spec) {
    cell.state = FormatCell::State::kFloat;
    return cell;
  }
  cell.state = FormatCell::State::kQuantized;
  cell.spec = *p->spec;
  cell.chip = qs(chip_text(shown_spec(graph, layer, site, *p->spec), site.kind));
  return cell;
}

void set_formats(LayerRow& row, const Graph& graph, const Layer& layer, const Plan& plan) {
  for (const auto& site : layer.sites()) {
    FormatCell* cell = site.kind == SiteKind::kWeight   ? &row.weight
                       : site.kind == SiteKind::kInput  ? &row.input
                       : site.kind == SiteKind::kOutput ? &row.output
                                                        : nullptr;
    // Of several operands the first quantized one speaks for the layer.
    if (cell && cell->state != FormatCell::State::kQuantized) *cell = format_cell(graph, layer, plan, site);
  }
}

const FormatCell* cell_of(const LayerRow& row, int column) {
  switch (column) {
    case LayersModel::kWeight: return &row.weight;
    case LayersModel::kActivation: return &row.activation();
    case LayersModel::kOutput: return &row.output;
    default: return nullptr;
  }
}

double sqnr_of(const LayerRow& row, int column) {
  return column == LayersModel::kWeightSqnr ? row.weight_sqnr : row.output_sqnr;
}

QString cell_text(const FormatCell& cell) {
  switch (cell.state) {
    case FormatCell::State::kAbsent: return missing_text();
    case FormatCell::State::kFloat: return LayersModel::tr("float");
    case FormatCell::State::kQuantized: return cell.chip;
  }
  return {};
}

}  // namespace

void set_row_facts(LayerRow& row, const LayerFacts& facts) {
  row.weight_sqnr = row.output_sqnr = std::nan("");
  for (const auto& f : facts.sites)
    if (f.site.kind == SiteKind::kWeight && f.missing.empty()) row.weight_sqnr = f.error.sqnr_db;
  if (facts.output) row.output_sqnr = facts.output->sqnr_db;
}

std::vector<LayerRow> layer_rows(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan,
                                 const std::map<NodeId, LayerFacts>& facts) {
  std::vector<LayerRow> rows;
  rows.reserve(layers.size());
  std::unordered_map<std::string, std::size_t> in_scope;
  for (const Node& n : graph.nodes()) ++in_scope[n.scope];
  for (const auto& layer : layers) {
    const Node* node = graph.find(layer.node);
    LayerRow row;
    row.node = layer.node;
    if (node) {
      row.name = qs(node->name);
      row.short_name = list_name(*node, in_scope[node->scope]);
      row.op = qs(node->op);
      row.type = qs(describe_short(graph, *node));
      row.scope = qs(node->scope);
      const NodeCost cost = node_cost(graph, *node);
      row.parameters = cost.parameters;
      row.macs = cost.macs;
    }
    if (layer.output != kNoTensor && graph.tensor(layer.output).shape)
      row.shape = shown_shape(*graph.tensor(layer.output).shape);
    rows.push_back(std::move(row));
  }
  refresh_rows(rows, graph, layers, plan, facts);
  return rows;
}

void refresh_rows(std::vector<LayerRow>& rows, const Graph& graph, const std::vector<Layer>& layers, const Plan& plan,
                  const std::map<NodeId, LayerFacts>& facts) {
  for (std::size_t i = 0; i < std::min(rows.size(), layers.size()); ++i) {
    LayerRow& row = rows[i];
    row.weight = row.input = row.output = {};
    row.weight_sqnr = row.output_sqnr = std::nan("");
    set_formats(row, graph, layers[i], plan);
    if (const auto it = facts.find(row.node); it != facts.end()) set_row_facts(row, it->second);
  }
}

void LayersModel::set_rows(std::vector<LayerRow> rows) {
  const bool same_nodes = rows.size() == rows_.size() && std::equal(rows.begin(), rows.end(), rows_.begin(), [](const auto& a, const auto& b) {
                            return a.node == b.node;
                          });
  if (same_nodes) {
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i].selected = rows_[i].selected;
    rows_ = std::move(rows);
    if (!rows_.empty()) Q_EMIT dataChanged(index(0, 0), index(rowCount() - 1, kColumns - 1));
    return;
  }
  beginResetModel();
  rows_ = std::move(rows);
  row_of_.clear();
  for (std::size_t i = 0; i < rows_.size(); ++i) row_of_[rows_[i].node] = static_cast<int>(i);
  endResetModel();
}

void LayersModel::update_rows(const std::vector<LayerRow>& changed) {
  std::set<int> rows;
  for (const LayerRow& fresh : changed) {
    const int row = row_of(fresh.node);
    if (row < 0) continue;
    LayerRow& old = rows_[static_cast<std::size_t>(row)];
    const bool selected = old.selected;
    old = fresh;
    old.selected = selected;
    rows.insert(row);
  }
  // Neighbours together: every signal costs the proxy a search.
  for (auto it = rows.begin(); it != rows.end();) {
    const int first = *it;
    int last = first;
    while (++it != rows.end() && *it == last + 1) last = *it;
    Q_EMIT dataChanged(index(first, 0), index(last, kColumns - 1));
  }
}

int LayersModel::row_of(NodeId node) const {
  const auto it = row_of_.find(node);
  return it == row_of_.end() ? -1 : it->second;
}

bool LayersModel::has_values(int column) const {
  return std::any_of(rows_.begin(), rows_.end(), [column](const LayerRow& row) {
    if (const auto* cell = cell_of(row, column)) return cell->state != FormatCell::State::kAbsent;
    return (column != kWeightSqnr && column != kOutputSqnr) || !std::isnan(sqnr_of(row, column));
  });
}

void LayersModel::set_selected(const std::vector<NodeId>& nodes) {
  const std::set<NodeId> set(nodes.begin(), nodes.end());
  for (auto& row : rows_) row.selected = set.count(row.node) > 0;
}

int LayersModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(rows_.size());
}

int LayersModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : kColumns; }

QString LayersModel::text(const LayerRow& row, int column) const {
  switch (column) {
    case kName: return row.name;
    case kType: return row.type;
    case kShape: return row.shape;
    case kWeight:
    case kActivation:
    case kOutput: return cell_text(*cell_of(row, column));
    case kParameters: return count_text(row.parameters);
    case kMacs: return row.macs > 0 ? count_text(row.macs) : missing_text();
    case kWeightSqnr:
    case kOutputSqnr: return number_text(sqnr_of(row, column), 1);
  }
  return {};
}

QVariant LayersModel::sort_value(const LayerRow& row, int column) const {
  if (const auto* cell = cell_of(row, column)) {
    if (cell->state == FormatCell::State::kAbsent) return std::nan("");
    return cell->state == FormatCell::State::kFloat ? 32.0 : static_cast<double>(code_bits(cell->spec));
  }
  switch (column) {
    case kParameters: return row.parameters;
    case kMacs: return row.macs;
    case kWeightSqnr:
    case kOutputSqnr: return sqnr_of(row, column);
    default: return text(row, column);
  }
}

QString LayersModel::tooltip(const LayerRow& row, int column) const {
  if (const auto* cell = cell_of(row, column)) {
    if (cell->state == FormatCell::State::kQuantized)
      return qs(describe(cell->spec)) + QStringLiteral("\n") + cell->why;
    return cell->why;
  }
  if (column == kWeightSqnr || column == kOutputSqnr) {
    const QString formula = LayersModel::tr(kColumnTexts[column].tooltip);
    return row.stale ? tr("Stale: measured before the last edit.") + QStringLiteral("\n") + formula : formula;
  }
  if (column == kName && !row.scope.isEmpty()) return row.name + QStringLiteral("\n") + row.scope;
  return text(row, column);
}

QVariant LayersModel::data(const QModelIndex& index, int role) const {
  if (!index.isValid() || index.row() >= rowCount()) return {};
  const LayerRow& row = rows_[static_cast<std::size_t>(index.row())];
  const int column = index.column();
  switch (role) {
    case Qt::DisplayRole: return text(row, column);
    case Qt::ToolTipRole: return tooltip(row, column);
    case Qt::TextAlignmentRole:
      return QVariant(Qt::Alignment(kColumnTexts[column].right ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    case Qt::AccessibleTextRole:
      return tr(kColumnTexts[column].title) + QStringLiteral(" ") + text(row, column);
    case Qt::ForegroundRole: return column == kType || column == kShape ? QVariant(colors().muted) : QVariant();
    case kSortRole: return sort_value(row, column);
    case kNodeRole: return row.node;
    case kShortNameRole: return column == kName && !row.short_name.isEmpty() ? row.short_name : text(row, column);
    case kStaleRole: return row.stale;
    case kSqnrRole:
      if (column == kWeightSqnr || column == kOutputSqnr) return sqnr_of(row, column);
      return {};
    case kBitsRole:
      if (const auto* cell = cell_of(row, column))
        return cell->state == FormatCell::State::kAbsent ? -1 : cell->bits();
      return {};
    default: return {};
  }
}

QVariant LayersModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal || section < 0 || section >= kColumns) return {};
  const auto& c = kColumnTexts[section];
  if (role == Qt::DisplayRole) return tr(c.title);
  if (role == Qt::ToolTipRole) return tr(c.tooltip);
  if (role == Qt::TextAlignmentRole)
    return QVariant(Qt::Alignment(c.right ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  return {};
}

LayersProxy::LayersProxy(QObject* parent) : QSortFilterProxyModel(parent) {
  setSortRole(LayersModel::kSortRole);
  setDynamicSortFilter(true);
}

const LayersModel* LayersProxy::layers() const { return static_cast<const LayersModel*>(sourceModel()); }

void LayersProxy::set_filter(const LayerFilter& filter) {
  filter_ = filter;
  invalidateFilter();
}

bool LayersProxy::filterAcceptsRow(int row, const QModelIndex&) const {
  return filter_.empty() || filter_.matches(layers()->rows()[static_cast<std::size_t>(row)]);
}

bool LayersProxy::lessThan(const QModelIndex& a, const QModelIndex& b) const {
  const QVariant x = a.data(LayersModel::kSortRole), y = b.data(LayersModel::kSortRole);
  if (x.typeId() == QMetaType::QString) return QString::localeAwareCompare(x.toString(), y.toString()) < 0;
  const double u = x.toDouble(), v = y.toDouble();
  // Unknown numbers stay at the end in both directions.
  if (std::isnan(u) || std::isnan(v)) return std::isnan(u) == std::isnan(v) ? false : std::isnan(v) == (sortOrder() == Qt::AscendingOrder);
  return u < v;
}

}  // namespace quanvas
