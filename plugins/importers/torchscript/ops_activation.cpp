// Activations and what does nothing at inference.
#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

Results relu(Call& c) {
  return one(c.net.emit("Relu", {c.x()}));
}
Results sigmoid(Call& c) {
  return one(c.net.emit("Sigmoid", {c.x()}));
}
Results tanh(Call& c) {
  return one(c.net.emit("Tanh", {c.x()}));
}
Results hard_swish(Call& c) {
  return one(c.net.emit("HardSwish", {c.x()}));
}
Results mish(Call& c) {
  return one(c.net.emit("Mish", {c.x()}));
}
Results selu(Call& c) {
  return one(c.net.emit("Selu", {c.x()}));
}

Results clip(Call& c, double lo, double hi) {
  const std::string x = c.x();
  return one(c.net.emit("Clip", {x, c.net.scalar(lo, c.net.type(x)), c.net.scalar(hi, c.net.type(x))}));
}
Results relu6(Call& c) {
  return clip(c, 0, 6);
}
Results hard_tanh(Call& c) {
  return clip(c, c.real(1, -1), c.real(2, 1));
}

Results leaky_relu(Call& c) {
  return one(c.net.emit("LeakyRelu", {c.x()}, {{"alpha", static_cast<float>(c.real(1, 0.01))}}));
}
Results elu(Call& c) {
  if (c.real(2, 1) != 1 || c.real(3, 1) != 1) throw Unmapped("a scaled ELU");
  return one(c.net.emit("Elu", {c.x()}, {{"alpha", static_cast<float>(c.real(1, 1))}}));
}
Results celu(Call& c) {
  return one(c.net.emit("Celu", {c.x()}, {{"alpha", static_cast<float>(c.real(1, 1))}}));
}
Results gelu(Call& c) {
  return one(c.net.emit("Gelu", {c.x()}, {{"approximate", c.text(1, "none")}}));
}
Results silu(Call& c) {
  const std::string x = c.x();
  return one(c.net.emit("Mul", {x, c.net.emit("Sigmoid", {x})}));
}
Results hard_sigmoid(Call& c) {
  return one(c.net.emit("HardSigmoid", {c.x()}, {{"alpha", 1.0f / 6.0f}, {"beta", 0.5f}}));
}

template <bool kLog>
Results softmax(Call& c) {
  std::string x = c.x();
  if (const auto type = c.dtype()) x = c.net.cast(x, *type);
  return one(c.net.emit(kLog ? "LogSoftmax" : "Softmax", {x}, {{"axis", c.integer(1)}}));
}

Results softplus(Call& c) {
  const std::string x = c.x();
  const double beta = c.real(1, 1);
  if (beta == 1) return one(c.net.emit("Softplus", {x}));
  const std::string factor = c.net.scalar(beta, c.net.type(x));
  return one(c.net.emit("Div", {c.net.emit("Softplus", {c.net.emit("Mul", {x, factor})}), factor}));
}
Results log_sigmoid(Call& c) {
  const std::string away = c.net.emit("Softplus", {c.net.emit("Neg", {c.x()})});
  return one(c.net.emit("Neg", {away}));
}

// One slope, or one per channel: as the shape [C, 1, 1].
Results prelu(Call& c) {
  const std::string x = c.x(), slope = c.x(1);
  if (const Shape* s = c.net.shape(slope); s && element_count(*s) == 1) return one(c.net.emit("PRelu", {x, slope}));
  std::vector<std::int64_t> shape(static_cast<std::size_t>(std::max<std::int64_t>(c.net.rank(x) - 1, 1)), 1);
  shape[0] = -1;
  return one(c.net.emit("PRelu", {x, c.net.emit("Reshape", {slope, c.net.ints(shape)})}));
}

Results glu(Call& c) {
  const std::int64_t dim = c.integer(1, -1);
  const auto halves = c.net.emit_many("Split", {c.x()}, 2, {{"axis", dim}});
  return one(c.net.emit("Mul", {halves[0], c.net.emit("Sigmoid", {halves[1]})}));
}

// Dropout at inference, copies, changes of the memory's layout.
Results same(Call& c) {
  return one(c.x());
}
Results dropout(Call& c) {
  if (c.flag(2)) throw Unmapped("dropout that is on at inference");
  return same(c);
}

}  // namespace

const Handlers& activation_handlers() {
  static const Handlers table = {{"relu", relu},
                                 {"sigmoid", sigmoid},
                                 {"tanh", tanh},
                                 {"hardswish", hard_swish},
                                 {"mish", mish},
                                 {"selu", selu},
                                 {"relu6", relu6},
                                 {"hardtanh", hard_tanh},
                                 {"leaky_relu", leaky_relu},
                                 {"elu", elu},
                                 {"celu", celu},
                                 {"gelu", gelu},
                                 {"silu", silu},
                                 {"hardsigmoid", hard_sigmoid},
                                 {"softmax", softmax<false>},
                                 {"log_softmax", softmax<true>},
                                 {"softplus", softplus},
                                 {"log_sigmoid", log_sigmoid},
                                 {"prelu", prelu},
                                 {"glu", glu},
                                 {"dropout", dropout},
                                 {"feature_dropout", dropout},
                                 {"alpha_dropout", dropout},
                                 {"feature_alpha_dropout", dropout},
                                 {"contiguous", same},
                                 {"detach", same},
                                 {"clone", same},
                                 {"alias", same},
                                 {"cpu", same},
                                 {"data", same},
                                 {"requires_grad_", same},
                                 {"_autocast_to_full_precision", same},
                                 {"_autocast_to_reduced_precision", same},
                                 {"lift", same},
                                 {"lift_fresh", same},
                                 {"resolve_conj", same},
                                 {"resolve_neg", same},
                                 {"positive", same}};
  return table;
}

}  // namespace quanvas::torchscript
