#include "core/algorithms/magr.h"

#include <algorithm>

#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

double largest(const float* w, std::int64_t n) {
  float most = 0;
  for (std::int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(w[i]));
  return static_cast<double>(most);
}

// t |y|_inf + |y - x|^2 / 2
double proximal_value(const Floats& x, const Floats& y, double t) {
  return squared_distance(x, y) / 2 + t * largest(y.data(), static_cast<std::int64_t>(y.size()));
}

TEST(Magr, ProximalMapIsOptimal) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (const double t : {0.0, 0.01, 0.5, 3.0, 1000.0})
    for (const std::size_t n : {1u, 2u, 17u, 200u}) {
      Floats x(n);
      for (float& v : x) v = normal(random);
      if (n > 2) x[1] = x[0], x[2] = 0;
      Floats y = x;
      prox_infinity(static_cast<std::int64_t>(n), y.data(), t);
      const double value = proximal_value(x, y, t);
      double cut = 0;
      for (std::size_t i = 0; i < n; ++i) cut += std::fabs(static_cast<double>(x[i]) - static_cast<double>(y[i]));
      EXPECT_LE(cut, t * (1 + 1e-5) + 1e-6);
      if (t == 0) {
        EXPECT_EQ(x, y);
      }
      for (int k = 0; k < 300; ++k) {
        Floats other = y;
        for (float& v : other) v += 0.1f / static_cast<float>(1 + k) * normal(random);
        EXPECT_GE(proximal_value(x, other, t), value - 1e-6 * (1 + value));
      }
      for (const float scale : {0.0f, 0.5f, 0.99f, 1.01f}) {
        Floats other = y;
        for (float& v : other) v *= scale;
        EXPECT_GE(proximal_value(x, other, t), value - 1e-6 * (1 + value));
      }
    }
}

TEST(Magr, LowersItsObjectiveInEachStep) {
  const Problem p = make_problem(51, 20, 60, 300, 0.9);
  const Gram gram = gram_of(p);
  for (const double alpha : {0.001, 0.01, 0.1}) {
    double last = 1e300, most = 1e300;
    for (const int steps : {0, 1, 2, 3, 5, 10, 20, 50}) {
      Floats w = p.w;
      const auto report = magr(p.m, p.n, w.data(), gram, {alpha, steps, {}});
      ASSERT_TRUE(report) << report.error().text();
      if (steps > 0) {
        EXPECT_LE(report->objective_after, report->objective_before * (1 + 1e-6));
        EXPECT_LE(report->objective_after, last * (1 + 1e-5));
        last = report->objective_after;
      }
      EXPECT_LE(report->largest_after, report->largest_before);
      most = report->largest_after;
      for (std::int64_t r = 0; r < p.m; ++r) EXPECT_LE(largest(w.data() + r * p.n, p.n), largest(p.w.data() + r * p.n, p.n) * (1 + 1e-6));
    }
    EXPECT_LT(most, 1.0);
  }
}

TEST(Magr, WithoutAlphaOrStepsLeavesTheWeights) {
  const Problem p = make_problem(52, 8, 30, 100, 0.8);
  const Gram gram = gram_of(p);
  for (const MagrOptions& options : {MagrOptions{0, 20, {}}, MagrOptions{0.01, 0, {}}}) {
    Floats w = p.w;
    ASSERT_TRUE(magr(p.m, p.n, w.data(), gram, options));
    EXPECT_EQ(w, p.w);
  }
  Floats small = p.w;
  ASSERT_TRUE(magr(p.m, p.n, small.data(), gram, {1e-9, 20, {}}));
  EXPECT_LT(squared_distance(small, p.w), 1e-12);
  EXPECT_FALSE(magr(p.m, p.n, small.data(), gram, {-1, 20, {}}));
}

TEST(Magr, RowsAreIndependentAndBitsDoNotDependOnThreads) {
  const Problem p = make_problem(53, 600, 40, 200, 0.9);
  const Gram gram = gram_of(p);
  Floats all = p.w;
  ASSERT_TRUE(magr(p.m, p.n, all.data(), gram));
  for (const std::int64_t r : {0, 255, 256, 599}) {
    Floats one(p.w.begin() + r * p.n, p.w.begin() + (r + 1) * p.n);
    ASSERT_TRUE(magr(1, p.n, one.data(), gram));
    for (std::int64_t i = 0; i < p.n; ++i) EXPECT_NEAR(one[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(r * p.n + i)], 1e-6);
  }
  expect_same_for_all_threads([&] {
    Floats w = p.w;
    EXPECT_TRUE(magr(p.m, p.n, w.data(), gram));
    return w;
  });
}

}  // namespace
}  // namespace quanvas::algorithms::test
