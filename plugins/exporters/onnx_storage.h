// Quanvas - in which of ONNX's types the codes and scales of a quantizer are stored, and their bytes. For the writers of
// ONNX files; their readers share nothing with it.
//
// Types that came after opset 18 go by their number in TensorProto.DataType: the protobuf classes of the library have
// names up to 16 only, but their fields hold any number (onnx.proto, IR version 13).
#pragma once

#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/plugin/placement.h"

namespace quanvas::onnx_file {

inline constexpr int kQdqOpset = 13;     // first with QuantizeLinear and DequantizeLinear per axis
inline constexpr int kNewestOpset = 25;  // that the writers know

inline constexpr auto kUint2 = static_cast<DataType>(25);
inline constexpr auto kInt2 = static_cast<DataType>(26);

// How the user wants the file. Incomplete JSON gets the defaults.
struct QdqOptions {
  int opset = 0;          // of ai.onnx; 0: the lowest that holds everything
  bool native = false;    // narrow types of ONNX's own: 4 and 2 bit integers, float8e8m0 scales of power-of-two blocks
  bool external = false;  // weights in a second file beside the model, however small they are
};
QdqOptions qdq_options(const json& options);

struct Storage {
  DataType codes = DataType::kInt8;    // of codes and zero points
  DataType scales = DataType::kFloat;  // float32, or float8e8m0
  int since = kQdqOpset;               // the first opset with it
  bool clips = false;                  // of activations: codes are fewer than those of the type
};
// The quantizer must be one that the target's table takes.
Storage storage_of(const PlacedQuantizer& placed, const QdqOptions& options);
// The first opset that holds all of the model's quantizers, and not below the model's own; options.opset when it is given.
int opset_of(const QuantizedModel& model, const QdqOptions& options);

int bits_of(DataType type);  // of one element: 2, 4, 8, 16, 32
// Row-major bytes of `codes`, little endian. Several to a byte where they are narrower: the first in the lowest bits,
// rows not aligned, padded at the very end only (onnx.proto, TensorProto.raw_data).
std::string pack_codes(DataType type, const std::vector<std::int32_t>& codes);
std::string pack_floats(const std::vector<float>& values);
// Powers of two from 2^-126 to 2^127 as float8e8m0, one byte each (OCP Microscaling Formats 1.0, 5.4.1).
std::string pack_exponents(const std::vector<float>& values);

}  // namespace quanvas::onnx_file
