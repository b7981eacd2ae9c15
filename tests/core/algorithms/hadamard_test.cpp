// Hadamard transforms and random orthogonal matrices against their definitions.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>

#include "core/algorithms/hadamard.h"
#include "core/algorithms/hadamard_kernels.h"
#include "core/algorithms/orthogonal.h"
#include "core/base/json.h"
#include "core/quant/params.h"

namespace quanvas::algorithms {
namespace {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

Doubles normal(std::int64_t count, std::uint64_t seed) {
  SeededRandom random(seed);
  Doubles out(static_cast<std::size_t>(count));
  for (double& v : out) v = random.normal();
  return out;
}

HadamardTransform transform(std::int64_t n) {
  auto t = HadamardTransform::create(n);
  EXPECT_TRUE(t) << t.error().text();
  return *t;
}

Doubles dense(const Doubles& x, const Doubles& h, std::int64_t n, bool transposed) {
  Doubles y(x.size(), 0.0);
  for (std::int64_t r = 0; r < static_cast<std::int64_t>(x.size()) / n; ++r)
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j)
        y[static_cast<std::size_t>(r * n + j)] +=
            x[static_cast<std::size_t>(r * n + i)] * h[static_cast<std::size_t>(transposed ? j * n + i : i * n + j)];
  return y;
}

double farthest(const Doubles& a, const Doubles& b) {
  double most = a.size() == b.size() ? 0 : HUGE_VAL;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

// Q Q' - I.
double distance_from_identity(const Doubles& q, std::int64_t n) {
  double most = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < n; ++k) sum += q[static_cast<std::size_t>(i * n + k)] * q[static_cast<std::size_t>(j * n + k)];
      most = std::max(most, std::fabs(sum - (i == j ? 1 : 0)));
    }
  return most;
}

TEST(Hadamard, EveryCoreUpToFourHundredIsOne) {
  std::set<std::int64_t> missing;
  int cores = 0;
  for (std::int64_t k = 4; k <= 400; k += 4) {
    const std::vector<std::int8_t> c = paley_core(k);
    if (c.empty()) {
      if (find_hadamard(k).size == 0) missing.insert(k);
      continue;
    }
    ++cores;
    ASSERT_EQ(static_cast<std::int64_t>(c.size()), k * k);
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        std::int64_t sum = 0;
        for (std::int64_t x = 0; x < k; ++x) sum += c[static_cast<std::size_t>(i * k + x)] * c[static_cast<std::size_t>(j * k + x)];
        ASSERT_EQ(sum, i == j ? k : 0) << k << ": rows " << i << " and " << j;
      }
    const HadamardSize size = find_hadamard(k);
    EXPECT_EQ(size.size, k);
    if (size.kind == HadamardCore::kPaley2) {
      for (std::int64_t i = 0; i < size.core; ++i)
        for (std::int64_t j = 0; j < i; ++j) {
          const auto core = paley_core(size.core);
          ASSERT_EQ(core[static_cast<std::size_t>(i * size.core + j)], core[static_cast<std::size_t>(j * size.core + i)]) << k;
          if (size.core > 40) break;
        }
    }
  }
  EXPECT_EQ(cores, 59);
  // The orders below 400 that Paley's constructions and doubling leave open.
  EXPECT_EQ(missing, (std::set<std::int64_t>{92, 116, 156, 172, 184, 188, 232, 236, 260, 268, 292, 324, 356, 372, 376}));
}

TEST(Hadamard, SizesAreFoundOrRefusedByName) {
  struct Row {
    std::int64_t n, core, field;
  };
  for (const Row& r : {Row{1, 1, 0}, {2, 1, 0}, {1024, 1, 0}, {12, 12, 11}, {768, 12, 11}, {48, 12, 11}, {288, 36, 17}, {28, 28, 27},
                       {20, 20, 19}, {344, 344, 343}, {11008, 344, 343}, {312, 312, 311}, {368, 368, 367}, {464, 464, 463},
                       {752, 752, 751}, {14336, 28, 27}, {100, 100, 49}, {176, 44, 43}, {52, 52, 25}}) {
    const HadamardSize s = find_hadamard(r.n);
    EXPECT_EQ(s.size, r.n);
    EXPECT_EQ(s.core, r.core) << r.n;
    EXPECT_EQ(s.field, r.field) << r.n;
  }
  for (const std::int64_t n : {3, 6, 10, 172, 92, 0, -4, 1000003}) EXPECT_EQ(find_hadamard(n).size, 0) << n;
  const auto refused = hadamard_size(172);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("172"), std::string::npos);
  EXPECT_NE(refused.error().message.find("168 and 176"), std::string::npos) << refused.error().message;
  EXPECT_FALSE(hadamard_size(0));
  EXPECT_FALSE(hadamard_size(std::numeric_limits<std::int64_t>::max()));
  EXPECT_FALSE(HadamardTransform::create(24, 28));
  EXPECT_FALSE(HadamardTransform::create(36, 12));
  EXPECT_FALSE(HadamardTransform::with_core(12, std::vector<std::int8_t>(144, 1)));
  EXPECT_FALSE(HadamardTransform::with_core(3, std::vector<std::int8_t>(9, 1)));
  EXPECT_EQ(next_hadamard_size(172), 176);
  EXPECT_EQ(next_hadamard_size(128), 128);
  EXPECT_EQ(next_hadamard_size(kMostHadamardSize + 1), 0);
}

