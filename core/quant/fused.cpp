#include "core/quant/fused.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "core/quant/extremes.h"
#include "core/quant/find_tiles.h"
#include "core/quant/measure_spans.h"
#include "core/quant/parallel.h"
#include "core/quant/scale_rule.h"

namespace quanvas::quant {
namespace {

// Elements whose scales are found before they are quantized: x stays in the first-level cache.
constexpr std::int64_t kFindTile = 4096;

// One call of find_in_tiles().
class Tiles {
 public:
  Tiles(const BlockLayout& layout, const float* x, float* y, SiteFacts* facts, QuantParams& params)
      : elements_(layout.elements()),
        x_(x),
        y_(y),
        facts_(facts),
        params_(params),
        applier_(params, layout),
        rule_(params.spec, applier_.grid()),
        streams_(y && y != x && elements_ >= kStreamElements) {
    applier_.expect_finite();  // tiles that are not are not quantized
  }

  bool run() {
    const SpanPlan& plan = applier_.plan();
    const int threads = threads_for(elements_);
    const std::int64_t codes = params_.hi - params_.lo + 1;
    std::vector<Scratch> scratch;
    if (facts_) {
      scratch.assign(static_cast<std::size_t>(threads), Scratch(elements_, codes));
      parts_.resize(static_cast<std::size_t>(plan.count()));
    }
    parallel_stripes(plan.count(), threads, [&](std::int64_t stripe, std::int64_t begin, std::int64_t end) {
      std::vector<std::int32_t> extremes(static_cast<std::size_t>(2 * std::min(kTile, elements_)));
      for (std::int64_t i = begin; i < end; ++i)
        one(i, extremes.data(), facts_ ? &scratch[static_cast<std::size_t>(stripe)] : nullptr);
      if (streams_) stream_fence();
    });
    if (!finite_) return false;
    if (facts_) {
      *facts_ = {};
      facts_->codes_used = used_codes(scratch);
      finish_facts(params_, elements_, parts_, *facts_);
    }
    return true;
  }

 private:
  void one(std::int64_t index, std::int32_t* extremes, Scratch* scratch) {
    const SpanPlan& plan = applier_.plan();
    const Span span = plan.span(index);
    if (span.rows == 0) return;
    bool finite = true;
    const auto each = [&](const Span& tile) {
      const bool known = find(tile, extremes);
      finite &= known;
      if (known && y_ && !scratch) quantize(tile);
    };
    // Columns have their scales from all rows of the span.
    if (plan.vector_rows())
      each(span);
    else
      plan.cut(span, kFindTile, true, each);
    if (!finite) finite_ = false;
    if (!finite || !scratch) return;
    parts_[static_cast<std::size_t>(index)] = measure_span(applier_, span, x_, *scratch);
    if (y_) put(scratch->y.data(), span);
  }

  // Scales of a tile's slots; false: it is not finite.
  bool find(const Span& tile, std::int32_t* extremes) {
    const std::int64_t slots = applier_.plan().slots(tile);
    const auto at = static_cast<std::size_t>(tile.param);
    const Rows rows = applier_.rows(tile);
    std::int32_t *const least = extremes, *const most = extremes + slots;
    if (applier_.plan().vector_rows()) {
      std::fill_n(least, slots, INT32_MAX);
      std::fill_n(most, slots, rule_.absolute() ? 0 : INT32_MIN);
    }
    if (rule_.absolute()) {
      kernels().absmax(rows, x_ + tile.offset, most);
      if (!within(most, slots, 0)) return false;
      rule_.from_magnitudes(most, slots, &params_.scale[at]);
      return true;
    }
    kernels().range(rows, x_ + tile.offset, least, most);
    if (!within(least, slots, kSmallestFiniteKey) || !within(most, slots, kSmallestFiniteKey)) return false;
    rule_.from_extremes(least, most, slots, &params_.scale[at],
                        params_.zero_point.empty() ? nullptr : &params_.zero_point[at]);
    return true;
  }
  static bool within(const std::int32_t* keys, std::int64_t n, std::int32_t smallest) {
    std::int32_t outside = 0;
    for (std::int64_t i = 0; i < n; ++i)
      outside |= (keys[i] < smallest ? 1 : 0) | (keys[i] > kLargestFiniteKey ? 1 : 0);
    return outside == 0;
  }

