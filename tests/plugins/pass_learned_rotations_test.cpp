// Rotations that are learned: the gradient is that of the loss, the loss never ends above its start, and the float network
// stays the same.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "core/algorithms/cayley.h"
#include "core/algorithms/orthogonal.h"
#include "plugins/passes/learn_rotations.h"
#include "tests/plugins/rotation_nets.h"

namespace quanvas {
namespace {

using testing::Kept;
using testing::OpenData;
using testing::relative_difference;
using Kind = OpenData::Kind;

DatasetPtr data_of(Kind kind, std::int64_t n = 12) {
  return std::make_shared<OpenData>(kind, n);
}
ModelPtr net_of(Kind kind) {
  return kind == Kind::kWindows ? testing::open_llama() : testing::open_classifier();
}

// 4 bits for layers' weights and inputs; inputs with a scale for each row at run time, or one that is calibrated.
Recipe formats(bool dynamic) {
  Recipe recipe = testing::recipe_of(4, 0);
  Rule inputs;
  inputs.select.sites = {SiteKind::kInput};
  inputs.select.kinds = {LayerKind::kCompute};
  if (dynamic) inputs.preset = "int8-activation-dynamic-row";
  inputs.override_fields = {{"bits", 4}};
  if (!dynamic) inputs.override_fields["granularity"] = "tensor";
  recipe.rules.push_back(inputs);
  return recipe;
}

json learning(int steps = 20) {
  return {{"learn", "spinquant"}, {"learn_steps", steps}, {"learn_rate", 0.3}, {"online", "products"}, {"expand", true}};
}

Result<testing::Scaled> rotated(const ModelPtr& model, const json& options, const DatasetPtr& data, Kept* kept = nullptr,
                                bool dynamic = true) {
  return testing::run_pass("rotate", model, options, {}, kept, formats(dynamic), data);
}
at::Tensor outputs(const ModelPtr& model, Kind kind) {
  return testing::all_outputs_of(
      model, kind == Kind::kWindows ? testing::tokens({3, testing::kWindow}, testing::kTokens) : testing::noise({7, 6}, 2));
}

// "(loss on calibration samples kept for it A → B)"
std::pair<double, double> losses(const std::string& text) {
  const std::size_t at = text.find("kept for it "), arrow = text.find(" → ", at);
  if (at == std::string::npos || arrow == std::string::npos) return {-1, -1};
  return {std::stod(text.substr(at + 12)), std::stod(text.substr(arrow + 5))};
}

// A loss by hand: the pass's parts one after the other.
struct Bench {
  PassContext ctx;
  JobContext job;
  std::vector<Rotation> start;
  std::unique_ptr<RotationLoss> loss;

