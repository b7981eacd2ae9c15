#include <gtest/gtest.h>

#include <fstream>

#include "core/exec/pass_context.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::ModelMaker;
using testing::noise;
using L = std::vector<std::int64_t>;

Result<std::pair<ModelPtr, std::string>> folded(const ModelPtr& model) {
  PassContext ctx;
  ctx.model = model;
  JobContext job;
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("fold-bn", "pass"));
  QUANVAS_TRY(const std::string text, pass->apply(ctx, pass->schema().defaults(), job));
  return std::pair(ctx.model, text);
}

int count(const ModelPtr& model, const std::string& op) {
  int n = 0;
  for (const Node& node : model->graph->nodes()) n += node.op == op;
  return n;
}

ModelMaker& add_bn(ModelMaker& m, std::int64_t channels, const std::string& from, const std::string& to) {
  const at::Tensor g = noise({channels}, 20);
  g[0] = 0;  // a dead channel
  m.weight("g", g).weight("beta", noise({channels}, 21)).weight("mean", noise({channels}, 22));
  m.weight("var", noise({channels}, 23).abs() + 0.01);
  return m.node("bn", "BatchNormalization", {from, "g", "beta", "mean", "var"}, {to}, {{"epsilon", 1e-3f}});
}

struct FoldCase {
  std::string name;
  std::function<void(ModelMaker&)> build;  // from "x" to "y"
  Shape input;
  int left = 0;      // batch normalizations that stay
  int adds = 0;      // Add nodes afterwards
};

