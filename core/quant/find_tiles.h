// Quanvas - the pass that finds scales tile by tile and uses them while the tile is in the cache. Private to core/quant.
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// Whether find_in_tiles() holds: scales from the extremes of elements that lie in one span.
bool scales_from_tiles(const QuantSpec& spec, const BlockLayout& layout);
// Whether it can write y and facts, too: there are kernels for the quantizer.
bool values_from_tiles(const QuantSpec& spec, const BlockLayout& layout);

// spec: axis resolved. y, facts: see find_and_quantize(), null unless values_from_tiles(). False: not all elements are
// finite.
bool find_in_tiles(const QuantSpec& spec, const BlockLayout& layout, const float* x, float* y, SiteFacts* facts,
                   QuantParams& params);

// The spec with its axis as a number from 0 on.
QuantSpec with_axis(const QuantSpec& spec, const Shape& shape, int default_axis);

}  // namespace quanvas::quant
