// Quantization-aware training of what has a penalty or a bound: weights with two scales, accumulators, learned
// widths; and the ends of what can be declared.
#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/train.h"
#include "core/exec/trained_quantizer.h"
#include "core/quant/decouple.h"
#include "core/quant/weight_norm.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using exec::TrainedQuantizer;
using exec::TrainSettings;
using testing::noise;

struct Fixture {
  testing::PatternData data{{1, 8, 8}, 4, 600};
  ModelPtr model = testing::small_cnn();
  exec::QuantizerMap q = testing::quantize_all(model, noise({32, 1, 8, 8}, 1), 4, 8);
  Site weight{model->graph->find("fc")->id, SiteKind::kWeight, 0}, input{weight.node, SiteKind::kInput, 0};
  TrainSettings settings;
  Fixture() {
    settings.epochs = 2;
    settings.batch = 32;
    settings.learning_rate = 5e-3;
    settings.validation_samples = 0;  // the end state is returned
    for (auto& [site, p] : q) p.spec.statistic = Statistic::kAbsMax;
  }
  const TensorData* floats() const { return model->weights->find("fc.w"); }
  void declare(QuantSpec spec) {
    spec.granularity = Granularity::kChannel;
    spec.axis = 0;
    ASSERT_EQ(check(spec, SiteKind::kWeight), "");
    q[weight] = *quant::find_params(spec, floats()->shape, floats()->to_floats().data(), 0);
  }
  exec::TrainResult run() {
    JobContext job;
    auto r = exec::train(model, &q, data, settings, "cpu", job);
    EXPECT_TRUE(r) << (r ? "" : r.error().text());
    return r ? *r : exec::TrainResult{};
  }
};

QuantSpec decoupled(Decoupling norm, int bits) {
  QuantSpec s;
  s.bits = bits;
  s.narrow = true;
  s.decoupled = norm;
  s.source = ScaleSource::kLearned;
  return s;
}

QuantSpec a2q(int accumulator, bool centered) {
  QuantSpec s = decoupled(Decoupling::kL1, 8);
  s.accumulator_bits = accumulator;
  s.accumulator_input_bits = 8;
  s.zero_centered = centered;
  s.rounding = Rounding::kTowardZero;
  return s;
}

std::vector<std::int32_t> codes_of(const quant::QuantParams& p, const WeightStore& weights) {
  const std::vector<float> w = weights.find("fc.w")->to_floats();
  std::vector<std::int32_t> codes(w.size());
  quant::quantize_codes(p, p.layout, w.data(), codes.data());
  return codes;
}

TEST(TrainDecoupled, ScaleAndLengthAreTrainedInEitherDomain) {
  for (const Decoupling norm : {Decoupling::kL1, Decoupling::kL2, Decoupling::kInf})
    for (const ScaleDomain domain : {ScaleDomain::kLog, ScaleDomain::kLinear}) {
      Fixture f;
      QuantSpec s = decoupled(norm, 4);
      s.scale_domain = domain;
      ASSERT_NO_FATAL_FAILURE(f.declare(s));
      const quant::QuantParams before = f.q.at(f.weight);
      const auto r = f.run();
      const quant::QuantParams& after = r.quantizers.at(f.weight);
      const std::string what = std::string(enum_text(norm)) + ", " + enum_text(domain);
      ASSERT_EQ(after.code_scale.size(), before.scale.size()) << what;
      for (std::size_t k = 0; k < before.scale.size(); ++k) {
        EXPECT_NE(after.scale[k], before.scale[k]) << what;
        EXPECT_NE(after.code_scale[k], after.scale[k]) << what << ": the two have parted";
      }
      // The length is no longer the norm of the weight.
      const std::vector<float> w = r.weights->find("fc.w")->to_floats();
      const std::vector<float> lengths = quant::present_lengths(after, after.layout, w.data());
      const std::vector<float> own = quant::present_lengths(before, before.layout, f.floats()->to_floats().data());
      for (std::size_t k = 0; k < lengths.size(); ++k) EXPECT_NE(lengths[k], own[k]) << what;
      EXPECT_LT(r.curve.back().loss, r.curve.front().loss) << what;
    }
}

TEST(TrainDecoupled, ResultsDoNotDependOnTheNumberOfThreads) {
  std::vector<float> scale, weight;
  for (const int threads : {1, 2, 5}) {
    exec::set_threads(threads);
    Fixture f;
    ASSERT_NO_FATAL_FAILURE(f.declare(a2q(16, true)));
    const auto r = f.run();
    if (threads == 1) {
      scale = r.quantizers.at(f.weight).code_scale;
      weight = r.weights->find("fc.w")->to_floats();
    }
    EXPECT_EQ(r.quantizers.at(f.weight).code_scale, scale) << threads;
    EXPECT_EQ(r.weights->find("fc.w")->to_floats(), weight) << threads;
  }
  exec::set_threads(0);
}

