#include "core/quant/statistics.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <mutex>
#include <optional>
#include <utility>

#include "core/quant/kernels.h"
#include "core/quant/key_table.h"
#include "core/quant/order.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

constexpr std::uint32_t kNonFinitePage = 255;  // exponent of NaN and infinities

bool negative(std::uint32_t key) { return key >= 0x8000; }

// A cell's value is sign * unit * (base + lower 16 bits).
double unit_of(std::uint32_t key) {
  const int exponent = static_cast<int>(key >> 7 & 0xff);
  return std::ldexp(negative(key) ? -1.0 : 1.0, std::max(exponent, 1) - 150);
}
std::uint64_t base_of(std::uint32_t key) {
  return (std::uint64_t{key & 0x7f} | ((key >> 7 & 0xff) != 0 ? 0x80 : 0)) << 16;
}

struct Found {
  double lowest = 0, highest = 0;
  std::vector<float> absmax, most;  // per channel: magnitude, value
};

// Element by element, for tensors that hold NaN or infinities.
Found careful_extremes(const float* x, const BlockLayout& layout) {
  Found found;
  found.absmax.assign(layout.granularity == Granularity::kChannel ? static_cast<std::size_t>(layout.dim) : 0, 0.0f);
  bool first = true;
  for (std::int64_t i = 0; i < layout.elements(); ++i) {
    if (!std::isfinite(x[i])) continue;
    const double v = x[i];
    found.lowest = first ? v : std::min(found.lowest, v);
    found.highest = first ? v : std::max(found.highest, v);
    first = false;
    if (found.absmax.empty()) continue;
    float& most = found.absmax[static_cast<std::size_t>(i / layout.inner % layout.dim)];
    most = std::max(most, std::fabs(x[i]));
  }
  return found;
}

// Extremes of each channel (or of the whole tensor), as order keys.
struct Keys {
  explicit Keys(std::size_t count) : least(count, INT32_MAX), most(count, INT32_MIN) {}
  std::vector<std::int32_t> least, most;

  // low and high: room for the rows of a span.
  void add(const SpanPlan& plan, const Span& span, const float* x, std::int32_t* low, std::int32_t* high) {
    Rows rows;
    rows.rows = span.rows;
    rows.length = span.length;
    rows.last = span.last;
    rows.vector = plan.vector_rows();
    auto p = static_cast<std::size_t>(span.param);
    if (rows.vector) return kernels().range(rows, x + span.offset, &least[p], &most[p]);  // widens
    kernels().range(rows, x + span.offset, low, high);
    for (std::int64_t k = 0; k < span.rows; ++k) {
      least[p] = std::min(least[p], low[k]);
      most[p] = std::max(most[p], high[k]);
      if (++p == least.size()) p = 0;
    }
  }
  void merge(const Keys& other) {
    for (std::size_t p = 0; p < least.size(); ++p) {
      least[p] = std::min(least[p], other.least[p]);
      most[p] = std::max(most[p], other.most[p]);
    }
  }
};

// Nothing when not all values are finite.
std::optional<Found> extremes_of(const Keys& keys, bool channels) {
  const std::int32_t least = *std::min_element(keys.least.begin(), keys.least.end());
  const std::int32_t most = *std::max_element(keys.most.begin(), keys.most.end());
  if (least < kSmallestFiniteKey || most > kLargestFiniteKey) return std::nullopt;
  Found found;
  found.lowest = from_order_key(least);
  found.highest = from_order_key(most);
  for (std::size_t c = 0; channels && c < keys.least.size(); ++c) {
    found.most.push_back(from_order_key(keys.most[c]));
    found.absmax.push_back(std::max(std::fabs(from_order_key(keys.least[c])), std::fabs(found.most.back())));
  }
  return found;
}

}  // namespace

TensorStatistics::TensorStatistics() : page_of_(512, -1) {}

TensorStatistics::Cell& TensorStatistics::cell(std::uint32_t key) {
  std::int16_t& index = page_of_[key >> 7];
  if (index < 0) {
    index = static_cast<std::int16_t>(pages_.size());
    pages_.emplace_back();
  }
  return pages_[static_cast<std::size_t>(index)][key & 0x7f];
}

