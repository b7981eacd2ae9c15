// Quanvas - ONNX QDQ: QuantizeLinear -> [Clip] -> DequantizeLinear where activations are quantized, integer
// initializers -> DequantizeLinear for weights and biases; operators run in float between them.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "core/base/guarded.h"
#include "core/plugin/registry.h"
#include "core/quant/dynamic.h"
#include "plugins/exporters/onnx_audit.h"
#include "plugins/exporters/onnx_qdq_check.h"
#include "plugins/exporters/onnx_sites.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas {

namespace {

using namespace onnx_file;

void set_attribute(onnx::NodeProto& node, const char* name, std::int64_t value) {
  onnx::AttributeProto* a = node.add_attribute();
  a->set_name(name);
  a->set_type(onnx::AttributeProto::INT);
  a->set_i(value);
}

// One exported file in the making: names of what is already quantized, by content.
class QdqWriter {
 public:
  QdqWriter(const QuantizedModel& model, const QdqOptions& options)
      : model_(model), graph_(*model.model->graph), options_(options), writer_(*model.model, opset_of(model, options)) {
    for (PlacedQuantizer& q : place(model).quantizers) by_node_[q.reader->id].push_back(std::move(q));
    if (is_for_one_sample(model)) writer_.fix_batch();
  }

  Status write(const std::string& path, JobContext& job) {
    std::size_t done = 0;
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(add(node));
      job.progress("export", static_cast<double>(++done) / static_cast<double>(graph_.nodes().size()), node.name);
    }
    return writer_.save(path, options_.external);
  }

 private:
  Status add(const Node& node) {
    NodeDraft draft = draft_of(graph_, node);
    const PlacedQuantizer* output = nullptr;
    for (const PlacedQuantizer& q : by_node_[node.id]) {
      if (q.site.kind == SiteKind::kOutput) {
        output = &q;
        continue;
      }
      QUANVAS_TRY(const std::string name, q.site.kind == SiteKind::kInput ? activation(q) : constant(q));
      for (const std::size_t i : q.inputs) draft.inputs[i] = name;
    }
    if (output == nullptr) return writer_.copy(std::move(draft));
    const std::string name = graph_.tensor(output->tensor).name;
    const std::string raw = writer_.tensor_name(name + "_unquantized");
    std::replace(draft.outputs.begin(), draft.outputs.end(), name, raw);
    QUANVAS_CHECK(writer_.copy(std::move(draft)));
    quantize(*output, raw, name);
    names_[key(*output)] = name;
    return {};
  }

  Storage storage(const PlacedQuantizer& q) const { return storage_of(q, options_); }

  // Equal parameters on one tensor share one chain of nodes.
  std::string key(const PlacedQuantizer& q) const {
    const quant::QuantParams& p = *q.params;
    const Storage s = storage(q);
    const auto integer = [](std::int64_t v) { return std::to_string(v) + ","; };
    return integer(q.tensor) + integer(static_cast<int>(s.codes)) + integer(static_cast<int>(s.scales)) + integer(p.lo) +
           integer(p.hi) + integer(static_cast<int>(p.spec.granularity)) + integer(p.spec.axis.value_or(-1)) +
           integer(p.layout.group) + integer(p.spec.saturate) + integer(quant::is_dynamic(p)) + pack_floats(p.scale) +
           pack_floats(p.zero_point);
  }

  Result<std::string> activation(const PlacedQuantizer& q) {
    auto [it, fresh] = names_.emplace(key(q), std::string());
    if (!fresh) return it->second;
    const std::string& source = graph_.tensor(q.tensor).name;
    it->second = writer_.tensor_name(source + "_dequantized");
    quantize(q, source, it->second);
    return it->second;
  }

