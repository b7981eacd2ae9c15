#include "core/quant/column.h"

#include <algorithm>
#include <map>

#include "core/quant/apply.h"
#include "core/quant/parallel.h"

namespace quanvas::quant {

std::int64_t parameter_of(const BlockLayout& layout, std::int64_t element) {
  const std::int64_t i = element % layout.inner, d = element / layout.inner % layout.dim;
  switch (layout.granularity) {
    case Granularity::kTensor: return 0;
    case Granularity::kChannel: return d;
    case Granularity::kGroup:
    case Granularity::kRow: break;
  }
  const std::int64_t o = element / (layout.inner * layout.dim);
  const std::int64_t groups = (layout.dim + layout.group - 1) / layout.group;
  return (o * groups + d / layout.group) * layout.inner + i;
}

Result<ColumnQuantizer> ColumnQuantizer::create(const QuantParams& params, const MatrixView& view) {
  if (!params.rounding.empty() || params.spec.rounding == Rounding::kLearned)
    return fail(ErrorCode::kUnsupported, "The quantizer has learned rounding, which belongs to the weights it was trained with.",
                "Choose another rounding for this layer, or leave the layer out.");
  const bool empty = view.rows <= 0 || view.columns <= 0;
  if (empty || view.offset < 0 || view.row_stride < 0 || view.column_stride < 0 ||
      view.element(view.rows - 1, view.columns - 1) >= params.layout.elements())
    return fail(ErrorCode::kInvalidArgument, "A matrix of " + std::to_string(view.rows) + " x " +
                                                 std::to_string(view.columns) + " does not lie in a weight of " +
                                                 std::to_string(params.layout.elements()) + " elements.");
  ColumnQuantizer q;
  q.spec_ = params.spec;
  q.view_ = view;
  q.truncated_ = params.truncated;
  q.lo_ = static_cast<float>(params.lo);
  q.hi_ = static_cast<float>(params.hi);
  q.low_code_ = params.lo;
  q.high_code_ = params.hi;
  const Applier applier(params, params.layout);
  q.way_ = applier.integer_kernel() ? Way::kInteger
           : applier.float_kernel() ? Way::kFloat
           : applier.has_kernel()   ? Way::kGeneral
                                    : Way::kElement;
  if (q.way_ == Way::kFloat) q.float_grid_ = applier.float_grid();
  if (q.way_ == Way::kGeneral) q.general_grid_ = general_grid_of(applier.grid());
  // The axis of the parameters belongs either to the rows or to the columns, so the index is a sum of a function of the
  // row and one of the column: columns whose first rows agree agree in all.
  std::map<std::int64_t, std::int64_t> sets;
  const auto rows = static_cast<std::size_t>(view.rows);
  for (std::int64_t c = 0; c < view.columns; ++c) {
    const std::int64_t first = parameter_of(params.layout, view.element(0, c));
    const auto [at, fresh] = sets.try_emplace(first, static_cast<std::int64_t>(sets.size()));
    q.set_.push_back(at->second);
    if (!fresh) continue;
    for (std::size_t r = 0; r < rows; ++r) {
      const auto p = static_cast<std::size_t>(parameter_of(params.layout, view.element(static_cast<std::int64_t>(r), c)));
      q.scale_.push_back(params.scale[p]);
      q.zero_.push_back(params.zero_point.empty() ? 0.0f : params.zero_point[p]);
      if (!params.code_scale.empty()) q.code_scale_.push_back(params.code_scale[p]);
      if (!params.center.empty()) q.center_.push_back(params.center[p]);
    }
  }
  return q;
}

bool ColumnQuantizer::has_whole_codes() const {
  return spec_.format == "int" && (spec_.zero_point == ZeroPointType::kNone || spec_.zero_point == ZeroPointType::kInteger) &&
         code_scale_.empty() && center_.empty() && !truncated_;
}

void ColumnQuantizer::fake(std::int64_t column, std::int64_t row, std::int64_t count, const float* x, float* y) const {
  if (way_ == Way::kElement) return fake_elements(column, row, count, x, y);
  const auto at = static_cast<std::size_t>(set_[static_cast<std::size_t>(column)] * view_.rows + row);
  Rows rows;
  rows.rows = 1;
  rows.length = rows.last = rows.period = count;
  rows.vector = true;
  rows.scale = scale_.data() + at;
  rows.zero = zero_.data() + at;
  rows.lo = lo_;
  rows.hi = hi_;
  if (way_ == Way::kInteger) return kernels().fake(rows, x, y);
  if (way_ == Way::kFloat) return kernels().fake_float(rows, float_grid_, x, y);
  GeneralGrid grid = general_grid_;
  grid.step = code_scale_.empty() ? nullptr : code_scale_.data() + at;
  grid.center = center_.empty() ? nullptr : center_.data() + at;
  kernels().general(rows, grid, x, y, nullptr);
}

void ColumnQuantizer::fake_elements(std::int64_t column, std::int64_t row, std::int64_t count, const float* x,
                                    float* y) const {
  Grid grid = grid_of(spec_);
  grid.lo = static_cast<double>(low_code_);
  grid.hi = static_cast<double>(high_code_);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(set_[static_cast<std::size_t>(column)] * view_.rows + row + i);
    ElementQuantizer q(grid, scale_[at], static_cast<double>(zero_[at]));
    if (!code_scale_.empty()) q.code_scale = code_scale_[at];
    if (!center_.empty()) q.center = center_[at];
    q.truncated = truncated_ ? &*truncated_ : nullptr;
    y[i] = q.value(q.point(x[i], view_.element(row + i, column)));
  }
}

void ColumnQuantizer::fake_matrix(const float* x, float* y) const {
  constexpr std::int64_t kStripe = 64;
  const std::int64_t m = view_.rows, n = view_.columns;
  parallel_for((m + kStripe - 1) / kStripe, threads_for(m * n), [&](std::int64_t s) {
    const std::int64_t begin = s * kStripe, count = std::min(kStripe, m - begin);
    float column[kStripe];
    for (std::int64_t c = 0; c < n; ++c) {
      for (std::int64_t r = 0; r < count; ++r) column[r] = x[(begin + r) * n + c];
      fake(c, begin, count, column, column);
      for (std::int64_t r = 0; r < count; ++r) y[(begin + r) * n + c] = column[r];
    }
  });
}

}  // namespace quanvas::quant
