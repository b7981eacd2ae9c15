// Problems and references in float64 for the tests of core/algorithms.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/algorithms/rounding.h"

namespace quanvas::algorithms::test {

using quant::ColumnQuantizer;
using quant::MatrixView;
using quant::QuantParams;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

struct Problem {
  std::int64_t m = 0, n = 0, columns = 0;
  Floats w;      // [m, n]
  Floats x, xt;  // [n, columns] of the float and of the quantized network
};

// Inputs of a random mixture, more alike the larger `correlation` (0 to 1); `mismatch`: how far xt is from x.
inline Problem make_problem(unsigned seed, std::int64_t m, std::int64_t n, std::int64_t columns, double correlation,
                            double mismatch = 0) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Problem p{m, n, columns, Floats(static_cast<std::size_t>(m * n)), Floats(static_cast<std::size_t>(n * columns)), {}};
  for (float& v : p.w) v = static_cast<float>(0.1 * normal(random));
  Doubles size(static_cast<std::size_t>(n));
  for (double& s : size) s = std::exp(0.5 * normal(random));
  for (std::int64_t c = 0; c < columns; ++c) {
    double last = normal(random);
    for (std::int64_t i = 0; i < n; ++i) {
      last = correlation * last + std::sqrt(1 - correlation * correlation) * normal(random);
      p.x[static_cast<std::size_t>(i * columns + c)] = static_cast<float>(size[static_cast<std::size_t>(i)] * last);
    }
  }
  p.xt = p.x;
  for (float& v : p.xt) v += static_cast<float>(mismatch * normal(random));
  return p;
}

inline Gram gram_of(const Problem& p, bool cross = false) {
  GramAccumulator sum(p.n, cross);
  EXPECT_TRUE(sum.add(p.xt.data(), cross ? p.x.data() : nullptr, p.columns, GramAccumulator::Order::kInputs, p.columns));
  auto gram = std::move(sum).finish();
  EXPECT_TRUE(gram) << gram.error().text();
  return *gram;
}

inline QuantSpec int_spec(int bits, Granularity granularity = Granularity::kChannel) {
  QuantSpec s;
  s.bits = bits;
  s.narrow = true;
  s.granularity = granularity;
  return s;
}

inline QuantParams params_of(const QuantSpec& spec, std::int64_t m, std::int64_t n, const Floats& w) {
  // Groups divide the inputs.
  auto params = quant::find_params(spec, {m, n}, w.data(), spec.granularity == Granularity::kGroup ? 1 : 0);
  EXPECT_TRUE(params) << params.error().text();
  return *params;
}

inline ColumnQuantizer quantizer_of(const QuantParams& params, std::int64_t m, std::int64_t n) {
  auto q = ColumnQuantizer::create(params, {m, n, 0, n, 1});
  EXPECT_TRUE(q) << q.error().text();
  return *q;
}
inline ColumnQuantizer quantizer_of(const QuantSpec& spec, const Problem& p) {
  return quantizer_of(params_of(spec, p.m, p.n, p.w), p.m, p.n);
}

inline Factor factor_of(const Gram& gram, const FactorOptions& options = {}) {
  auto factor = factorize(gram, options);
  EXPECT_TRUE(factor) << factor.error().text();
  return *factor;
}

inline Moments moments_for(const Gram& gram, bool act_order = false) {
  auto moments = moments_of(gram, act_order ? order_by_moments(gram) : natural_order(gram.inputs));
  EXPECT_TRUE(moments) << moments.error().text();
  return *moments;
}

inline Floats nearest(const Problem& p, const ColumnQuantizer& q) {
  Floats out(p.w.size());
  q.fake_matrix(p.w.data(), out.data());
  return out;
}

struct Rounded {
  Floats q;
  RoundingReport report;
};
inline Rounded run_gptq(const Problem& p, const Factor& factor, const ColumnQuantizer& quantizer,
                        const RoundingOptions& options = {}) {
  Rounded r{p.w, {}};
  auto done = gptq(p.m, p.n, r.q.data(), factor, quantizer, options);
  EXPECT_TRUE(done) << done.error().text();
  if (done) r.report = *done;
  return r;
}
inline Rounded run_gpfq(const Problem& p, const Gram& gram, const ColumnQuantizer& quantizer, bool act_order = false,
                        const RoundingOptions& options = {}) {
  Rounded r{p.w, {}};
  auto done = gpfq(p.m, p.n, r.q.data(), moments_for(gram, act_order), quantizer, options);
  EXPECT_TRUE(done) << done.error().text();
  if (done) r.report = *done;
  return r;
}
inline Rounded run_qronos(const Problem& p, const Factor& factor, const ColumnQuantizer& quantizer,
                          const RoundingOptions& options = {}) {
  Rounded r{p.w, {}};
  auto done = qronos(p.m, p.n, r.q.data(), factor, quantizer, options);
  EXPECT_TRUE(done) << done.error().text();
  if (done) r.report = *done;
  return r;
}

