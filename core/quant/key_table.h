// Quanvas - the working histogram of TensorStatistics::add, one per thread, all zero between uses. Private.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "core/quant/kernels.h"

namespace quanvas::quant {

struct KeyTable {
  static constexpr std::size_t kKeys = 65536, kZeroSlots = kHistogramZeroSlots;
  static constexpr std::int64_t kMaxElements = std::int64_t{1} << 23;  // between two take()s
  static constexpr int kSumBits = kHistogramSumBits;

  // Count in the upper 24 bits and sum of the lower halves in the lower 40: one add per value does both.
  // Zeros go round eight slots behind the keys, for a chain of adds to one address is slow and zeros are common.
  struct alignas(16) Slot {
    std::uint64_t packed = 0, squares = 0;
  };
  std::vector<Slot> slots = std::vector<Slot>(kKeys + kZeroSlots);
  std::array<std::uint8_t, 513> touched{};  // by key >> 7; the last one: zeros
  std::int64_t elements = 0;

  void add(const float* x, std::int64_t n) {
    // A slot is added to with one load and one store of both halves.
    typedef std::uint64_t __attribute__((vector_size(16), may_alias)) Both;
    alignas(64) std::uint32_t keys[kSplitBlock];
    alignas(64) std::uint64_t adds[2 * kSplitBlock];
    Slot* const to = slots.data();
    for (std::int64_t begin = 0; begin < n; begin += kSplitBlock) {
      const std::int64_t count = std::min(kSplitBlock, n - begin);
      kernels().split(x + begin, count, keys, adds);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::uint32_t key = keys[i];
        reinterpret_cast<Both&>(to[key]) += reinterpret_cast<const Both&>(adds[2 * i]);
        touched[key >> 7] = 1;
      }
    }
    elements += n;
  }
};

}  // namespace quanvas::quant
