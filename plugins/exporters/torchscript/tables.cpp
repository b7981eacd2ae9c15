// What TorchScript files hold of quantizers.
#include "core/quant/dynamic.h"
#include "plugins/exporters/torchscript/exporters.h"
#include "plugins/exporters/torchscript/plan.h"

namespace quanvas::torchscript_file {

TargetTable packed_table(const std::string& profile) {
  TargetTable table;
  TargetRow weight;
  weight.form = "qint8 in packed parameters, scales as float64";
  weight.sites = {SiteKind::kWeight};
  weight.least_bits = 2;
  weight.most_bits = profile == "fbgemm" ? 7 : 8;
  weight.is_signed = true;
  weight.narrow.reset();
  weight.granularities = {Granularity::kTensor, Granularity::kChannel};
  weight.roundings.clear();  // codes are stored as they are
  weight.why = profile == "fbgemm" ? "FBGEMM without VNNI adds pairs of products in 16 bits, which 8-bit weights overflow."
                                   : "oneDNN takes no zero points of weights, and no engine unsigned ones.";
  TargetRow bias = weight;
  bias.form = "float32 that is int32 x input scale x weight scale";
  bias.sites = {SiteKind::kBias};
  bias.most_bits = 32;
  bias.accumulator = true;
  bias.why = "LibTorch rounds the float bias to int32 at run time, with this scale.";
  TargetRow activation;
  activation.form = "quint8, of signed codes with 128 added to code and zero point";
  activation.sites = {SiteKind::kInput, SiteKind::kOutput};
  activation.least_bits = activation.most_bits = 8;
  activation.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
  activation.decoupled = false;
  activation.why = "quint8 is what every engine takes; quantized tensors use all 256 codes and have one scale.";
  TargetRow dynamic = activation;
  dynamic.form = "float32, which linear_dynamic makes codes of";
  dynamic.sites = {SiteKind::kInput};
  dynamic.ops = {"Gemm", "MatMul"};
  dynamic.is_signed = false;
  dynamic.zero_points = {ZeroPointType::kInteger};
  dynamic.scales = {ScaleType::kFloat32};
  dynamic.dynamic = true;
  dynamic.why = "linear_dynamic gives unsigned codes of a range that holds 0, and looks at the whole tensor.";
  table.rows = {weight, bias, activation};
  if (profile != "relay") table.rows.insert(table.rows.begin() + 2, dynamic);
  QuantSpec input;
  input.is_signed = false;
  input.zero_point = ZeroPointType::kInteger;
  input.statistic = Statistic::kMinMax;
  QuantSpec by_channel;
  by_channel.granularity = Granularity::kChannel;
  by_channel.bits = weight.most_bits;
  table.needs = {
      {{"Conv", "Gemm"}, SiteKind::kInput, "quint8: LibTorch's quantized layers compute codes from codes", input},
      {{"Conv", "Gemm"}, SiteKind::kWeight, "qint8: LibTorch's quantized layers compute codes from codes", by_channel}};
  table.exactness = Exactness::kModel;
  table.notes = {
      "LibTorch multiplies by float(1 / scale) where it quantizes: a value near the middle of two codes may get the other one, "
      "unless the scale is a power of two.",
      "A layer without an output quantizer takes that of all its readers when it is one and the same, also behind Relu, Clip, "
      "MaxPool, Reshape and Transpose.",
      "Layers without quantizers, and what lies between quantized layers, run in float32 between dequantize and "
      "quantize_per_tensor.",
      "A linear layer whose input finds its scale at run time gives float32: it needs no output quantizer, and its bias stays "
      "float. LibTorch finds one scale for all samples that run together.",
      "Biases above 2^22 steps of their scale may be rounded by one step when LibTorch makes integers of them."};
  if (profile == "qnnpack") table.notes.push_back("QNNPACK adds codes with fixed-point factors: a sum may differ by one step.");
  if (profile == "onednn")
    table.notes.push_back("oneDNN is exact on processors with VNNI; older ones add pairs of products in 16 bits.");
  if (profile == "relay")
    table.notes.push_back(
        "TVM's Relay (0.8 to 0.19) rounds ties upward where it requantizes. Its operator list is asked, not Relay itself.");
  return table;
}

TargetTable float_table() {
  TargetTable table;
  TargetRow weight;
  weight.form = "int8 or uint8 buffer, (codes - zero point) * scale";
  weight.sites = {SiteKind::kWeight};
  weight.most_bits = 8;
  weight.narrow.reset();
  weight.zero_points = {ZeroPointType::kNone, ZeroPointType::kInteger};
  weight.zero_point_inside.reset();  // codes are stored as they are
  weight.granularities = {Granularity::kTensor, Granularity::kChannel};
  weight.roundings.clear();
  TargetRow bias = weight;
  bias.form = "int32 buffer, codes * scale";
  bias.sites = {SiteKind::kBias};
  bias.most_bits = 32;
  bias.is_signed = true;
  bias.zero_points = {ZeroPointType::kNone};
  TargetRow activation = weight;
  activation.form = "clamp(round(x / scale) + zero point), (codes - zero point) * scale";
  activation.sites = {SiteKind::kInput, SiteKind::kOutput};
  activation.zero_point_inside = false;
  activation.roundings = {Rounding::kHalfEven};
  activation.decoupled = false;
  activation.why = "torch.round rounds half to even; the zero point is added after it.";
  table.rows = {weight, bias, activation};
  table.exactness = Exactness::kModel;
  table.notes = {
      "Any LibTorch runs it: only float operators are used, or quantize_per_tensor, quantize_per_channel and int_repr with the "
      "form \"torch\".",
      "With the form \"torch\" LibTorch multiplies by float(1 / scale): a value near the middle of two codes may get the other "
      "one, "
      "unless the scale is a power of two."};
  return table;
}

std::vector<Refusal> check_nodes(const QuantizedModel& model) {
  std::vector<Refusal> out;
  const Graph& graph = *model.model->graph;
  for (const Node& node : graph.nodes())
    if (const std::string why = inexpressible(*model.model, node); !why.empty())
      out.push_back({node.name,
                     {},
                     "operator",
                     node.op + ": " + why,
                     "operators with an expression in TorchScript",
                     "Cut the model before this node, or export it as ONNX.",
                     {},
                     {},
                     false});
  for (const auto* ends : {&graph.inputs(), &graph.outputs()})
    for (const TensorId t : *ends)
      if (graph.tensor(t).type == DataType::kUndefined)
        out.push_back({graph.tensor(t).name,
                       {},
                       "inputs and outputs",
                       "a sequence, or a tensor of unknown type",
                       "tensors of a known element type",
                       "Cut the model where tensors come in and go out.",
                       {},
                       {},
                       false});
  for (const TensorInfo& t : graph.tensors()) {
    const TensorData* data = t.is_initializer ? model.model->weights->find(t.name) : nullptr;
    if (data && (element_size(data->type) == 0 || data->type == DataType::kUint16 || data->type == DataType::kUint32 ||
                 data->type == DataType::kUint64))
      out.push_back({t.name,
                     {},
                     "element type",
                     type_name(data->type),
                     "element types of LibTorch",
                     "Convert the model to float32.",
                     {},
                     {},
                     false});
  }
  for (const PlacedQuantizer& q : place(model).quantizers)
    if (is_activation(q.site.kind) && q.params->spec.granularity == Granularity::kChannel && shape_of(model, q.tensor).empty())
      out.push_back({q.node->name,
                     q.name,
                     "axis of scales",
                     "a tensor of unknown rank",
                     "tensors whose rank is known",
                     "Use one scale for the tensor, or give the shapes of the inputs.",
                     q.site,
                     {},
                     true});
  return out;
}

namespace {

// Scales that are found at run time: by linear_dynamic alone, and by its formula.
void check_run_time(const QuantizedModel& model, const ByNode& quantizers, std::vector<Refusal>& out) {
  for (const auto& [id, list] : quantizers)
    for (const PlacedQuantizer& q : list) {
      if (!quant::is_dynamic(*q.params) || (q.reader->op != "Gemm" && q.reader->op != "MatMul")) continue;
      const auto refuse = [&](const char* rule, std::string got, const char* allowed, const char* suggestion,
                              std::optional<QuantSpec> fix) {
        const bool float_fixes = !fix;
        out.push_back({q.node->name, q.name, rule, std::move(got), allowed, suggestion, q.site, std::move(fix), float_fixes});
      };
      const auto plan = packed_plan(model, quantizers, *q.reader);
      if (!plan || plan->layer.input != &q)
        refuse("operator", q.node->op + " without a quantized weight on its right",
               "linear layers x W + b whose weight has a quantizer: linear_dynamic",
               "Quantize the weight, or leave the input float.", {});
      const QuantSpec& s = q.params->spec;
      if (s.statistic != Statistic::kMinMax || !s.zero_in_range || s.clip_min || s.clip_max) {
        QuantSpec fix = s;
        fix.statistic = Statistic::kMinMax;
        fix.zero_in_range = true;
        fix.clip_min.reset();
        fix.clip_max.reset();
        refuse("statistic", std::string(enum_text(s.statistic)) + (s.zero_in_range ? "" : ", without 0"),
               "from the least to the greatest value, with 0 among them", "Use the statistic minmax with zero_in_range.", fix);
      }
      const Shape shape = shape_of(model, q.tensor);
      if (!shape.empty() && shape[0] > 1)
        refuse("samples", "a tensor " + shape_text(shape) + ", whose scale is one for each index of its first axis",
               "one scale for the whole tensor: linear_dynamic",
               "Calibrate it, or import the model with a batch of 1 or an open one.", {});
    }
}

}  // namespace

std::vector<Refusal> check_packed(const QuantizedModel& model, const std::string& profile) {
  std::vector<Refusal> out;
  const ByNode quantizers = by_node(model);
  // QNNPACK reads packed parameters of one and two axes only.
  const std::size_t least_axes = profile == "relay" ? 2 : 1, most_axes = profile == "relay" || profile == "qnnpack" ? 2 : 3;
  for (const Node& node : model.model->graph->nodes())
    if (const auto plan = packed_plan(model, quantizers, node, least_axes, most_axes))
      for (const PackedTrouble& t : plan->troubles) {
        // Inputs of convolutions and Gemm are named by the table already.
        if (t.rule == "missing quantizer" && t.site && t.site->kind == SiteKind::kInput && node.op != "MatMul") continue;
        const char* name = !t.site                             ? ""
                           : t.site->kind == SiteKind::kOutput ? "output"
                           : t.site->kind == SiteKind::kBias   ? "bias"
                           : t.site->kind == SiteKind::kWeight ? "weight"
                                                               : "input";
        out.push_back({node.name, name, t.rule, t.got, t.allowed, t.suggestion, t.site, t.fix, t.float_fixes});
      }
  check_run_time(model, quantizers, out);
  return out;
}

}  // namespace quanvas::torchscript_file
