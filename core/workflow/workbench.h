// Quanvas - the verbs. A Workbench is one open project in the engine: model, data, recipe, statistics, runs.
// The service and the command line call nothing else. Torch-free header.
//
// Threads: every method may be called from any thread. Long verbs take a JobContext; at most one long verb
// runs at a time (the caller's lane sees to it), quick questions (facts, histogram) may run beside it.
#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "core/base/job.h"
#include "core/graph/weights.h"
#include "core/plugin/registry.h"
#include "core/project/project.h"
#include "core/recipe/plan.h"
#include "core/report/compare.h"
#include "core/report/report.h"

namespace quanvas {

struct EngineOptions {
  std::string device = "cpu";
  int threads = 0;  // 0: all cores
};

struct DataStatus {
  bool ready = false;       // calibration data can be read
  bool can_evaluate = false, can_train = false;
  double calibration_samples = 0, training_samples = 0, evaluation_samples = 0;
  bool has_labels = false;
  bool has_tokens = false;  // the evaluation data are windows of tokens: perplexity instead of accuracy
  std::string problem;      // why not, with the way out
};
template <class V>
void visit_fields(V& v, DataStatus& d) {
  v("ready", d.ready);
  v("can_evaluate", d.can_evaluate);
  v("can_train", d.can_train);
  v("calibration_samples", d.calibration_samples);
  v("training_samples", d.training_samples);
  v("evaluation_samples", d.evaluation_samples);
  v("has_labels", d.has_labels);
  v("has_tokens", d.has_tokens);
  v("problem", d.problem);
}

// Everything the window needs to show a project, but the graph (large, sent once).
struct ProjectState {
  std::string project_path, model_path, model_hash;
  bool read_only = false;
  std::string read_only_reason;
  bool calibrated = false;          // statistics for the current model, data and calibration settings exist
  std::string statistics_hash;
  std::string data_hash;            // what a run of now would note as its data_hash; empty: unknown
  DataSettings data;
  DataStatus data_status;
  Recipe recipe;
  ImportOptions import;             // how the model was read
  std::vector<Issue> issues;        // of import and opening
};
template <class V>
void visit_fields(V& v, ProjectState& s) {
  v("project_path", s.project_path);
  v("model_path", s.model_path);
  v("model_hash", s.model_hash);
  v("read_only", s.read_only);
  v("read_only_reason", s.read_only_reason);
  v("calibrated", s.calibrated);
  v("statistics_hash", s.statistics_hash);
  v("data_hash", s.data_hash);
  v("data", s.data);
  v("data_status", s.data_status);
  v("recipe", s.recipe);
  v("import", s.import);
  v("issues", s.issues);
}

struct ExportRequest {
  std::string target;               // exporter id
  std::string path;
  json options = json::object();
  std::int64_t run = 0;             // export this run's network; 0: the current recipe, computed anew
  bool overwrite = true;
  std::int64_t samples = 256;       // on which the file is compared with the screen; 0: all
};
template <class V>
void visit_fields(V& v, ExportRequest& e) {
  v("target", e.target);
  v("path", e.path);
  v("options", e.options);
  v("run", e.run);
  v("overwrite", e.overwrite);
  v("samples", e.samples);
}

// Raw files for other programs: logits.f32, predictions.txt, codes.json with codes-<n>.i32 (little endian).
struct DumpRequest {
  std::string folder;
  int samples = 0;         // of the evaluation split; 0: all
  int code_samples = 100;  // samples whose activation codes are written
};

struct RunRequest {
  std::optional<Recipe> recipe;     // none: the project's
  std::string name;                 // of the run; empty: the recipe's, with ", QAT" when it trains
  int samples = 0;                  // of the evaluation split; 0: all
  bool evaluate = true;             // false: only quantize
};
template <class V>
void visit_fields(V& v, RunRequest& r) {
  v("recipe", r.recipe);
  v("name", r.name);
  v("samples", r.samples);
  v("evaluate", r.evaluate);
}

// Options of float training (the trainer of the sample projects); see exec/train.h.
struct TrainRequest {
  json options = json::object();    // by train_schema()
  std::string output;               // path of the float ONNX file that is written
};
template <class V>
void visit_fields(V& v, TrainRequest& t) {
  v("options", t.options);
  v("output", t.output);
}
const Schema& train_schema();

class Workbench {
 public:
  // path: a project (.quanvas) or a model. A model opens its own project "<user data>/projects/<name>-<hash>
  // .quanvas" (made at the first time), or project_path when given. import: how the model is read from now on; what is
  // empty in it: as last time. `data`: declared data sets for a new one.
  static Result<std::unique_ptr<Workbench>> open(const std::string& path, const EngineOptions& options,
                                                 JobContext& job, const std::string& project_path = {},
                                                 const ImportOptions& import = {});
  virtual ~Workbench() = default;

