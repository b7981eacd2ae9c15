// safetensors files of our own: weights in any of the packings that the exporters write, with the graph beside them.
#include "core/plugin/registry.h"
#include "plugins/importers/described_network.h"
#include "plugins/importers/safetensors_file.h"

namespace quanvas {
namespace {

class SafetensorsImporter final : public Importer {
 public:
  PluginInfo info() const override {
    return {"safetensors", "safetensors", "Files of weights that Quanvas has written with the graph beside them."};
  }
  std::vector<std::string> extensions() const override { return {".safetensors"}; }
  int probe(const std::string& path, const std::string& head) const override {
    const bool looks = safetensors::looks_like_safetensors(head);
    return path.ends_with(".safetensors") ? (looks ? 100 : 80) : looks ? 30 : 0;
  }
  Result<Imported> load(const std::string& path, const ImportOptions& options, JobContext& job) const override {
    QUANVAS_TRY(const auto file, safetensors::File::open(path));
    const std::string* graph = file->metadata(described::kGraphKey);
    const std::string* network = file->metadata(described::kNetworkKey);
    if (!graph || !network)
      return fail(ErrorCode::kUnsupported,
                  "'" + path + "' holds weights alone: nothing in it says what the network computes.",
                  "Open the model as ONNX or TorchScript. Files of weights open when Quanvas has written them with the "
                  "option 'graph'.");
    return described::load([&](const std::string& name) { return file->tensor(name); }, *graph, *network, path, options,
                           job);
  }
};
QUANVAS_PLUGIN(Importer, SafetensorsImporter)

}  // namespace
}  // namespace quanvas
