#include "core/quant/kernel_sets.h"

namespace quanvas::quant {
namespace {
#include "core/quant/kernels.inc"
}  // namespace

extern const Kernels kKernels_default = {"baseline", fake,      fake_float, codes, decode, measure, measure_float,
                                      backward, pair_sums, range, rank_error, exact_error};
}  // namespace quanvas::quant
