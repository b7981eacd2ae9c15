// The number formats: enumerated codes, properties that a format declares, counterexamples for those it does not,
// published figures, and specs drawn at random.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>

#include "core/quant/grid.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNotANumber = std::numeric_limits<float>::quiet_NaN();

QuantSpec minifloat(int exponent, int mantissa, FloatSpecials specials = FloatSpecials::kNone, bool is_signed = true) {
  QuantSpec s;
  s.format = "float";
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = specials;
  s.is_signed = is_signed;
  return s;
}
QuantSpec unscaled(QuantSpec s) {
  s.source = ScaleSource::kConstant;
  s.scale_value = 1;
  return s;
}

float fake(const QuantSpec& spec, float x) {
  const auto p = find_params(spec, {1}, &x, 0);
  EXPECT_TRUE(p) << p.error().text();
  float y = 0;
  fake_quantize(*p, p->layout, &x, &y);
  return y;
}
std::vector<float> fake(const QuantParams& p, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  fake_quantize(p, p.layout, x.data(), y.data());
  return y;
}

// --- minifloats by enumeration ---

struct FloatRow {
  const char* name;
  QuantSpec spec;
  double largest, smallest_normal, smallest;
};
class Minifloats : public testing::TestWithParam<FloatRow> {};
constexpr auto kNone = FloatSpecials::kNone, kNan = FloatSpecials::kNan, kIeee = FloatSpecials::kIeee,
               kFnuz = FloatSpecials::kFnuz;
// Table 1 and section 5 of the OCP specifications; FNUZ: Micikevicius et al. 2022.
INSTANTIATE_TEST_SUITE_P(
    Rows, Minifloats,
    testing::Values(FloatRow{"e4m3_ocp", minifloat(4, 3, kNan), 448, 0x1p-6, 0x1p-9},
                    FloatRow{"e5m2_ocp", minifloat(5, 2, kIeee), 57344, 0x1p-14, 0x1p-16},
                    FloatRow{"e3m2", minifloat(3, 2), 28, 0.25, 0.0625}, FloatRow{"e2m3", minifloat(2, 3), 7.5, 1, 0.125},
                    FloatRow{"e2m1", minifloat(2, 1), 6, 1, 0.5},
                    FloatRow{"e4m3_fnuz", minifloat(4, 3, kFnuz), 240, 0x1p-7, 0x1p-10},
                    FloatRow{"e5m2_fnuz", minifloat(5, 2, kFnuz), 57344, 0x1p-15, 0x1p-17},
                    FloatRow{"e4m3_plain", minifloat(4, 3), 480, 0x1p-6, 0x1p-9},
                    FloatRow{"e5m2_plain", minifloat(5, 2), 114688, 0x1p-14, 0x1p-16},
                    FloatRow{"e1m2", minifloat(1, 2), 3.5, 2, 0.5}, FloatRow{"e3m0", minifloat(3, 0), 16, 0.25, 0.25},
                    FloatRow{"e2m1_unsigned", minifloat(2, 1, kNone, false), 6, 1, 0.5},
                    FloatRow{"e8m0_unsigned", [] {
                               QuantSpec s = minifloat(5, 0, kNone, false);
                               s.exponent_bias = 15;
                               return s;
                             }(), 0x1p16, 0x1p-14, 0x1p-14}),
    [](const auto& info) { return std::string(info.param.name); });