const TensorStatistics::Cell* TensorStatistics::find(std::uint32_t key) const {
  const std::int16_t index = page_of_[key >> 7];
  if (index < 0) return nullptr;
  const Cell& cell = pages_[static_cast<std::size_t>(index)][key & 0x7f];
  return cell.count ? &cell : nullptr;
}

void TensorStatistics::take(KeyTable& table) {
  constexpr std::uint64_t kSum = (std::uint64_t{1} << KeyTable::kSumBits) - 1;
  std::uint64_t values = 0;
  table.take([&](std::uint32_t page, const KeyTable::Slot* slots) {
    std::uint64_t n = 0;
    for (int i = 0; i < 128; ++i) n += slots[i].packed >> KeyTable::kSumBits;
    if (n == 0) return;
    if ((page & 0xff) == kNonFinitePage) {
      non_finite_ += static_cast<double>(n);
      return;
    }
    values += n;
    Cell* const cells = &cell(page * 128);
    for (int i = 0; i < 128; ++i) {
      cells[i].count += slots[i].packed >> KeyTable::kSumBits;
      cells[i].sum += slots[i].packed & kSum;
      cells[i].squares += slots[i].squares;
    }
  });
  if (const std::uint64_t zeros = table.take_zeros()) {
    cell(0).count += zeros;
    values += zeros;
  }
  count_ += static_cast<double>(values);
}

void TensorStatistics::widen(bool had_values, double lowest, double highest) {
  // + 0.0: no -0 in what is shown and saved.
  min_ = (had_values ? std::min(min_, lowest) : lowest) + 0.0;
  max_ = (had_values ? std::max(max_, highest) : highest) + 0.0;
}

void TensorStatistics::merge_channels(std::int64_t channels, const std::vector<float>& absmax) {
  if (channels_ == -1) {
    channels_ = channels;
    channel_absmax_ = absmax;
  } else if (channels_ != channels) {
    channels_ = 0;
    channel_absmax_.clear();
  } else {
    for (std::size_t c = 0; c < channel_absmax_.size(); ++c) channel_absmax_[c] = std::max(channel_absmax_[c], absmax[c]);
  }
}

void TensorStatistics::add(const float* x, const Shape& shape, std::vector<float>* channel_highest) {
  BlockLayout layout;
  if (shape.size() >= 2) {
    layout.granularity = Granularity::kChannel;
    layout.outer = shape[0];
    layout.dim = shape[1];
    for (std::size_t i = 2; i < shape.size(); ++i) layout.inner *= shape[i];
  } else {
    layout.inner = element_count(shape);
  }
  const std::int64_t n = layout.elements();
  if (n <= 0) return;
  const SpanPlan plan(layout);
  Keys keys(static_cast<std::size_t>(layout.parameters()));
  const int threads = threads_for(n);
  const double before = count_;
  std::mutex mutex;
  parallel_for(threads, threads, [&](std::int64_t stripe) {
    static thread_local KeyTable table;
    Keys own(keys.least.size());
    std::vector<std::int32_t> low(plan.vector_rows() ? 0 : kTile), high(low.size());
    for (std::int64_t i = plan.count() * stripe / threads; i < plan.count() * (stripe + 1) / threads; ++i) {
      const Span span = plan.span(i);
      if (span.rows == 0) continue;
      own.add(plan, span, x, low.data(), high.data());
      table.add(x + span.offset, span.elements());
      if (table.elements <= KeyTable::kMaxElements - kTile) continue;
      const std::lock_guard lock(mutex);
      take(table);
    }
    const std::lock_guard lock(mutex);
    take(table);
    keys.merge(own);
  });
  std::optional<Found> found = extremes_of(keys, shape.size() >= 2);
  if (!found) found = careful_extremes(x, layout);
  if (count_ > before) widen(before > 0, found->lowest, found->highest);
  merge_channels(static_cast<std::int64_t>(found->absmax.size()), found->absmax);
  if (channel_highest) *channel_highest = std::move(found->most);
}

