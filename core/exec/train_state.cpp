#include "core/exec/train_state.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ATen.h>

#include "core/exec/rebuild.h"

namespace quanvas::exec {
namespace {

using Source = TrainedQuantizer::Source;

constexpr float kLowestTheta = -33, kHighestTheta = 60;  // scales of about 1e-10 and 1e18

bool is_float(DataType type) {
  return type == DataType::kFloat || type == DataType::kFloat16 || type == DataType::kBfloat16 ||
         type == DataType::kDouble;
}

// Inputs of a node that are trained although the node is no layer with a weight.
std::vector<TensorId> extra_parameters(const Graph& graph, const Node& node) {
  static const std::map<std::string, std::vector<std::size_t>> table = {{"BatchNormalization", {1, 2}},
                                                                        {"InstanceNormalization", {1, 2}},
                                                                        {"LayerNormalization", {1, 2}},
                                                                        {"PRelu", {1}}};
  std::vector<TensorId> out;
  if (const auto it = table.find(node.op); it != table.end())
    for (const std::size_t i : it->second)
      if (node.input(i) != kNoTensor) out.push_back(node.input(i));
  if (node.op != "Add" || node.inputs.size() != 2) return out;
  // MatMul + Add and Conv + Add: the constant operand is a bias.
  for (const std::size_t i : {0u, 1u}) {
    const TensorId constant = node.inputs[i], other = node.inputs[1 - i];
    if (constant == kNoTensor || other == kNoTensor || !graph.tensor(constant).is_initializer) continue;
    const Node* producer = graph.find(graph.tensor(other).producer);
    if (producer && (producer->op == "MatMul" || producer->op == "Conv" || producer->op == "Gemm")) out.push_back(constant);
  }
  return out;
}

int readers(const Graph& graph, TensorId id) {
  int count = 0;
  for (const NodeId consumer : graph.tensor(id).consumers) {
    const Node* node = graph.find(consumer);
    count += static_cast<int>(std::count(node->inputs.begin(), node->inputs.end(), id));
  }
  return count;
}

at::Tensor leaf_of(const at::Tensor& value, const std::string& device) {
  at::Tensor leaf = device == "cpu" ? value.detach() : value.to(at::Device(device));
  return leaf.requires_grad_(true);
}

}  // namespace

void TrainedQuantizer::scale_from_theta() {
  const bool power_of_two = params.spec.scale == ScaleType::kPowerOfTwo;
  for (std::size_t i = 0; i < theta.size(); ++i)
    params.scale[i] = std::exp2(power_of_two ? std::nearbyint(theta[i]) : theta[i]);
}

void TrainedQuantizer::step(const StepRule& rule, const float* dscale, std::int64_t elements) {
  constexpr float kLn2 = 0.69314718f;
  // LSQ's factor 1/sqrt(N * hi) balances scale and weight gradients for SGD; Adam does not see it.
  const auto per_scale = static_cast<double>(elements) / static_cast<double>(std::max<std::size_t>(1, theta.size()));
  const double hi = static_cast<double>(std::max<std::int64_t>({1, params.hi, -params.lo}));
  const float factor = rule.adam ? 1.0f : static_cast<float>(1 / std::sqrt(std::max(1.0, per_scale * hi)));
  std::vector<float> gradient(theta.size());
  for (std::size_t i = 0; i < theta.size(); ++i) gradient[i] = dscale[i] * params.scale[i] * kLn2 * factor;
  moments.update(rule, gradient.data(), theta.data(), static_cast<std::int64_t>(theta.size()));
  for (auto& t : theta) t = std::clamp(t, kLowestTheta, kHighestTheta);
  scale_from_theta();
}

Result<TrainState> TrainState::create(ModelPtr model, const QuantizerMap* quantizers, const TrainSettings& settings,
                                      const std::string& device) {
  TrainState s;
  s.model_ = std::move(model);
  s.device_ = device;
  s.quantized_ = quantizers != nullptr;
  if (quantizers) s.initial_ = *quantizers;
  s.layers_ = find_layers(*s.model_->graph);
  QUANVAS_CHECK(s.add_weights(settings));
  for (const auto& [site, params] : s.initial_) {
    if (site.kind != SiteKind::kInput && site.kind != SiteKind::kOutput) continue;
    TrainedActivation a;
    a.quantizer.site = site;
    a.quantizer.params = params;
    // The network's own input keeps its scale: its gradient would cost a backward pass of the first layer through
    // to the data, which float training does without.
    const Layer* layer = find_layer(s.layers_, site.node);
    const TensorId tensor = layer ? site_tensor(*layer, site) : kNoTensor;
    const bool is_data = std::count(s.model_->graph->inputs().begin(), s.model_->graph->inputs().end(), tensor) > 0;
    if (!is_data && s.source_of(params, settings) == Source::kLearned) {
      a.quantizer.source = Source::kLearned;
      for (const float scale : params.scale) a.quantizer.theta.push_back(std::log2(scale));
      const auto n = static_cast<std::int64_t>(params.scale.size());
      for (int shard = 0; shard < kTrainShards; ++shard)
        a.scales.push_back(at::tensor(params.scale, at::kFloat).reshape({n}).requires_grad_(true));
    }
    s.activations_.emplace(site, std::move(a));
  }
  return s;
}

TrainedQuantizer::Source TrainState::source_of(const quant::QuantParams& params, const TrainSettings& settings) const {
  const QuantSpec& spec = params.spec;
  if (spec.clip_min || spec.clip_max) return Source::kFixed;
  if (settings.learn_scales && (settings.force_learned || spec.source == ScaleSource::kLearned)) return Source::kLearned;
  // Searching for percentiles or the least squared error at each step costs more than the step.
  const bool cheap = spec.statistic == Statistic::kAbsMax || spec.statistic == Statistic::kMinMax;
  return cheap ? Source::kRecomputed : Source::kFixed;
}

Status TrainState::add_weights(const TrainSettings& settings) {
  const Graph& graph = *model_->graph;
  std::set<TensorId> seen;
  const auto add = [&](TensorId id, const Layer* layer) -> Status {
    if (id == kNoTensor || !graph.tensor(id).is_initializer || !is_float(graph.tensor(id).type)) return {};
    return seen.insert(id).second ? add_weight(id, layer, settings) : Status();
  };
  for (const Layer& layer : layers_) {
    QUANVAS_CHECK(add(layer.weight, &layer));
    QUANVAS_CHECK(add(layer.bias, nullptr));
  }
  for (const Node& node : graph.nodes()) {
    for (const TensorId id : extra_parameters(graph, node)) QUANVAS_CHECK(add(id, nullptr));
    if (node.op != "BatchNormalization") continue;
    for (const std::size_t i : {3u, 4u}) {
      const TensorId id = node.input(i);
      const TensorData* data = id == kNoTensor ? nullptr : model_->weights->find(graph.tensor(id).name);
      if (data) running_[id] = to_tensor(*data).to(at::kFloat).clone();
    }
  }
  if (weights_.empty())
    return fail(ErrorCode::kInvalidArgument, "The network has no weights that could be trained.");
  return {};
}

Status TrainState::add_weight(TensorId id, const Layer* layer, const TrainSettings& settings) {
  const std::string& name = model_->graph->tensor(id).name;
  const TensorData* data = model_->weights->find(name);
  if (!data) return fail(ErrorCode::kCorrupt, "The model holds no data for '" + name + "'.");
  TrainedWeight w;
  w.id = id;
  w.master = to_tensor(*data).to(at::kFloat).contiguous().clone();
  w.decays = w.master.dim() >= 2;
  w.value = w.master;
  if (layer && quantized_) {
    QUANVAS_TRY(w.quantizer, quantizer_of(id, settings));
  }
  if (w.quantizer >= 0) {
    TrainedQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
    if (q.params.layout.elements() != w.master.numel())
      return fail(ErrorCode::kInvalidArgument, "The quantizer of '" + name + "' was made for another shape.");
    w.default_axis = site_axis(*layer, q.params.spec, SiteKind::kWeight);
    w.value = at::empty_like(w.master);
    // At few bits the largest magnitude is a poor place to start learning from.
    if (q.source == Source::kLearned && code_bits(q.params.spec) <= 3 && q.params.spec.statistic != Statistic::kMse) {
      QuantSpec start = q.params.spec;
      start.statistic = Statistic::kMse;
      QUANVAS_TRY(q.params, quant::find_params(start, data->shape, w.master.data_ptr<float>(), w.default_axis));
      q.params.spec.statistic = initial_.at(q.site).spec.statistic;
    }
    if (q.source == Source::kLearned)
      for (const float scale : q.params.scale) q.theta.push_back(std::log2(scale));
    QUANVAS_CHECK(quantize_weight(w));
  }
  for (int shard = 0; shard < kTrainShards; ++shard) w.leaves.push_back(leaf_of(w.value, device_));
  weights_.push_back(std::move(w));
  return {};
}

// One tensor has one quantizer in training: nodes that share a weight must agree on its format.
Result<int> TrainState::quantizer_of(TensorId id, const TrainSettings& settings) {
  const quant::QuantParams* found = nullptr;
  Site where;
  int sites = 0;
  bool agree = true;
  for (const Layer& layer : layers_) {
    if (layer.weight != id) continue;
    const auto it = initial_.find({layer.node, SiteKind::kWeight, 0});
    if (it == initial_.end()) continue;
    ++sites;
    agree = agree && (!found || (found->spec == it->second.spec && found->scale == it->second.scale));
    if (!found) where = it->first;
    found = &it->second;
  }
  if (!found) return -1;
  if (const int all = readers(*model_->graph, id); !agree || sites != all)
    return fail(ErrorCode::kUnsupported,
                "Weight '" + model_->graph->tensor(id).name + "' is shared by " + std::to_string(all) +
                    " nodes that give it different formats, which cannot be trained.",
                "Give it the same format everywhere, or leave it float.");
  TrainedQuantizer q;
  q.site = where;
  q.params = *found;
  q.source = source_of(*found, settings);
  weight_quantizers_.push_back(std::move(q));
  return static_cast<int>(weight_quantizers_.size()) - 1;
}

Status TrainState::quantize_weight(TrainedWeight& w) {
  TrainedQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
  if (q.source == Source::kRecomputed) {
    const QuantSpec spec = q.params.spec;
    QUANVAS_TRY(q.params, quant::find_params(spec, w.master.sizes().vec(), w.master.data_ptr<float>(), w.default_axis));
  } else if (q.source == Source::kLearned) {
    q.scale_from_theta();
  }
  quant::fake_quantize(q.params, q.params.layout, w.master.data_ptr<float>(), w.value.data_ptr<float>());
  return {};
}

Environment TrainState::environment(int shard) const {
  Environment env(model_->graph->tensors().size());
  for (const TrainedWeight& w : weights_) env[static_cast<std::size_t>(w.id)] = w.leaves[static_cast<std::size_t>(shard)];
  return env;
}

void TrainState::clear_gradients(int shard) {
  const auto s = static_cast<std::size_t>(shard);
  for (TrainedWeight& w : weights_) w.leaves[s].mutable_grad().reset();
  for (auto& [site, a] : activations_)
    if (!a.scales.empty()) a.scales[s].mutable_grad().reset();
}

Status TrainState::step_weight(std::size_t index, const StepRule& rule, const StepRule& scales) {
  TrainedWeight& w = weights_[index];
  const std::int64_t n = w.master.numel();
  w.gradient.assign(static_cast<std::size_t>(n), 0.0f);
  for (const at::Tensor& leaf : w.leaves) {
    if (!leaf.grad().defined()) continue;
    const at::Tensor g = leaf.grad().to(at::kCPU, at::kFloat).contiguous();
    const float* p = g.data_ptr<float>();
    for (std::int64_t i = 0; i < n; ++i) w.gradient[static_cast<std::size_t>(i)] += p[i];
  }
  float* master = w.master.data_ptr<float>();
  StepRule own = rule;
  if (!w.decays) own.weight_decay = 0;
  if (w.quantizer >= 0) {
    TrainedQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
    if (q.source == Source::kLearned) {
      w.dscale.assign(q.params.scale.size(), 0.0f);
      w.scratch.resize(static_cast<std::size_t>(n));
      // Clipped weights keep their gradient, so that they can come back.
      quant::fake_quantize_backward(q.params, q.params.layout, master, w.gradient.data(), w.scratch.data(),
                                    w.dscale.data(), /*pass_clipped=*/true);
      q.step(scales, w.dscale.data(), n);
    }
  }
  w.moments.update(own, w.gradient.data(), master, n);
  if (w.quantizer >= 0) QUANVAS_CHECK(quantize_weight(w));
  if (device_ != "cpu") {
    at::NoGradGuard no_grad;
    for (at::Tensor& leaf : w.leaves) leaf.copy_(w.value);
  }
  return {};
}

void TrainState::step_activations(const StepRule& scales) {
  for (auto& [site, a] : activations_) {
    if (a.scales.empty()) continue;
    TrainedQuantizer& q = a.quantizer;
    std::vector<float> dscale(q.theta.size(), 0.0f);
    for (const at::Tensor& leaf : a.scales) {
      if (!leaf.grad().defined()) continue;
      const at::Tensor g = leaf.grad().to(at::kCPU, at::kFloat).contiguous();
      for (std::size_t i = 0; i < dscale.size(); ++i) dscale[i] += g.data_ptr<float>()[i];
    }
    q.step(scales, dscale.data(), q.params.layout.elements());
    for (at::Tensor& leaf : a.scales)
      std::copy(q.params.scale.begin(), q.params.scale.end(), leaf.data_ptr<float>());
  }
}

void TrainState::update_running(const Node& batch_norm, const at::Tensor& mean, const at::Tensor& variance) {
  constexpr float kMomentum = 0.1f;
  const auto blend = [&](TensorId id, const at::Tensor& fresh) {
    const auto it = running_.find(id);
    if (it == running_.end()) return;
    const at::Tensor f = fresh.to(at::kCPU, at::kFloat).contiguous();
    float* kept = it->second.data_ptr<float>();
    const float* p = f.data_ptr<float>();
    for (std::int64_t i = 0; i < std::min(f.numel(), it->second.numel()); ++i)
      kept[i] = (1 - kMomentum) * kept[i] + kMomentum * p[i];
  };
  blend(batch_norm.input(3), mean);
  blend(batch_norm.input(4), variance);
}

Result<TrainState::Network> TrainState::network() const {
  auto store = std::make_shared<WeightStore>(*model_->weights);
  const auto put = [&](TensorId id, const at::Tensor& master) {
    const std::string& name = model_->graph->tensor(id).name;
    const TensorData* before = store->find(name);
    at::Tensor stored = master;
    if (before->type == DataType::kFloat16) stored = master.to(at::kHalf);
    if (before->type == DataType::kBfloat16) stored = master.to(at::kBFloat16);
    if (before->type == DataType::kDouble) stored = master.to(at::kDouble);
    store->set(name, to_data(stored));
  };
  for (const TrainedWeight& w : weights_) put(w.id, w.master);
  for (const auto& [id, tensor] : running_) put(id, tensor);
  Network out;
  out.model = std::make_shared<const Model>(Model{model_->graph, store, model_->source});
  if (!quantized_) return out;
  out.quantizers = initial_;
  for (const auto& [site, a] : activations_) out.quantizers[site] = a.quantizer.params;
  for (const TrainedWeight& w : weights_) {
    if (w.quantizer < 0) continue;
    const TrainedQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
    for (const Layer& layer : layers_)
      if (layer.weight == w.id) out.quantizers[{layer.node, SiteKind::kWeight, 0}] = q.params;
  }
  for (const Layer& layer : layers_) QUANVAS_CHECK(rebuild_bias(*out.model, layer, out.quantizers));
  return out;
}

}  // namespace quanvas::exec
