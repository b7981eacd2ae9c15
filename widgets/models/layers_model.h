// Quanvas - the layer table as a Qt model: one row per layer, numbers kept as numbers so that sorting and
// copying are exact. Values in; made for 10,000 rows. GUI thread.
#pragma once

#include <limits>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include <QAbstractTableModel>
#include <QSortFilterProxyModel>
#include <QString>

#include "core/graph/layers.h"
#include "core/recipe/plan.h"
#include "core/report/report.h"
#include "widgets/models/layer_filter.h"

namespace quanvas {

// What a site of the row has now.
struct FormatCell {
  enum class State { kAbsent, kFloat, kQuantized };
  State state = State::kAbsent;
  QString chip;     // "W4"; empty unless quantized
  QuantSpec spec;   // meaningful when quantized
  QString why;      // tooltip
  int bits() const { return state == State::kQuantized ? code_bits(spec) : 0; }
};

struct LayerRow {
  NodeId node = kNoNode;
  QString name, type, op, scope, shape;
  QString short_name;      // what the table shows; the name when empty
  double parameters = 0, macs = 0;
  FormatCell weight, input, output;
  double weight_sqnr = std::numeric_limits<double>::quiet_NaN();  // dB; nan: not known
  double output_sqnr = std::numeric_limits<double>::quiet_NaN();  // dB, only this layer quantized
  bool stale = false;      // the facts are older than the recipe
  bool selected = false;

  // What the column "Act." shows: the format the layer computes with, else that of its result.
  const FormatCell& activation() const { return input.state == FormatCell::State::kQuantized ? input : output; }
};

// Rows in graph order. `facts` may lack layers.
// refresh_rows replaces formats and facts of rows made from the same layers: what an edit changes. set_row_facts
// replaces a row's facts alone.
void set_row_facts(LayerRow& row, const LayerFacts& facts);
void refresh_rows(std::vector<LayerRow>& rows, const Graph& graph, const std::vector<Layer>& layers, const Plan& plan,
                  const std::map<NodeId, LayerFacts>& facts);
std::vector<LayerRow> layer_rows(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan,
                                 const std::map<NodeId, LayerFacts>& facts);

class LayersModel : public QAbstractTableModel {
  Q_OBJECT

 public:
  enum Column { kName, kType, kShape, kWeight, kActivation, kOutput, kParameters, kMacs, kWeightSqnr, kOutputSqnr,
                kColumns };
  // kSort: a value to compare; kBits: bits of a format cell (0 float, -1 none); kSqnr: dB; kNode: node id;
  // kShortName: the name as it is drawn (copies, filters and rules use the whole name).
  enum Role { kSortRole = Qt::UserRole, kBitsRole, kSqnrRole, kNodeRole, kStaleRole, kShortNameRole };

  using QAbstractTableModel::QAbstractTableModel;

  // Same nodes in the same order: only the rows are repainted, selection and scroll stay.
  void set_rows(std::vector<LayerRow> rows);
  // Replaces the rows of these nodes; the others stay. Unknown nodes are ignored.
  void update_rows(const std::vector<LayerRow>& changed);
  const std::vector<LayerRow>& rows() const { return rows_; }
  int row_of(NodeId node) const;  // -1 when absent
  bool has_values(int column) const;  // in any row
  void set_selected(const std::vector<NodeId>& nodes);

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;

 private:
  QString text(const LayerRow& row, int column) const;
  QVariant sort_value(const LayerRow& row, int column) const;
  QString tooltip(const LayerRow& row, int column) const;

  std::vector<LayerRow> rows_;
  std::unordered_map<NodeId, int> row_of_;
};

// Sorts by kSortRole (unknown numbers last, either way) and filters with a LayerFilter.
class LayersProxy : public QSortFilterProxyModel {
  Q_OBJECT

 public:
  explicit LayersProxy(QObject* parent = nullptr);
  void set_filter(const LayerFilter& filter);
  const LayersModel* layers() const;

 protected:
  bool filterAcceptsRow(int row, const QModelIndex& parent) const override;
  bool lessThan(const QModelIndex& a, const QModelIndex& b) const override;

 private:
  LayerFilter filter_;
};

}  // namespace quanvas
