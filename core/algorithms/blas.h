// Quanvas - matrix products and tasks. Private to core/algorithms. All matrices are row-major.
//
// A product runs on the calling thread alone. Parallelism comes from tasks over fixed blocks, so that each sum is formed
// in the same order for any number of threads. (LibTorch calls the same library with threads of its own.)
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <stop_token>

#include "core/base/result.h"
#include "core/quant/params.h"

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

// While it lives, products of the calling thread do not wake other threads.
class OneThread {
 public:
  OneThread();
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_ = 1;
};

// f(i) for i in [0, n), in any order, on the kernel threads of the caller (quant::set_kernel_threads). Each task touches
// only what belongs to it; tasks that have not begun when `stop` is requested are left out.
// Errors: kCancelled, kOutOfMemory when a task could not get memory.
template <class F>
Status for_each_task(std::int64_t n, const std::stop_token& stop, const F& f) {
  std::atomic<bool> no_memory = false;
  const int threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(quant::kernel_threads(), n)));
#pragma omp parallel num_threads(threads)
  {
    const OneThread one;
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t i = 0; i < n; ++i) {
      if (no_memory || stop.stop_requested()) continue;
      try {
        f(i);
      } catch (const std::bad_alloc&) {
        no_memory = true;
      }
    }
  }
  if (no_memory) return fail(ErrorCode::kOutOfMemory, "There is not enough memory for this layer.");
  if (stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
  return {};
}

}  // namespace quanvas::algorithms
