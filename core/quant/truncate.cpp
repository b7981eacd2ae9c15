#include "core/quant/truncate.h"

#include <algorithm>
#include <cmath>

#include "core/quant/affine.h"

namespace quanvas::quant {
namespace {

Status check_input(const TruncationInput& input) {
  if (input.bits < 1 || input.bits > 32)
    return fail(ErrorCode::kInvalidArgument,
                "The input of a truncation has " + std::to_string(input.bits) + " bits; 1 to 32 are possible.");
  if (!(input.scale > 0) || !std::isfinite(input.scale))
    return fail(ErrorCode::kInvalidArgument, "The input of a truncation has a scale that is not above 0 and finite.");
  return {};
}

float most_cut_off(const QuantSpec& spec, const TruncationInput& input) {
  return std::ldexp(1.0f, std::max(0, input.bits - spec.bits));
}

Status set_scale(QuantParams& params, const TruncationInput& input, float by) {
  params.scale = {input.scale * by};
  params.truncated = input;
  if (std::isfinite(params.scale[0])) return {};
  return fail(ErrorCode::kInvalidArgument, "The scale of the input times 2^" +
                                               std::to_string(input.bits - params.spec.bits) +
                                               " is more than a float32 holds.");
}

}  // namespace

Result<QuantParams> truncation_params(const QuantSpec& spec, const Shape& shape, const TruncationInput& input,
                                      float threshold) {
  if (spec.truncation == Truncation::kNone)
    return fail(ErrorCode::kInvalidArgument, "truncation is none.", "Set truncation to msb or statistic.");
  QUANVAS_CHECK(check_input(input));
  const float most = most_cut_off(spec, input);
  float by = most;
  if (spec.truncation == Truncation::kStatistic) {
    QuantSpec power = spec;
    power.scale = ScaleType::kPowerOfTwo;
    power.source = ScaleSource::kStatistics;
    by = std::clamp(affine(power, grid_of(power), {0.0f, threshold / input.scale}).scale, 1.0f, most);
  }
  QuantParams params;
  params.spec = spec;
  params.spec.granularity = Granularity::kTensor;
  QUANVAS_TRY(params.layout, make_layout(params.spec, shape, 0));
  const CodeRange codes = code_range(spec);
  params.lo = codes.lo;
  params.hi = codes.hi;
  QUANVAS_CHECK(set_scale(params, input, by));
  return params;
}

Status retarget(QuantParams& params, const TruncationInput& input) {
  QUANVAS_CHECK(check_input(input));
  const float most = most_cut_off(params.spec, input);
  const float before = params.truncated ? params.scale.at(0) / params.truncated->scale : 1.0f;
  return set_scale(params, input, params.spec.truncation == Truncation::kMsb ? most : std::min(before, most));
}

}  // namespace quanvas::quant
