// Gradients of zero point and width: against scalar formulas, and against finite differences where x~ is smooth in them.
#include "core/quant/gradient.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/core/quant/reference.h"

namespace quanvas::quant {
namespace {

using test::cases;
using test::parameter_of;
using test::sample;
using test::Scalar;
using test::size_of;

struct Problem {
  QuantParams params;
  std::vector<float> x, dy;
};

// Half the range that the values need, so that some are clipped.
Problem problem(const test::Case& c) {
  Problem p;
  const std::int64_t n = size_of(c.shape);
  p.x = sample(n, 4);
  p.dy = sample(n, 5);
  p.params = *find_params(c.spec, c.shape, p.x.data(), 0);
  for (float& s : p.params.scale) s *= 0.25f;
  return p;
}

TEST(Gradient, ZeroPointIsMinusTheScaleOutside) {
  for (const auto& c : cases()) {
    if (c.spec.zero_point == ZeroPointType::kNone) continue;
    const Problem p = problem(c);
    std::vector<double> want(p.params.scale.size());
    std::size_t clipped = 0;
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      const std::size_t k = parameter_of(p.params.layout, static_cast<std::int64_t>(i));
      if (Scalar(p.params, k).inside(p.x[i])) continue;
      want[k] -= static_cast<double>(p.dy[i]) * p.params.scale[k];
      ++clipped;
    }
    std::vector<float> got(p.params.scale.size(), 1.0f);
    zero_point_gradient(p.params, p.params.layout, p.x.data(), p.dy.data(), got.data());
    EXPECT_GT(clipped, 0u) << c.name;
    for (std::size_t k = 0; k < got.size(); ++k) EXPECT_NEAR(got[k] - 1, want[k], 1e-4 + 1e-5 * std::fabs(want[k])) << c.name;
  }
}

// x~ as a function of a real zero point and of real limits, the rounding held fixed as straight-through has it.
double value(const QuantParams& p, std::size_t k, float x, double z, double lo, double hi) {
  const double r = std::nearbyint(static_cast<double>(x / p.scale[k]));
  return (std::min(std::max(r + z, lo), hi) - z) * static_cast<double>(p.scale[k]);
}

TEST(Gradient, AgreesWithFiniteDifferences) {
  for (const auto& c : cases()) {
    if (c.spec.zero_point == ZeroPointType::kNone || size_of(c.shape) > 20000) continue;
    const Problem p = problem(c);
    const auto lo = [&](double b) { return c.spec.is_signed ? -std::exp2(b - 1) + (c.spec.narrow ? 1 : 0) : 0.0; };
    const auto hi = [&](double b) { return c.spec.is_signed ? std::exp2(b - 1) - 1 : std::exp2(b) - (c.spec.narrow ? 2 : 1); };
    constexpr double kStep = 1e-3;
    std::vector<double> zero(p.params.scale.size());
    double width = 0;
    const double b = c.spec.bits;
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      const std::size_t k = parameter_of(p.params.layout, static_cast<std::int64_t>(i));
      const double z = p.params.zero_point[k], r = std::nearbyint(static_cast<double>(p.x[i] / p.params.scale[k])) + z;
      if (r == lo(b) || r == hi(b)) continue;  // on the edge one of the two sides counts as inside
      const double g = p.dy[i];
      zero[k] += g * (value(p.params, k, p.x[i], z + kStep, lo(b), hi(b)) - value(p.params, k, p.x[i], z - kStep, lo(b), hi(b))) / (2 * kStep);
      width += g * (value(p.params, k, p.x[i], z, lo(b + kStep), hi(b + kStep)) - value(p.params, k, p.x[i], z, lo(b - kStep), hi(b - kStep))) / (2 * kStep);
    }
    std::vector<float> got(p.params.scale.size());
    zero_point_gradient(p.params, p.params.layout, p.x.data(), p.dy.data(), got.data());
    for (std::size_t k = 0; k < got.size(); ++k) EXPECT_NEAR(got[k], zero[k], 1e-4 + 1e-4 * std::fabs(zero[k])) << c.name;
    EXPECT_NEAR(width_gradient(p.params, p.params.layout, p.x.data(), p.dy.data()), width, 1e-4 * (1 + std::fabs(width))) << c.name;
  }
}

TEST(Gradient, WidthOfSymmetricCodes) {
  for (const auto& c : cases()) {
    if (c.spec.zero_point != ZeroPointType::kNone || size_of(c.shape) == 0) continue;
    const Problem p = problem(c);
    double want = 0;
    const double slope = std::log(2.0) * (c.spec.is_signed ? std::exp2(c.spec.bits - 1) : std::exp2(c.spec.bits));
    for (std::size_t i = 0; i < p.x.size(); ++i) {
      const std::size_t k = parameter_of(p.params.layout, static_cast<std::int64_t>(i));
      const double q = Scalar(p.params, k).unclamped(p.x[i]);
      const double side = q > static_cast<double>(p.params.hi) ? 1 : q < static_cast<double>(p.params.lo) && c.spec.is_signed ? -1 : 0;
      want += side * slope * static_cast<double>(p.dy[i]) * p.params.scale[k];
    }
    const double got = width_gradient(p.params, p.params.layout, p.x.data(), p.dy.data());
    EXPECT_NEAR(got, want, 1e-6 * (1 + std::fabs(want))) << c.name;
  }
}

TEST(Gradient, ZeroPointInsideTheRounding) {
  QuantSpec spec = test::asym(test::spec_of(4));
  spec.zero_point = ZeroPointType::kFloat;
  spec.zero_point_inside = true;
  const std::vector<float> x = {-4, -0.2f, 0.1f, 0.4f, 5}, dy = {1, 2, 4, 8, 16};
  QuantParams p = *find_params(spec, {5}, x.data(), 0);
  p.scale[0] = 0.1f;
  p.zero_point[0] = 6.25f;  // q: -34, 4, 7, 10, 56
  float dz = 0;
  zero_point_gradient(p, p.layout, x.data(), dy.data(), &dz);
  EXPECT_FLOAT_EQ(dz, -0.1f * 17);
}

TEST(Gradient, LearnedWidths) {
  struct Row {
    double offset;
    int bits;
    double slope;
  };
  for (const Row& row : {Row{0, 2, 1}, {-0.0, 2, 1}, {0.4, 2, 1}, {-0.6, 3, -1}, {6, 8, 1}, {2.5, 4, 1}, {-30, 32, -1}, {90, 32, 1}}) {
    EXPECT_EQ(learned_bits(row.offset), row.bits) << row.offset;
    EXPECT_EQ(learned_bits_slope(row.offset), row.slope) << row.offset;
  }
  QuantParams p;
  p.spec = test::asym(test::spec_of(8));
  p.zero_point = {200};
  set_bits(p, 5);
  EXPECT_EQ(p.spec.bits, 5);
  EXPECT_EQ(p.hi, 31);
  EXPECT_EQ(p.zero_point[0], 31) << "inside the codes";
}

}  // namespace
}  // namespace quanvas::quant