  Bench(const ModelPtr& model, const DatasetPtr& data, const Recipe& recipe, const LearnOptions& options = {},
        std::int64_t block = 0) {
    const auto merged = merge_norms(model, true, job);
    RotateOptions o;
    o.online = "products";
    o.expand = true;
    o.block = block;
    Rotator rotator(merged->model, o);
    EXPECT_TRUE(rotator.plan(job));
    start = rotator.rotations();
    std::vector<TurnedTensor> turned;
    EXPECT_TRUE(rotator.apply(job, &turned));
    const ModelPtr fused = *rotator.finish();
    ctx.model = fused;
    ctx.calibration_data = data;
    for (std::int64_t i = 0; i < data->size(); ++i) ctx.calibration_samples.push_back(i);
    const auto plan = resolve(*fused->graph, recipe, PresetLibrary::builtin());
    auto made = RotationLoss::create(ctx, fused, *plan, turned, start, options);
    EXPECT_TRUE(made) << made.error().text();
    loss = std::move(*made);
  }
};

// Without formats the loss is a smooth function of matrices that need not be orthogonal.
TEST(LearnedRotations, TheGradientIsThatOfTheLoss) {
  for (const Kind kind : {Kind::kWindows, Kind::kLabels, Kind::kRows})
    for (const std::int64_t block : {0, 4}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(kind)) + " " + std::to_string(block));
      Bench b(net_of(kind), data_of(kind), {}, {}, block);
      std::vector<Rotation> place;  // away from the start, where a network without formats has no error against itself
      for (const Rotation& r : b.start) {
        std::vector<double> m = r.matrix();
        algorithms::SeededRandom random(5);
        for (double& v : m) v += 0.05 * random.normal();
        place.push_back(Rotation::of(r.size(), m));
      }
      ASSERT_GE(place.size(), 1u);
      std::vector<std::vector<double>> gradients;
      const auto& samples = b.loss->learned_samples();
      ASSERT_TRUE(b.loss->set(place, b.job));
      ASSERT_TRUE(b.loss->gradient(samples, gradients, b.job));
      ASSERT_EQ(gradients.size(), place.size());
      for (std::size_t i = 0; i < place.size(); ++i) {
        double length = 0;
        for (const double g : gradients[i]) length += g * g;
        length = std::sqrt(length);
        ASSERT_GT(length, 1e-4);
        for (std::uint64_t seed = 0; seed < 3; ++seed) {
          algorithms::SeededRandom random(seed + 50);
          std::vector<double> direction(gradients[i].size());
          double slope = 0, norm = 0;
          // One of the directions is the gradient's own, along which it counts most.
          for (std::size_t k = 0; k < direction.size(); ++k)
            direction[k] = seed == 0 ? gradients[i][k] : random.normal(), norm += direction[k] * direction[k];
          for (std::size_t k = 0; k < direction.size(); ++k)
            direction[k] /= std::sqrt(norm), slope += direction[k] * gradients[i][k];
          const auto loss_at = [&](double along) {
            std::vector<Rotation> moved = place;
            std::vector<double> m = place[i].matrix();
            for (std::size_t k = 0; k < m.size(); ++k) m[k] += along * direction[k];
            moved[i] = Rotation::of(place[i].size(), m);
            EXPECT_TRUE(b.loss->set(moved, b.job));
            return *b.loss->loss(samples, b.job);
          };
          constexpr double h = 2e-3;  // of fourth order, as the loss is computed in float32
          const double measured = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
          EXPECT_NEAR(measured, slope, 1e-3 * length) << i;
        }
      }
    }
}

TEST(LearnedRotations, TheLossFallsAndTheFloatNetworkStays) {
  for (const Kind kind : {Kind::kWindows, Kind::kLabels, Kind::kRows})
    for (const bool dynamic : {true, false})
      for (const char* start : {"signs", "orthogonal"}) {
        json options = learning();
        options["kind"] = start;
        SCOPED_TRACE(std::to_string(static_cast<int>(kind)) + (dynamic ? " dynamic " : " static ") + start);
        const ModelPtr model = net_of(kind);
        const auto result = rotated(model, options, data_of(kind, 16), nullptr, dynamic);
        ASSERT_TRUE(result) << result.error().text();
        EXPECT_LT(relative_difference(outputs(result->model, kind), outputs(model, kind)), 1e-5);
        const auto [before, after] = losses(result->text);
        EXPECT_GT(before, 0) << result->text;
        EXPECT_LE(after, before);
        options["learn"] = "none";
        const auto still = rotated(model, options, data_of(kind, 16), nullptr, dynamic);
        EXPECT_EQ(result->model->weights->hash() != still->model->weights->hash(), after < before) << result->text;
        if (kind == Kind::kRows && dynamic) {
          EXPECT_LT(after, 0.97 * before) << result->text;
        }
      }
}

