// Descent on orthogonal matrices, and the order of channels in front of rotations in blocks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/algorithms/block_order.h"
#include "core/algorithms/cayley.h"
#include "core/algorithms/orthogonal.h"
#include "core/quant/params.h"

namespace quanvas::algorithms {
namespace {

using Doubles = std::vector<double>;
using Order = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

Doubles normal(std::int64_t count, std::uint64_t seed) {
  SeededRandom random(seed);
  Doubles out(at(count));
  for (double& v : out) v = random.normal();
  return out;
}
Doubles orthogonal(std::int64_t n, std::uint64_t seed) {
  auto q = random_orthogonal(n, seed);
  EXPECT_TRUE(q);
  return *q;
}
// op(a) b
Doubles product(std::int64_t n, const Doubles& a, const Doubles& b, bool ta = false, bool tb = false) {
  Doubles c(at(n * n), 0.0);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t k = 0; k < n; ++k)
        c[at(i * n + j)] += a[at(ta ? k * n + i : i * n + k)] * b[at(tb ? j * n + k : k * n + j)];
  return c;
}
double inner(const Doubles& a, const Doubles& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

TEST(Cayley, AHundredStepsStayOrthogonal) {
  for (const std::int64_t n : {1, 2, 3, 8, 33, 96}) {
    SCOPED_TRACE(n);
    Doubles r = orthogonal(n, 5);
    EXPECT_LT(orthogonality_error(n, r), 1e-12);
    for (int step = 0; step < 100; ++step)
      ASSERT_TRUE(cayley_step(n, r, normal(n * n, 100 + static_cast<std::uint64_t>(step)), 1.5));
    EXPECT_LT(orthogonality_error(n, r), 1e-11);
    if (n > 1) {
      EXPECT_GT(std::fabs(r[0] - orthogonal(n, 5)[0]), 1e-6);  // it has moved
    }
  }
}

TEST(Cayley, TheStepIsThatOfTheFormula) {
  constexpr std::int64_t n = 6;
  const Doubles before = orthogonal(n, 1), g = normal(n * n, 2);
  Doubles a = product(n, g, before, false, true), turned(at(n * n));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) turned[at(i * n + j)] = a[at(i * n + j)] - a[at(j * n + i)];
  double norm = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += std::fabs(turned[at(i * n + j)]);
    norm = std::max(norm, sum);
  }
  for (const double rate : {1e-3, 1e9}) {
    Doubles r = before;
    const auto t = cayley_step(n, r, g, rate);
    ASSERT_TRUE(t);
    EXPECT_NEAR(*t, std::min(rate, 1 / norm), 1e-15);
    // (I + t/2 A) R(t) = (I - t/2 A) R
    const Doubles ar = product(n, turned, r), ab = product(n, turned, before);
    for (std::size_t i = 0; i < r.size(); ++i) EXPECT_NEAR(r[i] + *t / 2 * ar[i], before[i] - *t / 2 * ab[i], 1e-13);
  }
}

// f(R) = tr(R' B) is least at -U V' for B = U S V': it falls with each small step and gets there, whose determinant is that of
// the start.
TEST(Cayley, ItFindsTheOrthogonalMatrixNextToAnother) {
  for (const std::int64_t n : {2, 5, 24}) {
    SCOPED_TRACE(n);
    const Doubles u = orthogonal(n, 11), v = orthogonal(n, 12);
    Doubles us = u, best = product(n, u, v, false, true);
    double least = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double s = 0.5 + static_cast<double>(j) / static_cast<double>(n);
      least -= s;
      for (std::int64_t i = 0; i < n; ++i) us[at(i * n + j)] *= -s;
    }
    const Doubles b = product(n, us, v, false, true);
    Doubles r = best;  // turned away by large rotations
    for (int time = 0; time < 5; ++time)
      ASSERT_TRUE(cayley_step(n, r, normal(n * n, 20 + static_cast<std::uint64_t>(time)), 1e9));
    EXPECT_GT(inner(r, b), least + 0.05);
    for (int step = 0; step < 2000; ++step) {
      const double before = inner(r, b);
      ASSERT_TRUE(cayley_step(n, r, b, 0.2));
      if (before > least + 1e-9) {
        ASSERT_LT(inner(r, b), before);
      }
    }
    EXPECT_NEAR(inner(r, b), least, 1e-9);
    for (std::size_t i = 0; i < r.size(); ++i) EXPECT_NEAR(r[i], best[i], 1e-4);
  }
}

