#include "core/quant/search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/quant/apply.h"
#include "core/quant/kernels.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

// Any quantizer's squared error, by its kernel if there is one.
double exact_tile_error(const Affine& a, const Grid& grid, const float* x, std::int64_t n) {
  const bool is_float = grid.family == Family::kFloat && grid.rounding == Rounding::kHalfEven;
  const double zero = static_cast<double>(a.zero);
  const double furthest = grid.offset ? std::max(-grid.lo, grid.hi) : std::max(zero - grid.lo, grid.hi - zero);
  const bool small =
      grid.family != Family::kInteger ||
      (furthest < static_cast<double>(kMaxSteps) && (grid.inside || grid.offset || zero == std::nearbyint(zero)));
  double total = 0;
  if (is_float || (small && has_general_grid(grid))) {
    const FloatGrid minifloat = is_float ? float_grid_of(grid) : FloatGrid();
    const GeneralGrid general = is_float ? GeneralGrid() : general_grid_of(grid);
    float y[kRankBlock];
    Rows row;
    row.rows = 1;
    row.scale = &a.scale;
    row.zero = &a.zero;
    row.lo = static_cast<float>(grid.lo);
    row.hi = static_cast<float>(grid.hi);
    for (std::int64_t i = 0; i < n; i += kRankBlock) {
      row.length = row.last = std::min(kRankBlock, n - i);
      if (is_float)
        kernels().fake_float(row, minifloat, x + i, y);
      else
        kernels().general(row, general, x + i, y, nullptr);
      total += kernels().pair_sums(x + i, y, row.length).dd;
    }
    return total;
  }
  const ElementQuantizer q(grid, a.scale, zero);
  for (std::int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i] - q.value(q.point(x[i], i)));
    total += d * d;
  }
  return total;
}

// Whether the kernels that know integers only hold.
bool has_kernel(const Grid& grid) {
  return grid.family == Family::kInteger && grid.rounding == Rounding::kHalfEven && !grid.inside && !grid.offset;
}

// Squared errors of candidates, by the fast kernel where it holds, summed unit by unit in order. A candidate whose
// sum so far is beyond the least error known is given up: squares only add to it, so it cannot be chosen.
class Ranking {
 public:
  Ranking(const Grid& grid, const float* x, std::int64_t n, int threads)
      : grid_(grid),
        x_(x),
        n_(n),
        threads_(threads),
        unit_(n <= kTile && has_kernel(grid) ? kRankBlock : kTile),
        units_((n + unit_ - 1) / unit_) {}

  // errors: of those given up infinity.
  void operator()(const Affine* candidates, int count, double* errors) {
    std::array<int, kMaxSearchSteps> order{};
    std::iota(order.begin(), order.begin() + count, 0);
    std::fill_n(errors, count, 0.0);
    if (units_ == 1) return only_unit(candidates, order.data(), count, errors);
    // All of them on the first units say which to look at first.
    const std::int64_t first = std::max<std::int64_t>(1, units_ / 16);
    add(candidates, order.data(), count, 0, first, errors);
    std::sort(order.begin(), order.begin() + count,
              [&](int a, int b) { return scaled(candidates[a], errors[a]) < scaled(candidates[b], errors[b]); });
    // The most promising ones to the end, then the others piece by piece.
    const int best = std::min(kTogether, count);
    finish(candidates, order.data(), best, first, units_, errors);
    finish(candidates, order.data() + best, count - best, first, std::max<std::int64_t>(1, units_ / 4), errors);
  }

  // Whether the least error lies so far below that of the first candidate that the reciprocals and float32 sums of
  // the ranking cannot have made the difference: values of up to 8 bits are off by less than 1e-4 steps by them,
  // which is little beside errors of a hundredth of a step and more.
  bool is_certain(const Affine& best) const {
    const double step = static_cast<double>(best.scale);
    return has_kernel(grid_) && grid_.hi - grid_.lo <= 256 && least_ < 0.98 * extreme_ &&
           least_ > 1e-4 * step * step * static_cast<double>(n_);
  }

 private:
  static constexpr int kTogether = 4;  // as many as the kernel takes at once

  static double scaled(const Affine& a, double error) {
    return error * (static_cast<double>(a.scale) * static_cast<double>(a.scale));
  }

  // Too few elements for anything to be given up.
  void only_unit(const Affine* candidates, const int* order, int count, double* errors) {
    unit_errors(candidates, order, count, x_, n_, errors);
    for (int c = 0; c < count; ++c) errors[c] = scaled(candidates[c], errors[c]);
    least_ = std::min(least_, *std::min_element(errors, errors + count));
    if (extreme_ < 0) extreme_ = least_;
  }