// What is reported is the loss of what comes out, and the matrices are orthogonal.
TEST(LearnedRotations, WhatIsFoundIsWhatWasMeasured) {
  for (const bool dynamic : {true, false}) {
    LearnOptions options;
    options.steps = 100;
    options.rate = 0.3;
    Bench b(net_of(Kind::kRows), data_of(Kind::kRows, 40), formats(dynamic), options);
    EXPECT_EQ(b.loss->kept_samples().size(), 10u);
    EXPECT_EQ(b.loss->learned_samples().size(), 30u);
    const auto found = learn_rotations(*b.loss, options, b.job);
    ASSERT_TRUE(found) << found.error().text();
    ASSERT_GT(found->step, 0);
    std::vector<Rotation> learned;
    for (std::size_t i = 0; i < b.start.size(); ++i) {
      EXPECT_LT(algorithms::orthogonality_error(b.start[i].size(), found->matrices[i]), 1e-6);
      learned.push_back(Rotation::of(b.start[i].size(), found->matrices[i]));
    }
    const auto loss_with = [&](const std::vector<Rotation>& rotations) {
      EXPECT_TRUE(b.loss->set(rotations, b.job));
      EXPECT_TRUE(b.loss->calibrate(b.job));
      return *b.loss->loss(b.loss->kept_samples(), b.job);
    };
    EXPECT_EQ(loss_with(learned), found->after);
    EXPECT_LT(found->after, found->before);
    // A matrix in place of a fast transform: the same but for the last bits.
    EXPECT_NEAR(loss_with(b.start), found->before, 0.02 * found->before);
    LearnedRotations read;
    ASSERT_TRUE(from_bytes(to_bytes(*found), b.start, read));
    EXPECT_EQ(read.matrices, found->matrices);
    EXPECT_EQ(read.step, found->step);
  }
}

TEST(LearnedRotations, NoStepsAreNoLearning) {
  const ModelPtr model = testing::open_llama();
  const DatasetPtr data = data_of(Kind::kWindows);
  for (const json& options : {json{{"kind", "signs"}}, json{{"kind", "orthogonal"}, {"seed", 3}},
                              json{{"kind", "hadamard"}, {"online", "rest"}, {"expand", true}}}) {
    json own = options;
    const auto still = rotated(model, own, data);
    own["learn"] = "spinquant";
    own["learn_steps"] = 0;
    Kept kept;
    const auto result = rotated(model, own, data, &kept);
    ASSERT_TRUE(still && result);
    EXPECT_EQ(result->model->weights->hash(), still->model->weights->hash());
    EXPECT_EQ(kept.computed, 0);
  }
  // Nothing that could be learned.
  for (const json& options : {json{{"residual", false}, {"heads", false}}, json{{"kind", "none"}}}) {
    json own = options;
    own["learn"] = "spinquant";
    Kept kept;
    const auto result = rotated(model, own, data, &kept);
    ASSERT_TRUE(result);
    EXPECT_EQ(kept.computed, 0);
    EXPECT_NE(result->text.find("learned nothing"), std::string::npos) << result->text;
  }
}

TEST(LearnedRotations, ThreadsChangeNoBit) {
  const ModelPtr model = testing::open_llama();
  const auto bytes = [&](int threads, bool dynamic) {
    exec::set_threads(threads);
    quant::set_kernel_threads(threads);
    Kept kept;
    EXPECT_TRUE(rotated(model, learning(5), data_of(Kind::kWindows), &kept, dynamic));
    exec::set_threads(0);
    quant::set_kernel_threads(0);
    return kept.bytes;
  };
  for (const bool dynamic : {true, false}) {
    const auto one = bytes(1, dynamic);
    EXPECT_EQ(one.size(), 1u);
    EXPECT_EQ(bytes(2, dynamic), one);
  }
}

