// Quanvas - descent on orthogonal matrices along Cayley curves.
//
// With G the gradient of a loss at an orthogonal R and A = G R' - R G', which is skew-symmetric, the curve
//   R(t) = (I + t/2 A)^-1 (I - t/2 A) R
// stays orthogonal for every t and begins in the direction -A R, in which the loss falls with |A|_F^2 / 2
// (Wen and Yin 2013, "A feasible method for optimization with orthogonality constraints", eq. 7; Li, Li and Todorovic 2020,
// "Efficient Riemannian Optimization on the Stiefel Manifold via the Cayley Transform"; rotations of networks: Liu et al. 2024,
// "SpinQuant", section 3.2). The determinant keeps its sign.
#pragma once

#include <cstdint>
#include <stop_token>
#include <vector>

#include "core/base/result.h"

namespace quanvas::algorithms {

// Matrices are row-major [n, n] in double. r: orthogonal, becomes R(t) with t = min(rate, 1 / |A|_1), where |A|_1 is the
// largest sum of magnitudes of a column: then t/2 A is below 1/2 and the step turns nothing by more than 54 degrees. Returns t;
// 0 where A is 0 or holds NaN, and r stays as it is.
//
// The solve is exact: with K = t/2 A, (I + K)^-1 (I - K) = (I - K)^2 (I + K'K)^-1, whose last factor has a condition of at most
// 1.25. R'R stays I to about 1e-15 n^(1/2) for each step, so that nothing has to be made orthogonal again.
// 10 n^3 products; the same bits for any number of threads. Errors: kCancelled, kOutOfMemory.
//
// velocity: in place of A the step goes along V := momentum V + A (at first empty), the heavy ball; A belongs to no place on
// the curve, so that those of earlier steps can be added as they are.
Result<double> cayley_step(std::int64_t n, std::vector<double>& r, const std::vector<double>& gradient, double rate,
                           const std::stop_token& stop = {}, std::vector<double>* velocity = nullptr, double momentum = 0);

// The largest magnitude in R'R - I; NaN where r holds one.
double orthogonality_error(std::int64_t n, const std::vector<double>& r);

// out += a' b for matrices [rows, n] row-major, out [n, n]: the gradient of R for y = x R with a = x and b the gradient of y.
// The same bits for any number of threads. Errors: kCancelled, kOutOfMemory.
Status add_outer_products(const double* a, const double* b, std::int64_t rows, std::int64_t n, std::vector<double>& out,
                          const std::stop_token& stop = {});

}  // namespace quanvas::algorithms
