#include "plugins/exporters/pyxir_plan.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace quanvas::onnx_file {
namespace {

constexpr int kDepth = 256;  // of a chain of operators that only pass values on

const std::set<std::string>& layers() {
  static const std::set<std::string> ops = {"Conv", "Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool",
                                            "Add",  "Relu"};
  return ops;
}

QuantSpec wanted_spec() {
  QuantSpec spec;
  spec.scale = ScaleType::kPowerOfTwo;
  return spec;
}

Refusal refusal(const Node& node, std::string quantizer, const char* rule, std::string got, std::string allowed,
                std::string suggestion) {
  return {node.name, std::move(quantizer), rule, std::move(got), std::move(allowed), std::move(suggestion), {}, {}, false};
}

}  // namespace

std::optional<int> fix_position(const quant::QuantParams& p) {
  int exponent = 0;
  if (p.scale.size() != 1 || !(p.scale[0] > 0) || std::frexp(p.scale[0], &exponent) != 0.5f) return std::nullopt;
  const int position = 1 - exponent;
  return std::abs(position) <= 64 ? std::optional(position) : std::nullopt;
}

DpuPlan::DpuPlan(const QuantizedModel& model, const Placement& placement, bool pads_apart)
    : model_(model), graph_(*model.model->graph), placement_(placement), pads_apart_(pads_apart) {}

const quant::QuantParams* DpuPlan::at(const Node& node, SiteKind kind, int operand) const {
  return quantizer_at(model_, {node.id, kind, operand});
}

bool DpuPlan::is_layer(const Node& node) const {
  if (!node.domain.empty() || !node.opaque_reason.empty() || !layers().count(node.op) || is_dropped(node)) return false;
  const auto weight = node.input(1);
  if (node.op == "Conv" || node.op == "Gemm" || node.op == "MatMul")
    return weight != kNoTensor && graph_.tensor(weight).is_initializer;
  if (node.op != "Add") return true;
  return node.inputs.size() == 2 && !graph_.tensor(node.inputs[0]).is_initializer &&
         !graph_.tensor(node.inputs[1]).is_initializer;
}

bool DpuPlan::is_dropped(const Node& node) const {
  if (!node.domain.empty() || (node.op != "MaxPool" && node.op != "AveragePool") || node.outputs.size() != 1) return false;
  const auto all_ones = [](const std::vector<std::int64_t>& v) {
    return std::all_of(v.begin(), v.end(), [](std::int64_t x) { return x == 1; });
  };
  const auto kernel = node.integers("kernel_shape"), padding = pads(node);
  return !kernel.empty() && all_ones(kernel) && all_ones(node.integers("strides")) && !graph_.is_output(node.outputs[0]) &&
         std::all_of(padding.begin(), padding.end(), [](std::int64_t v) { return v == 0; });
}

std::vector<std::int64_t> DpuPlan::pads(const Node& node) const {
  const std::string mode = node.text("auto_pad", "NOTSET");
  if (mode == "VALID") return {0, 0, 0, 0};
  if (!mode.starts_with("SAME")) return node.integers("pads", {0, 0, 0, 0});
  const Shape x = node.input(0) == kNoTensor ? Shape{} : shape_of(model_, node.input(0));
  const Shape w = node.op == "Conv" ? shape_of(model_, node.input(1)) : Shape{};
  const auto kernel = node.integers(
      "kernel_shape", w.size() == 4 ? std::vector<std::int64_t>(w.begin() + 2, w.end()) : std::vector<std::int64_t>());
  const auto strides = node.integers("strides", {1, 1}), dilations = node.integers("dilations", {1, 1});
  if (x.size() != 4 || kernel.size() != 2 || strides.size() != 2 || dilations.size() != 2) return {};
  std::vector<std::int64_t> out(4, 0);
  for (std::size_t i = 0; i < 2; ++i) {
    if (x[i + 2] < 1 || strides[i] < 1 || dilations[i] < 1 || kernel[i] < 1) return {};
    const std::int64_t count = (x[i + 2] + strides[i] - 1) / strides[i];
    const std::int64_t all =
        std::max<std::int64_t>(0, (count - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - x[i + 2]);
    out[i] = mode == "SAME_UPPER" ? all / 2 : all - all / 2;
    out[i + 2] = all - out[i];
  }
  return out;
}

bool DpuPlan::passes(const Node& node, std::optional<int> position) const {
  static const std::set<std::string> ops = {"Relu",      "MaxPool", "Flatten",   "Reshape",
                                            "Transpose", "Squeeze", "Unsqueeze", "Identity"};
  if (!node.domain.empty() || node.outputs.size() != 1 || node.inputs.empty() || node.inputs[0] == kNoTensor) return false;
  if (ops.count(node.op) || is_dropped(node)) return true;
  if (node.op != "Clip" || !position) return false;
  // Between two codes, or from beyond the codes on: a value that is cut is a code.
  for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
    const TensorId t = node.input(i);
    if (t == kNoTensor && !node.attributes.count(i == 1 ? "min" : "max")) continue;
    const TensorData* data = t == kNoTensor ? nullptr : model_.model->weights->find(graph_.tensor(t).name);
    const std::vector<float> values = t == kNoTensor ? std::vector<float>{node.real(i == 1 ? "min" : "max", 0)}
                                      : data         ? data->to_floats()
                                                     : std::vector<float>();
    if (values.size() != 1) return false;
    const double code = std::ldexp(static_cast<double>(values[0]), *position);
    if ((code != std::nearbyint(code) && std::fabs(code) < 128) || (i == 1 && code > 0) || (i == 2 && code < 0)) return false;
  }
  return true;
}

