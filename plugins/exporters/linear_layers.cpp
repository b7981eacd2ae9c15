#include "plugins/exporters/linear_layers.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

namespace quanvas::weight_file {
namespace {

constexpr const char* kWeightSuffix = ".weight";

bool is_plain_gemm(const Node& node) {
  return node.op != "Gemm" || (node.integer("transA", 0) == 0 && node.real("alpha", 1) == 1 &&
                               (node.input(2) == kNoTensor || node.real("beta", 1) == 1));
}

// "/model/layers.0/self_attn/q_proj/MatMul_1" is the module model.layers.0.self_attn.q_proj.
std::string module_of_node(const Node& node) {
  std::string name = node.name;
  const auto cut = name.rfind('/');
  if (cut != std::string::npos && cut > 0) {
    std::string last = name.substr(cut + 1);
    while (!last.empty() && (std::isdigit(static_cast<unsigned char>(last.back())) || last.back() == '_')) last.pop_back();
    if (last == node.op) name.resize(cut);
  }
  name.erase(0, name.find_first_not_of('/'));
  std::replace(name.begin(), name.end(), '/', '.');
  return name.empty() ? "linear" : name;
}

// The parameter of element (o, i) of the matrix.
std::size_t parameter_of(const quant::QuantParams& p, const LinearLayer& l, std::int64_t o, std::int64_t i) {
  switch (p.layout.granularity) {
    case Granularity::kChannel: return static_cast<std::size_t>(o);
    case Granularity::kGroup: {
      const std::int64_t groups = l.in / p.layout.group, g = i / p.layout.group;
      return static_cast<std::size_t>(l.transposed ? g * l.out + o : o * groups + g);
    }
    default: return 0;
  }
}

void check_layer(const LinearLayer& l, std::vector<Refusal>& out) {
  const quant::QuantParams& p = *l.quantizer;
  const auto refused = [&](const char* rule) {
    return std::any_of(out.begin(), out.end(), [&](const Refusal& r) { return r.rule == rule && r.site == l.site; });
  };
  const int axis = p.spec.axis.value_or(0) + (p.spec.axis.value_or(0) < 0 ? 2 : 0);
  if (p.spec.granularity == Granularity::kChannel && axis != l.channel_axis)
    out.push_back(at_weight(l, "axis of scales", "axis " + std::to_string(axis), "a scale for each output channel",
                            "Leave the axis to the layer."));
  if (p.spec.granularity == Granularity::kGroup && axis != l.reduction_axis)
    out.push_back(at_weight(l, "axis of scales", "axis " + std::to_string(axis), "groups of the layer's inputs",
                            "Leave the axis to the layer."));
  else if (p.spec.granularity == Granularity::kGroup && !refused("group size") &&
           (p.layout.group < 1 || l.in % p.layout.group != 0))
    out.push_back(at_weight(l, "group size", std::to_string(p.layout.group) + " with " + std::to_string(l.in) + " inputs",
                            "a size that divides the layer's inputs", "Choose another group size, or leave it float."));
  if (p.spec.rounding == Rounding::kLearned && p.spec.soft_rounding)
    out.push_back(at_weight(l, "rounding", "soft", "codes", "Set soft_rounding to false."));
  if (p.spec.format != "int" || p.spec.bits > 8) return;
  const double lowest = lowest_code(p.spec), highest = lowest + std::ldexp(1.0, p.spec.bits) - 1;
  for (const float z : p.zero_point)
    if (!(z >= lowest && z <= highest)) {
      out.push_back(at_weight(l, "zero point", "zero point " + std::to_string(static_cast<std::int64_t>(z)),
                              "a zero point that is a code itself", "Widen the range so that it contains 0."));
      break;
    }
}

}  // namespace

Refusal at_weight(const LinearLayer& l, std::string rule, std::string got, std::string allowed, std::string suggestion) {
  return {l.node->name, "weight", std::move(rule), std::move(got), std::move(allowed), std::move(suggestion), l.site,
          {},           true};
}

std::vector<LinearLayer> linear_layers(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  std::vector<LinearLayer> out;
  std::set<std::string> taken;
  for (const Layer& layer : find_layers(graph)) {
    const Node& node = *graph.find(layer.node);
    if ((node.op != "MatMul" && node.op != "Gemm") || layer.weight == kNoTensor || node.input(1) != layer.weight ||
        !is_plain_gemm(node))
      continue;
    const TensorInfo& weight = graph.tensor(layer.weight);
    const TensorData* data = model.model->weights->find(weight.name);
    if (!data || data->shape.size() != 2 || data->type != DataType::kFloat) continue;
    LinearLayer l;
    l.node = &node;
    l.weight = weight.name;
    l.channel_axis = layer.channel_axis;
    l.reduction_axis = layer.reduction_axis;
    l.transposed = layer.channel_axis == 1;
    l.out = data->shape[static_cast<std::size_t>(layer.channel_axis)];
    l.in = data->shape[static_cast<std::size_t>(layer.reduction_axis)];
    if (l.out < 1 || l.in < 1) continue;
    if (layer.bias != kNoTensor) {
      const TensorData* bias = model.model->weights->find(graph.tensor(layer.bias).name);
      if (bias && bias->shape == Shape{l.out} && graph.tensor(layer.bias).consumers.size() == 1)
        l.bias = graph.tensor(layer.bias).name;
    }
    l.site = {layer.node, SiteKind::kWeight, 0};
    l.quantizer = quantizer_at(model, l.site);
    l.input = quantizer_at(model, {layer.node, SiteKind::kInput, 0});
    const bool says =
        weight.name.ends_with(kWeightSuffix) && weight.consumers.size() == 1 && weight.name.find("::") == std::string::npos;
    const std::string wanted =
        says ? weight.name.substr(0, weight.name.size() - std::string(kWeightSuffix).size()) : module_of_node(node);
    l.module = wanted;
    for (int n = 2; !taken.insert(l.module).second; ++n) l.module = wanted + "_" + std::to_string(n);
    out.push_back(std::move(l));
  }
  return out;
}

std::string plain_name(const QuantizedModel& model, const std::vector<LinearLayer>& layers, TensorId id, bool& transposed) {
  const TensorInfo& info = model.model->graph->tensor(id);
  transposed = false;
  for (const LinearLayer& l : layers) {
    if (l.bias == info.name) return l.module + ".bias";
    if (l.weight == info.name && !l.quantizer && info.consumers.size() == 1) {
      transposed = l.transposed;
      return l.module + ".weight";
    }
  }
  return info.name;
}

Result<MatrixCodes> matrix_codes(const QuantizedModel& model, const LinearLayer& l) {
  PlacedQuantizer placed;
  placed.site = l.site;
  placed.params = l.quantizer;
  placed.node = placed.reader = l.node;
  placed.tensor = model.model->graph->tensor(l.weight);
  QUANVAS_TRY(const StoredTensor stored, stored_tensor(model, placed));
  const quant::QuantParams& p = *l.quantizer;
  MatrixCodes m;
  m.groups = p.layout.granularity == Granularity::kGroup ? l.in / p.layout.group : 1;
  const std::vector<std::int64_t> zeros = zero_points(p);
  m.codes.resize(stored.codes.size());
  m.values.resize(stored.codes.size());
  for (std::int64_t o = 0; o < l.out; ++o) {
    for (std::int64_t i = 0; i < l.in; ++i) {
      const auto to = static_cast<std::size_t>(o * l.in + i),
                 from = static_cast<std::size_t>(l.transposed ? i * l.out + o : o * l.in + i);
      m.codes[to] = stored.codes[from];
      m.values[to] = stored.values[from];
    }
    for (std::int64_t g = 0; g < m.groups; ++g) {
      const std::size_t at = parameter_of(p, l, o, g * (l.in / m.groups));
      m.scale.push_back(p.scale[at]);
      m.zero.push_back(static_cast<std::int32_t>(zeros[at]));
    }
  }
  return m;
}

std::vector<Refusal> check_linear(const QuantizedModel& model, const TargetTable& table) {
  std::vector<Refusal> out = check_quantizers(model, table);
  const std::vector<LinearLayer> layers = linear_layers(model);
  std::set<NodeId> linear;
  for (const LinearLayer& l : layers) {
    linear.insert(l.node->id);
    if (l.quantizer) check_layer(l, out);
  }
  for (const PlacedQuantizer& q : place(model).quantizers)
    if ((q.node->op == "MatMul" || q.node->op == "Gemm") && !linear.count(q.node->id))
      out.push_back({q.node->name,
                     q.name,
                     "layer",
                     q.node->op + " without a matrix of its own, or with factors",
                     "linear layers: x times a matrix of the file, plus a bias",
                     "Leave it float.",
                     q.site,
                     {},
                     true});
  for (const auto& [name, data] : model.model->weights->all())
    if (model.model->graph->tensor(name) != kNoTensor && element_size(data.type) == 0)
      out.push_back({name,
                     {},
                     "element type",
                     type_name(data.type),
                     "numbers of whole bytes",
                     "Convert the model's constants to float32.",
                     {},
                     {},
                     false});
  return out;
}

}  // namespace quanvas::weight_file
