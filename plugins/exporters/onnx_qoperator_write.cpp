#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_qoperator.h"

namespace quanvas::onnx_file {
namespace {

using Strings = std::vector<std::string>;

// One file in the making. A tensor of the model stands in it as real numbers under its own name, as codes under its name
// with "_codes" behind, or both.
class Writer {
 public:
  Writer(const QuantizedModel& model, const QOperatorOptions& options)
      : model_(model),
        graph_(*model.model->graph),
        options_(options),
        plan_(model, options),
        writer_(*model.model, std::max(graph_.opset(), kQdqOpset)) {
    for (const TensorId t : graph_.inputs()) real_.insert(t);
    if (is_for_one_sample(model)) writer_.fix_batch();
  }

  Status write(const std::string& path, JobContext& job) {
    std::size_t done = 0;
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(add(node));
      job.progress("export", static_cast<double>(++done) / static_cast<double>(graph_.nodes().size()), node.name);
    }
    for (const TensorId t : graph_.outputs()) QUANVAS_CHECK(real(t));
    return writer_.save(path, options_.external);
  }

 private:
  struct Held {
    std::string codes;
    const quant::QuantParams* params = nullptr;
    bool exact = false;  // the screen's tensor has the values of the codes; else only what reads it does
  };
  struct Parameters {
    std::string scale, zero_point;
  };

  // --- small parts

  static DataType type_of(const quant::QuantParams& p) { return p.spec.is_signed ? DataType::kInt8 : DataType::kUint8; }
  static bool is_narrower(const quant::QuantParams& p) {
    return p.spec.is_signed ? p.lo != -128 || p.hi != 127 : p.lo != 0 || p.hi != 255;
  }
  const std::string& name(TensorId t) const { return graph_.tensor(t).name; }

  Status emit(const std::string& op, const std::string& node, Strings inputs, Strings outputs, Attributes attributes = {},
              const std::string& domain = {}) {
    return writer_.copy({node, op, domain, std::move(inputs), std::move(outputs), std::move(attributes), {}});
  }

  std::string constant(const std::string& wanted, DataType type, const Shape& shape, const std::string& raw) {
    std::string& kept = constants_[std::to_string(static_cast<int>(type)) + shape_text(shape) + raw];
    if (kept.empty()) {
      kept = writer_.tensor_name(wanted);
      writer_.initializer(kept, type, shape, raw);
    }
    return kept;
  }
  std::string code(const quant::QuantParams& p, std::int64_t value, const std::string& wanted) {
    return constant(wanted, type_of(p), {}, pack_codes(type_of(p), {static_cast<std::int32_t>(value)}));
  }

  // Equal scales and zero points stand in the file once.
  Parameters parameters(const quant::QuantParams& p, const std::string& base) {
    std::vector<std::int32_t> zeros;
    for (const std::int64_t z : zero_points(p)) zeros.push_back(static_cast<std::int32_t>(z));
    const Shape shape =
        p.spec.granularity == Granularity::kChannel ? Shape{static_cast<std::int64_t>(p.scale.size())} : Shape{};
    return {constant(base + "_scale", DataType::kFloat, shape, pack_floats(p.scale)),
            constant(base + "_zero_point", type_of(p), shape, pack_codes(type_of(p), zeros))};
  }

  Result<std::string> clip(const std::string& codes, const quant::QuantParams& p, std::int64_t lo, std::int64_t hi,
                           const std::string& result) {
    const std::string least = code(p, lo, result + "_min"), most = code(p, hi, result + "_max");
    QUANVAS_CHECK(emit("Clip", "clip_" + result, {codes, least, most}, {result}));
    return result;
  }

  // --- tensors as real numbers and as codes

  Result<std::string> real(TensorId t) {
    if (graph_.tensor(t).is_initializer || !real_.insert(t).second) return name(t);
    const auto held = held_.find(t);
    if (held == held_.end()) return fail(ErrorCode::kInternal, "Tensor '" + name(t) + "' is not in the file yet.");
    const Parameters p = parameters(*held->second.params, name(t));
    QUANVAS_CHECK(emit("DequantizeLinear", "dequantize_" + name(t), {held->second.codes, p.scale, p.zero_point}, {name(t)}));
    return name(t);
  }

