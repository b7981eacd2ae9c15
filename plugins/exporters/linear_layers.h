// Quanvas - the linear layers of a network under the names that Hugging Face's readers know them by: modules with a weight
// [out, in] and perhaps a bias. Shared by the exporters of packed weights and their audits; the packings are not.
#pragma once

#include <string>
#include <vector>

#include "plugins/exporters/file_tensors.h"

namespace quanvas::weight_file {

struct LinearLayer {
  const Node* node = nullptr;
  std::string module;        // "model.layers.0.mlp.up_proj", unique
  std::string weight, bias;  // initializers; bias: empty when there is none of shape [out]
  std::int64_t out = 0, in = 0;
  bool transposed = false;  // the initializer is [in, out]
  int channel_axis = 0, reduction_axis = 1;
  Site site;                                      // of the weight
  const quant::QuantParams* quantizer = nullptr;  // of the weight; null: float
  const quant::QuantParams* input = nullptr;      // of the activations; null: float
};
// MatMul and Gemm that compute x W^T + b with a matrix from the file. The module's name is the initializer's without
// ".weight"; where it says nothing, or other nodes read the matrix, too, the node's.
std::vector<LinearLayer> linear_layers(const QuantizedModel& model);

// The name of an initializer that is not packed: a module's bias or float weight (transposed: [out, in] of [in, out]), or
// its own.
std::string plain_name(const QuantizedModel& model, const std::vector<LinearLayer>& layers, TensorId id, bool& transposed);

// A quantized matrix in the file's order.
struct MatrixCodes {
  std::int64_t groups = 1;          // of a row
  std::vector<std::int32_t> codes;  // [out, in]
  std::vector<float> scale;         // [out, groups]
  std::vector<std::int32_t> zero;   // [out, groups]; 0 without zero points
  std::vector<float> values;        // [out, in], as the screen has them
};
Result<MatrixCodes> matrix_codes(const QuantizedModel& model, const LinearLayer& layer);

// What a target of packed linear layers asks: check_quantizers() with its table; quantizers elsewhere than at linear
// layers; scales of output channels or of groups of inputs, which divide them; zero points within the codes.
std::vector<Refusal> check_linear(const QuantizedModel& model, const TargetTable& table);
// A refusal at the weight of a layer.
Refusal at_weight(const LinearLayer& layer, std::string rule, std::string got, std::string allowed, std::string suggestion);

// Codes and zero points count from 0 in the file (GPTQ, AWQ) where those of signed quantizers begin at this.
inline std::int32_t lowest_code(const QuantSpec& spec) {
  return spec.is_signed ? -(1 << (spec.bits - 1)) : 0;
}

}  // namespace quanvas::weight_file
