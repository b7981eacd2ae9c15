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
