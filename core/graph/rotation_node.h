// Quanvas - the one operator that is Quanvas' own: an orthonormal Hadamard transform of the last axis of its input, as the pass
// `rotate` puts it in front of layers. Domain "quanvas", operator "Hadamard", attributes
//   width  features of the input, its last axis
//   size   of the transform; the features are padded with zeros to a multiple of it, and each block is transformed alone
//   core   rows of Paley's core in it, 1 for powers of two (core/algorithms/hadamard.h)
// Input [.., width] of real numbers, output [.., blocks * size] of the same type: y = [x, 0] (I x H).
#pragma once

#include <optional>

#include "core/graph/graph.h"

namespace quanvas {

inline constexpr const char* kOwnDomain = "quanvas";
inline constexpr const char* kHadamardOp = "Hadamard";

struct HadamardNode {
  std::int64_t width = 0, size = 0, core = 1;
  std::int64_t blocks() const { return (width + size - 1) / size; }
  std::int64_t outputs() const { return blocks() * size; }
};

inline bool is_hadamard(const std::string& domain, const std::string& op) { return domain == kOwnDomain && op == kHadamardOp; }
// Nothing: another operator, or attributes out of range. That the size has such a core is not looked at.
inline std::optional<HadamardNode> hadamard_node(const Node& node) {
  constexpr std::int64_t kMost = std::int64_t{1} << 26;
  if (!is_hadamard(node.domain, node.op)) return std::nullopt;
  const HadamardNode h{node.integer("width", 0), node.integer("size", 0), node.integer("core", 1)};
  if (h.width < 1 || h.width > kMost || h.size < 1 || h.size > kMost || h.core < 1 || h.size % h.core != 0) return std::nullopt;
  return h;
}
inline Attributes hadamard_attributes(const HadamardNode& h) { return {{"width", h.width}, {"size", h.size}, {"core", h.core}}; }

}  // namespace quanvas
