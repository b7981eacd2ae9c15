// Layers with weights, matrix products, attention, normalization, resizing.
#include <algorithm>
#include <cmath>
#include <utility>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

using Ints = std::vector<std::int64_t>;

struct Convolution {
  std::string x, weight, bias;
  Ints stride, padding, dilation, output_padding;
  std::string auto_pad;
  bool transposed = false;
  std::int64_t group = 1;
};

Results convolve(Call& c, const Convolution& v) {
  const Shape* w = c.net.shape(v.weight);
  if (!w || w->size() < 3) throw Unmapped("the shape of its weight is not known");
  const std::size_t n = w->size() - 2;
  const auto spread = [&](Ints values, std::int64_t fallback) {
    if (values.empty()) values = {fallback};
    if (values.size() == 1) values.resize(n, values[0]);
    if (values.size() != n) throw Unmapped("its lists do not fit its weight");
    return values;
  };
  Shape seen(n + 2, onnx_import::kUnknownDim);
  seen[1] = v.transposed ? (*w)[0] : (*w)[1] * v.group;
  c.net.learn(v.x, DataType::kFloat, seen);
  const Ints pads = spread(v.padding, 0);
  Attributes attributes = {{"kernel_shape", Ints(w->begin() + 2, w->end())},
                           {"strides", spread(v.stride, 1)},
                           {"dilations", spread(v.dilation, 1)},
                           {"group", v.group}};
  if (v.auto_pad.empty()) {
    Ints both = pads;
    both.insert(both.end(), pads.begin(), pads.end());
    attributes["pads"] = both;
  } else {
    attributes["auto_pad"] = v.auto_pad;
  }
  if (v.transposed) attributes["output_padding"] = spread(v.output_padding, 0);
  const Shape* x = c.net.shape(v.x);
  const bool lone = x && x->size() == n + 1;  // without a batch
  const std::string in = lone ? c.net.emit("Unsqueeze", {v.x, c.net.ints({0})}) : v.x;
  const std::string out = c.net.emit(v.transposed ? "ConvTranspose" : "Conv", {in, v.weight, v.bias}, attributes);
  return one(lone ? c.net.emit("Squeeze", {out, c.net.ints({0})}) : out);
}

// conv1d(x, weight, bias, stride, padding, dilation, groups); padding may be a word.
Results conv(Call& c) {
  Convolution v{c.x(), c.x(1), c.optional(2), c.ints(3), {}, c.ints(5), {}, {}, false, c.integer(6, 1)};
  if (c.text(4) == "same")
    v.auto_pad = "SAME_UPPER";
  else if (c.text(4) != "valid")
    v.padding = c.ints(4);
  return convolve(c, v);
}
Results conv_transpose(Call& c) {
  return convolve(
      c, {c.x(), c.x(1), c.optional(2), c.ints(3), c.ints(4), c.ints(7), c.ints(5), {}, true, c.integer(6, 1)});
}
Results any_conv(Call& c) {
  return convolve(
      c,
      {c.x(), c.x(1), c.optional(2), c.ints(3), c.ints(4), c.ints(5), c.ints(7), {}, c.flag(6), c.integer(8, 1)});
}

Results linear(Call& c) {
  const std::string x = c.x(), weight = c.x(1), bias = c.optional(2);
  const Shape* s = c.net.shape(x);
  if (s && s->size() == 2) return one(c.net.emit("Gemm", {x, weight, bias}, {{"transB", std::int64_t{1}}}));
  const bool leaf = std::exchange(c.net.is_leaf, false);  // the module's name is for the product
  const std::string turned = c.net.transposed(weight);
  c.net.is_leaf = leaf;
  const std::string product = c.net.emit("MatMul", {x, turned});
  return one(bias.empty() ? product : c.net.emit("Add", {product, bias}));
}

Results matmul(Call& c) {
  return one(c.net.emit("MatMul", {c.x(), c.x(1)}));
}

// beta * bias + alpha * (a b)
Results addmm(Call& c) {
  const auto factor = [&](const char* name) {
    const int i = c.find(name);
    return i < 0 ? 1.0 : c.real(static_cast<std::size_t>(i), 1);
  };
  const double alpha = factor("alpha"), beta = factor("beta");
  if (c.op == "aten::addmm")
    return one(c.net.emit("Gemm", {c.x(1), c.x(2), c.x(0)},
                          {{"alpha", static_cast<float>(alpha)}, {"beta", static_cast<float>(beta)}}));
  std::string product = c.net.emit("MatMul", {c.x(1), c.x(2)}), start = c.x(0);
  const auto times = [&](const std::string& t, double f) {
    return f == 1 ? t : c.net.emit("Mul", {t, c.net.scalar(f, c.net.type(t))});
  };
  return one(c.net.emit("Add", {times(product, alpha), times(start, beta)}));
}

