// Quanvas - PyTorch's quantized inference operators: quantize_per_tensor -> quantized::conv2d, linear, add ... on quint8
// tensors -> dequantize, in a TorchScript file. Contract: torch/ao/nn/quantized and ATen/native/quantized of PyTorch 1.13.
#include "core/base/guarded.h"
#include "core/plugin/placement.h"
#include "plugins/exporters/torchscript/exporters.h"
#include "plugins/exporters/torchscript/writer.h"

namespace quanvas {
namespace {

using namespace torchscript_file;

std::string profile_of(const json& options) { return options.value("profile", "onednn"); }

class TorchScriptQuantizedExporter final : public Exporter {
 public:
  PluginInfo info() const override {
    return {"torchscript-quantized", "TorchScript, quantized operators",
            "PyTorch's quantized inference: layers compute 8-bit integers from 8-bit integers. Runs in PyTorch and LibTorch "
            "without Quanvas."};
  }
  Schema schema() const override {
    return {{choice_field("profile", "Runs with", "Whose limits are asked; the file is the same.", "onednn",
                          {{"onednn", "oneDNN", "x86-64 with VNNI; LibTorch 1.13's own choice in Debian."},
                           {"qnnpack", "QNNPACK", "ARM and phones."},
                           {"fbgemm", "FBGEMM", "x86-64 without VNNI: weights of at most 7 bits."},
                           {"relay", "TVM Relay", "from_pytorch of TVM 0.8 to 0.19: convolutions over 2 axes only."}})}};
  }
  std::string extension() const override { return ".pt"; }
  TargetTable table(const json& options) const override { return packed_table(profile_of(options)); }
  std::vector<Refusal> check(const QuantizedModel& model, const json& options) const override {
    std::vector<Refusal> out = check_quantizers(model, table(options));
    for (Refusal& r : check_nodes(model)) out.push_back(std::move(r));
    for (Refusal& r : check_packed(model, profile_of(options))) out.push_back(std::move(r));
    return out;
  }
  Status write(const QuantizedModel& model, const std::string& path, const json&, JobContext& job) const override {
    return guarded("Export to TorchScript", [&]() -> Status {
      QUANVAS_TRY(const Program program, program_of(model, {true, Quantize::kTorch}, job));
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
QUANVAS_PLUGIN(Exporter, TorchScriptQuantizedExporter)

}  // namespace
}  // namespace quanvas
