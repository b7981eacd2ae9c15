#include "core/graph/layers.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "core/graph/canonical.h"

namespace quanvas {
namespace {

const std::map<std::string, LayerKind>& layer_table() {
  using K = LayerKind;
  static const std::map<std::string, K> table = {
      {"Conv", K::kCompute},
      {"ConvTranspose", K::kCompute},
      {"Gemm", K::kCompute},
      {"MatMul", K::kCompute},
      {"LSTM", K::kCompute},
      {"GRU", K::kCompute},
      {"RNN", K::kCompute},
      {"Attention", K::kCompute},
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
      {"Swish", K::kActivation},
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
      {"RMSNormalization", K::kNormalization},
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
  } else if (on_right) {
    set_bias(g, n, layer);
  }
  add_activation(g, a, layer);
  add_activation(g, b, layer);
  return !layer.inputs.empty();
}

std::vector<TensorId> parts_of(const Graph& graph, TensorId tensor, int depth) {
  if (tensor == kNoTensor) return {};
  if (graph.tensor(tensor).is_initializer) return {tensor};
  const Node* joined = graph.find(graph.tensor(tensor).producer);
  if (depth == 0 || !joined || joined->op != "Concat" || !joined->domain.empty()) return {};
  std::vector<TensorId> out;
  for (const TensorId t : joined->inputs) {
    const std::vector<TensorId> parts = parts_of(graph, t, depth - 1);
    if (parts.empty()) return {};
    out.insert(out.end(), parts.begin(), parts.end());
  }
  return out;
}

// Of a node's outputs the first that something reads.
TensorId read_output(const Graph& g, const Node& n) {
  for (const TensorId t : n.outputs)
    if (t != kNoTensor && (!g.tensor(t).consumers.empty() || g.is_output(t))) return t;
  return kNoTensor;
}

void add_inner(const Node& n, Layer& layer, std::size_t first, const std::vector<std::string>& names) {
  for (std::size_t i = 0; i < names.size() && first + i < n.outputs.size(); ++i) {
    if (n.outputs[first + i] == kNoTensor) return;
    layer.internals.push_back(n.outputs[first + i]);
    layer.internal_names.push_back(names[i]);
  }
}

bool recurrent_layer(const Graph& g, const Node& n, Layer& layer) {
  add_activation(g, n.input(0), layer);
  if (layer.inputs.empty()) return false;
  layer.input_names = {"input"};
  const RecurrentSites sites = recurrent_sites(n);
  std::size_t part = 0;
  std::vector<TensorId> weights;
  for (const std::size_t from : {1, 2}) {
    // What another node reads, too, cannot have a format for this one alone.
    if (const TensorId w = n.input(from); w == kNoTensor || g.tensor(w).consumers.size() != 1) continue;
    const std::vector<TensorId> parts = constant_parts(g, n.input(from));
    const bool is_own = std::all_of(parts.begin(), parts.end(), [&](TensorId t) {
      return g.tensor(t).consumers.size() == 1 && std::count(parts.begin(), parts.end(), t) == 1;
    });
    if (is_own) weights.insert(weights.end(), parts.begin(), parts.end());
  }
  const bool by_gate = weights.size() == sites.weights.size();
  for (const TensorId t : weights) {
    if (part == 0) layer.weight = t;
    else layer.more_weights.push_back(t);
    layer.weight_names.push_back(by_gate ? sites.weights[part] : std::to_string(part + 1));
    ++part;
  }
  layer.channel_axis = 1;
  layer.reduction_axis = 2;
  if (is_initializer(g, n.input(3))) layer.bias = n.input(3);
  layer.bias_axis = 1;
  std::size_t at = own_outputs(n);
  for (const std::string& name : sites.hidden) {
    if (at >= n.outputs.size() || n.outputs[at] == kNoTensor) break;
    layer.inputs.push_back(n.outputs[at++]);
    layer.input_names.push_back(name);
  }
  add_inner(n, layer, at, sites.internals);
  return true;
}

// Queries, keys and values; scores and probabilities inside.
bool attention_layer(const Graph& g, const Node& n, Layer& layer) {
  static const char* const kNames[] = {"queries", "keys", "values"};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::size_t before = layer.inputs.size();
    add_activation(g, n.input(i), layer);
    if (layer.inputs.size() > before) layer.input_names.emplace_back(kNames[i]);
  }
  add_inner(n, layer, own_outputs(n), attention_internals());
  return !layer.inputs.empty();
}

bool compute_layer(const Graph& g, const Node& n, Layer& layer) {
  if (is_recurrent(n)) return recurrent_layer(g, n, layer);
  if (n.op == "Attention") return attention_layer(g, n, layer);
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
  if (n.op == "Concat" && !constant_parts(g, n.outputs[0]).empty()) return false;  // joins weights
  for (const TensorId t : n.inputs) add_activation(g, t, layer);
  if (layer.inputs.size() >= 2) return true;
  // Of an activation and a constant.
  static const std::set<std::string> kAffine = {"Add", "Sub", "Mul", "Div", "Max", "Min"};
  return layer.inputs.size() == 1 && n.inputs.size() == 2 && kAffine.count(n.op) > 0 &&
         std::any_of(n.inputs.begin(), n.inputs.end(), [&](TensorId t) { return is_initializer(g, t) && is_real(g.tensor(t).type); });
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
  for (std::size_t i = 0; i < weights(); ++i) out.push_back({node, SiteKind::kWeight, static_cast<int>(i)});
  if (bias != kNoTensor) out.push_back({node, SiteKind::kBias, 0});
  for (std::size_t i = 0; i < inputs.size(); ++i) out.push_back({node, SiteKind::kInput, static_cast<int>(i)});
  if (output != kNoTensor) out.push_back({node, SiteKind::kOutput, 0});
  for (std::size_t i = 0; i < internals.size(); ++i) out.push_back({node, SiteKind::kInternal, static_cast<int>(i)});
  return out;
}

std::vector<Layer> find_layers(const Graph& graph) {
  std::vector<Layer> out;
  for (const Node& n : graph.nodes()) {
    const auto kind = kind_of(graph, n);
    if (!kind || n.outputs.empty()) continue;
    Layer layer;
    layer.node = n.id;
    layer.kind = *kind;
    layer.output = is_recurrent(n) ? read_output(graph, n) : n.outputs[0];
    if (layer.output == kNoTensor || !is_real(graph.tensor(layer.output).type)) continue;
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
  const auto i = static_cast<std::size_t>(site.operand);
  const auto of = [i](const std::vector<TensorId>& list) { return i < list.size() ? list[i] : kNoTensor; };
  if (site.kind == SiteKind::kInput) return of(layer.inputs);
  if (site.kind == SiteKind::kInternal) return of(layer.internals);
  if (site.kind == SiteKind::kWeight && i > 0) return i - 1 < layer.more_weights.size() ? layer.more_weights[i - 1] : kNoTensor;
  if (i > 0) return kNoTensor;
  if (site.kind == SiteKind::kWeight) return layer.weight;
  return site.kind == SiteKind::kBias ? layer.bias : layer.output;
}

std::string site_name(const Layer& layer, const Site& site) {
  const auto i = static_cast<std::size_t>(std::max(0, site.operand));
  const auto named = [&](const std::vector<std::string>& names) { return i < names.size() ? names[i] : std::string(); };
  const std::string kind = enum_text(site.kind);
  if (site.kind == SiteKind::kWeight && layer.weights() > 1) return kind + " " + named(layer.weight_names);
  if (site.kind == SiteKind::kInternal) return named(layer.internal_names);
  if (site.kind == SiteKind::kInput && i < layer.input_names.size()) return named(layer.input_names);
  return site.operand > 0 ? kind + " " + std::to_string(site.operand + 1) : kind;
}

LayerRun run_of(const Graph& graph, const Layer& layer) {
  LayerRun run;
  const Node& node = *graph.find(layer.node);
  const std::function<void(const Node&)> add = [&](const Node& n) {
    for (const TensorId t : n.inputs) {
      if (t == kNoTensor || graph.tensor(t).is_initializer) continue;
      if (constant_parts(graph, t).empty())
        run.reads.push_back(t);
      else if (const Node* join = graph.find(graph.tensor(t).producer); std::count(run.nodes.begin(), run.nodes.end(), join->id) == 0)
        add(*join);
    }
    run.nodes.push_back(n.id);
  };
  add(node);
  return run;
}

std::vector<TensorId> constant_parts(const Graph& graph, TensorId tensor) {
  return parts_of(graph, tensor, 2);
}

}  // namespace quanvas
