// Quantize, dequantize and their gradient.
#include <algorithm>
#include <cmath>

#include "core/quant/apply.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {

Applier::Applier(const QuantParams& params, const BlockLayout& layout) : params_(params), plan_(layout) {
  float most = std::max(std::fabs(static_cast<float>(params.lo)), std::fabs(static_cast<float>(params.hi)));
  for (const float z : params.zero_point)
    most = std::max({most, std::fabs(static_cast<float>(params.lo) - z), std::fabs(static_cast<float>(params.hi) - z)});
  // One more for the gradient, which looks one code beyond each end.
  wide_ = most + 1 > kMaxSteps;
  if (plan_.vector_rows() && params.zero_point.empty()) zeros_.assign(params.scale.size(), 0.0f);
}

Rows Applier::rows(const Span& span) const {
  Rows rows;
  rows.rows = span.rows;
  rows.length = span.length;
  rows.last = span.last;
  rows.param = span.param;
  rows.period = plan_.period();
  rows.vector = plan_.vector_rows();
  rows.scale = params_.scale.data();
  rows.zero = !params_.zero_point.empty() ? params_.zero_point.data() : zeros_.empty() ? nullptr : zeros_.data();
  rows.lo = static_cast<float>(params_.lo);
  rows.hi = static_cast<float>(params_.hi);
  return rows;
}

double WideQuantizer::code(float x) const {
  const float v = x / scale;
  const double q = (std::isnan(v) ? 0.0 : std::rint(static_cast<double>(v))) + zero;
  return std::clamp(q, lo, hi);
}
bool WideQuantizer::clipped(float x) const {
  const double v = static_cast<double>(x / scale);
  return v < lo - zero - 0.5 || v > hi - zero + 0.5;
}

namespace {

template <class Fast, class Wide>
void over_spans(const Applier& applier, std::int64_t elements, const Fast& fast, const Wide& wide) {
  const SpanPlan& plan = applier.plan();
  parallel_for(plan.count(), threads_for(elements), [&](std::int64_t i) {
    const Span span = plan.span(i);
    if (span.rows == 0) return;
    if (applier.wide()) applier.each_wide(span, wide);
    else fast(span);
  });
}

}  // namespace

void fake_quantize(const QuantParams& params, const BlockLayout& layout, const float* x, float* y) {
  const Applier applier(params, layout);
  over_spans(
      applier, layout.elements(),
      [&](const Span& s) { kernels().fake(applier.rows(s), x + s.offset, y + s.offset); },
      [&](const WideQuantizer& q, std::int64_t i, std::int64_t) { y[i] = q.value(q.code(x[i])); });
}

void quantize_codes(const QuantParams& params, const BlockLayout& layout, const float* x, std::int32_t* codes) {
  const Applier applier(params, layout);
  over_spans(
      applier, layout.elements(),
      [&](const Span& s) { kernels().codes(applier.rows(s), x + s.offset, codes + s.offset); },
      [&](const WideQuantizer& q, std::int64_t i, std::int64_t) {
        codes[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(q.code(x[i])));
      });
}

void dequantize_codes(const QuantParams& params, const BlockLayout& layout, const std::int32_t* codes, float* y) {
  const Applier applier(params, layout);
  over_spans(
      applier, layout.elements(),
      [&](const Span& s) { kernels().decode(applier.rows(s), codes + s.offset, y + s.offset); },
      [&](const WideQuantizer& q, std::int64_t i, std::int64_t) { y[i] = q.value(codes[i]); });
}

void fake_quantize_backward(const QuantParams& params, const BlockLayout& layout, const float* x, const float* dy,
                            float* dx, float* dscale, bool pass_clipped) {
  if (pass_clipped && !dscale) {
    if (dx != dy) std::copy(dy, dy + layout.elements(), dx);
    return;
  }
  const Applier applier(params, layout);
  const SpanPlan& plan = applier.plan();
  std::vector<double> sums(dscale ? static_cast<std::size_t>(plan.results()) : 0);
  const auto slots = [&](const Span& s) { return dscale ? sums.data() + s.result : nullptr; };
  over_spans(
      applier, layout.elements(),
      [&](const Span& s) {
        kernels().backward(applier.rows(s), x + s.offset, dy + s.offset, dx + s.offset, slots(s), pass_clipped);
      },
      [&](const WideQuantizer& q, std::int64_t i, std::int64_t slot) {
        const float g = dy[i];
        const bool inside = !q.rounds_outside(x[i]);
        if (dscale) sums[static_cast<std::size_t>(slot)] += static_cast<double>(g) * q.scale_term(x[i]);
        dx[i] = inside || pass_clipped ? g : 0.0f;
      });
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

bool WideQuantizer::rounds_outside(float x) const {
  const float v = x / scale;
  const double q = (std::isnan(v) ? 0.0 : std::rint(static_cast<double>(v))) + zero;
  return q < lo || q > hi;
}
double WideQuantizer::scale_term(float x) const {
  const double v = std::isnan(x) ? 0.0 : static_cast<double>(x / scale);
  const double q = std::rint(v) + zero;
  return q < lo ? lo - zero : q > hi ? hi - zero : std::rint(v) - v;
}

}  // namespace quanvas::quant
