// Quanvas - ONNX QDQ: QuantizeLinear -> [Clip] -> DequantizeLinear where activations are quantized, integer
// initializers -> DequantizeLinear for weights and biases; operators run in float between them.
#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "core/base/guarded.h"
#include "core/plugin/registry.h"
#include "plugins/exporters/onnx_audit.h"
#include "plugins/exporters/onnx_qdq_check.h"
#include "plugins/exporters/onnx_sites.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas {

namespace {

using namespace onnx_file;

DataType storage_type(const PlacedQuantizer& q) {
  if (q.site.kind == SiteKind::kBias) return DataType::kInt32;
  return q.params->spec.is_signed ? DataType::kInt8 : DataType::kUint8;
}

bool fills_storage(const quant::QuantParams& p) {
  return p.spec.is_signed ? p.lo == -128 && p.hi == 127 : p.lo == 0 && p.hi == 255;
}

// One exported file in the making: names of what is already quantized, by content.
class QdqWriter {
 public:
  explicit QdqWriter(const QuantizedModel& model)
      : model_(model), graph_(*model.model->graph),
        writer_(*model.model, std::max(graph_.opset(), kQdqOpset)) {
    for (PlacedQuantizer& q : place(model).quantizers) by_node_[q.reader->id].push_back(std::move(q));
  }

  Status write(const std::string& path, JobContext& job) {
    std::size_t done = 0;
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(add(node));
      job.progress("export", static_cast<double>(++done) / static_cast<double>(graph_.nodes().size()), node.name);
    }
    return writer_.save(path);
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

  // Equal parameters on one tensor share one chain of nodes.
  std::string key(const PlacedQuantizer& q) const {
    const quant::QuantParams& p = *q.params;
    const auto integer = [](std::int64_t v) { return std::to_string(v) + ","; };
    return integer(q.tensor) + integer(static_cast<int>(storage_type(q))) + integer(p.lo) + integer(p.hi) +
           integer(static_cast<int>(p.spec.granularity)) + integer(p.spec.axis.value_or(-1)) +
           pack_floats(p.scale) + pack_floats(p.zero_point);
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
    const Parameters p = parameters(q, result);
    std::string codes = writer_.tensor_name(result + "_codes");
    set_axis(writer_.node("QuantizeLinear", "quantize_" + result, {source, p.scale, p.zero_point}, {codes}), q);
    if (!fills_storage(*q.params)) codes = clip(q, codes, result);
    set_axis(writer_.node("DequantizeLinear", "dequantize_" + result, {codes, p.scale, p.zero_point}, {result}), q);
  }

  std::string clip(const PlacedQuantizer& q, const std::string& codes, const std::string& result) {
    const std::string lo = writer_.tensor_name(result + "_code_min");
    const std::string hi = writer_.tensor_name(result + "_code_max");
    writer_.initializer(lo, storage_type(q), {}, pack_codes(storage_type(q), {static_cast<std::int32_t>(q.params->lo)}));
    writer_.initializer(hi, storage_type(q), {}, pack_codes(storage_type(q), {static_cast<std::int32_t>(q.params->hi)}));
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
    const std::string name = writer_.tensor_name(source + "_codes");
    writer_.initializer(name, storage_type(q), stored.shape, pack_codes(storage_type(q), stored.codes));
    const Parameters p = parameters(q, source);
    it->second = writer_.tensor_name(source + "_dequantized");
    set_axis(writer_.node("DequantizeLinear", "dequantize_" + source, {name, p.scale, p.zero_point}, {it->second}), q);
    return it->second;
  }

  struct Parameters {
    std::string scale, zero_point;
  };
  Parameters parameters(const PlacedQuantizer& q, const std::string& base) {
    const quant::QuantParams& p = *q.params;
    const bool channels = p.spec.granularity == Granularity::kChannel;
    const Shape shape = channels ? Shape{static_cast<std::int64_t>(p.scale.size())} : Shape{};
    std::vector<std::int32_t> zeros;
    for (const std::int64_t z : zero_points(p)) zeros.push_back(static_cast<std::int32_t>(z));
    Parameters names{writer_.tensor_name(base + "_scale"), writer_.tensor_name(base + "_zero_point")};
    writer_.initializer(names.scale, DataType::kFloat, shape, pack_floats(p.scale));
    writer_.initializer(names.zero_point, storage_type(q), shape, pack_codes(storage_type(q), zeros));
    return names;
  }

  void set_axis(onnx::NodeProto& node, const PlacedQuantizer& q) const {
    if (q.params->spec.granularity != Granularity::kChannel) return;
    onnx::AttributeProto* axis = node.add_attribute();
    axis->set_name("axis");
    axis->set_type(onnx::AttributeProto::INT);
    const std::size_t rank = shape_of(model_, q.tensor).size();
    axis->set_i(rank == 0 ? q.params->spec.axis.value_or(0) : channel_axis(*q.params, rank));
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  ModelWriter writer_;
  std::map<NodeId, std::vector<PlacedQuantizer>> by_node_;  // that reads or, for outputs, gives the tensor
  std::map<std::string, std::string> names_;  // key() -> dequantized tensor
};

class OnnxQdqExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"onnx-qdq", "ONNX QDQ (int8, opset 13)",
            "Standard ONNX with QuantizeLinear, Clip and DequantizeLinear around float operators; weights and "
            "biases as integers. Runs in onnxruntime."};
  }
  std::string extension() const override { return ".onnx"; }

  TargetTable table(const json&) const override { return qdq_table(); }
  std::vector<Refusal> check(const QuantizedModel& model, const json&) const override { return check_qdq(model); }

  Status write(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return guarded("Export to ONNX QDQ", [&] { return QdqWriter(model).write(path, job); });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json&) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_qdq(model, path); });
  }
};
QUANVAS_PLUGIN(Exporter, OnnxQdqExporter)

}  // namespace

}  // namespace quanvas