// However many steps: the input that is worst for a channel does not overflow its accumulator.
TEST(TrainDecoupled, TheAccumulatorHoldsTheWorstInput) {
  for (const int accumulator : {12, 14, 16, 18})
    for (const bool centered : {false, true}) {
      Fixture f;
      ASSERT_NO_FATAL_FAILURE(f.declare(a2q(accumulator, centered)));
      f.settings.scale_learning_rate = 0.05;
      const auto r = f.run();
      const quant::QuantParams& p = r.quantizers.at(f.weight);
      const std::vector<std::int32_t> codes = codes_of(p, *r.weights);
      const std::int64_t most = (std::int64_t{1} << (accumulator - 1)) - 1, columns = p.layout.inner;
      std::int64_t largest = 0;
      for (std::size_t k = 0; k < p.scale.size(); ++k) {
        std::int64_t positive = 0, negative = 0;
        for (std::int64_t i = 0; i < columns; ++i) {
          const std::int64_t q = codes[k * static_cast<std::size_t>(columns) + static_cast<std::size_t>(i)];
          (q > 0 ? positive : negative) += 255 * std::abs(q);
        }
        largest = std::max({largest, positive, negative});
        EXPECT_LE(positive, most) << accumulator;
        EXPECT_LE(negative, most) << accumulator;
      }
      // Of few bits rounding toward zero leaves little.
      if (accumulator >= 16) {
        EXPECT_GT(largest, most / 8) << "the bound is used";
      }
    }
}

// With a penalty lengths stay within what the accumulator bounds, or the scale grows to meet them.
TEST(TrainDecoupled, ThePenaltyKeepsLengthsWithinTheBound) {
  double above[2];
  for (const double weight : {0.0, 10.0}) {
    Fixture f;
    ASSERT_NO_FATAL_FAILURE(f.declare(a2q(12, false)));
    f.settings.scale_learning_rate = 0.05;
    f.settings.accumulator_penalty = weight;
    const auto r = f.run();
    double ratio = 0;
    for (std::size_t k = 0; k < f.q.at(f.weight).scale.size(); ++k)
      ratio += std::log2(r.quantizers.at(f.weight).scale[k] / f.q.at(f.weight).scale[k]);
    above[weight > 0] = ratio;
  }
  EXPECT_GT(above[1], above[0]) << "the penalty's gradient lets the scales grow";
}

TEST(TrainPenalty, WidthsShrinkWhenBitsCost) {
  const auto width = [](double penalty, bool activation, const char* optimizer) {
    Fixture f;
    const Site site = activation ? f.input : f.weight;
    f.q.at(site).spec.source = ScaleSource::kLearned;
    f.q.at(site).spec.learn_bits = true;
    f.settings.scale_learning_rate = 0.1;
    f.settings.optimizer = optimizer;
    if (std::string(optimizer) == "sgd") f.settings.scale_learning_rate = 0.01;
    f.settings.bits_penalty = penalty;
    const auto r = f.run();
    EXPECT_EQ(r.quantizers.at(site).hi, code_range(r.quantizers.at(site).spec).hi);
    return r.quantizers.at(site).spec.bits;
  };
  for (const bool activation : {false, true}) {
    const int start = activation ? 8 : 4;
    EXPECT_GE(width(0, activation, "adam"), start - 1) << activation;
    EXPECT_LT(width(100, activation, "adam"), width(0, activation, "adam")) << activation;
    EXPECT_EQ(width(1000, activation, "adam") >= 2, true);
  }
  EXPECT_LT(width(100, false, "sgd"), width(0, false, "sgd"));
}

TEST(TrainPenalty, WithoutLearnedWidthsNothingChanges) {
  Fixture plain, penalized;
  penalized.settings.bits_penalty = 100;
  penalized.settings.accumulator_penalty = 100;
  const auto a = plain.run(), b = penalized.run();
  for (const char* name : {"conv.w", "fc.w", "fc.b"})
    EXPECT_EQ(a.weights->find(name)->to_floats(), b.weights->find(name)->to_floats()) << name;
  for (const auto& [site, p] : a.quantizers) EXPECT_EQ(p.scale, b.quantizers.at(site).scale);
}

// Each quantizer pays its share of the elements.
TEST(TrainPenalty, LargeTensorsShrinkFirst) {
  Fixture f;
  const Site conv{f.model->graph->find("conv")->id, SiteKind::kWeight, 0};  // 54 of 438 elements
  for (const Site& site : {conv, f.weight}) {
    f.q.at(site).spec.source = ScaleSource::kLearned;
    f.q.at(site).spec.learn_bits = true;
  }
  f.settings.optimizer = "sgd";  // Adam does not see sizes
  f.settings.scale_learning_rate = 0.01;
  f.settings.bits_penalty = 100;
  const auto r = f.run();
  EXPECT_LE(r.quantizers.at(f.weight).spec.bits, r.quantizers.at(conv).spec.bits);
  EXPECT_LT(r.quantizers.at(f.weight).spec.bits, 4);
}

// --- a delay of what nothing is found for, and declarations at the end of what is legal ---

