#include "core/quant/search.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/quant/kernels.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

// One candidate on one tile, in units of its step.
double tile_error(const Affine& a, const CodeRange& codes, const float* x, std::int64_t n) {
  return kernels().rank_error(x, n, 1.0f / a.scale, static_cast<float>(codes.lo) - a.zero,
                              static_cast<float>(codes.hi) - a.zero);
}

// Errors by the fast kernel; all candidates pass over a tile while it is in the cache.
void ranked_errors(const Affine* candidates, int count, const CodeRange& codes, const float* x, std::int64_t n,
                   int threads, double* errors) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  const auto all = static_cast<std::size_t>(count);
  std::fill_n(errors, count, 0.0);
  if (tiles == 1) {
    for (std::size_t c = 0; c < all; ++c) errors[c] = tile_error(candidates[c], codes, x, n);
  } else {
    std::vector<double> parts(static_cast<std::size_t>(tiles) * all);
    parallel_for(tiles, threads, [&](std::int64_t t) {
      for (std::size_t c = 0; c < all; ++c)
        parts[static_cast<std::size_t>(t) * all + c] =
            tile_error(candidates[c], codes, x + t * kTile, std::min(kTile, n - t * kTile));
    });
    for (std::size_t i = 0; i < parts.size(); ++i) errors[i % all] += parts[i];
  }
  for (std::size_t c = 0; c < all; ++c)
    errors[c] *= static_cast<double>(candidates[c].scale) * static_cast<double>(candidates[c].scale);
}

double true_error(const Affine& a, const CodeRange& codes, const float* x, std::int64_t n, int threads) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  std::vector<double> parts(static_cast<std::size_t>(tiles));
  parallel_for(tiles, threads, [&](std::int64_t t) {
    const std::int64_t begin = t * kTile;
    parts[static_cast<std::size_t>(t)] =
        kernels().exact_error(x + begin, std::min(kTile, n - begin), a.scale,
                              static_cast<float>(codes.lo) - a.zero, static_cast<float>(codes.hi) - a.zero);
  });
  return std::accumulate(parts.begin(), parts.end(), 0.0);
}

}  // namespace

Range mse_range(const QuantSpec& spec, const CodeRange& codes, const float* x, std::int64_t n, Range extreme,
                int threads) {
  // Codes beyond 22 bits (a 32-bit bias): nothing to gain from clipping.
  if (static_cast<float>(codes.hi - codes.lo) + 1 > kMaxSteps) return extreme;
  const Range best = search_range(spec, codes, extreme, kSearchSteps, kSearchFirst,
                                  [&](const Affine* candidates, int count, double* errors) {
                                    ranked_errors(candidates, count, codes, x, n, threads, errors);
                                  });
  if (best.lo == extreme.lo && best.hi == extreme.hi) return best;
  const double with = true_error(affine(spec, codes, best), codes, x, n, threads);
  const double without = true_error(affine(spec, codes, extreme), codes, x, n, threads);
  return with < without ? best : extreme;
}

}  // namespace quanvas::quant
