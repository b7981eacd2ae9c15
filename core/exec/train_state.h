// Quanvas - what a training changes: master weights, learned scales, running averages. Internal to core/exec.
// Owned by one training; its methods may run on one worker per parameter as said.
#pragma once

#include <map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "core/exec/optimizer.h"
#include "core/exec/train.h"
#include "core/graph/layers.h"
#include "core/quant/params.h"

namespace quanvas::exec {

// A quantizer in training. Learned scales are trained as theta = log2(scale): steps do not depend on the scale's
// magnitude and it stays positive (quantizers.md). Power-of-two scales use 2^rint(theta), straight through.
struct TrainedQuantizer {
  enum class Source { kFixed, kRecomputed, kLearned };
  Site site;
  quant::QuantParams params;
  Source source = Source::kFixed;
  std::vector<float> theta;
  Moments moments;

  void scale_from_theta();
  // Gradient step from d loss / d scale; elements: values that share the quantizer.
  void step(const StepRule& rule, const float* dscale, std::int64_t elements);
};

struct TrainedWeight {
  TensorId id = kNoTensor;
  at::Tensor master;              // float32, CPU
  at::Tensor value;               // what the nodes see; the master itself when it is not quantized
  std::vector<at::Tensor> leaves; // one per shard, sharing `value` on the CPU
  int quantizer = -1;             // index into weight_quantizers
  int default_axis = 0;
  bool decays = false;
  Moments moments;
  std::vector<float> gradient, dscale, scratch;
};

struct TrainedActivation {
  TrainedQuantizer quantizer;
  std::vector<at::Tensor> scales;  // one leaf per shard when learned, else undefined
};

class TrainState {
 public:
  static Result<TrainState> create(ModelPtr model, const QuantizerMap* quantizers, const TrainSettings& settings,
                                   const std::string& device);

  std::vector<TrainedWeight>& weights() { return weights_; }
  std::map<Site, TrainedActivation>& activations() { return activations_; }
  bool quantized() const { return quantized_; }

  // Overrides of the runner for one shard.
  Environment environment(int shard) const;
  void clear_gradients(int shard);
  // Sums the shards' gradients in their order, steps and quantizes anew. Different weights in parallel.
  Status step_weight(std::size_t index, const StepRule& weights, const StepRule& scales);
  void step_activations(const StepRule& scales);
  void update_running(const Node& batch_norm, const at::Tensor& mean, const at::Tensor& variance);

  // The state as a network: quantizers with their present scales, biases by the accumulator rule.
  struct Network {
    ModelPtr model;
    QuantizerMap quantizers;
  };
  Result<Network> network() const;

 private:
  Status add_weights(const TrainSettings& settings);
  Status add_weight(TensorId id, const Layer* layer, const TrainSettings& settings);
  Result<int> quantizer_of(TensorId id, const TrainSettings& settings);
  Status quantize_weight(TrainedWeight& w);
  TrainedQuantizer::Source source_of(const quant::QuantParams& params, const TrainSettings& settings) const;

  ModelPtr model_;
  std::string device_;
  bool quantized_ = false;
  QuantizerMap initial_;
  std::vector<Layer> layers_;
  std::vector<TrainedWeight> weights_;
  std::vector<TrainedQuantizer> weight_quantizers_;
  std::map<Site, TrainedActivation> activations_;
  std::map<TensorId, at::Tensor> running_;
};

}  // namespace quanvas::exec
