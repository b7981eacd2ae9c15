// Quanvas - files for FINN: QONNX laid out for ConvertQONNXtoFINN, or FINN's own form with thresholds.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "core/base/guarded.h"
#include "plugins/exporters/finn_audit.h"
#include "plugins/exporters/finn_check.h"
#include "plugins/exporters/finn_layout.h"
#include "plugins/exporters/qonnx_check.h"
#include "plugins/exporters/qonnx_read.h"

namespace quanvas {
namespace {

using namespace onnx_file;

constexpr const char* kFinnDomain = "finn.custom_op.general";

// FINN's name of a type of whole numbers.
std::string finn_type(const quant::QuantParams& p) {
  const QuantSpec& s = p.spec;
  if (s.format == "binary") return "BIPOLAR";
  if (s.format == "ternary" || (s.is_signed && s.bits == 2 && s.narrow)) return "TERNARY";
  if (!s.is_signed && s.bits == 1) return "BINARY";
  return (s.is_signed ? "INT" : "UINT") + std::to_string(s.bits);
}

// Floats in their order as integers.
std::int32_t ordered(float v) {
  const auto bits = std::bit_cast<std::int32_t>(v);
  return bits < 0 ? std::numeric_limits<std::int32_t>::min() - bits : bits;
}
float unordered(std::int32_t k) {
  return std::bit_cast<float>(k < 0 ? std::numeric_limits<std::int32_t>::min() - k : k);
}

// The least float32 whose code is at least this; the quantizer rounds in order.
float least_reaching(const quant::QuantParams& one, std::int64_t code) {
  const quant::BlockLayout single;
  const auto reaches = [&](float x) {
    std::int32_t q = 0;
    quant::quantize_codes(one, single, &x, &q);
    return q >= code;
  };
  const double s = static_cast<double>(one.scale[0]), c = static_cast<double>(code);
  std::int32_t below = ordered(static_cast<float>((c - 2) * s)), at = ordered(static_cast<float>((c + 1) * s));
  while (static_cast<std::int64_t>(at) - below > 1) {
    const auto middle = static_cast<std::int32_t>((static_cast<std::int64_t>(below) + at) / 2);
    (reaches(unordered(middle)) ? at : below) = middle;
  }
  return unordered(at);
}

std::vector<float> thresholds_of(const quant::QuantParams& p) {
  if (p.spec.format == "binary") return {0.0f};
  std::vector<float> out;
  for (const float s : p.scale) {
    quant::QuantParams one = p;
    one.spec.granularity = one.layout.granularity = Granularity::kTensor;
    one.layout = {};
    one.scale = {s};
    for (std::int64_t code = p.lo + 1; code <= p.hi; ++code) out.push_back(least_reaching(one, code));
  }
  return out;
}

class FinnWriter {
 public:
  FinnWriter(const QuantizedModel& model, FinnProfile profile)
      : model_(model),
        graph_(*model.model->graph),
        thresholds_(profile == FinnProfile::kThresholds),
        placement_(place(model)),
        layout_(model, placement_),
        writer_(*model.model, std::max(graph_.opset(), kQonnxOpset)) {}

  Status write(const std::string& path, JobContext& job) {
    for (const TensorId input : graph_.inputs()) offer(input, graph_.tensor(input).name);
    std::size_t done = 0;
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(add(node));
      job.progress("export", static_cast<double>(++done) / static_cast<double>(graph_.nodes().size()), node.name);
    }
    writer_.set_domain(thresholds_ ? kFinnDomain : dialect_.domain, 1);
    writer_.set_domain(dialect_.domain, 1);  // averages are in it, whatever the form
    return writer_.save(path);
  }

 private:
  const PlacedQuantizer* at(const Node& node, SiteKind kind) const {
    for (const PlacedQuantizer& q : placement_.quantizers)
      if (q.node == &node && q.site.kind == kind) return &q;
    return nullptr;
  }
  std::string name_of(TensorId t) const { return t == kNoTensor ? std::string() : graph_.tensor(t).name; }
  // What readers of the tensor read in the file.
  std::string seen(TensorId t) const {
    const auto it = seen_.find(t);
    return it == seen_.end() ? name_of(t) : it->second;
  }

  // After `raw` holds the tensor: its quantizer, if all who read it see that.
  void offer(TensorId t, const std::string& raw) {
    const FinnPlace* place = layout_.on(t);
    if (place == nullptr) return;
    const bool is_output = place->quantizer->site.kind == SiteKind::kOutput;
    const std::string result = is_output ? name_of(t) : writer_.tensor_name(name_of(t) + "_quantized");
    quantize(*place, raw, result);
    seen_[t] = result;
  }

