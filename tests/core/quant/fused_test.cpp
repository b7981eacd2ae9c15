// Finding, quantizing and measuring in one pass against the three one after the other, and against the plain scalar
// reference.
#include <gtest/gtest.h>

#include <limits>

#include "core/quant/affine.h"
#include "core/quant/fused.h"
#include "core/quant/grid.h"
#include "core/quant/kernels.h"
#include "core/quant/order.h"
#include "core/quant/scale_rule.h"
#include "core/quant/spans.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

QuantSpec mx(QuantSpec s, ExponentRounding rounding = ExponentRounding::kFloor) {
  s.format = "float";
  s.exponent_bits = 2;
  s.mantissa_bits = 1;
  s.specials = FloatSpecials::kNone;
  s.scale = ScaleType::kPowerOfTwo;
  s.exponent_rounding = rounding;
  return s;
}
QuantSpec fp8(QuantSpec s) {
  s.format = "float";
  return s;
}
QuantSpec with(QuantSpec s, Statistic statistic) {
  s.statistic = statistic;
  return s;
}

// The layouts of every kernel path, and the formats, scales and statistics that take a path of their own.
std::vector<Case> fused_cases() {
  constexpr auto kChannel = Granularity::kChannel;
  std::vector<Case> all = cases();
  QuantSpec rows = spec_of(8, Granularity::kRow, -1), rounding = spec_of(4, kChannel), half = group(4, 1, 32);
  rows.axis.reset();
  rounding.rounding = Rounding::kHalfAway;
  half.scale = ScaleType::kFloat16;
  QuantSpec two_levels = mx(group(4, 1, 16)), constant = spec_of(8), inside = asym(spec_of(8, kChannel)), clipped = spec_of(8);
  two_levels.scale = ScaleType::kFloat8;
  constant.source = ScaleSource::kConstant;
  constant.scale_value = 0.125;
  inside.zero_point_inside = true;
  clipped.clip_min = -1;
  clipped.clip_max = 1.5;
  QuantSpec float_zero = asym(group(4, 1, 16)), fnuz = fp8(spec_of(8, kChannel)), open = fnuz;
  float_zero.zero_point = ZeroPointType::kFloat;
  fnuz.specials = FloatSpecials::kFnuz;
  open.saturate = false;
  for (const Case& c : std::vector<Case>{
           {"mx", {17, 96}, mx(group(4, 1, 32))},
           {"mx_next_ragged", {9, 70}, mx(group(4, 1, 32), ExponentRounding::kNext)},
           {"mx_ceil", {9, 64}, mx(group(4, 1, 32), ExponentRounding::kCeil)},
           {"mx_even_strided", {70, 9}, mx(group(4, 0, 32), ExponentRounding::kEven)},
           {"int4_next_po2", {9, 64}, [] {
              QuantSpec s = po2(group(4, 1, 32));
              s.exponent_rounding = ExponentRounding::kNext;
              return s;
            }()},
           {"fp8_channels", {5, 2100}, fp8(spec_of(8, kChannel))},
           {"fp8_unsigned", {5, 300}, unsigned_(fp8(spec_of(8, kChannel)))},
           {"fp8_fnuz", {5, 300}, fnuz},
           {"fp8_open", {5, 300}, open},
           {"rows", {6, 7, 50}, rows},
           {"groups_6", {30, 30}, group(4, 1, 6)},
           {"groups_128_large", {40, 4096}, group(4, 1, 128)},
           {"groups_256", {4, 1024}, asym(group(4, 1, 256))},
           {"channel_conv", {70, 5, 3, 3}, narrow(spec_of(8, kChannel))},
           {"unsigned_minmax", {33, 65}, with(unsigned_(spec_of(8, kChannel)), Statistic::kMinMax)},
           {"float16_scales", {9, 64}, half},
           {"two_level_scales", {9, 64}, two_levels},
           {"float_zero_point", {9, 64}, float_zero},
           {"rounding_of_its_own", {9, 64}, rounding},
           {"zero_point_inside", {9, 64}, inside},
           {"constant", {9, 64}, constant},
           {"clipped", {9, 64}, clipped},
           {"percentile", {40000}, with(spec_of(8), Statistic::kPercentile)},
           {"percentile_inside", {40000}, [] {
              QuantSpec s = with(spec_of(8), Statistic::kPercentile);
              s.percentile = 99.9;
              return s;
            }()},
           {"mse_channels", {9, 2100}, with(spec_of(4, kChannel), Statistic::kMse)},
           {"past_the_caches", {1030, 4096}, narrow(spec_of(8, kChannel))},
           {"groups_past_the_caches", {1030, 4096}, mx(group(4, 1, 32))},
       })
    all.push_back(c);
  return all;
}

