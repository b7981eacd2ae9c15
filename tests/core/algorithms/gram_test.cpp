// Second moments, columns of convolutions, and the factor.
#include <algorithm>

#include "core/algorithms/im2col.h"
#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

using Order = GramAccumulator::Order;

TEST(Gram, IsTheProductOfTheColumns) {
  for (const std::int64_t n : {1, 7, 300}) {
    const Problem p = make_problem(1, 1, n, 500, 0.5, 0.1);
    const Gram gram = gram_of(p, true);
    EXPECT_EQ(gram.columns, 500);
    for (std::int64_t i = 0; i < n; i += 13)
      for (std::int64_t j = 0; j < n; j += 7) {
        double h = 0, g = 0, turned = 0, s = 0, scale = 0;
        for (std::int64_t c = 0; c < p.columns; ++c) {
          const auto ic = static_cast<std::size_t>(i * 500 + c), jc = static_cast<std::size_t>(j * 500 + c);
          h += static_cast<double>(p.xt[ic]) * static_cast<double>(p.xt[jc]);
          g += static_cast<double>(p.x[ic]) * static_cast<double>(p.xt[jc]);
          turned += static_cast<double>(p.xt[ic]) * static_cast<double>(p.x[jc]);
          s += static_cast<double>(p.x[ic]) * static_cast<double>(p.x[jc]);
          scale += std::abs(static_cast<double>(p.x[ic]) * static_cast<double>(p.x[jc]));
        }
        const auto ij = static_cast<std::size_t>(i * n + j), ji = static_cast<std::size_t>(j * n + i);
        EXPECT_NEAR(gram.h[ij], h, 2e-6 * scale + 1e-9);
        EXPECT_NEAR(gram.mismatch[ij], g - h, 2e-6 * scale + 1e-9);
        EXPECT_NEAR(gram.rest[ij], s + h - g - turned, 4e-6 * scale + 1e-9);
        EXPECT_EQ(gram.h[ij], gram.h[ji]);
        EXPECT_EQ(gram.rest[ij], gram.rest[ji]);
      }
  }
}

TEST(Gram, DoesNotDependOnHowTheColumnsCome) {
  const Problem p = make_problem(2, 1, 40, 9000, 0.5);
  const Gram whole = gram_of(p);
  Floats turned(p.x.size());
  for (std::int64_t i = 0; i < p.n; ++i)
    for (std::int64_t c = 0; c < p.columns; ++c)
      turned[static_cast<std::size_t>(c * p.n + i)] = p.x[static_cast<std::size_t>(i * p.columns + c)];
  for (const std::int64_t piece : {1, 100, 2048, 4096, 5000}) {
    GramAccumulator by_inputs(p.n, false), by_columns(p.n, false);
    for (std::int64_t c = 0; c < p.columns; c += piece) {
      const std::int64_t count = std::min(piece, p.columns - c);
      ASSERT_TRUE(by_inputs.add(p.x.data() + c, nullptr, count, Order::kInputs, p.columns));
      ASSERT_TRUE(by_columns.add(turned.data() + c * p.n, nullptr, count, Order::kColumns, p.n));
    }
    EXPECT_EQ(std::move(by_inputs).finish()->h, whole.h) << piece;
    EXPECT_EQ(std::move(by_columns).finish()->h, whole.h) << piece;
  }
}

TEST(Gram, MergesAndKeepsItsBitsForAnyNumberOfThreads) {
  const Problem p = make_problem(3, 1, 600, 1000, 0.5, 0.1);
  GramAccumulator first(p.n, true), second(p.n, true);
  ASSERT_TRUE(first.add(p.xt.data(), p.x.data(), 400, Order::kInputs, p.columns));
  ASSERT_TRUE(second.add(p.xt.data() + 400, p.x.data() + 400, 600, Order::kInputs, p.columns));
  ASSERT_TRUE(first.merge(std::move(second)));
  const Gram merged = *std::move(first).finish(), whole = gram_of(p, true);
  EXPECT_EQ(merged.columns, 1000);
  for (std::size_t i = 0; i < whole.h.size(); i += 101) {
    const double scale = 1e-5 * (1 + std::abs(whole.h[i]));
    EXPECT_NEAR(merged.h[i], whole.h[i], 10 * scale);
    EXPECT_NEAR(merged.mismatch[i], whole.mismatch[i], 10 * scale);
  }
  expect_same_for_all_threads([&] {
    const Gram g = gram_of(p, true);
    return std::make_pair(g.h, g.mismatch);
  });
}

