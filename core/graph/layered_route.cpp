// y of the rows, where lines meet their vertices, and their points.
#include <algorithm>
#include <cmath>

#include "core/graph/layered.h"

namespace quanvas::layered {

namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// One end of one edge at a vertex that is not fixed: where the line would like to meet it.
struct Meeting {
  std::size_t edge;
  double wanted;  // x of the line beyond
};

struct Router {
  const Work& work;
  const std::vector<double>& x;
  Placed& out;
  std::vector<double> row_top, row_bottom;
  std::vector<double> start_x, end_x;  // per edge, at the upper and the lower vertex

  double dx_at(std::size_t e, bool upper) const {
    const Edge& edge = work.sheet->edges[e];
    const bool at_from = upper != work.reversed[e];
    const bool fixed = at_from ? edge.fixed_from : edge.fixed_to;
    return fixed ? (at_from ? edge.from_dx : edge.to_dx) : 0;
  }
  bool fixed_at(std::size_t e, bool upper) const {
    const Edge& edge = work.sheet->edges[e];
    return upper != work.reversed[e] ? edge.fixed_from : edge.fixed_to;
  }

  // The neighbour of the edge's end: a dummy, or the vertex at the other end.
  double beyond(std::size_t e, bool upper) const {
    const auto& chain = work.chain[e];
    if (!chain.empty()) return x[at(upper ? chain.front() : chain.back())];
    const int other = upper ? work.lower(e) : work.upper(e);
    return x[at(other)] + dx_at(e, !upper);
  }
  // Lines of passing dummies and ports come in where they are; lines between neighbours meet the axis.
  bool meets_axis(std::size_t e, bool upper) const {
    const int other = upper ? work.lower(e) : work.upper(e);
    return work.chain[e].empty() && work.sheet->vertices[at(other)].kind == VertexKind::kNode &&
           !fixed_at(e, !upper);
  }

  // Lines left and right of the axis get places of their own between the axis and the corner.
  void spread(std::vector<Meeting>& side, double axis, double extent, bool to_right, std::vector<double>& ends) const {
    if (side.empty()) return;
    std::stable_sort(side.begin(), side.end(), [to_right](const Meeting& a, const Meeting& b) {
      return to_right ? a.wanted > b.wanted : a.wanted < b.wanted;  // outermost first
    });
    const double reach = std::max(0.0, extent - 12);
    double lines = 0;
    for (std::size_t i = 0; i < side.size(); ++i)
      if (i == 0 || side[i].wanted != side[i - 1].wanted) ++lines;
    const double step = std::min(10.0, reach / std::max(1.0, lines));
    double limit = reach, last = 0;
    for (std::size_t i = 0; i < side.size(); ++i) {
      const double wanted = std::fabs(side[i].wanted - axis);
      if (i > 0 && side[i].wanted != side[i - 1].wanted) limit = last - step;
      last = std::clamp(wanted, 0.0, std::max(0.0, limit));
      ends[side[i].edge] = to_right ? axis + last : axis - last;
    }
  }

  void meet_vertices() {
    const std::size_t n = work.sheet->vertices.size(), m = work.sheet->edges.size();
    start_x.assign(m, 0);
    end_x.assign(m, 0);
    for (const bool upper : {true, false}) {
      auto& ends = upper ? start_x : end_x;
      std::vector<std::vector<Meeting>> left(n), right(n);
      for (std::size_t e = 0; e < m; ++e) {
        const int v = upper ? work.upper(e) : work.lower(e);
        const bool node = work.sheet->vertices[at(v)].kind == VertexKind::kNode;
        ends[e] = x[at(v)] + dx_at(e, upper);
        if (work.stub[e] || !node || fixed_at(e, upper) || meets_axis(e, upper)) continue;
        const double wanted = beyond(e, upper);
        if (std::fabs(wanted - x[at(v)]) < 0.5) continue;
        (wanted > x[at(v)] ? right : left)[at(v)].push_back({e, wanted});
      }
      for (std::size_t v = 0; v < n; ++v) {
        spread(left[v], x[v], work.sheet->vertices[v].left, false, ends);
        spread(right[v], x[v], work.sheet->vertices[v].right, true, ends);
      }
    }
  }

