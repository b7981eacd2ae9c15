#include "core/graph/layout.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

#include "core/graph/layered.h"

namespace quanvas {

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }
double size_of(double v) { return std::isfinite(v) && v > 0 ? v : 0; }

constexpr std::size_t kMaxDepth = 32;

// "a", "a.b", "a.b.c" of "a.b.c".
std::vector<std::string> prefixes(const std::string& scope) {
  const auto divides = [&scope](std::size_t i) { return scope[i] == '.' || scope[i] == '/'; };
  std::vector<std::string> out;
  for (std::size_t end = 1; end <= scope.size() && out.size() < kMaxDepth; ++end)
    if ((end == scope.size() || divides(end)) && !divides(end - 1)) out.push_back(scope.substr(0, end));
  return out;
}

struct Tree {
  std::vector<ScopeGroup> groups;
  std::vector<int> innermost;  // per input node; -1: none
};

// Every prefix with its nodes, and the prefix around it.
struct Candidate {
  int parent = -1;
  std::vector<std::size_t> nodes;
  bool kept = false;
  int group = -1;
};

// Which nodes of a group hang together: by an edge between them, or by a source or a target that they share.
class Ties {
 public:
  explicit Ties(const LayoutInput& input) : from_(input.nodes.size()), to_(input.nodes.size()) {
    std::unordered_map<NodeId, std::size_t> index;
    for (std::size_t i = 0; i < input.nodes.size(); ++i) index.emplace(input.nodes[i].id, i);
    for (const LayoutEdge& e : input.edges) {
      const auto from = index.find(e.from), to = index.find(e.to);
      if (from == index.end() || to == index.end()) continue;
      to_[from->second].push_back(to->second);
      from_[to->second].push_back(from->second);
    }
  }

  // More than half of them do.
  bool hold_together(const std::vector<std::size_t>& nodes) const {
    std::unordered_map<std::size_t, std::size_t> parent, of_source, of_target;
    for (const std::size_t n : nodes) parent[n] = n;
    const auto root = [&parent](std::size_t n) {
      while (parent[n] != n) n = parent[n] = parent[parent[n]];
      return n;
    };
    const auto tie = [&](std::size_t n, std::size_t other, auto& shared) {
      const std::size_t with = parent.count(other) > 0 ? other : shared.emplace(other, n).first->second;
      parent[root(n)] = root(with);
    };
    for (const std::size_t n : nodes) {
      for (const std::size_t other : to_[n]) tie(n, other, of_target);
      for (const std::size_t other : from_[n]) tie(n, other, of_source);
    }
    std::unordered_map<std::size_t, std::size_t> size;
    for (const std::size_t n : nodes)
      if (2 * ++size[root(n)] > nodes.size()) return true;
    return false;
  }

 private:
  std::vector<std::vector<std::size_t>> from_, to_;
};

// What the path adds to that of the group around it; before a number alone stands the part above it.
std::string title_in(const std::string& path, const std::string& around) {
  const std::string added = around.empty() ? path : path.substr(around.size() + 1);
  if (around.empty() || !std::all_of(added.begin(), added.end(), [](char c) { return c >= '0' && c <= '9'; })) return added;
  const std::size_t part = around.find_last_of("./");
  return path.substr(part == std::string::npos ? 0 : part + 1);
}

