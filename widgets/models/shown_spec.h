// Quanvas - a quantizer as it is where it stands: a group is never longer than the axis that it divides.
#pragma once

#include "core/graph/layers.h"
#include "core/recipe/quant_spec.h"

namespace quanvas {

// Values of a group of this site where its axis has fewer than the spec's group; 0: as the spec says, or not known.
int shorter_group(const Graph& graph, const Layer& layer, const Site& site, const QuantSpec& spec);
// The spec with the group that it has there.
QuantSpec shown_spec(const Graph& graph, const Layer& layer, const Site& site, QuantSpec spec);

}  // namespace quanvas
