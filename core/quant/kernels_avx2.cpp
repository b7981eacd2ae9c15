#include "core/quant/kernel_sets.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC target("avx2")
namespace quanvas::quant {
namespace {
#include "core/quant/kernels.inc"
}  // namespace

extern const Kernels kKernels_avx2 = {"avx2", fake,      fake_float, codes, decode, measure, measure_float,
                                      backward, pair_sums, range, rank_error, exact_error};
}  // namespace quanvas::quant
#pragma GCC pop_options
#endif
