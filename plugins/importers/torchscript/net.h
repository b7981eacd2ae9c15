// Quanvas - a TorchScript network while it is imported: its values as far as they are known, and the draft of the
// graph that grows while the code is walked. No LibTorch here: operators are mapped by what they mean, not by how
// they are stored. Inside of this folder, what cannot be mapped is thrown as Unmapped and caught by the walk alone.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::torchscript {

using onnx_import::Draft;
using onnx_import::DraftBody;
using onnx_import::DraftNode;
using onnx_import::TensorFacts;

struct Unmapped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Kind { kNone, kInt, kReal, kBool, kText, kTensor, kList, kTuple, kDict, kObject, kOther };

struct Val;
using Ref = std::shared_ptr<Val>;  // one object of the program: who changes it changes it for all that hold it
using Refs = std::vector<Ref>;

struct Val {
  Kind kind = Kind::kNone;
  std::int64_t integer = 0;            // kInt, kBool
  double real = 0;                     // kReal
  std::string text;                    // kText; of kOther what it is
  std::string name;                    // tensor of the draft: always of kTensor; of a number that only a run knows
  Refs items;                          // kList, kTuple; keys and values in turn of kDict
  std::map<std::string, Ref> members;  // kObject
  std::shared_ptr<void> type;          // kObject: its class
  std::string path;                    // kObject: "layer1.0"
  std::string spoiled;                 // not empty: why it must not be read any more
  int group = 0;                       // tensors that share memory have the same; 0: none known

  bool is_number() const { return kind == Kind::kInt || kind == Kind::kReal || kind == Kind::kBool; }
  bool is_known() const { return name.empty(); }  // a number that does not depend on the inputs
  bool is_list() const { return kind == Kind::kList || kind == Kind::kTuple; }
};

Ref make_none();
Ref make_int(std::int64_t v);
Ref make_real(double v);
Ref make_bool(bool v);
Ref make_text(std::string v);
Ref make_tensor(std::string name);
Ref make_list(Refs items, Kind kind = Kind::kList);
Ref make_other(std::string what);

// What a quantized tensor is kept as: the values that its codes stand for, in a float tensor of the draft, and this.
struct QuantizedFacts {
  std::string scale, zero_point;  // constants of the draft
  double scale_value = 1;
  std::int64_t zero_point_value = 0;
  DataType type = DataType::kUint8;  // of the codes
};
// The way of a constant from integers to what they stand for: (codes - zero point) * scale.
struct CodesFacts {
  std::string codes, zero_point;
};

// The draft and what is known of its tensors. Names of nodes follow `scope`; every name is used once.
class Net {
 public:
  Draft draft;
  onnx_import::Knowledge known{draft, {}};
  std::vector<DraftNode>* nodes = &draft.nodes;  // of the graph, or of the subgraph that is being made
  std::string scope;                             // path of the module whose code is walked
  std::string origin;                            // the operator that is being mapped: "aten::conv2d"
  bool is_leaf = false;                          // that module has no modules of its own
  std::map<std::string, TensorFacts> learned;    // inputs: what the way they are used tells
  std::set<std::string> nonnegative;             // numbers that cannot be below 0
  std::map<std::string, QuantizedFacts> quantized;  // quantized tensors
  std::map<std::string, CodesFacts> codes;          // float constants that were integers

  Net();
  Net(const Net&) = delete;

  std::string emit(const std::string& op, std::vector<std::string> inputs, Attributes attributes = {});
  std::vector<std::string> emit_many(const std::string& op, std::vector<std::string> inputs, std::size_t outputs,
                                     Attributes attributes = {});
  std::string add_node(DraftNode node);  // names it; returns its first output. Facts are the caller's.
  std::string new_tensor(const std::string& base);

  void reserve(const std::string& name);  // for the first node of the leaf whose scope it is

  // Constants. The same small integers become the same constant.
  std::string constant(const std::string& base, TensorData data);
  std::string ints(const std::vector<std::int64_t>& values);  // vector
  std::string scalar(double value, DataType type);
  std::string filled(const Shape& shape, double value, const std::string& base);

  DataType type(const std::string& t) const;  // float32 when nothing is known
  const Shape* shape(const std::string& t) const;
  std::int64_t rank(const std::string& t) const;                         // Unmapped when not known
  std::int64_t axis(const std::string& t, std::int64_t dim) const;       // in [0, rank)
  std::int64_t dimension(const std::string& t, std::int64_t dim) const;  // below 0: not known
  bool is_input(const std::string& t) const;
  void learn(const std::string& t, DataType type, std::optional<Shape> shape);

