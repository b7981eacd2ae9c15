// Quanvas - bringing nodes of older ONNX operator sets to a newer one with the same meaning.
//
// Operator versions are those of onnx/docs/Changelog.md. Only what changed in ai.onnx 7 to 25 needs work:
// attributes that became inputs, defaults that changed, operators that were renamed.
#pragma once

#include <functional>
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

// A node in ONNX's own words: what canonical.h adds to them is taken apart again (a MatMul's bias, what lies inside an
// operator), and so are normalizations and Gelu that the opset does not know yet. The first node keeps the draft's name;
// the last of several has it with kResult behind it and gives the draft's outputs. `fresh` makes tensor names unique.
inline constexpr const char* kResult = "_result";
std::vector<NodeDraft> in_onnx(NodeDraft draft, int opset, const std::function<std::string(const std::string&)>& fresh);

// Empty when done, else what keeps the node from being said in opset `to`. to >= from. The graph gives the
// rank of the node's input where the meaning depends on it.
std::string upgrade(NodeDraft& draft, const Graph& graph, int from, int to);

}  // namespace quanvas::onnx_file