std::vector<FoldCase> cases() {
  const auto conv = [](bool bias, std::int64_t group) {
    return [bias, group](ModelMaker& m) {
      m.weight("w", noise({6, 4 / group, 3, 3}, 1));
      if (bias) m.weight("b", noise({6}, 2));
      m.node("conv", "Conv", bias ? std::vector<std::string>{"x", "w", "b"} : std::vector<std::string>{"x", "w"}, {"c"},
             {{"group", group}, {"pads", L{1, 0, 1, 2}}});
      add_bn(m, 6, "c", "y").output("y");
    };
  };
  return {
      {"conv", conv(true, 1), {2, 4, 7, 7}},
      {"conv_without_bias", conv(false, 1), {2, 4, 7, 7}},
      {"grouped", conv(true, 2), {2, 4, 7, 7}},
      {"transposed",
       [](ModelMaker& m) {
         m.weight("w", noise({4, 3, 2, 2}, 1)).weight("b", noise({6}, 2));
         m.node("conv", "ConvTranspose", {"x", "w", "b"}, {"c"}, {{"group", std::int64_t{2}}, {"strides", L{2, 2}}});
         add_bn(m, 6, "c", "n").node("relu", "Relu", {"n"}, {"y"}).output("y");
       },
       {2, 4, 5, 5}},
      {"gemm",
       [](ModelMaker& m) {
         m.weight("w", noise({6, 4}, 1)).weight("b", noise({6}, 2));
         m.node("fc", "Gemm", {"x", "w", "b"}, {"c"}, {{"transB", std::int64_t{1}}, {"alpha", 0.5f}, {"beta", 0.25f}});
         add_bn(m, 6, "c", "y").output("y");
       },
       {3, 4}},
      {"matmul",
       [](ModelMaker& m) {
         m.weight("w", noise({4, 6}, 1)).shape("c", {-1, 6});
         m.node("fc", "MatMul", {"x", "w"}, {"c"});
         m.shape("c", {-1, 6});
         add_bn(m, 6, "c", "y").output("y");
       },
       {3, 4}},
      {"matmul_add",
       [](ModelMaker& m) {
         m.weight("w", noise({4, 6}, 1)).weight("b", noise({6}, 2));
         m.node("fc", "MatMul", {"x", "w"}, {"h"}).node("add", "Add", {"b", "h"}, {"c"});
         m.shape("h", {-1, 6});
         add_bn(m, 6, "c", "y").output("y");
       },
       {3, 4}},
      // One channel, as the hidden size: nothing of the cell may change.
      {"recurrent",
       [](ModelMaker& m) {
         m.weight("w", noise({1, 1, 4}, 1)).weight("r", noise({1, 1, 1}, 2));
         m.node("cell", "RNN", {"x", "w", "r"}, {"c"}, {{"hidden_size", std::int64_t{1}}}).shape("c", {-1, 1, 2, 1});
         add_bn(m, 1, "c", "y").output("y");
       },
       {3, 2, 4}, 1},
      {"conv_add",
       [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 1, 1}, 1)).weight("b", noise({6, 1, 1}, 2));
         m.node("conv", "Conv", {"x", "w"}, {"h"}).node("add", "Add", {"h", "b"}, {"c"});
         add_bn(m, 6, "c", "y").output("y");
       },
       {2, 4, 3, 3}},
      // Along the height, not the channels, though both are 6.
      {"conv_add_rows",
       [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 1, 1}, 1)).weight("b", noise({6, 1}, 2));
         m.node("conv", "Conv", {"x", "w"}, {"h"}).node("add", "Add", {"h", "b"}, {"c"});
         add_bn(m, 6, "c", "y").output("y");
       },
       {2, 4, 6, 3}, 1, 1},
      {"conv_add_channels",
       [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 1, 1}, 1)).weight("b", noise({1, 6, 1, 1}, 2));
         m.node("conv", "Conv", {"x", "w"}, {"h"}).node("add", "Add", {"h", "b"}, {"c"});
         add_bn(m, 6, "c", "y").output("y");
       },
       {2, 4, 6, 6}},
      {"two_readers",
       [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 1, 1}, 1));
         m.node("conv", "Conv", {"x", "w"}, {"c"});
         add_bn(m, 6, "c", "n").node("sum", "Add", {"n", "c"}, {"y"}).output("y");
       },
       {2, 4, 3, 3}, 1, 1},
      // Behind concatenations: into each of the layers.
      {"joined",
       [](ModelMaker& m) {
         m.weight("w1", noise({4, 4, 1, 1}, 1)).weight("b1", noise({4}, 2)).weight("w2", noise({4, 3, 1, 1}, 3)).weight("k", noise({2, 1, 1}, 4));
         m.weight("w3", noise({2, 4, 1, 1}, 5));
         m.node("one", "Conv", {"x", "w1", "b1"}, {"h1"}).node("two", "ConvTranspose", {"x", "w2"}, {"h2"});
         m.node("three", "Conv", {"x", "w3"}, {"h3"}).node("add", "Add", {"h3", "k"}, {"h4"});
         m.node("inner", "Concat", {"h2", "h4"}, {"i"}, {{"axis", std::int64_t{1}}}).node("cat", "Concat", {"h1", "i"}, {"c"}, {{"axis", std::int64_t{-3}}}).shape("c", {-1, 9, 3, 3});
         add_bn(m, 9, "c", "n").node("relu", "Relu", {"n"}, {"y"}).output("y");
       },
       {2, 4, 3, 3}},
      {"joined_matrices",
       [](ModelMaker& m) {
         m.weight("w1", noise({4, 3}, 1)).weight("w2", noise({5, 4}, 2)).weight("b2", noise({5}, 3));
         m.node("one", "Gemm", {"x", "w1"}, {"h1"}).node("two", "Gemm", {"x", "w2", "b2"}, {"h2"}, {{"transB", std::int64_t{1}}});
         m.node("cat", "Concat", {"h1", "h2"}, {"c"}, {{"axis", std::int64_t{1}}});
         add_bn(m, 8, "c", "y").output("y");
       },
       {3, 4}},
      {"joined_with_input",
       [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 1, 1}, 1));
         m.node("conv", "Conv", {"x", "w"}, {"h"}).node("cat", "Concat", {"h", "x"}, {"c"}, {{"axis", std::int64_t{1}}});
         add_bn(m, 10, "c", "y").output("y");
       },
       {2, 4, 3, 3}, 1},
      {"joined_rows",
       [](ModelMaker& m) {
         m.weight("w", noise({4, 4, 1, 1}, 1)).weight("v", noise({4, 4, 1, 1}, 2));
         m.node("one", "Conv", {"x", "w"}, {"h"}).node("two", "Conv", {"x", "v"}, {"i"}).node("cat", "Concat", {"h", "i"}, {"c"}, {{"axis", std::int64_t{2}}});
         add_bn(m, 4, "c", "y").output("y");
       },
       {2, 4, 3, 3}, 1},
      // In front of layers: into all that read it.
      {"in_front", [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 3, 3}, 1)).weight("v", noise({6, 2, 1, 1}, 2)).weight("b", noise({6}, 3)).weight("u", noise({6}, 6));
         add_bn(m, 4, "x", "n").node("one", "Conv", {"n", "w", "b"}, {"h"}, {{"pads", L{0, 0, 0, 0}}});
         m.node("two", "Conv", {"n", "v"}, {"i"}, {{"group", std::int64_t{2}}, {"strides", L{2, 2}}}).node("flat", "Flatten", {"h"}, {"f"}).node("flat2", "Flatten", {"i"}, {"g2"});
         m.node("cat", "Concat", {"f", "g2"}, {"y"}, {{"axis", std::int64_t{1}}}).output("y");
       }, {2, 4, 5, 5}},
      {"in_front_of_matrix", [](ModelMaker& m) {
         m.weight("w", noise({6, 4}, 1)).weight("b", noise({6}, 2)).shape("n", {-1, 4});
         add_bn(m, 4, "x", "n").node("fc", "Gemm", {"n", "w", "b"}, {"y"}, {{"transB", std::int64_t{1}}, {"alpha", 0.5f}, {"beta", 0.25f}}).output("y");
       }, {3, 4}},
      {"in_front_of_product", [](ModelMaker& m) {
         m.weight("w", noise({4, 6}, 1)).weight("v", noise({4, 6}, 2));
         add_bn(m, 4, "x", "n").node("one", "MatMul", {"n", "w"}, {"h"}).node("two", "MatMul", {"n", "v"}, {"i"}).shape("h", {-1, 6}).shape("i", {-1, 6});
         m.node("mul", "Mul", {"h", "i"}, {"y"}).output("y");
       }, {3, 4}},
      {"in_front_of_pads", [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 3, 3}, 1));
         add_bn(m, 4, "x", "n").node("conv", "Conv", {"n", "w"}, {"y"}, {{"pads", L{1, 1, 1, 1}}}).output("y");
       }, {2, 4, 5, 5}, 1},
      // Without an offset zeros stay zeros.
      {"in_front_of_pads_no_offset", [](ModelMaker& m) {
         m.weight("w", noise({6, 4, 3, 3}, 1)).weight("g", noise({4}, 2)).weight("zero", at::zeros({4})).weight("var", noise({4}, 3).abs() + 0.1);
         m.node("bn", "BatchNormalization", {"x", "g", "zero", "zero", "var"}, {"n"}).node("conv", "Conv", {"n", "w"}, {"y"}, {{"pads", L{1, 1, 1, 1}}}).output("y");
       }, {2, 4, 5, 5}},
      {"in_front_of_transposed", [](ModelMaker& m) {
         m.weight("w", noise({4, 6, 3, 3}, 1));
         add_bn(m, 4, "x", "n").node("conv", "ConvTranspose", {"n", "w"}, {"y"}).output("y");
       }, {2, 4, 5, 5}, 1},
      {"in_front_of_other_readers", [](ModelMaker& m) {
         m.weight("w", noise({4, 4, 1, 1}, 1));
         add_bn(m, 4, "x", "n").node("conv", "Conv", {"n", "w"}, {"h"}).node("add", "Sum", {"n", "h"}, {"y"}).output("y");
       }, {2, 4, 5, 5}, 1},
      // Before and behind one layer, and two in a row: one after the other.
      {"on_both_sides", [](ModelMaker& m) {
         m.weight("w", noise({4, 4, 3, 3}, 1)).weight("b", noise({4}, 2));
         add_bn(m, 4, "x", "n").node("conv", "Conv", {"n", "w", "b"}, {"h"});
         m.node("bn2", "BatchNormalization", {"h", "g", "beta", "mean", "var"}, {"i"}).node("bn3", "BatchNormalization", {"i", "g", "beta", "mean", "var"}, {"y"}).output("y");
       }, {2, 4, 5, 5}},
      {"standalone", [](ModelMaker& m) { add_bn(m, 4, "x", "y").output("y"); }, {2, 4, 3, 3}, 1},
      {"shared_weight",
       [](ModelMaker& m) {
         m.weight("w", noise({4, 4, 1, 1}, 1));
         m.node("one", "Conv", {"x", "w"}, {"h"}).node("two", "Conv", {"h", "w"}, {"c"});
         add_bn(m, 4, "c", "y").output("y");
       },
       {2, 4, 3, 3}},
  };
}

