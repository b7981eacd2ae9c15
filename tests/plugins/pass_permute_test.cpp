// The order of features in front of rotations in blocks: the float network stays the same, blocks get more even.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "plugins/passes/permute_features.h"
#include "tests/plugins/rotation_nets.h"

namespace quanvas {
namespace {

using testing::Kept;
using testing::NetMaker;
using testing::noise;
using testing::OpenData;
using testing::relative_difference;
using testing::run_pass;

using Order = std::vector<std::int64_t>;

DatasetPtr windows(std::int64_t n = 6) {
  return std::make_shared<OpenData>(OpenData::Kind::kWindows, n);
}
Result<testing::Scaled> rotated(const ModelPtr& model, const json& options, Kept* kept = nullptr,
                                const DatasetPtr& data = windows()) {
  return run_pass("rotate", model, options, {}, kept, {}, data);
}
at::Tensor outputs(const ModelPtr& model) {
  return testing::all_outputs_of(model, testing::tokens({3, testing::kWindow}, testing::kTokens));
}

Order shuffled(std::int64_t n, std::int64_t seed) {
  Order p(static_cast<std::size_t>(n));
  std::iota(p.begin(), p.end(), std::int64_t{0});
  for (std::int64_t i = 0; i < n; ++i)
    std::swap(p[static_cast<std::size_t>(i)], p[static_cast<std::size_t>((i * 5 + seed) % n)]);
  return p;
}

const Shape kS = {2, 5, 16};
struct Net {
  std::string name, tensor;  // whose features get another order
  std::function<void(NetMaker&)> build;
  std::string left;  // part of why not; empty: it is possible
};

std::vector<Net> nets() {
  const auto begin = [](NetMaker& n) -> NetMaker& { return n.in({2, 5, 6}).linear("a", "x", 6, kS, true); };
  const auto end = [](NetMaker& n, const std::string& from) { n.linear("b", from, 16, {2, 5, 3}, true).out("b"); };
  return {
      {"relu", "r", [=](NetMaker& n) { begin(n).op("r", "Relu", {"a"}, kS), end(n, "r"); }, ""},
      {"gelu_before_a_norm", "n",
       [=](NetMaker& n) { begin(n).op("g", "Gelu", {"a"}, kS).layer_norm("n", "g", kS), end(n, "n"); }, ""},
      {"gate", "f.mul",
       [=](NetMaker& n) {
         begin(n).gated("f.", "a", 16, 24).linear("b", "f.down", 16, {2, 5, 3}).out("b");
       },
       ""},
      {"rms_with_scales", "n", [=](NetMaker& n) { begin(n).rms("n", "a", kS).op("t", "Tanh", {"n"}, kS), end(n, "t"); }, ""},
      {"slopes_and_factors", "m",
       [=](NetMaker& n) {
         begin(n).weight("s", {16}).op("p", "PRelu", {"a", "s"}, kS).weight("f", {1, 1, 16}).op("m", "Mul", {"p", "f"}, kS),
             end(n, "m");
       },
       ""},
      {"numbers_for_all", "c",
       [=](NetMaker& n) {
         n.m.weight("two", at::full({1}, 2.0)).weight("lo", at::full({}, -0.5)).weight("hi", at::full({}, 0.4));
         begin(n).op("m", "Pow", {"a", "two"}, kS).op("c", "Clip", {"m", "lo", "hi"}, kS), end(n, "c");
       },
       ""},
      {"residual", "r",
       [=](NetMaker& n) {
         begin(n).rms("n", "a", kS).gated("f.", "n", 16, 24).add("r", "a", "f.down", kS).rms("m", "r", kS), end(n, "m");
       },
       ""},
      {"positions", "s",
       [=](NetMaker& n) {
         begin(n).weight("pos", {5, 16}).add("s", "a", "pos", kS).op("t", "Sigmoid", {"s"}, kS), end(n, "t");
       },
       ""},
      {"softmax", "p",
       [=](NetMaker& n) {
         begin(n).op("p", "Softmax", {"a"}, kS, {{"axis", std::int64_t{1}}}), end(n, "p");
       },
       "'p' (Softmax)"},
      {"split", "s1",
       [=](NetMaker& n) {
         begin(n)
             .m.node("split", "Split", {"a"}, {"s1", "s2"}, {{"axis", std::int64_t{2}}})
             .shape("s1", {2, 5, 8})
             .shape("s2", {2, 5, 8});
         n.linear("b", "s1", 8, {2, 5, 3}).linear("c", "s2", 8, {2, 5, 3}).out("b").out("c");
       },
       "'split' (Split)"},
      {"output", "r", [=](NetMaker& n) { begin(n).op("r", "Relu", {"a"}, kS), end(n, "r"), n.out("r"); },
       "output of the network"},
      {"input", "r", [=](NetMaker& n) { n.in(kS).op("r", "Relu", {"x"}, kS), end(n, "r"); }, "input of the network"},
  };
}

TEST(Permute, AnyOrderKeepsTheNetwork) {
  for (const Net& net : nets()) {
    SCOPED_TRACE(net.name);
    NetMaker n;
    net.build(n);
    const ModelPtr model = n.m.build();
    const TensorId tensor = model->graph->tensor(net.tensor);
    const std::int64_t features = model->graph->tensor(tensor).shape->back();
    std::vector<std::string> left;
    const auto changed = reorder_features(model, {{tensor, shuffled(features, 3)}}, left);
    ASSERT_TRUE(changed) << changed.error().text();
    if (!net.left.empty()) {
      ASSERT_EQ(left.size(), 1u);
      EXPECT_NE(left[0].find(net.left), std::string::npos) << left[0];
      EXPECT_EQ(*changed, model);
      continue;
    }
    EXPECT_TRUE(left.empty()) << left[0];
    EXPECT_NE((*changed)->weights->hash(), model->weights->hash());
    const at::Tensor x = noise(*model->graph->tensor(model->graph->inputs()[0]).shape, 30);
    EXPECT_LT(relative_difference(testing::all_outputs_of(*changed, x), testing::all_outputs_of(model, x)), 3e-6);
    // The features are those of before, in the other order.
    const auto features_of = [&](const ModelPtr& m) {
      auto runner = exec::Runner::create(m, nullptr);
      return (*(*runner)->run_all({x}))[static_cast<std::size_t>(m->graph->tensor(net.tensor))];
    };
    const at::Tensor wanted = features_of(model).index_select(-1, at::tensor(shuffled(features, 3), at::kLong));
    EXPECT_LT(relative_difference(features_of(*changed), wanted), 1e-6);
  }
}

TEST(Permute, HeadsKeepTheirPlaces) {
  const ModelPtr model = testing::open_llama();
  std::vector<std::string> left;
  const auto changed = reorder_features(model, {{model->graph->tensor("att"), {3, 1, 0, 2}}}, left);
  ASSERT_TRUE(changed && left.empty());
  EXPECT_LT(relative_difference(outputs(*changed), outputs(model)), 3e-6);
  const at::Tensor v = testing::weight_of(model, "v.w"), w = testing::weight_of(*changed, "v.w");
  for (const std::int64_t head : {0, 4})
    for (const auto& [to, from] : {std::pair{0, 3}, {1, 1}, {2, 0}, {3, 2}})
      EXPECT_TRUE(w.select(1, head + to).equal(v.select(1, head + from)));
  EXPECT_FALSE(reorder_features(model, {{model->graph->tensor("att"), Order{1, 0, 2}}}, left).error().code ==
               ErrorCode::kInternal);
  EXPECT_EQ(left.size(), 1u);
}

TEST(Permute, ALanguageModelStaysTheSame) {
  const ModelPtr model = testing::open_llama();
  const at::Tensor wanted = outputs(model);
  for (const char* order : {"massdiff", "zigzag", "absmax", "random"})
    for (const int block : {2, 4, 8, 16})  // of 24 features behind the gates
      for (const char* kind : {"signs", "none"}) {
        const json options = {{"kind", kind}, {"block", block}, {"online", "products"}, {"expand", true}, {"permute", order}};
        SCOPED_TRACE(options.dump());
        Kept kept;
        const auto result = rotated(model, options, &kept);
        ASSERT_TRUE(result) << result.error().text();
        EXPECT_LT(relative_difference(outputs(result->model), wanted), 1e-5);
        EXPECT_EQ(kept.computed, 1);
        EXPECT_NE(result->text.find("; reordered "), std::string::npos) << result->text;
      }
}

// "(l1 norm of the largest block over the mean A → B)"
std::pair<double, double> evenness(const std::string& text) {
  const std::size_t at = text.find("over the mean ");
  const std::size_t arrow = text.find(" → ", at);
  if (at == std::string::npos || arrow == std::string::npos) return {0, 0};
  return {std::stod(text.substr(at + 14)), std::stod(text.substr(arrow + 5))};
}

TEST(Permute, MassDiffMakesBlocksEven) {
  const ModelPtr model = testing::open_llama();
  const json options = {{"kind", "none"}, {"block", 4}, {"online", "products"}};
  const auto evenness_by = [&](const std::string& order, int seed = 0) {
    json own = options;
    own["permute"] = order;
    own["seed"] = seed;
    return evenness(rotated(model, own)->text);
  };
  const auto [before, after] = evenness_by("massdiff");
  EXPECT_LT(after, before - 0.1);
  EXPECT_GE(after, 1);
  for (int seed = 0; seed < 8; ++seed) EXPECT_GE(evenness_by("random", seed).second, after);
  // Behind the gates: gate and up make the features in the order in which down reads them.
  json own = options;
  own["permute"] = "massdiff";
  const auto moved = rotated(model, own);
  const auto columns_of = [](const ModelPtr& m, const std::string& name) {
    return std::get<0>(testing::weight_of(m, name).square().sum(0).sort());
  };
  own["permute"] = "none";
  const auto still = rotated(model, own);
  for (const char* name : {"gate.w", "up.w"}) {
    EXPECT_FALSE(testing::weight_of(moved->model, name).equal(testing::weight_of(still->model, name)));
    EXPECT_LT(relative_difference(columns_of(moved->model, name), columns_of(still->model, name)), 1e-6);
  }
}

TEST(Permute, WholeRotationsAreLeftAlone) {
  const ModelPtr model = testing::open_llama();
  for (const json& options :
       {json{{"online", "products"}}, json{{"online", "rest"}, {"expand", true}}, json{{"block", 16}, {"heads", false}}}) {
    SCOPED_TRACE(options.dump());
    json own = options;
    own["permute"] = "massdiff";
    Kept kept;
    const auto with = rotated(model, own, &kept), without = rotated(model, options);
    ASSERT_TRUE(with && without);
    EXPECT_EQ(with->model->weights->hash(), without->model->weights->hash());
    EXPECT_EQ(kept.computed, 0);  // and needs no data
    EXPECT_NE(with->text.find("reordered nothing"), std::string::npos) << with->text;
  }
}

TEST(Permute, RoundingInBlocksLosesLess) {
  // Where outliers share blocks: the first features of 32 are large.
  NetMaker n;
  at::Tensor make = noise({16, 32}, 1);
  make.narrow(1, 0, 4).mul_(20);
  n.in({64, 16}).m.weight("a.w", make).weight("b.w", noise({32, 8}, 2));
  n.op("a", "MatMul", {"x", "a.w"}, {64, 32})
      .op("r", "Relu", {"a"}, {64, 32})
      .op("b", "MatMul", {"r", "b.w"}, {64, 8})
      .out("b");
  const ModelPtr model = n.m.build();
  const at::Tensor x = noise({64, 16}, 9);
  const auto peak = [&](const std::string& order) {
    auto result = run_pass("rotate", model, {{"online", "products"}, {"block", 4}, {"permute", order}}, x);
    EXPECT_TRUE(result) << result.error().text();
    auto runner = exec::Runner::create(result->model, nullptr);
    const Node* h = result->model->graph->find("b_rotation");
    const at::Tensor y = (*(*runner)->run_all({x}))[static_cast<std::size_t>(h->outputs[0])];
    return y.abs().amax(-1).mean().item<double>();
  };
  EXPECT_LT(peak("massdiff"), 0.8 * peak("none"));
}

TEST(Permute, WhatIsMeasuredIsKeptAndLookedAt) {
  const ModelPtr model = testing::open_llama();
  const json options = {{"block", 4}, {"online", "products"}, {"permute", "massdiff"}};
  Kept kept;
  const auto first = rotated(model, options, &kept);
  ASSERT_TRUE(first);
  // Once for all orders, and quick questions get by with it.
  json other = options;
  other["permute"] = "random";
  kept.may_compute = false;
  EXPECT_TRUE(rotated(model, other, &kept));
  EXPECT_EQ(kept.computed, 1);
  kept.may_compute = true;
  const std::string good = kept.bytes.begin()->second;
  for (const std::string& bytes :
       {std::string(), std::string("x"), good.substr(8), good + "12345678", std::string(good.size(), '\xff')}) {
    kept.bytes.begin()->second = bytes;
    kept.computed = 0;
    const auto again = rotated(model, options, &kept);
    ASSERT_TRUE(again);
    EXPECT_EQ(kept.computed, 1);
    EXPECT_EQ(again->model->weights->hash(), first->model->weights->hash());
    kept.bytes.begin()->second = bytes;
    kept.keeps_damaged = true;
    EXPECT_EQ(rotated(model, options, &kept).error().code, ErrorCode::kCorrupt);
    kept.keeps_damaged = false;
  }
  Kept nothing;
  nothing.may_compute = false;
  EXPECT_FALSE(rotated(model, options, &nothing));
  Kept stopped;
  std::stop_source stop;
  stop.request_stop();
  stopped.stop = stop.get_token();
  EXPECT_EQ(rotated(model, options, &stopped).error().code, ErrorCode::kCancelled);
}

TEST(Permute, DeadAndBrokenFeatures) {
  NetMaker n;
  n.in({4, 6}).linear("a", "x", 6, {4, 16}).op("r", "Relu", {"a"}, {4, 16}).linear("b", "r", 16, {4, 3}).out("b");
  const ModelPtr model = n.m.build();
  const json options = {{"block", 4}, {"online", "products"}, {"permute", "massdiff"}};
  EXPECT_TRUE(run_pass("rotate", model, options, at::zeros({1, 6})));  // all of them dead, a single sample
  at::Tensor x = noise({4, 6}, 1);
  x[1][2] = std::numeric_limits<float>::quiet_NaN();
  const auto broken = run_pass("rotate", model, options, x);
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find("not finite"), std::string::npos) << broken.error().text();
}

}  // namespace
}  // namespace quanvas
