// Quanvas - verb "export": check, write, read again, prove. Nothing is written while anything is refused.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>

#include "core/base/guarded.h"
#include "core/plugin/placement.h"
#include "core/report/target_lens.h"
#include "core/workflow/export_proof.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

Refusal not_calibrated() {
  return {"", "", "calibration", "activations without statistics", "calibrated activations", "Calibrate first.", {}, {}, false};
}

// Whether more than the graph passes changes the float network.
Result<bool> changes_weights(const Recipe& recipe) {
  for (const auto& entry : recipe.passes) {
    if (!entry.enabled) continue;
    QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(entry.id, "pass"));
    if (pass->stage() != PassStage::kGraph) return true;
  }
  return false;
}

// What has no numbers yet is judged by its declaration, and is neither missing nor float.
void judge_declarations(const QuantizedModel& network, const std::vector<Layer>& layers, const TargetTable& table,
                        std::vector<Refusal>& refusals) {
  if (table.rows.empty()) return;
  const auto is_planned = [&](const Site& site) {
    const SitePlan* planned = network.plan.find(site);
    return planned && planned->spec && !quantizer_at(network, site);
  };
  std::set<NodeId> with_plan;
  for (const SitePlan& p : network.plan.sites)
    if (is_planned(p.site)) with_plan.insert(p.site.node);
  std::erase_if(refusals, [&](const Refusal& r) {
    return r.site && ((r.rule == kMissingQuantizer && is_planned(*r.site)) || (r.rule == kFloatLayer && with_plan.count(r.site->node)));
  });
  for (Refusal& r : check_declarations(*network.model->graph, layers, network.plan, table))
    if (r.site && is_planned(*r.site)) refusals.push_back(std::move(r));
}

// Readers, ours too, tell what a file is by its ending.
Status check_ending(const fs::path& path, const Exporter& exporter) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (path.empty() || ending == exporter.extension()) return {};
  return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' ends in '" + ending + "'; files of the target '" + exporter.info().id +
                                               "' end in '" + exporter.extension() + "'.",
              "Change the ending.");
}

// A file of a fixed name beside the main one (config.json) belongs to another export when the main one is new.
Status check_beside(const fs::path& file, const fs::path& main) {
  std::error_code ec;
  if (file == main || fs::exists(main, ec) || !fs::exists(file, ec)) return {};
  return fail(ErrorCode::kInvalidArgument, "'" + file.string() + "' is there already and belongs to another file than '" + main.string() + "'.",
              "Choose a folder without it.");
}

// Dynamic ones and those of the model's file need no calibration.
bool needs_calibration(const Plan& plan, const Prepared& prepared) {
  for (const auto& s : plan.sites)
    if (s.spec && s.spec->source != ScaleSource::kDynamic && is_activation(s.site.kind) &&
        !has_params_of_file(prepared, s))
      return true;
  return false;
}

}  // namespace

// Beside the run whose network it is, the newest last; 0: the recipe's own.
void WorkbenchState::keep_report(const ExportReport& report, std::int64_t run, JobContext& job) {
  constexpr std::size_t kKept = 20;
  const std::string key = exports_key(run);
  std::vector<ExportReport> reports;
  if (const auto text = project_->value(key); text && !text->empty())
    if (auto kept = from_json_text<std::vector<ExportReport>>(*text)) reports = std::move(*kept);
  ExportReport kept_one = report;  // whoever reads it later is in another folder
  std::error_code ec;
  if (const fs::path whole = fs::absolute(report.path, ec); !ec) kept_one.path = whole.lexically_normal().string();
  std::erase_if(reports, [&](const ExportReport& r) { return r.path == kept_one.path; });
  reports.push_back(std::move(kept_one));
  if (reports.size() > kKept) reports.erase(reports.begin());
  if (const Status kept = project_->set_value(key, to_json_value(reports).dump()); !kept)
    job.issue({Severity::kWarning, "export", "The report of this export is not kept with the project: " + kept.error().text(), {}});
}

