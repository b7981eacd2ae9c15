// Quanvas - searches for a quantizer other than by the squared error. Private to core/quant.
#pragma once

#include "core/quant/grid.h"
#include "core/quant/params.h"

namespace quanvas::quant {

// Threshold of |x| whose quantized histogram has the least Kullback-Leibler divergence from the clipped one
// (Migacz, "8-bit Inference with TensorRT", GTC 2017): 2048 bins up to `extreme`; candidates end at each bin from the
// number of levels on; counts beyond the candidate go to its last bin; each level is spread evenly over its non-empty
// bins; both are made probabilities and smoothed: an empty bin has 1e-4, taken from the others. `extreme` when there are no more bins than levels.
double kl_threshold(const Grid& grid, const float* x, std::int64_t n, double extreme);
// The same from counts of equal bins of |x| over [0, extreme].
double kl_threshold(const Grid& grid, const std::vector<double>& counts, double extreme);

// Half-quadratic splitting (Badri and Shaji 2023, "Half-Quadratic Quantization") of one parameter on its elements:
// of the zero point where there is one (l_p with p = 0.5, beta = 1), else of the scale (p = 0.7, beta = 1e5); beta
// grows by 1.01 a step, at most 1000 steps, ended when the mean absolute error does not fall. The best is kept.
void refine_half_quadratic(const Grid& grid, const float* x, std::int64_t n, QuantParams& params, std::size_t index);

}  // namespace quanvas::quant
