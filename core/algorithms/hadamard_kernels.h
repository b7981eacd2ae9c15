// Quanvas - the inner loops of hadamard.cpp, compiled once per instruction set. Private to core/algorithms.
#pragma once

#include <cstdint>
#include <vector>

namespace quanvas::algorithms {

template <class T>
struct HadamardRows {
  std::int64_t core = 1, power = 1;  // K and 2^j
  const T* table = nullptr;          // [from, to] of the core, null where K is 1
  T scale = 1;                       // 1 / sqrt(n)
};

// out := in H for rows of core * power values; scratch: hadamard_scratch() values.
struct HadamardKernels {
  const char* name;
  void (*floats)(const HadamardRows<float>& h, const float* in, float* out, std::int64_t rows, float* scratch);
  void (*doubles)(const HadamardRows<double>& h, const double* in, double* out, std::int64_t rows, double* scratch);
};
inline std::int64_t hadamard_scratch(std::int64_t core) { return core * 16; }

extern const HadamardKernels kHadamard_default, kHadamard_avx2, kHadamard_avx512;
// Those that this processor runs, the fastest last.
const std::vector<const HadamardKernels*>& hadamard_kernels();

}  // namespace quanvas::algorithms
