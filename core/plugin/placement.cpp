#include "core/plugin/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <sstream>
#include <utility>

#include "core/quant/dynamic.h"

namespace quanvas {

namespace {

// Weights and biases: every input that reads the initializer. Activations: when a node reads one tensor twice,
// each operand is one of these inputs, in order.
std::vector<std::size_t> input_indices(const Node& node, const Layer& layer, const Site& site, TensorId tensor) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < node.inputs.size(); ++i)
    if (node.inputs[i] == tensor) found.push_back(i);
  if (site.kind != SiteKind::kInput || found.size() < 2) return found;
  const auto operand = layer.inputs.begin() + site.operand;
  const auto earlier = static_cast<std::size_t>(std::count(layer.inputs.begin(), operand, tensor));
  if (earlier >= found.size()) return {};
  return {found[earlier]};
}

// The weight of a gate is read by the node that joins the gates.
const Node* reader_of(const Graph& graph, const Node& node, const Site& site, TensorId tensor) {
  const bool reads = std::find(node.inputs.begin(), node.inputs.end(), tensor) != node.inputs.end();
  const auto& consumers = graph.tensor(tensor).consumers;
  return reads || site.kind != SiteKind::kWeight || consumers.size() != 1 ? &node : graph.find(consumers[0]);
}

std::string number(double v) {
  std::ostringstream out;
  out << v;
  return out.str();
}

std::string wrong_scale(const PlacedQuantizer& q, const TargetTable& table) {
  const quant::QuantParams& p = *q.params;
  if (quant::is_dynamic(p)) return {};
  if (p.scale.empty()) return "no scale";
  for (const float s : p.scale)
    if (!std::isfinite(s) || s == 0 || (s < 0 && !table.negative_scales)) return "scale " + number(s);
  return {};
}

std::string wrong_zero_point(const PlacedQuantizer& q, int storage_bits) {
  const quant::QuantParams& p = *q.params;
  if (p.spec.zero_point == ZeroPointType::kFloat || p.spec.zero_point == ZeroPointType::kOffset) return {};
  for (const float z : p.zero_point)
    if (p.spec.zero_point == ZeroPointType::kNone && z != 0) return "zero point " + number(z);
  if (!p.zero_point.empty() && p.zero_point.size() != p.scale.size())
    return std::to_string(p.zero_point.size()) + " zero points for " + std::to_string(p.scale.size()) + " scales";
  const int bits = q.site.kind == SiteKind::kBias ? 32 : std::max(storage_bits, p.spec.bits);
  const double lowest = p.spec.is_signed ? -std::ldexp(1.0, bits - 1) : 0;
  const double highest = std::ldexp(1.0, p.spec.is_signed ? bits - 1 : bits) - 1;
  for (const float z : p.zero_point)
    if (!std::isfinite(z) || z != std::nearbyint(z) || z < lowest || z > highest) return "zero point " + number(z);
  return {};
}

// A scale per index of one axis, and that axis has as many indices.
std::string wrong_axis(const PlacedQuantizer& q, const Shape& shape) {
  const quant::QuantParams& p = *q.params;
  if (p.spec.granularity == Granularity::kGroup || p.spec.granularity == Granularity::kRow || quant::is_dynamic(p))
    return {};
  if (p.spec.granularity == Granularity::kTensor)
    return p.scale.size() <= 1 ? "" : std::to_string(p.scale.size()) + " scales for a whole tensor";
  if (shape.empty()) return {};
  const std::int64_t axis = channel_axis(p, shape.size());
  const bool inside = axis >= 0 && axis < static_cast<std::int64_t>(shape.size());
  const std::int64_t size = inside ? shape[static_cast<std::size_t>(axis)] : -1;
  if (inside && (size < 0 || size == static_cast<std::int64_t>(p.scale.size()))) return {};
  return std::to_string(p.scale.size()) + " scales on axis " + std::to_string(axis) + " of a tensor " +
         shape_text(shape);
}

