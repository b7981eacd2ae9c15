#include "plugins/exporters/torchscript/plan.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/quant/dynamic.h"

namespace quanvas::torchscript_file {

ByNode by_node(const QuantizedModel& model) {
  ByNode out;
  for (PlacedQuantizer& q : place(model).quantizers)
    out[q.site.kind == SiteKind::kOutput ? q.node->id : q.reader->id].push_back(std::move(q));
  return out;
}

const PlacedQuantizer* find_quantizer(const std::vector<PlacedQuantizer>& of_node, SiteKind kind, std::size_t input) {
  for (const PlacedQuantizer& q : of_node) {
    if (q.site.kind != kind) continue;
    if (kind == SiteKind::kOutput || std::find(q.inputs.begin(), q.inputs.end(), input) != q.inputs.end()) return &q;
  }
  return nullptr;
}

std::string key_of(const quant::QuantParams& p) {
  const auto bytes = [](const std::vector<float>& v) {
    return std::to_string(v.size()) + ":" + std::string(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(float));
  };
  std::string zeros;
  for (const std::int64_t z : zero_points(p)) zeros += std::to_string(z) + ",";
  return std::to_string(p.lo) + "," + std::to_string(p.hi) + "," + std::to_string(static_cast<int>(p.spec.granularity)) + "," +
         std::to_string(p.spec.granularity == Granularity::kTensor ? 0 : p.spec.axis.value_or(0)) + "," +
         std::to_string(static_cast<int>(p.spec.rounding)) + (p.spec.zero_point_inside ? "i" : "o") + bytes(p.scale) + zeros;
}

std::int64_t stored_zero_point(const quant::QuantParams& p) {
  const std::vector<std::int64_t> z = zero_points(p);
  return (z.empty() ? 0 : z[0]) + (p.spec.is_signed ? 128 : 0);
}

bool keeps_codes(const Model& model, const Node& node) {
  static const std::set<std::string> ops = {"Relu",    "MaxPool",   "Reshape",  "Flatten", "Transpose",
                                            "Squeeze", "Unsqueeze", "Identity", "Dropout", "Clip"};
  if (!node.domain.empty() || ops.count(node.op) == 0 || !node.opaque_reason.empty()) return false;
  if (node.op == "MaxPool") {  // LibTorch pools codes over one or two axes
    const std::size_t n = node.integers("kernel_shape").size();
    const Ints pads = node.integers("pads");
    for (std::size_t i = 0; i < n && pads.size() == 2 * n; ++i)
      if (pads[i] != pads[i + n] || 2 * pads[i] > node.integers("kernel_shape")[i]) return false;
    if (n < 1 || n > 2 || node.text("auto_pad", "NOTSET").compare(0, 4, "SAME") == 0) return false;
  }
  // LibTorch limits codes on both sides or not at all.
  if (node.op == "Clip" && !node.attributes.count("min") && (node.input(1) == kNoTensor || node.input(2) == kNoTensor))
    return false;
  return inexpressible(model, node).empty();
}

bool has_curve(const Node& node) {
  static const std::set<std::string> ops = {"Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu"};
  return node.domain.empty() && node.opaque_reason.empty() && node.outputs.size() == 1 && ops.count(node.op) > 0;
}

namespace {

// All quantizers that see the tensor, behind operators that keep codes. False: somebody sees it as it is.
bool readers(const QuantizedModel& model, const ByNode& quantizers, TensorId tensor, int depth,
             std::vector<const quant::QuantParams*>& found) {
  const Graph& graph = *model.model->graph;
  const TensorInfo& info = graph.tensor(tensor);
  if (graph.is_output(tensor) || info.consumers.empty() || depth > 64) return false;
  static const std::vector<PlacedQuantizer> none;
  for (const NodeId id : info.consumers) {
    const Node& node = *graph.find(id);
    const auto it = quantizers.find(id);
    const auto& own = it == quantizers.end() ? none : it->second;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] != tensor) continue;
      if (const PlacedQuantizer* q = find_quantizer(own, SiteKind::kInput, i)) {
        found.push_back(q->params);
      } else if (i == 0 && keeps_codes(*model.model, node)) {
        if (const PlacedQuantizer* out = find_quantizer(own, SiteKind::kOutput, 0))
          found.push_back(out->params);
        else if (!readers(model, quantizers, node.outputs.at(0), depth + 1, found))
          return false;
      } else {
        return false;
      }
    }
  }
  return true;
}

