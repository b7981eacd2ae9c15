// Quanvas - runs a Graph on LibTorch: float, fake-quantized or trainable.
//
// A Runner is immutable after create() and may be used by several threads at once (each call has its own
// environment). Tensors are freed after their last use unless kept. Errors name the node.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/base/job.h"
#include "core/graph/weights.h"
#include "core/plugin/registry.h"

namespace quanvas::exec {

using QuantizerMap = std::map<Site, quant::QuantParams>;

// What an edge carries: a tensor mostly; a sequence of tensors; or an optional that holds nothing. An optional that
// holds something is that something.
struct Value {
  at::Tensor tensor;
  std::shared_ptr<const std::vector<at::Tensor>> sequence;
  bool is_absent = false;

  bool defined() const { return tensor.defined() || sequence || is_absent; }
  static Value of(at::Tensor t) { return {std::move(t), nullptr, false}; }
  static Value of(std::vector<at::Tensor> s) {
    return {{}, std::make_shared<const std::vector<at::Tensor>>(std::move(s)), false};
  }
};
using Values = std::vector<Value>;

// Tensors by TensorId; undefined: not there (yet, or freed), or it stands among the few `others`.
struct Environment : std::vector<at::Tensor> {
  using std::vector<at::Tensor>::vector;
  std::map<TensorId, Value> others;
};

struct RunHooks {
  // Called for every tensor as soon as it exists (graph inputs too, initializers not). May be empty.
  std::function<void(TensorId, const at::Tensor&)> tap;
  // Replaces an activation at a site: inputs before the node sees them, the output before anyone else does.
  // Called for every input and output site of every layer; used by observers and by training. Empty: the
  // Runner's own fake-quantizers.
  std::function<at::Tensor(const Site&, const at::Tensor&)> quantize;
  // Replaces weights (by tensor id): the leaves of training. May be null.
  const Environment* weights = nullptr;
  // Average pools whose output `quantize` truncates: computed in double, so that the sums of codes are exact. Those
  // that the Runner's own quantizers truncate are it anyway. May be null.
  const std::set<NodeId>* exact = nullptr;
  bool training = false;  // BatchNormalization uses batch statistics, Dropout drops
  std::uint64_t seed = 0;  // of Dropout's masks
  // With training: batch mean and variance of each BatchNormalization node, for the running averages.
  std::function<void(const Node&, const at::Tensor& mean, const at::Tensor& variance)> batch_statistics;
};

class Runner {
 public:
  // quantizers: weights and biases are fake-quantized once here, activations at run time; null: float.
  // device: "cpu", "cuda", "cuda:1". Fails for a device that is not there; opaque nodes fail only when run.
  static Result<std::shared_ptr<const Runner>> create(ModelPtr model, const QuantizerMap* quantizers,
                                                      const std::string& device = "cpu");

  const Graph& graph() const { return *model_->graph; }
  const ModelPtr& model() const { return model_; }
  const std::string& device() const { return device_; }
  ~Runner();
  // Initializers as the nodes see them (fake-quantized where quantizers are given; one that several nodes read
  // stands here in float, each node sees its own). Undefined for other tensors.
  const Environment& weights() const { return weights_; }

  // inputs in the order of graph().inputs(); returns the graph's outputs. Fails when an output is no tensor.
  Result<std::vector<at::Tensor>> run(const std::vector<at::Tensor>& inputs, const RunHooks& hooks = {}) const;
  // The same for graphs whose inputs or outputs may be sequences and optionals.
  Result<Values> run_values(const Values& inputs, const RunHooks& hooks = {}) const;
  // Everything kept: the environment of the whole graph.
  Result<Environment> run_all(const std::vector<at::Tensor>& inputs, const RunHooks& hooks = {}) const;
  // Runs only `nodes` (ids, topological order, see Graph::downstream) taking all else from `env`, which gets
  // their results. Nothing is freed.
  Status run_nodes(const std::vector<NodeId>& nodes, Environment& env, const RunHooks& hooks = {}) const;

  // For operators with sites inside (canonical.h): the activation as its quantizer leaves it, and whether anything taps or
  // quantizes what lies inside this node.
  at::Tensor quantize(const Site& site, const at::Tensor& x, const RunHooks& hooks) const;
  bool looks_inside(NodeId node, const RunHooks& hooks) const;

