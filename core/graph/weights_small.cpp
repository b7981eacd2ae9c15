// Types of one byte or less: float8 (OCP and the "UZ" kinds), float4, int4.
// Source: OCP 8-bit Floating Point Specification 1.0; OCP Microscaling Formats 1.0; ONNX, technical note on float8.
#include <cmath>

#include <algorithm>
#include <limits>

#include "core/graph/weights.h"

namespace quanvas {
namespace {

struct Minifloat {
  DataType type;
  int exponent_bits, mantissa_bits, bias;
  bool has_infinity;  // the highest exponent holds infinity and NaN, as in IEEE 754
  bool is_uz;         // no negative zero: its code is the only NaN
  bool has_nan;       // all ones are NaN (of types that are neither of the above)
};

constexpr Minifloat kMinifloats[] = {
    {DataType::kFloat8E4M3Fn, 4, 3, 7, false, false, true},
    {DataType::kFloat8E4M3Fnuz, 4, 3, 8, false, true, true},
    {DataType::kFloat8E5M2, 5, 2, 15, true, false, true},
    {DataType::kFloat8E5M2Fnuz, 5, 2, 16, false, true, true},
    {DataType::kFloat4E2M1, 2, 1, 1, false, false, false},
};

const Minifloat* minifloat(DataType type) {
  for (const Minifloat& f : kMinifloats)
    if (f.type == type) return &f;
  return nullptr;
}

float decode(const Minifloat& f, unsigned code) {
  const int bits = f.exponent_bits + f.mantissa_bits;
  const bool negative = (code >> bits) & 1;
  const unsigned magnitude = code & ((1u << bits) - 1), top = (1u << f.exponent_bits) - 1;
  const unsigned exponent = magnitude >> f.mantissa_bits, mantissa = magnitude & ((1u << f.mantissa_bits) - 1);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  if (f.is_uz && negative && magnitude == 0) return kNan;
  if (f.has_infinity && exponent == top && mantissa != 0) return kNan;
  if (f.has_nan && !f.has_infinity && !f.is_uz && magnitude == (1u << bits) - 1) return kNan;
  float value = std::numeric_limits<float>::infinity();
  if (!f.has_infinity || exponent != top) {
    const auto whole = static_cast<float>(exponent == 0 ? mantissa : mantissa + (1u << f.mantissa_bits));
    value = std::ldexp(whole, static_cast<int>(std::max(exponent, 1u)) - f.bias - f.mantissa_bits);
  }
  return negative ? -value : value;
}

std::uint8_t encode(const Minifloat& f, float value, bool saturate) {
  const int bits = f.exponent_bits + f.mantissa_bits;
  const unsigned sign = std::signbit(value) ? 1u << bits : 0, all = (1u << bits) - 1;
  const unsigned infinity = ((1u << f.exponent_bits) - 1) << f.mantissa_bits;
  const unsigned nan = f.is_uz ? 1u << bits : f.has_infinity ? sign | infinity | 1u : sign | all;
  const unsigned largest = f.has_infinity ? infinity - 1 : f.has_nan && !f.is_uz ? all - 1 : all;
  if (std::isnan(value)) return static_cast<std::uint8_t>(f.has_nan ? nan : 0);
  const unsigned overflow = saturate || !f.has_nan ? sign | largest : f.has_infinity ? sign | infinity : nan;
  if (std::isinf(value)) return static_cast<std::uint8_t>(overflow);
  const float magnitude = std::fabs(value);
  // The step between neighbours at this magnitude; nearbyint rounds ties to even as the type's codes do.
  int exponent = 1 - f.bias;
  if (magnitude > 0) exponent = std::max(std::ilogb(magnitude), exponent);
  const float step = std::ldexp(1.0f, exponent - f.mantissa_bits);
  const auto whole = static_cast<std::int64_t>(std::nearbyint(magnitude / step));
  const std::int64_t code = (static_cast<std::int64_t>(exponent - (1 - f.bias)) << f.mantissa_bits) + whole;
  if (code > static_cast<std::int64_t>(largest)) return static_cast<std::uint8_t>(overflow);
  if (f.is_uz && code == 0) return 0;
  return static_cast<std::uint8_t>(sign | static_cast<unsigned>(code));
}

}  // namespace

bool is_four_bit_type(DataType type) {
  return type == DataType::kUint4 || type == DataType::kInt4 || type == DataType::kFloat4E2M1;
}

bool is_small_type(DataType type) {
  return is_four_bit_type(type) || minifloat(type) || type == DataType::kFloat8E8M0;
}

std::size_t bytes_of(DataType type, std::int64_t count) {
  const auto n = static_cast<std::size_t>(count);
  return is_four_bit_type(type) ? n / 2 + n % 2 : n * element_size(type);
}

float small_value(DataType type, std::uint8_t code) {
  if (const Minifloat* f = minifloat(type)) return decode(*f, code);
  if (type == DataType::kUint4) return static_cast<float>(code & 15);
  if (type == DataType::kInt4) return static_cast<float>((code & 15) - ((code & 8) ? 16 : 0));
  if (type != DataType::kFloat8E8M0) return 0;
  return code == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0f, code - 127);
}

std::uint8_t small_code(DataType type, float value, bool saturate) {
  if (const Minifloat* f = minifloat(type)) return encode(*f, value, saturate);
  const float whole = std::isnan(value) ? 0 : std::nearbyint(value);
  if (type == DataType::kUint4) return static_cast<std::uint8_t>(std::clamp(whole, 0.0f, 15.0f));
  if (type == DataType::kInt4)
    return static_cast<std::uint8_t>(static_cast<int>(std::clamp(whole, -8.0f, 7.0f)) & 15);
  if (type != DataType::kFloat8E8M0 || std::isnan(value)) return 255;
  if (value <= 0) return 0;
  const double power = std::nearbyint(std::log2(static_cast<double>(value)));
  return static_cast<std::uint8_t>(std::clamp(power + 127, 0.0, 254.0));
}

}  // namespace quanvas
