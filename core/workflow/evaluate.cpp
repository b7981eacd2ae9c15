// Quanvas - verb "evaluate": accuracy against labels and against the float network, errors layer by layer.
#include <chrono>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

constexpr std::int64_t kLayerSamples = 128;

struct Counts {
  double n = 0, top1 = 0, top5 = 0, loss = 0, agree = 0;
  quant::ErrorSums logits;
};

// [n, classes] whatever the network's output looks like; the last dimension that is not 1 are the classes.
at::Tensor as_logits(const at::Tensor& output) {
  const at::Tensor x = output.to(at::kCPU, at::kFloat);
  return x.dim() <= 1 ? x.reshape({1, -1}) : x.reshape({x.size(0), -1});
}

// Some exporters put the softmax into the graph; then the output is a distribution already.
bool is_distribution(const at::Tensor& logits) {
  return logits.numel() > 0 && logits.min().item<float>() >= 0 &&
         (logits.sum(1) - 1).abs().max().item<float>() < 1e-3f;
}

Counts count(const at::Tensor& output, const at::Tensor& reference, const at::Tensor& labels) {
  Counts c;
  const at::Tensor logits = as_logits(output);
  c.n = static_cast<double>(logits.size(0));
  const at::Tensor best = logits.argmax(1);
  if (labels.defined()) {
    const at::Tensor target = labels.to(at::kCPU);
    c.top1 = best.eq(target).sum().item<double>();
    const auto k = std::min<std::int64_t>(5, logits.size(1));
    c.top5 = std::get<1>(logits.topk(k, 1)).eq(target.unsqueeze(1)).sum().item<double>();
    if (target.max().item<std::int64_t>() < logits.size(1)) {
      const at::Tensor log_p =
          is_distribution(logits) ? logits.clamp_min(1e-30).log().to(at::kDouble) : at::log_softmax(logits, 1, at::kDouble);
      c.loss = -log_p.gather(1, target.unsqueeze(1)).sum().item<double>();
    } else {
      c.loss = std::nan("");
    }
  }
  if (reference.defined()) {
    const at::Tensor r = as_logits(reference).contiguous();
    const at::Tensor l = logits.contiguous();
    c.agree = best.eq(r.argmax(1)).sum().item<double>();
    c.logits.add(r.data_ptr<float>(), l.data_ptr<float>(), l.numel());
  }
  return c;
}

using LayerSums = std::vector<std::pair<quant::ErrorSums, quant::ErrorSums>>;  // isolated, cumulative

void add_error(quant::ErrorSums& sums, const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = x.to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor b = y.to(at::kCPU, at::kFloat).contiguous();
  sums.add(a.data_ptr<float>(), b.data_ptr<float>(), a.numel());
}

}  // namespace

Result<Accuracy> WorkbenchState::measure_accuracy(const Prepared& prepared, const exec::Runner* quantized, int samples,
                                                  JobContext& job) {
  const Data d = data();
  if (!d.evaluate)
    return fail(ErrorCode::kInvalidArgument, "There is no evaluation data. " + d.status.problem,
                "Declare a data set for evaluation.");
  const bool labels = d.evaluate->has_labels();
  const auto chosen = choose_samples(d.evaluate->size(), samples, 0);
  Counts total;
  QUANVAS_CHECK(exec::for_each_chunk<Counts>(
      *d.evaluate, chosen, options_.device, job, "evaluate",
      [&](exec::Chunk& chunk) -> Result<Counts> {
        QUANVAS_TRY(const auto reference, prepared.runner->run({chunk.input}));
        if (!quantized) return count(reference.at(0), {}, chunk.labels);
        QUANVAS_TRY(const auto output, quantized->run({chunk.input}));
        return count(output.at(0), reference.at(0), chunk.labels);
      },
      [&](std::int64_t, Counts& c) -> Status {
        total.n += c.n;
        total.top1 += c.top1;
        total.top5 += c.top5;
        total.loss += c.loss;
        total.agree += c.agree;
        total.logits.merge(c.logits);
        return {};
      }));
  if (total.n == 0) return fail(ErrorCode::kInvalidArgument, "The evaluation data set is empty.");
  Accuracy a;
  const double nan = std::nan("");
  a.samples = total.n;
  a.top1 = labels ? total.top1 / total.n : nan;
  a.top5 = labels ? total.top5 / total.n : nan;
  a.loss = labels ? total.loss / total.n : nan;
  a.top1_stderr = labels ? std::sqrt(a.top1 * (1 - a.top1) / total.n) : nan;
  a.agreement = quantized ? total.agree / total.n : nan;
  a.output_sqnr_db = quantized ? total.logits.result().sqnr_db : nan;
  return a;
}

