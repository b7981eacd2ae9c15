// Quanvas - the items of the graph's scene: cards (nodes and closed groups), frames of open groups, edges. They
// paint values with a level of detail; GraphView owns what they show.
#pragma once

#include <optional>
#include <string>

#include <QGraphicsItem>
#include <QPainterPath>
#include <QPen>
#include <QPolygonF>

#include "widgets/graph/card_face.h"

namespace quanvas {

// Below these zooms the second line goes, then the text, then everything but the coloured bar.
inline constexpr double kZoomSubtitle = 0.75, kZoomText = 0.5, kZoomCard = 0.25;

// What stands back: cards that a search does not mean, and, still to be read, those that are not on the path.
enum class Fade { kNone, kOffPath, kNotFound };
double opacity_of(Fade fade, double zoom);

struct CardState {
  bool selected = false, current = false, on_path = false;
  Fade fade = Fade::kNone;
  bool operator==(const CardState&) const = default;
};

struct EdgeState {
  bool touches = false, on_path = false;   // touches: one of its ends is selected
  Fade fade = Fade::kNone;
  bool operator==(const EdgeState&) const = default;
};

class CardItem : public QGraphicsItem {
 public:
  enum { Type = UserType + 1 };
  CardItem(NodeId node, std::string group) : node_(node), group_(std::move(group)) {}
  int type() const override { return Type; }
  QRectF boundingRect() const override { return rect_.adjusted(-5, -5, 5, 5); }
  void paint(QPainter* painter, const QStyleOptionGraphicsItem* option, QWidget* widget) override;

  NodeId node() const { return node_; }                  // kNoNode for a closed group
  const std::string& group() const { return group_; }    // path, empty for a node
  const CardFace& face() const { return face_; }
  QRectF card_rect() const { return rect_.translated(pos()); }
  void set_size(const QSizeF& size);
  void set_face(CardFace face);
  void set_state(const CardState& state);
  const CardState& state() const { return state_; }
  bool selected() const { return state_.selected; }
  // As a bar, at its place in the scene: what is painted below kZoomCard.
  void paint_far(QPainter& painter) const;

 private:
  void paint_frame(QPainter& painter, double zoom) const;
  void paint_edge(QPainter& painter, const QRectF& edge) const;
  void paint_text(QPainter& painter, double zoom) const;
  double paint_chip(QPainter& painter) const;
  void paint_value(QPainter& painter, double right) const;

  NodeId node_;
  std::string group_;
  QRectF rect_;
  CardFace face_;
  CardState state_;
};

// The frame of an open group; only its header takes the mouse.
class FrameItem : public QGraphicsItem {
 public:
  enum { Type = UserType + 2 };
  explicit FrameItem(std::string group) : group_(std::move(group)) {}
  int type() const override { return Type; }
  QRectF boundingRect() const override { return rect_.adjusted(-2, -2, 2, 2); }
  QPainterPath shape() const override;
  void paint(QPainter* painter, const QStyleOptionGraphicsItem* option, QWidget* widget) override;

  const std::string& group() const { return group_; }
  QRectF frame_rect() const { return rect_.translated(pos()); }
  void paint_at(QPainter& painter, double zoom) const;
  void set_frame(const QSizeF& size, double header, const QString& title, int depth);
  void set_selected(bool selected);

 private:
  std::string group_;
  QRectF rect_;
  double header_ = 26;
  QString title_;
  int depth_ = 0;
  bool selected_ = false;
};

class EdgeItem : public QGraphicsItem {
 public:
  enum { Type = UserType + 3 };
  int type() const override { return Type; }
  QRectF boundingRect() const override { return bounds_; }
  QPainterPath shape() const override { return {}; }
  void paint(QPainter* painter, const QStyleOptionGraphicsItem* option, QWidget* widget) override;

  // stub_from, stub_to: names of the far ends of a stub.
  void set_route(const RoutedEdge& route, const QString& stub_from, const QString& stub_to);
  void set_label(const QString& label);
  void set_state(const EdgeState& state);
  const EdgeState& state() const { return state_; }
  bool is_stub() const { return stub_; }
  bool stands_out() const { return state_.touches || state_.on_path; }
  const QPolygonF& points() const { return points_; }
  QPen far_pen() const;

 private:
  void paint_label(QPainter& painter) const;
  QPainterPath path_;
  QPolygonF points_;
  QPainterPath arrow_;
  QRectF bounds_;
  QString label_, stub_from_, stub_to_;
  bool stub_ = false;
  EdgeState state_;
};

// The collapse and expand triangle of cards and frames: where a single click opens or closes.
QRectF toggle_rect(const QRectF& rect, bool closed_group);

}  // namespace quanvas
