#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "core/graph/graph.h"

namespace quanvas {
namespace {

GraphBuilder chain(int length) {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, Shape{-1, 4});
  b.input("x");
  std::string last = "x";
  for (int i = 0; i < length; ++i) {
    const std::string out = "t" + std::to_string(i);
    b.node("n" + std::to_string(i), "Relu", {last}, {out});
    b.tensor(out, DataType::kFloat, Shape{-1, 4});
    last = out;
  }
  b.output(last);
  return b;
}

std::vector<std::string> names(const Graph& g) {
  std::vector<std::string> out;
  for (const Node& n : g.nodes()) out.push_back(n.name);
  return out;
}

TEST(GraphBuilder, KeepsASortedOrderAndSortsTheRest) {
  GraphBuilder b;
  b.input("x");
  b.node("second", "Relu", {"a"}, {"y"});
  b.node("first", "Relu", {"x"}, {"a"});
  b.output("y");
  const auto g = b.build();
  ASSERT_TRUE(g) << g.error().text();
  EXPECT_EQ(names(**g), (std::vector<std::string>{"first", "second"}));
  EXPECT_EQ((*g)->nodes()[0].id, 1);
  EXPECT_EQ((*g)->position(0), 1u);
  EXPECT_EQ((*g)->position(7), 2u);

  GraphBuilder sorted = chain(5);
  const auto c = sorted.build();
  ASSERT_TRUE(c);
  EXPECT_EQ(names(**c), (std::vector<std::string>{"n0", "n1", "n2", "n3", "n4"}));
}

struct Broken {
  const char* what;
  void (*make)(GraphBuilder&);
  const char* message;
};

TEST(GraphBuilder, RefusesWhatIsNoGraphAndNamesTheCulprit) {
  const Broken rows[] = {
      {"cycle",
       [](GraphBuilder& b) {
         b.node("p", "Add", {"x", "v"}, {"u"});
         b.node("q", "Relu", {"u"}, {"v"});
         b.output("v");
       },
       "cycle"},
      {"own input",
       [](GraphBuilder& b) {
         b.node("p", "Relu", {"u"}, {"u"});
         b.output("u");
       },
       "cycle"},
      {"twice",
       [](GraphBuilder& b) {
         b.node("p", "Relu", {"x"}, {"u"});
         b.node("q", "Relu", {"x"}, {"u"});
         b.output("u");
       },
       "'u' is produced twice, by the nodes 'p' and 'q'"},
      {"same node twice",
       [](GraphBuilder& b) {
         b.node("p", "Split", {"x"}, {"u", "u"});
         b.output("u");
       },
       "produced twice"},
      {"input overwritten",
       [](GraphBuilder& b) {
         b.node("p", "Relu", {"x"}, {"x"});
         b.output("x");
       },
       "an input of the graph"},
      {"initializer overwritten",
       [](GraphBuilder& b) {
         b.initializer("w", DataType::kFloat, {1});
         b.node("p", "Relu", {"x"}, {"w"});
         b.output("w");
       },
       "an initializer of the graph"},
      {"nobody provides",
       [](GraphBuilder& b) {
         b.node("p", "Add", {"x", "ghost"}, {"u"});
         b.output("u");
       },
       "'p' reads the tensor 'ghost'"},
      {"output of nobody",
       [](GraphBuilder& b) {
         b.node("p", "Relu", {"x"}, {"u"});
         b.output("z");
       },
       "'z'"},
      {"no outputs", [](GraphBuilder& b) { b.node("p", "Relu", {"x"}, {"u"}); }, "no outputs"},
      {"input twice",
       [](GraphBuilder& b) {
         b.input("x");
         b.node("p", "Relu", {"x"}, {"u"});
         b.output("u");
       },
       "twice"},
  };
  for (const Broken& row : rows) {
    GraphBuilder b;
    b.input("x");
    row.make(b);
    const auto g = b.build();
    ASSERT_FALSE(g) << row.what;
    EXPECT_EQ(g.error().code, ErrorCode::kCorrupt) << row.what;
    EXPECT_NE(g.error().message.find(row.message), std::string::npos) << row.what << ": " << g.error().message;
  }
}

TEST(GraphBuilder, NamesAreUniqueAndScopesFollowThem) {
  GraphBuilder b;
  b.input("x");
  b.node("", "Conv", {"x"}, {"67"});
  b.node("same", "Relu", {"67"}, {"a"});
  b.node("same", "Relu", {"a"}, {"b"});
  b.node("same_2", "Relu", {"b"}, {"c"});
  b.node("/layer1/layer1.0/conv1/Conv", "Conv", {"c"}, {"d"});
  b.node("layer2.1.conv", "Conv", {"d"}, {"e"});
  b.node("", "Relu", {"e"}, {"block/out"});
  b.output("block/out");
  const auto g = b.build();
  ASSERT_TRUE(g) << g.error().text();
  EXPECT_EQ(names(**g),
            (std::vector<std::string>{"Conv_67", "same", "same_3", "same_2", "/layer1/layer1.0/conv1/Conv",
                                      "layer2.1.conv", "block/Relu_out"}));
  EXPECT_EQ((*g)->find("/layer1/layer1.0/conv1/Conv")->scope, "layer1.0.conv1");
  EXPECT_EQ((*g)->find("layer2.1.conv")->scope, "layer2.1");
  EXPECT_EQ((*g)->find("block/Relu_out")->scope, "block");
  EXPECT_EQ((*g)->find("same")->scope, "");
  EXPECT_EQ((*g)->find("nobody"), nullptr);
}

TEST(GraphBuilder, UnusedTensorsGoAndOptionalOnesStayOmitted) {
  GraphBuilder b;
  b.input("x");
  b.initializer("unused", DataType::kFloat, {3});
  b.initializer("w", DataType::kFloat, {3});
  b.input("w");  // older files list initializers as inputs
  b.node("p", "Clip", {"x", "", "w"}, {"y", ""});
  b.output("y");
  const auto g = b.build();
  ASSERT_TRUE(g) << g.error().text();
  EXPECT_EQ((*g)->tensor("unused"), kNoTensor);
  EXPECT_EQ((*g)->inputs().size(), 1u);
  const Node& n = (*g)->nodes()[0];
  EXPECT_EQ(n.input(1), kNoTensor);
  EXPECT_EQ(n.input(9), kNoTensor);
  EXPECT_EQ(n.outputs[1], kNoTensor);
  EXPECT_EQ((*g)->tensor(n.input(2)).name, "w");
}

TEST(GraphBuilder, AnEditKeepsIdsAndGivesNewOnes) {
  GraphBuilder first = chain(4);
  const auto base = first.build();
  ASSERT_TRUE(base);
  GraphBuilder edit(**base);
  edit.remove_node(1);
  edit.replace_input(2, "t1", "t0");
  const NodeId added = edit.node("new", "Sigmoid", {"t2"}, {"s"});
  edit.replace_input(3, "t2", "s");
  edit.set_attribute(3, "alpha", 0.5f);
  const auto g = edit.build();
  ASSERT_TRUE(g) << g.error().text();
  EXPECT_EQ(names(**g), (std::vector<std::string>{"n0", "n2", "new", "n3"}));
  EXPECT_EQ(added, 4);
  EXPECT_EQ((*g)->find(2)->name, "n2");
  EXPECT_EQ((*g)->find(1), nullptr);
  EXPECT_EQ((*g)->tensor("t1"), kNoTensor);
  EXPECT_FLOAT_EQ((*g)->find(3)->real("alpha", 0), 0.5f);
  EXPECT_NE((*g)->hash(), (*base)->hash());
  EXPECT_EQ((*g)->downstream(2), (std::vector<NodeId>{2, 4, 3}));
  EXPECT_TRUE((*g)->downstream(77).empty());

  GraphBuilder same(**base);
  EXPECT_EQ((*same.build())->hash(), (*base)->hash());
}

TEST(GraphBuilder, TheHashSeesEveryPart) {
  const auto hash = [](auto&& change) {
    GraphBuilder b = chain(2);
    change(b);
    return (*b.build())->hash();
  };
  const std::vector<std::string> hashes = {
      hash([](GraphBuilder&) {}),
      hash([](GraphBuilder& b) { b.set_opset(17); }),
      hash([](GraphBuilder& b) { b.set_name("other"); }),
      hash([](GraphBuilder& b) {
        b.tensor("t0", DataType::kFloat, Shape{-1, 5});
      }),
      hash([](GraphBuilder& b) { b.set_attribute(0, "axis", std::int64_t{1}); }),
      hash([](GraphBuilder& b) { b.set_attribute(0, "axis", std::int64_t{2}); }),
      hash([](GraphBuilder& b) { b.set_attribute(0, "axis", 1.0f); }),
      hash([](GraphBuilder& b) {
        b.replace_output(0, "t0", "u");
        b.replace_input(1, "t0", "u");
      }),
  };
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    EXPECT_EQ(hashes[i].size(), 32u);
    for (std::size_t k = 0; k < i; ++k) EXPECT_NE(hashes[i], hashes[k]) << i << " " << k;
  }
}