Result<std::vector<LayerResult>> WorkbenchState::measure_layers(const Prepared& prepared, const QuantizedModel& network,
                                                                JobContext& job) {
  const Graph& graph = *network.model->graph;
  std::vector<LayerResult> out;
  std::vector<const Layer*> measured;
  const std::vector<Layer> layers = find_layers(graph);
  QUANVAS_TRY(const auto quantized, exec::Runner::create(network.model, &network.quantizers, options_.device));
  for (const Layer& layer : layers) {
    bool any = false;
    LayerResult r;
    r.node = layer.node;
    r.name = graph.find(layer.node)->name;
    r.op = graph.find(layer.node)->op;
    for (const Site& site : layer.sites()) {
      const auto q = network.quantizers.find(site);
      if (q == network.quantizers.end()) continue;
      any = true;
      if (site.kind == SiteKind::kWeight) r.weight_format = chip_text(q->second.spec, site.kind);
      if (site.kind == SiteKind::kInput) r.activation_format = chip_text(q->second.spec, site.kind);
      if (site.kind == SiteKind::kWeight) {
        // Against the weight that the recipe started from, so that training and corrections count too.
        const TensorId before = prepared.model->graph->tensor(graph.tensor(layer.weight).name);
        const at::Tensor x = before == kNoTensor ? at::Tensor() : weight_values(prepared, before);
        if (x.defined()) r.weight = tensor_error(x, quantized->weights()[static_cast<std::size_t>(layer.weight)]);
      }
    }
    if (!any) continue;
    out.push_back(std::move(r));
    measured.push_back(&layer);
  }
  const Data d = data();
  const DatasetPtr source = d.calibrate ? d.calibrate : d.evaluate;
  if (!source || out.empty()) return out;

  // The float reference is the prepared model: same tensors by name, weights before correction or training.
  const Graph& base = *prepared.model->graph;
  std::vector<TensorId> reference_id;
  for (const Layer* layer : measured) reference_id.push_back(base.tensor(graph.tensor(layer->output).name));
  LayerSums sums(out.size());
  const auto samples = choose_samples(source->size(), kLayerSamples, 0);
  QUANVAS_CHECK(exec::for_each_chunk<LayerSums>(
      *source, samples, options_.device, job, "layer errors",
      [&](exec::Chunk& chunk) -> Result<LayerSums> {
        LayerSums local(out.size());
        QUANVAS_TRY(const exec::Environment reference, prepared.runner->run_all({chunk.input}));
        QUANVAS_TRY(const exec::Environment actual, quantized->run_all({chunk.input}));
        for (std::size_t i = 0; i < measured.size(); ++i) {
          if (reference_id[i] == kNoTensor) continue;
          const at::Tensor& want = reference[static_cast<std::size_t>(reference_id[i])];
          const auto output = static_cast<std::size_t>(measured[i]->output);
          add_error(local[i].second, want, actual[output]);
          // Isolated: the quantized layer on float inputs.
          exec::Environment env(graph.tensors().size());
          for (const TensorId id : measured[i]->inputs) {
            const TensorId from = base.tensor(graph.tensor(id).name);
            if (from != kNoTensor) env[static_cast<std::size_t>(id)] = reference[static_cast<std::size_t>(from)];
          }
          QUANVAS_CHECK(quantized->run_nodes({measured[i]->node}, env));
          add_error(local[i].first, want, env[output]);
        }
        return local;
      },
      [&](std::int64_t, LayerSums& local) -> Status {
        for (std::size_t i = 0; i < sums.size(); ++i) {
          sums[i].first.merge(local[i].first);
          sums[i].second.merge(local[i].second);
        }
        return {};
      }));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (reference_id[i] == kNoTensor) continue;
    out[i].isolated = sums[i].first.result();
    out[i].cumulative = sums[i].second.result();
  }
  return out;
}

