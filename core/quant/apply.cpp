// Quantize, dequantize and their gradient.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/quant/apply.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {

Applier::Applier(const QuantParams& params, const BlockLayout& layout)
    : params_(params), plan_(layout), grid_(grid_of(params.spec)) {
  grid_.lo = static_cast<double>(params.lo);  // a pass may have narrowed them
  grid_.hi = static_cast<double>(params.hi);
  const bool to_nearest = grid_.rounding == Rounding::kHalfEven;
  float_ = grid_.family == Family::kFloat && to_nearest;
  if (float_) float_grid_ = float_grid_of(grid_);
  if (params.truncated) {
    // Element by element.
  } else if (grid_.family == Family::kInteger) {
    float most = std::max(std::fabs(static_cast<float>(params.lo)), std::fabs(static_cast<float>(params.hi)));
    bool whole = true;
    if (!grid_.offset) {
      for (const float z : params.zero_point) {
        most = std::max(
            {most, std::fabs(static_cast<float>(params.lo) - z), std::fabs(static_cast<float>(params.hi) - z)});
        whole &= z == std::nearbyint(z);
      }
    }
    // One more for the gradient, which looks one code beyond each end.
    const bool holds = most + 1 <= kMaxSteps && (whole || grid_.inside);
    integer_ =
        holds && to_nearest && !grid_.inside && !grid_.offset && params.code_scale.empty() && params.center.empty();
    general_ = holds && !integer_ && has_general_grid(grid_);
  } else {
    general_ = has_general_grid(grid_);
  }
  if (general_) {
    general_grid_ = general_grid_of(grid_);
    if (!params.code_scale.empty()) general_grid_.step = params.code_scale.data();
    if (!params.center.empty()) general_grid_.center = params.center.data();
  }
  if (plan_.vector_rows() && params.zero_point.empty()) zeros_.assign(params.scale.size(), 0.0f);
}

FloatGrid float_grid_of(const Grid& grid) {
  FloatGrid g;
  g.lowest_bits = (grid.lowest_exponent() + 127) << 23;
  g.shift_bits = ((23 - grid.mantissa_bits) << 23) | 0x400000;
  g.largest = grid.largest;
  g.overflow = grid.saturate ? grid.largest : grid.overflow;
  g.nan = grid.has_nan ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
  g.is_signed = grid.is_signed;
  g.negative_zero = grid.negative_zero;
  g.mantissa_bits = grid.mantissa_bits;
  g.sign_code = grid.is_signed ? 1 << (grid.exponent_bits + grid.mantissa_bits) : 0;
  g.special_code = (1 << (grid.exponent_bits + grid.mantissa_bits)) - 1;
  g.lowest = std::ldexp(1.0f, grid.lowest_exponent());
  g.per_unit = std::ldexp(1.0f, grid.mantissa_bits - grid.lowest_exponent());
  g.clip = grid.largest + std::ldexp(0.5f, floor_log2(grid.largest) - grid.mantissa_bits);
  return g;
}

bool has_general_grid(const Grid& grid) {
  if (grid.family == Family::kInteger)
    return grid.rounding != Rounding::kStochastic && grid.rounding != Rounding::kLearned;
  return grid.family != Family::kFloat;
}

GeneralGrid general_grid_of(const Grid& grid) {
  GeneralGrid g;
  g.rounding = static_cast<int>(grid.rounding);
  g.inside = grid.inside;
  g.offset = grid.offset;
  g.signs = grid.family == Family::kTernary || grid.family == Family::kBinary;
  g.threshold = grid.family == Family::kTernary ? grid.threshold : -1.0f;
  if (grid.family == Family::kCodebook) {
    g.values = grid.values->data();
    g.limits = limits_of(*grid.values).data();
    g.values_count = static_cast<std::int32_t>(grid.values->size());
  }
  return g;
}

void Applier::fake(const Span& span, const float* x, float* y) const {
  if (integer_)
    kernels().fake(rows(span), x, y);
  else if (float_)
    kernels().fake_float(rows(span), float_grid_, x, y);
  else
    kernels().general(rows(span), general_grid_, x, y, nullptr);
}

std::int64_t Applier::measure(const Span& span, const float* x, float* y, std::int32_t* index) const {
  if (integer_) return kernels().measure(rows(span), x, y, index);
  if (float_) return kernels().measure_float(rows(span), float_grid_, x, y, index);
  return kernels().general(rows(span), general_grid_, x, y, index);
}