Results einsum(Call& c) {
  return one(c.net.emit("Einsum", c.tensors(1), {{"equation", c.text(0)}}));
}

Results outer(Call& c) {
  return one(c.net.emit("Mul", {c.net.emit("Unsqueeze", {c.x(), c.net.ints({1})}),
                                c.net.emit("Unsqueeze", {c.x(1), c.net.ints({0})})}));
}

Results embedding(Call& c) {
  const std::string indices = c.x(1);
  c.net.learn(indices, DataType::kInt64, std::nullopt);
  return one(c.net.emit("Gather", {c.x(0), indices}, {{"axis", std::int64_t{0}}}));
}

// A mask of truth values becomes 0 and -inf.
std::string mask_of(Call& c, const std::string& mask, DataType type) {
  if (c.net.type(mask) != DataType::kBool) return mask;
  return c.net.emit("Where", {mask, c.net.scalar(0, type), c.net.scalar(-INFINITY, type)});
}

Results attention(Call& c) {
  const std::string q = c.x(0), k = c.x(1), v = c.x(2);
  const std::int64_t width = c.net.dimension(q, -1);
  if (width <= 0) throw Unmapped("the width of its queries is not known");
  const int causal = c.find("is_causal"), scale = c.find("scale");
  const double factor = scale >= 0 && c.has(static_cast<std::size_t>(scale))
                            ? c.real(static_cast<std::size_t>(scale))
                            : 1 / std::sqrt(static_cast<double>(width));
  const DataType type = c.net.type(q);
  std::string scores =
      c.net.emit("MatMul", {c.net.emit("Mul", {q, c.net.scalar(factor, type)}), c.net.transposed(k)});
  if (c.has(3)) scores = c.net.emit("Add", {scores, mask_of(c, c.x(3), type)});
  if (causal >= 0 && c.flag(static_cast<std::size_t>(causal))) {
    const std::string shape = c.net.sizes({c.net.size(q, -2), c.net.size(k, -2)});
    const std::string ones = c.net.emit("Expand", {c.net.scalar(1, DataType::kFloat), shape});
    const std::string lower = c.net.emit("Trilu", {ones}, {{"upper", std::int64_t{0}}});
    scores = c.net.emit("Add", {scores, mask_of(c, c.net.cast(lower, DataType::kBool), type)});
  }
  const std::string weights = c.net.emit("Softmax", {scores}, {{"axis", std::int64_t{-1}}});
  return {make_tensor(c.net.emit("MatMul", {weights, v})), make_tensor(weights)};
}

// --- normalization
// ------------------------------------------------------------------------------------------------

Results batch_norm(Call& c) {
  if (c.flag(5) || !c.has(3) || !c.has(4)) throw Unmapped("batch normalization by the batch's own statistics");
  const std::string mean = c.x(3);
  const Shape* channels = c.net.shape(mean);
  if (!channels) throw Unmapped("the number of channels is not known");
  const std::string weight = c.has(1) ? c.x(1) : c.net.filled(*channels, 1, mean + ".weight");
  const std::string bias = c.has(2) ? c.x(2) : c.net.filled(*channels, 0, mean + ".bias");
  return one(c.net.emit("BatchNormalization", {c.x(), weight, bias, mean, c.x(4)},
                        {{"epsilon", static_cast<float>(c.real(7, 1e-5))}}));
}

Results layer_norm(Call& c) {
  const Ints shape = c.ints(1);
  const std::string base = c.net.scope.empty() ? "norm" : c.net.scope;
  const std::string weight = c.has(2) ? c.x(2) : c.net.filled(shape, 1, base + ".ones");
  return one(c.net.emit(
      "LayerNormalization", {c.x(), weight, c.optional(3)},
      {{"axis", -static_cast<std::int64_t>(shape.size())}, {"epsilon", static_cast<float>(c.real(4, 1e-5))}}));
}

