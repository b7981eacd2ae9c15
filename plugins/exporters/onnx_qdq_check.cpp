#include "plugins/exporters/onnx_qdq_check.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "core/algorithms/hadamard.h"
#include "core/graph/rotation_node.h"
#include "core/plugin/placement.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_opset.h"
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
  const auto refuse = [&](const std::string& layer, std::string rule, std::string got, const char* allowed,
                          const char* suggestion) {
    out.push_back({layer, {}, std::move(rule), std::move(got), allowed, suggestion, {}, {}, false});
  };
  for (const std::vector<TensorId>* ends : {&graph.inputs(), &graph.outputs()})
    for (const TensorId id : *ends)
      if (graph.tensor(id).type == DataType::kUndefined)
        refuse(graph.tensor(id).name, "inputs and outputs", "a sequence, or a tensor of unknown type",
               "tensors of a known element type", "Cut the model where tensors come in and go out.");
  std::size_t bytes = 0;
  std::set<Attributes> matrices;
  for (const Node& node : graph.nodes()) {
    if (lost_at_import(node))
      refuse(node.name, "operator", node.op + ": " + node.opaque_reason,
             "operators whose attributes are numbers, texts and lists of them",
             "Cut the model before this node, or replace it, and import it again.");
    else if (has_subgraph(node))
      refuse(node.name, "operator", node.op + ": it holds a subgraph",
             "operators without subgraphs (If, Loop and Scan are executed, but not written)",
             "Cut the model before this node, or replace it, and import it again.");
    if (is_hadamard(node.domain, node.op)) {
      const std::string why = wrong_hadamard(graph, node, bytes, matrices);
      if (!why.empty())
        refuse(node.name, "operator", node.op + ": " + why, "rotations of float32 by a matrix that fits the file",
               "Run the pass rotate without online rotations, or in smaller blocks.");
    }
    NodeDraft draft = draft_of(graph, node);
    if (const std::string why = upgrade(draft, graph, graph.opset(), opset); !why.empty())
      refuse(node.name, "operator at opset " + std::to_string(opset), why, "what this opset can say",
             "Export the float model again at opset 13 or newer.");
  }
  if (bytes > kMaxFileBytes)
    refuse({}, "file size", std::to_string(bytes) + " bytes of rotation matrices", "less than 2 GiB",
           "Run the pass rotate in smaller blocks.");
  for (const auto& [name, data] : model.weights->all())
    if (data.type == DataType::kString && graph.tensor(name) != kNoTensor)
      refuse(name, "element type", "strings", "numbers and booleans", "Remove text processing from the model before export.");
  return out;
}

bool is_for_one_sample(const QuantizedModel& model) {
  for (const auto& [site, params] : model.quantizers)
    if (quant::is_dynamic(params)) return true;
  return false;
}

// DynamicQuantizeLinear has one way to find its range, and takes it from the whole tensor.
void check_dynamic(const QuantizedModel& model, const PlacedQuantizer& q, std::vector<Refusal>& out) {
  const QuantSpec& s = q.params->spec;
  const bool usual = s.statistic == Statistic::kMinMax && s.zero_in_range && !s.clip_min && !s.clip_max;
  if (!usual) {
    QuantSpec fix = s;
    fix.statistic = Statistic::kMinMax;
    fix.zero_in_range = true;
    fix.clip_min.reset();
    fix.clip_max.reset();
    out.push_back({q.node->name, q.name, "statistic",
                   std::string(enum_text(s.statistic)) + (s.zero_in_range ? "" : ", without 0"),
                   "from the least to the greatest value, with 0 among them", "Use the statistic minmax with zero_in_range.",
                   q.site, fix, true});
  }
  const Shape shape = shape_of(model, q.tensor);
  if (!shape.empty() && shape[0] > 1)
    out.push_back({q.node->name,
                   q.name,
                   "samples",
                   "a tensor " + shape_text(shape) + ", whose scale is one for each index of its first axis",
                   "one scale for the whole tensor: DynamicQuantizeLinear",
                   "Calibrate it, or import the model with a batch of 1 or an open one.",
                   q.site,
                   {},
                   true});
}

std::vector<Refusal> check_qdq(const QuantizedModel& model, const QdqOptions& options) {
  const Graph& graph = *model.model->graph;
  std::vector<Refusal> out;
  const int least = std::max(graph.opset(), kQdqOpset);
  if (options.opset != 0 && (options.opset < least || options.opset > kNewestOpset))
    return {{{},
             {},
             "opset",
             std::to_string(options.opset),
             std::to_string(least) + " to " + std::to_string(kNewestOpset) + ", or 0 for the lowest that fits",
             graph.opset() > kQdqOpset
                 ? "The model itself has opset " + std::to_string(graph.opset()) + "; nodes are not brought to an older one."
                 : "QuantizeLinear per channel exists from opset 13 on.",
             {},
             {},
             false}};
  const TargetTable table = qdq_table(options);
  std::vector<Refusal> wrong = check_quantizers(model, table);
  // Without them the opset of the quantizers is not known.
  const int opset = wrong.empty() ? opset_of(model, options) : std::max(least, options.opset);
  out = check_graph(*model.model, opset);
  for (Refusal& r : wrong) out.push_back(std::move(r));
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (quant::is_dynamic(*q.params) && judge(table, q.node->op, q.site.kind, q.params->spec).row) check_dynamic(model, q, out);
    if (q.params->truncated && !truncates_exactly(graph, q))
      out.push_back({q.node->name, q.name, "truncation", "sums of scale " + number(static_cast<double>(q.params->truncated->scale)),
                     "sums whose scale is a power of two: QuantizeLinear rounds what float32 computes",
                     "Use a power-of-two scale at the layer's input and average over a power of two of elements, or leave it float.",
                     q.site, {}, true});
  }
  return out;
}

}  // namespace quanvas::onnx_file
