// Quanvas - where the elements of one parameter lie. Private to core/quant.
#pragma once

#include <algorithm>

#include "core/quant/params.h"

namespace quanvas::quant {

// `rows` runs of `run` elements, `stride` apart.
struct Strided {
  std::int64_t base = 0, rows = 0, run = 0, stride = 0;
  std::int64_t count() const { return rows * run; }
  bool contiguous() const { return rows == 1 || stride == run; }
};

inline Strided elements_of(const BlockLayout& l, std::int64_t p) {
  if (l.granularity == Granularity::kTensor) return {0, 1, l.elements(), l.elements()};
  if (l.granularity == Granularity::kChannel) return {p * l.inner, l.outer, l.inner, l.dim * l.inner};
  const std::int64_t groups = (l.dim + l.group - 1) / l.group;
  const std::int64_t i = p % l.inner, g = p / l.inner % groups, o = p / l.inner / groups;
  const std::int64_t first = g * l.group;
  return {(o * l.dim + first) * l.inner + i, std::min(l.group, l.dim - first), 1, l.inner};
}

}  // namespace quanvas::quant