  Status add(const Node& node) {
    const TensorId out = node.outputs.empty() ? kNoTensor : node.outputs[0];
    const FinnPlace* place = out == kNoTensor ? nullptr : layout_.on(out);
    // A ReLU is in its thresholds.
    if (thresholds_ && place && place->relu == node.id && layout_.is_relu(node.id)) {
      offer(out, seen(node.inputs[0]));
      return {};
    }
    NodeDraft draft = draft_of(graph_, node);
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      if (node.inputs[i] != kNoTensor) draft.inputs[i] = seen(node.inputs[i]);
    for (const PlacedQuantizer& q : placement_.quantizers) {
      if (q.reader != &node || q.site.kind != SiteKind::kInput) continue;
      const FinnPlace* p = layout_.place_of(q);
      if (p->for_all) continue;
      for (const std::size_t i : q.inputs) draft.inputs[i] = apart(*p);
    }
    if (const PlacedQuantizer* cut = at(node, SiteKind::kOutput); cut && cut->params->truncated) {
      if (thresholds_) {
        QUANVAS_CHECK(average(node, *cut->params, draft.inputs[0]));
        seen_[out] = name_of(out);
        return {};
      }
      // ConvertQONNXtoFINN asks for what ONNX lets a file leave out.
      draft.attributes.try_emplace("pads", std::vector<std::int64_t>(4, 0));
      draft.attributes.try_emplace("strides", std::vector<std::int64_t>(2, 1));
    }
    if (place && place->relu == node.id) {
      draft.op = "Relu";  // a Clip whose end no code tells from what lies beyond
      draft.inputs.resize(1);
      draft.attributes.clear();
    }
    std::string raw = name_of(out);
    if (out != kNoTensor && layout_.is_behind(out)) {
      seen_[out] = raw = writer_.tensor_name(raw + "_quantized");
    } else if (place && place->quantizer->site.kind == SiteKind::kOutput) {
      raw = writer_.tensor_name(raw + "_unquantized");
    }
    if (!draft.outputs.empty()) draft.outputs[0] = raw;
    const auto weight = finn_weight(graph_, node);
    if (weight && (at(node, SiteKind::kWeight) || at(node, SiteKind::kBias))) {
      QUANVAS_CHECK(layer(node, draft, *weight));
    } else {
      QUANVAS_CHECK(writer_.copy(std::move(draft)));
    }
    if (out != kNoTensor) offer(out, raw);
    return {};
  }

  // One reader of several.
  std::string apart(const FinnPlace& p) {
    auto [it, fresh] = names_.emplace(quantizer_key(*p.quantizer), std::string());
    if (!fresh) return it->second;
    it->second = writer_.tensor_name(name_of(p.at) + "_quantized");
    quantize(p, seen(p.at), it->second);
    return it->second;
  }

  std::string constant(const std::string& wanted, const Shape& shape, const std::vector<float>& values) {
    const std::string name = writer_.tensor_name(wanted);
    writer_.initializer(name, DataType::kFloat, shape, pack_floats(values));
    return name;
  }
  void annotate(const std::string& tensor, const std::string& type) {
    onnx::TensorAnnotation* a = writer_.proto().mutable_graph()->add_quantization_annotation();
    a->set_tensor_name(tensor);
    onnx::StringStringEntryProto* entry = a->add_quant_parameter_tensor_names();
    entry->set_key("finn_datatype");
    entry->set_value(type);
  }

  void quantize(const FinnPlace& place, const std::string& raw, const std::string& result) {
    const quant::QuantParams& p = *place.quantizer->params;
    const std::size_t rank = shape_of(model_, place.at).size();
    const std::string name = "quantize_" + result;
    if (p.truncated) return truncate(*place.quantizer, name, raw, result);
    if (!thresholds_) return add_qonnx_quantizer(writer_, dialect_, p, rank, name, raw, result);
    const std::vector<float> steps = thresholds_of(p);
    const auto channels = static_cast<std::int64_t>(p.scale.size());
    const std::string t =
        constant(result + "_thresholds", {channels, static_cast<std::int64_t>(steps.size()) / channels}, steps);
    const bool is_sign = p.spec.format == "binary";
    const std::string counted = is_sign ? result : writer_.tensor_name(result + "_counted");
    onnx::NodeProto& n = writer_.node("MultiThreshold", name, {raw, t}, {counted});
    n.set_domain(kFinnDomain);
    add_attribute(n, "out_dtype", is_sign ? std::string("BIPOLAR") : "UINT" + std::to_string(p.spec.bits));
    if (rank == 2 || rank == 4) add_attribute(n, "data_layout", std::string(rank == 2 ? "NC" : "NCHW"));
    if (is_sign) {
      add_attribute(n, "out_scale", 2.0f);
      add_attribute(n, "out_bias", -1.0f);
      annotate(result, "BIPOLAR");
      return;
    }
    annotate(counted, p.spec.is_signed ? "UINT" + std::to_string(p.spec.bits) : finn_type(p));
    std::string codes = counted;
    if (p.lo != 0) {
      codes = writer_.tensor_name(result + "_codes");
      writer_.node("Add", name + "_add", {counted, constant(result + "_least_code", {}, {static_cast<float>(p.lo)})},
                   {codes});
      annotate(codes, finn_type(p));
    }
    writer_.node("Mul", name + "_mul",
                 {codes, constant(result + "_scale", qonnx_broadcast(p, rank, p.scale.size()), p.scale)}, {result});
  }

