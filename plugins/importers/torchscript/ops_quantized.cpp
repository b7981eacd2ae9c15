// Quantized tensors: they are kept as the values that their codes stand for, between QuantizeLinear and DequantizeLinear;
// packed layers are the float layer on these values with a quantizer behind it.
#include <algorithm>
#include <cmath>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

using Ints = std::vector<std::int64_t>;

// Names of helpers stand below the layer's, whose name is for its operator.
class Helpers {
 public:
  explicit Helpers(Net& net)
      : net_(net), leaf_(std::exchange(net.is_leaf, false)), origin_(std::exchange(net.origin, "aten::dequantize")) {}
  ~Helpers() {
    net_.is_leaf = leaf_;
    net_.origin = origin_;
  }

 private:
  Net& net_;
  const bool leaf_;
  const std::string origin_;
};

DataType code_type(std::int64_t scalar) {
  constexpr std::int64_t kQint8 = 12, kQuint8 = 13;
  if (scalar == kQint8) return DataType::kInt8;
  if (scalar == kQuint8) return DataType::kUint8;
  throw Unmapped("quantized tensors of other types than qint8 and quint8");
}

std::string base_of(const Net& net) { return net.scope.empty() ? "quantizer" : net.scope + ".quantizer"; }

TensorData code_constant(DataType type, const Shape& shape, const std::vector<std::int64_t>& values) {
  std::vector<std::uint8_t> bytes;
  for (const std::int64_t v : values) {
    if (v < (type == DataType::kInt8 ? -128 : 0) || v > (type == DataType::kInt8 ? 127 : 255))
      throw Unmapped("a zero point outside its type");
    bytes.push_back(static_cast<std::uint8_t>(v));
  }
  return TensorData::copy_of(type, shape, bytes.data(), bytes.size());
}

std::string quantize(Net& net, const std::string& x, const QuantizedFacts& facts) {
  const Helpers helpers(net);
  const std::string codes = net.emit("QuantizeLinear", {x, facts.scale, facts.zero_point});
  const std::string y = net.emit("DequantizeLinear", {codes, facts.scale, facts.zero_point});
  net.quantized[y] = facts;
  return y;
}

QuantizedFacts facts_of(Net& net, double scale, std::int64_t zero_point, DataType type) {
  const auto s = static_cast<float>(scale);
  if (!(s > 0) || !std::isfinite(s)) throw Unmapped("a scale that is not above 0");
  const std::string base = base_of(net);
  return {net.constant(base + "_scale", TensorData::of_floats({}, {s})),
          net.constant(base + "_zero_point", code_constant(type, {}, {zero_point})), static_cast<double>(s), zero_point, type};
}

// quantize_per_tensor(x, scale, zero_point, dtype)
Results quantize_per_tensor(Call& c) {
  return one(quantize(c.net, c.x(), facts_of(c.net, c.real(1), c.integer(2), code_type(c.integer(3)))));
}

// quantize_per_channel(x, scales, zero_points, axis, dtype): only followed by int_repr or dequantize.
Results quantize_per_channel(Call& c) {
  const TensorData *scale = c.net.draft.constant(c.x(1)), *zero = c.net.draft.constant(c.x(2));
  if (!scale || !zero) throw Unmapped("scales that are no constants");
  const DataType type = code_type(c.integer(4));
  const std::vector<float> scales = scale->to_floats();
  const auto n = static_cast<std::int64_t>(scales.size());
  std::vector<std::int64_t> zeros = zero->to_int64();
  if (zeros.size() != scales.size() ||
      std::any_of(scales.begin(), scales.end(), [](float s) { return !(s > 0) || !std::isfinite(s); }))
    throw Unmapped("scales that are not above 0");
  const std::string base = base_of(c.net), s = c.net.constant(base + "_scale", TensorData::of_floats({n}, scales)),
                    z = c.net.constant(base + "_zero_point", code_constant(type, {n}, zeros));
  const Attributes axis = {{"axis", c.integer(3)}};
  const Helpers helpers(c.net);
  const std::string codes = c.net.emit("QuantizeLinear", {c.x(), s, z}, axis);
  const std::string y = c.net.emit("DequantizeLinear", {codes, s, z}, axis);
  c.net.quantized[y] = {s, z, 0, 0, type};
  return one(y);
}

