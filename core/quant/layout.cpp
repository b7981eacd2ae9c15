// Layouts of a spec on a shape, and the grid of a quantizer.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/quant/grid.h"
#include "core/quant/params.h"

namespace quanvas::quant {
namespace {

thread_local int thread_count = 0;
std::atomic<int> default_thread_count{0};

Result<std::int64_t> product(const Shape& shape, std::size_t begin, std::size_t end) {
  std::int64_t n = 1;
  for (std::size_t i = begin; i < end; ++i) {
    const std::int64_t d = shape[i];
    if (d < -1)
      return fail(ErrorCode::kInvalidArgument, "The shape " + shape_text(shape) + " has a negative dimension.");
    if (__builtin_mul_overflow(n, d < 0 ? 1 : d, &n))
      return fail(ErrorCode::kInvalidArgument, "The shape " + shape_text(shape) + " has more elements than fit.");
  }
  return n;
}

Result<int> resolve_axis(const QuantSpec& spec, const Shape& shape, int default_axis) {
  const int rank = static_cast<int>(shape.size());
  const int given = spec.axis.value_or(default_axis);
  const int axis = given < 0 ? given + rank : given;
  if (axis >= 0 && axis < rank) return axis;
  return fail(ErrorCode::kInvalidArgument,
              "axis is " + std::to_string(given) + ", but a tensor of shape " + shape_text(shape) + " has " +
                  std::to_string(rank) + " axes.",
              rank == 0 ? "Use granularity tensor." : "Use an axis from 0 to " + std::to_string(rank - 1) + ".");
}

}  // namespace

std::int64_t BlockLayout::parameters() const {
  switch (granularity) {
    case Granularity::kTensor: return 1;
    case Granularity::kChannel: return dim;
    case Granularity::kGroup:
    case Granularity::kRow: return outer * ((dim + group - 1) / group) * inner;
  }
  return 1;
}

Result<BlockLayout> make_layout(const QuantSpec& spec, const Shape& shape, int default_axis) {
  BlockLayout layout;
  layout.granularity = spec.granularity;
  QUANVAS_TRY(const std::int64_t all, product(shape, 0, shape.size()));
  if (spec.granularity == Granularity::kTensor) {
    layout.inner = all;
    return layout;
  }
  // A row is a group that spans the whole axis.
  const bool rows = spec.granularity == Granularity::kRow;
  if (rows) layout.granularity = Granularity::kGroup;
  QUANVAS_TRY(const int axis, resolve_axis(spec, shape, rows ? -1 : default_axis));
  const auto at = static_cast<std::size_t>(axis);
  QUANVAS_TRY(layout.outer, product(shape, 0, at));
  QUANVAS_TRY(layout.inner, product(shape, at + 1, shape.size()));
  layout.dim = std::max<std::int64_t>(shape[at] < 0 ? 1 : shape[at], 0);
  if (rows) layout.group = std::max<std::int64_t>(1, layout.dim);
  if (spec.granularity == Granularity::kGroup) {
    if (spec.group_size < 1)
      return fail(ErrorCode::kInvalidArgument,
                  "group_size is " + std::to_string(spec.group_size) + "; it must be at least 1.");
    layout.group = std::max<std::int64_t>(1, std::min<std::int64_t>(spec.group_size, layout.dim));
  }
  return layout;
}

Result<BlockLayout> rebatch(const QuantParams& params, const Shape& shape) {
  QUANVAS_TRY(const BlockLayout layout, make_layout(params.spec, shape, params.spec.axis.value_or(0)));
  const auto have = static_cast<std::int64_t>(params.scale.size());
  if (layout.parameters() != have)
    return fail(ErrorCode::kInvalidArgument,
                "The quantizer has " + std::to_string(have) + " scales, but a tensor of shape " + shape_text(shape) +
                    " needs " + std::to_string(layout.parameters()) + ".",
                "Only the batch may differ from the tensor that the quantizer was calibrated on.");
  return layout;
}

namespace {

// All finite values, in units of the scale.
std::vector<double> float_points(const Grid& g) {
  std::vector<double> points;
  for (std::int32_t code = 0; code < 1 << ((g.is_signed ? 1 : 0) + g.exponent_bits + g.mantissa_bits); ++code)
    if (const float v = float_value(g, code); std::isfinite(v)) points.push_back(static_cast<double>(v));
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

}  // namespace

std::vector<double> grid_points(const QuantParams& params, std::int64_t index, std::size_t most) {
  const auto i = static_cast<std::size_t>(index);
  if (index < 0 || i >= params.scale.size() || most == 0 || params.hi < params.lo) return {};
  const float zero = params.zero_point.empty() ? 0.0f : params.zero_point[i];
  const Grid grid = grid_of(params.spec);
  std::vector<double> listed;
  if (grid.family == Family::kFloat) listed = float_points(grid);
  if (grid.family == Family::kTernary) listed = {-1, 0, 1};
  if (grid.family == Family::kBinary) listed = {-1, 1};
  if (grid.family == Family::kCodebook) listed.assign(grid.values->begin(), grid.values->end());
  const auto total = listed.empty() ? static_cast<std::uint64_t>(params.hi - params.lo) + 1 : listed.size();
  const std::uint64_t kept = std::min<std::uint64_t>(total, most);
  std::vector<double> points;
  points.reserve(kept);
  for (std::uint64_t k = 0; k < kept; ++k) {
    // Both ends are kept, the others are spread evenly.
    const std::uint64_t step =
        kept == 1 ? 0 : static_cast<std::uint64_t>(static_cast<unsigned __int128>(k) * (total - 1) / (kept - 1));
    if (grid.offset) {
      points.push_back(static_cast<double>(static_cast<float>(params.lo + static_cast<std::int64_t>(step)) * params.scale[i] + zero));
      continue;
    }
    const float unit = listed.empty() ? static_cast<float>(params.lo + static_cast<std::int64_t>(step)) - zero
                                      : static_cast<float>(listed[step]);
    points.push_back(static_cast<double>(unit * params.scale[i]));
  }
  if (params.scale[i] < 0) std::reverse(points.begin(), points.end());
  return points;
}

void set_kernel_threads(int threads) { thread_count = std::max(0, threads); }
void set_default_kernel_threads(int threads) { default_thread_count = std::max(0, threads); }
int kernel_threads() {
  if (thread_count > 0) return thread_count;
  const int n = default_thread_count;
  return n > 0 ? n : std::max(1, omp_get_max_threads());
}

}  // namespace quanvas::quant
