// Quanvas - a matrix of numbers as coloured cells with their number in them (cividis; the colour never stands
// alone). Row names at the left, column names above, both stay while scrolling. Mouse: hover shows the cell's
// tooltip, click activates. Keyboard: arrows move, Enter or Space activates. GUI thread.
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include <QAbstractScrollArea>
#include <QString>
#include <QStringList>

namespace quanvas {

struct HeatMapData {
  QStringList rows, columns;
  // rows x columns; nan: not there yet, drawn as an empty cell.
  std::vector<std::vector<double>> values;
  // Same size or empty: per row the outlined column, -1 none.
  std::vector<int> outlined;
  std::function<QString(double value, int column)> text;     // in the cell
  std::function<double(double value, int column)> position;  // 0..1 on the colour scale, 1 is bad
  std::function<QString(int row, int column)> tooltip;
  bool clickable = false;
};

class HeatMap : public QAbstractScrollArea {
  Q_OBJECT

 public:
  explicit HeatMap(QWidget* parent = nullptr);
  void set_data(HeatMapData data);
  const HeatMapData& data() const { return data_; }

  QRect cell_rect(int row, int column) const;   // in viewport coordinates
  QPoint cell_at(const QPoint& position) const; // x = column, y = row; (-1, -1) outside
  // Whole matrix without scroll bars, for export.
  void render_all(QPainter* painter, const QRect& rect) const;
  QSize full_size() const;

 Q_SIGNALS:
  void cell_clicked(int row, int column);
  void current_changed(int row, int column);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;
  bool viewportEvent(QEvent* event) override;
  QSize sizeHint() const override { return {420, 180}; }

 private:
  void update_geometry();
  void paint_cells(QPainter& painter, const QRect& area, QPoint scroll, int cell_width) const;
  void paint_cell(QPainter& painter, const QRect& rect, int row, int column) const;
  void paint_names(QPainter& painter, const QRect& area, QPoint scroll, int cell_width) const;
  int name_width() const;
  int rows() const { return static_cast<int>(data_.rows.size()); }
  int columns() const { return static_cast<int>(data_.columns.size()); }
  double value(int row, int column) const;
  void set_current(int row, int column);

  HeatMapData data_;
  int cell_width_ = 54;
  int current_row_ = 0, current_column_ = 0;
};

}  // namespace quanvas
