#include "plugins/exporters/onnx_qdq_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <sstream>
#include <utility>

#include "core/algorithms/hadamard.h"
#include "core/graph/rotation_node.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_opset.h"
#include "plugins/exporters/onnx_sites.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas::onnx_file {

namespace {

struct Question {
  const PlacedQuantizer& placed;
  const quant::QuantParams& p;
  const TensorInfo& tensor;
  Shape shape;  // of the tensor; empty when unknown
  bool truncates;  // as QuantizeLinear does
  bool bias() const { return placed.site.kind == SiteKind::kBias; }
  bool activation() const { return is_activation(placed.site.kind); }
};

std::string number(double v) {
  std::ostringstream out;
  out << v;
  return out.str();
}

bool in_storage(const Question& q, std::int64_t code) {
  if (q.bias()) return code >= std::numeric_limits<std::int32_t>::min() && code <= std::numeric_limits<std::int32_t>::max();
  return q.p.spec.is_signed ? code >= -128 && code <= 127 : code >= 0 && code <= 255;
}

std::string wrong_format(const Question& q) { return q.p.spec.format == "int" ? "" : q.p.spec.format; }

std::string wrong_source(const Question& q) { return quant::is_dynamic(q.p) ? "found from each sample at run time" : ""; }

std::string wrong_granularity(const Question& q) {
  if (q.p.spec.granularity == Granularity::kRow) return "per row";
  if (q.p.spec.granularity != Granularity::kGroup) return {};
  return "groups of " + std::to_string(q.p.layout.group);
}

std::string wrong_bits(const Question& q) {
  if (q.bias() || (in_storage(q, q.p.lo) && in_storage(q, q.p.hi))) return {};
  return std::to_string(code_bits(q.p.spec)) + " bit, codes " + std::to_string(q.p.lo) + " … " + std::to_string(q.p.hi);
}

std::string wrong_bias_bits(const Question& q) {
  if (!q.bias() || (in_storage(q, q.p.lo) && in_storage(q, q.p.hi))) return {};
  return std::to_string(q.p.spec.bits) + " bit";
}

std::string wrong_bias_sign(const Question& q) { return q.bias() && !q.p.spec.is_signed ? "unsigned" : ""; }

std::string wrong_bias_zero(const Question& q) {
  if (!q.bias()) return {};
  for (const float z : q.p.zero_point)
    if (z != 0) return "zero point " + number(z);
  return {};
}

std::string wrong_rounding(const Question& q) {
  return q.activation() && q.p.spec.rounding != Rounding::kHalfEven ? enum_text(q.p.spec.rounding) : "";
}

std::string wrong_truncation(const Question& q) {
  if (!q.p.truncated || q.truncates) return {};
  return "sums of scale " + number(static_cast<double>(q.p.truncated->scale));
}

// QuantizeLinear adds the zero point after the rounding; the codes of a constant are stored as they are.
std::string wrong_zero_place(const Question& q) {
  const bool inside = q.activation() && q.p.spec.zero_point_inside && !q.p.zero_point.empty();
  return inside ? "added before the rounding" : "";
}

// The nodes know (q - z) s only.
std::string wrong_offset(const Question& q) {
  return q.p.spec.zero_point == ZeroPointType::kOffset ? "a real number that is added to code times scale" : "";
}

std::string wrong_scale(const Question& q) {
  if (quant::is_dynamic(q.p)) return {};  // has a refusal of its own
  if (q.p.scale.empty()) return "no scale";
  for (const float s : q.p.scale)
    if (!std::isfinite(s) || s <= 0) return "scale " + number(s);
  return {};
}

std::string wrong_zero_point(const Question& q) {
  if (!q.p.zero_point.empty() && q.p.zero_point.size() != q.p.scale.size())
    return std::to_string(q.p.zero_point.size()) + " zero points for " + std::to_string(q.p.scale.size()) + " scales";
  if (q.p.spec.zero_point == ZeroPointType::kOffset) return {};  // has a refusal of its own
  for (const float z : q.p.zero_point)
    if (!std::isfinite(z) || z != std::nearbyint(z) || !in_storage(q, static_cast<std::int64_t>(z)))
      return "zero point " + number(z);
  return {};
}

// A scale per index of one axis, and that axis has as many indices.
std::string wrong_axis(const Question& q) {
  if (q.p.spec.granularity == Granularity::kGroup || q.p.spec.granularity == Granularity::kRow || quant::is_dynamic(q.p)) return {};
  if (q.p.spec.granularity == Granularity::kTensor)
    return q.p.scale.size() <= 1 ? "" : std::to_string(q.p.scale.size()) + " scales for a whole tensor";
  if (q.shape.empty()) return {};
  const std::int64_t axis = channel_axis(q.p, q.shape.size());
  const bool inside = axis >= 0 && axis < static_cast<std::int64_t>(q.shape.size());
  const std::int64_t size = inside ? q.shape[static_cast<std::size_t>(axis)] : -1;
  if (inside && (size < 0 || size == static_cast<std::int64_t>(q.p.scale.size()))) return {};
  return std::to_string(q.p.scale.size()) + " scales on axis " + std::to_string(axis) + " of a tensor " +
         shape_text(q.shape);
}

std::string wrong_type(const Question& q) {
  if (q.tensor.type == DataType::kFloat || q.tensor.type == DataType::kUndefined) return {};
  return type_name(q.tensor.type);
}

std::string wrong_place(const Question& q) {
  return q.activation() && q.placed.site.kind != SiteKind::kOutput && q.placed.inputs.empty() ? q.placed.name + " inside " + q.placed.node->op
                                                                                             : "";
}

struct Rule {
  const char* name;
  std::string (*got)(const Question&);  // empty: fine
  const char* allowed;
  const char* suggestion;
};
constexpr Rule kRules[] = {
    {"place of a quantizer", wrong_place, "weights, biases, inputs and outputs of whole operators",
     "Leave it float: ONNX's recurrent and attention operators have no room for quantizers inside."},
    {"number format", wrong_format, "int", "Choose an integer format, or leave it float."},
    {"scale source", wrong_source, "scales that are known beforehand (QuantizeLinear with constants)",
     "Use source statistics and calibrate, or leave it float."},
    {"granularity", wrong_granularity, "per tensor, or per channel along one axis",
     "Use per channel: blocks of scales exist from opset 21 on."},
    {"bit width", wrong_bits, "1 to 8 bit (int8 and uint8 at opset 13)", "Use 8 bit or fewer."},
    {"bias bit width", wrong_bias_bits, "up to 32 bit (int32)", "Use an int32 bias."},
    {"bias sign", wrong_bias_sign, "signed (int32)", "Use a signed bias."},
    {"bias zero point", wrong_bias_zero, "0",
     "Use a symmetric bias, for example int32 with the accumulator's scale."},
    {"rounding", wrong_rounding, "half to even (QuantizeLinear)", "Use half-even rounding."},
    {"truncation", wrong_truncation,
     "sums whose scale is a power of two: QuantizeLinear rounds what float32 computes",
     "Use a power-of-two scale at the layer's input and average over a power of two of elements, or leave it "
     "float."},
    {"place of the zero point", wrong_zero_place, "added after the rounding", "Set zero_point_inside to false."},
    {"offset", wrong_offset, "an integer zero point, or none", "Use zero_point integer."},
    {"scale", wrong_scale, "finite and greater than 0", "Calibrate again, or give clip limits."},
    {"zero point", wrong_zero_point, "an integer that the stored type holds, one per scale",
     "Use an integer zero point, or none."},
    {"axis of scales", wrong_axis, "one scale, or one per index of one axis", "Quantize again with this model."},
    {"element type", wrong_type, "float32 (DequantizeLinear gives float32 at opset 13)",
     "Convert the model to float32, or leave it float."},
};

std::vector<Refusal> check_placement(const QuantizedModel& model, const Placement& placement) {
  std::vector<Refusal> out;
  for (const Site& site : placement.lost) {
    const Node* node = model.model->graph->find(site.node);
    out.push_back({node ? node->name : "node " + std::to_string(site.node), std::string(enum_text(site.kind)), "place of a quantizer",
                   "no such tensor in the exported graph", "a weight, bias, input or output of a layer",
                   "Run the recipe again."});
  }
  return out;
}

// A Graph has no place for tensors as attributes and for broken subgraphs; the importer says so in opaque_reason.
bool lost_at_import(const Node& node) {
  for (const char* sign : {"its subgraph", "cannot be represented"})
    if (node.opaque_reason.find(sign) != std::string::npos) return true;
  return false;
}

bool has_subgraph(const Node& node) {
  return std::any_of(node.attributes.begin(), node.attributes.end(),
                     [](const auto& a) { return std::holds_alternative<GraphPtr>(a.second); });
}

// Why a rotation cannot be written as a product; `bytes` grows by its matrix, unless that is among `known`.
std::string wrong_hadamard(const Graph& graph, const Node& node, std::size_t& bytes, std::set<Attributes>& known) {
  const auto h = hadamard_node(node);
  if (!h || !algorithms::HadamardTransform::create(h->size, h->core)) return "its attributes are no sizes of a Hadamard transform";
  const TensorId x = node.input(0);
  if (x == kNoTensor || graph.tensor(x).type != DataType::kFloat)
    return x == kNoTensor ? std::string("it has no input") : std::string("its input is ") + type_name(graph.tensor(x).type);
  const double matrix = static_cast<double>(h->width) * static_cast<double>(h->outputs()) * sizeof(float);
  if (matrix > static_cast<double>(kMaxFileBytes)) return "its matrix has " + number(matrix) + " bytes";
  if (known.insert(hadamard_attributes(*h)).second) bytes += static_cast<std::size_t>(matrix);
  return {};
}

}  // namespace

