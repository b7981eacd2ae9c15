// Quanvas - searches for a quantizer other than by the squared error. Private to core/quant.
#pragma once

#include "core/quant/affine.h"
#include "core/quant/grid.h"
#include "core/quant/params.h"

namespace quanvas::quant {

// Threshold of |x| whose quantized histogram has the least Kullback-Leibler divergence from the clipped one
// (Migacz, "8-bit Inference with TensorRT", GTC 2017): kl_bins() up to `extreme`; candidates end at each bin from the
// number of levels on; counts beyond the candidate go to its last bin; each level is spread evenly over its non-empty
// bins; counts are smoothed (an empty bin has 1e-4,
// taken from the others) and made probabilities. `extreme` when there are no more bins than levels.
double kl_threshold(const Grid& grid, const float* x, std::int64_t n, double extreme);
// 16 for each level, as 2048 are for the 128 of 8 bits; no more than that. More for fewer levels is noise,
// and so are more bins than values.
std::size_t kl_bins(const Grid& grid, double values);
// The same from counts of equal bins of |x| over [0, extreme].
double kl_threshold(const Grid& grid, const std::vector<double>& counts, double extreme);

// One step of half-quadratic splitting (Badri and Shaji 2023, "Half-Quadratic Quantization") under the loss sum |x - x~|^p:
// what the shrink operator d - |d|^(p-1) / beta leaves of the errors d counts as no error of the quantizer; the scale
// becomes the (weighted) median of what the rest asks of it, or the zero point the mean.
struct HalfQuadraticStep {
  bool scale = true;      // else the zero point
  bool weighted = false;  // each ratio by its code's magnitude: the scale of least sum of magnitudes
  double power = 0.7, beta = 1;
};
Affine half_quadratic_step(const Grid& grid, ZeroPointType zero_point, Affine now, const HalfQuadraticStep& step, const float* x, std::int64_t n);

// Half-quadratic splitting: of the zero points where there are
// some (l_p with p = 0.5, beta = 1), else of the scales (p = 0.7, beta = 1e5); beta grows by 1.01 a step, at most 1000
// steps, ended when the mean absolute error of the whole tensor does not fall. The best is kept in params.
//   do { step(p, ...) for each parameter p, in any order and thread } while (advance());
class HalfQuadratic {
 public:
  HalfQuadratic(const Grid& grid, QuantParams& params);  // keeps both
  void step(std::size_t index, const float* x, std::int64_t n);  // x: the parameter's elements
  bool advance();

 private:
  static constexpr int kMostSteps = 1000;
  static constexpr double kGrowth = 1.01;
  const Grid& grid_;
  QuantParams& params_;
  bool zero_point_;
  double power_, beta_, least_ = 0;
  int steps_ = 0;
  std::vector<float> scale_, zero_;
  std::vector<double> errors_;
};

}  // namespace quanvas::quant
