// Quanvas - finding a quantizer, applying it and measuring its error in as few passes over memory as the
// mathematics allows. Torch-free; threads as in params.h.
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// The same bits as find_params(), then fake_quantize() to y, then measure() to facts, for any number of threads.
// One pass over x where the scales follow from the extremes (absmax, minmax) and all elements of each scale fit in a
// cache: channels of up to 16384 elements in a row, rows, groups. Else one after the other.
// x, y: as many float32 as the shape says, contiguous, row-major; y may be x, or null: nothing is written. facts may
// be null. Errors are those of find_params(); y may be partly written then, but never where x was not finite.
Result<QuantParams> find_and_quantize(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis,
                                      float* y, SiteFacts* facts);

}  // namespace quanvas::quant
