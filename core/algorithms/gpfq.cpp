#include <algorithm>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

// sums[t] = what the mismatch of inputs j <= t asks of input t, pull[t] that of all inputs.
void pull_in_order(const Moments& moments, const Panel& w, const std::stop_token& stop, Panel& sums, Panel& pull) {
  constexpr std::int64_t kBlock = 64;
  const std::int64_t n = w.inputs, rows = w.rows;
  const float* mismatch = moments.mismatch.data();
  for (std::int64_t t = 0; t < n && !stop.stop_requested(); t += kBlock) {
    const std::int64_t count = std::min(kBlock, n - t), end = t + count;
    std::fill_n(sums.at(t), count * rows, 0.0f);
    gemm(true, false, count, rows, t, 1.0f, mismatch + t, n, w.data(), rows, 0.0f, sums.at(t), rows);
    for (std::int64_t k = t; k < end; ++k) {
      for (std::int64_t j = t; j <= k; ++j) subtract(rows, -mismatch[j * n + k], w.at(j), sums.at(k));
      std::copy_n(sums.at(k), rows, pull.at(k));
      for (std::int64_t j = k + 1; j < end; ++j) subtract(rows, -mismatch[j * n + k], w.at(j), pull.at(k));
    }
    gemm(true, false, count, rows, n - end, 1.0f, mismatch + end * n + t, n, w.at(end), rows, 1.0f, pull.at(t), rows);
  }
}

}  // namespace

// With A_t = sum over j <= t of w_j (G - H)_jt + sum over j < t of (w_j - q_j) H_jt the rule is q_t = Q(w_t + A_t / H_tt):
// differences of weights and of moments instead of differences of large sums, so that float32 suffices.
Result<RoundingReport> gpfq(std::int64_t m, std::int64_t n, float* w, const Moments& moments,
                            const quant::ColumnQuantizer& quantizer, const RoundingOptions& options) {
  return round_stripes(m, n, w, moments, quantizer, options, [&](const Panel& start, Panel& q, Panel& pull, Accumulator::Sums* bound, double*) {
    const std::int64_t rows = start.rows;
    Panel sums(n, start.first, rows);
    if (moments.mismatch.empty())
      std::fill_n(sums.data(), sums.elements(), 0.0f);
    else
      pull_in_order(moments, start, options.stop, sums, pull);
    // The panel loses H_ij error: with error = q - w it gains (w - q) H_ij.
    Diffusion diffusion(options.block, moments.h.data(), sums, options.stop);
    diffusion.run([&](std::int64_t t, float* error) {
      const float *x = start.at(t), *a = sums.at(t);
      float* y = q.at(t);
      const float moment = moments.h[static_cast<std::size_t>(t * n + t)];
      for (std::int64_t r = 0; r < rows; ++r) y[r] = moment > 0 ? x[r] + a[r] / moment : 0.0f;
      if (!bound) {
        quantizer.fake(moments.order[static_cast<std::size_t>(t)], start.first, rows, y, y);
        difference(rows, y, x, error);
        return;
      }
      std::copy_n(x, rows, error);
      bound->round(moments.order[static_cast<std::size_t>(t)], y, error);
      difference(rows, y, error, error);
    });
    return false;
  });
}

}  // namespace quanvas::algorithms
