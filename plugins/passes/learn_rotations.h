// Quanvas - rotations that are learned: steps of gradient descent on orthogonal matrices, for the loss of the network in the
// recipe's formats (Liu et al. 2024, "SpinQuant", section 3.2, arXiv 2405.16406).
//
// The network is the fused one. For a weight W' = A' W B, with A and B the rotations of its inputs and outputs in blocks and G
// the gradient of the loss at what the format makes of W' (straight through it),
//   dL/dA = (W B) G',    dL/dB = (A' W)' G,
// summed over blocks and weights; tables and biases have B alone. The loss, in nats or a ratio:
//   windows of tokens   cross entropy of the next token
//   labels              cross entropy
//   neither             squared difference of the outputs from the float network's, over their square
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/exec/pass_context.h"
#include "plugins/passes/rotator.h"

namespace quanvas {

struct LearnOptions {
  int steps = 100;
  int batch = 8;           // samples of a step
  double rate = 1.5;       // of the first step; falls to 0 along half a cosine
  double momentum = 0;     // of the heavy ball, below 1
  std::uint64_t seed = 0;  // order of the samples
  bool weights = true;     // weights in the recipe's formats, else in float
};

// The loss as a function of the rotations. Owned and used by one thread; results do not depend on the number of threads.
class RotationLoss {
 public:
  // model: with the rotations in its weights, whose `turned` is what they are without. plan: of `model`; sites without a
  // format stay float, as do biases. kInvalidArgument: no data, several inputs, no output that a loss could be taken of.
  static Result<std::unique_ptr<RotationLoss>> create(const PassContext& ctx, ModelPtr model, const Plan& plan,
                                                      std::vector<TurnedTensor> turned, std::vector<Rotation> rotations,
                                                      const LearnOptions& options);
  virtual ~RotationLoss() = default;

  // The calibration samples that decide what is kept, a quarter of them, and those that are learned from. Fewer than 8 samples
  // are both.
  virtual const std::vector<std::int64_t>& kept_samples() const = 0;
  virtual const std::vector<std::int64_t>& learned_samples() const = 0;
  virtual std::vector<Rotation> rotations() const = 0;
  // Other rotations; finds the weights in their formats again. Static formats of activations stay until calibrate().
  virtual Status set(std::vector<Rotation> rotations, JobContext& job) = 0;
  // Static formats of activations from the float network with these rotations, over all calibration samples.
  virtual Status calibrate(JobContext& job) = 0;
  virtual Result<double> loss(const std::vector<std::int64_t>& samples, JobContext& job) = 0;
  // The loss; gradients: one for each rotation, row-major.
  virtual Result<double> gradient(const std::vector<std::int64_t>& samples, std::vector<std::vector<double>>& gradients,
                                  JobContext& job) = 0;
};

struct LearnedRotations {
  double before = 0, after = 0;               // loss on the kept samples; after is not above before
  int step = 0;                               // after which it was found; 0: nothing better than the start was
  std::vector<std::vector<double>> matrices;  // empty when step is 0
};
// Errors: kCancelled, kInvalidArgument where the loss is not finite.
Result<LearnedRotations> learn_rotations(RotationLoss& loss, const LearnOptions& options, JobContext& job);

std::string to_bytes(const LearnedRotations& learned);
// Nothing: not what to_bytes() writes for rotations of these sizes, or matrices that are not orthogonal to 1e-6.
bool from_bytes(const std::string& bytes, const std::vector<Rotation>& rotations, LearnedRotations& out);

}  // namespace quanvas
