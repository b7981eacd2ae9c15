// The quantizers of a training: how they begin, step and are applied.
#include <algorithm>

#include <ATen/ATen.h>

#include "core/exec/rebuild.h"
#include "core/exec/train_state.h"
#include "core/quant/fused.h"
#include "core/quant/shared.h"
#include "core/quant/weight_norm.h"

namespace quanvas::exec {
namespace {

using Source = TrainedQuantizer::Source;

std::vector<float> floats_of(const at::Tensor& t) {
  const at::Tensor g = t.to(at::kCPU, at::kFloat).contiguous();
  return {g.data_ptr<float>(), g.data_ptr<float>() + g.numel()};
}

at::Tensor leaf_of(const at::Tensor& value, const std::string& device) {
  at::Tensor leaf = device == "cpu" ? value.detach() : value.to(at::Device(device));
  return leaf.requires_grad_(true);
}

}  // namespace

void TrainState::add_activations(const TrainSettings& settings) {
  std::map<std::string, std::size_t> shared;
  for (const auto& [site, params] : initial_) {
    if (!is_activation(site.kind)) continue;
    const auto known = params.share.empty() ? shared.end() : shared.find(params.share);
    if (known != shared.end()) {
      activation_of_[site] = known->second;
    } else {
      if (!params.share.empty()) shared[params.share] = activations_.size();
      activation_of_[site] = activations_.size();
      TrainedActivation a;
      a.quantizer.site = site;
      a.quantizer.params = params;
      if (params.truncated) exact_.insert(site.node);
      if (!params.truncated && a.quantizer.source_of(params, settings) == Source::kLearned)
        a.quantizer.source = Source::kLearned;
      activations_.push_back(std::move(a));
    }
    TrainedActivation& a = activations_[activation_of_[site]];
    a.elements += params.layout.elements();
    // The network's own input keeps its scale: its gradient would cost a backward pass of the first layer through
    // to the data, which float training does without.
    const Layer* layer = find_layer(layers_, site.node);
    const TensorId tensor = layer ? site_tensor(*layer, site) : kNoTensor;
    if (std::count(model_->graph->inputs().begin(), model_->graph->inputs().end(), tensor) > 0) a.quantizer.source = Source::kFixed;
  }
  for (TrainedActivation& a : activations_) {
    if (!a.quantizer.learned()) continue;
    a.quantizer.begin();
    const auto n = static_cast<std::int64_t>(a.quantizer.params.scale.size());
    for (int shard = 0; shard < kTrainShards; ++shard) {
      LearnedParams leaf;
      leaf.scale = at::tensor(a.quantizer.params.scale, at::kFloat).reshape({n}).requires_grad_(true);
      if (a.quantizer.learns_zero_point()) leaf.zero_point = at::zeros({n}, at::kFloat).requires_grad_(true);
      if (a.quantizer.learns_bits()) leaf.bits = at::zeros({1}, at::kFloat).requires_grad_(true);
      a.leaves.push_back(std::move(leaf));
    }
  }
}

// Truncated outputs take the scale that their input has now.
Status TrainState::follow_inputs() {
  if (exact_.empty()) return {};
  QuantizerMap present;
  for (const auto& [site, index] : activation_of_) present.emplace(site, activations_[index].quantizer.params);
  QUANVAS_CHECK(rebuild_truncations(*model_->graph, layers_, present));
  for (const auto& [site, index] : activation_of_)
    if (present.count(site) == 0)
      return fail(ErrorCode::kUnsupported,
                  "The output of '" + model_->graph->find(site.node)->name + "' can no longer be truncated: its input has " +
                      "learned so many bits that the sum of the pool has more than can be computed exactly.",
                  "Do not learn the width of that input, or do not truncate the output.");
  for (auto& [site, params] : present)
    if (params.truncated) activations_[activation_of_.at(site)].quantizer.params = std::move(params);
  return {};
}

const TrainedActivation* TrainState::activation(const Site& site) const {
  const auto it = activation_of_.find(site);
  return it == activation_of_.end() ? nullptr : &activations_[it->second];
}

Status TrainState::start_weight_quantizers() {
  for (WeightQuantizer& q : weight_quantizers_) {
    q.waits = !q.active(0);
    // At few bits the largest magnitude is a poor place to start learning from.
    if (q.learned() && code_bits(q.params.spec) <= 3 && q.params.spec.statistic != Statistic::kMse) {
      QUANVAS_TRY(q.params, found_on_weights(q, /*to_begin=*/true));
    }
    begin_learning(q);
  }
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    QUANVAS_CHECK(quantize_weight(i));
    for (int shard = 0; shard < kTrainShards; ++shard) weights_[i].leaves.push_back(leaf_of(weights_[i].value, device_));
  }
  return {};
}

void TrainState::begin_learning(WeightQuantizer& q) const {
  if (!q.learns_length() || q.users.empty()) return q.begin();
  const TrainedWeight& w = weights_[q.users[0]];
  q.begin(quant::present_lengths(q.params, w.layout, w.master.data_ptr<float>()));
}

