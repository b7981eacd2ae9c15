// Quanvas - the sweep: what each layer costs at each width, one layer at a time. Cells fill in while they are
// measured; the assigned width is outlined; a click assigns.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "core/report/report.h"
#include "widgets/panels/panel.h"

class QAbstractButton;
class QComboBox;
class QLabel;
class QPushButton;
class QStackedLayout;
class QToolButton;

namespace quanvas {

class EmptyState;
class HeatMap;

struct SweepLayer {
  NodeId node = kNoNode;
  QString name;
  int weight_bits = 0, activation_bits = 0;  // assigned now; 0: float
};

class SweepPanel : public Panel {
  Q_OBJECT

 public:
  explicit SweepPanel(QWidget* parent = nullptr);

  void set_layers(const std::vector<SweepLayer>& layers);   // compute layers, graph order
  // The sweep that is shown; id: its run. none: nothing measured yet.
  void set_sweep(const std::optional<SweepResult>& sweep, std::int64_t id);
  void set_running(bool running);
  void begin(const SweepSettings& settings);   // a new sweep: empties the cells
  void add_cell(const SweepCell& cell);        // of the running sweep
  // Top-1 lost by a run of the current recipe or rise of its perplexity, in share; none: not measured.
  void set_measured(std::optional<double> drop);
  void set_can_start(bool can, const QString& why_not);

  // Sum over the layers of the drop at their assigned width; none while a layer's cell is missing.
  std::optional<double> predicted_drop() const;
  HeatMap* map() const { return map_; }
  QString note() const;

 Q_SIGNALS:
  void width_chosen(quanvas::NodeId node, int bits, bool weights, bool activations);
  void start_wanted();                      // opens the settings
  void resume_wanted(qint64 id);
  void cancel_wanted();
  void layer_clicked(quanvas::NodeId node);

 private:
  void refresh();
  void update_note();
  const SweepCell* cell(NodeId node, int bits) const;
  bool by_accuracy() const;
  bool of_tokens() const;  // what is lost is a rise of the perplexity, in per cent, not points of top-1
  int assigned_bits(const SweepLayer& layer) const;

  std::vector<SweepLayer> layers_;
  std::vector<SweepLayer> rows_;      // layers of the sweep
  std::optional<SweepResult> sweep_;
  std::map<std::pair<NodeId, int>, SweepCell> cells_;
  std::int64_t id_ = 0;
  bool running_ = false;
  std::optional<double> measured_;
  HeatMap* map_;
  QLabel* note_;
  QComboBox* metric_;
  QToolButton *start_, *resume_;
  EmptyState* empty_;
  QAbstractButton* empty_start_;
  QWidget* page_;
  QStackedLayout* stack_;
};

}  // namespace quanvas