const TargetNeed* find_need(const TargetTable& table, const std::string& op, SiteKind kind) {
  for (const TargetNeed& need : table.needs)
    if (need.site == kind && (need.ops.empty() || std::find(need.ops.begin(), need.ops.end(), op) != need.ops.end()))
      return &need;
  return nullptr;
}

bool allows_float_layer(const TargetTable& table, const std::string& op) {
  if (table.float_ops.empty()) return table.allows_float;
  return std::find(table.float_ops.begin(), table.float_ops.end(), op) != table.float_ops.end();
}

bool holds_inside(const TargetTable& table) {
  for (const TargetRow& row : table.rows)
    if (std::find(row.sites.begin(), row.sites.end(), SiteKind::kInternal) != row.sites.end()) return true;
  return false;
}

// What the table says of declarations. Networks have few of them, many times: verdicts are remembered.
class Declared {
 public:
  Declared(const Graph& graph, const TargetTable& table) : graph_(graph), table_(table), holds_inside_(holds_inside(table)) {}

  // Whether there can be a quantizer at all inside the operator.
  bool is_placed(const PlacedQuantizer& q, std::vector<Refusal>& out) const {
    if (!is_activation(q.site.kind) || q.site.kind == SiteKind::kOutput || !q.inputs.empty() || holds_inside_) return true;
    out.push_back({q.node->name, q.name, "place of a quantizer", q.name + " inside " + q.node->op,
                   "weights, biases, inputs and outputs of whole operators",
                   "Leave it float: the target's operators have no room for quantizers inside.", q.site, {}, may_be_float(table_, q.node->op, q.site.kind)});
    return false;
  }
  // Whether a row takes the quantizer.
  bool judge(const PlacedQuantizer& q, const QuantSpec& spec, const OwnAxis& own, std::vector<Refusal>& out) {
    const TargetVerdict& verdict = known(q, spec, own);
    for (Refusal r : verdict.refusals) {
      r.layer = q.node->name;
      r.quantizer = q.name;
      r.site = q.site;
      r.fix = verdict.fix;
      r.float_fixes = may_be_float(table_, q.node->op, q.site.kind);
      out.push_back(std::move(r));
    }
    return verdict.row != nullptr;
  }
  void element_type(const PlacedQuantizer& q, std::vector<Refusal>& out) const {
    const DataType type = graph_.tensor(q.tensor).type;
    if (type == DataType::kFloat || type == DataType::kUndefined) return;
    out.push_back({q.node->name, q.name, "element type", type_name(type), "float32", "Convert the model to float32, or leave it float.", q.site,
                   {}, may_be_float(table_, q.node->op, q.site.kind)});
  }
  // Quantizers that must be there; has: whether there is one at a site.
  template <class Has>
  void needs(const Layer& layer, const Has& has, std::vector<Refusal>& out) const {
    const Node* node = graph_.find(layer.node);
    const std::vector<Site> sites = layer.sites();
    const bool quantized = std::any_of(sites.begin(), sites.end(), has);
    if (!quantized && allows_float_layer(table_, node->op)) return;
    bool told = quantized;
    for (const Site& site : sites) {
      const TargetNeed* need = find_need(table_, node->op, site.kind);
      if (need == nullptr || has(site)) continue;
      out.push_back({node->name, site_name(layer, site), kMissingQuantizer, "float", need->why, "Quantize it.", site, need->fix, false});
      told = true;
    }
    if (!told && !sites.empty())
      out.push_back({node->name, {}, kFloatLayer, "float", "quantized layers: this target has no float form of " + node->op,
                     "Quantize the layer.", sites.front(), {}, false});
  }

 private:
  struct Known {
    QuantSpec spec;
    OwnAxis own;
    TargetVerdict verdict;
  };

