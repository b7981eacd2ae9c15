// Quanvas - reads files for Xilinx' DPU again, independently of how they were written.
#pragma once

#include <string>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::onnx_file {

// One row per quantizer. equal: bits, positions of the binary points and every whole number are the model's, and the text
// beside the file says the same of the layer.
Result<std::vector<AuditRow>> audit_dpu(const QuantizedModel& model, const std::string& path, const std::string& text_path,
                                        const std::string& domain);

}  // namespace quanvas::onnx_file
