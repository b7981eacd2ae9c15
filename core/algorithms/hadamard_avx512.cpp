#include "core/algorithms/hadamard_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#endif
#define QUANVAS_SET avx512
#define QUANVAS_BYTES 64
#include "core/algorithms/hadamard_kernels.inc"
