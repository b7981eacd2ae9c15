#include "core/graph/layout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace quanvas {
namespace {

LayoutNode card(NodeId id, std::string scope = {}) { return {id, 200, 44, std::move(scope)}; }

LayoutInput chain(int n) {
  LayoutInput in;
  for (int i = 0; i < n; ++i) {
    in.nodes.push_back(card(i));
    if (i > 0) in.edges.push_back({i - 1, i});
  }
  return in;
}

LayoutInput chain(std::vector<LayoutNode> nodes) {
  LayoutInput in;
  in.nodes = std::move(nodes);
  for (std::size_t i = 1; i < in.nodes.size(); ++i) in.edges.push_back({in.nodes[i - 1].id, in.nodes[i].id});
  return in;
}

// Blocks of four nodes with a shortcut, each in a scope of its own.
LayoutInput residual(int blocks) {
  LayoutInput in;
  in.nodes.push_back(card(0));
  NodeId before = 0;
  for (int b = 0; b < blocks; ++b) {
    const NodeId first = static_cast<NodeId>(in.nodes.size());
    std::string scope = "layer";
    scope += std::to_string(b / 3) + "." + std::to_string(b % 3);
    for (int k = 0; k < 4; ++k) {
      in.nodes.push_back(card(first + k, scope));
      in.edges.push_back({k == 0 ? before : first + k - 1, first + k});
    }
    in.edges.push_back({before, first + 3});
    before = first + 3;
  }
  return in;
}

// A mask that feeds every block: the case on which general layouts spend their time.
LayoutInput hub(int blocks, int per_block) {
  LayoutInput in;
  in.nodes = {card(0), card(1)};
  NodeId before = 1;
  for (int b = 0; b < blocks; ++b) {
    for (int k = 0; k < per_block; ++k) {
      const NodeId id = static_cast<NodeId>(in.nodes.size());
      in.nodes.push_back(card(id));
      in.edges.push_back({before, id});
      if (k == per_block / 2) in.edges.push_back({0, id});
      before = id;
    }
  }
  return in;
}

LayoutInput random_graph(int n, double edges_per_node, unsigned seed) {
  std::mt19937 random(seed);
  LayoutInput in;
  for (int i = 0; i < n; ++i) {
    std::string scope = "s";
    scope += std::to_string(i * 5 / n) + ".t" + std::to_string(i * 20 / n);
    if (random() % 4 == 0) scope.clear();
    in.nodes.push_back({i, 60.0 + static_cast<double>(random() % 180), 20.0 + static_cast<double>(random() % 40), scope});
  }
  for (int k = 0; k < static_cast<int>(n * edges_per_node); ++k) {
    const NodeId a = static_cast<NodeId>(random() % static_cast<unsigned>(n)), b = static_cast<NodeId>(random() % static_cast<unsigned>(n));
    if (a != b) in.edges.push_back({std::min(a, b), std::max(a, b)});
  }
  return in;
}

std::map<NodeId, LayoutRect> rects(const LayoutResult& r) {
  std::map<NodeId, LayoutRect> out;
  for (const PlacedNode& n : r.nodes) out[n.id] = n.rect;
  return out;
}

bool inside(const LayoutRect& inner, const LayoutRect& outer) {
  const double e = 1e-6;
  return inner.x >= outer.x - e && inner.y >= outer.y - e && inner.right() <= outer.right() + e &&
         inner.bottom() <= outer.bottom() + e;
}

void expect_sound(const LayoutInput& in, const LayoutResult& r) {
  std::vector<std::pair<LayoutRect, int>> boxes;  // with the group around
  for (const PlacedNode& n : r.nodes) boxes.emplace_back(n.rect, n.group);
  for (const PlacedGroup& g : r.groups) boxes.emplace_back(g.rect, g.parent);
  for (std::size_t a = 0; a < boxes.size(); ++a) {
    if (boxes[a].second >= 0) {
      EXPECT_TRUE(inside(boxes[a].first, r.groups[static_cast<std::size_t>(boxes[a].second)].rect)) << a;
    }
    for (std::size_t b = a + 1; b < boxes.size(); ++b)
      if (boxes[a].second == boxes[b].second) {
        EXPECT_FALSE(boxes[a].first.intersects(boxes[b].first)) << "boxes " << a << " and " << b << " overlap";
      }
  }
  std::size_t drawn = 0;
  for (const RoutedEdge& e : r.edges) {
    drawn += e.edges.size();
    ASSERT_GE(e.points.size(), 2u);
    for (const LayoutPoint& p : e.points) EXPECT_TRUE(std::isfinite(p.x) && std::isfinite(p.y));
    if (e.upwards) continue;
    if (e.stub) {
      EXPECT_EQ(e.points.size(), 4u);
      continue;
    }
    for (std::size_t i = 1; i < e.points.size(); ++i) EXPECT_GE(e.points[i].y, e.points[i - 1].y - 1e-6);
    EXPECT_LT(e.points.front().y, e.points.back().y);
  }
  EXPECT_LE(drawn, in.edges.size());
}

// Pairs of drawn lines that cross, by the straight pieces between their points.
int crossings(const LayoutResult& r) {
  struct Piece {
    LayoutPoint a, b;
    std::size_t edge;
  };
  std::vector<Piece> pieces;
  for (std::size_t e = 0; e < r.edges.size(); ++e)
    for (std::size_t i = 1; i < r.edges[e].points.size(); ++i)
      pieces.push_back({r.edges[e].points[i - 1], r.edges[e].points[i], e});
  const auto side = [](LayoutPoint a, LayoutPoint b, LayoutPoint p) {
    return (b.x - a.x) * (p.y - a.y) - (b.y - a.y) * (p.x - a.x);
  };
  int count = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i)
    for (std::size_t j = i + 1; j < pieces.size(); ++j) {
      const Piece &p = pieces[i], &q = pieces[j];
      if (p.edge == q.edge) continue;
      if (side(p.a, p.b, q.a) * side(p.a, p.b, q.b) < -1e-6 && side(q.a, q.b, p.a) * side(q.a, q.b, p.b) < -1e-6) ++count;
    }
  return count;
}

