#include "core/quant/kernels.h"

#include <atomic>

#include "core/quant/kernel_sets.h"

namespace quanvas::quant {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> sets = {&kKernels_default};
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) sets.push_back(&kKernels_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    sets.push_back(&kKernels_avx512);
#endif
  return sets;
}

namespace {
std::atomic<const Kernels*> chosen{nullptr};
}

const Kernels& kernels() {
  if (const Kernels* const set = chosen.load(std::memory_order_relaxed)) return *set;
  static const Kernels& best = *available_kernels().back();
  return best;
}
void use_kernels(const Kernels* set) { chosen = set; }

void stream_fence() {
#if defined(__x86_64__) && defined(__GNUC__)
  _mm_sfence();
#endif
}

float from_order_key(std::int32_t key) {
  const std::int32_t bits = order_key(key);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace quanvas::quant
