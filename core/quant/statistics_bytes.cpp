// TensorStatistics as bytes: "QVS2", then little-endian doubles and variable-length integers (7 bits per byte).
// "QVS1" is the same without the batches at the end.
#include <bit>
#include <cmath>
#include <cstring>

#include "core/quant/statistics.h"

namespace quanvas::quant {
namespace {

constexpr char kMagic[] = "QVS2", kWithoutBatches[] = "QVS1";
constexpr std::size_t kMagicSize = 4;
constexpr std::uint64_t kMaxCount = std::uint64_t{1} << 40;
constexpr std::uint64_t kMaxChannels = std::uint64_t{1} << 32;
constexpr std::uint64_t kMaxBatches = std::uint64_t{1} << 32;

struct Writer {
  std::string out;
  void fixed(std::uint64_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(v >> (8 * i) & 0xff);
  }
  void real(double v) { fixed(std::bit_cast<std::uint64_t>(v), 8); }
  void real(float v) { fixed(std::bit_cast<std::uint32_t>(v), 4); }
  void whole(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) out += static_cast<char>((v & 0x7f) | 0x80);
    out += static_cast<char>(v);
  }
};

struct Reader {
  const std::string& in;
  std::size_t at = 0;
  bool good = true;
  std::uint64_t fixed(int bytes) {
    if (in.size() - at < static_cast<std::size_t>(bytes)) good = false;
    if (!good) return 0;
    std::uint64_t v = 0;
    for (int i = 0; i < bytes; ++i) v |= std::uint64_t{static_cast<unsigned char>(in[at++])} << (8 * i);
    return v;
  }
  double real() { return std::bit_cast<double>(fixed(8)); }
  float real32() { return std::bit_cast<float>(static_cast<std::uint32_t>(fixed(4))); }
  std::uint64_t whole() {
    std::uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint64_t byte = fixed(1);
      if (shift == 63 && byte > 1) good = false;
      if (!good) return 0;
      v |= (byte & 0x7f) << shift;
      if (byte < 0x80) return v;
    }
    good = false;
    return 0;
  }
};

Failure corrupt(const std::string& what) {
  return fail(ErrorCode::kCorrupt, "The stored statistics are damaged: " + what + ".", "Calibrate again.");
}

bool finite32(double v) { return std::isfinite(v) && static_cast<double>(static_cast<float>(v)) == v; }

}  // namespace

struct StatisticsBytes {
  using Cell = TensorStatistics::Cell;

  static void write(const TensorStatistics& s, Writer& w) {
    w.real(s.min_);
    w.real(s.max_);
    w.whole(static_cast<std::uint64_t>(s.non_finite_));
    w.whole(static_cast<std::uint64_t>(s.channels_ + 1));
    for (const float v : s.channel_absmax_) w.real(v);
    const auto keys = s.keys();
    w.whole(keys.size());
    for (const std::uint32_t key : keys) {
      const Cell& c = *s.find(key);
      w.fixed(key, 2);
      w.whole(c.count);
      w.whole(c.sum);
      w.whole(c.squares);
    }
    w.whole(s.batches_.size());
    for (const BatchRecord& b : s.batches_) {
      for (const float v : {b.lowest, b.highest, b.mean_of_maxima}) w.real(v);
      for (const auto* list : {&b.absolute, &b.low, &b.high})
        for (const float v : *list) w.real(v);
    }
    w.whole(s.channel_sums_.size());
    for (const double v : s.channel_sums_) w.real(v);
  }

  static Status read_batches(Reader& r, TensorStatistics& s) {
    constexpr std::uint64_t kFloats = 3 + 3 * kBatchPercentiles.size();
    const std::uint64_t batches = r.whole();
    if (!r.good || batches > kMaxBatches) return corrupt("the number of batches makes no sense");
    if (batches * kFloats * 4 > r.in.size() - r.at) return corrupt("they end too early");
    for (std::uint64_t i = 0; i < batches; ++i) {
      BatchRecord b;
      b.lowest = r.real32();
      b.highest = r.real32();
      b.mean_of_maxima = r.real32();
      bool fits = b.lowest <= b.highest && b.mean_of_maxima >= 0 && static_cast<double>(b.lowest) >= s.min_ &&
                  static_cast<double>(b.highest) <= s.max_ && std::isfinite(b.mean_of_maxima);
      for (auto* list : {&b.absolute, &b.low, &b.high})
        for (float& v : *list) {
          v = r.real32();
          fits = fits && std::isfinite(v);
        }
      if (!fits) return corrupt("a batch makes no sense");
      s.batches_.push_back(b);
    }
    const std::uint64_t channels = r.whole();
    if (!r.good || channels > kMaxChannels) return corrupt("the number of channels makes no sense");
    if (channels * 8 > r.in.size() - r.at) return corrupt("they end too early");
    for (std::uint64_t c = 0; c < channels; ++c) {
      s.channel_sums_.push_back(r.real());
      if (!std::isfinite(s.channel_sums_.back()) || s.channel_sums_.back() < 0) return corrupt("a channel's sum makes no sense");
    }
    return {};
  }

