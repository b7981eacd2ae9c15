// Quanvas - a quantizer on a layout, as the kernels take it. Private to core/quant.
#pragma once

#include <vector>

#include "core/quant/kernels.h"
#include "core/quant/spans.h"

namespace quanvas::quant {

// Codes that float32 cannot hold (a 32-bit bias): plain loops in double.
struct WideQuantizer {
  float scale = 1;
  double zero = 0, lo = 0, hi = 0;
  double code(float x) const;
  float value(double code) const { return static_cast<float>(code - zero) * scale; }
  bool clipped(float x) const;         // more than half a step beyond the grid
  bool rounds_outside(float x) const;
  double scale_term(float x) const;
};

class Applier {
 public:
  // Keeps a reference to params.
  Applier(const QuantParams& params, const BlockLayout& layout);

  const SpanPlan& plan() const { return plan_; }
  Rows rows(const Span& span) const;
  bool wide() const { return wide_; }

  // f(quantizer, element, result slot) for each element of the span.
  template <class F>
  void each_wide(const Span& span, const F& f) const {
    std::int64_t element = span.offset;
    for (std::int64_t r = 0; r < span.rows; ++r) {
      const std::int64_t n = r + 1 == span.rows ? span.last : span.length;
      for (std::int64_t i = 0; i < n; ++i, ++element) {
        const std::int64_t slot = plan_.vector_rows() ? i : r;
        const auto p = static_cast<std::size_t>(plan_.parameter(span, slot));
        const double zero = params_.zero_point.empty() ? 0.0 : params_.zero_point[p];
        f(WideQuantizer{params_.scale[p], zero, static_cast<double>(params_.lo), static_cast<double>(params_.hi)},
          element, span.result + slot);
      }
    }
  }

 private:
  const QuantParams& params_;
  SpanPlan plan_;
  bool wide_ = false;
  std::vector<float> zeros_;
};

}  // namespace quanvas::quant
