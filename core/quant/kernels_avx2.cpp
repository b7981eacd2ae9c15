#include "core/quant/kernel_sets.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2")
namespace quanvas::quant {
namespace {
#include "core/quant/kernels.inc"
#include "core/quant/kernels_float.inc"
#include "core/quant/kernels_general.inc"
#include "core/quant/kernels_find.inc"
#include "core/quant/kernels_pack.inc"
#include "core/quant/kernels_table.inc"
}  // namespace

extern const Kernels kKernels_avx2 = QUANVAS_KERNELS("avx2");
}  // namespace quanvas::quant
#pragma GCC pop_options
#endif
