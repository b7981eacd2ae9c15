// Quanvas - what QONNX cannot hold.
#pragma once

#include "core/plugin/registry.h"
#include "plugins/exporters/qonnx_nodes.h"

namespace quanvas::onnx_file {

inline constexpr int kQonnxOpset = 13;  // of ai.onnx, at least: what FINN and QONNX read without conversion

struct QonnxOptions {
  QonnxDialect dialect;
  bool groups = false;  // written as Reshape, Quant, Reshape
};
QonnxOptions qonnx_options(const json& options);

TargetTable qonnx_table(const QonnxOptions& options);
std::vector<Refusal> check_qonnx(const QuantizedModel& model, const QonnxOptions& options);

// What tables cannot say of quantizers that QONNX's formula is to compute, as refusals: codes that a pass has narrowed,
// and constants that float32 does not give back when they are quantized once more.
std::vector<Refusal> check_codes(const QuantizedModel& model);
// Trunc nodes of the other version in the network itself.
std::vector<Refusal> check_trunc_nodes(const Graph& graph, int version);

}  // namespace quanvas::onnx_file
