// Quanvas - what calibration gathers of an activation: bounded memory, one pass, mergeable, independent of
// the format that is chosen later ("calibrate once, decide later").
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/quant/params.h"

namespace quanvas::quant {

// What is kept of one batch of the calibration (a chunk of samples): 60 bytes, whatever its size.
inline constexpr std::array<double, 4> kBatchPercentiles = {99, 99.9, 99.99, 99.999};
struct BatchRecord {
  float lowest = 0, highest = 0;
  float mean_of_maxima = 0;  // mean over the channels (axis 1) of their largest magnitude; the largest of all without channels
  // Percentiles of |x|, and of x from below and from above, in the order of kBatchPercentiles; as at_rank() has them.
  std::array<float, 4> absolute{}, low{}, high{};
  bool operator==(const BatchRecord&) const = default;
};

// Histogram by the top 16 bits of the float32 (sign, exponent, 7 bits of mantissa): relative resolution 2^-7 at
// any magnitude. Per bin: count, sum and sum of squares of the remaining 16 bits, all as integers, so that
// merging is exact in any order and mean and standard deviation are those of the values themselves. Bins come
// in pages of one sign and exponent, made when first needed: typically 100 to 200 kB per tensor.
// NaN and infinities are only counted. At most about 2^40 values. Queries may run in several threads at once.
class TensorStatistics {
 public:
  TensorStatistics();
  // channels: per-channel absolute maxima of axis 1 for rank >= 2 tensors (else none); they are dropped when
  // tensors with different numbers of channels are added or merged.
  // channel_highest, if given, gets the largest value of each channel (none: no channels), for rectified().
  void add(const float* x, const Shape& shape, std::vector<float>* channel_highest = nullptr);
  // Statistics of max(x, 0) of what one add() has added and nothing else, without its values. Only where all of them
  // were finite. Equal, batch record included, to those of the rectified tensor.
  TensorStatistics rectified(const std::vector<float>& channel_highest) const;
  // other's batches come after those that are there.
  void merge(const TensorStatistics& other);
  // Another tensor's statistics of the same samples, for a quantizer that both share: as merge(), but batch by batch.
  // A batch's percentiles become the wider ones of the two, a mean of maxima the larger one. Statistics with other
  // numbers of batches leave none.
  void join(const TensorStatistics& other);
  // What was added since the beginning becomes one batch. Called once per chunk, on statistics of that chunk alone;
  // nothing happens when there is no finite value.
  void close_batch();
  // In the order of the samples; empty when nobody closed one (files of earlier versions).
  const std::vector<BatchRecord>& batches() const { return batches_; }
  // Per channel the sum over the batches of its largest magnitude; empty when there are no channels.
  const std::vector<double>& channel_sums() const { return channel_sums_; }

  double count() const { return count_; }
  double minimum() const { return min_; }
  double maximum() const { return max_; }
  double mean() const;
  double stddev() const;
  double non_finite() const { return non_finite_; }
  const std::vector<float>& channel_absmax() const { return channel_absmax_; }
  // The value of a rank from 1 to count() in ascending order (of |x| when absolute): the extremes exactly, else
  // interpolated inside its bin. 0 without values.
  double at_rank(std::int64_t rank, bool absolute) const;
  // For display: counts of equal-width bins between lo and hi; values outside are left out. Empty when
  // bins < 1 or lo >= hi or one is not finite.
  std::vector<double> rebin(double lo, double hi, int bins) const;

  std::string serialize() const;  // sparse, little endian
  // Refuses anything that serialize() of this or an earlier version cannot have written; those kept no batches.
  static Result<TensorStatistics> deserialize(const std::string& bytes);

  // Non-empty bin: values spread evenly over mean +- half_width (0: all equal).
  struct Bin {
    double count = 0, mean = 0, half_width = 0;
  };
  std::vector<Bin> bins() const;  // ascending

 private:
  struct Cell {
    std::uint64_t count = 0, sum = 0, squares = 0;  // of the lower 16 bits
    bool operator==(const Cell&) const = default;
  };
  using Page = std::array<Cell, 128>;
  friend struct StatisticsBytes;
  Cell& cell(std::uint32_t key);
  const Cell* find(std::uint32_t key) const;
  void take(struct KeyTable& table);
  void widen(bool had_values, double lowest, double highest);
  void merge_values(const TensorStatistics& other);
  void merge_channels(std::int64_t channels, const std::vector<float>& absmax);
  static Bin bin_of(std::uint32_t key, const Cell& cell);
  static std::vector<Bin> sorted_by_size(const std::vector<Bin>& ascending);
  // sorted: some bins in ascending order, `before` values lie below them.
  double rank_in(const std::vector<Bin>& sorted, double before, std::int64_t rank, bool absolute) const;
  enum class Tail { kLow, kHigh, kAbsolute };
  std::vector<Bin> tail(Tail which, double values) const;  // from the end inwards, with so many values at least
  std::vector<std::uint32_t> keys() const;  // of the non-empty cells, ascending by value

  std::vector<std::int16_t> page_of_;  // 512 (sign, exponent) -> index in pages_, -1: none
  std::vector<Page> pages_;
  double count_ = 0, min_ = 0, max_ = 0, non_finite_ = 0;
  std::int64_t channels_ = -1;  // -1: nothing added yet, 0: none or not the same everywhere
  std::vector<float> channel_absmax_;
  std::vector<BatchRecord> batches_;
  std::vector<double> channel_sums_;
};

// Parameters of an activation quantizer from its statistics. Per channel needs channel_absmax. Of batches mean and ema
// the ends of each batch's range are averaged, the first batch begins the moving average; kUnsupported for what a
// batch does not keep: statistics other than absmax, minmax, percentile (kBatchPercentiles and 100) and max-mean. Per
// channel absmax and mean only.
Result<QuantParams> find_params(const QuantSpec& spec, const Shape& shape, const TensorStatistics& statistics,
                                int default_axis);

// The largest magnitude that the spec's statistic keeps, or its fixed clip limit: what a truncation looks at.
Result<float> find_threshold(const QuantSpec& spec, const TensorStatistics& statistics);

// Statistics of a calibration: by tensor name.
struct Statistics {
  std::map<std::string, TensorStatistics> tensors;
  std::string key;      // hash of graph, weights, data and calibration settings
  double samples = 0;
};
using StatisticsPtr = std::shared_ptr<const Statistics>;

}  // namespace quanvas::quant
