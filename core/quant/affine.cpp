#include "core/quant/affine.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace quanvas::quant {
namespace {

// A range of zeros counts as this, so that it has a scale.
float at_least_smallest(float t) { return t > 0 ? t : kSmallestRange; }

float tame(float v) { return std::isnan(v) ? 0.0f : std::clamp(v, -FLT_MAX, FLT_MAX); }

// The threshold's mantissa rounded to the format's bits, half to even, as exponent rounding "even" looks at it.
float rounded_mantissa(float t, int mantissa_bits) {
  std::int32_t bits;
  std::memcpy(&bits, &t, sizeof bits);
  const std::int32_t unit = 1 << (23 - mantissa_bits);
  bits = (bits + unit / 2) & ~(unit - 1);
  float rounded;
  std::memcpy(&rounded, &bits, sizeof rounded);
  return rounded;
}

float power_of_two_scale(const QuantSpec& spec, const Grid& grid, float t) {
  int exponent = 0;
  switch (spec.exponent_rounding) {
    case ExponentRounding::kCeil: exponent = ceil_log2(t) - full_exponent(grid, spec); break;
    case ExponentRounding::kFloor: exponent = floor_log2(t) - full_exponent(grid, spec); break;
    case ExponentRounding::kNext: exponent = floor_log2(t) + 1 - full_exponent(grid, spec); break;
    case ExponentRounding::kRound:
      exponent = static_cast<int>(std::nearbyint(std::log2(static_cast<double>(t)))) - full_exponent(grid, spec);
      break;
    case ExponentRounding::kFit: exponent = ceil_log2(static_cast<float>(static_cast<double>(t) / full_scale(grid))); break;
    case ExponentRounding::kEven:
      exponent = floor_log2(rounded_mantissa(t, spec.mantissa_bits)) - full_exponent(grid, spec);
      break;
  }
  // As far as E8M0 goes, but for its lowest exponent, which is subnormal in float32.
  return std::ldexp(1.0f, std::clamp(exponent, -126, 127));
}

// The least float16 at or above v, as float32; the largest float16 when there is none.
float float16_up(float v) {
  constexpr float kLargest = 65504, kSmallest = 0x1p-24f;
  if (!(v < kLargest)) return kLargest;
  if (v <= kSmallest) return kSmallest;
  const float unit = std::ldexp(1.0f, std::max(floor_log2(v), -14) - 10);
  return std::ceil(v / unit) * unit;
}

float allowed_scale(const QuantSpec& spec, float scale) {
  return spec.scale == ScaleType::kFloat16 ? float16_up(scale) : std::clamp(scale, FLT_MIN, FLT_MAX);
}

// The float16 nearest to v, half to even.
float nearest_float16(float v) {
  const float a = std::fabs(v);
  if (!(a < 65520)) return std::copysign(65504.0f, v);
  const float unit = std::ldexp(1.0f, std::max(a > 0 ? floor_log2(a) : -14, -14) - 10);
  return std::nearbyintf(v / unit) * unit;
}

// The value of the largest magnitude takes the lowest code, or the codebook's farthest value.
float signed_scale(const QuantSpec& spec, const Grid& grid, float value) {
  const float v = tame(value);
  const bool below = grid.family != Family::kCodebook || -grid.values->front() >= grid.values->back();
  const float far = grid.family != Family::kCodebook ? static_cast<float>(grid.lo)
                    : below                          ? grid.values->front()
                                                     : grid.values->back();
  const float magnitude = allowed_scale(spec, at_least_smallest(std::fabs(v)) / std::fabs(far));
  return (v < 0) == below ? magnitude : -magnitude;
}

float symmetric_scale(const QuantSpec& spec, const Grid& grid, float threshold) {
  if (spec.statistic == Statistic::kSignedMax) return signed_scale(spec, grid, threshold);
  const float t = at_least_smallest(std::fabs(tame(threshold)));
  if (spec.scale == ScaleType::kPowerOfTwo) return power_of_two_scale(spec, grid, t);
  return allowed_scale(spec, t / static_cast<float>(full_scale(grid)));
}

float zero_of(const QuantSpec& spec, const Grid& grid, float lo, float scale) {
  if (spec.zero_point == ZeroPointType::kFloat) return -lo / scale + static_cast<float>(grid.lo);
  // In double: lo - min / s is a whole number plus at most 2^32.
  const double zero = std::nearbyint(grid.lo - static_cast<double>(lo / scale));
  return static_cast<float>(std::clamp(zero, grid.lo, grid.hi));
}

Affine asymmetric(const QuantSpec& spec, const Grid& grid, Range range) {
  // Without zero_in_range only the lower end is made to reach 0, as Brevitas has it; an offset needs neither.
  const float lo = grid.offset && !spec.zero_in_range ? tame(range.lo) : std::min(tame(range.lo), 0.0f);
  const float hi = spec.zero_in_range ? std::max(tame(range.hi), 0.0f) : tame(range.hi);
  const auto steps = static_cast<float>(std::max(1.0, grid.hi - grid.lo));
  const float width = std::fabs(hi - lo);
  Affine result;
  if (std::isinf(width))
    result.scale = static_cast<float>((static_cast<double>(hi) - lo) / static_cast<double>(steps));
  else
    result.scale = at_least_smallest(width) / steps;
  if (spec.scale == ScaleType::kPowerOfTwo) result.scale = std::ldexp(1.0f, std::isinf(result.scale) ? 127 : std::clamp(ceil_log2(result.scale), -126, 127));
  else result.scale = allowed_scale(spec, result.scale);
  if (grid.offset) {
    result.zero = spec.scale == ScaleType::kFloat16 ? nearest_float16(lo) : lo;
    return result;
  }
  result.zero = zero_of(spec, grid, lo, result.scale);
  return result;
}

// Two levels: the largest scale becomes the largest E4M3 times a float32 of the tensor, the others are rounded to
// E4M3 of it. A scale that would round to 0 takes the smallest.
void two_level_scales(std::vector<float>& scale) {
  if (scale.empty()) return;
  QuantSpec e4m3;
  e4m3.format = "float";
  const Grid grid = grid_of(e4m3);
  float most = 0;
  for (const float s : scale) most = std::max(most, std::fabs(s));
  const float tensor = most / grid.largest;
  const float least = float_value(grid, 1);
  for (float& s : scale) s = std::copysign(std::max(least, nearest_float(grid, std::fabs(s) / tensor, 0)) * tensor, s);
}

// Two levels of integers: blocks that follow each other along the axis share a float16 that makes the largest of them
// the highest code; codes of scales run from 1, so that none becomes 0, of signed ones to both sides, of offsets from 0.
// Offsets reach 0 or below (zero_in_range) and are stored by their magnitude.
void quantize_scales(QuantParams& params, const BlockLayout& layout) {
  const QuantSpec& spec = params.spec;
  const bool is_signed = spec.statistic == Statistic::kSignedMax, offsets = spec.zero_point == ZeroPointType::kOffset;
  const double most = is_signed ? std::ldexp(1.0, spec.scale_bits - 1) - 1 : std::ldexp(1.0, spec.scale_bits) - 1;
  const bool groups = layout.granularity == Granularity::kGroup;
  const std::int64_t line = groups ? (layout.dim + layout.group - 1) / layout.group : layout.dim;
  const std::int64_t inner = groups ? layout.inner : 1, outer = groups ? layout.outer : 1;
  const std::int64_t together = spec.scale_group > 0 ? std::min<std::int64_t>(spec.scale_group, line) : line;
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t first = 0; first < line; first += together)
      for (std::int64_t i = 0; i < inner; ++i) {
        const std::int64_t end = std::min(line, first + together);
        const auto at = [&](std::int64_t g) { return static_cast<std::size_t>((o * line + g) * inner + i); };
        float scale = 0, offset = 0;
        for (std::int64_t g = first; g < end; ++g) {
          scale = std::max(scale, std::fabs(params.scale[at(g)]));
          if (offsets) offset = std::max(offset, -params.zero_point[at(g)]);
        }
        const float unit = float16_up(static_cast<float>(static_cast<double>(scale) / most));
        const float unit_offset = offset > 0 ? float16_up(static_cast<float>(static_cast<double>(offset) / most)) : 0.0f;
        for (std::int64_t g = first; g < end; ++g) {
          float& s = params.scale[at(g)];
          const double code = std::clamp(std::nearbyint(static_cast<double>(std::fabs(s) / unit)), 1.0, most);
          s = std::copysign(static_cast<float>(code) * unit, s);
          if (!offsets || unit_offset == 0) continue;
          float& m = params.zero_point[at(g)];
          m = -static_cast<float>(std::clamp(std::nearbyint(static_cast<double>(-m / unit_offset)), 0.0, most)) * unit_offset;
        }
        params.super_scale.push_back(unit);
        if (offsets) params.super_offset.push_back(unit_offset);
      }
}

}  // namespace

