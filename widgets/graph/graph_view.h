// Quanvas - the network as a graph of cards: the middle of the window. Values in (a Graph, visuals per node),
// intents out (selection, activation, context menu). Knows neither session nor engine. GUI thread.
//
// Mouse: click selects, Ctrl+click adds, Shift+drag selects a rectangle, dragging the background, Space+drag and
// the middle button move, the wheel zooms at the pointer, double click on a card centres it, on a group's header
// opens or closes the group; a click on the group's triangle does, too; a click on its header selects its layers.
// Keys: arrows walk along edges and rows (with Shift: extend the selection), Enter activates, Home and End, F fits
// all, 0 is 100 %, + and − zoom, Ctrl+A selects all layers, Ctrl+F asks for a search, E opens or closes the group
// around the current node, U, D and P show the selection's path (upstream, downstream, both) or take it off, Escape
// takes the path off, then clears, the menu key asks for a context menu.
// Layouts of more than 300 cards run on a worker thread, the newest wins; smaller ones at once.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <vector>

#include <QGraphicsView>
#include <QPointer>
#include <QTimer>

#include "core/base/result.h"
#include "core/graph/layers.h"
#include "core/graph/layout.h"
#include "widgets/graph/card_face.h"
#include "widgets/graph/node_visual.h"
#include "widgets/graph/prepared_graph.h"

class QRubberBand;

namespace quanvas {

enum class Fade;
class CardItem;
class EdgeItem;
class FrameItem;
class Legend;
class Minimap;
class PathNote;

class GraphView : public QGraphicsView {
  Q_OBJECT

 public:
  explicit GraphView(QWidget* parent = nullptr);
  ~GraphView() override;

  // Null empties the view. Selection, open groups and place are kept when the new graph has the same nodes (or
  // most of them: a pass folds some away). Above 600 nodes the outer groups start closed.
  void set_graph(GraphPtr graph, const std::vector<Layer>& layers);
  // The same with what was made of it elsewhere (prepare_graph).
  void set_prepared(GraphPtr graph, PreparedGraphPtr prepared);
  GraphPtr graph() const { return graph_; }
  // Replaces all visuals; only cards whose look changes are repainted. Unknown nodes are ignored.
  void set_visuals(std::map<NodeId, NodeVisual> visuals);
  // Replaces these only.
  void update_visuals(const std::map<NodeId, NodeVisual>& visuals);
  const NodeVisual& visual(NodeId id) const;

  void set_color_by(ColorBy measure);
  ColorBy color_by() const { return options_.color_by; }
  void set_error_kind(ErrorKind kind);
  ErrorKind error_kind() const { return options_.error; }
  void set_legend_visible(bool visible);
  void set_minimap_visible(bool visible);   // shown only while the graph is larger than the view

  // Nodes in graph order. Setting does not emit. reveal: opens closed groups around the first and brings it into view.
  std::vector<NodeId> selection() const;
  void set_selection(const std::vector<NodeId>& nodes, bool reveal = false);
  NodeId current() const { return current_; }
  void reveal(NodeId node);

  // Highlights what matches (name, operator; case-insensitive), fades the rest. Returns how many nodes match;
  // empty text: no search.
  int set_search(const QString& text);
  // Makes the next match current and brings it into view; kNoNode without matches.
  NodeId find_next(bool forward = true);

  // What lies upstream or downstream of the selection stands out, the rest steps back; closed groups and bundled lines
  // belong to the path when a part of them does. Follows the selection until it is turned off.
  void set_path(PathShown shown);
  PathShown path() const { return path_; }

  std::set<std::string> collapsed() const { return collapsed_; }
  void set_collapsed(std::set<std::string> groups);   // scope paths
  void toggle_group(const std::string& path);
  void expand_all();
  void collapse_all();
  bool has_groups() const;

  double zoom() const { return transform().m11(); }
  void set_zoom(double zoom);       // 0.001..4, keeps the centre
  void zoom_in() { set_zoom(zoom() * 1.25); }
  void zoom_out() { set_zoom(zoom() / 1.25); }
  void fit();                       // everything, at most 100 %
  void show_start();                // fits when it stays readable, otherwise the top at a readable zoom
  bool layout_pending() const { return pending_; }

  // .png, .svg or .pdf by the file's name; the whole graph in the current theme. scale: pixels per unit of PNG,
  // reduced when the picture would exceed 200 million pixels. Written atomically.
  Status export_image(const QString& path, double scale = 2.0);

 Q_SIGNALS:
  void selection_changed(const std::vector<quanvas::NodeId>& nodes);
  void node_activated(quanvas::NodeId node);                             // Enter
  void context_menu_requested(quanvas::NodeId node, const QPoint& global);  // kNoNode: background
  void search_requested();
  void path_changed(quanvas::PathShown shown);
  void zoom_changed(double zoom);
  void layout_finished();

