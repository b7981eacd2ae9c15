#include "plugins/exporters/onnx_sites.h"

#include <algorithm>
#include <cmath>

#include "core/recipe/pool_sum.h"

namespace quanvas::onnx_file {

namespace {

// Weights and biases: every input that reads the initializer. Activations: when a node reads one tensor twice,
// each operand is one of these inputs, in order.
std::vector<std::size_t> input_indices(const Node& node, const Layer& layer, const Site& site, TensorId tensor) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < node.inputs.size(); ++i)
    if (node.inputs[i] == tensor) found.push_back(i);
  if (site.kind != SiteKind::kInput || found.size() < 2) return found;
  const auto operand = layer.inputs.begin() + site.operand;
  const auto earlier = static_cast<std::size_t>(std::count(layer.inputs.begin(), operand, tensor));
  if (earlier >= found.size()) return {};
  return {found[earlier]};
}

// The weight of a gate is read by the node that joins the gates.
const Node* reader_of(const Graph& graph, const Node& node, const Site& site, TensorId tensor) {
  const bool reads = std::find(node.inputs.begin(), node.inputs.end(), tensor) != node.inputs.end();
  const auto& consumers = graph.tensor(tensor).consumers;
  return reads || site.kind != SiteKind::kWeight || consumers.size() != 1 ? &node : graph.find(consumers[0]);
}

}  // namespace

Placement place(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  const std::vector<Layer> layers = find_layers(graph);
  std::map<NodeId, const Layer*> by_node;
  for (const Layer& layer : layers) by_node[layer.node] = &layer;
  Placement placement;
  for (const auto& [site, params] : model.quantizers) {
    const auto layer = by_node.find(site.node);
    const TensorId tensor = layer == by_node.end() ? kNoTensor : site_tensor(*layer->second, site);
    if (tensor == kNoTensor) {
      placement.lost.push_back(site);
      continue;
    }
    PlacedQuantizer placed{site, &params, graph.find(site.node), nullptr, tensor, {}, {}};
    placed.reader = reader_of(graph, *placed.node, site, tensor);
    if (site.kind != SiteKind::kOutput) placed.inputs = input_indices(*placed.reader, *layer->second, site, tensor);
    placed.name = quanvas::site_name(*layer->second, site);
    placement.quantizers.push_back(std::move(placed));
  }
  return placement;
}

std::string quantizer_text(bool is_signed, std::int64_t lo, std::int64_t hi, bool per_channel,
                           std::size_t parameters, const std::vector<std::int64_t>& zero_points) {
  int bits = 1;
  const std::int64_t top = is_signed ? std::max(hi, -(lo + 1)) : hi;
  while ((std::int64_t{1} << (is_signed ? bits - 1 : bits)) <= top) ++bits;
  const std::int64_t widest = is_signed ? -(std::int64_t{1} << (bits - 1)) : (std::int64_t{1} << bits) - 1;
  std::string text = (is_signed ? "int" : "uint") + std::to_string(bits);
  if (is_signed ? lo > widest : hi < widest) text += " narrow";
  text += per_channel ? ", per channel (" + std::to_string(parameters) + ")" : ", per tensor";
  bool zero = true, same = true;
  for (const std::int64_t z : zero_points) {
    zero = zero && z == 0;
    same = same && z == zero_points.front();
  }
  if (!zero) text += same ? ", zero point " + std::to_string(zero_points.front()) : ", zero points";
  return text;
}

std::string quantizer_text(const quant::QuantParams& params) {
  if (params.spec.granularity == Granularity::kGroup) return describe(params.spec);
  return quantizer_text(params.spec.is_signed, params.lo, params.hi,
                        params.spec.granularity == Granularity::kChannel, params.scale.size(),
                        zero_points(params));
}

std::vector<std::int64_t> zero_points(const quant::QuantParams& params) {
  std::vector<std::int64_t> out(params.scale.size(), 0);
  for (std::size_t i = 0; i < out.size() && i < params.zero_point.size(); ++i)
    out[i] = std::llrint(params.zero_point[i]);
  return out;
}

std::int64_t channel_axis(const quant::QuantParams& params, std::size_t rank) {
  const std::int64_t axis = params.spec.axis.value_or(0);
  return axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis;
}

bool truncates_exactly(const Graph& graph, const PlacedQuantizer& placed) {
  const quant::QuantParams& p = *placed.params;
  if (!p.truncated || p.scale.size() != 1) return false;
  constexpr int kFewBits = 8;  // of a sum whose float32 error is far below a half
  if (p.scale[0] == p.truncated->scale && p.truncated->bits <= kFewBits) return true;
  Layer layer;
  layer.node = placed.node->id;
  layer.inputs = {placed.node->input(0)};
  const std::int64_t elements = averaged_elements(graph, layer).count;
  int exponent = 0;
  return elements > 0 && (elements & (elements - 1)) == 0 && std::frexp(p.truncated->scale, &exponent) == 0.5f;
}

Shape shape_of(const QuantizedModel& model, TensorId tensor) {
  const TensorInfo& info = model.model->graph->tensor(tensor);
  if (const TensorData* data = model.model->weights->find(info.name); data && info.is_initializer)
    return data->shape;
  return info.shape.value_or(Shape{});
}

}  // namespace quanvas::onnx_file
