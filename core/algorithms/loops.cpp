// Compiled for several instruction sets, chosen when the program is loaded. No fused multiply-add, so
// all give the same bits but for sums across elements (dot).
#include "core/algorithms/panel.h"

#include <cmath>

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

QUANVAS_CLONES void soften(std::int64_t n, const float* level, float* x) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) x[i] = std::copysign(std::max(std::fabs(x[i]) - level[i], 0.0f), x[i]);
}

namespace {

// How far codes may go to either side, after which the sums are what they were.
struct Room {
  double up, down;
};
inline Room room_of(const CodeBound& b, double positive, double negative) {
  constexpr double kAny = 1e15;
  const double above = b.most - b.high * positive - b.low * negative, below = b.most + b.low * positive + b.high * negative;
  // Quotients of whole numbers below 2^33 are never rounded up to a whole number: they are at least 2^-33 of it away.
  const double a = b.high > 0 ? std::floor(above / b.high) : kAny, c = b.low < 0 ? std::floor(below / -b.low) : kAny;
  const double d = b.high > 0 ? std::floor(below / b.high) : kAny, e = b.low < 0 ? std::floor(above / -b.low) : kAny;
  return {std::min(a, c), std::min(d, e)};
}

}  // namespace

QUANVAS_CLONES void bound_codes(std::int64_t n, const CodeBound& given, const float* scale, float* x, const float* wish, float* kept,
                                double* positive, double* negative, double* moved) {
  const CodeBound bound = given;
  if (!wish) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
      const Room room = room_of(bound, positive[i], negative[i]);
      const double code = std::nearbyint(static_cast<double>(x[i] / scale[i]));
      const double within = std::min(std::max(code, -room.down), room.up);
      x[i] = within == code ? x[i] : static_cast<float>(within + 0.0) * scale[i];
      positive[i] += std::max(within, 0.0);
      negative[i] += std::min(within, 0.0);
      moved[i] += within == code ? 0.0 : 1.0;
    }
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const Room room = room_of(bound, positive[i], negative[i]);
    const double code = std::nearbyint(static_cast<double>(x[i] / scale[i]));
    const double within = std::min(std::max(code, -room.down), room.up);
    positive[i] += std::max(within, 0.0);
    negative[i] += std::min(within, 0.0);
    if (within == code) continue;
    moved[i] += 1;
    x[i] = static_cast<float>(within + 0.0) * scale[i];
    // The wish is cut where the bound is, a whole code: nothing is left to round.
    kept[i] -= wish[i] - x[i];
  }
}

namespace {

// e^x and the power of a positive number to 1e-6, by series: the processor's own do not run side by side.
inline float exponential(float x) {
  const float y = std::min(std::max(x * 1.44269504f, -120.0f), 120.0f), whole = std::nearbyintf(y), f = (y - whole) * 0.693147181f;
  const float series =
      1 + f * (1 + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f * (1.0f / 720))))));
  return series * __builtin_bit_cast(float, (static_cast<std::int32_t>(whole) + 127) << 23);
}
inline float logarithm(float x) {  // 1e-30 <= x
  const auto bits = __builtin_bit_cast(std::int32_t, x);
  // The mantissa between sqrt(1/2) and sqrt(2).
  const std::int32_t exponent = (bits - 0x3f3504f3) >> 23;
  const float m = __builtin_bit_cast(float, bits - (exponent << 23)), y = (m - 1) / (m + 1), z = y * y;
  return static_cast<float>(exponent) * 0.693147181f + 2 * y * (1 + z * (1.0f / 3 + z * (1.0f / 5 + z * (1.0f / 7 + z * (1.0f / 9)))));
}
inline float power(float x, float e) { return exponential(e * logarithm(std::max(x, 1e-30f))); }
inline float sigmoid_of(float v) { return 1 / (1 + exponential(-v)); }
inline float clip(float v) { return std::min(std::max(v, 0.0f), 1.0f); }

