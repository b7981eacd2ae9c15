// What quantization-aware training learns of a quantizer beside its weights: scale in either domain, zero point, width;
// and when it begins.
#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/train.h"
#include "core/exec/trained_quantizer.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using exec::QuantizerGradients;
using exec::TrainedQuantizer;
using exec::TrainSettings;
using testing::noise;
using testing::PatternData;
using testing::quantize_all;
using testing::small_cnn;

TrainedQuantizer learned(QuantSpec spec, std::vector<float> scale, std::vector<float> zero = {}) {
  TrainedQuantizer q;
  spec.source = ScaleSource::kLearned;
  q.params.spec = spec;
  const CodeRange codes = code_range(spec);
  q.params.lo = codes.lo;
  q.params.hi = codes.hi;
  q.params.scale = std::move(scale);
  q.params.zero_point = std::move(zero);
  q.source = TrainedQuantizer::Source::kLearned;
  q.begin();
  return q;
}

// One step of plain SGD (its momentum is still 0), from the chain rule.
TEST(TrainedQuantizer, ScalesStepInTheirDomain) {
  const exec::StepRule rule{/*adam=*/false, 0.1, 0, 1};
  QuantSpec spec;
  spec.bits = 4;
  const std::vector<float> scale = {0.5f, 2.0f, 0.01f};
  const QuantizerGradients g{{0.2f, -0.3f, 4.0f}, {}, 0};
  constexpr std::int64_t kElements = 300;  // 100 for each scale
  const double factor = 1 / std::sqrt(100 * 8.0);
  for (const ScaleDomain domain : {ScaleDomain::kLog, ScaleDomain::kLinear}) {
    spec.scale_domain = domain;
    TrainedQuantizer q = learned(spec, scale);
    q.step(rule, g, kElements);
    for (std::size_t i = 0; i < scale.size(); ++i) {
      const double s = scale[i], ds = g.scale[i];
      const double want = domain == ScaleDomain::kLog ? std::exp2(std::log2(s) - 0.1 * factor * ds * s * std::log(2.0))
                                                      : s * (1 - 0.1 * factor * ds * s);
      EXPECT_NEAR(q.params.scale[i], want, 1e-5 * s) << enum_text(domain);
    }
    // Nothing drives a scale to 0 or below.
    for (int i = 0; i < 50; ++i) q.step({false, 1e4, 0, 1}, {{1e3f, 1e3f, 1e3f}, {}, 0}, kElements);
    for (const float s : q.params.scale) EXPECT_GT(s, 0) << enum_text(domain);
  }
  // What only the pass asks to learn is learned as its logarithm.
  spec.scale_domain = ScaleDomain::kLinear;
  TrainedQuantizer forced = learned(spec, {0.5f});
  forced.params.spec.source = ScaleSource::kStatistics;
  forced.begin();
  forced.step(rule, {{0.2f}, {}, 0}, 100);
  EXPECT_NEAR(forced.params.scale[0], std::exp2(-1 - 0.1 * factor * 0.2 * 0.5 * std::log(2.0)), 1e-6);
}

TEST(TrainedQuantizer, PowersOfTwoStayThem) {
  QuantSpec spec;
  spec.scale = ScaleType::kPowerOfTwo;
  for (const ScaleDomain domain : {ScaleDomain::kLog, ScaleDomain::kLinear}) {
    spec.scale_domain = domain;
    TrainedQuantizer q = learned(spec, {0.25f});
    for (int i = 0; i < 30; ++i) q.step({true, 0.05, 0, i + 1}, {{1.0f}, {}, 0}, 100);
    EXPECT_LT(q.params.scale[0], 0.25f);
    EXPECT_EQ(std::log2(q.params.scale[0]), std::nearbyint(std::log2(q.params.scale[0]))) << enum_text(domain);
  }
}

TEST(TrainedQuantizer, ZeroPointsMoveWithinTheCodes) {
  QuantSpec spec;
  spec.bits = 4;
  spec.is_signed = false;
  spec.zero_point = ZeroPointType::kInteger;
  spec.learn_zero_point = true;
  TrainedQuantizer q = learned(spec, {0.5f}, {7});
  ASSERT_TRUE(q.learns_zero_point());
  for (int i = 0; i < 200; ++i) {
    q.step({true, 0.05, 0, i + 1}, {{0.0f}, {-1.0f}, 0}, 100);
    EXPECT_EQ(q.params.zero_point[0], std::nearbyint(q.params.zero_point[0]));
  }
  EXPECT_EQ(q.params.zero_point[0], 15);
  EXPECT_EQ(q.params.scale[0], 0.5f);
  spec.zero_point = ZeroPointType::kFloat;
  spec.zero_point_inside = true;
  TrainedQuantizer real = learned(spec, {0.5f}, {7});
  real.step({true, 0.05, 0, 1}, {{0.0f}, {1.0f}, 0}, 100);
  EXPECT_LT(real.params.zero_point[0], 7);
  EXPECT_NE(real.params.zero_point[0], std::nearbyint(real.params.zero_point[0]));
}