struct Affine {
  std::string weight, bias;
};
Affine affine_of(Call& c, std::size_t weight, std::size_t bias) {
  const std::int64_t channels = c.has(weight) ? c.net.dimension(c.x(weight), 0) : c.net.dimension(c.x(), 1);
  if (channels <= 0) throw Unmapped("the number of channels is not known");
  const std::string base = c.net.scope.empty() ? "norm" : c.net.scope;
  return {c.has(weight) ? c.x(weight) : c.net.filled({channels}, 1, base + ".ones"),
          c.has(bias) ? c.x(bias) : c.net.filled({channels}, 0, base + ".zeros")};
}

Results group_norm(Call& c) {
  const Affine a = affine_of(c, 2, 3);
  return one(c.net.emit("GroupNormalization", {c.x(), a.weight, a.bias},
                        {{"num_groups", c.integer(1)}, {"epsilon", static_cast<float>(c.real(4, 1e-5))}}));
}
Results instance_norm(Call& c) {
  if (!c.flag(5, true)) throw Unmapped("instance normalization by stored statistics");
  const Affine a = affine_of(c, 1, 2);
  return one(c.net.emit("InstanceNormalization", {c.x(), a.weight, a.bias},
                        {{"epsilon", static_cast<float>(c.real(7, 1e-5))}}));
}

// --- resizing
// -----------------------------------------------------------------------------------------------------

Results upsample(Call& c) {
  const std::string op = c.op.substr(6), x = c.x();
  const bool nearest = op.find("nearest") != std::string::npos, cubic = op.find("bicubic") != std::string::npos;
  if (op.find("exact") != std::string::npos || op.find("_aa") != std::string::npos)
    throw Unmapped("this way of resizing");
  const int corners_at = c.find("align_corners");
  const bool corners = corners_at >= 0 && c.flag(static_cast<std::size_t>(corners_at));
  Attributes attributes = {{"mode", std::string(nearest ? "nearest"
                                                : cubic ? "cubic"
                                                        : "linear")},
                           {"coordinate_transformation_mode", std::string(nearest   ? "asymmetric"
                                                                          : corners ? "align_corners"
                                                                                    : "half_pixel")}};
  if (nearest) attributes["nearest_mode"] = std::string("floor");
  if (cubic) attributes["cubic_coeff_a"] = -0.75f;
  const int factors = c.find("scale_factors");
  if (factors >= 0 && c.has(static_cast<std::size_t>(factors))) {
    std::vector<float> scales = {1, 1};
    for (const double f : c.reals(static_cast<std::size_t>(factors))) scales.push_back(static_cast<float>(f));
    const Shape shape = {static_cast<std::int64_t>(scales.size())};
    return one(
        c.net.emit("Resize", {x, "", c.net.constant("scales", TensorData::of_floats(shape, scales))}, attributes));
  }
  Refs sizes = {c.net.size(x, 0), c.net.size(x, 1)};
  for (const Ref& v : c.list(1)) sizes.push_back(v);
  return one(c.net.emit("Resize", {x, "", "", c.net.sizes(sizes)}, attributes));
}

}  // namespace

const Handlers& layer_handlers() {
  static const Handlers table = {{"conv1d", conv},
                                 {"conv2d", conv},
                                 {"conv3d", conv},
                                 {"conv_transpose1d", conv_transpose},
                                 {"conv_transpose2d", conv_transpose},
                                 {"conv_transpose3d", conv_transpose},
                                 {"_convolution", any_conv},
                                 {"convolution", any_conv},
                                 {"linear", linear},
                                 {"matmul", matmul},
                                 {"mm", matmul},
                                 {"bmm", matmul},
                                 {"mv", matmul},
                                 {"dot", matmul},
                                 {"addmm", addmm},
                                 {"baddbmm", addmm},
                                 {"einsum", einsum},
                                 {"outer", outer},
                                 {"ger", outer},
                                 {"embedding", embedding},
                                 {"_scaled_dot_product_attention", attention},
                                 {"scaled_dot_product_attention", attention},
                                 {"batch_norm", batch_norm},
                                 {"layer_norm", layer_norm},
                                 {"group_norm", group_norm},
                                 {"instance_norm", instance_norm},
                                 {"upsample_nearest1d", upsample},
                                 {"upsample_nearest2d", upsample},
                                 {"upsample_nearest3d", upsample},
                                 {"upsample_linear1d", upsample},
                                 {"upsample_bilinear2d", upsample},
                                 {"upsample_trilinear3d", upsample},
                                 {"upsample_bicubic2d", upsample}};
  return table;
}

}  // namespace quanvas::torchscript
