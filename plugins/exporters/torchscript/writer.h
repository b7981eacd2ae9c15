// Quanvas - a quantized network as a TorchScript program.
#pragma once

#include "core/plugin/registry.h"
#include "plugins/exporters/torchscript/program.h"

namespace quanvas::torchscript_file {

enum class Quantize {
  kDivide,  // clamp(round(x / s) + z) in float32
  kTorch,   // torch.quantize_per_tensor and _per_channel, which multiply by float(1 / s); then int_repr and clamp
};
struct Form {
  bool packed = false;                    // quantized:: operators on quantized tensors where a layer has all its quantizers
  Quantize quantize = Quantize::kDivide;  // of what is not packed
};

// check() of the exporter has refused what has no place in the program.
Result<Program> program_of(const QuantizedModel& model, const Form& form, JobContext& job);

}  // namespace quanvas::torchscript_file