TEST(FoldBn, TheNetworkStaysTheSame) {
  for (const FoldCase& c : cases()) {
    Shape declared = c.input;
    declared[0] = -1;
    ModelMaker m;
    m.input("x", declared);
    c.build(m);
    const ModelPtr model = m.build();
    const auto result = folded(model);
    ASSERT_TRUE(result) << c.name << ": " << result.error().text();
    const auto& [after, text] = *result;
    EXPECT_EQ(count(after, "BatchNormalization"), c.left) << c.name << ": " << text;
    EXPECT_EQ(count(after, "Add"), c.adds) << c.name;
    const at::Tensor x = noise(c.input, 30);
    EXPECT_LT(testing::relative_difference(testing::run_one(after, x), testing::run_one(model, x)), 1e-6) << c.name;
    EXPECT_EQ(after->graph->tensor(after->graph->outputs()[0]).name, "y") << c.name;
    if (c.left == 0) {
      EXPECT_EQ(after->weights->find("var"), nullptr) << c.name;
    }
    for (const Node& node : after->graph->nodes())
      if (const Node* before = model->graph->find(node.name)) EXPECT_TRUE(before->id == node.id || node.op == "Add") << c.name;
  }
}

TEST(FoldBn, WhatIsLeftIsNamedWithItsReason) {
  ModelMaker m;
  m.input("x", {-1, 4, 3, 3});
  m.weight("g", noise({4}, 1)).weight("b", noise({4}, 2)).weight("m", noise({4}, 3)).weight("v", -at::ones({4}));
  m.weight("w", noise({4, 4, 1, 1}, 4));
  m.node("conv", "Conv", {"x", "w"}, {"c"}).node("broken", "BatchNormalization", {"c", "g", "b", "m", "v"}, {"y"}).output("y");
  const ModelPtr model = m.build();
  const auto result = folded(model);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->first, model);
  EXPECT_NE(result->second.find("Folded 0 of 1"), std::string::npos) << result->second;
  EXPECT_NE(result->second.find("'broken' (its parameters are not finite"), std::string::npos) << result->second;
  const std::pair<const char*, const char*> reasons[] = {
      {"joined_with_input", "what 'cat' joins is not all from layers of its own"},
      {"joined_rows", "'cat' does not join channels"},
      {"in_front_of_pads", "'conv' behind it pads with zeros"},
      {"in_front_of_transposed", "'conv' behind it sums up fewer"},
      {"in_front_of_other_readers", "'add' behind it is no layer with a weight"},
      {"standalone", "it is an output of the network"},
  };
  for (const auto& [name, reason] : reasons)
    for (const FoldCase& c : cases()) {
      if (c.name != name) continue;
      Shape declared = c.input;
      declared[0] = -1;
      ModelMaker maker;
      maker.input("x", declared);
      c.build(maker);
      const auto done = folded(maker.build());
      ASSERT_TRUE(done) << name;
      EXPECT_NE(done->second.find(reason), std::string::npos) << name << ": " << done->second;
    }
}

