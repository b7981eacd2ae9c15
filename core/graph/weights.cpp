#include "core/graph/weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/base/hash.h"
#include "core/base/mapped_file.h"

namespace quanvas {
namespace {

struct Half {
  std::uint16_t bits;
};
struct Bfloat16 {
  std::uint16_t bits;
};

float value_of(Half h) {
  return half_to_float(h.bits);
}
float value_of(Bfloat16 b) {
  return bfloat16_to_float(b.bits);
}
template <class T>
T value_of(T v) {
  return v;
}

template <class To, class From>
To converted(From v) {
  if constexpr (std::is_same_v<To, std::int64_t> && std::is_floating_point_v<From>) {
    constexpr double kLimit = 9223372036854775808.0;  // 2^63
    if (std::isnan(v)) return 0;
    if (v >= kLimit) return std::numeric_limits<std::int64_t>::max();
    if (v < -kLimit) return std::numeric_limits<std::int64_t>::min();
  }
  return static_cast<To>(v);
}

// memcpy per element: data of memory-mapped files may stand at any address.
template <class From, class To>
std::vector<To> convert(const TensorData& t) {
  const std::int64_t n = std::min<std::int64_t>(t.count(), static_cast<std::int64_t>(t.bytes / sizeof(From)));
  std::vector<To> out(static_cast<std::size_t>(std::max<std::int64_t>(n, 0)));
  for (std::size_t i = 0; i < out.size(); ++i) {
    From v;
    std::memcpy(&v, t.data + i * sizeof(From), sizeof(From));
    out[i] = converted<To>(value_of(v));
  }
  return out;
}

template <class To>
std::vector<To> convert_small(const TensorData& t) {
  const bool packed = is_four_bit_type(t.type);
  const std::int64_t there = static_cast<std::int64_t>(t.bytes) * (packed ? 2 : 1);
  std::vector<To> out(static_cast<std::size_t>(std::clamp<std::int64_t>(t.count(), 0, there)));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(t.data[packed ? i / 2 : i]);
    const auto code = static_cast<std::uint8_t>(packed ? (i % 2 ? byte >> 4 : byte & 15) : byte);
    out[i] = converted<To>(small_value(t.type, code));
  }
  return out;
}

template <class To>
std::vector<To> convert_any(const TensorData& t) {
  if (is_small_type(t.type)) return convert_small<To>(t);
  switch (t.type) {
    case DataType::kFloat:
      return convert<float, To>(t);
    case DataType::kDouble:
      return convert<double, To>(t);
    case DataType::kFloat16:
      return convert<Half, To>(t);
    case DataType::kBfloat16:
      return convert<Bfloat16, To>(t);
    case DataType::kInt8:
      return convert<std::int8_t, To>(t);
    case DataType::kUint8:
      return convert<std::uint8_t, To>(t);
    case DataType::kInt16:
      return convert<std::int16_t, To>(t);
    case DataType::kUint16:
      return convert<std::uint16_t, To>(t);
    case DataType::kInt32:
      return convert<std::int32_t, To>(t);
    case DataType::kUint32:
      return convert<std::uint32_t, To>(t);
    case DataType::kInt64:
      return convert<std::int64_t, To>(t);
    case DataType::kUint64:
      return convert<std::uint64_t, To>(t);
    case DataType::kBool: {
      auto out = convert<std::uint8_t, To>(t);
      for (To& v : out) v = v != 0;
      return out;
    }
    default:
      return {};
  }
}

template <class T>
TensorData of_values(DataType type, Shape shape, std::vector<T> values) {
  auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  TensorData t;
  t.type = type;
  t.shape = std::move(shape);
  t.data = reinterpret_cast<const std::byte*>(owner->data());
  t.bytes = owner->size() * sizeof(T);
  t.owner = std::move(owner);
  return t;
}

constexpr std::size_t kHashPiece = std::size_t{64} << 20;

void hash_into(Hasher& h, const TensorData& t) {
  h.number(static_cast<int>(t.type)).number(static_cast<std::int64_t>(t.shape.size()));
  h.bytes(t.shape.data(), t.shape.size() * sizeof(std::int64_t));
  h.number(static_cast<std::int64_t>(t.bytes));
  // Piece by piece, so that a file larger than the memory does not fill it.
  for (std::size_t at = 0; at < t.bytes; at += kHashPiece) {
    const std::size_t n = std::min(kHashPiece, t.bytes - at);
    h.bytes(t.data + at, n);
    release_mapped(t.data + at, n);
  }
}

}  // namespace

float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31u, mantissa = bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

float bfloat16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

std::uint16_t float_to_half(float value) {
  const auto sign = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16 & 0x8000u);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00u;
  if (magnitude >= 65520.0f) return sign | 0x7c00u;
  if (magnitude == 0) return sign;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  // Step of the grid: 2^(e-11), not below the subnormals' 2^-24. nearbyint rounds half to even.
  const int step = std::max(exponent - 11, -24);
  const auto units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -step)));
  // units is 11 bits wide for normal numbers; its top bit adds one to the exponent field (and a carry two).
  return static_cast<std::uint16_t>(sign | ((static_cast<std::uint32_t>(step + 24) << 10) + units));
}

TensorData TensorData::copy_of(DataType type, Shape shape, const void* data, std::size_t bytes) {
  std::vector<std::byte> copy(bytes);
  if (bytes) std::memcpy(copy.data(), data, bytes);
  return of_values(type, std::move(shape), std::move(copy));
}

TensorData TensorData::of_floats(Shape shape, std::vector<float> values) {
  return of_values(DataType::kFloat, std::move(shape), std::move(values));
}

TensorData TensorData::of_int64(Shape shape, std::vector<std::int64_t> values) {
  return of_values(DataType::kInt64, std::move(shape), std::move(values));
}

std::vector<float> TensorData::to_floats() const {
  return convert_any<float>(*this);
}
std::vector<std::int64_t> TensorData::to_int64() const {
  return convert_any<std::int64_t>(*this);
}

std::string TensorData::content_hash() const {
  Hasher h;
  hash_into(h, *this);
  return h.hex();
}

const TensorData* WeightStore::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

std::string WeightStore::hash() const {
  Hasher h;
  for (const auto& [name, t] : tensors_) {
    h.text(name);
    hash_into(h, t);
  }
  return h.hex();
}

}  // namespace quanvas
