// Quanvas - bringing nodes of older ONNX operator sets to a newer one with the same meaning.
//
// Operator versions are those of onnx/docs/Changelog.md. Only what exists in ai.onnx 7 to 13 needs work:
// attributes that became inputs, defaults that changed, operators that were renamed.
#pragma once

#include <string>
#include <vector>

#include "core/graph/weights.h"

namespace quanvas::onnx_file {

inline constexpr int kOldestOpset = 7;  // before it, broadcasting and Dropout meant something else

// A node on its way into a file: by tensor names, "" for an omitted input.
struct NodeDraft {
  std::string name, op, domain;
  std::vector<std::string> inputs, outputs;
  Attributes attributes;
  struct Constant {
    std::string name;  // a proposal; the writer makes it unique and renames the input
    TensorData data;
  };
  std::vector<Constant> constants;  // new initializers that `inputs` refer to
};
NodeDraft draft_of(const Graph& graph, const Node& node);

// Empty when done, else what keeps the node from being said in opset `to`. to >= from. The graph gives the
// rank of the node's input where the meaning depends on it.
std::string upgrade(NodeDraft& draft, const Graph& graph, int from, int to);

}  // namespace quanvas::onnx_file
