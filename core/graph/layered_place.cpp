// x after Brandes and Köpf, "Fast and simple horizontal coordinate assignment" (2001): four extreme alignments,
// their median. Blocks are compacted by longest paths over "stands left of", which cannot overlap; the median
// of four placements that keep every distance keeps it too.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "core/graph/layered.h"

namespace quanvas::layered {

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

std::uint64_t key(int upper, int lower) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(upper)) << 32 | static_cast<std::uint32_t>(lower);
}

struct Placer {
  const Work& work;
  std::unordered_set<std::uint64_t> conflicts;  // edges that cross a line between two dummies
  std::vector<bool> kin_above, kin_below;       // has a neighbour of its own kind (node or dummy) there

  int upper_dummy(int v) const {
    if (!work.dummy(v)) return -1;
    for (const int u : work.up[at(v)])
      if (work.dummy(u)) return u;
    return -1;
  }

  void mark_conflicts() {
    for (std::size_t r = 1; r + 1 < work.rows.size(); ++r) {
      const auto& lower = work.rows[r + 1];
      int from = 0;
      std::size_t done = 0;
      for (std::size_t i = 0; i < lower.size(); ++i) {
        const int inner = upper_dummy(lower[i]);
        if (inner < 0 && i + 1 < lower.size()) continue;
        const int to = inner < 0 ? std::numeric_limits<int>::max() : work.position[at(inner)];
        for (; done <= i; ++done) {
          for (const int u : work.up[at(lower[done])]) {
            const bool is_inner = work.dummy(u) && work.dummy(lower[done]);
            const int p = work.position[at(u)];
            if (!is_inner && (p < from || p > to)) conflicts.insert(key(u, lower[done]));
          }
        }
        from = to;
      }
    }
  }

  double separation(int left, int right) const {
    const LayoutOptions& o = work.sheet->options;
    const bool thin_left = thin(left), thin_right = thin(right);
    const double gap = thin_left && thin_right ? o.edge_gap : thin_left || thin_right ? 2 * o.edge_gap : o.node_gap;
    return work.right(left) + gap + work.left(right);
  }
  bool thin(int v) const { return work.dummy(v) || work.sheet->vertices[at(v)].kind != VertexKind::kNode; }

  void note_kin() {
    for (std::size_t v = 0; v < work.rank.size(); ++v) {
      const auto has_kin = [&](const std::vector<int>& neighbours) {
        return std::any_of(neighbours.begin(), neighbours.end(),
                           [&](int w) { return work.dummy(w) == work.dummy(static_cast<int>(v)); });
      };
      kin_above.push_back(has_kin(work.up[v]));
      kin_below.push_back(has_kin(work.down[v]));
    }
  }

  // Lines between dummies stay straight before anything else; then chains of nodes: a node and a dummy are
  // aligned only when neither has a neighbour of its own kind there.
  std::vector<int> candidates(int v, bool above) const {
    const auto& mine = above ? kin_above : kin_below;
    const auto& theirs = above ? kin_below : kin_above;
    std::vector<int> out;
    for (const int w : above ? work.up[at(v)] : work.down[at(v)])
      if (work.dummy(w) == work.dummy(v) || (!mine[at(v)] && !theirs[at(w)])) out.push_back(w);
    std::sort(out.begin(), out.end(), [this](int a, int b) { return work.position[at(a)] < work.position[at(b)]; });
    return out;
  }

  struct Blocks {
    std::vector<int> root, next;  // next: the following vertex of the block, round to the root
  };

