// Channel splitting and the absorption of biases.
#include <gtest/gtest.h>

#include <fstream>

#include "core/quant/params.h"
#include "tests/plugins/graph_pass_support.h"

namespace quanvas {
namespace {

using testing::all_outputs;
using testing::Kept;
using testing::L;
using testing::made;
using testing::ModelMaker;
using testing::Net;
using testing::nets;
using testing::noise;
using testing::recipe_of;
using testing::run_pass;
using testing::samples_of;
using testing::weight;

TEST(SplitChannels, TheNetworkStaysTheSame) {
  for (const Net& net : nets())
    for (const json& options : {json{{"ratio", 0.3}}, json{{"ratio", 0.3}, {"halve", "makers"}}, json{{"ratio", 0.3}, {"aware", true}}, json{{"ratio", 1}}}) {
      SCOPED_TRACE(net.name + " " + options.dump());
      const ModelPtr model = made(net);
      const at::Tensor x = samples_of(net);
      const auto result = run_pass("split-channels", model, options, x, nullptr, recipe_of(4, 0));
      ASSERT_TRUE(result) << result.error().text();
      EXPECT_LT(testing::relative_difference(all_outputs(result->model, x), all_outputs(model, x)), 1e-5) << result->text;
      for (const PassLayer& l : result->layers)
        if (!options.value("aware", false)) EXPECT_LE(l.after, l.before) << l.layer;
    }
}

TEST(SplitChannels, BiasesOfEveryShapeGrow) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{1, 1}}) {
    ModelMaker m(17);
    m.input("x", {-1, 6}).weight("a.w", noise({6, 1}, 1)).weight("a.b", at::full(shape, 0.5f)).weight("b.w", noise({1, 5}, 3));
    m.node("a", "Gemm", {"x", "a.w", "a.b"}, {"a"}).node("r", "Relu", {"a"}, {"r"}).node("b", "Gemm", {"r", "b.w"}, {"b"}).output("b");
    const ModelPtr model = m.build();
    const at::Tensor x = noise({9, 6}, 4);
    const auto result = run_pass("split-channels", model, json::object(), x);
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_LT(testing::relative_difference(all_outputs(result->model, x), all_outputs(model, x)), 1e-5) << result->text;
  }
}

TEST(SplitChannels, AgreesWithTheReference) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/alg_channel_splitting_in.json");
  const json golden = json::parse(file);
  const auto value = [&](const char* when, const std::string& name) {
    const json& t = golden.at(when).at(name);
    return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>());
  };
  ModelMaker m(17);
  m.input("x", {-1, 32});
  for (const std::string n : {"fc1", "fc2"})
    for (const char* part : {".weight", ".bias"}) m.weight(n + part, value("weights_before", n + part));
  m.node("fc1", "Gemm", {"x", "fc1.weight", "fc1.bias"}, {"h"}, {{"transB", std::int64_t{1}}}).node("relu", "Relu", {"h"}, {"r"});
  m.node("fc2", "Gemm", {"r", "fc2.weight", "fc2.bias"}, {"y"}, {{"transB", std::int64_t{1}}}).output("y");
  const auto result = run_pass("split-channels", m.build(), {{"ratio", 0.2}}, noise({4, 32}, 1));
  ASSERT_TRUE(result) << result.error().text();
  for (const std::string n : {"fc1", "fc2"})
    for (const char* part : {".weight", ".bias"}) {
      const at::Tensor expected = value("weights_after", n + part), found = weight(result->model, n + part);
      ASSERT_EQ(found.sizes(), expected.sizes()) << n << part;
      EXPECT_LT(testing::relative_difference(found, expected), 1e-5) << n << part;
    }
}

// Each split channel adds one row and one column, and nothing else.
TEST(SplitChannels, ItGrowsByItsChannelsAlone) {
  const auto elements = [](const ModelPtr& m) {
    std::int64_t n = 0;
    for (const auto& [name, data] : m->weights->all()) n += element_count(data.shape);
    return n;
  };
  ModelMaker m(17);
  m.input("x", {-1, 3, 6, 6}).weight("a.w", noise({8, 3, 3, 3}, 1)).weight("a.b", noise({8}, 2)).weight("b.w", noise({4, 8, 1, 1}, 3));
  m.node("a", "Conv", {"x", "a.w", "a.b"}, {"a"}).node("r", "Sigmoid", {"a"}, {"r"}).node("b", "Conv", {"r", "b.w"}, {"b"}).output("b");
  const ModelPtr model = m.build();
  for (const int k : {1, 3, 8}) {
    const auto result = run_pass("split-channels", model, {{"ratio", k / 8.0}}, noise({1, 3, 6, 6}, 4));
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_EQ(elements(result->model) - elements(model), k * (27 + 1 + 4)) << k;
  }
  const auto none = run_pass("split-channels", model, {{"ratio", 0}}, noise({1, 3, 6, 6}, 4));
  ASSERT_TRUE(none);
  EXPECT_EQ(none->model, model);
  const auto refused = run_pass("split-channels", model, {{"halve", "makers"}}, noise({1, 3, 6, 6}, 4));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->model, model);
  EXPECT_NE(refused->text.find("'r' (Sigmoid) of a half is not the half of it"), std::string::npos) << refused->text;
}

