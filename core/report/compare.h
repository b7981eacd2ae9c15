// Quanvas - two runs side by side: what changed in the figures, layer by layer, and in the recipe.
// Pure functions of values, Torch-free: the window, the command line and the engine share them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/report/report.h"

namespace quanvas {

struct LayerDelta {
  NodeId node = kNoNode;
  std::string name;
  std::optional<LayerResult> a, b;  // none: the run has no such layer
  double cumulative_delta_db = 0;   // b - a; nan when one is missing, 0 when both are +inf
};
template <class V>
void visit_fields(V& v, LayerDelta& d) {
  v("node", d.node);
  v("name", d.name);
  v("a", d.a);
  v("b", d.b);
  v("cumulative_delta_db", d.cumulative_delta_db);
}
struct Comparison {
  std::int64_t a = 0, b = 0;
  double top1_delta = 0, bytes_delta = 0, bops_delta = 0;  // b - a; nan when unknown
  double perplexity_delta = std::nan("");                  // likewise
  std::vector<LayerDelta> layers;                          // layers of a in order, then those only b has
  std::vector<std::string> recipe_differences;             // in words
};
template <class V>
void visit_fields(V& v, Comparison& c) {
  v("a", c.a);
  v("b", c.b);
  v("top1_delta", c.top1_delta);
  v("perplexity_delta", c.perplexity_delta);
  v("bytes_delta", c.bytes_delta);
  v("bops_delta", c.bops_delta);
  v("layers", c.layers);
  v("recipe_differences", c.recipe_differences);
}

Comparison compare(const Run& a, const Run& b);

// Differences of two recipes in words, from a to b: rules added, removed, moved or changed ("rule 2 (type is
// Conv, weight): bits 8 → 4"), passes, calibration. Empty when both say the same (the name does not count).
std::vector<std::string> recipe_differences(const Recipe& a, const Recipe& b);

}  // namespace quanvas
