// Quanvas - matrix products. Private to core/algorithms. All matrices are row-major.
//
// Inside tasks (tasks.h) a product runs on the calling thread alone.
#pragma once

#include <cstdint>

#include "core/algorithms/tasks.h"

namespace quanvas::algorithms {

// c[m,n] = alpha op(a) op(b) + beta c; op(a) is [m,k]: a is [m,k], or with `ta` [k,m]; op(b) is [k,n]. ld*: elements
// from one row to the next.
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a, std::int64_t lda,
          const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc);
void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha, const double* a,
          std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc);
// The lower triangle of c[n,n] = alpha op(a) op(a)' + beta c; op(a) is [n,k].
void syrk_lower(bool ta, std::int64_t n, std::int64_t k, float alpha, const float* a, std::int64_t lda, float beta,
                float* c, std::int64_t ldc);
void syrk_lower(bool ta, std::int64_t n, std::int64_t k, double alpha, const double* a, std::int64_t lda, double beta,
                double* c, std::int64_t ldc);
// b[m,n] := b l'^-1 with l[n,n] lower triangular.
void solve_right_lower_transposed(std::int64_t m, std::int64_t n, const double* l, std::int64_t ldl, double* b,
                                  std::int64_t ldb);
// a[n,n] = l l', l over the lower triangle of a. False: not positive definite.
bool cholesky_lower(std::int64_t n, double* a, std::int64_t lda);
// The lower triangular l[n,n] := l^-1. Its diagonal is not 0.
void invert_lower(std::int64_t n, double* l, std::int64_t ldl);

}  // namespace quanvas::algorithms