TEST(Layout, NothingAndOne) {
  const auto none = compute_layout({});
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->nodes.empty() && none->edges.empty());
  LayoutInput one;
  one.nodes = {card(7)};
  const auto r = compute_layout(one);
  ASSERT_EQ(r->nodes.size(), 1u);
  EXPECT_EQ(r->nodes[0].rect, (LayoutRect{-100, 0, 200, 44}));
  EXPECT_EQ(r->bounds, r->nodes[0].rect);
}

TEST(Layout, ChainIsAStraightColumn) {
  const auto r = compute_layout(chain(8));
  for (int i = 0; i < 8; ++i) EXPECT_EQ(r->nodes[static_cast<std::size_t>(i)].rect, (LayoutRect{-100, i * 68.0, 200, 44}));
  for (const RoutedEdge& e : r->edges) {
    ASSERT_EQ(e.points.size(), 2u);
    EXPECT_EQ(e.points[0].x, 0);
    EXPECT_EQ(e.points[1].x, 0);
  }
}

TEST(Layout, ShortcutsRunStraightBesideTheChain) {
  LayoutInput in = residual(6);
  for (LayoutNode& n : in.nodes) n.scope.clear();
  const auto r = compute_layout(in);
  expect_sound(in, *r);
  EXPECT_EQ(crossings(*r), 0);
  for (const PlacedNode& n : r->nodes) EXPECT_NEAR(n.rect.x, -100, 1e-6) << "the main path is one column, node " << n.id;
  for (const RoutedEdge& e : r->edges) {
    if (e.to - e.from <= 1) continue;
    double outermost = 0;
    for (const LayoutPoint& p : e.points) outermost = std::max(outermost, std::fabs(p.x));
    EXPECT_GT(outermost, 100) << "the shortcut passes the nodes";
    EXPECT_LT(outermost, 160);
  }
}

struct Known {
  const char* name;
  std::vector<std::pair<NodeId, NodeId>> edges;
  int nodes;
  int most_crossings;
};

