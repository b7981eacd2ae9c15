// Quanvas - QONNX: each quantizer is one node (Quant, BipolarQuant, FloatQuant, Trunc) between float tensors; weights are
// float values on their quantizer's grid. Operators: https://github.com/fastmachinelearning/qonnx, custom_op/general.
#include <algorithm>
#include <map>
#include <utility>

#include "core/base/guarded.h"
#include "plugins/exporters/qonnx_audit.h"
#include "plugins/exporters/qonnx_check.h"
#include "plugins/exporters/qonnx_read.h"

namespace quanvas {
namespace {

using namespace onnx_file;

class QonnxWriter {
 public:
  QonnxWriter(const QuantizedModel& model, QonnxOptions options)
      : model_(model),
        graph_(*model.model->graph),
        options_(std::move(options)),
        placement_(place(model)),
        writer_(*model.model, std::max(graph_.opset(), kQonnxOpset)) {
    for (const PlacedQuantizer& q : placement_.quantizers) by_node_[q.reader->id].push_back(&q);
  }

  Status write(const std::string& path, JobContext& job) {
    std::size_t done = 0;
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      QUANVAS_CHECK(add(node));
      job.progress("export", static_cast<double>(++done) / static_cast<double>(graph_.nodes().size()), node.name);
    }
    writer_.set_domain(options_.dialect.domain, options_.dialect.version);
    return writer_.save(path);
  }

 private:
  Status add(const Node& node) {
    NodeDraft draft = draft_of(graph_, node);
    const PlacedQuantizer* output = nullptr;
    for (const PlacedQuantizer* q : by_node_[node.id]) {
      if (q->site.kind == SiteKind::kOutput) {
        output = q;
        continue;
      }
      QUANVAS_TRY(const std::string name, q->site.kind == SiteKind::kInput ? activation(*q) : constant(*q));
      for (const std::size_t i : q->inputs) draft.inputs[i] = name;
    }
    if (output == nullptr) return writer_.copy(std::move(draft));
    const std::string name = graph_.tensor(output->tensor).name;
    const std::string raw = writer_.tensor_name(name + "_unquantized");
    std::replace(draft.outputs.begin(), draft.outputs.end(), name, raw);
    QUANVAS_CHECK(writer_.copy(std::move(draft)));
    if (output->params->truncated)
      add_qonnx_truncation(writer_, options_.dialect, *output->params, "quantize_" + name, raw, name);
    else
      add_qonnx_quantizer(writer_, options_.dialect, *output->params, rank(*output), "quantize_" + name, raw, name);
    return {};
  }

  std::size_t rank(const PlacedQuantizer& q) const { return shape_of(model_, q.tensor).size(); }

  Result<std::string> activation(const PlacedQuantizer& q) {
    auto [it, fresh] = names_.emplace(quantizer_key(q), std::string());
    if (!fresh) return it->second;
    const std::string& source = graph_.tensor(q.tensor).name;
    it->second = writer_.tensor_name(source + "_quantized");
    add_qonnx_quantizer(writer_, options_.dialect, *q.params, rank(q), "quantize_" + it->second, source, it->second);
    return it->second;
  }