  // The mean as FINN looks for it: times the number of elements, then without the sum's low bits.
  void truncate(const PlacedQuantizer& q, const std::string& name, const std::string& raw, const std::string& result) {
    const quant::QuantParams& p = *q.params;
    const float elements = p.scale[0] / p.truncated->scale;
    const std::string sum = writer_.tensor_name(result + "_sum");
    writer_.node("Mul", name + "_sum", {raw, constant(result + "_elements", {}, {elements})}, {sum});
    onnx::NodeProto& n =
        writer_.node("Trunc", name,
                     {sum, constant(result + "_scale", {}, {p.scale[0]}), constant(result + "_zero_point", {}, {0}),
                      constant(result + "_sum_bits", {}, {static_cast<float>(p.truncated->bits)}),
                      constant(result + "_bits", {}, {static_cast<float>(p.spec.bits)})},
                     {result});
    n.set_domain(dialect_.domain);
    add_attribute(n, "rounding_mode", std::string("FLOOR"));
  }

  // Whole numbers through QuantAvgPool2d, as Brevitas wrote them and FINN's conversion makes them: the sum of each window loses
  // its low bits. check_truncation() has seen that these are as many as the window adds.
  Status average(const Node& node, const quant::QuantParams& p, const std::string& x) {
    const std::string result = name_of(node.outputs[0]);
    const std::string codes = writer_.tensor_name(result + "_input_codes"), cut = writer_.tensor_name(result + "_codes");
    const std::string scale = constant(result + "_scale", {}, {p.scale[0]});
    QUANVAS_CHECK(writer_.copy({node.name, "Div", {}, {x, scale}, {codes}, {}, {}}));
    onnx::NodeProto& n = writer_.node("QuantAvgPool2d", node.name + "_average", {codes}, {cut});
    n.set_domain(dialect_.domain);
    writer_.use_domain(dialect_.domain);
    const auto strides = node.integers("strides", {1, 1});
    add_attribute(n, "kernel", node.integers("kernel_shape").at(0));
    add_attribute(n, "stride", strides.at(0));
    add_attribute(n, "ibits", static_cast<std::int64_t>(p.spec.bits));
    add_attribute(n, "obits", static_cast<std::int64_t>(p.spec.bits));
    add_attribute(n, "signed", static_cast<std::int64_t>(p.spec.is_signed));
    add_attribute(n, "data_layout", std::string("NCHW"));
    annotate(codes, finn_type(p));
    annotate(cut, finn_type(p));
    writer_.node("Mul", node.name + "_mul", {cut, scale}, {result});
    return {};
  }

  // Convolution or product, [Mul by the weight's scale,] Add of the bias: the scale and the bias as FINN moves them.
  Status layer(const Node& node, NodeDraft draft, const FinnWeight& weight) {
    const std::string result = draft.outputs[0], source = name_of(node.inputs[1]);
    const TensorId bias = node.input(2);
    const PlacedQuantizer* wq = at(node, SiteKind::kWeight);
    const PlacedQuantizer* bq = at(node, SiteKind::kBias);
    const bool scaled = thresholds_ && wq && !(wq->params->scale.size() == 1 && wq->params->scale[0] == 1);
    QUANVAS_TRY(draft.inputs[1], weight_tensor(node, wq, weight));
    draft.inputs.resize(2);
    if (weight.matrix) {
      draft.op = "MatMul";
      draft.attributes.clear();
    }
    std::string last = scaled || bias != kNoTensor ? writer_.tensor_name(result + "_product") : result;
    draft.outputs[0] = last;
    const std::string name = draft.name;
    QUANVAS_CHECK(writer_.copy(std::move(draft)));
    const std::size_t rank = weight.matrix ? 2 : shape_of(model_, node.inputs[1]).size();
    const auto channels = [&](std::int64_t n) {
      Shape shape(rank, 1);
      shape[1] = n;
      return shape;
    };
    if (scaled) {
      const std::vector<float>& s = wq->params->scale;
      const std::string next = bias != kNoTensor ? writer_.tensor_name(result + "_scaled") : result;
      const Shape shape = s.size() == 1 ? Shape{} : channels(static_cast<std::int64_t>(s.size()));
      writer_.node("Mul", name + "_scale", {last, constant(source + "_scale", shape, s)}, {next});
      last = next;
    }
    if (bias == kNoTensor) return {};
    std::string addend = name_of(bias);
    if (graph_.tensor(bias).is_initializer) {
      QUANVAS_TRY(const StoredTensor values, bq ? stored_tensor(model_, *bq) : float_tensor(bias));
      const Shape shape = weight.matrix ? values.shape : channels(static_cast<std::int64_t>(values.values.size()));
      addend = constant(name_of(bias) + "_values", shape, values.values);
    }
    writer_.node("Add", name + "_bias", {last, addend}, {result});
    return {};
  }

