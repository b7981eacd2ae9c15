// Quanvas - the working histogram of TensorStatistics::add, one per thread, all zero between uses. Private.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
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
  KeyRange range;  // of the slots that are not 0, those of zeros apart
  std::int64_t elements = 0;

  void add(const float* x, std::int64_t n) {
    // A slot is added to with one load and one store of both halves.
    typedef std::uint64_t __attribute__((vector_size(16), may_alias)) Both;
    alignas(64) std::uint32_t keys[kSplitBlock];
    alignas(64) std::uint64_t adds[2 * kSplitBlock];
    Slot* const to = slots.data();
    for (std::int64_t begin = 0; begin < n; begin += kSplitBlock) {
      const std::int64_t count = std::min(kSplitBlock, n - begin);
      kernels().split(x + begin, count, keys, adds, &range);
      for (std::int64_t i = 0; i < count; ++i)
        reinterpret_cast<Both&>(to[keys[i]]) += reinterpret_cast<const Both&>(adds[2 * i]);
    }
    elements += n;
  }

  // Calls f(page, slots) for the pages of 128 keys (one sign and exponent) that may be in use, and empties them.
  template <class F>
  void take(const F& f) {
    for (std::uint32_t sign = 0; sign < 2; ++sign) {
      if (range.most[sign] <= 0) continue;
      const std::uint32_t last = static_cast<std::uint32_t>(range.most[sign]) >> 23;
      for (std::uint32_t page = (range.least[sign] + 1) >> 23; page <= last; ++page) {
        Slot* const first = slots.data() + (sign * 256 + page) * 128;
        f(sign * 256 + page, first);
        std::fill(first, first + 128, Slot{});
      }
    }
    range = {};
    elements = 0;
  }
  std::uint64_t take_zeros() {
    std::uint64_t n = 0;
    for (std::size_t i = kKeys; i < slots.size(); ++i) n += std::exchange(slots[i], {}).packed >> kSumBits;
    return n;
  }
};

}  // namespace quanvas::quant