TEST(Gram, RefusesWhatIsNotFiniteByName) {
  for (const float bad : {NAN, INFINITY, -INFINITY, 1e30f}) {
    Problem p = make_problem(4, 1, 5, 100, 0.5);
    p.x[3 * 100 + 17] = bad;
    GramAccumulator sum(5, false);
    ASSERT_TRUE(sum.add(p.x.data(), nullptr, 100, Order::kInputs, 100));
    const auto gram = std::move(sum).finish();
    ASSERT_FALSE(gram);
    EXPECT_EQ(gram.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(gram.error().text().find("Input 3"), std::string::npos) << gram.error().text();
  }
  const auto none = GramAccumulator(5, false).finish();
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kInvalidArgument);
}

// Every output of a convolution is the product of its weights with its column.
TEST(Im2col, ColumnsAreWhatTheConvolutionSees) {
  struct Row {
    std::vector<std::int64_t> size, kernel, stride, dilation, begin, end;
  };
  const std::vector<Row> rows = {
      {{6}, {3}, {1}, {1}, {0}, {0}},          {{9}, {4}, {2}, {2}, {3}, {1}},
      {{5, 6}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}}, {{8, 7}, {3, 2}, {2, 3}, {1, 2}, {0, 2}, {1, 0}},
      {{4, 5, 6}, {2, 3, 1}, {1, 2, 1}, {2, 1, 1}, {1, 0, 0}, {0, 1, 0}}, {{2, 2}, {3, 3}, {1, 1}, {1, 1}, {0, 0}, {0, 0}}};
  for (const Row& row : rows) {
    const ConvolutionShape shape{1, 2, row.size, row.kernel, row.stride, row.dilation, row.begin, row.end};
    const std::size_t axes = row.size.size();
    std::int64_t plane = 1;
    for (const std::int64_t s : row.size) plane *= s;
    Floats x(static_cast<std::size_t>(2 * plane));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
    const std::int64_t positions = shape.positions(), inputs = shape.inputs();
    Floats columns(static_cast<std::size_t>(inputs * std::max<std::int64_t>(positions, 1)), -1.0f);
    // In two pieces.
    im2col(shape, x.data(), 0, positions / 2, columns.data(), positions);
    im2col(shape, x.data(), positions / 2, positions - positions / 2, columns.data() + positions / 2, positions);
    for (std::int64_t p = 0; p < positions; ++p)
      for (std::int64_t i = 0; i < inputs; ++i) {
        std::int64_t rest_p = p, rest_i = i, offset = 0, scale = 1;
        bool inside = true;
        for (std::size_t a = axes; a-- > 0;) {
          const std::int64_t at = rest_p % shape.output_size(a) * row.stride[a] - row.begin[a] + rest_i % row.kernel[a] * row.dilation[a];
          rest_p /= shape.output_size(a);
          rest_i /= row.kernel[a];
          inside &= at >= 0 && at < row.size[a];
          offset += at * scale;
          scale *= row.size[a];
        }
        const float expected = inside ? x[static_cast<std::size_t>(rest_i * plane + offset)] : 0.0f;
        EXPECT_EQ(columns[static_cast<std::size_t>(i * positions + p)], expected) << "input " << i << " position " << p;
      }
  }
}

TEST(Factor, IsTheUpperCholeskyFactorOfTheInverse) {
  for (const std::int64_t n : {1, 5, 128, 200, 700})
    for (const bool act_order : {false, true}) {
      const Gram gram = gram_of(make_problem(5, 1, n, 4 * n, 0.8));
      const Factor factor = factor_of(gram, {0.01, false, act_order});
      EXPECT_EQ(factor.retries, 0);
      // U (H + l I) U' = 1 is checked on some rows; U is upper triangular with a positive diagonal.
      const Doubles h = damped(gram, factor.damping, factor.moments.order);
      const auto u = [&](std::int64_t i, std::int64_t j) { return static_cast<double>(factor.u[static_cast<std::size_t>(i * n + j)]); };
      for (std::int64_t i = 0; i < n; i += 1 + n / 9) {
        EXPECT_GT(u(i, i), 0);
        for (std::int64_t j = 0; j < i; ++j) ASSERT_EQ(u(i, j), 0);
        Doubles row(static_cast<std::size_t>(n));
        for (std::int64_t k = i; k < n; ++k)
          for (std::int64_t j = 0; j < n; ++j) row[static_cast<std::size_t>(j)] += u(i, k) * h[static_cast<std::size_t>(k * n + j)];
        for (std::int64_t j = 0; j < n; j += 1 + n / 9) {
          double sum = 0;
          for (std::int64_t k = j; k < n; ++k) sum += row[static_cast<std::size_t>(k)] * u(j, k);
          EXPECT_NEAR(sum, i == j ? 1 : 0, 3e-5) << n << " " << i << " " << j;
        }
      }
      for (std::size_t i = 0; i < factor.u.size(); i += 17) EXPECT_EQ(factor.u[i], static_cast<float>(factor.u[i]));
    }
}

