#include <algorithm>
#include <cmath>
#include <utility>

#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_qoperator.h"

namespace quanvas::onnx_file {
namespace {

constexpr int kDeepest = 1000;  // operators on codes in a row

bool is_plain(const quant::QuantParams& p) {
  return p.spec.format == "int" && p.scale.size() == 1 && p.spec.granularity == Granularity::kTensor;
}

bool all_are(const std::vector<std::int64_t>& list, std::int64_t value) {
  return std::all_of(list.begin(), list.end(), [value](std::int64_t v) { return v == value; });
}

bool is_constant(const Graph& graph, TensorId t) {
  return t == kNoTensor || graph.tensor(t).is_initializer;
}

bool finds_a_scale(const CodeLayer& codes) {
  return std::any_of(codes.inputs.begin(), codes.inputs.end(),
                     [](const quant::QuantParams* p) { return p && quant::is_dynamic(*p); });
}

std::size_t rank_of(const QuantizedModel& model, TensorId t) {
  return shape_of(model, t).size();
}

}  // namespace

bool same_codes(const quant::QuantParams& a, const quant::QuantParams& b) {
  return is_plain(a) && is_plain(b) && a.spec.is_signed == b.spec.is_signed && a.lo == b.lo && a.hi == b.hi &&
         a.scale == b.scale && zero_points(a) == zero_points(b);
}

bool runs_on_codes(const Graph& graph, const Node& node) {
  static const char* const kOps[] = {"Relu",      "Clip",    "MaxPool",   "Flatten", "Reshape",
                                     "Transpose", "Squeeze", "Unsqueeze", "Identity"};
  if (!node.domain.empty() || !node.opaque_reason.empty() || node.inputs.empty() || node.outputs.size() != 1) return false;
  if (std::none_of(std::begin(kOps), std::end(kOps), [&](const char* op) { return node.op == op; })) return false;
  if (is_constant(graph, node.input(0)) || node.outputs[0] == kNoTensor) return false;
  // Limits of a Clip and axes must be known.
  for (std::size_t i = 1; i < node.inputs.size(); ++i)
    if (!is_constant(graph, node.inputs[i])) return node.op == "Reshape";
  return true;
}

CodePlan::CodePlan(const QuantizedModel& model, const QOperatorOptions& options)
    : model_(model),
      graph_(*model.model->graph),
      options_(options),
      table_(qoperator_table()),
      placed_(place(model).quantizers) {
  for (const PlacedQuantizer& q : placed_) {
    if (q.site.kind == SiteKind::kOutput)
      outputs_[q.node->id] = q.params;
    else if (q.site.kind == SiteKind::kInput)
      for (const std::size_t i : q.inputs) inputs_[{q.reader->id, i}] = q.params;
    else
      constants_[q.reader->id].push_back(q);
  }
  for (const Layer& layer : find_layers(graph_)) {
    const Node& node = *graph_.find(layer.node);
    layers_[layer.node] = plan(layer, node);
  }
}

const CodeLayer& CodePlan::at(NodeId node) const {
  static const CodeLayer none;
  const auto it = layers_.find(node);
  return it == layers_.end() ? none : it->second;
}

const quant::QuantParams* CodePlan::input(const Node& node, std::size_t index) const {
  const auto it = inputs_.find({node.id, index});
  return it == inputs_.end() ? nullptr : it->second;
}
const quant::QuantParams* CodePlan::output(const Node& node) const {
  const auto it = outputs_.find(node.id);
  return it == outputs_.end() ? nullptr : it->second;
}
const std::vector<PlacedQuantizer>& CodePlan::constants(NodeId reader) const {
  static const std::vector<PlacedQuantizer> none;
  const auto it = constants_.find(reader);
  return it == constants_.end() ? none : it->second;
}

// The codes whose values the tensor has on the screen.
const quant::QuantParams* CodePlan::exact(TensorId tensor, int depth) const {
  const Node* maker = tensor == kNoTensor ? nullptr : graph_.find(graph_.tensor(tensor).producer);
  if (!maker || depth > kDeepest) return nullptr;
  if (const auto* q = output(*maker)) return maker->outputs[0] == tensor && is_plain(*q) ? q : nullptr;
  if (!runs_on_codes(graph_, *maker)) return nullptr;
  const auto* own = input(*maker, 0);
  const auto* q = own ? own : exact(maker->inputs[0], depth + 1);
  return q && is_plain(*q) && limits_are_codes(*model_.model, *maker, *q) ? q : nullptr;
}

bool CodePlan::is_seen_as(const Node& node, const quant::QuantParams& p) const {
  const auto* q = result(node);
  return q && same_codes(*q, p);
}

// Whether everything that reads the tensor quantizes it in one way.
bool CodePlan::demanded(TensorId tensor, const quant::QuantParams*& all, int depth) const {
  if (depth > kDeepest || graph_.is_output(tensor)) return false;
  for (const NodeId id : graph_.tensor(tensor).consumers) {
    const Node& reader = *graph_.find(id);
    if (reader.op == "Shape" || reader.op == "Size") continue;  // codes have the same
    for (std::size_t i = 0; i < reader.inputs.size(); ++i) {
      if (reader.inputs[i] != tensor) continue;
      const quant::QuantParams* q = input(reader, i);
      if (!q && i == 0 && runs_on_codes(graph_, reader)) {
        q = output(reader);
        if (!q) {
          if (!demanded(reader.outputs[0], all, depth + 1)) return false;
          continue;
        }
      }
      if (!q || !is_plain(*q) || (all && !same_codes(*q, *all))) return false;
      all = q;
    }
  }
  return all != nullptr;
}

const quant::QuantParams* CodePlan::result(const Node& node) const {
  if (const auto* q = output(node)) return is_plain(*q) ? q : nullptr;
  const quant::QuantParams* all = nullptr;
  return demanded(node.outputs[0], all) ? all : nullptr;
}

CodeLayer CodePlan::plan(const Layer& layer, const Node& node) {
  CodeLayer codes;
  bool any = false;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const quant::QuantParams* q = input(node, i);
    any = any || q;
    codes.inputs.push_back(q ? q : is_constant(graph_, node.inputs[i]) ? nullptr : exact(node.inputs[i]));
  }
  for (const PlacedQuantizer& q : constants(node.id)) (q.site.kind == SiteKind::kWeight ? codes.weight : codes.bias) = &q;
  any = any || output(node) || codes.weight || codes.bias;
  codes.output = node.outputs.empty() || node.outputs[0] == kNoTensor ? nullptr : result(node);
  std::string why;
  codes.form = form_of(layer, node, codes, why);
  if (codes.form != CodeForm::kFloat)
    check_numbers(node, codes);
  else if (any && layer.kind == LayerKind::kCompute && !options_.mixed)
    missing(layer, node, codes, why);
  return codes;
}

