// SmoothQuant and AWQ: the float network stays the same, ranges move as the papers say, the choice is never worse than
// none, and what was measured is enough to do it again.
#include <gtest/gtest.h>

#include <fstream>

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

TEST(Scaling, TheNetworkStaysTheSame) {
  struct Row {
    const char* pass;
    json options;
  };
  const Row rows[] = {{"smoothquant", {{"method", "fused"}}},       {"smoothquant", {{"method", "layerwise"}}},
                      {"smoothquant", {{"method", "both"}}},        {"smoothquant", {{"method", "both"}, {"search", true}}},
                      {"smoothquant", {{"method", "both"}, {"alpha", 1}}}, {"awq", {{"method", "both"}, {"candidates", 4}}},
                      {"awq", {{"method", "fused"}, {"candidates", 3}}}};
  for (const Net& net : nets())
    for (const Row& row : rows) {
      SCOPED_TRACE(net.name + " " + row.pass + " " + row.options.dump());
      const ModelPtr model = made(net);
      const at::Tensor samples = samples_of(net);
      const auto result = run_pass(row.pass, model, row.options, samples, nullptr, recipe_of(4, 8));
      ASSERT_TRUE(result) << result.error().text();
      const at::Tensor x = samples_of(net);
      EXPECT_LT(testing::relative_difference(all_outputs(result->model, x), all_outputs(model, x)), 1e-5) << result->text;
      if (row.options["method"] == "fused" && net.regions == 0) {
        EXPECT_EQ(result->model, model);
        EXPECT_NE(result->text.find(net.left), std::string::npos) << result->text;
      }
      for (const PassLayer& l : result->layers)
        if (std::string(row.pass) == "awq" || row.options.contains("search")) EXPECT_TRUE(l.after <= l.before || l.note.find("left as it is: ") == 0) << l.layer << l.note;
    }
}

TEST(Scaling, PowersOfTwoChangeNoBitOfTheOutput) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    const ModelPtr model = made(net);
    const auto result = run_pass("smoothquant", model, {{"method", "both"}, {"powers_of_two", true}}, samples_of(net));
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_TRUE(at::equal(all_outputs(result->model, samples_of(net)), all_outputs(model, samples_of(net))));
  }
}

// At alpha 1 all channels of the activation have the same maximum, at alpha 0 all columns of the weight.
TEST(Scaling, AlphaMovesTheRangesFromOneToTheOther) {
  ModelMaker m(17);
  m.input("x", {-1, 12}).weight("w", testing::uneven({5, 12}, 3, 1)).node("fc", "Gemm", {"x", "w"}, {"y"}, {{"transB", std::int64_t{1}}}).output("y");
  const ModelPtr model = m.build();
  const at::Tensor x = noise({9, 12}, 4) * at::pow(2.0, 5 * noise({1, 12}, 5));
  for (const double alpha : {0.0, 0.5, 1.0}) {
    SCOPED_TRACE(alpha);
    const auto result = run_pass("smoothquant", model, {{"method", "layerwise"}, {"alpha", alpha}}, x);
    ASSERT_TRUE(result) << result.error().text();
    ASSERT_EQ(result->model->graph->nodes().size(), 2u);
    const Node& mul = result->model->graph->nodes()[0];
    ASSERT_EQ(mul.op, "Mul");
    const at::Tensor factor = weight(result->model, result->model->graph->tensor(mul.input(1)).name);
    const at::Tensor activation = (x * factor).abs().amax(0), columns = weight(result->model, "w").abs().amax(0);
    const auto ratio = [](const at::Tensor& t) { return (t.max() / t.min()).item<float>(); };
    if (alpha == 1) EXPECT_NEAR(ratio(activation), 1, 1e-5);
    if (alpha == 0) EXPECT_NEAR(ratio(columns), 1, 1e-5);
    if (alpha == 0.5) EXPECT_LT(testing::relative_difference(activation, columns), 1e-5);  // both are the root of their product
    ASSERT_EQ(result->layers.size(), 1u);
    if (alpha == 1) EXPECT_NEAR(result->layers[0].after, 1, 1e-5);
  }
}

