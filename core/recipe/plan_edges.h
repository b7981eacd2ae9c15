// Quanvas - `share: edge`: the tensors between operators as edges that integers run along. Internal to core/recipe.
//
// An edge is a tensor with all that only moves its values (reshapes, transposes, slices ...): one quantizer serves for it,
// whoever asked for one. Some operators need several edges on one scale, as an addition of integers does; others give
// values that they have read, so that their output has its input's scale already.
#pragma once

#include "core/recipe/plan.h"

namespace quanvas {

inline constexpr const char* kEdgeShare = "edge";

// The output holds nothing but values of the first input, and zeros or other constants of padding.
bool moves_values(const Node& node);

// Sites whose rules say `share: edge`: one quantizer stays for each edge, at those that read it or, where something
// else reads it, too, at the layer that gives it; the others lose their format, with the reason in `why`. Edges that
// must have one scale get a common `share`. What cannot be is a warning. Cheap where no rule says it.
void settle_edges(const Graph& graph, const Recipe& recipe, Plan& plan);

}  // namespace quanvas
