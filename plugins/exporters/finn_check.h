// Quanvas - what FINN cannot take. Sources: finn/transformation/qonnx (fold_quant_weights, qonnx_activation_handlers,
// infer_quant_avg_pool_2d) of https://github.com/Xilinx/finn, and Brevitas' FINN export up to 0.9.
#pragma once

#include <optional>
#include <vector>

#include "core/plugin/registry.h"

namespace quanvas::onnx_file {

enum class FinnProfile { kQonnx, kThresholds };
FinnProfile finn_profile(const json& options);
TargetTable finn_table(FinnProfile profile);
std::vector<Refusal> check_finn(const QuantizedModel& model, FinnProfile profile);

// How the weight of a layer stands in the file: MatMul has it as [in, out], whatever the Gemm had.
struct FinnWeight {
  bool matrix = false;      // of a Gemm or MatMul, else of a Conv
  bool transposed = false;  // the Gemm's was [out, in]
};
// None: the node is written as it is.
std::optional<FinnWeight> finn_weight(const Graph& graph, const Node& node);

}  // namespace quanvas::onnx_file
