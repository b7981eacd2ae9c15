// Quantizers against results of Brevitas 0.12.1 (tests/golden/README.md).
//
// Deviations, on purpose:
//  1. With a zero point Brevitas rounds x / s + z, we round x / s and add z (as ONNX and PyTorch do). Codes may differ
//     by one where x / s is a tie, or so close to one that adding z in float32 makes it one.
//  2. Brevitas' asymmetric range of values that are all negative ends at the largest of them instead of 0, so such
//     rows are clipped. Ours contain 0; for these rows the scale is checked against our rule instead.
//  3. Brevitas' percentile interval takes the scale from the percentiles but the zero point from the minimum, which
//     moves the range off the values. Ours takes both from the percentiles; only the scale is compared.
//  4. Brevitas quantizes infinity to NaN even where it saturates; ours becomes the largest value.
//  5. Brevitas gives -0 the pattern of a negative zero where the format has none (FNUZ, unsigned); ours is 0.
//  6. Brevitas' power-of-two scale of a block of zeros is 1e-10 over a power of two, which is none; ours is one.
//  7. Brevitas' unsigned minifloats keep negative values; ours become 0.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/base/json.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

json load(const std::string& name) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/" + name + ".json");
  return json::parse(file);
}

struct Tensor {
  Shape shape;
  std::vector<float> data;
};

Tensor tensor(const json& j) {
  static const json shared = load("shared_inputs");
  const json& source = j.contains("ref") ? shared.at(j.at("ref").get<std::string>()) : j;
  Tensor t;
  t.shape = source.at("shape").get<Shape>();
  if (j.contains("reshape")) t.shape = j.at("reshape").get<Shape>();
  for (const json& v : source.at("data")) t.data.push_back(static_cast<float>(*real_from(v)));
  return t;
}

QuantSpec mse(QuantSpec s) {
  s.statistic = Statistic::kMse;
  return s;
}
QuantSpec percentile(QuantSpec s, double q) {
  s.statistic = Statistic::kPercentile;
  s.percentile = q;
  return s;
}
QuantSpec clip(QuantSpec s, double lo, double hi) {
  s.clip_min = lo;
  s.clip_max = hi;
  return s;
}
QuantSpec minmax(QuantSpec s) {
  s.statistic = Statistic::kMinMax;
  return s;
}

QuantSpec constant(QuantSpec s, double scale) {
  s.source = ScaleSource::kConstant;
  s.scale_value = scale;
  return s;
}
QuantSpec rounding(QuantSpec s, Rounding r) {
  s.rounding = r;
  return s;
}
QuantSpec statistic(QuantSpec s, Statistic t) {
  s.statistic = t;
  return s;
}
QuantSpec floating(int exponent, int mantissa, FloatSpecials specials, Granularity granularity = Granularity::kTensor) {
  QuantSpec s = spec_of(8, granularity);
  s.format = "float";
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = specials;
  return s;
}
QuantSpec unscaled(QuantSpec s) { return constant(std::move(s), 1); }
QuantSpec not_saturating(QuantSpec s) {
  s.saturate = false;
  return s;
}
// The exponent of a block's largest magnitude as scale (OCP MX).
QuantSpec mx(QuantSpec s) {
  s.granularity = Granularity::kGroup;
  s.axis = 1;
  s.group_size = 32;
  s.scale = ScaleType::kPowerOfTwo;
  s.exponent_rounding = ExponentRounding::kFloor;
  return s;
}
QuantSpec round_exponent(QuantSpec s) {
  s.exponent_rounding = ExponentRounding::kRound;
  return po2(s);
}
QuantSpec format(const char* id, QuantSpec s) {
  s.format = id;
  return s;
}
// Brevitas adds the zero point inside the rounding and does not force the upper end to reach 0.
QuantSpec as_brevitas(QuantSpec s) {
  s.zero_point_inside = true;
  s.zero_in_range = false;
  return s;
}
constexpr auto kNone = FloatSpecials::kNone, kNan = FloatSpecials::kNan, kIeee = FloatSpecials::kIeee,
               kFnuz = FloatSpecials::kFnuz;

