// Quanvas - training of quantizers with a scale for the codes and another for the values (Decoupling): weight
// normalization (Salimans and Kingma 2016) with a learned length g of each scale's elements, and A2Q's bound of it
// (Colbert et al. 2023). Torch-free, deterministic.
//
//   u = x - c   N = |u| (l1, l2 or the maximum)   g = min(2^t, s T)   v = u g / (s N)   q = clamp(round(v))   x~ =
//   q s
//
// c is the mean (zero_centered) or 0, T the bound of the codes' norm (accumulator_bits), infinite without one. With
// the rounding straight through:
//
//            inside                    outside
//   dx~/ds   q - v  (+ T u / N *)      q            * where the bound is below 2^t: g is a function of s there,
//   dx~/dt   u / N  g ln 2  (0 *)      0              not of t
//   dx~/du   g / N (1 - u/N dN/du)     0, or as inside when clipped values pass
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// log2 of the g that the quantizer has with its present code scales, one for each scale: where learning starts.
std::vector<float> present_lengths(const QuantParams& params, const BlockLayout& layout, const float* x);
// code_scale and center for the elements x and lengths log2 g. With accumulator_bits the codes of x fit the
// accumulator, exactly, whatever the lengths are.
void set_lengths(QuantParams& params, const BlockLayout& layout, const float* x, const std::vector<float>& lengths);

// params as set_lengths() left them. dscale and dlengths: one for each scale, added to; dx: written, may be dy.
void decoupled_backward(const QuantParams& params, const BlockLayout& layout, const std::vector<float>& lengths,
                        const float* x, const float* dy, float* dx, float* dscale, float* dlengths,
                        bool pass_clipped);

// A2Q's regularization, the sum over the scales of max(0, t - log2(s T)), and its gradients times `weight`, added
// to dscale and dlengths. 0 without accumulator_bits.
double length_penalty(const QuantParams& params, const std::vector<float>& lengths, double weight, float* dscale,
                      float* dlengths);

}  // namespace quanvas::quant