std::vector<float> points_of(const QuantSpec& spec) {
  const Grid grid = grid_of(spec);
  std::vector<float> points;
  for (std::int32_t code = 0; code < 1 << code_bits(spec); ++code)
    if (const float v = float_value(grid, code); std::isfinite(v)) points.push_back(v);
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

TEST_P(Minifloats, HaveThePublishedRange) {
  const auto points = points_of(GetParam().spec);
  EXPECT_EQ(largest_float(GetParam().spec), GetParam().largest);
  EXPECT_EQ(points.back(), GetParam().largest);
  EXPECT_EQ(*std::upper_bound(points.begin(), points.end(), 0.0f), GetParam().smallest);
  EXPECT_EQ(std::ldexp(1.0, grid_of(GetParam().spec).lowest_exponent()), GetParam().smallest_normal);
}

TEST_P(Minifloats, EveryCodeDecodesToWhatEncodesToIt) {
  const Grid grid = grid_of(GetParam().spec);
  for (std::int32_t code = 0; code < 1 << code_bits(GetParam().spec); ++code) {
    const float v = float_value(grid, code);
    const bool other_nan = std::isnan(v) && float_code(grid, v) != code;  // IEEE has several patterns
    if (!other_nan) {
      EXPECT_EQ(float_code(grid, v), code) << v;
    }
    if (std::isfinite(v)) {
      EXPECT_EQ(fake(unscaled(GetParam().spec), v), v) << code;
    }
  }
}

// The grid point next to v, ties to the one with an even code (an even mantissa).
float nearest_by_search(const std::vector<float>& points, const Grid& grid, float v) {
  const auto above = std::lower_bound(points.begin(), points.end(), v);
  if (above == points.begin()) return points.front();
  if (above == points.end()) return points.back();
  const float lo = *(above - 1), hi = *above;
  const double below = static_cast<double>(v) - lo, over = static_cast<double>(hi) - v;
  if (below != over) return below < over ? lo : hi;
  // Without mantissa bits a tie is one and a half units: to two.
  if (grid.mantissa_bits == 0 && lo != 0 && hi != 0) return std::fabs(lo) > std::fabs(hi) ? lo : hi;
  return (float_code(grid, std::fabs(lo)) & 1) == 0 ? lo : hi;
}

TEST_P(Minifloats, RoundToTheNearestWithAllTies) {
  const QuantSpec spec = unscaled(GetParam().spec);
  const Grid grid = grid_of(spec);
  const auto points = points_of(spec);
  std::vector<float> x;
  for (std::size_t i = 0; i + 1 < points.size(); ++i)
    for (const float share : {0.25f, 0.5f, 0.75f}) {
      const float v = points[i] + (points[i + 1] - points[i]) * share;
      for (const float u : {v, std::nextafter(v, kInf), std::nextafter(v, -kInf)}) x.push_back(u);
    }
  for (const float far : {1e30f, 2 * points.back(), kInf}) x.insert(x.end(), {far, -far});
  const auto p = find_params(spec, {static_cast<std::int64_t>(x.size())}, x.data(), 0);
  ASSERT_TRUE(p);
  const auto y = fake(*p, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(y[i], nearest_by_search(points, grid, x[i])) << x[i];
    EXPECT_EQ(y[i], nearest_float(grid, x[i], 0)) << "the kernel differs from the plain form at " << x[i];
  }
}

TEST_P(Minifloats, AreMeasuredAsTheirCodesSay) {
  for (const auto granularity : {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup}) {
    QuantSpec spec = GetParam().spec;
    spec.granularity = granularity;
    spec.group_size = 8;
    const std::vector<float> x = sample(30 * 77, 6);
    for (const int axis : {0, 1}) {
      const auto p = find_params(spec, {30, 77}, x.data(), axis);
      ASSERT_TRUE(p);
      QuantParams half = *p;  // scales that clip
      for (float& s : half.scale) s /= 2;
      for (const QuantParams& q : {*p, half}) {
        const SiteFacts facts = measure(q, q.layout, x.data());
        std::vector<std::int32_t> codes(x.size());
        quantize_codes(q, q.layout, x.data(), codes.data());
        const auto y = fake(q, x);
        double dd = 0, clipped = 0;
        const double beyond = largest_float(spec) + std::ldexp(0.5, floor_log2(static_cast<float>(largest_float(spec))) - spec.mantissa_bits);
        for (std::size_t e = 0; e < x.size(); ++e) {
          dd += std::pow(static_cast<double>(x[e] - y[e]), 2);
          const double v = static_cast<double>(x[e] / q.scale[parameter_of(q.layout, static_cast<std::int64_t>(e))]);
          clipped += (!spec.is_signed && v < 0) || std::fabs(v) > beyond;
        }
        std::sort(codes.begin(), codes.end());
        EXPECT_EQ(facts.codes_used, static_cast<double>(std::unique(codes.begin(), codes.end()) - codes.begin()));
        EXPECT_NEAR(facts.error.mse, dd / static_cast<double>(x.size()), 1e-9 * dd);
        EXPECT_NEAR(facts.clipped_share, clipped / static_cast<double>(x.size()), 1e-12);
      }
    }
  }
}

TEST(MinifloatOverflow, FollowsTheRounding) {
  struct Row {
    QuantSpec spec;
    float x, y;
  };
  const auto open = [](QuantSpec s) {
    s.saturate = false;
    return unscaled(s);
  };
  const Row rows[] = {{unscaled(minifloat(4, 3, kNan)), 464, 448}, {unscaled(minifloat(4, 3, kNan)), 465, 448},
                      {unscaled(minifloat(4, 3, kNan)), kInf, 448}, {open(minifloat(4, 3, kNan)), 464, 448},
                      {open(minifloat(4, 3, kNan)), 465, kNotANumber},     {open(minifloat(5, 2, kIeee)), 61439, 57344},
                      {open(minifloat(5, 2, kIeee)), 61440, kInf},  {open(minifloat(5, 2, kIeee)), -1e9f, -kInf},
                      {open(minifloat(2, 1)), 100, 6},              {unscaled(minifloat(4, 3, kNan)), kNotANumber, kNotANumber},
                      {unscaled(minifloat(2, 1)), kNotANumber, 0}};
  for (const Row& row : rows) {
    const float y = fake(row.spec, row.x);
    EXPECT_TRUE(std::isnan(row.y) ? std::isnan(y) : y == row.y) << describe(row.spec) << ": " << row.x << " -> " << y;
  }
}

// --- properties ---

struct Property {
  const char* name;
  QuantSpec spec;
  bool to_nearest = true, idempotent = true, odd = true;
};
QuantSpec with(QuantSpec s, Rounding r) {
  s.rounding = r;
  return s;
}
QuantSpec format(const char* id) {
  QuantSpec s;
  s.format = id;
  return s;
}
class Properties : public testing::TestWithParam<Property> {};
INSTANTIATE_TEST_SUITE_P(
    Rows, Properties,
    testing::Values(Property{"int8", narrow(spec_of(8))}, Property{"int4_wide", spec_of(4), true, true, false},
                    Property{"int3_up", with(narrow(spec_of(3)), Rounding::kCeil), false, true, false},
                    Property{"int3_down", with(narrow(spec_of(3)), Rounding::kFloor), false, true, false},
                    Property{"int3_toward_zero", with(narrow(spec_of(3)), Rounding::kTowardZero), false},
                    Property{"int3_half_up", with(narrow(spec_of(3)), Rounding::kHalfUp), true, true, false},
                    Property{"int3_half_away", with(narrow(spec_of(3)), Rounding::kHalfAway)},
                    Property{"int3_dpu", with(narrow(spec_of(3)), Rounding::kDpu), true, true, false},
                    Property{"int3_stochastic", with(narrow(spec_of(3)), Rounding::kStochastic), false, true, false},
                    Property{"uint4", unsigned_(spec_of(4)), true, true, false},
                    Property{"e4m3", minifloat(4, 3, kNan)}, Property{"e2m1", minifloat(2, 1)},
                    Property{"e2m1_down", with(minifloat(2, 1), Rounding::kFloor), false, true, false},
                    Property{"ternary", format("ternary")},
                    Property{"binary", format("binary"), true, true, false}),  // 0 becomes +s
    [](const auto& info) { return std::string(info.param.name); });

QuantParams frozen(const QuantSpec& spec, const std::vector<float>& x) {
  return *find_params(spec, {static_cast<std::int64_t>(x.size())}, x.data(), 0);
}
std::vector<float> dense() {
  std::vector<float> x;
  for (int i = -4000; i <= 4000; ++i) x.push_back(static_cast<float>(i) / 1024);
  return x;
}

TEST_P(Properties, OnTheGridAndAsDeclared) {
  const auto x = dense();
  QuantSpec spec = GetParam().spec;
  if (spec.format == "ternary" || spec.format == "binary") spec.statistic = Statistic::kMean;
  const QuantParams p = frozen(spec, x);
  const auto grid = grid_points(p, 0);
  const auto y = fake(p, x);
  bool nearest = true, odd = true;
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(std::find(grid.begin(), grid.end(), static_cast<double>(y[i])) != grid.end()) << x[i] << " -> " << y[i];
    double least = 1e9;
    for (const double g : grid) least = std::min(least, std::fabs(g - x[i]));
    nearest &= std::fabs(static_cast<double>(y[i]) - x[i]) <= least * (1 + 1e-5) + 1e-7;
    odd &= y[i] == -y[x.size() - 1 - i];
  }
  EXPECT_EQ(nearest, GetParam().to_nearest);
  EXPECT_EQ(odd, GetParam().odd);
  EXPECT_EQ(same_bits(fake(p, y), y), GetParam().idempotent);
  // Monotone but for random rounding.
  const bool monotone = std::is_sorted(y.begin(), y.end());
  EXPECT_EQ(monotone, spec.rounding != Rounding::kStochastic);
}

