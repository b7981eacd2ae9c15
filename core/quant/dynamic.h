// Quanvas - dynamic quantizers: their parameters are found from each tensor at run time, so there is nothing to
// calibrate and nothing is stored but the declaration. Torch-free, deterministic, reentrant.
//
// Parameters belong to one sample: axis 0 of a tensor of rank 1 or more is the batch, and each index of it is
// quantized as a tensor of shape [1, ...] of its own. So a result depends neither on the other samples of a chunk nor
// on how a data set is cut into chunks. A tensor of rank 0 is one sample. A sample with NaN or infinities has no
// range: all of it becomes NaN, which the measures of a run report.
#pragma once

#include "core/quant/params.h"

namespace quanvas::quant {

// Whether params are those of dynamic_params(): source dynamic and no scales. (The tensor verbs find parameters for
// such a spec too; those are frozen.)
bool is_dynamic(const QuantParams& params);

// The declaration alone, axis resolved where the granularity has one (below 0: from the end). default_axis: the
// axis that channels and groups run along; rows take the last one. kInvalidArgument when the source is not dynamic.
Result<QuantParams> dynamic_params(const QuantSpec& spec, int default_axis);

// What the functions of params.h do, sample by sample. shape: of x with its batch; y may be x, dx may be dy. Errors
// when the shape has no such axis. The scale is a constant of the gradient.
Status fake_quantize_samples(const QuantParams& params, const Shape& shape, const float* x, float* y);
Status quantize_codes_samples(const QuantParams& params, const Shape& shape, const float* x, std::int32_t* codes);
Status fake_quantize_backward_samples(const QuantParams& params, const Shape& shape, const float* x, const float* dy,
                                      float* dx, bool pass_clipped);
// Facts of all samples together; scales and zero points from the smallest to the largest that occur.
Result<SiteFacts> measure_samples(const QuantParams& params, const Shape& shape, const float* x);

}  // namespace quanvas::quant
