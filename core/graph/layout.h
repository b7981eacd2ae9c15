// Quanvas - where the nodes of a network are drawn and how its edges run. No Qt, no Torch.
//
// A layered layout: data flows down, every open scope is laid out on its own and takes part in its parent as one
// block, so opening a scope only pushes its neighbours apart and never reorders them. Deterministic: the same
// input gives the same output, bit for bit. Units are those of the given sizes (pixels at zoom 1); y grows
// downwards; the first node's centre is at x = 0 and its layout begins at y = 0.
// Method: ranks by longest path with tightening, one shared chain of dummy vertices per source, barycentre
// sweeps with transposition (Sugiyama et al. 1981; Gansner et al. 1993), x after Brandes and Köpf 2001.
// Pure function, any thread.
#pragma once

#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace quanvas {

struct LayoutPoint {
  double x = 0, y = 0;
  bool operator==(const LayoutPoint&) const = default;
};
struct LayoutRect {
  double x = 0, y = 0, width = 0, height = 0;  // x, y: the top left corner
  bool operator==(const LayoutRect&) const = default;
  double right() const { return x + width; }
  double bottom() const { return y + height; }
  bool intersects(const LayoutRect& o) const {
    return x < o.right() && o.x < right() && y < o.bottom() && o.y < bottom();
  }
};

struct LayoutNode {
  NodeId id = kNoNode;         // unique
  double width = 0, height = 0;
  std::string scope;           // "layer1.0": parts divided by '.' or '/'; empty: no group
};
struct LayoutEdge {
  NodeId from = kNoNode, to = kNoNode;  // edges of unknown nodes and loops are left out
};

struct LayoutOptions {
  double rank_gap = 24;        // least vertical room between two rows, for arrow and label
  double node_gap = 28;        // least horizontal room between two nodes
  double edge_gap = 12;        // between two lines, and twice that between a line and a node
  double group_padding = 16;
  double group_header = 26;
  double collapsed_width = 200, collapsed_height = 44;
  int max_span = 40;           // an edge that runs on for more rows without meeting a node is drawn as two stubs
  double stub_length = 16;
};

struct LayoutInput {
  std::vector<LayoutNode> nodes;     // in topological order
  std::vector<LayoutEdge> edges;
  std::set<std::string> collapsed;   // paths of closed groups; unknown ones are ignored
  LayoutOptions options;
};

// A scope that is drawn: at least two nodes, fewer than 95 % of all, and not the same nodes as the group around it
// (of a chain of scopes with the same nodes the innermost stands for all). More than half of its nodes hang together
// by edges or by a neighbour that they share: names by operator ("p2o.Conv.0", "p2o.Conv.1") make no groups.
struct ScopeGroup {
  std::string path;
  std::string title;                 // what the path adds to its parent: "0.attention" in "layer.0.attention";
                                     // a number alone says nothing: "layer.0"
  int parent = -1;                   // index in the list; parents come before their children
  int depth = 0;
  std::vector<NodeId> nodes;         // all nodes below, in the order of the input
};
std::vector<ScopeGroup> scope_groups(const LayoutInput& input);

struct PlacedNode {
  NodeId id = kNoNode;
  LayoutRect rect;
  int group = -1;                    // index in LayoutResult::groups
};
struct PlacedGroup {
  std::string path, title;
  LayoutRect rect;
  int parent = -1, depth = 0;
  bool collapsed = false;
  std::vector<NodeId> nodes;         // all nodes below
};
struct RoutedEdge {
  // Ends that are drawn: a node, or the closed group (index in groups) that hides it.
  NodeId from = kNoNode, to = kNoNode;
  int from_group = -1, to_group = -1;
  std::vector<std::size_t> edges;    // indices of LayoutInput::edges that this line stands for
  // From source to target. Between two points of the same x the line is straight, otherwise it leaves and
  // arrives vertically (control points at half height).
  std::vector<LayoutPoint> points;
  // Stub: points has four entries, a short line at the source and a short line at the target.
  bool stub = false;
  bool upwards = false;              // only where closed groups depend on each other in a circle
};

struct LayoutResult {
  std::vector<PlacedNode> nodes;     // the visible ones, in the order of the input
  std::vector<PlacedGroup> groups;   // the visible ones, parents first
  std::vector<RoutedEdge> edges;
  LayoutRect bounds;
};

// None when `stop` was requested meanwhile. Sizes that are not finite or negative count as 0.
std::optional<LayoutResult> compute_layout(const LayoutInput& input, std::stop_token stop = {});

}  // namespace quanvas