inline std::int64_t flips(const Floats& a, const Floats& b) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i];
  return count;
}

// |Q X~ - W X|^2 by the columns themselves, in float64.
inline double output_error(const Problem& p, const Floats& q) {
  double sum = 0;
  for (std::int64_t r = 0; r < p.m; ++r)
    for (std::int64_t c = 0; c < p.columns; ++c) {
      double d = 0;
      for (std::int64_t i = 0; i < p.n; ++i) {
        const auto wi = static_cast<std::size_t>(r * p.n + i), xi = static_cast<std::size_t>(i * p.columns + c);
        d += static_cast<double>(q[wi]) * static_cast<double>(p.xt[xi]) - static_cast<double>(p.w[wi]) * static_cast<double>(p.x[xi]);
      }
      sum += d * d;
    }
  return sum;
}

// The inverse by elimination with pivots, and the upper triangular u with a = u' u: textbook forms.
inline Doubles inverse_of(std::int64_t n, Doubles a) {
  Doubles b(a.size(), 0.0);
  const auto at = [n](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * n + j); };
  for (std::int64_t i = 0; i < n; ++i) b[at(i, i)] = 1;
  for (std::int64_t k = 0; k < n; ++k) {
    std::int64_t pivot = k;
    for (std::int64_t i = k; i < n; ++i)
      if (std::abs(a[at(i, k)]) > std::abs(a[at(pivot, k)])) pivot = i;
    for (std::int64_t j = 0; j < n; ++j) std::swap(a[at(k, j)], a[at(pivot, j)]), std::swap(b[at(k, j)], b[at(pivot, j)]);
    const double d = a[at(k, k)];
    for (std::int64_t j = 0; j < n; ++j) a[at(k, j)] /= d, b[at(k, j)] /= d;
    for (std::int64_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double f = a[at(i, k)];
      for (std::int64_t j = 0; j < n; ++j) a[at(i, j)] -= f * a[at(k, j)], b[at(i, j)] -= f * b[at(k, j)];
    }
  }
  return b;
}
inline Doubles upper_cholesky(std::int64_t n, const Doubles& a) {
  Doubles u(a.size(), 0.0);
  const auto at = [n](std::int64_t i, std::int64_t j) { return static_cast<std::size_t>(i * n + j); };
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = i; j < n; ++j) {
      double s = a[at(i, j)];
      for (std::int64_t k = 0; k < i; ++k) s -= u[at(k, i)] * u[at(k, j)];
      u[at(i, j)] = i == j ? std::sqrt(s) : s / u[at(i, i)];
    }
  return u;
}
// H + damping I in an order.
inline Doubles damped(const Gram& gram, double damping, const std::vector<std::int32_t>& order) {
  const std::int64_t n = gram.inputs;
  Doubles h(gram.h.size());
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      h[static_cast<std::size_t>(i * n + j)] =
          gram.h[static_cast<std::size_t>(order[static_cast<std::size_t>(i)] * n + order[static_cast<std::size_t>(j)])] +
          (i == j ? damping : 0);
  return h;
}

// GPTQ as the paper has it, column by column in float64; errors: sum of e_ij^2.
struct Reference {
  Floats q;
  double errors = 0;
};
inline Reference reference_gptq(const Problem& p, const Gram& gram, const Factor& factor, const ColumnQuantizer& quantizer) {
  const std::int64_t n = p.n;
  const Doubles u = upper_cholesky(n, inverse_of(n, damped(gram, factor.damping, factor.moments.order)));
  Reference out{Floats(p.w.size()), 0};
  for (std::int64_t r = 0; r < p.m; ++r) {
    Doubles w;
    for (const std::int32_t i : factor.moments.order) w.push_back(static_cast<double>(p.w[static_cast<std::size_t>(r * n + i)]));
    for (std::int64_t i = 0; i < n; ++i) {
      const auto column = factor.moments.order[static_cast<std::size_t>(i)];
      auto q = static_cast<float>(w[static_cast<std::size_t>(i)]);
      quantizer.fake(column, r, 1, &q, &q);
      out.q[static_cast<std::size_t>(r * n + column)] = q;
      const double e = (w[static_cast<std::size_t>(i)] - static_cast<double>(q)) / u[static_cast<std::size_t>(i * n + i)];
      out.errors += e * e;
      for (std::int64_t j = i; j < n; ++j) w[static_cast<std::size_t>(j)] -= e * u[static_cast<std::size_t>(i * n + j)];
    }
  }
  return out;
}

inline double squared_distance(const Floats& a, const Floats& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += d * d;
  }
  return sum;
}

// Runs f with 1, 2 and 3 kernel threads and expects the same bits.
template <class F>
void expect_same_for_all_threads(const F& f) {
  quant::set_kernel_threads(1);
  const auto one = f();
  for (const int threads : {2, 3}) {
    quant::set_kernel_threads(threads);
    EXPECT_EQ(one, f()) << threads << " threads";
  }
  quant::set_kernel_threads(0);
}

}  // namespace quanvas::algorithms::test