struct Fused {
  QuantParams params;
  std::vector<float> y;
  SiteFacts facts;
};

Fused separate(const Case& c, const std::vector<float>& x) {
  Fused f;
  f.params = *find_params(c.spec, c.shape, x.data(), 0);
  f.y.resize(x.size());
  fake_quantize(f.params, f.params.layout, x.data(), f.y.data());
  f.facts = measure(f.params, f.params.layout, x.data());
  return f;
}

bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }
void expect_same(const SiteFacts& a, const SiteFacts& b) {
  EXPECT_TRUE(same_number(a.error.mse, b.error.mse));
  EXPECT_TRUE(same_number(a.error.sqnr_db, b.error.sqnr_db));
  EXPECT_TRUE(same_number(a.error.cosine, b.error.cosine));
  EXPECT_EQ(a.error.max_abs, b.error.max_abs);
  EXPECT_EQ(a.error.elements, b.error.elements);
  EXPECT_EQ(a.clipped_share, b.clipped_share);
  EXPECT_EQ(a.codes_used, b.codes_used);
  EXPECT_EQ(a.codes_total, b.codes_total);
  EXPECT_EQ(a.bytes_quantized, b.bytes_quantized);
  EXPECT_EQ(a.scale_min, b.scale_min);
  EXPECT_EQ(a.scale_max, b.scale_max);
  EXPECT_EQ(a.zero_point_max, b.zero_point_max);
}

