// GraphView: very many items at once. QGraphicsScene looks up, sorts and sets up each item of a frame, which takes longer
// than to paint the bars and lines that are left of them when a large network is seen from afar.
#include <QPaintEvent>
#include <QPainter>

#include "widgets/common/theme.h"
#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_view.h"

namespace quanvas {

namespace {

constexpr std::size_t kManyItems = 2000;

}  // namespace

void GraphView::paintEvent(QPaintEvent* event) {
  const std::size_t items = node_cards_.size() + group_cards_.size() + edges_.size();
  if (zoom() >= kZoomCard || items < kManyItems) return QGraphicsView::paintEvent(event);
  QPainter painter(viewport());
  painter.setRenderHints(renderHints());
  painter.setClipRegion(event->region());
  painter.fillRect(event->rect(), colors().background);
  painter.setTransform(viewportTransform());
  paint_far(painter, mapToScene(event->rect().adjusted(-4, -4, 4, 4)).boundingRect());
}

// In the order of the items' heights: frames, lines, lines that stand out, cards.
void GraphView::paint_far(QPainter& painter, const QRectF& seen) const {
  for (const PlacedGroup& g : layout_.groups) {
    const auto it = frames_.find(g.path);
    if (it == frames_.end() || !it->second->frame_rect().intersects(seen)) continue;
    painter.translate(it->second->pos());
    it->second->paint_at(painter, zoom());
    painter.translate(-it->second->pos());
  }
  painter.setBrush(Qt::NoBrush);
  for (const bool standing_out : {false, true}) {
    const EdgeItem* last = nullptr;
    for (const EdgeItem* edge : edges_) {
      if (edge->stands_out() != standing_out || edge->is_stub() || !edge->boundingRect().intersects(seen)) continue;
      if (last == nullptr || !(last->state() == edge->state())) {
        painter.setOpacity(opacity_of(edge->state().fade, 0));
        painter.setPen(edge->far_pen());
        last = edge;
      }
      painter.drawPolyline(edge->points());
    }
  }
  for (const auto& [id, card] : node_cards_)
    if (card->card_rect().intersects(seen)) card->paint_far(painter);
  for (const auto& [path, card] : group_cards_)
    if (card->card_rect().intersects(seen)) card->paint_far(painter);
  painter.setOpacity(1);
}

}  // namespace quanvas
