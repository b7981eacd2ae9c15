#include "core/quant/half_quadratic.h"

#include <cmath>

#include "core/quant/apply.h"
#include "core/quant/divergence.h"
#include "core/quant/parallel.h"
#include "core/quant/strided.h"

namespace quanvas::quant {
namespace {

double loss(const Grid& grid, const Affine& a, double power, const float* x, std::int64_t n) {
  const ElementQuantizer q(grid, a.scale, static_cast<double>(a.zero));
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double d = std::fabs(static_cast<double>(x[i] - q.value(q.point(x[i], i))));
    sum += power == 1 ? d : power == 2 ? d * d : d > 0 ? std::pow(d, power) : 0;
  }
  return sum;
}

struct Found {
  Affine best;
  double before = 0, after = 0;
};

Found refine(const Grid& grid, const QuantSpec& spec, Affine start, const HalfQuadraticOptions& o, const float* x, std::int64_t n) {
  Found out{start, loss(grid, start, o.power, x, n), 0};
  out.after = out.before;
  const bool zero_point = spec.zero_point != ZeroPointType::kNone;
  // In units of the scale, so that nothing depends on that of the weights: a - a^(p-1) / beta of a = s a'.
  double beta = o.beta * std::pow(static_cast<double>(start.scale), o.power - 2);
  Affine now = start;
  for (int i = 0; i < o.iterations * (zero_point ? 2 : 1) && !o.stop.stop_requested(); ++i) {
    const bool scale = !zero_point || i % 2 == 1;
    now = half_quadratic_step(grid, spec.zero_point, now, {scale, true, o.power, beta}, x, n);
    if (!std::isfinite(now.scale) || !std::isfinite(now.zero)) break;
    const double found = loss(grid, now, o.power, x, n);
    if (found < out.after) out.after = found, out.best = now;
    if (scale) beta *= o.growth;
  }
  return out;
}

}  // namespace

std::string half_quadratic_problem(const QuantSpec& spec) {
  if (spec.source == ScaleSource::kConstant || spec.source == ScaleSource::kStored) return "its scale is given";
  if (spec.source == ScaleSource::kDynamic) return "its scale is found anew from each tensor";
  if (spec.scale != ScaleType::kFloat32) return std::string("its scales are ") + enum_text(spec.scale) + ", not any float32";
  if (spec.clip_min || spec.clip_max) return "its limits are fixed";
  if (spec.statistic == Statistic::kSignedMax) return "its scale takes the sign of the largest value";
  if (spec.decoupled != Decoupling::kNone || spec.accumulator_bits) return "its scales keep a bound of the codes";
  if (spec.zero_point == ZeroPointType::kOffset) return "it has an offset instead of a zero point";
  if (spec.truncation != Truncation::kNone) return "its scale is that of the integers it truncates";
  if (spec.rounding == Rounding::kStochastic || spec.rounding == Rounding::kLearned)
    return std::string("its rounding is ") + enum_text(spec.rounding);
  return {};
}

Result<HalfQuadraticReport> refine_half_quadratic(QuantParams& params, const float* x, const HalfQuadraticOptions& options) {
  if (const std::string why = half_quadratic_problem(params.spec); !why.empty())
    return fail(ErrorCode::kUnsupported, "The quantizer's parameters cannot be made better: " + why + ".");
  if (!(options.power > 0 && options.power <= 2) || !(options.beta > 0) || !(options.growth >= 1) || options.iterations < 0)
    return fail(ErrorCode::kInvalidArgument, "Half-quadratic splitting needs a power above 0 and up to 2, a beta above 0 that does not "
                                             "fall, and no fewer than 0 iterations.");
  const Grid grid = grid_of(params.spec);
  const BlockLayout& layout = params.layout;
  const std::int64_t count = layout.parameters();
  std::vector<Found> found(static_cast<std::size_t>(count));
  parallel_for(count, threads_for(layout.elements()), [&](std::int64_t p) {
    if (options.stop.stop_requested()) return;
    const auto i = static_cast<std::size_t>(p);
    const Strided s = elements_of(layout, p);
    std::vector<float> values;
    const float* data = x + s.base;
    if (!s.contiguous()) {
      values.reserve(static_cast<std::size_t>(s.count()));
      for (std::int64_t r = 0; r < s.rows; ++r) values.insert(values.end(), x + s.base + r * s.stride, x + s.base + r * s.stride + s.run);
      data = values.data();
    }
    found[i] = refine(grid, params.spec, {params.scale[i], params.zero_point.empty() ? 0.0f : params.zero_point[i]}, options, data, s.count());
  });
  if (options.stop.stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
  HalfQuadraticReport report;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Affine& best = found[i].best;
    report.before += found[i].before;
    report.after += found[i].after;
    report.improved += best.scale != params.scale[i] || (!params.zero_point.empty() && best.zero != params.zero_point[i]);
    params.scale[i] = best.scale;
    if (!params.zero_point.empty()) params.zero_point[i] = best.zero;
  }
  const auto elements = static_cast<double>(std::max<std::int64_t>(1, layout.elements()));
  report.before = std::pow(report.before / elements, 1 / options.power);
  report.after = std::pow(report.after / elements, 1 / options.power);
  return report;
}

}  // namespace quanvas::quant