class FusedPass : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Specs, FusedPass, testing::ValuesIn(fused_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(FusedPass, EqualsFindQuantizeMeasure) {
  const Case& c = GetParam();
  const std::vector<float> x = sample(size_of(c.shape));
  const Fused expected = separate(c, x);
  for (const int threads : {1, 2, 7}) {
    set_kernel_threads(threads);
    for (const bool write : {true, false})
      for (const bool look : {true, false}) {
        std::vector<float> y(x.size());
        SiteFacts facts;
        facts.codes_used = -1;
        const auto params =
            find_and_quantize(c.spec, c.shape, x.data(), 0, write ? y.data() : nullptr, look ? &facts : nullptr);
        ASSERT_TRUE(params);
        EXPECT_TRUE(same_bits(params->scale, expected.params.scale)) << threads;
        EXPECT_TRUE(same_bits(params->zero_point, expected.params.zero_point)) << threads;
        EXPECT_EQ(params->spec, expected.params.spec);
        EXPECT_EQ(params->lo, expected.params.lo);
        EXPECT_EQ(params->hi, expected.params.hi);
        if (write) {
          EXPECT_TRUE(same_bits(y, expected.y)) << threads;
        }
        if (look) expect_same(facts, expected.facts);
      }
    std::vector<float> in_place = x;
    ASSERT_TRUE(find_and_quantize(c.spec, c.shape, in_place.data(), 0, in_place.data(), nullptr));
    EXPECT_TRUE(same_bits(in_place, expected.y)) << "in place";
  }
  set_kernel_threads(0);
}

TEST_P(FusedPass, EachInstructionSetGivesTheSame) {
  const Case& c = GetParam();
  const std::vector<float> x = sample(size_of(c.shape));
  const Fused best = separate(c, x);
  for (const auto* set : available_kernels()) {
    use_kernels(set);
    const Fused expected = separate(c, x);
    std::vector<float> y(x.size());
    SiteFacts facts;
    const auto params = find_and_quantize(c.spec, c.shape, x.data(), 0, y.data(), &facts);
    use_kernels(nullptr);
    ASSERT_TRUE(params);
    EXPECT_TRUE(same_bits(params->scale, expected.params.scale)) << set->name;
    EXPECT_TRUE(same_bits(y, expected.y)) << set->name;
    EXPECT_TRUE(same_bits(y, best.y)) << set->name;
    expect_same(facts, expected.facts);
  }
}

// Scales from a plain loop over the elements and the one place of the rule; values from the scalar formula.
TEST_P(FusedPass, EqualsTheScalarReference) {
  const Case& c = GetParam();
  if ((c.spec.statistic != Statistic::kAbsMax && c.spec.statistic != Statistic::kMinMax) || c.spec.clip_min ||
      c.spec.source == ScaleSource::kConstant || c.spec.scale == ScaleType::kFloat8)
    GTEST_SKIP() << "not from the extremes";
  const std::vector<float> x = sample(size_of(c.shape));
  std::vector<float> y(x.size());
  const auto params = find_and_quantize(c.spec, c.shape, x.data(), 0, y.data(), nullptr);
  ASSERT_TRUE(params);
  std::vector<float> least(params->scale.size(), std::numeric_limits<float>::infinity()), most(least.size(), -least[0]);
  for (std::size_t e = 0; e < x.size(); ++e) {
    const std::size_t p = parameter_of(params->layout, static_cast<std::int64_t>(e));
    least[p] = std::min(least[p], x[e]);
    most[p] = std::max(most[p], x[e]);
  }
  const Grid grid = grid_of(c.spec);
  for (std::size_t p = 0; p < least.size() && !x.empty(); ++p) {
    const Affine a = affine(c.spec, grid, extreme_range(c.spec, least[p], most[p]));
    ASSERT_EQ(params->scale[p], a.scale) << p;
    if (!params->zero_point.empty()) {
      ASSERT_EQ(params->zero_point[p], a.zero) << p;
    }
  }
  for (std::size_t e = 0; e < x.size(); ++e) {
    const std::size_t p = parameter_of(params->layout, static_cast<std::int64_t>(e));
    if (c.spec.format == "float") {
      const volatile float v = x[e] / params->scale[p];
      ASSERT_EQ(y[e], nearest_float(grid, v, 0) * params->scale[p]) << e;
    } else if (c.spec.rounding == Rounding::kHalfEven && !c.spec.zero_point_inside &&
               c.spec.zero_point != ZeroPointType::kFloat) {
      const Scalar r(*params, p);
      ASSERT_EQ(y[e], static_cast<float>(std::min(std::max(r.unclamped(x[e]), r.lo), r.hi) - r.z) * r.s) << e;
    }
  }
}

TEST_P(FusedPass, RefusesWhatIsNotFiniteWithTheSameSentence) {
  const Case& c = GetParam();
  if (size_of(c.shape) == 0 || c.spec.source == ScaleSource::kConstant) GTEST_SKIP() << "nothing is looked at";
  const std::vector<float> clean = sample(size_of(c.shape));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()})
    for (const std::size_t at : {std::size_t{0}, clean.size() / 2, clean.size() - 1}) {
      std::vector<float> x = clean, y(x.size());
      x[at] = bad;
      const auto alone = find_params(c.spec, c.shape, x.data(), 0);
      SiteFacts facts;
      const auto fused = find_and_quantize(c.spec, c.shape, x.data(), 0, y.data(), &facts);
      ASSERT_FALSE(alone);
      ASSERT_FALSE(fused);
      EXPECT_EQ(fused.error().text(), alone.error().text());
      // In place, too, where others are overwritten by then.
      const auto in_place = find_and_quantize(c.spec, c.shape, x.data(), 0, x.data(), nullptr);
      ASSERT_FALSE(in_place);
      EXPECT_EQ(in_place.error().text(), alone.error().text());
    }
}