TEST(TrainedQuantizer, WidthsAreRoundedAndAtLeastTwo) {
  QuantSpec spec;
  spec.bits = 4;
  spec.learn_bits = true;
  TrainedQuantizer q = learned(spec, {0.5f});
  for (int i = 0; i < 40; ++i) q.step({true, 0.1, 0, i + 1}, {{0.0f}, {}, -1.0}, 100);  // more bits lower the loss
  EXPECT_EQ(q.params.spec.bits, 8);
  EXPECT_EQ(q.params.hi, 127);
  for (int i = 0; i < 300; ++i) {
    q.step({true, 0.1, 0, i + 1}, {{0.0f}, {}, 1.0}, 100);
    ASSERT_GE(q.params.spec.bits, 2);
  }
  EXPECT_LE(q.params.spec.bits, 3);
  EXPECT_EQ(q.params.hi, (1 << (q.params.spec.bits - 1)) - 1);
}

TEST(TrainedQuantizer, SourcesThatCannotBeLearnedAreLeft) {
  TrainSettings all;
  all.force_learned = true;
  struct Row {
    const char* what;
    void (*change)(quant::QuantParams&);
    TrainedQuantizer::Source source;
  };
  using Source = TrainedQuantizer::Source;
  const Row rows[] = {
      {"plain", [](quant::QuantParams&) {}, Source::kLearned},
      {"constant", [](quant::QuantParams& p) { p.spec.source = ScaleSource::kConstant; }, Source::kFixed},
      {"dynamic", [](quant::QuantParams& p) { p.spec.source = ScaleSource::kDynamic; }, Source::kFixed},
      {"clip", [](quant::QuantParams& p) { p.spec.clip_max = 1; }, Source::kFixed},
      {"signed-max", [](quant::QuantParams& p) { p.spec.statistic = Statistic::kSignedMax; }, Source::kFixed},
      {"two codes", [](quant::QuantParams& p) { p.code_scale = {1}; }, Source::kRecomputed},
      {"float8", [](quant::QuantParams& p) { p.spec.scale = ScaleType::kFloat8; p.spec.granularity = Granularity::kChannel; },
       Source::kRecomputed},
  };
  for (const Row& row : rows) {
    quant::QuantParams p;
    p.scale = {1};
    row.change(p);
    EXPECT_EQ(TrainedQuantizer::source_of(p, all), row.source) << row.what;
  }
}

struct Fixture {
  PatternData data{{1, 8, 8}, 4, 600};
  ModelPtr model = small_cnn();
  exec::QuantizerMap q = quantize_all(model, noise({32, 1, 8, 8}, 1), 4, 4);
  NodeId conv = model->graph->find("conv")->id, fc = model->graph->find("fc")->id;
  Site weight{fc, SiteKind::kWeight, 0}, input{fc, SiteKind::kInput, 0}, conv_weight{conv, SiteKind::kWeight, 0};
  TrainSettings settings;
  Fixture() {
    settings.epochs = 1;
    settings.batch = 32;
    settings.learning_rate = 5e-3;
    settings.validation_samples = 0;  // the end state is returned
    for (auto& [site, p] : q) p.spec.statistic = Statistic::kAbsMax;
  }
  exec::TrainResult run() {
    JobContext job;
    auto r = exec::train(model, &q, data, settings, "cpu", job);
    EXPECT_TRUE(r) << (r ? "" : r.error().text());
    return r ? *r : exec::TrainResult{};
  }
};

TEST(TrainQuantizers, WidthAndZeroPointReachTheResult) {
  Fixture f;
  auto& w = f.q.at(f.weight);
  w.spec.source = ScaleSource::kLearned;
  w.spec.learn_bits = true;
  for (float& s : w.scale) s *= 0.2f;  // clips, so that more bits pay
  auto& a = f.q.at(f.input);
  a.spec.source = ScaleSource::kLearned;
  a.spec.learn_zero_point = true;
  a.spec.zero_point = ZeroPointType::kInteger;
  a.zero_point = {4};
  f.settings.scale_learning_rate = 0.1;
  const auto r = f.run();
  const auto& bits = r.quantizers.at(f.weight);
  EXPECT_NE(bits.spec.bits, 4);
  EXPECT_EQ(bits.hi, code_range(bits.spec).hi);
  EXPECT_EQ(bits.lo, code_range(bits.spec).lo);
  EXPECT_NE(r.quantizers.at(f.input).zero_point, a.zero_point);
  EXPECT_EQ(check(bits.spec, SiteKind::kWeight), "");
}