Affine affine(const QuantSpec& spec, const Grid& grid, Range range) {
  if (spec.source == ScaleSource::kConstant) return {static_cast<float>(spec.scale_value.value_or(1)), 0.0f};
  if (is_symmetric(spec)) return {symmetric_scale(spec, grid, range.hi), 0.0f};
  return asymmetric(spec, grid, range);
}

Range extreme_range(const QuantSpec& spec, float lowest, float highest) {
  if (!is_symmetric(spec)) {
    const bool free = spec.zero_point == ZeroPointType::kOffset && !spec.zero_in_range;
    return {free ? lowest : std::min(lowest, 0.0f), spec.zero_in_range ? std::max(highest, 0.0f) : highest};
  }
  if (spec.statistic == Statistic::kSignedMax)
    return {0.0f, std::fabs(lowest) > std::fabs(highest) ? lowest : highest};
  // Unsigned codes cannot show the negative side: minmax does not spend range on it, absmax does.
  const bool positive_only = !spec.is_signed && spec.statistic == Statistic::kMinMax;
  return {0.0f, std::max(positive_only ? 0.0f : std::fabs(lowest), positive_only ? highest : std::fabs(highest))};
}

Result<Range> clipped_range(const QuantSpec& spec, Range found) {
  for (const auto& limit : {spec.clip_min, spec.clip_max})
    if (limit && !std::isfinite(*limit))
      return fail(ErrorCode::kInvalidArgument, "clip_min and clip_max must be finite numbers.");
  if (has_clip(spec) && spec.granularity != Granularity::kTensor)
    return fail(ErrorCode::kInvalidArgument, "clip_min and clip_max need granularity tensor.",
                "Remove the clip limits or quantize per tensor.");
  Range range = found;
  if (!is_symmetric(spec)) {
    if (spec.clip_min) range.lo = static_cast<float>(*spec.clip_min);
    if (spec.clip_max) range.hi = static_cast<float>(*spec.clip_max);
  } else if (has_clip(spec)) {
    const double negative = spec.is_signed ? std::fabs(spec.clip_min.value_or(0)) : 0;
    range.hi = static_cast<float>(std::max(negative, spec.clip_max.value_or(0)));
  }
  return range;
}

