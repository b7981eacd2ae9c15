#include <ATen/ATen.h>

#include "core/exec/ops.h"
#include "core/quant/params.h"

namespace quanvas::exec {
namespace {

// QuantizeLinear and DequantizeLinear as quantizer parameters: one scale, or one per entry of `axis`.
Result<quant::QuantParams> linear_params(const OpCall& call, at::ScalarType codes) {
  const at::Tensor& x = call.x();
  quant::QuantParams p;
  const at::Tensor scale = call.x(1).to(at::kCPU, at::kFloat).contiguous();
  p.scale.assign(scale.data_ptr<float>(), scale.data_ptr<float>() + scale.numel());
  if (call.has(2)) {
    const at::Tensor zero = call.x(2).to(at::kCPU, at::kFloat).contiguous();
    p.zero_point.assign(zero.data_ptr<float>(), zero.data_ptr<float>() + zero.numel());
    p.spec.zero_point = ZeroPointType::kInteger;
    if (p.zero_point.size() != p.scale.size()) return bad_node("scale and zero point have different sizes.");
  }
  p.spec.is_signed = codes != at::kByte;
  p.lo = codes == at::kByte ? 0 : codes == at::kChar ? -128 : -2147483648ll;
  p.hi = codes == at::kByte ? 255 : codes == at::kChar ? 127 : 2147483647ll;
  p.layout.inner = x.numel();
  if (scale.numel() == 1) return p;
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 1), x.dim()));
  if (scale.dim() != 1 || scale.numel() != x.size(axis))
    return bad_node("scale " + sizes_text(scale) + " does not fit axis " + std::to_string(axis) + " of " +
                    sizes_text(x) + ".");
  p.spec.granularity = p.layout.granularity = Granularity::kChannel;
  p.spec.axis = static_cast<int>(axis);
  p.layout.dim = x.size(axis);
  p.layout.inner = 1;
  for (std::int64_t i = 0; i < x.dim(); ++i) {
    if (i < axis) p.layout.outer *= x.size(i);
    if (i > axis) p.layout.inner *= x.size(i);
  }
  return p;
}

DataType declared(const OpCall& call, TensorId id) {
  return id == kNoTensor ? DataType::kUndefined : call.graph.tensor(id).type;
}

// The type of the codes: what the node says, else the zero point's, else uint8.
DataType code_type(const OpCall& call) {
  if (call.node.integer("output_dtype", 0) != 0) return static_cast<DataType>(call.node.integer("output_dtype", 0));
  if (!call.has(2)) return DataType::kUint8;
  const DataType type = declared(call, call.node.input(2));
  if (type != DataType::kUndefined) return type;
  return to_data(call.x(2).flatten().slice(0, 0, 0)).type;
}

struct Range {
  DataType type;
  double lo, hi;
};
constexpr Range kRanges[] = {{DataType::kInt8, -128, 127},      {DataType::kUint8, 0, 255},
                             {DataType::kInt16, -32768, 32767}, {DataType::kUint16, 0, 65535},
                             {DataType::kInt4, -8, 7},          {DataType::kUint4, 0, 15}};

// A scale or zero point spread over x: one for all, one per entry of the axis, or one per block of it.
Result<at::Tensor> spread(const OpCall& call, const at::Tensor& t, const at::Tensor& x) {
  if (t.numel() == 1) return t.reshape({});
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 1), x.dim()));
  const std::int64_t block = call.node.integer("block_size", 0);
  if (t.dim() == 1 && block == 0 && t.size(0) == x.size(axis)) {
    Ints shape(static_cast<std::size_t>(x.dim()), 1);
    shape[static_cast<std::size_t>(axis)] = -1;
    return t.reshape(shape);
  }
  if (block > 0 && t.dim() == x.dim() && t.size(axis) == (x.size(axis) + block - 1) / block) {
    at::Tensor wide = t.repeat_interleave(block, axis).narrow(axis, 0, x.size(axis));
    if (wide.sizes() == x.sizes()) return wide;
  }
  return bad_node("a scale or zero point " + sizes_text(t) + " does not fit axis " + std::to_string(axis) + " of " +
                  sizes_text(x) + (block > 0 ? " in blocks of " + std::to_string(block) : std::string()) + ".");
}

