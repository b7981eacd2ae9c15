#include "core/exec/runner.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/exec/ops.h"
#include "core/exec/runner_parts.h"
#include "core/exec/tensors.h"
#include "core/exec/worker.h"
#include "core/graph/canonical.h"
#include "core/graph/layers.h"
#include "core/quant/params.h"

namespace quanvas::exec {
namespace {

Status check_device(const std::string& device) {
  const bool cuda = device == "cuda" || device.starts_with("cuda:");
  if (device != "cpu" && !cuda)
    return fail(ErrorCode::kInvalidArgument, "Device '" + device + "' is unknown.", "Use cpu, cuda or cuda:N.");
  if (!cuda) return {};
  return guarded("device " + device, [&]() -> Status {
    if (!at::hasCUDA())
      return fail(ErrorCode::kUnsupported, "Device '" + device + "' is not there: no CUDA device or a LibTorch without CUDA.",
                  "Use --device cpu.");
    at::empty({1}, at::TensorOptions().device(at::Device(device)));
    return {};
  });
}

// A copy of the initializer that went through the site's quantizer.
Result<at::Tensor> quantized_weight(const at::Tensor& w, const quant::QuantParams& params, const std::string& where) {
  if (params.layout.elements() != w.numel())
    return fail(ErrorCode::kInvalidArgument,
                where + ": the quantizer was made for " + std::to_string(params.layout.elements()) +
                    " values, the tensor has " + std::to_string(w.numel()) + ".");
  const at::Tensor x = w.to(at::kFloat).contiguous();
  at::Tensor y = at::empty_like(x);
  quant::fake_quantize(params, params.layout, x.data_ptr<float>(), y.data_ptr<float>());
  return y;
}

// Floating-point tensors come in the type that the operators compute in.
at::Tensor computed(const at::Tensor& t) {
  return t.defined() && (t.scalar_type() == at::kHalf || t.scalar_type() == at::kBFloat16) ? t.to(at::kFloat) : t;
}

Status check_inputs(const Graph& graph, const std::vector<at::Tensor>& inputs) {
  if (inputs.size() != graph.inputs().size())
    return fail(ErrorCode::kInvalidArgument, "The model has " + std::to_string(graph.inputs().size()) +
                                                 " input(s), " + std::to_string(inputs.size()) + " were given.");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const TensorInfo& info = graph.tensor(graph.inputs()[i]);
    if (!inputs[i].defined()) return fail(ErrorCode::kInvalidArgument, "Input '" + info.name + "' was not given.");
    if (!info.shape) continue;
    bool fits = static_cast<std::int64_t>(info.shape->size()) == inputs[i].dim();
    for (std::size_t d = 1; fits && d < info.shape->size(); ++d)
      fits = (*info.shape)[d] < 0 || (*info.shape)[d] == inputs[i].size(static_cast<std::int64_t>(d));
    if (!fits)
      return fail(ErrorCode::kInvalidArgument, "Input '" + info.name + "' is " + sizes_text(inputs[i]) +
                                                   ", the model expects " + shape_text(*info.shape) + ".");
  }
  return {};
}

}  // namespace

Runner::~Runner() = default;

Result<std::shared_ptr<const Runner>> Runner::create(ModelPtr model, const QuantizerMap* quantizers,
                                                     const std::string& device) {
  if (!model || !model->graph || !model->weights) return fail(ErrorCode::kInternal, "There is no model to run.");
  QUANVAS_CHECK(check_device(device));
  return make(std::move(model), quantizers, device, 0);
}

