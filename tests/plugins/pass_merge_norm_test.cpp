// Normalizations merge into the layers behind them, and lose their means where their input is made.
#include <gtest/gtest.h>

#include <fstream>
#include <limits>

#include "core/base/json.h"
#include "core/exec/pass_context.h"
#include "tests/plugins/transformer_nets.h"

namespace quanvas {
namespace {

using testing::NetMaker;
using testing::noise;

struct Merged {
  ModelPtr model;
  std::string text;
  std::vector<PassLayer> layers;
};
Result<Merged> merged(const ModelPtr& model, const json& options = json::object()) {
  PassContext ctx;
  ctx.model = model;
  JobContext job;
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("merge-norm", "pass"));
  QUANVAS_TRY(const json all, pass->schema().complete(options, "merge-norm"));
  QUANVAS_TRY(const std::string text, pass->apply(ctx, all, job));
  return Merged{ctx.model, text, ctx.layers};
}

const Shape kS = {2, 5, 12};

struct Net {
  std::string name;
  std::function<void(NetMaker&)> build;
  int merged = 1;
  std::string left;   // part of the report
  int rms = 0;        // with the option
};

std::vector<Net> nets() {
  return {
      {"rms", [](NetMaker& n) { n.in(kS).rms("n", "x", kS).linear("a", "n", 12, {2, 5, 7}).linear("b", "n", 12, {2, 5, 4}, true).out("a").out("b"); }},
      {"layer_norm", [](NetMaker& n) { n.in(kS).layer_norm("n", "x", kS).linear("a", "n", 12, {2, 5, 7}).linear("b", "n", 12, {2, 5, 4}, true).out("a").out("b"); },
       1, ""},
      {"gemm", [](NetMaker& n) {
         n.in({5, 12}).layer_norm("n", "x", {5, 12}).weight("w", {7, 12}).weight("c", {7});
         n.op("a", "Gemm", {"n", "w", "c"}, {5, 7}, {{"transB", std::int64_t{1}}, {"alpha", 0.5f}, {"beta", 3.0f}}).out("a");
       }},
      {"gemm_without_bias", [](NetMaker& n) {
         n.in({5, 12}).layer_norm("n", "x", {5, 12}).weight("w", {12, 7}).op("a", "Gemm", {"n", "w"}, {5, 7}, {{"beta", 0.0f}}).out("a");
       }},
      {"bias_of_one", [](NetMaker& n) {
         n.in({5, 12}).layer_norm("n", "x", {5, 12}).weight("w", {12, 7}).weight("c", {1}).op("a", "Gemm", {"n", "w", "c"}, {5, 7}).out("a");
       }},
      {"reshaped_rows", [](NetMaker& n) {
         n.in(kS).layer_norm("n", "x", kS).m.weight("s", testing::ints({10, 12}));
         n.op("r", "Reshape", {"n", "s"}, {10, 12}).linear("a", "r", 12, {10, 3}).out("a");
       }},
      {"shared_weight", [](NetMaker& n) {
         n.in(kS).layer_norm("n", "x", kS).weight("w", {12, 12}).op("a", "MatMul", {"n", "w"}, kS).op("b", "MatMul", {"x", "w"}, kS).out("a").out("b");
       }},
      {"shared_scale", [](NetMaker& n) {
         n.in(kS).rms("n", "x", kS).op("n2", "RMSNormalization", {"n", "n.g"}, kS).linear("a", "n2", 12, {2, 5, 7}).out("a");
       }, 1, "'n': 'n2' reads it, which is no linear layer"},
      {"two_in_a_row", [](NetMaker& n) {
         const Shape h = {2, 5, 16};
         n.in(kS).linear("p", "x", 12, kS).layer_norm("n", "p", kS).linear("a", "n", 12, h).linear("c", "a", 16, h).layer_norm("m", "c", h).linear("b", "m", 16, kS).out("b");
       }, 2, "", 2},
      {"pre_norm_block", [](NetMaker& n) {
         n.in(kS).linear("emb", "x", 12, kS, true).weight("pos", {1, 5, 12}).add("e", "emb", "pos", kS).layer_norm("n", "e", kS).linear("up", "n", 12, {2, 5, 20}, true);
         n.op("act", "Relu", {"up"}, {2, 5, 20}).linear("down", "act", 20, kS, true).add("r", "e", "down", kS).layer_norm("m", "r", kS).linear("b", "m", 12, {2, 5, 3}).out("b");
       }, 2, "", 2},
      // Not to be touched.
      {"added", [](NetMaker& n) { n.in(kS).layer_norm("n", "x", kS).linear("a", "n", 12, kS).add("s", "a", "n", kS).linear("b", "s", 12, kS).out("b"); }, 0,
       "'n': what it gives is joined with other features"},
      {"relu", [](NetMaker& n) { n.in(kS).layer_norm("n", "x", kS).op("r", "Relu", {"n"}, kS).linear("a", "r", 12, kS).out("a"); }, 0, "'n': 'r' (Relu)"},
      {"output", [](NetMaker& n) { n.in(kS).layer_norm("n", "x", kS).linear("a", "n", 12, kS).out("a").out("n"); }, 0, "'n': it is an output of the network"},
      {"conv", [](NetMaker& n) {
         n.in(kS).layer_norm("n", "x", kS).weight("w", {3, 5, 3}).op("a", "Conv", {"n", "w"}, {2, 3, 10}).out("a");
       }, 0, "'n': 'a' (Conv)"},
      {"regrouped", [](NetMaker& n) {
         n.in(kS).layer_norm("n", "x", kS).m.weight("s", testing::ints({2, 10, 6}));
         n.op("r", "Reshape", {"n", "s"}, {2, 10, 6}).linear("a", "r", 6, {2, 10, 3}).out("a");
       }, 0, "'n': its features are regrouped"},
      {"another_axis", [](NetMaker& n) {
         n.in(kS).weight("g", {5, 12}).op("n", "LayerNormalization", {"x", "g"}, kS, {{"axis", std::int64_t{1}}}).linear("a", "n", 12, kS).out("a");
       }, 0, "'n': it does not work on the last axis alone"},
      {"computed_scale", [](NetMaker& n) {
         n.in({12, 12}).weight("c", {12}).op("g", "ReduceMean", {"x"}, {12}, {{"axes", NetMaker::L{0}}, {"keepdims", std::int64_t{0}}});
         n.op("n", "LayerNormalization", {"x", "g"}, {12, 12}).linear("a", "n", 12, {12, 3}).out("a");
       }, 0, "'n': its scale or bias"},
      {"computed_bias", [](NetMaker& n) {
         n.in({12, 12}).layer_norm("n", "x", {12, 12}).weight("w", {12, 12}).op("a", "Gemm", {"n", "w", "x"}, {12, 12}).out("a");
       }, 0, "'n': 'a' (Gemm)"},
      {"nan_weight", [](NetMaker& n) {
         n.in(kS).layer_norm("n", "x", kS);
         at::Tensor w = noise({12, 3}, 4);
         w[2][1] = std::numeric_limits<float>::quiet_NaN();
         n.m.weight("w", w);
         n.op("a", "MatMul", {"n", "w"}, {2, 5, 3}).linear("b", "n", 12, {2, 5, 3}).out("b").op("c", "Identity", {"a"}, {2, 5, 3});
       }, 0, "'n': a weight of 'a' is not finite"},
      {"nan_scale", [](NetMaker& n) {
         n.in(kS);
         n.m.weight("g", at::full({12}, std::numeric_limits<float>::infinity()));
         n.op("n", "RMSNormalization", {"x", "g"}, kS).linear("a", "n", 12, {2, 5, 3}).out("a");
       }, 0, "'n': its scale or bias"},
      {"unread", [](NetMaker& n) { n.in(kS).layer_norm("n", "x", kS).op("s", "Shape", {"n"}, {3}).linear("a", "x", 12, kS).out("a"); }, 0, "'n': no linear layer reads it"},
  };
}

ModelPtr made(const Net& net) {
  NetMaker n;
  net.build(n);
  return n.m.build();
}
at::Tensor input_of(const ModelPtr& model) {
  return noise(*model->graph->tensor(model->graph->inputs()[0]).shape, 30);
}
std::size_t count(const ModelPtr& model, const std::string& op) {
  std::size_t n = 0;
  for (const Node& node : model->graph->nodes()) n += node.op == op;
  return n;
}

TEST(MergeNorm, TheNetworkStaysTheSame) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    const ModelPtr model = made(net);
    const auto result = merged(model);
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_NE(result->text.find("Merged " + std::to_string(net.merged) + " of "), std::string::npos) << result->text;
    EXPECT_NE(result->text.find(net.left), std::string::npos) << result->text;
    EXPECT_EQ(result->model == model, net.merged == 0);
    const at::Tensor x = input_of(model);
    if (net.name != "nan_scale") {
      EXPECT_LT(testing::relative_difference(testing::all_outputs_of(result->model, x), testing::all_outputs_of(model, x)), 1e-5);
    }
    for (const Node& node : result->model->graph->nodes()) {
      if (net.merged != static_cast<int>(count(model, "LayerNormalization") + count(model, "RMSNormalization"))) break;
      if (node.op != "LayerNormalization" && node.op != "RMSNormalization") continue;
      EXPECT_TRUE(at::equal(testing::read_by(result->model, node.name), at::ones({testing::read_by(result->model, node.name).numel()})));
      EXPECT_EQ(node.input(2), kNoTensor);
    }
    // Once more there is nothing left to do.
    const auto again = merged(result->model);
    EXPECT_NE(again->text.find("Merged 0 of"), std::string::npos);
    EXPECT_EQ(again->model, result->model);
  }
}

