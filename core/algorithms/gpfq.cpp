#include <algorithm>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {

// With A_t = sum over j <= t of w_j (G - H)_jt + sum over j < t of (w_j - q_j) H_jt the rule is q_t = Q(w_t + A_t / H_tt):
// differences of weights and of moments instead of differences of large sums, so that float32 suffices.
Result<RoundingReport> gpfq(std::int64_t m, std::int64_t n, float* w, const Gram& gram,
                            const std::vector<std::int32_t>& order, const quant::ColumnQuantizer& quantizer,
                            const RoundingOptions& options) {
  QUANVAS_CHECK(check_layer(m, n, w, gram, &quantizer));
  if (static_cast<std::int64_t>(order.size()) != n)
    return fail(ErrorCode::kInternal, "The order is one of " + std::to_string(order.size()) + " inputs, the layer has " +
                                          std::to_string(n) + ".");
  const std::vector<float> h = reordered(n, gram.h, nullptr, order, options.stop);
  const std::vector<float> mismatch =
      gram.has_cross() ? reordered(n, gram.g, &gram.h, order, options.stop) : std::vector<float>{};
  std::vector<float> result(static_cast<std::size_t>(m * n));
  QUANVAS_CHECK(for_each_stripe(m, options.stop, [&](std::int64_t first, std::int64_t rows) {
    Panel weights(n, first, rows), sums(n, first, rows);
    weights.load(w, order);
    if (!mismatch.empty()) {
      constexpr std::int64_t kBlock = 128;
      for (std::int64_t t = 0; t < n && !options.stop.stop_requested(); t += kBlock) {
        const std::int64_t count = std::min(kBlock, n - t);
        gemm(true, false, count, rows, t, 1.0f, mismatch.data() + t, n, weights.data.data(), rows, 0.0f, sums.at(t), rows);
        for (std::int64_t k = t; k < t + count; ++k)
          for (std::int64_t j = t; j <= k; ++j)
            subtract(rows, -mismatch[static_cast<std::size_t>(j * n + k)], weights.at(j), sums.at(k));
      }
    }
    // The panel loses H_ij error: with error = q - w it gains (w - q) H_ij.
    Diffusion diffusion(0, options.block, h.data(), sums, options.stop);
    diffusion.run([&](std::int64_t t, float* error) {
      float *x = weights.at(t), *a = sums.at(t);
      const float moment = h[static_cast<std::size_t>(t * n + t)];
      std::copy_n(x, rows, error);
      if (moment > 0) {
        for (std::int64_t r = 0; r < rows; ++r) x[r] += a[r] / moment;
      } else {
        std::fill_n(x, rows, 0.0f);
      }
      quantizer.fake(order[static_cast<std::size_t>(t)], first, rows, x, x);
      for (std::int64_t r = 0; r < rows; ++r) error[r] = x[r] - error[r];
    });
    weights.store(result.data(), order);
  }));
  RoundingReport report;
  QUANVAS_CHECK(fill_objectives(m, n, w, result.data(), gram, quantizer, options, report));
  std::copy(result.begin(), result.end(), w);
  return report;
}

}  // namespace quanvas::algorithms
