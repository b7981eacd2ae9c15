// GraphView: mouse, keys, gestures.
#include <algorithm>
#include <cmath>
#include <limits>

#include <QContextMenuEvent>
#include <QGestureEvent>
#include <QHelpEvent>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPinchGesture>
#include <QRubberBand>
#include <QScrollBar>
#include <QToolTip>
#include <QWheelEvent>

#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_overlays.h"
#include "widgets/graph/graph_view.h"

namespace quanvas {

namespace {

// Above this many cards antialiasing is off while the view moves.
constexpr std::size_t kManyCards = 400;
constexpr int kDragStart = 4;

}  // namespace

CardItem* GraphView::card_at(const QPoint& pos) const {
  if (items_are_old()) return nullptr;
  for (QGraphicsItem* item : items(pos))
    if (auto* card = qgraphicsitem_cast<CardItem*>(item); card != nullptr && card->card_rect().contains(mapToScene(pos)))
      return card;
  return nullptr;
}

FrameItem* GraphView::header_at(const QPoint& pos) const {
  if (items_are_old()) return nullptr;
  for (QGraphicsItem* item : items(pos))
    if (auto* frame = qgraphicsitem_cast<FrameItem*>(item)) return frame;
  return nullptr;
}

CardItem* GraphView::shown_card(NodeId id) const {
  if (items_are_old()) return nullptr;
  if (const auto it = node_cards_.find(id); it != node_cards_.end()) return it->second;
  const auto hidden = hidden_in_.find(id);
  if (hidden == hidden_in_.end()) return nullptr;
  const auto it = group_cards_.find(hidden->second);
  return it == group_cards_.end() ? nullptr : it->second;
}

std::vector<NodeId> GraphView::nodes_of(const CardItem& card) const {
  if (card.group().empty()) return card.node() >= 0 ? std::vector<NodeId>{card.node()} : std::vector<NodeId>{};
  const auto it = group_index_.find(card.group());
  return it == group_index_.end() ? std::vector<NodeId>{} : layout_.groups[static_cast<std::size_t>(it->second)].nodes;
}

void GraphView::select(const std::vector<NodeId>& nodes, bool add, bool toggle) {
  std::set<NodeId> next = add ? selected_ : std::set<NodeId>();
  const bool all_in = std::all_of(nodes.begin(), nodes.end(), [&](NodeId n) { return next.count(n) > 0; });
  for (const NodeId n : nodes) {
    if (toggle && all_in) {
      next.erase(n);
    } else {
      next.insert(n);
    }
  }
  change_selection(std::move(next));
}

void GraphView::click(const QPoint& pos, Qt::KeyboardModifiers modifiers) {
  const bool add = modifiers & (Qt::ControlModifier | Qt::ShiftModifier);
  const QPointF at = mapToScene(pos);
  if (CardItem* card = card_at(pos)) {
    if (!card->group().empty() && toggle_rect(card->card_rect(), true).contains(at)) {
      toggle_group(card->group());
      return;
    }
    const std::vector<NodeId> nodes = nodes_of(*card);
    if (nodes.empty()) return;
    set_current(nodes.front(), false);
    select(nodes, add, add);
  } else if (FrameItem* frame = header_at(pos)) {
    if (toggle_rect(frame->frame_rect(), false).contains(at)) {
      toggle_group(frame->group());
      return;
    }
    std::vector<NodeId> layers;
    for (const NodeId id : layout_.groups[static_cast<std::size_t>(group_index_.at(frame->group()))].nodes)
      if (content().find(id) != nullptr && content().find(id)->layer) layers.push_back(id);
    select(layers, add, add);
  } else if (!add) {
    change_selection({});
  }
}

void GraphView::mousePressEvent(QMouseEvent* event) {
  press_ = last_ = event->pos();
  press_modifiers_ = event->modifiers();
  moved_ = false;
  const bool left = event->button() == Qt::LeftButton;
  if (event->button() == Qt::MiddleButton || (left && space_held_)) {
    drag_ = Drag::kPan;
  } else if (left && (event->modifiers() & Qt::ShiftModifier)) {
    drag_ = Drag::kBand;
  } else if (left) {
    drag_ = card_at(press_) == nullptr ? Drag::kPan : Drag::kNone;
  }
  event->accept();
}

void GraphView::mouseMoveEvent(QMouseEvent* event) {
  if (event->buttons() == Qt::NoButton) {
    const CardItem* card = card_at(event->pos());
    const bool hand = space_held_ || card != nullptr || header_at(event->pos()) != nullptr;
    viewport()->setCursor(space_held_ ? Qt::OpenHandCursor : hand ? Qt::PointingHandCursor : Qt::ArrowCursor);
    return;
  }
  if (!moved_ && (event->pos() - press_).manhattanLength() < kDragStart) return;
  moved_ = true;
  if (drag_ == Drag::kPan) {
    viewport()->setCursor(Qt::ClosedHandCursor);
    began_moving();
    pan_by(event->pos() - last_);
  } else if (drag_ == Drag::kBand) {
    band_->setGeometry(QRect(press_, event->pos()).normalized());
    band_->show();
  }
  last_ = event->pos();
}

void GraphView::mouseReleaseEvent(QMouseEvent* event) {
  const Drag drag = drag_;
  drag_ = Drag::kNone;
  band_->hide();
  viewport()->unsetCursor();
  if (moved_ && drag == Drag::kBand) select_band(QRect(press_, event->pos()).normalized(), press_modifiers_ & Qt::ControlModifier);
  if (!moved_ && event->button() == Qt::LeftButton && !space_held_) click(event->pos(), event->modifiers());
  moved_ = false;
  event->accept();
}

void GraphView::mouseDoubleClickEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton) return;
  // The release that follows is no click of its own.
  moved_ = true;
  drag_ = Drag::kNone;
  if (CardItem* card = card_at(event->pos())) {
    if (!card->group().empty()) {
      toggle_group(card->group());
    } else {
      if (zoom() < kZoomSubtitle) set_zoom(1.0);
      centerOn(card->card_rect().center());
      place_overlays();
    }
  } else if (FrameItem* frame = header_at(event->pos())) {
    toggle_group(frame->group());
  }
}