TensorStatistics TensorStatistics::rectified(const std::vector<float>& channel_highest) const {
  TensorStatistics out;
  out.channels_ = channels_;
  for (const float highest : channel_highest) out.channel_absmax_.push_back(std::max(0.0f, highest));
  out.count_ = count_;
  out.min_ = std::max(0.0, min_);
  out.max_ = std::max(0.0, max_);
  double positive = 0;
  for (std::uint32_t page = 0; page < 256; ++page) {
    if (page_of_[page] < 0) continue;
    const Page& from = pages_[static_cast<std::size_t>(page_of_[page])];
    out.page_of_[page] = static_cast<std::int16_t>(out.pages_.size());
    out.pages_.push_back(from);
    for (const Cell& c : from) positive += static_cast<double>(c.count);
  }
  if (count_ > positive) out.cell(0).count += static_cast<std::uint64_t>(count_ - positive);
  return out;
}

void TensorStatistics::merge(const TensorStatistics& other) {
  if (&other == this) return merge(TensorStatistics(other));
  merge_values(other);
  if (batches_.empty()) channel_sums_ = other.channel_sums_;
  else if (channel_sums_.size() != other.channel_sums_.size()) channel_sums_.clear();
  else for (std::size_t c = 0; c < channel_sums_.size(); ++c) channel_sums_[c] += other.channel_sums_[c];
  batches_.insert(batches_.end(), other.batches_.begin(), other.batches_.end());
}

void TensorStatistics::join(const TensorStatistics& other) {
  if (&other == this) return;
  const bool fits = batches_.size() == other.batches_.size();
  merge_values(other);
  channel_sums_.clear();
  if (!fits) batches_.clear();
  for (std::size_t b = 0; b < batches_.size(); ++b) {
    BatchRecord& own = batches_[b];
    const BatchRecord& from = other.batches_[b];
    own.lowest = std::min(own.lowest, from.lowest);
    own.highest = std::max(own.highest, from.highest);
    own.mean_of_maxima = std::max(own.mean_of_maxima, from.mean_of_maxima);
    for (std::size_t i = 0; i < kBatchPercentiles.size(); ++i) {
      own.absolute[i] = std::max(own.absolute[i], from.absolute[i]);
      own.low[i] = std::min(own.low[i], from.low[i]);
      own.high[i] = std::max(own.high[i], from.high[i]);
    }
  }
}

void TensorStatistics::close_batch() {
  batches_.clear();
  channel_sums_.clear();
  if (count_ == 0) return;
  channel_sums_.assign(channel_absmax_.begin(), channel_absmax_.end());
  BatchRecord batch;
  batch.lowest = static_cast<float>(min_);
  batch.highest = static_cast<float>(max_);
  double sum = 0;
  for (const float v : channel_absmax_) sum += static_cast<double>(v);
  batch.mean_of_maxima = channel_absmax_.empty() ? std::max(std::fabs(batch.lowest), std::fabs(batch.highest))
                                                 : static_cast<float>(sum / static_cast<double>(channel_absmax_.size()));
  // Only the ends are looked at: what lies between does not decide these percentiles.
  const double low_share = static_cast<double>(lower_rank(kBatchPercentiles[0], count_));
  const double high_share = count_ - static_cast<double>(upper_rank(kBatchPercentiles[0], count_)) + 1;
  const std::vector<Bin> low = tail(Tail::kLow, low_share);
  std::vector<Bin> high = tail(Tail::kHigh, high_share), by_size = tail(Tail::kAbsolute, high_share);
  const auto ascending = [this](std::vector<Bin>& bins) {
    std::reverse(bins.begin(), bins.end());
    double before = count_;
    for (const Bin& b : bins) before -= b.count;
    return before;
  };
  const double below_high = ascending(high), below_absolute = ascending(by_size);
  for (std::size_t i = 0; i < kBatchPercentiles.size(); ++i) {
    const std::int64_t upper = upper_rank(kBatchPercentiles[i], count_);
    batch.absolute[i] = static_cast<float>(rank_in(by_size, below_absolute, upper, true));
    batch.high[i] = static_cast<float>(rank_in(high, below_high, upper, false));
    batch.low[i] = static_cast<float>(rank_in(low, 0, lower_rank(kBatchPercentiles[i], count_), false));
  }
  batches_.push_back(batch);
}

