// Quanvas - gradients of integer quantizers with respect to what else than the scale is trained: the zero point and
// the width. Torch-free, single-threaded, sums in double in the order of the elements.
//
//   x~ = (clamp(round(x / s) + z, lo, hi) - z) s        (or the zero point inside the rounding)
//
// With the rounding straight through, inside [lo, hi] z cancels; outside x~ is (lo - z) s or (hi - z) s, whatever x is.
// A width b is learned as an offset o: b = round(|o| + 2), straight through the rounding (Brevitas' parametrization),
// and the limits are functions of it: lo = -2^(b-1), hi = 2^(b-1) - 1 signed, hi = 2^b - 1 unsigned.
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// dzero[p] += sum over the elements of p of dy * (0 inside, -s outside). dzero: one for each scale.
void zero_point_gradient(const QuantParams& params, const BlockLayout& layout, const float* x, const float* dy,
                         float* dzero);

// The sum over all elements of dy * (0 inside, s * dlo/db below, s * dhi/db above).
double width_gradient(const QuantParams& params, const BlockLayout& layout, const float* x, const float* dy);

// d lo / d b and d hi / d b of a width, times the step they are counted in.
struct LimitSlopes {
  double lo = 0, hi = 0;
};
LimitSlopes limit_slopes(const QuantSpec& spec, double bits);

// The width that an offset stands for, 2 to 32, and d |o| / d o: at 0 it is +1, or a width of 2 bits could not grow.
int learned_bits(double offset);
inline double learned_bits_slope(double offset) { return offset < 0 ? -1 : 1; }
// The same quantizer with another width: spec.bits, lo and hi; an integer zero point stays inside the codes.
void set_bits(QuantParams& params, int bits);

}  // namespace quanvas::quant
