#include "core/algorithms/hadamard_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#pragma GCC target("avx2,fma")
#endif
#define QUANVAS_SET avx2
#define QUANVAS_BYTES 32
#include "core/algorithms/hadamard_kernels.inc"