struct Row {
  const char* file;
  QuantSpec spec;
};
std::string name_of(const testing::TestParamInfo<Row>& info) { return info.param.file; }

std::int64_t ulps(float a, float b) {
  std::int32_t i, j;
  std::memcpy(&i, &a, 4);
  std::memcpy(&j, &b, 4);
  return std::abs(std::int64_t{i} - j);
}

// x / s next to a tie: within what float32 loses when z is added, or when s differs by 4 units in the last place.
bool near_tie(float x, float s) {
  const double v = static_cast<double>(x) / s;
  return std::fabs(std::fabs(v - std::floor(v)) - 0.5) < 1e-5 + 1e-6 * std::fabs(v);
}

class Weights : public testing::TestWithParam<Row> {};
const auto kChannel = Granularity::kChannel;
INSTANTIATE_TEST_SUITE_P(
    Golden, Weights,
    testing::Values(Row{"w_int4_per_tensor", narrow(spec_of(4))}, Row{"w_int4_per_channel", narrow(spec_of(4, kChannel))},
                    Row{"w_int4_group32", narrow(group(4, 1, 32))}, Row{"w_int4_mse_per_channel", mse(narrow(spec_of(4, kChannel)))},
                    Row{"w_int4_fixed_point_mse", mse(po2(narrow(spec_of(4, kChannel))))},
                    Row{"w_int8_per_tensor", narrow(spec_of(8))}, Row{"w_int8_per_channel", narrow(spec_of(8, kChannel))},
                    Row{"w_int8_per_channel_wide", spec_of(8, kChannel)},
                    Row{"w_int8_per_channel_param_from_stats", narrow(spec_of(8))},
                    Row{"w_int8_conv_per_channel", narrow(spec_of(8, kChannel))},
                    Row{"w_int8_fixed_point_per_tensor", po2(narrow(spec_of(8)))},
                    Row{"w_int8_fixed_point_per_channel", po2(narrow(spec_of(8, kChannel)))},
                    Row{"w_int8_mse_per_tensor", mse(narrow(spec_of(8)))},
                    Row{"w_int8_mse_per_channel", mse(narrow(spec_of(8, kChannel)))},
                    Row{"w_int8_percentile99_tensor", percentile(narrow(spec_of(8)), 99)},
                    Row{"w_round_round", clip(spec_of(8), -128, 127)},
                    Row{"w_uint8_asym_per_tensor", minmax(asym(spec_of(8)))},
                    Row{"w_uint8_asym_per_channel", minmax(asym(spec_of(8, kChannel)))},
                    Row{"w_uint4_asym_group32", minmax(asym(group(4, 1, 32)))}),
    name_of);
