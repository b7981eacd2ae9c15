#include "core/quant/affine.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

namespace quanvas::quant {
namespace {

float tame(float v) { return std::isnan(v) ? 0.0f : std::clamp(v, -FLT_MAX, FLT_MAX); }

// ceil(log2(v)) from the bits; log2f is off by one just below powers of two.
int ceil_log2(float v) {
  int exponent = 0;
  const float mantissa = std::frexp(v, &exponent);
  return mantissa == 0.5f ? exponent - 1 : exponent;
}

float symmetric_scale(const QuantSpec& spec, const CodeRange& codes, float threshold) {
  const float t = std::max(std::fabs(tame(threshold)), kSmallestRange);
  if (spec.scale == ScaleType::kPowerOfTwo)
    return std::ldexp(1.0f, ceil_log2(t) - (spec.is_signed ? spec.bits - 1 : spec.bits));
  const std::int64_t steps = spec.is_signed ? -codes.lo : codes.hi;
  return t / static_cast<float>(std::max<std::int64_t>(1, steps));
}

Affine asymmetric(const QuantSpec& spec, const CodeRange& codes, Range range) {
  const float lo = std::min(tame(range.lo), 0.0f), hi = std::max(tame(range.hi), 0.0f);
  const auto steps = static_cast<float>(std::max<std::int64_t>(1, codes.hi - codes.lo));
  float width = hi - lo;
  Affine result;
  if (std::isinf(width))
    result.scale = static_cast<float>((static_cast<double>(hi) - lo) / steps);
  else
    result.scale = std::max(width, kSmallestRange) / steps;
  if (spec.scale == ScaleType::kPowerOfTwo) result.scale = std::ldexp(1.0f, ceil_log2(result.scale));
  // In double: lo - min / s is a whole number plus at most 2^32.
  const double zero = std::rint(static_cast<double>(codes.lo) - static_cast<double>(lo / result.scale));
  result.zero = static_cast<float>(
      std::clamp(zero, static_cast<double>(codes.lo), static_cast<double>(codes.hi)));
  return result;
}

}  // namespace

Affine affine(const QuantSpec& spec, const CodeRange& codes, Range range) {
  if (is_symmetric(spec)) return {symmetric_scale(spec, codes, range.hi), 0.0f};
  return asymmetric(spec, codes, range);
}

Range extreme_range(const QuantSpec& spec, float lowest, float highest) {
  if (!is_symmetric(spec)) return {std::min(lowest, 0.0f), std::max(highest, 0.0f)};
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

QuantParams params_from_range(const QuantSpec& spec, const BlockLayout& layout, const std::vector<float>& lo,
                              const std::vector<float>& hi) {
  QuantParams params;
  params.spec = spec;
  params.layout = layout;
  const CodeRange codes = code_range(spec);
  params.lo = codes.lo;
  params.hi = codes.hi;
  const auto n = static_cast<std::size_t>(std::max<std::int64_t>(0, layout.parameters()));
  params.scale.resize(n);
  if (!is_symmetric(spec)) params.zero_point.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const Affine a = affine(spec, codes, {i < lo.size() ? lo[i] : 0.0f, i < hi.size() ? hi[i] : 0.0f});
    params.scale[i] = a.scale;
    if (!is_symmetric(spec)) params.zero_point[i] = a.zero;
  }
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
  for (std::size_t i = 0; i < params.scale.size(); ++i)
    params.scale[i] = std::clamp(input_scale * weight_scale[i % weight_scale.size()], FLT_MIN, FLT_MAX);
  return params;
}

}  // namespace quanvas::quant
