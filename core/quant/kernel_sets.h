// Quanvas - the kernel tables that kernels.cpp chooses from. Private to core/quant.
#pragma once

#include "core/quant/kernels.h"

namespace quanvas::quant {

extern const Kernels kKernels_default;
extern const Kernels kKernels_avx2;
extern const Kernels kKernels_avx512;

}  // namespace quanvas::quant
