// Quanvas - MagR, weight magnitude reduction before rounding (Zhang et al. 2024, arXiv 2406.00800).
#pragma once

#include <cstdint>
#include <stop_token>

#include "core/algorithms/gram.h"

namespace quanvas::algorithms {

struct MagrOptions {
  // What a smaller largest weight is worth: alpha of the paper, in units of lambda_max / |H|_1 (as Brevitas has it), so
  // that it does not depend on the scale of the data. 0 or more.
  double alpha = 0.01;
  int steps = 20;
  std::stop_token stop;
};

struct MagrReport {
  double objective_before = 0, objective_after = 0;  // see magr()
  double largest_before = 0, largest_after = 0;      // mean over rows of the largest magnitude
};

// Each row w of W [m, n] row-major, in place, goes `steps` steps of proximal gradient descent from w0 = itself on
//   1/2 (w - w0) H (w - w0)' + alpha' |w|_inf,   alpha' = alpha lambda^2 / |H|_1, step 1 / lambda, lambda the largest
// eigenvalue of H and |H|_1 the largest sum of magnitudes of a column. The proximal map of t |.|_inf is what is left
// after the projection on the l1 ball of radius t. The objective falls in each step, so no row's largest weight grows.
// W stays in float: it is a preparation for any rounding, whose scales must be found after it.
// Memory: 12 * 256 n bytes per thread and 4 n^2. Work: steps * m n^2. Threads, determinism and errors as rounding.h.
Result<MagrReport> magr(std::int64_t m, std::int64_t n, float* w, const Gram& gram, const MagrOptions& options = {});

// The level with sum of max(|x| - level, 0) = t over x [n]: what the projection on the l1 ball of radius t takes off each
// magnitude. 0 when the sum of all magnitudes is no more than t. t >= 0.
double l1_level(std::int64_t n, const float* x, double t);
// x := the proximal map of t |.|_inf at x [n], t >= 0: magnitudes cut at the level where what is cut off adds up to t;
// 0 when all together are no more than t.
void prox_infinity(std::int64_t n, float* x, double t);

}  // namespace quanvas::algorithms
