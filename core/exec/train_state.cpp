#include "core/exec/train_state.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ATen.h>

#include "core/exec/rebuild.h"
#include "core/quant/gradient.h"
#include "core/quant/weight_norm.h"

namespace quanvas::exec {
namespace {

using Source = TrainedQuantizer::Source;

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

}  // namespace

Result<TrainState> TrainState::create(ModelPtr model, const QuantizerMap* quantizers, const TrainSettings& settings,
                                      const std::string& device) {
  TrainState s;
  s.model_ = std::move(model);
  s.device_ = device;
  s.quantized_ = quantizers != nullptr;
  s.penalties_ = {settings.bits_penalty, settings.accumulator_penalty};
  if (quantizers) s.initial_ = *quantizers;
  s.layers_ = find_layers(*s.model_->graph);
  for (const Layer& layer : s.layers_)
    for (const Site& site : layer.sites())
      if (site.kind == SiteKind::kWeight) s.weight_sites_[site_tensor(layer, site)].push_back(site);
  QUANVAS_CHECK(s.add_weights(settings));
  QUANVAS_CHECK(s.start_weight_quantizers());
  s.add_activations(settings);
  return s;
}

Status TrainState::add_weights(const TrainSettings& settings) {
  const Graph& graph = *model_->graph;
  std::set<TensorId> seen;
  const auto add = [&](TensorId id, const Layer* layer) -> Status {
    if (id == kNoTensor || !graph.tensor(id).is_initializer || !is_float(graph.tensor(id).type)) return {};
    return seen.insert(id).second ? add_weight(id, layer, settings) : Status();
  };
  for (const Layer& layer : layers_) {
    for (const Site& site : layer.sites())
      if (site.kind == SiteKind::kWeight) QUANVAS_CHECK(add(site_tensor(layer, site), &layer));
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
    WeightQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
    const quant::QuantParams& own = initial_.at(quantized_site(id));
    w.layout = own.layout;
    if (w.layout.elements() != w.master.numel())
      return fail(ErrorCode::kInvalidArgument, "The quantizer of '" + name + "' was made for another shape.");
    w.default_axis = site_axis(*layer, own.spec, SiteKind::kWeight);
    w.value = at::empty_like(w.master);
    q.users.push_back(weights_.size());
    q.elements += w.master.numel();
  }
  weights_.push_back(std::move(w));
  return {};
}

// The first site of a weight that has a quantizer; quantizer_of() has made sure that all agree.
Site TrainState::quantized_site(TensorId id) const {
  for (const Site& site : weight_sites(id))
    if (initial_.count(site)) return site;
  return {};
}

const std::vector<Site>& TrainState::weight_sites(TensorId id) const {
  static const std::vector<Site> none;
  const auto it = weight_sites_.find(id);
  return it == weight_sites_.end() ? none : it->second;
}

// One tensor has one quantizer in training: nodes that share a weight must agree on its format.
Result<int> TrainState::quantizer_of(TensorId id, const TrainSettings& settings) {
  const quant::QuantParams* found = nullptr;
  Site where;
  int sites = 0;
  bool agree = true;
  for (const Site& site : weight_sites(id)) {
    const auto it = initial_.find(site);
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
  if (!found->share.empty())
    for (std::size_t i = 0; i < weight_quantizers_.size(); ++i)
      if (weight_quantizers_[i].params.share == found->share) return static_cast<int>(i);
  WeightQuantizer q;
  q.site = where;
  q.params = *found;
  q.source = TrainedQuantizer::source_of(*found, settings);
  weight_quantizers_.push_back(std::move(q));
  return static_cast<int>(weight_quantizers_.size()) - 1;
}

Environment TrainState::environment(int shard) const {
  Environment env(model_->graph->tensors().size());
  for (const TrainedWeight& w : weights_) env[static_cast<std::size_t>(w.id)] = w.leaves[static_cast<std::size_t>(shard)];
  return env;
}

void TrainState::clear_gradients(int shard) {
  const auto s = static_cast<std::size_t>(shard);
  for (TrainedWeight& w : weights_) w.leaves[s].mutable_grad().reset();
  for (TrainedActivation& a : activations_) {
    if (a.leaves.empty()) continue;
    for (const at::Tensor& leaf : {a.leaves[s].scale, a.leaves[s].zero_point, a.leaves[s].bits})
      if (leaf.defined()) leaf.mutable_grad().reset();
  }
}

void TrainState::step_weight(std::size_t index, const StepRule& rule) {
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
    const WeightQuantizer& q = weight_quantizers_[static_cast<std::size_t>(w.quantizer)];
    // Clipped weights keep their gradient unless the recipe says otherwise, so that they can come back.
    const bool pass = q.passes_clipped(true);
    QuantizerGradients& d = w.quantizer_gradients;
    if (!q.waits && (q.learned() || !pass)) {
      d = {};
      d.scale.resize(q.params.scale.size());
      w.clipped.resize(static_cast<std::size_t>(n));
      if (q.learns_length()) {
        d.length.resize(q.params.scale.size());
        quant::decoupled_backward(q.params, w.layout, q.lengths(), master, w.gradient.data(), w.clipped.data(),
                                  d.scale.data(), d.length.data(), pass);
        quant::length_penalty(q.params, q.lengths(), penalties_.length, d.scale.data(), d.length.data());
      } else {
        quant::fake_quantize_backward(q.params, w.layout, master, w.gradient.data(), w.clipped.data(),
                                      q.learned() ? d.scale.data() : nullptr, pass);
      }
      if (q.learns_zero_point()) {
        d.zero_point.resize(q.params.scale.size());
        quant::zero_point_gradient(q.params, w.layout, master, w.gradient.data(), d.zero_point.data());
      }
      if (q.learns_bits()) d.bits = quant::width_gradient(q.params, w.layout, master, w.gradient.data());
      // With two scales the gradient goes through the norm, too.
      if (!pass || q.learns_length()) w.gradient.swap(w.clipped);
    }
  }
  w.moments.update(own, w.gradient.data(), master, n);
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
  const auto put_params = [&](const Site& site, const quant::QuantParams& params) {
    quant::QuantParams& to = out.quantizers[site];
    const quant::BlockLayout own = to.layout;  // of several that share one each has its own
    to = params;
    to.layout = own;
  };
  for (const auto& [site, index] : activation_of_) put_params(site, activations_[index].quantizer.params);
  for (const WeightQuantizer& q : weight_quantizers_) {
    quant::QuantParams params = q.params;
    if (q.waits && q.source != Source::kFixed) {
      QUANVAS_TRY(params, found_on_weights(q, q.learned()));
    }
    for (const std::size_t user : q.users)
      for (const Site& site : weight_sites(weights_[user].id)) put_params(site, params);
  }
  for (const Layer& layer : layers_) QUANVAS_CHECK(rebuild_bias(*out.model, layer, out.quantizers));
  return out;
}

}  // namespace quanvas::exec