TEST_P(Properties, ScaleWithPowersOfTwo) {
  const auto x = dense();
  QuantParams p = frozen(GetParam().spec, x);
  const auto y = fake(p, x);
  for (const int k : {-20, -3, 1, 17}) {
    QuantParams q = p;
    for (float& s : q.scale) s = std::ldexp(s, k);
    std::vector<float> moved = x;
    for (float& v : moved) v = std::ldexp(v, k);
    auto z = fake(q, moved);
    for (float& v : z) v = std::ldexp(v, -k);
    EXPECT_TRUE(same_bits(z, y)) << k;
  }
}

TEST_P(Properties, SameBitsForAnyNumberOfThreads) {
  std::vector<float> x = sample(600011);
  for (const auto granularity : {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup, Granularity::kRow}) {
    QuantSpec spec = GetParam().spec;
    spec.granularity = granularity;
    std::vector<std::vector<float>> found;
    for (const int threads : {1, 2, 7}) {
      set_kernel_threads(threads);
      const auto p = find_params(spec, {11, 600011 / 11}, x.data(), 1);
      ASSERT_TRUE(p) << p.error().text();
      std::vector<float> y(x.size());
      fake_quantize(*p, p->layout, x.data(), y.data());
      y.insert(y.end(), p->scale.begin(), p->scale.end());
      const SiteFacts f = measure(*p, p->layout, x.data());
      y.push_back(static_cast<float>(f.error.mse));
      y.push_back(static_cast<float>(f.codes_used));
      found.push_back(std::move(y));
    }
    EXPECT_TRUE(same_bits(found[0], found[1]) && same_bits(found[0], found[2])) << enum_text(granularity);
  }
  set_kernel_threads(0);
}

