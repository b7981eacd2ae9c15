// Quanvas - ONNX as it is: the current graph and its float weights, at the model's own opset.
#include "core/base/guarded.h"
#include "core/plugin/registry.h"
#include "plugins/exporters/onnx_audit.h"
#include "plugins/exporters/onnx_qdq_check.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas {

namespace {

class OnnxFloatExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"onnx", "ONNX (float)",
            "The network with its float weights after the recipe's graph and weight passes, without quantizers, at "
            "the model's opset."};
  }
  std::string extension() const override { return ".onnx"; }
  bool needs_quantizers() const override { return false; }
  Schema schema() const override { return {{onnx_file::external_field()}}; }
  std::vector<std::string> files(const std::string& path, const json& options) const override {
    return onnx_file::onnx_files(path, onnx_file::qdq_options(options).external);
  }

  std::vector<Refusal> check(const QuantizedModel& model, const json&) const override {
    return onnx_file::check_graph(*model.model, model.model->graph->opset());
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to ONNX", [&]() -> Status {
      const Graph& graph = *model.model->graph;
      onnx_file::ModelWriter writer(*model.model, graph.opset());
      std::size_t done = 0;
      for (const Node& node : graph.nodes()) {
        QUANVAS_CHECK(job.check());
        QUANVAS_CHECK(writer.copy(onnx_file::draft_of(graph, node)));
        job.progress("export", static_cast<double>(++done) / static_cast<double>(graph.nodes().size()), node.name);
      }
      return writer.save(path, onnx_file::qdq_options(options).external);
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path,
                                      const json&) const override {
    return guarded("Audit of '" + path + "'", [&] { return onnx_file::audit_float(*model.model, path); });
  }
};
QUANVAS_PLUGIN(Exporter, OnnxFloatExporter)

}  // namespace

}  // namespace quanvas