TEST(Scaling, AgreesWithTheReference) {
  struct Row {
    const char* file;
    const char* method;
  };
  for (const Row& row : {Row{"alg_smoothquant_mlp_a0.5_fx", "fused"}, Row{"alg_smoothquant_mlp_a0.5_layerwise", "layerwise"},
                         Row{"alg_smoothquant_conv_a0.5_layerwise", "layerwise"}}) {
    SCOPED_TRACE(row.file);
    std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/" + row.file + ".json");
    const json golden = json::parse(file);
    const auto read = [](const json& t) { return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>()); };
    const bool mlp = golden.at("weights_before").contains("fc1.weight");
    const std::vector<std::string> names = mlp ? std::vector<std::string>{"fc1", "fc2"} : std::vector<std::string>{"conv1", "conv2"};
    ModelMaker m(17);
    m.input("x", mlp ? Shape{-1, 32} : Shape{-1, 4, 8, 8});
    for (const auto& n : names)
      for (const char* part : {".weight", ".bias"}) m.weight(n + part, read(golden.at("weights_before").at(n + part)));
    const Attributes attributes = mlp ? Attributes{{"transB", std::int64_t{1}}} : Attributes{{"pads", L{1, 1, 1, 1}}};
    const std::string op = mlp ? "Gemm" : "Conv";
    m.node(names[0], op, {"x", names[0] + ".weight", names[0] + ".bias"}, {"h"}, attributes).node("relu", "Relu", {"h"}, {"r"});
    m.node(names[1], op, {"r", names[1] + ".weight", names[1] + ".bias"}, {"y"}, attributes).output("y");
    std::vector<at::Tensor> batches;
    for (const json& batch : golden.at("calib")) batches.push_back(read(batch));
    const auto result = run_pass("smoothquant", m.build(), {{"method", row.method}}, at::cat(batches));
    ASSERT_TRUE(result) << result.error().text();
    for (const auto& n : names) {
      const std::string prefix = std::string(row.method) == "fused" ? n : n + ".layer";
      for (const char* part : {".weight", ".bias"})
        EXPECT_LT(testing::relative_difference(weight(result->model, n + part), read(golden.at("weights_after").at(prefix + part))), 1e-5) << n << part;
      if (prefix != n)
        EXPECT_LT(testing::relative_difference(weight(result->model, n + ".factor").flatten(), read(golden.at("input_mul").at(n + ".scale")).flatten()), 1e-5) << n;
    }
  }
}

// Channels that carry nothing are left alone, whatever reads them.
TEST(Scaling, DeadChannelsKeepTheirWeights) {
  ModelMaker m(17);
  m.input("x", {-1, 6}).weight("w", noise({4, 6}, 3)).node("fc", "Gemm", {"x", "w"}, {"y"}, {{"transB", std::int64_t{1}}}).output("y");
  const ModelPtr model = m.build();
  at::Tensor x = noise({9, 6}, 4) + 2;
  x.select(1, 2).zero_();
  for (const char* pass : {"smoothquant", "awq"}) {
    const auto result = run_pass(pass, model, {{"method", "layerwise"}}, x, nullptr, recipe_of(3, 0));
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_TRUE(at::equal(weight(result->model, "w").select(1, 2), weight(model, "w").select(1, 2))) << pass;
  }
}

TEST(Scaling, AwqFindsTheChannelsThatCarryMuch) {
  // One channel carries nearly everything and its weights are small: rounding them as coarsely as the others costs most.
  ModelMaker m(17);
  at::Tensor w = noise({16, 32}, 3);
  w.select(1, 5).mul_(0.1);
  m.input("x", {-1, 32}).weight("w", w).node("fc", "Gemm", {"x", "w"}, {"y"}, {{"transB", std::int64_t{1}}}).output("y");
  at::Tensor x = noise({64, 32}, 4);
  x.select(1, 5).mul_(30);
  const auto result = run_pass("awq", m.build(), {{"method", "layerwise"}}, x, nullptr, recipe_of(3, 0));
  ASSERT_TRUE(result) << result.error().text();
  ASSERT_EQ(result->layers.size(), 1u);
  EXPECT_LT(result->layers[0].after, 0.5 * result->layers[0].before);
  EXPECT_NE(result->layers[0].note.find("exponent"), std::string::npos);
}

