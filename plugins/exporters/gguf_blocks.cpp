#include "plugins/exporters/gguf_blocks.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "core/graph/weights.h"

namespace quanvas::gguf_file {
namespace {

constexpr int kSuper = 256;

void put_half(std::uint8_t* at, float value) {
  const std::uint16_t bits = float_to_half(value);
  at[0] = static_cast<std::uint8_t>(bits & 0xff);
  at[1] = static_cast<std::uint8_t>(bits >> 8);
}

std::uint16_t to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::uint8_t byte(int v) {
  return static_cast<std::uint8_t>(v);
}

// Nibbles of 32 elements: the first half low, the second high.
void put_nibbles(std::uint8_t* qs, const std::uint8_t* c) {
  for (int i = 0; i < 16; ++i) qs[i] = byte((c[i] & 15) | (c[i + 16] & 15) << 4);
}

// Six-bit scales and offsets of eight sub-blocks in twelve bytes: the low six bits of the first four, then the low
// nibbles of the last four, whose upper two bits stand above the first ones.
void put_six_bits(std::uint8_t* out, const std::int32_t* scale, const std::int32_t* offset) {
  for (int j = 0; j < 4; ++j) {
    out[j] = byte(scale[j] | (scale[j + 4] >> 4) << 6);
    out[j + 4] = byte(offset[j] | (offset[j + 4] >> 4) << 6);
    out[j + 8] = byte((scale[j + 4] & 15) | (offset[j + 4] & 15) << 4);
  }
}

// Trits of a byte: as a fraction of 3^5 in 256ths, rounded up, so that the reader finds the n-th by multiplication.
std::uint8_t trits(int number) {
  return byte((number * 256 + 242) / 243);
}

struct Block {
  const Row& row;
  std::size_t index;      // of the block in its row
  const std::uint8_t* c;  // its codes, less the lowest one

