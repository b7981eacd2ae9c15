// Quanvas - reads exported FINN files again, independently of how they were written.
#pragma once

#include <string>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::onnx_file {

// One row per quantizer. Quantizers of activations are looked for before the layer that reads them, also past operators that
// only select values. equal: the same steps, codes, scales and types; thresholds are tried at themselves and just below.
Result<std::vector<AuditRow>> audit_finn(const QuantizedModel& model, const std::string& path, bool thresholds);

}  // namespace quanvas::onnx_file
