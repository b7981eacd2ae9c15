#include <map>
#include <string>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

at::Tensor wrapped(const at::Tensor& index, std::int64_t n) {
  const at::Tensor i = index.to(at::kLong);
  return at::where(i < 0, i + n, i);
}
Status check_range(const at::Tensor& index, std::int64_t n, std::int64_t axis) {
  if (index.numel() == 0) return {};
  const std::int64_t lo = index.min().item().toLong(), hi = index.max().item().toLong();
  if (lo < 0 || hi >= n)
    return bad_node("an index is " + std::to_string(lo < 0 ? lo - n : hi) + ", axis " + std::to_string(axis) + " has " +
                    std::to_string(n) + " entries.");
  return {};
}

OpResult gather(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  const at::Tensor index = wrapped(call.x(1), x.size(axis));
  QUANVAS_CHECK(check_range(index, x.size(axis), axis));
  Ints shape(x.sizes().begin(), x.sizes().begin() + axis);
  shape.insert(shape.end(), index.sizes().begin(), index.sizes().end());
  shape.insert(shape.end(), x.sizes().begin() + axis + 1, x.sizes().end());
  return one(x.index_select(axis, index.reshape({-1})).reshape(shape));
}

OpResult gather_elements(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  const at::Tensor index = wrapped(call.x(1), x.size(axis));
  QUANVAS_CHECK(check_range(index, x.size(axis), axis));
  return one(at::gather(x, axis, index));
}

// ONNX's names of reductions to ATen's; none: values replace what was there.
const std::map<std::string, std::string>& reductions() {
  static const std::map<std::string, std::string> names = {{"mul", "prod"}, {"max", "amax"}, {"min", "amin"}};
  return names;
}

std::string refuse_reduction(const Node& node) {
  const std::string mode = node.text("reduction", "none");
  if (mode == "none" || mode == "add" || reductions().count(mode)) return {};
  return "its reduction is '" + mode + "'";
}

OpResult scatter_elements(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  const at::Tensor index = wrapped(call.x(1), x.size(axis));
  QUANVAS_CHECK(check_range(index, x.size(axis), axis));
  const std::string mode = call.node.text("reduction", "none");
  if (mode == "add") return one(x.scatter_add(axis, index, call.x(2)));
  if (const auto it = reductions().find(mode); it != reductions().end())
    return one(x.scatter_reduce(axis, index, call.x(2), it->second));
  return one(x.scatter(axis, index, call.x(2)));
}

// Linear row numbers of an index tensor [..., k] into the first k axes of `sizes` after `skip`.
Result<at::Tensor> row_numbers(const at::Tensor& index, at::IntArrayRef sizes, std::int64_t skip) {
  at::Tensor rows = at::zeros(index.sizes().slice(0, static_cast<std::size_t>(index.dim() - 1)), index.options());
  for (std::int64_t k = 0; k < index.size(-1); ++k) {
    const std::int64_t n = sizes[static_cast<std::size_t>(skip + k)];
    const at::Tensor i = wrapped(index.select(-1, k), n);
    QUANVAS_CHECK(check_range(i, n, skip + k));
    rows = rows * n + i;
  }
  return rows;
}

OpResult gather_nd(const OpCall& call) {
  const at::Tensor& x = call.x();
  const at::Tensor index = call.x(1).to(at::kLong);
  const std::int64_t batch = call.node.integer("batch_dims", 0);
  if (index.dim() == 0 || batch < 0 || batch >= index.dim() || batch + index.size(-1) > x.dim())
    return bad_node("indices " + sizes_text(index) + " do not fit data " + sizes_text(x) + ".");
  QUANVAS_TRY(at::Tensor rows, row_numbers(index, x.sizes(), batch));
  std::int64_t batches = 1, span = 1;
  for (std::int64_t i = 0; i < batch; ++i) batches *= x.size(i);
  for (std::int64_t k = 0; k < index.size(-1); ++k) span *= x.size(batch + k);
  const at::Tensor offset = at::arange(batches, index.options()).reshape({batches, 1}) * span;
  const at::Tensor flat = (rows.reshape({batches, -1}) + offset).reshape({-1});
  Ints shape = rows.sizes().vec();
  const auto rest = x.sizes().slice(static_cast<std::size_t>(batch + index.size(-1)));
  shape.insert(shape.end(), rest.begin(), rest.end());
  Ints matrix = {batches * span};
  matrix.insert(matrix.end(), rest.begin(), rest.end());
  return one(x.reshape(matrix).index_select(0, flat).reshape(shape));
}

