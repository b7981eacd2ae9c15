#include "plugins/passes/blocks.h"

#include <algorithm>
#include <set>
#include <string>

namespace quanvas::rounding {
namespace {

bool ends_a_block(const Node& node) {
  static const std::set<std::string> ops = {"Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "TopK"};
  return ops.count(node.op) > 0;
}

// Whether a table is read by what the network is given: its rows are features, not positions or masks.
bool reads_input(const Graph& graph, const Layer& layer) {
  static const std::set<std::string> same = {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  TensorId id = layer.inputs.empty() ? graph.find(layer.node)->input(1) : layer.inputs[0];
  while (id != kNoTensor) {
    const Node* producer = graph.find(graph.tensor(id).producer);
    if (!producer) return !graph.tensor(id).is_initializer;
    if (same.count(producer->op) == 0) return false;
    id = producer->input(0);
  }
  return false;
}

void find_ends(const Graph& graph, BlockRange& block) {
  std::set<TensorId> inside, read;
  for (std::size_t p = block.begin; p < block.end; ++p) {
    const Node& node = graph.nodes()[p];
    for (const TensorId id : node.inputs)
      if (id != kNoTensor && !graph.tensor(id).is_initializer && inside.count(id) == 0) read.insert(id);
    for (const TensorId id : node.outputs)
      if (id != kNoTensor) inside.insert(id);
  }
  block.inputs.assign(read.begin(), read.end());
  for (const TensorId id : inside) {
    const auto& consumers = graph.tensor(id).consumers;
    const bool later =
        std::any_of(consumers.begin(), consumers.end(), [&](NodeId c) { return graph.position(c) >= block.end; });
    if (later || graph.is_output(id)) block.outputs.push_back(id);
  }
}

}  // namespace

std::vector<BlockRange> find_blocks(const Graph& graph, std::int64_t most_layers) {
  const std::size_t n = graph.nodes().size();
  std::set<std::size_t> is_layer, is_table;
  for (const Layer& layer : find_layers(graph))
    if (layer.kind == LayerKind::kEmbedding && reads_input(graph, layer))
      is_table.insert(graph.position(layer.node));
    else if (layer.kind == LayerKind::kCompute && layer.weight != kNoTensor)
      is_layer.insert(graph.position(layer.node));
  // Whether a tensor depends on a layer's weight, and how many such tensors pass between nodes p - 1 and p.
  std::vector<char> carried(graph.tensors().size());
  std::vector<int> change(n + 2);
  for (std::size_t p = 0; p < n; ++p) {
    const Node& node = graph.nodes()[p];
    bool depends = is_layer.count(p) > 0 || is_table.count(p) > 0;
    for (const TensorId id : node.inputs)
      depends = depends || (id != kNoTensor && carried[static_cast<std::size_t>(id)]);
    if (!depends) continue;
    for (const TensorId id : node.outputs) {
      if (id == kNoTensor) continue;
      carried[static_cast<std::size_t>(id)] = 1;
      std::size_t last = p;
      for (const NodeId c : graph.tensor(id).consumers) last = std::max(last, graph.position(c));
      if (last > p) ++change[p + 1], --change[last + 1];
    }
  }
  std::vector<std::size_t> cuts = {0};
  int live = 0;
  for (std::size_t p = 1; p < n; ++p) {
    live += change[p];
    if (live <= 1) cuts.push_back(p);
  }
  cuts.push_back(n);
  std::vector<BlockRange> out;
  std::size_t pending = 0;  // where the next block may begin
  bool open = false;        // nodes without layers may still join the last block
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    BlockRange piece;
    piece.begin = cuts[i], piece.end = cuts[i + 1];
    bool ends = false;
    for (std::size_t p = piece.begin; p < piece.end; ++p) {
      if (is_layer.count(p) > 0) piece.layers.push_back(p);
      ends = ends || ends_a_block(graph.nodes()[p]);
    }
    if (piece.layers.empty()) {
      if (open && !ends)
        out.back().end = piece.end, pending = piece.end;
      else
        open = false;
      continue;
    }
    const bool joins =
        open && static_cast<std::int64_t>(out.back().layers.size() + piece.layers.size()) <= most_layers;
    if (joins) {
      out.back().end = piece.end;
      out.back().layers.insert(out.back().layers.end(), piece.layers.begin(), piece.layers.end());
    } else {
      if (!out.empty()) piece.begin = pending;
      out.push_back(std::move(piece));
    }
    pending = out.back().end;
    open = true;
  }
  for (BlockRange& block : out) find_ends(graph, block);
  return out;
}

}  // namespace quanvas::rounding