TEST(Roundings, TreatTiesAsNamed) {
  struct Row {
    Rounding mode;
    std::vector<double> of;  // of -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -1.2, 1.2
  };
  const Row rows[] = {{Rounding::kHalfEven, {-2, -2, 0, 0, 2, 2, -1, 1}},  {Rounding::kHalfUp, {-2, -1, 0, 1, 2, 3, -1, 1}},
                      {Rounding::kHalfAway, {-3, -2, -1, 1, 2, 3, -1, 1}}, {Rounding::kCeil, {-2, -1, 0, 1, 2, 3, -1, 2}},
                      {Rounding::kFloor, {-3, -2, -1, 0, 1, 2, -2, 1}},    {Rounding::kTowardZero, {-2, -1, 0, 0, 1, 2, -1, 1}},
                      {Rounding::kDpu, {-2, -1, 0, 0, 2, 2, -1, 1}}};
  const double x[] = {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -1.2, 1.2};
  for (const Row& row : rows)
    for (std::size_t i = 0; i < std::size(x); ++i)
      EXPECT_EQ(round_to_whole(row.mode, x[i], 0), row.of[i]) << enum_text(row.mode) << " of " << x[i];
}

TEST(Roundings, StochasticHasTheMeanOfTheValue) {
  QuantSpec spec = with(unscaled(spec_of(8)), Rounding::kStochastic);
  std::vector<float> x(200000, 3.3f);
  const QuantParams p = frozen(spec, x);
  auto y = fake(p, x);
  double sum = 0;
  for (const float v : y) {
    EXPECT_TRUE(v == 3 || v == 4);
    sum += v;
  }
  EXPECT_NEAR(sum / static_cast<double>(y.size()), 3.3, 0.004);  // four standard errors
  EXPECT_TRUE(same_bits(fake(p, x), y)) << "the same seed gives the same";
  spec.seed = 2;
  EXPECT_FALSE(same_bits(fake(frozen(spec, x), x), y));
}

// --- published figures: Gaussian SQNR of block formats, N(0, 1), blocks of 32 ---

TEST(GaussianSqnr, OfBlockFormats) {
  struct Row {
    const char* name;
    QuantSpec spec;
    double floor, ceil, even, fit;
  };
  const Row rows[] = {{"fp4", minifloat(2, 1), 18.79, 16.82, 19.03, 18.76},
                      {"fp8 e4m3", minifloat(4, 3, kNan), 30.65, 31.52, 31.18, 31.52},
                      {"fp6 e2m3", minifloat(2, 3), 30.94, 28.76, 30.99, 30.96},
                      {"fp6 e3m2", minifloat(3, 2), 25.36, 25.54, 25.54, 25.54}};
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(32 * 40000);
  for (float& v : x) v = normal(random);
  for (const Row& row : rows) {
    const std::pair<ExponentRounding, double> modes[] = {{ExponentRounding::kFloor, row.floor},
                                                         {ExponentRounding::kCeil, row.ceil},
                                                         {ExponentRounding::kEven, row.even},
                                                         {ExponentRounding::kFit, row.fit}};
    for (const auto& [mode, expected] : modes) {
      QuantSpec spec = row.spec;
      spec.granularity = Granularity::kGroup;
      spec.group_size = 32;
      spec.scale = ScaleType::kPowerOfTwo;
      spec.exponent_rounding = mode;
      const auto p = find_params(spec, {40000, 32}, x.data(), 1);
      ASSERT_TRUE(p);
      EXPECT_NEAR(measure(*p, p->layout, x.data()).error.sqnr_db, expected, 0.1) << row.name << ' ' << enum_text(mode);
      for (const float s : p->scale) {
        int exponent = 0;
        ASSERT_EQ(std::frexp(s, &exponent), 0.5f);
      }
    }
  }
}

