#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

std::int64_t product(const Ints& v) { return std::accumulate(v.begin(), v.end(), std::int64_t{1}, std::multiplies<>()); }

// Files that fix the batch at 1 write it into Reshape's target too. When the data come in another batch, that
// leading number follows.
void follow_batch(const OpCall& call, Ints& target) {
  const at::Tensor& x = call.x();
  if (target.empty() || x.dim() == 0 || target[0] <= 0 || target[0] == x.size(0)) return;
  const auto& declared = call.graph.tensor(call.node.inputs[0]).shape;
  const bool fixed_batch = declared && !declared->empty() && declared->front() == target[0];
  const bool counts = std::find(target.begin(), target.end(), -1) == target.end();
  const bool fits_with_batch = counts && target[0] == 1 && product(target) != x.numel() &&
                               product(target) * x.size(0) == x.numel();
  if (fixed_batch || fits_with_batch) target[0] = x.size(0);
}

OpResult reshape(const OpCall& call) {
  auto target = attribute_or_input(call, "shape", 1);
  if (!target) return bad_node("the target shape is missing.");
  const at::Tensor& x = call.x();
  if (!call.node.integer("allowzero", 0))
    for (std::size_t i = 0; i < target->size(); ++i)
      if ((*target)[i] == 0 && static_cast<std::int64_t>(i) < x.dim()) (*target)[i] = x.size(static_cast<std::int64_t>(i));
  follow_batch(call, *target);
  return one(x.reshape(*target));
}

OpResult flatten(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 1), x.dim(), true));
  std::int64_t rows = 1, columns = 1;
  for (std::int64_t i = 0; i < x.dim(); ++i) (i < axis ? rows : columns) *= x.size(i);
  return one(x.reshape({rows, columns}));
}

OpResult squeeze(const OpCall& call) {
  const at::Tensor& x = call.x();
  const auto axes = attribute_or_input(call, "axes", 1);
  Ints drop;
  for (const auto a : axes.value_or(Ints{})) {
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(a, x.dim()));
    if (x.size(axis) != 1)
      return bad_node("axis " + std::to_string(axis) + " of " + sizes_text(x) + " is not 1 and cannot be squeezed.");
    drop.push_back(axis);
  }
  Ints shape;
  for (std::int64_t i = 0; i < x.dim(); ++i) {
    const bool gone = axes ? std::find(drop.begin(), drop.end(), i) != drop.end() : x.size(i) == 1;
    if (!gone) shape.push_back(x.size(i));
  }
  return one(x.reshape(shape));
}

OpResult unsqueeze(const OpCall& call) {
  const at::Tensor& x = call.x();
  auto axes = attribute_or_input(call, "axes", 1);
  if (!axes) return bad_node("'axes' is missing.");
  const std::int64_t rank = x.dim() + static_cast<std::int64_t>(axes->size());
  for (auto& a : *axes) {
    QUANVAS_TRY(a, resolve_axis(a, rank));
  }
  std::sort(axes->begin(), axes->end());
  Ints shape = x.sizes().vec();
  for (const auto a : *axes) {
    if (a > static_cast<std::int64_t>(shape.size())) return bad_node("'axes' names one axis twice.");
    shape.insert(shape.begin() + a, 1);
  }
  return one(x.reshape(shape));
}

OpResult transpose(const OpCall& call) {
  Ints reversed(static_cast<std::size_t>(call.x().dim()));
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  return one(call.x().permute(call.node.integers("perm", reversed)));
}

OpResult concat(const OpCall& call) {
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 1), call.x().dim()));
  return one(at::cat(call.in, axis));
}

OpResult split(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  auto sizes = attribute_or_input(call, "split", 1);
  if (!sizes) {
    const auto parts = static_cast<std::int64_t>(call.node.outputs.size());
    const std::int64_t each = (x.size(axis) + parts - 1) / std::max<std::int64_t>(1, parts);
    sizes = Ints{};
    for (std::int64_t left = x.size(axis), i = 0; i < parts; ++i, left -= each)
      sizes->push_back(std::clamp<std::int64_t>(left, 0, each));
  }
  return at::split_with_sizes(x, *sizes, axis);
}

at::Tensor slice_axis(const at::Tensor& x, std::int64_t axis, std::int64_t start, std::int64_t end, std::int64_t step) {
  const std::int64_t n = x.size(axis);
  if (start < 0) start = start < -n ? -1 : start + n;
  if (end < 0) end = end < -n ? -1 : end + n;
  if (step > 0) {
    start = std::clamp<std::int64_t>(start, 0, n);
    end = std::clamp<std::int64_t>(end, start, n);
    return x.slice(axis, start, end, step);
  }
  start = std::clamp<std::int64_t>(start, -1, n - 1);
  end = std::clamp<std::int64_t>(end, -1, start);
  return x.index_select(axis, at::arange(start, end, step, x.options().dtype(at::kLong).requires_grad(false)));
}

