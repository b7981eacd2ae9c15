// Quanvas - verb "sweep": what would each layer cost at each width, alone? One cell = one layer at one width,
// everything else float. The float activations of a chunk are computed once (and kept while memory allows);
// a cell runs only what depends on its layer.
#include <algorithm>
#include <chrono>
#include <cmath>

#include <ATen/ATen.h>

#include "core/base/guarded.h"
#include "core/exec/chunks.h"
#include "core/exec/train.h"
#include "core/recipe/pool_sum.h"
#include "core/workflow/perplexity.h"

namespace quanvas {
namespace {

constexpr double kKeptBytes = 2e9;

// What the samples of a chunk should give: their labels, or their tokens. Neither: nothing is scored.
struct Truth {
  at::Tensor labels, tokens;
  std::vector<TokenWindow> windows;  // of tokens
  bool is_distribution = false;
};

// How a network did on samples: correct ones, or the losses of tokens.
struct Score {
  double correct = 0;
  TokenSums tokens;
  void merge(const Score& other) {
    correct += other.correct;
    tokens.merge(other.tokens);
  }
};

// The float network on a part of a chunk (without_filling).
struct FloatPart {
  exec::Environment env;  // empty when the activations are not kept
  Truth truth;
};

struct FloatChunk {
  std::vector<FloatPart> parts;
  Score score;
};

struct CellSums {
  Score score;
  quant::ErrorSums layer, output;
};

Truth truth_of(const exec::Chunk& chunk, const Dataset& data, bool is_distribution) {
  Truth truth{chunk.labels, {}, {}, is_distribution};
  if (!data.has_tokens()) return truth;
  truth.tokens = chunk.input;
  truth.windows = windows_of(data, chunk.samples);
  return truth;
}

Result<Score> score_of(const at::Tensor& output, const Truth& truth) {
  Score score;
  if (truth.tokens.defined()) {
    QUANVAS_TRY(const at::Tensor rows, scored_rows(output, truth.windows));
    QUANVAS_TRY(score.tokens, score_tokens(rows, truth.tokens, truth.windows, truth.is_distribution));
  } else if (truth.labels.defined()) {
    QUANVAS_TRY(const at::Tensor rows, output_rows(output, truth.labels.size(0)));
    score.correct = rows.argmax(1).eq(truth.labels.to(at::kCPU)).sum().item<double>();
  }
  return score;
}

std::set<TensorId> all_activations(const Graph& graph) {
  std::set<TensorId> out;
  for (std::size_t id = 0; id < graph.tensors().size(); ++id)
    if (!graph.tensors()[id].is_initializer) out.insert(static_cast<TensorId>(id));
  return out;
}

// What running these nodes takes from outside, and what their results are compared with.
std::set<TensorId> needed_by(const Graph& graph, const std::vector<NodeId>& nodes, TensorId layer_output) {
  std::set<TensorId> out, made;
  for (const NodeId id : nodes) {
    const Node& node = *graph.find(id);
    for (const TensorId t : node.inputs)
      if (t != kNoTensor && !made.count(t)) out.insert(t);
    made.insert(node.outputs.begin(), node.outputs.end());
  }
  out.insert(layer_output);
  out.insert(graph.outputs().at(0));
  return out;
}

bool wanted(const SweepSettings& settings, SiteKind kind) {
  return (settings.weights && kind == SiteKind::kWeight) || (settings.activations && kind == SiteKind::kInput);
}

// The current plan's quantizers of this layer at another width; where it is float, the uniform recipe's.
// An input that the layer before has quantized has that layer's format.
Plan cell_plan(const Graph& graph, const Plan& current, const Plan& uniform, const SweepSettings& settings, const Layer& layer, int bits) {
  Plan out;
  const NodeId node = layer.node;
  const auto given = [&](const Site& site) -> const SitePlan* {
    if (site.kind != SiteKind::kInput || site.operand != 0) return nullptr;
    const Site from = quantized_input(graph, layer, [&](const Site& s) {
      const SitePlan* found = current.find(s);
      return found && found->spec;
    });
    return from.node == kNoNode ? nullptr : current.find(from);
  };
  for (std::size_t i = 0; i < current.sites.size(); ++i) {
    SitePlan site = current.sites[i];
    if (site.site.node != node || !wanted(settings, site.site.kind)) continue;
    if (!site.spec) {
      const SitePlan* from = given(site.site);
      if (!from) from = uniform.find(site.site);
      if (from) site.spec = from->spec;
      site.share.clear();
    }
    if (!site.spec) continue;
    site.spec = with_bits(*site.spec, bits);
    if (site.spec->clip_min || site.spec->clip_max) site.spec->clip_min = site.spec->clip_max = std::nullopt;
    if (!check(*site.spec, site.site.kind).empty()) continue;
    out.sites.push_back(std::move(site));
  }
  return out;
}

// What rounds the weights of a cell. Everything else is float, so the inputs are the float network's: what depends on them
// alone is computed once for all widths. Errors: passes that work on more than weights, or without weights to work on.
Result<std::vector<ChosenPass>> rounding_passes(const SweepSettings& settings) {
  Recipe recipe;
  recipe.passes = settings.passes;
  for (const bool before : {true, false}) {
    QUANVAS_TRY(const auto chosen, chosen_passes(recipe, before));
    for (const ChosenPass& c : chosen)
      if (c.pass->stage() != PassStage::kWeights)
        return fail(ErrorCode::kInvalidArgument, "A sweep cannot use the pass '" + c.entry->id + "': it does not work on the weights of single layers.",
                    "Choose one that rounds weights (gptq, qronos, adaround ...); passes before calibration belong to the recipe, and every cell has them.");
  }
  QUANVAS_TRY(auto out, chosen_passes(recipe, /*before_calibration=*/false));
  if (!out.empty() && !settings.weights)
    return fail(ErrorCode::kInvalidArgument, "The sweep leaves the weights in float, so that '" + out.front().entry->id + "' has nothing to round.",
                "Sweep weights, too, or leave the pass out.");
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i].entry = &settings.passes[static_cast<std::size_t>(out[i].index)];  // the recipe ends here
    if (out[i].pass->schema().find("inputs")) out[i].options["inputs"] = "float";
  }
  return out;
}