// Q(w) = Q((w - s/2) / 2) + Q((w + s/2) / 2) for one scale s, but for ties (Zhao et al. 2019, equation 6).
TEST(SplitChannels, AwareHalvesAddUpToTheRoundedWhole) {
  ModelMaker m(17);
  m.input("x", {-1, 4}).weight("a.w", noise({8, 4}, 1)).weight("b.w", noise({5, 8}, 3));
  m.node("a", "Gemm", {"x", "a.w"}, {"a"}, {{"transB", std::int64_t{1}}}).node("r", "Relu", {"a"}, {"r"});
  m.node("b", "Gemm", {"r", "b.w"}, {"b"}, {{"transB", std::int64_t{1}}}).output("b");
  const ModelPtr model = m.build();
  const Recipe recipe = recipe_of(4, 0);
  const auto result = run_pass("split-channels", model, {{"ratio", 1}, {"aware", true}}, noise({2, 4}, 4), nullptr, recipe);
  ASSERT_TRUE(result) << result.error().text();
  const at::Tensor before = weight(model, "b.w"), after = weight(result->model, "b.w");
  ASSERT_EQ(after.size(1), 16);
  const auto plan = resolve(*model->graph, recipe, PresetLibrary::builtin());
  const QuantSpec spec = *plan->find({m.id("b"), SiteKind::kWeight, 0})->spec;
  const auto params = quant::find_params(spec, {5, 8}, before.contiguous().data_ptr<float>(), 0);
  ASSERT_TRUE(params);
  for (int r = 0; r < 5; ++r)
    for (int c = 0; c < 8; ++c) {
      const float s = params->scale[static_cast<std::size_t>(r)], whole = before[r][c].item<float>() / s;
      const float a = after[r][c].item<float>() / s, b = after[r][c + 8].item<float>() / s;
      EXPECT_NEAR(a + b, whole, 1e-5);  // each half is a float32
      if (std::fabs(whole - std::floor(whole) - 0.5f) < 1e-3f) continue;
      EXPECT_EQ(std::floor(whole + 0.5f), std::floor(a + 0.5f) + std::floor(b + 0.5f)) << whole;
    }
}

TEST(ClipWeights, LimitsAreKeptAndTheRestIsLeft) {
  ModelMaker m(17);
  at::Tensor a = noise({8, 4}, 1), b = noise({5, 8}, 3);
  a[2][1] = 40;
  a[3][3] = -17;
  m.input("x", {-1, 4}).weight("a.w", a).weight("b.w", b);
  m.node("a", "Gemm", {"x", "a.w"}, {"a"}, {{"transB", std::int64_t{1}}}).node("r", "Relu", {"a"}, {"r"});
  m.node("b", "Gemm", {"r", "b.w"}, {"b"}, {{"transB", std::int64_t{1}}}).output("b");
  const ModelPtr model = m.build();
  const auto result = run_pass("clip-weights", model, json::object(), noise({2, 4}, 4));
  ASSERT_TRUE(result) << result.error().text();
  EXPECT_TRUE(at::equal(weight(result->model, "a.w"), a.clamp(-15, 15)));
  EXPECT_TRUE(at::equal(weight(result->model, "b.w"), b));
  ASSERT_EQ(result->layers.size(), 1u);
  EXPECT_EQ(result->layers[0].note, "2 of 32 weights");
  EXPECT_EQ(result->layers[0].before, 40);
  EXPECT_EQ(result->layers[0].after, 15);
  const auto sigma = run_pass("clip-weights", model, {{"limit", "deviations"}, {"deviations", 3}}, noise({2, 4}, 4));
  ASSERT_TRUE(sigma);
  const double width = 3 * a.std(/*unbiased=*/false).item<double>();
  EXPECT_NEAR(weight(sigma->model, "a.w").max().item<double>(), a.mean().item<double>() + width, 1e-4);
  const auto none = run_pass("clip-weights", model, {{"magnitude", 100}}, noise({2, 4}, 4));
  EXPECT_EQ(none->model, model);
}

TEST(ClipWeights, ATiedWeightStaysOne) {
  ModelMaker m(17);
  m.input("x", {-1, 6}).weight("w", noise({6, 6}, 1));
  m.node("a", "MatMul", {"x", "w"}, {"a"}).node("r", "Relu", {"a"}, {"r"}).node("b", "MatMul", {"r", "w"}, {"b"}).output("b");
  const auto result = run_pass("clip-weights", m.build(), {{"magnitude", 0.5}}, noise({2, 6}, 4));
  ASSERT_TRUE(result) << result.error().text();
  EXPECT_EQ(result->model->weights->all().size(), 1u);
  EXPECT_LE(weight(result->model, "w").abs().max().item<float>(), 0.5f);
}