  void quantize(const Span& tile) {
    if (!streams_) return applier_.fake(tile, x_ + tile.offset, y_ + tile.offset);
    alignas(64) float buffer[kPiece];
    // What is asked for meanwhile is the tile after this one.
    const std::int64_t ahead = tile.elements();
    applier_.plan().cut(tile, kPiece, false, [&](const Span& piece) {
      applier_.fake(piece, x_ + piece.offset, buffer);
      put(buffer, piece, ahead);
    });
  }

  void put(const float* from, const Span& s, std::int64_t ahead = kTile) {
    const std::int64_t next = std::min(elements_, s.offset + ahead);
    if (streams_)
      kernels().stream(from, y_ + s.offset, s.elements(), x_ + next, elements_ - next);
    else
      std::copy(from, from + s.elements(), y_ + s.offset);
  }

  std::int64_t elements_;
  const float* x_;
  float* y_;
  SiteFacts* facts_;
  QuantParams& params_;
  Applier applier_;
  ScaleRule rule_;
  bool streams_;
  std::vector<SpanFacts> parts_;
  std::atomic<bool> finite_ = true;
};

}  // namespace

// Both name what they know, so that whatever is new goes the long way.
bool scales_from_tiles(const QuantSpec& spec, const BlockLayout& layout) {
  const bool extremes = spec.statistic == Statistic::kAbsMax || spec.statistic == Statistic::kMinMax;
  const bool one_level = spec.scale == ScaleType::kFloat32 || spec.scale == ScaleType::kPowerOfTwo ||
                         spec.scale == ScaleType::kFloat16;
  return extremes && one_level && !has_clip(spec) && !spec.scale_from_accumulator &&
         spec.source != ScaleSource::kConstant && spec.decoupled == Decoupling::kNone && !spec.accumulator_bits &&
         layout.elements() > 0 && SpanPlan(layout).whole();
}

bool values_from_tiles(const QuantSpec& spec, const BlockLayout& layout) {
  if (!scales_from_tiles(spec, layout)) return false;
  if (spec.zero_point != ZeroPointType::kNone && spec.zero_point != ZeroPointType::kInteger) return false;
  const CodeRange codes = code_range(spec);
  if (codes.hi - codes.lo >= kMaxCountedCodes) return false;
  const QuantParams params = [&] {
    QuantParams p;
    p.spec = spec;
    p.lo = codes.lo;
    p.hi = codes.hi;
    return p;
  }();
  const Applier applier(params, layout);
  return applier.has_kernel();
}

bool find_in_tiles(const QuantSpec& spec, const BlockLayout& layout, const float* x, float* y, SiteFacts* facts,
                   QuantParams& params) {
  params = empty_params(spec, layout);
  return Tiles(layout, x, y, facts, params).run();
}

Result<QuantParams> find_and_quantize(const QuantSpec& spec, const Shape& shape, const float* x, int default_axis,
                                      float* y, SiteFacts* facts) {
  const auto layout = make_layout(spec, shape, default_axis);
  if (layout && values_from_tiles(spec, *layout)) {
    QuantParams params;
    if (!find_in_tiles(with_axis(spec, shape, default_axis), *layout, x, y, facts, params))
      return non_finite(shape, x, layout->elements());
    return params;
  }
  QUANVAS_TRY(QuantParams params, find_params(spec, shape, x, default_axis));
  // The error first, for y may be x.
  if (facts) *facts = measure(params, params.layout, x);
  if (y) fake_quantize(params, params.layout, x, y);
  return params;
}

}  // namespace quanvas::quant