bool have_cell(const SweepResult& sweep, NodeId node, int bits) {
  return std::any_of(sweep.cells.begin(), sweep.cells.end(),
                     [&](const SweepCell& c) { return c.node == node && c.bits == bits; });
}

}  // namespace

// A cell's network after these passes, which may change its layer alone. Where one of them cannot, it stays as it is and an issue
// says why. Errors: kCancelled.
Result<QuantizedModel> WorkbenchState::rounded_cell(QuantizedModel network, const std::vector<ChosenPass>& passes, const Recipe& recipe,
                                                    const Prepared& prepared, NodeId layer, JobContext& job) {
  const ModelPtr before = network.model;
  PassContext context = pass_context(std::move(network), recipe, prepared, data());
  JobContext quiet(job.stop_token(), {}, [&](const Issue& issue) { job.issue(issue); });
  for (const ChosenPass& chosen : passes) {
    const QuantizedModel earlier = context.quantized;
    const auto leave = [&](const std::string& why) {
      context.quantized = earlier;
      job.issue({Severity::kWarning, before->graph->find(layer)->name, chosen.pass->info().title + " left it as it was: " + why, ""});
    };
    context.nodes = {layer};
    const auto issues = chosen.pass->check({*before, earlier.plan, context.nodes, context.calibration_data != nullptr}, chosen.options);
    const auto error = std::find_if(issues.begin(), issues.end(), [](const Issue& i) { return i.severity == Severity::kError; });
    if (error != issues.end()) {
      if (!context.calibration_data) return fail(ErrorCode::kInvalidArgument, chosen.pass->info().title + ": " + error->message, error->hint);
      leave(error->message);
      continue;
    }
    const auto applied = chosen.pass->apply(context, chosen.options, quiet);
    if (!applied && applied.error().code == ErrorCode::kCancelled) return Failure(applied.error());
    if (!applied) leave(applied.error().message);
    else if (context.quantized.model->graph != before->graph) leave("it would change the graph.");
  }
  return std::move(context.quantized);
}

