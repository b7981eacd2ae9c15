// Quanvas - exported GGUF files, read again by the importer's reader, which shares nothing with the writer.
#pragma once

#include <string>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::gguf_file {

// One row per quantizer; of activations it says that the file has none. equal, of weights: every code, scale and offset and
// every dequantized value is the model's (a zero's sign apart), and rows lie along the reduction axis. Besides, a row for
// each float tensor whose values are not the model's.
Result<std::vector<AuditRow>> audit_gguf(const QuantizedModel& model, const std::string& path, bool with_constants);

// The network with the weights that the file holds.
Result<ReadBack> read_gguf(const QuantizedModel& model, const std::string& path);

}  // namespace quanvas::gguf_file