void TensorStatistics::merge_values(const TensorStatistics& other) {
  if (other.count_ > 0) widen(count_ > 0, other.min_, other.max_);
  count_ += other.count_;
  non_finite_ += other.non_finite_;
  for (std::uint32_t page = 0; page < 512; ++page) {
    if (other.page_of_[page] < 0) continue;
    const Page& from = other.pages_[static_cast<std::size_t>(other.page_of_[page])];
    cell(page * 128);  // makes the page
    Page& to = pages_[static_cast<std::size_t>(page_of_[page])];
    for (std::size_t i = 0; i < from.size(); ++i) {
      to[i].count += from[i].count;
      to[i].sum += from[i].sum;
      to[i].squares += from[i].squares;
    }
  }
  if (other.channels_ != -1) merge_channels(other.channels_, other.channel_absmax_);
}

std::vector<std::uint32_t> TensorStatistics::keys() const {
  std::vector<std::uint32_t> found;
  for (std::uint32_t page = 512; page-- > 256;)
    for (std::uint32_t key = page * 128 + 128; page_of_[page] >= 0 && key-- > page * 128;)
      if (find(key)) found.push_back(key);
  for (std::uint32_t page = 0; page < 256; ++page)
    for (std::uint32_t key = page * 128; page_of_[page] >= 0 && key < page * 128 + 128; ++key)
      if (find(key)) found.push_back(key);
  return found;
}

std::vector<TensorStatistics::Bin> TensorStatistics::bins() const {
  std::vector<Bin> bins;
  for (const std::uint32_t key : keys()) bins.push_back(bin_of(key, *find(key)));
  return bins;
}

TensorStatistics::Bin TensorStatistics::bin_of(std::uint32_t key, const Cell& c) {
  const auto n = static_cast<double>(c.count);
  const double unit = unit_of(key);
  // n * squares - sum^2 in whole numbers: exactly 0 when all values are equal.
  const unsigned __int128 spread =
      static_cast<unsigned __int128>(c.count) * c.squares - static_cast<unsigned __int128>(c.sum) * c.sum;
  const double variance = static_cast<double>(spread) / (n * n);
  return {n, unit * (static_cast<double>(base_of(key)) + static_cast<double>(c.sum) / n),
          std::fabs(unit) * std::sqrt(3 * variance)};
}

std::vector<TensorStatistics::Bin> TensorStatistics::tail(Tail which, double values) const {
  std::vector<Bin> out;
  double have = 0;
  const auto take = [&](const Bin& bin) {
    out.push_back(bin);
    have += bin.count;
  };
  // One sign and exponent, from the largest magnitude down or from the smallest up.
  const auto page = [&](std::uint32_t sign, std::uint32_t exponent, bool outwards) {
    if (page_of_[sign + exponent] < 0) return;
    for (std::uint32_t i = 0; i < 128 && have < values; ++i) {
      const std::uint32_t key = (sign + exponent) * 128 + (outwards ? i : 127 - i);
      if (const Cell* const c = find(key)) take(bin_of(key, *c));
    }
  };
  const auto both = [&](std::uint32_t exponent) {
    if (page_of_[exponent] < 0 && page_of_[256 + exponent] < 0) return;
    for (std::uint32_t i = 128; i-- > 0 && have < values;) {
      const std::uint32_t key = exponent * 128 + i;
      const Cell *const up = find(key), *const down = find(0x8000 + key);
      const std::size_t first = out.size();
      if (up) take(bin_of(key, *up));
      if (down) take(bin_of(0x8000 + key, *down));
      for (std::size_t k = first; k < out.size(); ++k) out[k].mean = std::fabs(out[k].mean);
      if (out.size() == first + 2 && out[first].mean < out[first + 1].mean) std::swap(out[first], out[first + 1]);
    }
  };
  constexpr std::uint32_t kExponents = 256;
  const std::uint32_t outer = which == Tail::kLow ? kExponents : 0;
  for (std::uint32_t e = kExponents; e-- > 0 && have < values;) {
    if (which == Tail::kAbsolute) both(e);
    else page(outer, e, false);
  }
  if (which == Tail::kAbsolute) return out;
  for (std::uint32_t e = 0; e < kExponents && have < values; ++e) page(kExponents - outer, e, true);
  return out;
}

