// Quanvas - loops over spans and blocks on the calling thread's kernel threads (set_kernel_threads).
#pragma once

#include <cstdint>

#include "core/quant/params.h"

namespace quanvas::quant {

// Below this many elements waking other threads costs more than it saves.
inline constexpr std::int64_t kParallelElements = 128 * 1024;

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

}  // namespace quanvas::quant
