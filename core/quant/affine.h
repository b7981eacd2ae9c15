// Quanvas - from a value range to scale and zero point: the one place where that rule stands.
#pragma once

#include "core/quant/grid.h"
#include "core/quant/params.h"

namespace quanvas::quant {

// Value range that the codes shall cover. Symmetric: hi is the threshold, lo is not used.
struct Range {
  float lo = 0, hi = 0;
};
struct Affine {
  float scale = 1, zero = 0;
};
// What a threshold or range of 0 counts as, so that a block of zeros has a scale.
inline constexpr float kSmallestRange = 1e-10f;

Affine affine(const QuantSpec& spec, const Grid& grid, Range range);
// Parameters of a layout with room for their scales and zero points, all 0.
QuantParams empty_params(const QuantSpec& spec, const BlockLayout& layout);

inline bool is_symmetric(const QuantSpec& spec) { return spec.zero_point == ZeroPointType::kNone; }

// Range from the extremes, as statistics absmax and minmax mean it.
Range extreme_range(const QuantSpec& spec, float lowest, float highest);

// Fixed clip limits instead of `found`; a limit that is not given keeps what was found.
Result<Range> clipped_range(const QuantSpec& spec, Range found);
inline bool has_clip(const QuantSpec& spec) { return spec.clip_min || spec.clip_max; }

// The searches of statistic mse: fractions of the symmetric threshold, i / 20 for i = 2 .. 20.
inline constexpr int kSearchSteps = 20, kSearchFirst = 2;

}  // namespace quanvas::quant