  const TargetVerdict& known(const PlacedQuantizer& q, const QuantSpec& spec, const OwnAxis& given) {
    std::vector<Known>& list = known_[{q.node->op, q.site.kind}];
    const OwnAxis own = spec.axis ? given : OwnAxis{};  // else it plays no part
    for (const Known& k : list)
      if (k.own.axis == own.axis && k.own.rank == own.rank && k.spec == spec) return k.verdict;
    constexpr std::size_t kMost = 64;  // beyond that looking costs more than asking
    if (list.size() >= kMost) list.erase(list.begin());
    list.push_back({spec, own, quanvas::judge(table_, q.node->op, q.site.kind, spec, own)});
    return list.back().verdict;
  }

  const Graph& graph_;
  const TargetTable& table_;
  const bool holds_inside_;
  std::map<std::pair<std::string, SiteKind>, std::vector<Known>> known_;
};

class Checker {
 public:
  Checker(const QuantizedModel& model, const TargetTable& table, int storage_bits)
      : model_(model),
        graph_(*model.model->graph),
        table_(table),
        storage_bits_(storage_bits),
        declared_(graph_, table),
        layers_(find_layers(graph_)),
        placement_(place(model)) {
    for (const Layer& layer : layers_) by_node_[layer.node] = &layer;
  }

  std::vector<Refusal> run() {
    for (const Site& site : placement_.lost) {
      const Node* node = graph_.find(site.node);
      out_.push_back({node ? node->name : "node " + std::to_string(site.node),
                      std::string(enum_text(site.kind)),
                      "place of a quantizer",
                      "no such tensor in the exported graph",
                      "a weight, bias, input or output of a layer",
                      "Run the recipe again.",
                      {},
                      {},
                      false});
    }
    for (const PlacedQuantizer& q : placement_.quantizers) quantizer(q);
    for (const Layer& layer : layers_)
      declared_.needs(layer, [&](const Site& s) { return quantizer_at(model_, s) != nullptr; }, out_);
    return std::move(out_);
  }

 private:
  void add(const PlacedQuantizer& q, const char* rule, std::string got, const char* allowed, const char* suggestion,
           const std::optional<QuantSpec>& fix = {}) {
    if (!got.empty())
      out_.push_back({q.node->name, q.name, rule, std::move(got), allowed, suggestion, q.site, fix,
                      may_be_float(table_, q.node->op, q.site.kind)});
  }

  OwnAxis own(const PlacedQuantizer& q) const {
    return {own_axis(*by_node_.at(q.site.node), *q.node, q.params->spec, q.site.kind), shape_of(model_, q.tensor).size()};
  }

  // The same quantizer with one field changed, where that is legal.
  template <class Change>
  std::optional<QuantSpec> changed(const PlacedQuantizer& q, Change change) const {
    QuantSpec spec = q.params->spec;
    change(spec);
    const bool legal = check(spec, q.site.kind).empty() && judge(table_, q.node->op, q.site.kind, spec, own(q)).row;
    return legal && spec != q.params->spec ? std::optional(spec) : std::nullopt;
  }

  // is_held: the target has a place for the quantizer.
  void scales(const PlacedQuantizer& q, bool is_held) {
    const std::vector<float>& scale = q.params->scale;
    if (std::string got = wrong_scale(q, table_); !got.empty()) {
      const bool negative = std::any_of(scale.begin(), scale.end(), [](float s) { return s < 0; });
      const auto fix = negative ? changed(q, [](QuantSpec& s) { s.statistic = Statistic::kAbsMax; }) : std::nullopt;
      return add(q, "scale", std::move(got), "finite and greater than 0",
                 negative ? "Use statistic absmax: that of signed-max gives negative scales."
                          : "Calibrate again, or give clip limits.",
                 fix);
    }
    if (!table_.half_scales || !is_held) return;
    for (const float s : scale)
      if (half_to_float(float_to_half(s)) != s)
        return add(q, "scale", "scale " + number(s), "float16 numbers", "Use scales of type float16.",
                   changed(q, [](QuantSpec& spec) { spec.scale = ScaleType::kFloat16; }));
  }

