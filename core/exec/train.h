// Quanvas - gradient training: of a float network, and quantization-aware training of a quantized one.
//
// Data parallel over a fixed number of shards per batch (kTrainShards), gradients summed in the order of the
// shards: results do not depend on the number of threads. BatchNormalization in training uses the statistics
// of its shard; running averages are updated in the order of the shards.
#pragma once

#include <functional>
#include <string>

#include "core/exec/runner.h"

namespace quanvas::exec {

inline constexpr int kTrainShards = 2;

// Where the class scores are: the first output, or what enters the Softmax that it comes from.
TensorId logits_of(const Graph& graph);

struct TrainSettings {
  int epochs = 1;
  int batch = 128;
  std::string optimizer = "adam";   // "adam", "sgd" (momentum 0.9)
  double learning_rate = 1e-3;
  double scale_learning_rate = 2e-2;  // of what is learned of quantizers, in its units (trained_quantizer.h)
  double weight_decay = 0;          // decoupled, of weights of rank 2 and more
  std::string schedule = "cosine";  // "cosine" (to 0), "constant"
  std::int64_t seed = 0;            // order of samples
  bool learn_scales = true;         // quantizers whose spec says "learned", or all when force_learned
  bool force_learned = false;
  // Weights of what is added to the loss (its gradient alone: the loss that is reported is that of the task).
  double bits_penalty = 0;          // of the mean over the elements of the learned widths, in bits
  double accumulator_penalty = 0;   // of A2Q's sum of max(0, t - log2(s T)), see core/quant/weight_norm.h
  int max_samples = 0;              // of the training split; 0: all
  int validation_samples = 1000;    // held out from the end of the training split, at most a fifth; decides "best kept"
  bool augment_flip = false;        // mirror images at random
};

struct TrainResult {
  WeightsPtr weights;        // new master weights (and BN running averages)
  QuantizerMap quantizers;   // with learned or recomputed scales; empty for float training
  std::vector<TrainPoint> curve;
  double best_top1 = 0;
  int best_epoch = 0;        // whose state is returned: the best on the validation samples (0: before training)
  bool cancelled = false;    // stopped on request: the best so far is returned
};

// quantizers null: float training. Trains every initializer that is a weight or bias of a layer, scale or bias
// of a normalization, PRelu's slope, or the constant of an Add behind MatMul, Gemm or Conv. Loss: cross-entropy
// of the first output (of what enters its Softmax) against the labels, averaged over the batch.
// Quantized: weights go through their quantizer with a straight-through gradient that also passes clipped
// values unless their spec's clip_gradient says otherwise; activations start from the quantizers' scales. A scale
// is
//   learned (LSQ's gradient; in the spec's scale_domain, log2 where only force_learned says so) when its spec or
//     force_learned says so, and its zero point and width with it when the spec does; learned weight scales of at
//     most 3 bits start at the least squared error; a quantizer of the network's own input stays as it is;
//   else recomputed from the weight at each step (absmax, minmax), or left as it is (percentile, mse, fixed
//     clip limits, constants, activations). Dynamic scales are constants of the graph.
// Quantizers with two scales learn both, the second as a length of the weight (core/quant/weight_norm.h); codes fit
// the accumulator after every step. Truncated outputs follow the scale of their input. With spec.delay a tensor
// stays float for so many optimizer steps; a weight's quantizer is then found on the weight as it is. Validation
// always quantizes. Quantizers with one `share` are one, with the sum of the gradients. Biases are trained in float
// and get their quantizer again at each validation and at the end. BatchNormalization: batch statistics and running
// averages (momentum 0.1) in float training, frozen in quantized training. A loss that is not finite is an error.
// partial("train-step", TrainPoint) is sent at most 10 times a second and at each end of epoch; a stop is looked at
// before each step.
Result<TrainResult> train(ModelPtr model, const QuantizerMap* quantizers, const Dataset& data,
                          const TrainSettings& settings, const std::string& device, JobContext& job);

}  // namespace quanvas::exec
