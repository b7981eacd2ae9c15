#include "plugins/exporters/onnx_sites.h"

#include <cmath>

#include "core/recipe/pool_sum.h"

namespace quanvas::onnx_file {

bool truncates_exactly(const Graph& graph, const PlacedQuantizer& placed) {
  const quant::QuantParams& p = *placed.params;
  if (!p.truncated || p.scale.size() != 1) return false;
  constexpr int kFewBits = 8;  // of a sum whose float32 error is far below a half
  if (p.scale[0] == p.truncated->scale && p.truncated->bits <= kFewBits) return true;
  Layer layer;
  layer.node = placed.node->id;
  layer.inputs = {placed.node->input(0)};
  const std::int64_t elements = averaged_elements(graph, layer).count;
  int exponent = 0;
  return elements > 0 && (elements & (elements - 1)) == 0 && std::frexp(p.truncated->scale, &exponent) == 0.5f;
}

}  // namespace quanvas::onnx_file
