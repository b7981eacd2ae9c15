// Dense codes against a plain reference that sets one bit after the other.
#include <gtest/gtest.h>

#include "core/quant/kernels.h"
#include "core/quant/packing.h"
#include "tests/core/quant/reference.h"

namespace quanvas::quant::test {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Codes = std::vector<std::int32_t>;

// Bit k of element i is bit i * bits + k of the whole.
Bytes packed_by_bits(const Codes& codes, int bits) {
  const std::size_t width = static_cast<std::size_t>(bits);
  Bytes out((codes.size() * width + 7) / 8);
  for (std::size_t i = 0; i < codes.size(); ++i)
    for (std::size_t k = 0; k < width; ++k)
      if (static_cast<std::uint32_t>(codes[i]) >> k & 1) out[(i * width + k) / 8] |= static_cast<std::uint8_t>(1u << (i * width + k) % 8);
  return out;
}

Bytes packed(const Codes& codes, int bits) {
  const auto n = static_cast<std::int64_t>(codes.size());
  Bytes out(static_cast<std::size_t>(packed_bytes(n, bits)) + 1, 0xa5);
  pack(codes.data(), n, bits, out.data());
  EXPECT_EQ(out.back(), 0xa5) << "nothing behind the end is touched";
  out.pop_back();
  return out;
}

Codes unpacked(const Bytes& bytes, std::size_t n, int bits, bool is_signed) {
  Codes codes(n + 1, 77);
  unpack(bytes.data(), static_cast<std::int64_t>(n), bits, is_signed, codes.data());
  EXPECT_EQ(codes.back(), 77) << "nothing behind the end is touched";
  codes.pop_back();
  return codes;
}

// Random codes, the extremes among them.
Codes codes_of(std::size_t n, int bits, bool is_signed, unsigned seed) {
  std::mt19937 random(seed);
  const std::int64_t lo = is_signed ? -(std::int64_t{1} << (bits - 1)) : 0;
  const std::int64_t hi = is_signed ? -lo - 1 : (std::int64_t{1} << bits) - 1;
  std::uniform_int_distribution<std::int64_t> any(lo, hi);
  Codes codes(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t v = i % 5 == 1 ? lo : i % 5 == 3 ? hi : any(random);
    codes[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(v));
  }
  return codes;
}

class Packing : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Widths, Packing, testing::Range(1, 33));

TEST_P(Packing, EqualsTheBitByBitReferenceAndComesBack) {
  const int bits = GetParam();
  for (const bool is_signed : {false, true})
    for (std::size_t n = 0; n <= 70; ++n) {
      const Codes codes = codes_of(n, bits, is_signed, static_cast<unsigned>(n));
      const Bytes bytes = packed(codes, bits);
      ASSERT_EQ(bytes, packed_by_bits(codes, bits)) << n;
      ASSERT_EQ(unpacked(bytes, n, bits, is_signed), codes) << n;
    }
}

TEST_P(Packing, LargeTensorsOnAnyNumberOfThreads) {
  const int bits = GetParam();
  const std::size_t n = 150'003;
  const Codes codes = codes_of(n, bits, true, 5);
  const Bytes expected = packed_by_bits(codes, bits);
  for (const int threads : {1, 2, 7}) {
    set_kernel_threads(threads);
    const Bytes bytes = packed(codes, bits);
    EXPECT_EQ(bytes, expected) << threads;
    EXPECT_EQ(unpacked(bytes, n, bits, true), codes) << threads;
  }
  set_kernel_threads(0);
}

TEST(PackingLayout, FactsByHand) {
  EXPECT_EQ(packed({1, 2, 3}, 4), (Bytes{0x21, 0x03}));
  EXPECT_EQ(packed({-1, -8, 7}, 4), (Bytes{0x8f, 0x07}));
  // 001, 010, 011, 100 from the lowest bit on: 100'011'010'001 = 0x8d1.
  EXPECT_EQ(packed({1, 2, 3, 4}, 3), (Bytes{0xd1, 0x08}));
  EXPECT_EQ(packed({1, 0, 1, 1, 0, 0, 0, 0, 1}, 1), (Bytes{0x0d, 0x01}));
  EXPECT_EQ(packed({0x1234, -2}, 16), (Bytes{0x34, 0x12, 0xfe, 0xff}));
  EXPECT_EQ(packed({0x5abc, 0x123}, 12), (Bytes{0xbc, 0x3a, 0x12})) << "higher bits are dropped";
  EXPECT_EQ(unpacked({0x21, 0x0d}, 3, 4, true), (Codes{1, 2, -3}));
  EXPECT_EQ(unpacked({0xff, 0xff, 0xff, 0xff}, 1, 32, false), (Codes{-1}));
  EXPECT_EQ(packed_bytes(0, 7), 0);
  EXPECT_EQ(packed_bytes(9, 1), 2);
  EXPECT_EQ(packed_bytes(std::int64_t{1} << 40, 32), std::int64_t{1} << 42);
}

TEST(PackingLayout, PastTheCachesTheSame) {
  const std::size_t n = (std::size_t{4} << 20) + 5;
  const Codes codes = codes_of(n, 4, true, 3);
  EXPECT_EQ(unpacked(packed(codes, 4), n, 4, true), codes);
}

TEST(PackingKernels, AllInstructionSetsGiveTheSame) {
  for (const int bits : {1, 2, 4, 8, 16})
    for (const auto* set : available_kernels()) {
      const Codes codes = codes_of(1048, bits, true, 9);
      Bytes out(static_cast<std::size_t>(packed_bytes(1048, bits)));
      Codes back(1048);
      ASSERT_TRUE(set->pack(codes.data(), 1048, bits, out.data()));
      EXPECT_EQ(out, packed_by_bits(codes, bits)) << set->name << bits;
      ASSERT_TRUE(set->unpack(out.data(), 1048, bits, true, back.data()));
      EXPECT_EQ(back, codes) << set->name << bits;
    }
}

TEST(QuantizePacked, EqualsCodesThenPacking) {
  QuantSpec e2m1;
  e2m1.format = "float";
  e2m1.exponent_bits = 2;
  e2m1.mantissa_bits = 1;
  e2m1.specials = FloatSpecials::kNone;
  std::vector<Case> all = cases();
  all.push_back({"minifloat", {40, 33}, e2m1});
  for (const Case& c : all) {
    const std::vector<float> x = sample(size_of(c.shape));
    const auto params = find_params(c.spec, c.shape, x.data(), 0);
    ASSERT_TRUE(params) << c.name;
    Codes codes(x.size());
    quantize_codes(*params, params->layout, x.data(), codes.data());
    const int bits = code_bits(params->spec);
    Bytes out(static_cast<std::size_t>(packed_bytes(static_cast<std::int64_t>(x.size()), bits)));
    quantize_packed(*params, params->layout, x.data(), out.data());
    EXPECT_EQ(out, packed(codes, bits)) << c.name;
  }
}

}  // namespace
}  // namespace quanvas::quant::test