  // source -> QuantizeLinear -> [Clip] -> DequantizeLinear -> result
  void quantize(const PlacedQuantizer& q, const std::string& source, const std::string& result) {
    std::string codes = writer_.tensor_name(result + "_codes");
    if (quant::is_dynamic(*q.params)) {
      const Parameters p{writer_.tensor_name(result + "_scale"), writer_.tensor_name(result + "_zero_point")};
      writer_.node("DynamicQuantizeLinear", "quantize_" + result, {source}, {codes, p.scale, p.zero_point});
      writer_.node("DequantizeLinear", "dequantize_" + result, {codes, p.scale, p.zero_point}, {result});
      return;
    }
    const Parameters p = parameters(q, result);
    const Storage s = storage(q);
    const bool before = s.clips && bits_of(s.codes) == 16;
    const std::string from = before ? clip_values(q, source, result) : source;
    onnx::NodeProto& node = writer_.node("QuantizeLinear", "quantize_" + result, {from, p.scale, p.zero_point}, {codes});
    set_layout(node, q);
    if (q.params->spec.format == "float" && !q.params->spec.saturate) set_attribute(node, "saturate", 0);
    if (s.clips && !before) codes = clip(q, codes, result);
    set_layout(writer_.node("DequantizeLinear", "dequantize_" + result, {codes, p.scale, p.zero_point}, {result}), q);
  }

  // Codes of 16 bits cannot be clipped in onnxruntime; the numbers that the outermost of them stand for can, with the same
  // codes behind: rint is monotone and ((c - z) * s) / s rounds to c - z below 2^17.
  std::string clip_values(const PlacedQuantizer& q, const std::string& source, const std::string& result) {
    const quant::QuantParams& p = *q.params;
    const std::vector<std::int64_t> zeros = zero_points(p);
    const std::string limits[] = {writer_.tensor_name(result + "_min"), writer_.tensor_name(result + "_max")};
    for (const bool top : {false, true}) {
      const float limit = static_cast<float>((top ? p.hi : p.lo) - zeros[0]) * p.scale[0];
      writer_.initializer(limits[top], DataType::kFloat, {}, pack_floats({limit}));
    }
    const std::string clipped = writer_.tensor_name(result + "_limited");
    writer_.node("Clip", "clip_" + result, {source, limits[0], limits[1]}, {clipped});
    return clipped;
  }

  std::string clip(const PlacedQuantizer& q, const std::string& codes, const std::string& result) {
    const std::string lo = writer_.tensor_name(result + "_code_min");
    const std::string hi = writer_.tensor_name(result + "_code_max");
    const DataType type = storage(q).codes;
    writer_.initializer(lo, type, {}, pack_codes(type, {static_cast<std::int32_t>(q.params->lo)}));
    writer_.initializer(hi, type, {}, pack_codes(type, {static_cast<std::int32_t>(q.params->hi)}));
    const std::string clipped = writer_.tensor_name(result + "_clipped");
    writer_.node("Clip", "clip_" + result, {codes, lo, hi}, {clipped});
    return clipped;
  }