bool is_plain(const OpCall& call, DataType type) {
  return (type == DataType::kInt8 || type == DataType::kUint8 || type == DataType::kInt32) &&
         call.node.integer("block_size", 0) == 0 && call.x(1).dim() < 2;
}

OpResult quantize_linear(const OpCall& call) {
  const DataType type = code_type(call);
  if (is_plain(call, type) && type != DataType::kInt32) {
    const at::ScalarType codes_type = *scalar_type(type);
    QUANVAS_TRY(const quant::QuantParams p, linear_params(call, codes_type));
    const at::Tensor x = call.x().to(at::kCPU, at::kFloat).contiguous();
    at::Tensor codes = at::empty(x.sizes(), at::kInt);
    quant::quantize_codes(p, p.layout, x.data_ptr<float>(), codes.data_ptr<std::int32_t>());
    return one(codes.to(codes_type).to(call.x().device()));
  }
  const at::Tensor x = call.x().to(at::kFloat);
  QUANVAS_TRY(const at::Tensor scale, spread(call, call.x(1).to(at::kFloat), x));
  const at::Tensor ratio = x / scale;
  if (is_small_type(type) && !is_four_bit_type(type))
    return one(converted(ratio, type, call.node.integer("saturate", 1) != 0));
  if (type == DataType::kFloat4E2M1) return one(converted(ratio, type));
  for (const Range& r : kRanges) {
    if (r.type != type) continue;
    at::Tensor y = at::round(ratio).to(at::kDouble);
    if (call.has(2)) {
      QUANVAS_TRY(const at::Tensor zero, spread(call, call.x(2).to(at::kDouble), x));
      y = y + zero;
    }
    return one(y.clamp(r.lo, r.hi).to(*scalar_type(type)));
  }
  return bad_node("values cannot be quantized to " + std::string(type_name(type)) + ".");
}

OpResult dequantize_linear(const OpCall& call) {
  const DataType type = declared(call, call.node.input(0));
  const at::ScalarType stored = call.x().scalar_type();
  const bool is_code = stored == at::kByte || stored == at::kChar || stored == at::kInt;
  if (is_code && is_plain(call, type == DataType::kUndefined ? DataType::kInt8 : type)) {
    QUANVAS_TRY(const quant::QuantParams p, linear_params(call, stored));
    const at::Tensor codes = call.x().to(at::kCPU, at::kInt).contiguous();
    at::Tensor y = at::empty(codes.sizes(), at::kFloat);
    quant::dequantize_codes(p, p.layout, codes.data_ptr<std::int32_t>(), y.data_ptr<float>());
    return one(y.to(call.x().device()));
  }
  if (!is_code && stored != at::kShort && !is_small_type(type))
    return bad_node("the input must hold integers of at most 32 bits, or float8 or float4 values.");
  at::Tensor x = call.x().to(at::kFloat);
  QUANVAS_TRY(const at::Tensor scale, spread(call, call.x(1).to(at::kFloat), x));
  if (call.has(2)) {
    QUANVAS_TRY(const at::Tensor zero, spread(call, call.x(2).to(at::kFloat), x));
    x = x - zero;
  }
  return one(x * scale);
}

}  // namespace

at::Tensor converted(const at::Tensor& x, DataType type, bool saturate) {
  const at::ScalarType to = *scalar_type(type);
  // Half types are computed in float32 but keep their rounding.
  if (type == DataType::kFloat16) return x.to(at::kHalf).to(at::kFloat);
  if (type == DataType::kBfloat16) return x.to(at::kBFloat16).to(at::kFloat);
  if (type == DataType::kUint4) return x.to(at::kInt).bitwise_and(15).to(to);
  if (type == DataType::kInt4) return (x.to(at::kInt).add(8).bitwise_and(15).sub(8)).to(to);
  if (!is_small_type(type)) return x.to(to);
  at::Tensor y = x.to(at::kCPU, at::kFloat).contiguous().clone();
  auto* p = y.data_ptr<float>();
  for (std::int64_t i = 0; i < y.numel(); ++i) p[i] = small_value(type, small_code(type, p[i], saturate));
  return y.to(x.device());
}

const std::vector<OpRow>& quantization_ops() {
  static const std::vector<OpRow> rows = {{"QuantizeLinear", 2, quantize_linear},
                                          {"DequantizeLinear", 2, dequantize_linear}};
  return rows;
}

}  // namespace quanvas::exec