 protected:
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void wheelEvent(QWheelEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void keyReleaseEvent(QKeyEvent* event) override;
  void contextMenuEvent(QContextMenuEvent* event) override;
  void resizeEvent(QResizeEvent* event) override;
  void scrollContentsBy(int dx, int dy) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;
  bool viewportEvent(QEvent* event) override;
  void paintEvent(QPaintEvent* event) override;

 private:
  struct Changes;
  struct Mailbox;
  enum class Drag { kNone, kPan, kBand };
  enum class After { kKeep, kStart, kAnchor };

  const GraphContent& content() const { return prepared_->content; }
  bool items_are_old() const { return laid_out_ != prepared_; }

  // layout
  void relayout(After after, const std::string& anchor_group = {});
  void start_worker();
  void take_layout(LayoutResult result);
  void place_cards();
  void place_frames();
  void place_edges();
  CardItem* card_for_node(NodeId id);
  CardItem* card_for_group(const std::string& path);
  template <class Map>
  void drop_unused(Map& items, const std::set<typename Map::key_type>& used);
  std::optional<QPointF> group_corner(const std::string& path) const;

  // looks
  void refresh_faces();
  void refresh_faces(const Changes& changes);
  void refresh_card(CardItem& card);
  void refresh_states();
  Fade fade_of(bool found, bool on_path) const;
  void follow_path();
  QString path_sentence() const;
  void describe_current();
  void refresh_edge_labels();
  QString edge_label(const RoutedEdge& edge) const;
  void refresh_legend();
  void refresh_minimap();
  void place_overlays();
  QRectF room(double width, double height, bool with_minimap) const;
  void show_at(double zoom, const QPointF& scene, const QPointF& at);
  void apply_theme();
  void paint_far(QPainter& painter, const QRectF& seen) const;
  QString end_name(const RoutedEdge& edge, bool from) const;

  // selection and movement
  CardItem* card_at(const QPoint& pos) const;
  FrameItem* header_at(const QPoint& pos) const;
  CardItem* shown_card(NodeId id) const;      // the node's or that of the closed group that hides it
  void select(const std::vector<NodeId>& nodes, bool add, bool toggle);
  void change_selection(std::set<NodeId> nodes);
  void set_current(NodeId node, bool ensure_visible);
  void click(const QPoint& pos, Qt::KeyboardModifiers modifiers);
  void select_band(const QRect& band, bool add);
  bool handle_key(int key, Qt::KeyboardModifiers modifiers);
  NodeId neighbour(NodeId node, int key) const;
  NodeId beside(NodeId node, bool right) const;
  std::vector<NodeId> nodes_of(const CardItem& card) const;
  bool matches(const CardInfo& card) const;
  bool open_groups_around(NodeId node);
  void zoom_at(const QPoint& pos, double factor);
  void began_moving();
  void ended_moving();
  void pan_by(const QPoint& delta);

  GraphPtr graph_;
  PreparedGraphPtr prepared_;                               // of graph_; never null
  PreparedGraphPtr laid_out_;                               // of the items; another one until its layout has come
  std::map<NodeId, NodeVisual> visuals_;
  FaceOptions options_;
  std::set<std::string> collapsed_;
  LayoutResult layout_;
  std::unordered_map<NodeId, int> placed_;                  // node -> index in layout_.nodes
  GraphPaths paths_;                                        // of the selection

  std::unordered_map<NodeId, CardItem*> node_cards_;        // owned by the scene
  std::unordered_map<std::string, CardItem*> group_cards_;
  std::unordered_map<std::string, FrameItem*> frames_;
  std::vector<EdgeItem*> edges_;                            // as layout_.edges
  std::unordered_map<NodeId, std::string> hidden_in_;       // node -> closed group
  std::unordered_map<std::string, int> group_index_;        // path -> index in layout_.groups

  std::set<NodeId> selected_;
  NodeId current_ = kNoNode;
  QString search_;
  std::set<NodeId> found_;
  PathShown path_ = PathShown::kOff;

  Drag drag_ = Drag::kNone;
  bool space_held_ = false, moved_ = false, legend_wanted_ = true, minimap_wanted_ = true;
  QPoint press_, last_;
  Qt::KeyboardModifiers press_modifiers_;
  QRubberBand* band_ = nullptr;
  Legend* legend_ = nullptr;
  Minimap* minimap_ = nullptr;
  PathNote* path_note_ = nullptr;
  QTimer still_;

  bool pending_ = false;
  After after_layout_ = After::kKeep;
  std::string anchor_group_;
  std::optional<QPoint> anchor_at_;                         // where the group's corner was in the viewport
  NodeId reveal_after_ = kNoNode;
  std::stop_source worker_stop_;
  quint64 generation_ = 0;
  std::shared_ptr<Mailbox> mailbox_;
};

}  // namespace quanvas
