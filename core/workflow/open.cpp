// Quanvas - verb "open": a project, or a model that gets a project of its own.
#include <algorithm>
#include <filesystem>

#include "core/base/files.h"
#include "core/base/hash.h"
#include "core/base/version.h"
#include "core/report/trusted_models.h"
#include "core/workflow/state.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr const char* kExtension = ".quanvas";
constexpr const char* kImportKey = "import";
constexpr std::size_t kMostKept = 8;  // runs that wait for space on the disk, with their networks

// Same model, same project: the name carries a hash of the absolute path.
fs::path default_project(const fs::path& model) {
  const fs::path absolute = fs::absolute(model).lexically_normal();
  const fs::path dir = user_data_dir() / "projects";
  std::error_code ignored;
  fs::create_directories(dir, ignored);
  return dir / (model.stem().string() + "-" + hash_text(absolute.string()).substr(0, 8) + kExtension);
}

fs::path project_file(const fs::path& model, const std::string& project_path) {
  return project_path.empty() ? default_project(model) : fs::path(project_path);
}

bool has_project(const fs::path& model, const std::string& project_path) {
  std::error_code ec;
  return fs::exists(project_file(model, project_path), ec);
}

// The project in `file`, if it is one of this model: the runs of one model say nothing about another.
Result<std::unique_ptr<Project>> project_of(const fs::path& model, const fs::path& file) {
  QUANVAS_TRY(auto project, Project::open(file.string()));
  std::error_code ec;
  if (!fs::equivalent(model, project->model_path(), ec))
    return fail(ErrorCode::kInvalidArgument, "'" + file.string() + "' is the project of another model, '" +
                                                 project->model_path() + "', not of '" + model.string() + "'.",
                "Choose another project file, or open the project alone.");
  return project;
}

Result<std::unique_ptr<Project>> project_for(const fs::path& path, const std::string& project_path) {
  std::error_code ec;
  if (path.extension() == kExtension) {
    if (project_path.empty()) return Project::open(path.string());
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is a project already, so no other project file, such as '" +
                                                 project_path + "', can be given with it.",
                "Give a model (.onnx), or the project alone.");
  }
  if (!fs::exists(path, ec))
    return fail(ErrorCode::kNotFound, "There is no file '" + path.string() + "'.",
                "Give a model (.onnx) or a project (.quanvas).");
  const fs::path file = project_file(path, project_path);
  if (fs::exists(file, ec)) return project_of(path, file);
  return Project::create(file.string(), fs::absolute(path).lexically_normal().string());
}

Result<ImportOptions> options_of(const Project& project) {
  QUANVAS_TRY(const std::string text, project.value(kImportKey));
  if (text.empty()) return ImportOptions{};
  return from_json_text<ImportOptions>(text);
}

// project: already open; null: that of the model, if it has one.
Result<ImportOptions> stored_options(const Project* project, const fs::path& model, const std::string& project_path) {
  if (project) return options_of(*project);
  if (!has_project(model, project_path)) return ImportOptions{};
  QUANVAS_TRY(const auto stored, project_of(model, project_file(model, project_path)));
  return options_of(*stored);
}

// What the next opening needs, and what a new project begins with.
Status keep(Project& project, const ImportOptions& how, const std::optional<Recipe>& recipe) {
  if (project.read_only()) return {};
  QUANVAS_TRY(const ImportOptions before, options_of(project));
  if (!(before == how)) QUANVAS_CHECK(project.set_value(kImportKey, to_json_value(how).dump()));
  if (recipe) QUANVAS_CHECK(project.set_recipe(*recipe, "Quantizers of the model file"));
  return {};
}

// The recipe and the runs of a project are about one of the two networks.
Failure other_quantizers(const std::string& path) {
  return fail(ErrorCode::kInvalidArgument,
              "How the quantizers of a model file are read is decided when its project is made, and '" + path + "' has one.",
              "Give another project file with --project, or open it without --quantizers.");
}

using Errors = std::vector<std::pair<const char*, const std::optional<Error>*>>;