// Channels of which all values are far above 0 lose what they share; with nothing below it the output stays.
TEST(AbsorbBias, ItIsExactWhereNoValueLiesBelow) {
  for (const bool conv : {false, true}) {
    SCOPED_TRACE(conv);
    ModelMaker m(17);
    at::Tensor bias = at::tensor({40.0f, 0.1f, -3.0f, 25.0f});
    if (conv) {
      m.input("x", {-1, 3, 5, 5}).weight("a.w", noise({4, 3, 1, 1}, 1)).weight("a.b", bias).weight("b.w", noise({6, 4, 3, 3}, 2));
      m.node("a", "Conv", {"x", "a.w", "a.b"}, {"a"}).node("r", "Relu", {"a"}, {"r"}).node("b", "Conv", {"r", "b.w"}, {"b"}).output("b");
    } else {
      m.input("x", {-1, 3}).weight("a.w", noise({4, 3}, 1)).weight("a.b", bias).weight("b.w", noise({4, 6}, 2));
      m.node("a", "Gemm", {"x", "a.w", "a.b"}, {"a"}, {{"transB", std::int64_t{1}}}).node("r", "Relu", {"a"}, {"r"}).node("b", "MatMul", {"r", "b.w"}, {"b"}).output("b");
    }
    const ModelPtr model = m.build();
    const at::Tensor x = noise(conv ? Shape{20, 3, 5, 5} : Shape{200, 3}, 5);
    Kept kept;
    const auto result = run_pass("absorb-bias", model, {{"deviations", 4}}, x, &kept);
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_EQ(result->layers.size(), 1u) << result->text;
    EXPECT_NE(result->layers[0].note.find("2 of 4"), std::string::npos) << result->layers[0].note;
    EXPECT_LT(result->layers[0].after, 20);
    EXPECT_LT(testing::relative_difference(all_outputs(result->model, x), all_outputs(model, x)), 1e-5);
    EXPECT_LT(weight(result->model, "a.b").max().item<float>(), bias.max().item<float>());
    for (auto& [what, bytes] : kept.bytes)
      for (const char* bad : {"", "7", "[]", "[3]", "[{\"average\":[1e300,1,1,1],\"deviation\":[1,1,1,1]}]", "[{\"average\":[1],\"deviation\":[1]}]", "[{\"average\":\"x\"}]"}) {
        bytes = bad;
        kept.keeps_damaged = true;
        EXPECT_FALSE(run_pass("absorb-bias", model, {{"deviations", 4}}, x, &kept)) << bad;
      }
  }
}

TEST(AbsorbBias, WhatCannotMoveIsLeftWithAReason) {
  struct Row {
    std::string why;
    std::function<void(ModelMaker&)> build;
  };
  const auto first = [](ModelMaker& m) {
    m.input("x", {-1, 3, 5, 5}).weight("a.w", noise({4, 3, 1, 1}, 1)).weight("a.b", at::full({4}, 30.0f)).weight("b.w", noise({6, 4, 3, 3}, 2)).node("a", "Conv", {"x", "a.w", "a.b"}, {"a"});
  };
  const Row rows[] = {
      {"'b' pads with zeros", [&](ModelMaker& m) { first(m); m.node("r", "Relu", {"a"}, {"r"}).node("b", "Conv", {"r", "b.w"}, {"b"}, {{"pads", L{1, 1, 1, 1}}}).output("b"); }},
      {"it is an output of the network", [&](ModelMaker& m) { first(m); m.node("r", "Relu", {"a"}, {"r"}).node("b", "Conv", {"r", "b.w"}, {"b"}).output("b").output("r"); }},
      {"'r' is not all that reads it", [&](ModelMaker& m) { first(m); m.node("r", "Relu", {"a"}, {"r"}).node("b", "Conv", {"r", "b.w"}, {"b"}).output("b").node("s", "Neg", {"a"}, {"s"}).output("s"); }},
      {"'s' (Sigmoid) reads it", [&](ModelMaker& m) { first(m); m.node("r", "Relu", {"a"}, {"r"}).node("s", "Sigmoid", {"r"}, {"s"}).node("b", "Conv", {"s", "b.w"}, {"b"}).output("b"); }},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.why);
    ModelMaker m(17);
    row.build(m);
    const ModelPtr model = m.build();
    const auto result = run_pass("absorb-bias", model, {}, noise({4, 3, 5, 5}, 3));
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_EQ(result->model, model);
    EXPECT_NE(result->text.find(row.why), std::string::npos) << result->text;
  }
}

}  // namespace
}  // namespace quanvas
