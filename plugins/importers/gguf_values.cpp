#include "plugins/importers/gguf_values.h"

#include <cmath>
#include <cstring>

#include "core/graph/weights.h"

namespace quanvas::gguf_in {
namespace {

enum : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kF64 = 28,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39
};

constexpr TypeInfo kTypes[] = {{kF32, "F32", 1, 4},        {kF16, "F16", 1, 2},        {kBF16, "BF16", 1, 2},
                               {kF64, "F64", 1, 8},        {kQ4_0, "Q4_0", 32, 18},    {kQ4_1, "Q4_1", 32, 20},
                               {kQ5_0, "Q5_0", 32, 22},    {kQ5_1, "Q5_1", 32, 24},    {kQ8_0, "Q8_0", 32, 34},
                               {kQ2_K, "Q2_K", 256, 84},   {kQ3_K, "Q3_K", 256, 110},  {kQ4_K, "Q4_K", 256, 144},
                               {kQ5_K, "Q5_K", 256, 176},  {kQ6_K, "Q6_K", 256, 210},  {kIQ4_NL, "IQ4_NL", 32, 18},
                               {kTQ1_0, "TQ1_0", 256, 54}, {kTQ2_0, "TQ2_0", 256, 66}, {kMXFP4, "MXFP4", 32, 17}};

using Bytes = const std::uint8_t*;

template <class T>
T load(Bytes at) {
  T v;
  std::memcpy(&v, at, sizeof v);
  return v;
}
float half(Bytes at) {
  return half_to_float(load<std::uint16_t>(at));
}

// One element of a block: its code and what stands around it.
struct Element {
  std::int32_t code = 0;
  float scale = 0, offset = 0;
};

int nibble(Bytes qs, unsigned e) {
  return e < 16 ? qs[e] & 15 : qs[e - 16] >> 4;
}
int two_bits(Bytes qs, unsigned e) {
  return qs[e / 128 * 32 + e % 32] >> (e / 32 % 4 * 2) & 3;
}

// The six-bit numbers of Q4_K and Q5_K.
void six_bits(Bytes packed, unsigned j, int& scale, int& minimum) {
  if (j < 4) {
    scale = packed[j] & 63;
    minimum = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    minimum = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
}

int q3_scale(Bytes packed, unsigned j) {
  const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
  const int high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
  return (low | high << 4) - 32;
}

int trit(Bytes b, unsigned e) {
  static constexpr unsigned kPower[] = {1, 3, 9, 27, 81};
  unsigned at = 0, n = 0;
  if (e < 160)
    at = e % 32, n = e / 32;
  else if (e < 240)
    at = 32 + (e - 160) % 16, n = (e - 160) / 16;
  else
    at = 48 + (e - 240) % 4, n = (e - 240) / 4;
  const unsigned shifted = b[at] * kPower[n] & 0xff;
  return static_cast<int>(shifted * 3 >> 8) - 1;
}

Element element(std::uint32_t type, Bytes b, unsigned e) {
  int scale = 0, minimum = 0;
  switch (type) {
    case kQ4_0:
      return {nibble(b + 2, e) - 8, half(b), 0};
    case kQ4_1:
      return {nibble(b + 4, e), half(b), half(b + 2)};
    case kQ5_0:
      return {(nibble(b + 6, e) | static_cast<int>(load<std::uint32_t>(b + 2) >> e & 1) << 4) - 16, half(b), 0};
    case kQ5_1:
      return {nibble(b + 8, e) | static_cast<int>(load<std::uint32_t>(b + 4) >> e & 1) << 4, half(b), half(b + 2)};
    case kQ8_0:
      return {static_cast<std::int8_t>(b[2 + e]), half(b), 0};
    case kIQ4_NL:
      return {nibble(b + 2, e), half(b), 0};
    case kMXFP4:
      return {nibble(b + 1, e), std::ldexp(1.0f, b[0] - 127), 0};
    case kQ2_K:
      return {two_bits(b + 16, e), half(b + 80) * static_cast<float>(b[e / 16] & 15),
              -(half(b + 82) * static_cast<float>(b[e / 16] >> 4))};
    case kQ3_K:
      return {two_bits(b + 32, e) - (b[e % 32] >> (e / 32) & 1 ? 0 : 4),
              half(b + 108) * static_cast<float>(q3_scale(b + 96, e / 16)), 0};
    case kQ4_K:
    case kQ5_K: {
      six_bits(b + 4, e / 32, scale, minimum);
      const Bytes qs = b + (type == kQ5_K ? 48 : 16);
      int code = qs[e / 64 * 32 + e % 32] >> (e / 32 % 2 * 4) & 15;
      if (type == kQ5_K) code |= (b[16 + e % 32] >> (e / 32) & 1) << 4;
      return {code, half(b) * static_cast<float>(scale), -(half(b + 2) * static_cast<float>(minimum))};
    }
    case kQ6_K: {
      const unsigned h = e / 128, quarter = e / 32 % 4, l = e % 32;
      const int low = b[h * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
      const int high = b[128 + h * 32 + l] >> (quarter * 2) & 3;
      return {(low | high << 4) - 32, half(b + 208) * static_cast<float>(static_cast<std::int8_t>(b[192 + e / 16])), 0};
    }
    case kTQ1_0:
      return {trit(b, e), half(b + 52), 0};
    case kTQ2_0:
      return {two_bits(b, e) - 1, half(b + 64), 0};
    default:
      return {};
  }
}

float value(std::uint32_t type, const Element& e) {
  static constexpr float kE2m1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};  // a zero has no sign
  static constexpr float kIq4nl[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  if (type == kMXFP4) return kE2m1[e.code] * e.scale;
  if (type == kIQ4_NL) return kIq4nl[e.code] * e.scale;
  const float product = static_cast<float>(e.code) * e.scale;
  const bool has_offset = type == kQ4_1 || type == kQ5_1 || type == kQ2_K || type == kQ4_K || type == kQ5_K;
  return has_offset ? product + e.offset : product;
}

float plain(std::uint32_t type, Bytes at) {
  switch (type) {
    case kF16:
      return half(at);
    case kBF16:
      return bfloat16_to_float(load<std::uint16_t>(at));
    case kF64:
      return static_cast<float>(load<double>(at));
    default:
      return load<float>(at);
  }
}

}  // namespace

const TypeInfo* type_info(std::uint32_t type) {
  for (const TypeInfo& t : kTypes)
    if (t.type == type) return &t;
  return nullptr;
}

void decode(std::uint32_t type, std::string_view bytes, std::uint64_t columns, Row& out) {
  const TypeInfo& info = *type_info(type);
  const auto at = reinterpret_cast<Bytes>(bytes.data());
  const auto n = static_cast<std::size_t>(columns);
  out.values.resize(n);
  const std::size_t blocked = info.block > 1 ? n : 0;
  out.codes.resize(blocked);
  out.scale.resize(blocked);
  out.offset.resize(blocked);
  for (std::size_t i = 0; i < n; ++i) {
    const Bytes block = at + i / info.block * info.bytes;
    if (info.block == 1) {
      out.values[i] = plain(type, block);
      continue;
    }
    const Element e = element(type, block, static_cast<unsigned>(i % info.block));
    out.codes[i] = e.code;
    out.scale[i] = e.scale;
    out.offset[i] = e.offset;
    out.values[i] = value(type, e);
  }
}

}  // namespace quanvas::gguf_in