// One sentence for uses that fail for the same reason: "Calibration, training: There is no file 'x'."
std::string problem_of(const Errors& errors) {
  std::vector<std::pair<std::string, std::string>> groups;  // reason, uses
  for (const auto& [use, error] : errors) {
    if (!*error) continue;
    const std::string reason = (*error)->text();
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == reason; });
    if (same == groups.end()) groups.emplace_back(reason, use);
    else same->second += std::string(", ") + use;
  }
  std::string out;
  for (const auto& [reason, uses] : groups) {
    out += (out.empty() ? "Data for " : " Data for ") + uses + ": " + reason;
  }
  return out;
}

}  // namespace

Failure no_data(const std::string& sentence, const std::optional<Error>& reason, const std::string& hint) {
  if (!reason) return fail(ErrorCode::kInvalidArgument, sentence + ": none is declared.", hint);
  return fail(reason->code, sentence + ". " + reason->message,
              reason->hint.empty() ? "Put the file back, or declare the data anew." : reason->hint);
}

Result<std::unique_ptr<Workbench>> Workbench::open(const std::string& path, const EngineOptions& options,
                                                   JobContext& job, const std::string& project_path,
                                                   const ImportOptions& import) {
  exec::set_threads(options.threads);
  job.progress("open", 0, path);
  // The model first: a file that cannot be read must not leave a project behind.
  std::unique_ptr<Project> project;
  std::string model_path = path;
  const bool is_project = fs::path(path).extension() == kExtension;
  if (is_project) {
    QUANVAS_TRY(project, project_for(path, project_path));
    model_path = project->model_path();
    std::error_code ec;
    if (!fs::exists(model_path, ec))
      return fail(ErrorCode::kNotFound, "The project's model '" + model_path + "' is not there.",
                  "Put it back, or open the model from where it is now.");
  }
  std::vector<Issue> issues;
  JobContext import_job(job.stop_token(), [&](const Progress& p) { job.progress("open", 0.9 * p.fraction, p.detail); },
                        [&](const Issue& issue) { issues.push_back(issue); job.issue(issue); });
  QUANVAS_TRY(ImportOptions how, stored_options(project.get(), model_path, project_path));
  for (const auto& [input, shape] : import.shapes) how.shapes[input] = shape;
  const bool is_new = !is_project && !has_project(path, project_path);
  if (import.quantizers != FileQuantizers::kUnset && import.quantizers != how.quantizers) {
    if (!is_new) return other_quantizers(path);
    how.quantizers = import.quantizers;
  }
  how.trusted.clear();
  ImportOptions now = how;
  now.trusted = import.trusted.empty() ? trusted_hashes() : import.trusted;
  // The recipe of such a project says nothing of them.
  if (!is_new && how.quantizers == FileQuantizers::kUnset) now.quantizers = FileQuantizers::kNodes;
  QUANVAS_TRY(Imported imported, import_file(model_path, now, import_job));
  if (imported.recipe) how.quantizers = FileQuantizers::kRules;
  if (!is_project) {
    QUANVAS_TRY(project, project_for(path, project_path));
  }
  remember_trust(imported.trusted, model_path);
  QUANVAS_CHECK(keep(*project, how, is_new ? imported.recipe : std::nullopt));
  job.progress("open", 1, path);
  return std::unique_ptr<Workbench>(
      std::make_unique<WorkbenchState>(std::move(project), std::move(imported.model), options, std::move(issues)));
}

WorkbenchState::WorkbenchState(std::unique_ptr<Project> project, Model model, EngineOptions options,
                               std::vector<Issue> issues)
    : project_(std::move(project)),
      model_(std::make_shared<const Model>(std::move(model))),
      options_(std::move(options)),
      issues_(std::move(issues)),
      kept_values_(std::make_shared<KeptValues>(std::int64_t{1} << 30)) {
  model_hash_ = Hasher().text(model_->graph->hash()).text(model_->weights->hash()).hex();
  for (const Node& node : model_->graph->nodes()) {
    if (!node.opaque_reason.empty()) continue;  // the importer has said it
    const std::string reason = exec::unsupported_reason(node);
    if (!reason.empty())
      issues_.push_back({Severity::kWarning, node.name, node.op + " cannot be executed: " + reason + ".",
                         "The network can be looked at and its weights quantized, but not run."});
  }
  if (const auto runs = project_->runs(&issues_); runs && !runs->empty() && runs->back().model_hash != model_hash_)
    issues_.push_back({Severity::kWarning, project_->model_path(),
                       "The model file has changed since run " + std::to_string(runs->back().id) + " was made of it.",
                       "Runs of the former model stay to look at, but cannot be compared with new ones or exported."});
  if (auto settings = project_->data()) {
    data_settings_ = *settings;
    data_ = open_data(data_settings_);
  }
}

