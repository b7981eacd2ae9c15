// The straight-through gradient against an independent scalar formula and against finite differences of the
// functions that it is the gradient of.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace quanvas::quant::test