TEST(MergeNorm, MeansAreTakenOffWhereTheInputIsMade) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    const ModelPtr model = made(net);
    const auto result = merged(model, {{"rms", true}});
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_EQ(count(model, "LayerNormalization") - count(result->model, "LayerNormalization"), static_cast<std::size_t>(net.rms)) << result->text;
    const at::Tensor x = input_of(model);
    if (net.name != "nan_scale") {
      EXPECT_LT(testing::relative_difference(testing::all_outputs_of(result->model, x), testing::all_outputs_of(model, x)), 1e-5);
    }
    for (const Node& node : model->graph->nodes())
      if (node.op == "LayerNormalization") {
        EXPECT_NE(result->model->graph->find(node.name), nullptr);
      }
  }
}

struct Stays {
  std::string name;
  std::function<void(NetMaker&)> build;
  std::string left;
};
TEST(MergeNorm, AMeanThatIsNeededStays) {
  const std::vector<Stays> rows = {
      {"input", [](NetMaker& n) { n.in(kS).layer_norm("n", "x", kS).linear("a", "n", 12, kS).out("a"); }, "it is an input of the network"},
      {"read_without", [](NetMaker& n) { n.in(kS).linear("p", "x", 12, kS).layer_norm("n", "p", kS).linear("a", "n", 12, kS).linear("b", "p", 12, kS).out("a").out("b"); },
       "'b' reads the same features without a normalization"},
      {"activation", [](NetMaker& n) { n.in(kS).linear("p", "x", 12, kS).op("t", "Tanh", {"p"}, kS).layer_norm("n", "t", kS).linear("a", "n", 12, kS).out("a"); }, "'t' (Tanh)"},
      {"post_norm", [](NetMaker& n) {
         n.in(kS).linear("p", "x", 12, kS).layer_norm("n", "p", kS).linear("a", "n", 12, kS).add("s", "a", "n", kS).layer_norm("m", "s", kS).linear("b", "m", 12, kS).out("b");
       }, "'n' makes part of its input"},
      {"also_rms", [](NetMaker& n) {
         n.in(kS).linear("p", "x", 12, kS).layer_norm("n", "p", kS).linear("a", "n", 12, kS).rms("m", "p", kS).linear("b", "m", 12, kS).out("a").out("b");
       }, "'m' (RMSNormalization) reads the same features"},
      {"infinite", [](NetMaker& n) {
         n.in(kS);
         at::Tensor w = noise({12, 12}, 4);
         w[2][1] = std::numeric_limits<float>::infinity();
         n.m.weight("p.w", w);
         n.op("p", "MatMul", {"x", "p.w"}, kS).layer_norm("n", "p", kS).linear("a", "n", 12, kS).out("a");
       }, "a weight of 'p' is not finite"},
  };
  for (const Stays& row : rows) {
    SCOPED_TRACE(row.name);
    NetMaker n;
    row.build(n);
    const ModelPtr model = n.m.build();
    const auto result = merged(model, {{"rms", true}});
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_NE(result->text.find("stays a LayerNormalization: " + row.left), std::string::npos) << result->text;
    if (row.name == "infinite") continue;
    EXPECT_LT(testing::relative_difference(testing::all_outputs_of(result->model, input_of(model)), testing::all_outputs_of(model, input_of(model))), 1e-5);
  }
}