  Result<std::string> quantized(const std::string& source, const quant::QuantParams& p, const std::string& result) {
    const Parameters names = parameters(p, result);
    const std::string codes = writer_.tensor_name(result + "_codes");
    const std::string wide = is_narrower(p) ? writer_.tensor_name(codes + "_wide") : codes;
    QUANVAS_CHECK(emit("QuantizeLinear", "quantize_" + result, {source, names.scale, names.zero_point}, {wide}));
    if (wide != codes) QUANVAS_CHECK(clip(wide, p, p.lo, p.hi, codes));
    return codes;
  }

  static std::string key(TensorId t, const quant::QuantParams& p) {
    return std::to_string(t) + "," + std::to_string(static_cast<int>(type_of(p))) + "," + std::to_string(p.lo) + "," +
           std::to_string(p.hi) + "," + pack_floats(p.scale) + pack_floats(p.zero_point);
  }

  // The tensor's codes for what reads it with this quantizer.
  Result<std::string> codes(TensorId t, const quant::QuantParams& p) {
    const auto held = held_.find(t);
    if (held != held_.end() && same_codes(*held->second.params, p)) return held->second.codes;
    std::string& known = quantized_[key(t, p)];
    if (known.empty()) {
      QUANVAS_TRY(const std::string source, real(t));
      QUANVAS_TRY(known, quantized(source, p, name(t)));
    }
    return known;
  }

  // The tensor's codes with the scale and the zero point that this run finds.
  Result<DynamicCodes> dynamic_codes(TensorId t) {
    DynamicCodes& known = dynamic_[t];
    if (!known.codes.empty()) return known;
    QUANVAS_TRY(const std::string source, real(t));
    const std::string base = name(t) + "_dynamic";
    known = {writer_.tensor_name(base + "_codes"), writer_.tensor_name(base + "_scale"),
             writer_.tensor_name(base + "_zero_point")};
    QUANVAS_CHECK(emit("DynamicQuantizeLinear", "quantize_" + base, {source}, {known.codes, known.scale, known.zero_point}));
    return known;
  }

  // What the quantizer makes of the tensor, as real numbers.
  Result<std::string> values(TensorId t, const quant::QuantParams& p) {
    if (quant::is_dynamic(p)) {
      QUANVAS_TRY(const DynamicCodes from, dynamic_codes(t));
      std::string& known = dequantized_[from.codes];
      if (!known.empty()) return known;
      known = writer_.tensor_name(name(t) + "_dynamic");
      QUANVAS_CHECK(emit("DequantizeLinear", "dequantize_" + known, {from.codes, from.scale, from.zero_point}, {known}));
      return known;
    }
    const auto held = held_.find(t);
    if (held != held_.end() && held->second.exact && same_codes(*held->second.params, p)) return real(t);
    QUANVAS_TRY(const std::string from, codes(t, p));
    std::string& known = dequantized_[from];
    if (known.empty()) {
      const Parameters names = parameters(p, name(t));
      known = writer_.tensor_name(name(t) + "_dequantized");
      QUANVAS_CHECK(emit("DequantizeLinear", "dequantize_" + known, {from, names.scale, names.zero_point}, {known}));
    }
    return known;
  }

  // Of what the node gives with the codes of `p`: the tensor's own codes, unless it has a quantizer of another scale.
  std::string codes_name(const Node& node, const quant::QuantParams& p) {
    const quant::QuantParams* own = plan_.output(node);
    return writer_.tensor_name(name(node.outputs[0]) + (own && !same_codes(*own, p) ? "_unquantized_codes" : "_codes"));
  }

