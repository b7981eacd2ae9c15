// Quanvas - independent pieces of work on the kernel threads. Pieces are cut by the problem, never by the number of
// threads, so that each sum is formed in the same order for any number of them. Products inside a piece use one thread:
// LibTorch calls the same OpenBLAS with threads of its own.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <stop_token>

#include "core/base/result.h"
#include "core/quant/parallel.h"

namespace quanvas::algorithms {

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
// only what belongs to it; tasks that have not begun when `stop` is requested are left out. elements: of all tasks
// together; few are left to the calling thread, for waking others costs more than it saves.
// Errors: kCancelled, kOutOfMemory when a task could not get memory.
template <class F>
Status for_each_task(std::int64_t n, const std::stop_token& stop, const F& f,
                     std::int64_t elements = quant::kParallelElements) {
  std::atomic<bool> no_memory = false;
  const int threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(quant::threads_for(elements), n)));
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
