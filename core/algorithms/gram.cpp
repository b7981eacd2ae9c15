#include "core/algorithms/gram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

// Edge of the blocks that are one task each; depends on nothing but n.
std::int64_t block_edge(std::int64_t n) { return n > 2048 ? 1024 : n > 768 ? 512 : 256; }

// Columns [first, first + count) of x, less those of `minus` unless null, to columns [at, ...) of a tile.
Status copy_columns(const float* x, const float* minus, std::int64_t first, std::int64_t count, GramAccumulator::Order order,
                    std::int64_t stride, std::int64_t n, std::int64_t at, float* tile, const std::stop_token& stop) {
  constexpr std::int64_t kColumns = GramAccumulator::kTileColumns, kInputs = 64, kSquare = 16;
  return for_each_task((n + kInputs - 1) / kInputs, stop, [&](std::int64_t task) {
    const std::int64_t begin = task * kInputs, end = std::min(n, begin + kInputs);
    if (order == GramAccumulator::Order::kInputs) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float* from = x + i * stride + first;
        if (minus)
          difference(count, from, minus + i * stride + first, tile + i * kColumns + at);
        else
          std::copy_n(from, count, tile + i * kColumns + at);
      }
      return;
    }
    // By squares, so that both sides stay in the first-level cache.
    for (std::int64_t c0 = 0; c0 < count; c0 += kSquare)
      for (std::int64_t i0 = begin; i0 < end; i0 += kSquare)
        for (std::int64_t i = i0; i < std::min(end, i0 + kSquare); ++i)
          for (std::int64_t c = c0; c < std::min(count, c0 + kSquare); ++c) {
            const std::int64_t from = (first + c) * stride + i;
            tile[i * kColumns + at + c] = minus ? x[from] - minus[from] : x[from];
          }
  }, n * count);
}

Status mirror(std::int64_t n, std::vector<double>& a, const std::stop_token& stop) {
  constexpr std::int64_t kSquare = 8, kRows = 64;
  double* p = a.data();
  return for_each_task((n + kRows - 1) / kRows, stop, [&](std::int64_t task) {
    for (std::int64_t i0 = task * kRows; i0 < std::min(n, (task + 1) * kRows); i0 += kSquare)
      for (std::int64_t j0 = 0; j0 <= i0; j0 += kSquare)
        for (std::int64_t i = i0; i < std::min(n, i0 + kSquare); ++i)
          for (std::int64_t j = j0; j < std::min(i, j0 + kSquare); ++j) p[j * n + i] = p[i * n + j];
  }, n * n);
}

// Any value of a row that is not finite, or whose square is not, makes the diagonal so. What follows computes in float32.
Status check_finite(std::int64_t n, const std::vector<double>& a) {
  for (std::int64_t i = 0; i < n; ++i)
    if (!(a[static_cast<std::size_t>(i * n + i)] <= static_cast<double>(std::numeric_limits<float>::max())))
      return fail(ErrorCode::kInvalidArgument,
                  "Input " + std::to_string(i) + " of the layer is NaN, infinite or so large on the calibration samples that the sum of its squares is beyond 3.4e38.",
                  "Look at the calibration data and at the layers before.");
  return {};
}

// Rows and columns in another order, as float32.
template <class Value>
Status reorder(std::int64_t n, const std::vector<std::int32_t>& order, const std::stop_token& stop, std::vector<float>& out,
               const Value& value) {
  out.resize(static_cast<std::size_t>(n * n));
  constexpr std::int64_t kRows = 64;
  return for_each_task((n + kRows - 1) / kRows, stop, [&](std::int64_t block) {
    for (std::int64_t i = block * kRows; i < std::min(n, (block + 1) * kRows); ++i) {
      const std::int64_t from = order[static_cast<std::size_t>(i)];
      float* to = out.data() + i * n;
      for (std::int64_t j = 0; j < n; ++j) to[j] = static_cast<float>(value(from, order[static_cast<std::size_t>(j)]));
    }
  }, n * n);
}

}  // namespace

std::vector<std::int32_t> natural_order(std::int64_t inputs) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(inputs));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

std::vector<std::int32_t> order_by_moments(const Gram& gram) {
  std::vector<std::int32_t> order = natural_order(gram.inputs);
  const auto moment = [&](std::int32_t i) { return gram.h[static_cast<std::size_t>(i * (gram.inputs + 1))]; };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return moment(a) > moment(b); });
  return order;
}

Result<Moments> moments_of(const Gram& gram, std::vector<std::int32_t> order, const std::stop_token& stop) {
  const std::int64_t n = gram.inputs;
  Moments m;
  m.inputs = n;
  m.order = std::move(order);
  for (const std::int32_t i : m.order) {
    const double moment = gram.h[static_cast<std::size_t>(i * (n + 1))];
    if (!(moment >= 0) || !std::isfinite(moment))
      return fail(ErrorCode::kInvalidArgument, "The second moment of input " + std::to_string(i) + " is no number.",
                  "Look at the calibration data.");
    m.dead.push_back(moment == 0);
    m.dead_count += moment == 0;
  }
  const double* h = gram.h.data();
  QUANVAS_CHECK(reorder(n, m.order, stop, m.h, [&](std::int64_t i, std::int64_t j) { return h[i * n + j]; }));
  if (!gram.has_cross()) return m;
  const double *mismatch = gram.mismatch.data(), *rest = gram.rest.empty() ? nullptr : gram.rest.data();
  QUANVAS_CHECK(reorder(n, m.order, stop, m.mismatch, [&](std::int64_t i, std::int64_t j) { return mismatch[i * n + j]; }));
  if (rest) QUANVAS_CHECK(reorder(n, m.order, stop, m.rest, [&](std::int64_t i, std::int64_t j) { return rest[i * n + j]; }));
  return m;
}

