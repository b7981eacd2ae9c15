#include <tuple>

#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// Batch statistics: normalizes with the shard's mean and biased variance; reports the unbiased variance, which
// is what running averages keep.
OpResult batch_norm_training(const OpCall& call, double epsilon) {
  const at::Tensor& x = call.x();
  auto [y, mean, inverse] = at::native_batch_norm(x, call.x(1), call.x(2), {}, {}, true, 0.0, epsilon);
  if (call.hooks.batch_statistics) {
    const double n = static_cast<double>(x.numel()) / static_cast<double>(std::max<std::int64_t>(1, x.size(1)));
    const at::Tensor variance =
        (inverse.detach().pow(-2) - epsilon).clamp_min(0) * (n > 1 ? n / (n - 1) : 1.0);
    call.hooks.batch_statistics(call.node, mean.detach(), variance);
  }
  return one(y);
}

// training_mode = 1 in the file: batch statistics, and running averages that move towards them.
OpResult batch_norm_moving(const OpCall& call, double epsilon) {
  const at::Tensor& x = call.x();
  Ints axes = {0}, shape(static_cast<std::size_t>(x.dim()), 1);
  for (std::int64_t i = 2; i < x.dim(); ++i) axes.push_back(i);
  shape[1] = -1;
  const at::Tensor mean = at::mean(x, axes), centred = x - mean.reshape(shape);
  const at::Tensor variance = at::mean(centred * centred, axes);
  const double kept = call.node.real("momentum", 0.9f);
  const auto wide = [&](const at::Tensor& t) { return t.reshape(shape); };
  const at::Tensor y = centred * at::rsqrt(wide(variance) + epsilon) * wide(call.x(1)) + wide(call.x(2));
  return Tensors{y, call.x(3) * kept + mean * (1 - kept), call.x(4) * kept + variance * (1 - kept)};
}

OpResult batch_norm(const OpCall& call) {
  const double epsilon = call.node.real("epsilon", 1e-5f);
  if (call.x().dim() < 2) return bad_node("the input has rank " + std::to_string(call.x().dim()) + ", expected at least 2.");
  if (call.node.integer("spatial", 1) == 0)  // before opset 9: statistics of every place
    return one((call.x() - call.x(3)) * at::rsqrt(call.x(4) + epsilon) * call.x(1) + call.x(2));
  if (call.node.integer("training_mode", 0)) return batch_norm_moving(call, epsilon);
  if (call.hooks.training) return batch_norm_training(call, epsilon);
  return one(at::batch_norm(call.x(), call.x(1), call.x(2), call.x(3), call.x(4), false, 0.0, epsilon, false));
}

OpResult instance_norm(const OpCall& call) {
  return one(at::instance_norm(call.x(), call.x(1), call.x(2), {}, {}, true, 0.0, call.node.real("epsilon", 1e-5f),
                               false));
}

OpResult layer_norm(const OpCall& call) {
  const at::Tensor& x = call.x();
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", -1), x.dim()));
  const auto shape = x.sizes().slice(static_cast<std::size_t>(axis));
  const double epsilon = call.node.real("epsilon", 1e-5f);
  const bool fused = call.x(1).sizes() == shape && (!call.has(2) || call.x(2).sizes() == shape);
  auto [y, mean, inverse] = at::native_layer_norm(x, shape, fused ? call.x(1) : at::Tensor(),
                                                  fused ? call.optional(2) : at::Tensor(), epsilon);
  if (!fused) {
    y = y * call.x(1);
    if (call.has(2)) y = y + call.x(2);
  }
  return Tensors{y, mean, inverse};
}

// y = x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta  (Krizhevsky et al. 2012).
OpResult lrn(const OpCall& call) {
  const at::Tensor& x = call.x();
  const std::int64_t size = call.node.integer("size", 1);
  if (x.dim() < 3 || size < 1) return bad_node("needs an input of rank 3 or more and a positive 'size'.");
  const at::Tensor squares = (x * x).reshape({x.size(0), 1, x.size(1), -1});
  const Ints pads = {0, 0, (size - 1) / 2, size / 2};
  const at::Tensor mean =
      at::avg_pool2d(at::constant_pad_nd(squares, pads, 0), {size, 1}, {1, 1}).reshape(x.sizes());
  const at::Tensor base = mean * call.node.real("alpha", 1e-4f) + call.node.real("bias", 1.0f);
  return one(x / base.pow(call.node.real("beta", 0.75f)));
}

OpResult mean_variance(const OpCall& call) {
  const Ints axes = call.node.integers("axes", {0, 2, 3});
  const at::Tensor centred = call.x() - at::mean(call.x(), axes, true);
  return one(centred / (at::mean(centred * centred, axes, true).sqrt() + 1e-9));
}

OpResult lp_normalization(const OpCall& call) {
  const std::int64_t p = call.node.integer("p", 2);
  QUANVAS_TRY(const std::int64_t axis, resolve_axis(call.node.integer("axis", -1), call.x().dim()));
  const at::Tensor norm = at::norm(call.x(), static_cast<double>(p), Ints{axis}, true);
  return one(at::where(norm == 0, at::zeros_like(call.x()), call.x() / norm));
}

}  // namespace

const std::vector<OpRow>& normalization_ops() {
  static const std::vector<OpRow> rows = {{"BatchNormalization", 5, batch_norm},
                                          {"InstanceNormalization", 3, instance_norm},
                                          {"LayerNormalization", 2, layer_norm},
                                          {"LRN", 1, lrn},
                                          {"LpNormalization", 1, lp_normalization},
                                          {"MeanVarianceNormalization", 1, mean_variance}};
  return rows;
}

}  // namespace quanvas::exec
