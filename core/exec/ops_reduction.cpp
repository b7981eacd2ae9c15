#include <numeric>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

using Reduce = at::Tensor (*)(const at::Tensor&, const Ints&, bool);

template <Reduce F>
OpResult reduce(const OpCall& call) {
  const at::Tensor& x = call.x();
  Ints axes = attribute_or_input(call, "axes", 1).value_or(Ints{});
  // Nothing is summed, but what is done to every element is (ReduceL2 gives magnitudes).
  if (axes.empty() && call.node.integer("noop_with_empty_axes", 0))
    return one(F(x.unsqueeze(-1), {x.dim()}, false).to(x.scalar_type()));
  if (axes.empty()) {
    axes.resize(static_cast<std::size_t>(x.dim()));
    std::iota(axes.begin(), axes.end(), 0);
  }
  for (auto& a : axes) {
    QUANVAS_TRY(a, resolve_axis(a, x.dim()));
  }
  if (axes.empty()) return one(F(x.unsqueeze(-1), {0}, false).to(x.scalar_type()));  // a scalar
  return one(F(x, axes, call.node.integer("keepdims", 1) != 0).to(x.scalar_type()));
}

at::Tensor mean(const at::Tensor& x, const Ints& axes, bool keep) {
  return at::mean(at::isFloatingType(x.scalar_type()) ? x : x.to(at::kDouble), axes, keep);
}
at::Tensor sum(const at::Tensor& x, const Ints& axes, bool keep) { return at::sum(x, axes, keep); }
at::Tensor highest(const at::Tensor& x, const Ints& axes, bool keep) { return at::amax(x, axes, keep); }
at::Tensor lowest(const at::Tensor& x, const Ints& axes, bool keep) { return at::amin(x, axes, keep); }
at::Tensor prod(const at::Tensor& x, const Ints& axes, bool keep) {
  Ints order = axes;
  std::sort(order.rbegin(), order.rend());
  at::Tensor y = x;
  for (const auto a : order) y = at::prod(y, a, keep);
  return y;
}
at::Tensor l1(const at::Tensor& x, const Ints& axes, bool keep) { return at::sum(at::abs(x), axes, keep); }
at::Tensor squares(const at::Tensor& x, const Ints& axes, bool keep) { return at::sum(x * x, axes, keep); }
at::Tensor l2(const at::Tensor& x, const Ints& axes, bool keep) { return at::sqrt(squares(x, axes, keep)); }
at::Tensor log_sum(const at::Tensor& x, const Ints& axes, bool keep) { return at::log(at::sum(x, axes, keep)); }
at::Tensor log_sum_exp(const at::Tensor& x, const Ints& axes, bool keep) {
  return at::logsumexp(at::isFloatingType(x.scalar_type()) ? x : x.to(at::kDouble), axes, keep);
}

template <bool Largest>
OpResult arg(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", 0), x.dim()));
  const bool keep = call.node.integer("keepdims", 1) != 0, last = call.node.integer("select_last_index", 0) != 0;
  const at::Tensor line = last ? x.flip({axis}) : x;
  at::Tensor index = Largest ? line.argmax(axis, keep) : line.argmin(axis, keep);
  return one(last ? x.size(axis) - 1 - index : index);
}

}  // namespace

const std::vector<OpRow>& reduction_ops() {
  static const std::vector<OpRow> rows = {
      {"ReduceMean", 1, reduce<mean>},
      {"ReduceSum", 1, reduce<sum>},
      {"ReduceMax", 1, reduce<highest>},
      {"ReduceMin", 1, reduce<lowest>},
      {"ReduceProd", 1, reduce<prod>},
      {"ReduceL1", 1, reduce<l1>},
      {"ReduceL2", 1, reduce<l2>},
      {"ReduceSumSquare", 1, reduce<squares>},
      {"ReduceLogSum", 1, reduce<log_sum>},
      {"ReduceLogSumExp", 1, reduce<log_sum_exp>},
      {"ArgMax", 1, arg<true>},
      {"ArgMin", 1, arg<false>},
  };
  return rows;
}

}  // namespace quanvas::exec
