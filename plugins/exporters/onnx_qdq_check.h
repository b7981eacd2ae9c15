// Quanvas - what ONNX QDQ cannot hold.
#pragma once

#include <vector>

#include "core/plugin/placement.h"
#include "core/plugin/registry.h"
#include "plugins/exporters/onnx_storage.h"

namespace quanvas::onnx_file {

// Trouble of nodes and sizes, whatever the quantizers: what any ONNX file at `opset` cannot hold.
std::vector<Refusal> check_graph(const Model& model, int opset);
// Of the opset that is asked for only what it has; of none everything.
TargetTable qdq_table(const QdqOptions& options);
std::vector<Refusal> check_qdq(const QuantizedModel& model, const QdqOptions& options);
// Whether an activation's scale is found at run time: then the file is for one sample.
bool is_for_one_sample(const QuantizedModel& model);
// Of a quantizer whose scale is found at run time: what DynamicQuantizeLinear computes in another way.
void check_dynamic(const QuantizedModel& model, const PlacedQuantizer& q, std::vector<Refusal>& out);

}  // namespace quanvas::onnx_file
