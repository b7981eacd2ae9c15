#include "core/quant/gradient.h"

#include <algorithm>
#include <cmath>

#include "core/quant/grid.h"

namespace quanvas::quant {
namespace {

constexpr double kLn2 = 0.69314718055994530942;

// f(parameter, element) in the order of the elements.
template <class F>
void over_elements(const BlockLayout& l, const F& f) {
  const bool groups_used = l.granularity == Granularity::kGroup || l.granularity == Granularity::kRow;
  const std::int64_t groups = (l.dim + l.group - 1) / std::max<std::int64_t>(1, l.group);
  std::int64_t element = 0;
  for (std::int64_t o = 0; o < l.outer; ++o)
    for (std::int64_t d = 0; d < l.dim; ++d) {
      const std::int64_t first = groups_used ? (o * groups + d / l.group) * l.inner
                                 : l.granularity == Granularity::kChannel ? d
                                                                          : 0;
      const std::int64_t step = groups_used ? 1 : 0;
      for (std::int64_t i = 0; i < l.inner; ++i, ++element) f(static_cast<std::size_t>(first + i * step), element);
    }
}

// -1, 0 or 1: below, inside or above the codes.
struct Side {
  const QuantParams& p;
  Rounding rounding;
  bool inside;
  double lo, hi;
  explicit Side(const QuantParams& params)
      : p(params), rounding(params.spec.rounding), inside(params.spec.zero_point_inside),
        lo(static_cast<double>(params.lo)), hi(static_cast<double>(params.hi)) {}
  int of(float x, std::size_t k) const {
    const float z = p.zero_point.empty() ? 0.0f : p.zero_point[k];
    // Decoupled codes have a scale of their own.
    const float v =
        p.code_scale.empty() ? x / p.scale[k] : (x - (p.center.empty() ? 0.0f : p.center[k])) / p.code_scale[k];
    if (std::isnan(v)) return 0;
    const double q = inside ? round_to_whole(rounding, static_cast<double>(v + z), 0.5)
                            : round_to_whole(rounding, static_cast<double>(v), 0.5) + static_cast<double>(z);
    return q < lo ? -1 : q > hi ? 1 : 0;
  }
};

}  // namespace

void zero_point_gradient(const QuantParams& params, const BlockLayout& layout, const float* x, const float* dy,
                         float* dzero) {
  const Side side(params);
  std::vector<double> sums(params.scale.size());
  over_elements(layout, [&](std::size_t k, std::int64_t i) {
    if (side.of(x[i], k) != 0) sums[k] -= static_cast<double>(dy[i]) * static_cast<double>(params.scale[k]);
  });
  for (std::size_t k = 0; k < sums.size(); ++k) dzero[k] += static_cast<float>(sums[k]);
}

double width_gradient(const QuantParams& params, const BlockLayout& layout, const float* x, const float* dy) {
  const Side side(params);
  const LimitSlopes slopes = limit_slopes(params.spec, params.spec.bits);
  double sum = 0;
  over_elements(layout, [&](std::size_t k, std::int64_t i) {
    const int where = side.of(x[i], k);
    if (where != 0)
      sum += static_cast<double>(dy[i]) * static_cast<double>(params.scale[k]) * (where < 0 ? slopes.lo : slopes.hi);
  });
  return sum;
}

LimitSlopes limit_slopes(const QuantSpec& spec, double bits) {
  if (!spec.is_signed) return {0, kLn2 * std::exp2(bits)};
  const double slope = kLn2 * std::exp2(bits - 1);
  return {-slope, slope};
}

int learned_bits(double offset) {
  return static_cast<int>(std::clamp(std::nearbyint(std::fabs(offset) + 2), 2.0, 32.0));
}

void set_bits(QuantParams& params, int bits) {
  params.spec.bits = bits;
  const CodeRange codes = code_range(params.spec);
  params.lo = codes.lo;
  params.hi = codes.hi;
  if (params.spec.zero_point != ZeroPointType::kInteger) return;
  for (float& z : params.zero_point)
    z = std::clamp(z, static_cast<float>(codes.lo), static_cast<float>(codes.hi));
}

}  // namespace quanvas::quant
