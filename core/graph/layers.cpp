#include "core/graph/layers.h"

#include <algorithm>
#include <map>

namespace quanvas {
namespace {

const std::map<std::string, LayerKind>& layer_table() {
  using K = LayerKind;
  static const std::map<std::string, K> table = {
      {"Conv", K::kCompute},
      {"ConvTranspose", K::kCompute},
      {"Gemm", K::kCompute},
      {"MatMul", K::kCompute},
      {"Add", K::kElementwise},
      {"Sub", K::kElementwise},
      {"Mul", K::kElementwise},
      {"Div", K::kElementwise},
      {"Sum", K::kElementwise},
      {"Mean", K::kElementwise},
      {"Max", K::kElementwise},
      {"Min", K::kElementwise},
      {"Concat", K::kElementwise},
      {"MaxPool", K::kPool},
      {"AveragePool", K::kPool},
      {"LpPool", K::kPool},
      {"GlobalMaxPool", K::kPool},
      {"GlobalAveragePool", K::kPool},
      {"GlobalLpPool", K::kPool},
      {"Relu", K::kActivation},
      {"LeakyRelu", K::kActivation},
      {"PRelu", K::kActivation},
      {"ThresholdedRelu", K::kActivation},
      {"Clip", K::kActivation},
      {"Sigmoid", K::kActivation},
      {"HardSigmoid", K::kActivation},
      {"HardSwish", K::kActivation},
      {"Tanh", K::kActivation},
      {"Elu", K::kActivation},
      {"Selu", K::kActivation},
      {"Celu", K::kActivation},
      {"Gelu", K::kActivation},
      {"Mish", K::kActivation},
      {"Softplus", K::kActivation},
      {"Softsign", K::kActivation},
      {"Softmax", K::kActivation},
      {"LogSoftmax", K::kActivation},
      {"BatchNormalization", K::kNormalization},
      {"InstanceNormalization", K::kNormalization},
      {"LayerNormalization", K::kNormalization},
      {"GroupNormalization", K::kNormalization},
      {"Gather", K::kEmbedding},
  };
  return table;
}

bool is_real(DataType t) {
  // Without a type it is taken for an activation: files without shape information have no types either.
  switch (t) {
    case DataType::kUndefined:
    case DataType::kFloat:
    case DataType::kFloat16:
    case DataType::kBfloat16:
    case DataType::kDouble:
      return true;
    default:
      return false;
  }
}

bool is_initializer(const Graph& g, TensorId t) {
  return t != kNoTensor && g.tensor(t).is_initializer;
}

int rank_of(const Graph& g, TensorId t) {
  return t != kNoTensor && g.tensor(t).shape ? static_cast<int>(g.tensor(t).shape->size()) : 0;
}

void add_activation(const Graph& g, TensorId t, Layer& layer) {
  if (t != kNoTensor && !g.tensor(t).is_initializer && is_real(g.tensor(t).type)) layer.inputs.push_back(t);
}

void set_bias(const Graph& g, const Node& n, Layer& layer) {
  if (is_initializer(g, n.input(2))) layer.bias = n.input(2);
}

bool compute_conv(const Graph& g, const Node& n, Layer& layer) {
  add_activation(g, n.input(0), layer);
  if (is_initializer(g, n.input(1)))
    layer.weight = n.input(1);
  else
    add_activation(g, n.input(1), layer);
  set_bias(g, n, layer);
  layer.group = static_cast<int>(std::clamp<std::int64_t>(n.integer("group", 1), 1, 1 << 30));
  const bool transposed = n.op == "ConvTranspose";
  layer.channel_axis = transposed ? 1 : 0;
  layer.reduction_axis = transposed ? 0 : 1;
  return !layer.inputs.empty();
}

// Axes of a matrix that stands on the right (x W: [.., in, out]) or left (W x: [.., out, in]).
void set_matrix_axes(int rank, bool on_right, Layer& layer) {
  const int last = std::max(rank - 1, 0), before = std::max(rank - 2, 0);
  layer.channel_axis = on_right ? last : before;
  layer.reduction_axis = on_right ? before : last;
}

bool compute_matrix(const Graph& g, const Node& n, Layer& layer) {
  const TensorId a = n.input(0), b = n.input(1);
  if (a == kNoTensor || b == kNoTensor) return false;
  const bool on_right = is_initializer(g, b);
  if (on_right || is_initializer(g, a)) layer.weight = on_right ? b : a;
  if (layer.weight != kNoTensor) set_matrix_axes(rank_of(g, layer.weight), on_right, layer);
  if (n.op == "Gemm") {
    set_bias(g, n, layer);
    // C is stretched to [rows, columns]: a weight on the right makes the columns, one on the left the rows.
    layer.bias_axis = rank_of(g, layer.bias) - (on_right ? 1 : 2);
    const bool flipped = n.integer(on_right ? "transB" : "transA", 0) != 0;
    if (layer.weight != kNoTensor && flipped) std::swap(layer.channel_axis, layer.reduction_axis);
  }
  add_activation(g, a, layer);
  add_activation(g, b, layer);
  return !layer.inputs.empty();
}

bool compute_layer(const Graph& g, const Node& n, Layer& layer) {
  return n.op.starts_with("Conv") ? compute_conv(g, n, layer) : compute_matrix(g, n, layer);
}

bool embedding_layer(const Graph& g, const Node& n, Layer& layer) {
  const TensorId table = n.input(0);
  if (!is_initializer(g, table) || !is_real(g.tensor(table).type) || rank_of(g, table) != 2) return false;
  if (n.integer("axis", 0) != 0) return false;
  layer.weight = table;
  return true;
}

bool operand_layer(const Graph& g, const Node& n, Layer& layer) {
  for (const TensorId t : n.inputs) add_activation(g, t, layer);
  return layer.inputs.size() >= 2;
}

bool unary_layer(const Graph& g, const Node& n, Layer& layer) {
  add_activation(g, n.input(0), layer);
  return !layer.inputs.empty();
}

// A mean over the picture is a global average pool in other words.
bool is_spatial_mean(const Graph& g, const Node& n) {
  if (n.op != "ReduceMean" || n.inputs.empty() || n.inputs[0] == kNoTensor) return false;
  const auto axes = n.integers("axes");
  const auto rank = static_cast<std::int64_t>(rank_of(g, n.inputs[0]));
  return rank >= 3 && !axes.empty() &&
         std::all_of(axes.begin(), axes.end(), [rank](std::int64_t a) { return (a < 0 ? a + rank : a) >= 2; });
}

std::optional<LayerKind> kind_of(const Graph& g, const Node& n) {
  if (!n.domain.empty() || !n.opaque_reason.empty()) return std::nullopt;
  if (is_spatial_mean(g, n)) return LayerKind::kPool;
  const auto it = layer_table().find(n.op);
  return it == layer_table().end() ? std::nullopt : std::optional(it->second);
}

bool fill_layer(const Graph& g, const Node& n, Layer& layer) {
  switch (layer.kind) {
    case LayerKind::kCompute:
      return compute_layer(g, n, layer);
    case LayerKind::kElementwise:
      return operand_layer(g, n, layer);
    case LayerKind::kEmbedding:
      return embedding_layer(g, n, layer);
    default:
      return unary_layer(g, n, layer);
  }
}

}  // namespace

std::vector<Site> Layer::sites() const {
  std::vector<Site> out;
  if (weight != kNoTensor) out.push_back({node, SiteKind::kWeight, 0});
  if (bias != kNoTensor) out.push_back({node, SiteKind::kBias, 0});
  for (std::size_t i = 0; i < inputs.size(); ++i) out.push_back({node, SiteKind::kInput, static_cast<int>(i)});
  if (output != kNoTensor) out.push_back({node, SiteKind::kOutput, 0});
  return out;
}

std::vector<Layer> find_layers(const Graph& graph) {
  std::vector<Layer> out;
  for (const Node& n : graph.nodes()) {
    const auto kind = kind_of(graph, n);
    if (!kind || n.outputs.empty() || n.outputs[0] == kNoTensor) continue;
    if (!is_real(graph.tensor(n.outputs[0]).type)) continue;
    Layer layer;
    layer.node = n.id;
    layer.kind = *kind;
    layer.output = n.outputs[0];
    if (fill_layer(graph, n, layer)) out.push_back(std::move(layer));
  }
  return out;
}

const Layer* find_layer(const std::vector<Layer>& layers, NodeId node) {
  const auto it = std::find_if(layers.begin(), layers.end(), [node](const Layer& l) { return l.node == node; });
  return it == layers.end() ? nullptr : &*it;
}

TensorId site_tensor(const Layer& layer, const Site& site) {
  if (site.node != layer.node || site.operand < 0) return kNoTensor;
  if (site.kind == SiteKind::kInput) {
    const auto i = static_cast<std::size_t>(site.operand);
    return i < layer.inputs.size() ? layer.inputs[i] : kNoTensor;
  }
  if (site.operand != 0) return kNoTensor;
  if (site.kind == SiteKind::kWeight) return layer.weight;
  return site.kind == SiteKind::kBias ? layer.bias : layer.output;
}

}  // namespace quanvas
