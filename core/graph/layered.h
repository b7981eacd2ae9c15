// Quanvas - layered layout of one flat sheet: the inner part of layout.h. Vertices with an axis (the x at which
// main edges pass), edges with optional fixed places of attachment. Not for use outside core/graph.
#pragma once

#include <stop_token>
#include <vector>

#include "core/graph/layout.h"

namespace quanvas::layered {

enum class VertexKind { kNode, kInPort, kOutPort };  // ports: zero size, first and last row

struct Vertex {
  VertexKind kind = VertexKind::kNode;
  double left = 0, right = 0, height = 0;  // extents from the axis
};
struct Edge {
  int from = 0, to = 0;
  int source = 0;                          // edges of one vertex with the same source share their line
  bool fixed_from = false, fixed_to = false;
  double from_dx = 0, to_dx = 0;           // where the line meets the vertex, from its axis, when fixed
};
struct Sheet {
  std::vector<Vertex> vertices;
  std::vector<Edge> edges;
  LayoutOptions options;
};

struct Route {
  std::vector<LayoutPoint> points;         // empty for a stub
  bool stub = false, reversed = false;
};
struct Placed {
  std::vector<double> axis, top;           // per vertex
  std::vector<Route> routes;               // per edge
  double left = 0, right = 0, height = 0;  // bounds; top is 0
};

// What the phases share: the given vertices first, then the dummies.
struct Work {
  const Sheet* sheet = nullptr;
  std::vector<int> rank;
  std::vector<bool> reversed, stub;             // per edge
  std::vector<std::vector<int>> chain;          // per edge: its dummies from the upper to the lower end
  std::vector<std::vector<int>> up, down;       // neighbours in the row above and below
  std::vector<std::vector<int>> rows;           // vertices per rank, from left to right
  std::vector<int> position;                    // in its row

  bool dummy(int v) const { return v >= static_cast<int>(sheet->vertices.size()); }
  int upper(std::size_t e) const { return reversed[e] ? sheet->edges[e].to : sheet->edges[e].from; }
  int lower(std::size_t e) const { return reversed[e] ? sheet->edges[e].from : sheet->edges[e].to; }
  double left(int v) const { return dummy(v) ? 0 : sheet->vertices[static_cast<std::size_t>(v)].left; }
  double right(int v) const { return dummy(v) ? 0 : sheet->vertices[static_cast<std::size_t>(v)].right; }
  double height(int v) const { return dummy(v) ? 0 : sheet->vertices[static_cast<std::size_t>(v)].height; }
};

void assign_ranks(Work& work);        // rank, reversed
void add_dummies(Work& work);         // stub, chain, up, down, rows
void order_rows(Work& work, std::stop_token stop);
std::size_t count_crossings(const Work& work);
std::vector<double> place_axes(const Work& work);  // x of every vertex, dummies included
void place_rows_and_route(const Work& work, const std::vector<double>& x, Placed& out);

Placed lay_out(const Sheet& sheet, std::stop_token stop);

}  // namespace quanvas::layered
