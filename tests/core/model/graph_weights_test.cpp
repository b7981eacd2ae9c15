#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/graph/weights.h"

namespace quanvas {
namespace {

template <class T>
TensorData data_of(DataType type, const std::vector<T>& values) {
  return TensorData::copy_of(type, {static_cast<std::int64_t>(values.size())}, values.data(),
                             values.size() * sizeof(T));
}

TEST(Half, EveryFiniteCodeSurvivesTheRoundTrip) {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    const auto bits = static_cast<std::uint16_t>(code);
    const float v = half_to_float(bits);
    if (std::isnan(v)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(v))));
    } else {
      ASSERT_EQ(float_to_half(v), bits) << code;
    }
  }
}

TEST(Half, KnownValuesAndTies) {
  const struct {
    float value;
    std::uint16_t bits;
  } rows[] = {{0.0f, 0},
              {-0.0f, 0x8000},
              {1.0f, 0x3c00},
              {-2.0f, 0xc000},
              {65504.0f, 0x7bff},
              {65519.0f, 0x7bff},
              {65520.0f, 0x7c00},
              {1e10f, 0x7c00},
              {INFINITY, 0x7c00},
              {-INFINITY, 0xfc00},
              {5.9604645e-8f, 1},
              {2.9802322e-8f, 0},
              {2.99e-8f, 1},
              {6.1035156e-5f, 0x0400},
              // 1 + 2^-11 and 1 + 3*2^-11 are ties: to even.
              {1.00048828125f, 0x3c00},
              {1.00146484375f, 0x3c02},
              {2047.5f, 0x6800}};
  for (const auto& row : rows) EXPECT_EQ(float_to_half(row.value), row.bits) << row.value;
  EXPECT_FLOAT_EQ(half_to_float(0x3555), 0.33325195f);
  EXPECT_FLOAT_EQ(bfloat16_to_float(0x4049), 3.140625f);
}

TEST(TensorData, ConvertsEveryElementType) {
  using F = std::vector<float>;
  using I = std::vector<std::int64_t>;
  EXPECT_EQ(data_of<float>(DataType::kFloat, {1.5f, -2}).to_floats(), (F{1.5f, -2}));
  EXPECT_EQ(data_of<double>(DataType::kDouble, {1.5, -2}).to_floats(), (F{1.5f, -2}));
  EXPECT_EQ(data_of<std::uint16_t>(DataType::kFloat16, {0x3c00, 0xc000}).to_floats(), (F{1, -2}));
  EXPECT_EQ(data_of<std::uint16_t>(DataType::kBfloat16, {0x3f80, 0xc000}).to_floats(), (F{1, -2}));
  EXPECT_EQ(data_of<std::int8_t>(DataType::kInt8, {-128, 127}).to_floats(), (F{-128, 127}));
  EXPECT_EQ(data_of<std::uint8_t>(DataType::kUint8, {0, 255}).to_int64(), (I{0, 255}));
  EXPECT_EQ(data_of<std::int16_t>(DataType::kInt16, {-32768, 5}).to_int64(), (I{-32768, 5}));
  EXPECT_EQ(data_of<std::uint16_t>(DataType::kUint16, {65535, 5}).to_int64(), (I{65535, 5}));
  EXPECT_EQ(data_of<std::int32_t>(DataType::kInt32, {-7, 7}).to_int64(), (I{-7, 7}));
  EXPECT_EQ(data_of<std::uint32_t>(DataType::kUint32, {4294967295u, 7}).to_int64(), (I{4294967295, 7}));
  EXPECT_EQ(data_of<std::int64_t>(DataType::kInt64, {-9000000000, 7}).to_int64(), (I{-9000000000, 7}));
  EXPECT_EQ(data_of<std::uint8_t>(DataType::kBool, {0, 7}).to_floats(), (F{0, 1}));
  EXPECT_TRUE(data_of<std::uint8_t>(DataType::kString, {1, 2}).to_floats().empty());
}

TEST(TensorData, RealsToIntegersSaturate) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max(), kMin = std::numeric_limits<std::int64_t>::min();
  const auto v = TensorData::of_floats({5}, {1e30f, -1e30f, NAN, -2.9f, INFINITY}).to_int64();
  EXPECT_EQ(v, (std::vector<std::int64_t>{kMax, kMin, 0, -2, kMax}));
}

TEST(TensorData, ReadsUnalignedBytesAndNeverBeyondTheEnd) {
  std::vector<char> bytes(1 + 3 * sizeof(float));
  const float values[] = {1.25f, -3, 8};
  std::memcpy(bytes.data() + 1, values, sizeof values);
  TensorData t;
  t.type = DataType::kFloat;
  t.shape = {3};
  t.data = reinterpret_cast<const std::byte*>(bytes.data() + 1);
  t.bytes = sizeof values;
  EXPECT_EQ(t.to_floats(), (std::vector<float>{1.25f, -3, 8}));
  t.shape = {1000000};
  EXPECT_EQ(t.to_floats().size(), 3u);
  t.bytes = 7;
  EXPECT_EQ(t.to_floats().size(), 1u);
}

TEST(WeightStore, SharesBytesAndHashesContents) {
  WeightStore a;
  a.set("w", TensorData::of_floats({2}, {1, 2}));
  WeightStore b = a;
  EXPECT_EQ(a.find("w")->data, b.find("w")->data);
  EXPECT_EQ(a.hash(), b.hash());
  EXPECT_EQ(a.find("v"), nullptr);
  b.set("w", TensorData::of_floats({2}, {1, 3}));
  EXPECT_NE(a.hash(), b.hash());
  b.set("w", TensorData::of_floats({2, 1}, {1, 2}));
  EXPECT_NE(a.hash(), b.hash());
  b = a;
  b.set("x", *a.find("w"));
  EXPECT_NE(a.hash(), b.hash());
  b.erase("x");
  EXPECT_EQ(a.hash(), b.hash());
  EXPECT_NE(TensorData::of_int64({1}, {1}).content_hash(), TensorData::of_int64({1}, {2}).content_hash());
}

}  // namespace
}  // namespace quanvas