TEST(Cayley, MomentumAddsTheDirectionsOfEarlierSteps) {
  constexpr std::int64_t n = 5;
  const Doubles start = orthogonal(n, 3), g = normal(n * n, 4), none(at(n * n), 0.0);
  Doubles plain = start, first = start, velocity;
  ASSERT_TRUE(cayley_step(n, plain, g, 1e-2));
  ASSERT_TRUE(cayley_step(n, first, g, 1e-2, {}, &velocity, 0.5));
  EXPECT_EQ(first, plain);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) EXPECT_NEAR(velocity[at(i * n + j)], -velocity[at(j * n + i)], 1e-15);
  // Without a gradient half of the step goes on: (I + t/4 A) R(2) = (I - t/4 A) R(1).
  const Doubles a = velocity;
  Doubles second = first;
  ASSERT_TRUE(cayley_step(n, second, none, 1e-2, {}, &velocity, 0.5));
  const Doubles left = product(n, a, second), right = product(n, a, first);
  for (std::size_t i = 0; i < second.size(); ++i)
    EXPECT_NEAR(second[i] + 2.5e-3 * left[i], first[i] - 2.5e-3 * right[i], 1e-14);
  EXPECT_LT(orthogonality_error(n, second), 1e-13);
}

TEST(Cayley, NothingToGoByIsNoStep) {
  constexpr std::int64_t n = 4;
  const Doubles start = orthogonal(n, 3);
  Doubles bad = normal(n * n, 4), r = start;
  bad[5] = std::numeric_limits<double>::quiet_NaN();
  for (const Doubles& g : {Doubles(at(n * n), 0.0), bad, Doubles(at(n * n), std::numeric_limits<double>::infinity())}) {
    const auto t = cayley_step(n, r, g, 1.5);
    ASSERT_TRUE(t);
    EXPECT_EQ(*t, 0.0);
    EXPECT_EQ(r, start);
  }
  EXPECT_FALSE(cayley_step(n, r, Doubles(3), 1.5));
  r[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(orthogonality_error(n, r)));
  std::stop_source stop;
  stop.request_stop();
  const auto stopped = cayley_step(n, r = start, normal(n * n, 4), 1.5, stop.get_token());
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::kCancelled);
}

TEST(Cayley, ThreadsChangeNoBit) {
  constexpr std::int64_t n = 400;
  const Doubles start = orthogonal(n, 6), g = normal(n * n, 7);
  const auto results = [&](int threads) {
    quant::set_kernel_threads(threads);
    Doubles r = start, sums(at(n * n), 1.0);
    EXPECT_TRUE(cayley_step(n, r, g, 1.5));
    EXPECT_TRUE(add_outer_products(start.data(), g.data(), n, n, sums));
    quant::set_kernel_threads(0);
    return std::pair(r, sums);
  };
  EXPECT_EQ(results(1), results(3));
}

TEST(Cayley, GradientsAreSumsOfOuterProducts) {
  constexpr std::int64_t rows = 7, n = 3;
  const Doubles a = normal(rows * n, 1), b = normal(rows * n, 2);
  Doubles sums(at(n * n), 0.5);
  ASSERT_TRUE(add_outer_products(a.data(), b.data(), rows, n, sums));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double wanted = 0.5;
      for (std::int64_t r = 0; r < rows; ++r) wanted += a[at(r * n + i)] * b[at(r * n + j)];
      EXPECT_NEAR(sums[at(i * n + j)], wanted, 1e-14);
    }
}

constexpr BlockOrder kOrders[] = {BlockOrder::kMassDiff, BlockOrder::kZigzag, BlockOrder::kAbsmax, BlockOrder::kRandom};

// Magnitudes of n channels, a few of them far larger than the others.
Doubles magnitudes(std::int64_t n, std::uint64_t seed) {
  SeededRandom random(seed);
  Doubles out(at(n));
  for (double& v : out) v = std::exp(1.5 * random.normal());
  for (std::int64_t i = 0; i < n; i += 9) out[at(i)] *= 20;
  return out;
}

bool is_permutation(Order p) {
  std::sort(p.begin(), p.end());
  for (std::size_t i = 0; i < p.size(); ++i)
    if (p[i] != static_cast<std::int64_t>(i)) return false;
  return true;
}

