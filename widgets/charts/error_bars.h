// Quanvas - SQNR per layer as horizontal bars: isolated (only this layer quantized) and cumulative (whole network
// quantized up to here) one above the other, with their numbers. Click or Enter chooses a layer. GUI thread.
#pragma once

#include <vector>

#include <QAbstractScrollArea>
#include <QString>

#include "core/graph/graph.h"

namespace quanvas {

struct ErrorBar {
  NodeId node = kNoNode;
  QString name;
  double isolated = 0, cumulative = 0;  // dB; nan: not measured, +inf: nothing lost
  bool stale = false;
};

class ErrorBars : public QAbstractScrollArea {
  Q_OBJECT

 public:
  explicit ErrorBars(QWidget* parent = nullptr);
  void set_bars(std::vector<ErrorBar> bars);
  const std::vector<ErrorBar>& bars() const { return bars_; }
  void set_selected(const std::vector<NodeId>& nodes);
  QString csv() const;
  void render_all(QPainter* painter, const QRect& rect) const;
  QSize full_size() const;
  QRect row_rect(int row) const;  // in viewport coordinates

 Q_SIGNALS:
  void layer_clicked(quanvas::NodeId node);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  bool viewportEvent(QEvent* event) override;
  QSize sizeHint() const override { return {420, 180}; }

 private:
  void paint_row(QPainter& painter, const QRect& rect, int row, int name_width) const;
  void paint_bar(QPainter& painter, const QRectF& rect, double db, bool isolated) const;
  int name_width() const;
  void update_scroll();

  std::vector<ErrorBar> bars_;
  std::vector<NodeId> selected_;
  int current_ = 0;
  double full_db_ = 45;  // length of the longest bar
};

}  // namespace quanvas
