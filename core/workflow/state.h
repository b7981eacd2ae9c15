// Quanvas - the Workbench behind its interface; internal to core/workflow. One file per verb implements the
// methods; what they share is declared here.
//
// Locks: cache_mutex_ guards the caches (prepared model, plan, samples, statistics); it is held while a cache
// is filled, so a quick question may wait for another quick question; for a long verb only while that applies graph passes
// that need no data (a rotation by a large random matrix takes seconds).
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/base/clock.h"
#include "core/exec/pass_context.h"
#include "core/exec/runner.h"
#include "core/graph/layers.h"
#include "core/quant/statistics.h"
#include "core/workflow/artifact.h"
#include "core/workflow/found_quantizers.h"
#include "core/workflow/workbench.h"

namespace quanvas {

// A pass of a recipe that is switched on, with its options completed.
struct ChosenPass {
  int index = 0;  // in Recipe::passes
  const PassEntry* entry = nullptr;
  const Pass* pass = nullptr;
  json options;
};
// Those before calibration, or those behind it. Errors: no such pass, no such option.
Result<std::vector<ChosenPass>> chosen_passes(const Recipe& recipe, bool before_calibration);

// The float network's executor, made when it is first used where making it may copy gigabytes of weights. Throws what
// create() fails with, as a std::runtime_error. Thread-safe.
class FloatRunner {
 public:
  Status make(ModelPtr model, const std::string& device, bool later);
  const exec::Runner& operator*() const { return get(); }
  const exec::Runner* operator->() const { return &get(); }

 private:
  const exec::Runner& get() const;
  ModelPtr model_;
  std::string device_;
  mutable std::once_flag once_;
  mutable std::shared_ptr<const exec::Runner> runner_;
};

// The imported model after the graph passes of a recipe, and everything that follows from it alone.
struct Prepared {
  ModelPtr model;
  std::vector<Layer> layers;
  std::string hash;                        // of graph and weights
  FloatRunner runner;
  std::vector<PassReport> reports;
  std::vector<RecipeIssue> issues;         // of the graph passes; pass: the how manieth of them
  bool uses_data = false, uses_plan = false;  // a pass looked at the calibration data, at the recipe's formats
  std::string data_hash;                   // of the calibration data that they looked at
  bool is_pending = false;                 // a pass was left out: what it needs was not measured yet
};
using PreparedPtr = std::shared_ptr<const Prepared>;
// Whether the model's file gives the scale of this site, so that nothing has to be calibrated for it.
bool has_params_of_file(const Prepared& prepared, const SitePlan& site);

// Float activations of a few calibration samples: what quick questions are answered on.
struct ActivationSample {
  exec::Environment tensors;  // of the prepared graph: layer inputs and outputs only
  std::int64_t samples = 0;
};
using SamplePtr = std::shared_ptr<const ActivationSample>;

// What the float network gives on the evaluation samples: every run is compared with it.
struct FloatOutputs {
  std::string key;                 // of network, data and samples
  std::vector<at::Tensor> chunks;  // output_rows of each chunk, or scored_rows
  double bytes = 0;
  // Keeps a chunk, or none at all when there are too many.
  void add(at::Tensor chunk);
};

class WorkbenchState final : public Workbench {
 public:
  WorkbenchState(std::unique_ptr<Project> project, Model model, EngineOptions options, std::vector<Issue> issues);

  GraphPtr graph() const override { return model_->graph; }
  ProjectState state() const override;
  Result<std::vector<Run>> runs() const override;
  Result<std::vector<RecipeEdit>> edits(int most) const override { return project_->edits(most); }
  Status set_recipe(const Recipe& recipe, const std::string& label) override;
  Result<ProjectState> set_data(const DataSettings& data) override;
  Status check_data(const DataSettings& data) const override;
  Status set_value(const std::string& key, const std::string& text) override;
  Result<std::string> value(const std::string& key) const override { return project_->value(key); }
  Status save_copy(const std::string& path) override { return project_->save_copy(path); }

  Result<LayerFacts> layer_facts(const Recipe& recipe, NodeId node) override;
  Result<Histogram> histogram(const Recipe& recipe, const Site& site, int bins) override;
  Result<std::vector<Refusal>> check_export(const Recipe& recipe, const std::string& target, const json& options,
                                            std::stop_token stop) override;
  Result<std::vector<Refusal>> check_declarations(const Recipe& recipe, const std::string& target, const json& options) override;
  Result<Recipe> mend_recipe(const Recipe& recipe, const std::vector<Refusal>& refusals, const std::string& layer) override;
  Result<std::vector<RecipeIssue>> check_recipe(const Recipe& recipe) override;