// d loss / d v.
inline float gate_gradient(const GateStep& step, float unit, float gap, float residual, float s) {
  const float z = 1.2f * s - 0.1f, t = 2 * z - 1, size = std::min(std::fabs(t), 1.0f);
  const float slope = z > 0 && z < 1 && gap > 0 ? 1.2f * s * (1 - s) : 0.0f;
  // d/dh of 1 - |2 h - 1|^beta.
  const float pressure = step.lambda > 0 ? -2 * step.beta * std::copysign(power(size, step.beta - 1), t) : 0.0f;
  return slope * (2 * unit * gap * residual + step.lambda * pressure);
}

}  // namespace

QUANVAS_CLONES void gate_step(std::int64_t n, const GateStep& given, const float* unit, const float* lower, const float* gap, const float* aim,
                              const float* residual, float* v, float* sigmoid, float* first, float* second, float* delta) {
  const GateStep step = given;
  if (step.gradient_alone) {
    for (std::int64_t i = 0; i < n; ++i) first[i] = gate_gradient(step, unit[i], gap[i], residual[i], sigmoid[i]);
    return;
  }
  if (step.forward) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) {
      const float s = sigmoid_of(v[i]);
      sigmoid[i] = s;
      delta[i] = lower[i] - aim[i] + clip(1.2f * s - 0.1f) * gap[i];
    }
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = gate_gradient(step, unit[i], gap[i], residual[i], sigmoid[i]);
    const float a = 0.9f * first[i] + 0.1f * g, b = 0.999f * second[i] + 0.001f * (g * g);
    first[i] = a;
    second[i] = b;
    const float next = v[i] - step.rate * a / (std::sqrt(b * step.second) + 1e-8f);
    v[i] = next;
    const float s = sigmoid_of(next);
    sigmoid[i] = s;
    delta[i] = lower[i] - aim[i] + clip(1.2f * s - 0.1f) * gap[i];
  }
}

QUANVAS_CLONES void sign_step(std::int64_t n, float rate, const float* start, const float* residual, const float* lower, const float* gap,
                              const float* aim, float* t, float* delta) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float g = residual[i] * gap[i], step = g > 0 ? rate : g < 0 ? -rate : 0.0f;
    const float next = std::min(std::max(t[i] - step, start[i] - 0.5f), start[i] + 0.5f);
    t[i] = next;
    delta[i] = lower[i] - aim[i] + (next >= 0.5f ? gap[i] : 0.0f);
  }
}

QUANVAS_CLONES void range_forward(std::int64_t n, const CodeRange& codes, const float* base, const float* aim, const float* scale,
                                  const float* zero, const float* v, float* delta) {
  const float low = codes.low, high = codes.high;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float code = std::min(std::max(std::nearbyint(base[i] / scale[i] + v[i]) + zero[i], low), high);
    delta[i] = (code - zero[i]) * scale[i] - aim[i];
  }
}

QUANVAS_CLONES void range_step(std::int64_t n, float rate, const CodeRange& codes, const float* base, const float* residual, const float* scale,
                               const float* zero, float* v, double* of_scale, double* of_zero) {
  const float low = codes.low, high = codes.high;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const float x = base[i] / scale[i], code = std::nearbyint(x + v[i]) + zero[i], kept = std::min(std::max(code, low), high);
    const bool inside = kept == code;
    const float g = residual[i], step = !inside ? 0.0f : g > 0 ? rate : g < 0 ? -rate : 0.0f;
    of_scale[i] += static_cast<double>(g * (inside ? code - zero[i] - x : kept - zero[i]));
    of_zero[i] += static_cast<double>(inside ? 0.0f : -g * scale[i]);
    v[i] = std::min(std::max(v[i] - step, -0.5f), 0.5f);
  }
}

QUANVAS_CLONES void bound_changes(std::int64_t n, const CodeBound& given, const float* scale, const float* from, float* to, const double* positive,
                                  const double* negative) {
  const CodeBound bound = given;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    const double old = std::nearbyint(static_cast<double>(from[i] / scale[i])), code = std::nearbyint(static_cast<double>(to[i] / scale[i]));
    const Room room = room_of(bound, positive[i] - std::max(old, 0.0), negative[i] - std::min(old, 0.0));
    const double within = std::min(std::max(code, -room.down), room.up);
    to[i] = within == code ? to[i] : static_cast<float>(within + 0.0) * scale[i];
  }
}

QUANVAS_CLONES void difference(std::int64_t n, const float* x, const float* y, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] - y[i];
}

}  // namespace quanvas::algorithms