TEST(BlockOrder, MassDiffSharesOutBestAndAllArePermutations) {
  for (const std::int64_t n : {16, 48, 172, 512})
    for (const std::int64_t block : {2, 4, 8, 16, 32})
      for (std::uint64_t seed = 0; seed < 20; ++seed) {
        SCOPED_TRACE(std::to_string(n) + " " + std::to_string(block) + " " + std::to_string(seed));
        if (n < 2 * block) continue;
        const Doubles mean = magnitudes(n, seed), absmax = magnitudes(n, seed + 1000);
        for (const BlockOrder order : kOrders) {
          const Order p = block_order(order, mean, absmax, block, seed);
          ASSERT_EQ(p.size(), mean.size());
          EXPECT_TRUE(is_permutation(p));
          const bool by_absmax = order == BlockOrder::kAbsmax || order == BlockOrder::kZigzag;
          if (by_absmax) {
            EXPECT_EQ(p, block_order(order, absmax, absmax, block, seed));  // whatever the means are
          }
        }
        const double most = largest_block(mean, block_order(BlockOrder::kMassDiff, mean, absmax, block), block);
        EXPECT_LE(most, largest_block(mean, {}, block));
        EXPECT_LE(most, largest_block(mean, block_order(BlockOrder::kRandom, mean, absmax, block, seed), block));
        // No block can have less than the largest channel, nor the largest one less than the mean.
        const auto blocks = static_cast<double>((n + block - 1) / block);
        EXPECT_GE(most, std::max(*std::max_element(mean.begin(), mean.end()),
                                 std::accumulate(mean.begin(), mean.end(), 0.0) / blocks) -
                            1e-9);
      }
}

TEST(BlockOrder, ByHand) {
  const Doubles mean = {9, 8, 1, 2, 7, 1}, absmax = {1, 2, 3, 4, 5, 6};
  // 9 | 8 | 7, then 2 to the 7, 1 and 1 to the 8 and the 9.
  EXPECT_EQ(block_order(BlockOrder::kMassDiff, mean, absmax, 2), (Order{0, 5, 1, 2, 3, 4}));
  EXPECT_EQ(largest_block(mean, {0, 5, 1, 2, 3, 4}, 2), 10);
  EXPECT_EQ(largest_block(mean, {}, 2), 17);
  // 6 | 5 | 4, then back: 3 to the 4, 2 to the 5, 1 to the 6.
  EXPECT_EQ(block_order(BlockOrder::kZigzag, mean, absmax, 2), (Order{0, 5, 1, 4, 2, 3}));
  // 6 | 5, 4 to the 5, 3 to the 6, then 2 to the 5 or the 6: both have 9, so to the 6, and 1 to the 5.
  EXPECT_EQ(block_order(BlockOrder::kAbsmax, mean, absmax, 3), (Order{1, 2, 5, 0, 3, 4}));
  // A last block of 2: 9 | 8, 7 to the 8, 2 to the 9, which is full at 4 channels as is the other at 2.
  EXPECT_EQ(block_order(BlockOrder::kMassDiff, mean, absmax, 4), (Order{0, 2, 3, 5, 1, 4}));
  EXPECT_EQ(block_order(BlockOrder::kZigzag, mean, absmax, 4), (Order{0, 1, 2, 5, 3, 4}));
  EXPECT_NE(block_order(BlockOrder::kRandom, mean, absmax, 2, 1), block_order(BlockOrder::kRandom, mean, absmax, 2, 2));
}

TEST(BlockOrder, OddInputLeavesTheOrder) {
  const Order unchanged = {0, 1, 2, 3, 4, 5};
  const Doubles mean = {9, 8, 1, 2, 7, 1};
  for (const BlockOrder order : kOrders) {
    for (const std::int64_t block : {0, -1, 6, 12}) EXPECT_EQ(block_order(order, mean, mean, block, 3), unchanged) << block;
    EXPECT_EQ(block_order(order, mean, {1, 2}, 2, 3), unchanged);
    EXPECT_TRUE(block_order(order, {}, {}, 2, 3).empty());
    // Dead and broken channels count as nothing.
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(is_permutation(
        block_order(order, {nan, 1, 0, 0, std::numeric_limits<double>::infinity(), 2}, {nan, 1, 0, 0, 3, 2}, 2, 3)));
  }
  EXPECT_EQ(block_order(BlockOrder::kMassDiff, Doubles(6, 1.0), Doubles(6, 1.0), 2), unchanged);  // even already
}

}  // namespace
}  // namespace quanvas::algorithms