TEST(LearnedRotations, WhatIsLearnedIsKeptAndLookedAt) {
  const ModelPtr model = testing::open_llama();
  const DatasetPtr data = data_of(Kind::kWindows, 16);
  json options = learning(4);
  Kept kept;
  const auto first = rotated(model, options, data, &kept);
  ASSERT_TRUE(first);
  ASSERT_NE(first->text.find("; learned in"), std::string::npos) << first->text;
  kept.may_compute = false;
  const auto second = rotated(model, options, data, &kept);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->model->weights->hash(), first->model->weights->hash());
  EXPECT_EQ(kept.computed, 1);
  // Other formats, other rotations.
  EXPECT_FALSE(rotated(model, options, data, &kept, false));
  kept.may_compute = true;
  const std::string good = kept.bytes.begin()->second;
  std::string turned = good;  // one number of a matrix
  turned[turned.size() - 1] = static_cast<char>(turned.back() ^ 0x40);
  for (const std::string& bytes : {std::string(), std::string("rotate01"), good.substr(0, good.size() - 1), good + "x",
                                   std::string(good.size(), '\xff'), turned}) {
    kept.bytes.begin()->second = bytes;
    kept.computed = 0;
    const auto again = rotated(model, options, data, &kept);
    ASSERT_TRUE(again);
    EXPECT_EQ(kept.computed, 1);
    EXPECT_EQ(again->model->weights->hash(), first->model->weights->hash());
    kept.bytes.begin()->second = bytes;
    kept.keeps_damaged = true;
    EXPECT_EQ(rotated(model, options, data, &kept).error().code, ErrorCode::kCorrupt);
    kept.keeps_damaged = false;
  }
}

TEST(LearnedRotations, AStopIsHeard) {
  const ModelPtr model = testing::open_llama();
  Kept kept;
  std::stop_source stop;
  kept.stop = stop.get_token();
  json options = learning(100000);
  std::chrono::steady_clock::time_point asked;
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    asked = std::chrono::steady_clock::now();
    stop.request_stop();
  });
  const auto result = rotated(model, options, data_of(Kind::kWindows), &kept);
  const auto end = std::chrono::steady_clock::now();
  stopper.join();
  const std::chrono::duration<double> took = end - asked;
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
  EXPECT_LT(took.count(), 2);
}

TEST(LearnedRotations, OddInputIsRefusedByNameOrLearnedFrom) {
  const ModelPtr model = testing::open_llama();
  // No data at all.
  PassContext ctx;
  ctx.model = model;
  const auto none = RotationLoss::create(ctx, model, {}, {}, {}, {});
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("needs calibration data"), std::string::npos);
  // A single sample is learned from and judged by.
  const auto single = rotated(model, learning(3), data_of(Kind::kWindows, 1));
  ASSERT_TRUE(single) << single.error().text();
  // Constant samples, and rows of zeros, have a loss as well.
  auto zeros = std::make_shared<OpenData>(Kind::kRows, 9);
  zeros->values().zero_();
  EXPECT_TRUE(rotated(net_of(Kind::kRows), learning(3), zeros));
  auto broken = std::make_shared<OpenData>(Kind::kRows, 9);
  broken->values()[3][1] = std::numeric_limits<float>::quiet_NaN();
  const auto refused = rotated(net_of(Kind::kRows), learning(3), broken);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("not finite"), std::string::npos) << refused.error().text();
  // Tokens and labels that the network has no scores for.
  auto foreign = std::make_shared<OpenData>(Kind::kWindows, 9);
  foreign->values()[3][2] = 23.0f;
  EXPECT_TRUE(rotated(model, learning(1), foreign));
  testing::NetMaker n;
  n.in({-1, 6})
      .weight("a.w", {6, 8})
      .weight("b.w", {8, 2})
      .op("a", "MatMul", {"x", "a.w"}, {-1, 8})
      .op("b", "MatMul", {"a", "b.w"}, {-1, 2})
      .out("b");
  const auto few = rotated(n.m.build(), learning(1), data_of(Kind::kLabels));
  ASSERT_FALSE(few);
  EXPECT_NE(few.error().message.find("no class score"), std::string::npos) << few.error().text();
  // A dead feature of the stream.
  auto weights = std::make_shared<WeightStore>(*model->weights);
  at::Tensor emb = testing::weight_of(model, "emb.w").clone();
  emb.select(1, 2).zero_();
  weights->set("emb.w", exec::to_data(emb));
  EXPECT_TRUE(
      rotated(std::make_shared<const Model>(Model{model->graph, weights, "test"}), learning(2), data_of(Kind::kWindows)));
}

}  // namespace
}  // namespace quanvas
