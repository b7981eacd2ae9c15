#include "widgets/graph/graph_items.h"

#include <algorithm>
#include <cmath>

#include <QFontMetricsF>
#include <QPainter>
#include <QStyleOptionGraphicsItem>

#include "widgets/common/icons.h"
#include "widgets/common/theme.h"

namespace quanvas {

namespace {

constexpr double kZoomThinLine = 1.05;

struct Fonts {
  QFont title = text_font(13, QFont::DemiBold), small = text_font(12), second = text_font(11), chip = text_font(11, QFont::DemiBold);
};
const Fonts& fonts() {
  static const Fonts f;
  return f;
}

double zoom_of(const QStyleOptionGraphicsItem* option, const QPainter& painter) {
  return option->levelOfDetailFromTransform(painter.worldTransform());
}

void draw_icon(QPainter& painter, const QString& name, const QPointF& corner, int size, const QColor& color) {
  const double ratio = painter.device() == nullptr ? 1 : painter.device()->devicePixelRatioF();
  const double scale = std::clamp(painter.worldTransform().m11(), 1.0, 3.0);
  painter.drawPixmap(QRectF(corner, QSizeF(size, size)), icon_pixmap(name, size, color, ratio * scale), QRectF());
}

void draw_elided(QPainter& painter, const QFont& font, const QColor& color, const QPointF& baseline, double width,
                 const QString& text, Qt::TextElideMode mode) {
  if (width < 8) return;
  painter.setFont(font);
  painter.setPen(color);
  const QFontMetricsF metrics(font);
  const bool fits = metrics.horizontalAdvance(text) <= width;
  painter.drawText(baseline, fits ? text : metrics.elidedText(text, mode, width));
}

void fill_mark(QPainter& painter, const QPainterPath& path, const QColor& color, bool hatched) {
  painter.fillPath(path, color);
  if (hatched) painter.fillPath(path, QBrush(ink_on(color), Qt::BDiagPattern));
}

// Leaves and arrives vertically: a curve, or two round corners where a curve would be too flat. Level pieces of
// different sources run at different heights (lane −1, 0, 1), so that they can be told apart.
void add_turn(QPainterPath& path, const QPointF& from, const QPointF& to, int lane) {
  const double dx = to.x() - from.x(), dy = to.y() - from.y();
  const double half = (from.y() + to.y()) / 2 + lane * dy * 0.14;
  if (dx == 0) {
    path.lineTo(to);
  } else if (std::fabs(dx) < 2.2 * std::fabs(dy)) {
    path.cubicTo({from.x(), half}, {to.x(), half}, to);
  } else {
    const double rx = std::copysign(std::min(14.0, std::fabs(dy) * 0.36), dx), ry = std::copysign(std::fabs(rx), dy);
    path.lineTo(from.x(), half - ry);
    path.quadTo({from.x(), half}, {from.x() + rx, half});
    path.lineTo(to.x() - rx, half);
    path.quadTo({to.x(), half}, {to.x(), half + ry});
    path.lineTo(to);
  }
}

QPainterPath rounded(const QRectF& rect, double radius) {
  QPainterPath path;
  path.addRoundedRect(rect, radius, radius);
  return path;
}

}  // namespace

double opacity_of(Fade fade, double zoom) {
  switch (fade) {
    case Fade::kNone: break;
    // A title off the path keeps 3:1 against its card in both themes; bars have no text to be read.
    case Fade::kOffPath: return zoom < kZoomCard ? 0.3 : 0.5;
    case Fade::kNotFound: return 0.3;
  }
  return 1;
}

QRectF toggle_rect(const QRectF& rect, bool closed_group) {
  return closed_group ? QRectF(rect.left() + 14, rect.top() + 7, 16, 16) : QRectF(rect.left() + 7, rect.top() + 5, 16, 16);
}

void CardItem::set_size(const QSizeF& size) {
  if (rect_.size() == size) return;
  prepareGeometryChange();
  rect_ = QRectF(QPointF(0, 0), size);
}

void CardItem::set_face(CardFace face) {
  if (face_ == face) return;
  face_ = std::move(face);
  update();
}

void CardItem::set_state(const CardState& state) {
  if (state_ == state) return;
  state_ = state;
  update();
}

void CardItem::paint(QPainter* painter, const QStyleOptionGraphicsItem* option, QWidget*) {
  const double zoom = zoom_of(option, *painter);
  if (zoom < kZoomCard) {
    painter->translate(-pos());
    paint_far(*painter);
    painter->translate(pos());
    return;
  }
  painter->setOpacity(opacity_of(state_.fade, zoom));
  paint_frame(*painter, zoom);
  if (zoom >= kZoomText) paint_text(*painter, zoom);
}

void CardItem::paint_far(QPainter& painter) const {
  const QRectF rect = card_rect();
  painter.setOpacity(opacity_of(state_.fade, 0));
  double y = rect.top();
  for (const Mark& m : face_.marks) {
    const double height = rect.height() * m.share;
    painter.fillRect(QRectF(rect.left(), y, rect.width(), height), mark_color(m));
    y += height;
  }
  if (!state_.selected && !state_.current) return;
  QPen pen(colors().accent, state_.selected ? 3 : 1);
  pen.setCosmetic(true);
  painter.setPen(pen);
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(rect);
}

void CardItem::paint_frame(QPainter& painter, double zoom) const {
  const Colors& c = colors();
  const double radius = face_.kind == CardKind::kSmall ? 6 : 7;
  if (face_.closed_group) {
    painter.setPen(QPen(c.line, 1.2));
    painter.setBrush(c.row);
    painter.drawPath(rounded(rect_.translated(3, 3), radius));
  }
  const QColor border = state_.selected || state_.on_path ? c.accent : face_.hopeless ? c.error : face_.problem ? c.warning : c.line;
  painter.setPen(QPen(border, state_.selected ? 2.5 : state_.on_path ? 1.6 : 1.2));
  painter.setBrush(face_.kind == CardKind::kTerminal ? c.background : c.panel);
  painter.drawPath(rounded(rect_, radius));
  const double width = zoom < kZoomText ? 22 : face_.kind == CardKind::kSmall ? 5 : 7;
  paint_edge(painter, QRectF(rect_.left() + 2, rect_.top() + 2, width, rect_.height() - 4));
  if (!state_.current) return;
  painter.setBrush(Qt::NoBrush);
  painter.setPen(QPen(c.accent, 1, Qt::DotLine));
  painter.drawPath(rounded(rect_.adjusted(-3.5, -3.5, 3.5, 3.5), radius + 3));
}

void CardItem::paint_edge(QPainter& painter, const QRectF& edge) const {
  const QPainterPath whole = rounded(edge, 3);
  if (face_.marks.size() == 1) {
    const QColor color = mark_color(face_.marks.front());
    fill_mark(painter, whole, color, face_.marks.front().hatched);
    if (face_.marks.front().scale == Mark::Scale::kNone) return;
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(outline_of(color, colors()), 1));
    painter.drawPath(rounded(edge.adjusted(0.5, 0.5, -0.5, -0.5), 2.5));
    return;
  }
  double y = edge.top();
  for (const Mark& m : face_.marks) {
    QPainterPath part;
    part.addRect(QRectF(edge.left(), y, edge.width(), edge.height() * m.share));
    fill_mark(painter, whole.intersected(part), mark_color(m), m.hatched);
    y += edge.height() * m.share;
  }
}

