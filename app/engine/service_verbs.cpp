// The long verbs: a table from the name on the wire to the Workbench's method.
#include "app/engine/service_calls.h"

namespace quanvas {
namespace {

struct SampleRequest {
  std::int64_t run = 0;
  int samples = 0;  // 0: all
};
template <class V>
void visit_fields(V& v, SampleRequest& r) {
  v("run", r.run);
  v("samples", r.samples);
}

struct SweepRequest {
  SweepSettings settings;
  std::int64_t resume = 0;
};
template <class V>
void visit_fields(V& v, SweepRequest& r) {
  v("settings", r.settings);
  v("resume", r.resume);
}

template <class T>
Result<std::string> text_of(const Result<T>& value) {
  if (!value) return Failure(value.error());
  return to_json_text(*value);
}

using Verb = Result<std::string> (*)(Workbench&, const json& argument, JobContext&);

Result<std::string> calibrate(Workbench& bench, const json&, JobContext& job) { return text_of(bench.calibrate(job)); }

Result<std::string> evaluate_float(Workbench& bench, const json& argument, JobContext& job) {
  QUANVAS_TRY(const auto request, from_json_value<SampleRequest>(argument));
  return text_of(bench.evaluate_float(request.samples, job));
}

Result<std::string> evaluate_run(Workbench& bench, const json& argument, JobContext& job) {
  QUANVAS_TRY(const auto request, from_json_value<SampleRequest>(argument));
  return text_of(bench.evaluate_run(request.run, request.samples, job));
}

Result<std::string> run(Workbench& bench, const json& argument, JobContext& job) {
  QUANVAS_TRY(const auto request, from_json_value<RunRequest>(argument));
  return text_of(bench.run_recipe(request, job));
}

Result<std::string> sweep(Workbench& bench, const json& argument, JobContext& job) {
  QUANVAS_TRY(const auto request, from_json_value<SweepRequest>(argument));
  return text_of(bench.sweep(request.settings, request.resume, job));
}

Result<std::string> export_model(Workbench& bench, const json& argument, JobContext& job) {
  QUANVAS_TRY(const auto request, from_json_value<ExportRequest>(argument));
  return text_of(bench.export_model(request, job));
}

Result<std::string> train_float(Workbench& bench, const json& argument, JobContext& job) {
  QUANVAS_TRY(const auto request, from_json_value<TrainRequest>(argument));
  return text_of(bench.train_float(request, job));
}

struct VerbRow {
  const char* name;
  Verb verb;
};
constexpr VerbRow kVerbs[] = {
    {"calibrate", calibrate},       {"evaluate-float", evaluate_float}, {"run", run},
    {"evaluate-run", evaluate_run}, {"sweep", sweep},                   {"export", export_model},
    {"train-float", train_float},
};

}  // namespace

Result<JobWork> find_verb(const std::string& name, const std::string& argument, const WorkbenchPtr& workbench) {
  json value = json::object();
  if (!argument.empty()) {
    QUANVAS_TRY(value, parse_json(argument, "The argument of '" + name + "'"));
  }
  std::string known;
  for (const auto& row : kVerbs) {
    if (name == row.name)
      return JobWork([verb = row.verb, value = std::move(value),
                      project = std::weak_ptr(workbench)](JobContext& job) -> Result<std::string> {
        const WorkbenchPtr bench = project.lock();
        if (!bench) return fail(ErrorCode::kCancelled, "The project of this job was closed before the job began.");
        return verb(*bench, value, job);
      });
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  return fail(ErrorCode::kInvalidArgument, "There is no verb '" + name + "'.", "Known: " + known + ".");
}

}  // namespace quanvas
