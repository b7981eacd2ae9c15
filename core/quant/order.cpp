#include "core/quant/order.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "core/quant/grid.h"
#include "core/quant/kernels.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

constexpr std::int64_t kDirect = 1024;

// Keys in the order of the values (or of the magnitudes).
std::int32_t key_of(float v, bool absolute) {
  std::int32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return absolute ? bits & 0x7fffffff : order_key(bits);
}

std::int32_t select(std::vector<std::int32_t>& keys, std::int64_t rank) {
  const auto at = keys.begin() + (rank - 1);
  std::nth_element(keys.begin(), at, keys.end());
  return *at;
}

struct Bracket {
  std::int32_t lo = INT32_MIN, hi = INT32_MAX;
};

// Keys of elements spread over the tensor: one from each of equal parts, at a place that no period of the data meets.
std::vector<std::int32_t> sampled_keys(const float* x, std::int64_t n, bool absolute) {
  const std::int64_t count = std::clamp<std::int64_t>(n / 16, 64, 16384);
  std::vector<std::int32_t> keys(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t begin = n * i / count, size = n * (i + 1) / count - begin;
    const auto within = static_cast<std::int64_t>(element_random(0, i) * static_cast<double>(size));
    keys[static_cast<std::size_t>(i)] = key_of(x[begin + within], absolute);
  }
  return keys;
}

// Between which keys of the sample the value of a rank lies: five standard deviations of the rank on either side.
Bracket bracket(std::vector<std::int32_t>& sample, std::int64_t rank, std::int64_t n) {
  const auto count = static_cast<double>(sample.size());
  const double share = static_cast<double>(rank) / static_cast<double>(n);
  const double middle = share * count, reach = 5 * std::sqrt(count * share * (1 - share)) + 2;
  Bracket b;
  if (middle + reach < count) b.hi = select(sample, static_cast<std::int64_t>(std::ceil(middle + reach)));
  if (middle - reach >= 1) b.lo = select(sample, static_cast<std::int64_t>(middle - reach));
  return b;
}

// The key of the rank when it lies in the bracket: one pass counts what is below and keeps what is inside. largest: of
// what is inside.
std::optional<std::int32_t> select_between(const float* x, std::int64_t n, bool absolute, Bracket b, std::int64_t rank,
                                           int threads, std::int32_t* largest = nullptr) {
  struct Part {
    std::vector<std::int32_t> keys;
    std::int64_t below = 0;
  };
  std::vector<Part> parts(static_cast<std::size_t>(threads));
  const std::int64_t tiles = (n + kPiece - 1) / kPiece;
  parallel_stripes(tiles, threads, [&](std::int64_t t, std::int64_t begin, std::int64_t end) {
    Part& part = parts[static_cast<std::size_t>(t)];
    std::int32_t found[kPiece];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t size = std::min(kPiece, n - i * kPiece);
      const std::int64_t count = kernels().between(x + i * kPiece, size, absolute, b.lo, b.hi, found, &part.below);
      part.keys.insert(part.keys.end(), found, found + count);
    }
  });
  for (std::size_t t = 1; t < parts.size(); ++t) {
    parts[0].below += parts[t].below;
    parts[0].keys.insert(parts[0].keys.end(), parts[t].keys.begin(), parts[t].keys.end());
  }
  const std::int64_t inside = rank - parts[0].below;
  if (largest && !parts[0].keys.empty()) *largest = *std::max_element(parts[0].keys.begin(), parts[0].keys.end());
  if (inside < 1 || inside > static_cast<std::int64_t>(parts[0].keys.size())) return std::nullopt;
  return select(parts[0].keys, inside);
}

using Counts = std::vector<std::uint64_t>;

// Counts of the upper 16 bits of the keys, from the lowest key on, or of the lower 16 among keys whose upper ones are
// `prefix`.
Counts histogram(const float* x, std::int64_t n, bool absolute, const std::uint32_t* prefix, int threads) {
  std::vector<Counts> parts(static_cast<std::size_t>(threads), Counts(65536));
  parallel_stripes(n, threads, [&](std::int64_t t, std::int64_t begin, std::int64_t end) {
    std::uint64_t* const counts = parts[static_cast<std::size_t>(t)].data();
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t key = static_cast<std::uint32_t>(key_of(x[i], absolute)) ^ 0x80000000u;
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

// For data that the sample does not show, for example sorted by size within each part.
std::int32_t select_by_histogram(const float* x, std::int64_t n, bool absolute, std::int64_t wanted, int threads) {
  auto rank = static_cast<std::uint64_t>(wanted);
  const std::uint32_t prefix = bin_of(histogram(x, n, absolute, nullptr, threads), rank);
  const std::uint32_t lower = bin_of(histogram(x, n, absolute, &prefix, threads), rank);
  return static_cast<std::int32_t>((prefix << 16 | lower) ^ 0x80000000u);
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

std::optional<HighMagnitude> high_magnitude(const float* x, std::int64_t n, std::int64_t rank, int threads) {
  if (n <= kDirect) return std::nullopt;
  std::vector<std::int32_t> keys = sampled_keys(x, n, true);
  const Bracket b = bracket(keys, rank, n);
  if (b.hi != INT32_MAX) return std::nullopt;
  std::int32_t largest = 0;
  const auto key = select_between(x, n, true, b, rank, threads, &largest);
  if (!key) return std::nullopt;
  return HighMagnitude{from_order_key(*key), largest <= kLargestFiniteKey};
}

std::vector<float> order_statistics(const float* x, std::int64_t n, bool absolute,
                                    const std::vector<std::int64_t>& ranks, int threads) {
  std::vector<float> values;
  values.reserve(ranks.size());
  std::vector<std::int32_t> keys;
  if (n > kDirect) {
    keys = sampled_keys(x, n, absolute);
  } else {
    keys.resize(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = key_of(x[i], absolute);
  }
  for (const std::int64_t wanted : ranks) {
    const std::int64_t rank = std::clamp<std::int64_t>(wanted, 1, n);
    std::optional<std::int32_t> key;
    if (n <= kDirect) key = select(keys, rank);
    else key = select_between(x, n, absolute, bracket(keys, rank, n), rank, threads);
    values.push_back(from_order_key(key ? *key : select_by_histogram(x, n, absolute, rank, threads)));
  }
  return values;
}

}  // namespace quanvas::quant
