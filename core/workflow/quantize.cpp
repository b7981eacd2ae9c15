// Quanvas - verb "quantize": a recipe becomes a network with frozen quantizers.
#include <algorithm>
#include <chrono>
#include <utility>

#include "core/base/guarded.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace {

bool needs_statistics(const Plan& plan, const Prepared& prepared) {
  for (const auto& s : plan.sites) {
    if (!s.spec || s.site.kind == SiteKind::kWeight || s.site.kind == SiteKind::kBias) continue;
    if (s.spec->source == ScaleSource::kDynamic) continue;
    if (find_layer(prepared.layers, s.site.node) && !has_params_of_file(prepared, s)) return true;
  }
  return false;
}

}  // namespace

// Everything that keeps the passes from doing what is asked, before the first of them has taken its time.
Status WorkbenchState::check_passes(const std::vector<const PassEntry*>& passes, const Prepared& prepared, const Plan& plan,
                                    const Data& data, JobContext& job) {
  std::vector<std::string> errors;
  std::string hint;
  int accumulator_bits = 0;
  for (const PassEntry* entry : passes) {
    QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(entry->id, "pass"));
    QUANVAS_TRY(const json options, pass->schema().complete(entry->options, "pass '" + entry->id + "'"));
    const std::string title = pass->info().title;
    if (pass->stage() == PassStage::kTraining && !(entry->select == Selector{}))
      errors.push_back(title + ": it changes the network as a whole and cannot be limited to layers.");
    const auto selected = selected_layers(*prepared.model->graph, entry->select);
    const std::set<NodeId> nodes(selected.begin(), selected.end());
    if (nodes.empty()) {
      job.issue({Severity::kWarning, title, "No layer is selected (" + describe(entry->select) + "): the pass does nothing.", ""});
      continue;
    }
    for (Issue& issue : pass->check({*prepared.model, plan, nodes, data.calibrate != nullptr, data.train != nullptr, accumulator_bits}, options)) {
      if (issue.severity != Severity::kError) {
        if (issue.where.empty()) issue.where = title;
        job.issue(issue);
        continue;
      }
      errors.push_back(title + (issue.where.empty() ? "" : ", " + issue.where) + ": " + issue.message);
      if (hint.empty()) hint = issue.hint;
    }
    if (const int bits = pass->accumulator_bits(options); bits > 0) accumulator_bits = bits;
  }
  if (errors.empty()) return {};
  std::string message;
  constexpr std::size_t kShown = 5;
  for (std::size_t i = 0; i < std::min(kShown, errors.size()); ++i) message += (i > 0 ? " " : "") + errors[i];
  if (errors.size() > kShown) message += " And " + std::to_string(errors.size() - kShown) + " more.";
  return fail(ErrorCode::kInvalidArgument, message, hint);
}

bool needs_batches(const Plan& plan) {
  return std::any_of(plan.sites.begin(), plan.sites.end(),
                     [](const SitePlan& s) { return s.spec && s.spec->batches != BatchStatistic::kAll; });
}

Result<WorkbenchState::Quantized> WorkbenchState::quantize(const Recipe& recipe, JobContext& job) {
  Quantized out;
  QUANVAS_TRY(out.prepared, prepare_whole(recipe, job));
  out.passes = out.prepared->reports;
  QUANVAS_TRY(const auto plan, plan_for(out.prepared, recipe));
  for (const auto& warning : plan->warnings) job.issue({Severity::kWarning, "Recipe", warning, ""});
  if (!recipe.rules.empty() && std::none_of(plan->sites.begin(), plan->sites.end(), [](const SitePlan& s) { return s.spec.has_value(); }))
    job.issue({Severity::kWarning, "Recipe", "Nothing is quantized: no layer of the network gets a format from the recipe.",
               "Look at its rules, and at the layers that can be quantized."});
  std::vector<const PassEntry*> later;
  bool trains = false;
  for (const auto& entry : recipe.passes) {
    if (!entry.enabled) continue;
    QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(entry.id, "pass"));
    if (pass->stage() == PassStage::kGraph) continue;
    later.push_back(&entry);
    trains |= pass->stage() == PassStage::kTraining;
  }
  const Data d = data();
  QUANVAS_CHECK(check_passes(later, *out.prepared, *plan, d, job));
  if (needs_statistics(*plan, *out.prepared)) {
    job.set_range(0, trains ? 0.1 : 0.3);
    QUANVAS_TRY(out.statistics, gather_statistics(*out.prepared, recipe.calibration, job, needs_batches(*plan)));
  }
  out.network.model = out.prepared->model;
  out.network.plan = *plan;
  QUANVAS_TRY(out.network.quantizers, quantizers(*out.prepared, *plan, out.statistics.get(), job));
  PassContext context;
  context.model = out.network.model;
  context.quantized = out.network;
  context.statistics = out.statistics;
  context.calibration_data = d.calibrate;
  if (d.calibrate)
    context.calibration_samples = choose_samples(d.calibrate->size(), recipe.calibration.samples, recipe.calibration.seed);
  context.training_data = d.train;
  context.device = options_.device;
  const double begin = trains ? 0.1 : 0.3, end = trains ? 0.9 : 0.5;
  for (std::size_t i = 0; i < later.size(); ++i) {
    QUANVAS_CHECK(job.check());
    const double step = (end - begin) / static_cast<double>(later.size());
    job.set_range(begin + step * static_cast<double>(i), begin + step * static_cast<double>(i + 1));
    QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(later[i]->id, "pass"));
    QUANVAS_TRY(const json options, pass->schema().complete(later[i]->options, "pass '" + later[i]->id + "'"));
    context.nodes.clear();
    if (!(later[i]->select == Selector{})) {
      const auto selected = selected_layers(*context.quantized.model->graph, later[i]->select);
      context.nodes = {selected.begin(), selected.end()};
      if (selected.empty()) {
        out.passes.push_back({later[i]->id, pass->info().title, "Nothing: no layer is selected.", 0});
        continue;
      }
    }
    const auto start = std::chrono::steady_clock::now();
    QUANVAS_TRY(std::string summary, pass->apply(context, options, job));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    out.passes.push_back({later[i]->id, pass->info().title, std::move(summary), took.count(),
                          std::exchange(context.measure, {}), std::exchange(context.layers, {})});
    if (context.stopped_early) break;
  }
  job.set_range(end, 1);
  out.network = std::move(context.quantized);
  out.curve = std::move(context.curve);
  out.stopped_early = context.stopped_early;
  return out;
}

Result<WorkbenchState::Quantized> WorkbenchState::load_run(const Run& run, JobContext& job) {
  if (run.artifact.empty())
    return fail(ErrorCode::kNotFound, "Run " + std::to_string(run.id) + " holds no network.",
                "Only quantize runs can be opened again.");
  if (run.model_hash != model_hash_)
    return fail(ErrorCode::kInvalidArgument,
                "Run " + std::to_string(run.id) + " was made from another version of the model file.",
                "Run its recipe again.");
  QUANVAS_TRY(const std::string bytes, project_->artifact(run.artifact));
  Quantized out;
  QUANVAS_TRY(out.prepared, prepare_whole(run.recipe, job));
  QUANVAS_TRY(out.network, unpack_artifact(bytes, out.prepared->model, out.prepared->hash));
  return out;
}

}  // namespace quanvas
