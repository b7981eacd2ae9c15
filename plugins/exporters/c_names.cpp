#include "plugins/exporters/c_names.h"

#include <cctype>
#include <cmath>

#include "core/quant/dynamic.h"

namespace quanvas::c_header {
namespace {

using quant::QuantParams;

constexpr int kMostSteps = 16;  // operators that are looked through

bool is_plain_integer(const QuantParams* p) {
  return p && p->spec.format == "int" && !quant::is_dynamic(*p) && p->code_scale.empty() && !p->truncated &&
         (p->spec.zero_point == ZeroPointType::kNone || p->spec.zero_point == ZeroPointType::kInteger);
}
bool is_one(const QuantParams* p) {
  return is_plain_integer(p) && p->scale.size() == 1;
}
bool is_same(const QuantParams& a, const QuantParams& b) {
  return a.scale == b.scale && zero_points(a) == zero_points(b) && a.lo == b.lo && a.hi == b.hi;
}

// The one quantizer that stands behind a tensor; null: none, or several.
const QuantParams* behind(const Graph& graph, const std::map<std::pair<NodeId, TensorId>, const QuantParams*>& inputs,
                          TensorId tensor, bool& relu) {
  for (int step = 0; step < kMostSteps && tensor != kNoTensor; ++step) {
    const auto& consumers = graph.tensor(tensor).consumers;
    if (consumers.empty() || graph.is_output(tensor)) return nullptr;
    const QuantParams* found = nullptr;
    for (const NodeId id : consumers) {
      const auto it = inputs.find({id, tensor});
      const QuantParams* p = it == inputs.end() ? nullptr : it->second;
      if (consumers.size() > 1 && (!p || (found && !is_same(*p, *found)))) return nullptr;
      found = p;
    }
    if (found) return found;
    const Node& next = *graph.find(consumers.front());
    static const std::set<std::string> kKeeps = {"Relu",    "MaxPool",   "Flatten",  "Reshape",
                                                 "Squeeze", "Unsqueeze", "Identity", "Transpose"};
    if (!next.domain.empty() || !kKeeps.count(next.op) || next.input(0) != tensor || next.outputs.empty()) return nullptr;
    relu = relu || next.op == "Relu";
    tensor = next.outputs[0];
  }
  return nullptr;
}

}  // namespace

std::string Names::give(const std::string& wanted) {
  std::string name;
  for (const char c : wanted)
    name += std::isalnum(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 128 ? c : '_';
  if (name.empty() || !std::isalpha(static_cast<unsigned char>(name[0]))) name = "t" + name;
  std::string out = name;
  for (int n = 2; !taken_.insert(out).second; ++n) out = name + "_" + std::to_string(n);
  return out;
}

Identifiers identifiers(const QuantizedModel& model, const weight_file::Contents& contents, const std::string& prefix) {
  const Graph& graph = *model.model->graph;
  Identifiers out;
  Names names;
  for (const auto& c : contents.coded) out.coded[c.name] = names.give(prefix + c.name);
  for (const TensorId id : contents.plain) out.plain[id] = names.give(prefix + graph.tensor(id).name);
  for (const PlacedQuantizer& q : place(model).quantizers)
    if (is_activation(q.site.kind)) out.sites[q.site] = names.give(prefix + q.node->name + "_" + q.name);
  for (const Node& node : graph.nodes()) out.layers[node.id] = names.give(prefix + node.name);
  return out;
}

bool multiplier_of(double m, Multiplier& out) {
  if (!(m > 0) || !std::isfinite(m)) return false;
  int exponent = 0;
  const double fraction = std::frexp(m, &exponent);
  std::int64_t whole = std::llrint(std::ldexp(fraction, 31));
  if (whole == std::int64_t{1} << 31) whole /= 2, ++exponent;
  if (exponent > 30 || exponent < -31) return false;
  out = {static_cast<std::int32_t>(whole), exponent};
  return true;
}

std::vector<Requantization> requantizations(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  std::map<std::pair<NodeId, TensorId>, const QuantParams*> inputs;
  for (const PlacedQuantizer& q : place(model).quantizers)
    if (q.site.kind == SiteKind::kInput && q.reader) inputs[{q.reader->id, q.tensor}] = q.params;
  std::vector<Requantization> out;
  for (const Layer& layer : find_layers(graph)) {
    if (layer.kind != LayerKind::kCompute || layer.weight == kNoTensor || layer.weights() != 1 || layer.inputs.size() != 1)
      continue;
    Requantization r;
    r.node = graph.find(layer.node);
    r.input = quantizer_at(model, {layer.node, SiteKind::kInput, 0});
    r.weight = quantizer_at(model, {layer.node, SiteKind::kWeight, 0});
    r.output = quantizer_at(model, {layer.node, SiteKind::kOutput, 0});
    if (!r.output) r.output = behind(graph, inputs, layer.output, r.relu);
    const bool per_channel = r.weight && r.weight->layout.granularity != Granularity::kGroup;
    if (!is_one(r.input) || !is_one(r.output) || !is_plain_integer(r.weight) || !per_channel) continue;
    bool all = true;
    for (const float s : r.weight->scale) {
      Multiplier m;
      // The accumulator's scale is the float32 product, as the bias has it.
      all = all && multiplier_of(static_cast<double>(r.input->scale[0] * s) / static_cast<double>(r.output->scale[0]), m);
      r.channels.push_back(m);
    }
    if (all) out.push_back(std::move(r));
  }
  return out;
}

}  // namespace quanvas::c_header
