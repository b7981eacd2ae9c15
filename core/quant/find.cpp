// Quantizer parameters from a tensor.
#include <algorithm>
#include <cmath>

#include "core/quant/affine.h"
#include "core/quant/apply.h"
#include "core/quant/decouple.h"
#include "core/quant/divergence.h"
#include "core/quant/extremes.h"
#include "core/quant/find_tiles.h"
#include "core/quant/order.h"
#include "core/quant/parallel.h"
#include "core/quant/search.h"
#include "core/quant/strided.h"

namespace quanvas::quant {
namespace {

// Whether `next` has as many elements as `first`, each `by` further in memory.
bool follows(const Strided& first, const Strided& next, std::int64_t by) {
  return next.base == first.base + by && next.rows == first.rows;
}

// Copies `together` parameters that follow each other in memory, one after the other.
void gather(const Strided& s, std::int64_t together, const float* x, float* out) {
  for (std::int64_t r = 0; r < s.rows; ++r) {
    const float* const from = x + s.base + r * s.stride;
    if (together == 1) std::copy(from, from + s.run, out + r * s.run);
    for (std::int64_t j = 0; together > 1 && j < together; ++j) out[j * s.rows + r] = from[j];
  }
}

// Calls f(p, data, n) with the elements of each parameter side by side. Neighbouring parameters that are
// interleaved in memory are copied out together, so that each cache line is read once.
template <class F>
void for_each_block(const BlockLayout& layout, const float* x, const F& f) {
  constexpr std::int64_t kTogether = 16;
  const std::int64_t count = layout.parameters();
  const bool interleaved = layout.granularity == Granularity::kGroup ? layout.inner > 1 : layout.inner == 1;
  const std::int64_t step = interleaved ? kTogether : 1;
  const std::int64_t batches = (count + step - 1) / step;
  const int threads = threads_for(layout.elements());
  std::vector<std::vector<float>> buffers(static_cast<std::size_t>(threads));
  const std::int64_t per_block = layout.granularity == Granularity::kGroup ? layout.group : layout.outer * layout.inner;
  for (auto& b : buffers) b.resize(static_cast<std::size_t>(std::min(step * per_block, layout.elements())));
  parallel_for(threads, threads, [&](std::int64_t stripe) {
    float* const buffer = buffers[static_cast<std::size_t>(stripe)].data();
    for (std::int64_t b = batches * stripe / threads; b < batches * (stripe + 1) / threads; ++b) {
      const std::int64_t end = std::min(count, (b + 1) * step);
      std::int64_t together = 1;
      for (std::int64_t p = b * step; p < end; p += together) {
        const Strided s = elements_of(layout, p);
        together = 1;
        if (s.contiguous()) {
          f(p, x + s.base, s.count());
          continue;
        }
        while (s.run == 1 && p + together < end && follows(s, elements_of(layout, p + together), together)) ++together;
        gather(s, together, x, buffer);
        for (std::int64_t j = 0; j < together; ++j) f(p + j, buffer + j * s.count(), s.count());
      }
    }
  });
}

Range percentile_range(const QuantSpec& spec, const float* x, std::int64_t n, Range found, int threads) {
  const auto count = static_cast<double>(n);
  const std::int64_t high = upper_rank(spec.percentile, count), low = lower_rank(spec.percentile, count);
  if (is_symmetric(spec)) {
    if (high == n) return found;  // found: absmax
    return {0.0f, order_statistics(x, n, true, {high}, threads)[0]};
  }
  if (high == n && low == 1) return found;
  const auto values = order_statistics(x, n, false, {low, high}, threads);
  return extreme_range(spec, values[0], values[1]);
}

// A symmetric range of the whole tensor from a high percentile, without a pass for the extremes.
std::optional<HighMagnitude> high_percentile(const QuantSpec& spec, const BlockLayout& layout, const float* x) {
  const std::int64_t n = layout.elements();
  if (spec.statistic != Statistic::kPercentile || spec.granularity != Granularity::kTensor || !is_symmetric(spec) ||
      has_clip(spec) || n == 0)
    return std::nullopt;
  const std::int64_t rank = upper_rank(spec.percentile, static_cast<double>(n));
  if (rank == n) return std::nullopt;
  return high_magnitude(x, n, rank, threads_for(n));
}

// Sums of |x| and x^2 in double, tile by tile, so that threads do not matter.
struct Moments {
  double absolute = 0, squares = 0;
};
Moments moments(const float* x, std::int64_t n, int threads) {
  const std::int64_t tiles = (n + kTile - 1) / kTile;
  std::vector<Moments> parts(static_cast<std::size_t>(tiles));
  parallel_for(tiles, threads, [&](std::int64_t t) {
    Moments m;
    for (std::int64_t i = t * kTile; i < std::min(n, (t + 1) * kTile); ++i) {
      const double v = static_cast<double>(x[i]);
      m.absolute += std::fabs(v);
      m.squares += v * v;
    }
    parts[static_cast<std::size_t>(t)] = m;
  });
  Moments total;
  for (const Moments& m : parts) {
    total.absolute += m.absolute;
    total.squares += m.squares;
  }
  return total;
}

// Mean of |x| and k unbiased standard deviations of it; 1e-8 is added to the variance, as Brevitas has it, so that
// constant magnitudes get a range a little above themselves.
double mean_sigma(double sigma, const Moments& m, double n) {
  const double mean = m.absolute / n;
  const double variance = n > 1 ? std::max(0.0, (m.squares - n * mean * mean) / (n - 1)) : 0;
  return mean + sigma * std::sqrt(variance + 1e-8);
}

Range block_range(const QuantSpec& spec, const Grid& grid, const float* x, std::int64_t n, Range extreme,
                  int threads) {
  if (n == 0) return extreme;
  const auto count = static_cast<double>(n);
  const auto threshold = [](double t) { return Range{0.0f, static_cast<float>(t)}; };
  switch (spec.statistic) {
    case Statistic::kPercentile: return percentile_range(spec, x, n, extreme, threads);
    case Statistic::kMse: return mse_range(spec, grid, x, n, extreme, threads);
    case Statistic::kMean: return threshold(moments(x, n, threads).absolute / count);
    case Statistic::kMeanSigma: return threshold(mean_sigma(spec.sigma, moments(x, n, threads), count));
    case Statistic::kL1: return threshold(moments(x, n, threads).absolute);
    case Statistic::kL2: return threshold(std::sqrt(moments(x, n, threads).squares));
    case Statistic::kKl: return threshold(kl_threshold(grid, x, n, static_cast<double>(extreme.hi)));
    default: return extreme;
  }
}

// Whether block_range() has something to find beyond the extremes.
bool looks_at_elements(const QuantSpec& spec) {
  switch (spec.statistic) {
    case Statistic::kAbsMax:
    case Statistic::kMinMax:
    case Statistic::kMaxMean:
    case Statistic::kMaxRms:
    case Statistic::kSignedMax:
    case Statistic::kHe:
    case Statistic::kHqo: return false;
    default: return true;
  }
}

// Mean, or root mean square, over the channels of their largest magnitude.
Result<double> mean_of_maxima(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis) {
  QuantSpec channels = spec;
  channels.granularity = shape.empty() ? Granularity::kTensor : Granularity::kChannel;  // a number is its own channel
  QUANVAS_TRY(const BlockLayout layout, make_layout(channels, shape, default_axis));
  const Extremes e = find_extremes(layout, x);
  const bool squares = spec.statistic == Statistic::kMaxRms;
  double sum = 0;
  for (std::size_t i = 0; i < e.lowest.size(); ++i) {
    const double most = static_cast<double>(std::max(std::fabs(e.lowest[i]), std::fabs(e.highest[i])));
    sum += squares ? most * most : most;
  }
  const double mean = e.lowest.empty() ? 0.0 : sum / static_cast<double>(e.lowest.size());
  return squares ? std::sqrt(mean) : mean;
}

// He et al. 2015: the standard deviation that keeps a ReLU network's activations; fan in: the elements of a channel.
double he_threshold(const QuantSpec& spec, const Shape& shape, int default_axis) {
  double elements = 1;
  for (const std::int64_t d : shape) elements *= static_cast<double>(d);
  if (shape.empty()) return std::sqrt(2.0);
  const int given = spec.granularity == Granularity::kGroup ? 0 : spec.axis.value_or(default_axis);
  const int axis = std::clamp(given < 0 ? given + static_cast<int>(shape.size()) : given, 0, static_cast<int>(shape.size()) - 1);
  return std::sqrt(2.0 * static_cast<double>(shape[static_cast<std::size_t>(axis)]) / std::max(1.0, elements));
}

}  // namespace

QuantSpec with_axis(const QuantSpec& spec, const Shape& shape, int default_axis) {
  QuantSpec resolved = spec;
  if (spec.granularity != Granularity::kTensor) {
    const int axis = spec.axis.value_or(spec.granularity == Granularity::kRow ? -1 : default_axis);
    resolved.axis = axis < 0 ? axis + static_cast<int>(shape.size()) : axis;
  }
  return resolved;
}

Result<Ranges> find_ranges(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis) {
  if (spec.scale_from_accumulator)
    return fail(ErrorCode::kInvalidArgument,
                "scale_from_accumulator is true; such a scale comes from input and weight, not from the tensor.");
  QUANVAS_TRY(const BlockLayout layout, make_layout(spec, shape, default_axis));
  const QuantSpec resolved = with_axis(spec, shape, default_axis);
  if (spec.source == ScaleSource::kConstant) return Ranges{{}, {}, layout, resolved};
  if (const auto high = high_percentile(spec, layout, x)) {
    if (!high->finite) return non_finite(shape, x, layout.elements());
    return Ranges{{0.0f}, {high->value}, layout, resolved};
  }
  const Extremes extremes = find_extremes(layout, x);
  if (!extremes.finite) return non_finite(shape, x, layout.elements());
  const Grid grid = grid_of(spec);
  const std::size_t count = extremes.lowest.size();
  std::vector<float> lo(count), hi(count);
  for (std::size_t p = 0; p < count; ++p) {
    const Range r = extreme_range(spec, extremes.lowest[p], extremes.highest[p]);
    lo[p] = r.lo;
    hi[p] = r.hi;
  }
  const bool all_limits_given =
      has_clip(spec) && (is_symmetric(spec) || (spec.clip_min.has_value() && spec.clip_max.has_value()));
  if ((spec.statistic == Statistic::kMaxMean || spec.statistic == Statistic::kMaxRms) && !all_limits_given) {
    QUANVAS_TRY(const double mean, mean_of_maxima(spec, shape, x, default_axis));
    hi.assign(count, static_cast<float>(mean));
  }
  if (spec.statistic == Statistic::kHe && !all_limits_given)
    hi.assign(count, static_cast<float>(he_threshold(spec, shape, default_axis)));
  if (looks_at_elements(spec) && !all_limits_given) {
    const auto keep = [&](std::int64_t p, const float* data, std::int64_t n, int threads) {
      const auto i = static_cast<std::size_t>(p);
      const Range r = block_range(spec, grid, data, n, {lo[i], hi[i]}, threads);
      lo[i] = r.lo;
      hi[i] = r.hi;
    };
    if (count == 1 && (spec.granularity == Granularity::kTensor || elements_of(layout, 0).contiguous()))
      keep(0, x, layout.elements(), threads_for(layout.elements()));
    else
      for_each_block(layout, x, [&](std::int64_t p, const float* data, std::int64_t n) { keep(p, data, n, 1); });
  }
  if (has_clip(spec)) {
    QUANVAS_TRY(const Range r, clipped_range(spec, {lo.empty() ? 0.0f : lo[0], hi.empty() ? 0.0f : hi[0]}));
    lo.assign(count, r.lo);
    hi.assign(count, r.hi);
  }
  return Ranges{std::move(lo), std::move(hi), layout, resolved};
}

Ranges combine_ranges(const QuantSpec& spec, const std::vector<Ranges>& batches) {
  Ranges all = batches.front();
  const auto combine = [&](std::vector<float> Ranges::*end) {
    for (std::size_t p = 0; p < (all.*end).size(); ++p) {
      double value = static_cast<double>((all.*end)[p]);
      for (std::size_t b = 1; b < batches.size(); ++b) {
        const double share = spec.batches == BatchStatistic::kEma ? spec.momentum : 1 / static_cast<double>(b + 1);
        value += share * (static_cast<double>((batches[b].*end)[p]) - value);
      }
      (all.*end)[p] = static_cast<float>(value);
    }
  };
  combine(&Ranges::lo);
  combine(&Ranges::hi);
  return all;
}

Result<QuantParams> find_params(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis) {
  if (const auto tiled = make_layout(spec, shape, default_axis); tiled && scales_from_tiles(spec, *tiled)) {
    QuantParams params;
    if (!find_in_tiles(with_axis(spec, shape, default_axis), *tiled, x, nullptr, nullptr, params))
      return non_finite(shape, x, tiled->elements());
    return params;
  }
  QUANVAS_TRY(const Ranges ranges, find_ranges(spec, shape, x, default_axis));
  QuantParams params = params_from_range(ranges.resolved, ranges.layout, ranges.lo, ranges.hi);
  const BlockLayout& layout = ranges.layout;
  const Grid grid = grid_of(spec);
  if (spec.statistic == Statistic::kHqo && !has_clip(spec)) {
    HalfQuadratic search(grid, params);
    do {
      for_each_block(layout, x, [&](std::int64_t p, const float* data, std::int64_t n) {
        search.step(static_cast<std::size_t>(p), data, n);
      });
    } while (search.advance());
  }
  if (spec.decoupled != Decoupling::kNone || spec.accumulator_bits) {
    prepare_decoupling(params);
    for_each_block(layout, x, [&](std::int64_t p, const float* data, std::int64_t n) {
      decouple(params, static_cast<std::size_t>(p), data, n);
    });
  }
  return params;
}

}  // namespace quanvas::quant
