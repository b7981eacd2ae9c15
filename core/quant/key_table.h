// Quanvas - the working histogram of TensorStatistics::add, one per thread, all zero between uses. Private.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace quanvas::quant {

struct KeyTable {
  static constexpr std::size_t kKeys = 65536, kZeroSlots = 8;
  static constexpr std::int64_t kMaxElements = std::int64_t{1} << 23;  // between two take()s
  static constexpr int kSumBits = 40;

  // Count in the upper 24 bits and sum of the lower halves in the lower 40: one add per value does both.
  // Zeros go round eight slots behind the keys, for a chain of adds to one address is slow and zeros are common.
  struct Slot {
    std::uint64_t packed = 0, squares = 0;
  };
  std::vector<Slot> slots = std::vector<Slot>(kKeys + kZeroSlots);
  std::array<std::uint8_t, 513> touched{};  // by key >> 7; the last one: zeros
  std::int64_t elements = 0;

  void add(const float* x, std::int64_t n) {
    typedef std::uint32_t __attribute__((may_alias)) Bits;
    const Bits* const bits = reinterpret_cast<const Bits*>(x);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint32_t b = bits[i];
      const std::uint64_t low = b & 0xffff;
      const std::uint32_t zero = static_cast<std::uint32_t>(kKeys) + (static_cast<std::uint32_t>(i) & (kZeroSlots - 1));
      const std::uint32_t key = (b & 0x7fffffffu) != 0 ? b >> 16 : zero;
      Slot& slot = slots[key];
      slot.packed += (std::uint64_t{1} << kSumBits) + low;
      slot.squares += low * low;
      touched[key >> 7] = 1;
    }
    elements += n;
  }
};

}  // namespace quanvas::quant