INSTANTIATE_TEST_SUITE_P(
    GoldenFormats, Weights,
    testing::Values(
        Row{"w_Fp8e4m3Weight", unscaled(floating(4, 3, kNone))}, Row{"w_Fp8e5m2Weight", unscaled(floating(5, 2, kNone))},
        Row{"w_Fp8e4m3OCPWeight", unscaled(floating(4, 3, kNan))}, Row{"w_Fp8e5m2OCPWeight", unscaled(floating(5, 2, kIeee))},
        Row{"w_Fp8e4m3FNUZWeight", unscaled(floating(4, 3, kFnuz))},
        Row{"w_Fp8e5m2FNUZWeight", unscaled(floating(5, 2, kFnuz))},
        Row{"w_Fp4e2m1OCPW", floating(2, 1, kNone, kChannel)}, Row{"w_Fp6e3m2OCPW", floating(3, 2, kNone, kChannel)},
        Row{"w_Fp8e4m3FNUZWeightPerTensorFloat", floating(4, 3, kFnuz)},
        Row{"w_Fp8e4m3OCPWeightPerTensorFloat", floating(4, 3, kNan)},
        Row{"w_Fp8e4m3OCPWeightPerChannelFloat", floating(4, 3, kNan, kChannel)},
        Row{"w_Fp8e4m3OCPWeightPerChannelFloatMSE", mse(floating(4, 3, kNan, kChannel))},
        Row{"w_fp8e4m3_ocp_nonsat", not_saturating(unscaled(floating(4, 3, kNan)))},
        Row{"w_grid_Fp8e4m3Weight", unscaled(floating(4, 3, kNone))},
        Row{"w_grid_Fp8e5m2Weight", unscaled(floating(5, 2, kNone))},
        Row{"w_grid_Fp8e4m3OCPWeight", unscaled(floating(4, 3, kNan))},
        Row{"w_grid_Fp8e5m2FNUZWeight", unscaled(floating(5, 2, kFnuz))},
        Row{"w_grid_U4e2m1", unscaled(unsigned_(floating(2, 1, kNone)))},
        Row{"w_grid_U6e2m3", unscaled(unsigned_(floating(2, 3, kNone)))},
        Row{"w_grid_fp8e4m3_ocp_nonsat", not_saturating(unscaled(floating(4, 3, kNan)))},
        Row{"w_mxfp4_e2m1", mx(floating(2, 1, kNone))}, Row{"w_mxfp6_e2m3", mx(floating(2, 3, kNone))},
        Row{"w_mxfp8_e4m3", mx(floating(4, 3, kNan))}, Row{"w_mxint8", mx(spec_of(8))}, Row{"w_mxint8_mse", mse(mx(spec_of(8)))},
        Row{"w_binary_const", constant(format("binary", spec_of(1)), 0.1)},
        Row{"w_ternary_const", constant(narrow(spec_of(2)), 0.1)},
        Row{"w_ternary_thr05_per_channel", format("ternary", spec_of(2, kChannel))},
        Row{"w_round_ceil", rounding(unscaled(spec_of(8)), Rounding::kCeil)},
        Row{"w_round_floor", rounding(unscaled(spec_of(8)), Rounding::kFloor)},
        Row{"w_int8_po2_round", round_exponent(narrow(spec_of(8, kChannel)))},
        Row{"w_int8_ave", statistic(narrow(spec_of(8)), Statistic::kMean)},
        Row{"w_int8_he", statistic(narrow(spec_of(8)), Statistic::kHe)},
        Row{"w_int8_mean_sigma", statistic(narrow(spec_of(8, kChannel)), Statistic::kMeanSigma)}),
    name_of);

// Codes in the file stand in padded groups; ours do not.
std::vector<float> codes_of(const json& j, const BlockLayout& layout) {
  const Tensor codes = tensor(j.at("codes"));
  if (layout.granularity != Granularity::kGroup) return codes.data;
  const std::int64_t groups = (layout.dim + layout.group - 1) / layout.group;
  std::vector<float> out;
  for (std::int64_t o = 0; o < layout.outer; ++o)
    for (std::int64_t d = 0; d < layout.dim; ++d)
      out.push_back(codes.data[static_cast<std::size_t>(o * groups * layout.group + d)]);
  return out;
}