WorkbenchState::Data WorkbenchState::open_data(const DataSettings& settings) const {
  Data out;
  const auto& inputs = model_->graph->inputs();
  const Shape expected = inputs.empty() || !model_->graph->tensor(inputs[0]).shape
                             ? Shape{}
                             : *model_->graph->tensor(inputs[0]).shape;
  OpenRawDatasets open;
  const auto open_one = [&](const DataSource& source, std::optional<Error>& error) -> DatasetPtr {
    if (source.reader.empty()) return nullptr;
    auto dataset = open_dataset(source, settings.preprocessing, project_->directory(), expected, &open);
    if (dataset) return *dataset;
    error = dataset.error();
    return nullptr;
  };
  out.calibrate = open_one(settings.calibrate, out.calibrate_error);
  out.train = open_one(settings.train, out.train_error);
  out.evaluate = open_one(settings.evaluate, out.evaluate_error);
  DataStatus& s = out.status;
  s.problem = problem_of({{"calibration", &out.calibrate_error}, {"training", &out.train_error}, {"evaluation", &out.evaluate_error}});
  s.ready = out.calibrate != nullptr;
  s.has_labels = out.evaluate && out.evaluate->has_labels();
  s.has_tokens = out.evaluate && out.evaluate->has_tokens();
  s.can_evaluate = out.evaluate != nullptr;
  s.can_train = out.train && out.train->has_labels();
  s.calibration_samples = out.calibrate ? static_cast<double>(out.calibrate->size()) : 0;
  s.training_samples = out.train ? static_cast<double>(out.train->size()) : 0;
  s.evaluation_samples = out.evaluate ? static_cast<double>(out.evaluate->size()) : 0;
  if (!s.ready && s.problem.empty()) s.problem = "No calibration data is declared. Declare a data set first.";
  return out;
}

WorkbenchState::Data WorkbenchState::data() const {
  std::lock_guard lock(data_mutex_);
  return data_;
}

Status WorkbenchState::need_writable() const {
  if (project_->read_only()) return fail(ErrorCode::kReadOnly, project_->read_only_reason());
  return {};
}

ProjectState WorkbenchState::state() const {
  ProjectState s;
  s.project_path = project_->path();
  s.model_path = project_->model_path();
  s.model_hash = model_hash_;
  s.read_only = project_->read_only();
  s.read_only_reason = project_->read_only_reason();
  {
    std::lock_guard lock(data_mutex_);
    s.data = data_settings_;
    s.data_status = data_.status;
  }
  s.data_hash = data_hash();
  s.issues = issues_;
  if (auto recipe = project_->recipe()) s.recipe = *recipe;
  if (auto import = options_of(*project_)) s.import = *import;
  auto* self = const_cast<WorkbenchState*>(this);  // fills caches only
  JobContext quiet;
  if (auto prepared = self->prepare(s.recipe, quiet)) {
    if (auto statistics = self->known_statistics(**prepared, s.recipe.calibration)) {
      s.calibrated = true;
      s.statistics_hash = statistics->key;
    }
  }
  return s;
}

Status WorkbenchState::set_recipe(const Recipe& recipe, const std::string& label) {
  QUANVAS_CHECK(need_writable());
  QUANVAS_CHECK(project_->set_recipe(recipe, label));
  store_kept();
  return {};
}

Status WorkbenchState::set_value(const std::string& key, const std::string& text) {
  QUANVAS_CHECK(need_writable());
  return project_->set_value(key, text);
}