QuantParams empty_params(const QuantSpec& spec, const BlockLayout& layout) {
  QuantParams params;
  params.spec = spec;
  params.layout = layout;
  const CodeRange codes = code_range(spec);
  params.lo = codes.lo;
  params.hi = codes.hi;
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(0, layout.parameters()));
  params.scale.resize(n);
  if (!is_symmetric(spec)) params.zero_point.resize(n);
  return params;
}

QuantParams params_from_range(const QuantSpec& spec, const BlockLayout& layout, const std::vector<float>& lo,
                              const std::vector<float>& hi) {
  QuantParams params = empty_params(spec, layout);
  const Grid grid = grid_of(spec);
  const std::size_t n = params.scale.size();
  for (std::size_t i = 0; i < n; ++i) {
    const Affine a = affine(spec, grid, {i < lo.size() ? lo[i] : 0.0f, i < hi.size() ? hi[i] : 0.0f});
    params.scale[i] = a.scale;
    if (!is_symmetric(spec)) params.zero_point[i] = a.zero;
  }
  if (spec.source == ScaleSource::kConstant) return params;
  if (spec.scale == ScaleType::kFloat8) two_level_scales(params.scale);
  else if (spec.scale == ScaleType::kQuantized) quantize_scales(params, layout);
  else return params;
  // The zero point that belongs to the scale as it is now.
  if (spec.zero_point == ZeroPointType::kInteger || spec.zero_point == ZeroPointType::kFloat)
    for (std::size_t i = 0; i < n; ++i)
      params.zero_point[i] = zero_of(spec, grid, i < lo.size() ? std::min(tame(lo[i]), 0.0f) : 0.0f, params.scale[i]);
  return params;
}

Result<QuantParams> bias_params(const QuantSpec& spec, float input_scale, const std::vector<float>& weight_scale,
                                const Shape& shape, int axis) {
  const auto scales = static_cast<std::int64_t>(weight_scale.size());
  const bool per_channel = scales != 1;
  const std::int64_t channels = axis >= 0 && axis < static_cast<int>(shape.size()) ? shape[static_cast<std::size_t>(axis)] : 1;
  if (per_channel && (scales == 0 || channels < scales || channels % scales != 0))
    return fail(ErrorCode::kUnsupported, "The weight has " + std::to_string(scales) +
                                             " scales, and a bias of shape " + shape_text(shape) + " has " +
                                             std::to_string(channels) + " output channel(s).",
                "Give the weight one scale, or the bias a scale of its own.");
  QuantParams params;
  params.spec = spec;
  params.spec.zero_point = ZeroPointType::kNone;
  params.spec.is_signed = true;
  params.spec.narrow = false;
  params.spec.granularity = per_channel ? Granularity::kChannel : Granularity::kTensor;
  params.spec.axis = per_channel ? std::optional<int>(axis) : std::nullopt;
  const CodeRange codes = code_range(params.spec);
  params.lo = codes.lo;
  params.hi = codes.hi;
  QUANVAS_TRY(params.layout, make_layout(params.spec, shape, axis));
  params.scale.resize(static_cast<std::size_t>(params.layout.parameters()));
  for (std::size_t i = 0; i < params.scale.size(); ++i) {
    // With the sign of the weight's: those of signed-max may be below 0.
    const float product = input_scale * weight_scale[i % weight_scale.size()];
    params.scale[i] = std::copysign(std::clamp(std::fabs(product), FLT_MIN, FLT_MAX), product);
  }
  return params;
}

}  // namespace quanvas::quant
