// Quanvas - the activations of all calibration samples in one network, which advance from node to node together, so
// that every node runs once however many layers a pass works on.
#pragma once

#include <memory>
#include <vector>

#include "core/exec/chunks.h"
#include "core/exec/pass_context.h"

namespace quanvas::rounding {

class Front {
 public:
  // In chunks of so many samples. training: tensors that autograd may work on, else inference tensors. ctx and
  // samples outlive it.
  Front(std::shared_ptr<const exec::Runner> runner, const PassContext& ctx,
        const std::vector<std::int64_t>& samples, std::int64_t chunk = exec::kChunkSize, bool training = false);

  // Runs the nodes up to position `end`, which it leaves out. weights: those that replace the runner's. Frees what
  // no later node reads.
  Status advance(std::size_t end, const exec::Environment& weights, JobContext& job);
  std::size_t chunks() const { return envs_.size(); }
  std::size_t done() const { return done_; }
  std::int64_t samples_in(std::size_t chunk) const;
  const at::Tensor& tensor(std::size_t chunk, TensorId id) const {
    return envs_[chunk][static_cast<std::size_t>(id)];
  }
  const exec::Environment& environment(std::size_t chunk) const { return envs_[chunk]; }
  const exec::Runner& runner() const { return *runner_; }
  // Class of each sample of a chunk; undefined without labels.
  const at::Tensor& labels(std::size_t chunk) const { return labels_[chunk]; }
  // Of the activations that are there now, in all chunks.
  double bytes() const;

 private:
  Status load(exec::Environment& env, std::int64_t c);

  std::shared_ptr<const exec::Runner> runner_;
  const PassContext& ctx_;
  const std::vector<std::int64_t>& samples_;
  const std::int64_t chunk_;
  const bool training_;
  std::vector<exec::Environment> envs_;
  std::vector<at::Tensor> labels_;
  std::size_t done_ = 0;
};

}  // namespace quanvas::rounding