Result<Run> WorkbenchState::sweep(const SweepSettings& settings, std::int64_t resume, JobContext& job) {
  return guarded("sweep", [&]() -> Result<Run> {
    const auto start = std::chrono::steady_clock::now();
    QUANVAS_TRY(Recipe recipe, project_->recipe());
    Run run;
    if (resume) {
      QUANVAS_TRY(run, project_->run(resume));
      if (run.kind != RunKind::kSweep || !run.sweep)
        return fail(ErrorCode::kInvalidArgument, "Run " + std::to_string(resume) + " is not a sweep.");
      if (run.model_hash != model_hash_ || run.data_hash != data_hash())
        return fail(ErrorCode::kInvalidArgument,
                    "Sweep " + std::to_string(resume) + " was begun with another version of the " +
                        (run.model_hash != model_hash_ ? "model file" : "data") + ", so its cells could not be compared.",
                    "Begin a new sweep.");
      recipe = run.recipe;
    } else {
      run = new_run(RunKind::kSweep, recipe);
      run.sweep.emplace();
      run.sweep->settings = settings;
    }
    SweepResult& result = *run.sweep;
    const SweepSettings& s = result.settings;
    if (!s.weights && !s.activations)
      return fail(ErrorCode::kInvalidArgument, "The sweep changes nothing: neither weights nor activations are chosen.");
    for (const int b : s.bits)
      if (b < 1 || b > 16)
        return fail(ErrorCode::kInvalidArgument, "A sweep width of " + std::to_string(b) + " bits is not possible.",
                    "Widths lie between 1 and 16.");
    QUANVAS_TRY(const auto rounding, rounding_passes(s));
    QUANVAS_TRY(const PreparedPtr prepared, prepare_whole(recipe, job));
    QUANVAS_TRY(const auto plan, plan_for(prepared, recipe));
    const Graph& graph = *prepared->model->graph;
    std::vector<NodeId> layers = s.layers;
    if (layers.empty())
      for (const Layer& l : prepared->layers)
        if (l.kind == LayerKind::kCompute && l.weight != kNoTensor) layers.push_back(l.node);
    run.name = std::string("Sweep of ") + (s.weights && s.activations ? "weights and activations" : s.weights ? "weights" : "activations");
    for (const ChosenPass& chosen : rounding) run.name += ", " + chosen.pass->info().title;
    run.name += ", " + std::to_string(layers.size()) + " layers";

    run.layers.clear();  // names for tables; a sweep has no errors of its own per layer
    for (const NodeId id : layers)
      if (const Node* node = graph.find(id)) {
        LayerResult named;
        named.node = id;
        named.name = node->name;
        named.op = node->op;
        run.layers.push_back(std::move(named));
      }

    quant::StatisticsPtr statistics;
    if (s.activations) {
      job.set_range(0, 0.1);
      QUANVAS_TRY(statistics, gather_statistics(*prepared, recipe.calibration, job, needs_batches(*plan)));
    }
    const Data d = data();
    const DatasetPtr source = d.evaluate ? d.evaluate : d.calibrate;
    if (!source) return no_data("A sweep needs data", d.evaluate_error ? d.evaluate_error : d.calibrate_error, "Declare a data set.");
    const auto samples = choose_samples(source->size(), s.samples, 0);

    QUANVAS_TRY(const double bytes, bytes_per_sample(*prepared->runner, *source, all_activations(graph)));
    const bool keep = bytes * static_cast<double>(samples.size()) < kKeptBytes;
    const std::int64_t chunk_size = chunk_size_for(bytes);
    std::vector<FloatChunk> kept;
    Score float_score;
    job.set_range(0.1, 0.2);
    const auto output_id = static_cast<std::size_t>(graph.outputs().at(0));
    const bool is_distribution = exec::logits_of(graph) != graph.outputs().at(0);
    QUANVAS_CHECK(exec::for_each_chunk<FloatChunk>(
        *source, samples, options_.device, job, "float forward",
        [&](exec::Chunk& chunk) -> Result<FloatChunk> {
          FloatChunk out;
          for (const exec::Chunk& input : without_filling(chunk, *source, graph)) {
            FloatPart part{{}, truth_of(input, *source, is_distribution)};
            at::Tensor output;
            if (keep) {
              QUANVAS_TRY(part.env, prepared->runner->run_all({input.input}));
              output = part.env[output_id];
            } else {
              QUANVAS_TRY(const auto outputs, prepared->runner->run({input.input}));
              output = outputs.at(0);
            }
            QUANVAS_TRY(const Score score, score_of(output, part.truth));
            out.score.merge(score);
            out.parts.push_back(std::move(part));
          }
          return out;
        },
        [&](std::int64_t, FloatChunk& c) -> Status {
          float_score.merge(c.score);
          if (keep) kept.push_back(std::move(c));
          return {};
        },
        chunk_size));
    const double n = static_cast<double>(samples.size());
    result.samples = n;
    result.float_top1 = source->has_labels() ? float_score.correct / n : std::nan("");
    result.float_perplexity = float_score.tokens.perplexity();
    if (!resume) store(run, job);

    const auto total = static_cast<double>(layers.size() * s.bits.size());
    double done = 0;
    auto last_saved = std::chrono::steady_clock::now();
    const auto save = [&] {
      run.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - last_saved).count();
      last_saved = std::chrono::steady_clock::now();
      if (!project_->read_only()) store(run, job);  // a disk that is full loses no cell
    };
    run.seconds += std::chrono::duration<double>(last_saved - start).count();
    for (const int bits : s.bits) {
      const Recipe uniform = uniform_recipe(bits, bits);
      QUANVAS_TRY(const Plan uniform_plan, resolve(graph, uniform, PresetLibrary::builtin()));
      for (const NodeId id : layers) {
        const Node* node = graph.find(id);
        const Layer* layer = find_layer(prepared->layers, id);
        if (!node || !layer) {
          return fail(ErrorCode::kNotFound, "The sweep names layer " + std::to_string(id) + ", which the network lacks.");
        }
        job.set_range(0.2 + 0.8 * done / total, 0.2 + 0.8 * (done + 1) / total);
        job.progress("sweep", 0, node->name + " at " + std::to_string(bits) + " bit");
        done += 1;
        if (have_cell(result, id, bits)) continue;
        if (const Status stop = job.check(); !stop) {
          save();
          return Failure(stop.error());
        }
        const Plan cell = cell_plan(graph, *plan, uniform_plan, s, *layer, bits);
        QUANVAS_TRY(const auto quantizers, this->quantizers(*prepared, cell, statistics.get(), job));
        QuantizedModel network{prepared->model, cell, quantizers};
        if (!rounding.empty()) {
          auto rounded = rounded_cell(std::move(network), rounding, recipe, *prepared, id, job);
          if (!rounded) {
            save();
            return Failure(rounded.error());
          }
          network = std::move(*rounded);
        }
        // A runner of its own: other layers that read the same weight keep it in float.
        QUANVAS_TRY(const auto runner, exec::Runner::create(network.model, &network.quantizers, options_.device));
        const auto affected = graph.downstream(id);
        const auto layer_output = static_cast<std::size_t>(layer->output);
        CellSums sums;
        const auto run_cell = [&](const exec::Environment& reference, const Truth& truth, CellSums& local) -> Status {
          exec::Environment env = reference;  // tensors are shared, not copied
          QUANVAS_CHECK(runner->run_nodes(affected, env));
          add_error(local.layer, reference[layer_output], env[layer_output]);
          add_error(local.output, reference[output_id], env[output_id]);
          QUANVAS_TRY(const Score score, score_of(env[output_id], truth));
          local.score.merge(score);
          return {};
        };
        const auto merge = [&](const CellSums& local) -> Status {
          sums.layer.merge(local.layer);
          sums.output.merge(local.output);
          sums.score.merge(local.score);
          return {};
        };
        Status status;
        if (keep) {
          status = exec::parallel_ordered(
              static_cast<std::int64_t>(kept.size()), job, /*inference=*/true,
              [&](std::int64_t i) -> Result<std::shared_ptr<void>> {
                CellSums local;
                for (const FloatPart& part : kept[static_cast<std::size_t>(i)].parts)
                  QUANVAS_CHECK(run_cell(part.env, part.truth, local));
                return std::shared_ptr<void>(std::make_shared<CellSums>(std::move(local)));
              },
              [&](std::int64_t, void* local) { return merge(*static_cast<CellSums*>(local)); });
        } else {
          const std::set<TensorId> needed = needed_by(graph, affected, layer->output);
          status = exec::for_each_chunk<CellSums>(
              *source, samples, options_.device, job, "sweep",
              [&](exec::Chunk& chunk) -> Result<CellSums> {
                CellSums local;
                for (const exec::Chunk& part : without_filling(chunk, *source, graph)) {
                  QUANVAS_TRY(const exec::Environment reference, run_keeping(*prepared->runner, part.input, needed));
                  QUANVAS_CHECK(run_cell(reference, truth_of(part, *source, is_distribution), local));
                }
                return local;
              },
              [&](std::int64_t, CellSums& local) { return merge(local); }, chunk_size);
        }
        if (!status) {
          save();
          return Failure(status.error());
        }
        SweepCell out;
        out.node = id;
        out.bits = bits;
        out.layer_sqnr_db = sums.layer.result().sqnr_db;
        out.output_sqnr_db = sums.output.result().sqnr_db;
        out.top1 = source->has_labels() ? sums.score.correct / n : std::nan("");
        out.top1_drop = result.float_top1 - out.top1;
        out.perplexity = sums.score.tokens.perplexity();
        out.perplexity_rise = out.perplexity / result.float_perplexity - 1;
        result.cells.push_back(out);
        job.partial("sweep-cell", to_json_text(out));
        if (std::chrono::steady_clock::now() - last_saved > std::chrono::seconds(2)) save();
      }
    }
    result.complete = true;
    save();
    return run;
  });
}

}  // namespace quanvas
