// Quanvas - quantizers with a scale for the codes and another for the values (Decoupling). Private to core/quant.
#pragma once

#include <cstdint>
#include <optional>

#include "core/quant/params.h"

namespace quanvas::quant {

// Bound of the l1 norm of a channel's codes, so that no input overflows a signed accumulator:
//   A2Q   (2^(P-1) - 1) 2^(sgn - N)   (Colbert et al. 2023, eq. 15)
//   A2Q+  (2^P - 2) / (2^N - 1)       (Colbert et al. 2024, zero-centered weights)
// P: accumulator_bits, N: accumulator_input_bits, sgn: 1 for signed inputs. The spec has accumulator_bits.
double code_norm_bound(const QuantSpec& spec);
// Whether sums of the codes with any input fit the accumulator: their positive and negative parts, each >= 0.
bool fits_accumulator(const QuantSpec& spec, double positive, double negative);

// code_scale (and center) of the size of scale; nothing without a scale of the codes' own.
void prepare_decoupling(QuantParams& params);
// The norm of x - center.
double code_norm(Decoupling kind, const float* x, std::int64_t n, float center);
// Of the parameter `index` from its elements x: code_scale = scale norm / g with g = length (default: the norm), or
// the bound times the scale where that is less. With accumulator_bits the codes of x fit the accumulator, exactly:
// code_scale grows until they do, or the one scale, when the quantizer is not decoupled.
void decouple(QuantParams& params, std::size_t index, const float* x, std::int64_t n,
              std::optional<double> length = {});

}  // namespace quanvas::quant
