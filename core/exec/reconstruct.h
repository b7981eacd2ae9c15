// Quanvas - learned rounding of the weights of a block of layers together, on what the block gives: BRECQ (Li et
// al. 2021, arXiv 2102.05426, algorithm 1) with the gates of AdaRound (Nagel et al. 2020, arXiv 2004.10568, eq. 21
// to 25) or the shifts of AutoRound (Cheng et al. 2023, arXiv 2309.05516).
//
// The block runs as in the quantized network, its activation quantizers as they are (gradients straight through,
// not of clipped values); only its weights change:
//   gates  weight = lower + h(v) (upper - lower), h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1), Adam, and after the
//   warm-up
//          lambda sum(1 - |2 h - 1|^beta), beta from 20 to 2
//   signs  upper where h0 + v >= 1/2 and else lower, |v| <= 1/2; steps by the sign of the gradient, from 1 /
//   iterations to 0
// Loss: sum of weight (output - target)^2 over the batch, in units of the error that rounding alone makes of the
// block, so that lambda and rates fit any network. Inputs: with probability `mix` a value is the float network's
// instead of the quantized one's (QDrop, Wei et al. 2022, arXiv 2203.05740), drawn anew in each step.
#pragma once

#include "core/exec/runner.h"

namespace quanvas::exec {

struct BlockWeight {
  TensorId id = kNoTensor;
  at::Tensor original;  // float32, CPU: the float network's
  at::Tensor start;     // on the grid: what the block begins with, counts as met
  at::Tensor nearest;   // `original` rounded to nearest, counts as met, too
  std::vector<float> lower, upper,
      h;              // of each element: two values of the grid (equal: no choice) and where it begins between them
  at::Tensor result;  // filled: on the grid of lower and upper, or one of the two above
};

// Some samples: what the block reads and shall give. Plain tensors (not of inference mode) on the runner's device.
struct BlockPiece {
  std::int64_t samples = 0;
  std::vector<std::pair<TensorId, at::Tensor>> inputs;  // of the quantized network so far
  std::vector<at::Tensor> float_inputs;                 // of the float network, as inputs; empty: nothing is mixed
  std::vector<at::Tensor> targets;                      // as Block::outputs
  std::vector<at::Tensor> weights;                      // of the squares, as targets; empty: 1
};

struct Block {
  std::vector<NodeId> nodes;  // in topological order
  std::vector<TensorId> outputs;
  std::vector<BlockPiece> pieces;  // a step takes two
};

struct ReconstructOptions {
  bool gates = true;
  int iterations = 1000;
  double rate = 0.1;          // of Adam; signs: ignored
  double regularization = 3;  // lambda
  double warm_up = 0.2;
  double mix = 0;
  std::uint64_t seed = 0;  // of the order of pieces and of the mixture
};

// Losses per sample over all pieces without mixture, weights on the grid. Always after <= start and after <=
// nearest.
struct ReconstructReport {
  double nearest = 0, start = 0, after = 0;
  double soft = 0;           // with the weights as the gates begin: those of the float network, clipping aside
  double undecided = 0;      // mean of min(h, 1 - h) at the end; signs: 0
  std::int64_t changed = 0;  // weights that differ from the start
};

// runner: of the quantized network; its own weights and biases are used but for `weights`. quantizers: those of
// activations. Two shards of one piece each, summed in order, so that results are the same bits for any number of
// threads. A stop is looked at before each step. Errors: kCancelled, what the block's operators say; a loss that is
// no number ends the descent with the best so far.
Result<ReconstructReport> reconstruct(const Runner& runner, const QuantizerMap& quantizers, const Block& block,
                                      std::vector<BlockWeight>& weights, const ReconstructOptions& options,
                                      JobContext& job);

// The loss of one piece with soft weights at v (one vector for each weight), in units of 1 / `unit`, and its
// gradient in v, without regularization and mixture: what the descent with gates follows.
struct SoftLoss {
  double loss = 0;
  std::vector<std::vector<float>> gradient;
};
Result<SoftLoss> soft_loss(const Runner& runner, const QuantizerMap& quantizers, const Block& block,
                           const std::vector<BlockWeight>& weights, const std::vector<std::vector<float>>& v,
                           std::size_t piece, double unit);

}  // namespace quanvas::exec