  // Behind what made `from`, with the codes of `p`: the node's own quantizer where it is another one.
  Status hold(const Node& node, const std::string& from, const quant::QuantParams& p, bool exact) {
    const TensorId t = node.outputs[0];
    const quant::QuantParams* own = plan_.output(node);
    if (!own || same_codes(*own, p)) {
      held_[t] = {from, &p, exact || own};
      return {};
    }
    const Parameters names = parameters(p, name(t));
    const std::string raw = writer_.tensor_name(name(t) + "_unquantized");
    QUANVAS_CHECK(emit("DequantizeLinear", "dequantize_" + raw, {from, names.scale, names.zero_point}, {raw}));
    QUANVAS_TRY(const std::string codes, quantized(raw, *own, name(t)));
    held_[t] = {codes, own, true};
    return {};
  }

  // --- nodes

  Status add(const Node& node) {
    const CodeLayer& layer = plan_.at(node.id);
    if (layer.form == CodeForm::kConvInteger || layer.form == CodeForm::kMatMulInteger) return sums_at_run_time(node, layer);
    if (layer.form != CodeForm::kFloat) return integer(node, layer);
    if (runs_on_codes(graph_, node)) {
      const TensorId t = node.inputs[0];
      const auto held = held_.find(t);
      const quant::QuantParams* own = plan_.input(node, 0);
      const quant::QuantParams* p = own ? own : held == held_.end() ? nullptr : held->second.params;
      const bool is_value = p && (own || held->second.exact), kept = p && (!is_value || limits_are_codes(*model_.model, node, *p));
      if (p && (kept || plan_.is_seen_as(node, *p))) return on_codes(node, *p, is_value && kept);
    }
    return in_float(node);
  }

  Status on_codes(const Node& node, const quant::QuantParams& p, bool exact) {
    QUANVAS_TRY(const std::string from, codes(node.inputs[0], p));
    std::int64_t lo = p.lo, hi = p.hi;
    if (node.op == "Relu") lo = std::clamp(zero_points(p)[0], lo, hi);
    if (node.op == "Clip") {
      QUANVAS_CHECK(limits(node, p, lo, hi));
    }
    if (node.op == "Relu" || node.op == "Clip") {
      if (lo == p.lo && hi == p.hi) return hold(node, from, p, exact);  // the codes end there anyway
      QUANVAS_TRY(const std::string codes, clip_node(node, from, p, lo, hi));
      return hold(node, codes, p, exact);
    }
    NodeDraft draft = draft_of(graph_, node);
    draft.inputs[0] = from;
    const std::string codes = codes_name(node, p);
    draft.outputs[0] = codes;
    QUANVAS_CHECK(writer_.copy(std::move(draft)));
    return hold(node, codes, p, exact);
  }

  Result<std::string> clip_node(const Node& node, const std::string& from, const quant::QuantParams& p, std::int64_t lo,
                                std::int64_t hi) {
    const std::string result = codes_name(node, p);
    const std::string least = code(p, lo, result + "_min"), most = code(p, hi, result + "_max");
    QUANVAS_CHECK(emit("Clip", node.name, {from, least, most}, {result}));
    return result;
  }

  // The codes of a Clip's limits: rounding is monotone, so it may come before or after.
  Status limits(const Node& node, const quant::QuantParams& p, std::int64_t& lo, std::int64_t& hi) const {
    QUANVAS_TRY(const auto ends, clip_limits(*model_.model, node));
    for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
      const float limit = i == 0 ? ends.first : ends.second;
      std::int32_t code = 0;
      quant::BlockLayout one;
      quant::quantize_codes(p, one, &limit, &code);
      if (i == 0)
        lo = std::max<std::int64_t>(lo, code);
      else
        hi = std::max(lo, std::min<std::int64_t>(hi, code));
    }
    return {};
  }