TEST(GaussianSqnr, OfThresholds) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(200000);
  for (float& v : x) v = normal(random);
  const auto sqnr = [&](int bits, Statistic statistic, float* threshold = nullptr) {
    QuantSpec s = narrow(spec_of(bits));
    s.statistic = statistic;
    const QuantParams p = frozen(s, x);
    if (threshold) *threshold = p.scale[0] * static_cast<float>(p.hi);
    return measure(p, p.layout, x.data()).error.sqnr_db;
  };
  // Between the best threshold, 2.5, and the largest value, some 4.6.
  float kl = 0;
  EXPECT_GT(sqnr(4, Statistic::kKl, &kl), 17);
  EXPECT_TRUE(kl > 2.4f && kl < 3.5f) << kl;
  EXPECT_NEAR(sqnr(4, Statistic::kMse), 18.9, 0.2);
  EXPECT_GE(sqnr(4, Statistic::kKl), sqnr(4, Statistic::kAbsMax));
  EXPECT_GE(sqnr(8, Statistic::kMse), sqnr(8, Statistic::kAbsMax));
  // At 8 bits hardly anything is worth clipping: published are 4.60 of 4.66.
  const double with_kl = sqnr(8, Statistic::kKl, &kl);
  float extreme = 0;
  EXPECT_GE(with_kl, sqnr(8, Statistic::kAbsMax, &extreme));
  EXPECT_GT(kl, 0.94f * extreme);
}

TEST(Binary, MeanMagnitudeIsTheBestScale) {
  std::vector<float> x = sample(5000, 9);
  QuantSpec spec = format("binary");
  spec.statistic = Statistic::kMean;
  const QuantParams p = frozen(spec, x);
  const double best = measure(p, p.layout, x.data()).error.mse;
  for (const float factor : {0.9f, 0.99f, 1.01f, 1.1f}) {
    QuantParams other = p;
    other.scale[0] *= factor;
    EXPECT_GT(measure(other, other.layout, x.data()).error.mse, best) << factor;
  }
}

TEST(HalfQuadratic, NeverWorseInTheMeanThanItsStart) {
  for (const bool zero_point : {false, true}) {
    QuantSpec spec = group(4, 1, 32);
    if (zero_point) {
      spec = asym(spec);
      spec.zero_point = ZeroPointType::kFloat;
      spec.zero_point_inside = true;
    }
    const std::vector<float> x = sample(64 * 96, 4);
    const auto mean_error = [&](Statistic statistic) {
      spec.statistic = statistic;
      const auto p = find_params(spec, {64, 96}, x.data(), 1);
      const auto y = fake(*p, x);
      double sum = 0;
      for (std::size_t i = 0; i < x.size(); ++i) sum += std::fabs(static_cast<double>(x[i]) - y[i]);
      return sum;
    };
    EXPECT_LT(mean_error(Statistic::kHqo), mean_error(zero_point ? Statistic::kMinMax : Statistic::kAbsMax));
  }
}

TEST(TwoLevelScales, AreE4m3TimesOneFloat) {
  QuantSpec spec = minifloat(2, 1);
  spec.granularity = Granularity::kGroup;
  spec.group_size = 16;
  spec.scale = ScaleType::kFloat8;
  const std::vector<float> x = sample(64 * 64, 8);
  const auto p = find_params(spec, {64, 64}, x.data(), 1);
  ASSERT_TRUE(p);
  const Grid e4m3 = grid_of(minifloat(4, 3, kNan));
  const float tensor = *std::max_element(p->scale.begin(), p->scale.end()) / 448;
  for (const float s : p->scale) {
    const float unit = s / tensor;
    EXPECT_NEAR(nearest_float(e4m3, unit, 0), unit, 1e-6 * unit);
  }
  EXPECT_NEAR(measure(*p, p->layout, x.data()).bits_per_element, 4.5, 0.01);
}

}  // namespace
}  // namespace quanvas::quant::test
