// Quanvas - blocks of a network: pieces of its topological order between points where all that depends on a layer's
// weights or on a table of tokens passes through one tensor (residual blocks, the two halves of a transformer's,
// single layers of a chain).
#pragma once

#include <vector>

#include "core/graph/graph.h"
#include "core/graph/layers.h"

namespace quanvas::rounding {

struct BlockRange {
  std::size_t begin = 0, end = 0;   // positions of nodes, the end left out
  std::vector<std::size_t> layers;  // positions of the layers with a weight in it
  std::vector<TensorId> inputs;     // what its nodes read from outside, initializers left out
  std::vector<TensorId>
      outputs;  // what is read behind it, and outputs of the network that it makes; for a cut one tensor
};

// Neighbours are taken together while they have no more than so many layers; a piece that cannot be cut stays
// whole. Nodes without layers belong to the block before them, up to a softmax or another choice among classes. In
// topological order; each holds a layer at least.
std::vector<BlockRange> find_blocks(const Graph& graph, std::int64_t most_layers);

}  // namespace quanvas::rounding