void CardItem::paint_text(QPainter& painter, double zoom) const {
  const Colors& c = colors();
  const bool details = zoom >= kZoomSubtitle;
  const bool small = face_.kind == CardKind::kSmall;
  double left = rect_.left() + (small ? 14 : 18), right = rect_.right() - 10;
  if (face_.closed_group) {
    draw_icon(painter, QStringLiteral("chevron-right"), QPointF(left - 3, rect_.top() + 8), 14, c.muted);
    left += 14;
  }
  const double title_y = small ? rect_.center().y() + 4.5 : details ? rect_.top() + 18 : rect_.center().y() + 4.5;
  double title_right = right;
  if (!face_.chip.isEmpty() && !small) title_right = paint_chip(painter) - 6;
  if (face_.problem) {
    const bool hopeless = face_.hopeless;
    draw_icon(painter, hopeless ? QStringLiteral("error") : QStringLiteral("warning"), QPointF(title_right - 14, title_y - 11.5), 14, hopeless ? c.error : c.warning);
    title_right -= 18;
  }
  if (small && details && !face_.value.isEmpty()) {
    paint_value(painter, title_right);
    title_right -= QFontMetricsF(fonts().second).horizontalAdvance(face_.value) + (face_.stale ? 22 : 8);
  }
  draw_elided(painter, small ? fonts().small : fonts().title, c.text, {left, title_y}, title_right - left, face_.title,
              Qt::ElideMiddle);
  if (small || !details) return;
  double second_right = right;
  if (!face_.value.isEmpty()) {
    paint_value(painter, right);
    second_right -= QFontMetricsF(fonts().second).horizontalAdvance(face_.value) + (face_.stale ? 22 : 8);
  }
  draw_elided(painter, fonts().second, c.muted, {left, rect_.top() + 34}, second_right - left, face_.subtitle,
              Qt::ElideRight);
}

