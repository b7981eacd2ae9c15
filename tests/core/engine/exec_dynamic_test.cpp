// Dynamic quantizers: parameters from each sample at run time.
#include <gtest/gtest.h>

#include <cmath>

#include "core/quant/dynamic.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::noise;
using testing::same_bits;
using testing::tensor;

QuantSpec dynamic(Granularity granularity, int bits = 8) {
  QuantSpec s;
  s.source = ScaleSource::kDynamic;
  s.granularity = granularity;
  s.bits = bits;
  s.group_size = 5;
  return s;
}

struct Case {
  const char* name;
  QuantSpec spec;
  int scales;  // of a sample [4, 3, 12]
};

std::vector<Case> cases() {
  std::vector<Case> out;
  const auto add = [&](const char* name, Granularity g, int scales, auto change) {
    QuantSpec s = dynamic(g);
    change(s);
    out.push_back({name, s, scales});
  };
  const auto asymmetric = [](QuantSpec& s) {
    s.zero_point = ZeroPointType::kInteger;
    s.is_signed = false;
    s.statistic = Statistic::kMinMax;
  };
  add("tensor", Granularity::kTensor, 1, [](QuantSpec&) {});
  add("tensor asymmetric", Granularity::kTensor, 1, asymmetric);
  add("tensor mse", Granularity::kTensor, 1, [](QuantSpec& s) { s.bits = 3; s.statistic = Statistic::kMse; });
  add("tensor percentile", Granularity::kTensor, 1, [](QuantSpec& s) { s.statistic = Statistic::kPercentile; s.percentile = 90; });
  add("tensor max-mean", Granularity::kTensor, 1, [](QuantSpec& s) { s.statistic = Statistic::kMaxMean; });
  add("channel", Granularity::kChannel, 4, [](QuantSpec&) {});
  add("row", Granularity::kRow, 12, [](QuantSpec&) {});
  add("row asymmetric", Granularity::kRow, 12, asymmetric);
  add("row e4m3", Granularity::kRow, 12, [](QuantSpec& s) { s.format = "float"; });
  add("row power of two", Granularity::kRow, 12, [](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; });
  add("group ragged", Granularity::kGroup, 36, [](QuantSpec&) {});
  add("group ternary", Granularity::kGroup, 36, [](QuantSpec& s) { s.format = "ternary"; });
  add("group two levels", Granularity::kGroup, 36, [](QuantSpec& s) {
    s.format = "float";
    s.exponent_bits = 2;
    s.mantissa_bits = 1;
    s.specials = FloatSpecials::kNone;
    s.scale = ScaleType::kFloat8;
  });
  return out;
}

quant::QuantParams declared(const QuantSpec& spec) {
  const int axis = spec.granularity == Granularity::kChannel ? 1 : -1;
  auto params = quant::dynamic_params(spec, axis);
  EXPECT_TRUE(params);
  EXPECT_TRUE(quant::is_dynamic(*params));
  return *params;
}

TEST(ExecDynamic, ASampleIsQuantizedByItsOwnParameters) {
  // Samples of very different size, so that parameters shared among them would show.
  const at::Tensor x = noise({7, 4, 3, 12}, 5) * tensor({7, 1, 1, 1}, {1, 100, 0.01f, 3, 7, 1e4f, 0.5f});
  for (const Case& c : cases()) {
    ASSERT_EQ(check(c.spec, SiteKind::kInput), "") << c.name;
    const quant::QuantParams p = declared(c.spec);
    const at::Tensor y = exec::fake_quantize(x, p);
    for (std::int64_t i = 0; i < 7; ++i) {
      const at::Tensor one = x.narrow(0, i, 1).contiguous();
      auto own = quant::find_params(p.spec, {1, 4, 3, 12}, one.data_ptr<float>(), 1);
      ASSERT_TRUE(own) << c.name << ": " << own.error().text();
      EXPECT_EQ(own->scale.size(), static_cast<std::size_t>(c.scales)) << c.name;
      EXPECT_TRUE(same_bits(y.narrow(0, i, 1), exec::fake_quantize(one, *own))) << c.name << ", sample " << i;
      EXPECT_TRUE(same_bits(y.narrow(0, i, 1), exec::fake_quantize(one, p))) << c.name << ", alone";
    }
  }
}

TEST(ExecDynamic, RowsByTheFormula) {
  const at::Tensor x = noise({3, 2, 9}, 8);
  const at::Tensor y = exec::fake_quantize(x, declared(dynamic(Granularity::kRow)));
  const at::Tensor s = std::get<0>(x.abs().max(-1, /*keepdim=*/true)) / 128;
  EXPECT_TRUE(y.equal(at::clamp(at::round(x / s), -128, 127) * s));
}

