// Quanvas - how much memory a walk through a graph takes.
#pragma once

#include "core/graph/graph.h"

namespace quanvas {

// The most bytes that one sample's activations, in float32, take at once when each is freed after its last use; at least
// 1. Dimensions that are not known count as 1, and the first one as the batch.
std::int64_t live_bytes(const Graph& graph);

}  // namespace quanvas
