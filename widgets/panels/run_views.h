// Quanvas - what is inside a run, and two runs side by side. Views of values; the window shows them in dialogs.
#pragma once

#include <QWidget>

#include "core/report/compare.h"

class QTableWidget;
class QTabWidget;

namespace quanvas {

// Two runs: figures with their differences, layer by layer, and what differs in the recipes.
class RunCompareView : public QWidget {
  Q_OBJECT

 public:
  RunCompareView(const Run& a, const Run& b, QWidget* parent = nullptr);
  const Comparison& comparison() const { return comparison_; }
  QTableWidget* layers() const { return layers_; }
  QTableWidget* figures() const { return figures_; }
  QString recipe_text() const;

 Q_SIGNALS:
  void layer_clicked(quanvas::NodeId node);

 private:
  void name_passes(const Run& a, const Run& b);
  QTableWidget* build_figures(const Run& a, const Run& b);
  QTableWidget* build_layers();

  Comparison comparison_;
  QTableWidget *figures_, *layers_;
};

// One run: figures, passes and what they did, issues, training curve, recipe text, versions.
class RunDetailsView : public QWidget {
  Q_OBJECT

 public:
  explicit RunDetailsView(const Run& run, QWidget* parent = nullptr);
  // What was exported of it, oldest first: a page more.
  void set_exports(const std::vector<ExportReport>& reports);
  QTableWidget* exports() const { return exports_; }

 private:
  QTabWidget* tabs_;
  QTableWidget* exports_ = nullptr;
};

}  // namespace quanvas
