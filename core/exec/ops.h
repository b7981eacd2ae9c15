// Quanvas - the executor's operator table: one row per ONNX operator, split over ops_*.cpp by family.
// Internal to core/exec. Operators are pure functions of their inputs; errors are values, and what ATen throws
// is caught by the Runner, which names the node.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/exec/runner.h"

namespace quanvas::exec {

using Tensors = std::vector<at::Tensor>;
using OpResult = Result<Tensors>;
using Ints = std::vector<std::int64_t>;

struct OpCall {
  const Graph& graph;
  const Node& node;
  const RunHooks& hooks;
  const Tensors& in;  // undefined for an omitted optional input

  bool has(std::size_t i) const { return i < in.size() && in[i].defined(); }
  const at::Tensor& x(std::size_t i = 0) const { return in[i]; }
  at::Tensor optional(std::size_t i) const { return has(i) ? in[i] : at::Tensor(); }
  int opset() const { return graph.opset(); }
  bool has_attribute(const std::string& key) const { return node.attributes.count(key) > 0; }

  // Of what is quantized inside the operator: whether anybody looks, and what the site's quantizer makes of `x`.
  const Runner* runner = nullptr;
  bool is_watched() const { return runner && runner->looks_inside(node.id, hooks); }
  at::Tensor quantized(SiteKind kind, int operand, const at::Tensor& x) const {
    return runner->quantize({node.id, kind, operand}, x, hooks);
  }
};

// For operators that take or give sequences and optionals, or that run subgraphs.
using Bodies = std::map<std::string, std::shared_ptr<const Runner>>;  // by attribute
struct ValueCall {
  const Graph& graph;
  const Node& node;
  const RunHooks& hooks;
  const Values& in;  // not defined() for an omitted optional input; what subgraphs capture comes last
  const Bodies& bodies;

  bool has(std::size_t i) const { return i < in.size() && in[i].defined(); }
  int opset() const { return graph.opset(); }
  // Inputs without those that the subgraphs capture.
  std::size_t own_inputs() const {
    const auto captured = static_cast<std::size_t>(std::max<std::int64_t>(0, node.integer("captured", 0)));
    return in.size() - std::min(in.size(), captured);
  }
};
using ValuesResult = Result<Values>;

struct OpRow {
  const char* op;
  int inputs;                                    // that must be there
  OpResult (*run)(const OpCall&);                // null: run_values is set
  std::string (*refuse)(const Node&) = nullptr;  // why these attributes cannot be executed; empty: they can
  ValuesResult (*run_values)(const ValueCall&) = nullptr;
};

// The families.
const std::vector<OpRow>& arithmetic_ops();
const std::vector<OpRow>& activation_ops();
const std::vector<OpRow>& convolution_ops();
const std::vector<OpRow>& pooling_ops();
const std::vector<OpRow>& normalization_ops();
const std::vector<OpRow>& shape_ops();
const std::vector<OpRow>& index_ops();
const std::vector<OpRow>& reduction_ops();
const std::vector<OpRow>& resize_ops();
const std::vector<OpRow>& quantization_ops();
const std::vector<OpRow>& recurrent_ops();
const std::vector<OpRow>& control_ops();
const std::vector<OpRow>& sequence_ops();
const std::vector<OpRow>& signal_ops();
const std::vector<OpRow>& random_ops();
const std::vector<OpRow>& integer_ops();
const std::vector<OpRow>& region_ops();
const std::vector<OpRow>& sampling_ops();
const std::vector<OpRow>& loss_ops();
const std::vector<OpRow>& select_ops();
const std::vector<OpRow>& attention_ops();
const std::vector<OpRow>& qonnx_ops();  // of other domains, see find_op()
const std::vector<OpRow>& rotation_ops();  // of the domain "quanvas"
const std::vector<OpRow>& torch_ops();  // of the domain "torch"

const OpRow* find_op(const Node& node);  // null: not in the table

inline OpResult one(at::Tensor t) {
  Tensors out;
  out.push_back(std::move(t));
  return out;
}
inline Failure bad_node(std::string message, std::string hint = {}) {
  return fail(ErrorCode::kInvalidArgument, std::move(message), std::move(hint));
}

// Values of an integer tensor of any integer (or float) type, flattened.
Ints int_values(const at::Tensor& t);
// An argument that is an attribute in old opsets and an input in new ones; none when given in neither way.
std::optional<Ints> attribute_or_input(const OpCall& call, const std::string& attribute, std::size_t input);
std::vector<double> real_values(const at::Tensor& t);  // of a tensor of any type, flattened
// The number in a tensor of one element; fails with a sentence that names `what` for any other size.
Result<std::int64_t> one_integer(const at::Tensor& t, const char* what);
Result<double> one_real(const at::Tensor& t, const char* what);
std::string sizes_text(const at::Tensor& t);
// Fails when a result of these sizes could never be held; a negative size fails, too.
Status check_sizes(const Ints& sizes);
// axis in [0, rank); also accepts `rank` itself when `past_end`.
Result<std::int64_t> resolve_axis(std::int64_t axis, std::int64_t rank, bool past_end = false);
// ONNX element type to the type it is computed in: half types and float8 in float32, unsigned types that LibTorch
// lacks in the next wider signed one (uint64 in int64, see Runner), int4 in int8; none: no such type.
std::optional<at::ScalarType> scalar_type(DataType type);

// Pads of a window (convolution or pool): begin and end per spatial axis, auto_pad resolved.
struct Window {
  Ints kernel, stride, dilation, begin, end;
  bool symmetric() const { return begin == end; }
};
Result<Window> window_of(const OpCall& call, const Ints& kernel);
// Convolution with the node's window; x has the sizes of the node's first input.
Result<at::Tensor> convolve(const OpCall& call, at::Tensor x, const at::Tensor& w, const at::Tensor& bias);
// Zero or `value` padding of the spatial axes (the last begin.size() of x).
at::Tensor pad_spatial(const at::Tensor& x, const Ints& begin, const Ints& end, double value);

// The value as `type` holds it, in the type that it is computed in; `saturate`: see small_code (float8 only).
at::Tensor converted(const at::Tensor& x, DataType type, bool saturate = true);

}  // namespace quanvas::exec
