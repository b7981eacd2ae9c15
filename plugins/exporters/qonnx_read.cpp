#include "plugins/exporters/qonnx_read.h"

#include "core/plugin/placement.h"

namespace quanvas::onnx_file {

Result<ReadBack> read_with_sites(const QuantizedModel& model, const std::string& path, JobContext& job) {
  QUANVAS_TRY(Model written, import_model(path, job));
  ReadBack back;
  back.model = std::make_shared<const Model>(std::move(written));
  const Graph& file = *back.model->graph;
  for (const PlacedQuantizer& q : place(model).quantizers) {
    if (!is_activation(q.site.kind)) continue;
    const std::string& name = model.model->graph->tensor(q.tensor).name;
    if (q.site.kind == SiteKind::kOutput) {
      if (file.tensor(name) != kNoTensor) back.sites[q.site].tensor = name;
      continue;
    }
    const Node* node = file.find(q.reader->name);
    if (node == nullptr || q.inputs.empty()) continue;
    TensorId read = node->input(q.inputs.front());
    // Padding that became a layer of its own stands behind the quantizer.
    const Node* before = read == kNoTensor ? nullptr : file.find(file.tensor(read).producer);
    if (before && before->op == "Pad" && !model.model->graph->find(before->name)) read = before->input(0);
    if (read != kNoTensor && !file.tensor(read).is_initializer) back.sites[q.site].tensor = file.tensor(read).name;
  }
  return back;
}

}  // namespace quanvas::onnx_file
