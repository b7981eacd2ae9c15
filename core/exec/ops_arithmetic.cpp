#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

using Unary = at::Tensor (*)(const at::Tensor&);
using Binary = at::Tensor (*)(const at::Tensor&, const at::Tensor&);

template <Unary F>
OpResult unary(const OpCall& call) {
  return one(F(call.x()));
}

// Before opset 7 the second operand is aligned at 'axis' instead of at the right.
at::Tensor aligned(const OpCall& call) {
  const at::Tensor& b = call.x(1);
  if (call.opset() >= 7 || !call.node.integer("broadcast", 0) || !call.has_attribute("axis")) return b;
  std::int64_t axis = call.node.integer("axis", 0);
  if (axis < 0) axis += call.x().dim();
  Ints shape = b.sizes().vec();
  while (static_cast<std::int64_t>(shape.size()) < call.x().dim() - axis) shape.push_back(1);
  return b.reshape(shape);
}

template <Binary F>
OpResult binary(const OpCall& call) {
  return one(F(call.x(), aligned(call)));
}

at::Tensor divide(const at::Tensor& a, const at::Tensor& b) {
  const bool integers = !at::isFloatingType(a.scalar_type()) && !at::isFloatingType(b.scalar_type());
  return integers ? at::div(a, b, "trunc") : at::div(a, b);
}
at::Tensor power(const at::Tensor& a, const at::Tensor& b) {
  const bool widen = !at::isFloatingType(a.scalar_type()) && at::isFloatingType(b.scalar_type());
  return widen ? at::pow(a.to(b.scalar_type()), b).to(a.scalar_type()) : at::pow(a, b).to(a.scalar_type());
}
OpResult modulo(const OpCall& call) {
  const bool c_style = call.node.integer("fmod", 0) != 0;
  return one(c_style ? at::fmod(call.x(0), call.x(1)) : at::remainder(call.x(0), call.x(1)));
}

template <Binary F>
at::Tensor fold(const OpCall& call) {
  at::Tensor y = call.x();
  for (std::size_t i = 1; i < call.in.size(); ++i) y = F(y, call.x(i));
  return y;
}
template <Binary F>
OpResult variadic(const OpCall& call) {
  return one(fold<F>(call));
}
at::Tensor plus(const at::Tensor& a, const at::Tensor& b) { return at::add(a, b); }
at::Tensor minus(const at::Tensor& a, const at::Tensor& b) { return at::sub(a, b); }
at::Tensor times(const at::Tensor& a, const at::Tensor& b) { return at::mul(a, b); }
OpResult mean(const OpCall& call) { return one(fold<plus>(call) / static_cast<double>(call.in.size())); }

at::Tensor to_bool(const at::Tensor& x) { return x.to(at::kBool); }
at::Tensor both(const at::Tensor& a, const at::Tensor& b) { return at::logical_and(a, b); }
at::Tensor either(const at::Tensor& a, const at::Tensor& b) { return at::logical_or(a, b); }
at::Tensor differ(const at::Tensor& a, const at::Tensor& b) { return at::logical_xor(a, b); }
at::Tensor equal(const at::Tensor& a, const at::Tensor& b) { return at::eq(a, b); }
at::Tensor greater(const at::Tensor& a, const at::Tensor& b) { return at::gt(a, b); }
at::Tensor less(const at::Tensor& a, const at::Tensor& b) { return at::lt(a, b); }
at::Tensor at_least(const at::Tensor& a, const at::Tensor& b) { return at::ge(a, b); }
at::Tensor at_most(const at::Tensor& a, const at::Tensor& b) { return at::le(a, b); }
at::Tensor higher(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }
at::Tensor lower(const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }

OpResult where(const OpCall& call) {
  return one(at::where(to_bool(call.x(0)), call.x(1), call.x(2)));
}
OpResult is_inf(const OpCall& call) {
  const at::Tensor &x = call.x(), none = at::zeros_like(x, at::kBool);
  const at::Tensor up = call.node.integer("detect_positive", 1) ? at::isposinf(x) : none;
  return one(up.logical_or(call.node.integer("detect_negative", 1) ? at::isneginf(x) : none));
}

OpResult einsum(const OpCall& call) { return one(at::einsum(call.node.text("equation", ""), call.in)); }

}  // namespace

const std::vector<OpRow>& arithmetic_ops() {
  static const std::vector<OpRow> rows = {
      {"Add", 2, binary<plus>},
      {"Sub", 2, binary<minus>},
      {"Mul", 2, binary<times>},
      {"Div", 2, binary<divide>},
      {"Pow", 2, binary<power>},
      {"Mod", 2, modulo},
      {"Min", 1, variadic<lower>},
      {"Max", 1, variadic<higher>},
      {"Sum", 1, variadic<plus>},
      {"Mean", 1, mean},
      {"Sqrt", 1, unary<at::sqrt>},
      {"Exp", 1, unary<at::exp>},
      {"Log", 1, unary<at::log>},
      {"Neg", 1, unary<at::neg>},
      {"Abs", 1, unary<at::abs>},
      {"Erf", 1, unary<at::erf>},
      {"Ceil", 1, unary<at::ceil>},
      {"Floor", 1, unary<at::floor>},
      {"Round", 1, unary<at::round>},
      {"Sign", 1, unary<at::sign>},
      {"Reciprocal", 1, unary<at::reciprocal>},
      {"Sin", 1, unary<at::sin>},
      {"Cos", 1, unary<at::cos>},
      {"Tan", 1, unary<at::tan>},
      {"Asin", 1, unary<at::asin>},
      {"Acos", 1, unary<at::acos>},
      {"Atan", 1, unary<at::atan>},
      {"Sinh", 1, unary<at::sinh>},
      {"Cosh", 1, unary<at::cosh>},
      {"Asinh", 1, unary<at::asinh>},
      {"Acosh", 1, unary<at::acosh>},
      {"Atanh", 1, unary<at::atanh>},
      {"IsNaN", 1, unary<at::isnan>},
      {"IsInf", 1, is_inf},
      {"Not", 1, unary<at::logical_not>},
      {"And", 2, binary<both>},
      {"Or", 2, binary<either>},
      {"Xor", 2, binary<differ>},
      {"Equal", 2, binary<equal>},
      {"Greater", 2, binary<greater>},
      {"Less", 2, binary<less>},
      {"GreaterOrEqual", 2, binary<at_least>},
      {"LessOrEqual", 2, binary<at_most>},
      {"Where", 3, where},
      {"Einsum", 1, einsum},
  };
  return rows;
}

}  // namespace quanvas::exec
