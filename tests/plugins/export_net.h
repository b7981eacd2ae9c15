// A small convolutional network and its quantizers, for the tests of exporters.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "core/plugin/registry.h"

namespace quanvas::export_net {

inline TensorData random_floats(Shape shape, std::uint32_t seed, float amplitude = 0.5f) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
  for (float& v : values)
    v = amplitude * (static_cast<float>(generator()) / 2147483648.0f - 1.0f);
  return TensorData::of_floats(std::move(shape), std::move(values));
}

// x[N,1,8,8] -> conv1 -> relu1 -> pool -> conv2 (depthwise) -> add (residual of pool) -> flatten -> fc -> logits.
// The two readers of pool's output make shared quantizers possible.
inline ModelPtr small_net(int opset = 13) {
  GraphBuilder b;
  b.set_name("small");
  b.set_opset(opset);
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, random_floats(shape, seed));
  };
  b.tensor("x", DataType::kFloat, Shape{-1, 1, 8, 8});
  b.input("x");
  parameter("conv1.weight", {4, 1, 3, 3}, 1);
  parameter("conv1.bias", {4}, 2);
  parameter("conv2.weight", {4, 1, 3, 3}, 3);
  parameter("fc.weight", {5, 64}, 4);
  parameter("fc.bias", {5}, 5);
  using Ints = std::vector<std::int64_t>;
  const auto out = [&](const std::string& name, Shape shape) { b.tensor(name, DataType::kFloat, std::move(shape)); };
  out("c1", {-1, 4, 8, 8});
  out("r1", {-1, 4, 8, 8});
  out("p", {-1, 4, 4, 4});
  out("c2", {-1, 4, 4, 4});
  out("s", {-1, 4, 4, 4});
  out("f", {-1, 64});
  out("logits", {-1, 5});
  b.node("conv1", "Conv", {"x", "conv1.weight", "conv1.bias"}, {"c1"}, {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}});
  b.node("relu1", "Relu", {"c1"}, {"r1"});
  b.node("pool", "MaxPool", {"r1"}, {"p"}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  b.node("conv2", "Conv", {"p", "conv2.weight"}, {"c2"},
         {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}, {"group", std::int64_t{4}}});
  b.node("add", "Add", {"c2", "p"}, {"s"});
  b.node("flatten", "Flatten", {"s"}, {"f"}, {{"axis", std::int64_t{1}}});
  b.node("fc", "Gemm", {"f", "fc.weight", "fc.bias"}, {"logits"}, {{"transB", std::int64_t{1}}});
  b.output("logits");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "small.onnx"});
}

struct Formats {
  QuantSpec weight, activation;
  bool outputs = false;  // also quantize the output of the last layer
};

inline QuantSpec spec(int bits, bool is_signed, bool narrow, ZeroPointType zero, Granularity granularity) {
  QuantSpec s;
  s.bits = bits;
  s.is_signed = is_signed;
  s.narrow = narrow;
  s.zero_point = zero;
  s.granularity = granularity;
  s.statistic = zero == ZeroPointType::kInteger ? Statistic::kMinMax : Statistic::kAbsMax;
  return s;
}

// Weights from their values, activations from fixed ranges (the network's tensors stay within about 4),
// biases with the accumulator's scale.
inline QuantizedModel quantize(ModelPtr model, const Formats& formats) {
  QuantizedModel out;
  out.model = model;
  const auto check = [](auto result) {
    if (!result) throw std::runtime_error(result.error().text());
    return *result;
  };
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.kind != LayerKind::kCompute && layer.kind != LayerKind::kElementwise) continue;
    for (const Site& site : layer.sites()) {
      const TensorInfo& tensor = model->graph->tensor(site_tensor(layer, site));
      if (site.kind == SiteKind::kWeight) {
        const std::vector<float> values = model->weights->find(tensor.name)->to_floats();
        out.quantizers[site] =
            check(quant::find_params(formats.weight, *tensor.shape, values.data(), layer.channel_axis));
      } else if (site.kind == SiteKind::kInput || (site.kind == SiteKind::kOutput && formats.outputs)) {
        const auto layout = check(quant::make_layout(formats.activation, *tensor.shape, 1));
        const std::size_t n = static_cast<std::size_t>(layout.parameters());
        std::vector<float> lo(n), hi(n);
        for (std::size_t i = 0; i < n; ++i) {
          hi[i] = 2.0f + 0.37f * static_cast<float>(i);
          lo[i] = formats.activation.is_signed ? -hi[i] : formats.activation.zero_point == ZeroPointType::kInteger ? -1.25f : 0.0f;
        }
        QuantSpec resolved = formats.activation;
        if (resolved.granularity != Granularity::kTensor) resolved.axis = 1;
        out.quantizers[site] = quant::params_from_range(resolved, layout, lo, hi);
      }
    }
    const auto input = out.quantizers.find({layer.node, SiteKind::kInput, 0});
    const auto weight = out.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (layer.bias == kNoTensor || weight == out.quantizers.end() || input->second.scale.size() != 1) continue;
    QuantSpec bias = spec(32, true, false, ZeroPointType::kNone, Granularity::kTensor);
    bias.scale_from_accumulator = true;
    out.quantizers[{layer.node, SiteKind::kBias, 0}] =
        check(quant::bias_params(bias, input->second.scale[0], weight->second.scale,
                                 *model->graph->tensor(layer.bias).shape, layer.bias_axis));
  }
  return out;
}

}  // namespace quanvas::export_net