  Result<std::string> constant(const PlacedQuantizer& q) {
    auto [it, fresh] = names_.emplace(quantizer_key(q), std::string());
    if (!fresh) return it->second;
    const std::string& source = graph_.tensor(q.tensor).name;
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, q));
    const bool keeps_name = is_only_quantizer(graph_, placement_, q);
    const std::string values = keeps_name ? source : writer_.tensor_name(source + "_values");
    if (keeps_name)
      writer_.replace_initializer(values, DataType::kFloat, stored.shape, pack_floats(stored.values));
    else
      writer_.initializer(values, DataType::kFloat, stored.shape, pack_floats(stored.values));
    it->second = writer_.tensor_name(source + "_quantized");
    if (q.params->layout.granularity == Granularity::kGroup) {
      grouped(q, stored.shape, values, it->second);
    } else {
      add_qonnx_quantizer(writer_, options_.dialect, *q.params, stored.shape.size(), "quantize_" + it->second, values,
                          it->second, {}, true);
    }
    return it->second;
  }

  // Groups as an axis of their own: the tensor is taken apart along its axis, quantized, and put together again.
  void grouped(const PlacedQuantizer& q, const Shape& shape, const std::string& values, const std::string& result) {
    const quant::BlockLayout& l = q.params->layout;
    const auto axis = static_cast<std::ptrdiff_t>(channel_axis(*q.params, shape.size()));
    Shape apart = shape, scales = shape;
    apart[static_cast<std::size_t>(axis)] = l.group;
    apart.insert(apart.begin() + axis, l.dim / l.group);
    scales[static_cast<std::size_t>(axis)] = 1;
    scales.insert(scales.begin() + axis, l.dim / l.group);
    const std::string split = reshape(values, apart, result + "_groups");
    const std::string joined = writer_.tensor_name(result + "_grouped");
    add_qonnx_quantizer(writer_, options_.dialect, *q.params, apart.size(), "quantize_" + result, split, joined, scales,
                        true);
    const std::string target = writer_.tensor_name(result + "_shape");
    writer_.initializer(target, DataType::kInt64, {static_cast<std::int64_t>(shape.size())}, pack_shape(shape));
    writer_.node("Reshape", "join_" + result, {joined, target}, {result});
  }
  std::string reshape(const std::string& source, const Shape& shape, const std::string& wanted) {
    const std::string target = writer_.tensor_name(wanted + "_shape"), result = writer_.tensor_name(wanted);
    writer_.initializer(target, DataType::kInt64, {static_cast<std::int64_t>(shape.size())}, pack_shape(shape));
    writer_.node("Reshape", "split_" + wanted, {source, target}, {result});
    return result;
  }
  static std::string pack_shape(const Shape& shape) {
    return {reinterpret_cast<const char*>(shape.data()), shape.size() * sizeof(std::int64_t)};
  }

  const QuantizedModel& model_;
  const Graph& graph_;
  QonnxOptions options_;
  Placement placement_;
  ModelWriter writer_;
  std::map<NodeId, std::vector<const PlacedQuantizer*>> by_node_;  // that reads or, for outputs, gives the tensor
  std::map<std::string, std::string> names_;                       // quantizer_key() -> quantized tensor
};

class QonnxExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {
        "qonnx", "QONNX",
        "ONNX with a node for each quantizer: integers of any width, signs and minifloats, also with zero points that are "
        "fractions. Read by FINN, hls4ml and the qonnx tools."};
  }
  std::string extension() const override { return ".onnx"; }
  Schema schema() const override {
    return {{choice_field("trunc", "Truncation",
                          "Which version of the operator Trunc cuts the low bits of averages off; the "
                          "domain's version in the file says it, too.",
                          "2",
                          {{"2", "Version 2", "With a scale of its own"},
                           {"1", "Version 1", "Keeps the scale of its input; for tools from before 2024"}}),
             choice_field("groups", "Groups", "Weights with a scale for each group have no node in QONNX.", "refuse",
                          {{"refuse", "Refuse", "Name them"},
                           {"reshape", "Reshape", "Reshape, Quant and Reshape, which every reader computes right"}}),
             choice_field(
                 "domain", "Domain", "The name of the operators' domain.", "qonnx.custom_op.general",
                 {{"qonnx.custom_op.general", "qonnx.custom_op.general", "What today's tools call it"},
                  {"onnx.brevitas", "onnx.brevitas (old)", "What Brevitas called it up to 0.11; with Trunc of version 1"}})}};
  }
  TargetTable table(const json& options) const override { return qonnx_table(qonnx_options(options)); }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    return check_qonnx(model, qonnx_options(options));
  }
  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to QONNX", [&] { return QonnxWriter(model, qonnx_options(options)).write(path, job); });
  }
  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json& options) const override {
    const QonnxOptions o = qonnx_options(options);
    return guarded("Audit of '" + path + "'", [&] { return audit_qonnx(model, path, o.dialect.domain, o.dialect.version); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return read_with_sites(model, path, job);
  }
};
QUANVAS_PLUGIN(Exporter, QonnxExporter)

}  // namespace
}  // namespace quanvas
