#include "core/quant/extremes.h"

#include <algorithm>
#include <cmath>

#include "core/quant/kernels.h"
#include "core/quant/parallel.h"
#include "core/quant/spans.h"

namespace quanvas::quant {
namespace {

Rows rows_of(const SpanPlan& plan, const Span& span) {
  Rows rows;
  rows.rows = span.rows;
  rows.length = span.length;
  rows.last = span.last;
  rows.vector = plan.vector_rows();
  return rows;
}

// Order keys of the extremes of each parameter.
struct Keys {
  explicit Keys(std::size_t count) : least(count, INT32_MAX), most(count, INT32_MIN) {}
  std::vector<std::int32_t> least, most;
  void merge(std::size_t p, std::int32_t low, std::int32_t high) {
    least[p] = std::min(least[p], low);
    most[p] = std::max(most[p], high);
  }
};

// Columns: each thread has blocks of its own, or of a single block extremes of its own.
void column_keys(const SpanPlan& plan, const float* x, int threads, Keys& keys) {
  const auto take = [&](std::int64_t begin, std::int64_t end, Keys& into) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Span span = plan.span(i);
      const auto p = static_cast<std::size_t>(span.param);
      if (span.rows > 0) kernels().range(rows_of(plan, span), x + span.offset, &into.least[p], &into.most[p]);
    }
  };
  const std::int64_t spans = plan.block_spans(), blocks = plan.count() / spans;
  if (blocks > 1)
    return parallel_for(blocks, threads, [&](std::int64_t b) { take(b * spans, (b + 1) * spans, keys); });
  std::vector<Keys> parts(static_cast<std::size_t>(threads), keys);
  parallel_stripes(plan.count(), threads, [&](std::int64_t t, std::int64_t begin, std::int64_t end) {
    take(begin, end, parts[static_cast<std::size_t>(t)]);
  });
  for (const Keys& part : parts)
    for (std::size_t p = 0; p < part.least.size(); ++p) keys.merge(p, part.least[p], part.most[p]);
}

void row_keys(const SpanPlan& plan, const float* x, int threads, Keys& keys) {
  const auto slots = static_cast<std::size_t>(plan.results());
  std::vector<std::int32_t> low(slots), high(slots);
  parallel_for(plan.count(), threads, [&](std::int64_t i) {
    const Span span = plan.span(i);
    if (span.rows > 0)
      kernels().range(rows_of(plan, span), x + span.offset, low.data() + span.result, high.data() + span.result);
  });
  for (std::int64_t i = 0; i < plan.count(); ++i) {
    const Span span = plan.span(i);
    for (std::int64_t k = 0; span.rows > 0 && k < plan.slots(span); ++k) {
      const auto slot = static_cast<std::size_t>(span.result + k);
      keys.merge(static_cast<std::size_t>(plan.parameter(span, k)), low[slot], high[slot]);
    }
  }
}

}  // namespace

Extremes find_extremes(const BlockLayout& layout, const float* x) {
  const SpanPlan plan(layout);
  const auto count = static_cast<std::size_t>(std::max<std::int64_t>(0, layout.parameters()));
  Keys keys(count);
  if (plan.count() > 0) (plan.vector_rows() ? column_keys : row_keys)(plan, x, threads_for(layout.elements()), keys);
  const auto &least = keys.least, &most = keys.most;
  Extremes extremes;
  extremes.lowest.reserve(count);
  extremes.highest.reserve(count);
  for (std::size_t p = 0; p < count; ++p) {
    const bool empty = least[p] > most[p];
    extremes.finite &= empty || (least[p] >= kSmallestFiniteKey && most[p] <= kLargestFiniteKey);
    extremes.lowest.push_back(empty ? 0.0f : from_order_key(least[p]));
    extremes.highest.push_back(empty ? 0.0f : from_order_key(most[p]));
  }
  return extremes;
}

Failure non_finite(const Shape& shape, const float* x, std::int64_t n) {
  std::int64_t i = 0;
  while (i < n && std::isfinite(x[i])) ++i;
  std::string index;
  std::int64_t rest = i;
  for (auto d = shape.rbegin(); d != shape.rend(); ++d) {
    const std::int64_t size = std::max<std::int64_t>(1, *d);
    index = std::to_string(rest % size) + (index.empty() ? "" : ", ") + index;
    rest /= size;
  }
  const char* const what = std::isnan(x[i]) ? "NaN" : x[i] > 0 ? "inf" : "-inf";
  return fail(ErrorCode::kInvalidArgument,
              "The tensor of shape " + shape_text(shape) + " holds " + what + " at index [" + index + "].",
              "Only finite values can be quantized.");
}

}  // namespace quanvas::quant