Result<std::shared_ptr<const Runner>> Runner::make(ModelPtr model, const QuantizerMap* quantizers,
                                                   const std::string& device, int depth) {
  return guarded("runner", [&]() -> Result<std::shared_ptr<const Runner>> {
    std::shared_ptr<Runner> runner(new Runner);
    runner->model_ = std::move(model);
    runner->device_ = device;
    runner->is_body_ = depth > 0;
    for (const Node& node : runner->graph().nodes()) runner->refusals_.push_back(unsupported_reason(node));
    runner->find_sites();
    runner->find_last_uses();
    runner->find_types();
    QUANVAS_CHECK(runner->load_weights(quantizers));
    QUANVAS_CHECK(runner->make_bodies(depth));
    return std::shared_ptr<const Runner>(runner);
  });
}

void Runner::find_sites() {
  const Graph& g = graph();
  sites_.resize(g.nodes().size());
  for (std::size_t i = 0; i < sites_.size(); ++i) sites_[i].inner = own_outputs(g.nodes()[i]);
  for (const Layer& layer : find_layers(g)) {
    const std::size_t position = g.position(layer.node);
    const Node& node = g.nodes()[position];
    NodeSites& sites = sites_[position];
    std::size_t next = 0;
    for (std::size_t operand = 0; operand < layer.inputs.size(); ++operand) {
      while (next < node.inputs.size() && node.inputs[next] != layer.inputs[operand]) ++next;
      if (next < node.inputs.size()) sites.operands.emplace_back(next++, static_cast<int>(operand));
    }
    const auto output = std::find(node.outputs.begin(), node.outputs.end(), layer.output);
    if (layer.output != kNoTensor && output != node.outputs.end())
      sites.output = static_cast<std::size_t>(output - node.outputs.begin());
  }
}

void Runner::find_last_uses() {
  const Graph& g = graph();
  free_after_.resize(g.nodes().size());
  for (std::size_t id = 0; id < g.tensors().size(); ++id) {
    const TensorInfo& info = g.tensors()[id];
    const bool kept = g.is_output(static_cast<TensorId>(id));
    if (info.is_initializer || kept) continue;
    const NodeId last = info.consumers.empty() ? info.producer : info.consumers.back();
    if (last != kNoNode && g.position(last) < free_after_.size())
      free_after_[g.position(last)].push_back(static_cast<TensorId>(id));
  }
}

Status Runner::load_weights(const QuantizerMap* quantizers) {
  const Graph& g = graph();
  weights_.resize(g.tensors().size());
  for (std::size_t id = 0; id < weights_.size(); ++id) {
    const TensorInfo& info = g.tensors()[id];
    if (!info.is_initializer) continue;
    if (const TensorData* data = model_->weights->find(info.name)) weights_[id] = computed(shared_tensor(*data));
  }
  if (quantizers) {
    const std::vector<Layer> layers = find_layers(g);
    std::map<TensorId, int> readers;
    for (const Node& node : g.nodes())
      for (const TensorId id : node.inputs)
        if (id != kNoTensor && g.tensor(id).is_initializer) ++readers[id];
    for (const auto& [site, params] : *quantizers) {
      if (is_activation(site.kind)) {
        activations_.emplace(site, params);
        if (params.truncated) exact_.insert(site.node);
        if (site.kind == SiteKind::kInternal || site.operand > 0) inner_.insert(site.node);
        continue;
      }
      const Layer* layer = find_layer(layers, site.node);
      const TensorId id = layer ? site_tensor(*layer, site) : kNoTensor;
      if (id == kNoTensor || !weights_[at_index(id)].defined()) continue;
      const std::string where = label(*g.find(site.node)) + " " + enum_text(site.kind);
      const TensorData* data = model_->weights->find(g.tensor(id).name);
      QUANVAS_TRY(at::Tensor w, quantized_weight(computed(shared_tensor(*data)), params, where));
      // A weight that several nodes read (tied weights) is quantized for this node only.
      if (readers[id] > 1) shared_[{g.position(site.node), id}] = w;
      else weights_[at_index(id)] = w;
    }
  }
  if (device_ == "cpu") return {};
  for (auto& w : weights_)
    if (w.defined()) w = w.to(at::Device(device_));
  for (auto& [key, w] : shared_) w = w.to(at::Device(device_));
  return {};
}