TEST(ExecDynamic, ASampleThatIsNotFiniteBecomesNan) {
  at::Tensor x = noise({4, 6}, 1);
  x[2][3] = NAN;
  x[3][0] = INFINITY;
  const quant::QuantParams p = declared(dynamic(Granularity::kTensor));
  const at::Tensor y = exec::fake_quantize(x, p);
  EXPECT_TRUE(y.narrow(0, 2, 2).isnan().all().item().toBool());
  EXPECT_TRUE(same_bits(y.narrow(0, 0, 2), exec::fake_quantize(x.narrow(0, 0, 2), p)));
}

TEST(ExecDynamic, RanksBelowTwoAndEmptyTensors) {
  const quant::QuantParams p = declared(dynamic(Granularity::kTensor));
  EXPECT_TRUE(at::allclose(exec::fake_quantize(at::full({}, -2.0f), p), at::full({}, -2.0f))) << "one value is its own extreme";
  EXPECT_TRUE(at::allclose(exec::fake_quantize(tensor({2}, {-3, -1e-3f}), p), tensor({2}, {-3, -1e-3f}))) << "each is a sample";
  EXPECT_EQ(exec::fake_quantize(at::empty({0, 3}), p).sizes(), at::IntArrayRef({0, 3}));
  // An axis that the tensor lacks.
  QuantSpec s = dynamic(Granularity::kChannel);
  s.axis = 3;
  EXPECT_THROW(exec::fake_quantize(noise({2, 3}, 1), declared(s)), std::exception);
}

// The scale is a constant of the graph: what is clipped has no gradient, the rest has its own.
TEST(ExecDynamic, GradientIsStraightThrough) {
  QuantSpec s = dynamic(Granularity::kRow);
  s.statistic = Statistic::kPercentile;
  s.percentile = 60;
  const quant::QuantParams p = declared(s);
  const at::Tensor x = noise({5, 20}, 3).requires_grad_(true), dy = noise({5, 20}, 4);
  const at::Tensor y = exec::fake_quantize_ste(x, at::Tensor(), p, false);
  EXPECT_TRUE(same_bits(y.detach(), exec::fake_quantize(x.detach(), p)));
  y.backward(dy);
  const at::Tensor level = std::get<0>(x.detach().abs().kthvalue(12, 1, true)) / 128;
  const at::Tensor code = at::round(x.detach() / level);
  const at::Tensor inside = at::logical_and(code.ge(-128), code.le(127));
  EXPECT_GT(inside.logical_not().sum().item().toLong(), 10);
  EXPECT_TRUE(x.grad().equal(dy * inside));
}

TEST(ExecDynamic, FactsAreThoseOfTheSamplesTogether) {
  const at::Tensor x = (noise({6, 4, 3, 12}, 2) * tensor({6, 1, 1, 1}, {1, 2, 3, 4, 5, 6})).contiguous();
  for (const Case& c : cases()) {
    const quant::QuantParams p = declared(c.spec);
    auto facts = quant::measure_samples(p, {6, 4, 3, 12}, x.data_ptr<float>());
    ASSERT_TRUE(facts) << c.name;
    const at::Tensor y = exec::fake_quantize(x, p);
    EXPECT_DOUBLE_EQ(facts->error.mse, quant::tensor_error(x.data_ptr<float>(), y.data_ptr<float>(), x.numel()).mse) << c.name;
    EXPECT_LE(facts->codes_used, facts->codes_total) << c.name;
    EXPECT_GT(facts->codes_used, 1) << c.name;
    EXPECT_LT(facts->scale_min, facts->scale_max) << c.name;
  }
}

struct Refused {
  const char* field;
  void (*change)(QuantSpec&);
  SiteKind site;
};

TEST(ExecDynamic, WhatIsNotLegalIsNamed) {
  const Refused rows[] = {
      {"source", [](QuantSpec&) {}, SiteKind::kWeight},
      {"axis", [](QuantSpec& s) { s.granularity = Granularity::kRow; s.axis = 0; }, SiteKind::kInput},
      {"batches", [](QuantSpec& s) { s.batches = BatchStatistic::kMean; }, SiteKind::kInput},
      {"clip_min", [](QuantSpec& s) { s.clip_max = 1; }, SiteKind::kInput},
      {"granularity", [](QuantSpec& s) { s.source = ScaleSource::kStatistics; s.granularity = Granularity::kRow; }, SiteKind::kInput},
      {"granularity", [](QuantSpec& s) { s.source = ScaleSource::kStatistics; s.granularity = Granularity::kGroup; }, SiteKind::kOutput},
  };
  for (const Refused& row : rows) {
    QuantSpec s = dynamic(Granularity::kTensor);
    row.change(s);
    EXPECT_EQ(check(s, row.site).rfind(row.field, 0), 0u) << row.field << ": " << check(s, row.site);
  }
  EXPECT_FALSE(quant::dynamic_params(QuantSpec{}, 1));
}

}  // namespace
}  // namespace quanvas
