// Quanvas - what ONNX QDQ at opset 13 cannot hold.
#pragma once

#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::onnx_file {

inline constexpr int kQdqOpset = 13;  // first with QuantizeLinear and DequantizeLinear per axis

// Trouble of nodes and sizes, whatever the quantizers: what any ONNX file at `opset` cannot hold.
std::vector<Refusal> check_graph(const Model& model, int opset);
TargetTable qdq_table();
std::vector<Refusal> check_qdq(const QuantizedModel& model);

}  // namespace quanvas::onnx_file