  // Weight or bias: its codes as an initializer -> DequantizeLinear.
  Result<std::string> constant(const PlacedQuantizer& q) {
    auto [it, fresh] = names_.emplace(key(q), std::string());
    if (!fresh) return it->second;
    const std::string& source = graph_.tensor(q.tensor).name;
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, q));
    const Storage s = storage(q);
    const std::string name = writer_.tensor_name(source + "_codes");
    writer_.initializer(name, s.codes, stored.shape, pack_codes(s.codes, stored.codes));
    const Parameters p = parameters(q, source);
    it->second = writer_.tensor_name(source + "_dequantized");
    std::vector<std::string> inputs = {name, p.scale};
    if (!p.zero_point.empty()) inputs.push_back(p.zero_point);
    onnx::NodeProto& node = writer_.node("DequantizeLinear", "dequantize_" + source, inputs, {it->second});
    set_layout(node, q);
    // Without it the values would have the type of the scales.
    if (s.scales != DataType::kFloat) set_attribute(node, "output_dtype", static_cast<int>(DataType::kFloat));
    return it->second;
  }

  struct Parameters {
    std::string scale, zero_point;  // of symmetric blocks no zero point: there would be one for each of them
  };
  Parameters parameters(const PlacedQuantizer& q, const std::string& base) {
    const quant::QuantParams& p = *q.params;
    const Storage s = storage(q);
    const bool blocks = p.spec.granularity == Granularity::kGroup;
    Shape shape = p.spec.granularity == Granularity::kChannel ? Shape{static_cast<std::int64_t>(p.scale.size())} : Shape{};
    if (blocks) {
      shape = shape_of(model_, q.tensor);
      shape[static_cast<std::size_t>(channel_axis(p, shape.size()))] = (p.layout.dim + p.layout.group - 1) / p.layout.group;
    }
    std::vector<std::int32_t> zeros;
    for (const std::int64_t z : zero_points(p)) zeros.push_back(static_cast<std::int32_t>(z));
    Parameters names{writer_.tensor_name(base + "_scale"), {}};
    const bool exponents = s.scales == DataType::kFloat8E8M0;
    writer_.initializer(names.scale, s.scales, shape, exponents ? pack_exponents(p.scale) : pack_floats(p.scale));
    if (blocks && std::all_of(zeros.begin(), zeros.end(), [](std::int32_t z) { return z == 0; })) return names;
    names.zero_point = writer_.tensor_name(base + "_zero_point");
    writer_.initializer(names.zero_point, s.codes, shape, pack_codes(s.codes, zeros));
    return names;
  }

  void set_layout(onnx::NodeProto& node, const PlacedQuantizer& q) const {
    const quant::QuantParams& p = *q.params;
    if (p.spec.granularity == Granularity::kTensor) return;
    const std::size_t rank = shape_of(model_, q.tensor).size();
    set_attribute(node, "axis", rank == 0 ? p.spec.axis.value_or(0) : channel_axis(p, rank));
    if (p.spec.granularity == Granularity::kGroup) set_attribute(node, "block_size", p.layout.group);
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  QdqOptions options_;
  ModelWriter writer_;
  std::map<NodeId, std::vector<PlacedQuantizer>> by_node_;  // that reads or, for outputs, gives the tensor
  std::map<std::string, std::string> names_;  // key() -> dequantized tensor
};

class OnnxQdqExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"onnx-qdq", "ONNX QDQ",
            "Standard ONNX with QuantizeLinear, Clip and DequantizeLinear around float operators; weights and "
            "biases as codes. Runs in onnxruntime."};
  }
  std::string extension() const override { return ".onnx"; }
  Schema schema() const override {
    return {
        {integer_field("opset", "Opset",
                       "Operator set of the file, 13 to 25: what it lacks is refused. 0: lowest, of those that hold everything.", 0,
                       0, kNewestOpset),
         bool_field("native", "Narrow types",
                    "4 and 2 bit integers in ONNX's own types (opset 21 and 25) and power-of-two scales of minifloat blocks as "
                    "float8e8m0 (24), where the opset has them; else as int8 with a Clip, and float32.",
                    false),
         external_field()}};
  }

  TargetTable table(const json& options) const override { return qdq_table(qdq_options(options)); }
  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return onnx_files(path, qdq_options(options).external);
  }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    return check_qdq(model, qdq_options(options));
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to ONNX QDQ", [&] { return QdqWriter(model, qdq_options(options)).write(path, job); });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json&) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_qdq(model, path); });
  }

  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return guarded("Reading '" + path + "' again", [&]() -> Result<ReadBack> {
      QUANVAS_TRY(Model written, import_model(path, job));
      ReadBack back;
      back.model = std::make_shared<const Model>(std::move(written));
      QUANVAS_CHECK(find_held(model, path, back));
      return back;
    });
  }
};
QUANVAS_PLUGIN(Exporter, OnnxQdqExporter)

}  // namespace

}  // namespace quanvas