CodeForm CodePlan::form_of(const Layer& layer, const Node& node, const CodeLayer& codes, std::string& why) const {
  const auto given = [&](std::size_t i) { return i < codes.inputs.size() && codes.inputs[i] && is_plain(*codes.inputs[i]); };
  if (layer.kind == LayerKind::kCompute) return product_form(layer, node, codes, why);
  if (!codes.output || !given(0) || !node.domain.empty()) return CodeForm::kFloat;
  const bool all = [&] {
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (!given(i)) return false;
    return true;
  }();
  if (node.op == "Add" && node.inputs.size() == 2 && all) return CodeForm::kAdd;
  if (node.op == "Mul" && node.inputs.size() == 2 && all) return CodeForm::kMul;
  if (node.op == "Concat" && all) return CodeForm::kConcat;
  if (node.inputs.size() != 1) return CodeForm::kFloat;
  if (node.op == "AveragePool" && all_are(node.integers("dilations"), 1)) return CodeForm::kAveragePool;
  if (node.op == "GlobalAveragePool") return CodeForm::kGlobalAveragePool;
  if (node.op == "Sigmoid") return CodeForm::kSigmoid;
  if (node.op == "LeakyRelu") return CodeForm::kLeakyRelu;
  // Before opset 13 it went over all dimensions from the axis on.
  if (node.op == "Softmax" && graph_.opset() >= 13) return CodeForm::kSoftmax;
  return CodeForm::kFloat;
}

