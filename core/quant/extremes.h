// Quanvas - the least and the greatest element of each parameter. Private to core/quant.
#pragma once

#include <vector>

#include "core/quant/params.h"

namespace quanvas::quant {

// Lowest and highest value of each parameter's elements; 0 where it has none.
struct Extremes {
  std::vector<float> lowest, highest;
  bool finite = true;
};

Extremes find_extremes(const BlockLayout& layout, const float* x);

// The refusal of a tensor of n elements that are not all finite: what the first bad one is, and where.
Failure non_finite(const Shape& shape, const float* x, std::int64_t n);

}  // namespace quanvas::quant
