// Quanvas - initializers as tensors; internal to core/exec.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/graph/weights.h"

namespace quanvas::exec {

// As to_tensor, but float32 and int64 data are shared with the WeightStore where they are aligned: read only.
at::Tensor shared_tensor(const TensorData& data);

}  // namespace quanvas::exec