TEST(Hadamard, TheFastTransformIsTheDenseProduct) {
  for (const std::int64_t n : {1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 72, 96, 100, 128, 144, 160, 176, 192, 224, 256, 288, 344, 384, 512, 576,
                               768, 1024}) {
    const HadamardTransform t = transform(n);
    const Doubles h = t.matrix();
    if (n <= 400) {
      EXPECT_LT(distance_from_identity(h, n), 1e-13) << n;
    }
    for (const std::int64_t rows : {1, 3, 17}) {
      const Doubles x = normal(rows * n, static_cast<std::uint64_t>(n));
      for (const bool transposed : {false, true}) {
        Doubles y(x.size());
        t.apply(x.data(), y.data(), rows, transposed);
        EXPECT_LT(farthest(y, dense(x, h, n, transposed)), 1e-13) << n << " " << transposed;
        Floats narrow(x.begin(), x.end());
        t.apply(narrow.data(), narrow.data(), rows, transposed);
        EXPECT_LT(farthest(Doubles(narrow.begin(), narrow.end()), y), 3e-6) << n;
      }
      if (n > 600) break;
    }
  }
}

TEST(Hadamard, BackAndForthIsTheIdentityAndNormsStay) {
  for (const std::int64_t n : {2, 16, 64, 1024, 4096, 16384, 12, 768, 288, 344, 11008}) {
    const HadamardTransform t = transform(n);
    const Doubles x = normal(3 * n, 5);
    Doubles y(x.size()), z(x.size());
    t.apply(x.data(), y.data(), 3);
    t.apply(y.data(), z.data(), 3, true);
    double most = 0, before = 0, after = 0;
    for (const double v : x) most = std::max(most, std::fabs(v)), before += v * v;
    for (const double v : y) after += v * v;
    EXPECT_LT(farthest(x, z), (t.core() == 1 ? 2e-15 : 2e-14) * most) << n;
    EXPECT_NEAR(after / before, 1, 1e-14) << n;
    if (t.core() == 1) {  // symmetric: its own inverse
      t.apply(y.data(), z.data(), 3);
      EXPECT_LT(farthest(x, z), 2e-15 * most) << n;
    }
  }
}

TEST(Hadamard, OneSpikeIsSpreadEvenly) {
  const HadamardTransform t = transform(768);
  Floats x(768, 0.0f);
  x[77] = 100;
  t.apply(x.data(), x.data(), 1);
  for (const float v : x) ASSERT_NEAR(std::fabs(v), 100 / std::sqrt(768.0), 1e-5);
}

TEST(Hadamard, BitsDependOnNeitherThreadsNorProcessor) {
  for (const std::int64_t n : {4, 12, 24, 36, 48, 64, 144, 288, 768, 1024, 8192, 16384}) {
    const std::int64_t rows = std::max<std::int64_t>(37, 400000 / n);
    const Doubles x = normal(rows * n, 9);
    const Floats narrow(x.begin(), x.end());
    const HadamardTransform t = transform(n);
    Floats one(x.size()), two(x.size());
    quant::set_kernel_threads(1);
    t.apply(narrow.data(), one.data(), rows);
    quant::set_kernel_threads(3);
    t.apply(narrow.data(), two.data(), rows);
    quant::set_kernel_threads(1);
    EXPECT_EQ(one, two) << n;
    const std::vector<std::int8_t> core = paley_core(t.core());
    Floats table(core.begin(), core.end());
    std::vector<double> wide_table(core.begin(), core.end());
    std::vector<double> wide_first;
    for (const HadamardKernels* k : hadamard_kernels()) {
      Floats out(x.size()), scratch(static_cast<std::size_t>(hadamard_scratch(t.core())));
      const HadamardRows<float> h{t.core(), n / t.core(), t.core() > 1 ? table.data() : nullptr, static_cast<float>(1 / std::sqrt(static_cast<double>(n)))};
      k->floats(h, narrow.data(), out.data(), rows, scratch.data());
      EXPECT_EQ(out, one) << n << " " << k->name;
      Doubles wide(x.size()), wide_scratch(scratch.size());
      const HadamardRows<double> w{t.core(), n / t.core(), t.core() > 1 ? wide_table.data() : nullptr, 1 / std::sqrt(static_cast<double>(n))};
      k->doubles(w, x.data(), wide.data(), rows, wide_scratch.data());
      if (wide_first.empty()) wide_first = wide;
      EXPECT_EQ(wide, wide_first) << n << " " << k->name;
    }
  }
}