OpResult scatter_nd(const OpCall& call) {
  const at::Tensor& x = call.x();
  const at::Tensor index = call.x(1).to(at::kLong);
  if (index.dim() == 0 || index.size(-1) > x.dim())
    return bad_node("indices " + sizes_text(index) + " do not fit data " + sizes_text(x) + ".");
  QUANVAS_TRY(at::Tensor rows, row_numbers(index, x.sizes(), 0));
  const auto rest = x.sizes().slice(static_cast<std::size_t>(index.size(-1)));
  Ints matrix = {-1}, updates = {rows.numel()};
  matrix.insert(matrix.end(), rest.begin(), rest.end());
  updates.insert(updates.end(), rest.begin(), rest.end());
  const std::string mode = call.node.text("reduction", "none");
  const at::Tensor base = x.reshape(matrix), values = call.x(2).reshape(updates), flat = rows.reshape({-1});
  if (mode == "add") return one(base.index_add(0, flat, values).reshape(x.sizes()));
  if (const auto it = reductions().find(mode); it != reductions().end())
    return one(base.index_reduce(0, flat, values, it->second).reshape(x.sizes()));
  return one(base.index_copy(0, flat, values).reshape(x.sizes()));
}

OpResult top_k(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", -1), x.dim()));
  const std::int64_t k = call.has(1) ? call.x(1).item().toLong() : call.node.integer("k", 1);
  const bool largest = call.node.integer("largest", 1) != 0;
  // A stable sort keeps the lower index first among equals, as ONNX asks.
  auto [values, index] = at::sort(x, /*stable=*/true, axis, largest);
  return Tensors{values.narrow(axis, 0, k), index.narrow(axis, 0, k)};
}

OpResult one_hot(const OpCall& call) {
  const std::int64_t depth = call.x(1).reshape({-1})[0].item().toLong();
  const at::Tensor values = call.x(2).reshape({-1});
  const std::int64_t rank = call.x().dim() + 1;
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", -1), rank));
  const at::Tensor index = wrapped(call.x(), depth).unsqueeze(axis);
  Ints shape(static_cast<std::size_t>(rank), 1);
  shape[static_cast<std::size_t>(axis)] = depth;
  const at::Tensor hit = index == at::arange(depth, index.options()).reshape(shape);
  return one(at::where(hit, values[1], values[0]));
}

OpResult range(const OpCall& call) {
  return one(at::arange(call.x(0).item(), call.x(1).item(), call.x(2).item(), call.x(0).options()));
}

OpResult cumulative_sum(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.x(1).item().toLong(), x.dim()));
  const bool reverse = call.node.integer("reverse", 0) != 0;
  const at::Tensor line = reverse ? x.flip({axis}) : x;
  at::Tensor sum = at::cumsum(line, axis, x.scalar_type());
  if (call.node.integer("exclusive", 0)) sum = sum - line;
  return one(reverse ? sum.flip({axis}) : sum);
}

OpResult triangle(const OpCall& call) {
  const std::int64_t k = call.has(1) ? call.x(1).item().toLong() : 0;
  return one(call.node.integer("upper", 1) ? call.x().triu(k) : call.x().tril(k));
}

OpResult non_zero(const OpCall& call) { return one(at::nonzero(call.x()).t()); }

}  // namespace

const std::vector<OpRow>& index_ops() {
  static const std::vector<OpRow> rows = {
      {"Gather", 2, gather},
      {"GatherElements", 2, gather_elements},
      {"GatherND", 2, gather_nd},
      {"ScatterElements", 3, scatter_elements, refuse_reduction},
      {"Scatter", 3, scatter_elements, refuse_reduction},
      {"ScatterND", 3, scatter_nd, refuse_reduction},
      {"TopK", 1, top_k},
      {"OneHot", 3, one_hot},
      {"Range", 3, range},
      {"CumSum", 2, cumulative_sum},
      {"Trilu", 1, triangle},
      {"NonZero", 1, non_zero},
  };
  return rows;
}

}  // namespace quanvas::exec
