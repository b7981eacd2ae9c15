// export and new: files that the program makes.
#include <algorithm>
#include <filesystem>

#include "app/cli/verbs.h"

namespace quanvas::cli {
namespace {

void print_refusals(const std::string& target, const std::vector<Refusal>& refusals) {
  if (refusals.empty()) return print(target + " takes everything.\n");
  Table table({{"layer"}, {"quantizer"}, {"rule"}, {"got"}, {"allowed"}, {"what to do"}});
  for (const auto& r : refusals) table.row({r.layer, r.quantizer, r.rule, r.got, r.allowed, r.suggestion});
  print(table.text());
}

void print_report(const ExportReport& report) {
  Table table({{"layer"}, {"quantizer"}, {"requested"}, {"written"}, {"bytes", Table::Align::kRight}, {"equal"}});
  for (const auto& row : report.audit)
    table.row({row.layer, row.quantizer, row.requested, row.written, thousands(row.bytes), row.equal ? "yes" : "NO"});
  print(table.text() + "\nWrote " + report.path + ", " + thousands(report.file_bytes) + " bytes\n");
  if (report.checked_samples > 0)
    print("Read again and run on " + thousands(report.checked_samples) + " samples: largest difference of an output " +
          json(report.max_output_difference).dump() + ", same class " + percent(report.equal_predictions) + " %\n");
  for (const auto& note : report.notes) print("note: " + note + "\n");
}

Failure refused(const std::string& target, const std::vector<Refusal>& refusals) {
  return fail(ErrorCode::kUnsupported, "The target '" + target + "' refuses " + std::to_string(refusals.size()) +
                                           " of the choices; nothing was written.",
              "The first: " + refusals.front().text());
}

}  // namespace

Status export_model(Work& work) {
  const auto& o = work.options;
  QUANVAS_TRY(const Exporter* exporter, Registry<Exporter>::instance().get(o.target, "exporter"));
  QUANVAS_TRY(const json options, options_from(o.options, exporter->schema(), "The exporter '" + o.target + "'"));
  if (o.check_only) {
    QUANVAS_TRY(const auto refusals, work.bench->check_export(work.bench->state().recipe, o.target, options));
    if (o.json)
      print_json(to_json_value(refusals));
    else
      print_refusals(o.target, refusals);
    if (!refusals.empty())
      return fail(ErrorCode::kUnsupported, "The target '" + o.target + "' refuses " + std::to_string(refusals.size()) +
                                               " of the choices.");
    return {};
  }
  if (o.out.empty())
    return fail(ErrorCode::kInvalidArgument, "export needs --out FILE.", "--check only says what the target refuses.");
  ExportRequest request;
  request.target = o.target;
  request.path = o.out;
  request.options = options;
  request.run = o.run.value_or(0);
  request.overwrite = o.overwrite;
  QUANVAS_TRY(const ExportReport report, work.bench->export_model(request, work.job));
  if (o.json)
    print_json(to_json_value(report));
  else if (report.refusals.empty())
    print_report(report);
  else
    print_refusals(o.target, report.refusals);
  if (!report.refusals.empty()) return refused(o.target, report.refusals);
  const auto unequal = std::count_if(report.audit.begin(), report.audit.end(), [](const AuditRow& r) { return !r.equal; });
  if (unequal > 0)
    return fail(ErrorCode::kInternal, "'" + report.path + "' was written, but " + std::to_string(unequal) +
                                          " of its quantizers differ from the requested ones.");
  return {};
}

Status dump(Work& work) {
  const auto& o = work.options;
  DumpRequest request;
  request.folder = o.out;
  request.samples = o.samples.value_or(0);
  request.code_samples = o.code_samples;
  QUANVAS_CHECK(work.bench->dump_run(*o.run, request, work.job));
  if (!o.json) print("Wrote logits.f32, predictions.txt and codes.json to " + o.out + "\n");
  return {};
}

Status new_project(Work& work) {
  const auto& o = work.options;
  std::error_code ec;
  if (std::filesystem::exists(o.project, ec))
    return fail(ErrorCode::kInvalidArgument, "'" + o.project + "' exists already.", "Choose another file for --project.");
  // Read first: a mistake in them leaves no half-made project behind.
  std::optional<DataSettings> data;
  std::optional<Recipe> recipe;
  if (!o.data_file.empty()) {
    QUANVAS_TRY(data, read_data_file(o.data_file));
  }
  if (!o.recipe.empty()) {
    QUANVAS_TRY(recipe, named_recipe(o.recipe));
  }
  QUANVAS_TRY(work.bench, open_bench(o, work.job));
  for (const auto& issue : work.bench->state().issues) work.job.issue(issue);
  if (data) QUANVAS_CHECK(work.bench->set_data(*data));
  if (recipe) QUANVAS_CHECK(work.bench->set_recipe(*recipe, "Use recipe " + recipe->name));
  const auto state = work.bench->state();
  if (o.json)
    print_json(to_json_value(state));
  else
    print("Made " + state.project_path + (state.data_status.problem.empty() ? "" : "\n" + state.data_status.problem) +
          "\n");
  return {};
}

}  // namespace quanvas::cli