TEST(FusedErrors, AreThoseOfFindParams) {
  const std::vector<float> x(12, 1.0f);
  std::vector<float> y(12);
  QuantSpec bias = spec_of(32), axis = spec_of(8, Granularity::kChannel, 5), size = group(4, 1, 0);
  bias.scale_from_accumulator = true;
  for (const QuantSpec& spec : {bias, axis, size}) {
    const auto fused = find_and_quantize(spec, {3, 4}, x.data(), 0, y.data(), nullptr);
    const auto alone = find_params(spec, {3, 4}, x.data(), 0);
    ASSERT_FALSE(fused);
    ASSERT_FALSE(alone);
    EXPECT_EQ(fused.error().text(), alone.error().text());
  }
}

// Magnitudes at and around every power of two, zero and subnormal numbers included.
TEST(Scales, ManyAtOnceAreThoseOfTheRule) {
  std::vector<std::int32_t> bits = {0, 1, 2, 0x007fffff};
  std::mt19937 random(4);
  for (std::int32_t e = 1; e < 255; ++e)
    for (const std::int32_t m : {0, 1, 2, 0x400000, 0x5fffff, 0x600000, 0x600001, 0x7fffff}) bits.push_back(e << 23 | m);
  for (int i = 0; i < 2000; ++i) bits.push_back(static_cast<std::int32_t>(random() % 0x7f800000u));
  const std::vector<std::int32_t> normal(bits.begin() + 4, bits.end());
  for (QuantSpec spec : {spec_of(1), spec_of(4), narrow(spec_of(8)), unsigned_(spec_of(8)), spec_of(16), mx(spec_of(8)),
                         fp8(spec_of(8)), unsigned_(fp8(spec_of(8)))})
    for (const ScaleType scale : {ScaleType::kFloat32, ScaleType::kFloat16, ScaleType::kPowerOfTwo})
      for (const ExponentRounding rounding :
           {ExponentRounding::kCeil, ExponentRounding::kFloor, ExponentRounding::kRound, ExponentRounding::kFit,
            ExponentRounding::kEven, ExponentRounding::kNext})
        for (const auto& magnitudes : {bits, normal}) {
          spec.scale = scale;
          spec.exponent_rounding = rounding;
          const Grid grid = grid_of(spec);
          const ScaleRule rule(spec, grid);
          ASSERT_TRUE(rule.absolute());
          std::vector<float> scales(magnitudes.size());
          rule.from_magnitudes(magnitudes.data(), static_cast<std::int64_t>(magnitudes.size()), scales.data());
          for (std::size_t i = 0; i < magnitudes.size(); ++i) {
            const float t = from_order_key(magnitudes[i]);
            ASSERT_EQ(scales[i], affine(spec, grid, extreme_range(spec, -t, t)).scale) << t;
          }
        }
}

TEST(FindKernels, AllInstructionSetsGiveTheSame) {
  for (const std::int64_t length : {1, 2, 3, 6, 16, 31, 32, 96, 128, 250, 256, 300}) {
    const std::int64_t rows = 150, last = std::max<std::int64_t>(1, length - 2);
    const std::vector<float> x = sample(rows * length);
    Rows t;
    t.rows = rows;
    t.length = length;
    for (const std::int64_t end : {length, last})
      for (const auto* set : available_kernels()) {
        t.last = end;
        std::vector<std::int32_t> least(rows), most(rows), magnitude(rows);
        set->range(t, x.data(), least.data(), most.data());
        set->absmax(t, x.data(), magnitude.data());
        for (std::int64_t r = 0; r < rows; ++r) {
          const auto begin = x.begin() + r * length, stop = begin + (r + 1 == rows ? end : length);
          std::int32_t lo = INT32_MAX, hi = INT32_MIN, abs = 0;
          for (auto v = begin; v != stop; ++v) {
            std::int32_t bits;
            std::memcpy(&bits, &*v, sizeof bits);
            lo = std::min(lo, order_key(bits));
            hi = std::max(hi, order_key(bits));
            abs = std::max(abs, bits & 0x7fffffff);
          }
          const auto i = static_cast<std::size_t>(r);
          ASSERT_EQ(least[i], lo) << set->name << " " << length;
          ASSERT_EQ(most[i], hi) << set->name << " " << length;
          ASSERT_EQ(magnitude[i], abs) << set->name << " " << length;
        }
      }
  }
}