double ElementQuantizer::round(float v, std::int64_t element, bool soft) const {
  if (grid.rounding == Rounding::kLearned) return learned_round(grid.learned, soft, v, rounding);
  const double random = grid.rounding == Rounding::kStochastic ? element_random(grid.seed, element) : 0;
  return round_to_whole(grid.rounding, static_cast<double>(v), random);
}
double ElementQuantizer::whole(float x) const {
  const float v = x / truncated->scale;
  return std::isnan(v) ? 0 : std::nearbyint(static_cast<double>(v));
}
double ElementQuantizer::within(double n) const {
  const double half = std::ldexp(1.0, truncated->bits - 1);
  return grid.is_signed ? std::clamp(n, -half, half - 1) : std::clamp(n, 0.0, 2 * half - 1);
}
double ElementQuantizer::shortened(float x) const {
  return within(whole(x)) / (static_cast<double>(scale) / static_cast<double>(truncated->scale));
}
double ElementQuantizer::point(float x, std::int64_t element) const {
  if (truncated) {
    const double random = grid.rounding == Rounding::kStochastic ? element_random(grid.seed, element) : 0;
    return std::clamp(round_to_whole(grid.rounding, shortened(x), random) + shift(), grid.lo, grid.hi);
  }
  switch (grid.family) {
    case Family::kBinary:
      return x < 0 ? -1 : 1;
    case Family::kTernary:
      return std::fabs(x) > grid.threshold * scale ? (x < 0 ? -1 : 1) : 0;
    case Family::kFloat:
      return nearest_float(grid, x / scale, element);
    case Family::kCodebook:
      return nearest_in(*grid.values, x / scale);
    case Family::kInteger:
      break;
  }
  float v = in_steps(x);
  if (std::isnan(v)) v = 0;
  // The sum in float32, as those who add inside the rounding have it.
  const double q = round(grid.inside ? v + static_cast<float>(zero) : v, element, grid.soft) +
                   (grid.inside ? 0.0 : shift());  // adding 0 makes +0 of -0
  return std::clamp(q, grid.lo, grid.hi);
}
float ElementQuantizer::value(double p) const {
  if (grid.family == Family::kCodebook) return (*grid.values)[static_cast<std::size_t>(p)] * scale;
  if (grid.offset) return static_cast<float>(p) * scale + static_cast<float>(zero);
  return static_cast<float>(grid.family == Family::kInteger ? p - zero : p) * scale;
}
std::int32_t ElementQuantizer::code(float x, std::int64_t element) const {
  if (grid.family == Family::kInteger && grid.soft) {
    const float v = in_steps(x);
    return static_cast<std::int32_t>(
        std::clamp(round(std::isnan(v) ? 0.0f : v, element, false) + shift(), grid.lo, grid.hi));
  }
  const double p = point(x, element);
  if (grid.family == Family::kFloat) return float_code(grid, static_cast<float>(p));
  return static_cast<std::int32_t>(static_cast<std::int64_t>(p));  // an unsigned 32-bit code keeps its bits
}
float ElementQuantizer::decode(std::int32_t code) const {
  if (grid.family == Family::kFloat) return float_value(grid, code) * scale;
  return value(grid.lo >= 0 && code < 0 ? static_cast<double>(static_cast<std::uint32_t>(code))
                                        : static_cast<double>(code));
}
bool ElementQuantizer::clipped(float x) const {
  if (truncated) return !passes(x);  // the codes of integers say it exactly
  const double v = static_cast<double>(in_steps(x));
  switch (grid.family) {
    case Family::kInteger:
      return v < grid.lo - shift() - 0.5 || v > grid.hi - shift() + 0.5;
    case Family::kFloat: {
      const double half = std::ldexp(0.5, floor_log2(grid.largest) - grid.mantissa_bits);
      return (!grid.is_signed && v < 0) || std::fabs(v) > static_cast<double>(grid.largest) + half;
    }
    case Family::kCodebook: {
      // Half the distance of the two outermost values beyond them.
      const std::vector<float>& c = *grid.values;
      const std::size_t n = c.size();
      return v < c[0] - (c[1] - c[0]) / 2 || v > c[n - 1] + (c[n - 1] - c[n - 2]) / 2;
    }
    case Family::kTernary:
    case Family::kBinary:
      return std::fabs(v) > 1.5;
  }
  return false;
}
bool ElementQuantizer::passes(float x) const {
  if (truncated) {
    const double n = whole(x), q = round_to_whole(grid.rounding, shortened(x), 0.5);
    return n == within(n) && q >= grid.lo && q <= grid.hi;
  }
  const float v = in_steps(x);
  switch (grid.family) {
    case Family::kInteger: {
      const Rounding rounding_mode = grid.rounding == Rounding::kLearned ? Rounding::kHalfEven : grid.rounding;
      const double q = std::isnan(v) ? shift()
                       : grid.inside
                           ? round_to_whole(rounding_mode, static_cast<double>(v + static_cast<float>(zero)), 0.5)
                           : round_to_whole(rounding_mode, static_cast<double>(v), 0.5) + shift();
      return q >= grid.lo && q <= grid.hi;
    }
    case Family::kFloat:
      return (grid.is_signed || !(v < 0)) && !(std::fabs(v) > grid.largest);
    case Family::kCodebook:
      return !(v < grid.values->front()) && !(v > grid.values->back());
    case Family::kTernary:
    case Family::kBinary:
      return !(std::fabs(v) > 1);
  }
  return true;
}
double ElementQuantizer::scale_term(float x, std::int64_t element) const {
  const double p = point(x, element);
  if (truncated) return passes(x) ? p - shortened(x) : p;
  const double u = grid.family == Family::kCodebook
                       ? static_cast<double>((*grid.values)[static_cast<std::size_t>(p)])
                   : grid.family == Family::kInteger ? p - shift()
                                                     : p;
  // A binary or ternary grid is a multiple of the scale whatever x is; so are the codes of a scale of their own.
  if (grid.family == Family::kTernary || grid.family == Family::kBinary || code_scale != scale) return u;
  const double v = std::isnan(x) ? 0.0 : static_cast<double>(in_steps(x));
  return passes(x) ? u - v : u;
}

