// Quanvas - the forms in which compressed-tensors holds a linear layer, and what its configuration says of each. Sources:
// compressed-tensors, compressors/ and quantization/quant_args.py, quant_scheme.py.
#pragma once

#include <string>
#include <vector>

#include "plugins/exporters/linear_layers.h"

namespace quanvas::compressed {

inline constexpr const char* kInt = "int-quantized";
inline constexpr const char* kPack = "pack-quantized";
inline constexpr const char* kFloat = "float-quantized";
inline constexpr const char* kNvfp4 = "nvfp4-pack-quantized";
inline constexpr const char* kMxfp4 = "mxfp4-pack-quantized";
inline constexpr const char* kMxfp8 = "mxfp8-quantized";

TargetTable table(const json& options);
// The form of a quantized layer under the option `format`; empty: it has none.
std::string form_of(const weight_file::LinearLayer& layer, const json& options);
// Codes and zero points are signed in the file: what is added to those of the quantizer.
inline std::int32_t shift_of(const QuantSpec& spec) {
  return spec.is_signed ? 0 : -(1 << (spec.bits - 1));
}
// The scheme of a layer, without targets and format.
json scheme_of(const weight_file::LinearLayer& layer, const std::string& form);

// NVFP4: e4m3 scales of the groups and the number that they are divided by. exact: e4m3 / divisor are the scales, bit for
// bit.
struct TwoLevels {
  std::vector<std::uint8_t> codes;
  float divisor = 1;
  bool exact = false;
};
TwoLevels two_levels(const std::vector<float>& scale);

}  // namespace quanvas::compressed