TEST(Scaling, WhatWasMeasuredIsEnoughToDoItAgain) {
  const Net net = nets()[0];
  for (const char* pass : {"smoothquant", "awq"}) {
    SCOPED_TRACE(pass);
    Kept kept;
    const ModelPtr model = made(net);
    kept.may_compute = false;
    EXPECT_FALSE(run_pass(pass, model, {}, samples_of(net), &kept, recipe_of(4, 8)));
    kept.may_compute = true;
    const auto first = run_pass(pass, model, {}, samples_of(net), &kept, recipe_of(4, 8));
    ASSERT_TRUE(first) << first.error().text();
    kept.may_compute = false;
    const auto again = run_pass(pass, model, {}, samples_of(net), &kept, recipe_of(4, 8));
    ASSERT_TRUE(again) << again.error().text();
    EXPECT_EQ(again->model->weights->hash(), first->model->weights->hash());
    EXPECT_EQ(again->text, first->text);
    // A file from elsewhere may hold anything: then it is measured again.
    for (auto& [what, bytes] : kept.bytes) bytes = "[{\"factors\":[1e30],\"parameter\":1,\"before\":1,\"after\":1}]";
    EXPECT_FALSE(run_pass(pass, model, {}, samples_of(net), &kept, recipe_of(4, 8)));
    kept.may_compute = true;
    const auto anew = run_pass(pass, model, {}, samples_of(net), &kept, recipe_of(4, 8));
    ASSERT_TRUE(anew) << anew.error().text();
    EXPECT_EQ(anew->text, first->text);
    kept.may_compute = false;
    kept.keeps_damaged = true;
    for (auto& [what, bytes] : kept.bytes)
      for (const char* bad : {"", "[]", "{}", "[{\"factors\":[0],\"parameter\":1,\"before\":1,\"after\":1}]", "[{\"factors\":[1,2],\"parameter\":1,\"before\":1,\"after\":1}]", "[7]"}) {
        bytes = bad;
        const auto damaged = run_pass(pass, model, {}, samples_of(net), &kept, recipe_of(4, 8));
        ASSERT_FALSE(damaged) << bad;
        EXPECT_EQ(damaged.error().code, ErrorCode::kCorrupt);
      }
  }
}

TEST(Scaling, FormatsChangeWhatIsMeasuredOnlyWhereTheyCount) {
  const Net net = nets()[0];
  const ModelPtr model = made(net);
  struct Row {
    const char* pass;
    json options;
    bool again;
  };
  for (const Row& row : {Row{"smoothquant", json::object(), false}, Row{"smoothquant", {{"search", true}}, true}, Row{"awq", json::object(), true}}) {
    Kept kept;
    ASSERT_TRUE(run_pass(row.pass, model, row.options, samples_of(net), &kept, recipe_of(4, 8)));
    ASSERT_TRUE(run_pass(row.pass, model, row.options, samples_of(net), &kept, recipe_of(3, 8)));
    EXPECT_EQ(kept.computed, row.again ? 2 : 1) << row.pass << row.options.dump();
  }
}

TEST(Scaling, SamplesThatAreNotFiniteAreRefused) {
  const Net net = nets()[0];
  at::Tensor x = samples_of(net).clone();
  x.flatten()[5] = std::numeric_limits<float>::quiet_NaN();
  for (const char* pass : {"smoothquant", "awq"}) {
    const auto result = run_pass(pass, made(net), {{"method", "both"}}, x, nullptr, recipe_of(4, 8));
    ASSERT_FALSE(result);
    EXPECT_NE(result.error().message.find("not finite"), std::string::npos) << result.error().text();
  }
}

// Factors that the type of a weight in the file cannot hold are not taken.
TEST(Scaling, SmallFloatsAreNotScaledToInfinity) {
  for (const char* method : {"fused", "layerwise"}) {
    SCOPED_TRACE(method);
    ModelMaker m(17);
    m.input("x", {-1, 6}, DataType::kFloat16);
    m.weight("a.w", (noise({6, 8}, 1) * 2000).to(at::kHalf)).weight("b.w", (noise({8, 5}, 3) * 100).to(at::kHalf));
    m.node("a", "MatMul", {"x", "a.w"}, {"a"}).shape("a", {-1, 8}).node("r", "Relu", {"a"}, {"r"}).shape("r", {-1, 8});
    m.node("b", "MatMul", {"r", "b.w"}, {"b"}).shape("b", {-1, 5}).output("b");
    const ModelPtr model = m.build();
    at::Tensor x = noise({9, 6}, 4);
    x.select(1, 0).mul_(1e-4);
    const auto result = run_pass("smoothquant", model, {{"method", method}, {"alpha", 1}}, x);
    ASSERT_TRUE(result) << result.error().text();
    for (const auto& [name, data] : result->model->weights->all())
      for (const float v : data.to_floats()) EXPECT_TRUE(std::isfinite(v)) << name;
    bool told = false;
    for (const PassLayer& l : result->layers) told |= l.note.find("too large for their type") != std::string::npos;
    EXPECT_TRUE(told) << result->text;
  }
}