Tree build_tree(const LayoutInput& input) {
  const std::vector<LayoutNode>& nodes = input.nodes;
  std::vector<Candidate> all;
  std::vector<std::string> names;
  std::unordered_map<std::string, int> index;
  std::vector<int> own(nodes.size(), -1);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& prefix : prefixes(nodes[i].scope)) {
      const auto [it, added] = index.emplace(prefix, static_cast<int>(all.size()));
      if (added) {
        all.push_back({own[i], {}, false, -1});
        names.push_back(prefix);
      }
      all[at(it->second)].nodes.push_back(i);
      own[i] = it->second;
    }
  }
  // Kept: at least two nodes, not (nearly) all; of a chain with the same nodes only the innermost.
  for (Candidate& c : all) c.kept = c.nodes.size() >= 2 && 20 * c.nodes.size() < 19 * nodes.size();
  for (const Candidate& c : all)
    if (c.parent >= 0 && all[at(c.parent)].nodes.size() == c.nodes.size()) all[at(c.parent)].kept = false;
  const Ties ties(input);
  for (Candidate& c : all) c.kept = c.kept && ties.hold_together(c.nodes);
  Tree tree;
  for (std::size_t c = 0; c < all.size(); ++c) {
    int parent = all[c].parent;
    while (parent >= 0 && !all[at(parent)].kept) parent = all[at(parent)].parent;
    const int around = parent < 0 ? -1 : all[at(parent)].group;
    if (!all[c].kept) continue;
    all[c].group = static_cast<int>(tree.groups.size());
    ScopeGroup g;
    g.path = names[c];
    g.parent = around;
    g.depth = around < 0 ? 0 : tree.groups[at(around)].depth + 1;
    g.title = title_in(g.path, around < 0 ? std::string() : tree.groups[at(around)].path);
    for (const std::size_t i : all[c].nodes) g.nodes.push_back(nodes[i].id);
    tree.groups.push_back(std::move(g));
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    int c = own[i];
    while (c >= 0 && !all[at(c)].kept) c = all[at(c)].parent;
    tree.innermost.push_back(c < 0 ? -1 : all[at(c)].group);
  }
  return tree;
}

// What is drawn: a node or a closed group. An open group is a Block that holds elements and blocks.
struct Element {
  int node = -1;    // index in the input
  int group = -1;   // index in the tree, for closed groups
  int block = 0;
  int vertex = -1;  // in its block's sheet
};

struct Block {
  int group = -1;   // index in the tree; -1: the whole
  int parent = -1;
  int depth = 0;
  layered::Sheet sheet;
  layered::Placed placed;
  std::vector<std::pair<bool, int>> content;  // per vertex: {is block, index}; {false, -1} for ports
  std::map<int, int> in_port, out_port;       // source element -> vertex
  std::map<std::tuple<int, int, int>, int> edge_index;
  int vertex = -1;                            // in the parent's sheet
  LayoutPoint origin;                         // of the sheet, in the result
  double left = 0, right = 0, height = 0;     // outer size; left and right from the axis
  double axis = 0;                            // in the sheet
};

class Composer {
 public:
  Composer(const LayoutInput& input, std::stop_token stop) : in_(input), stop_(stop), tree_(build_tree(input)) {}

  std::optional<LayoutResult> run() {
    make_blocks();
    make_edges();
    for (std::size_t b = blocks_.size(); b-- > 1;) {
      lay_out_block(blocks_[b]);
      if (stop_.stop_requested()) return std::nullopt;
    }
    lay_out_whole();
    if (stop_.stop_requested()) return std::nullopt;
    return collect();
  }

 private:
  struct Line {
    int from = -1, to = -1;  // elements
    std::vector<std::size_t> edges;
    std::vector<std::pair<int, int>> legs;  // block, edge of its sheet
  };

  bool closed(int group) const { return in_.collapsed.count(tree_.groups[at(group)].path) > 0; }

  int block_of(int group) {
    if (group < 0) return 0;
    if (const auto it = block_of_group_.find(group); it != block_of_group_.end()) return it->second;
    const int parent = block_of(tree_.groups[at(group)].parent);
    const int index = static_cast<int>(blocks_.size());
    block_of_group_[group] = index;
    Block b;
    b.group = group;
    b.parent = parent;
    b.depth = blocks_[at(parent)].depth + 1;
    b.vertex = add_vertex(blocks_[at(parent)], {}, {true, index});
    blocks_.push_back(std::move(b));
    return index;
  }

  static int add_vertex(Block& block, layered::Vertex vertex, std::pair<bool, int> content) {
    block.sheet.vertices.push_back(vertex);
    block.content.push_back(content);
    return static_cast<int>(block.sheet.vertices.size()) - 1;
  }

  int add_element(Element e, double width, double height) {
    const layered::Vertex v{layered::VertexKind::kNode, width / 2, width / 2, height};
    e.vertex = add_vertex(blocks_[at(e.block)], v, {false, static_cast<int>(elements_.size())});
    elements_.push_back(e);
    return static_cast<int>(elements_.size()) - 1;
  }

