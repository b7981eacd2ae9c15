// Quanvas - a quantizer on a layout, as the kernels take it. Private to core/quant.
#pragma once

#include <vector>

#include "core/quant/grid.h"
#include "core/quant/kernels.h"
#include "core/quant/spans.h"

namespace quanvas::quant {

// One parameter of any quantizer, element by element: for what the vectorized kernels leave out (codes that float32
// cannot hold, roundings other than half to even, a zero point inside the rounding, ternary and binary formats).
struct ElementQuantizer {
  const Grid& grid;
  float scale = 1;
  double zero = 0;

  // Code of an integer, ternary or binary format; of a minifloat the value in units of the scale.
  double point(float x, std::int64_t element) const;
  float value(double point) const;
  std::int32_t code(float x, std::int64_t element) const;
  float decode(std::int32_t code) const;
  bool clipped(float x) const;         // more than half a step beyond the grid
  // Gradient with respect to the scale, of x~ with the rounding taken as the identity inside the grid.
  double scale_term(float x, std::int64_t element) const;
  bool passes(float x) const;  // the gradient with respect to x
};

class Applier {
 public:
  // Keeps a reference to params.
  Applier(const QuantParams& params, const BlockLayout& layout);

  const SpanPlan& plan() const { return plan_; }
  Rows rows(const Span& span) const;
  FloatGrid float_grid() const;
  const Grid& grid() const { return grid_; }
  // Whether the kernels for integers or for minifloats hold for this quantizer; else element by element.
  bool integer_kernel() const { return integer_; }
  bool float_kernel() const { return float_; }

  // f(quantizer, element, result slot) for each element of the span.
  template <class F>
  void each(const Span& span, const F& f) const {
    std::int64_t element = span.offset;
    for (std::int64_t r = 0; r < span.rows; ++r) {
      const std::int64_t n = r + 1 == span.rows ? span.last : span.length;
      for (std::int64_t i = 0; i < n; ++i, ++element) {
        const std::int64_t slot = plan_.vector_rows() ? i : r;
        const auto p = static_cast<std::size_t>(plan_.parameter(span, slot));
        const double zero = params_.zero_point.empty() ? 0.0 : params_.zero_point[p];
        f(ElementQuantizer{grid_, params_.scale[p], zero}, element, span.result + slot);
      }
    }
  }

 private:
  const QuantParams& params_;
  SpanPlan plan_;
  Grid grid_;
  bool integer_ = false, float_ = false;
  std::vector<float> zeros_;
};

}  // namespace quanvas::quant
