// What ONNX QOperator takes of quantizers.
#include <algorithm>
#include <utility>

#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_qoperator.h"

namespace quanvas::onnx_file {
namespace {

QuantSpec activation_fix() {
  QuantSpec s;
  s.is_signed = false;
  s.zero_point = ZeroPointType::kInteger;
  s.statistic = Statistic::kMinMax;
  return s;
}
QuantSpec weight_fix() {
  QuantSpec s;
  s.narrow = true;
  s.granularity = Granularity::kChannel;
  return s;
}
QuantSpec bias_fix() {
  QuantSpec s;
  s.bits = 32;
  s.scale_from_accumulator = true;
  return s;
}

}  // namespace

QOperatorOptions qoperator_options(const json& options) {
  QOperatorOptions out;
  out.gemm = options.value("gemm", out.gemm);
  out.mixed = options.value("mixed", out.mixed);
  out.external = options.value("external_data", std::string("auto")) == "always";
  return out;
}

TargetTable qoperator_table() {
  TargetTable table;
  TargetRow weight;
  weight.form = "int8 or uint8 weight of QLinearConv, QLinearMatMul or QGemm";
  weight.sites = {SiteKind::kWeight};
  weight.most_bits = 8;
  weight.narrow.reset();
  weight.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
  weight.zero_point_inside.reset();  // codes of constants are stored as they are
  weight.granularities = {Granularity::kTensor, Granularity::kChannel};
  weight.roundings.clear();
  TargetRow bias = weight;
  bias.form = "int32 bias in the sums of codes";
  bias.sites = {SiteKind::kBias};
  bias.most_bits = 32;
  bias.is_signed = true;
  bias.zero_points = {ZeroPointType::kNone};
  bias.accumulator = true;
  TargetRow activation = weight;
  activation.form = "int8 or uint8 codes between operators, with a Clip where they are narrower";
  activation.sites = {SiteKind::kInput, SiteKind::kOutput};
  activation.zero_point_inside = false;
  activation.granularities = {Granularity::kTensor};
  activation.roundings = {Rounding::kHalfEven};
  activation.decoupled = false;
  activation.why = "Operators on codes have one scale for what goes in and one for what comes out, and round half to even.";
  const std::vector<std::string> ops = {"Conv", "Gemm", "MatMul"};
  TargetRow dynamic = activation;
  dynamic.form = "DynamicQuantizeLinear in front of ConvInteger or MatMulInteger";
  dynamic.sites = {SiteKind::kInput};
  dynamic.ops = ops;
  dynamic.least_bits = dynamic.most_bits = 8;
  dynamic.is_signed = false;
  dynamic.narrow = false;
  dynamic.zero_points = {ZeroPointType::kInteger};
  dynamic.scales = {ScaleType::kFloat32};
  dynamic.dynamic = true;
  dynamic.why =
      "DynamicQuantizeLinear gives uint8 codes and looks at the whole tensor, so the file is for one sample at a time.";
  table.rows = {weight, bias, dynamic, activation};
  table.needs = {
      {ops, SiteKind::kInput, "codes to compute with", activation_fix()},
      {ops, SiteKind::kWeight, "codes to compute with", weight_fix()},
      {ops, SiteKind::kBias, "an integer that is added to the sums of codes", bias_fix()},
      {ops, SiteKind::kOutput, "codes to round the sums to: its own, or those of all that reads it", activation_fix()}};
  table.notes = {
      "The output of a layer needs no quantizer of its own where everything that reads it quantizes it in the same way.",
      "A layer whose input finds its scale at run time gives float32: it needs no output quantizer, and its bias stays float. "
      "The file is for one sample at a time.",
      "Sums of codes are scaled by one float32 factor and rounded: where the screen's sum lies on a tie, or is not exact in "
      "float32, the "
      "code may differ by one.",
      "onnxruntime's QLinearAdd adds the zero point before it rounds: where scales are powers of two and sums lie on ties, an "
      "odd zero "
      "point gives the neighbouring code.",
      "QGemm and QLinearAdd, QLinearMul, QLinearConcat, QLinearAveragePool, QLinearGlobalAveragePool, QLinearSigmoid, "
      "QLinearLeakyRelu and QLinearSoftmax are onnxruntime's own (com.microsoft)."};
  return table;
}

std::vector<Refusal> check_qoperator(const QuantizedModel& model, const QOperatorOptions& options) {
  TargetTable table = qoperator_table();
  table.needs.clear();  // an output may take the quantizer of what reads it: CodePlan looks
  std::vector<Refusal> out = check_graph(*model.model, std::max(model.model->graph->opset(), kQdqOpset));
  for (Refusal& r : check_quantizers(model, table)) out.push_back(std::move(r));
  if (!out.empty()) return out;
  for (const PlacedQuantizer& q : place(model).quantizers)
    if (quant::is_dynamic(*q.params)) check_dynamic(model, q, out);
  const CodePlan plan(model, options);
  out.insert(out.end(), plan.refusals().begin(), plan.refusals().end());
  return out;
}

}  // namespace quanvas::onnx_file
