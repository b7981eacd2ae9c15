// The straight-through gradient against an independent scalar formula and against finite differences of the
// functions that it is the gradient of.
#include <gtest/gtest.h>

#include <limits>

#include "core/quant/grid.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

class Backward : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Layouts, Backward, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Backward, EqualsTheScalarFormula) {
  const std::int64_t n = size_of(GetParam().shape);
  const std::vector<float> x = sample(n), dy = sample(n, 4);
  auto params = find_params(GetParam().spec, GetParam().shape, x.data(), 0);
  ASSERT_TRUE(params);
  for (float& s : params->scale) s *= 0.6f;  // so that something is clipped
  for (const bool pass_clipped : {false, true}) {
    std::vector<float> dx(x.size()), ds(params->scale.size(), 1.0f), dx_only(x.size());
    fake_quantize_backward(*params, params->layout, x.data(), dy.data(), dx.data(), ds.data(), pass_clipped);
    fake_quantize_backward(*params, params->layout, x.data(), dy.data(), dx_only.data(), nullptr, pass_clipped);
    EXPECT_TRUE(same_bits(dx, dx_only));
    std::vector<double> sums(ds.size()), sizes(ds.size());
    for (std::size_t e = 0; e < x.size(); ++e) {
      const std::size_t p = parameter_of(params->layout, static_cast<std::int64_t>(e));
      const Scalar r(*params, p);
      ASSERT_EQ(dx[e], r.inside(x[e]) || pass_clipped ? dy[e] : 0.0f) << e;
      const double v = x[e] / r.s;
      const double term = r.inside(x[e]) ? std::nearbyint(v) - v : (v < 0 ? r.lo - r.z : r.hi - r.z);
      sums[p] += dy[e] * term;
      sizes[p] += std::fabs(dy[e] * term);
    }
    for (std::size_t p = 0; p < ds.size(); ++p) EXPECT_NEAR(ds[p], 1 + sums[p], 1e-6 + 1e-6 * sizes[p]) << p;
  }
}

TEST_P(Backward, InPlaceOfTheGradient) {
  const std::int64_t n = size_of(GetParam().shape);
  const std::vector<float> x = sample(n);
  std::vector<float> dy = sample(n, 4), dx(x.size());
  auto params = find_params(GetParam().spec, GetParam().shape, x.data(), 0);
  ASSERT_TRUE(params);
  for (float& s : params->scale) s *= 0.6f;
  std::vector<float> ds(params->scale.size()), again(params->scale.size());
  fake_quantize_backward(*params, params->layout, x.data(), dy.data(), dx.data(), ds.data(), false);
  fake_quantize_backward(*params, params->layout, x.data(), dy.data(), dy.data(), again.data(), false);
  EXPECT_TRUE(same_bits(dy, dx));
  EXPECT_TRUE(same_bits(ds, again));
}

// With the rounding taken as a constant offset (straight through), y = s (clamp(x / s) + offset).
double surrogate(double x, double s, double offset, double lo, double hi) {
  const double v = x / s;
  return v + offset < lo - 0.5 ? s * lo : v + offset > hi + 0.5 ? s * hi : s * (v + offset);
}

TEST(Gradient, EqualsFiniteDifferences) {
  const QuantSpec spec = narrow(spec_of(4));
  const double s = 0.25, step = 1e-6;
  QuantParams params = params_from_range(spec, *make_layout(spec, {1}, 0), {0}, {7 * 0.25f});
  ASSERT_EQ(params.scale[0], 0.25f);
  for (const float x : {0.05f, -0.3f, 1.1f, 1.7f, -1.6f, 2.5f, -3.0f, 0.0f}) {
    const double v = x / s;
    const bool inside = std::fabs(std::nearbyint(v)) <= 7;
    const double offset = inside ? std::nearbyint(v) - v : 0;
    const auto y = [&](double at, double scale) { return surrogate(at, scale, offset, -7, 7); };
    const double by_x = (y(x + step, s) - y(x - step, s)) / (2 * step);
    const double by_s = (y(x, s + step) - y(x, s - step)) / (2 * step);
    const float one = 1;
    float dx = 0, ds = 0;
    fake_quantize_backward(params, params.layout, &x, &one, &dx, &ds, false);
    EXPECT_NEAR(dx, by_x, 1e-5) << x;
    EXPECT_NEAR(ds, by_s, 1e-5) << x;
  }
}

