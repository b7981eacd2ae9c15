// Quanvas - reads exported QONNX files again, independently of how they were written: from each layer's node back to its
// quantizer's node, whose formula is evaluated in float32 as the qonnx tools do.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/plugin/placement.h"
#include "plugins/exporters/onnx_scan.h"

namespace quanvas::onnx_file {

// A Quant, BipolarQuant, FloatQuant or Trunc of a file.
struct QonnxNode {
  std::string op, rounding, source;  // source: what is quantized
  std::vector<float> scale, zero_point;
  Shape scale_shape;
  float bits = 0;
  bool is_signed = true, narrow = false;
  float exponent_bits = 0, mantissa_bits = 0, exponent_bias = 0, largest = 0;  // FloatQuant
  bool saturates = true, has_inf = false, has_nan = false;
  float sum_scale = 0, sum_bits = 0, cut = 1;  // Trunc; cut: what a Mul behind version 1 multiplies by
  bool keeps_scale = false;                    // Trunc of version 1
  double bytes = 0;                            // of its parameters
};
// The node that gives the tensor, seen through a Reshape; none: no such quantizer, or one whose parameters are no
// constants of the right shapes.
std::optional<QonnxNode> qonnx_node(const onnx_scan::Index& file, const std::string& tensor, const std::string& domain);
// The value that it gives for x, with its parameter number k.
float qonnx_value(const QonnxNode& node, std::size_t k, float x);
std::string qonnx_text(const QonnxNode& node);

// Whether the node says what the quantizer is: parameters bit for bit, and the same values at every step and every tie
// between the codes (of wide ones: at some of them). shape: of the tensor; empty: unknown.
bool is_same_quantizer(const quant::QuantParams& params, const QonnxNode& node, const Shape& shape, bool constant);
// The values of an initializer: those that the quantizer stands for, bit for bit, and left so by the node. `values` are
// the initializer's.
bool is_same_constant(const QuantizedModel& model, const PlacedQuantizer& placed, const QonnxNode& node,
                      const std::vector<float>& values, const Shape& shape);

// One row per quantizer, plus one for each on a site that should be float. equal: also domain and version are those.
Result<std::vector<AuditRow>> audit_qonnx(const QuantizedModel& model, const std::string& path, const std::string& domain,
                                          int version);

}  // namespace quanvas::onnx_file