  virtual GraphPtr graph() const = 0;      // as imported
  virtual ProjectState state() const = 0;
  virtual Result<std::vector<Run>> runs() const = 0;
  virtual Result<std::vector<RecipeEdit>> edits(int most) const = 0;

  virtual Status set_recipe(const Recipe& recipe, const std::string& label) = 0;
  virtual Result<ProjectState> set_data(const DataSettings& data) = 0;
  // Whether the sources that differ from the declared ones can be read.
  virtual Status check_data(const DataSettings& data) const = 0;
  virtual Status set_value(const std::string& key, const std::string& text) = 0;
  virtual Result<std::string> value(const std::string& key) const = 0;
  virtual Status save_copy(const std::string& path) = 0;

  // Quick questions; exact, no run. recipe: what is asked about (the window's newest, maybe not stored yet).
  virtual Result<LayerFacts> layer_facts(const Recipe& recipe, NodeId node) = 0;
  virtual Result<Histogram> histogram(const Recipe& recipe, const Site& site, int bins) = 0;
  // Everything that the target refuses: scales are searched, weights looked at. kCancelled when stopped. What was found for
  // sites whose declaration stays is kept for the next question.
  virtual Result<std::vector<Refusal>> check_export(const Recipe& recipe, const std::string& target, const json& options,
                                                    std::stop_token stop = {}) = 0;
  // What keeps the passes from running (errors), what they leave as it is, what they will take, and which of them have
  // yet to measure.
  virtual Result<std::vector<RecipeIssue>> check_recipe(const Recipe& recipe) = 0;

  // Long verbs. Runs are stored before they are returned; one that cannot be has the id 0, and an issue says why.
  virtual Result<ProjectState> calibrate(JobContext& job) = 0;
  virtual Result<Run> evaluate_float(int samples, JobContext& job) = 0;
  virtual Result<Run> run_recipe(const RunRequest& request, JobContext& job) = 0;
  virtual Result<Run> evaluate_run(std::int64_t run, int samples, JobContext& job) = 0;  // of a stored network
  // resume: id of an unfinished sweep, 0: new. partial("sweep-cell", SweepCell).
  virtual Result<Run> sweep(const SweepSettings& settings, std::int64_t resume, JobContext& job) = 0;
  virtual Status dump_run(std::int64_t run, const DumpRequest& request, JobContext& job) = 0;
  virtual Result<ExportReport> export_model(const ExportRequest& request, JobContext& job) = 0;
  virtual Result<std::vector<TrainPoint>> train_float(const TrainRequest& request, JobContext& job) = 0;

  // What declarations alone say of an export, within milliseconds for thousands of layers: a part of check_export()'s answer, in
  // the order of the layers. Graph passes that this recipe is the first to have are applied before.
  virtual Result<std::vector<Refusal>> check_declarations(const Recipe& recipe, const std::string& target, const json& options) = 0;
  // with_fixes() on the network after the recipe's graph passes.
  virtual Result<Recipe> mend_recipe(const Recipe& recipe, const std::vector<Refusal>& refusals, const std::string& layer) = 0;
};

// Versions of the engine and what it links, device, threads, BLAS; warnings (slow BLAS) as issues.
std::map<std::string, std::string> engine_info(const EngineOptions& options);
std::vector<Issue> engine_warnings();

}  // namespace quanvas
