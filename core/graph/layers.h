// Quanvas - which nodes are layers (can be quantized), which tensors are their sites, and what they cost.
#pragma once

#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace quanvas {

enum class SiteKind { kWeight, kBias, kInput, kOutput, kInternal };
inline const EnumNames<SiteKind>& enum_names(SiteKind) {
  static const EnumNames<SiteKind> names = {{SiteKind::kWeight, "weight"},
                                            {SiteKind::kBias, "bias"},
                                            {SiteKind::kInput, "input"},
                                            {SiteKind::kOutput, "output"},
                                            {SiteKind::kInternal, "internal"}};
  return names;
}

inline bool is_activation(SiteKind kind) { return kind != SiteKind::kWeight && kind != SiteKind::kBias; }

// One tensor that can get a quantizer. `operand` counts the sites of one kind: the inputs of layers with several (Add,
// Mul, Concat, MatMul of activations), the weights of recurrent layers (one of each gate, of the input and of the hidden
// state), what is quantized inside an operator (gates, cell state, attention scores); 0 where there is only one.
struct Site {
  NodeId node = kNoNode;
  SiteKind kind = SiteKind::kWeight;
  int operand = 0;
  auto operator<=>(const Site&) const = default;
};
template <class V>
void visit_fields(V& v, Site& s) {
  v("node", s.node);
  v("kind", s.kind);
  v("operand", s.operand);
}

enum class LayerKind { kCompute, kElementwise, kPool, kActivation, kNormalization, kEmbedding };
inline const EnumNames<LayerKind>& enum_names(LayerKind) {
  static const EnumNames<LayerKind> names = {
      {LayerKind::kCompute, "compute"}, {LayerKind::kElementwise, "elementwise"},
      {LayerKind::kPool, "pool"},       {LayerKind::kActivation, "activation"},
      {LayerKind::kNormalization, "normalization"}, {LayerKind::kEmbedding, "embedding"}};
  return names;
}

struct Layer {
  NodeId node = kNoNode;
  LayerKind kind = LayerKind::kCompute;
  TensorId weight = kNoTensor;  // an initializer; none for MatMul of two activations, Add ...
  std::vector<TensorId> more_weights;  // of recurrent layers, after `weight`
  TensorId bias = kNoTensor;
  std::vector<TensorId> inputs; // activation operands, in order; of a recurrent layer the hidden states, too
  TensorId output = kNoTensor;
  std::vector<TensorId> internals;  // see canonical.h
  // What sites are called where their kind and number say too little; as long as the lists they name, or empty.
  std::vector<std::string> weight_names, input_names, internal_names;
  // Of the weight, as the node uses it: axis of output channels and of the reduction (input channels).
  // Conv 0/1, ConvTranspose 1/0, Gemm transB=1 0/1, Gemm and MatMul 1/0.
  int channel_axis = 0;
  int reduction_axis = 1;
  int bias_axis = 0;  // of the bias: axis of output channels; below 0: it has none
  int group = 1;  // of a convolution

  std::vector<Site> sites() const;
  std::size_t weights() const { return weight == kNoTensor ? 0 : 1 + more_weights.size(); }
};

// In topological order. Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN, Attention (kCompute); Add, Mul, Concat ... of
// activations; pools; activations; normalizations; Gather of a 2-d initializer (kEmbedding). Opaque nodes are none.
std::vector<Layer> find_layers(const Graph& graph);
const Layer* find_layer(const std::vector<Layer>& layers, NodeId node);
// The tensor behind a site; kNoTensor when the layer has no such site.
TensorId site_tensor(const Layer& layer, const Site& site);

// "weight", "input 2", "hidden state", "weight, forget gate of the input": what the site is called beside its layer's name.
std::string site_name(const Layer& layer, const Site& site);
// What it takes to run a layer alone: its node, after those that join its weights, and the tensors without data in the file
// that they read from elsewhere (inputs of sites, initial states, masks ...).
struct LayerRun {
  std::vector<NodeId> nodes;
  std::vector<TensorId> reads;
};
LayerRun run_of(const Graph& graph, const Layer& layer);
// The initializers that a tensor consists of: itself, or those that Concat nodes, two at most in a row, join to it; empty:
// it is computed.
std::vector<TensorId> constant_parts(const Graph& graph, TensorId tensor);

struct NodeCost {
  double macs = 0;          // multiply-accumulates for one sample; 0 when shapes are unknown
  double parameters = 0;    // elements of initializers that only count as learnt (weight, bias, BN's four)
  double weight_bytes = 0;  // as stored in the file
  double output_elements = 0;  // for one sample
};
// BOPs = MACs x weight bits x activation bits (Baskin et al. 2021, without the accumulator term).
NodeCost node_cost(const Graph& graph, const Node& node);

// "Conv 5×5, 6 → 16, stride 1" and "Conv 5×5" (short).
std::string describe(const Graph& graph, const Node& node);
std::string describe_short(const Graph& graph, const Node& node);

}  // namespace quanvas
