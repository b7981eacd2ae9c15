#include "core/algorithms/gram.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/algorithms/blas.h"

namespace quanvas::algorithms {
namespace {

// Edge of the blocks that are one task each; depends on nothing but n.
std::int64_t block_edge(std::int64_t n) { return n > 2048 ? 1024 : n > 768 ? 512 : 256; }

void copy_columns(const float* x, std::int64_t first, std::int64_t count, GramAccumulator::Order order,
                  std::int64_t stride, std::int64_t n, std::int64_t at, float* tile) {
  constexpr std::int64_t kColumns = GramAccumulator::kTileColumns;
  if (order == GramAccumulator::Order::kInputs) {
    for (std::int64_t i = 0; i < n; ++i)
      std::copy_n(x + i * stride + first, count, tile + i * kColumns + at);
    return;
  }
  // By squares, so that both sides stay in the first-level cache.
  constexpr std::int64_t kSquare = 32;
  for (std::int64_t i0 = 0; i0 < n; i0 += kSquare)
    for (std::int64_t c0 = 0; c0 < count; c0 += kSquare)
      for (std::int64_t i = i0; i < std::min(n, i0 + kSquare); ++i)
        for (std::int64_t c = c0; c < std::min(count, c0 + kSquare); ++c)
          tile[i * kColumns + at + c] = x[(first + c) * stride + i];
}

void mirror(std::int64_t n, std::vector<double>& a) {
  constexpr std::int64_t kSquare = 64;
  double* p = a.data();
  for (std::int64_t i0 = 0; i0 < n; i0 += kSquare)
    for (std::int64_t j0 = 0; j0 <= i0; j0 += kSquare)
      for (std::int64_t i = i0; i < std::min(n, i0 + kSquare); ++i)
        for (std::int64_t j = j0; j < std::min(i, j0 + kSquare); ++j) p[j * n + i] = p[i * n + j];
}

// Any value of a row that is not finite, or whose square is not, makes the diagonal so.
Status check_finite(std::int64_t n, const std::vector<double>& a) {
  for (std::int64_t i = 0; i < n; ++i)
    if (!std::isfinite(a[static_cast<std::size_t>(i * n + i)]))
      return fail(ErrorCode::kInvalidArgument,
                  "Input " + std::to_string(i) + " of the layer is NaN, infinite or beyond 1e19 on the calibration samples.",
                  "Look at the calibration data and at the layers before.");
  return {};
}

}  // namespace

GramAccumulator::GramAccumulator(std::int64_t inputs, bool cross) : cross_(cross) {
  sums_.inputs = inputs;
  const auto square = static_cast<std::size_t>(inputs * inputs);
  sums_.h.assign(square, 0.0);
  tile_.resize(static_cast<std::size_t>(inputs * kTileColumns));
  if (!cross) return;
  sums_.g.assign(square, 0.0);
  sums_.s.assign(square, 0.0);
  reference_.resize(tile_.size());
}

Status GramAccumulator::add(const float* x, const float* reference, std::int64_t columns, Order order,
                            std::int64_t stride, const std::stop_token& stop) {
  for (std::int64_t first = 0; first < columns;) {
    const std::int64_t count = std::min(columns - first, kTileColumns - filled_);
    copy_columns(x, first, count, order, stride, sums_.inputs, filled_, tile_.data());
    if (cross_) copy_columns(reference, first, count, order, stride, sums_.inputs, filled_, reference_.data());
    filled_ += count;
    first += count;
    if (filled_ == kTileColumns) QUANVAS_CHECK(flush(stop));
  }
  return {};
}

Status GramAccumulator::multiply(const float* a, const float* b, bool symmetric, std::vector<double>& sum,
                                 const std::stop_token& stop) {
  const std::int64_t n = sums_.inputs, edge = block_edge(n), blocks = (n + edge - 1) / edge, columns = filled_;
  std::vector<std::pair<std::int64_t, std::int64_t>> tasks;
  for (std::int64_t i = 0; i < blocks; ++i)
    for (std::int64_t j = 0; j < (symmetric ? i : blocks); ++j) tasks.emplace_back(i, j);
  if (symmetric)  // the small ones last
    for (std::int64_t i = 0; i < blocks; ++i) tasks.emplace_back(i, i);
  return for_each_task(static_cast<std::int64_t>(tasks.size()), stop, [&](std::int64_t t) {
    const auto [i, j] = tasks[static_cast<std::size_t>(t)];
    const std::int64_t rows = std::min(edge, n - i * edge), width = std::min(edge, n - j * edge);
    std::vector<float> product(static_cast<std::size_t>(rows * width));
    const bool diagonal = symmetric && i == j;
    if (diagonal)
      syrk_lower(false, rows, columns, 1.0f, a + i * edge * kTileColumns, kTileColumns, 0.0f, product.data(), width);
    else
      gemm(false, true, rows, width, columns, 1.0f, a + i * edge * kTileColumns, kTileColumns,
           b + j * edge * kTileColumns, kTileColumns, 0.0f, product.data(), width);
    for (std::int64_t r = 0; r < rows; ++r) {
      double* out = sum.data() + (i * edge + r) * n + j * edge;
      const float* in = product.data() + r * width;
      const std::int64_t end = diagonal ? r + 1 : width;
      for (std::int64_t c = 0; c < end; ++c) out[c] += static_cast<double>(in[c]);
    }
  });
}

Status GramAccumulator::flush(const std::stop_token& stop) {
  if (filled_ == 0) return {};
  QUANVAS_CHECK(multiply(tile_.data(), tile_.data(), true, sums_.h, stop));
  if (cross_) {
    QUANVAS_CHECK(multiply(reference_.data(), tile_.data(), false, sums_.g, stop));
    QUANVAS_CHECK(multiply(reference_.data(), reference_.data(), true, sums_.s, stop));
  }
  sums_.columns += filled_;
  filled_ = 0;
  return {};
}

Status GramAccumulator::merge(GramAccumulator&& other, const std::stop_token& stop) {
  if (other.sums_.inputs != sums_.inputs || other.cross_ != cross_)
    return fail(ErrorCode::kInternal, "Gram matrices of different kinds cannot be merged.");
  QUANVAS_CHECK(flush(stop));
  QUANVAS_CHECK(other.flush(stop));
  const auto add_to = [](std::vector<double>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  };
  add_to(sums_.h, other.sums_.h);
  add_to(sums_.g, other.sums_.g);
  add_to(sums_.s, other.sums_.s);
  sums_.columns += other.sums_.columns;
  return {};
}

Result<Gram> GramAccumulator::finish(const std::stop_token& stop) && {
  QUANVAS_CHECK(flush(stop));
  if (sums_.columns == 0)
    return fail(ErrorCode::kInvalidArgument, "There are no calibration samples for this layer.", "Declare some.");
  QUANVAS_CHECK(check_finite(sums_.inputs, sums_.h));
  if (cross_) QUANVAS_CHECK(check_finite(sums_.inputs, sums_.s));
  mirror(sums_.inputs, sums_.h);
  if (cross_) mirror(sums_.inputs, sums_.s);
  return std::move(sums_);
}

}  // namespace quanvas::algorithms