OpResult slice(const OpCall& call) {
  const auto starts = attribute_or_input(call, "starts", 1), ends = attribute_or_input(call, "ends", 2);
  if (!starts || !ends || starts->size() != ends->size()) return bad_node("'starts' and 'ends' must have one length.");
  Ints every(starts->size());
  std::iota(every.begin(), every.end(), 0);
  const Ints axes = attribute_or_input(call, "axes", 3).value_or(every);
  const Ints steps = attribute_or_input(call, "steps", 4).value_or(Ints(starts->size(), 1));
  if (axes.size() != starts->size() || steps.size() != starts->size())
    return bad_node("'axes' and 'steps' must be as long as 'starts'.");
  at::Tensor y = call.x();
  for (std::size_t i = 0; i < axes.size(); ++i) {
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(axes[i], y.dim()));
    if (steps[i] == 0) return bad_node("a step of 0 is not allowed.");
    y = slice_axis(y, axis, (*starts)[i], (*ends)[i], steps[i]);
  }
  return one(y);
}

// Source position of padded position p in a line of n values; n >= 1.
std::int64_t source_position(const std::string& mode, std::int64_t p, std::int64_t n) {
  if (mode == "edge") return std::clamp<std::int64_t>(p, 0, n - 1);
  if (mode == "wrap") return ((p % n) + n) % n;
  if (n == 1) return 0;
  const std::int64_t period = 2 * (n - 1);
  const std::int64_t q = ((p % period) + period) % period;
  return q < n ? q : period - q;
}

at::Tensor pad_by_index(const at::Tensor& x, std::int64_t axis, std::int64_t begin, std::int64_t end,
                        const std::string& mode) {
  if (begin == 0 && end == 0) return x;
  const std::int64_t n = x.size(axis), total = std::max<std::int64_t>(0, n + begin + end);
  at::Tensor index = at::empty({total}, at::kLong);
  auto* p = index.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < total; ++i) p[i] = source_position(mode, i - begin, n);
  return x.index_select(axis, index.to(x.device()));
}

OpResult pad(const OpCall& call) {
  const at::Tensor& x = call.x();
  auto given = attribute_or_input(call, call.has_attribute("paddings") ? "paddings" : "pads", 1);
  if (!given) return bad_node("'pads' is missing.");
  Ints axes(static_cast<std::size_t>(x.dim()));
  std::iota(axes.begin(), axes.end(), 0);
  if (call.has(3)) axes = int_values(call.x(3));
  if (given->size() != 2 * axes.size())
    return bad_node("'pads' has " + std::to_string(given->size()) + " values, expected " +
                    std::to_string(2 * axes.size()) + ".");
  Ints begin(static_cast<std::size_t>(x.dim()), 0), end = begin;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(axes[i], x.dim()));
    begin[static_cast<std::size_t>(axis)] = (*given)[i];
    end[static_cast<std::size_t>(axis)] = (*given)[i + axes.size()];
  }
  const std::string mode = call.node.text("mode", "constant");
  if (mode == "constant") {
    const double value = call.has(2) && call.x(2).numel() > 0 ? call.x(2).item().toDouble() : call.node.real("value", 0);
    return one(pad_spatial(x, begin, end, value));
  }
  if (mode != "reflect" && mode != "edge" && mode != "wrap")
    return bad_node("'mode' is '" + mode + "', expected constant, reflect, edge or wrap.");
  at::Tensor y = x;
  for (std::int64_t i = 0; i < x.dim(); ++i) {
    const auto k = static_cast<std::size_t>(i);
    if (x.size(i) == 0 && (begin[k] != 0 || end[k] != 0)) return bad_node("an empty axis cannot be padded by mode '" + mode + "'.");
    y = pad_by_index(y, i, begin[k], end[k], mode);
  }
  return one(y);
}

OpResult expand(const OpCall& call) {
  const Ints target = int_values(call.x(1));
  const at::Tensor& x = call.x();
  return one(at::broadcast_to(x, at::infer_size(x.sizes(), target)));
}

OpResult tile(const OpCall& call) {
  const Ints repeats = int_values(call.x(1));
  if (static_cast<std::int64_t>(repeats.size()) != call.x().dim())
    return bad_node("'repeats' has " + std::to_string(repeats.size()) + " values, the input has rank " +
                    std::to_string(call.x().dim()) + ".");
  return one(call.x().repeat(repeats));
}

OpResult cast(const OpCall& call) {
  const auto to = static_cast<DataType>(call.node.integer("to", 1));
  if (!scalar_type(to)) return bad_node("casting to type " + std::string(type_name(to)) + " is not possible.");
  return one(converted(call.x(), to, call.node.integer("saturate", 1) != 0));
}
// The type of the second input, as the graph knows it or as it is computed in.
OpResult cast_like(const OpCall& call) {
  const DataType to = call.graph.tensor(call.node.inputs[1]).type;
  if (to == DataType::kUndefined) return one(call.x().to(call.x(1).scalar_type()));
  if (!scalar_type(to)) return bad_node("casting to type " + std::string(type_name(to)) + " is not possible.");
  return one(converted(call.x(), to, call.node.integer("saturate", 1) != 0));
}
std::string refuse_cast(const Node& node) {
  const auto to = static_cast<DataType>(node.integer("to", 1));
  return scalar_type(to) ? "" : "it casts to type " + std::string(type_name(to)) + ", which is not computed with";
}