  std::string cast(const std::string& t, DataType type);  // t itself when it is of this type
  // A number or a tensor as a tensor of the draft; kUndefined: of its own type.
  std::string tensor_of(const Ref& v, DataType type = DataType::kUndefined);
  // The number in a scalar tensor: known when it is.
  Ref number_of(const std::string& t, Kind kind);
  Ref size(const std::string& t, std::int64_t dim);
  std::string sizes(const Refs& items);  // vector of int64 from numbers, known or not
  std::string shape_of(const std::string& t);
  std::string transposed(const std::string& t);  // the last two axes; a constant stays one

 private:
  std::set<std::string> node_names_, tensor_names_, reserved_;
  std::map<std::vector<std::int64_t>, std::string> int_vectors_;
  std::map<std::pair<double, DataType>, std::string> scalars_;
  std::map<std::string, std::string> transposed_;
  std::string node_name(const std::string& op);
};

bool is_integer(DataType t);
DataType promoted(const Net& net, const Refs& operands);  // LibTorch's rule: tensors before scalars before numbers
std::optional<DataType> torch_type(std::int64_t scalar_type);  // number of c10::ScalarType; none: no such type here

// A call of an operator: arguments in the order of its schema.
struct Call {
  Net& net;
  std::string op;        // "aten::add"
  std::string overload;  // "Tensor"
  Refs in;
  std::vector<std::string> arguments;  // their names

  bool has(std::size_t i) const;                                         // given and not None
  const Ref& at(std::size_t i) const;                                    // Unmapped when not given
  int find(const std::string& argument) const;                           // -1: the schema has no such argument
  std::string x(std::size_t i = 0) const;                                // as a tensor
  std::string optional(std::size_t i) const;                             // "" when not given
  std::int64_t integer(std::size_t i, std::int64_t fallback = 0) const;  // known numbers, else Unmapped
  double real(std::size_t i, double fallback = 0) const;
  bool flag(std::size_t i, bool fallback = false) const;
  std::string text(std::size_t i, const std::string& fallback = {}) const;
  Refs list(std::size_t i) const;  // of any values; one number is a list of one
  std::vector<std::int64_t> ints(std::size_t i) const;
  std::vector<std::int64_t> ints(std::size_t i, std::size_t n) const;  // one number stands for n
  std::vector<double> reals(std::size_t i) const;
  std::vector<std::string> tensors(std::size_t i) const;
  std::optional<DataType> dtype() const;  // of the argument of that name
};

// What an operator gives: names of tensors, or values of other kinds. The walk makes numbers of names where the
// schema says number.
using Results = Refs;
Results one(const std::string& tensor);
using Handler = Results (*)(Call&);
using Handlers = std::map<std::string, Handler>;  // by name without namespace

const Handlers& math_handlers();
const Handlers& activation_handlers();
const Handlers& layer_handlers();
const Handlers& pool_handlers();
const Handlers& shape_handlers();
const Handlers& index_handlers();
const Handlers& creation_handlers();
const Handlers& recurrent_handlers();
const Handlers& quantized_handlers();  // aten
const Handlers& packed_handlers();     // of namespace quantized
Handler find_handler(const std::string& op);  // "aten::relu"; null: not mapped
std::vector<std::string> mapped_operators();  // sorted
bool is_view(const std::string& op);          // its result shares memory with its first argument

// Axes and lists as attributes.
inline Attribute attribute(std::vector<std::int64_t> v) {
  return v;
}
inline Attribute attribute(std::int64_t v) {
  return v;
}

// Results of an operator on quantized tensors are quantized tensors. "" or why they are not known to be.
std::string keep_quantized(Net& net, const std::string& op, const Refs& in, Refs& out);
// A constant that is made of integers as DequantizeLinear, when the step is one of (codes - zero point) * scale. None: it is
// no such step, or not the last one, which is noted.
std::optional<std::string> dequantized_constant(Net& net, const std::string& op, const Refs& in, const std::string& result);
// clamp(round(x / s) + z) with (codes - z) * s behind it, and int_repr with the latter, as QuantizeLinear and
// DequantizeLinear. In ops_spelled.cpp.
void find_spelled_quantizers(Draft& draft);

// After shapes are known: an operator set that has all operators of the draft, and their form in it.
void choose_opset(Draft& draft);

}  // namespace quanvas::torchscript
