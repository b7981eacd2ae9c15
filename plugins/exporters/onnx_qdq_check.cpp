#include "plugins/exporters/onnx_qdq_check.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "core/algorithms/hadamard.h"
#include "core/graph/rotation_node.h"
#include "plugins/exporters/onnx_opset.h"
#include "core/plugin/placement.h"
#include "plugins/exporters/onnx_sites.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas::onnx_file {

namespace {

std::string number(double v) {
  std::ostringstream out;
  out << v;
  return out.str();
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

TargetTable qdq_table() {
  TargetTable table;
  TargetRow weight;
  weight.form = "int8 or uint8 initializer + DequantizeLinear";
  weight.sites = {SiteKind::kWeight};
  weight.most_bits = 8;
  weight.narrow.reset();
  weight.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
  weight.zero_point_inside.reset();  // codes of constants are stored as they are
  weight.granularities = {Granularity::kTensor, Granularity::kChannel};
  weight.roundings.clear();
  weight.why = "Blocks of scales and wider integers exist from opset 21 on.";
  TargetRow bias = weight;
  bias.form = "int32 initializer + DequantizeLinear";
  bias.sites = {SiteKind::kBias};
  bias.most_bits = 32;
  bias.is_signed = true;
  bias.zero_points = {ZeroPointType::kNone};
  bias.why.clear();
  TargetRow activation = weight;
  activation.form = "QuantizeLinear + Clip where codes are narrower + DequantizeLinear";
  activation.sites = {SiteKind::kInput, SiteKind::kOutput};
  activation.zero_point_inside = false;
  activation.roundings = {Rounding::kHalfEven};
  activation.truncation = true;
  activation.decoupled = false;
  activation.why = "QuantizeLinear rounds half to even and adds the zero point after it.";
  table.rows = {weight, bias, activation};
  return table;
}

std::vector<Refusal> check_qdq(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  std::vector<Refusal> out = check_graph(*model.model, std::max(graph.opset(), kQdqOpset));
  for (Refusal& r : check_quantizers(model, qdq_table())) out.push_back(std::move(r));
  for (const PlacedQuantizer& q : place(model).quantizers)
    if (q.params->truncated && !truncates_exactly(graph, q))
      out.push_back({q.node->name, q.name, "truncation", "sums of scale " + number(static_cast<double>(q.params->truncated->scale)),
                     "sums whose scale is a power of two: QuantizeLinear rounds what float32 computes",
                     "Use a power-of-two scale at the layer's input and average over a power of two of elements, or leave it float.",
                     q.site, {}, true});
  return out;
}

}  // namespace quanvas::onnx_file