  Blocks align(bool above, bool from_left) const {
    const std::size_t n = work.rank.size();
    Blocks b{std::vector<int>(n), std::vector<int>(n)};
    for (std::size_t v = 0; v < n; ++v) b.root[v] = b.next[v] = static_cast<int>(v);
    const std::size_t rows = work.rows.size();
    for (std::size_t i = 1; i < rows; ++i) {
      const auto& row = work.rows[above ? i : rows - 1 - i];
      long limit = -1;  // counted from the side that we come from
      const std::size_t other = work.rows[above ? i - 1 : rows - i].size();
      for (std::size_t k = 0; k < row.size(); ++k) {
        const int v = from_left ? row[k] : row[row.size() - 1 - k];
        std::vector<int> c = candidates(v, above);
        if (!from_left) std::reverse(c.begin(), c.end());
        if (c.empty()) continue;
        const std::size_t lo = (c.size() - 1) / 2, hi = c.size() / 2;
        for (std::size_t m = lo; m <= hi && b.next[at(v)] == v; ++m) {
          const int u = c[m];
          const long p = from_left ? work.position[at(u)] : static_cast<long>(other) - 1 - work.position[at(u)];
          if (p <= limit || conflicts.count(above ? key(u, v) : key(v, u))) continue;
          b.next[at(u)] = v;
          b.root[at(v)] = b.root[at(u)];
          b.next[at(v)] = b.root[at(v)];
          limit = p;
        }
      }
    }
    return b;
  }

  std::vector<double> compact(const Blocks& b, bool from_left) const {
    const std::size_t n = work.rank.size();
    std::vector<std::vector<std::pair<int, double>>> after(n), before(n);
    std::vector<int> waiting(n, 0), order;
    for (const auto& row : work.rows)
      for (std::size_t i = 1; i < row.size(); ++i) {
        const int left = row[i - 1], right = row[i];
        int a = b.root[at(left)], c = b.root[at(right)];
        if (!from_left) std::swap(a, c);
        after[at(a)].emplace_back(c, separation(left, right));
        before[at(c)].emplace_back(a, separation(left, right));
        ++waiting[at(c)];
      }
    for (std::size_t v = 0; v < n; ++v)
      if (b.root[v] == static_cast<int>(v) && waiting[v] == 0) order.push_back(static_cast<int>(v));
    std::vector<double> x(n, 0);
    for (std::size_t i = 0; i < order.size(); ++i)
      for (const auto& [w, gap] : after[at(order[i])]) {
        x[at(w)] = std::max(x[at(w)], x[at(order[i])] + gap);
        if (--waiting[at(w)] == 0) order.push_back(w);
      }
    // Blocks that nothing holds on the near side move up to their far neighbours.
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
      double limit = std::numeric_limits<double>::infinity();
      for (const auto& [w, gap] : after[at(*it)]) limit = std::min(limit, x[at(w)] - gap);
      if (std::isfinite(limit)) x[at(*it)] = std::max(x[at(*it)], limit);
    }
    std::vector<double> out(n);
    for (std::size_t v = 0; v < n; ++v) out[v] = from_left ? x[at(b.root[v])] : -x[at(b.root[v])];
    return out;
  }
};

struct Extent {
  double low, high;
};

Extent extent(const Work& work, const std::vector<double>& x) {
  Extent e{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (std::size_t v = 0; v < x.size(); ++v) {
    e.low = std::min(e.low, x[v] - work.left(static_cast<int>(v)));
    e.high = std::max(e.high, x[v] + work.right(static_cast<int>(v)));
  }
  return e;
}

}  // namespace

std::vector<double> place_axes(const Work& work) {
  Placer placer{work, {}, {}, {}};
  placer.note_kin();
  placer.mark_conflicts();
  std::array<std::vector<double>, 4> all;
  std::array<Extent, 4> extents{};
  std::size_t narrowest = 0;
  for (std::size_t k = 0; k < 4; ++k) {
    const bool above = k < 2, from_left = k % 2 == 0;
    all[k] = placer.compact(placer.align(above, from_left), from_left);
    extents[k] = extent(work, all[k]);
    if (extents[k].high - extents[k].low < extents[narrowest].high - extents[narrowest].low) narrowest = k;
  }
  for (std::size_t k = 0; k < 4; ++k) {
    const double shift = k % 2 == 0 ? extents[narrowest].low - extents[k].low : extents[narrowest].high - extents[k].high;
    for (double& x : all[k]) x += shift;
  }
  std::vector<double> x(work.rank.size());
  for (std::size_t v = 0; v < x.size(); ++v) {
    std::array<double, 4> four = {all[0][v], all[1][v], all[2][v], all[3][v]};
    std::sort(four.begin(), four.end());
    x[v] = (four[1] + four[2]) / 2;
  }
  return x;
}

}  // namespace quanvas::layered
