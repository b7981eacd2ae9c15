// Quanvas - codes, scales and zero points as NumPy arrays (docs/export-targets.md).
#include "core/base/guarded.h"
#include "plugins/exporters/dump.h"
#include "plugins/exporters/npz_write.h"
#include "plugins/importers/npz_file.h"

namespace quanvas {
namespace {

using namespace weight_file;

bool has_type(DataType type) {
  return npz::descr_of(type) != nullptr;
}

struct Opened {
  described::Network network;
  described::Source source;
};

Result<Opened> open(const std::string& path) {
  QUANVAS_TRY(const auto file, npz::File::open(path));
  Opened out;
  QUANVAS_TRY(out.network, described::parse(file->text(npz::kNetworkArray), path));
  out.source = [file](const std::string& name) { return file->tensor(name); };
  return out;
}

class NpzExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"npz", "Codes as NumPy arrays",
            "Every code, scale and zero point as an array for numpy.load, the quantizers and the graph beside them; opens "
            "here again."};
  }
  std::string extension() const override { return ".npz"; }
  Schema schema() const override { return {{packing_field(), graph_field()}}; }
  TargetTable table(const json&) const override { return dump_table(); }
  std::vector<Refusal> check(const QuantizedModel& model, const json&) const override {
    std::vector<Refusal> out = check_dump(model);
    double bytes = 0;
    for (const auto& [name, data] : model.model->weights->all())
      if (model.model->graph->tensor(name) != kNoTensor) bytes += static_cast<double>(data.bytes);
    if (bytes > 0x1p32)
      out.push_back({{},
                     {},
                     "file size",
                     std::to_string(bytes / 0x1p30) + " GiB of weights",
                     "less than 4 GiB",
                     "Export to safetensors.",
                     {},
                     {},
                     false});
    return out;
  }

  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to npz", [&]() -> Status {
      QUANVAS_TRY(Dump dump, make_dump(model, is_dense(options), has_type, job));
      npz::Writer writer;
      for (DumpTensor& t : dump.tensors) QUANVAS_CHECK(writer.add(t.name, t.type, t.shape, std::move(t.bytes)));
      for (auto& [key, text] : description_texts(model, dump.network, options.value("graph", true))) {
        const Shape shape{static_cast<std::int64_t>(text.size())};
        QUANVAS_CHECK(writer.add(key == described::kGraphKey ? npz::kGraphArray : npz::kNetworkArray, DataType::kUint8,
                                 shape, std::move(text)));
      }
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
QUANVAS_PLUGIN(Exporter, NpzExporter)

}  // namespace
}  // namespace quanvas