Status WorkbenchState::check_data(const DataSettings& settings) const {
  DataSettings before;
  {
    std::lock_guard lock(data_mutex_);
    before = data_settings_;
  }
  Data fresh = open_data(settings);
  const bool all = !(settings.preprocessing == before.preprocessing);
  const Error* first = nullptr;
  const auto look = [&](const DataSource& now, const DataSource& then, std::optional<Error>& error) {
    if (!all && now == then) error.reset();
    if (error && !first) first = &*error;
  };
  look(settings.calibrate, before.calibrate, fresh.calibrate_error);
  look(settings.train, before.train, fresh.train_error);
  look(settings.evaluate, before.evaluate, fresh.evaluate_error);
  if (!first) return {};
  return fail(first->code, problem_of({{"calibration", &fresh.calibrate_error}, {"training", &fresh.train_error},
                                       {"evaluation", &fresh.evaluate_error}}));
}

Result<ProjectState> WorkbenchState::set_data(const DataSettings& settings) {
  QUANVAS_CHECK(need_writable());
  Data opened = open_data(settings);
  QUANVAS_CHECK(project_->set_data(settings));
  {
    std::lock_guard lock(data_mutex_);
    data_settings_ = settings;
    data_ = std::move(opened);
  }
  {
    std::lock_guard lock(cache_mutex_);
    sample_.reset();
    sample_key_.clear();
  }
  return state();
}

std::string WorkbenchState::data_hash() const {
  const Data d = data();
  Hasher h;
  for (const auto& set : {d.calibrate, d.train, d.evaluate}) h.text(set ? set->hash() : "");
  return h.hex();
}

Run WorkbenchState::new_run(RunKind kind, const Recipe& recipe) const {
  Run run;
  run.kind = kind;
  run.name = recipe.name;
  run.created = now_utc();
  run.recipe = recipe;
  run.model_hash = model_hash_;
  run.data_hash = data_hash();
  run.versions = engine_info(options_);
  return run;
}

Status WorkbenchState::add_or_update(Run& run, const std::function<std::string()>& artifact) {
  if (run.artifact.empty() && artifact) {
    QUANVAS_TRY(run.artifact, project_->put_artifact(artifact()));
  }
  if (run.id) return project_->update_run(run);
  QUANVAS_TRY(run.id, project_->add_run(run));
  return {};
}

void WorkbenchState::store(Run& run, JobContext& job, const std::function<std::string()>& artifact) {
  if (project_->read_only()) {
    job.issue({Severity::kWarning, project_->path(), "The run was not stored: " + project_->read_only_reason(),
               "Save a copy of the project to keep runs."});
    return;
  }
  // What was kept of this run before it was complete.
  const auto is_same = [&](const KeptRun& k) { return k.run.kind == run.kind && k.run.created == run.created && k.run.name == run.name; };
  bool told = false;
  {
    std::lock_guard lock(kept_mutex_);
    told = std::erase_if(kept_, is_same) > 0;
  }
  store_kept();
  const Status status = add_or_update(run, artifact);
  if (status) return;
  if (!told)
    job.issue({Severity::kError, project_->path(), "The run was not stored: " + status.error().message,
               "Free some space; as long as the project is open, the run is stored with the next edit or run."});
  std::lock_guard lock(kept_mutex_);
  kept_.push_back({run, run.artifact.empty() && artifact ? artifact() : std::string()});
  if (kept_.size() > kMostKept) kept_.erase(kept_.begin());
}

void WorkbenchState::store_kept() const {
  std::lock_guard lock(kept_mutex_);
  while (!kept_.empty()) {
    auto& [run, artifact] = kept_.front();
    if (run.artifact.empty() && !artifact.empty()) {
      auto key = project_->put_artifact(artifact);
      if (!key) return;
      run.artifact = *key;
    }
    if (run.id ? !project_->update_run(run) : !project_->add_run(run)) return;
    kept_.erase(kept_.begin());
  }
}

Result<std::vector<Run>> WorkbenchState::runs() const {
  store_kept();
  return project_->runs();
}

std::map<std::string, std::string> engine_info(const EngineOptions& options) {
  auto info = exec::engine_versions();
  info["quanvas"] = QUANVAS_VERSION;
  info["device"] = options.device;
  info["threads"] = std::to_string(exec::threads());
  return info;
}

std::vector<Issue> engine_warnings() {
  if (!exec::has_reference_blas()) return {};
  return {{Severity::kWarning, "BLAS", "LibTorch uses the reference BLAS, which is some fifty times slower.",
           "Install libopenblas0-openmp."}};
}

}  // namespace quanvas
