// Quanvas - an ONNX file while it is being imported: names instead of ids, free to be rewritten.
//
// Shapes here hold dimensions >= 0, kUnknownDim, or a symbol below it: two dimensions with the same symbol
// are equal whatever the batch is. Symbols become -1 in the Graph.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/base/job.h"
#include "core/base/mapped_file.h"
#include "core/graph/weights.h"

namespace onnx {
class ModelProto;
class TensorProto;
class NodeProto;
class SparseTensorProto;
}  // namespace onnx

namespace quanvas::onnx_import {

inline constexpr std::int64_t kUnknownDim = -1;

struct TensorFacts {
  DataType type = DataType::kUndefined;
  std::optional<Shape> shape;
};

struct DraftNode;

// A subgraph. No name in it is used elsewhere in the draft, except for what it captures.
struct DraftBody {
  std::string name;
  std::vector<DraftNode> nodes;
  std::vector<std::string> inputs, outputs;  // inputs without captured ones
};

struct DraftNode {
  std::string name, op, domain;
  std::vector<std::string> inputs, outputs;  // "" for omitted ones
  std::map<std::string, std::shared_ptr<const DraftBody>> bodies;
  std::vector<std::string> captured;  // what the last inputs are called in the bodies
  Attributes attributes;
  std::string opaque_reason;
  bool removed = false;

  const std::string& input(std::size_t i) const;
  std::int64_t integer(const std::string& key, std::int64_t fallback) const;
  std::optional<std::vector<std::int64_t>> integers(const std::string& key) const;
  std::vector<float> reals(const std::string& key) const;  // empty when absent
  std::string text(const std::string& key) const;
  std::string label() const;  // for messages: name, else op and output
  std::size_t own_inputs() const { return inputs.size() - captured.size(); }
};

struct Draft {
  std::string name;
  int opset = 13;
  std::vector<DraftNode> nodes;
  std::map<std::string, TensorData> constants;
  std::unordered_map<std::string, TensorFacts> facts;     // inputs, constants, inferred results
  std::unordered_map<std::string, TensorFacts> declared;  // what the file says of results
  std::vector<std::string> inputs, outputs;
  std::unordered_set<std::string> output_names;  // the same as outputs
  std::int64_t next_symbol = kUnknownDim - 1;

  std::int64_t new_symbol() { return next_symbol--; }
  bool is_output(const std::string& tensor) const { return output_names.count(tensor) > 0; }
  const TensorData* constant(const std::string& tensor) const;
  const TensorFacts* known(const std::string& tensor) const;
};

// One element of a small tensor: a number, or a symbol that stands for a dimension.
struct Cell {
  std::int64_t integer = 0;  // of integer and boolean types
  double real = 0;           // of floating types
  std::int64_t symbol = 0;   // 0: a number; kUnknownDim: anything; below: that dimension
};
struct Value {
  DataType type = DataType::kUndefined;
  Shape shape;
  std::vector<Cell> cells;
  bool is_number() const;  // no symbols
};
bool is_floating(DataType type);
std::optional<Value> value_of(const TensorData& data);  // none for types or sizes that are not folded
std::optional<TensorData> data_of(const Value& value);  // none when it has symbols or an odd type

// What the nodes before this one tell about its inputs.
struct Knowledge {
  const Draft& draft;
  std::unordered_map<std::string, Value> values;  // results that are partly known
  std::optional<Value> value(const std::string& tensor) const;
  const Shape* shape(const std::string& tensor) const;
  DataType type(const std::string& tensor) const;
};

// The result of a node whose inputs are known (maybe only as symbols); none when it cannot be computed here.
// Only operators with one output.
std::optional<Value> evaluate(const DraftNode& node, const Knowledge& known);
// The same for initializers of any size: operators that only move elements, and Cast to float32.
std::optional<TensorData> move_constants(const DraftNode& node, const Knowledge& known);

// Weights that a file gives as "all the same number": made as initializers while `budget` elements last.
std::optional<TensorData> made_constant(const DraftNode& node, const Knowledge& known, std::int64_t& budget);

// Where each element of a result comes from: number of the data input and element in it.
struct Movement {
  DataType type = DataType::kUndefined;
  Shape shape;
  bool is_plain = false;  // the elements of input 0 in their order; `from` is empty
  std::vector<std::pair<std::int32_t, std::int64_t>> from;
};
std::optional<Movement> movement(const DraftNode& node, const Knowledge& known, std::int64_t most_elements);

// Fills facts of the node's outputs. Returns the reason when the inference failed, else "".
std::string infer(const DraftNode& node, const Knowledge& known, Draft& draft);
// Facts of the outputs of an operator that the library does not know in this form; none: no such rule.
std::optional<std::vector<TensorFacts>> newer_rule(const DraftNode& node, const Knowledge& known);
// Why the attributes cannot be right ("strides has a 0"); "" when they look sane.
std::string implausible(const DraftNode& node);
bool is_known_operator(const std::string& op);

// target with symbols and a fixed batch resolved, so that it holds for every batch; none when impossible.
std::optional<std::vector<std::int64_t>> batch_free_target(const Shape& data, const Value& target,
                                                           std::int64_t batch_symbol, std::int64_t fixed_batch,
                                                           bool allow_zero);
std::optional<Shape> reshaped(const Shape& data, const Value& target, bool allow_zero, Draft& draft);

// The file's open input dimensions as the user gives them, those of the same name alike. kInvalidArgument for what the
// file rules out, kNotFound for an input that it does not have.
Status bind_shapes(Draft& draft, const std::map<std::string, Shape>& shapes);

// The whole clean-up: folding, removal of exporters' clutter, shapes, the batch dimension.
Draft simplify(Draft draft, JobContext& job);

// The draft as a model; `path` names it where the draft has no name. Nodes that cannot be run are issues.
Result<Model> finish(const Draft& draft, const std::string& path);
void report_opaque(const Graph& graph, JobContext& job);

// uint2 and int2 (opset 25) are read as uint8 and int8; what quantizes to them gets a Clip to their codes.
inline constexpr int kUint2Type = 25, kInt2Type = 26;
inline bool is_two_bit_type(std::int64_t type) {
  return type == kUint2Type || type == kInt2Type;
}

// Reading. `path` is named in errors.
struct Source {
  std::string path;
  JobContext& job;
  std::shared_ptr<const MappedFile> file = nullptr;  // where tensors with an empty location lie; null: the file was read
  mutable std::map<std::string, std::shared_ptr<const MappedFile>> maps = {};  // of external data files, by path
};
Result<Draft> read_draft(onnx::ModelProto& model, const Source& source);
Result<TensorData> read_tensor(onnx::TensorProto& tensor, const Source& source);
Result<TensorData> read_sparse(onnx::SparseTensorProto& tensor, const Source& source);  // as a dense one
std::string printable(const std::string& name);  // bytes that are no UTF-8 as \xNN

}  // namespace quanvas::onnx_import
