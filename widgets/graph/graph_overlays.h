// Quanvas - what lies over the graph: the legend of the colours and the map of the whole network.
#pragma once

#include <vector>

#include <QPixmap>
#include <QRectF>
#include <QWidget>

#include "widgets/graph/card_face.h"

namespace quanvas {

class Legend : public QWidget {
  Q_OBJECT

 public:
  explicit Legend(QWidget* parent);
  void set_entries(const QString& title, std::vector<LegendEntry> entries);
  const std::vector<LegendEntry>& entries() const { return entries_; }
  QSize sizeHint() const override;

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  QString title_;
  std::vector<LegendEntry> entries_;
};

// What the highlighted path is, in a sentence at the upper right.
class PathNote : public QWidget {
  Q_OBJECT

 public:
  explicit PathNote(QWidget* parent);
  void set_text(const QString& text);   // empty: hidden
  QString text() const { return text_; }
  // At the right of this strip, as wide as the sentence wants and the strip allows; its height is ignored.
  void place(const QRect& strip);

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  QString text_;
};

// Coloured bars of all cards and the part that is in view. Click or drag moves the view.
class Minimap : public QWidget {
  Q_OBJECT

 public:
  struct Bar {
    QRectF rect;   // scene
    Mark mark;
    bool faded = false;
  };
  explicit Minimap(QWidget* parent);
  void set_scene(const QRectF& bounds, std::vector<Bar> bars);
  void set_view(const QRectF& visible);
  QSize sizeHint() const override;

 Q_SIGNALS:
  void move_requested(const QPointF& scene_centre);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void changeEvent(QEvent* event) override;

 private:
  QRectF to_map(const QRectF& scene) const;
  QPointF to_scene(const QPointF& map) const;
  void draw_bars();

  QRectF bounds_, visible_;
  std::vector<Bar> bars_;
  QPixmap drawn_;
};

}  // namespace quanvas
