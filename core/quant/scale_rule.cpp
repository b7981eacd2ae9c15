#include "core/quant/scale_rule.h"

#include <algorithm>
#include <bit>
#include <cfloat>

#include "core/quant/kernels.h"

namespace quanvas::quant {

ScaleRule::ScaleRule(const QuantSpec& spec, const Grid& grid) : spec_(spec), grid_(grid) {
  // minmax of an unsigned quantizer does not look at the negative side.
  absolute_ = is_symmetric(spec) && (spec.is_signed || spec.statistic != Statistic::kMinMax);
  if (!absolute_ || spec.source == ScaleSource::kConstant) return;
  full_ = static_cast<float>(full_scale(grid));
  if (spec.scale == ScaleType::kFloat32) form_ = Form::kQuotient;
  if (spec.scale != ScaleType::kPowerOfTwo) return;
  exponent_ = -full_exponent(grid, spec);
  switch (spec.exponent_rounding) {
    case ExponentRounding::kFloor: form_ = Form::kExponent; break;
    case ExponentRounding::kNext: form_ = Form::kExponent, ++exponent_; break;
    case ExponentRounding::kCeil: form_ = Form::kExponent, round_up_ = 0x7fffff; break;
    default: break;
  }
}

void ScaleRule::from_magnitudes(const std::int32_t* bits, std::int64_t n, float* scale) const {
  constexpr std::int32_t kNormal = std::bit_cast<std::int32_t>(FLT_MIN);
  constexpr std::int32_t kSmallest = std::bit_cast<std::int32_t>(kSmallestRange);
  Form form = form_;
  // The exponent of a subnormal number does not stand in its bits.
  if (form == Form::kExponent && std::any_of(bits, bits + n, [](std::int32_t b) { return b != 0 && b < kNormal; }))
    form = Form::kAny;
  switch (form) {
    case Form::kQuotient:
      for (std::int64_t i = 0; i < n; ++i) {
        const float t = std::bit_cast<float>(bits[i] != 0 ? bits[i] : kSmallest);
        scale[i] = std::clamp(t / full_, FLT_MIN, FLT_MAX);
      }
      break;
    case Form::kExponent:
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int32_t t = bits[i] != 0 ? bits[i] : kSmallest;
        const std::int32_t exponent = ((t + round_up_) >> 23) - 127 + exponent_;
        scale[i] = std::bit_cast<float>((std::min(std::max(exponent, -126), 127) + 127) << 23);
      }
      break;
    case Form::kAny:
      for (std::int64_t i = 0; i < n; ++i) {
        const float t = std::bit_cast<float>(bits[i]);
        scale[i] = affine(spec_, grid_, extreme_range(spec_, -t, t)).scale;
      }
      break;
  }
}

void ScaleRule::from_extremes(const std::int32_t* lowest, const std::int32_t* highest, std::int64_t n, float* scale,
                              float* zero) const {
  for (std::int64_t i = 0; i < n; ++i) {
    const Affine a = affine(spec_, grid_, extreme_range(spec_, from_order_key(lowest[i]), from_order_key(highest[i])));
    scale[i] = a.scale;
    if (zero) zero[i] = a.zero;
  }
}

}  // namespace quanvas::quant
