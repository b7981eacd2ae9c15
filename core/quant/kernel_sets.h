// Quanvas - the kernel tables that kernels.cpp chooses from. Private to core/quant.
#pragma once

#include "core/quant/kernels.h"

// Before the target of a set is switched on, see kernels.inc.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace quanvas::quant {

extern const Kernels kKernels_default;
extern const Kernels kKernels_avx2;
extern const Kernels kKernels_avx512;

}  // namespace quanvas::quant