  Result<ProjectState> calibrate(JobContext& job) override;
  Result<Run> evaluate_float(int samples, JobContext& job) override;
  Result<Run> run_recipe(const RunRequest& request, JobContext& job) override;
  Result<Run> evaluate_run(std::int64_t run, int samples, JobContext& job) override;
  Result<Run> sweep(const SweepSettings& settings, std::int64_t resume, JobContext& job) override;
  Status dump_run(std::int64_t run, const DumpRequest& request, JobContext& job) override;
  Result<ExportReport> export_model(const ExportRequest& request, JobContext& job) override;
  Result<std::vector<TrainPoint>> train_float(const TrainRequest& request, JobContext& job) override;

 private:
  struct Data {
    DatasetPtr calibrate, train, evaluate;  // null: not declared or not readable
    std::optional<Error> calibrate_error, train_error, evaluate_error;  // why not readable
    DataStatus status;
  };

  // prepare.cpp
  // For quick questions: passes that have yet to measure something are left out (an issue says so).
  Result<PreparedPtr> prepare(const Recipe& recipe, JobContext& job);
  // For long verbs: they measure it first, without the lock.
  Result<PreparedPtr> prepare_whole(const Recipe& recipe, JobContext& job);
  Result<PreparedPtr> known_prepared(const Recipe& recipe, JobContext& job);  // null: of another recipe; needs the lock
  Result<PreparedPtr> keep_prepared(const Recipe& recipe, std::shared_ptr<Prepared> prepared, JobContext& job);  // too
  Result<std::shared_ptr<Prepared>> apply_graph_passes(const Recipe& recipe, bool may_measure, JobContext& job);
  // Of what the network depends on that this one was made for, with that calibration data.
  static std::string passes_key(const Recipe& recipe, const Prepared& prepared, const std::string& data_hash);
  std::string calibration_hash() const;
  std::optional<std::string> known_measurement(const std::string& key);
  void keep_measurement(const std::string& key, const std::string& bytes, JobContext& job);
  Result<std::shared_ptr<const Plan>> plan_for(const PreparedPtr& prepared, const Recipe& recipe);
  // known: of earlier questions, which this one adds to; null: everything is found anew. kCancelled when stopped.
  Result<exec::QuantizerMap> quantizers(const Prepared& prepared, const Plan& plan, const quant::Statistics* statistics, JobContext& job,
                                        FoundQuantizers* known = nullptr) const;
  // calibrate.cpp
  std::string statistics_key(const Prepared& prepared, const CalibrationSettings& settings) const;
  // From memory or the project; null when this was never calibrated.
  quant::StatisticsPtr known_statistics(const Prepared& prepared, const CalibrationSettings& settings);
  // need_batches: known ones of a version that kept no batches are gathered anew.
  Result<quant::StatisticsPtr> gather_statistics(const Prepared& prepared, const CalibrationSettings& settings,
                                                 JobContext& job, bool need_batches);
  // Null without calibration data.
  Result<SamplePtr> sample_for(const PreparedPtr& prepared, const CalibrationSettings& settings);
  // quantize.cpp
  struct Quantized {
    QuantizedModel network;
    PreparedPtr prepared;
    std::vector<PassReport> passes;
    std::vector<TrainPoint> curve;
    quant::StatisticsPtr statistics;
    bool stopped_early = false;
  };
  // Of the passes behind calibration. Errors: a pass that does not exist, options that it does not have.
  static Result<std::vector<RecipeIssue>> check_passes(const Recipe& recipe, const Prepared& prepared, const Plan& plan,
                                                       const Data& data);
  static Status report_checks(const std::vector<RecipeIssue>& checks, const Recipe& recipe, JobContext& job);
  // What all of these look at, and what is kept between runs.
  PassContext pass_context(QuantizedModel network, const Recipe& recipe, const Prepared& prepared, const Data& data);
  // One of them; its report.
  static Result<PassReport> apply_pass(PassContext& context, const ChosenPass& chosen, JobContext& job);
  // Parts of passes that this run has finished, for the run that begins again after a stop. `key`: all that they depend on.
  void forget_parts();  // a run begins
  void begin_parts(PassContext& context, const std::string& key);
  void keep_parts(JobContext& job);  // the run was stopped, or has failed
  void drop_parts(JobContext& job);  // it has succeeded
  Result<Quantized> quantize(const Recipe& recipe, JobContext& job);
  Result<QuantizedModel> rounded_cell(QuantizedModel network, const std::vector<ChosenPass>& passes, const Recipe& recipe,
                                      const Prepared& prepared, NodeId layer, JobContext& job);
  Result<Quantized> load_run(const Run& run, JobContext& job);
  // evaluate.cpp
  Result<Run> quantize_and_measure(const RunRequest& request, JobContext& job);
  Result<Accuracy> measure_accuracy(const Prepared& prepared, const exec::Runner* quantized, int samples,
                                    JobContext& job);
  Result<Accuracy> measure_tokens(const Prepared& prepared, const exec::Runner* quantized, const DatasetPtr& data,
                                  int samples, JobContext& job);
  // The float network's outputs that are kept from an earlier evaluation; null: of another network or other samples.
  std::shared_ptr<const FloatOutputs> known_outputs(const std::string& key);
  void keep_outputs(std::shared_ptr<FloatOutputs> outputs);
  Result<std::vector<LayerResult>> measure_layers(const Prepared& prepared, const QuantizedModel& network,
                                                  JobContext& job);
  Run new_run(RunKind kind, const Recipe& recipe) const;
  // Adds the run to the project, with the network that `artifact` packs. A project that cannot be written keeps no
  // measured run from its caller: that is an issue, and when the disk was the reason the run is kept here and stored
  // with the next success.
  void store(Run& run, JobContext& job, const std::function<std::string()>& artifact = {});
  Status add_or_update(Run& run, const std::function<std::string()>& artifact);
  void store_kept() const;

