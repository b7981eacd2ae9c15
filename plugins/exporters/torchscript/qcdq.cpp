// Quanvas - quantizers in the float arithmetic of TorchScript: codes are computed, limited and made values of again, in a
// file that any LibTorch runs.
#include "core/base/guarded.h"
#include "core/plugin/placement.h"
#include "plugins/exporters/torchscript/exporters.h"
#include "plugins/exporters/torchscript/writer.h"

namespace quanvas {
namespace {

using namespace torchscript_file;

class TorchScriptQcdqExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"torchscript-qcdq", "TorchScript, quantize and dequantize",
            "Float operators with the rounding of every quantizer spelled out, weights and biases as integers. Portable: any "
            "PyTorch or LibTorch runs it."};
  }
  Schema schema() const override {
    return {
        {choice_field("form", "Activations", "How codes are computed.", "exact",
                      {{"exact", "Division", "clamp(round(x / scale) + zero point): the codes of the screen, ties included."},
                       {"torch", "quantize_per_tensor",
                        "PyTorch's operators, then int_repr and clamp: they multiply by float(1 / scale), so that values "
                        "near the middle of two codes may get the other one unless the scale is a power of two."}})}};
  }
  std::string extension() const override { return ".pt"; }
  TargetTable table(const json&) const override { return float_table(); }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_quantizers(model, table(options));
    for (Refusal& r : check_nodes(model)) out.push_back(std::move(r));
    return out;
  }
  Status write(const QuantizedModel& model, const std::string& path, const json& options, JobContext& job) const override {
    return guarded("Export to TorchScript", [&]() -> Status {
      QUANVAS_TRY(
          const Program program,
          program_of(model, {false, options.value("form", "exact") == "torch" ? Quantize::kTorch : Quantize::kDivide}, job));
      return save(program, path);
    });
  }
  Result<std::vector<AuditRow>> audit(const QuantizedModel& model, const std::string& path, const json&) const override {
    return guarded("Audit of '" + path + "'", [&] { return audit_torchscript(model, path); });
  }
  Result<ReadBack> read(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return guarded("Reading '" + path + "'", [&] { return read_torchscript(model, path, job); });
  }
};
QUANVAS_PLUGIN(Exporter, TorchScriptQcdqExporter)

}  // namespace
}  // namespace quanvas
