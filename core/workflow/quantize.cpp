// Quanvas - verb "quantize": a recipe becomes a network with frozen quantizers.
#include <algorithm>

#include "core/base/guarded.h"
#include "core/base/hash.h"
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

// All that is wrong as one error, the rest as issues of the run.
Status WorkbenchState::report_checks(const std::vector<RecipeIssue>& checks, const Recipe& recipe, JobContext& job) {
  std::vector<std::string> errors;
  std::string hint;
  for (const RecipeIssue& check : checks) {
    Issue issue = check.issue;
    const Pass* pass = Registry<Pass>::instance().find(recipe.passes[static_cast<std::size_t>(check.pass)].id);
    const std::string title = pass ? pass->info().title : "";
    if (issue.severity != Severity::kError) {
      if (issue.where.empty()) issue.where = title;
      job.issue(issue);
      continue;
    }
    errors.push_back(title + (issue.where.empty() ? "" : ", " + issue.where) + ": " + issue.message);
    if (hint.empty()) hint = issue.hint;
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
  QUANVAS_TRY(const auto later, chosen_passes(recipe, /*before_calibration=*/false));
  const bool trains = std::any_of(later.begin(), later.end(), [](const ChosenPass& c) { return c.pass->stage() == PassStage::kTraining; });
  const Data d = data();
  QUANVAS_TRY(const auto checks, check_passes(recipe, *out.prepared, *plan, d));
  QUANVAS_CHECK(report_checks(checks, recipe, job));
  if (needs_statistics(*plan, *out.prepared)) {
    job.set_range(0, trains ? 0.1 : 0.3);
    QUANVAS_TRY(out.statistics, gather_statistics(*out.prepared, recipe.calibration, job, needs_batches(*plan)));
  }
  out.network.model = out.prepared->model;
  out.network.plan = *plan;
  QUANVAS_TRY(out.network.quantizers, quantizers(*out.prepared, *plan, out.statistics.get(), job));
  PassContext context = pass_context(out.network, recipe, *out.prepared, d);
  context.statistics = out.statistics;
  // What the parts of a pass depend on: all that came before it, a training and its data among them.
  forget_parts();
  std::string key = Hasher().text(context.kept_key).text(to_json_text(recipe.rules)).text(options_.device).text(trains && d.train ? d.train->hash() : "").hex();
  const double begin = trains ? 0.1 : 0.3, end = trains ? 0.9 : 0.5;
  for (std::size_t i = 0; i < later.size(); ++i) {
    QUANVAS_CHECK(job.check());
    const double step = (end - begin) / static_cast<double>(later.size());
    job.set_range(begin + step * static_cast<double>(i), begin + step * static_cast<double>(i + 1));
    key = Hasher().text(key).text(later[i].entry->id).text(later[i].options.dump()).text(to_json_text(later[i].entry->select)).hex();
    begin_parts(context, key);
    QUANVAS_TRY(out.passes.emplace_back(), apply_pass(context, later[i], job));
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