const QuantizedFacts& facts(Call& c, const std::string& x) {
  const auto it = c.net.quantized.find(x);
  if (it == c.net.quantized.end()) throw Unmapped("its input is no quantized tensor");
  return it->second;
}

Results dequantize(Call& c) {
  const std::string x = c.x();
  facts(c, x);
  const Helpers helpers(c.net);
  return one(c.net.emit("Identity", {x}));
}

// The integers that DequantizeLinear reads, or those of what was moved behind it.
Results int_repr(Call& c) {
  const std::string x = c.x();
  const QuantizedFacts f = facts(c, x);
  for (auto n = c.net.nodes->rbegin(); n != c.net.nodes->rend(); ++n)
    if (n->op == "DequantizeLinear" && n->outputs[0] == x) return one(n->inputs[0]);
  const Helpers helpers(c.net);
  return one(c.net.emit("QuantizeLinear", {x, f.scale, f.zero_point}));
}

const Ref& member(const Ref& object, const std::string& name) {
  const auto it = object->members.find(name);
  if (object->kind != Kind::kObject || it == object->members.end())
    throw Unmapped(object->kind == Kind::kOther ? object->text : "its parameters are not packed ones");
  return it->second;
}
Ints numbers(const Ref& list) {
  Ints out;
  for (const Ref& v : list->items) out.push_back(v->integer);
  return out;
}

struct Weights {
  std::string weight, bias;
  Shape shape;
};
// LibTorch makes whole multiples of input scale x weight scale of a bias (qlinear.cpp, qconv.cpp). Without an input scale it
// stays as it is.
Weights weights_of(Call& c, const Ref& packed, std::optional<double> input_scale) {
  const std::string codes = c.net.tensor_of(member(packed, "codes")), scale = c.net.tensor_of(member(packed, "scale")),
                    zero = c.net.tensor_of(member(packed, "zero_point"));
  const std::int64_t axis = member(packed, "axis")->integer;
  Weights out;
  out.shape = *c.net.shape(codes);
  const Helpers helpers(c.net);
  const Attributes along = axis < 0 ? Attributes{} : Attributes{{"axis", axis}};
  out.weight = c.net.emit("DequantizeLinear", {codes, scale, zero}, along);
  const Ref& bias = member(packed, "bias");
  if (bias->kind != Kind::kTensor) return out;
  if (!input_scale) {
    out.bias = bias->name;
    return out;
  }
  const std::vector<float> values = c.net.draft.constant(bias->name)->to_floats(),
                           scales = c.net.draft.constant(scale)->to_floats();
  if (scales.size() != 1 && scales.size() != values.size()) throw Unmapped("its bias does not fit its weight");
  std::vector<float> products;
  std::vector<std::int32_t> integers;
  for (const float s : scales) products.push_back(static_cast<float>(*input_scale) * s);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double steps =
        std::nearbyint(static_cast<double>(values[i]) / static_cast<double>(products[products.size() == 1 ? 0 : i]));
    if (!(std::fabs(steps) < 2147483648.0)) throw Unmapped("its bias is beyond 32 bits");
    integers.push_back(static_cast<std::int32_t>(steps));
  }
  const auto n = static_cast<std::int64_t>(values.size());
  const bool channels = products.size() > 1 || axis >= 0;
  const std::string made = c.net.constant(bias->name + "_codes",
                                          TensorData::copy_of(DataType::kInt32, {n}, integers.data(), integers.size() * 4)),
                    by = c.net.constant(bias->name + "_scale", TensorData::of_floats(channels ? Shape{n} : Shape{}, products));
  out.bias = c.net.emit("DequantizeLinear", {made, by}, channels ? Attributes{{"axis", std::int64_t{0}}} : Attributes{});
  return out;
}

Results requantized(Call& c, std::string y, std::size_t scale, bool relu, const QuantizedFacts& like) {
  if (relu) y = c.net.emit("Relu", {y});
  return one(quantize(c.net, y, facts_of(c.net, c.real(scale), c.integer(scale + 1), like.type)));
}

