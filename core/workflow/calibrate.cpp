// Quanvas - verb "calibrate": one pass over the calibration samples, statistics of every activation that a
// quantizer could sit on. Formats are chosen later, without another pass.
#include <set>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/exec/chunks.h"
#include "core/workflow/perplexity.h"

namespace quanvas {
namespace {

// Samples of quick questions: few enough to be kept in memory and to run a layer within a click.
constexpr std::int64_t kMostSamples = 32;
constexpr double kSampleBytes = 192e6;

std::set<TensorId> activation_tensors(const Prepared& prepared) {
  std::set<TensorId> out;
  for (const Layer& layer : prepared.layers)
    for (const Site& site : layer.sites()) {
      const TensorId id = site_tensor(layer, site);
      if (id != kNoTensor && !prepared.model->graph->tensor(id).is_initializer) out.insert(id);
    }
  return out;
}

// Outputs of Relu whose input is looked at anyway: their statistics follow from the input's, without a look at them.
std::map<TensorId, TensorId> rectified_tensors(const Graph& graph, const std::set<TensorId>& wanted) {
  std::map<TensorId, TensorId> out;
  for (const Node& node : graph.nodes())
    if (node.op == "Relu" && node.domain.empty() && !node.outputs.empty() && wanted.count(node.input(0)) &&
        wanted.count(node.outputs[0]))
      out[node.input(0)] = node.outputs[0];
  return out;
}

void warn_non_finite(const quant::Statistics& statistics, JobContext& job) {
  for (const auto& [name, s] : statistics.tensors)
    if (s.non_finite() > 0)
      job.issue({Severity::kWarning, name, std::to_string(static_cast<long long>(s.non_finite())) +
                 " values were NaN or infinite in calibration and were left out of its statistics.", ""});
}

bool keep_batches(const quant::Statistics& statistics) {
  for (const auto& [name, s] : statistics.tensors)
    if (s.count() > 0 && s.batches().empty()) return false;
  return true;
}

// Samples as one input without what fills short windows up: longer windows are cut to the shortest.
at::Tensor even_input(const exec::Chunk& chunk, const Dataset& data, const Graph& graph) {
  const auto parts = without_filling(chunk, data, graph);
  if (parts.size() == 1) return parts[0].input;
  std::int64_t shortest = chunk.input.size(1);
  for (const auto& part : parts) shortest = std::min(shortest, part.input.size(1));
  return chunk.input.narrow(1, 0, shortest).contiguous();
}

using ChunkStatistics = std::map<TensorId, quant::TensorStatistics>;

// Of one run, without batches.
Result<ChunkStatistics> statistics_of(const exec::Runner& runner, const at::Tensor& input, const std::set<TensorId>& wanted,
                                      const std::map<TensorId, TensorId>& rectified) {
  ChunkStatistics out;
  exec::RunHooks hooks;
  hooks.tap = [&](TensorId id, const at::Tensor& value) {
    if (!wanted.count(id) || out.count(id) || !value.is_floating_point()) return;
    const at::Tensor x = value.to(at::kCPU, at::kFloat).contiguous();
    quant::TensorStatistics& s = out[id];
    std::vector<float> channel_highest;
    s.add(x.data_ptr<float>(), Shape(x.sizes().begin(), x.sizes().end()), &channel_highest);
    if (const auto relu = rectified.find(id); relu != rectified.end() && s.non_finite() == 0)
      out[relu->second] = s.rectified(channel_highest);
  };
  QUANVAS_CHECK(runner.run({input}, hooks));
  return out;
}

}  // namespace

std::string WorkbenchState::statistics_key(const Prepared& prepared, const CalibrationSettings& settings) const {
  const Data d = data();
  return Hasher().text(prepared.hash).text(d.calibrate ? d.calibrate->hash() : "").number(settings.samples)
      .number(settings.seed).hex();
}

quant::StatisticsPtr WorkbenchState::known_statistics(const Prepared& prepared, const CalibrationSettings& settings) {
  if (!data().calibrate) return nullptr;
  const std::string key = statistics_key(prepared, settings);
  std::lock_guard lock(cache_mutex_);
  if (const auto it = statistics_.find(key); it != statistics_.end()) return it->second;
  const auto artifact = project_->value("statistics/" + key);
  if (!artifact || artifact->empty()) return nullptr;
  const auto bytes = project_->artifact(*artifact);
  if (!bytes) return nullptr;
  auto statistics = unpack_statistics(*bytes);
  if (!statistics) return nullptr;
  return statistics_[key] = std::make_shared<const quant::Statistics>(std::move(*statistics));
}

Result<quant::StatisticsPtr> WorkbenchState::gather_statistics(const Prepared& prepared,
                                                               const CalibrationSettings& settings, JobContext& job,
                                                               bool need_batches) {
  if (auto known = known_statistics(prepared, settings)) {
    if (!need_batches || keep_batches(*known)) {
      warn_non_finite(*known, job);
      return known;
    }
    job.issue({Severity::kInfo, "Calibration", "Done again: the stored statistics are of an earlier version and keep no batches.", ""});
  }
  const Data d = data();
  if (!d.calibrate)
    return no_data("Activations need calibration data", d.calibrate_error, "Declare a data set for calibration.");
  const std::set<TensorId> wanted = activation_tensors(prepared);
  const auto samples = choose_samples(d.calibrate->size(), settings.samples, settings.seed);
  auto statistics = std::make_shared<quant::Statistics>();
  statistics->key = statistics_key(prepared, settings);
  statistics->samples = static_cast<double>(samples.size());
  const Graph& graph = *prepared.model->graph;
  const std::map<TensorId, TensorId> rectified = rectified_tensors(graph, wanted);
  QUANVAS_CHECK(exec::for_each_chunk<ChunkStatistics>(
      *d.calibrate, samples, options_.device, job, "calibrate",
      [&](exec::Chunk& chunk) -> Result<ChunkStatistics> {
        ChunkStatistics out;
        for (const exec::Chunk& part : without_filling(chunk, *d.calibrate, graph)) {
          QUANVAS_TRY(ChunkStatistics more, statistics_of(*prepared.runner, part.input, wanted, rectified));
          if (out.empty()) out = std::move(more);
          else for (auto& [id, s] : more) out[id].merge(s);
        }
        // A chunk is a batch: the same samples for any number of threads.
        for (auto& [id, s] : out) s.close_batch();
        return out;
      },
      [&](std::int64_t, ChunkStatistics& chunk) -> Status {
        for (auto& [id, value] : chunk) {
          auto [it, fresh] = statistics->tensors.try_emplace(graph.tensor(id).name, std::move(value));
          if (!fresh) it->second.merge(value);
        }
        return {};
      },
      chunk_size_for(graph)));
  warn_non_finite(*statistics, job);
  if (!project_->read_only()) {
    const auto keep = [&]() -> Status {
      QUANVAS_TRY(const std::string artifact, project_->put_artifact(pack_statistics(*statistics)));
      return project_->set_value("statistics/" + statistics->key, artifact);
    };
    if (const Status status = keep(); !status)
      job.issue({Severity::kWarning, project_->path(), "The statistics were not stored: " + status.error().message,
                 "They hold as long as the project is open; later they are gathered again."});
  }
  std::lock_guard lock(cache_mutex_);
  statistics_[statistics->key] = statistics;
  return quant::StatisticsPtr(statistics);
}

Result<SamplePtr> WorkbenchState::sample_for(const PreparedPtr& prepared, const CalibrationSettings& settings) {
  const Data d = data();
  if (!d.calibrate) return SamplePtr();
  const std::string key = statistics_key(*prepared, settings);
  std::lock_guard lock(cache_mutex_);
  if (sample_ && sample_key_ == key) return sample_;
  return guarded("calibration sample", [&]() -> Result<SamplePtr> {
    c10::InferenceMode inference;
    std::set<TensorId> wanted = activation_tensors(*prepared);
    for (const Layer& layer : prepared->layers)
      for (const TensorId id : run_of(*prepared->model->graph, layer).reads) wanted.insert(id);
    QUANVAS_TRY(const double bytes, bytes_per_sample(*prepared->runner, *d.calibrate, wanted));
    const auto affordable = static_cast<std::int64_t>(kSampleBytes / std::max(1.0, bytes));
    auto samples = choose_samples(d.calibrate->size(), settings.samples, settings.seed);
    samples.resize(static_cast<std::size_t>(std::min<std::int64_t>(
        static_cast<std::int64_t>(samples.size()), std::clamp<std::int64_t>(affordable, 1, kMostSamples))));
    auto sample = std::make_shared<ActivationSample>();
    sample->samples = static_cast<std::int64_t>(samples.size());
    QUANVAS_TRY(exec::Chunk chunk, exec::read_chunk(*d.calibrate, std::move(samples), 0, options_.device));
    QUANVAS_TRY(sample->tensors, run_keeping(*prepared->runner, even_input(chunk, *d.calibrate, *prepared->model->graph), wanted));
    sample_ = sample;
    sample_key_ = key;
    return sample_;
  });
}

Result<ProjectState> WorkbenchState::calibrate(JobContext& job) {
  return guarded("calibrate", [&]() -> Result<ProjectState> {
    QUANVAS_TRY(const Recipe recipe, project_->recipe());
    QUANVAS_TRY(const PreparedPtr prepared, prepare_whole(recipe, job));
    QUANVAS_TRY(const auto statistics, gather_statistics(*prepared, recipe.calibration, job, /*need_batches=*/true));
    (void)statistics;
    return state();
  });
}

}  // namespace quanvas
