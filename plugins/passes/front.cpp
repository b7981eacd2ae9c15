#include "plugins/passes/front.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace quanvas::rounding {

using exec::Environment;

Front::Front(std::shared_ptr<const exec::Runner> runner, const PassContext& ctx,
             const std::vector<std::int64_t>& samples, std::int64_t chunk, bool training)
    : runner_(std::move(runner)),
      ctx_(ctx),
      samples_(samples),
      chunk_(chunk),
      training_(training),
      envs_((samples.size() + static_cast<std::size_t>(chunk) - 1) / static_cast<std::size_t>(chunk)),
      labels_(envs_.size()) {}

std::int64_t Front::samples_in(std::size_t chunk) const {
  return std::min<std::int64_t>(
      chunk_, static_cast<std::int64_t>(samples_.size()) - static_cast<std::int64_t>(chunk) * chunk_);
}

Status Front::advance(std::size_t end, const Environment& weights, JobContext& job) {
  if (end <= done_ && done_ > 0) return {};
  const Graph& graph = runner_->graph();
  std::vector<NodeId> nodes;
  for (std::size_t n = done_; n < end; ++n) nodes.push_back(graph.nodes()[n].id);
  exec::RunHooks hooks;
  hooks.weights = &weights;
  const std::size_t after = std::max(done_, end);
  std::vector<std::size_t> dead;
  for (std::size_t id = 0; id < graph.tensors().size(); ++id) {
    const auto& consumers = graph.tensors()[id].consumers;
    if (!consumers.empty() && graph.position(consumers.back()) >= after) continue;
    if (training_ && graph.is_output(static_cast<TensorId>(id)))
      continue;  // what the last block is learned against
    dead.push_back(id);
  }
  JobContext quiet(job.stop_token());
  QUANVAS_CHECK(exec::parallel_ordered(
      static_cast<std::int64_t>(envs_.size()), quiet, !training_,
      [&](std::int64_t c) -> Result<std::shared_ptr<void>> {
        const at::NoGradGuard no_gradient;
        Environment& env = envs_[static_cast<std::size_t>(c)];
        if (env.empty()) QUANVAS_CHECK(load(env, c));
        QUANVAS_CHECK(runner_->run_nodes(nodes, env, hooks));
        for (const std::size_t id : dead) env[id].reset();
        return std::shared_ptr<void>();
      },
      [](std::int64_t, void*) -> Status { return {}; }));
  done_ = after;
  return {};
}

double Front::bytes() const {
  double sum = 0;
  for (const Environment& env : envs_)
    for (const at::Tensor& t : env)
      if (t.defined()) sum += static_cast<double>(t.nbytes());
  return sum;
}

Status Front::load(Environment& env, std::int64_t c) {
  const Graph& graph = runner_->graph();
  const auto size = static_cast<std::int64_t>(samples_.size());
  const auto begin = samples_.begin() + c * chunk_,
             end = samples_.begin() + std::min<std::int64_t>(size, (c + 1) * chunk_);
  QUANVAS_TRY(exec::Chunk chunk, exec::read_chunk(*ctx_.calibration_data, {begin, end}, c, ctx_.device));
  env.resize(graph.tensors().size());
  env[static_cast<std::size_t>(graph.inputs()[0])] = chunk.input;
  labels_[static_cast<std::size_t>(c)] = chunk.labels;
  return {};
}

}  // namespace quanvas::rounding
