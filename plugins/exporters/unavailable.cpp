// Quanvas - targets that others have had and that are not offered here, each with the reason and what to use instead.
#include <utility>

#include "core/plugin/registry.h"

namespace quanvas {
namespace {

class Unavailable : public Exporter {
 public:
  Unavailable(PluginInfo info, std::string extension, std::string why)
      : info_(std::move(info)), extension_(std::move(extension)), why_(std::move(why)) {}
  PluginInfo info() const override { return info_; }
  std::string extension() const override { return extension_; }
  std::string unavailable() const override { return why_; }
  // The engine asks unavailable() first; whoever does not gets the same answer.
  std::vector<Refusal> check(const QuantizedModel&, const json&) const override {
    return {{"", "", "target", info_.title, "targets that are available", why_, {}, {}, false}};
  }
  Status write(const QuantizedModel&, const std::string&, const json&, JobContext&) const override {
    return fail(ErrorCode::kUnsupported, "'" + info_.id + "' is not available.", why_);
  }
  Result<std::vector<AuditRow>> audit(const QuantizedModel&, const std::string&, const json&) const override {
    return fail(ErrorCode::kUnsupported, "'" + info_.id + "' is not available.", why_);
  }

 private:
  PluginInfo info_;
  std::string extension_, why_;
};

class Xir final : public Unavailable {
 public:
  Xir()
      : Unavailable(
            {"xir", "Xilinx XIR (xmodel)", "Compiled graphs for Xilinx' DPU."}, ".xmodel",
            "An xmodel is written by Xilinx' library libxir, which Debian does not have and without which no file could be "
            "checked here; export to pyxir, from which Xilinx' compilers start.") {}
};
QUANVAS_PLUGIN(Exporter, Xir)

class SharkTank final : public Unavailable {
 public:
  SharkTank()
      : Unavailable(
            {"sharktank", "SHARK (IRPA)", "Parameter archives of SHARK Tank for IREE."}, ".irpa",
            "An archive follows the classes of the Python package sharktank, without which no file could be checked here; "
            "use safetensors with a quantization_config, or GGUF.") {}
};
QUANVAS_PLUGIN(Exporter, SharkTank)

class TorchMlirPacked final : public Unavailable {
 public:
  TorchMlirPacked()
      : Unavailable(
            {"torch-mlir-packed", "torch-MLIR, packed groups", "Products of packed 2 and 4 bit groups in the dialect torch."},
            ".mlir",
            "The form is an operator of Brevitas in a graph that Python traces for torch-MLIR, and neither was there to "
            "check "
            "a file; use onnx-qdq, which torch-MLIR imports.") {}
};
QUANVAS_PLUGIN(Exporter, TorchMlirPacked)

class VllmBrevitas final : public Unavailable {
 public:
  VllmBrevitas()
      : Unavailable({"vllm-brevitas", "vLLM, Brevitas' own form", "Checkpoints of Brevitas for its vLLM plug-in."},
                    ".safetensors",
                    "Brevitas' own plug-in for vLLM reads this form, by the names of its Python classes, and could not be "
                    "had here; use "
                    "safetensors in the form compressed-tensors, which vLLM reads itself.") {}
};
QUANVAS_PLUGIN(Exporter, VllmBrevitas)

}  // namespace
}  // namespace quanvas
