// Quanvas - where does it hurt: SQNR per layer as bars (isolated and cumulative) or as a matrix of layers and
// metrics, of the current recipe (live) or of a chosen run.
#pragma once

#include <vector>

#include "core/report/report.h"
#include "widgets/charts/error_bars.h"
#include "widgets/panels/panel.h"

class QComboBox;
class QStackedLayout;
class QToolButton;

namespace quanvas {

class EmptyState;
class HeatMap;

class ErrorPanel : public Panel {
  Q_OBJECT

 public:
  explicit ErrorPanel(QWidget* parent = nullptr);
  // Live facts of the current recipe; their cumulative error is not known.
  void set_live(const std::vector<ErrorBar>& bars);
  // Runs with per-layer results; newest last.
  void set_runs(const std::vector<Run>& runs);
  void set_selection(const std::vector<NodeId>& nodes);
  QComboBox* source_combo() const { return source_; }
  ErrorBars* bars() const { return bars_; }
  HeatMap* matrix() const { return matrix_; }

 Q_SIGNALS:
  void layer_clicked(quanvas::NodeId node);

 private:
  void show_source();
  void show_run(const Run& run);
  void show_live();

  std::vector<ErrorBar> live_;
  std::vector<Run> runs_;
  std::vector<NodeId> shown_nodes_;
  QComboBox* source_;
  QToolButton* matrix_button_;
  ErrorBars* bars_;
  HeatMap* matrix_;
  EmptyState* empty_;
  QStackedLayout* stack_;
};

}  // namespace quanvas
