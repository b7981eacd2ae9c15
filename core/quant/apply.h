// Quanvas - a quantizer on a layout, as the kernels take it. Private to core/quant.
#pragma once

#include <limits>
#include <vector>

#include "core/quant/grid.h"
#include "core/quant/kernels.h"
#include "core/quant/spans.h"

namespace quanvas::quant {

// One parameter of any quantizer, element by element: for what the vectorized kernels leave out (codes that float32
// cannot hold, stochastic and learned rounding, minifloats that do not round half to even) and, but for the plain
// integers and minifloats, for gradients.
struct ElementQuantizer {
  const Grid& grid;
  float scale = 1;
  double zero = 0;
  float code_scale = 1, center = 0;  // decoupled; scale and 0 otherwise
  // Parameter of a learned rounding; NaN: there is none, so to the nearest.
  float rounding = std::numeric_limits<float>::quiet_NaN();
  const TruncationInput* truncated = nullptr;  // the integers that lose their low bits; null: this is no truncation

  ElementQuantizer(const Grid& g, float s, double z) : grid(g), scale(s), zero(z), code_scale(s) {}

  // Code of every format but a minifloat (soft learned rounding: a fraction), of which the value in units of the
  // scale.
  double point(float x, std::int64_t element) const;
  float value(double point) const;
  std::int32_t code(float x, std::int64_t element) const;
  float decode(std::int32_t code) const;
  bool clipped(float x) const;  // more than half a step beyond the grid
  // Gradient with respect to the scale, of x~ with the rounding taken as the identity inside the grid.
  double scale_term(float x, std::int64_t element) const;
  bool passes(float x) const;  // the gradient with respect to x

 private:
  // What is rounded.
  float in_steps(float x) const { return (x - (grid.offset ? static_cast<float>(zero) : center)) / code_scale; }
  // The whole number that x stands for, and what is rounded of a truncation: that number within its width, in units
  // of what is cut off.
  double whole(float x) const;
  double within(double whole) const;
  double shortened(float x) const;
  // Added to the rounded steps: the zero point, as far as it is one.
  double shift() const { return grid.offset ? 0.0 : zero; }
  double round(float v, std::int64_t element, bool soft) const;
};

// What the kernels see of a grid. general_grid_of: of integers, signs and codebooks.
FloatGrid float_grid_of(const Grid& grid);
GeneralGrid general_grid_of(const Grid& grid);
// Whether general_grid_of() says all: roundings that look at nothing but the value.
bool has_general_grid(const Grid& grid);

class Applier {
 public:
  // Keeps a reference to params.
  Applier(const QuantParams& params, const BlockLayout& layout);

  const SpanPlan& plan() const { return plan_; }
  Rows rows(const Span& span) const {
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
  const FloatGrid& float_grid() const { return float_grid_; }
  // No element that comes is NaN or infinite: minifloats need not look for them.
  void expect_finite() { float_grid_.finite = true; }
  const Grid& grid() const { return grid_; }
  // Whether the kernels for integers, for minifloats or for other grids hold for this quantizer; else element by
  // element.
  bool integer_kernel() const { return integer_; }
  bool float_kernel() const { return float_; }
  bool has_kernel() const { return integer_ || float_ || general_; }

  // By the kernel that holds, which must be there. x, y, index: of the span's first element.
  void fake(const Span& span, const float* x, float* y) const;
  // y, and the code counted from the lowest (of minifloats the pattern); returns the number of clipped elements.
  std::int64_t measure(const Span& span, const float* x, float* y, std::int32_t* index) const;

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
        ElementQuantizer q(grid_, params_.scale[p], zero);
        if (!params_.code_scale.empty()) q.code_scale = params_.code_scale[p];
        if (!params_.center.empty()) q.center = params_.center[p];
        q.truncated = params_.truncated ? &*params_.truncated : nullptr;
        if (!params_.rounding.empty()) q.rounding = params_.rounding[static_cast<std::size_t>(element)];
        f(q, element, span.result + slot);
      }
    }
  }

 private:
  const QuantParams& params_;
  SpanPlan plan_;
  Grid grid_;
  GeneralGrid general_grid_;
  FloatGrid float_grid_;
  bool integer_ = false, float_ = false, general_ = false;
  std::vector<float> zeros_;
};

}  // namespace quanvas::quant
