// Quanvas - what a training changes: master weights, learned quantizers, running averages. Internal to core/exec.
// Owned by one training; its methods may run on one worker per parameter as said.
#pragma once

#include <map>
#include <set>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/exec/optimizer.h"
#include "core/exec/train.h"
#include "core/exec/trained_quantizer.h"
#include "core/graph/layers.h"
#include "core/quant/params.h"

namespace quanvas::exec {

struct TrainedWeight {
  TensorId id = kNoTensor;
  at::Tensor master;              // float32, CPU
  at::Tensor value;               // what the nodes see; the master itself when it is not quantized
  std::vector<at::Tensor> leaves; // one per shard, sharing `value` on the CPU
  int quantizer = -1;             // index into weight quantizers
  int default_axis = 0;
  quant::BlockLayout layout;      // of its values under the quantizer
  bool decays = false;
  Moments moments;
  std::vector<float> gradient, clipped;
  QuantizerGradients quantizer_gradients;
};

// A quantizer of one weight, or of several that share it.
struct WeightQuantizer : TrainedQuantizer {
  std::vector<std::size_t> users;  // indices of weights
  bool waits = false;              // until its delay is over
  std::int64_t elements = 0;
};

// A quantizer of one activation site, or of several that share it.
struct TrainedActivation {
  TrainedQuantizer quantizer;
  std::int64_t elements = 0;
  std::vector<LearnedParams> leaves;  // one per shard when learned
};

class TrainState {
 public:
  static Result<TrainState> create(ModelPtr model, const QuantizerMap* quantizers, const TrainSettings& settings,
                                   const std::string& device);

  std::vector<TrainedWeight>& weights() { return weights_; }
  // Null: this site is float.
  const TrainedActivation* activation(const Site& site) const;
  // Average pools whose output is truncated, for RunHooks::exact.
  const std::set<NodeId>& exact() const { return exact_; }
  bool quantized() const { return quantized_; }
  std::int64_t steps() const { return steps_; }  // optimizer steps done

  // Overrides of the runner for one shard.
  Environment environment(int shard) const;
  void clear_gradients(int shard);
  // An optimizer step, in three parts. First, different weights in parallel: sums the shards' gradients in their order
  // and steps the master. Then once: steps quantizers. Last, different weights in parallel: quantizes anew.
  void step_weight(std::size_t index, const StepRule& rule);
  Status step_quantizers(const StepRule& rule);
  Status quantize_weight(std::size_t index);
  void update_running(const Node& batch_norm, const at::Tensor& mean, const at::Tensor& variance);

  // The state as a network: quantizers with their present scales, biases by the accumulator rule.
  struct Network {
    ModelPtr model;
    QuantizerMap quantizers;
  };
  Result<Network> network() const;

 private:
  void add_activations(const TrainSettings& settings);
  Status follow_inputs();
  void begin_learning(WeightQuantizer& q) const;
  double bits_slope(std::int64_t elements) const;
  Status add_weights(const TrainSettings& settings);
  Status add_weight(TensorId id, const Layer* layer, const TrainSettings& settings);
  Result<int> quantizer_of(TensorId id, const TrainSettings& settings);
  Site quantized_site(TensorId id) const;
  const std::vector<Site>& weight_sites(TensorId id) const;
  std::map<TensorId, std::vector<Site>> weight_sites_;
  Status start_weight_quantizers();
  Result<quant::QuantParams> found_on_weights(const WeightQuantizer& q, bool to_begin) const;

  ModelPtr model_;
  std::string device_;
  bool quantized_ = false;
  std::int64_t steps_ = 0;
  struct Penalties {
    double bits = 0, length = 0;
  } penalties_;
  QuantizerMap initial_;
  std::vector<Layer> layers_;
  std::vector<TrainedWeight> weights_;
  std::vector<WeightQuantizer> weight_quantizers_;
  std::vector<TrainedActivation> activations_;
  std::map<Site, std::size_t> activation_of_;
  std::set<NodeId> exact_;
  std::map<TensorId, at::Tensor> running_;
};

}  // namespace quanvas::exec