// Returns its left side.
double CardItem::paint_chip(QPainter& painter) const {
  const QColor color = bits_color(face_.chip_bits);
  const double width = std::max(34.0, QFontMetricsF(fonts().chip).horizontalAdvance(face_.chip) + 12);
  const QRectF chip(rect_.right() - 10 - width, rect_.top() + 7, width, 17);
  fill_mark(painter, rounded(chip, 4), color, false);
  if (face_.chip_hatched) {
    QPainterPath stripes;
    stripes.addRect(QRectF(chip.left(), chip.top(), 5, chip.height()));
    painter.fillPath(stripes.intersected(rounded(chip, 4)), QBrush(ink_on(color), Qt::BDiagPattern));
  }
  painter.setBrush(Qt::NoBrush);
  painter.setPen(QPen(outline_of(color, colors()), 1));
  painter.drawPath(rounded(chip.adjusted(0.5, 0.5, -0.5, -0.5), 3.5));
  painter.setFont(fonts().chip);
  painter.setPen(ink_on(color));
  painter.drawText(chip, Qt::AlignCenter, face_.chip);
  return chip.left();
}

void CardItem::paint_value(QPainter& painter, double right) const {
  const Colors& c = colors();
  const QFontMetricsF metrics(fonts().second);
  const double width = metrics.horizontalAdvance(face_.value);
  const double y = face_.kind == CardKind::kSmall ? rect_.center().y() + 4 : rect_.top() + 37;
  const QColor color = face_.value_poor ? c.warning : c.muted;
  painter.setFont(fonts().second);
  painter.setPen(face_.stale ? mix(color, c.panel, 0.3) : color);
  painter.drawText(QPointF(right - width, y), face_.value);
  if (face_.stale) draw_icon(painter, QStringLiteral("stale"), QPointF(right - width - 15, y - 10), 12, c.muted);
}

QPainterPath FrameItem::shape() const {
  QPainterPath path;
  path.addRect(QRectF(rect_.left(), rect_.top(), rect_.width(), header_));
  return path;
}

void FrameItem::set_frame(const QSizeF& size, double header, const QString& title, int depth) {
  prepareGeometryChange();
  rect_ = QRectF(QPointF(0, 0), size);
  header_ = header;
  title_ = title;
  depth_ = depth;
  update();
}

void FrameItem::set_selected(bool selected) {
  if (selected_ == selected) return;
  selected_ = selected;
  update();
}

void FrameItem::paint(QPainter* painter, const QStyleOptionGraphicsItem* option, QWidget*) {
  paint_at(*painter, zoom_of(option, *painter));
}

void FrameItem::paint_at(QPainter& painter, double zoom) const {
  const Colors& c = colors();
  // Each level a little nearer to the panel's colour: depth without further lines.
  painter.setBrush(mix(c.background, c.dark ? c.line : c.panel, std::min(0.75, (c.dark ? 0.12 : 0.3) * (depth_ + 1))));
  QPen pen(selected_ ? c.accent : c.line, 1);
  pen.setCosmetic(zoom < kZoomText);
  painter.setPen(pen);
  painter.drawPath(rounded(rect_, 8));
  if (zoom < kZoomText) return;
  draw_icon(painter, QStringLiteral("chevron-down"), QPointF(8, 6), 14, c.muted);
  draw_elided(painter, text_font(11, QFont::DemiBold), c.muted, {26, 17}, rect_.width() - 34, title_, Qt::ElideMiddle);
}