bool fits_codes(const quant::QuantParams& p) {
  return p.spec.granularity == Granularity::kTensor && p.scale.size() == 1 &&
         (p.spec.is_signed ? p.lo == -128 && p.hi == 127 : p.lo == 0 && p.hi == 255);
}

QuantSpec bias_spec() {
  QuantSpec s;
  s.bits = 32;
  s.scale_from_accumulator = true;
  return s;
}
QuantSpec activation_spec() {
  QuantSpec s;
  s.is_signed = false;
  s.zero_point = ZeroPointType::kInteger;
  s.statistic = Statistic::kMinMax;
  return s;
}

bool has_scales_of(const quant::QuantParams& bias, const quant::QuantParams& input, const quant::QuantParams& weight) {
  if (bias.scale.size() != weight.scale.size() && weight.scale.size() != 1) return false;
  for (std::size_t i = 0; i < bias.scale.size(); ++i) {
    const float product = input.scale[0] * weight.scale[weight.scale.size() == 1 ? 0 : i];
    if (bias.scale[i] != product) return false;
  }
  for (const std::int64_t z : zero_points(bias))
    if (z != 0) return false;
  return true;
}

}  // namespace

const quant::QuantParams* output_of(const QuantizedModel& model, const ByNode& quantizers, const Node& node) {
  const auto it = quantizers.find(node.id);
  if (it != quantizers.end())
    if (const PlacedQuantizer* own = find_quantizer(it->second, SiteKind::kOutput, 0)) return own->params;
  std::vector<const quant::QuantParams*> found;
  if (node.outputs.empty() || !readers(model, quantizers, node.outputs[0], 0, found) || found.empty()) return nullptr;
  for (const quant::QuantParams* p : found)
    if (!fits_codes(*p) || key_of(*p) != key_of(*found[0])) return nullptr;
  return found[0];
}

const Node* relu_behind(const QuantizedModel& model, const ByNode& quantizers, const Node& node) {
  const Graph& graph = *model.model->graph;
  const TensorInfo& info = graph.tensor(node.outputs.at(0));
  const auto it = quantizers.find(node.id);
  if (it != quantizers.end() && find_quantizer(it->second, SiteKind::kOutput, 0)) return nullptr;
  if (graph.is_output(node.outputs[0]) || info.consumers.size() != 1) return nullptr;
  const Node* next = graph.find(info.consumers[0]);
  if (next->op != "Relu" || !next->domain.empty()) return nullptr;
  const auto behind = quantizers.find(next->id);
  return behind != quantizers.end() && find_quantizer(behind->second, SiteKind::kInput, 0) ? nullptr : next;
}

