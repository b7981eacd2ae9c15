// Quanvas - one quantizer as a node of QONNX (Pappalardo et al. 2022; operators of qonnx.custom_op.general, versions 1 and
// 2). Shared by the exporters that write QONNX; their audits do not use it.
#pragma once

#include <optional>
#include <string>

#include "core/plugin/placement.h"
#include "plugins/exporters/onnx_write.h"

namespace quanvas::onnx_file {

struct QonnxDialect {
  std::string domain = "qonnx.custom_op.general";
  int version = 2;  // of the domain: which Trunc there is
};

// QONNX's word for a rounding; empty: it has none.
std::string qonnx_rounding(Rounding rounding);
// Shape of what is stretched over a tensor of this rank: {} for one number, else 1 everywhere but on the axis.
Shape qonnx_broadcast(const quant::QuantParams& params, std::size_t rank, std::size_t count);

// Adds the node `name`, that quantizes `source` to `result`, and its parameters as initializers named after `result`. rank:
// of the tensor. scale_shape: instead of qonnx_broadcast(). on_grid: the values of source are those of the quantizer
// already, so that any rounding is the same.
void add_qonnx_quantizer(ModelWriter& writer, const QonnxDialect& dialect, const quant::QuantParams& params, std::size_t rank,
                         const std::string& name, const std::string& source, const std::string& result,
                         std::optional<Shape> scale_shape = {}, bool on_grid = false);
// A truncated output. Version 1 keeps the scale of its input, so a Mul by the power of two follows.
void add_qonnx_truncation(ModelWriter& writer, const QonnxDialect& dialect, const quant::QuantParams& params,
                          const std::string& name, const std::string& source, const std::string& result);

// The writer's key of a quantizer on a tensor: equal ones share their nodes.
std::string quantizer_key(const PlacedQuantizer& placed);
// Whether every reading of the initializer has this quantizer: it may keep its name in the file.
bool is_only_quantizer(const Graph& graph, const Placement& placement, const PlacedQuantizer& placed);

}  // namespace quanvas::onnx_file
