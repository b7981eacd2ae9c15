// Quanvas - scales and zero points made better after they were found: half-quadratic splitting (HQQ, Badri and Shaji 2023) of
// each parameter for itself, from where it is. The statistic `hqo` (docs/quantizers.md) is the same step as a way to find
// them: from the extremes, of all parameters together, scales or zero points. Torch-free, deterministic.
#pragma once

#include <stop_token>

#include "core/quant/params.h"

namespace quanvas::quant {

struct HalfQuadraticOptions {
  double power = 1;       // p of the loss sum |x - x~|^p, above 0, up to 2; HQQ's 0.7 was worse in networks (docs/passes.md)
  double beta = 1;        // of the first step, in units of the scale it starts from
  double growth = 1.05;   // of beta, for each step
  int iterations = 50;    // steps of the scale, and with a zero point as many of it in turns
  std::stop_token stop;
};
struct HalfQuadraticReport {
  double before = 0, after = 0;   // (mean |x - x~|^p)^(1/p)
  std::int64_t improved = 0;      // parameters that have changed
};

// Why the parameters of such a quantizer cannot be changed, as a clause about "it"; empty: they can. Scales must be free
// float32, found from a statistic.
std::string half_quadratic_problem(const QuantSpec& spec);
// params: frozen, of layout.elements() values x. Each parameter keeps the best scale and zero point that it meets; the start
// counts as met, so that no parameter's loss grows. Zero points stay whole numbers where the format has whole ones.
// Errors: kUnsupported (half_quadratic_problem), kCancelled (params are then unchanged).
Result<HalfQuadraticReport> refine_half_quadratic(QuantParams& params, const float* x, const HalfQuadraticOptions& options = {});

}  // namespace quanvas::quant