at::Tensor int64_tensor(const Ints& values, const at::Tensor& like) {
  return at::tensor(values, at::kLong).to(like.device());
}
OpResult shape(const OpCall& call) {
  Ints sizes = call.x().sizes().vec();
  const auto rank = static_cast<std::int64_t>(sizes.size());
  const auto bound = [&](std::int64_t v) { return std::clamp<std::int64_t>(v < 0 ? v + rank : v, 0, rank); };
  const std::int64_t start = bound(call.node.integer("start", 0)), end = bound(call.node.integer("end", rank));
  return one(int64_tensor(start < end ? Ints(sizes.begin() + start, sizes.begin() + end) : Ints{}, call.x()));
}
OpResult size(const OpCall& call) { return one(at::scalar_tensor(call.x().numel(), call.x().options().dtype(at::kLong))); }

OpResult constant(const OpCall& call) {
  if (call.has_attribute("value_int")) return one(at::scalar_tensor(call.node.integer("value_int", 0), at::kLong));
  if (call.has_attribute("value_float")) return one(at::scalar_tensor(call.node.real("value_float", 0), at::kFloat));
  if (call.has_attribute("value_ints")) return one(at::tensor(call.node.integers("value_ints"), at::kLong));
  const auto it = call.node.attributes.find("value_floats");
  if (it != call.node.attributes.end())
    if (const auto* v = std::get_if<std::vector<float>>(&it->second)) return one(at::tensor(*v, at::kFloat));
  return bad_node("a constant without a numeric value.");
}

// The importers turn the one-element tensor "value" into a number and its element type into "dtype".
OpResult constant_of_shape(const OpCall& call) {
  const Ints shape = int_values(call.x());
  const auto it = call.node.attributes.find("value");
  const auto* whole = it == call.node.attributes.end() ? nullptr : std::get_if<std::int64_t>(&it->second);
  const auto type = scalar_type(static_cast<DataType>(call.node.integer("dtype", whole ? 7 : 1)));
  if (!type) return bad_node("the element type of 'value' cannot be computed with.");
  const at::Scalar value = whole ? at::Scalar(*whole) : at::Scalar(call.node.real("value", 0));
  return one(at::full(shape, value, at::TensorOptions().dtype(*type).device(call.x().device())));
}

OpResult depth_to_space(const OpCall& call) {
  const at::Tensor& x = call.x();
  const std::int64_t b = call.node.integer("blocksize", 0);
  if (x.dim() != 4 || b < 1 || x.size(1) % (b * b) != 0) return bad_node("'blocksize' " + std::to_string(b) + " does not divide the channels of " + sizes_text(x) + ".");
  const std::int64_t n = x.size(0), c = x.size(1) / (b * b), h = x.size(2), w = x.size(3);
  const at::Tensor y = call.node.text("mode", "DCR") == "CRD"
                           ? x.reshape({n, c, b, b, h, w}).permute({0, 1, 4, 2, 5, 3})
                           : x.reshape({n, b, b, c, h, w}).permute({0, 3, 4, 1, 5, 2});
  return one(y.reshape({n, c, h * b, w * b}));
}
OpResult space_to_depth(const OpCall& call) {
  const at::Tensor& x = call.x();
  const std::int64_t b = call.node.integer("blocksize", 0);
  if (x.dim() != 4 || b < 1 || x.size(2) % b != 0 || x.size(3) % b != 0)
    return bad_node("'blocksize' " + std::to_string(b) + " does not divide height and width of " + sizes_text(x) + ".");
  const std::int64_t n = x.size(0), c = x.size(1), h = x.size(2) / b, w = x.size(3) / b;
  return one(x.reshape({n, c, h, b, w, b}).permute({0, 3, 5, 1, 2, 4}).reshape({n, c * b * b, h, w}));
}

}  // namespace

const std::vector<OpRow>& shape_ops() {
  static const std::vector<OpRow> rows = {
      {"Reshape", 1, reshape},
      {"Flatten", 1, flatten},
      {"Squeeze", 1, squeeze},
      {"Unsqueeze", 1, unsqueeze},
      {"Transpose", 1, transpose},
      {"Concat", 1, concat},
      {"Split", 1, split},
      {"Slice", 1, slice},
      {"Pad", 1, pad},
      {"Expand", 2, expand},
      {"Tile", 2, tile},
      {"Cast", 1, cast, refuse_cast},
      {"CastLike", 2, cast_like},
      {"Shape", 1, shape},
      {"Size", 1, size},
      {"Constant", 0, constant},
      {"ConstantOfShape", 1, constant_of_shape},
      {"DepthToSpace", 1, depth_to_space},
      {"SpaceToDepth", 1, space_to_depth},
  };
  return rows;
}

}  // namespace quanvas::exec
