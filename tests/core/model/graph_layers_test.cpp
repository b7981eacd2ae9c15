#include <gtest/gtest.h>

#include "core/graph/layers.h"

namespace quanvas {
namespace {

struct Net {
  GraphBuilder b;
  GraphPtr g;

  void tensor(const std::string& name, Shape shape, DataType type = DataType::kFloat) {
    b.tensor(name, type, std::move(shape));
  }
  void weight(const std::string& name, Shape shape) { b.initializer(name, DataType::kFloat, std::move(shape)); }
  void finish(const std::string& out) {
    b.output(out);
    auto r = b.build();
    ASSERT_TRUE(r) << r.error().text();
    g = *r;
  }
  const Node& node(const std::string& name) const { return *g->find(name); }
};

struct ComputeRow {
  const char* op;
  Shape x, w, y;
  bool weight_first;
  Attributes attributes;
  int channel_axis, reduction_axis;
  double macs;
  const char* text;
  const char* brief;
};

using Ints = std::vector<std::int64_t>;

TEST(Layers, ComputeLayersKnowTheirAxesAndCosts) {
  const ComputeRow rows[] = {
      {"Conv",
       {-1, 6, 14, 14},
       {16, 6, 5, 5},
       {-1, 16, 10, 10},
       false,
       {},
       0,
       1,
       240000,
       "Conv 5×5, 6 → 16, stride 1",
       "Conv 5×5"},
      {"Conv",
       {-1, 32, 14, 14},
       {32, 1, 3, 3},
       {-1, 32, 7, 7},
       false,
       {{"group", std::int64_t{32}}, {"strides", Ints{2, 2}}},
       0,
       1,
       14112,
       "Depthwise Conv 3×3, 32 → 32, stride 2",
       "DW Conv 3×3"},
      {"Conv",
       {-1, 8, 4, 4},
       {8, 4, 1, 3},
       {-1, 8, 4, 4},
       false,
       {{"group", std::int64_t{2}}, {"strides", Ints{1, 2}}, {"dilations", Ints{1, 2}}},
       0,
       1,
       1536,
       "Conv 1×3, 8 → 8, stride 1×2, dilation 1×2, 2 groups",
       "Conv 1×3"},
      {"ConvTranspose",
       {-1, 4, 5, 5},
       {4, 8, 2, 2},
       {-1, 8, 10, 10},
       false,
       {{"strides", Ints{2, 2}}},
       1,
       0,
       3200,
       "ConvTranspose 2×2, 4 → 8, stride 2",
       "ConvTranspose 2×2"},
      {"Gemm",
       {-1, 400},
       {120, 400},
       {-1, 120},
       false,
       {{"transB", std::int64_t{1}}},
       0,
       1,
       48000,
       "Gemm 400 → 120",
       "Gemm 400 → 120"},
      {"Gemm", {-1, 400}, {400, 120}, {-1, 120}, false, {}, 1, 0, 48000, "Gemm 400 → 120", "Gemm 400 → 120"},
      {"MatMul", {-1, 7, 64}, {64, 32}, {-1, 7, 32}, false, {}, 1, 0, 14336, "MatMul 64 → 32", "MatMul 64 → 32"},
      {"MatMul", {-1, 64, 7}, {32, 64}, {-1, 32, 7}, true, {}, 0, 1, 14336, "MatMul", "MatMul"},
      {"MatMul", {-1, 2, 3, 4}, {2, 4, 5}, {-1, 2, 3, 5}, false, {}, 2, 1, 120, "MatMul", "MatMul"},
  };
  for (const ComputeRow& row : rows) {
    Net n;
    n.tensor("x", row.x);
    n.tensor("y", row.y);
    n.weight("w", row.w);
    n.b.input("x");
    n.b.node("n", row.op,
             row.weight_first ? std::vector<std::string>{"w", "x"} : std::vector<std::string>{"x", "w"}, {"y"},
             row.attributes);
    n.finish("y");
    const auto layers = find_layers(*n.g);
    ASSERT_EQ(layers.size(), 1u) << row.text;
    const Layer& l = layers[0];
    EXPECT_EQ(l.kind, LayerKind::kCompute);
    EXPECT_EQ(n.g->tensor(l.weight).name, "w");
    EXPECT_EQ(l.inputs, std::vector<TensorId>{n.g->tensor("x")});
    EXPECT_EQ(l.channel_axis, row.channel_axis) << row.text;
    EXPECT_EQ(l.reduction_axis, row.reduction_axis) << row.text;
    const NodeCost cost = node_cost(*n.g, n.node("n"));
    EXPECT_EQ(cost.macs, row.macs) << row.text;
    EXPECT_EQ(cost.parameters, static_cast<double>(element_count(row.w)));
    EXPECT_EQ(cost.weight_bytes, 4.0 * static_cast<double>(element_count(row.w)));
    EXPECT_EQ(cost.output_elements, static_cast<double>(element_count(row.y)));
    EXPECT_EQ(describe(*n.g, n.node("n")), row.text);
    EXPECT_EQ(describe_short(*n.g, n.node("n")), row.brief);
  }
}

TEST(Layers, SitesAndTheirTensors) {
  Net n;
  n.tensor("x", {-1, 3, 8, 8});
  n.weight("w", {4, 3, 3, 3});
  n.weight("b", {4});
  n.b.input("x");
  n.b.node("conv", "Conv", {"x", "w", "b"}, {"y"}, {{"group", std::int64_t{1}}});
  n.tensor("y", {-1, 4, 6, 6});
  n.b.node("add", "Add", {"y", "y2"}, {"z"});
  n.b.node("relu", "Relu", {"y"}, {"y2"});
  n.tensor("z", {-1, 4, 6, 6});
  n.finish("z");
  const auto layers = find_layers(*n.g);
  ASSERT_EQ(layers.size(), 3u);
  const NodeId conv = n.node("conv").id, add = n.node("add").id;
  EXPECT_EQ(layers[0].sites(), (std::vector<Site>{{conv, SiteKind::kWeight, 0},
                                                  {conv, SiteKind::kBias, 0},
                                                  {conv, SiteKind::kInput, 0},
                                                  {conv, SiteKind::kOutput, 0}}));
  const Layer* a = find_layer(layers, add);
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->kind, LayerKind::kElementwise);
  const auto name = [&](const Site& s) {
    const TensorId t = site_tensor(*find_layer(layers, s.node), s);
    return t == kNoTensor ? std::string("-") : n.g->tensor(t).name;
  };
  EXPECT_EQ(name({conv, SiteKind::kWeight, 0}), "w");
  EXPECT_EQ(name({conv, SiteKind::kBias, 0}), "b");
  EXPECT_EQ(name({conv, SiteKind::kInput, 0}), "x");
  EXPECT_EQ(name({conv, SiteKind::kOutput, 0}), "y");
  EXPECT_EQ(name({add, SiteKind::kInput, 1}), "y2");
  EXPECT_EQ(name({add, SiteKind::kInput, 2}), "-");
  EXPECT_EQ(name({add, SiteKind::kInput, -1}), "-");
  EXPECT_EQ(name({add, SiteKind::kWeight, 0}), "-");
  EXPECT_EQ(name({conv, SiteKind::kOutput, 1}), "-");
  EXPECT_EQ(find_layer(layers, 99), nullptr);
}

struct KindRow {
  const char* op;
  std::vector<std::string> inputs;
  Attributes attributes;
  int layers;  // 0 or 1
  LayerKind kind;
};

TEST(Layers, WhichNodesAreLayers) {
  const Attributes spatial = {{"axes", Ints{2, 3}}}, channels = {{"axes", Ints{1}}};
  const KindRow rows[] = {
      {"Relu", {"x"}, {}, 1, LayerKind::kActivation},
      {"Clip", {"x", "c", "c"}, {}, 1, LayerKind::kActivation},
      {"MaxPool", {"x"}, {}, 1, LayerKind::kPool},
      {"ReduceMean", {"x"}, spatial, 1, LayerKind::kPool},
      {"ReduceMean", {"x"}, channels, 0, {}},
      {"BatchNormalization", {"x", "c", "c", "c", "c"}, {}, 1, LayerKind::kNormalization},
      {"Add", {"x", "x2"}, {}, 1, LayerKind::kElementwise},
      {"Add", {"x", "c"}, {}, 1, LayerKind::kElementwise},
      {"Sub", {"c", "x"}, {}, 1, LayerKind::kElementwise},
      {"Mul", {"x", "c"}, {}, 1, LayerKind::kElementwise},
      {"Div", {"x", "c"}, {}, 1, LayerKind::kElementwise},
      {"Concat", {"x", "c"}, {}, 0, {}},
      {"Mul", {"c", "c"}, {}, 0, {}},
      {"Mul", {"ids", "c"}, {}, 0, {}},
      {"Concat", {"x", "x2"}, {}, 1, LayerKind::kElementwise},
      {"MatMul", {"x", "x2"}, {}, 1, LayerKind::kCompute},
      {"Gather", {"table", "ids"}, {}, 1, LayerKind::kEmbedding},
      {"Gather", {"x", "ids"}, {}, 0, {}},
      {"Reshape", {"x", "c"}, {}, 0, {}},
      {"Add", {"ids", "ids2"}, {}, 0, {}},
      {"Conv", {"x", "x2"}, {}, 1, LayerKind::kCompute},
      {"Conv", {"x", "x2", "c"}, {}, 1, LayerKind::kCompute},
      {"ConvTranspose", {"x", "x2"}, {}, 1, LayerKind::kCompute},
      {"Gemm", {"x", "x2", "c"}, {}, 1, LayerKind::kCompute},
      {"MatMul", {"c", "x"}, {}, 1, LayerKind::kCompute},
  };
  for (const KindRow& row : rows) {
    Net n;
    for (const char* t : {"x", "x2"}) {
      n.tensor(t, {-1, 4, 6, 6});
      n.b.input(t);
    }
    for (const char* t : {"ids", "ids2"}) {
      n.tensor(t, {-1}, DataType::kInt64);
      n.b.input(t);
    }
    n.weight("c", {4});
    n.weight("table", {100, 16});
    n.b.node("n", row.op, row.inputs, {"y"}, row.attributes);
    n.tensor("y", {-1, 4, 6, 6}, row.inputs[0] == "ids" ? DataType::kInt64 : DataType::kFloat);
    n.finish("y");
    const auto layers = find_layers(*n.g);
    ASSERT_EQ(layers.size(), static_cast<std::size_t>(row.layers)) << row.op;
    if (!layers.empty()) {
      EXPECT_EQ(layers[0].kind, row.kind) << row.op;
    }
  }
}

TEST(Layers, OpaqueNodesAndOtherDomainsAreNone) {
  for (const auto& [domain, reason] : {std::pair{"", "why"}, std::pair{"com.x", ""}}) {
    Net n;
    n.tensor("x", {-1, 4});
    n.b.input("x");
    n.b.node("n", "Relu", {"x"}, {"y"}, {}, domain, reason);
    n.finish("y");
    EXPECT_TRUE(find_layers(*n.g).empty());
  }
}

TEST(Cost, BatchIsLeftOutAndUnknownMeansZero) {
  const struct {
    Shape x, y;
    double macs, outputs;
  } rows[] = {
      {{-1, 2, 4, 4}, {-1, 3, 4, 4}, 96, 48},
      {{1, 2, 4, 4}, {1, 3, 4, 4}, 96, 48},
      {{8, 2, 4, 4}, {8, 3, 4, 4}, 96, 48},
      {{-1, 2, -1, -1}, {-1, 3, -1, -1}, 0, 0},
  };
  for (const auto& row : rows) {
    Net n;
    n.tensor("x", row.x);
    n.b.input("x");
    n.weight("w", {3, 2, 1, 1});
    n.b.node("n", "Conv", {"x", "w"}, {"y"});
    n.tensor("y", row.y);
    n.finish("y");
    EXPECT_EQ(node_cost(*n.g, n.node("n")).macs, row.macs);
    EXPECT_EQ(node_cost(*n.g, n.node("n")).output_elements, row.outputs);
  }
}

TEST(Cost, ParametersAreWhatIsLearnt) {
  Net n;
  n.tensor("x", {-1, 4, 6, 6});
  n.b.input("x");
  for (const char* t : {"s", "b", "m", "v"}) n.weight(t, {4});
  n.weight("lo", {});
  n.weight("plus", {1, 4, 1, 1});
  n.b.initializer("shape", DataType::kInt64, {2});
  n.b.node("bn", "BatchNormalization", {"x", "s", "b", "m", "v"}, {"a"});
  n.b.node("clip", "Clip", {"a", "lo", ""}, {"c"});
  n.b.node("bias", "Add", {"c", "plus"}, {"d"});
  n.b.node("one", "Mul", {"d", "lo"}, {"e"});
  n.b.node("reshape", "Reshape", {"e", "shape"}, {"y"});
  n.finish("y");
  EXPECT_EQ(node_cost(*n.g, n.node("bn")).parameters, 16);
  EXPECT_EQ(node_cost(*n.g, n.node("clip")).parameters, 0);
  EXPECT_EQ(node_cost(*n.g, n.node("bias")).parameters, 4);
  EXPECT_EQ(node_cost(*n.g, n.node("one")).parameters, 0);
  EXPECT_EQ(node_cost(*n.g, n.node("reshape")).parameters, 0);
}

TEST(Describe, NeverFailsWithoutShapes) {
  for (const char* op : {"Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "BatchNormalization",
                         "Gather", "Concat", "Softmax", "LeakyRelu", "Clip", "Reshape", "Flatten", "Invented"}) {
    Net n;
    n.b.input("x");
    n.b.node("n", op, {"x"}, {"y"});
    n.finish("y");
    EXPECT_NE(describe(*n.g, n.node("n")).find(op), std::string::npos);
    EXPECT_NE(describe_short(*n.g, n.node("n")).find(op), std::string::npos);
    EXPECT_EQ(node_cost(*n.g, n.node("n")).macs, 0);
  }
}

}  // namespace
}  // namespace quanvas
