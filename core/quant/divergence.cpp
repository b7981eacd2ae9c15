#include "core/quant/divergence.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "core/quant/apply.h"

namespace quanvas::quant {
namespace {

constexpr std::size_t kBins = 2048;
constexpr double kSmooth = 1e-4;

// Prefix sums, so that a level costs nothing however many bins it has.
struct Prefix {
  std::vector<double> counts, filled;
  explicit Prefix(const std::vector<double>& bins) : counts(bins.size() + 1), filled(bins.size() + 1) {
    for (std::size_t i = 0; i < bins.size(); ++i) {
      counts[i + 1] = counts[i] + bins[i];
      filled[i + 1] = filled[i] + (bins[i] > 0 ? 1 : 0);
    }
  }
};

// KL(p || q) of the first `used` bins against their quantization to `levels`.
double divergence(const std::vector<double>& bins, const Prefix& prefix, std::size_t used, std::size_t levels) {
  const double total = prefix.counts.back();
  const double outliers = total - prefix.counts[used];
  const double q_total = prefix.counts[used];
  if (q_total <= 0) return HUGE_VAL;
  // Smoothing takes as much from the filled bins as it gives to the empty ones.
  const auto smoothed = [&](double probability, double filled) {
    const double empty = static_cast<double>(used) - filled;
    return probability > 0 ? probability - kSmooth * empty / std::max(1.0, filled) : kSmooth;
  };
  const double p_filled = prefix.filled[used] + (bins[used - 1] == 0 && outliers > 0 ? 1 : 0);
  double sum = 0;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::size_t begin = level * used / levels, end = (level + 1) * used / levels;
    const double filled = prefix.filled[end] - prefix.filled[begin];
    const double each = filled > 0 ? (prefix.counts[end] - prefix.counts[begin]) / filled : 0;
    for (std::size_t i = begin; i < end; ++i) {
      const double count = bins[i] + (i + 1 == used ? outliers : 0);
      const double p = smoothed(count / total, p_filled);
      const double q = smoothed(bins[i] > 0 ? each / q_total : 0, prefix.filled[used]);
      if (p > 0) sum += p * std::log(p / std::max(q, DBL_MIN));
    }
  }
  return sum;
}

double shrink(double d, double beta, double p) {
  const double a = std::fabs(d);
  if (a == 0) return 0;
  return std::copysign(std::max(0.0, a - std::pow(a, p - 1) / beta), d);
}

double mean_error(const ElementQuantizer& q, const float* x, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::fabs(static_cast<double>(x[i] - q.value(q.point(x[i], i))));
  return sum / static_cast<double>(n);
}

}  // namespace

double kl_threshold(const Grid& grid, const std::vector<double>& counts, double extreme) {
  // Levels of one sign: of 8 signed bits 128.
  const auto levels = static_cast<std::size_t>(std::max(1.0, grid.is_signed ? std::floor((grid.hi - grid.lo + 2) / 2) : grid.hi + 1));
  if (levels >= counts.size() || extreme <= 0) return extreme;
  const Prefix prefix(counts);
  double least = HUGE_VAL, best = extreme;
  for (std::size_t used = levels; used <= counts.size(); ++used) {
    const double found = divergence(counts, prefix, used, levels);
    if (!(found < least)) continue;
    least = found;
    best = used == counts.size() ? extreme : (static_cast<double>(used) + 0.5) * extreme / static_cast<double>(counts.size());
  }
  return best;
}

double kl_threshold(const Grid& grid, const float* x, std::int64_t n, double extreme) {
  if (extreme <= 0) return extreme;
  std::vector<double> counts(kBins);
  const double scale = static_cast<double>(kBins) / extreme;
  for (std::int64_t i = 0; i < n; ++i) {
    const double a = std::fabs(static_cast<double>(x[i]));
    if (!grid.is_signed && x[i] < 0) continue;
    counts[std::min(kBins - 1, static_cast<std::size_t>(a * scale))] += 1;
  }
  return kl_threshold(grid, counts, extreme);
}

void refine_half_quadratic(const Grid& grid, const float* x, std::int64_t n, QuantParams& params, std::size_t index) {
  if (n == 0) return;
  const bool zero_point = !params.zero_point.empty();
  const double p = zero_point ? 0.5 : 0.7;
  double beta = zero_point ? 1 : 1e5;
  const auto quantizer = [&](float scale, float zero) { return ElementQuantizer{grid, scale, static_cast<double>(zero)}; };
  float scale = params.scale[index], zero = zero_point ? params.zero_point[index] : 0.0f;
  double least = mean_error(quantizer(scale, zero), x, n);
  std::vector<double> ratios;
  for (int step = 0; step < 1000; ++step, beta *= 1.01) {
    const ElementQuantizer q = quantizer(scale, zero);
    double sum = 0;
    ratios.clear();
    for (std::int64_t i = 0; i < n; ++i) {
      const double code = q.point(x[i], i), error = static_cast<double>(x[i] - q.value(code));
      const double target = static_cast<double>(x[i]) - shrink(error, beta, p);
      if (zero_point) sum += code - target / static_cast<double>(scale);
      else if (code != 0) ratios.push_back(target / code);
    }
    float next_scale = scale, next_zero = zero;
    if (zero_point) {
      next_zero = static_cast<float>(sum / static_cast<double>(n));
      if (params.spec.zero_point == ZeroPointType::kInteger) next_zero = std::nearbyintf(next_zero);
    } else if (!ratios.empty()) {
      const auto middle = ratios.begin() + static_cast<std::ptrdiff_t>((ratios.size() - 1) / 2);
      std::nth_element(ratios.begin(), middle, ratios.end());
      next_scale = std::max(FLT_MIN, static_cast<float>(*middle));
    }
    const double found = mean_error(quantizer(next_scale, next_zero), x, n);
    if (!(found < least)) break;
    least = found;
    scale = next_scale;
    zero = next_zero;
  }
  params.scale[index] = scale;
  if (zero_point) params.zero_point[index] = zero;
}

}  // namespace quanvas::quant