namespace {

// kernel(span) for each span where `holds`, else element by element.
template <class Kernel, class Element>
void over_spans(const Applier& applier, std::int64_t elements, bool holds, const Kernel& kernel,
                const Element& element) {
  const SpanPlan& plan = applier.plan();
  parallel_for(plan.count(), threads_for(elements), [&](std::int64_t i) {
    const Span span = plan.span(i);
    if (span.rows == 0) return;
    if (holds)
      kernel(span);
    else
      applier.each(span, element);
  });
}

// Large results: make(piece, buffer) piece by piece in the first-level cache, from where they are streamed.
template <class Make>
void streamed(const Applier& applier, std::int64_t elements, const float* x, float* y, const Make& make) {
  const SpanPlan& plan = applier.plan();
  parallel_stripes(plan.count(), threads_for(elements), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
    alignas(64) float buffer[kPiece];
    for (std::int64_t i = begin; i < end; ++i)
      if (const Span span = plan.span(i); span.rows > 0)
        plan.cut(span, kPiece, false, [&](const Span& piece) {
          make(piece, buffer);
          const std::int64_t next = std::min(elements, piece.offset + kAhead);
          kernels().stream(buffer, y + piece.offset, piece.elements(), x + next, elements - next);
        });
    stream_fence();
  });
}

}  // namespace

void fake_quantize(const QuantParams& params, const BlockLayout& layout, const float* x, float* y) {
  const Applier applier(params, layout);
  if (x != y && layout.elements() >= kStreamElements && applier.has_kernel())
    return streamed(applier, layout.elements(), x, y,
                    [&](const Span& s, float* to) { applier.fake(s, x + s.offset, to); });
  over_spans(
      applier, layout.elements(), applier.has_kernel(),
      [&](const Span& s) { applier.fake(s, x + s.offset, y + s.offset); },
      [&](const ElementQuantizer& q, std::int64_t i, std::int64_t) { y[i] = q.value(q.point(x[i], i)); });
}

