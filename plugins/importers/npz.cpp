// .npz files of our own: codes, scales and zero points as NumPy arrays, with the graph beside them.
#include "core/plugin/registry.h"
#include "plugins/importers/described_network.h"
#include "plugins/importers/npz_file.h"

namespace quanvas {
namespace {

class NpzImporter final : public Importer {
 public:
  PluginInfo info() const override {
    return {"npz", "NumPy archive", "Archives of NumPy arrays that Quanvas has written with the graph beside them."};
  }
  std::vector<std::string> extensions() const override { return {".npz"}; }
  int probe(const std::string& path, const std::string&) const override { return path.ends_with(".npz") ? 90 : 0; }
  Result<Imported> load(const std::string& path, const ImportOptions& options, JobContext& job) const override {
    QUANVAS_TRY(const auto file, npz::File::open(path));
    const std::string graph = file->text(npz::kGraphArray), network = file->text(npz::kNetworkArray);
    if (graph.empty() || network.empty())
      return fail(
          ErrorCode::kUnsupported, "'" + path + "' holds arrays alone: nothing in it says what the network computes.",
          "Open the model as ONNX or TorchScript. Archives open when Quanvas has written them with the option 'graph'.");
    return described::load([&](const std::string& name) { return file->tensor(name); }, graph, network, path, options, job);
  }
};
QUANVAS_PLUGIN(Importer, NpzImporter)

}  // namespace
}  // namespace quanvas