CodeForm CodePlan::product_form(const Layer& layer, const Node& node, const CodeLayer& codes, std::string& why) const {
  const bool conv = node.op == "Conv", gemm = node.op == "Gemm", matmul = node.op == "MatMul";
  if ((!conv && !gemm && !matmul) || !node.domain.empty()) {
    why = node.op + " has no form on codes";
    return CodeForm::kFloat;
  }
  const bool has_bias = node.inputs.size() > 2 && node.inputs[2] != kNoTensor;
  if (has_bias && layer.weight != kNoTensor) {
    const Shape weight = shape_of(model_, layer.weight);
    const auto channel = static_cast<std::size_t>(layer.channel_axis);
    const std::int64_t count = element_count(shape_of(model_, node.inputs[2]));
    if (layer.bias == kNoTensor || channel >= weight.size() || (count != 1 && count != weight[channel])) {
      why = layer.bias == kNoTensor ? "a bias that is computed has no form on codes"
                                    : "a bias has one number for each output channel on codes";
      return CodeForm::kFloat;
    }
  }
  if (finds_a_scale(codes)) return dynamic_form(layer, node, codes, why);
  if (!codes.inputs[0] || !codes.output || (has_bias && !codes.bias)) return CodeForm::kFloat;  // a quantizer is missing
  if (layer.weight == kNoTensor) {                                                              // of two activations
    if (matmul && !has_bias && codes.inputs[1]) return CodeForm::kMatMul;
    if (!matmul) why = node.op + " of two activations has no form on codes";
    return CodeForm::kFloat;
  }
  if (!codes.weight) return CodeForm::kFloat;
  if (node.input(1) != layer.weight) {
    why = "a weight on the left of a product has no form on codes";
    return CodeForm::kFloat;
  }
  if (conv) return CodeForm::kConv;
  if (gemm && (node.real("alpha", 1) != 1 || (has_bias && node.real("beta", 1) != 1) || node.integer("transA", 0) != 0)) {
    why = "alpha, beta and transA of a Gemm have no form on codes";
    return CodeForm::kFloat;
  }
  const std::size_t rank = gemm ? 2 : rank_of(model_, node.input(0));
  if (matmul && !has_bias) return CodeForm::kMatMul;
  if (rank_of(model_, layer.weight) != 2 || (rank != 2 && rank != 3)) {
    why = "a product with a bias needs an input of two or three dimensions";
    return CodeForm::kFloat;
  }
  if (options_.gemm == "qlinearmatmul" && !has_bias) return CodeForm::kMatMul;
  if (options_.gemm == "qlinearmatmul") {
    why = "QLinearMatMul has no bias";
    return CodeForm::kFloat;
  }
  if (rank == 3) return CodeForm::kRowsTransposed;
  return options_.gemm == "qgemm" ? CodeForm::kQGemm : CodeForm::kRows;
}

// Whole sums of codes whose scale is found at run time: neither bias nor result have codes.
CodeForm CodePlan::dynamic_form(const Layer& layer, const Node& node, const CodeLayer& codes, std::string& why) const {
  const bool has_bias = node.inputs.size() > 2 && node.inputs[2] != kNoTensor;
  if (layer.weight == kNoTensor)
    why = "a product of two activations whose scales are found at run time has no form on codes";
  else if (node.input(1) != layer.weight)
    why = "a weight on the left of a product has no form on codes";
  else if (node.op == "Gemm" &&
           (node.real("alpha", 1) != 1 || (has_bias && node.real("beta", 1) != 1) || node.integer("transA", 0) != 0))
    why = "alpha, beta and transA of a Gemm have no form on codes";
  else if (node.op != "Conv" && rank_of(model_, layer.weight) != 2)
    why = "a weight of other than two dimensions has no form on codes whose scale is found at run time";
  if (!why.empty() || !codes.weight) return CodeForm::kFloat;
  return node.op == "Conv" ? CodeForm::kConvInteger : CodeForm::kMatMulInteger;
}

