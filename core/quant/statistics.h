// Quanvas - what calibration gathers of an activation: bounded memory, one pass, mergeable, independent of
// the format that is chosen later ("calibrate once, decide later").
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/quant/params.h"

namespace quanvas::quant {

// Counts by the top 16 bits of the float32 (sign, exponent, 7 bits of mantissa): relative resolution 2^-7 at
// any magnitude, 512 kB per tensor, exact under merging in any order.
class TensorStatistics {
 public:
  TensorStatistics();
  // channels: per-channel absolute maxima of axis 1 for rank >= 2 tensors (else none).
  void add(const float* x, const Shape& shape);
  void merge(const TensorStatistics& other);

  double count() const { return count_; }
  double minimum() const { return min_; }
  double maximum() const { return max_; }
  double mean() const;
  double stddev() const;
  double non_finite() const { return non_finite_; }
  const std::vector<float>& channel_absmax() const { return channel_absmax_; }
  // Value below which `percent` of the values (of |x| when absolute) lie; interpolated inside the bin.
  double percentile(double percent, bool absolute) const;
  // Sum of squared errors that a per-tensor quantizer makes on the histogram (each bin at its mean value).
  double squared_error(const QuantParams& params) const;
  // For display: counts of equal-width bins between lo and hi.
  std::vector<double> rebin(double lo, double hi, int bins) const;

  std::string serialize() const;  // sparse, little endian
  static Result<TensorStatistics> deserialize(const std::string& bytes);

 private:
  std::vector<std::uint64_t> counts_;  // 65536
  std::vector<double> sums_;           // per bin
  double count_ = 0, min_ = 0, max_ = 0, sum_ = 0, sum_squares_ = 0, non_finite_ = 0;
  std::vector<float> channel_absmax_;
};

// Parameters of an activation quantizer from its statistics. Per channel needs channel_absmax.
Result<QuantParams> find_params(const QuantSpec& spec, const Shape& shape, const TensorStatistics& statistics,
                                int default_axis);

// Statistics of a calibration: by tensor name.
struct Statistics {
  std::map<std::string, TensorStatistics> tensors;
  std::string key;      // hash of graph, weights, data and calibration settings
  double samples = 0;
};
using StatisticsPtr = std::shared_ptr<const Statistics>;

}  // namespace quanvas::quant