  Data open_data(const DataSettings& settings) const;
  Data data() const;
  std::string data_hash() const;  // of all splits; bytes are read at the first call only
  Status need_writable() const;
  // export.cpp; whether a model may be written there: in a folder that exists, not over the project or its own model.
  Status check_output(const std::filesystem::path& path, bool overwrite) const;
  void keep_report(const ExportReport& report, std::int64_t run, JobContext& job);

  std::unique_ptr<Project> project_;
  ModelPtr model_;
  std::string model_hash_;
  EngineOptions options_;
  std::vector<Issue> issues_;

  struct KeptRun {
    Run run;
    std::string artifact;
  };
  mutable std::mutex kept_mutex_;
  mutable std::vector<KeptRun> kept_;  // runs that a full disk refused

  mutable std::mutex data_mutex_;
  Data data_;
  DataSettings data_settings_;

  const std::shared_ptr<KeptValues> kept_values_;
  using Parts = std::map<std::string, std::map<std::string, std::string>>;  // by key, by part
  std::mutex parts_mutex_;
  Parts parts_;                        // of the run that goes on
  std::size_t parts_bytes_ = 0;
  std::optional<Parts> stopped_parts_;  // of the one that was stopped last; none: not read from the project yet
  std::mutex measurements_mutex_;
  std::map<std::string, std::string> measurements_;  // what graph passes have measured
  std::mutex cache_mutex_;
  std::string prepared_key_;
  PreparedPtr prepared_;
  Recipe plan_recipe_;
  PreparedPtr plan_prepared_;
  std::shared_ptr<const Plan> plan_;
  std::map<std::string, quant::StatisticsPtr> statistics_;
  FoundQuantizers found_;
  std::string sample_key_;
  SamplePtr sample_;
  std::shared_ptr<const FloatOutputs> float_outputs_;
};

// That there is no data for `sentence`: with the reason and its kind when what is declared cannot be read, else with
// `hint`.
Failure no_data(const std::string& sentence, const std::optional<Error>& reason, const std::string& hint);

// Bytes of weights and biases as quantized (with scales and zero points), and as float32.
struct NetworkSize {
  double bytes = 0, bytes_float = 0, bops = 0;
};
NetworkSize network_size(const Graph& graph, const std::vector<Layer>& layers, const exec::QuantizerMap& quantizers);

// Whether a site's range is averaged over the calibration's batches.
bool needs_batches(const Plan& plan);
// An initializer as contiguous float32 on the CPU (no copy when it is that already); undefined when absent.
at::Tensor weight_values(const Prepared& prepared, TensorId id);
TensorError tensor_error(const at::Tensor& x, const at::Tensor& y);
void add_error(quant::ErrorSums& sums, const at::Tensor& x, const at::Tensor& y);

// A network's output as one row of scores per sample, contiguous float32 on the CPU.
Result<at::Tensor> output_rows(const at::Tensor& output, std::int64_t samples);
// Likewise with a row for each prediction: of samples, or of windows [samples, tokens, vocabulary] of each token.
Result<at::Tensor> prediction_rows(const at::Tensor& output, std::int64_t samples, const Dataset& data);
// Natural logarithms of the probabilities of each row, in double. A network may end in a Softmax; a quantized
// distribution need not sum to 1.
at::Tensor log_probabilities(const at::Tensor& rows, bool is_distribution);
// A run of which only the wanted tensors stay in memory.
Result<exec::Environment> run_keeping(const exec::Runner& runner, const at::Tensor& input,
                                      const std::set<TensorId>& wanted);
// Bytes of these tensors for one sample, by running one: the shapes of a file may be unknown.
Result<double> bytes_per_sample(const exec::Runner& runner, const Dataset& data, const std::set<TensorId>& wanted);
// Samples of a chunk that keeps this much of each. Never a matter of the number of threads.
std::int64_t chunk_size_for(double bytes_per_sample);
// Samples that a worker runs through the network at once: fewer than usual where its activations would take more than
// about 1 GB. The same on every machine, so that results are, too.
std::int64_t chunk_size_for(const Graph& graph);

}  // namespace quanvas
