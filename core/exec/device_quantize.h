// Quanvas - quantizers as ATen operations, for tensors on a device that the kernels of core/quant do not run on.
// Element by element the same bits as those kernels, on any device that computes float32 and float64 as IEEE 754 says;
// sums of gradients differ in the last places. Internal to core/exec.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "core/quant/params.h"

namespace quanvas::exec {

// Why a quantizer is not computed here, as a sentence; empty: it is. (What depends on the number of an element, which
// stochastic and learned rounding do, stays with the kernels.)
std::string device_problem(const quant::QuantParams& params);

// x: float32 on any device, shape as `layout` says. Throws std::runtime_error with device_problem()'s sentence.
at::Tensor device_fake_quantize(const at::Tensor& x, const quant::QuantParams& params, const quant::BlockLayout& layout);

// The gradient of fake_quantize_backward() (params.h). dscale: null, or gets the sums, one for each scale, on x's device.
at::Tensor device_backward(const at::Tensor& x, const at::Tensor& dy, const quant::QuantParams& params,
                           const quant::BlockLayout& layout, bool pass_clipped, at::Tensor* dscale);

}  // namespace quanvas::exec
