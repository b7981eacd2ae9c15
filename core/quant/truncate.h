// Quanvas - truncation quantizers: integers that have a scale already (an accumulator, the sum of an average pooling)
// lose their low bits. Torch-free.
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// The integers as they come in: x = q * scale, q of so many bits, signed or not as the spec says.
struct TruncationInput {
  float scale = 1;  // > 0, finite
  int bits = 32;    // at most 32
};

// Quantizer of the result: scale = input.scale * t with t = 2^(input.bits - spec.bits), at least 1 (msb), or the power
// of two that the spec's exponent rounding makes of `threshold`, the largest |x| to keep, between 1 and that
// (statistic). Refuses specs without truncation and inputs of fewer than 1 or more than 32 bits.
Result<QuantParams> truncation_params(const QuantSpec& spec, const Shape& shape, const TruncationInput& input,
                                      float threshold);
// codes = clamp(round(rint(x / input.scale) / t)), t = params.scale / input.scale; y = codes * params.scale. Both may be
// null. n elements.
void truncate(const QuantParams& params, const TruncationInput& input, const float* x, std::int64_t n, float* y,
              std::int32_t* codes);

}  // namespace quanvas::quant