TEST(GraphJson, RoundTripKeepsEverything) {
  GraphBuilder b = chain(2);
  b.set_name("näme");
  b.set_opset(15);
  b.initializer("w", DataType::kFloat16, {2, 3});
  b.node("many", "Custom", {"t1", "", "w"}, {"", "z"},
         {{"i", std::int64_t{-5}},
          {"f", INFINITY},
          {"g", 0.1f},
          {"s", std::string("text")},
          {"I", std::vector<std::int64_t>{1, -2}},
          {"F", std::vector<float>{0.25f, -INFINITY}},
          {"S", std::vector<std::string>{"a", ""}}},
         "my.domain", "unknown");
  b.output("z");
  const auto g = b.build();
  ASSERT_TRUE(g) << g.error().text();
  const auto back = graph_from_json(json::parse(graph_to_json(**g).dump()));
  ASSERT_TRUE(back) << back.error().text();
  EXPECT_EQ((*back)->hash(), (*g)->hash());
  EXPECT_EQ(graph_to_json(**back), graph_to_json(**g));
  const Node* n = (*back)->find("many");
  ASSERT_NE(n, nullptr);
  EXPECT_EQ(n->attributes, (*g)->find("many")->attributes);
  EXPECT_EQ(n->opaque_reason, "unknown");
}

