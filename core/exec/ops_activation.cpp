#include <limits>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

template <at::Tensor (*F)(const at::Tensor&)>
OpResult unary(const OpCall& call) {
  return one(F(call.x()));
}
at::Tensor softsign(const at::Tensor& x) { return x / (x.abs() + 1); }
at::Tensor softplus(const at::Tensor& x) { return at::softplus(x); }
at::Tensor hard_swish(const at::Tensor& x) { return at::hardswish(x); }

OpResult leaky_relu(const OpCall& call) { return one(at::leaky_relu(call.x(), call.node.real("alpha", 0.01f))); }
OpResult elu(const OpCall& call) { return one(at::elu(call.x(), call.node.real("alpha", 1.0f))); }
OpResult celu(const OpCall& call) { return one(at::celu(call.x(), call.node.real("alpha", 1.0f))); }
OpResult selu(const OpCall& call) {
  const float alpha = call.node.real("alpha", 1.67326319217681884765625f);
  return one(at::elu(call.x(), alpha, call.node.real("gamma", 1.05070102214813232421875f)));
}
OpResult gelu(const OpCall& call) { return one(at::gelu(call.x(), call.node.text("approximate", "none"))); }
OpResult hard_sigmoid(const OpCall& call) {
  return one((call.x() * call.node.real("alpha", 0.2f) + call.node.real("beta", 0.5f)).clamp(0, 1));
}
OpResult thresholded_relu(const OpCall& call) {
  const float alpha = call.node.real("alpha", 1.0f);
  return one(at::where(call.x() > alpha, call.x(), at::zeros_like(call.x())));
}
OpResult shrink(const OpCall& call) {
  const at::Tensor& x = call.x();
  const float lambda = call.node.real("lambd", 0.5f), bias = call.node.real("bias", 0.0f);
  const at::Tensor zero = at::zeros_like(x);
  return one(at::where(x < -lambda, x + bias, at::where(x > lambda, x - bias, zero)).to(x.scalar_type()));
}

OpResult prelu(const OpCall& call) {
  const at::Tensor& x = call.x();
  at::Tensor slope = call.x(1);
  // Old files give one slope per channel as a plain vector.
  if (slope.dim() == 1 && x.dim() > 2 && slope.size(0) == x.size(1) && slope.size(0) != x.size(-1)) {
    Ints shape(static_cast<std::size_t>(x.dim()), 1);
    shape[1] = -1;
    slope = slope.reshape(shape);
  }
  return one(at::where(x < 0, x * slope, x));
}

OpResult clip(const OpCall& call) {
  const at::Tensor& x = call.x();
  c10::optional<at::Scalar> lo, hi;
  if (call.has_attribute("min")) lo = call.node.real("min", 0);
  if (call.has_attribute("max")) hi = call.node.real("max", 0);
  if (call.has(1)) lo = call.x(1).item();
  if (call.has(2)) hi = call.x(2).item();
  if (!lo && !hi) return one(x);
  return one(at::clamp(x, lo, hi).to(x.scalar_type()));
}

// Before opset 13 the tensor is seen as a matrix whose columns begin at 'axis'.
template <at::Tensor (*F)(const at::Tensor&, std::int64_t)>
OpResult along_axis(const OpCall& call) {
  const at::Tensor& x = call.x();
  const bool matrix = call.opset() < 13;
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", matrix ? 1 : -1), x.dim(), matrix));
  if (!matrix || axis == x.dim() - 1) return one(F(x, axis));
  std::int64_t rows = 1;
  for (std::int64_t i = 0; i < axis; ++i) rows *= x.size(i);
  return one(F(x.reshape({rows, rows == 0 ? 0 : x.numel() / rows}), 1).reshape(x.sizes()));
}
at::Tensor softmax(const at::Tensor& x, std::int64_t axis) { return at::softmax(x, axis); }
at::Tensor log_softmax(const at::Tensor& x, std::int64_t axis) { return at::log_softmax(x, axis); }
at::Tensor hardmax(const at::Tensor& x, std::int64_t axis) {
  return at::zeros_like(x).scatter_(axis, x.argmax(axis, true), 1);
}

// Dropout drops only in training (or when its own input asks for it), with a mask that depends on the seed and the
// node alone.
OpResult dropout(const OpCall& call) {
  const at::Tensor& x = call.x();
  const double ratio = call.has(1) ? call.x(1).item().toDouble() : call.node.real("ratio", 0.5f);
  const auto bools = x.options().dtype(at::kBool).requires_grad(false);
  const bool asked = call.has(2) && call.x(2).numel() == 1 && call.x(2).item().toBool();
  if (!(call.hooks.training || asked) || ratio <= 0) return Tensors{x, at::ones(x.sizes(), bools)};
  if (ratio >= 1) return Tensors{at::zeros_like(x), at::zeros(x.sizes(), bools)};
  std::uint64_t state = call.hooks.seed * 0x9e3779b97f4a7c15ull + static_cast<std::uint64_t>(call.node.id) + 1;
  at::Tensor keep = at::empty(x.sizes(), at::TensorOptions().dtype(at::kBool));
  const double scale = 1.0 / 18446744073709551616.0;
  auto* p = keep.data_ptr<bool>();
  for (std::int64_t i = 0; i < keep.numel(); ++i) {  // splitmix64
    state += 0x9e3779b97f4a7c15ull;
    std::uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    p[i] = static_cast<double>(z ^ (z >> 31)) * scale >= ratio;
  }
  keep = keep.to(x.device());
  return Tensors{x * keep / (1 - ratio), keep};
}

}  // namespace

const std::vector<OpRow>& activation_ops() {
  static const std::vector<OpRow> rows = {
      {"Relu", 1, unary<at::relu>},
      {"LeakyRelu", 1, leaky_relu},
      {"PRelu", 2, prelu},
      {"Clip", 1, clip},
      {"Sigmoid", 1, unary<at::sigmoid>},
      {"Tanh", 1, unary<at::tanh>},
      {"HardSigmoid", 1, hard_sigmoid},
      {"HardSwish", 1, unary<hard_swish>},
      {"Elu", 1, elu},
      {"Celu", 1, celu},
      {"Selu", 1, selu},
      {"Softplus", 1, unary<softplus>},
      {"Softsign", 1, unary<softsign>},
      {"Mish", 1, unary<at::mish>},
      {"Gelu", 1, gelu},
      {"ThresholdedRelu", 1, thresholded_relu},
      {"Shrink", 1, shrink},
      {"Softmax", 1, along_axis<softmax>},
      {"LogSoftmax", 1, along_axis<log_softmax>},
      {"Hardmax", 1, along_axis<hardmax>},
      {"Dropout", 1, dropout},
  };
  return rows;
}

}  // namespace quanvas::exec