std::optional<int> DpuPlan::readers_agree(TensorId t) const {
  if (graph_.is_output(t)) return std::nullopt;
  std::size_t readings = 0, quantized = 0;
  for (const NodeId id : graph_.tensor(t).consumers)
    for (const TensorId input : graph_.find(id)->inputs) readings += input == t;
  std::optional<int> common;
  for (const PlacedQuantizer& q : placement_.quantizers) {
    if (q.tensor != t || q.site.kind != SiteKind::kInput) continue;
    const auto position = fix_position(*q.params);
    if (!position || (common && *common != *position)) return std::nullopt;
    common = position;
    quantized += q.inputs.size();
  }
  return readings == quantized ? common : std::nullopt;
}

// What the tensor's own layer, or those that follow, make of it.
std::optional<int> DpuPlan::asked(TensorId t, int depth) const {
  const Node* maker = graph_.find(graph_.tensor(t).producer);
  if (maker)
    if (const auto* own = at(*maker, SiteKind::kOutput)) return fix_position(*own);
  if (const auto common = readers_agree(t)) return common;
  const auto& consumers = graph_.tensor(t).consumers;
  if (depth > kDepth || graph_.is_output(t) || consumers.size() != 1) return std::nullopt;
  const Node& next = *graph_.find(consumers[0]);
  if (next.outputs.empty() || next.outputs[0] == kNoTensor || next.input(0) != t || at(next, SiteKind::kInput))
    return std::nullopt;
  const auto later = passes(next, 0) || next.op == "Clip" ? asked(next.outputs[0], depth + 1) : std::nullopt;
  return later && passes(next, later) ? later : std::nullopt;
}

std::optional<int> DpuPlan::held(TensorId t) const {
  for (int depth = 0; depth < kDepth && t != kNoTensor; ++depth) {
    const Node* maker = graph_.find(graph_.tensor(t).producer);
    // Nothing quantizes a tensor in the file but the layer that makes it; the network's input is as it comes.
    if (maker == nullptr) return std::nullopt;
    if (const auto ahead = is_layer(*maker) ? asked(t) : std::nullopt) return ahead;
    const TensorId before = maker->input(0);
    if (before == kNoTensor || graph_.tensor(before).is_initializer) return std::nullopt;
    if (maker->op == "Concat") {
      const auto first = held(before);
      for (const TensorId part : maker->inputs)
        if (held(part) != first) return std::nullopt;
      return first;
    }
    if (!passes(*maker, held(before))) return std::nullopt;
    if (is_layer(*maker)) return seen(*maker, 0);
    t = before;
  }
  return std::nullopt;
}

std::optional<int> DpuPlan::seen(const Node& node, std::size_t input) const {
  for (const PlacedQuantizer& q : placement_.quantizers)
    if (q.reader == &node && q.site.kind == SiteKind::kInput &&
        std::find(q.inputs.begin(), q.inputs.end(), input) != q.inputs.end())
      return fix_position(*q.params);
  return held(node.input(input));
}

bool DpuPlan::is_early(TensorId t) const {
  const Node* maker = graph_.find(graph_.tensor(t).producer);
  return maker && !graph_.is_output(t) && !at(*maker, SiteKind::kOutput) && held(t);
}

bool DpuPlan::is_not_negative(TensorId t, int depth) const {
  const Node* maker = graph_.find(graph_.tensor(t).producer);
  if (!maker || depth > kDepth) return false;
  return maker->op == "Relu" || (maker->op != "Clip" && passes(*maker, 0) && is_not_negative(maker->input(0), depth + 1));
}

