// A Workbench of a small network behind the real service, in this process: what the session and the service
// are tested against without LibTorch.
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "app/engine/service.h"
#include "core/report/target_lens.h"

namespace quanvas::test {

inline GraphPtr small_graph() {
  GraphBuilder builder;
  builder.set_name("small");
  builder.tensor("x", DataType::kFloat, Shape{-1, 4});
  builder.input("x");
  std::string last = "x";
  for (const std::string name : {"fc1", "fc2", "fc3"}) {
    builder.initializer(name + ".weight", DataType::kFloat, {4, 4});
    builder.tensor(name + ".out", DataType::kFloat, Shape{-1, 4});
    builder.node(name, "Gemm", {last, name + ".weight"}, {name + ".out"}, {{"transB", std::int64_t{1}}});
    last = name + ".out";
  }
  builder.output(last);
  return *builder.build();
}

// What the tests steer and what they look at; outlives the engines.
struct FakeWorld {
  std::mutex mutex;
  std::vector<std::pair<std::string, Recipe>> stored;  // label, recipe: what SetRecipe brought
  std::vector<RecipeEdit> edits;                       // what an opened project tells of its past
  std::vector<Run> runs;
  bool read_only = false;
  std::string statistics = "s0";
  DataStatus data_status;
  ImportOptions import;                  // how the model was read
  std::vector<Recipe> asked;             // recipes that were run
  bool exclusive = false;                // a workbench that is open makes the next one read-only
  std::atomic<bool> locked = false;
  std::atomic<int> fail_open_at = 0;     // the opening with this number fails
  std::atomic<bool> disk_full = false;
  std::atomic<bool> hang_in_edits = false, hang_in_data = false;
  std::atomic<int> data_set = 0;         // how often SetData came
  std::atomic<int> opened = 0, facts_asked = 0, histograms_asked = 0, recipes_checked = 0;
  std::atomic<int> exports_checked = 0, declarations_checked = 0, checks_stopped = 0, numbers_ms = 0;
  std::atomic<bool> numbers_refuse = true, fail_numbers = false;
  std::atomic<bool> passes_pending = false;  // they have yet to measure
  std::atomic<int> runs_asked = 0, late_runs = 0;  // the question for runs with this number is answered late
  std::atomic<int> open_ms = 0;          // how long an opening takes
  std::atomic<int> job_ms = 0;           // how long a job runs
  std::atomic<bool> deaf = false;        // jobs do not look at their stop token, and say nothing
  std::atomic<int> finish_ms = 0;        // how long a job that was stopped still works, with progress
  std::atomic<bool> fail_histogram = false, throw_in_facts = false;

  std::size_t stored_count() {
    std::lock_guard lock(mutex);
    return stored.size();
  }
};

class FakeWorkbench final : public Workbench {
 public:
  FakeWorkbench(FakeWorld& world, std::string path)
      : world_(world), path_(std::move(path)), graph_(small_graph()), holds_lock_(!world.locked.exchange(true)) {}
  ~FakeWorkbench() override {
    if (holds_lock_) world_.locked = false;
  }

