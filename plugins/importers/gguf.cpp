// GGUF files that carry a network's graph, as our exporter writes them, and those of the architecture llama: weights as the
// file holds them, dequantized.
#include "core/base/guarded.h"
#include "core/plugin/registry.h"
#include "plugins/importers/gguf_contents.h"
#include "plugins/importers/gguf_llama.h"

namespace quanvas {
namespace {

class GgufImporter final : public Importer {
 public:
  PluginInfo info() const override {
    return {"gguf", "GGUF",
            "Llamas, and networks that Quanvas has written with their graph; blocks of quantized weights become floats."};
  }
  std::vector<std::string> extensions() const override { return {".gguf"}; }
  int probe(const std::string&, const std::string& head) const override { return head.starts_with("GGUF") ? 100 : 0; }

  Result<Imported> load(const std::string& path, const ImportOptions&, JobContext& job) const override {
    return guarded(path, [&]() -> Result<Imported> {
      job.progress("read", 0, path);
      QUANVAS_TRY(const gguf_in::File file, gguf_in::read(path));
      QUANVAS_CHECK(job.check());
      QUANVAS_TRY(std::optional<Model> model, gguf_in::network(file, path));
      if (model) return Imported(std::move(*model));
      const std::string architecture(file.text("general.architecture"));
      if (architecture == "llama" && !file.tensors.empty()) {
        QUANVAS_TRY(Model llama, gguf_in::llama_network(file, path, job));
        return Imported(std::move(llama));
      }
      return fail(ErrorCode::kUnsupported,
                  "'" + path + "' holds " + std::to_string(file.tensors.size()) + " tensors" +
                      (architecture.empty() ? "" : " of the architecture '" + architecture.substr(0, 60) + "'") +
                      ", but no graph that says how they are computed with.",
                  "Open the network's ONNX or TorchScript file; Llamas, and GGUF files that Quanvas writes with their graph, "
                  "can be opened.");
    });
  }
};
QUANVAS_PLUGIN(Importer, GgufImporter)

}  // namespace
}  // namespace quanvas
