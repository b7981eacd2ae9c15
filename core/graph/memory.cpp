#include "core/graph/memory.h"

#include <algorithm>

namespace quanvas {

std::int64_t live_bytes(const Graph& graph) {
  std::int64_t live = 0, most = 0;
  const auto size = [&](TensorId id) {
    const TensorInfo& t = graph.tensor(id);
    Shape shape = t.shape.value_or(Shape{});
    if (!shape.empty()) shape[0] = 1;
    constexpr std::int64_t kMost = std::int64_t{1} << 40;  // absurd sizes must not overflow the sum
    return t.is_initializer ? 0 : 4 * std::min(element_count(shape), kMost);
  };
  for (const TensorId id : graph.inputs()) live += size(id);
  for (const Node& node : graph.nodes()) {
    for (const TensorId id : node.outputs)
      if (id != kNoTensor) live += size(id);
    most = std::max(most, live);
    for (const TensorId id : node.outputs)
      if (id != kNoTensor && graph.tensor(id).consumers.empty() && !graph.is_output(id)) live -= size(id);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const TensorId id = node.inputs[i];
      const bool again = std::find(node.inputs.begin(), node.inputs.begin() + static_cast<std::ptrdiff_t>(i), id) !=
                         node.inputs.begin() + static_cast<std::ptrdiff_t>(i);
      if (id != kNoTensor && !again && !graph.tensor(id).consumers.empty() && graph.tensor(id).consumers.back() == node.id)
        live -= size(id);
    }
  }
  return std::max<std::int64_t>(1, most);
}

}  // namespace quanvas