Status WorkbenchState::check_output(const fs::path& path, bool overwrite) const {
  std::error_code ec;
  const std::string shown = path.string();
  if (path.empty()) return fail(ErrorCode::kInvalidArgument, "No file to write was given.");
  if (fs::is_directory(path, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' is a folder.", "Give the name of a file.");
  const fs::path folder = path.parent_path().empty() ? fs::path(".") : path.parent_path();
  if (!fs::is_directory(folder, ec))
    return fail(ErrorCode::kNotFound, "There is no folder '" + folder.string() + "'.", "Make it first.");
  // Without them nothing could be opened, run or exported again.
  for (const auto& own : {project_->model_path(), project_->path()})
    if (fs::equivalent(path, own, ec))
      return fail(ErrorCode::kInvalidArgument, "'" + shown + "' is what this project is made of and is not replaced.",
                  "Choose another name.");
  if (fs::exists(path, ec) && !fs::is_regular_file(path, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' is no regular file.", "Give the name of a file.");
  if (path.extension() == ".quanvas")
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' is the name of a project.", "Choose another ending.");
  if (!overwrite && fs::exists(path, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + shown + "' exists already.", "Choose another name or allow overwriting.");
  return {};
}

namespace {

// The target with its options completed.
struct Target {
  const Exporter* exporter = nullptr;
  json options;
  std::vector<Refusal> unavailable;  // not empty: it is not offered
};
Result<Target> target_of(const std::string& id, const json& given) {
  Target out;
  QUANVAS_TRY(out.exporter, Registry<Exporter>::instance().get(id, "export target"));
  QUANVAS_TRY(out.options, out.exporter->schema().complete(given, "export target '" + id + "'"));
  if (const std::string why = out.exporter->unavailable(); !why.empty())
    out.unavailable = {{"", "", "target", "not offered", "", why, {}, {}, false}};
  return out;
}

}  // namespace

Result<std::vector<Refusal>> WorkbenchState::check_declarations(const Recipe& recipe, const std::string& id, const json& given) {
  return guarded("export check", [&]() -> Result<std::vector<Refusal>> {
    QUANVAS_TRY(const Target target, target_of(id, given));
    if (!target.unavailable.empty()) return target.unavailable;
    JobContext quiet;
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, quiet));
    QUANVAS_TRY(const auto plan, plan_for(prepared, recipe));
    return quanvas::check_declarations(*prepared->model->graph, prepared->layers, *plan, target.exporter->table(target.options));
  });
}

Result<std::vector<Refusal>> WorkbenchState::check_export(const Recipe& recipe, const std::string& id, const json& given,
                                                          std::stop_token stop) {
  return guarded("export check", [&]() -> Result<std::vector<Refusal>> {
    QUANVAS_TRY(const Target target, target_of(id, given));
    if (!target.unavailable.empty()) return target.unavailable;
    JobContext quiet(stop);
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, quiet));
    QUANVAS_TRY(const auto plan, plan_for(prepared, recipe));
    const auto statistics = known_statistics(*prepared, recipe.calibration);
    QuantizedModel network;
    network.model = prepared->model;
    network.plan = *plan;
    QUANVAS_TRY(network.quantizers, quantizers(*prepared, *plan, statistics.get(), quiet, &found_));
    QUANVAS_CHECK(quiet.check());
    std::vector<Refusal> refusals;
    if (target.exporter->needs_quantizers() && !statistics && needs_calibration(*plan, *prepared)) refusals.push_back(not_calibrated());
    for (auto& r : target.exporter->check(network, target.options)) refusals.push_back(std::move(r));
    if (!statistics) judge_declarations(network, prepared->layers, target.exporter->table(target.options), refusals);
    return refusals;
  });
}

Result<Recipe> WorkbenchState::mend_recipe(const Recipe& recipe, const std::vector<Refusal>& refusals, const std::string& layer) {
  return guarded("mend the recipe", [&]() -> Result<Recipe> {
    JobContext quiet;
    QUANVAS_TRY(const PreparedPtr prepared, prepare(recipe, quiet));
    return with_fixes(recipe, *prepared->model->graph, refusals, layer);
  });
}

Result<ExportReport> WorkbenchState::export_model(const ExportRequest& request, JobContext& job) {
  return guarded("export", [&]() -> Result<ExportReport> {
    QUANVAS_TRY(const Exporter* exporter, Registry<Exporter>::instance().get(request.target, "export target"));
    QUANVAS_TRY(const json options, exporter->schema().complete(request.options, "export target '" + request.target + "'"));
    if (const std::string why = exporter->unavailable(); !why.empty())
      return fail(ErrorCode::kUnsupported, "The target '" + request.target + "' is not offered: " + why);
    for (const std::string& file : exporter->files(request.path, options)) {
      QUANVAS_CHECK(check_output(file, request.overwrite));
      QUANVAS_CHECK(check_beside(file, request.path));
    }
    QUANVAS_CHECK(check_ending(request.path, *exporter));
    Quantized quantized;
    if (request.run) {
      QUANVAS_TRY(const Run run, project_->run(request.run));
      if (run.kind == RunKind::kFloat) {
        QUANVAS_TRY(quantized.prepared, prepare_whole(run.recipe, job));
        quantized.network.model = quantized.prepared->model;
      } else {
        QUANVAS_TRY(quantized, load_run(run, job));
      }
    } else {
      job.set_range(0, 0.6);
      QUANVAS_TRY(const Recipe recipe, project_->recipe());
      QUANVAS_TRY(const bool compute, changes_weights(recipe));
      if (compute || exporter->needs_quantizers()) {
        auto made = quantize(recipe, job);
        if (made) drop_parts(job);
        else keep_parts(job);
        QUANVAS_TRY(quantized, std::move(made));
      } else {
        QUANVAS_TRY(quantized.prepared, prepare_whole(recipe, job));
        quantized.network.model = quantized.prepared->model;
      }
    }
    const QuantizedModel& network = quantized.network;
    ExportReport report;
    report.target = request.target;
    const TargetTable table = exporter->table(options);
    if (!table.rows.empty()) report.exactness = table.exactness;
    report.path = request.path;
    report.refusals = exporter->check(network, options);
    if (!report.refusals.empty()) return report;
    job.set_range(0.6, 0.7);
    job.progress("write", 0, request.path);
    QUANVAS_CHECK(job.check());
    QUANVAS_CHECK(exporter->write(network, request.path, options, job));
    report.files = exporter->files(request.path, options);
    std::error_code ec;
    for (const std::string& file : report.files) report.file_bytes += static_cast<double>(fs::file_size(file, ec));
    const NetworkSize size = network_size(*network.model->graph, find_layers(*network.model->graph), network.quantizers);
    report.float_bytes = size.bytes_float;
    report.ideal_bytes = exporter->needs_quantizers() ? size.bytes : size.bytes_float;
    job.set_range(0.7, 0.8);
    job.progress("audit", 0, request.path);
    QUANVAS_TRY(report.audit, exporter->audit(network, request.path, options));

    const Data d = data();
    const DatasetPtr source = d.evaluate ? d.evaluate : d.calibrate;
    // The file stands whatever becomes of its proof.
    job.set_range(0.8, 0.85);
    Status proved;
    auto file = exporter->read(network, request.path, options, job);
    if (!file) {
      report.notes.push_back("Not run against the screen's network: " + file.error().text());
    } else {
      for (std::string& note : file->notes) report.notes.push_back(std::move(note));
      if (!source)
        report.notes.push_back("Not run against the screen's network: no data is declared.");
      else
        proved = prove_export(network, exporter->needs_quantizers(), *file, *source, request.samples, options_.device, report, job);
    }
    for (const std::string& note : table.notes) report.notes.push_back(note);
    if (!proved) report.notes.push_back("Not compared with the screen's network to the end: " + proved.error().text());
    keep_report(report, request.run, job);
    if (!proved && proved.error().code == ErrorCode::kCancelled)
      return fail(ErrorCode::kCancelled, "Stopped on request. '" + request.path + "' is written, but its proof was not finished.");
    return report;
  });
}

}  // namespace quanvas
