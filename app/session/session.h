// Quanvas - Session: the window's only door to the engine. Starts quanvas-engine (or connects to a running
// one), keeps the values that views show, and turns intents into calls. No Torch, no Qt Widgets.
//
// Threads: lives on the GUI thread; every method returns at once; every signal arrives on the GUI thread.
// Answers that a newer question of their kind has overtaken are dropped. When the engine dies, engine_lost is
// emitted with a sentence, it is started again and the project reopened (engine_ready, project_opened with
// reopened = true); edits that it had not confirmed are sent again.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <QObject>
#include <QString>
#include <QStringList>
#include <QUndoStack>

#include "core/graph/graph.h"
#include "core/graph/layers.h"
#include "core/recipe/plan.h"
#include "core/report/report.h"
#include "core/report/trusted_models.h"
#include "core/workflow/workbench.h"

namespace quanvas {

struct JobStatus {
  QString id, title;              // "j7", "Run W4A4"
  QString verb;
  Progress progress;
  enum class Phase { kQueued, kRunning, kCancelling, kDone, kFailed, kCancelled } phase = Phase::kQueued;
  QString message;                // failure or result in one sentence
  double seconds = 0;
};

class Session : public QObject {
  Q_OBJECT

 public:
  // engine_address: empty starts an own engine; "unix:PATH" uses one that runs already.
  explicit Session(const QString& engine_address = {}, QObject* parent = nullptr);
  ~Session() override;

  void start();  // starts or connects; answers with engine_ready or engine_lost

  // --- what is there now (valid after project_opened) ---
  bool has_project() const;
  bool engine_is_ready() const;
  bool engine_is_remote() const;
  GraphPtr graph() const;
  const std::vector<Layer>& layers() const;
  const ProjectState& state() const;
  const Recipe& recipe() const;                // current, with unsent edits
  const Plan& plan() const;                    // recipe resolved here, at once
  const std::vector<Run>& runs() const;
  const std::map<NodeId, LayerFacts>& facts() const;   // newest answers
  bool facts_are_stale(NodeId node) const;     // the recipe changed this layer since
  bool run_is_elsewhere(const Run& run) const; // of another model or other data than the current ones
  bool run_is_stale(const Run& run) const;     // model, data, statistics or recipe differ from the current ones
  const json& catalog() const;                 // plug-ins, presets, recipes
  const std::vector<Issue>& issues() const;
  const std::vector<RecipeIssue>& recipe_issues() const;  // of the recipe's passes, as the engine said last
  const QString& looked_at_target() const;                // empty: none
  const std::vector<Refusal>& target_refusals() const;    // of that target, as the engine said last, in the order of the layers
  const QString& target_trouble() const;                  // why it could not be asked
  bool target_is_known() const;                           // it has answered for the open project
  bool target_is_whole() const;                           // with all numbers; until then declarations have answered, and of what
                                                          // numbers said before, what this edit leaves alone
  const std::vector<JobStatus>& jobs() const;  // newest last
  std::map<std::string, std::string> engine_versions() const;
  QUndoStack* undo_stack();
  // Why the edits that wait could not be stored, in sentences; empty when nothing failed. They are tried again with
  // the next edit and every few seconds.
  QString unstored() const;

  // What views need of a project is made beside the GUI thread: called on a thread of the session's once a project is
  // open, before project_opened says so, with what will be shown. take_prepared() is its answer for the open project, once.
  using Preparation = std::function<std::shared_ptr<void>(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan)>;
  void set_preparation(Preparation preparation);
  std::shared_ptr<void> take_prepared();

  // --- intents ---
  // Project or model; a local file is uploaded to a remote engine. import: how the model is read from now on; what is
  // empty in it: as last time. A model whose code must be trusted first answers with trust_wanted.
  // project: file of the engine's machine to open the model (on it, too) with, instead of the model's own.
  void open(const QString& path, const ImportOptions& import = {}, const QString& project = {});
  void save_copy(const QString& path);
  // Undoable, one step; merge_key not empty: consecutive edits of the same key merge (drags, spin boxes).
  void edit_recipe(const Recipe& after, const QString& label, const QString& merge_key = {});
  void assign(const std::vector<Site>& sites, const std::optional<QuantSpec>& spec, const QString& label,
              const QString& merge_key = {});
  void retry_edits();
  // Sends what was not stored and waits for it, a few seconds at most: why it could not be stored, or nothing.
  QString store_edits();
  void abandon_edits();                        // what is not stored by now is not waited for at the end
  void set_data(const DataSettings& data);
  void set_value(const QString& key, const QString& text);
  void request_exports(std::int64_t run);      // reports of what was exported of it, 0: of the recipe; answer: exports_read
  void request_facts(const std::vector<NodeId>& nodes);         // answers: facts_changed
  void request_histogram(const Site& site, int bins);           // answer: histogram_ready
  // Files whose code the engine's user has let run; both answer with trust_listed or trust_failed.
  void request_trust();
  void revoke_trust(const QStringList& hashes);
  // recipe: what is to be exported, none: the current one. options: incomplete ones are defaults. Answer: export_checked.
  void check_export(const QString& target, const json& options, const std::optional<Recipe>& recipe = std::nullopt);
  // What this target makes of the recipe, now and whenever it changes; empty: no more. Answers: target_looked, at once with
  // what declarations say, and once edits rest with what numbers add; the next edit stops that.
  void look_at_target(const QString& target, const json& options);
  // Puts the quantizers that mend what the target refuses of the layer (empty: of all) into the recipe, as one edit. Nothing
  // when the recipe changes meanwhile.
  void mend_target(const QString& layer, const QString& label);
  QString start_calibrate();
  QString start_evaluate_float();
  QString start_run(const std::optional<Recipe>& recipe = std::nullopt);  // the current recipe by default
  QString start_sweep(const SweepSettings& settings, std::int64_t resume = 0);
  QString start_export(const ExportRequest& request);
  void cancel(const QString& job_id);
  void clear_issues();

 Q_SIGNALS:
  void engine_ready();
  void engine_lost(const QString& sentence);
  void open_failed(const QString& path, const QString& sentence);
  void trust_wanted(const QString& path, const QString& sentence);  // nothing was opened; what the file brings
  void trust_listed(const std::vector<quanvas::TrustedModel>& models);
  void trust_failed(const QString& sentence);
  void open_progress(const QString& text, double fraction);
  void project_opened(bool reopened);
  void state_changed();                        // data, calibration, read-only ...
  void recipe_changed();                       // recipe() and plan() are new
  void recipe_checked();                       // recipe_issues() are new
  void target_looked();                        // target_refusals() are new
  void unstored_changed();
  void copy_failed(const QString& sentence);
  void facts_changed(const std::vector<quanvas::NodeId>& nodes);
  void histogram_ready(const quanvas::Histogram& histogram);
  void histogram_failed(const quanvas::Site& site, const QString& sentence);
  void runs_changed();
  void sweep_cell(qint64 job_number, const quanvas::SweepCell& cell);
  void train_point(const quanvas::TrainPoint& point);
  void jobs_changed();
  void job_finished(const QString& job_id, bool ok, const QString& sentence);
  void export_finished(const quanvas::ExportReport& report);
  void exports_read(qint64 run, const std::vector<quanvas::ExportReport>& reports);
  void export_checked(const QString& target, const std::vector<quanvas::Refusal>& refusals);
  void issues_changed();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quanvas
