// Networks that fit a target, found by its own repairs: for the tests over all targets.
#pragma once

#include <optional>
#include <stdexcept>
#include <vector>

#include "core/plugin/placement.h"
#include "core/quant/dynamic.h"
#include "tests/plugins/export_net.h"

namespace quanvas::export_fit {

// x[N, 256] -> fc1 -> relu -> fc2 -> y: what formats for linear layers hold, with rows of 256 and 512.
inline ModelPtr linear_net() {
  GraphBuilder b;
  b.set_name("linear");
  b.set_opset(13);
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, export_net::random_floats(shape, seed, 0.25f));
  };
  b.tensor("x", DataType::kFloat, Shape{-1, 256});
  b.input("x");
  parameter("fc1.weight", {512, 256}, 11);
  parameter("fc1.bias", {512}, 12);
  parameter("fc2.weight", {16, 512}, 13);
  parameter("fc2.bias", {16}, 14);
  b.tensor("h", DataType::kFloat, Shape{-1, 512});
  b.tensor("r", DataType::kFloat, Shape{-1, 512});
  b.tensor("y", DataType::kFloat, Shape{-1, 16});
  b.node("fc1", "Gemm", {"x", "fc1.weight", "fc1.bias"}, {"h"}, {{"transB", std::int64_t{1}}});
  b.node("relu", "Relu", {"h"}, {"r"});
  b.node("fc2", "Gemm", {"r", "fc2.weight", "fc2.bias"}, {"y"}, {{"transB", std::int64_t{1}}});
  b.output("y");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "linear.onnx"});
}

// The quantizer that the declaration becomes there; none when it cannot be made for this tensor.
inline std::optional<quant::QuantParams> quantizer(const QuantizedModel& network, const Layer& layer, const Site& site,
                                            const QuantSpec& spec) {
  const Graph& graph = *network.model->graph;
  const TensorInfo& tensor = graph.tensor(site_tensor(layer, site));
  if (!is_activation(site.kind)) {
    const std::vector<float> values = network.model->weights->find(tensor.name)->to_floats();
    if (site.kind == SiteKind::kBias && spec.scale_from_accumulator) {
      const auto* input = quantizer_at(network, {layer.node, SiteKind::kInput, 0});
      const auto* weight = quantizer_at(network, {layer.node, SiteKind::kWeight, 0});
      if (!input || !weight || !accumulator_problem(&input->spec, &weight->spec).empty()) return std::nullopt;
      auto p = quant::bias_params(spec, input->scale[0], weight->scale, *tensor.shape, layer.bias_axis);
      return p ? std::optional(*p) : std::nullopt;
    }
    const int axis = spec.granularity == Granularity::kChannel
                         ? (site.kind == SiteKind::kBias ? 0 : layer.channel_axis)
                         : layer.reduction_axis;
    auto p = quant::find_params(spec, *tensor.shape, values.data(), axis);
    return p ? std::optional(*p) : std::nullopt;
  }
  if (spec.source == ScaleSource::kDynamic) {
    auto p = quant::dynamic_params(spec, spec.granularity == Granularity::kRow ? -1 : 1);
    return p ? std::optional(*p) : std::nullopt;
  }
  QuantSpec resolved = spec;
  if (resolved.granularity != Granularity::kTensor) resolved.axis = 1;
  const auto layout = quant::make_layout(resolved, *tensor.shape, 1);
  if (!layout) return std::nullopt;
  const auto n = static_cast<std::size_t>(layout->parameters());
  std::vector<float> lo(n), hi(n);
  for (std::size_t i = 0; i < n; ++i) {
    hi[i] = 2.0f + 0.37f * static_cast<float>(i);
    lo[i] = resolved.is_signed ? -hi[i] : resolved.zero_point != ZeroPointType::kNone ? -1.25f : 0.0f;
  }
  return quant::params_from_range(resolved, *layout, lo, hi);
}

// A network that the target holds: as little quantized as it allows. None: the target has no form for its layers.
inline std::optional<QuantizedModel> fitted(const Exporter& e, const json& options, QuantizedModel network) {
  const std::vector<Layer> layers = find_layers(*network.model->graph);
  for (int round = 0; round < 6; ++round) {
    const auto refusals = e.check(network, options);
    if (refusals.empty()) return network;
    // Biases last: their scales follow from the others.
    for (const bool biases : {false, true})
      for (const Refusal& r : refusals) {
        if (!r.site || (r.site->kind == SiteKind::kBias) != biases) continue;
        const Layer* layer = find_layer(layers, r.site->node);
        if (!layer) return std::nullopt;
        if (r.fix) {
          const auto p = quantizer(network, *layer, *r.site, *r.fix);
          if (p) network.quantizers[*r.site] = *p;
        } else if (r.float_fixes) {
          network.quantizers.erase(*r.site);
        } else {
          return std::nullopt;
        }
      }
  }
  return std::nullopt;
}

}  // namespace quanvas::export_fit
