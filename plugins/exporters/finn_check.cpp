#include "plugins/exporters/finn_check.h"

#include <algorithm>
#include <bit>

#include "plugins/exporters/finn_layout.h"
#include "plugins/exporters/onnx_qdq_check.h"
#include "plugins/exporters/qonnx_check.h"

namespace quanvas::onnx_file {
namespace {

const std::vector<std::string> kLayers = {"Conv", "Gemm", "MatMul"};
constexpr int kThresholdBits = 8;  // more is left as it is by FINN, with a warning

Refusal refusal(const PlacedQuantizer& q, const char* rule, std::string got, std::string allowed, std::string suggestion,
                std::optional<QuantSpec> fix = {}) {
  return {q.node->name, q.name,         rule, std::move(got), std::move(allowed), std::move(suggestion),
          q.site,       std::move(fix), true};
}

void check_place(const FinnPlace& place, std::vector<Refusal>& out) {
  const PlacedQuantizer& q = *place.quantizer;
  const QuantSpec& s = q.params->spec;
  if (s.format != "int" || q.params->truncated) return;
  if (place.relu == kNoNode && !s.is_signed) {
    QuantSpec fix = s;
    fix.is_signed = true;
    out.push_back(refusal(q, "sign", "unsigned, and not right behind a ReLU", "signed there; unsigned right behind a ReLU",
                          "Use a signed format, or quantize the output of the ReLU before it.", fix));
  } else if (place.relu != kNoNode && s.is_signed) {
    QuantSpec fix = s;
    fix.is_signed = false;
    fix.narrow = false;
    out.push_back(refusal(q, "sign", "signed right behind a ReLU", "unsigned behind a ReLU", "Use an unsigned format.", fix));
  } else if (place.relu != kNoNode && s.narrow) {
    QuantSpec fix = s;
    fix.narrow = false;
    out.push_back(refusal(q, "range of codes", "narrow range behind a ReLU", "full range", "Change narrow.", fix));
  } else if (place.relu != kNoNode && !place.for_all) {
    out.push_back(refusal(q, "place of a quantizer", "one of several readers of a ReLU",
                          "one quantizer for all who read the ReLU", "Quantize the output of the ReLU."));
  }
}

void check_truncation(const PlacedQuantizer& q, std::vector<Refusal>& out) {
  const quant::QuantParams& p = *q.params;
  const auto kernel = q.node->integers("kernel_shape"), strides = q.node->integers("strides", {1, 1}),
             pads = q.node->integers("pads");
  const bool square = kernel.size() == 2 && kernel[0] == kernel[1] && strides.size() == 2 && strides[0] == strides[1];
  const bool padded = std::any_of(pads.begin(), pads.end(), [](std::int64_t v) { return v != 0; });
  const std::int64_t elements = square ? kernel[0] * kernel[0] : 0;
  if (!square || padded || q.node->integer("ceil_mode", 0) != 0 || q.node->text("auto_pad", "NOTSET") != "NOTSET")
    out.push_back(refusal(q, "truncation", "a window that is not square or is padded", "square windows without padding",
                          "Leave it float, or quantize the output anew."));
  else if (p.scale[0] != p.truncated->scale * static_cast<float>(elements) ||
           p.truncated->bits - p.spec.bits != (64 - std::countl_zero(static_cast<std::uint64_t>(elements)) - 1) ||
           (elements & (elements - 1)))
    out.push_back(refusal(q, "truncation",
                          std::to_string(p.truncated->bits) + " bits to " + std::to_string(p.spec.bits) + " of " +
                              std::to_string(elements) + " elements",
                          "windows of a power of two of elements that lose just the bits of their sum",
                          "Use the input's width for the output, and a window of 2x2 or 4x4."));
}

}  // namespace

FinnProfile finn_profile(const json& options) {
  return options.contains("profile") && options["profile"] == "multithreshold" ? FinnProfile::kThresholds
                                                                               : FinnProfile::kQonnx;
}

TargetTable finn_table(FinnProfile profile) {
  const bool thresholds = profile == FinnProfile::kThresholds;
  TargetTable table;
  TargetRow weight;
  weight.form = thresholds ? "whole numbers in the layer + Mul" : "float values + Quant";
  weight.sites = {SiteKind::kWeight};
  weight.ops = kLayers;
  weight.formats = {"int", "ternary"};
  weight.least_bits = 2;
  weight.most_bits = 16;
  weight.narrow.reset();
  weight.granularities = {Granularity::kTensor, Granularity::kChannel};
  weight.roundings.clear();
  weight.why = "FINN moves the scale behind the layer, so there is one, or one for each output channel, and no zero point.";
  TargetRow sign = weight;
  sign.form = thresholds ? "-1 and 1 in the layer + Mul" : "float values + BipolarQuant";
  sign.formats = {"binary"};
  sign.why.clear();
  TargetRow bias = weight;
  bias.form = "float values + Add";
  bias.sites = {SiteKind::kBias};
  bias.formats = {"int"};
  bias.most_bits = 32;
  bias.why = "The bias becomes part of thresholds.";
  TargetRow identity = weight;
  identity.form = thresholds ? "MultiThreshold + Add + Mul" : "Quant";
  identity.sites = {SiteKind::kInput, SiteKind::kOutput};
  identity.ops.clear();
  identity.formats = {"int"};
  identity.most_bits = kThresholdBits;
  identity.is_signed = true;
  identity.decoupled = false;
  identity.roundings = {Rounding::kHalfEven};
  if (thresholds)
    identity.roundings = {Rounding::kHalfEven, Rounding::kHalfUp,     Rounding::kHalfAway, Rounding::kCeil,
                          Rounding::kFloor,    Rounding::kTowardZero, Rounding::kDpu};
  identity.why = "An activation of b bits is 2^b - 1 thresholds, so at most 8 bits; any place but right behind a ReLU.";
  TargetRow relu = identity;
  relu.form = thresholds ? "MultiThreshold + Mul" : "Relu + Quant";
  relu.is_signed = false;
  relu.least_bits = 1;
  relu.narrow = false;
  relu.why = "Right behind a ReLU only.";
  TargetRow bipolar = identity;
  bipolar.form = thresholds ? "MultiThreshold of -1 and 1" : "BipolarQuant";
  bipolar.formats = {"binary"};
  bipolar.granularities = {Granularity::kTensor};
  bipolar.why = "Its scale must be 1.";
  table.rows = {weight, sign, bias, relu, identity, bipolar};
  TargetRow trunc = relu;
  trunc.form = thresholds ? "Div + QuantAvgPool2d + Mul" : "AveragePool + Mul + Trunc";
  trunc.sites = {SiteKind::kOutput};
  trunc.ops = {"AveragePool"};
  trunc.is_signed.reset();
  trunc.granularities = {Granularity::kTensor};
  trunc.roundings = {Rounding::kFloor};
  trunc.truncation = true;
  trunc.least_bits = 2;
  trunc.why = thresholds ? "The sum of a window's whole numbers loses as many low bits as the window adds."
                         : "FINN makes QuantAvgPool2d of it.";
  table.rows.insert(table.rows.begin(), trunc);
  if (!thresholds) {
    table.notes = {
        "FINN makes thresholds that round ties upward, this file rounds them to even: values that lie exactly between two "
        "codes differ after ConvertQONNXtoFINN. The profile multithreshold keeps them.",
        "Run FINN's tidy-up (FoldConstants, InferDataTypes ...) before Streamline."};
  } else {
    table.notes = {"Thresholds are the least float32 that reach the next code, so that ties fall as on the screen.",
                   "Scales of weights stand behind the layer: sums are rounded elsewhere than on the screen unless scales "
                   "are powers of two."};
  }
  return table;
}

std::optional<FinnWeight> finn_weight(const Graph& graph, const Node& node) {
  if (!node.domain.empty() || !node.opaque_reason.empty() || node.inputs.size() < 2) return std::nullopt;
  const TensorId w = node.input(1);
  if (w == kNoTensor || !graph.tensor(w).is_initializer || !graph.tensor(w).shape) return std::nullopt;
  const std::size_t rank = graph.tensor(w).shape->size();
  if (node.op == "Conv") return rank >= 3 ? std::optional(FinnWeight{}) : std::nullopt;
  if (rank != 2) return std::nullopt;
  if (node.op == "MatMul") return FinnWeight{true, false};
  if (node.op != "Gemm" || node.integer("transA", 0) != 0 || node.real("alpha", 1) != 1 || node.real("beta", 1) != 1)
    return std::nullopt;
  return FinnWeight{true, node.integer("transB", 0) != 0};
}

std::vector<Refusal> check_finn(const QuantizedModel& model, FinnProfile profile) {
  const Graph& graph = *model.model->graph;
  std::vector<Refusal> out = check_graph(*model.model, std::max(graph.opset(), kQonnxOpset));
  const TargetTable table = finn_table(profile);
  for (Refusal& r : check_quantizers(model, table)) out.push_back(std::move(r));
  if (!out.empty()) return out;
  for (Refusal& r : check_codes(model)) out.push_back(std::move(r));
  for (Refusal& r : check_trunc_nodes(graph, 1)) out.push_back(std::move(r));
  const Placement placement = place(model);
  const FinnLayout layout(model, placement);
  for (const FinnPlace& p : layout.places()) check_place(p, out);
  for (const PlacedQuantizer& q : placement.quantizers) {
    const quant::QuantParams& p = *q.params;
    if (q.reader != q.node) {
      out.push_back(
          refusal(q, "place of a quantizer", "a part of a joined weight", "weights of one initializer", "Leave it float."));
      continue;
    }
    if (p.truncated) check_truncation(q, out);
    if (!is_activation(q.site.kind)) {
      const auto weight = finn_weight(graph, *q.node);
      if (!weight)
        out.push_back(refusal(q, "weight", q.node->op + " with a weight on the left, of more axes, or scaled",
                              "x times a matrix, or a convolution", "Leave it float."));
      else if (q.site.kind == SiteKind::kWeight && p.spec.granularity == Granularity::kChannel &&
               channel_axis(p, shape_of(model, q.tensor).size()) != (weight->matrix && !weight->transposed ? 1 : 0))
        out.push_back(refusal(q, "axis of scales", "axis " + std::to_string(p.spec.axis.value_or(0)),
                              "that of the output channels", "Leave the axis to the layer."));
      continue;
    }
    const std::size_t rank = shape_of(model, q.tensor).size();
    if (p.spec.granularity == Granularity::kChannel && (rank < 2 || channel_axis(p, rank) != 1 || (rank != 2 && rank != 4)))
      out.push_back(refusal(q, "axis of scales",
                            "axis " + std::to_string(p.spec.axis.value_or(0)) + " of " + std::to_string(rank),
                            "axis 1 of tensors with 2 or 4", "Use one scale for the tensor."));
    if (p.spec.format == "binary" && (p.scale.size() != 1 || p.scale[0] != 1)) {
      QuantSpec fix = p.spec;
      fix.source = ScaleSource::kConstant;
      fix.scale_value = 1;
      out.push_back(refusal(q, "scale", p.scale.size() == 1 ? "scale " + std::to_string(p.scale[0]) : "several scales", "1",
                            "Set a constant scale of 1.", fix));
    }
  }
  return out;
}

}  // namespace quanvas::onnx_file
