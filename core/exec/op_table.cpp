#include <algorithm>
#include <map>
#include <set>

#include <ATen/ATen.h>

#include "core/exec/ops.h"
#include "core/graph/rotation_node.h"

namespace quanvas::exec {
namespace {

const std::map<std::string, const OpRow*>& table() {
  static const auto* rows = [] {
    auto* all = new std::map<std::string, const OpRow*>;
    for (const auto* family :
         {&arithmetic_ops(), &activation_ops(), &convolution_ops(), &pooling_ops(), &normalization_ops(),
          &shape_ops(),      &index_ops(),      &reduction_ops(),   &resize_ops(),  &quantization_ops(),
          &recurrent_ops(),  &control_ops(),    &sequence_ops(),    &signal_ops(),  &random_ops(),
          &integer_ops(),    &region_ops(),     &sampling_ops(),    &loss_ops(),    &select_ops(),
          &attention_ops()})
      for (const OpRow& row : *family) all->emplace(row.op, &row);
    return all;
  }();
  return *rows;
}

// Quantizers of the QONNX dialect, under the names that the domain has had.
const OpRow* find_qonnx(const Node& node) {
  static const std::set<std::string> domains = {"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"};
  if (!domains.count(node.domain)) return nullptr;
  for (const OpRow& row : qonnx_ops())
    if (node.op == row.op) return &row;
  return nullptr;
}

bool is_standard(const std::string& domain) {
  return domain.empty() || domain == "ai.onnx";
}

// Operators of the standard that are known and left out on purpose.
const std::map<std::string, const char*>& known_gaps() {
  static const char* const text = "works on texts, and only numbers are computed with";
  static const char* const files = "reads compressed pictures, and only numbers are computed with";
  static const std::map<std::string, const char*> gaps = {{"StringNormalizer", text},
                                                          {"StringConcat", text},
                                                          {"StringSplit", text},
                                                          {"RegexFullMatch", text},
                                                          {"ImageDecoder", files}};
  return gaps;
}

// Why the subgraphs of a node cannot be executed.
std::string unsupported_inside(const Node& node) {
  for (const auto& [key, attribute] : node.attributes) {
    const auto* body = std::get_if<GraphPtr>(&attribute);
    if (!body || !*body) continue;
    for (const Node& inner : (*body)->nodes())
      if (const std::string reason = unsupported_reason(inner); !reason.empty())
        return "in its subgraph '" + key + "', " + inner.op + " '" + inner.name + "': " + reason;
  }
  return {};
}

}  // namespace

const OpRow* find_op(const Node& node) {
  if (node.domain == "torch" && node.op == torch_ops()[0].op) return &torch_ops()[0];
  if (is_hadamard(node.domain, node.op)) return &rotation_ops()[0];
  if (!is_standard(node.domain)) return find_qonnx(node);
  const auto it = table().find(node.op);
  return it == table().end() ? nullptr : it->second;
}

std::string unsupported_reason(const Node& node) {
  if (!node.opaque_reason.empty()) return node.opaque_reason;
  const OpRow* row = find_op(node);
  if (!row) {
    if (!is_standard(node.domain))
      return "operator '" + node.op + "' of domain '" + node.domain + "' is not in the executor's table";
    if (const auto gap = known_gaps().find(node.op); gap != known_gaps().end())
      return "operator '" + node.op + "' " + gap->second;
    return "operator '" + node.op + "' is not in the executor's table";
  }
  const auto given = static_cast<int>(
      std::count_if(node.inputs.begin(), node.inputs.end(), [](TensorId id) { return id != kNoTensor; }));
  if (given < row->inputs)
    return "operator '" + node.op + "' needs at least " + std::to_string(row->inputs) + " input(s), the node has " +
           std::to_string(given);
  for (int i = 0; i < row->inputs; ++i)
    if (node.input(static_cast<std::size_t>(i)) == kNoTensor)
      return "operator '" + node.op + "' needs its input " + std::to_string(i + 1) + ", which the node leaves out";
  if (const std::string why = row->refuse ? row->refuse(node) : std::string(); !why.empty()) return why;
  return unsupported_inside(node);
}

std::vector<std::string> supported_operators() {
  std::vector<std::string> names;
  for (const auto& [name, row] : table()) names.push_back(name);
  return names;
}

Ints int_values(const at::Tensor& t) {
  const at::Tensor c = t.to(at::kCPU, at::kLong).contiguous();
  const auto* p = c.data_ptr<std::int64_t>();
  return {p, p + c.numel()};
}

std::vector<double> real_values(const at::Tensor& t) {
  const at::Tensor c = t.to(at::kCPU, at::kDouble).contiguous();
  const auto* p = c.data_ptr<double>();
  return {p, p + c.numel()};
}

Result<std::int64_t> one_integer(const at::Tensor& t, const char* what) {
  if (t.numel() != 1) return bad_node(std::string("'") + what + "' is " + sizes_text(t) + ", expected one number.");
  return t.item().toLong();
}

Result<double> one_real(const at::Tensor& t, const char* what) {
  if (t.numel() != 1) return bad_node(std::string("'") + what + "' is " + sizes_text(t) + ", expected one number.");
  return t.item().toDouble();
}

Status check_sizes(const Ints& sizes) {
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  for (const auto d : sizes)
    if (d < 0) return bad_node("its result would have the size " + std::to_string(d) + ".");
  if (element_count(sizes) > kMost) return bad_node("its result would have " + shape_text(sizes) + " elements.");
  return {};
}

std::optional<Ints> attribute_or_input(const OpCall& call, const std::string& attribute, std::size_t input) {
  if (call.has_attribute(attribute)) return call.node.integers(attribute);
  if (call.has(input)) return int_values(call.x(input));
  return std::nullopt;
}

std::string sizes_text(const at::Tensor& t) {
  if (!t.defined()) return "-";
  return t.dim() == 0 ? "scalar" : shape_text(t.sizes().vec());
}

Result<std::int64_t> resolve_axis(std::int64_t axis, std::int64_t rank, bool past_end) {
  const std::int64_t limit = rank + (past_end ? 1 : 0);
  const std::int64_t resolved = axis < 0 ? axis + rank : axis;
  if (resolved < 0 || resolved >= std::max<std::int64_t>(limit, 1))
    return bad_node("axis is " + std::to_string(axis) + ", the tensor has rank " + std::to_string(rank) + ".");
  return resolved;
}

std::optional<at::ScalarType> scalar_type(DataType type) {
  switch (type) {
    case DataType::kFloat:
    case DataType::kFloat16:
    case DataType::kBfloat16:
    case DataType::kFloat8E4M3Fn:
    case DataType::kFloat8E4M3Fnuz:
    case DataType::kFloat8E5M2:
    case DataType::kFloat8E5M2Fnuz:
    case DataType::kFloat8E8M0:
    case DataType::kFloat4E2M1:
      return at::kFloat;
    case DataType::kDouble:
      return at::kDouble;
    case DataType::kUint4:
    case DataType::kUint8:
      return at::kByte;
    case DataType::kInt4:
    case DataType::kInt8:
      return at::kChar;
    case DataType::kInt16:
      return at::kShort;
    case DataType::kUint16:
    case DataType::kInt32:
      return at::kInt;
    case DataType::kUint32:
    case DataType::kUint64:
    case DataType::kInt64:
      return at::kLong;
    case DataType::kBool:
      return at::kBool;
    default:
      return std::nullopt;
  }
}

}  // namespace quanvas::exec
