// Losses as operators of a graph.
#include <ATen/ATen.h>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

// Minus the logarithm at the target's class, weighted; what has the ignored class counts nothing.
Result<at::Tensor> likelihood_loss(const OpCall& call, const at::Tensor& logs) {
  const at::Tensor target = call.x(1).to(at::kLong);
  if (logs.dim() < 2 || target.dim() != logs.dim() - 1)
    return bad_node("scores " + sizes_text(logs) + " and targets " + sizes_text(target) + " do not fit together.");
  const std::int64_t classes = logs.size(1);
  at::Tensor counted = at::ones_like(target, at::kBool);
  if (call.has_attribute("ignore_index")) counted = target != call.node.integer("ignore_index", -1);
  const at::Tensor safe = at::where(counted, target, at::zeros_like(target));
  if (safe.numel() > 0 && (safe.min().item().toLong() < 0 || safe.max().item().toLong() >= classes))
    return bad_node("a target lies outside the " + std::to_string(classes) + " classes.");
  if (call.has(2) && (call.x(2).dim() != 1 || call.x(2).size(0) != classes))
    return bad_node("there is not one weight per class.");
  at::Tensor weight = counted.to(logs.scalar_type());
  if (call.has(2)) weight = weight * call.x(2).index_select(0, safe.reshape({-1})).reshape(safe.sizes());
  const at::Tensor loss = -logs.gather(1, safe.unsqueeze(1)).squeeze(1) * weight;
  const std::string reduction = call.node.text("reduction", "mean");
  if (reduction == "none") return loss;
  if (reduction == "sum") return loss.sum();
  return loss.sum() / weight.sum();
}

OpResult likelihood(const OpCall& call) {
  QUANVAS_TRY(at::Tensor loss, likelihood_loss(call, call.x()));
  return one(std::move(loss));
}

OpResult cross_entropy(const OpCall& call) {
  if (call.x().dim() < 2)
    return bad_node("the scores are " + sizes_text(call.x()) + ", expected samples and classes.");
  const at::Tensor logs = at::log_softmax(call.x(), 1);
  QUANVAS_TRY(at::Tensor loss, likelihood_loss(call, logs));
  return Tensors{loss, logs};
}

std::string refuse_reduction(const Node& node) {
  const std::string r = node.text("reduction", "mean");
  return r == "none" || r == "sum" || r == "mean" ? std::string() : "its reduction is '" + r + "'";
}

}  // namespace

const std::vector<OpRow>& loss_ops() {
  static const std::vector<OpRow> rows = {{"NegativeLogLikelihoodLoss", 2, likelihood, refuse_reduction},
                                          {"SoftmaxCrossEntropyLoss", 2, cross_entropy, refuse_reduction}};
  return rows;
}

}  // namespace quanvas::exec