  static Status read_channels(Reader& r, TensorStatistics& s) {
    const std::uint64_t channels = r.whole();
    if (!r.good || channels > kMaxChannels) return corrupt("the number of channels makes no sense");
    s.channels_ = static_cast<std::int64_t>(channels) - 1;
    if (s.channels_ <= 0) return {};
    if (static_cast<std::uint64_t>(s.channels_) * 4 > r.in.size() - r.at) return corrupt("they end too early");
    for (std::int64_t c = 0; c < s.channels_; ++c) {
      const float v = r.real32();
      if (!std::isfinite(v) || v < 0) return corrupt("a channel's magnitude is not a number from 0 on");
      s.channel_absmax_.push_back(v);
    }
    return {};
  }

  // Count, sum and sum of squares of `count` numbers below 65536, as far as that can be told.
  static bool plausible(const Cell& c) {
    constexpr std::uint64_t kMost = 65535;
    return c.count > 0 && c.count <= kMaxCount && c.sum <= c.count * kMost && c.squares <= c.sum * kMost &&
           static_cast<unsigned __int128>(c.count) * c.squares >= static_cast<unsigned __int128>(c.sum) * c.sum;
  }

  static Status read_cells(Reader& r, TensorStatistics& s) {
    const std::uint64_t cells = r.whole();
    if (!r.good || cells > 65536) return corrupt("the number of bins makes no sense");
    std::int64_t previous = -1;
    for (std::uint64_t i = 0; i < cells; ++i) {
      const auto key = static_cast<std::uint32_t>(r.fixed(2));
      const Cell c{r.whole(), r.whole(), r.whole()};
      if (!r.good) return corrupt("they end too early");
      // Keys come ascending by value: negative ones downwards first.
      const std::int64_t order = key >= 0x8000 ? 0xffff - static_cast<std::int64_t>(key) : 0x8000 + static_cast<std::int64_t>(key);
      if (order <= previous || (key >> 7 & 0xff) == 0xff || !plausible(c)) return corrupt("a bin makes no sense");
      previous = order;
      s.cell(key) = c;
      s.count_ += static_cast<double>(c.count);
    }
    return {};
  }

  static Result<TensorStatistics> read(Reader& r, bool with_batches) {
    TensorStatistics s;
    s.min_ = r.real();
    s.max_ = r.real();
    const std::uint64_t non_finite = r.whole();
    s.non_finite_ = static_cast<double>(non_finite);
    if (!r.good) return corrupt("they end too early");
    if (!finite32(s.min_) || !finite32(s.max_) || s.min_ > s.max_ || non_finite > kMaxCount)
      return corrupt("the range makes no sense");
    QUANVAS_CHECK(read_channels(r, s));
    QUANVAS_CHECK(read_cells(r, s));
    if (with_batches) QUANVAS_CHECK(read_batches(r, s));
    if (r.at != r.in.size()) return corrupt("bytes follow their end");
    if (s.count_ > static_cast<double>(kMaxCount)) return corrupt("the number of values makes no sense");
    const bool used = s.count_ > 0 || s.non_finite_ > 0;
    if (used != (s.channels_ != -1)) return corrupt("values and channels contradict each other");
    return check_range(std::move(s));
  }

  // The extremes must lie in the outermost bins.
  static Result<TensorStatistics> check_range(TensorStatistics s) {
    const auto bins = s.bins();
    const bool fits = bins.empty() ? s.min_ == 0 && s.max_ == 0
                                   : s.min_ <= bins.front().mean && s.max_ >= bins.back().mean &&
                                         key_of(s.min_) == s.keys().front() && key_of(s.max_) == s.keys().back();
    if (!fits) return corrupt("the range contradicts the bins");
    return s;
  }
  static std::uint32_t key_of(double v) { return std::bit_cast<std::uint32_t>(static_cast<float>(v)) >> 16; }
};

std::string TensorStatistics::serialize() const {
  Writer w;
  w.out.assign(kMagic, kMagicSize);
  StatisticsBytes::write(*this, w);
  return std::move(w.out);
}

Result<TensorStatistics> TensorStatistics::deserialize(const std::string& bytes) {
  const bool with_batches = bytes.compare(0, kMagicSize, kMagic) == 0;
  if (!with_batches && bytes.compare(0, kMagicSize, kWithoutBatches) != 0) return corrupt("they do not begin as statistics do");
  Reader r{bytes};
  r.at = kMagicSize;
  return StatisticsBytes::read(r, with_batches);
}

}  // namespace quanvas::quant
