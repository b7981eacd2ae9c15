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
    return bad_node("scale " + sizes_text(scale) + " does not fit axis " + std::to_string(axis) + " of " + sizes_text(x) + ".");
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

bool is_code_type(at::ScalarType t) { return t == at::kByte || t == at::kChar || t == at::kInt; }

OpResult quantize_linear(const OpCall& call) {
  const at::ScalarType type = call.has(2) ? call.x(2).scalar_type() : at::kByte;
  if (type != at::kByte && type != at::kChar) return bad_node("the zero point must be int8 or uint8.");
  QUANVAS_TRY(const quant::QuantParams p, linear_params(call, type));
  const at::Tensor x = call.x().to(at::kCPU, at::kFloat).contiguous();
  at::Tensor codes = at::empty(x.sizes(), at::kInt);
  quant::quantize_codes(p, p.layout, x.data_ptr<float>(), codes.data_ptr<std::int32_t>());
  return one(codes.to(type).to(call.x().device()));
}

OpResult dequantize_linear(const OpCall& call) {
  if (!is_code_type(call.x().scalar_type())) return bad_node("the input must be int8, uint8 or int32.");
  QUANVAS_TRY(const quant::QuantParams p, linear_params(call, call.x().scalar_type()));
  const at::Tensor codes = call.x().to(at::kCPU, at::kInt).contiguous();
  at::Tensor y = at::empty(codes.sizes(), at::kFloat);
  quant::dequantize_codes(p, p.layout, codes.data_ptr<std::int32_t>(), y.data_ptr<float>());
  return one(y.to(call.x().device()));
}

}  // namespace

const std::vector<OpRow>& quantization_ops() {
  static const std::vector<OpRow> rows = {{"QuantizeLinear", 2, quantize_linear},
                                          {"DequantizeLinear", 2, dequantize_linear}};
  return rows;
}

}  // namespace quanvas::exec