std::vector<Refusal> check_graph(const Model& model, int opset) {
  const Graph& graph = *model.graph;
  std::vector<Refusal> out;
  for (const std::vector<TensorId>* ends : {&graph.inputs(), &graph.outputs()})
    for (const TensorId id : *ends)
      if (graph.tensor(id).type == DataType::kUndefined)
        out.push_back({graph.tensor(id).name, {}, "inputs and outputs", "a sequence, or a tensor of unknown type",
                       "tensors of a known element type", "Cut the model where tensors come in and go out."});
  std::size_t bytes = 0;
  std::set<Attributes> matrices;
  for (const Node& node : graph.nodes()) {
    if (lost_at_import(node))
      out.push_back({node.name, {}, "operator", node.op + ": " + node.opaque_reason,
                     "operators whose attributes are numbers, texts and lists of them",
                     "Cut the model before this node, or replace it, and import it again."});
    else if (has_subgraph(node))
      out.push_back({node.name, {}, "operator", node.op + ": it holds a subgraph",
                     "operators without subgraphs (If, Loop and Scan are executed, but not written)",
                     "Cut the model before this node, or replace it, and import it again."});
    if (is_hadamard(node.domain, node.op)) {
      const std::string why = wrong_hadamard(graph, node, bytes, matrices);
      if (!why.empty())
        out.push_back({node.name, {}, "operator", node.op + ": " + why, "rotations of float32 by a matrix that fits the file",
                       "Run the pass rotate without online rotations, or in smaller blocks."});
    }
    NodeDraft draft = draft_of(graph, node);
    if (const std::string why = upgrade(draft, graph, graph.opset(), opset); !why.empty())
      out.push_back({node.name, {}, "operator at opset " + std::to_string(opset), why,
                     "what this opset can say", "Export the float model again at opset 13 or newer."});
  }
  for (const auto& [name, data] : model.weights->all())
    if (graph.tensor(name) != kNoTensor) bytes += data.bytes;
  if (bytes > kMaxFileBytes)
    out.push_back({{}, {}, "file size", std::to_string(bytes) + " bytes of weights", "less than 2 GiB in one file",
                   "Export a smaller part of the network."});
  for (const auto& [name, data] : model.weights->all())
    if (data.type == DataType::kString && graph.tensor(name) != kNoTensor)
      out.push_back({name, {}, "element type", "strings", "numbers and booleans",
                     "Remove text processing from the model before export."});
  return out;
}

std::vector<Refusal> check_qdq(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  std::vector<Refusal> out = check_graph(*model.model, std::max(graph.opset(), kQdqOpset));
  const Placement placement = place(model);
  for (const PlacedQuantizer& placed : placement.quantizers) {
    const Question question{placed, *placed.params, graph.tensor(placed.tensor), shape_of(model, placed.tensor),
                            truncates_exactly(graph, placed)};
    for (const Rule& rule : kRules)
      if (std::string got = rule.got(question); !got.empty())
        out.push_back({placed.node->name, placed.name, rule.name, std::move(got), rule.allowed,
                       rule.suggestion});
  }
  for (auto& refusal : check_placement(model, placement)) out.push_back(std::move(refusal));
  return out;
}

}  // namespace quanvas::onnx_file
