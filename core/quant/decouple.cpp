#include "core/quant/decouple.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "core/quant/apply.h"

namespace quanvas::quant {

double code_norm(Decoupling kind, const float* x, std::int64_t n, float center) {
  double sum = 0, most = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double a = std::fabs(static_cast<double>(x[i] - center));
    sum += kind == Decoupling::kL2 ? a * a : a;
    most = std::max(most, a);
  }
  return kind == Decoupling::kInf ? most : kind == Decoupling::kL2 ? std::sqrt(sum) : sum;
}

double code_norm_bound(const QuantSpec& spec) {
  const int bits = spec.accumulator_bits.value_or(32), input = spec.accumulator_input_bits;
  if (spec.zero_centered) return (std::ldexp(1.0, bits) - 2) / (std::ldexp(1.0, input) - 1);
  return std::ldexp(std::ldexp(1.0, bits - 1) - 1, (spec.accumulator_input_signed ? 1 : 0) - input);
}

bool fits_accumulator(const QuantSpec& spec, double positive, double negative) {
  const int input = spec.accumulator_input_bits;
  const double most = std::ldexp(1.0, spec.accumulator_bits.value_or(32) - 1) - 1;
  const double high = spec.accumulator_input_signed ? std::ldexp(1.0, input - 1) - 1 : std::ldexp(1.0, input) - 1;
  const double low = spec.accumulator_input_signed ? std::ldexp(1.0, input - 1) : 0;  // magnitude of the lowest
  return positive * high + negative * low <= most && negative * high + positive * low <= most;
}

void prepare_decoupling(QuantParams& params) {
  if (params.spec.decoupled == Decoupling::kNone) return;
  params.code_scale = params.scale;
  if (params.spec.zero_centered) params.center.assign(params.scale.size(), 0.0f);
}

void decouple(QuantParams& params, std::size_t index, const float* x, std::int64_t n,
              std::optional<double> length) {
  const QuantSpec& spec = params.spec;
  if (n == 0 || (!spec.accumulator_bits && !length)) return;  // g is the norm: both scales are the same
  float center = 0;
  if (spec.zero_centered) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
    center = params.center[index] = static_cast<float>(sum / static_cast<double>(n));
  }
  const Grid grid = grid_of(spec);
  const auto fits = [&](float code_scale) {
    ElementQuantizer q(grid, code_scale, 0);
    q.center = center;
    double positive = 0, negative = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double code = q.point(x[i], i);
      (code > 0 ? positive : negative) += std::fabs(code);
    }
    return fits_accumulator(spec, positive, negative);
  };
  const double scale = static_cast<double>(params.scale[index]);
  const double norm = code_norm(spec.accumulator_bits ? Decoupling::kL1 : spec.decoupled, x, n, center);
  if (length) params.code_scale[index] = params.scale[index];
  if (norm <= 0) return;
  const double bound = spec.accumulator_bits ? code_norm_bound(spec) : INFINITY;
  if (spec.decoupled == Decoupling::kNone) {
    // Twice the bound's scale fits with any rounding: no code is more than twice x / s. Between, by bisection.
    if (fits(params.scale[index])) return;
    float low = params.scale[index], high = std::max(low, static_cast<float>(std::min<double>(FLT_MAX, 2.001 * norm / bound)));
    while (!fits(high) && high < FLT_MAX / 2) high *= 2;
    for (int step = 0; step < 20; ++step) {
      const float middle = low + (high - low) / 2;
      (fits(middle) ? high : low) = middle;
    }
    params.scale[index] = high;
    return;
  }
  float& code_scale = params.code_scale[index];
  code_scale = std::clamp(static_cast<float>(scale * norm / std::min(length.value_or(norm), scale * bound)),
                          FLT_MIN, FLT_MAX);
  // Divisions in float32 may round a quotient up to a whole number.
  if (!spec.accumulator_bits) return;
  for (float growth = 1e-7f; !fits(code_scale) && code_scale < FLT_MAX / 4; growth = std::min(2 * growth, 1.0f))
    code_scale = std::max(std::nextafter(code_scale, FLT_MAX), code_scale * (1 + growth));
}

}  // namespace quanvas::quant