std::optional<PackedPlan> packed_plan(const QuantizedModel& model, const ByNode& quantizers, const Node& node,
                                      std::size_t least_axes, std::size_t most_axes) {
  const bool conv = node.op == "Conv", gemm = node.op == "Gemm", product = node.op == "MatMul";
  if (!node.domain.empty() || (!conv && !gemm && !product)) return std::nullopt;
  const auto it = quantizers.find(node.id);
  if (it == quantizers.end()) return std::nullopt;
  PackedPlan plan;
  PackedLayer& l = plan.layer;
  l.input = find_quantizer(it->second, SiteKind::kInput, 0);
  l.weight = find_quantizer(it->second, SiteKind::kWeight, 1);
  l.bias = find_quantizer(it->second, SiteKind::kBias, 2);
  if (!l.weight || l.weight->reader != &node || l.weight->inputs != std::vector<std::size_t>{1}) return std::nullopt;
  const auto trouble = [&](PackedTrouble t) { plan.troubles.push_back(std::move(t)); };
  const auto missing = [&](SiteKind kind, const char* why, const QuantSpec& fix) {
    trouble({"missing quantizer", "float", why, "Quantize it.", Site{node.id, kind, 0}, fix});
  };
  const std::string op = conv ? "convolutions" : "linear layers";
  if (!l.input) missing(SiteKind::kInput, "quint8: LibTorch's quantized layers compute codes from codes", activation_spec());
  l.finds_scale = l.input && quant::is_dynamic(*l.input->params);
  l.output = l.finds_scale ? nullptr : output_of(model, quantizers, node);
  if (!l.output && !l.finds_scale)
    missing(SiteKind::kOutput,
            "quint8, of the layer itself or the same at all that reads its result: LibTorch's quantized layers give codes",
            activation_spec());
  const bool has_bias = node.input(2) != kNoTensor;
  if (l.finds_scale && l.bias)
    trouble({"scale of a bias", "integers of a scale that is known beforehand",
             "a float bias: the scale of the sums is found at run time", "Leave the bias float.", l.bias->site,
             std::nullopt, true});
  if (l.finds_scale && has_bias && !model.model->graph->tensor(node.inputs[2]).is_initializer)
    trouble({"operator", node.op + ": its bias is computed", "linear layers with a constant bias", "Leave this layer float.",
             std::nullopt, std::nullopt});
  if (has_bias && !l.bias && !l.finds_scale)
    missing(SiteKind::kBias, "input scale x weight scale: LibTorch rounds every bias to whole multiples of it", bias_spec());
  if (l.bias && l.input && !l.input->params->scale.empty() &&
      !has_scales_of(*l.bias->params, *l.input->params, *l.weight->params))
    trouble({"scale of a bias", "another one", "input scale x weight scale, zero point 0",
             "Set scale_from_accumulator and run the recipe again.", l.bias->site, bias_spec()});
  const Shape shape = shape_of(model, l.weight->tensor);
  if (conv) {
    l.is_conv = true;
    std::vector<std::string> lines;
    const Saying s{*model.model, node, {"x", "w", "b"}, {}, lines};
    try {
      l.window = window_of(s, shape.size() > 2 ? Ints(shape.begin() + 2, shape.end()) : Ints{});
      const std::size_t axes = l.window.kernel.size();
      if (axes < least_axes || axes > most_axes)
        throw Unsaid("a convolution over " + std::to_string(axes) + (axes == 1 ? " axis" : " axes"));
    } catch (const Unsaid& e) {
      trouble({"operator", node.op + ": " + e.what(),
               "quantized convolutions over " + (least_axes == most_axes ? "" : std::to_string(least_axes) + " to ") +
                   std::to_string(most_axes) + " axes",
               "Leave this layer float.", std::nullopt, std::nullopt});
    }
  } else {
    l.transposes = product || node.integer("transB", 0) == 0;
    const bool plain = !gemm || (node.integer("transA", 0) == 0 && node.real("alpha", 1) == 1 && node.real("beta", 1) == 1);
    const std::int64_t columns = shape.size() == 2 ? shape[l.transposes ? 1 : 0] : -1;
    const bool fits = !has_bias || element_count(shape_of(model, node.inputs[2])) == columns;
    if (!plain || !fits || columns < 0)
      trouble({"operator", node.op + ": it is no plain linear layer",
               "x W + b with a matrix W and a bias of as many values as W has columns",
               "Fold its factors into the weight, or leave it float.", std::nullopt, std::nullopt});
  }
  if (l.weight->params->spec.granularity == Granularity::kChannel) {
    const std::int64_t axis = channel_axis(*l.weight->params, shape.size());
    if (axis != (l.transposes ? 1 : 0))
      trouble({"axis of scales", "axis " + std::to_string(axis), "that of the output channels of " + op,
               "Leave the axis to the layer.", l.weight->site, std::nullopt});
  }
  if (!l.finds_scale) l.relu = relu_behind(model, quantizers, node);
  return plan;
}

}  // namespace quanvas::torchscript_file
