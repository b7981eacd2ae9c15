// Quanvas - the imported network as an immutable value.
//
// Operators carry ONNX names, attributes and semantics whatever file they came from, with the extensions that canonical.h
// names. Nodes stand in topological order. A NodeId is given at import and kept by every pass, so a selection, a rule or
// a result stays attached to "its" node when other nodes are folded away; it is not an index.
// Thread-safe: const after build(). No tensor data here: weights live in a WeightStore (weights.h).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "core/base/json.h"
#include "core/base/result.h"

namespace quanvas {

// ONNX TensorProto.DataType numbers; others are kept as their number.
enum class DataType : int {
  kUndefined = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kUint16 = 4, kInt16 = 5, kInt32 = 6, kInt64 = 7,
  kString = 8, kBool = 9, kFloat16 = 10, kDouble = 11, kUint32 = 12, kUint64 = 13, kBfloat16 = 16,
  kFloat8E4M3Fn = 17, kFloat8E4M3Fnuz = 18, kFloat8E5M2 = 19, kFloat8E5M2Fnuz = 20, kUint4 = 21, kInt4 = 22,
  kFloat4E2M1 = 23, kFloat8E8M0 = 24,
};
const char* type_name(DataType type);      // "float32", "int8" ...
std::size_t element_size(DataType type);   // bytes; 0 for types of no fixed or sub-byte size

using NodeId = std::int32_t;
using TensorId = std::int32_t;  // index into Graph::tensors()
inline constexpr TensorId kNoTensor = -1;
inline constexpr NodeId kNoNode = -1;

using Shape = std::vector<std::int64_t>;  // -1: unknown or symbolic (the batch)
std::string shape_text(const Shape& shape);             // "1×28×28"; "?" for unknown; "scalar" for rank 0
std::int64_t element_count(const Shape& shape);         // unknown dimensions count as 1; saturates

class Graph;
using GraphPtr = std::shared_ptr<const Graph>;

// Tensor-valued attributes (Constant nodes) become initializers at import. A subgraph (the body of If, Loop ...) is
// a Graph without initializers of its own: what it reads from outside, weights included, are the last inputs of its
// node, as many as the node's attribute "captured" says, and the last inputs of the subgraph, in the same order.
using Attribute = std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>, std::vector<float>,
                               std::vector<std::string>, GraphPtr>;
using Attributes = std::map<std::string, Attribute>;

struct TensorInfo {
  std::string name;  // unique, never empty
  DataType type = DataType::kUndefined;
  std::optional<Shape> shape;         // without value: unknown rank
  bool is_initializer = false;        // data in the WeightStore under `name`
  NodeId producer = kNoNode;          // none for graph inputs and initializers
  std::vector<NodeId> consumers;      // each once, in topological order
};

struct Node {
  NodeId id = kNoNode;
  std::string name;    // unique, never empty: the file's, or made from op and output
  std::string op;      // "Conv"
  std::string domain;  // "" = ai.onnx
  std::string scope;   // "layer1.0" of "layer1.0.conv1"; may be empty
  std::vector<TensorId> inputs;   // kNoTensor for an omitted optional input
  std::vector<TensorId> outputs;  // kNoTensor for an omitted optional output
  Attributes attributes;
  std::string opaque_reason;  // not empty: why this node cannot be executed (shown, never a crash)

  std::int64_t integer(const std::string& key, std::int64_t fallback) const;
  float real(const std::string& key, float fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;
  std::vector<std::int64_t> integers(const std::string& key, std::vector<std::int64_t> fallback = {}) const;
  std::vector<float> reals(const std::string& key, std::vector<float> fallback = {}) const;
  std::vector<std::string> texts(const std::string& key, std::vector<std::string> fallback = {}) const;
  GraphPtr subgraph(const std::string& key) const;  // null when absent
  TensorId input(std::size_t i) const { return i < inputs.size() ? inputs[i] : kNoTensor; }
};

class Graph {
 public:
  const std::string& name() const { return name_; }
  int opset() const { return opset_; }  // of ai.onnx
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const std::vector<TensorId>& inputs() const { return inputs_; }    // without initializers
  const std::vector<TensorId>& outputs() const { return outputs_; }
  bool is_output(TensorId t) const;

