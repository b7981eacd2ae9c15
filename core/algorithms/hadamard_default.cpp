#include "core/algorithms/hadamard_kernels.h"

#define QUANVAS_SET default
#define QUANVAS_BYTES 16
#include "core/algorithms/hadamard_kernels.inc"
