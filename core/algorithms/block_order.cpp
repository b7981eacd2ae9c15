#include "core/algorithms/block_order.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/algorithms/orthogonal.h"

namespace quanvas::algorithms {
namespace {

using Order = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

Order unchanged(std::size_t n) {
  Order p(n);
  std::iota(p.begin(), p.end(), std::int64_t{0});
  return p;
}

Order largest_first(const std::vector<double>& v) {
  Order p = unchanged(v.size());
  std::stable_sort(p.begin(), p.end(), [&](std::int64_t a, std::int64_t b) { return v[at(a)] > v[at(b)]; });
  return p;
}

// Rooms of the blocks: the last one may be smaller.
std::vector<std::size_t> rooms_of(std::int64_t n, std::int64_t block) {
  std::vector<std::size_t> out(at(n / block), at(block));
  if (n % block > 0) out.push_back(at(n % block));
  return out;
}

// Channels one after the other into the block with room that has the least so far.
std::vector<Order> greedy(const std::vector<double>& v, const std::vector<std::size_t>& rooms) {
  std::vector<Order> out(rooms.size());
  std::vector<double> sums(rooms.size(), 0.0);
  for (const std::int64_t c : largest_first(v)) {
    std::size_t best = out.size();
    for (std::size_t k = 0; k < out.size(); ++k)
      if (out[k].size() < rooms[k] && (best == out.size() || sums[k] < sums[best])) best = k;
    out[best].push_back(c);
    sums[best] += v[at(c)];
  }
  return out;
}

std::vector<Order> dealt(const std::vector<double>& v, const std::vector<std::size_t>& rooms) {
  std::vector<Order> out(rooms.size());
  const std::size_t blocks = rooms.size();
  std::size_t turn = 0;
  for (const std::int64_t c : largest_first(v)) {
    const auto place = [&] { return turn / blocks % 2 == 0 ? turn % blocks : blocks - 1 - turn % blocks; };
    while (out[place()].size() >= rooms[place()]) ++turn;
    out[place()].push_back(c);
    ++turn;
  }
  return out;
}

std::vector<Order> shuffled(std::size_t n, const std::vector<std::size_t>& rooms, std::uint64_t seed) {
  Order p = unchanged(n);
  SeededRandom random(seed);
  for (std::size_t i = n; i > 1; --i) std::swap(p[i - 1], p[static_cast<std::size_t>(random.bits() % i)]);
  std::vector<Order> out(rooms.size());
  auto next = p.begin();
  for (std::size_t k = 0; k < rooms.size(); ++k) {
    const auto end = next + static_cast<std::ptrdiff_t>(rooms[k]);
    out[k].assign(next, end);
    next = end;
  }
  return out;
}

std::vector<double> finite(std::vector<double> v) {
  for (double& x : v) x = std::isfinite(x) ? std::fabs(x) : 0.0;
  return v;
}

}  // namespace

std::vector<std::int64_t> block_order(BlockOrder order, const std::vector<double>& mean, const std::vector<double>& absmax,
                                      std::int64_t block, std::uint64_t seed) {
  const std::size_t n = mean.size();
  const auto count = static_cast<std::int64_t>(n);
  if (absmax.size() != n || block < 1 || count <= block) return unchanged(n);
  const std::vector<std::size_t> rooms = rooms_of(count, block);
  std::vector<Order> parts;
  switch (order) {
    case BlockOrder::kMassDiff:
      parts = greedy(finite(mean), rooms);
      break;
    case BlockOrder::kAbsmax:
      parts = greedy(finite(absmax), rooms);
      break;
    case BlockOrder::kZigzag:
      parts = dealt(finite(absmax), rooms);
      break;
    case BlockOrder::kRandom:
      parts = shuffled(n, rooms, seed);
      break;
  }
  Order out;
  out.reserve(n);
  for (Order& part : parts) {
    std::sort(part.begin(), part.end());
    out.insert(out.end(), part.begin(), part.end());
  }
  if (order == BlockOrder::kMassDiff && largest_block(finite(mean), {}, block) <= largest_block(finite(mean), out, block))
    return unchanged(n);
  return out;
}

double largest_block(const std::vector<double>& mean, const std::vector<std::int64_t>& order, std::int64_t block) {
  double most = 0;
  for (std::size_t begin = 0; begin < mean.size() && block > 0; begin += at(block)) {
    double sum = 0;
    for (std::size_t j = begin; j < std::min(mean.size(), begin + at(block)); ++j)
      sum += order.empty() ? mean[j] : mean[at(order[j])];
    most = std::max(most, sum);
  }
  return most;
}

}  // namespace quanvas::algorithms