  // The steeper a row's lines must turn, the more room they get.
  double gap_below(std::size_t r, const std::vector<double>& turn) const {
    const auto only_ports = [this](const std::vector<int>& row) {
      return std::all_of(row.begin(), row.end(), [this](int v) {
        return !work.dummy(v) && work.sheet->vertices[at(v)].kind != VertexKind::kNode;
      });
    };
    const bool beside_ports = only_ports(work.rows[r]) || (r + 1 < work.rows.size() && only_ports(work.rows[r + 1]));
    const double base = work.sheet->options.rank_gap * (beside_ports ? 0.7 : 1.0);
    return base + std::min(48.0, std::max(0.0, turn[r] - 40) * 0.12);
  }

  std::vector<double> widest_turns() const {
    std::vector<double> turn(work.rows.size(), 0);
    const auto note = [&turn](int rank, double a, double b) { turn[at(rank)] = std::max(turn[at(rank)], std::fabs(a - b)); };
    for (std::size_t e = 0; e < work.sheet->edges.size(); ++e) {
      if (work.stub[e]) continue;
      const int first = work.rank[at(work.upper(e))];
      double before = start_x[e];
      int rank = first;
      for (const int d : work.chain[e]) {
        note(rank++, before, x[at(d)]);
        before = x[at(d)];
      }
      note(rank, before, end_x[e]);
    }
    return turn;
  }

  void place_rows() {
    const std::vector<double> turn = widest_turns();
    double y = 0;
    for (std::size_t r = 0; r < work.rows.size(); ++r) {
      double height = 0;
      for (const int v : work.rows[r]) height = std::max(height, work.height(v));
      row_top.push_back(y);
      row_bottom.push_back(y + height);
      for (const int v : work.rows[r])
        if (!work.dummy(v)) out.top[at(v)] = y + (height - work.height(v)) / 2;
      out.height = y + height;
      y += height + gap_below(r, turn);
    }
  }

  static void add(std::vector<LayoutPoint>& points, double x, double y) {
    if (!points.empty() && points.back() == LayoutPoint{x, y}) return;
    const std::size_t n = points.size();
    if (n >= 2 && points[n - 1].x == x && points[n - 2].x == x) points.pop_back();
    points.push_back({x, y});
  }

  void route(std::size_t e) {
    Route& r = out.routes[e];
    r.stub = work.stub[e];
    r.reversed = work.reversed[e];
    if (r.stub) return;
    const int u = work.upper(e), v = work.lower(e);
    add(r.points, start_x[e], out.top[at(u)] + work.height(u));
    add(r.points, start_x[e], row_bottom[at(work.rank[at(u)])]);
    for (const int d : work.chain[e]) {
      add(r.points, x[at(d)], row_top[at(work.rank[at(d)])]);
      add(r.points, x[at(d)], row_bottom[at(work.rank[at(d)])]);
    }
    add(r.points, end_x[e], row_top[at(work.rank[at(v)])]);
    add(r.points, end_x[e], out.top[at(v)]);
    if (r.reversed) std::reverse(r.points.begin(), r.points.end());
  }
};

}  // namespace

void place_rows_and_route(const Work& work, const std::vector<double>& x, Placed& out) {
  Router router{work, x, out, {}, {}, {}, {}};
  router.meet_vertices();
  router.place_rows();
  for (std::size_t e = 0; e < work.sheet->edges.size(); ++e) router.route(e);
}

Placed lay_out(const Sheet& sheet, std::stop_token stop) {
  Work work;
  work.sheet = &sheet;
  assign_ranks(work);
  add_dummies(work);
  Placed out;
  const std::size_t n = sheet.vertices.size();
  out.top.assign(n, 0);
  out.routes.resize(sheet.edges.size());
  order_rows(work, stop);
  if (n == 0 || stop.stop_requested()) {
    out.axis.assign(n, 0);
    return out;
  }
  const std::vector<double> x = place_axes(work);
  out.axis.assign(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(n));
  place_rows_and_route(work, x, out);
  out.left = out.right = x.front();
  for (std::size_t v = 0; v < x.size(); ++v) {
    out.left = std::min(out.left, x[v] - work.left(static_cast<int>(v)));
    out.right = std::max(out.right, x[v] + work.right(static_cast<int>(v)));
  }
  return out;
}

}  // namespace quanvas::layered