// conv2d(x, packed, output_scale, output_zero_point)
template <int kAxes, bool kRelu>
Results conv(Call& c) {
  const std::string x = c.x();
  const QuantizedFacts f = facts(c, x);
  Weights w = weights_of(c, c.at(1), f.scale_value);
  Ints stride = numbers(member(c.at(1), "stride")), pads = numbers(member(c.at(1), "padding")),
       dilation = numbers(member(c.at(1), "dilation"));
  std::string weight = w.weight;
  Shape kernel(w.shape.begin() + 2, w.shape.end());
  if (kAxes == 1 && kernel.size() == 2) {  // kept as a convolution over two axes, the first of size 1
    const Helpers helpers(c.net);
    weight = c.net.emit("Squeeze", {weight, c.net.ints({2})});
    for (Ints* list : {&stride, &pads, &dilation, &kernel})
      if (list->size() == 2) list->erase(list->begin());
  }
  if (kernel.size() != static_cast<std::size_t>(kAxes) || stride.size() != kernel.size() || pads.size() != kernel.size() ||
      dilation.size() != kernel.size())
    throw Unmapped("its lists do not fit its weight");
  Ints both = pads;
  both.insert(both.end(), pads.begin(), pads.end());
  const std::int64_t groups = member(c.at(1), "groups")->integer;
  Shape seen(kernel.size() + 2, onnx_import::kUnknownDim);
  seen[1] = w.shape[1] * groups;
  c.net.learn(x, DataType::kFloat, seen);
  const std::string y =
      c.net.emit("Conv", {x, weight, w.bias},
                 {{"kernel_shape", kernel}, {"strides", stride}, {"pads", both}, {"dilations", dilation}, {"group", groups}});
  return requantized(c, y, 2, kRelu, f);
}

std::string product_of(Call& c, const std::string& x, bool is_matrix, const Weights& w) {
  if (is_matrix) return c.net.emit("Gemm", {x, w.weight, w.bias}, {{"transB", std::int64_t{1}}});
  std::string turned;
  {
    const Helpers helpers(c.net);
    turned = c.net.transposed(w.weight);
  }
  const std::string y = c.net.emit("MatMul", {x, turned});
  return w.bias.empty() ? y : c.net.emit("Add", {y, w.bias});
}

template <bool kRelu>
Results linear(Call& c) {
  const std::string x = c.x();
  const QuantizedFacts f = facts(c, x);
  const Weights w = weights_of(c, c.at(1), f.scale_value);
  const Shape* s = c.net.shape(x);
  return requantized(c, product_of(c, x, s && s->size() == 2, w), 2, kRelu, f);
}

// linear_dynamic(x, packed, reduce_range): codes of the whole tensor's range, a float result (qlinear_dynamic.cpp).
template <bool kRelu>
Results linear_dynamic(Call& c) {
  if (c.flag(2)) throw Unmapped("activations of 7 bits, which QNNPACK makes 8 (reduce_range)");
  const std::string x = c.x();
  const Shape* s = c.net.shape(x);
  const std::optional<Shape> shape = s ? std::optional(*s) : std::nullopt;
  const Weights w = weights_of(c, c.at(1), std::nullopt);
  std::string values;
  {
    const Helpers helpers(c.net);
    const std::vector<std::string> codes = c.net.emit_many("DynamicQuantizeLinear", {x}, 3);
    c.net.draft.facts[codes[0]] = {DataType::kUint8, shape};
    c.net.draft.facts[codes[1]] = {DataType::kFloat, Shape{}};
    c.net.draft.facts[codes[2]] = {DataType::kUint8, Shape{}};
    values = c.net.emit("DequantizeLinear", codes);
    c.net.draft.facts[values] = {DataType::kFloat, shape};
  }
  const std::string y = product_of(c, values, shape && shape->size() == 2, w);
  return one(kRelu ? c.net.emit("Relu", {y}) : y);
}

