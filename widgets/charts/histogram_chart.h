// Quanvas - the distribution of a tensor with its quantizer: bars, dashed grid points, clip limits as handles
// that can be dragged. Keyboard: Tab focus; Page Up / Page Down choose the handle, Left / Right move it. GUI thread.
#pragma once

#include <optional>

#include <QWidget>

#include "core/report/report.h"

namespace quanvas {

// What dragging may do with the limits.
enum class ClipMode {
  kFixed,      // shown, not draggable
  kSymmetric,  // both move: -t, t
  kUpper,      // lower stays at 0
  kBoth,       // each on its own side of 0
};

class HistogramChart : public QWidget {
  Q_OBJECT

 public:
  explicit HistogramChart(QWidget* parent = nullptr);

  void set_histogram(const Histogram& histogram);
  void clear();
  const std::optional<Histogram>& histogram() const { return histogram_; }
  void set_log(bool log);
  bool is_log() const { return log_; }
  void set_clip_mode(ClipMode mode) { mode_ = mode; }
  void set_value_title(const QString& title);  // "weight value"
  bool dragging() const { return drag_ != 0; }

  double x_of(double value) const;      // pixel of a value
  double value_at(double x) const;
  void paint_chart(QPainter& painter, const QRectF& rect) const;  // also for export
  QString csv() const;                  // bin_lo,bin_hi,count

 Q_SIGNALS:
  // While dragging and at its end (finished). The limits obey ClipMode; lo <= 0 <= hi, not both 0.
  void clip_changed(double lo, double hi, bool finished);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  bool event(QEvent* event) override;
  QSize sizeHint() const override { return {420, 180}; }
  QSize minimumSizeHint() const override { return {220, 110}; }

 private:
  QRectF plot_rect(const QRectF& rect) const;
  double map_x(double value, const QRectF& plot) const;
  double height_of(double count, double largest, double full) const;
  void paint_bars(QPainter& painter, const QRectF& plot) const;
  void paint_counts_axis(QPainter& painter, const QRectF& plot) const;
  void paint_value_axis(QPainter& painter, const QRectF& plot, const QRectF& rect) const;
  void paint_grid_points(QPainter& painter, const QRectF& plot) const;
  void paint_handles(QPainter& painter, const QRectF& plot) const;
  int handle_at(const QPointF& position) const;   // -1 lower, 1 upper, 0 none
  void move_handle(int which, double value, bool finished);
  double largest_count() const;
  void update_range();

  std::optional<Histogram> histogram_;
  double lo_ = 0, hi_ = 1;   // shown range: bins and clip limits
  double clip_lo_ = 0, clip_hi_ = 0;
  bool has_clip_ = false;
  bool log_ = true;
  ClipMode mode_ = ClipMode::kFixed;
  QString value_title_;
  int drag_ = 0;
  int current_ = 1;          // handle that the keyboard moves
};

}  // namespace quanvas
