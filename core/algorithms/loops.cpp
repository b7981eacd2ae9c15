// Compiled for several instruction sets, chosen when the program is loaded. No fused multiply-add, so
// all give the same bits but for sums across elements (dot).
#include "core/algorithms/panel.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define QUANVAS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define QUANVAS_CLONES
#endif

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace quanvas::algorithms {
namespace {

// Rows that are a power of two apart share their places in the first-level cache, and more than 8 would drive each other
// out: pieces of 8 rows and 16 inputs, a cache line of each row.
constexpr std::int64_t kRows = 8, kInputs = 16;

template <class F, class Four>
void by_pieces(std::int64_t n, std::int64_t rows, const std::int32_t* order, const F& one, const Four& four) {
  for (std::int64_t r0 = 0; r0 < rows; r0 += kRows) {
    const std::int64_t r1 = std::min(rows, r0 + kRows);
    for (std::int64_t k0 = 0; k0 < n; k0 += kInputs) {
      const std::int64_t k1 = std::min(n, k0 + kInputs);
      for (std::int64_t k = k0; k < k1;) {
        const bool together = k + 4 <= k1 && order[k + 1] == order[k] + 1 && order[k + 2] == order[k] + 2 && order[k + 3] == order[k] + 3;
        std::int64_t r = r0;
        if (together)
          for (; r + 4 <= r1; r += 4) four(k, r);
        const std::int64_t count = together ? 4 : 1;
        for (; r < r1; ++r)
          for (std::int64_t i = k; i < k + count; ++i) one(i, r);
        k += count;
      }
    }
  }
}

// The square of four rows at `from`, from_stride apart, transposed to `to`.
inline void transpose_four(const float* from, std::int64_t from_stride, float* to, std::int64_t to_stride) {
#if defined(__SSE__)
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_stride), c = _mm_loadu_ps(from + 2 * from_stride),
         d = _mm_loadu_ps(from + 3 * from_stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_stride, b);
  _mm_storeu_ps(to + 2 * to_stride, c);
  _mm_storeu_ps(to + 3 * to_stride, d);
#else
  for (std::int64_t i = 0; i < 4; ++i)
    for (std::int64_t j = 0; j < 4; ++j) to[j * to_stride + i] = from[i * from_stride + j];
#endif
}

}  // namespace

void load_rows(std::int64_t n, std::int64_t rows, const float* w, const std::int32_t* order, float* panel) {
  by_pieces(n, rows, order, [&](std::int64_t k, std::int64_t r) { panel[k * rows + r] = w[r * n + order[k]]; },
            [&](std::int64_t k, std::int64_t r) { transpose_four(w + r * n + order[k], n, panel + k * rows + r, rows); });
}

void store_rows(std::int64_t n, std::int64_t rows, const float* panel, const std::int32_t* order, float* w) {
  by_pieces(n, rows, order, [&](std::int64_t k, std::int64_t r) { w[r * n + order[k]] = panel[k * rows + r]; },
            [&](std::int64_t k, std::int64_t r) { transpose_four(panel + k * rows + r, rows, w + r * n + order[k], n); });
}

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