TEST(FindKernels, StreamedCopiesAreCopies) {
  const std::vector<float> x = sample(5000);
  for (const auto* set : available_kernels())
    for (const std::size_t from : {0u, 1u, 5u, 16u})
      for (const std::size_t to : {0u, 3u, 8u})
        for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 400u, 1031u}) {
          std::vector<float> y(2000, -7.0f), expected = y;
          set->stream(x.data() + from, y.data() + to, static_cast<std::int64_t>(n), x.data() + 100, 300);
          stream_fence();
          std::copy_n(x.begin() + static_cast<std::ptrdiff_t>(from), n, expected.begin() + static_cast<std::ptrdiff_t>(to));
          EXPECT_TRUE(same_bits(y, expected)) << set->name;
        }
}

// Data that a sample shows, and data that it does not: sorted, constant, two values, one outlier.
TEST(OrderStatistics, EqualSorting) {
  std::vector<std::vector<float>> all = {sample(100'003), sample(1025), sample(1500), std::vector<float>(30'000, 2.5f)};
  all.push_back(sample(70'000));
  std::sort(all.back().begin(), all.back().end());
  all.emplace_back(50'000, -1.0f);
  for (std::size_t i = 0; i < 50'000; i += 3) all.back()[i] = 1;
  all.emplace_back(50'000, 0.0f);
  all.back()[777] = 9;
  for (const std::vector<float>& x : all)
    for (const bool absolute : {false, true}) {
      const auto n = static_cast<std::int64_t>(x.size());
      std::vector<float> sorted = x;
      if (absolute)
        for (float& v : sorted) v = std::fabs(v);
      std::sort(sorted.begin(), sorted.end());
      const std::vector<std::int64_t> ranks = {1, 2, n / 100, n / 2, n - n / 50, n - n / 10000, n - 1, n};
      for (const int threads : {1, 2, 7}) {
        const std::vector<float> found = order_statistics(x.data(), n, absolute, ranks, threads);
        for (std::size_t i = 0; i < ranks.size(); ++i)
          EXPECT_EQ(found[i], sorted[static_cast<std::size_t>(std::max<std::int64_t>(1, ranks[i]) - 1)]) << ranks[i];
      }
    }
}

TEST(OrderStatistics, HighMagnitudesComeWithWhatIsNotFinite) {
  std::vector<float> x = sample(100'003), sorted = x;
  for (float& v : sorted) v = std::fabs(v);
  std::sort(sorted.begin(), sorted.end());
  const auto n = static_cast<std::int64_t>(x.size());
  for (const std::int64_t rank : {n - 1, n - 10, n - 50})
    for (const int threads : {1, 7}) {
      const auto found = high_magnitude(x.data(), n, rank, threads);
      ASSERT_TRUE(found) << rank;
      EXPECT_TRUE(found->finite);
      EXPECT_EQ(found->value, sorted[static_cast<std::size_t>(rank - 1)]);
    }
  EXPECT_FALSE(high_magnitude(x.data(), n, n / 2, 1)) << "larger ones are not all seen";
  x[70'000] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(high_magnitude(x.data(), n, n - 10, 1)->finite);
  x[70'000] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(high_magnitude(x.data(), n, n - 10, 2)->finite);
}

}  // namespace
}  // namespace quanvas::quant::test