TEST(Gradient, TheLargestWeightKeepsItsGradient) {
  // absmax / (absmax / 7) may round to just above 7; it still rounds to code 7.
  std::mt19937 random(2);
  std::uniform_real_distribution<float> uniform(0.1f, 10.0f);
  for (int i = 0; i < 1000; ++i) {
    const float x = uniform(random), one = 1;
    const auto params = find_params(narrow(spec_of(4)), {1}, &x, 0);
    float dx = 0;
    fake_quantize_backward(*params, params->layout, &x, &one, &dx, nullptr, false);
    EXPECT_EQ(dx, 1.0f);
  }
}

// Formats of every kind of special value, with values beyond the largest and no numbers among them.
std::vector<QuantSpec> minifloats() {
  std::vector<QuantSpec> all;
  for (const auto& [exponent, mantissa] : {std::pair{4, 3}, {5, 2}, {2, 1}, {3, 2}, {5, 0}})
    for (const FloatSpecials specials : {FloatSpecials::kNone, FloatSpecials::kNan, FloatSpecials::kIeee, FloatSpecials::kFnuz})
      for (const bool saturate : {true, false})
        for (const bool is_signed : {true, false}) {
          QuantSpec s;
          s.format = "float";
          s.exponent_bits = exponent;
          s.mantissa_bits = mantissa;
          s.specials = specials;
          s.saturate = saturate;
          s.is_signed = is_signed;
          if (check(s).empty()) all.push_back(s);
        }
  return all;
}

TEST(Minifloats, CodesValuesAndGradientsEqualThoseOfSingleElements) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> x = sample(3000), dy = sample(3000, 4);
  for (const float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e30f, -1e30f, kInf, -kInf}) x.push_back(v);
  dy.resize(x.size(), 0.5f);
  const auto n = static_cast<std::int64_t>(x.size());
  ASSERT_GT(minifloats().size(), 30u);
  for (const QuantSpec& spec : minifloats())
    for (const float threshold : {4.0f, 100.0f})
      for (const bool with_nan : {false, true}) {
        const QuantParams params = params_from_range(spec, *make_layout(spec, {n}, 0), {0}, {threshold});
        const Grid grid = grid_of(spec);
        const float s = params.scale[0];
        x[7] = with_nan ? kNan : 1.0f;
        std::vector<std::int32_t> codes(x.size());
        std::vector<float> decoded(x.size()), dx(x.size());
        quantize_codes(params, params.layout, x.data(), codes.data());
        dequantize_codes(params, params.layout, codes.data(), decoded.data());
        float ds = 0;
        fake_quantize_backward(params, params.layout, x.data(), dy.data(), dx.data(), &ds, false);
        double sum = 0, size = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const volatile float v = x[i] / s;
          const float u = nearest_float(grid, v, 0), value = float_value(grid, codes[i]) * s;
          ASSERT_EQ(codes[i], float_code(grid, u)) << x[i];
          ASSERT_TRUE(decoded[i] == value || (std::isnan(decoded[i]) && std::isnan(value))) << x[i];
          const bool passes = (spec.is_signed || !(v < 0)) && !(std::fabs(v) > grid.largest);
          ASSERT_EQ(dx[i], passes ? dy[i] : 0.0f) << x[i];
          const double term = static_cast<double>(u) - (passes && !std::isnan(x[i]) ? static_cast<double>(v) : 0.0);
          sum += static_cast<double>(dy[i]) * term;
          size += std::fabs(static_cast<double>(dy[i]) * term);
        }
        EXPECT_TRUE(std::isfinite(size) ? std::fabs(ds - sum) <= 1e-6 * size : !std::isfinite(ds)) << ds << " " << sum;
      }
}

}  // namespace
}  // namespace quanvas::quant::test
