// Quanvas - what the recognition of quantizers in an ONNX file shares; internal to the importer.
#pragma once

#include <functional>

#include "plugins/importers/onnx_quant.h"

namespace quanvas::onnx_import {

// Why nodes are no quantizer of a recipe, as a clause.
Failure no_quantizer(std::string why);
QuantSpec stored_spec();

struct Numbers {
  std::vector<float> values;
  Shape shape;
};
// The values of a constant; `what` names it where it is none.
Result<Numbers> constant_numbers(const Draft& draft, const std::string& tensor, const char* what);
Result<double> constant_number(const Draft& draft, const std::string& tensor, const char* what);
Result<Numbers> scales_of(const Draft& draft, const std::string& tensor);  // above 0, finite
// Zero points as the format has them: none when all are 0, else whole numbers.
Status settle_zero_point(Quantizer& q);
// A quantizer whose input is a constant of real numbers keeps these.
Status take_constant(const Draft& draft, Quantizer& q);
// QuantAvgPool2d as float operators: the sums of square windows of whole numbers without their low bits. False: its attributes
// are none of it, and nothing is added to `out`.
bool expand_integer_average(Draft& draft, const DraftNode& node,
                            const std::function<std::string(const std::string&)>& fresh, std::vector<DraftNode>& out);
// Quant, IntQuant, BipolarQuant, FloatQuant.
Result<Quantizer> qonnx_quantizer(const Draft& draft, std::size_t node);

}  // namespace quanvas::onnx_import
