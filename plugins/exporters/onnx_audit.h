// Quanvas - reads exported ONNX files again, independently of how they were written: from each layer's node
// back through DequantizeLinear, Clip and QuantizeLinear to what the file really holds.
#pragma once

#include <string>
#include <vector>

#include "core/plugin/placement.h"
#include "core/plugin/registry.h"
#include "plugins/exporters/onnx_file.h"

namespace quanvas::onnx_file {

// One row per requested quantizer, plus one for each quantizer that the file has on a site that should be
// float. equal: scales, zero points, code range and (weights, biases) every code and every dequantized value
// are bit for bit the model's.
Result<std::vector<AuditRow>> audit_qdq(const QuantizedModel& model, const std::string& path);

// What the model asks for, in the words of a row.
AuditRow asked_row(const PlacedQuantizer& placed);
// The row of a quantizer that stands as QuantizeLinear and DequantizeLinear around an operator in float.
AuditRow qdq_row(const QuantizedModel& model, const OnnxFile& file, const PlacedQuantizer& placed);

// Where in the re-imported file (back.model) the values are that each activation quantizer gives: back.sites, by the
// sites of `model`; found by walking the file's nodes. What is not there becomes a note.
Status find_held(const QuantizedModel& model, const std::string& path, ReadBack& back);

// One row per weight and bias: type, shape and bytes in the file against the model's.
Result<std::vector<AuditRow>> audit_float(const Model& model, const std::string& path);

}  // namespace quanvas::onnx_file