void GraphView::select_band(const QRect& band, bool add) {
  const QRectF area = mapToScene(band).boundingRect();
  std::vector<NodeId> nodes;
  const auto take = [&](const CardItem& card) {
    if (!area.intersects(card.card_rect())) return;
    const std::vector<NodeId> inside = nodes_of(card);
    nodes.insert(nodes.end(), inside.begin(), inside.end());
  };
  for (const auto& [id, card] : node_cards_) take(*card);
  for (const auto& [path, card] : group_cards_) take(*card);
  select(nodes, add, false);
}

void GraphView::wheelEvent(QWheelEvent* event) {
  const QPoint delta = event->angleDelta();
  if (event->modifiers() & (Qt::ShiftModifier | Qt::AltModifier)) {
    began_moving();
    pan_by(QPoint(delta.x() + delta.y(), 0) / 2);
  } else {
    zoom_at(event->position().toPoint(), std::pow(1.0016, std::clamp(delta.y(), -960, 960)));
  }
  event->accept();
}

void GraphView::pan_by(const QPoint& delta) {
  horizontalScrollBar()->setValue(horizontalScrollBar()->value() - delta.x());
  verticalScrollBar()->setValue(verticalScrollBar()->value() - delta.y());
}

void GraphView::began_moving() {
  still_.start();
  if (node_cards_.size() + group_cards_.size() > kManyCards) setRenderHint(QPainter::Antialiasing, false);
}

void GraphView::ended_moving() {
  if (renderHints() & QPainter::Antialiasing) return;
  setRenderHint(QPainter::Antialiasing, true);
  viewport()->update();
}

// Up and down along edges, to the neighbour that stands nearest; left and right within the row.
NodeId GraphView::neighbour(NodeId node, int key) const {
  if (key == Qt::Key_Left || key == Qt::Key_Right) return beside(node, key == Qt::Key_Right);
  const auto it = content().index.find(node);
  const CardItem* from = shown_card(node);
  if (it == content().index.end() || from == nullptr) return kNoNode;
  NodeId best = kNoNode;
  double best_distance = std::numeric_limits<double>::infinity();
  for (const std::uint32_t other : key == Qt::Key_Down ? paths_.behind(it->second) : paths_.before(it->second)) {
    const NodeId n = content().cards[other].id;
    const CardItem* card = n >= 0 ? shown_card(n) : nullptr;
    if (card == nullptr) continue;
    const QPointF d = card->card_rect().center() - from->card_rect().center();
    const double distance = std::hypot(d.x(), d.y());
    if (distance >= best_distance) continue;
    best = n;
    best_distance = distance;
  }
  return best;
}

NodeId GraphView::beside(NodeId node, bool right) const {
  const CardItem* from = shown_card(node);
  if (from == nullptr) return kNoNode;
  NodeId best = kNoNode;
  double best_distance = std::numeric_limits<double>::infinity();
  for (const auto& [id, card] : node_cards_) {
    const QPointF d = card->card_rect().center() - from->card_rect().center();
    if (id < 0 || card == from || (right ? d.x() <= 0 : d.x() >= 0)) continue;
    if (std::fabs(d.y()) > 120) continue;
    const double distance = std::fabs(d.x()) + 3 * std::fabs(d.y());
    if (distance > best_distance || (distance == best_distance && id > best)) continue;
    best = id;
    best_distance = distance;
  }
  return best;
}