TEST_P(Weights, EqualTheReference) {
  const json j = load(GetParam().file);
  const QuantSpec& spec = GetParam().spec;
  const Tensor x = tensor(j.at("input")), out = tensor(j.at("out")), scale = tensor(j.at("scale"));
  Tensor zero = tensor(j.at("zero_point"));
  const auto p = find_params(spec, x.shape, x.data.data(), 0);
  ASSERT_TRUE(p) << p.error().text();
  ASSERT_EQ(p->scale.size(), scale.data.size());
  zero.data.resize(scale.data.size(), zero.data.at(0));

  const bool asymmetric = spec.zero_point == ZeroPointType::kInteger;
  const bool searched = spec.statistic == Statistic::kMse || spec.statistic == Statistic::kMeanSigma;
  const bool minifloat = spec.format == "float";
  std::vector<bool> deviates(p->scale.size(), false);
  if (asymmetric) {
    std::vector<float> most(p->scale.size(), -INFINITY), least(p->scale.size(), INFINITY);
    for (std::size_t e = 0; e < x.data.size(); ++e) {
      const std::size_t i = parameter_of(p->layout, static_cast<std::int64_t>(e));
      most[i] = std::max(most[i], x.data[e]);
      least[i] = std::min(least[i], x.data[e]);
    }
    for (std::size_t i = 0; i < most.size(); ++i) {
      // Brevitas pads groups with zeros, so only full groups of negative values deviate.
      deviates[i] = most[i] < 0 && p->scale[i] != scale.data[i];
      if (!deviates[i]) continue;
      EXPECT_EQ(p->scale[i], (0.0f - least[i]) / static_cast<float>(p->hi - p->lo)) << i;
    }
  }
  if (spec.scale == ScaleType::kPowerOfTwo && spec.exponent_rounding == ExponentRounding::kFloor) {
    std::vector<float> most(p->scale.size());
    for (std::size_t e = 0; e < x.data.size(); ++e) {
      float& m = most[parameter_of(p->layout, static_cast<std::int64_t>(e))];
      m = std::max(m, std::fabs(x.data[e]));
    }
    for (std::size_t i = 0; i < most.size(); ++i) {
      deviates[i] = most[i] == 0;
      int exponent = 0;
      EXPECT_EQ(std::frexp(p->scale[i], &exponent), 0.5f) << i;
    }
  }
  for (std::size_t i = 0; i < p->scale.size(); ++i) {
    if (deviates[i]) continue;
    EXPECT_LE(ulps(p->scale[i], scale.data[i]), searched ? 4 : 0) << i;
    EXPECT_EQ(p->zero_point.empty() ? 0.0f : p->zero_point[i], zero.data[i]) << i;
  }
  std::vector<std::int32_t> codes(x.data.size());
  std::vector<float> y(x.data.size());
  quantize_codes(*p, p->layout, x.data.data(), codes.data());
  fake_quantize(*p, p->layout, x.data.data(), y.data());
  const std::vector<float> expected = codes_of(j, p->layout);
  ASSERT_EQ(expected.size(), codes.size());
  for (std::size_t e = 0; e < codes.size(); ++e) {
    const std::size_t i = parameter_of(p->layout, static_cast<std::int64_t>(e));
    if (deviates[i]) continue;
    const float code = static_cast<float>(codes[e]);
    if (minifloat && std::isinf(x.data[e])) {
      EXPECT_TRUE(std::isnan(out.data[e])) << e;
      if (spec.saturate) {
        EXPECT_EQ(std::fabs(y[e]), spec.is_signed || x.data[e] > 0 ? largest_float(spec) : 0) << e;
      }
      continue;
    }
    if (minifloat && x.data[e] <= 0 && y[e] == 0 && (!spec.is_signed || spec.specials == kFnuz)) {
      EXPECT_EQ(code, 0) << e;
      EXPECT_TRUE(out.data[e] == 0 || !spec.is_signed) << e;
      continue;
    }
    if (std::isnan(out.data[e])) {
      EXPECT_TRUE(std::isnan(y[e])) << e;
      continue;
    }
    if ((asymmetric || searched) && code != expected[e]) {
      EXPECT_TRUE(near_tie(x.data[e], p->scale[i])) << e;
      EXPECT_EQ(std::fabs(code - expected[e]), 1) << e;
      continue;
    }
    EXPECT_EQ(code, expected[e]) << e;
    EXPECT_LE(ulps(y[e] + 0.0f, out.data[e] + 0.0f), searched ? 4 : 0) << e;
  }
}

TEST(GoldenDeviations, AreThere) {
  // If these became equal, the list above would be out of date.
  const json j = load("w_uint8_asym_per_channel");
  const Tensor x = tensor(j.at("input")), scale = tensor(j.at("scale"));
  const auto p = find_params(minmax(asym(spec_of(8, kChannel))), x.shape, x.data.data(), 0);
  ASSERT_TRUE(p);
  std::vector<std::size_t> different;
  for (std::size_t i = 0; i < p->scale.size(); ++i)
    if (p->scale[i] != scale.data[i]) different.push_back(i);
  EXPECT_EQ(different, std::vector<std::size_t>{2}) << "the row of negative values";
}

