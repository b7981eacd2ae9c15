#include "core/algorithms/accumulator.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/algorithms/magr.h"
#include "core/algorithms/panel.h"

namespace quanvas::algorithms {
namespace {

constexpr std::int64_t kMostInput = std::int64_t{1} << 31;
constexpr double kMostCode = 1 << 22;  // whole numbers that float32 divisions by the scale give back

// The largest |w x| over the grid's codes w and the input's codes x, by either sign of the product.
double largest_product(const AccumulatorOptions& o, double low, double high) {
  const auto xl = static_cast<double>(o.low), xh = static_cast<double>(o.high);
  return std::max({std::fabs(low * xl), std::fabs(low * xh), std::fabs(high * xl), std::fabs(high * xh)});
}

}  // namespace

Result<Accumulator> Accumulator::create(const AccumulatorOptions& options, const quant::ColumnQuantizer& quantizer) {
  if (options.bits < 2 || options.bits > 32)
    return fail(ErrorCode::kInvalidArgument, "The accumulator has " + std::to_string(options.bits) + " bits; it needs 2 to 32.");
  if (options.tile < 0 || options.low > 0 || options.high < 0 || options.low == options.high || options.low < -kMostInput ||
      options.high >= 2 * kMostInput)
    return fail(ErrorCode::kInvalidArgument, "Tiles of " + std::to_string(options.tile) + " inputs with codes from " +
                                                 std::to_string(options.low) + " to " + std::to_string(options.high) +
                                                 "; tiles need 0 or more, codes 32 bits at most with 0 among them.");
  if (!quantizer.has_whole_codes())
    return fail(ErrorCode::kUnsupported, "Its weights have no whole codes whose sums could be bounded.", "Give its weights an integer format.");
  Accumulator out(options, quantizer);
  const std::int64_t n = quantizer.columns(), m = quantizer.rows();
  out.tile_ = options.tile == 0 ? n : std::min(options.tile, n);
  out.tiles_ = (n + out.tile_ - 1) / out.tile_;
  out.most_ = std::ldexp(1.0, options.bits - 1) - 1;
  double furthest = 0;
  const auto low = static_cast<double>(quantizer.low_code()), high = static_cast<double>(quantizer.high_code());
  for (std::int64_t c = 0; c < n; ++c) {
    if (c % out.tile_ != 0) {
      if (quantizer.set_of(c) == quantizer.set_of(c - 1)) continue;
      return fail(ErrorCode::kUnsupported,
                  "Its weights have groups with scales of their own inside a tile of " + std::to_string(out.tile_) +
                      " inputs, and sums of codes with different scales are no sums.",
                  "Choose tiles that lie inside the groups.");
    }
    const float* zeros = quantizer.zeros(c);
    for (std::int64_t r = 0; r < m; ++r) {
      const auto zero = static_cast<double>(zeros[r]);
      if (std::max(std::fabs(low - zero), std::fabs(high - zero)) > kMostCode)
        return fail(ErrorCode::kUnsupported, "Its weights have codes of more than 22 bits.", "Give its weights fewer bits.");
      furthest = std::max(furthest, largest_product(options, low - zero, high - zero));
    }
  }
  out.never_binds_ = furthest * static_cast<double>(out.tile_) <= out.most_;
  return out;
}

int Accumulator::outer_bits() const {
  int more = 0;
  while ((std::int64_t{1} << more) < tiles_) ++more;
  return options_.bits + more;
}

Result<std::vector<float>> Accumulator::levels(std::int64_t m, std::int64_t n, const float* w, const std::stop_token& stop) const {
  if (n != quantizer_->columns() || m != quantizer_->rows())
    return fail(ErrorCode::kInvalidArgument, "The weights are " + std::to_string(m) + " x " + std::to_string(n) + " and the accumulator is for " +
                                                 std::to_string(quantizer_->rows()) + " x " + std::to_string(quantizer_->columns()) + ".");
  std::vector<float> out(static_cast<std::size_t>(tiles_ * m), 0.0f);
  if (never_binds_) return out;
  const double radius = 2 * most_ / static_cast<double>(options_.high - options_.low);
  QUANVAS_CHECK(for_each_stripe(m, stop, [&](std::int64_t first, std::int64_t rows) {
    std::vector<float> centred(static_cast<std::size_t>(tile_));
    for (std::int64_t r = first; r < first + rows && !stop.stop_requested(); ++r)
      for (std::int64_t t = 0; t < tiles_; ++t) {
        const std::int64_t begin = t * tile_, count = std::min(tile_, n - begin);
        const double scale = std::fabs(static_cast<double>(quantizer_->scales(begin)[r]));
        const float* from = w + r * n + begin;
        double sum = 0;
        for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(from[i]);
        const auto mean = static_cast<float>(sum / static_cast<double>(count));
        for (std::int64_t i = 0; i < count; ++i) centred[static_cast<std::size_t>(i)] = from[i] - mean;
        out[static_cast<std::size_t>(t * m + r)] = static_cast<float>(l1_level(count, centred.data(), radius * scale));
      }
  }));
  return out;
}

Accumulator::Sums::Sums(const Accumulator& accumulator, const std::vector<float>& levels, std::int64_t first, std::int64_t rows, bool total)
    : accumulator_(accumulator), levels_(levels), first_(first), rows_(rows), total_(total),
      positive_(static_cast<std::size_t>(accumulator.tiles_ * rows)), negative_(positive_.size()), bounded_(static_cast<std::size_t>(rows)),
      wish_(static_cast<std::size_t>(rows)) {}

void Accumulator::Sums::round(std::int64_t column, float* x, float* kept) {
  const quant::ColumnQuantizer& quantizer = *accumulator_.quantizer_;
  const AccumulatorOptions& options = accumulator_.options_;
  const std::int64_t tile = column / accumulator_.tile_, m = quantizer.rows();
  const bool give_back = !total_;
  float* wish = wish_.data();
  if (give_back) std::copy_n(x, rows_, wish);
  soften(rows_, levels_.data() + tile * m + first_, x);
  if (give_back)
    for (std::int64_t r = 0; r < rows_; ++r) kept[r] -= wish[r] - x[r];
  if (give_back) std::copy_n(x, rows_, wish);
  quantizer.fake(column, first_, rows_, x, x);
  const CodeBound bound{static_cast<double>(options.low), static_cast<double>(options.high), accumulator_.most_};
  bound_codes(rows_, bound, quantizer.scales(column) + first_, x, give_back ? wish : nullptr, kept, positive_.data() + tile * rows_,
              negative_.data() + tile * rows_, bounded_.data());
}

void Accumulator::Sums::count(std::int64_t column, const float* x) {
  const std::vector<float> none(static_cast<std::size_t>(rows_), 0.0f);
  change(column, none.data(), x);
}

void Accumulator::Sums::hold_back(std::int64_t column, const float* from, float* to) const {
  const std::int64_t tile = column / accumulator_.tile_;
  const AccumulatorOptions& options = accumulator_.options_;
  const CodeBound bound{static_cast<double>(options.low), static_cast<double>(options.high), accumulator_.most_};
  bound_changes(rows_, bound, accumulator_.quantizer_->scales(column) + first_, from, to, positive_.data() + tile * rows_,
                negative_.data() + tile * rows_);
}

void Accumulator::Sums::change(std::int64_t column, const float* from, const float* to) {
  const float* scale = accumulator_.quantizer_->scales(column) + first_;
  const std::int64_t at = column / accumulator_.tile_ * rows_;
  for (std::int64_t r = 0; r < rows_; ++r) {
    const double before = std::nearbyint(static_cast<double>(from[r] / scale[r])), after = std::nearbyint(static_cast<double>(to[r] / scale[r]));
    positive_[static_cast<std::size_t>(at + r)] += std::max(after, 0.0) - std::max(before, 0.0);
    negative_[static_cast<std::size_t>(at + r)] += std::min(after, 0.0) - std::min(before, 0.0);
  }
}

double Accumulator::share(std::int64_t m, std::int64_t n, const float* w) const {
  std::vector<float> column(static_cast<std::size_t>(m));
  const std::vector<float> none;
  Sums sums(*this, none, 0, m, true);
  for (std::int64_t c = 0; c < n; ++c) {
    for (std::int64_t r = 0; r < m; ++r) column[static_cast<std::size_t>(r)] = w[r * n + c];
    sums.count(c, column.data());
  }
  double most = 0;
  for (std::int64_t r = 0; r < m; ++r) most = std::max(most, sums.used(r));
  return most;
}

double Accumulator::Sums::used(std::int64_t r) const {
  const auto low = static_cast<double>(accumulator_.options_.low), high = static_cast<double>(accumulator_.options_.high);
  double most = 0;
  for (auto i = static_cast<std::size_t>(r); i < positive_.size(); i += static_cast<std::size_t>(rows_))
    most = std::max({most, high * positive_[i] + low * negative_[i], -(low * positive_[i] + high * negative_[i])});
  return most / accumulator_.most_;
}

WorstCase worst_case(std::int64_t n, const std::int64_t* w, std::int64_t low, std::int64_t high) {
  WorstCase out;
  for (std::int64_t i = 0; i < n; ++i) {
    out.most += w[i] * (w[i] > 0 ? high : low);
    out.least += w[i] * (w[i] > 0 ? low : high);
  }
  return out;
}

}  // namespace quanvas::algorithms