double TensorStatistics::mean() const {
  if (count_ == 0) return 0;
  double sum = 0;
  for (const Bin& b : bins()) sum += b.count * b.mean;
  return sum / count_;
}

double TensorStatistics::stddev() const {
  if (count_ == 0) return 0;
  const double m = mean();
  double sum = 0;
  for (const Bin& b : bins()) sum += b.count * ((b.mean - m) * (b.mean - m) + b.half_width * b.half_width / 3);
  return std::sqrt(sum / count_);
}

std::vector<TensorStatistics::Bin> TensorStatistics::sorted_by_size(const std::vector<Bin>& ascending) {
  const auto zero = std::find_if(ascending.begin(), ascending.end(), [](const Bin& b) { return !(b.mean < 0); });
  std::vector<Bin> below(std::make_reverse_iterator(zero), ascending.rend()), out(ascending.size());
  for (Bin& b : below) b.mean = -b.mean;
  std::merge(below.begin(), below.end(), zero, ascending.end(), out.begin(),
             [](const Bin& a, const Bin& b) { return a.mean < b.mean; });
  return out;
}

double TensorStatistics::at_rank(std::int64_t rank, bool absolute) const {
  if (count_ == 0) return 0;
  return rank_in(absolute ? sorted_by_size(bins()) : bins(), 0, rank, absolute);
}

double TensorStatistics::rank_in(const std::vector<Bin>& sorted, double before, std::int64_t rank, bool absolute) const {
  double least = min_, most = max_;
  if (absolute) {
    most = std::max(std::fabs(min_), std::fabs(max_));
    least = min_ <= 0 && max_ >= 0 ? 0 : std::min(std::fabs(min_), std::fabs(max_));
  }
  const double wanted = std::clamp(static_cast<double>(rank), 1.0, count_);
  if (wanted == count_) return most;
  if (wanted == 1 && !absolute) return least;
  for (const Bin& b : sorted) {
    if (before + b.count < wanted) {
      before += b.count;
      continue;
    }
    const double share = (wanted - before - 0.5) / b.count;
    return std::clamp(b.mean + b.half_width * (2 * share - 1), least, most);
  }
  return most;
}

std::vector<double> TensorStatistics::rebin(double lo, double hi, int count) const {
  if (count < 1 || !std::isfinite(lo) || !std::isfinite(hi) || !(lo < hi)) return {};
  std::vector<double> out(static_cast<std::size_t>(count));
  const double scale = count / (hi - lo);
  const auto last = static_cast<double>(count - 1);
  for (const Bin& b : bins()) {
    const double from = std::max(b.mean - b.half_width, min_), to = std::min(b.mean + b.half_width, max_);
    // In units of output bins. The width is the difference of these, lest counts get lost where it is tiny.
    const double first = (from - lo) * scale, width = (to - lo) * scale - first;
    if (!(width > 0)) {
      if (b.mean >= lo && b.mean <= hi)
        out[static_cast<std::size_t>(std::clamp(std::floor((b.mean - lo) * scale), 0.0, last))] += b.count;
      continue;
    }
    const double begin = std::max(first, 0.0), end = std::min(first + width, static_cast<double>(count));
    const double density = b.count / width;
    for (double at = std::floor(begin); at < end; at += 1)
      out[static_cast<std::size_t>(std::min(at, last))] += density * (std::min(end, at + 1) - std::max(begin, at));
  }
  return out;
}

}  // namespace quanvas::quant
