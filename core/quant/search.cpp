#include "core/quant/search.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/quant/apply.h"
#include "core/quant/kernels.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

double exact_tile_error(const Affine& a, const Grid& grid, const float* x, std::int64_t n) {
  const ElementQuantizer q(grid, a.scale, static_cast<double>(a.zero));
  double total = 0;
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

// One candidate on one tile, in units of its step.
double tile_error(const Affine& a, const Grid& grid, const float* x, std::int64_t n) {
  if (has_kernel(grid))
    return kernels().rank_error(x, n, 1.0f / a.scale, static_cast<float>(grid.lo) - a.zero,
                                static_cast<float>(grid.hi) - a.zero);
  return exact_tile_error(a, grid, x, n) / (static_cast<double>(a.scale) * static_cast<double>(a.scale));
}

// Errors by the fast kernel; all candidates pass over a tile while it is in the cache.
void ranked_errors(const Affine* candidates, int count, const Grid& grid, const float* x, std::int64_t n,
                   int threads, double* errors) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  const auto all = static_cast<std::size_t>(count);
  std::fill_n(errors, count, 0.0);
  if (tiles == 1) {
    for (std::size_t c = 0; c < all; ++c) errors[c] = tile_error(candidates[c], grid, x, n);
  } else {
    std::vector<double> parts(static_cast<std::size_t>(tiles) * all);
    parallel_for(tiles, threads, [&](std::int64_t t) {
      for (std::size_t c = 0; c < all; ++c)
        parts[static_cast<std::size_t>(t) * all + c] =
            tile_error(candidates[c], grid, x + t * kTile, std::min(kTile, n - t * kTile));
    });
    for (std::size_t i = 0; i < parts.size(); ++i) errors[i % all] += parts[i];
  }
  for (std::size_t c = 0; c < all; ++c)
    errors[c] *= static_cast<double>(candidates[c].scale) * static_cast<double>(candidates[c].scale);
}

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
  const Range best = search_range(spec, grid, extreme, kSearchSteps, kSearchFirst,
                                  [&](const Affine* candidates, int count, double* errors) {
                                    ranked_errors(candidates, count, grid, x, n, threads, errors);
                                  });
  if (best.lo == extreme.lo && best.hi == extreme.hi) return best;
  const double with = true_error(affine(spec, grid, best), grid, x, n, threads);
  const double without = true_error(affine(spec, grid, extreme), grid, x, n, threads);
  return with < without ? best : extreme;
}

}  // namespace quanvas::quant