TEST(GoldenDeviations, PercentileIntervalHasTheSameScale) {
  const json j = load("w_uint8_asym_pct_interval");
  const Tensor x = tensor(j.at("input"));
  const auto p = find_params(percentile(asym(spec_of(8)), 99), x.shape, x.data.data(), 0);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->scale, tensor(j.at("scale")).data);
  EXPECT_NE(p->zero_point, tensor(j.at("zero_point")).data);
}

class Biases : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(Golden, Biases,
                         testing::Values(Row{"b_int32_external_pc", spec_of(32)}, Row{"b_int32_external_pt", spec_of(32)},
                                         Row{"b_int16_external_pt", spec_of(16)}, Row{"b_int8_external_pc", spec_of(8)},
                                         Row{"b_int8_external_pt", spec_of(8)}, Row{"b_int8_internal_pt", spec_of(8)}),
                         name_of);

TEST_P(Biases, EqualTheReference) {
  const json j = load(GetParam().file);
  const json& q = j.at("quant_bias");
  const Tensor bias = tensor(j.at("bias")), scale = tensor(q.at("scale")), out = tensor(q.at("out"));
  const Tensor codes = tensor(q.at("codes"));
  const bool internal = std::string(GetParam().file) == "b_int8_internal_pt";
  const QuantParams p = internal ? *find_params(GetParam().spec, bias.shape, bias.data.data(), 0)
                                 : *bias_params(GetParam().spec, tensor(j.at("input_scale")).data.at(0),
                                                tensor(j.at("weight_scale")).data, bias.shape, 0);
  EXPECT_EQ(p.scale, scale.data);
  std::vector<float> y(bias.data.size());
  std::vector<std::int32_t> c(bias.data.size());
  fake_quantize(p, p.layout, bias.data.data(), y.data());
  quantize_codes(p, p.layout, bias.data.data(), c.data());
  EXPECT_EQ(y, out.data);
  EXPECT_EQ(std::vector<float>(c.begin(), c.end()), codes.data);
}

// Activation quantizers: Brevitas averages the statistics of its batches, we merge them, so the scale is taken from
// the file (except where it is a fixed range); what is compared is quantizing with it.
class Activations : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(
    Golden, Activations,
    testing::Values(Row{"a_int8_absmax", spec_of(8)}, Row{"a_int8_percentile", spec_of(8)},
                    Row{"a_int8_fixed_point", spec_of(8)}, Row{"a_uint8_percentile", unsigned_(spec_of(8))},
                    Row{"a_int8_minmax_init", clip(spec_of(8), -1.5, 1.5)},
                    Row{"a_uint8_max_init", clip(unsigned_(spec_of(8)), 0, 6)},
                    Row{"a_uint8_asym_minmax", asym(spec_of(8))}, Row{"a_uint8_asym_percentile", asym(spec_of(8))}),
    name_of);

TEST_P(Activations, EqualTheReference) {
  const json j = load(GetParam().file);
  const QuantSpec& spec = GetParam().spec;
  const Tensor x = tensor(j.at("input")), out = tensor(j.at("out")), codes = tensor(j.at("codes"));
  auto p = find_params(spec, x.shape, x.data.data(), 1);
  ASSERT_TRUE(p);
  const float scale = tensor(j.at("scale")).data.at(0);
  EXPECT_TRUE(!spec.clip_max || p->scale.at(0) == scale);
  p->scale = {scale};
  if (!p->zero_point.empty()) p->zero_point = tensor(j.at("zero_point")).data;
  std::vector<float> y(x.data.size());
  std::vector<std::int32_t> c(x.data.size());
  fake_quantize(*p, p->layout, x.data.data(), y.data());
  quantize_codes(*p, p->layout, x.data.data(), c.data());
  for (std::size_t e = 0; e < y.size(); ++e) {
    if (!p->zero_point.empty() && static_cast<float>(c[e]) != codes.data[e] && near_tie(x.data[e], scale)) continue;
    EXPECT_EQ(static_cast<float>(c[e]), codes.data[e]) << e;
    EXPECT_EQ(y[e], out.data[e]) << e;
  }
}

}  // namespace
}  // namespace quanvas::quant::test