  void quantizer(const PlacedQuantizer& q) {
    if (!declared_.is_placed(q, out_)) return;
    const bool is_held = declared_.judge(q, q.params->spec, own(q), out_);
    scales(q, is_held);
    add(q, "zero point", wrong_zero_point(q, storage_bits_), "an integer that the stored type holds, one per scale",
        "Use an integer zero point, or none.");
    add(q, "axis of scales", wrong_axis(q, shape_of(model_, q.tensor)), "one scale, or one per index of one axis",
        "Quantize again with this model.");
    declared_.element_type(q, out_);
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const TargetTable& table_;
  int storage_bits_;
  Declared declared_;
  std::vector<Layer> layers_;
  std::map<NodeId, const Layer*> by_node_;
  Placement placement_;
  std::vector<Refusal> out_;
};

// Where a quantizer of the site stands; tensor: that of the site. What it is, is left open.
PlacedQuantizer placed_at(const Graph& graph, const Layer& layer, const Site& site, TensorId tensor) {
  PlacedQuantizer placed{site, nullptr, graph.find(site.node), nullptr, tensor, {}, {}};
  placed.reader = reader_of(graph, *placed.node, site, tensor);
  if (site.kind != SiteKind::kOutput) placed.inputs = input_indices(*placed.reader, layer, site, tensor);
  placed.name = site_name(layer, site);
  return placed;
}

}  // namespace

std::optional<int> own_axis(const Layer& layer, const Node& node, const QuantSpec& spec, SiteKind kind) {
  switch (spec.granularity) {
    case Granularity::kTensor: return std::nullopt;
    case Granularity::kRow: return -1;
    default: break;
  }
  const bool groups = spec.granularity == Granularity::kGroup;
  if (kind == SiteKind::kBias) return layer.bias_axis < 0 ? std::nullopt : std::optional(layer.bias_axis);
  if (kind == SiteKind::kWeight) return groups ? layer.reduction_axis : layer.channel_axis;
  const bool picture = node.op.starts_with("Conv") || node.op == "BatchNormalization" || layer.kind == LayerKind::kPool;
  return groups && !picture ? -1 : 1;
}

Placement place(const QuantizedModel& model) {
  const Graph& graph = *model.model->graph;
  const std::vector<Layer> layers = find_layers(graph);
  std::map<NodeId, const Layer*> by_node;
  for (const Layer& layer : layers) by_node[layer.node] = &layer;
  Placement placement;
  for (const auto& [site, params] : model.quantizers) {
    const auto layer = by_node.find(site.node);
    const TensorId tensor = layer == by_node.end() ? kNoTensor : site_tensor(*layer->second, site);
    if (tensor == kNoTensor) {
      placement.lost.push_back(site);
      continue;
    }
    PlacedQuantizer placed = placed_at(graph, *layer->second, site, tensor);
    placed.params = &params;
    placement.quantizers.push_back(std::move(placed));
  }
  return placement;
}

std::string quantizer_text(bool is_signed, std::int64_t lo, std::int64_t hi, bool per_channel,
                           std::size_t parameters, const std::vector<std::int64_t>& zero_points) {
  int bits = 1;
  const std::int64_t top = is_signed ? std::max(hi, -(lo + 1)) : hi;
  while ((std::int64_t{1} << (is_signed ? bits - 1 : bits)) <= top) ++bits;
  const std::int64_t widest = is_signed ? -(std::int64_t{1} << (bits - 1)) : (std::int64_t{1} << bits) - 1;
  std::string text = (is_signed ? "int" : "uint") + std::to_string(bits);
  if (is_signed ? lo > widest : hi < widest) text += " narrow";
  text += per_channel ? ", per channel (" + std::to_string(parameters) + ")" : ", per tensor";
  bool zero = true, same = true;
  for (const std::int64_t z : zero_points) {
    zero = zero && z == 0;
    same = same && z == zero_points.front();
  }
  if (!zero) text += same ? ", zero point " + std::to_string(zero_points.front()) : ", zero points";
  return text;
}

std::string quantizer_text(const quant::QuantParams& params) {
  if (params.spec.granularity == Granularity::kGroup) return describe(params.spec);
  return quantizer_text(params.spec.is_signed, params.lo, params.hi,
                        params.spec.granularity == Granularity::kChannel, params.scale.size(), zero_points(params));
}

