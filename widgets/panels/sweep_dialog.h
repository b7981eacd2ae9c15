// Quanvas - settings of a sweep: which widths, weights or activations, how many samples.
#pragma once

#include <QDialog>

#include "core/report/report.h"
#include "widgets/models/catalog.h"

class QLabel;
class QPushButton;

namespace quanvas {

class SchemaForm;

// "8, 7, 4-2" -> 8 7 4 3 2; empty optional when it is no such list or a width lies outside 1..16.
std::optional<std::vector<int>> parse_bits(const QString& text);

class SweepDialog : public QDialog {
  Q_OBJECT

 public:
  // selected: layers chosen in the window; a box offers to sweep only these. passes: those of the engine; the ones that
  // round a layer's weights by its inputs are offered in the place of rounding to nearest.
  SweepDialog(const SweepSettings& settings, const std::vector<NodeId>& selected, int layer_count,
              const std::vector<PluginEntry>& passes = {}, QWidget* parent = nullptr);
  SweepSettings settings() const;
  SchemaForm* form() const { return form_; }

 private:
  void update_cost();

  std::vector<NodeId> selected_;
  int layer_count_;
  SchemaForm* form_;
  QLabel* cost_;
  QPushButton* ok_;
};

}  // namespace quanvas
