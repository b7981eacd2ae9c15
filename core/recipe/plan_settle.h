// Quanvas - what sites of a plan owe to each other, once each of them has its rule. Internal to core/recipe.
#pragma once

#include "core/recipe/plan.h"

namespace quanvas {

// What the sites of one shared quantizer have in common by their rules: the name, or "#7" for the inputs of node 7;
// empty: nothing. Of `share: edge` what settle_edges() has found.
std::string share_key(const Recipe& recipe, const SitePlan& site);

// What a site's name in a sentence is: "conv1 input 2". Of a list the first four are named.
std::string site_text(const Graph& graph, const Site& site);
std::string list_text(std::vector<std::string> names);

// Edges, shared quantizers, truncated outputs, then biases at the accumulator's scale: where the sites do not go together
// they become float, with the reason in `why` and, for shares and truncations, a warning. Accumulators whose bound
// does not hold for the layer's input are warnings. Cheap where no rule uses these.
void settle(const Graph& graph, const Recipe& recipe, Plan& plan);

}  // namespace quanvas
