#include "core/quant/search.h"

#include "core/quant/kernels.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

enum class Ends { kBoth, kLower, kUpper };

// Errors by the fast kernel; all candidates pass over a tile while it is in the cache.
std::vector<double> ranked_errors(const std::vector<Affine>& candidates, const CodeRange& codes, const float* x,
                                  std::int64_t n, int threads) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  const std::size_t count = candidates.size();
  std::vector<double> parts(static_cast<std::size_t>(tiles) * count);
  parallel_for(tiles, threads, [&](std::int64_t t) {
    const std::int64_t begin = t * kTile, length = std::min(kTile, n - begin);
    for (std::size_t c = 0; c < count; ++c) {
      const Affine& a = candidates[c];
      parts[static_cast<std::size_t>(t) * count + c] =
          kernels().rank_error(x + begin, length, 1.0f / a.scale, static_cast<float>(codes.lo) - a.zero,
                               static_cast<float>(codes.hi) - a.zero);
    }
  });
  std::vector<double> errors(count);
  for (std::size_t i = 0; i < parts.size(); ++i) errors[i % count] += parts[i];
  for (std::size_t c = 0; c < count; ++c)
    errors[c] *= static_cast<double>(candidates[c].scale) * static_cast<double>(candidates[c].scale);
  return errors;
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
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

}  // namespace

Range search_range(const QuantSpec& spec, const CodeRange& codes, Range extreme, int steps, int first,
                   const CandidateErrors& errors) {
  Range best = extreme;
  double least = errors({affine(spec, codes, extreme)})[0];
  const auto try_ends = [&](Ends ends) {
    std::vector<Range> ranges;
    std::vector<Affine> candidates;
    for (int i = first; i <= steps; ++i) {
      const float share = static_cast<float>(i) / static_cast<float>(steps);
      // Of one end: fractions of its extreme, the other end as found so far.
      Range r = best;
      if (ends != Ends::kUpper) r.lo = extreme.lo * share;
      if (ends != Ends::kLower) r.hi = extreme.hi * share;
      ranges.push_back(r);
      candidates.push_back(affine(spec, codes, r));
    }
    const std::vector<double> found = errors(candidates);
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      if (!(found[i] < least)) continue;
      least = found[i];
      best = ranges[i];
    }
  };
  try_ends(Ends::kBoth);
  if (!is_symmetric(spec)) {
    try_ends(Ends::kLower);
    try_ends(Ends::kUpper);
  }
  return best;
}

Range mse_range(const QuantSpec& spec, const CodeRange& codes, const float* x, std::int64_t n, Range extreme,
                int threads) {
  // Codes beyond 22 bits (a 32-bit bias): nothing to gain from clipping.
  if (static_cast<float>(codes.hi - codes.lo) + 1 > kMaxSteps) return extreme;
  const Range best = search_range(spec, codes, extreme, kSearchSteps, kSearchFirst,
                                  [&](const std::vector<Affine>& c) { return ranked_errors(c, codes, x, n, threads); });
  if (best.lo == extreme.lo && best.hi == extreme.hi) return best;
  const double with = true_error(affine(spec, codes, best), codes, x, n, threads);
  const double without = true_error(affine(spec, codes, extreme), codes, x, n, threads);
  return with < without ? best : extreme;
}

}  // namespace quanvas::quant
