// Quanvas - exact order statistics without sorting. Private to core/quant.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace quanvas::quant {

// The values of the given ranks (1-based, clamped to 1 .. n; ascending) of x or of |x|. n > 0; finite x.
// A sample says between which values the one of the rank lies; one pass keeps those and counts the ones below. Small n
// are selected directly. Where the sample misleads, two histograms over the order keys decide.
std::vector<float> order_statistics(const float* x, std::int64_t n, bool absolute,
                                    const std::vector<std::int64_t>& ranks, int threads);

// The same of |x| for a rank near the top, x not known to be finite: all larger ones are seen on the way. Nothing where the
// rank is too low for that, or the sample misleads.
struct HighMagnitude {
  float value = 0;
  bool finite = true;  // all of x; the value means nothing else
};
std::optional<HighMagnitude> high_magnitude(const float* x, std::int64_t n, std::int64_t rank, int threads);

// Ranks of a percentile among n values: floor(.01 q n + .5) from above, ceil(.01 (100 - q) n) from below.
std::int64_t upper_rank(double percent, double n);
std::int64_t lower_rank(double percent, double n);

}  // namespace quanvas::quant