  Result<StoredTensor> float_tensor(TensorId t) const {
    const TensorData* data = model_.model->weights->find(name_of(t));
    if (data == nullptr) return fail(ErrorCode::kInternal, "Initializer '" + name_of(t) + "' has no data.");
    return StoredTensor{data->shape, {}, data->to_floats()};
  }

  Result<std::string> weight_tensor(const Node& node, const PlacedQuantizer* q, const FinnWeight& form) {
    const std::string source = name_of(node.inputs[1]);
    QUANVAS_TRY(StoredTensor stored, q ? stored_tensor(model_, *q) : float_tensor(node.inputs[1]));
    std::vector<float> values = std::move(stored.values);
    if (thresholds_ && q) values.assign(stored.codes.begin(), stored.codes.end());
    Shape shape = stored.shape;
    if (form.transposed) {
      std::vector<float> turned(values.size());
      for (std::int64_t r = 0; r < shape[0]; ++r)
        for (std::int64_t c = 0; c < shape[1]; ++c)
          turned[static_cast<std::size_t>(c * shape[0] + r)] = values[static_cast<std::size_t>(r * shape[1] + c)];
      values = std::move(turned);
      std::swap(shape[0], shape[1]);
    }
    const std::string name = constant(source + (thresholds_ && q ? "_codes" : "_values"), shape, values);
    if (!q) return name;
    if (thresholds_) {
      annotate(name, finn_type(*q->params));
      return name;
    }
    std::optional<Shape> scales;
    if (q->params->spec.granularity == Granularity::kChannel) {
      scales = Shape(shape.size(), 1);
      (*scales)[form.matrix ? 1 : 0] = static_cast<std::int64_t>(q->params->scale.size());
    }
    const std::string result = writer_.tensor_name(source + "_quantized");
    add_qonnx_quantizer(writer_, dialect_, *q->params, shape.size(), "quantize_" + result, name, result, scales, true);
    return result;
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  const bool thresholds_;
  const QonnxDialect dialect_{"qonnx.custom_op.general", 1};
  Placement placement_;
  FinnLayout layout_;
  ModelWriter writer_;
  std::map<TensorId, std::string> seen_;
  std::map<std::string, std::string> names_;  // quantizer_key() -> quantized tensor of one reader of several
};

class FinnExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"finn", "FINN",
            "ONNX for dataflow accelerators on FPGAs with FINN: the layout that ConvertQONNXtoFINN takes, or whole-number "
            "weights and "
            "thresholds. Brevitas wrote the latter up to 0.9."};
  }
  std::string extension() const override { return ".onnx"; }
  Schema schema() const override {
    return {{choice_field("profile", "Form", "What FINN starts from.", "qonnx",
                          {{"qonnx", "QONNX for ConvertQONNXtoFINN", "Quant nodes; FINN makes the thresholds"},
                           {"multithreshold", "Thresholds",
                            "MultiThreshold nodes, whole-number weights and types as annotations: "
                            "exact at ties, for Streamline at once"}})}};
  }
  TargetTable table(const json& options) const override { return finn_table(finn_profile(options)); }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    return check_finn(model, finn_profile(options));
  }
  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to FINN", [&] { return FinnWriter(model, finn_profile(options)).write(path, job); });
  }
  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    return guarded("Audit of '" + path + "'",
                   [&] { return audit_finn(model, path, finn_profile(options) == FinnProfile::kThresholds); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return read_with_sites(model, path, job);
  }
};
QUANVAS_PLUGIN(Exporter, FinnExporter)

}  // namespace
}  // namespace quanvas