TEST(Layout, FewCrossingsOnKnownGraphs) {
  const Known rows[] = {
      {"diamond", {{0, 1}, {0, 2}, {1, 3}, {2, 3}}, 4, 0},
      {"binary tree", {{0, 1}, {0, 2}, {1, 3}, {1, 4}, {2, 5}, {2, 6}, {3, 7}, {3, 8}, {6, 9}, {6, 10}}, 11, 0},
      {"two paths given crosswise", {{0, 3}, {1, 2}, {2, 5}, {3, 4}, {4, 6}, {5, 6}}, 7, 0},
      {"inception", {{0, 1}, {0, 2}, {2, 3}, {0, 4}, {4, 5}, {5, 6}, {0, 7}, {7, 8}, {1, 9}, {3, 9}, {6, 9}, {8, 9}}, 10, 0},
      {"K3,3", {{0, 3}, {0, 4}, {0, 5}, {1, 3}, {1, 4}, {1, 5}, {2, 3}, {2, 4}, {2, 5}}, 6, 9},
      {"K2,3", {{0, 2}, {0, 3}, {0, 4}, {1, 2}, {1, 3}, {1, 4}}, 5, 3},
      {"attention", {{0, 1}, {0, 2}, {0, 3}, {1, 4}, {2, 4}, {4, 5}, {5, 6}, {3, 6}, {6, 7}, {0, 7}}, 8, 0},
      {"dense block", {{0, 1}, {0, 2}, {1, 2}, {0, 3}, {1, 3}, {2, 3}, {0, 4}, {1, 4}, {2, 4}, {3, 4}}, 5, 1},
  };
  for (const Known& k : rows) {
    LayoutInput in;
    for (NodeId i = 0; i < k.nodes; ++i) in.nodes.push_back(card(i));
    for (const auto& [a, b] : k.edges) in.edges.push_back({a, b});
    const auto r = compute_layout(in);
    expect_sound(in, *r);
    EXPECT_LE(crossings(*r), k.most_crossings) << k.name;
  }
}

TEST(Layout, RandomGraphsAreSoundAndTheSameEachTime) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    LayoutInput in = random_graph(40 + static_cast<int>(seed) * 13, 1.4, seed);
    if (seed % 3 == 0) in.collapsed = {"s1", "s3.t14"};
    const auto a = compute_layout(in), b = compute_layout(in);
    SCOPED_TRACE(seed);
    expect_sound(in, *a);
    ASSERT_EQ(a->edges.size(), b->edges.size());
    EXPECT_EQ(rects(*a), rects(*b));
    for (std::size_t e = 0; e < a->edges.size(); ++e) EXPECT_EQ(a->edges[e].points, b->edges[e].points);
  }
}

TEST(Layout, GroupsOfScopes) {
  const std::vector<LayoutNode> nodes = {card(0, "m"), card(1, "m.a.x"), card(2, "m.a.x"), card(3, "m.b"),
                                         card(4, "m.c.d"), card(5, "m.c.d"), card(6, "m.c.e")};
  const auto groups = scope_groups(chain(nodes));
  ASSERT_EQ(groups.size(), 3u) << "not m (all nodes), not m.a (same as m.a.x), not m.b (one node)";
  EXPECT_EQ(groups[0].path, "m.a.x");
  EXPECT_EQ(groups[0].parent, -1);
  EXPECT_EQ(groups[1].path, "m.c");
  EXPECT_EQ(groups[2].path, "m.c.d");
  EXPECT_EQ(groups[2].parent, 1);
  EXPECT_EQ(groups[2].title, "d");
  EXPECT_EQ(groups[2].nodes, (std::vector<NodeId>{4, 5}));
  const auto numbers = scope_groups(chain({card(0), card(1, "m.layer1.0"), card(2, "m.layer1.0"), card(3, "m.layer1.1"), card(4, "m.layer1.1")}));
  ASSERT_EQ(numbers.size(), 3u);
  EXPECT_EQ(numbers[0].title, "m.layer1");
  EXPECT_EQ(numbers[1].title, "layer1.0");
  EXPECT_TRUE(scope_groups(chain({card(0, "..//"), card(1, "."), card(2, "/"), card(3)})).empty());
}