  GraphPtr graph() const override { return graph_; }
  ProjectState state() const override {
    std::lock_guard lock(world_.mutex);
    ProjectState state;
    state.project_path = state.model_path = path_;
    state.import = world_.import;
    state.model_hash = "m0";
    state.read_only = world_.read_only || (world_.exclusive && !holds_lock_);
    state.read_only_reason = "opened by a test";
    state.calibrated = !world_.statistics.empty();
    state.statistics_hash = world_.statistics;
    state.data_status = world_.data_status;
    if (!world_.edits.empty()) state.recipe = world_.edits.back().after;
    if (!world_.stored.empty()) state.recipe = world_.stored.back().second;
    return state;
  }
  Result<std::vector<Run>> runs() const override {
    const bool late = ++world_.runs_asked == world_.late_runs;
    std::vector<Run> runs;
    {
      std::lock_guard lock(world_.mutex);
      runs = world_.runs;
    }
    if (late) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return runs;
  }
  Result<std::vector<RecipeEdit>> edits(int) const override {
    std::lock_guard lock(world_.mutex);
    return world_.edits;
  }
  Status set_recipe(const Recipe& recipe, const std::string& label) override {
    while (world_.hang_in_edits) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::lock_guard lock(world_.mutex);
    if (world_.read_only) return fail(ErrorCode::kReadOnly, "The project is read-only.");
    if (world_.disk_full) return fail(ErrorCode::kIo, "The disk is full.", "Free some space.");
    world_.stored.emplace_back(label, recipe);
    return {};
  }
  Result<ProjectState> set_data(const DataSettings&) override {
    ++world_.data_set;
    while (world_.hang_in_data) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return state();
  }
  Status check_data(const DataSettings&) const override { return {}; }
  Status set_value(const std::string&, const std::string&) override { return {}; }
  Result<std::string> value(const std::string&) const override { return std::string(); }
  Status save_copy(const std::string& path) override {
    return fail(ErrorCode::kIo, "Cannot write '" + path + "'.");
  }
  Result<LayerFacts> layer_facts(const Recipe&, NodeId node) override {
    ++world_.facts_asked;
    if (world_.throw_in_facts) throw std::runtime_error("a tensor went wrong\nand a stack trace");
    LayerFacts facts;
    facts.node = node;
    return facts;
  }
  Result<Histogram> histogram(const Recipe&, const Site& site, int bins) override {
    ++world_.histograms_asked;
    if (world_.fail_histogram) return fail(ErrorCode::kNotFound, "There is no such site.");
    Histogram histogram;
    histogram.site = site;
    histogram.counts.assign(static_cast<std::size_t>(bins), 1.0);
    return histogram;
  }
  // Numbers add one refusal of fc2 to what declarations say, and take a while.
  Result<std::vector<Refusal>> check_export(const Recipe& recipe, const std::string& target, const json& options, std::stop_token stop) override {
    ++world_.exports_checked;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(world_.numbers_ms);
    while (std::chrono::steady_clock::now() < end) {
      if (stop.stop_requested()) {
        ++world_.checks_stopped;
        return fail(ErrorCode::kCancelled, "Stopped on request.");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (world_.fail_numbers) return fail(ErrorCode::kCorrupt, "A weight is not there.");
    QUANVAS_TRY(std::vector<Refusal> out, check_declarations(recipe, target, options));
    if (world_.numbers_refuse) out.insert(out.begin(), Refusal{"fc2", "weight", "scale", "scale 0", "above 0", "Calibrate again.", Site{1, SiteKind::kWeight, 0}, {}, true});
    return out;
  }
  Result<std::vector<Refusal>> check_declarations(const Recipe&, const std::string& target, const json&) override {
    ++world_.declarations_checked;
    QuantSpec fix;
    fix.bits = 3;
    return std::vector<Refusal>{{"fc1", "weight", "bits", target, "8", "use 8 bits", Site{0, SiteKind::kWeight, 0}, fix, false}};
  }
  Result<Recipe> mend_recipe(const Recipe& recipe, const std::vector<Refusal>& refusals, const std::string& layer) override {
    return with_fixes(recipe, *graph_, refusals, layer);
  }
  Result<std::vector<RecipeIssue>> check_recipe(const Recipe& recipe) override {
    ++world_.recipes_checked;
    std::vector<RecipeIssue> out;
    for (std::size_t i = 0; i < recipe.passes.size(); ++i)
      out.push_back({static_cast<int>(i), {Severity::kError, "fc1", recipe.passes[i].id + " is not possible.", "Remove it."}, world_.passes_pending.load()});
    return out;
  }
  Result<ProjectState> calibrate(JobContext& job) override {
    QUANVAS_CHECK(work(job));
    {
      std::lock_guard lock(world_.mutex);
      world_.statistics = "s1";
    }
    return state();
  }
  Result<Run> evaluate_float(int, JobContext& job) override { return run("float", job); }
  Result<Run> run_recipe(const RunRequest& request, JobContext& job) override {
    {
      std::lock_guard lock(world_.mutex);
      world_.asked.push_back(request.recipe.value_or(Recipe{}));
    }
    return run(request.recipe ? request.recipe->name : "", job);
  }
  Result<Run> evaluate_run(std::int64_t, int, JobContext& job) override { return run("again", job); }
  Result<Run> sweep(const SweepSettings& settings, std::int64_t, JobContext& job) override {
    for (const int bits : settings.bits) job.partial("sweep-cell", to_json_text(SweepCell{0, bits, 1, 2, 0.5, 0.1}));
    return run("sweep", job);
  }
  Status dump_run(std::int64_t, const DumpRequest&, JobContext&) override { return {}; }
  Result<ExportReport> export_model(const ExportRequest& request, JobContext&) override {
    ExportReport report;
    report.target = request.target;
    report.refusals = {{"fc1", "weight", "bits", "4", "8", "use 8 bits"}};
    return report;
  }
  Result<std::vector<TrainPoint>> train_float(const TrainRequest&, JobContext&) override {
    return fail(ErrorCode::kUnsupported, "There is no training data.");
  }

 private:
  Status work(JobContext& job) {
    using Clock = std::chrono::steady_clock;
    auto end = Clock::now() + std::chrono::milliseconds(world_.job_ms);
    bool finishing = false;
    job.progress("work", 0.5);
    while (Clock::now() < end) {
      if (!world_.deaf && !finishing && job.stopped()) {
        if (world_.finish_ms == 0) return job.check();
        finishing = true;
        end = Clock::now() + std::chrono::milliseconds(world_.finish_ms);
      }
      if (!world_.deaf) job.progress(finishing ? "finish" : "work", 0.5);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return {};
  }
  Result<Run> run(const std::string& name, JobContext& job) {
    QUANVAS_CHECK(work(job));
    std::lock_guard lock(world_.mutex);
    Run run;
    run.id = static_cast<std::int64_t>(world_.runs.size()) + 1;
    run.name = name;
    world_.runs.push_back(run);
    return run;
  }

  FakeWorld& world_;
  std::string path_;
  GraphPtr graph_;
  const bool holds_lock_;
};

inline Backend fake_backend(FakeWorld& world) {
  return {[&world](const std::string& path, const std::string&, const ImportOptions&,
                   JobContext& job) -> Result<std::unique_ptr<Workbench>> {
            if (path.find("missing") != std::string::npos)
              return fail(ErrorCode::kNotFound, "There is no file '" + path + "'.");
            job.progress("import", 0.5);
            std::this_thread::sleep_for(std::chrono::milliseconds(world.open_ms));
            if (++world.opened == world.fail_open_at) return fail(ErrorCode::kIo, "The disk is gone.");
            return std::make_unique<FakeWorkbench>(world, path);
          },
          [] { return json{{"passes", json::array()}}; },
          [] { return std::map<std::string, std::string>{{"quanvas", "test"}}; },
          [] { return std::vector<Issue>{}; }};
}

// A private folder for one test's sockets; removed with everything in it.
class SocketFolder {
 public:
  SocketFolder() {
    char name[] = "/tmp/quanvas-test-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~SocketFolder() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  std::filesystem::path path() const { return path_; }
  std::string address(const std::string& name = "engine.sock") const { return "unix:" + (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace quanvas::test
