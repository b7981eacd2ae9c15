// Quanvas - protobuf's wire format of an ONNX file, where the file is too large for the library: it holds at most
// 2 GiB, and all of it in memory.
#pragma once

#include <string>
#include <string_view>

#include "core/base/result.h"

namespace quanvas::onnx_import {

inline constexpr std::size_t kLargeTensor = 1 << 16;  // bytes

// The same model without the raw data of large initializers and constants (kLargeTensor bytes or more): these tensors
// become external ones with an empty location, an offset and a length in `file`. kCorrupt with the place for what is
// no such file. Fields that are not known are kept.
Result<std::string> without_large_tensors(std::string_view file);

}  // namespace quanvas::onnx_import