// add(a, b, scale, zero_point)
template <bool kRelu>
Results add(Call& c) {
  const QuantizedFacts f = facts(c, c.x());
  facts(c, c.x(1));
  return requantized(c, c.net.emit("Add", {c.x(), c.x(1)}), 2, kRelu, f);
}
template <bool kRelu>
Results multiply(Call& c) {
  const QuantizedFacts f = facts(c, c.x());
  facts(c, c.x(1));
  return requantized(c, c.net.emit("Mul", {c.x(), c.x(1)}), 2, kRelu, f);
}
// cat(list, dim, scale?, zero_point?)
Results cat(Call& c) {
  const std::vector<std::string> parts = c.tensors(0);
  if (parts.empty()) throw Unmapped("nothing is joined");
  QuantizedFacts f;
  for (const std::string& p : parts) f = facts(c, p);
  f = facts(c, parts[0]);
  const std::string y = c.net.emit("Concat", parts, {{"axis", c.integer(1)}});
  if (!c.has(2)) return one(quantize(c.net, y, f));
  return requantized(c, y, 2, false, f);
}

// Curves on codes, with the scale of their result.
Results sigmoid(Call& c) {
  const QuantizedFacts f = facts(c, c.x());
  return requantized(c, c.net.emit("Sigmoid", {c.x()}), 1, false, f);
}
Results hard_swish(Call& c) {
  const QuantizedFacts f = facts(c, c.x());
  return requantized(c, c.net.emit("HardSwish", {c.x()}), 1, false, f);
}
// leaky_relu(x, slope, inplace, scale, zero_point)
Results leaky_relu(Call& c) {
  const QuantizedFacts f = facts(c, c.x());
  return requantized(c, c.net.emit("LeakyRelu", {c.x()}, {{"alpha", static_cast<float>(c.real(1, 0.01))}}), 3, false, f);
}
// elu(x, scale, zero_point, alpha, scale, input_scale)
Results elu(Call& c) {
  const QuantizedFacts f = facts(c, c.x());
  if (c.real(4, 1) != 1 || c.real(5, 1) != 1) throw Unmapped("a scaled ELU");
  return requantized(c, c.net.emit("Elu", {c.x()}, {{"alpha", static_cast<float>(c.real(3, 1))}}), 1, false, f);
}

}  // namespace

const Handlers& quantized_handlers() {
  static const Handlers table = {{"quantize_per_tensor", quantize_per_tensor},
                                 {"quantize_per_channel", quantize_per_channel},
                                 {"dequantize", dequantize},
                                 {"int_repr", int_repr}};
  return table;
}
const Handlers& packed_handlers() {
  static const Handlers table = {{"conv1d", conv<1, false>},
                                 {"conv1d_relu", conv<1, true>},
                                 {"conv2d", conv<2, false>},
                                 {"conv2d_relu", conv<2, true>},
                                 {"conv3d", conv<3, false>},
                                 {"conv3d_relu", conv<3, true>},
                                 {"linear", linear<false>},
                                 {"linear_relu", linear<true>},
                                 {"linear_dynamic", linear_dynamic<false>},
                                 {"linear_relu_dynamic", linear_dynamic<true>},
                                 {"add", add<false>},
                                 {"add_relu", add<true>},
                                 {"mul", multiply<false>},
                                 {"mul_relu", multiply<true>},
                                 {"cat", cat},
                                 {"sigmoid", sigmoid},
                                 {"hardswish", hard_swish},
                                 {"leaky_relu", leaky_relu},
                                 {"elu", elu}};
  return table;
}

std::string keep_quantized(Net& net, const std::string& op, const Refs& in, Refs& out) {
  if (in.empty() || op.rfind("aten::", 0) != 0 || quantized_handlers().count(op.substr(6))) return {};
  if (in[0]->kind != Kind::kTensor) return {};
  const auto it = net.quantized.find(in[0]->name);
  if (it == net.quantized.end()) return {};
  const QuantizedFacts f = it->second;
  static const std::set<std::string> moving = {
      "relu",  "max_pool1d",      "max_pool2d", "reshape", "view",    "flatten",    "permute", "transpose",
      "t",     "squeeze",         "unsqueeze",  "slice",   "select",  "contiguous", "detach",  "clone",
      "alias", "constant_pad_nd", "pad",        "expand",  "dropout", "unflatten",  "narrow"};
  // What these give is rounded to codes of the same scale.
  static const std::set<std::string> rounding = {
      "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool1d", "mean", "clamp",
      "hardtanh",   "relu6",      "leaky_relu", "upsample_nearest2d",  "upsample_bilinear2d", "elu"};
  const std::string name = op.substr(6);
  static const std::set<std::string> asking = {"size", "dim", "numel", "is_floating_point", "len"};
  if (asking.count(name) || out.size() != 1 || out[0]->kind != Kind::kTensor)
    return asking.count(name) ? "" : "operator '" + op + "' on a quantized tensor is not mapped";
  if (f.scale_value == 0) return "operator '" + op + "' on a tensor with scales per channel";
  if (moving.count(name)) {
    if (out[0]->name != in[0]->name) net.quantized[out[0]->name] = f;
    return {};
  }
  // Whatever scale goes in, theirs is a power of two that holds all of their range (qsigmoid.cpp, qtanh.cpp).
  if ((name == "tanh" || name == "sigmoid") && f.type == DataType::kUint8) {
    const bool half = name == "tanh";
    out[0] = make_tensor(quantize(net, out[0]->name, facts_of(net, half ? 1.0 / 128 : 1.0 / 256, half ? 128 : 0, f.type)));
    return {};
  }
  if (!rounding.count(name)) return "operator '" + op + "' on a quantized tensor is not mapped";
  out[0] = make_tensor(quantize(net, out[0]->name, f));
  return {};
}