void quantize_codes(const QuantParams& params, const BlockLayout& layout, const float* x, std::int32_t* codes) {
  const Applier applier(params, layout);
  const FloatGrid minifloat = applier.float_grid();
  const auto lo = static_cast<std::int32_t>(applier.grid().lo);
  const auto kernel = [&](const Span& span) {
    const Rows rows = applier.rows(span);
    if (applier.integer_kernel()) return kernels().codes(rows, x + span.offset, codes + span.offset);
    if (applier.float_kernel()) return kernels().codes_float(rows, minifloat, x + span.offset, codes + span.offset);
    float values[kPiece];
    applier.plan().cut(span, kPiece, false, [&](const Span& s) {
      applier.measure(s, x + s.offset, values, codes + s.offset);
      for (std::int64_t i = s.offset; lo != 0 && i < s.offset + s.elements(); ++i) codes[i] += lo;
    });
  };
  over_spans(applier, layout.elements(), applier.has_kernel() && (!applier.float_kernel() || minifloat.has_codes()),
             kernel, [&](const ElementQuantizer& q, std::int64_t i, std::int64_t) { codes[i] = q.code(x[i], i); });
}

void dequantize_codes(const QuantParams& params, const BlockLayout& layout, const std::int32_t* codes, float* y) {
  const Applier applier(params, layout);
  // The values of all patterns, where there are few beside the elements.
  std::vector<float> table;
  const int bits = code_bits(params.spec);
  if (applier.float_kernel() && (std::int64_t{1} << bits) <= layout.elements())
    for (std::int32_t c = 0; c < 1 << bits; ++c) table.push_back(float_value(applier.grid(), c));
  const Grid& grid = applier.grid();
  const bool whole = applier.has_kernel() && grid.family == Family::kInteger && !grid.offset;
  over_spans(
      applier, layout.elements(), whole || !table.empty(),
      [&](const Span& s) {
        if (whole) return kernels().decode(applier.rows(s), codes + s.offset, y + s.offset);
        kernels().look_up(applier.rows(s), table.data(), (1 << bits) - 1, codes + s.offset, y + s.offset);
      },
      [&](const ElementQuantizer& q, std::int64_t i, std::int64_t) { y[i] = q.decode(codes[i]); });
}

void fake_quantize_backward(const QuantParams& params, const BlockLayout& layout, const float* x, const float* dy,
                            float* dx, float* dscale, bool pass_clipped) {
  if (pass_clipped && !dscale) {
    if (dx != dy) std::copy(dy, dy + layout.elements(), dx);
    return;
  }
  const Applier applier(params, layout);
  const SpanPlan& plan = applier.plan();
  std::vector<double> sums(dscale || applier.float_kernel() ? static_cast<std::size_t>(plan.results()) : 0);
  const auto gradient = [&](const Span& s, float* to) {
    double* const into = sums.empty() ? nullptr : sums.data() + s.result;
    const float *const from = x + s.offset, *const g = dy + s.offset;
    if (applier.integer_kernel())
      kernels().backward(applier.rows(s), from, g, to, into, pass_clipped);
    else
      kernels().backward_float(applier.rows(s), applier.float_grid(), from, g, to, into, pass_clipped);
  };
  const bool has_kernel = applier.integer_kernel() || applier.float_kernel();
  if (has_kernel && dx != dy && dx != x && layout.elements() >= kStreamElements) {
    streamed(applier, layout.elements(), x, dx, gradient);
  } else {
    // In the same pieces as streamed ones, so that the sums are the same in place.
    const auto pieces = [&](const Span& s) {
      plan.cut(s, kPiece, false, [&](const Span& p) { gradient(p, dx + p.offset); });
    };
    over_spans(applier, layout.elements(), has_kernel, pieces,
               [&](const ElementQuantizer& q, std::int64_t i, std::int64_t slot) {
                 const float g = dy[i];
                 if (dscale) sums[static_cast<std::size_t>(slot)] += static_cast<double>(g) * q.scale_term(x[i], i);
                 dx[i] = pass_clipped || q.passes(x[i]) ? g : 0.0f;
               });
  }
  if (!dscale) return;
  std::vector<double> total(params.scale.size());
  for (std::int64_t i = 0; i < plan.count(); ++i) {
    const Span span = plan.span(i);
    if (span.rows == 0) continue;
    for (std::int64_t k = 0; k < plan.slots(span); ++k)
      total[static_cast<std::size_t>(plan.parameter(span, k))] += sums[static_cast<std::size_t>(span.result + k)];
  }
  for (std::size_t p = 0; p < total.size(); ++p) dscale[p] += static_cast<float>(total[p]);
}

}  // namespace quanvas::quant