// Some exporters number the nodes of each operator: "p2o.Conv.0", "p2o.Relu.0". Others call one module in many places.
TEST(Layout, NodesThatDoNotHangTogetherMakeNoGroup) {
  LayoutInput in = chain({card(0)});
  for (NodeId i = 1; i <= 60; ++i) {
    const char* const ops[] = {"p2o.Conv", "p2o.BatchNormalization", "p2o.Relu"};
    in.nodes.push_back(card(i, ops[i % 3]));
    in.edges.push_back({i - 1, i});
  }
  std::vector<std::string> paths;
  for (const auto& g : scope_groups(in)) paths.push_back(g.path);
  EXPECT_EQ(paths, std::vector<std::string>{}) << "nor one around everything";
  const auto r = compute_layout(in);
  expect_sound(in, *r);
  EXPECT_LT(r->bounds.width, 400) << "one column, as the chain that it is";
  EXPECT_GT(r->bounds.height, 60 * 44);
  struct Row {
    const char* what;
    std::vector<LayoutEdge> edges;  // of nodes 0 to 5; 1 to 4 are the scope
    bool group;
  };
  const Row rows[] = {{"a chain", {{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}}, true},
                      {"heads on one trunk", {{0, 1}, {0, 2}, {0, 3}, {0, 4}}, true},
                      {"branches that meet", {{1, 5}, {2, 5}, {3, 5}, {4, 5}}, true},
                      {"three of four", {{1, 2}, {2, 3}, {0, 5}}, true},
                      {"two pairs", {{0, 1}, {1, 2}, {2, 5}, {5, 3}, {3, 4}}, false},
                      {"one after the other around a node outside", {{1, 5}, {5, 2}, {0, 3}}, false},
                      {"nothing", {}, false}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.what);
    LayoutInput small;
    for (NodeId i = 0; i < 6; ++i) small.nodes.push_back(card(i, i >= 1 && i <= 4 ? "s" : ""));
    small.edges = row.edges;
    EXPECT_EQ(scope_groups(small).size(), row.group ? 1u : 0u);
  }
}

TEST(Layout, ClosedGroupsStandForTheirNodes) {
  LayoutInput in = residual(6);
  in.collapsed = {"layer0", "layer1.2"};
  const auto r = compute_layout(in);
  expect_sound(in, *r);
  const auto shown = rects(*r);
  EXPECT_EQ(shown.count(1), 0u);
  EXPECT_EQ(shown.count(13), 1u);
  const auto closed = std::find_if(r->groups.begin(), r->groups.end(), [](const auto& g) { return g.path == "layer0"; });
  ASSERT_NE(closed, r->groups.end());
  EXPECT_TRUE(closed->collapsed);
  EXPECT_EQ(closed->nodes.size(), 12u);
  EXPECT_TRUE(std::none_of(r->groups.begin(), r->groups.end(), [](const auto& g) { return g.path == "layer0.1"; }))
      << "groups within a closed one are not shown";
  const auto in_line = std::find_if(r->edges.begin(), r->edges.end(), [](const auto& e) { return e.to_group == 0; });
  ASSERT_NE(in_line, r->edges.end());
  EXPECT_EQ(in_line->from, 0);
  EXPECT_EQ(in_line->edges.size(), 2u) << "the chain's edge and the shortcut are one line";
}

// What is not in the group keeps its column and its order; what lies above keeps its place.
TEST(Layout, OpeningAGroupMovesOnlyWhatIsBelow) {
  LayoutInput in = residual(9);
  in.collapsed = {"layer0", "layer1", "layer2"};
  const auto before = compute_layout(in);
  in.collapsed.erase("layer1");
  const auto after = compute_layout(in);
  ASSERT_EQ(before->groups.size(), 3u);
  const auto group = [](const LayoutResult& r, const std::string& path) {
    return std::find_if(r.groups.begin(), r.groups.end(), [&](const auto& g) { return g.path == path; })->rect;
  };
  EXPECT_EQ(rects(*before).at(0), rects(*after).at(0));
  EXPECT_EQ(group(*before, "layer0"), group(*after, "layer0"));
  EXPECT_EQ(group(*before, "layer1").y, group(*after, "layer1").y);
  EXPECT_GT(group(*after, "layer1").height, group(*before, "layer1").height);
  EXPECT_NEAR(group(*before, "layer2").x, group(*after, "layer2").x, 1e-6);
  EXPECT_NEAR(group(*after, "layer2").y - group(*before, "layer2").y,
              group(*after, "layer1").height - group(*before, "layer1").height, 1.0);
}

