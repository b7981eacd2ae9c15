#include "widgets/graph/graph_view.h"

#include <algorithm>

#include <QGraphicsScene>
#include <QRubberBand>
#include <QScrollBar>

#include "widgets/common/theme.h"
#include "widgets/graph/graph_items.h"
#include "widgets/graph/graph_overlays.h"
#include "widgets/graph/graph_worker.h"

namespace quanvas {

namespace {

constexpr std::size_t kStartClosed = 600;
constexpr double kLeastZoom = 0.001, kMostZoom = 4;
constexpr double kMargin = 18, kOverlayGap = 10, kMapMargin = 14;

}  // namespace

GraphView::GraphView(QWidget* parent)
    : QGraphicsView(parent),
      prepared_(std::make_shared<PreparedGraph>()),
      band_(new QRubberBand(QRubberBand::Rectangle, viewport())),
      legend_(new Legend(this)),
      minimap_(new Minimap(this)),
      path_note_(new PathNote(this)),
      mailbox_(std::make_shared<Mailbox>()) {
  laid_out_ = prepared_;
  mailbox_->view = this;
  setScene(new QGraphicsScene(this));
  // A thousand visible items move at once when a group opens: an index that is never rebuilt would be slower.
  scene()->setItemIndexMethod(QGraphicsScene::BspTreeIndex);
  setAccessibleName(tr("Network graph"));
  setFrameShape(QFrame::NoFrame);
  setRenderHints(QPainter::Antialiasing | QPainter::TextAntialiasing | QPainter::SmoothPixmapTransform);
  setViewportUpdateMode(QGraphicsView::SmartViewportUpdate);
  setOptimizationFlags(QGraphicsView::DontSavePainterState | QGraphicsView::DontAdjustForAntialiasing);
  setTransformationAnchor(QGraphicsView::NoAnchor);
  setResizeAnchor(QGraphicsView::AnchorViewCenter);
  setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  setVerticalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  setFocusPolicy(Qt::StrongFocus);
  viewport()->setMouseTracking(true);
  viewport()->grabGesture(Qt::PinchGesture);
  still_.setSingleShot(true);
  still_.setInterval(140);
  connect(&still_, &QTimer::timeout, this, &GraphView::ended_moving);
  connect(minimap_, &Minimap::move_requested, this, [this](const QPointF& p) {
    began_moving();
    centerOn(p);
  });
  connect(&Theme::instance(), &Theme::changed, this, &GraphView::apply_theme);
  legend_->hide();
  minimap_->hide();
  path_note_->hide();
  apply_theme();
}

GraphView::~GraphView() {
  worker_stop_.request_stop();
  const std::lock_guard lock(mailbox_->mutex);
  mailbox_->view = nullptr;
}

void GraphView::set_graph(GraphPtr graph, const std::vector<Layer>& layers) {
  auto prepared = graph ? prepare_graph(*graph, layers) : nullptr;
  set_prepared(std::move(graph), std::move(prepared));
}

void GraphView::set_prepared(GraphPtr graph, PreparedGraphPtr prepared) {
  std::size_t kept = 0;
  if (graph && graph_)
    for (const Node& n : graph->nodes()) {
      const Node* old = graph_->find(n.id);
      kept += old != nullptr && old->name == n.name ? 1 : 0;
    }
  const bool same = graph && graph_ && graph->name() == graph_->name() && 2 * kept > graph->nodes().size();
  graph_ = std::move(graph);
  prepared_ = prepared ? std::move(prepared) : std::make_shared<PreparedGraph>();
  paths_ = prepared_->paths;
  if (!same) {
    collapsed_.clear();
    visuals_.clear();
    current_ = kNoNode;
    search_.clear();
    if (content().layout.nodes.size() > kStartClosed)
      for (const ScopeGroup& g : prepared_->groups)
        if (g.depth == 0) collapsed_.insert(g.path);
  }
  found_.clear();
  std::set<NodeId> selected;
  for (const NodeId id : selected_)
    if (same && content().find(id) != nullptr) selected.insert(id);
  refresh_legend();  // the start position leaves its room
  relayout(same ? After::kKeep : After::kStart);
  change_selection(std::move(selected));
  if (content().find(current_) == nullptr) current_ = kNoNode;
  if (!search_.isEmpty()) set_search(search_);
}

const NodeVisual& GraphView::visual(NodeId id) const {
  static const NodeVisual none;
  const auto it = visuals_.find(id);
  return it == visuals_.end() ? none : it->second;
}

struct GraphView::Changes {
  std::vector<NodeId> nodes;
  bool edges = false, legend = false;
  void add(NodeId id, const NodeVisual& was, const NodeVisual& is) {
    if (was == is) return;
    nodes.push_back(id);
    edges = edges || was.activation_chip != is.activation_chip || was.input_chip != is.input_chip;
    legend = legend || was.weight_bits != is.weight_bits || was.activation_bits != is.activation_bits ||
             was.weight_hatched != is.weight_hatched || was.activation_hatched != is.activation_hatched;
  }
};

void GraphView::set_visuals(std::map<NodeId, NodeVisual> visuals) {
  Changes changes;
  for (const auto& [id, v] : visuals) changes.add(id, visual(id), v);
  for (const auto& [id, v] : visuals_)
    if (visuals.count(id) == 0) changes.add(id, v, {});
  visuals_ = std::move(visuals);
  refresh_faces(changes);
}

void GraphView::update_visuals(const std::map<NodeId, NodeVisual>& visuals) {
  Changes changes;
  for (const auto& [id, v] : visuals) {
    changes.add(id, visual(id), v);
    visuals_[id] = v;
  }
  refresh_faces(changes);
}

void GraphView::set_color_by(ColorBy measure) {
  options_.color_by = measure;
  refresh_faces();
}

void GraphView::set_error_kind(ErrorKind kind) {
  options_.error = kind;
  refresh_faces();
}

void GraphView::set_legend_visible(bool visible) {
  legend_wanted_ = visible;
  place_overlays();
}

void GraphView::set_minimap_visible(bool visible) {
  minimap_wanted_ = visible;
  place_overlays();
}

void GraphView::refresh_card(CardItem& card) {
  if (card.group().empty()) {
    if (const CardInfo* info = content().find(card.node()))
      card.set_face(face_of(*info, visual(card.node()), content(), options_));
    return;
  }
  const auto it = group_index_.find(card.group());
  if (it != group_index_.end())
    card.set_face(face_of(layout_.groups[static_cast<std::size_t>(it->second)], visuals_, content(), options_));
}

void GraphView::refresh_faces() {
  if (!items_are_old()) {
    for (const auto& [id, card] : node_cards_) refresh_card(*card);
    for (const auto& [path, card] : group_cards_) refresh_card(*card);
    refresh_edge_labels();
  }
  refresh_legend();
  refresh_minimap();
}

// Only the cards that show changed nodes, and what follows from them.
void GraphView::refresh_faces(const Changes& changes) {
  bool colors_changed = false;
  std::set<CardItem*> cards;
  for (const NodeId id : changes.nodes)
    if (CardItem* card = shown_card(id)) cards.insert(card);
  for (CardItem* card : cards) {
    const std::vector<Mark> before = card->face().marks;
    refresh_card(*card);
    colors_changed = colors_changed || before != card->face().marks;
  }
  if (changes.edges && !items_are_old()) refresh_edge_labels();
  if (changes.legend) refresh_legend();
  if (colors_changed) refresh_minimap();
}

void GraphView::refresh_edge_labels() {
  for (std::size_t e = 0; e < edges_.size(); ++e) edges_[e]->set_label(edge_label(layout_.edges[e]));
}

// The format of the source's result; where it says nothing, of the target's input. Lines that stand for several
// edges carry a label only when they agree.
QString GraphView::edge_label(const RoutedEdge& edge) const {
  QString label;
  for (std::size_t k = 0; k < edge.edges.size(); ++k) {
    const LayoutEdge& e = content().layout.edges[edge.edges[k]];
    const QString& chip = visual(e.from).activation_chip;
    const QString text = chip.isEmpty() ? visual(e.to).input_chip : chip;
    if (k > 0 && text != label) return {};
    label = text;
  }
  return label;
}

void GraphView::refresh_legend() {
  legend_->set_entries(color_by_title(options_.color_by), legend_of(content(), visuals_, options_));
  place_overlays();
}

void GraphView::refresh_minimap() {
  std::vector<Minimap::Bar> bars;
  const auto add = [&](const CardItem& card) {
    bars.push_back({card.card_rect(), card.face().marks.empty() ? Mark{} : card.face().marks.front(), card.state().fade == Fade::kOffPath});
  };
  for (const auto& [id, card] : node_cards_) add(*card);
  for (const auto& [path, card] : group_cards_) add(*card);
  minimap_->set_scene({layout_.bounds.x, layout_.bounds.y, layout_.bounds.width, layout_.bounds.height}, std::move(bars));
  place_overlays();
}

void GraphView::place_overlays() {
  const bool any = !layout_.nodes.empty() || !layout_.groups.empty();
  legend_->setVisible(any && legend_wanted_);
  legend_->move(10, 10);
  const QRectF visible = mapToScene(viewport()->rect()).boundingRect();
  const QRectF all(layout_.bounds.x, layout_.bounds.y, layout_.bounds.width, layout_.bounds.height);
  minimap_->setVisible(any && minimap_wanted_ && !visible.contains(all) && width() > 300 && height() > 240);
  minimap_->set_view(visible);
  minimap_->resize(minimap_->sizeHint());
  minimap_->move(width() - minimap_->width() - static_cast<int>(kMapMargin), height() - minimap_->height() - static_cast<int>(kMapMargin));
  const int beside_legend = legend_->isVisible() ? legend_->geometry().right() + 10 : 10;
  path_note_->place(QRect(beside_legend, 10, width() - beside_legend - 10, 0));
}

void GraphView::apply_theme() {
  setBackgroundBrush(colors().background);
  viewport()->update();
}

void GraphView::set_zoom(double zoom) { zoom_at(viewport()->rect().center(), zoom / this->zoom()); }

void GraphView::zoom_at(const QPoint& pos, double factor) {
  const double target = std::clamp(zoom() * factor, kLeastZoom, kMostZoom);
  if (!(factor > 0) || target == zoom()) return;
  began_moving();
  const QPointF before = mapToScene(pos);
  setTransform(QTransform::fromScale(target, target));
  const QPointF moved = mapFromScene(before) - QPointF(pos);
  horizontalScrollBar()->setValue(horizontalScrollBar()->value() + static_cast<int>(std::lround(moved.x())));
  verticalScrollBar()->setValue(verticalScrollBar()->value() + static_cast<int>(std::lround(moved.y())));
  place_overlays();
  Q_EMIT zoom_changed(target);
}

// Where in the viewport a graph of this size in pixels is to stand: in the middle where nothing lies over it, else
// beside the legend and the map.
QRectF GraphView::room(double width, double height, bool with_minimap) const {
  const QRectF all = QRectF(viewport()->rect()).adjusted(kMargin, kMargin, -kMargin, -kMargin);
  QRectF taken(all.center() - QPointF(width / 2, height / 2), QSizeF(width, height));
  if (height > all.height()) taken.moveTop(all.top());
  QRectF free = all;
  if (legend_wanted_ && taken.intersects(legend_->geometry())) free.setLeft(legend_->geometry().right() + kOverlayGap);
  if (with_minimap && minimap_wanted_) {
    const QSize map = minimap_->sizeHint();
    const QRectF place(this->width() - map.width() - kMapMargin, this->height() - map.height() - kMapMargin, map.width(), map.height());
    if (width > free.width() || QRectF(QPointF(free.center().x() - width / 2, taken.top()), taken.size()).intersects(place))
      free.setRight(place.left() - kOverlayGap);
  }
  return free.width() > all.width() / 3 ? free : all;
}

void GraphView::show_at(double zoom, const QPointF& scene, const QPointF& at) {
  setTransform(QTransform::fromScale(zoom, zoom));
  const QRectF view = viewport()->rect();
  centerOn(scene + (view.center() - at) / zoom);
  place_overlays();
  Q_EMIT zoom_changed(zoom);
}

void GraphView::fit() {
  const LayoutRect& b = layout_.bounds;
  if (b.width <= 0) return;
  const auto zoom_in_room = [&](const QRectF& r) { return std::max(kLeastZoom, std::min({1.0, r.width() / b.width, r.height() / b.height})); };
  const QRectF whole = QRectF(viewport()->rect()).adjusted(kMargin, kMargin, -kMargin, -kMargin);
  const double most = zoom_in_room(whole);
  // A tall graph goes beside the legend, a wide one below it.
  QRectF place = room(b.width * most, b.height * most, false);
  QRectF below = whole;
  below.setTop(legend_->geometry().bottom() + kOverlayGap);
  if (place != whole && below.height() > 0 && zoom_in_room(below) > zoom_in_room(place)) place = below;
  show_at(zoom_in_room(place), {b.x + b.width / 2, b.y + b.height / 2}, place.center());
}

void GraphView::show_start() {
  const LayoutRect& b = layout_.bounds;
  const double readable = 0.85;  // below it the second lines of the cards are left out
  if (b.height * readable <= viewport()->height() - 36 && b.width * readable <= viewport()->width() - 36) {
    fit();
    return;
  }
  const double zoom = std::clamp((viewport()->width() - 60) / std::max(1.0, b.width), 0.8, 1.0);
  const QRectF place = room(b.width * zoom, b.height * zoom, true);
  double left = place.center().x() - b.width * zoom / 2;
  // Wider than the room: the first node in its middle, but no room left empty at a side.
  if (b.width * zoom > place.width())
    left = std::clamp(place.center().x() + b.x * zoom, place.right() - b.width * zoom, place.left());
  show_at(zoom, {b.x, b.y}, {left, place.top()});
}

std::vector<NodeId> GraphView::selection() const {
  std::vector<NodeId> out;
  if (!graph_) return out;
  for (const Node& n : graph_->nodes())
    if (selected_.count(n.id) > 0) out.push_back(n.id);
  return out;
}

void GraphView::set_selection(const std::vector<NodeId>& nodes, bool reveal_first) {
  selected_.clear();
  for (const NodeId id : nodes)
    if (id >= 0 && content().find(id) != nullptr) selected_.insert(id);
  if (!nodes.empty() && selected_.count(nodes.front()) > 0) current_ = nodes.front();
  follow_path();
  if (reveal_first && !nodes.empty()) reveal(nodes.front());
}

void GraphView::change_selection(std::set<NodeId> nodes) {
  const bool same = nodes == selected_;
  selected_ = std::move(nodes);
  follow_path();
  if (!same) Q_EMIT selection_changed(selection());
}

int GraphView::set_search(const QString& text) {
  search_ = text.trimmed();
  found_.clear();
  if (!search_.isEmpty())
    for (const CardInfo& card : content().cards)
      if (matches(card)) found_.insert(card.id);
  refresh_states();
  return static_cast<int>(found_.size());
}

bool GraphView::matches(const CardInfo& card) const {
  return card.name.contains(search_, Qt::CaseInsensitive) || card.title.contains(search_, Qt::CaseInsensitive) ||
         card.op.contains(search_, Qt::CaseInsensitive);
}

NodeId GraphView::find_next(bool forward) {
  std::vector<NodeId> order;
  for (const CardInfo& card : content().cards)
    if (card.id >= 0 && found_.count(card.id) > 0) order.push_back(card.id);
  if (order.empty()) return kNoNode;
  const auto it = std::find(order.begin(), order.end(), current_);
  const std::size_t n = order.size();
  const std::size_t at = it == order.end() ? (forward ? 0 : n - 1)
                                           : (static_cast<std::size_t>(it - order.begin()) + (forward ? 1 : n - 1)) % n;
  set_current(order[at], false);
  reveal(order[at]);
  return order[at];
}

void GraphView::set_current(NodeId node, bool ensure_visible) {
  current_ = node;
  refresh_states();
  describe_current();
  if (!ensure_visible) return;
  if (const CardItem* card = shown_card(node)) ensureVisible(card->card_rect(), 40, 40);
}

}  // namespace quanvas