const at::Tensor& Runner::value(std::size_t position, TensorId id, const Environment& env, const RunHooks& hooks) const {
  const std::size_t i = at_index(id);
  if (!graph().tensor(id).is_initializer) return env[i];
  if (hooks.weights && i < hooks.weights->size() && (*hooks.weights)[i].defined()) return (*hooks.weights)[i];
  if (!shared_.empty())
    if (const auto it = shared_.find({position, id}); it != shared_.end()) return it->second;
  return weights_[i];
}

at::Tensor Runner::quantize(const Site& site, const at::Tensor& x, const RunHooks& hooks) const {
  if (hooks.quantize) return hooks.quantize(site, x);
  const auto it = activations_.find(site);
  return it == activations_.end() ? x : fake_quantize(x, it->second);
}

bool Runner::looks_inside(NodeId node, const RunHooks& hooks) const {
  return hooks.tap || hooks.quantize || inner_.count(node) > 0;
}

Status Runner::gather(std::size_t index, const Environment& env, const RunHooks& hooks, Tensors& in) const {
  const Node& node = graph().nodes()[index];
  in.reserve(node.inputs.size());
  for (const TensorId id : node.inputs) {
    in.push_back(id == kNoTensor ? at::Tensor() : value(index, id, env, hooks));
    if (id != kNoTensor && !in.back().defined() && env.others.count(id))
      return fail(ErrorCode::kInvalidArgument, label(node) + ": its input '" + graph().tensor(id).name +
                                                   "' is a sequence or an empty optional, a tensor is expected.");
    if (id != kNoTensor && !in.back().defined())
      return fail(ErrorCode::kInvalidArgument,
                  label(node) + ": its input '" + graph().tensor(id).name + "' has no value" +
                      (graph().tensor(id).is_initializer ? " (the model holds no usable data for it)." : "."));
  }
  for (const auto& [position, operand] : sites_[index].operands)
    in[position] = quantize({node.id, SiteKind::kInput, operand}, in[position], hooks);
  return {};
}

Status Runner::run_node(std::size_t index, Environment& env, const RunHooks& hooks) const {
  const Node& node = graph().nodes()[index];
  // A chunk through a large network takes seconds; one operator seldom does.
  if (stop_requested()) return fail(ErrorCode::kCancelled, "Stopped on request.");
  if (const std::string& reason = refusals_[index]; !reason.empty())
    return fail(ErrorCode::kUnsupported, label(node) + " cannot be executed: " + reason + ".");
  const OpRow* row = find_op(node);
  if (row->run_values) return run_value_node(index, env, hooks);
  const bool has_types = !types_.empty() && types_.count(index) > 0;
  Tensors in;
  auto done = guarded(label(node), [&]() -> OpResult {
    QUANVAS_CHECK(gather(index, env, hooks, in));
    if (has_types) QUANVAS_CHECK(fit_types(index, in));
    const bool exact = exact_.count(node.id) > 0 || (hooks.exact && hooks.exact->count(node.id) > 0);
    if (exact && !in.empty() && in[0].defined()) in[0] = in[0].to(at::kDouble);
    QUANVAS_TRY(Tensors out, row->run({graph(), node, hooks, in, this}));
    if (exact && !out.empty()) out[0] = out[0].to(at::kFloat);
    if (const auto y = sites_[index].output; y && *y < out.size())
      out[*y] = quantize({node.id, SiteKind::kOutput, 0}, out[*y], hooks);
    if (has_types)
      for (std::size_t i = 0; i < out.size(); ++i)
        if (out[i].defined()) out[i] = fit_type(index, i, out[i]);
    return out;
  });
  if (!done) return Failure(describe_failure(node, in, std::move(done).error()));
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNoTensor) continue;
    const bool is_there = i < done->size() && (*done)[i].defined();
    if (!is_there && i >= sites_[index].inner) continue;
    if (!is_there)
      return fail(ErrorCode::kUnsupported, label(node) + ": output " + std::to_string(i + 1) + " is not computed here.");
    env[at_index(node.outputs[i])] = (*done)[i];
    if (hooks.tap) hooks.tap(node.outputs[i], (*done)[i]);
  }
  return {};
}