 private:
  struct NodeSites;
  struct NodeTypes;
  Runner() = default;
  static Result<std::shared_ptr<const Runner>> make(ModelPtr model, const QuantizerMap* quantizers,
                                                    const std::string& device, int depth);
  Status make_bodies(int depth);
  void find_types();
  void find_sites();
  void find_last_uses();
  Status load_weights(const QuantizerMap* quantizers);
  Status start(const std::vector<at::Tensor>& inputs, Environment& env, const RunHooks& hooks) const;
  Status start_values(const Values& inputs, Environment& env, const RunHooks& hooks) const;
  Status place(std::size_t input, const at::Tensor& given, Environment& env, const RunHooks& hooks) const;
  Status run_node(std::size_t index, Environment& env, const RunHooks& hooks) const;
  Status run_value_node(std::size_t index, Environment& env, const RunHooks& hooks) const;
  Result<Values> gather_values(std::size_t index, const Environment& env, const RunHooks& hooks) const;
  Status run_rest(Environment& env, const RunHooks& hooks) const;
  Status fit_types(std::size_t index, const std::vector<at::Tensor>& in) const;
  at::Tensor fit_type(std::size_t index, std::size_t output, at::Tensor y) const;
  Status gather(std::size_t index, const Environment& env, const RunHooks& hooks, std::vector<at::Tensor>& in) const;
  const at::Tensor& value(std::size_t position, TensorId id, const Environment& env, const RunHooks& hooks) const;
  Error describe_failure(const Node& node, const std::vector<at::Tensor>& in, Error e) const;

  ModelPtr model_;
  std::string device_;
  Environment weights_;
  std::map<std::pair<std::size_t, TensorId>, at::Tensor> shared_;  // quantized for one reader of several
  QuantizerMap activations_;                       // input and output sites
  std::set<NodeId> exact_;                         // whose output is truncated
  std::set<NodeId> inner_;                         // with quantizers inside
  std::vector<NodeSites> sites_;                   // by node position
  std::vector<std::vector<TensorId>> free_after_;  // by node position
  std::vector<std::string> refusals_;              // by node position: why it cannot be executed
  std::map<std::size_t, NodeTypes> types_;         // nodes with unsigned types that LibTorch lacks
  std::map<std::size_t, std::map<std::string, std::shared_ptr<const Runner>>> bodies_;  // of nodes with subgraphs
  bool is_body_ = false;
};

// Whether the executor has this operator (with these attributes); empty: yes, else the reason.
std::string unsupported_reason(const Node& node);
std::vector<std::string> supported_operators();

// y = fake_quantize(x) on CPU (own kernels) or through ATen on other devices; sample by sample when the quantizer is
// dynamic (dynamic.h). Throws std::runtime_error with a sentence.
at::Tensor fake_quantize(const at::Tensor& x, const quant::QuantParams& params);
// What is trained of a quantizer: leaves on the CPU, float32; undefined: constant. scale replaces the scales of the
// parameters; zero_point (as many values) and bits (one) only receive gradients (gradient.h), their values are those
// of the parameters.
struct LearnedParams {
  at::Tensor scale, zero_point, bits;
};
// With gradient by the straight-through estimator, see params.h; of a dynamic quantizer the scale is a constant.
at::Tensor fake_quantize_ste(const at::Tensor& x, const LearnedParams& learned, const quant::QuantParams& params,
                             bool pass_clipped);
at::Tensor fake_quantize_ste(const at::Tensor& x, const at::Tensor& scale, const quant::QuantParams& params,
                             bool pass_clipped);

at::Tensor to_tensor(const TensorData& data);        // copies; float16/double stay their type
TensorData to_data(const at::Tensor& tensor);
// In an element type of the same values that LibTorch may lack or that was computed in a wider one: uint16, uint32,
// uint64, float16, bfloat16, float8 ...; undefined: as above. Reals are rounded, integers wrap.
TensorData to_data(const at::Tensor& tensor, DataType type);

// Threads: `set_threads(n)` once at start (0: all cores); see chunks.h for who uses them.
void set_threads(int threads);
int threads();
// "2.6 OpenBLAS ..." and whether it is the slow reference BLAS, device names, capability: for --version and
// the warning at start.
std::map<std::string, std::string> engine_versions();
bool has_reference_blas();

}  // namespace quanvas::exec
