// Quantizers beyond one scale and one zero point: offsets, scales of two levels, codebooks, scales with a sign,
// decoupled scales with a bound for accumulators, learned rounding, ranges of several batches.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/quant/decouple.h"
#include "core/quant/grid.h"
#include "core/recipe/recipe.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

QuantSpec preset(const char* id) {
  const Preset* p = PresetLibrary::builtin().find(id);
  EXPECT_NE(p, nullptr) << id;
  return p ? p->spec : QuantSpec{};
}

std::vector<float> gaussian(std::int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = normal(random);
  return x;
}

std::vector<float> fake(const QuantParams& p, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  fake_quantize(p, p.layout, x.data(), y.data());
  return y;
}
std::vector<std::int32_t> codes_of(const QuantParams& p, const std::vector<float>& x) {
  std::vector<std::int32_t> q(x.size());
  quantize_codes(p, p.layout, x.data(), q.data());
  return q;
}

bool is_float16(float v) {
  if (v == 0) return true;
  int exponent = 0;
  const float m = std::frexp(std::fabs(v), &exponent);  // 0.5 .. 1
  const float units = std::ldexp(m, 11 - std::max(0, -13 - exponent));
  return units == std::nearbyint(units) && std::fabs(v) <= 65504;
}

// --- GGUF's grids ---