  void make_blocks() {
    blocks_.emplace_back();
    std::map<int, int> element_of_group;
    for (std::size_t i = 0; i < in_.nodes.size(); ++i) {
      int shut = -1;
      for (int g = tree_.innermost[i]; g >= 0; g = tree_.groups[at(g)].parent)
        if (closed(g)) shut = g;
      int element;
      if (shut >= 0) {
        const auto it = element_of_group.find(shut);
        if (it == element_of_group.end()) {
          const int block = block_of(tree_.groups[at(shut)].parent);
          element = add_element({-1, shut, block, -1}, in_.options.collapsed_width, in_.options.collapsed_height);
          element_of_group[shut] = element;
        } else {
          element = it->second;
        }
      } else {
        const int block = block_of(tree_.innermost[i]);
        element = add_element({static_cast<int>(i), -1, block, -1}, size_of(in_.nodes[i].width),
                              size_of(in_.nodes[i].height));
      }
      element_of_.emplace(in_.nodes[i].id, element);
    }
    for (Block& b : blocks_) b.sheet.options = in_.options;
  }

  int port(Block& block, int source, bool incoming) {
    auto& ports = incoming ? block.in_port : block.out_port;
    const auto it = ports.find(source);
    if (it != ports.end()) return it->second;
    const auto kind = incoming ? layered::VertexKind::kInPort : layered::VertexKind::kOutPort;
    return ports[source] = add_vertex(block, {kind, 0, 0, 0}, {false, -1});
  }

  void add_leg(Line& line, int block, int from, int to) {
    Block& b = blocks_[at(block)];
    const auto [it, added] = b.edge_index.emplace(std::make_tuple(from, to, line.from),
                                                  static_cast<int>(b.sheet.edges.size()));
    if (added) b.sheet.edges.push_back({from, to, line.from, false, false, 0, 0});
    line.legs.emplace_back(block, it->second);
  }

  // Out of the blocks around the source, across the block that holds both, into those around the target.
  void add_line(Line& line) {
    const Element &from = elements_[at(line.from)], &to = elements_[at(line.to)];
    int a = from.block, b = to.block;
    int va = from.vertex, vb = to.vertex;
    std::vector<std::tuple<int, int, int>> into;
    while (a != b) {
      if (blocks_[at(a)].depth >= blocks_[at(b)].depth) {
        add_leg(line, a, va, port(blocks_[at(a)], line.from, false));
        va = blocks_[at(a)].vertex;
        a = blocks_[at(a)].parent;
      } else {
        into.emplace_back(b, port(blocks_[at(b)], line.from, true), vb);
        vb = blocks_[at(b)].vertex;
        b = blocks_[at(b)].parent;
      }
    }
    add_leg(line, a, va, vb);
    for (auto it = into.rbegin(); it != into.rend(); ++it)
      add_leg(line, std::get<0>(*it), std::get<1>(*it), std::get<2>(*it));
  }

  void make_edges() {
    std::map<std::pair<int, int>, std::size_t> known;
    for (std::size_t i = 0; i < in_.edges.size(); ++i) {
      const auto from = element_of_.find(in_.edges[i].from), to = element_of_.find(in_.edges[i].to);
      if (from == element_of_.end() || to == element_of_.end() || from->second == to->second) continue;
      const auto [it, added] = known.emplace(std::make_pair(from->second, to->second), lines_.size());
      if (added) lines_.push_back({from->second, to->second, {}, {}});
      lines_[it->second].edges.push_back(i);
    }
    for (Line& line : lines_) add_line(line);
  }

  void fix_ends(const Block& block, layered::Edge& edge) const {
    if (const auto& c = block.content[at(edge.from)]; c.first) {
      const Block& child = blocks_[at(c.second)];
      edge.fixed_from = true;
      edge.from_dx = child.placed.axis[at(child.out_port.at(edge.source))] - child.axis;
    }
    if (const auto& c = block.content[at(edge.to)]; c.first) {
      const Block& child = blocks_[at(c.second)];
      edge.fixed_to = true;
      edge.to_dx = child.placed.axis[at(child.in_port.at(edge.source))] - child.axis;
    }
  }