TEST(Factor, OrdersByMomentsAndKeepsItsBits) {
  const Gram gram = gram_of(make_problem(6, 1, 300, 900, 0.7));
  const auto order = order_by_moments(gram);
  for (std::size_t k = 1; k < order.size(); ++k)
    EXPECT_GE(gram.h[static_cast<std::size_t>(order[k - 1] * 301)], gram.h[static_cast<std::size_t>(order[k] * 301)]);
  expect_same_for_all_threads([&] { return factor_of(gram, {0.01, false, true}).u; });
}

TEST(Factor, SurvivesDegenerateInputs) {
  struct Row {
    const char* name;
    std::int64_t n, columns;
    double damping;
    bool constant;
    std::vector<std::int64_t> dead;
  };
  for (const Row& row : {Row{"rank deficient", 64, 10, 0.01, false, {}}, Row{"hardly damped", 64, 10, 1e-12, false, {}},
                         Row{"not damped", 64, 10, 0, false, {}}, Row{"constant", 32, 50, 0.01, true, {}},
                         Row{"constant, not damped", 32, 50, 0, true, {}}, Row{"dead", 16, 100, 0.01, false, {0, 7, 15}},
                         Row{"one column", 16, 1, 0.01, false, {}}}) {
    SCOPED_TRACE(row.name);
    Problem p = make_problem(7, 8, row.n, row.columns, 0.8);
    if (row.constant) std::fill(p.xt.begin(), p.xt.end(), 2.0f);
    for (const std::int64_t d : row.dead) std::fill_n(p.xt.begin() + d * row.columns, row.columns, 0.0f);
    p.x = p.xt;
    const Gram gram = gram_of(p);
    const Factor factor = factor_of(gram, {row.damping, false, true});
    EXPECT_EQ(factor.moments.dead_count, static_cast<std::int64_t>(row.dead.size()));
    EXPECT_EQ(factor.retries > 0, row.damping < 1e-3);
    for (const float v : factor.u) ASSERT_TRUE(std::isfinite(v));
    const ColumnQuantizer q = quantizer_of(int_spec(4), p);
    const Rounded r = run_gptq(p, factor, q);
    EXPECT_EQ(r.report.dead, factor.moments.dead_count);
    for (const std::int64_t d : row.dead)
      for (std::int64_t i = 0; i < p.m; ++i) EXPECT_EQ(r.q[static_cast<std::size_t>(i * p.n + d)], 0);
    EXPECT_EQ(flips(r.q, [&] { Floats again(r.q); q.fake_matrix(r.q.data(), again.data()); return again; }()), 0);
    EXPECT_LE(r.report.after, r.report.before * 1.0001);
  }
}

TEST(Factor, RefusesAnImpossibleDamping) {
  const Gram gram = gram_of(make_problem(8, 1, 4, 10, 0.5));
  for (const double bad : {-1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    const auto factor = factorize(gram, {bad, false, false});
    ASSERT_FALSE(factor);
    EXPECT_EQ(factor.error().code, ErrorCode::kInvalidArgument);
  }
}

TEST(Factor, FindsTheLargestEigenvalue) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    const std::int64_t n = 40;
    const Gram gram = gram_of(make_problem(seed, 1, n, 200, 0.9));
    const double value = largest_eigenvalue(n, moments_for(gram).h.data(), 1000);
    // No vector gives more, and the trace bounds it.
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    for (int k = 0; k < 50; ++k) {
      Doubles v(n);
      double norm = 0, quotient = 0;
      for (double& x : v) x = normal(random), norm += x * x;
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < n; ++j)
          quotient += v[static_cast<std::size_t>(i)] * gram.h[static_cast<std::size_t>(i * n + j)] * v[static_cast<std::size_t>(j)];
      EXPECT_LE(quotient / norm, value * (1 + 1e-5));
    }
  }
  const Floats diagonal = {1, 0, 0, 0, 9, 0, 0, 0, 4};
  EXPECT_NEAR(largest_eigenvalue(3, diagonal.data(), 1000), 9, 1e-4);
  const Floats zero(9, 0.0f);
  EXPECT_EQ(largest_eigenvalue(3, zero.data()), 0);
}

}  // namespace
}  // namespace quanvas::algorithms::test