TEST(TrainQuantizers, DelayedOnesLetFloatThrough) {
  // As long as nothing is quantized, training is that of the float network with frozen statistics.
  Fixture delayed;
  for (auto& [site, p] : delayed.q) p.spec.delay = 1000000;
  Fixture plain;
  plain.q.clear();
  const auto a = delayed.run(), b = plain.run();
  for (const char* name : {"conv.w", "fc.w", "fc.b"}) EXPECT_EQ(a.weights->find(name)->to_floats(), b.weights->find(name)->to_floats()) << name;
  // The result is quantized nevertheless, by the weights as they ended.
  const TensorData* w = a.weights->find("fc.w");
  auto want = quant::find_params(delayed.q.at(delayed.weight).spec, w->shape, w->to_floats().data(), 0);
  EXPECT_EQ(a.quantizers.at(delayed.weight).scale, want->scale);
  // One that begins half way ends elsewhere than either.
  Fixture half;
  for (auto& [site, p] : half.q) p.spec.delay = 9;
  Fixture whole;
  const auto c = half.run(), d = whole.run();
  EXPECT_NE(c.weights->find("fc.w")->to_floats(), a.weights->find("fc.w")->to_floats());
  EXPECT_NE(c.weights->find("fc.w")->to_floats(), d.weights->find("fc.w")->to_floats());
}

TEST(TrainQuantizers, ClipGradientHoldsClippedWeights) {
  for (const bool clip : {true, false}) {
    Fixture f;
    auto& w = f.q.at(f.weight);
    w.spec.clip_min = -1e-4;  // everything is clipped
    w.spec.clip_max = 1e-4;
    w.spec.granularity = Granularity::kTensor;
    w.spec.axis.reset();
    const TensorData* data = f.model->weights->find("fc.w");
    w = *quant::find_params(w.spec, data->shape, data->to_floats().data(), 0);
    w.spec.clip_gradient = clip;
    const auto r = f.run();
    const auto before = data->to_floats(), after = r.weights->find("fc.w")->to_floats();
    std::size_t same = 0;
    for (std::size_t i = 0; i < before.size(); ++i) same += before[i] == after[i];
    const double share = static_cast<double>(same) / static_cast<double>(before.size());
    EXPECT_NEAR(share, clip ? 1 : 0, 0.1);
  }
}

TEST(TrainQuantizers, SharedOnesStayOne) {
  for (const bool learn : {true, false}) {
    Fixture f;
    QuantSpec spec;
    spec.bits = 4;
    spec.source = learn ? ScaleSource::kLearned : ScaleSource::kStatistics;
    for (const Site& site : {f.weight, f.conv_weight}) {
      const TensorData* data = f.model->weights->find(site.node == f.fc ? "fc.w" : "conv.w");
      auto p = *quant::find_params(spec, data->shape, data->to_floats().data(), 0);
      p.scale = {0.05f};
      p.share = "w";
      f.q[site] = p;
    }
    const Site output{f.conv, SiteKind::kOutput, 0};
    f.q[f.input].spec.source = spec.source;
    f.q[f.input].share = "a";
    f.q[output] = f.q[f.input];
    const auto r = f.run();
    const auto& one = r.quantizers.at(f.weight);
    EXPECT_EQ(one.scale, r.quantizers.at(f.conv_weight).scale);
    EXPECT_NE(one.layout.elements(), r.quantizers.at(f.conv_weight).layout.elements()) << "each has its own layout";
    EXPECT_EQ(r.quantizers.at(f.input).scale, r.quantizers.at(output).scale);
    if (learn) {
      EXPECT_NE(one.scale[0], 0.05f);
      EXPECT_NE(r.quantizers.at(f.input).scale, f.q[f.input].scale);
    } else {
      float most = 0;
      for (const char* name : {"fc.w", "conv.w"})
        for (const float v : r.weights->find(name)->to_floats()) most = std::max(most, std::fabs(v));
      EXPECT_EQ(one.scale[0], most / 8);
    }
  }
}

}  // namespace
}  // namespace quanvas
