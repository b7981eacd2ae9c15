// GPFQ, Qronos and the polish by coordinate descent.
#include <algorithm>

#include "tests/core/algorithms/support.h"

namespace quanvas::algorithms::test {
namespace {

// The recursion on the columns themselves: u += w_t x_t - q_t x~_t.
struct Recursion {
  Floats q;
  double residual = 0;  // |u|^2 at the end
};
Recursion explicit_gpfq(const Problem& p, const std::vector<std::int32_t>& order, const ColumnQuantizer& quantizer) {
  Recursion out{Floats(p.w.size()), 0};
  for (std::int64_t r = 0; r < p.m; ++r) {
    Doubles u(static_cast<std::size_t>(p.columns));
    for (const std::int32_t t : order) {
      const float *x = p.x.data() + t * p.columns, *xt = p.xt.data() + t * p.columns;
      const double w = static_cast<double>(p.w[static_cast<std::size_t>(r * p.n + t)]);
      double inner = 0, norm = 0;
      for (std::size_t c = 0; c < u.size(); ++c) {
        u[c] += w * static_cast<double>(x[c]);
        inner += static_cast<double>(xt[c]) * u[c];
        norm += static_cast<double>(xt[c]) * static_cast<double>(xt[c]);
      }
      auto q = norm > 0 ? static_cast<float>(inner / norm) : 0.0f;
      quantizer.fake(t, r, 1, &q, &q);
      out.q[static_cast<std::size_t>(r * p.n + t)] = q;
      for (std::size_t c = 0; c < u.size(); ++c) u[c] -= static_cast<double>(q) * static_cast<double>(xt[c]);
    }
    for (const double v : u) out.residual += v * v;
  }
  return out;
}

TEST(Gpfq, IsTheRecursionOnResiduals) {
  for (const double mismatch : {0.0, 0.05, 0.3})
    for (const bool act_order : {false, true}) {
      SCOPED_TRACE(mismatch);
      Problem p = make_problem(31, 20, 150, 300, 0.8, mismatch);
      std::fill_n(p.x.begin() + 7 * p.columns, p.columns, 0.0f);  // a dead input
      std::fill_n(p.xt.begin() + 7 * p.columns, p.columns, 0.0f);
      const Gram gram = gram_of(p, mismatch > 0);
      const ColumnQuantizer q = quantizer_of(int_spec(4), p);
      const Rounded r = run_gpfq(p, gram, q, act_order);
      const Recursion expected = explicit_gpfq(p, act_order ? order_by_moments(gram) : natural_order(p.n), q);
      EXPECT_EQ(flips(r.q, expected.q), 0);
      EXPECT_NEAR(r.report.after, expected.residual, 1e-4 * expected.residual);
      EXPECT_NEAR(r.report.before, output_error(p, nearest(p, q)), 1e-4 * r.report.before);
      EXPECT_EQ(r.report.dead, 1);
    }
}

TEST(Gpfq, IsRoundingToNearestForOrthogonalInputs) {
  Problem p = make_problem(32, 20, 30, 30, 0.5);
  std::fill(p.xt.begin(), p.xt.end(), 0.0f);
  for (std::int64_t i = 0; i < 30; ++i) p.xt[static_cast<std::size_t>(i * 31)] = 0.5f + static_cast<float>(i);
  p.x = p.xt;
  const ColumnQuantizer q = quantizer_of(int_spec(4), p);
  EXPECT_EQ(flips(run_gpfq(p, gram_of(p), q, true).q, nearest(p, q)), 0);
}

TEST(Gpfq, FollowsTheScaleOfInputsAndWeights) {
  const Problem p = make_problem(33, 10, 60, 200, 0.8, 0.1);
  const Floats base = run_gpfq(p, gram_of(p, true), quantizer_of(int_spec(4), p)).q;
  for (const float factor : {0.25f, 16.0f}) {
    Problem inputs = p, weights = p;
    for (float& v : inputs.x) v *= factor;
    for (float& v : inputs.xt) v *= factor;
    for (float& v : weights.w) v *= factor;
    EXPECT_EQ(flips(run_gpfq(inputs, gram_of(inputs, true), quantizer_of(int_spec(4), inputs)).q, base), 0);
    Floats scaled = run_gpfq(weights, gram_of(weights, true), quantizer_of(int_spec(4), weights)).q;
    for (float& v : scaled) v /= factor;
    EXPECT_EQ(flips(scaled, base), 0);
  }
}

constexpr FactorOptions kQronos{1e-6, true, false};

TEST(Qronos, IsGptqWhenBothNetworksHaveTheSameInputs) {
  for (const bool act_order : {false, true})
    for (const bool given : {false, true}) {
      const Problem p = make_problem(34, 40, 150, 600, 0.8);
      const Gram gram = gram_of(p, given);
      const ColumnQuantizer q = quantizer_of(int_spec(4), p);
      const Factor factor = factor_of(gram, {0.01, false, act_order});
      EXPECT_EQ(flips(run_qronos(p, factor, q).q, run_gptq(p, factor, q).q), 0) << act_order << given;
    }
}

TEST(Qronos, BeatsGptqAndGpfqOnMismatchedInputs) {
  double nearest_sum = 0, qronos_sum = 0, gptq_sum = 0, gpfq_sum = 0;
  for (unsigned seed = 35; seed < 40; ++seed) {
    const Problem p = make_problem(seed, 40, 64, 500, 0.85, 0.15);
    const Gram gram = gram_of(p, true);
    const ColumnQuantizer q = quantizer_of(int_spec(4), p);
    const Rounded r = run_qronos(p, factor_of(gram, kQronos), q);
    EXPECT_NEAR(r.report.after, output_error(p, r.q), 1e-3 * r.report.after);
    nearest_sum += r.report.before;
    qronos_sum += r.report.after;
    gptq_sum += run_gptq(p, factor_of(gram), q).report.after;
    gpfq_sum += run_gpfq(p, gram, q).report.after;
  }
  EXPECT_LT(qronos_sum, gptq_sum);
  EXPECT_LT(qronos_sum, gpfq_sum);
  EXPECT_LT(gptq_sum, nearest_sum);
  EXPECT_LT(gpfq_sum, nearest_sum);
}

// Where only the first input is rounded, the others solve the least squares problem that is left.
TEST(Qronos, IsLeastSquaresOnWhatIsNotRounded) {
  const Problem p = make_problem(41, 6, 20, 200, 0.6, 0.2);
  const Gram gram = gram_of(p, true);
  QuantSpec spec = int_spec(16, Granularity::kGroup);
  spec.group_size = 1;
  QuantParams params = params_of(spec, p.m, p.n, p.w);
  params.lo = -4000000, params.hi = 4000000;
  for (std::int64_t i = 0; i < p.m * p.n; ++i) params.scale[static_cast<std::size_t>(i)] = i % p.n == 0 ? 0.07f : 1e-7f;
  const Rounded r = run_qronos(p, factor_of(gram, {1e-12, true, false}), quantizer_of(params, p.m, p.n));
  const std::int64_t rest = p.n - 1;
  const auto cross = [&](std::int64_t i, std::int64_t j) {
    const auto ij = static_cast<std::size_t>(i * p.n + j);
    return gram.mismatch[ij] + gram.h[ij];
  };
  Doubles h(static_cast<std::size_t>(rest * rest));
  for (std::int64_t i = 0; i < rest; ++i)
    for (std::int64_t j = 0; j < rest; ++j) h[static_cast<std::size_t>(i * rest + j)] = gram.h[static_cast<std::size_t>((i + 1) * p.n + j + 1)];
  const Doubles inverse = inverse_of(rest, h);
  for (std::int64_t row = 0; row < p.m; ++row) {
    Doubles right(static_cast<std::size_t>(rest));
    for (std::int64_t j = 0; j < rest; ++j) {
      double& v = right[static_cast<std::size_t>(j)];
      for (std::int64_t i = 0; i < p.n; ++i) v += static_cast<double>(p.w[static_cast<std::size_t>(row * p.n + i)]) * cross(i, j + 1);
      v -= static_cast<double>(r.q[static_cast<std::size_t>(row * p.n)]) * gram.h[static_cast<std::size_t>(j + 1)];
    }
    for (std::int64_t j = 0; j < rest; ++j) {
      double expected = 0;
      for (std::int64_t i = 0; i < rest; ++i) expected += right[static_cast<std::size_t>(i)] * inverse[static_cast<std::size_t>(i * rest + j)];
      EXPECT_NEAR(static_cast<double>(r.q[static_cast<std::size_t>(row * p.n + j + 1)]), expected, 1e-5);
    }
    // Step 1: the rounding of the least squares solution for the first weight with all others as they were.
    double first = 0;
    for (std::int64_t i = 0; i < p.n; ++i) {
      const double w = static_cast<double>(p.w[static_cast<std::size_t>(row * p.n + i)]);
      first += w * cross(i, 0) - (i > 0 ? w * gram.h[static_cast<std::size_t>(i)] : 0);
    }
    const double s = 0.07f;
    EXPECT_NEAR(static_cast<double>(r.q[static_cast<std::size_t>(row * p.n)]), std::nearbyint(first / gram.h[0] / s) * s, 1e-6);
  }
}

TEST(Polish, NeverRaisesTheObjectiveAndEndsWhereNoSingleChangeHelps) {
  for (const double mismatch : {0.0, 0.1})
    for (const bool from_gptq : {false, true}) {
      SCOPED_TRACE(testing::Message() << mismatch << from_gptq);
      const Problem p = make_problem(42, 24, 40, 200, 0.8, mismatch);
      const Gram gram = gram_of(p, mismatch > 0);
      const QuantParams params = params_of(int_spec(4), p.m, p.n, p.w);
      const ColumnQuantizer q = quantizer_of(params, p.m, p.n);
      const Floats start = from_gptq ? run_gptq(p, factor_of(gram), q).q : nearest(p, q);
      double last = output_error(p, start);
      Floats best;
      for (const int sweeps : {0, 1, 2, 3, 100}) {
        best = start;
        const auto done = polish(p.m, p.n, p.w.data(), best.data(), moments_for(gram), q, {sweeps, {}});
        ASSERT_TRUE(done) << done.error().text();
        const double now = output_error(p, best);
        EXPECT_LE(now, last * (1 + 1e-6));
        EXPECT_NEAR(done->after, now, 1e-3 * now);
        EXPECT_EQ(done->changed, flips(best, start));
        last = now;
      }
      EXPECT_LT(last, output_error(p, start) * (from_gptq ? 0.999 : 0.8));
      // Every weight one code up or down, and anywhere else on the grid.
      const double floor = output_error(p, best);
      for (std::int64_t i = 0; i < p.m * p.n; i += 11)
        for (int code = -7; code <= 7; ++code) {
          Floats changed = best;
          changed[static_cast<std::size_t>(i)] = static_cast<float>(code) * params.scale[static_cast<std::size_t>(i / p.n)];
          ASSERT_GE(output_error(p, changed), floor * (1 - 1e-6)) << i << " " << code;
        }
    }
}

TEST(Polish, WorksInAnyOrderAndKeepsItsBits) {
  const Problem p = make_problem(43, 300, 100, 400, 0.8);
  const Gram gram = gram_of(p);
  const ColumnQuantizer q = quantizer_of(int_spec(3), p);
  expect_same_for_all_threads([&] {
    Floats w = nearest(p, q);
    const auto done = polish(p.m, p.n, p.w.data(), w.data(), moments_for(gram, true), q, {3, {}});
    EXPECT_LT(done->after, 0.8 * done->before);
    return w;
  });
}

}  // namespace
}  // namespace quanvas::algorithms::test
