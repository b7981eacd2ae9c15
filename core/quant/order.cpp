#include "core/quant/order.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/quant/kernels.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {
namespace {

constexpr std::int64_t kDirect = 16384;

std::uint32_t bits_of(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

// Unsigned keys in the order of the values (or of the magnitudes).
std::uint32_t key_of(float v, bool absolute) {
  const std::uint32_t bits = bits_of(v);
  if (absolute) return bits & 0x7fffffffu;
  return static_cast<std::uint32_t>(order_key(static_cast<std::int32_t>(bits))) ^ 0x80000000u;
}
float value_of(std::uint32_t key, bool absolute) {
  return from_order_key(static_cast<std::int32_t>(absolute ? key : key ^ 0x80000000u));
}

using Counts = std::vector<std::uint64_t>;

// Counts of key's upper 16 bits, or of the lower 16 among keys whose upper ones are `prefix`.
Counts histogram(const float* x, std::int64_t n, bool absolute, const std::uint32_t* prefix, int threads) {
  std::vector<Counts> parts(static_cast<std::size_t>(threads), Counts(65536));
  parallel_for(threads, threads, [&](std::int64_t t) {
    std::uint64_t* const counts = parts[static_cast<std::size_t>(t)].data();
    const std::int64_t end = n * (t + 1) / threads;
    for (std::int64_t i = n * t / threads; i < end; ++i) {
      const std::uint32_t key = key_of(x[i], absolute);
      if (!prefix) ++counts[key >> 16];
      else if (key >> 16 == *prefix) ++counts[key & 0xffff];
    }
  });
  for (std::size_t t = 1; t < parts.size(); ++t)
    for (std::size_t b = 0; b < 65536; ++b) parts[0][b] += parts[t][b];
  return std::move(parts[0]);
}

// Bin that holds the rank; rank becomes the one inside the bin.
std::uint32_t bin_of(const Counts& counts, std::uint64_t& rank) {
  std::uint32_t bin = 0;
  while (bin < 65535 && rank > counts[bin]) rank -= counts[bin++];
  return bin;
}

}  // namespace

std::int64_t upper_rank(double percent, double n) {
  return static_cast<std::int64_t>(std::clamp(std::floor(.01 * percent * n + .5), 1.0, std::max(1.0, n)));
}
std::int64_t lower_rank(double percent, double n) {
  // 100 - 99.999 is not .001 in binary; without rounding, whole products would go up by one.
  const double low = std::round((100 - percent) * 1e9) / 1e9;
  return static_cast<std::int64_t>(std::clamp(std::ceil(.01 * low * n), 1.0, std::max(1.0, n)));
}

std::vector<float> order_statistics(const float* x, std::int64_t n, bool absolute,
                                    const std::vector<std::int64_t>& ranks, int threads) {
  std::vector<float> values;
  values.reserve(ranks.size());
  if (n <= kDirect) {
    std::vector<std::uint32_t> keys(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = key_of(x[i], absolute);
    for (const std::int64_t rank : ranks) {
      const auto at = keys.begin() + (std::clamp<std::int64_t>(rank, 1, n) - 1);
      std::nth_element(keys.begin(), at, keys.end());
      values.push_back(value_of(*at, absolute));
    }
    return values;
  }
  const Counts upper = histogram(x, n, absolute, nullptr, threads);
  for (const std::int64_t wanted : ranks) {
    auto rank = static_cast<std::uint64_t>(std::clamp<std::int64_t>(wanted, 1, n));
    const std::uint32_t prefix = bin_of(upper, rank);
    const Counts lower = histogram(x, n, absolute, &prefix, threads);
    values.push_back(value_of(prefix << 16 | bin_of(lower, rank), absolute));
  }
  return values;
}

}  // namespace quanvas::quant
