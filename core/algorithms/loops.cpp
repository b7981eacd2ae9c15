// Compiled for several instruction sets, chosen when the program is loaded. No fused multiply-add, so
// all give the same bits but for sums across elements (dot).
#include "core/algorithms/panel.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QUANVAS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define QUANVAS_CLONES
#endif

namespace quanvas::algorithms {

QUANVAS_CLONES void subtract(std::int64_t n, float a, const float* x, float* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] -= a * x[i];
}

QUANVAS_CLONES void take_error(std::int64_t n, float diagonal, const float* q, float* error, double* squares) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float e = (error[i] - q[i]) / diagonal;
    error[i] = e;
    squares[i] += static_cast<double>(e) * static_cast<double>(e);
  }
}

QUANVAS_CLONES void add_products(std::int64_t n, double factor, const float* x, const float* y, double* sums) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) sums[i] += factor * (static_cast<double>(x[i]) * static_cast<double>(y[i]));
}

QUANVAS_CLONES void add_squares(std::int64_t n, const float* x, const float* y, double* sums) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sums[i] += d * d;
  }
}

QUANVAS_CLONES double dot(std::int64_t n, const float* x, const float* y) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return sum;
}

QUANVAS_CLONES bool all_finite(std::int64_t n, const float* x) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t bad = 0;
#pragma omp simd reduction(| : bad)
  for (std::int64_t i = 0; i < n; ++i) bad |= (__builtin_bit_cast(std::uint32_t, x[i]) & kExponent) == kExponent ? 1u : 0u;
  return bad == 0;
}

QUANVAS_CLONES void difference(std::int64_t n, const float* x, const float* y, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] - y[i];
}

}  // namespace quanvas::algorithms