// d penalty / d bits of a quantizer of so many elements: lambda * sum(bits * elements) / sum(elements).
double TrainState::bits_slope(std::int64_t elements) const {
  if (penalties_.bits == 0) return 0;
  double all = 0;
  for (const WeightQuantizer& q : weight_quantizers_) all += q.learns_bits() ? static_cast<double>(q.elements) : 0;
  for (const TrainedActivation& a : activations_)
    all += a.quantizer.learns_bits() ? static_cast<double>(a.elements) : 0;
  return penalties_.bits * static_cast<double>(elements) / std::max(1.0, all);
}

// Parameters from the masters as they are now. to_begin: where learning is to start.
Result<quant::QuantParams> TrainState::found_on_weights(const WeightQuantizer& q, bool to_begin) const {
  QuantSpec spec = q.params.spec;
  if (to_begin && code_bits(spec) <= 3) spec.statistic = Statistic::kMse;
  Result<quant::QuantParams> found = fail(ErrorCode::kInternal, "A quantizer without a weight.");
  if (q.users.size() == 1) {
    const TrainedWeight& w = weights_[q.users[0]];
    found = quant::find_params(spec, w.master.sizes().vec(), w.master.data_ptr<float>(), w.default_axis);
  } else {
    std::vector<quant::Values> values;
    for (const std::size_t user : q.users) values.emplace_back(weights_[user].master.data_ptr<float>(), weights_[user].master.numel());
    found = quant::find_shared_params(spec, values);
  }
  if (!found) return found;
  found->spec.statistic = q.params.spec.statistic;
  found->rounding = q.params.rounding;
  found->share = q.params.share;
  return found;
}

Status TrainState::quantize_weight(std::size_t index) {
  TrainedWeight& w = weights_[index];
  if (w.quantizer >= 0) {
    WeightQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
    if (q.waits) {
      w.value.copy_(w.master);
    } else {
      // One that several weights share was found in step_quantizers().
      const float* const master = w.master.data_ptr<float>();
      float* const value = w.value.data_ptr<float>();
      if (q.source == Source::kRecomputed && q.users.size() == 1 && q.params.rounding.empty()) {
        QUANVAS_TRY(auto found, quant::find_and_quantize(q.params.spec, w.master.sizes().vec(), master, w.default_axis, value, nullptr));
        found.share = q.params.share;
        q.params = std::move(found);
      } else {
        if (q.source == Source::kRecomputed && q.users.size() == 1) {
          QUANVAS_TRY(q.params, found_on_weights(q, false));
        }
        if (q.learns_length()) quant::set_lengths(q.params, w.layout, master, q.lengths());
        quant::fake_quantize(q.params, w.layout, master, value);
      }
    }
  }
  if (device_ != "cpu") {
    at::NoGradGuard no_grad;
    for (at::Tensor& leaf : w.leaves) leaf.copy_(w.value);
  }
  return {};
}

Status TrainState::step_quantizers(const StepRule& rule) {
  ++steps_;
  const auto add = [](std::vector<float>& sum, const std::vector<float>& part) {
    sum.resize(std::max(sum.size(), part.size()));
    for (std::size_t i = 0; i < part.size(); ++i) sum[i] += part[i];
  };
  for (WeightQuantizer& q : weight_quantizers_) {
    if (q.waits) {
      if (!q.active(steps_)) continue;
      q.waits = false;
      const QuantSpec& spec = q.params.spec;
      if (spec.source == ScaleSource::kConstant || spec.source == ScaleSource::kStored || (spec.clip_min && spec.clip_max))
        continue;
      QUANVAS_TRY(q.params, found_on_weights(q, q.learned()));
      begin_learning(q);
    } else if (q.learned()) {
      QuantizerGradients sum;
      for (const std::size_t user : q.users) {
        const QuantizerGradients& part = weights_[user].quantizer_gradients;
        add(sum.scale, part.scale);
        add(sum.zero_point, part.zero_point);
        add(sum.length, part.length);
        sum.bits += part.bits;
      }
      if (q.learns_bits()) sum.bits += bits_slope(q.elements);
      q.step(rule, sum, q.elements);
    } else if (q.source == Source::kRecomputed && q.users.size() > 1) {
      QUANVAS_TRY(q.params, found_on_weights(q, false));
    }
  }
  for (TrainedActivation& a : activations_) {
    if (a.leaves.empty() || !a.quantizer.active(steps_ - 1)) continue;
    const auto n = a.quantizer.params.scale.size();
    QuantizerGradients sum;
    sum.scale.resize(n);
    if (a.quantizer.learns_zero_point()) sum.zero_point.resize(n);
    for (const LearnedParams& leaf : a.leaves) {
      if (leaf.scale.grad().defined()) add(sum.scale, floats_of(leaf.scale.grad()));
      if (leaf.zero_point.defined() && leaf.zero_point.grad().defined()) add(sum.zero_point, floats_of(leaf.zero_point.grad()));
      if (leaf.bits.defined() && leaf.bits.grad().defined()) sum.bits += static_cast<double>(floats_of(leaf.bits.grad())[0]);
    }
    if (a.quantizer.learns_bits()) sum.bits += bits_slope(a.elements);
    a.quantizer.step(rule, sum, a.elements);
    for (LearnedParams& leaf : a.leaves)
      std::copy(a.quantizer.params.scale.begin(), a.quantizer.params.scale.end(), leaf.scale.data_ptr<float>());
  }
  return follow_inputs();
}

}  // namespace quanvas::exec