struct Block {
  const char* preset;
  double bits;     // of an element, from the sizes of ggml's blocks
  double sqnr_db;  // least on Gaussian values: somewhat below what the width can give
};
class BlockFormats : public testing::TestWithParam<Block> {};
INSTANTIATE_TEST_SUITE_P(Gguf, BlockFormats,
                         testing::Values(Block{"gguf-q8_0", 34 * 8 / 32.0, 42}, Block{"gguf-q4_0", 18 * 8 / 32.0, 18},
                                         Block{"gguf-q4_1", 20 * 8 / 32.0, 20}, Block{"gguf-q5_0", 22 * 8 / 32.0, 24},
                                         Block{"gguf-q5_1", 24 * 8 / 32.0, 26}, Block{"gguf-q2_k", 84 * 8 / 256.0, 8},
                                         Block{"gguf-q3_k", 110 * 8 / 256.0, 13}, Block{"gguf-q4_k", 144 * 8 / 256.0, 20},
                                         Block{"gguf-q5_k", 176 * 8 / 256.0, 26}, Block{"gguf-q6_k", 210 * 8 / 256.0, 32},
                                         Block{"gguf-tq1_0", 54 * 8 / 256.0, 1}, Block{"gguf-tq2_0", 66 * 8 / 256.0, 1}, Block{"gguf-iq4_nl", 18 * 8 / 32.0, 19},
                                         Block{"gguf-mxfp4", 17 * 8 / 32.0, 18}),
                         [](const auto& info) {
                           std::string name = info.param.preset;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(BlockFormats, HaveTheSizeOfTheFile) {
  const std::vector<float> x = gaussian(64 * 512, 3);
  const auto p = find_params(preset(GetParam().preset), {64, 512}, x.data(), 1);
  ASSERT_TRUE(p) << p.error().text();
  const SiteFacts facts = measure(*p, p->layout, x.data());
  EXPECT_DOUBLE_EQ(facts.bits_per_element, GetParam().bits);
  EXPECT_GT(facts.error.sqnr_db, GetParam().sqnr_db);
}

TEST_P(BlockFormats, HoldWhatTheFileCanHold) {
  std::vector<float> x = gaussian(32 * 512, 4);
  std::fill_n(x.begin() + 512, 512, 0.0f);              // a line of zeros
  std::fill_n(x.begin() + 1024, 512, 3.0f);             // of one value
  for (int i = 0; i < 512; ++i) x[1536 + static_cast<std::size_t>(i)] = 5 + 0.01f * static_cast<float>(i);
  const QuantSpec spec = preset(GetParam().preset);
  const auto p = find_params(spec, {32, 512}, x.data(), 1);
  ASSERT_TRUE(p);
  const auto blocks = static_cast<std::size_t>(p->layout.group);
  for (std::size_t i = 0; i < p->scale.size(); ++i) {
    const float s = p->scale[i], m = p->zero_point.empty() ? 0.0f : p->zero_point[i];
    ASSERT_TRUE(std::isfinite(s) && s != 0) << i;
    if (spec.scale == ScaleType::kFloat16) {
      ASSERT_TRUE(is_float16(s) && is_float16(m)) << i << ": " << s << ", " << m;
    }
    if (spec.scale != ScaleType::kQuantized) continue;
    const std::size_t super = i / static_cast<std::size_t>(spec.scale_group);
    const bool has_sign = spec.statistic == Statistic::kSignedMax;
    const double most = has_sign ? (1 << (spec.scale_bits - 1)) - 1 : (1 << spec.scale_bits) - 1;
    ASSERT_TRUE(is_float16(p->super_scale.at(super)));
    const double code = static_cast<double>(s) / static_cast<double>(p->super_scale[super]);
    ASSERT_EQ(code, std::nearbyint(code)) << i;
    ASSERT_TRUE((code >= 1 || has_sign) && std::fabs(code) <= most) << i << ": " << code;
    if (p->super_offset.empty() || p->super_offset[super] == 0) continue;
    ASSERT_TRUE(is_float16(p->super_offset[super]));
    const double offset = -static_cast<double>(m) / static_cast<double>(p->super_offset[super]);
    ASSERT_EQ(offset, std::nearbyint(offset)) << i;
    ASSERT_TRUE(offset >= 0 && offset <= most) << i;
  }
  // Decoded as the file's reader does it: d * sc * q, minus d_min * m.
  const std::vector<float> y = fake(*p, x);
  const std::vector<std::int32_t> q = codes_of(*p, x);
  for (std::size_t e = 0; e < x.size(); ++e) {
    const std::size_t i = e / blocks;
    const float s = p->scale[i];
    float expected = 0;
    if (const Codebook* book = find_codebook(spec.format)) expected = s * book->values[static_cast<std::size_t>(q[e])];
    else if (spec.zero_point == ZeroPointType::kOffset) expected = s * static_cast<float>(q[e]) + p->zero_point[i];
    else if (spec.format == "int") expected = s * static_cast<float>(q[e]);
    else continue;
    ASSERT_EQ(y[e], expected) << e;
  }
  // What a step of its block allows; a scale with a sign has one code fewer on the other side.
  const float steps = spec.statistic == Statistic::kSignedMax ? 1.05f : 0.6f;
  for (std::size_t e = 0; e < 512; ++e)
    if (spec.format == "int" && spec.bits > 3) {
      EXPECT_LE(std::fabs(y[e] - x[e]), steps * std::fabs(p->scale[e / blocks]) + (p->super_offset.empty() ? 0 : p->super_offset[0])) << e;
    }
}

TEST(SignedScales, GiveTheLargestMagnitudeTheLowestCode) {
  for (const float largest : {4.0f, -4.0f}) {
    std::vector<float> x = sample(64, 5);
    for (float& v : x) v = std::clamp(v, -2.0f, 2.0f);
    x[17] = largest;
    const auto p = find_params(preset("gguf-q4_0"), {1, 64}, x.data(), 1);
    ASSERT_TRUE(p);
    EXPECT_EQ(p->scale[0], largest / -8);
    EXPECT_EQ(codes_of(*p, x)[17], -8);
    EXPECT_EQ(fake(*p, x)[17], largest);
    const std::vector<double> points = grid_points(*p, 0);
    EXPECT_TRUE(std::is_sorted(points.begin(), points.end()));
  }
}

TEST(Offsets, CoverTheRangeOfEachGroup) {
  // A range far from 0, for which a zero point would leave no codes.
  std::vector<float> x = sample(4 * 64, 6);
  for (float& v : x) v = 100 + std::clamp(v, -1.0f, 1.0f);
  QuantSpec spec = unsigned_(group(4, 1, 32));
  spec.zero_point = ZeroPointType::kOffset;
  spec.zero_in_range = false;
  spec.statistic = Statistic::kMinMax;
  const auto p = find_params(spec, {4, 64}, x.data(), 1);
  ASSERT_TRUE(p);
  const std::vector<float> y = fake(*p, x);
  for (std::size_t e = 0; e < x.size(); ++e) EXPECT_LE(std::fabs(y[e] - x[e]), 0.501f * p->scale[e / 32]) << e;
  EXPECT_EQ(measure(*p, p->layout, x.data()).clipped_share, 0);
  spec.statistic = Statistic::kMse;
  const auto searched = find_params(spec, {4, 64}, x.data(), 1);
  ASSERT_TRUE(searched);
  EXPECT_LE(measure(*searched, p->layout, x.data()).error.mse, measure(*p, p->layout, x.data()).error.mse);
}

TEST(QuantizedScales, KeepTheZeroPointOnTheRange) {
  // The zero point belongs to the scale after its own quantization.
  std::vector<float> x = sample(8 * 64, 7);
  QuantSpec spec = asym(group(8, 1, 32));
  spec.statistic = Statistic::kMinMax;
  spec.scale = ScaleType::kQuantized;
  spec.scale_bits = 8;
  const auto p = find_params(spec, {8, 64}, x.data(), 1);
  ASSERT_TRUE(p);
  for (std::size_t i = 0; i < p->scale.size(); ++i) {
    float lowest = 0;
    for (std::size_t e = i * 32; e < i * 32 + 32; ++e) lowest = std::min(lowest, x[e]);
    EXPECT_EQ(p->zero_point[i], std::clamp(std::nearbyint(-lowest / p->scale[i]), 0.0f, 255.0f)) << i;
  }
}

// --- codebooks ---

TEST(Codebooks, TakeTheNearestValueWithTiesDown) {
  for (const Codebook& book : codebooks()) {
    EXPECT_TRUE(std::is_sorted(book.values.begin(), book.values.end())) << book.id;
    QuantSpec spec;
    spec.format = book.id;
    spec.source = ScaleSource::kConstant;
    std::vector<float> x;
    for (std::size_t i = 0; i + 1 < book.values.size(); ++i) {
      const float a = book.values[i], b = book.values[i + 1], middle = (a + b) / 2;
      x.insert(x.end(), {a, b, middle, std::nextafter(middle, -1000.0f), std::nextafter(middle, 1000.0f), a + (b - a) / 3});
    }
    const float infinity = std::numeric_limits<float>::infinity();
    x.insert(x.end(), {-1000.0f, 1000.0f, 0.0f, -infinity, infinity});
    const QuantParams p = *find_params(spec, {static_cast<std::int64_t>(x.size())}, x.data(), 0);
    const std::vector<float> y = fake(p, x);
    const std::vector<std::int32_t> codes = codes_of(p, x);
    for (std::size_t e = 0; e < x.size(); ++e) {
      std::size_t best = 0;
      for (std::size_t k = 1; k < book.values.size(); ++k)
        if (std::fabs(static_cast<double>(x[e]) - book.values[k]) < std::fabs(static_cast<double>(x[e]) - book.values[best])) best = k;
      if (x[e] == infinity) best = book.values.size() - 1;
      EXPECT_EQ(codes[e], static_cast<std::int32_t>(best)) << book.id << ' ' << x[e];
      EXPECT_EQ(y[e], book.values[best]) << book.id << ' ' << x[e];
    }
    EXPECT_EQ(fake(p, y), y) << "idempotent";
    EXPECT_EQ(code_bits(spec), 4);
  }
}

TEST(Codebooks, FitGaussianWeightsBetterThanEvenSteps) {
  const std::vector<float> x = gaussian(64 * 1000, 8);
  const auto sqnr = [&](QuantSpec spec) {
    spec.granularity = Granularity::kGroup;
    spec.group_size = 64;
    const auto p = find_params(spec, {1000, 64}, x.data(), 1);
    return measure(*p, p->layout, x.data()).error.sqnr_db;
  };
  QuantSpec even = narrow(spec_of(4)), nf4;
  nf4.format = "nf4";
  EXPECT_GT(sqnr(nf4), sqnr(even) + 0.5);
}

// --- decoupled scales, accumulators ---

TEST(Decoupled, EqualThePlainQuantizerUntilTheNormIsBound) {
  const std::vector<float> x = sample(16 * 40, 9);
  const QuantSpec plain = narrow(spec_of(8, Granularity::kChannel));
  const auto p = find_params(plain, {16, 40}, x.data(), 0);
  for (const Decoupling kind : {Decoupling::kL1, Decoupling::kL2, Decoupling::kInf}) {
    QuantSpec spec = plain;
    spec.decoupled = kind;
    const auto d = find_params(spec, {16, 40}, x.data(), 0);
    ASSERT_TRUE(d);
    EXPECT_EQ(d->code_scale, p->scale);
    EXPECT_TRUE(same_bits(fake(*d, x), fake(*p, x)));
  }
}

// Colbert et al. 2023, section 3: no input of N bits makes a P bit accumulator overflow, checked with integers for the
// worst input there is.
TEST(Accumulators, NeverOverflow) {
  int bound = 0, broken_by_nearest = 0;
  for (const bool centered : {false, true})
    for (const bool is_signed : {false, true})
      for (int accumulator = 8; accumulator <= 20; ++accumulator)
        for (int input = 2; input <= 8; ++input) {
          std::vector<float> x = sample(12 * 128, static_cast<unsigned>(accumulator * 10 + input));
          for (std::size_t e = 0; e < 128; ++e) x[e] = 1;                                          // all alike
          for (std::size_t e = 128; e < 256; ++e) x[e] = e % 2 ? 1.0f : -1.0f;
          QuantSpec spec = narrow(spec_of(8, Granularity::kChannel));
          spec.decoupled = Decoupling::kL1;
          spec.rounding = Rounding::kTowardZero;
          spec.accumulator_bits = accumulator;
          spec.accumulator_input_bits = input;
          spec.accumulator_input_signed = is_signed;
          spec.zero_centered = centered;
          ASSERT_EQ(check(spec, SiteKind::kWeight), "");
          auto p = find_params(spec, {12, 128}, x.data(), 0);
          ASSERT_TRUE(p);
          const std::int64_t most = (std::int64_t{1} << (accumulator - 1)) - 1;
          const std::int64_t high = is_signed ? (1 << (input - 1)) - 1 : (1 << input) - 1;
          const std::int64_t low = is_signed ? -(1 << (input - 1)) : 0;
          const auto worst = [&](const std::vector<std::int32_t>& codes, std::size_t channel) {
            std::int64_t largest = 0, least = 0;
            for (std::size_t e = channel * 128; e < channel * 128 + 128; ++e) {
              largest += std::max(codes[e] * high, codes[e] * low);
              least += std::min(codes[e] * high, codes[e] * low);
            }
            return std::max(largest, -least);
          };
          const std::vector<std::int32_t> codes = codes_of(*p, x);
          for (std::size_t channel = 0; channel < 12; ++channel) {
            ASSERT_LE(worst(codes, channel), most) << accumulator << ' ' << input << ' ' << is_signed << ' ' << centered;
            bound += worst(codes, channel) > most * 9 / 10;
          }
          p->spec.rounding = Rounding::kHalfEven;
          const std::vector<std::int32_t> nearest = codes_of(*p, x);
          for (std::size_t channel = 0; channel < 12; ++channel) broken_by_nearest += worst(nearest, channel) > most;
        }
  EXPECT_GT(bound, 100) << "the bound is seldom reached; the test sees too little";
  EXPECT_GT(broken_by_nearest, 100) << "rounding to nearest should break the bound";
}

// Without a scale of the codes' own the scale grows: as little as it must.
TEST(Accumulators, AreKeptByOneScaleToo) {
  int grown = 0;
  for (const Rounding rounding : {Rounding::kHalfEven, Rounding::kTowardZero, Rounding::kDpu})
    for (const int accumulator : {8, 12, 16, 20}) {
      std::vector<float> x = sample(12 * 128, static_cast<unsigned>(accumulator));
      for (std::size_t e = 0; e < 128; ++e) x[e] = 1;
      QuantSpec spec = narrow(spec_of(8, Granularity::kChannel));
      spec.rounding = rounding;
      const auto plain = find_params(spec, {12, 128}, x.data(), 0);
      spec.accumulator_bits = accumulator;
      spec.accumulator_input_bits = 4;
      ASSERT_EQ(check(spec, SiteKind::kWeight), "");
      const auto p = find_params(spec, {12, 128}, x.data(), 0);
      ASSERT_TRUE(p && plain);
      EXPECT_TRUE(p->code_scale.empty());
      const auto sums = [&](const QuantParams& q, std::size_t channel) {
        const std::vector<std::int32_t> codes = codes_of(q, x);
        double positive = 0, negative = 0;
        for (std::size_t e = channel * 128; e < channel * 128 + 128; ++e) (codes[e] > 0 ? positive : negative) += std::abs(codes[e]);
        return fits_accumulator(spec, positive, negative);
      };
      for (std::size_t channel = 0; channel < 12; ++channel) {
        EXPECT_TRUE(sums(*p, channel)) << accumulator << ' ' << channel;
        EXPECT_GE(p->scale[channel], plain->scale[channel]);
        if (p->scale[channel] == plain->scale[channel]) continue;
        ++grown;
        QuantParams smaller = *p;
        for (float& s : smaller.scale) s *= 0.98f;
        // Up to jumps where several values round at once, a smaller scale does not fit.
        QuantParams half = *p;
        for (float& s : half.scale) s *= 0.5f;
        EXPECT_FALSE(sums(half, channel) && sums(smaller, channel)) << accumulator << ' ' << channel;
      }
    }
  EXPECT_GT(grown, 20);
}

TEST(Accumulators, WideOnesChangeNothing) {
  const std::vector<float> x = sample(8 * 64, 11);
  QuantSpec plain = narrow(spec_of(4, Granularity::kChannel));
  plain.rounding = Rounding::kTowardZero;
  QuantSpec bound = plain;
  bound.decoupled = Decoupling::kL1;
  bound.accumulator_bits = 32;
  const auto p = find_params(plain, {8, 64}, x.data(), 0), q = find_params(bound, {8, 64}, x.data(), 0);
  ASSERT_TRUE(p && q);
  EXPECT_TRUE(same_bits(fake(*p, x), fake(*q, x)));
}

// --- learned rounding ---

TEST(LearnedRounding, FollowsItsParameter) {
  QuantSpec spec = spec_of(8);
  spec.source = ScaleSource::kConstant;
  spec.rounding = Rounding::kLearned;
  const std::vector<float> x = {0.3f, 0.3f, 0.3f, -0.3f, -0.3f, 2.5f, 2.5f, 200, -200, 1.75f};
  const std::vector<float> r = {-4, 4, 0.1f, -4, 4, 2, -2, 4, -4, 0};
  for (const LearnedRounding kind : {LearnedRounding::kHardSigmoid, LearnedRounding::kSigmoid, LearnedRounding::kIdentity})
    for (const bool soft : {false, true}) {
      spec.learned_rounding = kind;
      spec.soft_rounding = soft;
      QuantParams p = *find_params(spec, {static_cast<std::int64_t>(x.size())}, x.data(), 0);
      p.rounding = r;
      const std::vector<float> y = fake(p, x);
      for (std::size_t e = 0; e < x.size(); ++e) {
        const double sigmoid = 1 / (1 + std::exp(-static_cast<double>(r[e])));
        double h = kind == LearnedRounding::kSigmoid ? sigmoid : std::clamp(1.2 * sigmoid - 0.1, 0.0, 1.0);
        if (!soft) h = h > 0.5 ? 1 : 0;
        double expected = std::floor(static_cast<double>(x[e])) + h;
        if (kind == LearnedRounding::kIdentity)
          expected = std::nearbyint(static_cast<double>(x[e]) + std::clamp(static_cast<double>(r[e]), -0.5, 0.5));
        EXPECT_NEAR(y[e], std::clamp(expected, -128.0, 127.0), 1e-5) << e;
      }
      p.rounding.clear();
      EXPECT_EQ(fake(p, x)[9], 2) << "to the nearest without parameters";
    }
}

// --- ends of what float32 and the codes hold ---

TEST(Limits, ZeroPointsOfASearchAreCodes) {
  std::vector<float> x(2 * 32);
  for (std::size_t e = 0; e < x.size(); ++e) x[e] = (e < 32 ? -1.0f : 0.2f) - 0.015f * static_cast<float>(e % 32);
  const auto p = find_params(preset("ShiftedUint8WeightPerChannelFloatHQO"), {2, 32}, x.data(), 0);
  ASSERT_TRUE(p);
  for (const float z : p->zero_point) EXPECT_TRUE(z >= 0 && z <= 255 && z == std::nearbyint(z)) << z;
}

TEST(Limits, ScalesAreFiniteAndNormal) {
  QuantSpec tiny = preset("fp4-e2m1-weight-per-channel");
  tiny.granularity = Granularity::kTensor;
  tiny.exponent_bias = 100;
  QuantSpec one_bit = asym(spec_of(1)), power = po2(asym(spec_of(2))), small = po2(asym(spec_of(8)));
  const std::pair<QuantSpec, std::vector<float>> rows[] = {
      {tiny, {1e12f, 1}}, {one_bit, {3e38f, -3e38f}}, {power, {3.4e38f, -3.4e38f}}, {small, {0, 1e-40f}}};
  for (const auto& [spec, x] : rows) {
    ASSERT_EQ(check(spec), "");
    const auto p = find_params(spec, {2}, x.data(), 0);
    ASSERT_TRUE(p);
    EXPECT_TRUE(std::isfinite(p->scale[0]) && p->scale[0] >= 0x1p-126f) << p->scale[0];
  }
}

TEST(Limits, ABiasTakesTheSignOfItsScale) {
  const std::vector<float> bias = {1, -0.5f};
  const auto p = bias_params(spec_of(32), 0.1f, {-0.01f}, {2}, 0);
  ASSERT_TRUE(p);
  EXPECT_EQ(p->scale[0], 0.1f * -0.01f);
  EXPECT_NEAR(fake(*p, bias)[0], 1, 0.001);
}

TEST(Limits, PercentilesKeepAwayFromZeroWhereTheyMay) {
  std::vector<float> x(4000);
  for (std::size_t e = 0; e < x.size(); ++e) x[e] = 10 + static_cast<float>(e) / 4000;
  QuantSpec spec = unsigned_(spec_of(4));
  spec.zero_point = ZeroPointType::kOffset;
  spec.zero_in_range = false;
  spec.statistic = Statistic::kPercentile;
  spec.percentile = 99;
  const auto p = find_params(spec, {4000}, x.data(), 0);
  ASSERT_TRUE(p);
  EXPECT_NEAR(p->zero_point[0], 10.01, 0.001);
  EXPECT_NEAR(p->scale[0], 0.98 / 15, 1e-4);
}

TEST(Limits, CodesOfWideMinifloatsAreCountedAsCodes) {
  QuantSpec spec;
  spec.format = "float";
  spec.exponent_bits = 7;
  spec.mantissa_bits = 10;
  spec.specials = FloatSpecials::kNone;
  spec.exponent_bias = 63;
  const std::vector<float> x = gaussian(1000, 21);
  const auto p = find_params(spec, {1000}, x.data(), 0);
  ASSERT_TRUE(p) << p.error().text();
  std::vector<std::int32_t> codes = codes_of(*p, x);
  std::sort(codes.begin(), codes.end());
  const auto different = std::unique(codes.begin(), codes.end()) - codes.begin();
  EXPECT_EQ(measure(*p, p->layout, x.data()).codes_used, static_cast<double>(different));
}

TEST(Limits, NearlyConstantWeightsFindTheirAccumulator) {
  std::vector<float> x(4096, 1.0f);
  x.back() = std::nextafter(1.0f, 2.0f);
  QuantSpec spec = spec_of(16);
  spec.source = ScaleSource::kConstant;
  spec.scale_value = 1e-12;
  spec.decoupled = Decoupling::kL1;
  spec.accumulator_bits = 20;
  spec.zero_centered = true;
  spec.rounding = Rounding::kTowardZero;
  ASSERT_EQ(check(spec), "");
  EXPECT_TRUE(find_params(spec, {4096}, x.data(), 0));
}

// --- batches ---

TEST(Batches, AreAveraged) {
  QuantSpec spec = spec_of(8);
  spec.batches = BatchStatistic::kMean;
  std::vector<Ranges> batches;
  for (const float largest : {12.0f, 18.0f, 24.0f}) {
    const std::vector<float> x = {0.5f, -largest, 1};
    const auto r = find_ranges(spec, {3}, x.data(), 0);
    ASSERT_TRUE(r);
    batches.push_back(*r);
  }
  EXPECT_EQ(combine_ranges(spec, batches).hi, std::vector<float>{18});
  spec.batches = BatchStatistic::kEma;
  EXPECT_EQ(combine_ranges(spec, batches).hi, std::vector<float>{static_cast<float>((12 * 0.9 + 18 * 0.1) * 0.9 + 24 * 0.1)});
  spec.momentum = 1;
  EXPECT_EQ(combine_ranges(spec, batches).hi, std::vector<float>{24});
}

}  // namespace
}  // namespace quanvas::quant::test