GramAccumulator::GramAccumulator(std::int64_t inputs, bool cross, bool rest) : cross_(cross), rest_(cross && rest) {
  sums_.inputs = inputs;
  const auto square = static_cast<std::size_t>(inputs * inputs), tile = static_cast<std::size_t>(inputs * kTileColumns);
  sums_.h.assign(square, 0.0);
  tile_ = std::make_unique_for_overwrite<float[]>(tile);
  if (!cross_) return;
  sums_.mismatch.assign(square, 0.0);
  if (rest_) sums_.rest.assign(square, 0.0);
  difference_ = std::make_unique_for_overwrite<float[]>(tile);
}

Status GramAccumulator::add(const float* x, const float* reference, std::int64_t columns, Order order,
                            std::int64_t stride, const std::stop_token& stop) {
  const std::int64_t n = sums_.inputs;
  for (std::int64_t first = 0; first < columns;) {
    const std::int64_t count = std::min(columns - first, kTileColumns - filled_);
    const bool in_place = order == Order::kInputs && count == kTileColumns;  // a whole tile as it lies
    if (!in_place) QUANVAS_CHECK(copy_columns(x, nullptr, first, count, order, stride, n, filled_, tile_.get(), stop));
    if (cross_) QUANVAS_CHECK(copy_columns(reference, x, first, count, order, stride, n, filled_, difference_.get(), stop));
    if (in_place) {
      QUANVAS_CHECK(take(x + first, stride, count, stop));
    } else if (filled_ += count; filled_ == kTileColumns) {
      filled_ = 0;
      QUANVAS_CHECK(take(tile_.get(), kTileColumns, kTileColumns, stop));
    }
    first += count;
  }
  return {};
}

Status GramAccumulator::multiply(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                                 std::int64_t columns, bool symmetric, std::vector<double>& sum, const std::stop_token& stop) {
  const std::int64_t n = sums_.inputs, edge = block_edge(n), blocks = (n + edge - 1) / edge;
  std::vector<std::pair<std::int64_t, std::int64_t>> tasks;
  for (std::int64_t i = 0; i < blocks; ++i)
    for (std::int64_t j = 0; j < (symmetric ? i : blocks); ++j) tasks.emplace_back(i, j);
  if (symmetric)  // the small ones last
    for (std::int64_t i = 0; i < blocks; ++i) tasks.emplace_back(i, i);
  return for_each_task(static_cast<std::int64_t>(tasks.size()), stop, [&](std::int64_t t) {
    const auto [i, j] = tasks[static_cast<std::size_t>(t)];
    const std::int64_t rows = std::min(edge, n - i * edge), width = std::min(edge, n - j * edge);
    const auto product = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(rows * width));
    const bool diagonal = symmetric && i == j;
    if (diagonal)
      syrk_lower(false, rows, columns, 1.0f, a + i * edge * a_stride, a_stride, 0.0f, product.get(), width);
    else
      gemm(false, true, rows, width, columns, 1.0f, a + i * edge * a_stride, a_stride, b + j * edge * b_stride, b_stride, 0.0f, product.get(), width);
    for (std::int64_t r = 0; r < rows; ++r) {
      double* out = sum.data() + (i * edge + r) * n + j * edge;
      const float* in = product.get() + r * width;
      const std::int64_t end = diagonal ? r + 1 : width;
      for (std::int64_t c = 0; c < end; ++c) out[c] += static_cast<double>(in[c]);
    }
  });
}

Status GramAccumulator::take(const float* x, std::int64_t stride, std::int64_t columns, const std::stop_token& stop) {
  if (columns == 0) return {};
  QUANVAS_CHECK(multiply(x, stride, x, stride, columns, true, sums_.h, stop));
  const float* d = difference_.get();
  if (cross_) QUANVAS_CHECK(multiply(d, kTileColumns, x, stride, columns, false, sums_.mismatch, stop));
  if (rest_) QUANVAS_CHECK(multiply(d, kTileColumns, d, kTileColumns, columns, true, sums_.rest, stop));
  sums_.columns += columns;
  return {};
}

Status GramAccumulator::merge(GramAccumulator&& other, const std::stop_token& stop) {
  if (other.sums_.inputs != sums_.inputs || other.cross_ != cross_ || other.rest_ != rest_)
    return fail(ErrorCode::kInternal, "Gram matrices of different kinds cannot be merged.");
  QUANVAS_CHECK(take(tile_.get(), kTileColumns, std::exchange(filled_, 0), stop));
  QUANVAS_CHECK(other.take(other.tile_.get(), kTileColumns, std::exchange(other.filled_, 0), stop));
  const auto add_to = [](std::vector<double>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  };
  add_to(sums_.h, other.sums_.h);
  add_to(sums_.mismatch, other.sums_.mismatch);
  add_to(sums_.rest, other.sums_.rest);
  sums_.columns += other.sums_.columns;
  return {};
}

Result<Gram> GramAccumulator::finish(const std::stop_token& stop) && {
  QUANVAS_CHECK(take(tile_.get(), kTileColumns, std::exchange(filled_, 0), stop));
  if (sums_.columns == 0)
    return fail(ErrorCode::kInvalidArgument, "There are no calibration samples for this layer.", "Declare some.");
  QUANVAS_CHECK(check_finite(sums_.inputs, sums_.h));
  if (cross_) QUANVAS_CHECK(check_finite(sums_.inputs, sums_.mismatch));
  QUANVAS_CHECK(mirror(sums_.inputs, sums_.h, stop));
  if (rest_) QUANVAS_CHECK(mirror(sums_.inputs, sums_.rest, stop));
  return std::move(sums_);
}

}  // namespace quanvas::algorithms