  // The chosen candidates on units [begin, end).
  void add(const Affine* candidates, const int* chosen, int count, std::int64_t begin, std::int64_t end,
           double* errors) {
    parts_.resize(static_cast<std::size_t>((end - begin) * count));
    parallel_for(end - begin, threads_, [&](std::int64_t u) {
      const std::int64_t at = (begin + u) * unit_;
      unit_errors(candidates, chosen, count, x_ + at, std::min(unit_, n_ - at), parts_.data() + u * count);
    });
    for (std::int64_t u = 0; u < end - begin; ++u)
      for (int c = 0; c < count; ++c) errors[chosen[c]] += parts_[static_cast<std::size_t>(u * count + c)];
  }

  void finish(const Affine* candidates, int* chosen, int count, std::int64_t begin, std::int64_t wave,
              double* errors) {
    for (std::int64_t u = begin; u < units_ && count > 0; u += wave) {
      int kept = 0;
      for (int c = 0; c < count; ++c) {
        double& error = errors[chosen[c]];
        if (scaled(candidates[chosen[c]], error) > least_)
          error = std::numeric_limits<double>::infinity();
        else
          chosen[kept++] = chosen[c];
      }
      count = kept;
      add(candidates, chosen, count, u, std::min(units_, u + wave), errors);
    }
    for (int c = 0; c < count; ++c) {
      double& error = errors[chosen[c]];
      error = scaled(candidates[chosen[c]], error);
      least_ = std::min(least_, error);
    }
    if (extreme_ < 0) extreme_ = least_;
  }

  // In units of each candidate's step.
  void unit_errors(const Affine* candidates, const int* chosen, int count, const float* x, std::int64_t n,
                   double* errors) const {
    std::fill_n(errors, count, 0.0);
    if (!has_kernel(grid_)) {
      for (int c = 0; c < count; ++c) {
        const Affine& a = candidates[chosen[c]];
        errors[c] =
            exact_tile_error(a, grid_, x, n) / (static_cast<double>(a.scale) * static_cast<double>(a.scale));
      }
      return;
    }
    std::array<Candidate, kMaxSearchSteps> steps;
    for (int c = 0; c < count; ++c) {
      const Affine& a = candidates[chosen[c]];
      steps[static_cast<std::size_t>(c)] = {1.0f / a.scale, static_cast<float>(grid_.lo) - a.zero,
                                            static_cast<float>(grid_.hi) - a.zero};
    }
    std::array<float, kMaxSearchSteps> sums;
    for (std::int64_t i = 0; i < n; i += kRankBlock) {
      kernels().rank_errors(x + i, std::min(kRankBlock, n - i), steps.data(), count, sums.data());
      for (int c = 0; c < count; ++c) errors[c] += static_cast<double>(sums[static_cast<std::size_t>(c)]);
    }
  }

  const Grid& grid_;
  const float* x_;
  std::int64_t n_;
  int threads_;
  std::int64_t unit_, units_;
  double least_ = std::numeric_limits<double>::infinity(), extreme_ = -1;
  std::vector<double> parts_;
};

double true_error(const Affine& a, const Grid& grid, const float* x, std::int64_t n, int threads) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  std::vector<double> parts(static_cast<std::size_t>(tiles));
  parallel_for(tiles, threads, [&](std::int64_t t) {
    const std::int64_t begin = t * kTile;
    const std::int64_t count = std::min(kTile, n - begin);
    parts[static_cast<std::size_t>(t)] =
        has_kernel(grid) ? kernels().exact_error(x + begin, count, a.scale, static_cast<float>(grid.lo) - a.zero,
                                                 static_cast<float>(grid.hi) - a.zero)
                         : exact_tile_error(a, grid, x + begin, count);
  });
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

}  // namespace

Range mse_range(const QuantSpec& spec, const Grid& grid, const float* x, std::int64_t n, Range extreme,
                int threads) {
  // Codes beyond 22 bits (a 32-bit bias): nothing to gain from clipping.
  if (grid.family == Family::kInteger && static_cast<float>(grid.hi - grid.lo) + 1 > kMaxSteps) return extreme;
  Ranking ranking(grid, x, n, threads);
  const Range best = search_range(
      spec, grid, extreme, kSearchSteps, kSearchFirst,
      [&](const Affine* candidates, int count, double* errors) { ranking(candidates, count, errors); });
  if ((best.lo == extreme.lo && best.hi == extreme.hi) || ranking.is_certain(affine(spec, grid, best))) return best;
  const double with = true_error(affine(spec, grid, best), grid, x, n, threads);
  const double without = true_error(affine(spec, grid, extreme), grid, x, n, threads);
  return with < without ? best : extreme;
}

}  // namespace quanvas::quant