TEST(Hadamard, WhatIsNoNumberStaysInItsRow) {
  const HadamardTransform t = transform(12);
  Floats x(36, 1.0f);
  x[13] = std::numeric_limits<float>::quiet_NaN();
  t.apply(x.data(), x.data(), 3);
  for (std::size_t i = 0; i < 36; ++i) EXPECT_EQ(std::isnan(x[i]), i >= 12 && i < 24) << i;
}

// The reference multiplies a column by its table's core, so its y is x C'; tables are another choice of core than ours.
TEST(Hadamard, AgreesWithTheReference) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/alg_hadamard.json");
  const json golden = json::parse(file);
  int sizes = 0;
  for (const auto& [key, entry] : golden.items()) {
    if (!entry.is_object() || !entry.contains("K")) continue;
    SCOPED_TRACE(key);
    const std::int64_t n = std::stoll(key.substr(1)), k = entry.at("K").get<std::int64_t>();
    const auto x = entry.at("x").at("data").get<Floats>();
    const auto made = k == 1 ? HadamardTransform::create(n)
                             : HadamardTransform::with_core(n, golden.at("had" + std::to_string(k)).at("data").get<std::vector<std::int8_t>>());
    ASSERT_TRUE(made) << made.error().text();
    EXPECT_EQ(made->core(), k);
    for (const bool transposed : {false, true}) {
      const auto y = entry.at(transposed ? "y" : "y_transpose").at("data").get<Floats>();
      Floats out(x.size());
      made->apply(x.data(), out.data(), static_cast<std::int64_t>(x.size()) / n, transposed);
      EXPECT_LT(farthest(Doubles(out.begin(), out.end()), Doubles(y.begin(), y.end())), 1e-5);
    }
    // A core of the same size is there, and no larger one is taken.
    EXPECT_LE(find_hadamard(n).core, k);
    ++sizes;
  }
  EXPECT_EQ(sizes, 8);
  // The next sizes above: ours are never farther, as more cores are known.
  for (const auto& [from, to] : golden.at("find_closest").items())
    EXPECT_LE(next_hadamard_size(std::stoll(from) + 1), to.get<std::int64_t>()) << from;
}

TEST(Orthogonal, IsOrthogonalAndFollowsItsSeed) {
  for (const std::int64_t n : {1, 2, 3, 17, 31, 32, 33, 64, 172, 300, 511, 512, 700}) {
    const auto q = random_orthogonal(n, 7);
    ASSERT_TRUE(q) << q.error().text();
    EXPECT_LT(distance_from_identity(*q, n), 1e-13) << n;
    EXPECT_EQ(*q, *random_orthogonal(n, 7));
    if (n > 1) {
      EXPECT_NE(*q, *random_orthogonal(n, 8));
    }
  }
  for (const std::int64_t n : {500, 600}) {
    const Doubles x = normal(300 * n, 4);
    Doubles y(x.size()), z(x.size());
    quant::set_kernel_threads(3);
    const auto three = *random_orthogonal(n, 3);
    ASSERT_TRUE(multiply_rows(x.data(), y.data(), 300, three, n));
    quant::set_kernel_threads(1);
    EXPECT_EQ(three, *random_orthogonal(n, 3));
    ASSERT_TRUE(multiply_rows(x.data(), z.data(), 300, three, n));
    EXPECT_EQ(y, z);
    EXPECT_LT(farthest(y, dense(x, three, n, false)), 1e-12);
  }
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(random_orthogonal(40, 1, stop.get_token()).error().code, ErrorCode::kCancelled);
  EXPECT_FALSE(random_orthogonal(0, 1));
  EXPECT_FALSE(random_orthogonal(kMostOrthogonalSize + 1, 1));
}

// Haar's measure: no entry is preferred. Without the signs of R the diagonal of Q would be biased.
TEST(Orthogonal, EntriesHaveMeanZeroAndVarianceOneByN) {
  constexpr std::int64_t kN = 6, kTimes = 4000;
  Doubles sum(kN * kN, 0.0), square(kN * kN, 0.0);
  for (std::uint64_t seed = 0; seed < kTimes; ++seed) {
    const auto q = *random_orthogonal(kN, seed);
    for (std::size_t i = 0; i < q.size(); ++i) sum[i] += q[i], square[i] += q[i] * q[i];
  }
  for (std::size_t i = 0; i < sum.size(); ++i) {
    EXPECT_NEAR(sum[i] / kTimes, 0, 5 * std::sqrt(1.0 / kN / kTimes)) << i;
    EXPECT_NEAR(square[i] / kTimes, 1.0 / kN, 0.02) << i;
  }
}

TEST(Orthogonal, SignsAreBothAsOften) {
  const Doubles s = random_signs(10000, 1);
  double sum = 0;
  for (const double v : s) {
    ASSERT_EQ(std::fabs(v), 1);
    sum += v;
  }
  EXPECT_LT(std::fabs(sum), 500);
  EXPECT_EQ(s, random_signs(10000, 1));
  EXPECT_NE(s, random_signs(10000, 2));
}

}  // namespace
}  // namespace quanvas::algorithms