  // The way through the block: the entrance that lies nearest to the first exit.
  static double main_axis(const Block& b) {
    const auto first = [&b](const std::map<int, int>& ports) { return b.placed.axis[at(ports.begin()->second)]; };
    if (b.in_port.empty()) return b.out_port.empty() ? (b.placed.left + b.placed.right) / 2 : first(b.out_port);
    if (b.out_port.empty()) return first(b.in_port);
    const double exit = first(b.out_port);
    double best = first(b.in_port);
    for (const auto& [source, v] : b.in_port)
      if (std::fabs(b.placed.axis[at(v)] - exit) < std::fabs(best - exit)) best = b.placed.axis[at(v)];
    return best;
  }

  void lay_out_block(Block& b) {
    fix_all(b);
    b.placed = layered::lay_out(b.sheet, stop_);
    b.axis = main_axis(b);
    const LayoutOptions& o = in_.options;
    const double header_room = 8.0 * static_cast<double>(std::min<std::size_t>(40, tree_.groups[at(b.group)].title.size())) + 60;
    b.left = b.axis - b.placed.left + o.group_padding;
    b.right = b.placed.right - b.axis + o.group_padding;
    if (b.left + b.right < header_room) {
      const double more = header_room - b.left - b.right;
      b.left += more / 2;
      b.right += more / 2;
    }
    b.height = b.placed.height + o.group_header + o.group_padding;
  }
  // The sizes of the blocks inside, and where lines meet them.
  void fix_all(Block& b) {
    for (std::size_t v = 0; v < b.content.size(); ++v) {
      if (!b.content[v].first) continue;
      const Block& child = blocks_[at(b.content[v].second)];
      b.sheet.vertices[v] = {layered::VertexKind::kNode, child.left, child.right, child.height};
    }
    for (layered::Edge& e : b.sheet.edges) fix_ends(b, e);
  }

  // Parts that nothing connects are laid out one by one and set on shelves.
  void lay_out_whole() {
    Block& whole = blocks_.front();
    fix_all(whole);
    const std::size_t n = whole.sheet.vertices.size();
    const std::vector<int> part = parts(whole.sheet);
    const int count = n == 0 ? 0 : *std::max_element(part.begin(), part.end()) + 1;
    std::vector<std::vector<int>> vertices(at(count)), edges(at(count));
    for (std::size_t v = 0; v < n; ++v) vertices[at(part[v])].push_back(static_cast<int>(v));
    for (std::size_t e = 0; e < whole.sheet.edges.size(); ++e)
      edges[at(part[at(whole.sheet.edges[e].from)])].push_back(static_cast<int>(e));
    whole.placed.axis.assign(n, 0);
    whole.placed.top.assign(n, 0);
    whole.placed.routes.resize(whole.sheet.edges.size());
    std::vector<layered::Placed> placed;
    for (int p = 0; p < count; ++p) {
      placed.push_back(lay_out_part(whole.sheet, vertices[at(p)], edges[at(p)]));
      if (stop_.stop_requested()) return;
    }
    shelve(whole, placed, vertices, edges);
  }

  static std::vector<int> parts(const layered::Sheet& sheet) {
    std::vector<int> root(sheet.vertices.size());
    for (std::size_t v = 0; v < root.size(); ++v) root[v] = static_cast<int>(v);
    const auto find = [&root](int v) {
      while (root[at(v)] != v) v = root[at(v)] = root[at(root[at(v)])];
      return v;
    };
    for (const layered::Edge& e : sheet.edges) {
      const int a = find(e.from), b = find(e.to);
      root[at(std::max(a, b))] = std::min(a, b);
    }
    std::vector<int> number(root.size(), -1), out(root.size());
    int next = 0;
    for (std::size_t v = 0; v < root.size(); ++v) {
      int& k = number[at(find(static_cast<int>(v)))];
      if (k < 0) k = next++;
      out[v] = k;
    }
    return out;
  }