std::optional<std::string> dequantized_constant(Net& net, const std::string& op, const Refs& in, const std::string& result) {
  const auto is_constant = [&](std::size_t i) {
    return i < in.size() && in[i]->kind == Kind::kTensor && net.draft.constant(in[i]->name);
  };
  if (!is_constant(0) || net.type(result) != DataType::kFloat) return std::nullopt;
  const std::string& x = in[0]->name;
  if (op == "aten::to" || op == "aten::float" || op == "aten::_cast_Float" || op == "aten::type_as") {
    const DataType type = net.type(x);
    if (type == DataType::kInt8 || type == DataType::kUint8 || type == DataType::kInt32) net.codes[result] = {x, {}};
    return std::nullopt;
  }
  const auto it = net.codes.find(x);
  if (it == net.codes.end() || in.size() < 2) return std::nullopt;
  // A number, or a tensor with one axis that is not 1.
  std::vector<float> values;
  Shape shape;
  if (in[1]->is_number() && in[1]->is_known()) {
    values = {static_cast<float>(in[1]->kind == Kind::kReal ? in[1]->real : static_cast<double>(in[1]->integer))};
  } else if (is_constant(1)) {
    values = net.draft.constant(in[1]->name)->to_floats();
    shape = net.draft.constant(in[1]->name)->shape;
  }
  const Shape& whole = *net.shape(x);
  std::int64_t axis = -1;
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i] != 1) {
      if (axis >= 0 || shape.size() != whole.size() || shape[i] != whole[i]) return std::nullopt;
      axis = static_cast<std::int64_t>(i);
    }
  if (values.empty()) return std::nullopt;
  const DataType type = net.type(it->second.codes);
  if (op == "aten::sub" && it->second.zero_point.empty()) {
    if (type == DataType::kInt32) return std::nullopt;
    std::vector<std::int64_t> zeros;
    for (const float v : values) {
      if (v != std::nearbyint(v) || v < (type == DataType::kInt8 ? -128 : 0) || v > (type == DataType::kInt8 ? 127 : 255))
        return std::nullopt;
      zeros.push_back(static_cast<std::int64_t>(v));
    }
    const auto n = static_cast<std::int64_t>(zeros.size());
    net.codes[result] = {it->second.codes, net.constant(it->second.codes + "_zero_point",
                                                        code_constant(type, axis < 0 ? Shape{} : Shape{n}, zeros))};
    return std::nullopt;
  }
  if (op != "aten::mul") return std::nullopt;
  for (const float v : values)
    if (!(v > 0) || !std::isfinite(v)) return std::nullopt;
  const std::string codes = it->second.codes, zero = it->second.zero_point;
  const auto n = static_cast<std::int64_t>(values.size());
  if (!zero.empty() && element_count(*net.shape(zero)) != n) return std::nullopt;
  const Helpers helpers(net);
  const std::string scale = net.constant(codes + "_scale", TensorData::of_floats(axis < 0 ? Shape{} : Shape{n}, values));
  return net.emit("DequantizeLinear", {codes, scale, zero}, axis < 0 ? Attributes{} : Attributes{{"axis", axis}});
}

}  // namespace quanvas::torchscript
