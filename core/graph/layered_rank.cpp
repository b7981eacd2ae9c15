// Ranks, and the chains of dummy vertices that carry long edges through the rows between.
#include <algorithm>
#include <limits>
#include <map>

#include "core/graph/layered.h"

namespace quanvas::layered {

namespace {

using Adjacency = std::vector<std::vector<int>>;

// Depth-first search in the order of the vertices; an edge to a vertex that is still open closes a circle.
void reverse_circles(Work& work) {
  const std::size_t n = work.sheet->vertices.size();
  Adjacency out(n);
  for (std::size_t e = 0; e < work.sheet->edges.size(); ++e)
    out[static_cast<std::size_t>(work.sheet->edges[e].from)].push_back(static_cast<int>(e));
  enum : char { kNew, kOpen, kDone };
  std::vector<char> state(n, kNew);
  std::vector<std::pair<std::size_t, std::size_t>> stack;
  for (std::size_t root = 0; root < n; ++root) {
    if (state[root] != kNew) continue;
    stack.emplace_back(root, 0);
    state[root] = kOpen;
    while (!stack.empty()) {
      auto& [v, next] = stack.back();
      if (next == out[v].size()) {
        state[v] = kDone;
        stack.pop_back();
        continue;
      }
      const auto e = static_cast<std::size_t>(out[v][next++]);
      const auto to = static_cast<std::size_t>(work.sheet->edges[e].to);
      if (state[to] == kOpen) work.reversed[e] = true;
      if (state[to] != kNew) continue;
      state[to] = kOpen;
      stack.emplace_back(to, 0);
    }
  }
}

struct Directed {
  Adjacency in, out;
  std::vector<int> order;  // topological
};

Directed directed(const Work& work) {
  const std::size_t n = work.sheet->vertices.size();
  Directed d{Adjacency(n), Adjacency(n), {}};
  for (std::size_t e = 0; e < work.sheet->edges.size(); ++e) {
    d.out[static_cast<std::size_t>(work.upper(e))].push_back(work.lower(e));
    d.in[static_cast<std::size_t>(work.lower(e))].push_back(work.upper(e));
  }
  std::vector<std::size_t> waiting(n);
  for (std::size_t v = 0; v < n; ++v) {
    waiting[v] = d.in[v].size();
    if (waiting[v] == 0) d.order.push_back(static_cast<int>(v));
  }
  for (std::size_t i = 0; i < d.order.size(); ++i)
    for (const int w : d.out[static_cast<std::size_t>(d.order[i])])
      if (--waiting[static_cast<std::size_t>(w)] == 0) d.order.push_back(w);
  return d;
}

bool is_node(const Work& work, std::size_t v) { return work.sheet->vertices[v].kind == VertexKind::kNode; }

// Vertices that pull more on one side than on the other go there as far as their neighbours allow: the sum of
// the lengths falls. Down also on a tie, so that a chain of constants follows its consumer.
void tighten(Work& work, const Directed& d) {
  for (int round = 0; round < 3; ++round) {
    for (auto it = d.order.rbegin(); it != d.order.rend(); ++it) {
      const auto v = static_cast<std::size_t>(*it);
      if (!is_node(work, v) || d.out[v].empty() || d.out[v].size() < d.in[v].size()) continue;
      int limit = std::numeric_limits<int>::max();
      for (const int w : d.out[v]) limit = std::min(limit, work.rank[static_cast<std::size_t>(w)] - 1);
      work.rank[v] = std::max(work.rank[v], limit);
    }
    for (const int vertex : d.order) {
      const auto v = static_cast<std::size_t>(vertex);
      if (!is_node(work, v) || d.in[v].size() <= d.out[v].size()) continue;
      int limit = 0;
      for (const int w : d.in[v]) limit = std::max(limit, work.rank[static_cast<std::size_t>(w)] + 1);
      work.rank[v] = limit;
    }
  }
}

int add_dummy(Work& work, int rank) {
  work.rank.push_back(rank);
  work.up.emplace_back();
  work.down.emplace_back();
  return static_cast<int>(work.rank.size()) - 1;
}

void link(Work& work, int upper, int lower) {
  work.down[static_cast<std::size_t>(upper)].push_back(lower);
  work.up[static_cast<std::size_t>(lower)].push_back(upper);
}

// All edges of one line (same upper end, source and direction), nearest target first.
void lay_line(Work& work, std::vector<std::size_t>& edges) {
  std::stable_sort(edges.begin(), edges.end(), [&work](std::size_t a, std::size_t b) {
    return work.rank[static_cast<std::size_t>(work.lower(a))] < work.rank[static_cast<std::size_t>(work.lower(b))];
  });
  const int start = work.upper(edges.front());
  const int first = work.rank[static_cast<std::size_t>(start)];
  std::vector<int> trunk;  // trunk[i] lies in row first + 1 + i
  for (const std::size_t e : edges) {
    const int target = work.lower(e);
    const int end = work.rank[static_cast<std::size_t>(target)];
    if (end - (first + static_cast<int>(trunk.size())) > work.sheet->options.max_span) {
      work.stub[e] = true;
      continue;
    }
    while (first + 1 + static_cast<int>(trunk.size()) < end) {
      const int d = add_dummy(work, first + 1 + static_cast<int>(trunk.size()));
      link(work, trunk.empty() ? start : trunk.back(), d);
      trunk.push_back(d);
    }
    const auto used = static_cast<std::size_t>(end - first - 1);
    link(work, used == 0 ? start : trunk[used - 1], target);
    work.chain[e].assign(trunk.begin(), trunk.begin() + static_cast<std::ptrdiff_t>(used));
  }
}

}  // namespace

void assign_ranks(Work& work) {
  const std::size_t n = work.sheet->vertices.size();
  work.reversed.assign(work.sheet->edges.size(), false);
  reverse_circles(work);
  const Directed d = directed(work);
  const bool has_ports = std::any_of(work.sheet->vertices.begin(), work.sheet->vertices.end(),
                                     [](const Vertex& v) { return v.kind == VertexKind::kInPort; });
  work.rank.assign(n, 0);
  int last = 0;
  for (const int vertex : d.order) {
    const auto v = static_cast<std::size_t>(vertex);
    int& rank = work.rank[v];
    if (work.sheet->vertices[v].kind != VertexKind::kInPort && has_ports) rank = std::max(rank, 1);
    for (const int w : d.in[v]) rank = std::max(rank, work.rank[static_cast<std::size_t>(w)] + 1);
    last = std::max(last, rank);
  }
  for (std::size_t v = 0; v < n; ++v)
    if (work.sheet->vertices[v].kind == VertexKind::kOutPort) work.rank[v] = last;
  tighten(work, d);
}

void add_dummies(Work& work) {
  const std::size_t n = work.sheet->vertices.size(), m = work.sheet->edges.size();
  work.stub.assign(m, false);
  work.chain.assign(m, {});
  work.up.assign(n, {});
  work.down.assign(n, {});
  std::map<std::tuple<int, int, bool>, std::vector<std::size_t>> lines;
  for (std::size_t e = 0; e < m; ++e)
    lines[{work.upper(e), work.sheet->edges[e].source, work.reversed[e]}].push_back(e);
  for (auto& [key, edges] : lines) lay_line(work, edges);
  int last = 0;
  for (const int r : work.rank) last = std::max(last, r);
  work.rows.assign(static_cast<std::size_t>(last) + 1, {});
}

}  // namespace quanvas::layered