  layered::Placed lay_out_part(const layered::Sheet& sheet, const std::vector<int>& vertices,
                               const std::vector<int>& edges) const {
    layered::Sheet part;
    part.options = sheet.options;
    std::unordered_map<int, int> local;
    for (const int v : vertices) {
      local[v] = static_cast<int>(part.vertices.size());
      part.vertices.push_back(sheet.vertices[at(v)]);
    }
    for (const int e : edges) {
      layered::Edge edge = sheet.edges[at(e)];
      edge.from = local[edge.from];
      edge.to = local[edge.to];
      part.edges.push_back(edge);
    }
    return layered::lay_out(part, stop_);
  }

  void shelve(Block& whole, const std::vector<layered::Placed>& placed, const std::vector<std::vector<int>>& vertices,
              const std::vector<std::vector<int>>& edges) const {
    const double gap = 2 * in_.options.node_gap;
    double area = 0, widest = 0;
    for (const auto& p : placed) {
      area += (p.right - p.left + gap) * (p.height + gap);
      widest = std::max(widest, p.right - p.left);
    }
    const double limit = std::max(widest, std::sqrt(area * 1.5));
    double x = 0, y = 0, shelf = 0;
    for (std::size_t p = 0; p < placed.size(); ++p) {
      const double width = placed[p].right - placed[p].left;
      if (x > 0 && x + width > limit) {
        x = 0;
        y += shelf + gap;
        shelf = 0;
      }
      const double dx = x - placed[p].left;
      for (std::size_t i = 0; i < vertices[p].size(); ++i) {
        whole.placed.axis[at(vertices[p][i])] = placed[p].axis[i] + dx;
        whole.placed.top[at(vertices[p][i])] = placed[p].top[i] + y;
      }
      for (std::size_t i = 0; i < edges[p].size(); ++i) {
        layered::Route route = placed[p].routes[i];
        for (LayoutPoint& point : route.points) point = {point.x + dx, point.y + y};
        whole.placed.routes[at(edges[p][i])] = std::move(route);
      }
      whole.placed.right = std::max(whole.placed.right, x + width);
      whole.placed.height = std::max(whole.placed.height, y + placed[p].height);
      x += width + gap;
      shelf = std::max(shelf, placed[p].height);
    }
  }

  LayoutRect rect_of(const Block& b, int vertex) const {
    const layered::Vertex& v = b.sheet.vertices[at(vertex)];
    return {b.origin.x + b.placed.axis[at(vertex)] - v.left, b.origin.y + b.placed.top[at(vertex)], v.left + v.right,
            v.height};
  }

  void place_origins() {
    blocks_.front().origin = {0, 0};
    for (std::size_t i = 1; i < blocks_.size(); ++i) {
      Block& b = blocks_[i];
      const Block& parent = blocks_[at(b.parent)];
      b.origin.x = parent.origin.x + parent.placed.axis[at(b.vertex)] - b.axis;
      b.origin.y = parent.origin.y + parent.placed.top[at(b.vertex)] + in_.options.group_header;
    }
  }

  // The first node's centre comes to x = 0.
  void centre_on_first_node() {
    if (elements_.empty()) return;
    const Element& first = elements_.front();
    const LayoutRect r = rect_of(blocks_[at(first.block)], first.vertex);
    for (Block& b : blocks_) b.origin.x -= r.x + r.width / 2;
  }

  LayoutResult collect() {
    place_origins();
    centre_on_first_node();
    LayoutResult out;
    std::vector<int> shown(tree_.groups.size(), -1);
    std::vector<int> element_of_group(tree_.groups.size(), -1);
    for (std::size_t e = 0; e < elements_.size(); ++e)
      if (elements_[e].group >= 0) element_of_group[at(elements_[e].group)] = static_cast<int>(e);
    for (std::size_t g = 0; g < tree_.groups.size(); ++g) collect_group(out, static_cast<int>(g), element_of_group[g], shown);
    for (const Element& e : elements_) {
      if (e.node < 0) continue;
      const int group = tree_.innermost[at(e.node)];
      out.nodes.push_back({in_.nodes[at(e.node)].id, rect_of(blocks_[at(e.block)], e.vertex),
                           group < 0 ? -1 : shown[at(group)]});
    }
    for (const Line& line : lines_) out.edges.push_back(route(line, shown));
    set_bounds(out);
    return out;
  }

