#include "core/quant/kernel_sets.h"

namespace quanvas::quant {
namespace {
#include "core/quant/kernels.inc"
#include "core/quant/kernels_float.inc"
#include "core/quant/kernels_general.inc"
#include "core/quant/kernels_find.inc"
#include "core/quant/kernels_pack.inc"
#include "core/quant/kernels_table.inc"
}  // namespace

extern const Kernels kKernels_default = QUANVAS_KERNELS("baseline");
}  // namespace quanvas::quant
