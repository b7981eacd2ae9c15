// Quantizer parameters from statistics.
#include <algorithm>
#include <cmath>

#include "core/quant/affine.h"
#include "core/quant/divergence.h"
#include "core/quant/order.h"
#include "core/quant/search.h"
#include "core/quant/statistics.h"

namespace quanvas::quant {
namespace {

double round_half_even(double v) {
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  return (v + kMagic) - kMagic;
}

// Integral of the squared rounding and clipping error from the zero point to u, in steps.
double integral(double u, double a, double b) {
  const double k = round_half_even(std::clamp(u, a, b)), f = u - k;
  return k / 12 + f * f * f / 3;
}

double histogram_error(const std::vector<TensorStatistics::Bin>& bins, double scale, double a, double b) {
  constexpr double kNarrow = 1e-3;  // below it the difference of the integrals loses its digits
  const double inverse = 1 / scale;
  double total = 0;
  for (const auto& bin : bins) {
    const double u = bin.mean * inverse, h = bin.half_width * inverse;
    if (h < kNarrow) {
      const double f = u - round_half_even(std::clamp(u, a, b));
      total += bin.count * (f * f + h * h / 3);
    } else {
      total += bin.count * (integral(u + h, a, b) - integral(u - h, a, b)) / (2 * h);
    }
  }
  return total * scale * scale;
}

// The range that one batch asks for.
Range batch_range(const QuantSpec& spec, const BatchRecord& b, std::size_t percentile) {
  if (spec.statistic == Statistic::kMaxMean) return {0.0f, b.mean_of_maxima};
  if (spec.statistic != Statistic::kPercentile || percentile >= kBatchPercentiles.size())
    return extreme_range(spec, b.lowest, b.highest);
  if (is_symmetric(spec)) return {0.0f, b.absolute[percentile]};
  return extreme_range(spec, b.low[percentile], b.high[percentile]);
}

Result<Range> averaged_range(const QuantSpec& spec, const TensorStatistics& s) {
  const auto kept = static_cast<std::size_t>(std::find(kBatchPercentiles.begin(), kBatchPercentiles.end(), spec.percentile) -
                                             kBatchPercentiles.begin());
  const bool absent = spec.statistic == Statistic::kPercentile && kept == kBatchPercentiles.size() && spec.percentile != 100;
  const bool known = spec.statistic == Statistic::kAbsMax || spec.statistic == Statistic::kMinMax ||
                     spec.statistic == Statistic::kPercentile || spec.statistic == Statistic::kMaxMean;
  if (absent || !known || spec.granularity != Granularity::kTensor)
    return fail(ErrorCode::kUnsupported,
                std::string("batches is ") + enum_text(spec.batches) +
                    "; of a batch calibration keeps the extremes, the mean of the channels' maxima and the percentiles 99, "
                    "99.9, 99.99, 99.999 and 100, all per tensor.",
                "Use one of these, or batches all.");
  if (s.batches().empty())
    return fail(ErrorCode::kUnsupported,
                std::string("batches is ") + enum_text(spec.batches) +
                    ", but the statistics at hand keep no batches: they were gathered by an earlier version.",
                "Calibrate again, or use batches all.");
  double lo = 0, hi = 0, seen = 0;
  for (const BatchRecord& b : s.batches()) {
    const Range r = batch_range(spec, b, kept);
    // The mean as 1 / n times the newest; the first batch begins either of them.
    const double share = spec.batches == BatchStatistic::kMean ? 1 / (seen + 1) : seen == 0 ? 1 : spec.momentum;
    lo += share * (static_cast<double>(r.lo) - lo);
    hi += share * (static_cast<double>(r.hi) - hi);
    seen += 1;
  }
  return Range{static_cast<float>(lo), static_cast<float>(hi)};
}

Result<Range> mean_of_maxima(const TensorStatistics& s) {
  const std::vector<float>& maxima = s.channel_absmax();
  if (maxima.empty())
    return fail(ErrorCode::kUnsupported, "statistic is max-mean, but calibration saw no channels (axis 1) of this tensor, or "
                                         "not the same number everywhere.",
                "Use statistic absmax.");
  double sum = 0;
  for (const float v : maxima) sum += static_cast<double>(v);
  return Range{0.0f, static_cast<float>(sum / static_cast<double>(maxima.size()))};
}

// Mean of |x| and k unbiased standard deviations of it, as find.cpp has it of a tensor. No bin holds both signs.
double mean_and_sigma(const TensorStatistics& s, double k) {
  double sum = 0, squares = 0;
  const auto bins = s.bins();
  for (const auto& b : bins) sum += b.count * std::fabs(b.mean);
  const double mean = sum / s.count();
  if (k == 0) return mean;
  for (const auto& b : bins) {
    const double d = std::fabs(b.mean) - mean;
    squares += b.count * (d * d + b.half_width * b.half_width / 3);
  }
  return mean + k * std::sqrt((s.count() > 1 ? squares / (s.count() - 1) : 0) + 1e-8);
}

double divergence_threshold(const Grid& grid, const TensorStatistics& s, double extreme) {
  const auto bins = static_cast<int>(kl_bins(grid, s.count()));
  std::vector<double> counts = s.rebin(0, extreme, bins);
  if (counts.empty()) return extreme;
  const std::vector<double> negative = grid.is_signed ? s.rebin(-extreme, 0, bins) : std::vector<double>();
  for (std::size_t i = 0; i < negative.size(); ++i) counts[i] += negative[negative.size() - 1 - i];
  return kl_threshold(grid, counts, extreme);
}

Result<Range> statistic_range(const QuantSpec& spec, const Grid& grid, const TensorStatistics& s) {
  if (spec.batches != BatchStatistic::kAll) return averaged_range(spec, s);
  if (spec.statistic == Statistic::kMaxMean) return mean_of_maxima(s);
  const Range extreme = extreme_range(spec, static_cast<float>(s.minimum()), static_cast<float>(s.maximum()));
  if (spec.statistic == Statistic::kPercentile) {
    const std::int64_t high = upper_rank(spec.percentile, s.count());
    if (is_symmetric(spec)) return Range{0.0f, static_cast<float>(s.at_rank(high, true))};
    return extreme_range(spec, static_cast<float>(s.at_rank(lower_rank(spec.percentile, s.count()), false)),
                         static_cast<float>(s.at_rank(high, false)));
  }
  if (spec.statistic == Statistic::kMean) return Range{0.0f, static_cast<float>(mean_and_sigma(s, 0))};
  if (spec.statistic == Statistic::kMeanSigma) return Range{0.0f, static_cast<float>(mean_and_sigma(s, spec.sigma))};
  if (spec.statistic == Statistic::kKl)
    return Range{0.0f, static_cast<float>(divergence_threshold(grid, s, static_cast<double>(extreme.hi)))};
  if (spec.statistic != Statistic::kMse) return extreme;
  const auto bins = s.bins();
  return search_range(spec, grid, extreme, kMaxSearchSteps, 1,
                      [&](const Affine* candidates, int count, double* errors) {
                        for (int i = 0; i < count; ++i) {
                          const Affine& c = candidates[i];
                          errors[i] = histogram_error(bins, c.scale, grid.lo - c.zero, grid.hi - c.zero);
                        }
                      });
}

Result<QuantParams> per_channel(QuantSpec spec, const Shape& shape, const TensorStatistics& s, int default_axis) {
  QUANVAS_TRY(const BlockLayout layout, make_layout(spec, shape, default_axis));
  const int given = spec.axis.value_or(default_axis);
  spec.axis = given < 0 ? given + static_cast<int>(shape.size()) : given;
  const auto channels = static_cast<std::int64_t>(s.channel_absmax().size());
  if (*spec.axis != 1 || channels != layout.dim)
    return fail(ErrorCode::kUnsupported,
                "Calibration kept the magnitudes of " + std::to_string(channels) +
                    " channels of axis 1, but the quantizer wants " + std::to_string(layout.dim) + " of axis " +
                    std::to_string(*spec.axis) + ".",
                "Use granularity tensor, or axis 1.");
  if (spec.statistic == Statistic::kPercentile || spec.statistic == Statistic::kMse)
    return fail(ErrorCode::kUnsupported,
                std::string("statistic is ") + enum_text(spec.statistic) +
                    "; of an activation's channels calibration keeps only the largest magnitude.",
                "Use statistic absmax, or granularity tensor.");
  if (spec.batches != BatchStatistic::kAll) {
    if (spec.batches != BatchStatistic::kMean || spec.statistic != Statistic::kAbsMax || !is_symmetric(spec) ||
        static_cast<std::int64_t>(s.channel_sums().size()) != layout.dim)
      return fail(ErrorCode::kUnsupported,
                  std::string("batches is ") + enum_text(spec.batches) +
                      " with granularity channel; of a batch's channels calibration keeps the mean of the largest magnitudes.",
                  "Use batches mean with statistic absmax, and calibrate again if that is given, or batches all.");
    std::vector<float> mean;
    for (const double sum : s.channel_sums()) mean.push_back(static_cast<float>(sum / static_cast<double>(s.batches().size())));
    return params_from_range(spec, layout, std::vector<float>(mean.size()), mean);
  }
  // With a zero point: each channel from -max|x| (0 when nothing was negative) to max|x|.
  const std::vector<float>& hi = s.channel_absmax();
  std::vector<float> lo(hi.size());
  for (std::size_t i = 0; i < hi.size(); ++i) lo[i] = s.minimum() < 0 ? -hi[i] : 0.0f;
  return params_from_range(spec, layout, lo, hi);
}

// The statistic's range within the clip limits; nothing is looked at where these say it all.
Result<Range> range_of(const QuantSpec& spec, const TensorStatistics& statistics) {
  const bool fixed = has_clip(spec) && (is_symmetric(spec) || (spec.clip_min && spec.clip_max));
  if (statistics.count() == 0 && !fixed)
    return fail(ErrorCode::kInvalidArgument,
                statistics.non_finite() > 0 ? "Calibration saw no finite value of this tensor."
                                            : "Calibration saw no value of this tensor.",
                "Calibrate with other samples, or give clip_min and clip_max.");
  Range found;
  // A constant scale looks at nothing.
  if (!fixed && spec.source != ScaleSource::kConstant) {
    QUANVAS_TRY(found, statistic_range(spec, grid_of(spec), statistics));
  }
  return clipped_range(spec, found);
}

}  // namespace

Result<QuantParams> find_params(const QuantSpec& spec, const Shape& shape, const TensorStatistics& statistics,
                                int default_axis) {
  if (spec.granularity == Granularity::kGroup)
    return fail(ErrorCode::kUnsupported,
                "granularity is group; statistics of groups of an activation are not kept.",
                "Use granularity tensor or channel.");
  const bool per_channel_range =
      spec.granularity == Granularity::kChannel && !has_clip(spec) && statistics.count() > 0;
  if (per_channel_range) return per_channel(spec, shape, statistics, default_axis);
  QUANVAS_TRY(const Range range, range_of(spec, statistics));
  QUANVAS_TRY(const BlockLayout layout, make_layout(spec, shape, default_axis));
  return params_from_range(spec, layout, {range.lo}, {range.hi});
}

Result<float> find_threshold(const QuantSpec& spec, const TensorStatistics& statistics) {
  QUANVAS_TRY(const Range range, range_of(spec, statistics));
  return range.hi;
}

}  // namespace quanvas::quant