Error Runner::describe_failure(const Node& node, const Tensors& in, Error e) const {
  if (e.code == ErrorCode::kCancelled || e.code == ErrorCode::kOutOfMemory) return e;
  const std::string name = label(node);
  if (e.message.starts_with(name)) return e;
  std::string shapes;
  for (const auto& t : in) shapes += (shapes.empty() ? "" : ", ") + sizes_text(t);
  // What ATen throws is a matter of shapes and types, so of the model or its input.
  if (e.code == ErrorCode::kInternal) e.code = ErrorCode::kInvalidArgument;
  e.message = name + " on inputs " + (shapes.empty() ? "-" : shapes) + ": " + e.message;
  e.context.clear();
  return e;
}

Status Runner::place(std::size_t input, const at::Tensor& given, Environment& env, const RunHooks& hooks) const {
  const TensorId id = graph().inputs()[input];
  at::Tensor x = computed(given);
  if (const auto type = scalar_type(graph().tensor(id).type); type && *type != x.scalar_type()) x = x.to(*type);
  if (device_ != "cpu") x = x.to(at::Device(device_));
  env[at_index(id)] = x;
  if (hooks.tap) hooks.tap(id, x);
  return {};
}

Status Runner::start(const std::vector<at::Tensor>& inputs, Environment& env, const RunHooks& hooks) const {
  QUANVAS_CHECK(check_inputs(graph(), inputs));
  return guarded("inputs", [&]() -> Status {
    env.resize(graph().tensors().size());
    for (std::size_t i = 0; i < inputs.size(); ++i) QUANVAS_CHECK(place(i, inputs[i], env, hooks));
    return {};
  });
}

Status Runner::run_rest(Environment& env, const RunHooks& hooks) const {
  for (std::size_t i = 0; i < graph().nodes().size(); ++i) {
    QUANVAS_CHECK(run_node(i, env, hooks));
    for (const TensorId id : free_after_[i]) env[at_index(id)].reset();
  }
  return {};
}

Result<std::vector<at::Tensor>> Runner::run(const std::vector<at::Tensor>& inputs, const RunHooks& hooks) const {
  Environment env;
  QUANVAS_CHECK(start(inputs, env, hooks));
  QUANVAS_CHECK(run_rest(env, hooks));
  std::vector<at::Tensor> outputs;
  for (const TensorId id : graph().outputs()) {
    outputs.push_back(value(graph().nodes().size(), id, env, hooks));
    if (!outputs.back().defined())
      return fail(ErrorCode::kInvalidArgument, "Output '" + graph().tensor(id).name + "' " +
                                                   (env.others.count(id) ? "is no tensor." : "has no value."));
  }
  return outputs;
}

Result<Environment> Runner::run_all(const std::vector<at::Tensor>& inputs, const RunHooks& hooks) const {
  Environment env;
  QUANVAS_CHECK(start(inputs, env, hooks));
  for (std::size_t i = 0; i < graph().nodes().size(); ++i) QUANVAS_CHECK(run_node(i, env, hooks));
  return env;
}

Status Runner::run_nodes(const std::vector<NodeId>& nodes, Environment& env, const RunHooks& hooks) const {
  if (env.size() < graph().tensors().size()) env.resize(graph().tensors().size());
  for (const NodeId id : nodes) {
    const std::size_t position = graph().position(id);
    if (position >= graph().nodes().size())
      return fail(ErrorCode::kNotFound, "Node " + std::to_string(id) + " is not in the graph.");
    QUANVAS_CHECK(run_node(position, env, hooks));
  }
  return {};
}

}  // namespace quanvas::exec
