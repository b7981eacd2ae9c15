// Quanvas - the search for the range of least squared error. Private to core/quant.
#pragma once

#include <array>

#include "core/quant/affine.h"

namespace quanvas::quant {

inline constexpr int kMaxSearchSteps = 100;

// Tries fractions of `extreme` in `steps` equal steps from `first` / steps on: of the threshold (symmetric), or of
// both ends together, then of the lower, then of the upper one (asymmetric). `extreme` itself is always tried and
// wins ties. errors(candidates, count, out) writes the squared error of each candidate.
template <class Errors>
Range search_range(const QuantSpec& spec, const Grid& grid, Range extreme, int steps, int first,
                   const Errors& errors) {
  std::array<Affine, kMaxSearchSteps + 1> candidates;
  std::array<Range, kMaxSearchSteps + 1> ranges;
  std::array<double, kMaxSearchSteps + 1> found;
  Range best = extreme;
  candidates[0] = affine(spec, grid, extreme);
  errors(candidates.data(), 1, found.data());
  double least = found[0];
  const auto try_ends = [&](bool lower, bool upper) {
    int count = 0;
    for (int i = first; i <= steps; ++i, ++count) {
      const float share = static_cast<float>(i) / static_cast<float>(steps);
      Range r = best;
      if (lower) r.lo = extreme.lo * share;
      if (upper) r.hi = extreme.hi * share;
      ranges[static_cast<std::size_t>(count)] = r;
      candidates[static_cast<std::size_t>(count)] = affine(spec, grid, r);
    }
    errors(candidates.data(), count, found.data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      if (!(found[i] < least)) continue;
      least = found[i];
      best = ranges[i];
    }
  };
  try_ends(true, true);
  if (!is_symmetric(spec)) {
    try_ends(true, false);
    try_ends(false, true);
  }
  return best;
}

// The same on the elements x; the result is never worse than `extreme` on them.
Range mse_range(const QuantSpec& spec, const Grid& grid, const float* x, std::int64_t n, Range extreme,
                int threads);

}  // namespace quanvas::quant
