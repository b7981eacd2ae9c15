// Quanvas - exact order statistics without sorting. Private to core/quant.
#pragma once

#include <cstdint>
#include <vector>

namespace quanvas::quant {

// The values of the given ranks (1-based, clamped to 1 .. n; ascending) of x or of |x|. n > 0; finite x.
// Two histograms over the order keys, first their upper, then their lower 16 bits; small n are selected directly.
std::vector<float> order_statistics(const float* x, std::int64_t n, bool absolute,
                                    const std::vector<std::int64_t>& ranks, int threads);

// Ranks of a percentile among n values: floor(.01 q n + .5) from above, ceil(.01 (100 - q) n) from below.
std::int64_t upper_rank(double percent, double n);
std::int64_t lower_rank(double percent, double n);

}  // namespace quanvas::quant
