// Quanvas - a written file as a network that runs, with the tensors in it that stand for quantized activations.
#pragma once

#include "core/plugin/registry.h"

namespace quanvas::onnx_file {

// Opens the file as any model is opened. Sites are found by the names of their nodes, which the writers keep; those whose
// node is another one now are left out.
Result<ReadBack> read_with_sites(const QuantizedModel& model, const std::string& path, JobContext& job);

}  // namespace quanvas::onnx_file
