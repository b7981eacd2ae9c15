// Quanvas - truncation quantizers: integers that have a scale already (an accumulator, the sum of an average
// pooling) lose their low bits. The kernels of params.h apply what is found here. Torch-free.
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// Quantizer of the result: scale = input.scale * t with t = 2^(input.bits - spec.bits), at least 1 (msb), or the power
// of two that the spec's exponent rounding makes of `threshold`, the largest |x| to keep, between 1 and that
// (statistic). Refuses specs without truncation and inputs of fewer than 1 or more than 32 bits.
Result<QuantParams> truncation_params(const QuantSpec& spec, const Shape& shape, const TruncationInput& input,
                                      float threshold);
// The same truncation of integers that have another scale or width now: msb cuts off as many bits as there are too
// many, statistic what it cut off before, as far as there is so much.
Status retarget(QuantParams& params, const TruncationInput& input);

}  // namespace quanvas::quant