  const Node* find(NodeId id) const;
  const Node* find(const std::string& node_name) const;
  TensorId tensor(const std::string& tensor_name) const;  // kNoTensor when absent
  const TensorInfo& tensor(TensorId id) const { return tensors_[static_cast<std::size_t>(id)]; }
  std::size_t position(NodeId id) const;  // index in nodes(); nodes().size() when absent
  // Ids of the nodes that depend on `id` (itself included), topological order.
  std::vector<NodeId> downstream(NodeId id) const;
  // Structure, names, attributes, shapes (not weight data). 32 hex digits.
  const std::string& hash() const { return hash_; }

 private:
  friend class GraphBuilder;
  std::string name_, hash_;
  int opset_ = 13;
  std::vector<Node> nodes_;
  std::vector<TensorInfo> tensors_;
  std::vector<TensorId> inputs_, outputs_;
  std::unordered_map<NodeId, std::size_t> position_;
  std::unordered_map<std::string, TensorId> tensor_by_name_;
  std::unordered_map<std::string, std::size_t> node_by_name_;
};

// Makes Graphs: from nothing (importers) or as an edit of one (passes). build() sorts topologically, drops
// tensors that nothing uses, makes empty or repeated node names unique, derives scopes from names that
// contain '/' or '.', and refuses: cycles, a tensor produced twice, an input that nothing provides,
// outputs that nothing produces. Not thread-safe.
class GraphBuilder {
 public:
  GraphBuilder() = default;
  explicit GraphBuilder(const Graph& base);  // keeps every NodeId

  void set_name(std::string name) { name_ = std::move(name); }
  void set_opset(int opset) { opset_ = opset; }
  // Adds the tensor or completes what is known of it (a later call wins for type and shape that it gives).
  void tensor(const std::string& name, DataType type, std::optional<Shape> shape);
  void initializer(const std::string& name, DataType type, Shape shape);
  void input(const std::string& name);
  void output(const std::string& name);
  // Inputs and outputs by tensor name, "" for an omitted one. Returns the node's id.
  NodeId node(std::string name, std::string op, std::vector<std::string> inputs,
              std::vector<std::string> outputs, Attributes attributes = {}, std::string domain = {},
              std::string opaque_reason = {});
  void remove_node(NodeId id);
  // Node `id` reads `to` wherever it read `from`; for graph outputs use replace_output.
  void replace_input(NodeId id, const std::string& from, const std::string& to);
  void replace_input_at(NodeId id, std::size_t index, const std::string& to);  // appends when index == size
  void replace_output(NodeId id, const std::string& from, const std::string& to);
  void set_output_at(NodeId id, std::size_t index, const std::string& to);  // outputs before it become omitted ones
  void set_attribute(NodeId id, const std::string& key, Attribute value);

  Result<GraphPtr> build();

 private:
  friend Result<GraphPtr> graph_from_json(const json& j);
  struct Draft {
    Node node;
    std::vector<std::string> inputs, outputs;
  };
  std::string name_;
  int opset_ = 13;
  NodeId next_id_ = 0;
  std::map<NodeId, Draft> drafts_;
  std::vector<std::pair<std::string, TensorInfo>> tensors_;
  std::unordered_map<std::string, std::size_t> tensor_index_;
  std::vector<std::string> inputs_, outputs_;

  struct Assembly;  // the pieces of build(), in graph_build.cpp
};

// JSON for the window, the command line and the project file (never for weights).
json graph_to_json(const Graph& graph);
Result<GraphPtr> graph_from_json(const json& j);

}  // namespace quanvas
