// Quanvas - tensors of runs: errors between them, outputs as rows, and how much of a run is kept in memory.
#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/exec/chunks.h"
#include "core/graph/memory.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

constexpr std::int64_t kLiveBytes = 1'000'000'000;  // of the activations of a walk that keeps none
constexpr double kChunkBytes = 256e6;  // of the activations that one worker keeps

at::Tensor on_cpu(const at::Tensor& x) { return x.detach().to(at::kCPU, at::kFloat).contiguous(); }

}  // namespace

at::Tensor weight_values(const Prepared& prepared, TensorId id) {
  const at::Tensor& w = prepared.runner->weights()[static_cast<std::size_t>(id)];
  return w.defined() ? on_cpu(w) : w;
}

void add_error(quant::ErrorSums& sums, const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = on_cpu(x), b = on_cpu(y);
  sums.add(a.data_ptr<float>(), b.data_ptr<float>(), a.numel());
}

TensorError tensor_error(const at::Tensor& x, const at::Tensor& y) {
  quant::ErrorSums sums;
  add_error(sums, x, y);
  return sums.result();
}

Result<at::Tensor> output_rows(const at::Tensor& output, std::int64_t samples) {
  if (samples < 1 || output.numel() % samples != 0)
    return fail(ErrorCode::kUnsupported, "The network gives " + std::to_string(output.numel()) + " numbers for " +
                                             std::to_string(samples) + " samples; its first output must have the "
                                             "same number of scores for each sample.");
  return on_cpu(output).reshape({samples, -1});
}

Result<at::Tensor> prediction_rows(const at::Tensor& output, std::int64_t samples, const Dataset& data) {
  if (!data.has_tokens() || output.dim() != 3) return output_rows(output, samples);
  return on_cpu(output).reshape({-1, output.size(2)});
}

at::Tensor log_probabilities(const at::Tensor& rows, bool is_distribution) {
  if (!is_distribution) return at::log_softmax(rows, 1, at::kDouble);
  const at::Tensor p = rows.to(at::kDouble).clamp_min(1e-30);
  return p.log() - p.sum(1, /*keepdim=*/true).log();
}

Result<exec::Environment> run_keeping(const exec::Runner& runner, const at::Tensor& input,
                                      const std::set<TensorId>& wanted) {
  exec::Environment kept(runner.graph().tensors().size());
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& value) {
    if (wanted.count(id)) kept[static_cast<std::size_t>(id)] = value;
  };
  QUANVAS_CHECK(runner.run({input}, hooks));
  return kept;
}

Result<double> bytes_per_sample(const exec::Runner& runner, const Dataset& data, const std::set<TensorId>& wanted) {
  if (data.size() < 1) return 0.0;
  c10::InferenceMode inference;
  QUANVAS_TRY(const exec::Chunk chunk, exec::read_chunk(data, {0}, 0, runner.device()));
  double bytes = 0;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& value) {
    if (wanted.count(id)) bytes += static_cast<double>(value.nbytes());
  };
  QUANVAS_CHECK(runner.run({chunk.input}, hooks));
  return bytes;
}

std::int64_t chunk_size_for(const Graph& graph) {
  return std::clamp<std::int64_t>(kLiveBytes / live_bytes(graph), 1, exec::kChunkSize);
}

std::int64_t chunk_size_for(double bytes_per_sample) {
  const double fits = kChunkBytes / std::max(1.0, bytes_per_sample);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(fits), 1, exec::kChunkSize);
}

}  // namespace quanvas
