#include "core/algorithms/magr.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

double largest(std::int64_t n, const float* x) {
  float most = 0;
  for (std::int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
  return static_cast<double>(most);
}

double largest_column_sum(std::int64_t n, const std::vector<double>& h) {
  double most = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::int64_t j = 0; j < n; ++j) sum += std::abs(h[static_cast<std::size_t>(i * n + j)]);
    most = std::max(most, sum);
  }
  return most;
}

}  // namespace

double l1_level(std::int64_t n, const float* x, double t) {
  // From below: the mean over those above the last level (Michelot 1986). Each round drops some, or it is found. Sums in
  // lanes of a fixed number, so that they have the same bits on every processor.
  constexpr std::int64_t kLanes = 8;
  double level = 0;
  for (std::int64_t above = n + 1;;) {
    double sums[kLanes] = {}, counts[kLanes] = {};
    std::int64_t i = 0;
    const auto limit = level;
    for (; i + kLanes <= n; i += kLanes)
      for (std::int64_t l = 0; l < kLanes; ++l) {
        const double a = std::fabs(static_cast<double>(x[i + l]));
        sums[l] += a > limit ? a : 0.0;
        counts[l] += a > limit ? 1.0 : 0.0;
      }
    double sum = 0, count = 0;
    for (; i < n; ++i)
      if (const double a = std::fabs(static_cast<double>(x[i])); a > limit) sum += a, count += 1;
    for (std::int64_t l = 0; l < kLanes; ++l) sum += sums[l], count += counts[l];
    const auto now = static_cast<std::int64_t>(count);
    if (now == 0 || now == above || (above > n && sum <= t)) return level;
    above = now;
    level = std::max(level, (sum - t) / count);
  }
}

void prox_infinity(std::int64_t n, float* x, double t) {
  const double level = l1_level(n, x, t);
  if (level == 0) {  // all together are no more than t
    if (t > 0) std::fill_n(x, n, 0.0f);
    return;
  }
  const auto limit = static_cast<float>(level);
  for (std::int64_t i = 0; i < n; ++i) x[i] = std::clamp(x[i], -limit, limit);
}

Result<MagrReport> magr(std::int64_t m, std::int64_t n, float* w, const Gram& gram, const MagrOptions& options) {
  QUANVAS_TRY(const Moments moments, moments_of(Gram{gram.inputs, gram.columns, gram.h, {}, {}}, natural_order(gram.inputs), options.stop));
  QUANVAS_CHECK(check_layer(m, n, w, moments, nullptr));
  if (!(options.alpha >= 0) || !std::isfinite(options.alpha) || options.steps < 0)
    return fail(ErrorCode::kInvalidArgument, "MagR's alpha is " + std::to_string(options.alpha) + " and its steps are " +
                                                 std::to_string(options.steps) + "; both must be 0 or more.");
  MagrReport report;
  for (std::int64_t r = 0; r < m; ++r) report.largest_before += largest(n, w + r * n) / static_cast<double>(m);
  report.largest_after = report.largest_before;
  // Power iterations come from below: a step a little shorter than 1 / lambda keeps the descent.
  const double norm = largest_column_sum(n, gram.h);
  const double lambda = std::min(norm, largest_eigenvalue(n, moments.h.data(), 100, 1e-6, options.stop) * (1 + 1e-5));
  if (!(lambda > 0) || options.alpha == 0) return report;
  const double cut = options.alpha * lambda / norm;
  std::vector<float> result(w, w + m * n);
  QUANVAS_CHECK(for_each_stripe(m, options.stop, [&](std::int64_t first, std::int64_t rows) {
    const std::int64_t count = rows * n;
    const float* start = w + first * n;
    float* x = result.data() + first * n;
    std::vector<float> moved(static_cast<std::size_t>(count));
    for (int step = 0; step < options.steps && !options.stop.stop_requested(); ++step) {
      for (std::int64_t i = 0; i < count; ++i) moved[static_cast<std::size_t>(i)] = x[i] - start[i];
      constexpr std::int64_t kBlock = 512;  // between two looks at `stop`
      for (std::int64_t c = 0; c < n && !options.stop.stop_requested(); c += kBlock)
        gemm(false, false, rows, std::min(kBlock, n - c), n, static_cast<float>(-1 / lambda), moved.data(), n, moments.h.data() + c,
             n, 1.0f, x + c, n);
      for (std::int64_t r = 0; r < rows; ++r) prox_infinity(n, x + r * n, cut);
    }
  }));
  report.largest_after = 0;
  for (std::int64_t r = 0; r < m; ++r) report.largest_after += largest(n, result.data() + r * n) / static_cast<double>(m);
  QUANVAS_TRY(const std::vector<double> error, row_objectives(m, n, w, result.data(), moments, options.stop));
  const double worth = cut * lambda * static_cast<double>(m);
  report.objective_before = worth * report.largest_before;
  report.objective_after = objective_sum(error) / 2 + worth * report.largest_after;
  std::copy(result.begin(), result.end(), w);
  return report;
}

}  // namespace quanvas::algorithms
