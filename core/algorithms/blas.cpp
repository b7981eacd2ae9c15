#include "core/algorithms/blas.h"

#include <mutex>

// The Fortran interface, which every BLAS has; it is column-major, so operands change places.
extern "C" {
using BlasInt = int;
void sgemm_(const char*, const char*, const BlasInt*, const BlasInt*, const BlasInt*, const float*, const float*,
            const BlasInt*, const float*, const BlasInt*, const float*, float*, const BlasInt*);
void dgemm_(const char*, const char*, const BlasInt*, const BlasInt*, const BlasInt*, const double*, const double*,
            const BlasInt*, const double*, const BlasInt*, const double*, double*, const BlasInt*);
void ssyrk_(const char*, const char*, const BlasInt*, const BlasInt*, const float*, const float*, const BlasInt*,
            const float*, float*, const BlasInt*);
void dsyrk_(const char*, const char*, const BlasInt*, const BlasInt*, const double*, const double*, const BlasInt*,
            const double*, double*, const BlasInt*);
void dtrsm_(const char*, const char*, const char*, const char*, const BlasInt*, const BlasInt*, const double*,
            const double*, const BlasInt*, double*, const BlasInt*);
void dpotrf_(const char*, const BlasInt*, double*, const BlasInt*, BlasInt*);
void dtrtri_(const char*, const char*, const BlasInt*, double*, const BlasInt*, BlasInt*);
int openblas_get_parallel();
void openblas_set_num_threads(int);
}

namespace quanvas::algorithms {
namespace {

BlasInt narrow(std::int64_t v) { return static_cast<BlasInt>(v); }
const char* transposed(bool t) { return t ? "T" : "N"; }

}  // namespace

OneThread::OneThread() : before_(omp_get_max_threads()) {
  // The build with OpenMP goes by the calling thread's own setting; that with pthreads has one for all threads.
  static std::once_flag once;
  std::call_once(once, [] {
    constexpr int kPthreads = 1;
    if (openblas_get_parallel() == kPthreads) openblas_set_num_threads(1);
  });
  omp_set_num_threads(1);
}

void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, const float* a,
          std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  if (m <= 0 || n <= 0 || k <= 0) return;
  const BlasInt mi = narrow(m), ni = narrow(n), ki = narrow(k), ai = narrow(lda), bi = narrow(ldb), ci = narrow(ldc);
  sgemm_(transposed(tb), transposed(ta), &ni, &mi, &ki, &alpha, b, &bi, a, &ai, &beta, c, &ci);
}

void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha, const double* a,
          std::int64_t lda, const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
  if (m <= 0 || n <= 0 || k <= 0) return;
  const BlasInt mi = narrow(m), ni = narrow(n), ki = narrow(k), ai = narrow(lda), bi = narrow(ldb), ci = narrow(ldc);
  dgemm_(transposed(tb), transposed(ta), &ni, &mi, &ki, &alpha, b, &bi, a, &ai, &beta, c, &ci);
}

void syrk_lower(bool ta, std::int64_t n, std::int64_t k, float alpha, const float* a, std::int64_t lda, float beta,
                float* c, std::int64_t ldc) {
  const BlasInt ni = narrow(n), ki = narrow(k), ai = narrow(lda), ci = narrow(ldc);
  ssyrk_("U", transposed(!ta), &ni, &ki, &alpha, a, &ai, &beta, c, &ci);
}

void syrk_lower(bool ta, std::int64_t n, std::int64_t k, double alpha, const double* a, std::int64_t lda, double beta,
                double* c, std::int64_t ldc) {
  const BlasInt ni = narrow(n), ki = narrow(k), ai = narrow(lda), ci = narrow(ldc);
  dsyrk_("U", transposed(!ta), &ni, &ki, &alpha, a, &ai, &beta, c, &ci);
}

void solve_right_lower_transposed(std::int64_t m, std::int64_t n, const double* l, std::int64_t ldl, double* b,
                                  std::int64_t ldb) {
  if (m <= 0 || n <= 0) return;
  // Column-major: b is [n,m], l is upper and b := l'^-1 b.
  const BlasInt mi = narrow(m), ni = narrow(n), li = narrow(ldl), bi = narrow(ldb);
  const double one = 1;
  dtrsm_("L", "U", "T", "N", &ni, &mi, &one, l, &li, b, &bi);
}

bool cholesky_lower(std::int64_t n, double* a, std::int64_t lda) {
  const BlasInt ni = narrow(n), ai = narrow(lda);
  BlasInt info = 0;
  dpotrf_("U", &ni, a, &ai, &info);
  return info == 0;
}

void invert_lower(std::int64_t n, double* l, std::int64_t ldl) {
  const BlasInt ni = narrow(n), li = narrow(ldl);
  BlasInt info = 0;
  dtrtri_("U", "N", &ni, l, &li, &info);
}

}  // namespace quanvas::algorithms
