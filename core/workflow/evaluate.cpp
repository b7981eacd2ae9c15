// Quanvas - verb "evaluate": accuracy against labels and against the float network, errors layer by layer.
#include <algorithm>
#include <chrono>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/base/guarded.h"
#include "core/base/hash.h"
#include "core/exec/chunks.h"
#include "core/exec/train.h"
#include "core/workflow/perplexity.h"

namespace quanvas {
namespace {

constexpr std::int64_t kLayerSamples = 128;

struct Counts {
  double outside = 0, nan = 0;         // samples with a label that is no class, with NaN in the output
  std::int64_t most = 0, classes = 0;  // largest label, scores of a sample
  double n = 0, top1 = 0, top5 = 0, loss = 0, agree = 0;
  quant::ErrorSums output;
  at::Tensor reference;
};

Result<Counts> count(const at::Tensor& rows, const at::Tensor& reference, const at::Tensor& labels, bool is_distribution) {
  Counts c;
  c.n = static_cast<double>(rows.size(0));
  c.classes = rows.size(1);
  c.nan = static_cast<double>(rows.isnan().any(1).sum().item<std::int64_t>());
  const at::Tensor best = rows.argmax(1);
  if (labels.defined()) {
    const at::Tensor target = labels.to(at::kCPU);
    const auto least = target.min().item<std::int64_t>(), most = target.max().item<std::int64_t>();
    if (least < 0)
      return fail(ErrorCode::kInvalidArgument, "A label of the evaluation data is " + std::to_string(least) +
                                                   "; labels count from 0.",
                  "Leave the samples without a label out.");
    c.most = most;
    c.outside = target.ge(rows.size(1)).sum().item<double>();
    c.top1 = best.eq(target).sum().item<double>();
    const auto k = std::min<std::int64_t>(5, rows.size(1));
    c.top5 = std::get<1>(rows.topk(k, 1)).eq(target.unsqueeze(1)).sum().item<double>();
    if (most < rows.size(1))
      c.loss = -log_probabilities(rows, is_distribution).gather(1, target.unsqueeze(1)).sum().item<double>();
    else
      c.loss = std::nan("");
  }
  if (reference.defined()) {
    if (reference.sizes() != rows.sizes())
      return fail(ErrorCode::kInternal, "The quantized network gives an output of another shape than the float one.");
    c.agree = best.eq(reference.argmax(1)).sum().item<double>();
    add_error(c.output, reference, rows);
  }
  return c;
}

bool trains(const Recipe& recipe) {
  return std::any_of(recipe.passes.begin(), recipe.passes.end(), [](const PassEntry& entry) {
    const Pass* pass = Registry<Pass>::instance().find(entry.id);
    return entry.enabled && pass && pass->stage() == PassStage::kTraining;
  });
}

std::string count_text(double n) { return std::to_string(static_cast<long long>(n)); }

using LayerSums = std::vector<std::pair<quant::ErrorSums, quant::ErrorSums>>;  // isolated, cumulative

}  // namespace

Result<Accuracy> WorkbenchState::measure_accuracy(const Prepared& prepared, const exec::Runner* quantized, int samples,
                                                  JobContext& job) {
  const Data d = data();
  if (!d.evaluate)
    return no_data("There is no evaluation data", d.evaluate_error, "Declare a data set for evaluation.");
  if (d.evaluate->has_tokens()) return measure_tokens(prepared, quantized, d.evaluate, samples, job);
  const bool labels = d.evaluate->has_labels();
  const auto chosen = choose_samples(d.evaluate->size(), samples, 0);
  const bool is_distribution = exec::logits_of(prepared.runner->graph()) != prepared.runner->graph().outputs().at(0);
  auto fresh = std::make_shared<FloatOutputs>();
  fresh->key = Hasher().text(prepared.hash).text(d.evaluate->hash()).number(samples).hex();
  const auto known = known_outputs(fresh->key);
  Counts total;
  QUANVAS_CHECK(exec::for_each_chunk<Counts>(
      *d.evaluate, chosen, options_.device, job, "evaluate",
      [&](exec::Chunk& chunk) -> Result<Counts> {
        const std::int64_t n = chunk.input.size(0);
        const auto rows_of = [&](const exec::Runner& runner) -> Result<at::Tensor> {
          QUANVAS_TRY(const auto outputs, runner.run({chunk.input}));
          return output_rows(outputs.at(0), n);
        };
        at::Tensor reference;
        if (known) {
          reference = known->chunks.at(static_cast<std::size_t>(chunk.index));
        } else {
          QUANVAS_TRY(reference, rows_of(*prepared.runner));
        }
        at::Tensor rows = reference;
        if (quantized) {
          QUANVAS_TRY(rows, rows_of(*quantized));
        }
        QUANVAS_TRY(Counts c, count(rows, quantized ? reference : at::Tensor(), chunk.labels, is_distribution));
        c.reference = reference;
        return c;
      },
      [&](std::int64_t, Counts& c) -> Status {
        total.n += c.n;
        total.outside += c.outside;
        total.nan += c.nan;
        total.most = std::max(total.most, c.most);
        total.classes = c.classes;
        total.top1 += c.top1;
        total.top5 += c.top5;
        total.loss += c.loss;
        total.agree += c.agree;
        total.output.merge(c.output);
        if (!known) fresh->add(std::move(c.reference));
        return {};
      },
      chunk_size_for(prepared.runner->graph())));
  if (total.n == 0) return fail(ErrorCode::kInvalidArgument, "The evaluation data set is empty.");
  if (total.outside > 0)
    job.issue({Severity::kWarning, "Evaluation data",
               count_text(total.outside) + " of " + count_text(total.n) + " samples have a label that is no class of the network, up to " +
                   std::to_string(total.most) + "; it has " + std::to_string(total.classes) +
                   " classes, counted from 0. They count as wrong, and there is no loss.",
               "Check the labels, and whether they belong to this network."});
  if (total.nan > 0)
    job.issue({Severity::kWarning, "Output", "The output holds NaN for " + count_text(total.nan) + " of " + count_text(total.n) +
                                                 " samples, so its accuracy and errors say nothing about them.",
               "Look for NaN in the weights and in the data."});
  keep_outputs(fresh);
  Accuracy a;
  const double nan = std::nan("");
  a.samples = total.n;
  a.top1 = labels ? total.top1 / total.n : nan;
  a.top5 = labels ? total.top5 / total.n : nan;
  a.loss = labels ? total.loss / total.n : nan;
  a.top1_stderr = labels ? std::sqrt(a.top1 * (1 - a.top1) / total.n) : nan;
  a.agreement = quantized ? total.agree / total.n : nan;
  a.output_sqnr_db = quantized ? total.output.result().sqnr_db : nan;
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
    std::vector<at::Tensor> weights, shown;  // of all gates, where there are several
    for (const Site& site : layer.sites()) {
      const auto q = network.quantizers.find(site);
      if (q == network.quantizers.end()) continue;
      any = true;
      if (site.kind == SiteKind::kWeight) r.weight_format = chip_text(q->second.spec, site.kind);
      if (site.kind == SiteKind::kInput) r.activation_format = chip_text(q->second.spec, site.kind);
      if (site.kind == SiteKind::kWeight) {
        // Against the weight that the recipe started from, so that training and corrections count too.
        const std::string& name = graph.tensor(site_tensor(layer, site)).name;
        const TensorId before = prepared.model->graph->tensor(name);
        const at::Tensor x = before == kNoTensor ? at::Tensor() : weight_values(prepared, before);
        const TensorData* now = network.model->weights->find(name);
        if (!x.defined() || !now) continue;
        // By this layer's own quantizer: another layer may read the same weight in another format.
        weights.push_back(x.flatten());
        shown.push_back(exec::fake_quantize(exec::to_tensor(*now).to(at::kFloat), q->second).flatten());
      }
    }
    if (weights.size() == 1) r.weight = tensor_error(weights[0], shown[0]);
    if (weights.size() > 1) r.weight = tensor_error(at::cat(weights), at::cat(shown));
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
  std::map<TensorId, std::size_t> by_output;
  std::set<TensorId> wanted;  // of the float network
  std::vector<LayerRun> runs;
  for (const Layer* layer : measured) {
    runs.push_back(run_of(graph, *layer));
    reference_id.push_back(base.tensor(graph.tensor(layer->output).name));
    if (reference_id.back() == kNoTensor) continue;
    by_output[layer->output] = reference_id.size() - 1;
    wanted.insert(reference_id.back());
    for (const TensorId id : runs.back().reads)
      if (const TensorId from = base.tensor(graph.tensor(id).name); from != kNoTensor) wanted.insert(from);
  }
  QUANVAS_TRY(const double bytes, bytes_per_sample(*prepared.runner, *source, wanted));
  const auto add_errors = [&](const at::Tensor& input, LayerSums& local) -> Status {
    QUANVAS_TRY(const exec::Environment reference, run_keeping(*prepared.runner, input, wanted));
    const auto want = [&](std::size_t i) { return reference[static_cast<std::size_t>(reference_id[i])]; };
    exec::RunHooks cumulative;
    cumulative.tap = [&](TensorId id, const at::Tensor& value) {
      if (const auto it = by_output.find(id); it != by_output.end())
        add_error(local[it->second].second, want(it->second), value);
    };
    QUANVAS_CHECK(quantized->run({input}, cumulative));
    for (std::size_t i = 0; i < measured.size(); ++i) {
      if (reference_id[i] == kNoTensor) continue;
      // Isolated: the quantized layer on float inputs.
      exec::Environment env(graph.tensors().size());
      for (const TensorId id : runs[i].reads) {
        const TensorId from = base.tensor(graph.tensor(id).name);
        if (from != kNoTensor) env[static_cast<std::size_t>(id)] = reference[static_cast<std::size_t>(from)];
      }
      QUANVAS_CHECK(quantized->run_nodes(runs[i].nodes, env));
      add_error(local[i].first, want(i), env[static_cast<std::size_t>(measured[i]->output)]);
    }
    return {};
  };
  LayerSums sums(out.size());
  const auto samples = choose_samples(source->size(), kLayerSamples, 0);
  QUANVAS_CHECK(exec::for_each_chunk<LayerSums>(
      *source, samples, options_.device, job, "layer errors",
      [&](exec::Chunk& chunk) -> Result<LayerSums> {
        LayerSums local(out.size());
        for (const exec::Chunk& part : without_filling(chunk, *source, base)) QUANVAS_CHECK(add_errors(part.input, local));
        return local;
      },
      [&](std::int64_t, LayerSums& local) -> Status {
        for (std::size_t i = 0; i < sums.size(); ++i) {
          sums[i].first.merge(local[i].first);
          sums[i].second.merge(local[i].second);
        }
        return {};
      },
      chunk_size_for(bytes)));
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
    std::vector<Issue> issues;
    JobContext noting(job.stop_token(), [&](const Progress& p) { job.progress(p.phase, p.fraction, p.detail); },
                      [&](const Issue& issue) { issues.push_back(issue); job.issue(issue); });
    QUANVAS_TRY(run.accuracy, measure_accuracy(*prepared, nullptr, samples, noting));
    const NetworkSize size = network_size(*prepared->model->graph, prepared->layers, {});
    run.bytes = size.bytes;
    run.bytes_float = size.bytes_float;
    run.bops = size.bops;
    run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    run.issues = issues;
    store(run, job);
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
    run.data_hash = data_hash();
    run.versions = engine_info(options_);
    run.name += ", evaluated again";
    run.id = 0;
    store(run, job);
    return run;
  });
}