TEST(TrainDelay, FixedQuantizersBeginAsTheyAre) {
  for (const bool constant : {true, false}) {
    Fixture f;
    QuantSpec s;
    s.bits = 4;
    s.granularity = Granularity::kTensor;
    if (constant) {
      s.source = ScaleSource::kConstant;
      s.scale_value = 0.05;
    } else {
      s.clip_min = -0.1;
      s.clip_max = 0.1;
    }
    s.delay = 5;
    f.q[f.weight] = *quant::find_params(s, f.floats()->shape, f.floats()->to_floats().data(), 0);
    QuantSpec a = s;
    a.is_signed = false;
    if (!constant) a.clip_min.reset(), a.clip_max = 0.5;
    const float none = 0;
    f.q[f.input] = *quant::find_params(a, {1, 1}, &none, 1);
    f.q[f.input].layout = *quant::make_layout(a, {32, 96}, 1);
    const auto r = f.run();
    EXPECT_EQ(r.quantizers.at(f.weight).scale, f.q.at(f.weight).scale) << (constant ? "constant" : "clipped");
    EXPECT_EQ(r.quantizers.at(f.input).scale, f.q.at(f.input).scale) << (constant ? "constant" : "clipped");
    EXPECT_EQ(r.quantizers.at(f.weight).layout.elements(), f.floats()->count());
    // It does begin: a longer delay ends elsewhere.
    Fixture late;
    late.q = f.q;
    late.q.at(f.weight).spec.delay = late.q.at(f.input).spec.delay = 1000000;
    const auto never = late.run();
    EXPECT_NE(never.weights->find("fc.w")->to_floats(), r.weights->find("fc.w")->to_floats());
    EXPECT_EQ(never.quantizers.at(f.weight).scale, f.q.at(f.weight).scale);
  }
}

TEST(TrainDelay, DecoupledOnesBeginFromTheWeightAsItIsThen) {
  Fixture f;
  QuantSpec s = a2q(14, false);
  s.delay = 10;
  ASSERT_NO_FATAL_FAILURE(f.declare(s));
  const auto r = f.run();
  const quant::QuantParams& p = r.quantizers.at(f.weight);
  EXPECT_NE(p.scale, f.q.at(f.weight).scale);
  const std::vector<std::int32_t> codes = codes_of(p, *r.weights);
  for (std::size_t k = 0; k < p.scale.size(); ++k) {
    double positive = 0, negative = 0;
    for (std::size_t i = 0; i < 96; ++i)
      (codes[k * 96 + i] > 0 ? positive : negative) += std::abs(codes[k * 96 + i]);
    EXPECT_TRUE(quant::fits_accumulator(p.spec, positive, negative));
  }
}

TEST(TrainLimits, WhatCannotBeLearnedIsRefusedWithASentence) {
  QuantSpec half;
  half.scale = ScaleType::kFloat16;
  half.source = ScaleSource::kLearned;
  QuantSpec wide;
  wide.bits = 17;
  wide.source = ScaleSource::kLearned;
  wide.learn_bits = true;
  for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kInput, SiteKind::kOutput}) {
    EXPECT_NE(check(half, kind).find("scale is float16 with source learned"), std::string::npos)
        << check(half, kind);
    EXPECT_NE(check(wide, kind).find("bits is 17; it must lie between 2 and 16."), std::string::npos)
        << check(wide, kind);
  }
  wide.bits = 16;
  EXPECT_EQ(check(wide, SiteKind::kWeight), "");
  wide.bits = 32;
  EXPECT_NE(check(wide, SiteKind::kWeight), "");
  // A pass that asks for all scales leaves float16 ones to their statistic.
  half.source = ScaleSource::kStatistics;
  Fixture f;
  half.bits = 4;
  ASSERT_NO_FATAL_FAILURE(f.declare(half));
  f.settings.force_learned = true;
  EXPECT_EQ(TrainedQuantizer::source_of(f.q.at(f.weight), f.settings), TrainedQuantizer::Source::kRecomputed);
  const auto r = f.run();
  for (const float s : r.quantizers.at(f.weight).scale)
    EXPECT_EQ(s, at::tensor(s).to(at::kHalf).to(at::kFloat).item().toFloat());
}

TEST(TrainLimits, WidthsOfSixteenBitsAreTrained) {
  Fixture f;
  f.q.at(f.weight).spec.bits = 16;
  f.q.at(f.weight) =
      *quant::find_params(f.q.at(f.weight).spec, f.floats()->shape, f.floats()->to_floats().data(), 0);
  f.q.at(f.weight).spec.source = ScaleSource::kLearned;
  f.q.at(f.weight).spec.learn_bits = true;
  f.settings.scale_learning_rate = 0.1;
  const auto r = f.run();
  EXPECT_LE(r.quantizers.at(f.weight).spec.bits, 16);
  EXPECT_EQ(check(r.quantizers.at(f.weight).spec, SiteKind::kWeight), "");
}

}  // namespace
}  // namespace quanvas