TEST(GraphJson, RefusesBrokenValues) {
  GraphBuilder b = chain(2);
  const json good = graph_to_json(**b.build());
  ASSERT_TRUE(graph_from_json(good));
  const std::vector<std::function<void(json&)>> changes = {
      [](json& j) { j = 5; },
      [](json& j) { j["nodes"] = 3; },
      [](json& j) { j["nodes"][0]["inputs"] = {99}; },
      [](json& j) { j["nodes"][0]["inputs"] = {-2}; },
      [](json& j) { j["nodes"][1]["id"] = 0; },
      [](json& j) { j["nodes"][0]["id"] = -4; },
      [](json& j) { j["nodes"][0]["surprise"] = 1; },
      [](json& j) {
        j["nodes"][0]["attributes"]["a"] = {{"x", 1}};
      },
      [](json& j) {
        j["nodes"][0]["attributes"]["a"] = {{"i", "text"}};
      },
      [](json& j) { j["tensors"][1]["name"] = "x"; },
      [](json& j) { j["tensors"][1]["name"] = ""; },
      [](json& j) { j["nodes"].erase(0); },
      [](json& j) { j["outputs"] = {1000}; },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    json bad = good;
    changes[i](bad);
    EXPECT_FALSE(graph_from_json(bad)) << i;
  }
}

TEST(GraphJson, TenThousandNodesAreQuick) {
  GraphBuilder b = chain(10000);
  const auto start = std::chrono::steady_clock::now();
  const auto g = b.build();
  ASSERT_TRUE(g);
  const auto back = graph_from_json(json::parse(graph_to_json(**g).dump()));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_TRUE(back);
  EXPECT_EQ((*back)->hash(), (*g)->hash());
  // Quadratic behaviour would take minutes; the bound leaves room for slow and sanitized builds.
  EXPECT_LT(seconds, 5.0);
}

TEST(GraphText, ShapesAndTypes) {
  EXPECT_EQ(shape_text({1, 28, 28}), "1×28×28");
  EXPECT_EQ(shape_text({-1, 3}), "?×3");
  EXPECT_EQ(shape_text({}), "scalar");
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({-1, 3, 4}), 12);
  EXPECT_EQ(element_count({std::int64_t{1} << 40, 0, std::int64_t{1} << 40}), 0);
  EXPECT_EQ(element_count({std::int64_t{1} << 40, std::int64_t{1} << 40}),
            std::numeric_limits<std::int64_t>::max());
  EXPECT_STREQ(type_name(DataType::kFloat), "float32");
  EXPECT_STREQ(type_name(static_cast<DataType>(99)), "unknown type");
  EXPECT_STREQ(type_name(static_cast<DataType>(-1)), "unknown type");
  EXPECT_EQ(element_size(DataType::kDouble), 8u);
  EXPECT_EQ(element_size(DataType::kString), 0u);
}

}  // namespace
}  // namespace quanvas
