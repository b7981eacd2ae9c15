// GraphView: from layouts to items.
#include <algorithm>

#include <QGraphicsScene>
#include <QScrollBar>
#include <QThreadPool>

#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_view.h"
#include "widgets/graph/graph_worker.h"

namespace quanvas {

namespace {

constexpr std::size_t kAtOnce = 300;

QRectF to_qt(const LayoutRect& r) { return {r.x, r.y, r.width, r.height}; }

}  // namespace

void GraphView::relayout(After after, const std::string& anchor_group) {
  // A change of place that an unfinished layout owes is not lost to a later one that would keep the place.
  if (!(pending_ && after_layout_ == After::kStart)) after_layout_ = after;
  anchor_group_ = anchor_group;
  anchor_at_.reset();
  if (const auto corner = group_corner(anchor_group)) anchor_at_ = mapFromScene(*corner);
  worker_stop_.request_stop();
  worker_stop_ = std::stop_source();
  ++generation_;
  if (content().layout.nodes.size() > kAtOnce) {
    start_worker();
    return;
  }
  LayoutInput input = content().layout;
  input.collapsed = collapsed_;
  pending_ = false;
  take_layout(*compute_layout(input));
}

void GraphView::start_worker() {
  pending_ = true;
  QThreadPool::globalInstance()->start(
      [mailbox = mailbox_, stop = worker_stop_.get_token(), generation = generation_, prepared = prepared_, collapsed = collapsed_] {
        LayoutInput input = prepared->content.layout;
        input.collapsed = collapsed;
        std::optional<LayoutResult> result = compute_layout(input, stop);
        if (!result) return;
        const std::lock_guard lock(mailbox->mutex);
        GraphView* view = mailbox->view;
        if (view == nullptr) return;
        auto shared = std::make_shared<LayoutResult>(std::move(*result));
        QMetaObject::invokeMethod(
            view,
            [view, generation, shared] {
              if (generation != view->generation_) return;
              view->pending_ = false;
              view->take_layout(std::move(*shared));
            },
            Qt::QueuedConnection);
      });
}

std::optional<QPointF> GraphView::group_corner(const std::string& path) const {
  const auto it = group_index_.find(path);
  if (path.empty() || it == group_index_.end()) return std::nullopt;
  const LayoutRect& r = layout_.groups[static_cast<std::size_t>(it->second)].rect;
  return QPointF(r.x + r.width / 2, r.y);
}

CardItem* GraphView::card_for_node(NodeId id) {
  CardItem*& card = node_cards_[id];
  if (card == nullptr) {
    card = new CardItem(id, {});
    card->setZValue(3);
    scene()->addItem(card);
  }
  return card;
}

CardItem* GraphView::card_for_group(const std::string& path) {
  CardItem*& card = group_cards_[path];
  if (card == nullptr) {
    card = new CardItem(kNoNode, path);
    card->setZValue(3);
    scene()->addItem(card);
  }
  return card;
}

template <class Map>
void GraphView::drop_unused(Map& items, const std::set<typename Map::key_type>& used) {
  for (auto it = items.begin(); it != items.end();) {
    if (used.count(it->first) > 0) {
      ++it;
      continue;
    }
    delete it->second;
    it = items.erase(it);
  }
}

void GraphView::take_layout(LayoutResult result) {
  layout_ = std::move(result);
  laid_out_ = prepared_;
  group_index_.clear();
  hidden_in_.clear();
  placed_.clear();
  for (std::size_t g = 0; g < layout_.groups.size(); ++g) {
    group_index_[layout_.groups[g].path] = static_cast<int>(g);
    if (!layout_.groups[g].collapsed) continue;
    for (const NodeId id : layout_.groups[g].nodes) hidden_in_[id] = layout_.groups[g].path;
  }
  for (std::size_t n = 0; n < layout_.nodes.size(); ++n) placed_[layout_.nodes[n].id] = static_cast<int>(n);
  place_frames();
  place_cards();
  place_edges();
  // Room on all sides, so that every place of the graph can come to the middle.
  setSceneRect(to_qt(layout_.bounds).adjusted(-4000, -3000, 4000, 3000));
  refresh_states();
  refresh_minimap();
  if (after_layout_ == After::kStart) show_start();
  if (const auto corner = group_corner(anchor_group_); corner && anchor_at_ && after_layout_ == After::kAnchor)
    pan_by(*anchor_at_ - mapFromScene(*corner));
  after_layout_ = After::kKeep;
  place_overlays();
  if (reveal_after_ != kNoNode) {
    const NodeId node = reveal_after_;
    reveal_after_ = kNoNode;
    reveal(node);
  }
  Q_EMIT layout_finished();
}

void GraphView::place_cards() {
  std::set<NodeId> nodes;
  std::set<std::string> groups;
  for (const PlacedNode& n : layout_.nodes) {
    nodes.insert(n.id);
    CardItem* card = card_for_node(n.id);
    card->set_size({n.rect.width, n.rect.height});
    card->setPos(n.rect.x, n.rect.y);
    refresh_card(*card);
  }
  for (const PlacedGroup& g : layout_.groups) {
    if (!g.collapsed) continue;
    groups.insert(g.path);
    CardItem* card = card_for_group(g.path);
    card->set_size({g.rect.width, g.rect.height});
    card->setPos(g.rect.x, g.rect.y);
    refresh_card(*card);
  }
  drop_unused(node_cards_, nodes);
  drop_unused(group_cards_, groups);
}

void GraphView::place_frames() {
  std::set<std::string> used;
  for (const PlacedGroup& g : layout_.groups) {
    if (g.collapsed) continue;
    used.insert(g.path);
    FrameItem*& frame = frames_[g.path];
    if (frame == nullptr) {
      frame = new FrameItem(g.path);
      scene()->addItem(frame);
    }
    frame->setZValue(-100 + g.depth);
    frame->setPos(g.rect.x, g.rect.y);
    frame->set_frame({g.rect.width, g.rect.height}, content().layout.options.group_header,
                     QString::fromStdString(g.title), g.depth);
  }
  drop_unused(frames_, used);
}

QString GraphView::end_name(const RoutedEdge& edge, bool from) const {
  const int group = from ? edge.from_group : edge.to_group;
  if (group >= 0) return QString::fromStdString(layout_.groups[static_cast<std::size_t>(group)].title);
  const CardInfo* card = content().find(from ? edge.from : edge.to);
  return card == nullptr ? QString() : card->title;
}

void GraphView::place_edges() {
  while (edges_.size() > layout_.edges.size()) {
    delete edges_.back();
    edges_.pop_back();
  }
  while (edges_.size() < layout_.edges.size()) {
    edges_.push_back(new EdgeItem);
    edges_.back()->setZValue(1);
    scene()->addItem(edges_.back());
  }
  for (std::size_t e = 0; e < edges_.size(); ++e) {
    const RoutedEdge& edge = layout_.edges[e];
    edges_[e]->set_route(edge, end_name(edge, true), end_name(edge, false));
    edges_[e]->set_label(edge_label(edge));
  }
}

void GraphView::set_collapsed(std::set<std::string> groups) {
  if (groups == collapsed_) return;
  collapsed_ = std::move(groups);
  relayout(After::kKeep);
}

void GraphView::toggle_group(const std::string& path) {
  if (collapsed_.erase(path) == 0) collapsed_.insert(path);
  relayout(After::kAnchor, path);
}

void GraphView::expand_all() { set_collapsed({}); }

void GraphView::collapse_all() {
  std::set<std::string> groups;
  for (const ScopeGroup& g : prepared_->groups) groups.insert(g.path);
  set_collapsed(std::move(groups));
}

bool GraphView::has_groups() const { return !layout_.groups.empty(); }

bool GraphView::open_groups_around(NodeId node) {
  bool opened = false;
  for (const ScopeGroup& g : prepared_->groups)
    if (collapsed_.count(g.path) > 0 && std::find(g.nodes.begin(), g.nodes.end(), node) != g.nodes.end())
      opened = collapsed_.erase(g.path) > 0 || opened;
  return opened;
}

void GraphView::reveal(NodeId node) {
  if (content().find(node) == nullptr) return;
  if (!items_are_old() && hidden_in_.count(node) > 0 && open_groups_around(node)) {
    reveal_after_ = node;
    relayout(After::kKeep);
    return;
  }
  if (pending_) {
    reveal_after_ = node;
    return;
  }
  const CardItem* card = shown_card(node);
  if (card == nullptr) return;
  if (zoom() < kZoomText) set_zoom(0.9);
  if (!mapToScene(viewport()->rect().adjusted(30, 30, -30, -30)).boundingRect().contains(card->card_rect()))
    centerOn(card->card_rect().center());
  place_overlays();
}

}  // namespace quanvas