Result<Run> WorkbenchState::evaluate_float(int samples, JobContext& job) {
  return guarded("evaluate", [&]() -> Result<Run> {
    const auto start = std::chrono::steady_clock::now();
    Recipe recipe;
    recipe.name = "float";
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, job));
    Run run = new_run(RunKind::kFloat, recipe);
    QUANVAS_TRY(run.accuracy, measure_accuracy(*prepared, nullptr, samples, job));
    const NetworkSize size = network_size(*prepared->model->graph, prepared->layers, {});
    run.bytes = size.bytes;
    run.bytes_float = size.bytes_float;
    run.bops = size.bops;
    run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    QUANVAS_CHECK(store(run, job));
    return run;
  });
}

Result<Run> WorkbenchState::evaluate_run(std::int64_t id, int samples, JobContext& job) {
  return guarded("evaluate", [&]() -> Result<Run> {
    QUANVAS_TRY(Run run, project_->run(id));
    if (run.kind == RunKind::kFloat) return evaluate_float(samples, job);
    QUANVAS_TRY(const Quantized loaded, load_run(run, job));
    QUANVAS_TRY(const auto runner, exec::Runner::create(loaded.network.model, &loaded.network.quantizers, options_.device));
    const auto start = std::chrono::steady_clock::now();
    QUANVAS_TRY(run.accuracy, measure_accuracy(*loaded.prepared, runner.get(), samples, job));
    run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    run.created = now_utc();
    run.name += ", evaluated again";
    QUANVAS_CHECK(store(run, job));
    return run;
  });
}

Result<Run> WorkbenchState::run_recipe(const RunRequest& request, JobContext& job) {
  return guarded("run", [&]() -> Result<Run> {
    const auto start = std::chrono::steady_clock::now();
    Recipe recipe;
    if (request.recipe) {
      recipe = *request.recipe;
    } else {
      QUANVAS_TRY(recipe, project_->recipe());
    }
    std::vector<Issue> issues;
    JobContext inner(job.stop_token(), [&](const Progress& p) { job.progress(p.phase, p.fraction, p.detail); },
                     [&](const Issue& issue) { issues.push_back(issue); job.issue(issue); },
                     [&](const std::string& kind, const std::string& value) { job.partial(kind, value); });
    QUANVAS_TRY(Quantized quantized, quantize(recipe, inner));
    Run run = new_run(RunKind::kQuantize, recipe);
    run.passes = std::move(quantized.passes);
    run.curve = std::move(quantized.curve);
    run.statistics_hash = quantized.statistics ? quantized.statistics->key : "";
    const NetworkSize size = network_size(*quantized.network.model->graph, find_layers(*quantized.network.model->graph),
                                          quantized.network.quantizers);
    run.bytes = size.bytes;
    run.bytes_float = size.bytes_float;
    run.bops = size.bops;
    const auto keep = [&]() -> Status {
      run.issues = issues;
      run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (run.artifact.empty() && !project_->read_only()) {
        QUANVAS_TRY(run.artifact, project_->put_artifact(pack_artifact(quantized.network, *quantized.prepared->model)));
      }
      return run.id ? project_->update_run(run) : store(run, job);
    };
    // A training that was stopped has given its best so far. That is stored before it is measured, because whoever
    // stopped it may end the engine meanwhile; the measuring itself is finished.
    JobContext finishing({}, [&](const Progress& p) { job.progress(p.phase, p.fraction, p.detail); });
    JobContext& rest = quantized.stopped_early ? finishing : inner;
    if (quantized.stopped_early) {
      run.name += " (training stopped early)";
      rest.set_range(0.9, 1);
      rest.progress("store", 0);
      if (!project_->read_only()) QUANVAS_CHECK(keep());
    }
    const bool trained = !run.curve.empty();
    if (request.evaluate && data().evaluate) {
      rest.set_range(trained ? 0.9 : 0.5, trained ? 0.97 : 0.85);
      QUANVAS_TRY(const auto runner,
                  exec::Runner::create(quantized.network.model, &quantized.network.quantizers, options_.device));
      QUANVAS_TRY(run.accuracy, measure_accuracy(*quantized.prepared, runner.get(), request.samples, rest));
    }
    rest.set_range(trained ? 0.97 : 0.85, 1);
    QUANVAS_TRY(run.layers, measure_layers(*quantized.prepared, quantized.network, rest));
    QUANVAS_CHECK(keep());
    return run;
  });
}

}  // namespace quanvas