// An output of the network is what it was, also where it is the weight of a layer.
TEST(Scaling, AWeightThatIsAnOutputStays) {
  ModelMaker m(17);
  m.input("x", {-1, 6}).weight("a.w", testing::uneven({8, 6}, 1)).weight("b.w", testing::uneven({5, 8}, 3));
  m.node("a", "Gemm", {"x", "a.w"}, {"a"}, {{"transB", std::int64_t{1}}}).node("r", "Relu", {"a"}, {"r"});
  m.node("b", "Gemm", {"r", "b.w"}, {"b"}, {{"transB", std::int64_t{1}}}).output("b").output("b.w");
  const ModelPtr model = m.build();
  const at::Tensor x = noise({9, 6}, 4);
  for (const char* pass : {"smoothquant", "equalize", "split-channels", "clip-weights"}) {
    SCOPED_TRACE(pass);
    const json options = std::string(pass) == "clip-weights" ? json{{"magnitude", 0.2}} : json::object();
    const auto result = run_pass(pass, model, options, x);
    ASSERT_TRUE(result) << result.error().text();
    EXPECT_NE(result->model, model);
    const auto runner = exec::Runner::create(result->model, nullptr);
    ASSERT_TRUE(runner) << runner.error().text();
    const auto outputs = (*runner)->run({x});
    ASSERT_TRUE(outputs) << outputs.error().text();
    EXPECT_TRUE(at::equal((*outputs)[1], weight(model, "b.w")));
  }
}

TEST(Scaling, AWeightThatIsNotFiniteIsNamed) {
  ModelMaker m(17);
  at::Tensor w = noise({5, 8}, 3);
  w[1][2] = std::numeric_limits<float>::quiet_NaN();
  m.input("x", {-1, 6}).weight("a.w", noise({8, 6}, 1)).weight("b.w", w);
  m.node("a", "Gemm", {"x", "a.w"}, {"a"}, {{"transB", std::int64_t{1}}}).node("r", "Relu", {"a"}, {"r"});
  m.node("the layer", "Gemm", {"r", "b.w"}, {"b"}, {{"transB", std::int64_t{1}}}).output("b");
  const ModelPtr model = m.build();
  const std::pair<const char*, json> rows[] = {{"awq", json::object()}, {"smoothquant", {{"search", true}}}, {"split-channels", {{"aware", true}}}};
  for (const auto& [pass, options] : rows) {
    const auto result = run_pass(pass, model, options, noise({9, 6}, 4), nullptr, recipe_of(4, 8));
    ASSERT_FALSE(result) << pass;
    EXPECT_NE(result.error().text().find("the layer"), std::string::npos) << pass << ": " << result.error().text();
  }
}

TEST(Scaling, AStopLeavesNothingBehind) {
  for (const char* pass : {"smoothquant", "awq", "absorb-bias"}) {
    Kept kept;
    std::stop_source source;
    source.request_stop();
    kept.stop = source.get_token();
    ModelMaker m(17);  // has a place for each of them
    m.input("x", {-1, 6}).weight("a.w", noise({8, 6}, 1)).weight("a.b", at::full({8}, 20.0f)).weight("b.w", noise({5, 8}, 3));
    m.node("a", "Gemm", {"x", "a.w", "a.b"}, {"a"}, {{"transB", std::int64_t{1}}}).node("r", "Relu", {"a"}, {"r"});
    m.node("b", "Gemm", {"r", "b.w"}, {"b"}, {{"transB", std::int64_t{1}}}).output("b");
    const auto result = run_pass(pass, m.build(), json::object(), noise({9, 6}, 4), &kept, recipe_of(4, 8));
    ASSERT_FALSE(result) << pass;
    EXPECT_EQ(result.error().code, ErrorCode::kCancelled) << pass << result.error().text();
    EXPECT_TRUE(kept.bytes.empty() || kept.bytes.begin()->second.empty()) << pass;
  }
}

TEST(Scaling, WithoutFormatsAwqDoesNothingAndSaysSo) {
  const Net net = nets()[0];
  const ModelPtr model = made(net);
  const auto result = run_pass("awq", model, {}, samples_of(net));
  ASSERT_TRUE(result) << result.error().text();
  EXPECT_EQ(result->model, model);
  EXPECT_NE(result->text.find("gives no format"), std::string::npos) << result->text;
}

}  // namespace
}  // namespace quanvas