void DpuPlan::check_form(const Node& node, std::vector<Refusal>& out) const {
  const auto add = [&](const char* rule, std::string got, std::string allowed) {
    out.push_back(refusal(node, {}, rule, std::move(got), std::move(allowed),
                          "Leave this layer to another target, or change the network."));
  };
  const auto rank = [&](std::size_t i) { return node.input(i) == kNoTensor ? 0 : shape_of(model_, node.input(i)).size(); };
  const std::string auto_pad = node.text("auto_pad", "NOTSET");
  const std::vector<std::int64_t> padding = pads(node);
  const bool is_padded = std::any_of(padding.begin(), padding.end(), [](std::int64_t v) { return v != 0; });
  if (padding.size() != 4)
    add("padding", "auto_pad " + auto_pad + " of an input of unknown size, or not over 2 axes", "4 numbers");
  if (node.op == "Conv") {
    const Shape w = shape_of(model_, node.input(1));
    const std::int64_t group = node.integer("group", 1);
    if (w.size() != 4)
      add("layer", "a convolution over " + std::to_string(w.size() - std::min<std::size_t>(w.size(), 2)) + " axes", "2 axes");
    else if (group != 1 && !(w[1] == 1 && w[0] == group))
      add("groups", std::to_string(group) + " groups of " + std::to_string(w[1]) + " channels", "one group, or depthwise");
  } else if (node.op == "Gemm" || node.op == "MatMul") {
    const bool scaled = node.real("alpha", 1) != 1 || node.real("beta", 1) != 1 || node.integer("transA", 0) != 0;
    if (rank(1) != 2 || rank(0) != 2 || scaled)
      add("layer", "a product of other than rows by a matrix", "x W + b with x of two axes");
    if (const TensorId b = node.input(2);
        b != kNoTensor && element_count(shape_of(model_, b)) != shape_of(model_, node.outputs[0]).back())
      add("layer", "a bias of another size than the outputs", "one number for each output");
  } else if (node.op == "AveragePool" && is_padded && (pads_apart_ || node.integer("count_include_pad", 0) == 0)) {
    add("padding", "an average that is padded", "averages without padding");
  } else if (node.op == "MaxPool" && is_padded && pads_apart_ && !is_not_negative(node.input(0))) {
    add("padding", "the largest of padded values below 0, which a layer Pad of zeros changes", "padding behind a ReLU");
  }
  if (node.op == "MaxPool" && node.outputs.size() > 1) add("layer", "a MaxPool that gives places", "values alone");
}

std::vector<Refusal> DpuPlan::refusals() const {
  std::vector<Refusal> out;
  const std::vector<Layer> all = find_layers(graph_);
  const auto missing = [&](const Node& node, SiteKind kind, int operand) {
    const Layer* layer = find_layer(all, node.id);
    const Site site{node.id, kind, operand};
    if (layer == nullptr || site_tensor(*layer, site) == kNoTensor) return;
    Refusal r = refusal(node, site_name(*layer, site), "missing quantizer", "float",
                        "the DPU stores 8 bit whole numbers everywhere", "Quantize it.");
    r.site = site;
    r.fix = wanted_spec();
    out.push_back(std::move(r));
  };
  for (const Node& node : graph_.nodes()) {
    if (!is_layer(node)) continue;
    check_form(node, out);
    if (node.op == "Relu" && !seen(node, 0) && !held(node.outputs[0]) && !at(node, SiteKind::kInput) &&
        !at(node, SiteKind::kOutput))
      continue;  // of a float part
    const std::size_t inputs = node.op == "Add" ? 2 : 1;
    for (std::size_t i = 0; i < inputs; ++i)
      if (!seen(node, i)) missing(node, SiteKind::kInput, static_cast<int>(i));
    if (!held(node.outputs[0])) missing(node, SiteKind::kOutput, 0);
    if (node.op != "Conv" && node.op != "Gemm" && node.op != "MatMul") continue;
    if (!at(node, SiteKind::kWeight)) missing(node, SiteKind::kWeight, 0);
    if (node.input(2) != kNoTensor && !at(node, SiteKind::kBias)) missing(node, SiteKind::kBias, 0);
  }
  // What stands on other nodes must be what the file has there anyway.
  for (const PlacedQuantizer& q : placement_.quantizers) {
    if (is_layer(*q.node) || !is_activation(q.site.kind)) continue;
    const auto position = fix_position(*q.params);
    const TensorId t = q.site.kind == SiteKind::kOutput && !is_dropped(*q.node) ? q.tensor : q.node->input(0);
    const bool is_there = q.site.kind == SiteKind::kInput ? held(q.tensor) == position : held(t) == position;
    if (is_there && position) continue;
    Refusal r = refusal(*q.node, q.name, "place of a quantizer", q.node->op + " requantizes",
                        "operators that keep what the layers before gave",
                        "Give it the quantizer of the layer before (share: edge), or leave it float.");
    r.site = q.site;
    r.float_fixes = true;
    out.push_back(std::move(r));
  }
  return out;
}

}  // namespace quanvas::onnx_file