  void collect_group(LayoutResult& out, int g, int element, std::vector<int>& shown) const {
    const ScopeGroup& group = tree_.groups[at(g)];
    const auto block = block_of_group_.find(g);
    if (block == block_of_group_.end() && element < 0) return;
    PlacedGroup p;
    p.path = group.path;
    p.title = group.title;
    p.parent = group.parent < 0 ? -1 : shown[at(group.parent)];
    p.depth = group.depth;
    p.nodes = group.nodes;
    p.collapsed = element >= 0;
    if (element >= 0) {
      const Element& e = elements_[at(element)];
      p.rect = rect_of(blocks_[at(e.block)], e.vertex);
    } else {
      const Block& b = blocks_[at(block->second)];
      p.rect = rect_of(blocks_[at(b.parent)], b.vertex);
    }
    shown[at(g)] = static_cast<int>(out.groups.size());
    out.groups.push_back(std::move(p));
  }

  RoutedEdge route(const Line& line, const std::vector<int>& shown) const {
    const Element &from = elements_[at(line.from)], &to = elements_[at(line.to)];
    RoutedEdge out;
    out.from = from.node >= 0 ? in_.nodes[at(from.node)].id : kNoNode;
    out.to = to.node >= 0 ? in_.nodes[at(to.node)].id : kNoNode;
    out.from_group = from.group >= 0 ? shown[at(from.group)] : -1;
    out.to_group = to.group >= 0 ? shown[at(to.group)] : -1;
    out.edges = line.edges;
    for (const auto& [b, e] : line.legs) {
      const Block& block = blocks_[at(b)];
      const layered::Route& leg = block.placed.routes[at(e)];
      out.stub = out.stub || leg.stub;
      out.upwards = out.upwards || leg.reversed;
      for (const LayoutPoint& p : leg.points) out.points.push_back({block.origin.x + p.x, block.origin.y + p.y});
    }
    if (out.stub) out.points = stub_points(from, to);
    return out;
  }

  std::vector<LayoutPoint> stub_points(const Element& from, const Element& to) const {
    const LayoutRect a = rect_of(blocks_[at(from.block)], from.vertex), b = rect_of(blocks_[at(to.block)], to.vertex);
    const double ax = a.x + a.width * 0.82, bx = b.x + b.width * 0.18, length = in_.options.stub_length;
    return {{ax, a.bottom()}, {ax, a.bottom() + length}, {bx, b.y - length}, {bx, b.y}};
  }

  void set_bounds(LayoutResult& out) const {
    bool first = true;
    double left = 0, top = 0, right = 0, bottom = 0;
    const auto add = [&](double x0, double y0, double x1, double y1) {
      left = first ? x0 : std::min(left, x0);
      top = first ? y0 : std::min(top, y0);
      right = first ? x1 : std::max(right, x1);
      bottom = first ? y1 : std::max(bottom, y1);
      first = false;
    };
    for (const PlacedNode& n : out.nodes) add(n.rect.x, n.rect.y, n.rect.right(), n.rect.bottom());
    for (const PlacedGroup& g : out.groups) add(g.rect.x, g.rect.y, g.rect.right(), g.rect.bottom());
    for (const RoutedEdge& e : out.edges)
      for (const LayoutPoint& p : e.points) add(p.x, p.y, p.x, p.y);
    out.bounds = {left, top, right - left, bottom - top};
  }

  const LayoutInput& in_;
  std::stop_token stop_;
  Tree tree_;
  std::vector<Block> blocks_;
  std::unordered_map<int, int> block_of_group_;
  std::vector<Element> elements_;
  std::unordered_map<NodeId, int> element_of_;
  std::vector<Line> lines_;
};

}  // namespace

std::vector<ScopeGroup> scope_groups(const LayoutInput& input) { return build_tree(input).groups; }

std::optional<LayoutResult> compute_layout(const LayoutInput& input, std::stop_token stop) {
  return Composer(input, stop).run();
}

}  // namespace quanvas
