// Arithmetic on codes: integer convolutions and products, their quantized forms, and bits.
#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// Sums of products of 8-bit codes are exact in double up to 2^37 terms.
at::Tensor wide(const at::Tensor& x) {
  return x.to(at::kDouble);
}

bool is_code(const at::Tensor& t) {
  return t.scalar_type() == at::kByte || t.scalar_type() == at::kChar;
}

// A scale or zero point, one number or one per entry of `axis`, ready to be broadcast; none given: `fallback`.
Result<at::Tensor> along(const OpCall& call, std::size_t input, const at::Tensor& x, std::int64_t axis,
                         double fallback) {
  if (!call.has(input)) return at::scalar_tensor(fallback, x.options().dtype(at::kDouble));
  const at::Tensor t = wide(call.x(input));
  if (t.numel() == 1) return t.reshape({});
  if (t.dim() != 1) return t;  // one per row of every matrix, as it stands
  if (axis < 0) axis += x.dim();
  if (axis < 0 || axis >= x.dim() || t.size(0) != x.size(axis))
    return bad_node("a scale or zero point of " + std::to_string(t.numel()) + " values does not fit " +
                    sizes_text(x) + ".");
  Ints shape(static_cast<std::size_t>(x.dim()), 1);
  shape[static_cast<std::size_t>(axis)] = -1;
  return t.reshape(shape);
}

Result<at::Tensor> centred(const OpCall& call, std::size_t input, std::size_t zero_point, std::int64_t axis) {
  if (!is_code(call.x(input))) return bad_node("its operands must be int8 or uint8.");
  QUANVAS_TRY(const at::Tensor zero, along(call, zero_point, call.x(input), axis, 0));
  return wide(call.x(input)) - zero;
}

// The sum of products of codes times x_scale * w_scale / y_scale, rounded half to even, saturated at the range of the zero
// point's type. The standard says no more than that; float32, with that product and quotient as one factor, is how
// onnxruntime computes it, so that ties and what lies next to them fall alike.
Result<at::Tensor> requantized(const OpCall& call, const at::Tensor& sum, const at::Tensor& x_scale, const at::Tensor& w_scale,
                               std::size_t scale, std::size_t zero_point) {
  if (!call.has(zero_point) || !is_code(call.x(zero_point)))
    return bad_node("the result's zero point must be int8 or uint8.");
  QUANVAS_TRY(const at::Tensor s, along(call, scale, sum, sum.dim() - 2, 1));
  QUANVAS_TRY(const at::Tensor zero, along(call, zero_point, sum, sum.dim() - 2, 0));
  const bool is_signed = call.x(zero_point).scalar_type() == at::kChar;
  const at::Tensor factor = x_scale.to(at::kFloat) * w_scale.to(at::kFloat) / s.to(at::kFloat);
  return (at::round(sum.to(at::kFloat) * factor) + zero.to(at::kFloat))
      .clamp(is_signed ? -128 : 0, is_signed ? 127 : 255)
      .to(call.x(zero_point).scalar_type());
}

OpResult conv_integer(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor x, centred(call, 0, 2, 1));
  QUANVAS_TRY(const at::Tensor w, centred(call, 1, 3, 0));
  QUANVAS_TRY(const at::Tensor y, convolve(call, x, w, {}));
  return one(y.to(at::kInt));
}

OpResult matmul_integer(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor a, centred(call, 0, 2, -2));
  QUANVAS_TRY(const at::Tensor b, centred(call, 1, 3, -1));
  return one(at::matmul(a, b).to(at::kInt));
}