std::vector<std::int64_t> zero_points(const quant::QuantParams& params) {
  std::vector<std::int64_t> out(params.scale.size(), 0);
  for (std::size_t i = 0; i < out.size() && i < params.zero_point.size(); ++i)
    out[i] = std::llrint(params.zero_point[i]);
  return out;
}

std::int64_t channel_axis(const quant::QuantParams& params, std::size_t rank) {
  const std::int64_t axis = params.spec.axis.value_or(0);
  return axis < 0 ? axis + static_cast<std::int64_t>(rank) : axis;
}

Shape shape_of(const QuantizedModel& model, TensorId tensor) {
  const TensorInfo& info = model.model->graph->tensor(tensor);
  if (const TensorData* data = model.model->weights->find(info.name); data && info.is_initializer)
    return data->shape;
  return info.shape.value_or(Shape{});
}

const quant::QuantParams* quantizer_at(const QuantizedModel& model, const Site& site) {
  const auto it = model.quantizers.find(site);
  return it == model.quantizers.end() ? nullptr : &it->second;
}

Result<StoredTensor> stored_tensor(const QuantizedModel& model, const PlacedQuantizer& placed) {
  const std::string& source = model.model->graph->tensor(placed.tensor).name;
  const TensorData* data = model.model->weights->find(source);
  if (data == nullptr)
    return fail(ErrorCode::kInternal, "Initializer '" + source + "' of '" + placed.node->name + "' has no data.");
  const quant::QuantParams& p = *placed.params;
  StoredTensor out;
  out.shape = data->shape;
  const std::vector<float> values = data->to_floats();
  if (static_cast<std::int64_t>(values.size()) != p.layout.elements())
    return fail(ErrorCode::kInternal, "Initializer '" + source + "' has " + std::to_string(values.size()) +
                                          " values, its quantizer was found on " +
                                          std::to_string(p.layout.elements()) + ".");
  out.codes.resize(values.size());
  out.values.resize(values.size());
  quant::quantize_codes(p, p.layout, values.data(), out.codes.data());
  quant::fake_quantize(p, p.layout, values.data(), out.values.data());
  return out;
}

bool may_be_float(const TargetTable& table, const std::string& op, SiteKind site) {
  return allows_float_layer(table, op) && !find_need(table, op, site);
}

std::vector<Refusal> check_quantizers(const QuantizedModel& model, const TargetTable& table, int storage_bits) {
  return Checker(model, table, storage_bits).run();
}

std::vector<Refusal> check_declarations(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan,
                                        const TargetTable& table) {
  std::vector<Refusal> out;
  if (table.rows.empty()) return out;
  Declared declared(graph, table);
  const auto spec_at = [&](const Site& site) -> const QuantSpec* {
    const SitePlan* planned = plan.find(site);
    return planned && planned->spec ? &*planned->spec : nullptr;
  };
  for (const Layer& layer : layers) {
    const Node& node = *graph.find(layer.node);
    for (const Site& site : layer.sites()) {
      const QuantSpec* spec = spec_at(site);
      const TensorId tensor = spec ? site_tensor(layer, site) : kNoTensor;
      if (tensor == kNoTensor) continue;
      PlacedQuantizer q = placed_at(graph, layer, site, tensor);
      if (!declared.is_placed(q, out)) continue;
      const std::size_t rank = graph.tensor(tensor).shape.value_or(Shape{}).size();
      declared.judge(q, *spec, {own_axis(layer, node, *spec, site.kind), rank}, out);
      declared.element_type(q, out);
    }
    // A result may take the quantizer of what reads it: the target knows, when it is asked with numbers.
    std::vector<Refusal> missing;
    declared.needs(layer, [&](const Site& s) { return spec_at(s) != nullptr; }, missing);
    for (Refusal& r : missing)
      if (r.rule != kMissingQuantizer || r.site->kind != SiteKind::kOutput) out.push_back(std::move(r));
  }
  return out;
}

}  // namespace quanvas
