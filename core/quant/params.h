// Quanvas - frozen quantizers and the kernels that apply them. Torch-free: raw float32 pointers, contiguous,
// row-major. All kernels are deterministic for any number of threads (fixed blocks, fixed order of sums) and
// reentrant; they use OpenMP inside when the tensor is large (threads as set by set_kernel_threads).
//
// Integer affine quantizer (docs/quantizers.md):
//   q = clamp(rint(x / s) + z, lo, hi)      x~ = (q - z) * s      in float32, true division, round half to even.
// The zero point is added after the rounding, as ONNX and PyTorch do. NaN quantizes to code clamp(z).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/graph/graph.h"
#include "core/recipe/quant_spec.h"
#include "core/report/report.h"

namespace quanvas::quant {

// Which parameter an element uses. The tensor is seen as [outer, dim, inner] around one axis:
//   tensor: 1 parameter;  channel: index = d (dim parameters);
//   group:  index = (o * groups + d / group) * inner + i,  groups = ceil(dim / group); ragged last group.
struct BlockLayout {
  Granularity granularity = Granularity::kTensor;
  std::int64_t outer = 1, dim = 1, inner = 1;
  std::int64_t group = 1;
  std::int64_t elements() const { return outer * dim * inner; }
  std::int64_t parameters() const;
};

// The whole numbers that a truncation (truncate.h) shortens: x = n * scale, n of so many bits, signed or not as the
// spec says.
struct TruncationInput {
  float scale = 1;  // > 0, finite
  int bits = 32;    // 1..32
  bool operator==(const TruncationInput&) const = default;
};

struct QuantParams {
  QuantSpec spec;              // axis resolved (never empty for channel and group)
  BlockLayout layout;          // of the tensor that the parameters were found on; for activations outer
                               // (the batch) may differ at run time
  std::vector<float> scale;    // finite, not 0; layout.parameters() values; below 0 with statistic signed-max only
  // Integers as float, fractions (float) or the offset m itself (offset); empty when spec.zero_point is none.
  std::vector<float> zero_point;
  // Decoupled quantizers: q = round((x - center) / code_scale), x~ = q * scale. Empty: scale and 0; else as scale.
  std::vector<float> code_scale, center;
  // Learned rounding: a parameter for each element of the tensor. Empty: to the nearest.
  std::vector<float> rounding;
  // Quantized scales: the float16 of each super-block, of scales and of offsets; scale = super_scale * whole number.
  std::vector<float> super_scale, super_offset;
  // Truncation: q = clamp(round(rint(x / truncated.scale) / t)) with t = scale / truncated.scale, a power of two.
  std::optional<TruncationInput> truncated;
  std::int64_t lo = -128, hi = 127;
  // Quantizers of a network with the same text here have one scale and zero point; empty: on its own.
  std::string share;
};

// Layout of a tensor for a spec; default_axis is the layer's channel axis (channel) or reduction axis (group).
Result<BlockLayout> make_layout(const QuantSpec& spec, const Shape& shape, int default_axis);
// The same parameters on a tensor of another batch size.
Result<BlockLayout> rebatch(const QuantParams& params, const Shape& shape);

// Scale and zero point from the tensor itself (weights, biases). Ranges below 1e-10 count as 1e-10, so a block of
// zeros has a scale; NaN and infinities are refused with the tensor's first bad index. x may be null when the
// shape has no elements.
Result<QuantParams> find_params(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis);
// The ranges alone that find_params() makes its scales from: one [lo, hi] (asymmetric) or threshold (symmetric: hi) per
// parameter. `layout` and `resolved` (the spec with its axis) belong to params_from_range(), which follows.
struct Ranges {
  std::vector<float> lo, hi;
  BlockLayout layout;
  QuantSpec resolved;
};
Result<Ranges> find_ranges(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis);
// The ranges of several batches as one: their mean, or the moving average spec.momentum * newest + (1 - momentum) *
// before, from the first on. All of one layout; not empty.
Ranges combine_ranges(const QuantSpec& spec, const std::vector<Ranges>& batches);
// From known thresholds: one [lo, hi] (asymmetric) or |threshold| (symmetric: hi) per parameter.
QuantParams params_from_range(const QuantSpec& spec, const BlockLayout& layout, const std::vector<float>& lo,
                              const std::vector<float>& hi);
// Bias with accumulator scale: scale[c] = input scale * weight scale[c] (float32 product), zero point 0,
// signed wide `spec.bits` (32). axis: of the output channels in the bias, below 0 when it has none. The weight of a
// transposed convolution in groups has the scales of one group, which repeat for the others. kUnsupported when the
// scales do not fit the bias.
Result<QuantParams> bias_params(const QuantSpec& spec, float input_scale, const std::vector<float>& weight_scale,
                                const Shape& shape, int axis);

// y = dequantize(quantize(x)); y may be x. `layout` is rebatch()'s for activations, params.layout for weights.
void fake_quantize(const QuantParams& params, const BlockLayout& layout, const float* x, float* y);
void quantize_codes(const QuantParams& params, const BlockLayout& layout, const float* x, std::int32_t* codes);
void dequantize_codes(const QuantParams& params, const BlockLayout& layout, const std::int32_t* codes, float* y);
// Bytes of so many codes with their scales and zero points, packed without gaps.
double stored_bytes(const QuantParams& params, double elements);
// One pass, nothing written: error, clipping, codes in use (codes_used exact up to 16 bits).
SiteFacts measure(const QuantParams& params, const BlockLayout& layout, const float* x);
// Straight-through backward: dx = dy inside [lo, hi], 0 outside (dy everywhere when pass_clipped); inside means
// that rint(v) + z, v = x/s, lies in [lo, hi]. dscale[p] += sum over its elements of
// dy * (rint(v) - v inside | lo - z, hi - z outside) (LSQ, Esser et al. 2020, eq. 3); dscale may be null, dx may
// be dy. Summation order is fixed.
void fake_quantize_backward(const QuantParams& params, const BlockLayout& layout, const float* x,
                            const float* dy, float* dx, float* dscale, bool pass_clipped);

// Error of y against x.
TensorError tensor_error(const float* x, const float* y, std::int64_t n);
// Mergeable form for batches: sums in double.
struct ErrorSums {
  double xx = 0, yy = 0, xy = 0, dd = 0, max_abs = 0, n = 0;
  void add(const float* x, const float* y, std::int64_t count);
  void merge(const ErrorSums& other);
  TensorError result() const;
};

// Sorted grid points of parameter `index`, thinned to at most `most`.
std::vector<double> grid_points(const QuantParams& params, std::int64_t index, std::size_t most = 4096);

// Threads of the calling thread's kernels, 1 inside the chunk workers of core/exec; 0: the default, which is the same
// for every thread that has no number of its own. Default 0: all cores.
void set_kernel_threads(int threads);
void set_default_kernel_threads(int threads);
int kernel_threads();

}  // namespace quanvas::quant