// Inputs: x, its scale and zero point, w, its scale and zero point, the result's scale and zero point, bias.
OpResult qlinear_conv(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor x, centred(call, 0, 2, 1));
  QUANVAS_TRY(const at::Tensor w, centred(call, 3, 5, 0));
  QUANVAS_TRY(const at::Tensor y, convolve(call, x, w, call.has(8) ? wide(call.x(8)) : at::Tensor()));
  QUANVAS_TRY(const at::Tensor x_scale, along(call, 1, call.x(0), 1, 1));
  QUANVAS_TRY(const at::Tensor w_scale, along(call, 4, y, 1, 1));
  QUANVAS_TRY(const at::Tensor codes, requantized(call, y, x_scale, w_scale, 6, 7));
  return one(codes);
}

OpResult qlinear_matmul(const OpCall& call) {
  QUANVAS_TRY(const at::Tensor a, centred(call, 0, 2, -2));
  QUANVAS_TRY(const at::Tensor b, centred(call, 3, 5, -1));
  QUANVAS_TRY(const at::Tensor a_scale, along(call, 1, call.x(0), -2, 1));
  QUANVAS_TRY(const at::Tensor b_scale, along(call, 4, call.x(3), -1, 1));
  QUANVAS_TRY(const at::Tensor codes, requantized(call, at::matmul(a, b), a_scale, b_scale, 6, 7));
  return one(codes);
}

// To uint8 with the range of the data, which always holds 0.
OpResult dynamic_quantize(const OpCall& call) {
  const at::Tensor x = call.x().to(at::kFloat);
  if (x.numel() == 0) return bad_node("an empty tensor has no range.");
  const at::Tensor low = x.min().clamp_max(0), high = x.max().clamp_min(0);
  at::Tensor scale = (high - low) / 255.0f;
  scale = at::where(scale == 0, at::ones_like(scale), scale);
  const at::Tensor zero = at::round((-low / scale).clamp(0, 255));
  const at::Tensor y = (at::round(x / scale) + zero).clamp(0, 255);
  return Tensors{y.to(at::kByte), scale, zero.to(at::kByte)};
}

OpResult bit_shift(const OpCall& call) {
  const std::string direction = call.node.text("direction", "");
  if (direction != "LEFT" && direction != "RIGHT")
    return bad_node("'direction' is '" + direction + "', expected LEFT or RIGHT.");
  const at::ScalarType type = call.x().scalar_type();
  const auto both = at::broadcast_tensors({call.x(0).to(at::kCPU, at::kLong), call.x(1).to(at::kCPU, at::kLong)});
  const at::Tensor x = both[0].contiguous(), by = both[1].contiguous();
  at::Tensor y = at::empty(x.sizes(), at::kLong);
  const auto *a = x.data_ptr<std::int64_t>(), *b = by.data_ptr<std::int64_t>();
  auto* out = y.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const auto v = static_cast<std::uint64_t>(a[i]), s = static_cast<std::uint64_t>(b[i]);
    out[i] = static_cast<std::int64_t>(s >= 64 ? 0 : direction == "LEFT" ? v << s : v >> s);
  }
  return one(y.to(type).to(call.x().device()));
}

template <at::Tensor (*F)(const at::Tensor&, const at::Tensor&)>
OpResult bitwise(const OpCall& call) {
  return one(F(call.x(0), call.x(1)));
}
OpResult bitwise_not(const OpCall& call) {
  return one(at::bitwise_not(call.x()));
}

}  // namespace

const std::vector<OpRow>& integer_ops() {
  static const std::vector<OpRow> rows = {{"ConvInteger", 2, conv_integer},
                                          {"MatMulInteger", 2, matmul_integer},
                                          {"QLinearConv", 8, qlinear_conv},
                                          {"QLinearMatMul", 8, qlinear_matmul},
                                          {"DynamicQuantizeLinear", 1, dynamic_quantize},
                                          {"BitShift", 2, bit_shift},
                                          {"BitwiseAnd", 2, bitwise<at::bitwise_and>},
                                          {"BitwiseOr", 2, bitwise<at::bitwise_or>},
                                          {"BitwiseXor", 2, bitwise<at::bitwise_xor>},
                                          {"BitwiseNot", 1, bitwise_not}};
  return rows;
}

}  // namespace quanvas::exec
