#include "core/exec/device_quantize.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>

#include "core/quant/grid.h"

namespace quanvas::exec {
namespace {

using quant::BlockLayout;
using quant::QuantParams;

constexpr double kInf = std::numeric_limits<double>::infinity();

// One parameter per element, or one that broadcasts.
at::Tensor spread(const std::vector<float>& values, const BlockLayout& layout, const at::Tensor& x) {
  const at::Tensor v = at::tensor(values, at::kFloat).to(x.device());
  if (layout.granularity == Granularity::kTensor) return v.reshape({});
  const Shape block = {layout.outer, layout.dim, layout.inner};
  if (layout.granularity == Granularity::kChannel) return v.reshape({1, layout.dim, 1}).expand(block).reshape(x.sizes());
  const std::int64_t groups = (layout.dim + layout.group - 1) / layout.group;
  return v.reshape({layout.outer, groups, 1, layout.inner})
      .expand({layout.outer, groups, layout.group, layout.inner})
      .reshape({layout.outer, groups * layout.group, layout.inner})
      .narrow(1, 0, layout.dim)
      .reshape(x.sizes());
}

// Sums over the elements of each parameter.
at::Tensor gather_sums(const at::Tensor& local, const BlockLayout& layout) {
  const at::Tensor block = local.reshape({layout.outer, layout.dim, layout.inner});
  if (layout.granularity == Granularity::kTensor) return block.sum().reshape({1});
  if (layout.granularity == Granularity::kChannel) return block.sum(at::IntArrayRef{0, 2});
  const std::int64_t groups = (layout.dim + layout.group - 1) / layout.group;
  return at::constant_pad_nd(block, {0, 0, 0, groups * layout.group - layout.dim}, 0)
      .reshape({layout.outer, groups, layout.group, layout.inner})
      .sum(2)
      .reshape({-1});
}

// v in float64, so that the fraction is exact.
at::Tensor rounded(Rounding rounding, const at::Tensor& v) {
  const at::Tensor down = at::floor(v);
  switch (rounding) {
    case Rounding::kHalfUp: return down + (v - down).ge(0.5).to(v.scalar_type());
    case Rounding::kHalfAway: {
      const at::Tensor a = v.abs(), whole = at::floor(a);
      return at::copysign(whole + (a - whole).ge(0.5).to(v.scalar_type()), v);
    }
    case Rounding::kCeil: return at::ceil(v);
    case Rounding::kFloor: return down;
    case Rounding::kTowardZero: return at::trunc(v);
    case Rounding::kDpu: return at::where(v.lt(0).logical_and((v - down).eq(0.5)), at::ceil(v), at::round(v));
    default: return at::round(v);
  }
}

struct Terms {
  at::Tensor value;   // x~
  at::Tensor steps;   // x~ in units of the scale
  at::Tensor ratio;   // v
  at::Tensor inside;  // where x has a gradient
  bool follows = true;  // the grid point moves with v: d steps / d v = 1 inside
};

// Integers that lose their low bits (truncate.h).
Terms truncated_terms(const at::Tensor& x, const QuantParams& p, const quant::Grid& grid,
                      const BlockLayout& layout) {
  const auto by = static_cast<double>(p.scale.at(0)) / static_cast<double>(p.truncated->scale);
  const double half = std::ldexp(1.0, p.truncated->bits - 1);
  const at::Tensor n =
      at::round(at::nan_to_num(x / spread({p.truncated->scale}, layout, x), 0.0, kInf, -kInf).to(at::kDouble));
  const at::Tensor whole = grid.is_signed ? at::clamp(n, -half, half - 1) : at::clamp(n, 0.0, 2 * half - 1);
  const at::Tensor ratio = whole / by, q = rounded(grid.rounding, ratio) + 0.0;  // no negative zero
  const at::Tensor code = at::clamp(q, static_cast<double>(p.lo), static_cast<double>(p.hi));
  Terms t;
  t.ratio = ratio.to(at::kFloat);
  t.inside = q.eq(code).logical_and(whole.eq(n));
  t.steps = code.to(at::kFloat);
  t.value = t.steps * spread(p.scale, layout, x);
  return t;
}

Terms integer_terms(const at::Tensor& x, const QuantParams& p, const quant::Grid& grid, const BlockLayout& layout) {
  const bool offset = p.spec.zero_point == ZeroPointType::kOffset;
  const at::Tensor scale = spread(p.scale, layout, x);
  const at::Tensor code_scale = p.code_scale.empty() ? scale : spread(p.code_scale, layout, x);
  const at::Tensor shift = offset ? spread(p.zero_point, layout, x) : at::Tensor();
  at::Tensor centered = offset ? x - shift : x;
  if (!p.center.empty()) centered = centered - spread(p.center, layout, x);
  Terms t;
  t.ratio = at::nan_to_num(centered / code_scale, 0.0, kInf, -kInf);
  const at::Tensor zero = p.zero_point.empty() || offset ? at::zeros({}, x.options()) : spread(p.zero_point, layout, x);
  const at::Tensor z = zero.to(at::kDouble);
  // The sum in float32, as those who add inside the rounding have it; adding 0 makes +0 of -0.
  const at::Tensor q = grid.inside ? rounded(grid.rounding, (t.ratio + zero).to(at::kDouble)) + 0.0
                                   : rounded(grid.rounding, t.ratio.to(at::kDouble)) + z;
  const at::Tensor code = at::clamp(q, static_cast<double>(p.lo), static_cast<double>(p.hi));
  t.inside = q == code;
  t.steps = (code - z).to(at::kFloat);
  t.value = offset ? t.steps * scale + shift : t.steps * scale;
  // Codes of a scale of their own do not move with the scale of the values.
  if (!p.code_scale.empty()) t.ratio = at::where(code_scale.eq(scale), t.ratio, at::zeros({}, x.options()));
  return t;
}

// Powers of two from their exponents by the bits: library powers may be off in the last place.
at::Tensor power_of_two(const at::Tensor& exponent) {
  return at::bitwise_left_shift(exponent + 127, 23).to(at::kInt).contiguous().view(at::kFloat);
}

Terms float_terms(const at::Tensor& x, const QuantParams& p, const quant::Grid& g, const BlockLayout& layout) {
  Terms t;
  const at::Tensor scale = spread(p.scale, layout, x);
  const at::Tensor v = (x / scale).contiguous();
  const at::Tensor a = v.abs();
  const auto of = [&](double value) { return at::full({}, value, x.options()); };
  at::Tensor exponent = at::bitwise_right_shift(a.contiguous().view(at::kInt), 23).to(at::kInt) - 127;
  exponent = at::clamp(exponent, g.lowest_exponent(), 127);
  const at::Tensor unit = power_of_two(exponent - g.mantissa_bits);
  at::Tensor magnitude = rounded(g.rounding, (v / unit).to(at::kDouble)).abs().to(at::kFloat) * unit;
  magnitude = at::where(a.ge(2 * static_cast<double>(g.largest)), of(kInf), magnitude);
  const double beyond = static_cast<double>(g.saturate ? g.largest : g.overflow);
  magnitude = at::where(magnitude.gt(static_cast<double>(g.largest)), of(beyond), magnitude);
  at::Tensor point = at::copysign(magnitude, v);
  if (!g.negative_zero) point = at::where(magnitude.eq(0), of(0), point);
  if (!g.is_signed) point = at::where(v.lt(0), of(0), point);
  t.steps = at::where(v.isnan(), of(g.has_nan ? std::numeric_limits<double>::quiet_NaN() : 0.0), point);
  t.value = t.steps * scale;
  t.ratio = at::where(x.isnan(), of(0), v);
  t.inside = a.gt(static_cast<double>(g.largest)).logical_not();
  if (!g.is_signed) t.inside = t.inside.logical_and(v.lt(0).logical_not());
  return t;
}

// -1, 0 and 1.
Terms sign_terms(const at::Tensor& x, const QuantParams& p, const quant::Grid& g, const BlockLayout& layout) {
  Terms t;
  const at::Tensor scale = spread(p.scale, layout, x);
  const at::Tensor sign = at::where(x.lt(0), at::full({}, -1.0, x.options()), at::full({}, 1.0, x.options()));
  t.steps = g.family == quant::Family::kTernary
                ? at::where(x.abs().gt(scale * static_cast<double>(g.threshold)), sign, at::zeros({}, x.options()))
                : sign;
  t.value = t.steps * scale;
  t.ratio = x / scale;
  t.inside = t.ratio.abs().gt(1).logical_not();
  t.follows = false;
  return t;
}

// The nearest of a list by the same differences as the kernels; of two equally near the lower one.
Terms list_terms(const at::Tensor& x, const QuantParams& p, const Codebook& book, const BlockLayout& layout) {
  Terms t;
  const at::Tensor scale = spread(p.scale, layout, x);
  t.ratio = at::nan_to_num(x / scale, 0.0, kInf, -kInf);
  const at::Tensor values = at::tensor(book.values, at::kFloat).to(x.device());
  const auto last = static_cast<std::int64_t>(book.values.size()) - 1;
  const at::Tensor above = at::bucketize(t.ratio.contiguous(), values);  // first value that is not below
  const at::Tensor upper = values.index({above.clamp_max(last)}), lower = values.index({(above - 1).clamp_min(0)});
  t.steps = at::where((upper - t.ratio).lt(t.ratio - lower).logical_or(above.eq(0)), upper, lower);
  t.steps = at::where(above.gt(last), upper, t.steps);
  t.value = t.steps * scale;
  t.inside = t.ratio.ge(static_cast<double>(book.values.front())).logical_and(t.ratio.le(static_cast<double>(book.values.back())));
  return t;
}

Terms terms_of(const at::Tensor& x, const QuantParams& p, const BlockLayout& layout) {
  if (const std::string problem = device_problem(p); !problem.empty()) throw std::runtime_error(problem);
  if (const Codebook* book = find_codebook(p.spec.format)) return list_terms(x, p, *book, layout);
  const quant::Grid grid = quant::grid_of(p.spec);
  switch (grid.family) {
    case quant::Family::kFloat: return float_terms(x, p, grid, layout);
    case quant::Family::kTernary:
    case quant::Family::kBinary: return sign_terms(x, p, grid, layout);
    default:
      return p.truncated ? truncated_terms(x, p, grid, layout) : integer_terms(x, p, grid, layout);
  }
}

}  // namespace

std::string device_problem(const QuantParams& params) {
  if (params.spec.rounding != Rounding::kStochastic && params.spec.rounding != Rounding::kLearned) return {};
  return std::string("rounding is ") + enum_text(params.spec.rounding) + "; it is computed on the CPU only.";
}

at::Tensor device_fake_quantize(const at::Tensor& x, const QuantParams& params, const BlockLayout& layout) {
  return terms_of(x, params, layout).value;
}

at::Tensor device_backward(const at::Tensor& x, const at::Tensor& dy, const QuantParams& params,
                           const BlockLayout& layout, bool pass_clipped, at::Tensor* dscale) {
  const Terms t = terms_of(x, params, layout);
  if (dscale) {
    const at::Tensor slope = t.follows ? at::where(t.inside, t.steps - t.ratio, t.steps) : t.steps;
    *dscale = gather_sums(dy * slope, layout);
  }
  return pass_clipped ? dy : dy * t.inside;
}

}  // namespace quanvas::exec
