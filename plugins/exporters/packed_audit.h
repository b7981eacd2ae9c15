// Quanvas - reads files of packed linear layers again (compressed-tensors, GPTQ, AWQ) as their readers do: config.json says
// what the tensors are, and where it was not written the file's own description. Nothing of the writers is used but the
// names of the layers.
#pragma once

#include <string>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::weight_file {

// method: "compressed-tensors", "gptq", "awq". config: path of config.json, empty: none was written. One row per quantizer;
// one more for each layer or tensor that the file has in another way than asked for.
Result<std::vector<AuditRow>> audit_packed(const QuantizedModel& model, const std::string& path, const std::string& config,
                                           const std::string& method);
// The screen's graph with the weights of the file.
Result<ReadBack> read_packed(const QuantizedModel& model, const std::string& path, const std::string& config,
                             const std::string& method);

}  // namespace quanvas::weight_file