// What the operators ask of types and numbers beyond each quantizer alone.
void CodePlan::check_numbers(const Node& node, CodeLayer& codes) {
  const auto refuse = [&](const PlacedQuantizer& q, const char* rule, std::string got, std::string allowed,
                          const char* suggestion, std::optional<QuantSpec> fix) {
    const bool float_fixes = !fix;
    refusals_.push_back(
        {node.name, q.name, rule, std::move(got), std::move(allowed), suggestion, q.site, std::move(fix), float_fixes});
  };
  if (!codes.weight) return;
  const PlacedQuantizer& w = *codes.weight;
  const bool at_run_time = codes.form == CodeForm::kConvInteger || codes.form == CodeForm::kMatMulInteger;
  if (codes.inputs[0]->spec.is_signed && !w.params->spec.is_signed) {
    QuantSpec fix = w.params->spec;
    fix.is_signed = true;
    fix.zero_point = ZeroPointType::kNone;
    fix.zero_point_inside = false;
    fix.statistic = Statistic::kAbsMax;
    refuse(w, "types of a product", "uint8 weights with int8 inputs",
           "int8 weights, or uint8 inputs: no runtime has kernels for these", "Make the weight signed.", fix);
  }
  const std::vector<std::int64_t> zeros = zero_points(*w.params);
  const bool as_conv =
      codes.form == CodeForm::kConv || codes.form == CodeForm::kRows || codes.form == CodeForm::kRowsTransposed ||
      codes.form == CodeForm::kConvInteger;
  if (as_conv && !zeros.empty() && !all_are(zeros, zeros[0])) {
    QuantSpec fix = w.params->spec;
    fix.granularity = Granularity::kTensor;
    fix.axis.reset();
    refuse(w, "zero point", "zero points that differ from channel to channel",
           std::string("one for all channels: ") + (at_run_time ? "ConvInteger" : "QLinearConv"),
           "Use a symmetric weight, or one scale for the tensor.", fix);
  }
  const std::size_t rank = rank_of(model_, w.tensor);
  const bool rows_first = node.op == "Conv" || node.integer("transB", 0) != 0;
  const std::int64_t axis = rows_first ? 0 : static_cast<std::int64_t>(rank) - 1;
  if (w.params->spec.granularity == Granularity::kChannel && channel_axis(*w.params, rank) != axis) {
    QuantSpec fix = w.params->spec;
    fix.axis.reset();
    refuse(w, "axis of scales", "axis " + std::to_string(channel_axis(*w.params, rank)), "the axis of output channels",
           "Leave the axis to the layer.", fix);
  }
  if (!codes.bias) return;
  if (at_run_time)
    return refuse(*codes.bias, "scale of a bias", "integers of a scale that is known beforehand",
                  "a float bias: the scale of the sums is found at run time", "Leave the bias float.", {});
  const std::vector<float>& scale = codes.bias->params->scale;
  const std::vector<float>& ws = w.params->scale;
  bool same = scale.size() == 1 || scale.size() == ws.size() || ws.size() == 1;
  for (std::size_t i = 0; same && i < std::max(scale.size(), ws.size()); ++i)
    same = scale[scale.size() == 1 ? 0 : i] == codes.inputs[0]->scale[0] * ws[ws.size() == 1 ? 0 : i];
  if (!same) {
    QuantSpec fix = codes.bias->params->spec;
    fix.bits = 32;
    fix.scale_from_accumulator = true;
    refuse(*codes.bias, "scale of a bias", "one of its own",
           "input scale x weight scale: the bias is added to the sums of codes", "Set scale_from_accumulator.", fix);
  }
}

// A layer that would compute on codes but for these.
void CodePlan::missing(const Layer& layer, const Node& node, const CodeLayer& codes, const std::string& why) {
  if (!why.empty()) {
    refusals_.push_back({node.name,
                         {},
                         "operator",
                         why,
                         "QLinearConv, QLinearMatMul and QGemm",
                         "Leave the layer float, choose another form of products, or allow float layers with codes (mixed).",
                         {},
                         {},
                         true});
    return;
  }
  const auto add = [&](SiteKind kind, int operand) {
    const Site site{node.id, kind, operand};
    for (const TargetNeed& need : table_.needs)
      if (need.site == kind)
        refusals_.push_back(
            {node.name, site_name(layer, site), "missing quantizer", "float", need.why, "Quantize it.", site, need.fix, false});
  };
  for (std::size_t i = 0, operand = 0; i < node.inputs.size() && operand < layer.inputs.size(); ++i) {
    if (node.inputs[i] != layer.inputs[operand]) continue;
    if (!codes.inputs[i]) add(SiteKind::kInput, static_cast<int>(operand));
    ++operand;
  }
  if (layer.weight != kNoTensor && !codes.weight) add(SiteKind::kWeight, 0);
  if (finds_a_scale(codes)) return;  // its sums are scaled in float
  if (layer.bias != kNoTensor && !codes.bias) add(SiteKind::kBias, 0);
  if (!codes.output) add(SiteKind::kOutput, 0);
}

}  // namespace quanvas::onnx_file
