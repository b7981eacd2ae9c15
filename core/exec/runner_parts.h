// Quanvas - what the Runner knows of each node; internal to core/exec.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/exec/runner.h"

namespace quanvas::exec {

inline std::string label(const Node& node) {
  return node.op + " '" + node.name + "'";
}
inline std::size_t at_index(TensorId id) {
  return static_cast<std::size_t>(id);
}

// What a node's site quantizers touch: input position and operand number of each activation operand, and which output
// is the layer's. Outputs from `inner` on are there only when somebody looks at them.
struct Runner::NodeSites {
  std::vector<std::pair<std::size_t, int>> operands;
  std::optional<std::size_t> output;
  std::size_t inner = 0;
};

// Unsigned types that stand in wider signed ones: which results wrap to how many bits, and which inputs of 64 bits
// must not have the highest bit set, because the operator would take it for a sign.
struct Runner::NodeTypes {
  std::vector<std::pair<std::size_t, int>> wrapped;
  std::vector<std::size_t> below_2_63;
};

}  // namespace quanvas::exec