TEST(MergeNorm, AgreesWithTheReference) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/alg_merge_ln_affine.json");
  const json golden = json::parse(file);
  const auto value = [&](const char* when, const std::string& name) {
    const json& t = golden.at(when).at(name);
    return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>());
  };
  testing::ModelMaker m(17);
  m.input("x", {-1, 32});
  for (const char* name : {"fc0.weight", "fc0.bias", "ln.weight", "ln.bias", "fc.weight", "fc.bias"}) m.weight(name, value("weights_before", name));
  m.node("fc0", "Gemm", {"x", "fc0.weight", "fc0.bias"}, {"h"}, {{"transB", std::int64_t{1}}}).shape("h", {-1, 32});
  m.node("ln", "LayerNormalization", {"h", "ln.weight", "ln.bias"}, {"n"}).shape("n", {-1, 32});
  m.node("fc", "Gemm", {"n", "fc.weight", "fc.bias"}, {"y"}, {{"transB", std::int64_t{1}}}).shape("y", {-1, 8}).output("y");
  const auto result = merged(m.build());
  ASSERT_TRUE(result) << result.error().text();
  for (const char* name : {"fc0.weight", "fc0.bias", "ln.weight", "fc.weight", "fc.bias"})
    EXPECT_LT(testing::relative_difference(testing::weight_of(result->model, name), value("weights_after", name)), 1e-5) << name;
  // A bias of zeros is none here.
  EXPECT_TRUE(at::equal(value("weights_after", "ln.bias"), at::zeros({32})));
  EXPECT_EQ(result->model->graph->find("ln")->input(2), kNoTensor);
  ASSERT_EQ(result->layers.size(), 1u);
  EXPECT_EQ(result->layers[0].layer, "fc");
}

}  // namespace
}  // namespace quanvas