TEST(Layout, OpeningAGroupKeepsTheOrderOfItsNeighbours) {
  LayoutInput in;
  in.nodes = {card(0)};
  for (NodeId branch = 0; branch < 4; ++branch)
    for (NodeId k = 0; k < 3; ++k) {
      const NodeId id = 1 + branch * 3 + k;
      in.nodes.push_back(card(id, std::string(1, static_cast<char>('p' + branch))));
      in.edges.push_back({k == 0 ? 0 : id - 1, id});
    }
  in.nodes.push_back(card(13));
  for (NodeId branch = 0; branch < 4; ++branch) in.edges.push_back({3 + branch * 3, 13});
  const std::set<std::string> all = {"p", "q", "r", "s"};
  const auto order = [&](std::set<std::string> collapsed) {
    in.collapsed = std::move(collapsed);
    const auto r = compute_layout(in);
    expect_sound(in, *r);
    std::vector<std::pair<double, std::string>> xs;
    for (const PlacedGroup& g : r->groups) xs.emplace_back(g.rect.x, g.path);
    std::sort(xs.begin(), xs.end());
    std::string text;
    for (const auto& x : xs) text += x.second;
    return text;
  };
  const std::string closed = order(all);
  for (const std::string& open : all) {
    std::set<std::string> rest = all;
    rest.erase(open);
    EXPECT_EQ(order(rest), closed) << open;
  }
  EXPECT_EQ(order({}), closed);
}

TEST(Layout, GroupsThatDependOnEachOther) {
  LayoutInput in;
  in.nodes = {card(0, "a"), card(1, "b"), card(2, "a"), card(3, "b")};
  in.edges = {{0, 1}, {1, 2}, {2, 3}, {0, 2}, {1, 3}};
  for (const std::set<std::string>& collapsed : {std::set<std::string>{}, {"a"}, {"a", "b"}}) {
    in.collapsed = collapsed;
    const auto r = compute_layout(in);
    expect_sound(in, *r);
    EXPECT_TRUE(std::any_of(r->edges.begin(), r->edges.end(), [](const auto& e) { return e.upwards; }));
  }
}

// Work is counted, not timed: a hub's line is one shared trunk, so the points of all lines grow linearly.
TEST(Layout, HubGraphsStayLinear) {
  for (const int n : {1000, 5000}) {
    const LayoutInput in = hub(n / 10, 10);
    const auto r = compute_layout(in);
    ASSERT_EQ(r->nodes.size(), in.nodes.size());
    EXPECT_EQ(std::count_if(r->edges.begin(), r->edges.end(), [](const auto& e) { return e.stub; }), 0);
    std::map<double, int> columns;
    std::size_t points = 0;
    for (const RoutedEdge& e : r->edges)
      if (e.to - e.from > 1) {
        points += e.points.size();
        for (const LayoutPoint& p : e.points) ++columns[p.x];
      }
    EXPECT_LE(columns.size(), 6u) << "the mask runs down in one column";
    EXPECT_LE(points, 8u * static_cast<std::size_t>(n) / 10) << "straight runs are one piece";
    EXPECT_LE(r->bounds.width, 428) << "two cards and the room between them";
  }
}

TEST(Layout, VeryLongEdgesAreStubs) {
  LayoutInput in = chain(60);
  in.edges.push_back({3, 57});
  in.edges.push_back({5, 30});
  const auto r = compute_layout(in);
  expect_sound(in, *r);
  for (const RoutedEdge& e : r->edges) EXPECT_EQ(e.stub, e.from == 3 && e.to == 57) << e.from;
}

TEST(Layout, StrangeInputIsNoCrash) {
  LayoutInput in;
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  in.nodes = {{0, nan, inf, "a.b"}, {1, -5, 20, "a.b"}, {1, 10, 10, "a"}, {2, 10, 10, std::string(3000, '.')}};
  std::string deep = "d";
  for (int i = 0; i < 500; ++i) {
    in.nodes.push_back({10 + i, 20, 20, deep});
    deep += ".d";
  }
  in.edges = {{0, 0}, {0, 99999}, {0, 1}, {1, 0}, {-7, 2}, {2, 0}, {2, 0}};
  in.collapsed = {"a", "nowhere", ""};
  const auto r = compute_layout(in);
  ASSERT_TRUE(r);
  EXPECT_TRUE(std::isfinite(r->bounds.width) && std::isfinite(r->bounds.height));
}

TEST(Layout, ThousandsOfLooseNodesMakeABlockNotARow) {
  LayoutInput in;
  for (NodeId i = 0; i < 2000; ++i) in.nodes.push_back(card(i));
  const auto r = compute_layout(in);
  EXPECT_LT(r->bounds.width, 6 * r->bounds.height);
  EXPECT_LT(r->bounds.height, 6 * r->bounds.width);
}

TEST(Layout, StopsOnRequest) {
  std::stop_source stop;
  stop.request_stop();
  EXPECT_FALSE(compute_layout(residual(50), stop.get_token()));
}

}  // namespace
}  // namespace quanvas
