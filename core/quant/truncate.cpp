#include "core/quant/truncate.h"

#include <algorithm>
#include <cmath>

#include "core/quant/affine.h"
#include "core/quant/apply.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {

Result<QuantParams> truncation_params(const QuantSpec& spec, const Shape& shape, const TruncationInput& input,
                                      float threshold) {
  if (spec.truncation == Truncation::kNone)
    return fail(ErrorCode::kInvalidArgument, "truncation is none.", "Set truncation to msb or statistic.");
  if (input.bits < 1 || input.bits > 32)
    return fail(ErrorCode::kInvalidArgument,
                "The input of a truncation has " + std::to_string(input.bits) + " bits; 1 to 32 are possible.");
  if (!(input.scale > 0) || !std::isfinite(input.scale))
    return fail(ErrorCode::kInvalidArgument, "The input of a truncation has a scale that is not above 0 and finite.");
  const float most = std::ldexp(1.0f, std::max(0, input.bits - spec.bits));
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
  params.scale = {input.scale * by};
  if (!std::isfinite(params.scale[0]))
    return fail(ErrorCode::kInvalidArgument, "The scale of the input times 2^" + std::to_string(input.bits - spec.bits) +
                                                 " is more than a float32 holds.");
  return params;
}

void truncate(const QuantParams& params, const TruncationInput& input, const float* x, std::int64_t n, float* y,
              std::int32_t* codes) {
  const Grid grid = grid_of(params.spec);
  const double by = static_cast<double>(params.scale[0]) / static_cast<double>(input.scale);
  const double lowest = grid.is_signed ? -std::ldexp(1.0, input.bits - 1) : 0;
  const double highest = std::ldexp(1.0, grid.is_signed ? input.bits - 1 : input.bits) - 1;
  constexpr std::int64_t kPiece = 16384;
  parallel_for((n + kPiece - 1) / kPiece, threads_for(n), [&](std::int64_t piece) {
    for (std::int64_t i = piece * kPiece; i < std::min(n, (piece + 1) * kPiece); ++i) {
      const float v = x[i] / input.scale;
      const double whole = std::isnan(v) ? 0 : std::clamp(std::nearbyint(static_cast<double>(v)), lowest, highest);
      const double random = grid.rounding == Rounding::kStochastic ? element_random(grid.seed, i) : 0;
      const double q = std::clamp(round_to_whole(grid.rounding, whole / by, random), grid.lo, grid.hi);
      if (codes) codes[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(q));
      if (y) y[i] = static_cast<float>(q) * params.scale[0];
    }
  });
}

}  // namespace quanvas::quant
