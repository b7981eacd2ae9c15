#include <algorithm>
#include <cmath>
#include <string>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

// sums[r] += factor * sum of x[i] y[i] over a block of inputs.
void add_block(std::int64_t count, std::int64_t rows, const float* x, const float* y, double factor, double* sums) {
  for (std::int64_t k = 0; k < count; ++k) add_products(rows, factor, x + k * rows, y + k * rows, sums);
}

// For each row d of a panel d' A d with A symmetric: blocks right of the diagonal count twice, half the work.
void add_quadratic(const Panel& d, const float* a, const std::stop_token& stop, double* sums) {
  constexpr std::int64_t kBlock = 128;
  const std::int64_t n = d.inputs, rows = d.rows;
  const auto product = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(kBlock * rows));
  for (std::int64_t i = 0; i < n && !stop.stop_requested(); i += kBlock) {
    const std::int64_t count = std::min(kBlock, n - i), rest = i + count;
    gemm(false, false, count, rows, count, 1.0f, a + i * n + i, n, d.at(i), rows, 0.0f, product.get(), rows);
    gemm(false, false, count, rows, n - rest, 2.0f, a + i * n + rest, n, d.at(rest), rows, 1.0f, product.get(), rows);
    add_block(count, rows, d.at(i), product.get(), 1, sums);
  }
}

}  // namespace

Status check_layer(std::int64_t m, std::int64_t n, const float* w, const Moments& moments,
                   const quant::ColumnQuantizer* quantizer) {
  if (m < 1 || n < 1 || moments.inputs != n || (quantizer && (quantizer->rows() != m || quantizer->columns() != n)))
    return fail(ErrorCode::kInvalidArgument,
                "The weights are " + std::to_string(m) + " x " + std::to_string(n) + ", the second moments are those of " +
                    std::to_string(moments.inputs) + " inputs" +
                    (quantizer ? " and the quantizer is for " + std::to_string(quantizer->rows()) + " x " +
                                     std::to_string(quantizer->columns())
                               : "") +
                    ".");
  if (all_finite(m * n, w)) return {};
  for (std::int64_t i = 0; i < m * n; ++i)
    if (!std::isfinite(w[i]))
      return fail(ErrorCode::kInvalidArgument,
                  "Weight " + std::to_string(i % n) + " of output " + std::to_string(i / n) + " is not finite.",
                  "Look at the model's weights.");
  return {};
}

void mismatch_pull(const Moments& moments, const Panel& w, const std::stop_token& stop, Panel& out) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t n = w.inputs;
  for (std::int64_t t = 0; t < n && !stop.stop_requested(); t += kBlock)
    gemm(true, false, std::min(kBlock, n - t), w.rows, n, 1.0f, moments.mismatch.data() + t, n, w.data(), w.rows, 0.0f,
         out.at(t), w.rows);
}

void panel_objectives(const Moments& moments, const Panel& w, const Panel& q, const Panel* pull, const std::stop_token& stop,
                      double* sums) {
  Panel delta(w.inputs, w.first, w.rows);
  difference(w.elements(), q.data(), w.data(), delta.data());
  std::fill_n(sums, w.rows, 0.0);
  add_quadratic(delta, moments.h.data(), stop, sums);
  if (moments.mismatch.empty()) return;
  add_block(w.inputs, w.rows, pull->data(), delta.data(), -2, sums);
  if (!moments.rest.empty()) add_quadratic(w, moments.rest.data(), stop, sums);
}

Result<std::vector<double>> row_objectives(std::int64_t m, std::int64_t n, const float* w, const float* q,
                                           const Moments& moments, const std::stop_token& stop) {
  QUANVAS_CHECK(check_layer(m, n, w, moments, nullptr));
  std::vector<double> sums(static_cast<std::size_t>(m));
  QUANVAS_CHECK(for_each_stripe(m, stop, [&](std::int64_t first, std::int64_t rows) {
    Panel weights(n, first, rows), rounded(n, first, rows), pull(moments.mismatch.empty() ? 0 : n, first, rows);
    weights.load(w, moments.order);
    rounded.load(q, moments.order);
    if (!moments.mismatch.empty()) mismatch_pull(moments, weights, stop, pull);
    panel_objectives(moments, weights, rounded, &pull, stop, sums.data() + first);
  }));
  return sums;
}

double objective_sum(const std::vector<double>& rows) {
  double sum = 0;
  for (const double v : rows) sum += v;
  return sum;
}

}  // namespace quanvas::algorithms
