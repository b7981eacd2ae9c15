// Quanvas - codes, scales and zero points as tensors of a safetensors file: our own contract, for readers that are still to
// be written (docs/export-targets.md).
#include "core/base/guarded.h"
#include "plugins/exporters/dump.h"
#include "plugins/exporters/safetensors_write.h"
#include "plugins/importers/safetensors_file.h"

namespace quanvas {
namespace {

using namespace weight_file;

bool has_type(DataType type) {
  return safetensors::dtype_of(type) != nullptr;
}

struct Opened {
  std::shared_ptr<const safetensors::File> file;
  described::Network network;
  described::Source source;
};

Result<Opened> open(const std::string& path) {
  Opened out;
  QUANVAS_TRY(out.file, safetensors::File::open(path));
  const std::string* text = out.file->metadata(described::kNetworkKey);
  if (!text) return fail(ErrorCode::kCorrupt, "'" + path + "' does not say what its tensors are.", "Export it again.");
  QUANVAS_TRY(out.network, described::parse(*text, path));
  out.source = [file = out.file](const std::string& name) { return file->tensor(name); };
  return out;
}

class SafetensorsExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"safetensors", "Codes as safetensors",
            "Every code, scale and zero point as a tensor, the quantizers and the graph beside them; opens here again."};
  }
  std::string extension() const override { return ".safetensors"; }
  Schema schema() const override { return {{packing_field(), graph_field()}}; }
  TargetTable table(const json&) const override { return dump_table(); }
  std::vector<Refusal> check(const QuantizedModel& model, const json&) const override { return check_dump(model); }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to safetensors", [&]() -> Status {
      QUANVAS_TRY(Dump dump, make_dump(model, is_dense(options), has_type, job));
      safetensors::Writer writer;
      for (DumpTensor& t : dump.tensors) QUANVAS_CHECK(writer.add(t.name, t.type, std::move(t.shape), std::move(t.bytes)));
      for (auto& [key, text] : description_texts(model, dump.network, options.value("graph", true)))
        writer.metadata(key, std::move(text));
      QUANVAS_CHECK(job.check());
      return writer.save(path);
    });
  }

  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path, const json&) const override {
    return guarded("Audit of '" + path + "'", [&]() -> Result<std::vector<AuditRow>> {
      QUANVAS_TRY(const Opened file, open(path));
      return audit_dump(model, file.source, file.network);
    });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext&) const override {
    return guarded("Reading '" + path + "'", [&]() -> Result<ReadBack> {
      QUANVAS_TRY(const Opened file, open(path));
      return read_dump(model, file.source, file.network);
    });
  }
};
QUANVAS_PLUGIN(Exporter, SafetensorsExporter)

}  // namespace
}  // namespace quanvas