void EdgeItem::set_route(const RoutedEdge& route, const QString& stub_from, const QString& stub_to) {
  prepareGeometryChange();
  stub_ = route.stub;
  stub_from_ = stub_from;
  stub_to_ = stub_to;
  points_.clear();
  const int source = route.from != kNoNode ? route.from : route.from_group;
  const int lane = std::abs(source) % 3 - 1;
  path_ = {};
  arrow_ = {};
  for (const LayoutPoint& p : route.points) points_ << QPointF(p.x, p.y);
  for (qsizetype i = 0; i < points_.size(); ++i) {
    const QPointF to = points_[i];
    if (i == 0 || (stub_ && i == 2)) {
      path_.moveTo(to);
      continue;
    }
    add_turn(path_, points_[i - 1], to, lane);
  }
  if (!points_.isEmpty()) {
    const QPointF tip = points_.back() + QPointF(0, route.upwards ? 1.5 : -1.5);
    const double wing = route.upwards ? 5.5 : -5.5;
    arrow_.moveTo(tip + QPointF(-4, wing));
    arrow_.lineTo(tip);
    arrow_.lineTo(tip + QPointF(4, wing));
  }
  bounds_ = path_.boundingRect().adjusted(-8, -8, stub_ ? 150 : 48, 8);
  update();
}

void EdgeItem::set_label(const QString& label) {
  if (label_ == label) return;
  label_ = label;
  update();
}

void EdgeItem::set_state(const EdgeState& state) {
  if (state_ == state) return;
  state_ = state;
  setZValue(state.touches || state.on_path ? 2 : 1);
  update();
}

void EdgeItem::paint(QPainter* painter, const QStyleOptionGraphicsItem* option, QWidget*) {
  const Colors& c = colors();
  const double zoom = zoom_of(option, *painter);
  painter->setOpacity(opacity_of(state_.fade, zoom));
  painter->setBrush(Qt::NoBrush);
  if (zoom < kZoomCard) {
    painter->setPen(far_pen());
    if (!stub_) painter->drawPolyline(points_);
    return;
  }
  QPen pen(stands_out() ? c.accent : c.edge, state_.on_path ? 2.6 : state_.touches ? 2 : 1.4, stub_ ? Qt::DotLine : Qt::SolidLine,
           Qt::RoundCap, Qt::RoundJoin);
  // While a large graph moves nothing is smooth, and a line about as wide as a pixel is drawn much faster as just that.
  if (!stands_out() && zoom <= kZoomThinLine && !painter->testRenderHint(QPainter::Antialiasing)) {
    pen.setWidthF(1);
    pen.setCosmetic(true);
  }
  painter->setPen(pen);
  painter->drawPath(path_);
  pen.setStyle(Qt::SolidLine);
  painter->setPen(pen);
  painter->drawPath(arrow_);
  if (zoom >= kZoomText) paint_label(*painter);
}

QPen EdgeItem::far_pen() const {
  QPen pen(stands_out() ? colors().accent : colors().edge, state_.on_path ? 2 : 1, Qt::SolidLine, Qt::RoundCap, Qt::RoundJoin);
  pen.setCosmetic(true);
  return pen;
}

void EdgeItem::paint_label(QPainter& painter) const {
  if (points_.isEmpty()) return;
  painter.setFont(fonts().second);
  painter.setPen(state_.touches || state_.on_path ? colors().accent : colors().muted);
  if (!label_.isEmpty()) painter.drawText(points_.back() + QPointF(9, -8), label_);
  if (!stub_) return;
  const QFontMetricsF metrics(fonts().second);
  painter.drawText(points_[1] + QPointF(5, 0), QStringLiteral("→ ") + metrics.elidedText(stub_to_, Qt::ElideMiddle, 120));
  painter.drawText(points_[2] + QPointF(5, 8), metrics.elidedText(stub_from_, Qt::ElideMiddle, 120) + QStringLiteral(" →"));
}

}  // namespace quanvas
