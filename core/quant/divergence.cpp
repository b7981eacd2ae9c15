#include "core/quant/divergence.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/quant/apply.h"

namespace quanvas::quant {
namespace {

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
  // Smoothing takes as much from the filled bins as it gives to the empty ones. Of counts, not of probabilities: there a
  // ten-thousandth is as much as a tail of 20 values in 200,000, and the threshold of 8 bits falls far below the extreme.
  const auto smoothed = [&](double count, double filled) {
    const double empty = static_cast<double>(used) - filled;
    return count > 0 ? count - kSmooth * empty / std::max(1.0, filled) : kSmooth;
  };
  const double p_filled = prefix.filled[used] + (bins[used - 1] == 0 && outliers > 0 ? 1 : 0);
  double sum = 0;
  for (std::size_t level = 0; level < levels; ++level) {
    const std::size_t begin = level * used / levels, end = (level + 1) * used / levels;
    const double filled = prefix.filled[end] - prefix.filled[begin];
    const double each = filled > 0 ? (prefix.counts[end] - prefix.counts[begin]) / filled : 0;
    for (std::size_t i = begin; i < end; ++i) {
      const double count = bins[i] + (i + 1 == used ? outliers : 0);
      const double p = smoothed(count, p_filled) / total;
      const double q = smoothed(bins[i] > 0 ? each : 0, prefix.filled[used]) / q_total;
      if (p > 0) sum += p * std::log(p / std::max(q, DBL_MIN));
    }
  }
  return sum;
}

// Levels of one sign: of 8 signed bits 128.
std::size_t levels_of(const Grid& grid) {
  return static_cast<std::size_t>(std::max(1.0, grid.is_signed ? std::floor((grid.hi - grid.lo + 2) / 2) : grid.hi + 1));
}

double shrink(double d, double beta, double p) {
  const double a = std::fabs(d);
  if (a == 0) return 0;
  return std::copysign(std::max(0.0, a - std::pow(a, p - 1) / beta), d);
}

}  // namespace

std::size_t kl_bins(const Grid& grid, double values) {
  const auto bins = static_cast<double>(std::min<std::size_t>(2048, 16 * levels_of(grid)));
  return static_cast<std::size_t>(std::max(1.0, std::min(bins, values)));
}

double kl_threshold(const Grid& grid, const std::vector<double>& counts, double extreme) {
  const std::size_t levels = levels_of(grid);
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
  std::vector<double> counts(kl_bins(grid, static_cast<double>(n)));
  const double scale = static_cast<double>(counts.size()) / extreme;
  for (std::int64_t i = 0; i < n; ++i) {
    const double a = std::fabs(static_cast<double>(x[i]));
    if (!grid.is_signed && x[i] < 0) continue;
    counts[std::min(counts.size() - 1, static_cast<std::size_t>(a * scale))] += 1;
  }
  return kl_threshold(grid, counts, extreme);
}

HalfQuadratic::HalfQuadratic(const Grid& grid, QuantParams& params)
    : grid_(grid), params_(params), zero_point_(!params.zero_point.empty()), power_(zero_point_ ? 0.5 : 0.7),
      beta_(zero_point_ ? 1 : 1e5), scale_(params.scale), zero_(params.zero_point), errors_(params.scale.size()) {}

Affine half_quadratic_step(const Grid& grid, ZeroPointType zero_point, Affine now, const HalfQuadraticStep& step, const float* x, std::int64_t n) {
  const ElementQuantizer q(grid, now.scale, static_cast<double>(now.zero));
  const auto zero = static_cast<double>(now.zero);
  double sum = 0;
  std::vector<std::pair<double, double>> ratios;  // with their weights
  if (step.scale) ratios.reserve(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const double code = q.point(x[i], i), error = static_cast<double>(x[i] - q.value(code));
    const double target = static_cast<double>(x[i]) - shrink(error, step.beta, step.power);
    if (!step.scale) {
      sum += code - target / static_cast<double>(now.scale);
      continue;
    }
    const double steps = grid.family == Family::kInteger ? code - zero : static_cast<double>(q.value(code)) / static_cast<double>(now.scale);
    if (steps != 0) ratios.emplace_back(target / steps, step.weighted ? std::fabs(steps) : 1.0);
  }
  if (!step.scale && n > 0) {
    now.zero = static_cast<float>(sum / static_cast<double>(n));
    if (zero_point == ZeroPointType::kInteger)
      now.zero = std::clamp(std::nearbyintf(now.zero), static_cast<float>(grid.lo), static_cast<float>(grid.hi));
    return now;
  }
  if (ratios.empty()) return now;
  double middle = 0;
  if (step.weighted) {
    std::sort(ratios.begin(), ratios.end());
    double all = 0, below = 0;
    for (const auto& [ratio, weight] : ratios) all += weight;
    for (const auto& [ratio, weight] : ratios) {
      middle = ratio;
      if ((below += weight) >= 0.5 * all) break;
    }
  } else {
    const auto at = ratios.begin() + static_cast<std::ptrdiff_t>((ratios.size() - 1) / 2);
    std::nth_element(ratios.begin(), at, ratios.end());
    middle = at->first;
  }
  now.scale = std::clamp(static_cast<float>(middle), FLT_MIN, FLT_MAX);
  return now;
}

void HalfQuadratic::step(std::size_t index, const float* x, std::int64_t n) {
  float& scale = scale_[index];
  float none = 0;
  float& zero = zero_point_ ? zero_[index] : none;
  if (steps_ > 0) {
    const Affine next = half_quadratic_step(grid_, params_.spec.zero_point, {scale, zero}, {!zero_point_, false, power_, beta_}, x, n);
    scale = next.scale;
    zero = next.zero;
  }
  const ElementQuantizer q(grid_, scale, static_cast<double>(zero));
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::fabs(static_cast<double>(x[i] - q.value(q.point(x[i], i))));
  errors_[index] = sum;
}

bool HalfQuadratic::advance() {
  const double found = std::accumulate(errors_.begin(), errors_.end(), 0.0);
  if (steps_ > 0) {
    if (!(found < least_)) return false;
    params_.scale = scale_;
    params_.zero_point = zero_;
    if (steps_ > 1) beta_ *= kGrowth;
  }
  least_ = found;
  return steps_++ < kMostSteps;
}

}  // namespace quanvas::quant