TEST(FoldBn, AgreesWithTheReference) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/alg_merge_bn.json");
  const json golden = json::parse(file);
  const auto value = [&](const char* group, const std::string& name) {
    const json& t = golden.at(group).at(name);
    return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>());
  };
  ModelMaker m(17);
  m.input("x", {-1, 4, 8, 8}).weight("conv.weight", value("weights_before", "conv.weight"));
  m.weight("g", value("weights_before", "bn.weight")).weight("beta", value("weights_before", "bn.bias"));
  m.weight("mean", value("bn_buffers", "bn.running_mean")).weight("var", value("bn_buffers", "bn.running_var"));
  m.node("conv", "Conv", {"x", "conv.weight"}, {"c"});
  m.node("bn", "BatchNormalization", {"c", "g", "beta", "mean", "var"}, {"y"}, {{"epsilon", golden.at("bn_eps").get<float>()}}).output("y");
  const auto result = folded(m.build());
  ASSERT_TRUE(result) << result.error().text();
  for (const char* name : {"conv.weight", "conv.bias"}) {
    const TensorData* data = result->first->weights->find(name);
    ASSERT_NE(data, nullptr) << name;
    EXPECT_LT(testing::relative_difference(at::tensor(data->to_floats()), value("weights_after", name).flatten()), 1e-5) << name;
  }
}

}  // namespace
}  // namespace quanvas
