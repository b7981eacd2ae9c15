// Quanvas - the executor's operator table: one row per ONNX operator, split over ops_*.cpp by family.
// Internal to core/exec. Operators are pure functions of their inputs; errors are values, and what ATen throws
// is caught by the Runner, which names the node.
#pragma once

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
};

struct OpRow {
  const char* op;
  int inputs;                                   // that must be there
  OpResult (*run)(const OpCall&);
  std::string (*refuse)(const Node&) = nullptr;  // why these attributes cannot be executed; empty: they can
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
std::string sizes_text(const at::Tensor& t);
// axis in [0, rank); also accepts `rank` itself when `past_end`.
Result<std::int64_t> resolve_axis(std::int64_t axis, std::int64_t rank, bool past_end = false);
// ONNX element type to the type it is computed in (half types are computed in float32); none: no such type.
std::optional<at::ScalarType> scalar_type(DataType type);

// Pads of a window (convolution or pool): begin and end per spatial axis, auto_pad resolved.
struct Window {
  Ints kernel, stride, dilation, begin, end;
  bool symmetric() const { return begin == end; }
};
Result<Window> window_of(const OpCall& call, const Ints& kernel);
// Zero or `value` padding of the spatial axes (the last begin.size() of x).
at::Tensor pad_spatial(const at::Tensor& x, const Ints& begin, const Ints& end, double value);

}  // namespace quanvas::exec