// What a stopped run has finished is there for the next one, also when it is the measuring that was stopped.
Result<Run> WorkbenchState::run_recipe(const RunRequest& request, JobContext& job) {
  Result<Run> run = quantize_and_measure(request, job);
  const Status kept = guarded("run", [&]() -> Status {
    if (run) drop_parts(job);
    else keep_parts(job);
    return {};
  });
  if (!kept) job.issue({Severity::kWarning, project_->path(), kept.error().message, kept.error().hint});
  return run;
}

Result<Run> WorkbenchState::quantize_and_measure(const RunRequest& request, JobContext& job) {
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
    // Told from the run of the same formats without training, whoever started it.
    if (!request.name.empty())
      run.name = request.name;
    else if (trains(recipe) && run.name.find("QAT") == std::string::npos)
      run.name += run.name.empty() ? "QAT" : ", QAT";
    run.curve = std::move(quantized.curve);
    run.statistics_hash = quantized.statistics ? quantized.statistics->key : "";
    const NetworkSize size = network_size(*quantized.network.model->graph, find_layers(*quantized.network.model->graph),
                                          quantized.network.quantizers);
    run.bytes = size.bytes;
    run.bytes_float = size.bytes_float;
    run.bops = size.bops;
    const auto keep = [&] {
      run.issues = issues;
      run.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      store(run, job, [&] { return pack_artifact(quantized.network, *quantized.prepared->model, quantized.prepared->hash); });
    };
    // A training that was stopped has given its best so far. That is stored before it is measured, because whoever
    // stopped it may end the engine meanwhile; the measuring itself is finished.
    JobContext finishing({}, [&](const Progress& p) { job.progress(p.phase, p.fraction, p.detail); },
                         [&](const Issue& issue) { issues.push_back(issue); job.issue(issue); });
    JobContext& rest = quantized.stopped_early ? finishing : inner;
    if (quantized.stopped_early) {
      run.name += " (training stopped early)";
      rest.set_range(0.9, 1);
      rest.progress("store", 0);
      if (!project_->read_only()) keep();
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
    keep();
    return run;
  });
}

}  // namespace quanvas
