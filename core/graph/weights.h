// Quanvas - the data of initializers, by tensor name. Immutable and shared: a pass that changes one weight
// makes a new store that shares the others' bytes. Thread-safe once built.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/graph/graph.h"

namespace quanvas {

// Row-major bytes, little endian, in the element type's own layout. `owner` keeps them alive (a vector, a
// memory map); data may be unaligned for memory-mapped files.
struct TensorData {
  DataType type = DataType::kUndefined;
  Shape shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;

  static TensorData copy_of(DataType type, Shape shape, const void* data, std::size_t bytes);
  static TensorData of_floats(Shape shape, std::vector<float> values);
  static TensorData of_int64(Shape shape, std::vector<std::int64_t> values);
  std::int64_t count() const { return element_count(shape); }
  // Converted to float32 whatever the element type (float16, float8, int4 ...); empty for strings. Never reads past
  // `bytes`: fewer values come back when data is missing.
  std::vector<float> to_floats() const;
  std::vector<std::int64_t> to_int64() const;  // the same; reals are truncated and saturate, nan is 0
  std::string content_hash() const;
};

float half_to_float(std::uint16_t bits);      // IEEE 754 binary16
float bfloat16_to_float(std::uint16_t bits);
std::uint16_t float_to_half(float value);     // rounds half to even, overflows to infinity

// The types of one byte or less: their values by code, and the bytes that `count` of them take (ONNX packs two
// four-bit codes into a byte, the first in the low half). small_value: 0 for other types.
bool is_small_type(DataType type);        // float8 of every kind, float4, int4, uint4
bool is_four_bit_type(DataType type);     // float4, int4, uint4
std::size_t bytes_of(DataType type, std::int64_t count);
float small_value(DataType type, std::uint8_t code);
// The code of the nearest value, ties to even. What is too large becomes the largest finite value when `saturate` is
// set, else infinity or NaN, whichever the type has (float4 and the integers always saturate).
std::uint8_t small_code(DataType type, float value, bool saturate = true);

class WeightStore {
 public:
  const TensorData* find(const std::string& name) const;
  const std::map<std::string, TensorData>& all() const { return tensors_; }
  void set(const std::string& name, TensorData data) { tensors_[name] = std::move(data); }
  void erase(const std::string& name) { tensors_.erase(name); }
  std::string hash() const;  // of all names, types, shapes and bytes

 private:
  std::map<std::string, TensorData> tensors_;
};
using WeightsPtr = std::shared_ptr<const WeightStore>;

// What an importer returns and what passes transform.
struct Model {
  GraphPtr graph;
  WeightsPtr weights;
  std::string source;  // path of the file it came from
};
using ModelPtr = std::shared_ptr<const Model>;

}  // namespace quanvas
