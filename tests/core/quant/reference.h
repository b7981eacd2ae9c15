// Plain scalar reference of the quantizers, written from docs/quantizers.md, and data for the tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/quant/params.h"

namespace quanvas::quant::test {

inline std::int64_t size_of(const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

// Index of the parameter of element `e`, from the definition in params.h.
inline std::size_t parameter_of(const BlockLayout& l, std::int64_t e) {
  if (l.granularity == Granularity::kTensor) return 0;
  const std::int64_t i = e % l.inner, d = e / l.inner % l.dim, o = e / l.inner / l.dim;
  if (l.granularity == Granularity::kChannel) return static_cast<std::size_t>(d);
  const std::int64_t groups = (l.dim + l.group - 1) / l.group;
  return static_cast<std::size_t>((o * groups + d / l.group) * l.inner + i);
}

struct Scalar {
  float s, z;
  double lo, hi;
  Scalar(const QuantParams& p, std::size_t i)
      : s(p.scale[i]), z(p.zero_point.empty() ? 0.0f : p.zero_point[i]), lo(static_cast<double>(p.lo)),
        hi(static_cast<double>(p.hi)) {}
  double unclamped(float x) const {
    const volatile float v = x / s;
    return (std::isnan(x) ? 0.0 : std::nearbyint(static_cast<double>(v))) + z;
  }
  std::int64_t code(float x) const { return static_cast<std::int64_t>(std::min(std::max(unclamped(x), lo), hi)); }
  float value(std::int64_t code) const { return static_cast<float>(static_cast<double>(code) - z) * s; }
  bool inside(float x) const { return unclamped(x) >= lo && unclamped(x) <= hi; }
};

// Gaussian values with outliers, zeros, ties of a step of 1/8, and channels of very different size.
inline std::vector<float> sample(std::int64_t n, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = normal(random);
    if (i % 7 == 3) x[i] *= 1e-3f;
    if (i % 11 == 5) x[i] = 0.0f;
    if (i % 13 == 6) x[i] = (static_cast<float>(i % 32) - 15.5f) / 8;
    if (i % 101 == 50) x[i] *= 20;
    if (i % 17 == 9) x[i] = -0.0f;
  }
  return x;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

struct Case {
  const char* name;
  Shape shape;
  QuantSpec spec;
};

inline QuantSpec spec_of(int bits, Granularity granularity = Granularity::kTensor, int axis = 0,
                         Statistic statistic = Statistic::kAbsMax) {
  QuantSpec s;
  s.bits = bits;
  s.granularity = granularity;
  if (granularity != Granularity::kTensor) s.axis = axis;
  s.statistic = statistic;
  return s;
}
inline QuantSpec narrow(QuantSpec s) {
  s.narrow = true;
  return s;
}
inline QuantSpec asym(QuantSpec s) {
  s.zero_point = ZeroPointType::kInteger;
  s.is_signed = false;
  return s;
}
inline QuantSpec po2(QuantSpec s) {
  s.scale = ScaleType::kPowerOfTwo;
  return s;
}
inline QuantSpec group(int bits, int axis, int size) {
  QuantSpec s = spec_of(bits, Granularity::kGroup, axis);
  s.group_size = size;
  return s;
}
inline QuantSpec unsigned_(QuantSpec s) {
  s.is_signed = false;
  return s;
}

// Every layout that has a kernel path of its own, ragged groups, odd sizes, ranks 0 to 5.
inline std::vector<Case> cases() {
  constexpr auto kChannel = Granularity::kChannel;
  return {
      {"scalar", {}, spec_of(8)},
      {"vector", {1000}, narrow(spec_of(8))},
      {"tensor_uneven", {3, 17, 1291}, asym(spec_of(8))},
      {"tensor_large", {5, 60001}, narrow(spec_of(4))},
      {"tensor_unsigned_narrow", {64, 33}, narrow(unsigned_(spec_of(5)))},
      {"tensor_16_bit", {40000}, spec_of(16)},
      {"tensor_16_bit_asym", {40000}, asym(spec_of(16))},
      {"one_bit", {300}, spec_of(1)},
      {"two_bit_asym", {300}, asym(spec_of(2))},
      {"po2", {7, 99}, po2(spec_of(6))},
      {"channel_rows", {33, 65}, narrow(spec_of(4, kChannel))},
      {"channel_rows_large", {9, 40000}, narrow(spec_of(8, kChannel))},
      {"channel_rows_tiny", {50, 1, 3, 3}, asym(spec_of(8, kChannel))},
      {"channel_middle", {5, 7, 31}, asym(spec_of(8, kChannel, 1))},
      {"channel_last", {300, 41}, asym(spec_of(4, kChannel, 1))},
      {"channel_last_long", {3, 40000}, spec_of(4, kChannel, -1)},
      {"channel_single", {1, 500}, narrow(spec_of(8, kChannel))},
      {"channel_5d", {2, 6, 3, 4, 5}, po2(spec_of(8, kChannel, 1))},
      {"group_even", {16, 64}, group(4, 1, 32)},
      {"group_ragged", {9, 40}, group(4, 1, 32)},
      {"group_ragged_asym", {9, 77}, asym(group(3, 1, 16))},
      {"group_longer_than_axis", {4, 5}, group(4, 1, 32)},
      {"group_long", {2, 50000}, group(8, 1, 40000)},
      {"group_strided", {40, 70}, asym(group(4, 0, 16))},
      {"group_strided_ragged", {2, 37, 9}, group(4, 1, 8)},
      {"group_strided_wide", {33, 20000}, group(4, 0, 32)},
      {"group_conv", {6, 40, 3, 3}, group(4, 1, 32)},
      {"group_of_one", {5, 6}, group(4, 1, 1)},
      {"empty", {0}, spec_of(8)},
      {"empty_channels", {4, 0}, spec_of(8, kChannel)},
  };
}

}  // namespace quanvas::quant::test
