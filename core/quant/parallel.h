// Quanvas - loops over spans and blocks on the calling thread's kernel threads (set_kernel_threads).
#pragma once

#include <cstdint>

#include "core/quant/params.h"

namespace quanvas::quant {

// Below this many elements waking other threads costs more than it saves.
inline constexpr std::int64_t kParallelElements = 128 * 1024;
// From this many elements on results go past the caches (Kernels::stream): they would not stay there anyway.
inline constexpr std::int64_t kStreamElements = 4 * 1024 * 1024;
// Elements that are made in the first-level cache before they are streamed, and how far ahead of them x is asked for.
inline constexpr std::int64_t kPiece = 512, kAhead = 2048;

inline int threads_for(std::int64_t elements) { return elements < kParallelElements ? 1 : kernel_threads(); }

// f(i) for i in [0, n); each call must touch only what belongs to i. f must not throw.
template <class F>
void parallel_for(std::int64_t n, int threads, const F& f) {
  if (threads <= 1 || n <= 1) {
    for (std::int64_t i = 0; i < n; ++i) f(i);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t i = 0; i < n; ++i) f(i);
}

// f(stripe, begin, end) for as many stripes of [0, n) as threads: for loops that keep buffers of their own.
template <class F>
void parallel_stripes(std::int64_t n, int threads, const F& f) {
  parallel_for(threads, threads, [&](std::int64_t t) { f(t, n * t / threads, n * (t + 1) / threads); });
}

}  // namespace quanvas::quant
