// Quanvas - the factor of the damped second moments by which GPTQ and Qronos carry errors on. It depends on the data,
// the damping and the order alone, so one serves all bit widths, granularities and number formats of a layer.
//
// H_l = H + l I (rows and columns in the order of the rounding), H_l^-1 = U' U with U upper triangular
// (Frantar et al. 2023, GPTQ, section 3.3). U is found as the inverse of the upper triangular R with H_l = R R', which is
// half the work of inverting H_l first, and loses less of its digits.
#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "core/algorithms/gram.h"

namespace quanvas::algorithms {

struct FactorOptions {
  // l = damping * mean of the diagonal of H over inputs that are not dead; with `spectral` damping * the largest eigenvalue (Qronos). 0 or more.
  double damping = 0.01;
  bool spectral = false;
  // Inputs of large second moments first (GPTQ's "act-order"); equal ones in ascending order.
  bool act_order = false;
};

struct Factor {
  Moments moments;       // in the order of the rounding
  std::vector<float> u;  // [n, n], upper triangle, 0 below, in that order
  double damping = 0;    // l, after retries
  int retries = 0;       // times that l was made tenfold, for H_l was not positive definite
};

// Largest eigenvalue of a symmetric positive semidefinite matrix [n, n]: power iterations from a fixed start, until the
// quotient changes by less than `tolerance` of itself or `iterations` are done, or a
// stop is requested.
double largest_eigenvalue(std::int64_t n, const float* a, int iterations = 30, double tolerance = 1e-6,
                          const std::stop_token& stop = {});

// Dead inputs get that mean as their diagonal; nothing depends on it, for they are tied to no other. Memory: 8 n^2 bytes while it runs and 4 n^2 beside the moments after.
// Work: 2/3 n^3 operations in float64 on blocks of fixed size: the same bits for any number of threads.
// Errors: kInvalidArgument (damping), kCancelled, kOutOfMemory, kInternal when no damping makes H_l positive definite.
Result<Factor> factorize(const Gram& gram, const FactorOptions& options, const std::stop_token& stop = {});

}  // namespace quanvas::algorithms
