#include <algorithm>
#include <cmath>
#include <string>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

// For each row d of a panel d' A d with A symmetric: blocks above the diagonal count twice, half the work.
void add_quadratic(const Panel& d, const float* a, double factor, const std::stop_token& stop, double* sums) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t n = d.inputs, rows = d.rows;
  std::vector<float> product(static_cast<std::size_t>(kBlock * rows));
  const auto add = [&](std::int64_t begin, std::int64_t count, double times) {
    for (std::int64_t k = 0; k < count; ++k) {
      const float *x = d.at(begin + k), *y = product.data() + k * rows;
      for (std::int64_t r = 0; r < rows; ++r) sums[r] += times * static_cast<double>(x[r]) * static_cast<double>(y[r]);
    }
  };
  for (std::int64_t i = 0; i < n && !stop.stop_requested(); i += kBlock) {
    const std::int64_t count = std::min(kBlock, n - i), rest = i + count;
    gemm(false, false, count, rows, count, 1.0f, a + i * n + i, n, d.at(i), rows, 0.0f, product.data(), rows);
    add(i, count, factor);
    if (rest == n) break;
    gemm(false, false, count, rows, n - rest, 1.0f, a + i * n + rest, n, d.at(rest), rows, 0.0f, product.data(), rows);
    add(i, count, 2 * factor);
  }
}

// For each row x' A y, A [n, n] with rows over x.
void add_bilinear(const Panel& x, const Panel& y, const float* a, double factor, const std::stop_token& stop, double* sums) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t n = x.inputs, rows = x.rows;
  std::vector<float> product(static_cast<std::size_t>(kBlock * rows));
  for (std::int64_t i = 0; i < n && !stop.stop_requested(); i += kBlock) {
    const std::int64_t count = std::min(kBlock, n - i);
    gemm(false, false, count, rows, n, 1.0f, a + i * n, n, y.data.data(), rows, 0.0f, product.data(), rows);
    for (std::int64_t k = 0; k < count; ++k) {
      const float *u = x.at(i + k), *v = product.data() + k * rows;
      for (std::int64_t r = 0; r < rows; ++r) sums[r] += factor * static_cast<double>(u[r]) * static_cast<double>(v[r]);
    }
  }
}

// Float32 forms of the objective's matrices, made once for several evaluations.
class Objective {
 public:
  Objective(const Gram& gram, const std::stop_token& stop) : n_(gram.inputs), stop_(stop) {
    const std::vector<std::int32_t> order = natural_order(n_);
    h_ = reordered(n_, gram.h, nullptr, order, stop);
    if (!gram.has_cross()) return;
    mismatch_ = reordered(n_, gram.g, &gram.h, order, stop);
    std::vector<double> rest(gram.h.size());
    for (std::int64_t i = 0; i < n_; ++i)
      for (std::int64_t j = 0; j < n_; ++j) {
        const auto ij = static_cast<std::size_t>(i * n_ + j), ji = static_cast<std::size_t>(j * n_ + i);
        rest[ij] = gram.s[ij] + gram.h[ij] - gram.g[ij] - gram.g[ji];
      }
    rest_ = reordered(n_, rest, nullptr, order, stop);
  }

  Status rows(std::int64_t m, const float* w, const float* q, double* sums) const {
    const std::vector<std::int32_t> order = natural_order(n_);
    return for_each_stripe(m, stop_, [&](std::int64_t first, std::int64_t count) {
      Panel weights(n_, first, count), delta(n_, first, count);
      weights.load(w, order);
      delta.load(q, order);
      for (std::size_t i = 0; i < delta.data.size(); ++i) delta.data[i] -= weights.data[i];
      std::fill(sums + first, sums + first + count, 0.0);
      add_quadratic(delta, h_.data(), 1, stop_, sums + first);
      if (mismatch_.empty()) return;
      add_bilinear(weights, delta, mismatch_.data(), -2, stop_, sums + first);
      add_quadratic(weights, rest_.data(), 1, stop_, sums + first);
    });
  }

 private:
  std::int64_t n_;
  std::stop_token stop_;
  std::vector<float> h_, mismatch_, rest_;  // H, G - H, S + H - G - G'
};

}  // namespace

Status check_layer(std::int64_t m, std::int64_t n, const float* w, const Gram& gram,
                   const quant::ColumnQuantizer* quantizer) {
  if (m < 1 || n < 1 || gram.inputs != n || (quantizer && (quantizer->rows() != m || quantizer->columns() != n)))
    return fail(ErrorCode::kInvalidArgument,
                "The weights are " + std::to_string(m) + " x " + std::to_string(n) + ", the second moments are those of " +
                    std::to_string(gram.inputs) + " inputs" +
                    (quantizer ? " and the quantizer is for " + std::to_string(quantizer->rows()) + " x " +
                                     std::to_string(quantizer->columns())
                               : "") +
                    ".");
  for (std::int64_t i = 0; i < m * n; ++i)
    if (!std::isfinite(w[i]))
      return fail(ErrorCode::kInvalidArgument, "Weight " + std::to_string(i % n) + " of output " + std::to_string(i / n) +
                                                   " is not finite.", "Look at the model's weights.");
  return {};
}

std::vector<float> reordered(std::int64_t n, const std::vector<double>& a, const std::vector<double>* minus,
                             const std::vector<std::int32_t>& order, const std::stop_token& stop) {
  std::vector<float> out(static_cast<std::size_t>(n * n));
  constexpr std::int64_t kRows = 64;
  // A stop is seen by whoever goes on with the result.
  (void)for_each_task((n + kRows - 1) / kRows, stop, [&](std::int64_t block) {
    for (std::int64_t i = block * kRows; i < std::min(n, (block + 1) * kRows); ++i) {
      const std::int64_t from = static_cast<std::int64_t>(order[static_cast<std::size_t>(i)]) * n;
      const double *row = a.data() + from, *less = minus ? minus->data() + from : nullptr;
      float* to = out.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) {
        const std::int32_t k = order[static_cast<std::size_t>(j)];
        to[j] = static_cast<float>(less ? row[k] - less[k] : row[k]);
      }
    }
  });
  return out;
}

Result<std::vector<double>> row_objectives(std::int64_t m, std::int64_t n, const float* w, const float* q,
                                           const Gram& gram, const std::stop_token& stop) {
  QUANVAS_CHECK(check_layer(m, n, w, gram, nullptr));
  std::vector<double> sums(static_cast<std::size_t>(m));
  QUANVAS_CHECK(Objective(gram, stop).rows(m, w, q, sums.data()));
  return sums;
}

double objective_sum(const std::vector<double>& rows) {
  double sum = 0;
  for (const double v : rows) sum += v;
  return sum;
}

Status fill_objectives(std::int64_t m, std::int64_t n, const float* w, const float* q, const Gram& gram,
                       const quant::ColumnQuantizer& quantizer, const RoundingOptions& options, RoundingReport& report) {
  for (std::int64_t i = 0; i < n; ++i) report.dead += gram.h[static_cast<std::size_t>(i * (n + 1))] == 0;
  if (!options.report) return {};
  const Objective objective(gram, options.stop);
  std::vector<double> sums(static_cast<std::size_t>(m));
  QUANVAS_CHECK(objective.rows(m, w, q, sums.data()));
  report.after = objective_sum(sums);
  std::vector<float> nearest(static_cast<std::size_t>(m * n));
  quantizer.fake_matrix(w, nearest.data());
  QUANVAS_CHECK(objective.rows(m, w, nearest.data(), sums.data()));
  report.before = objective_sum(sums);
  return {};
}

}  // namespace quanvas::algorithms