  float scale() const { return row.scale[index]; }
  float offset() const { return row.offset[index]; }
};

void q_one_level(const Form& form, const Block& b, std::uint8_t* out) {
  put_half(out, b.scale());
  out += 2;
  if (form.has_offset) {
    put_half(out, b.offset());
    out += 2;
  }
  if (form.type == Type::kQ5_0 || form.type == Type::kQ5_1) {
    std::uint32_t high = 0;
    for (int i = 0; i < 32; ++i) high |= static_cast<std::uint32_t>(b.c[i] >> 4 & 1) << i;
    for (int i = 0; i < 4; ++i) out[i] = byte(static_cast<int>(high >> (8 * i) & 0xff));
    out += 4;
  }
  put_nibbles(out, b.c);
}

void q8_0(const Block& b, std::uint8_t* out) {
  put_half(out, b.scale());
  for (int i = 0; i < 32; ++i) out[2 + i] = byte(b.c[i] - 128);
}

void mxfp4(const Block& b, std::uint8_t* out) {
  out[0] = byte(std::ilogb(b.scale()) + 127);
  put_nibbles(out + 1, b.c);
}

void q2_k(const Block& b, std::uint8_t* out) {
  const std::int32_t* sc = &b.row.scale_code[b.index * 16];
  const std::int32_t* mn = &b.row.offset_code[b.index * 16];
  for (int i = 0; i < 16; ++i) out[i] = byte(sc[i] | mn[i] << 4);
  std::uint8_t* qs = out + 16;
  for (int e = 0; e < kSuper; ++e) qs[e / 128 * 32 + e % 32] |= byte(b.c[e] << (e % 128 / 32 * 2));
  put_half(out + 80, b.row.super_scale[b.index]);
  put_half(out + 82, b.row.super_offset[b.index]);
}

void q3_k(const Block& b, std::uint8_t* out) {
  std::uint8_t *high = out, *qs = out + 32, *sc = out + 96;
  for (int e = 0; e < kSuper; ++e) {
    high[e % 32] |= byte((b.c[e] >> 2) << (e / 32));
    qs[e / 128 * 32 + e % 32] |= byte((b.c[e] & 3) << (e % 128 / 32 * 2));
  }
  for (int j = 0; j < 16; ++j) {
    const int s = b.row.scale_code[b.index * 16 + static_cast<std::size_t>(j)] + 32;
    sc[j % 8] |= byte((s & 15) << (j / 8 * 4));
    sc[8 + j % 4] |= byte((s >> 4) << (j / 4 * 2));
  }
  put_half(out + 108, b.row.super_scale[b.index]);
}

void q45_k(const Form& form, const Block& b, std::uint8_t* out) {
  put_half(out, b.row.super_scale[b.index]);
  put_half(out + 2, b.row.super_offset[b.index]);
  put_six_bits(out + 4, &b.row.scale_code[b.index * 8], &b.row.offset_code[b.index * 8]);
  std::uint8_t* high = out + 16;
  std::uint8_t* qs = high + (form.type == Type::kQ5_K ? 32 : 0);
  for (int e = 0; e < kSuper; ++e) {
    qs[e / 64 * 32 + e % 32] |= byte((b.c[e] & 15) << (e % 64 / 32 * 4));
    if (form.type == Type::kQ5_K) high[e % 32] |= byte((b.c[e] >> 4) << (e / 32));
  }
}

void q6_k(const Block& b, std::uint8_t* out) {
  std::uint8_t *low = out, *high = out + 128, *sc = out + 192;
  for (int e = 0; e < kSuper; ++e) {
    const int half = e / 128, quarter = e % 128 / 32, l = e % 32;
    low[half * 64 + quarter % 2 * 32 + l] |= byte((b.c[e] & 15) << (quarter / 2 * 4));
    high[half * 32 + l] |= byte((b.c[e] >> 4) << (quarter * 2));
  }
  for (int j = 0; j < 16; ++j) sc[j] = byte(b.row.scale_code[b.index * 16 + static_cast<std::size_t>(j)]);
  put_half(out + 208, b.row.super_scale[b.index]);
}

void tq1_0(const Block& b, std::uint8_t* out) {
  // 32 bytes of five trits, 16 bytes of five, 4 bytes of four; element n * stride + m is the n-th trit of byte m.
  const auto five = [&](int begin, int stride, std::uint8_t* to) {
    for (int m = 0; m < stride; ++m) {
      int number = 0;
      for (int n = 0; n < 5; ++n) number = number * 3 + b.c[begin + n * stride + m];
      to[m] = trits(number);
    }
  };
  five(0, 32, out);
  five(160, 16, out + 32);
  for (int m = 0; m < 4; ++m) {
    int number = 0;
    for (int n = 0; n < 4; ++n) number = number * 3 + b.c[240 + n * 4 + m];
    out[48 + m] = trits(number * 3);
  }
  put_half(out + 52, b.scale());
}

void tq2_0(const Block& b, std::uint8_t* out) {
  for (int e = 0; e < kSuper; ++e) out[e / 128 * 32 + e % 32] |= byte(b.c[e] << (e % 128 / 32 * 2));
  put_half(out + 64, b.scale());
}

void block(const Form& form, const Block& b, std::uint8_t* out) {
  switch (form.type) {
    case Type::kQ8_0:
      return q8_0(b, out);
    case Type::kMXFP4:
      return mxfp4(b, out);
    case Type::kQ2_K:
      return q2_k(b, out);
    case Type::kQ3_K:
      return q3_k(b, out);
    case Type::kQ4_K:
    case Type::kQ5_K:
      return q45_k(form, b, out);
    case Type::kQ6_K:
      return q6_k(b, out);
    case Type::kTQ1_0:
      return tq1_0(b, out);
    case Type::kTQ2_0:
      return tq2_0(b, out);
    default:
      return q_one_level(form, b, out);
  }
}

}  // namespace

const Form& form_of(Type type) {
  static const std::vector<Form> forms = {
      {Type::kF32, "F32", 1, 4, 1, 0, 0, false, 0, 0, 0},
      {Type::kF16, "F16", 1, 2, 1, 0, 0, false, 0, 0, 1},
      {Type::kBF16, "BF16", 1, 2, 1, 0, 0, false, 0, 0, 32},
      {Type::kQ4_0, "Q4_0", 32, 18, 32, -8, 7, false, 0, 0, 2},
      {Type::kQ4_1, "Q4_1", 32, 20, 32, 0, 15, true, 0, 0, 3},
      {Type::kQ5_0, "Q5_0", 32, 22, 32, -16, 15, false, 0, 0, 8},
      {Type::kQ5_1, "Q5_1", 32, 24, 32, 0, 31, true, 0, 0, 9},
      {Type::kQ8_0, "Q8_0", 32, 34, 32, -128, 127, false, 0, 0, 7},
      {Type::kQ2_K, "Q2_K", 256, 84, 16, 0, 3, true, 0, 15, 10},
      {Type::kQ3_K, "Q3_K", 256, 110, 16, -4, 3, false, -32, 31, 11},
      {Type::kQ4_K, "Q4_K", 256, 144, 32, 0, 15, true, 0, 63, 14},
      {Type::kQ5_K, "Q5_K", 256, 176, 32, 0, 31, true, 0, 63, 16},
      {Type::kQ6_K, "Q6_K", 256, 210, 16, -32, 31, false, -128, 127, 18},
      {Type::kIQ4_NL, "IQ4_NL", 32, 18, 32, 0, 15, false, 0, 0, 25},
      {Type::kTQ1_0, "TQ1_0", 256, 54, 256, -1, 1, false, 0, 0, 36},
      {Type::kTQ2_0, "TQ2_0", 256, 66, 256, -1, 1, false, 0, 0, 37},
      {Type::kMXFP4, "MXFP4", 32, 17, 32, 0, 15, false, 0, 0, 38},
  };
  for (const Form& f : forms)
    if (f.type == type) return f;
  throw std::logic_error("A GGUF type without a form.");
}

void pack(Type type, const Row& row, std::string& out) {
  const Form& form = form_of(type);
  const std::size_t blocks = row.codes.size() / static_cast<std::size_t>(form.block);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(form.block)), bytes(static_cast<std::size_t>(form.bytes));
  for (std::size_t i = 0; i < blocks; ++i) {
    for (std::size_t e = 0; e < codes.size(); ++e) codes[e] = byte(row.codes[i * codes.size() + e] - form.lowest);
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
    block(form, {row, i, codes.data()}, bytes.data());
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
}

void pack_floats(Type type, const float* values, std::size_t count, std::string& out) {
  const auto append = [&](auto v) { out.append(reinterpret_cast<const char*>(&v), sizeof v); };
  for (std::size_t i = 0; i < count; ++i) {
    if (type == Type::kF16)
      append(float_to_half(values[i]));
    else if (type == Type::kBF16)
      append(to_bfloat16(values[i]));
    else
      append(values[i]);
  }
}

float rounded(Type type, float value) {
  if (type == Type::kF16) return half_to_float(float_to_half(value));
  if (type == Type::kBF16) return bfloat16_to_float(to_bfloat16(value));
  return value;
}

}  // namespace quanvas::gguf_file
