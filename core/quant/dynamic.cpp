#include "core/quant/dynamic.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "core/quant/fused.h"

namespace quanvas::quant {
namespace {

struct Samples {
  Shape shape;  // of one
  std::int64_t count = 1, elements = 0;
  int axis = 0;  // channels that a statistic averages over, where the granularity names no axis

  explicit Samples(const Shape& all) : shape(all), count(all.empty() ? 1 : all[0]) {
    if (!shape.empty()) shape[0] = 1;
    elements = element_count(shape);
    if (elements <= 0) count = 0;
    axis = std::min<int>(1, std::max<int>(0, static_cast<int>(all.size()) - 1));
  }
};

bool all_finite(const float* x, std::int64_t n) {
  return std::all_of(x, x + n, [](float v) { return std::isfinite(v); });
}

// f(parameters, layout, first element) for each sample; parameters null: the sample has no range.
template <class F>
Status over_samples(const QuantParams& declared, const Shape& shape, const float* x, const F& f) {
  const Samples samples(shape);
  for (std::int64_t s = 0; s < samples.count; ++s) {
    const std::int64_t first = s * samples.elements;
    auto params = find_params(declared.spec, samples.shape, x + first, samples.axis);
    if (params) {
      f(&*params, params->layout, first);
      continue;
    }
    if (all_finite(x + first, samples.elements)) return Failure(params.error());
    BlockLayout whole;
    whole.inner = samples.elements;
    f(static_cast<const QuantParams*>(nullptr), whole, first);
  }
  return {};
}

}  // namespace

bool is_dynamic(const QuantParams& params) {
  return params.spec.source == ScaleSource::kDynamic && params.scale.empty();
}

Result<QuantParams> dynamic_params(const QuantSpec& spec, int default_axis) {
  if (spec.source != ScaleSource::kDynamic)
    return fail(ErrorCode::kInvalidArgument,
                std::string("source is ") + enum_text(spec.source) + "; only dynamic quantizers do without a tensor.");
  QuantParams params;
  params.spec = spec;
  if (spec.granularity != Granularity::kTensor && !spec.axis)
    params.spec.axis = spec.granularity == Granularity::kRow ? -1 : default_axis;
  const CodeRange codes = code_range(spec);
  params.lo = codes.lo;
  params.hi = codes.hi;
  return params;
}

Status fake_quantize_samples(const QuantParams& declared, const Shape& shape, const float* x, float* y) {
  const Samples samples(shape);
  for (std::int64_t s = 0; s < samples.count; ++s) {
    const std::int64_t first = s * samples.elements;
    const auto params = find_and_quantize(declared.spec, samples.shape, x + first, samples.axis, y + first, nullptr);
    if (params) continue;
    // What is not finite has not been written over.
    if (all_finite(x + first, samples.elements)) return Failure(params.error());
    std::fill_n(y + first, samples.elements, std::numeric_limits<float>::quiet_NaN());
  }
  return {};
}

Status quantize_codes_samples(const QuantParams& declared, const Shape& shape, const float* x, std::int32_t* codes) {
  return over_samples(declared, shape, x, [&](const QuantParams* params, const BlockLayout& layout, std::int64_t first) {
    if (params) quantize_codes(*params, layout, x + first, codes + first);
    else std::fill_n(codes + first, layout.elements(), 0);
  });
}

Status fake_quantize_backward_samples(const QuantParams& declared, const Shape& shape, const float* x, const float* dy,
                                      float* dx, bool pass_clipped) {
  return over_samples(declared, shape, x, [&](const QuantParams* params, const BlockLayout& layout, std::int64_t first) {
    if (params) fake_quantize_backward(*params, layout, x + first, dy + first, dx + first, nullptr, pass_clipped);
    else std::fill_n(dx + first, layout.elements(), 0.0f);
  });
}

Result<SiteFacts> measure_samples(const QuantParams& declared, const Shape& shape, const float* x) {
  SiteFacts all;
  ErrorSums sums;
  std::unordered_set<std::int32_t> used;
  std::vector<float> y;
  std::vector<std::int32_t> codes;
  double clipped = 0, elements = 0;
  bool any = false;
  QUANVAS_CHECK(over_samples(declared, shape, x, [&](const QuantParams* params, const BlockLayout& layout, std::int64_t first) {
    const std::int64_t n = layout.elements();
    elements += static_cast<double>(n);
    y.assign(static_cast<std::size_t>(n), std::numeric_limits<float>::quiet_NaN());
    if (params) {
      fake_quantize(*params, layout, x + first, y.data());
      codes.resize(static_cast<std::size_t>(n));
      quantize_codes(*params, layout, x + first, codes.data());
      used.insert(codes.begin(), codes.end());
      const SiteFacts own = measure(*params, layout, x + first);
      clipped += own.clipped_share * static_cast<double>(n);
      all.codes_total = own.codes_total;
      all.scale_min = any ? std::min(all.scale_min, own.scale_min) : own.scale_min;
      all.scale_max = any ? std::max(all.scale_max, own.scale_max) : own.scale_max;
      all.zero_point_min = any ? std::min(all.zero_point_min, own.zero_point_min) : own.zero_point_min;
      all.zero_point_max = any ? std::max(all.zero_point_max, own.zero_point_max) : own.zero_point_max;
      any = true;
    }
    sums.add(x + first, y.data(), n);
  }));
  all.error = sums.result();
  all.codes_used = static_cast<double>(used.size());
  all.clipped_share = elements > 0 ? clipped / elements : 0;
  all.bits_per_element = code_bits(declared.spec);
  return all;
}

}  // namespace quanvas::quant
