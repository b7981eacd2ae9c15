// Errors of quantized tensors.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/quant/apply.h"
#include "core/quant/measure_spans.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {
namespace {

void add(ErrorSums& sums, const PairSums& part, std::int64_t n) {
  sums.xx += part.xx;
  sums.yy += part.yy;
  sums.xy += part.xy;
  sums.dd += part.dd;
  sums.max_abs = std::max(sums.max_abs, static_cast<double>(part.max_abs));
  sums.n += static_cast<double>(n);
}

// As many stripes as threads, each with its own buffers; what a span gives does not depend on its stripe.
template <class Work>
double over_stripes(const Applier& applier, std::int64_t elements, std::int64_t codes, const Work& work) {
  const SpanPlan& plan = applier.plan();
  const int threads = threads_for(elements);
  std::vector<Scratch> scratch(static_cast<std::size_t>(threads), Scratch(elements, codes));
  parallel_stripes(plan.count(), threads, [&](std::int64_t stripe, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      if (const Span span = plan.span(i); span.rows > 0) work(i, span, scratch[static_cast<std::size_t>(stripe)]);
  });
  return used_codes(scratch);
}

double measure_elements(const Applier& applier, const float* x, std::int64_t elements, std::int64_t codes,
                        std::vector<SpanFacts>& facts) {
  const auto first = applier.grid().family == Family::kFloat ? 0 : static_cast<std::int64_t>(applier.grid().lo);
  return over_stripes(applier, elements, codes, [&](std::int64_t i, const Span& span, Scratch& s) {
    SpanFacts& fact = facts[static_cast<std::size_t>(i)];
    applier.each(span, [&](const ElementQuantizer& q, std::int64_t e, std::int64_t) {
      const auto at = static_cast<std::size_t>(e - span.offset);
      const double p = q.point(x[e], e);
      s.y[at] = q.value(p);
      s.index[at] = applier.grid().family == Family::kFloat
                        ? float_code(applier.grid(), static_cast<float>(p))
                        : static_cast<std::int32_t>(static_cast<std::int64_t>(p) - first);
      fact.clipped += q.clipped(x[e]);
    });
    fact.sums = kernels().pair_sums(x + span.offset, s.y.data(), span.elements());
    s.used.mark(s.index.data(), span.elements());
  });
}

// More codes than are worth a table: those that occur are sorted.
double measure_wide(const Applier& applier, const float* x, std::vector<SpanFacts>& facts) {
  const SpanPlan& plan = applier.plan();
  std::vector<std::int64_t> codes;
  std::vector<float> y;
  for (std::int64_t i = 0; i < plan.count(); ++i) {
    const Span span = plan.span(i);
    y.clear();
    applier.each(span, [&](const ElementQuantizer& q, std::int64_t e, std::int64_t) {
      const double p = q.point(x[e], e);
      codes.push_back(applier.grid().family == Family::kFloat ? float_code(applier.grid(), static_cast<float>(p))
                                                              : static_cast<std::int64_t>(p));
      y.push_back(q.value(p));
      facts[static_cast<std::size_t>(i)].clipped += q.clipped(x[e]);
    });
    facts[static_cast<std::size_t>(i)].sums = kernels().pair_sums(x + span.offset, y.data(), span.elements());
  }
  std::sort(codes.begin(), codes.end());
  return static_cast<double>(std::unique(codes.begin(), codes.end()) - codes.begin());
}

double scale_bytes(const QuantSpec& spec) {
  switch (spec.scale) {
    case ScaleType::kFloat32:
      return 4;
    case ScaleType::kFloat16:
      return 2;
    case ScaleType::kPowerOfTwo:
      return 1;  // its exponent, as E8M0
    case ScaleType::kFloat8:
      return 1;
    case ScaleType::kQuantized:
      return spec.scale_bits / 8.0;
  }
  return 4;
}

// Bytes of the codes alone. Ternary ones are stored five to a byte, each group on its own (ggml's TQ1_0); the others in
// code_bits() each.
double code_bytes(const QuantParams& params, double elements) {
  constexpr double kTernaryToAByte = 5;  // 3^5 = 243
  if (params.spec.format != "ternary") return elements * code_bits(params.spec) / 8;
  const BlockLayout& l = params.layout;
  if (l.granularity != Granularity::kGroup || l.dim < 1 || l.group < 1) return std::ceil(elements / kTernaryToAByte);
  const double lines = elements / static_cast<double>(l.dim);
  return lines * (static_cast<double>(l.dim / l.group) * std::ceil(static_cast<double>(l.group) / kTernaryToAByte) +
                  std::ceil(static_cast<double>(l.dim % l.group) / kTernaryToAByte));
}

void add_sizes(const QuantParams& params, std::int64_t n, SiteFacts& facts) {
  facts.bytes_float = 4.0 * static_cast<double>(n);
  facts.bytes_quantized = stored_bytes(params, static_cast<double>(n));
  facts.bits_per_element = n > 0 ? 8 * facts.bytes_quantized / static_cast<double>(n) : 0;
  facts.codes_total = static_cast<double>(code_count(grid_of(params.spec)));
  if (!params.scale.empty()) {
    const auto [lo, hi] = std::minmax_element(params.scale.begin(), params.scale.end());
    facts.scale_min = *lo;
    facts.scale_max = *hi;
  }
  if (!params.zero_point.empty()) {
    const auto [lo, hi] = std::minmax_element(params.zero_point.begin(), params.zero_point.end());
    facts.zero_point_min = *lo;
    facts.zero_point_max = *hi;
  }
}

}  // namespace