  Status in_float(const Node& node) {
    NodeDraft draft = draft_of(graph_, node);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const TensorId t = node.inputs[i];
      if (t == kNoTensor || graph_.tensor(t).is_initializer) continue;
      const quant::QuantParams* p = plan_.input(node, i);
      if ((node.op == "Shape" || node.op == "Size") && !real_.count(t) && held_.count(t)) {
        draft.inputs[i] = held_.at(t).codes;
        continue;
      }
      QUANVAS_TRY(draft.inputs[i], p ? values(t, *p) : real(t));
    }
    for (const PlacedQuantizer& q : plan_.constants(node.id)) {
      QUANVAS_TRY(const std::string values, constant_values(q));
      for (const std::size_t i : q.inputs) draft.inputs[i] = values;
    }
    const quant::QuantParams* own = plan_.output(node);
    const TensorId made = node.outputs.empty() ? kNoTensor : node.outputs[0];
    std::string raw;
    if (own && made != kNoTensor) draft.outputs[0] = raw = writer_.tensor_name(name(made) + "_unquantized");
    QUANVAS_CHECK(writer_.copy(std::move(draft)));
    for (const TensorId t : node.outputs)
      if (t != kNoTensor && (raw.empty() || t != made)) real_.insert(t);
    return raw.empty() ? Status() : hold_quantized(made, raw, *own);
  }

  Status hold_quantized(TensorId t, const std::string& raw, const quant::QuantParams& p) {
    QUANVAS_TRY(const std::string codes, quantized(raw, p, name(t)));
    held_[t] = {codes, &p, true};
    return {};
  }

  // Its input finds its scale at run time: whole sums, scaled in float.
  Status sums_at_run_time(const Node& node, const CodeLayer& layer) {
    QUANVAS_TRY(const DynamicCodes input, dynamic_codes(node.inputs[0]));
    QUANVAS_TRY(StoredTensor weight, stored_tensor(model_, *layer.weight));
    if (node.op == "Gemm" && node.integer("transB", 0) != 0) transpose(weight);
    const TensorId made = node.outputs[0];
    const quant::QuantParams* own = plan_.output(node);
    const std::string result = own ? writer_.tensor_name(name(made) + "_unquantized") : name(made);
    QUANVAS_CHECK(write_dynamic_layer(
        model_, {node, *layer.weight, std::move(weight), input, result},
        [this](const std::string& wanted, DataType type, const Shape& shape, const std::string& raw) {
          return constant(wanted, type, shape, raw);
        },
        writer_));
    if (own) return hold_quantized(made, result, *own);
    real_.insert(made);
    return {};
  }

  // A weight or bias of a layer that is computed in float.
  Result<std::string> constant_values(const PlacedQuantizer& q) {
    std::string& known = quantized_["values," + key(q.tensor, *q.params) + std::to_string(q.site.kind == SiteKind::kBias)];
    if (!known.empty()) return known;
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, q));
    const DataType type = q.site.kind == SiteKind::kBias ? DataType::kInt32 : type_of(*q.params);
    const std::string codes = writer_.tensor_name(name(q.tensor) + "_codes");
    writer_.initializer(codes, type, stored.shape, pack_codes(type, stored.codes));
    std::vector<std::int32_t> zeros;
    for (const std::int64_t z : zero_points(*q.params)) zeros.push_back(static_cast<std::int32_t>(z));
    const bool channels = q.params->spec.granularity == Granularity::kChannel;
    const Shape shape = channels ? Shape{static_cast<std::int64_t>(zeros.size())} : Shape{};
    const std::string scale = constant(name(q.tensor) + "_scale", DataType::kFloat, shape, pack_floats(q.params->scale));
    const std::string zero = constant(name(q.tensor) + "_zero_point", type, shape, pack_codes(type, zeros));
    Attributes attributes;
    if (channels) attributes["axis"] = channel_axis(*q.params, stored.shape.size());
    known = writer_.tensor_name(name(q.tensor) + "_dequantized");
    QUANVAS_CHECK(
        emit("DequantizeLinear", "dequantize_" + name(q.tensor), {codes, scale, zero}, {known}, std::move(attributes)));
    return known;
  }

  // --- operators on codes

  Status integer(const Node& node, const CodeLayer& layer) {
    const quant::QuantParams& p = *layer.output;
    std::vector<Strings> operands;  // codes, scale, zero point of each activation
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!layer.inputs[i]) continue;
      QUANVAS_TRY(const std::string from, codes(node.inputs[i], *layer.inputs[i]));
      const Parameters names = parameters(*layer.inputs[i], name(node.inputs[i]));
      operands.push_back({from, names.scale, names.zero_point});
    }
    const Parameters result = parameters(p, name(node.outputs[0]));
    const std::string codes = writer_.tensor_name(name(node.outputs[0]) + "_codes");
    const std::string wide = is_narrower(p) ? writer_.tensor_name(codes + "_wide") : codes;
    QUANVAS_CHECK(layer.weight ? product(node, layer, operands[0], result, wide)
                               : others(node, layer.form, operands, result, wide));
    if (wide != codes) QUANVAS_CHECK(clip(wide, p, p.lo, p.hi, codes));
    held_[node.outputs[0]] = {codes, &p, plan_.output(node) != nullptr};
    return {};
  }

  static Attributes chosen(const Node& node, const std::vector<const char*>& keys) {
    Attributes out;
    for (const char* key : keys)
      if (const auto it = node.attributes.find(key); it != node.attributes.end()) out[key] = it->second;
    return out;
  }
  static Strings joined(std::initializer_list<Strings> lists) {
    Strings out;
    for (const Strings& l : lists) out.insert(out.end(), l.begin(), l.end());
    return out;
  }

  Status others(const Node& node, CodeForm form, const std::vector<Strings>& operands, const Parameters& result,
                const std::string& codes) {
    const Strings y = {result.scale, result.zero_point};
    switch (form) {
      case CodeForm::kMatMul:
        return emit("QLinearMatMul", node.name, joined({operands[0], operands[1], y}), {codes});
      case CodeForm::kAdd:
      case CodeForm::kMul:
        return emit("QLinear" + node.op, node.name, joined({operands[0], operands[1], y}), {codes}, {}, kMicrosoftDomain);
      case CodeForm::kConcat: {
        Strings inputs = y;
        for (const Strings& o : operands) inputs.insert(inputs.end(), o.begin(), o.end());
        return emit("QLinearConcat", node.name, inputs, {codes}, chosen(node, {"axis"}), kMicrosoftDomain);
      }
      case CodeForm::kAveragePool:
        return emit("QLinearAveragePool", node.name, joined({operands[0], y}), {codes},
                    chosen(node, {"auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"}),
                    kMicrosoftDomain);
      case CodeForm::kGlobalAveragePool:
        return emit("QLinearGlobalAveragePool", node.name, joined({operands[0], y}), {codes},
                    {{"channels_last", std::int64_t{0}}}, kMicrosoftDomain);
      case CodeForm::kLeakyRelu:
        return emit("QLinearLeakyRelu", node.name, joined({operands[0], y}), {codes}, {{"alpha", node.real("alpha", 0.01f)}},
                    kMicrosoftDomain);
      case CodeForm::kSoftmax:
        return emit("QLinearSoftmax", node.name, joined({operands[0], y}), {codes},
                    {{"axis", node.integer("axis", -1)}, {"opset", std::int64_t{13}}}, kMicrosoftDomain);
      default:
        return emit("QLinear" + node.op, node.name, joined({operands[0], y}), {codes}, {}, kMicrosoftDomain);
    }
  }

  Status product(const Node& node, const CodeLayer& layer, const Strings& x, const Parameters& result,
                 const std::string& codes) {
    const PlacedQuantizer& w = *layer.weight;
    QUANVAS_TRY(StoredTensor weight, stored_tensor(model_, w));
    const bool by_rows = node.op == "Gemm" && node.integer("transB", 0) != 0;  // [outputs, inputs]
    const bool as_conv = layer.form == CodeForm::kRows || layer.form == CodeForm::kRowsTransposed;
    const bool turn = (as_conv && !by_rows) || (layer.form == CodeForm::kMatMul && by_rows);
    if (turn) transpose(weight);
    if (as_conv) weight.shape.push_back(1);
    const std::int64_t outputs = layer.form == CodeForm::kMatMul  ? weight.shape.back()
                                 : layer.form == CodeForm::kQGemm ? weight.shape[by_rows ? 0 : 1]
                                                                  : weight.shape[0];
    const DataType type = type_of(*w.params);
    const std::string weights = constant(name(w.tensor) + "_codes", type, weight.shape, pack_codes(type, weight.codes));
    const Parameters scale = parameters(*w.params, name(w.tensor));
    const Strings b = {weights, scale.scale, scale.zero_point}, y = {result.scale, result.zero_point};
    std::string bias;
    if (layer.bias) {
      QUANVAS_TRY(StoredTensor stored, stored_tensor(model_, *layer.bias));
      if (stored.codes.size() == 1) stored.codes.resize(static_cast<std::size_t>(outputs), stored.codes[0]);
      bias = constant(name(layer.bias->tensor) + "_codes", DataType::kInt32, {outputs},
                      pack_codes(DataType::kInt32, stored.codes));
    }
    if (layer.form == CodeForm::kMatMul) return emit("QLinearMatMul", node.name, joined({x, b, y}), {codes});
    if (layer.form == CodeForm::kQGemm)
      return emit("QGemm", node.name, joined({x, b, {bias}, y}), {codes}, {{"transB", std::int64_t{by_rows}}},
                  kMicrosoftDomain);
    if (layer.form == CodeForm::kConv)
      return emit("QLinearConv", node.name, joined({x, b, y, {bias}}), {codes},
                  chosen(node, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}));
    return rows_as_pixels(node, layer.form, x, joined({b, y, {bias}}), codes);
  }

  // [rows, inputs] as [rows, inputs, 1], [batch, rows, inputs] as [batch, inputs, rows]: a convolution of one pixel.
  Status rows_as_pixels(const Node& node, CodeForm form, const Strings& x, const Strings& rest, const std::string& codes) {
    const std::string pixels = writer_.tensor_name(codes + "_pixels_in"), out = writer_.tensor_name(codes + "_pixels");
    const Attributes kernel = {{"kernel_shape", std::vector<std::int64_t>{1}}};
    if (form == CodeForm::kRowsTransposed) {
      const Attributes perm = {{"perm", std::vector<std::int64_t>{0, 2, 1}}};
      QUANVAS_CHECK(emit("Transpose", node.name + "_in", {x[0]}, {pixels}, perm));
      QUANVAS_CHECK(emit("QLinearConv", node.name, joined({{pixels, x[1], x[2]}, rest}), {out}, kernel));
      return emit("Transpose", node.name + "_out", {out}, {codes}, perm);
    }
    const std::int64_t axis = 2;
    const std::string axes = constant("pixel_axis", DataType::kInt64, {1}, {reinterpret_cast<const char*>(&axis), sizeof axis});
    QUANVAS_CHECK(emit("Unsqueeze", node.name + "_in", {x[0], axes}, {pixels}));
    QUANVAS_CHECK(emit("QLinearConv", node.name, joined({{pixels, x[1], x[2]}, rest}), {out}, kernel));
    return emit("Squeeze", node.name + "_out", {out, axes}, {codes});
  }

  static void transpose(StoredTensor& t) {
    const auto rows = static_cast<std::size_t>(t.shape[0]), columns = static_cast<std::size_t>(t.shape[1]);
    std::vector<std::int32_t> turned(t.codes.size());
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < columns; ++j) turned[j * rows + i] = t.codes[i * columns + j];
    t.codes = std::move(turned);
    std::swap(t.shape[0], t.shape[1]);
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  QOperatorOptions options_;
  CodePlan plan_;
  ModelWriter writer_;
  std::set<TensorId> real_;  // that stand in the file under their own name
  std::map<TensorId, Held> held_;
  std::map<TensorId, DynamicCodes> dynamic_;
  std::map<std::string, std::string> constants_, quantized_, dequantized_;  // by content; by codes
};

}  // namespace

Status write_qoperator(const QuantizedModel& model, const QOperatorOptions& options, const std::string& path, JobContext& job) {
  return Writer(model, options).write(path, job);
}

}  // namespace quanvas::onnx_file
