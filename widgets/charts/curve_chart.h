// Quanvas - a training curve: loss over steps (left axis), top-1 at the end of each epoch (right axis).
// Drag and wheel zoom along the steps, double click shows everything. GUI thread.
#pragma once

#include <vector>

#include <QWidget>

#include "core/report/report.h"

class QCustomPlot;

namespace quanvas {

class CurveChart : public QWidget {
  Q_OBJECT

 public:
  explicit CurveChart(QWidget* parent = nullptr);
  void set_points(const std::vector<TrainPoint>& points);
  void add_point(const TrainPoint& point);   // of a run that is going on
  QString csv() const;
  QCustomPlot* plot() const { return plot_; }

 protected:
  void resizeEvent(QResizeEvent* event) override;

 private:
  void space_ticks();
  void restyle();
  void show_all();

  QCustomPlot* plot_;
  std::vector<TrainPoint> points_;
};

}  // namespace quanvas