Scratch::Scratch(std::int64_t elements, std::int64_t codes)
    : y(static_cast<std::size_t>(std::min(kTile, elements))), index(y.size()) {
  used.seen.resize(static_cast<std::size_t>(codes));
}

void UsedCodes::mark(const std::int32_t* index, std::int64_t n) {
  if (all) return;
  for (std::int64_t i = 0; i < n; ++i) seen[static_cast<std::size_t>(index[i])] = 1;
  all = seen.size() <= 4096 && std::find(seen.begin(), seen.end(), 0) == seen.end();
}

double used_codes(const std::vector<Scratch>& scratch) {
  double used = 0;
  for (std::size_t c = 0; c < scratch[0].used.seen.size(); ++c)
    used += std::any_of(scratch.begin(), scratch.end(), [&](const Scratch& s) { return s.used.seen[c] != 0; });
  return used;
}

SpanFacts measure_span(const Applier& applier, const Span& span, const float* x, Scratch& s) {
  SpanFacts fact;
  const float* const from = x + span.offset;
  fact.clipped = applier.measure(span, from, s.y.data(), s.index.data());
  fact.sums = kernels().pair_sums(from, s.y.data(), span.elements());
  s.used.mark(s.index.data(), span.elements());
  return fact;
}

void finish_facts(const QuantParams& params, std::int64_t n, const std::vector<SpanFacts>& parts,
                  SiteFacts& facts) {
  ErrorSums sums;
  double clipped = 0;
  for (const SpanFacts& part : parts) {
    add(sums, part.sums, 0);
    clipped += static_cast<double>(part.clipped);
  }
  sums.n = static_cast<double>(n);
  facts.error = sums.result();
  facts.clipped_share = n > 0 ? clipped / static_cast<double>(n) : 0;
  add_sizes(params, n, facts);
}

double stored_bytes(const QuantParams& params, double elements) {
  const double bits = code_bits(params.spec);
  // An offset is stored as its scale is.
  const double zero_bits = params.spec.zero_point == ZeroPointType::kFloat    ? 32
                           : params.spec.zero_point == ZeroPointType::kOffset ? 8 * scale_bytes(params.spec)
                                                                              : bits;
  double bytes = code_bytes(params, elements) + static_cast<double>(params.zero_point.size()) * zero_bits / 8;
  // A bias at the accumulator's scale needs none of its own.
  if (params.spec.scale_from_accumulator) return bytes;
  bytes += static_cast<double>(params.scale.size()) * scale_bytes(params.spec);
  bytes += 2 * static_cast<double>(params.super_scale.size() + params.super_offset.size());  // float16
  return bytes + (params.spec.scale == ScaleType::kFloat8 ? 4 : 0);
}

SiteFacts measure(const QuantParams& params, const BlockLayout& layout, const float* x) {
  const Applier applier(params, layout);
  SiteFacts facts;
  const std::int64_t n = layout.elements(), codes = params.hi - params.lo + 1;
  std::vector<SpanFacts> parts(static_cast<std::size_t>(applier.plan().count()));
  if (codes > kMaxCountedCodes)
    facts.codes_used = measure_wide(applier, x, parts);
  else if (applier.has_kernel())
    facts.codes_used = over_stripes(applier, n, codes, [&](std::int64_t i, const Span& span, Scratch& scratch) {
      parts[static_cast<std::size_t>(i)] = measure_span(applier, span, x, scratch);
    });
  else
    facts.codes_used = measure_elements(applier, x, n, codes, parts);
  finish_facts(params, n, parts, facts);
  return facts;
}

void ErrorSums::add(const float* x, const float* y, std::int64_t count) {
  const std::int64_t tiles = (count + kTile - 1) / kTile;
  std::vector<PairSums> parts(static_cast<std::size_t>(std::max<std::int64_t>(0, tiles)));
  parallel_for(tiles, threads_for(count), [&](std::int64_t i) {
    const std::int64_t begin = i * kTile;
    parts[static_cast<std::size_t>(i)] = kernels().pair_sums(x + begin, y + begin, std::min(kTile, count - begin));
  });
  for (const PairSums& part : parts) quant::add(*this, part, 0);
  n += static_cast<double>(std::max<std::int64_t>(0, count));
}

void ErrorSums::merge(const ErrorSums& other) {
  xx += other.xx;
  yy += other.yy;
  xy += other.xy;
  dd += other.dd;
  max_abs = std::max(max_abs, other.max_abs);
  n += other.n;
}

TensorError ErrorSums::result() const {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  TensorError e;
  e.elements = n;
  e.mse = n > 0 ? dd / n : 0;
  e.max_abs = max_abs;
  e.sqnr_db = xx == 0 ? kNan : dd == 0 ? kInf : 10 * std::log10(xx / dd);
  e.cosine = xx == 0 ? kNan : yy == 0 ? 0 : std::clamp(xy / (std::sqrt(xx) * std::sqrt(yy)), -1.0, 1.0);
  return e;
}

TensorError tensor_error(const float* x, const float* y, std::int64_t n) {
  ErrorSums sums;
  sums.add(x, y, n);
  return sums.result();
}

}  // namespace quanvas::quant