bool GraphView::handle_key(int key, Qt::KeyboardModifiers modifiers) {
  const auto go = [&](NodeId node) {
    if (node == kNoNode) return;
    set_current(node, true);
    select({node}, modifiers & Qt::ShiftModifier, false);
  };
  const auto& nodes = graph_ ? graph_->nodes() : std::vector<Node>();
  if (nodes.empty()) return false;
  switch (key) {
    case Qt::Key_Up: case Qt::Key_Down: case Qt::Key_Left: case Qt::Key_Right:
      go(content().find(current_) == nullptr ? nodes.front().id : neighbour(current_, key));
      return true;
    case Qt::Key_Home: go(nodes.front().id); return true;
    case Qt::Key_End: go(nodes.back().id); return true;
    case Qt::Key_Return: case Qt::Key_Enter:
      if (content().find(current_) != nullptr) Q_EMIT node_activated(current_);
      return true;
    case Qt::Key_F: fit(); return true;
    case Qt::Key_0: set_zoom(1.0); return true;
    case Qt::Key_Plus: case Qt::Key_Equal: zoom_in(); return true;
    case Qt::Key_Minus: zoom_out(); return true;
    case Qt::Key_E: {
      const CardItem* card = shown_card(current_);
      if (card == nullptr) return true;
      const int group = card->group().empty() ? layout_.nodes[static_cast<std::size_t>(placed_.at(current_))].group : -1;
      if (!card->group().empty()) toggle_group(std::string(card->group()));
      if (group >= 0) toggle_group(std::string(layout_.groups[static_cast<std::size_t>(group)].path));
      return true;
    }
    case Qt::Key_U: set_path(path_ == PathShown::kUpstream ? PathShown::kOff : PathShown::kUpstream); return true;
    case Qt::Key_D: set_path(path_ == PathShown::kDownstream ? PathShown::kOff : PathShown::kDownstream); return true;
    case Qt::Key_P: set_path(path_ == PathShown::kBoth ? PathShown::kOff : PathShown::kBoth); return true;
    case Qt::Key_Escape:
      if (path_ != PathShown::kOff) {
        set_path(PathShown::kOff);
        return true;
      }
      if (selected_.empty() && search_.isEmpty()) return false;
      set_search({});
      change_selection({});
      return true;
    default: return false;
  }
}

void GraphView::keyPressEvent(QKeyEvent* event) {
  if (event->key() == Qt::Key_Space && !event->isAutoRepeat()) {
    space_held_ = true;
    viewport()->setCursor(Qt::OpenHandCursor);
  } else if (event->matches(QKeySequence::Find)) {
    Q_EMIT search_requested();
  } else if (event->matches(QKeySequence::SelectAll)) {
    std::set<NodeId> all;
    for (const CardInfo& c : content().cards)
      if (c.layer) all.insert(c.id);
    change_selection(std::move(all));
  } else if ((event->modifiers() & ~(Qt::ShiftModifier | Qt::KeypadModifier)) != 0 ||
             !handle_key(event->key(), event->modifiers())) {
    event->ignore();
  }
}

void GraphView::keyReleaseEvent(QKeyEvent* event) {
  if (event->key() != Qt::Key_Space || event->isAutoRepeat()) return QGraphicsView::keyReleaseEvent(event);
  space_held_ = false;
  viewport()->unsetCursor();
}

void GraphView::contextMenuEvent(QContextMenuEvent* event) {
  NodeId node = kNoNode;
  QPoint global = event->globalPos();
  if (event->reason() == QContextMenuEvent::Keyboard) {
    node = current_;
    if (const CardItem* card = shown_card(node))
      global = viewport()->mapToGlobal(mapFromScene(card->card_rect().center()));
  } else if (const CardItem* card = card_at(event->pos())) {
    const std::vector<NodeId> nodes = nodes_of(*card);
    if (!nodes.empty()) node = nodes.front();
    // As in every list: what is not selected yet becomes the selection.
    if (node != kNoNode && selected_.count(node) == 0) select(nodes, false, false);
    if (node != kNoNode) set_current(node, false);
  }
  Q_EMIT context_menu_requested(node, global);
  event->accept();
}

void GraphView::resizeEvent(QResizeEvent* event) {
  QGraphicsView::resizeEvent(event);
  place_overlays();
}

void GraphView::scrollContentsBy(int dx, int dy) {
  QGraphicsView::scrollContentsBy(dx, dy);
  place_overlays();
}

void GraphView::focusInEvent(QFocusEvent* event) {
  QGraphicsView::focusInEvent(event);
  refresh_states();
}

void GraphView::focusOutEvent(QFocusEvent* event) {
  QGraphicsView::focusOutEvent(event);
  space_held_ = false;
  refresh_states();
}

bool GraphView::viewportEvent(QEvent* event) {
  if (event->type() == QEvent::ToolTip) {
    const auto* help = static_cast<QHelpEvent*>(event);
    const CardItem* card = card_at(help->pos());
    const CardInfo* info = card == nullptr ? nullptr : content().find(card->node());
    QString text;
    if (card != nullptr && !card->group().empty()) {
      text = QString::fromStdString(card->group()).toHtmlEscaped() + QStringLiteral("<br>") + card->face().subtitle;
    } else if (info != nullptr) {
      text = tooltip_of(*info, visual(info->id));
    }
    QToolTip::showText(help->globalPos(), text, viewport());
    return true;
  }
  if (event->type() == QEvent::Gesture) {
    if (const auto* pinch = static_cast<QPinchGesture*>(static_cast<QGestureEvent*>(event)->gesture(Qt::PinchGesture))) {
      zoom_at(viewport()->mapFromGlobal(pinch->centerPoint().toPoint()), pinch->scaleFactor());
      return true;
    }
  }
  return QGraphicsView::viewportEvent(event);
}

}  // namespace quanvas
