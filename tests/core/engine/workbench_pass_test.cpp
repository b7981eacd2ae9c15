// Passes in runs and sweeps: what is said before they run, what a stopped run leaves, what a sweep rounds with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using ::testing::HasSubstr;
using testing::WorkbenchTest;

class PassTest : public WorkbenchTest {
 protected:
  static Recipe with(std::vector<PassEntry> passes, int weight_bits = 4) {
    Recipe r = uniform_recipe(weight_bits, 4);
    for (PassEntry& pass : passes) r.passes.push_back(std::move(pass));
    return r;
  }
  // Runs the recipe until `phase` reports for the first time.
  void stop_at(const Recipe& recipe, const std::string& phase) {
    std::stop_source stop;
    JobContext stopping(stop.get_token(), [&](const Progress& p) {
      if (p.phase == phase) stop.request_stop();
    });
    RunRequest request;
    request.recipe = recipe;
    const auto run = bench_->run_recipe(request, stopping);
    ASSERT_FALSE(run);
    EXPECT_EQ(run.error().code, ErrorCode::kCancelled) << run.error().text();
  }
  void reopen() {
    bench_.reset();
    auto again = Workbench::open((dir_ / "tiny.quanvas").string(), EngineOptions{}, job_);
    ASSERT_TRUE(again) << again.error().text();
    bench_ = std::move(*again);
  }
  std::string summary(const quanvas::Run& run, const std::string& id) {
    for (const PassReport& pass : run.passes)
      if (pass.id == id) return pass.summary;
    return "";
  }
  std::size_t artifacts() const {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir_ / "tiny.quanvas.data")) ++count;
    return count;
  }
};

constexpr const char* kBefore = "finished before a stop";

TEST_F(PassTest, AStoppedRunIsContinuedWithTheSameBits) {
  struct Row {
    const char* name;
    std::vector<PassEntry> passes;
    const char* stop;    // phase
    const char* resumed;  // the pass that says so
  };
  const Row rows[] = {{"in its pass", {{"gptq"}}, "GPTQ", "gptq"},
                      {"both inputs", {{"qronos"}}, "Qronos", "qronos"},
                      {"in the pass behind it", {{"gptq"}, {"polish"}}, "Coordinate descent", "gptq"},
                      {"learned", {{"adaround", true, {{"iterations", 20}}}}, "Learned rounding", "adaround"},
                      {"blocks", {{"brecq", true, {{"iterations", 20}, {"layers", 1}}}}, "Block reconstruction", "brecq"},
                      {"while it is measured", {{"gptq"}}, "evaluate", "gptq"}};
  ASSERT_NO_FATAL_FAILURE(open());
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const Recipe recipe = with(row.passes);
    ASSERT_NO_FATAL_FAILURE(stop_at(recipe, row.stop));
    ASSERT_NO_FATAL_FAILURE(reopen());
    const quanvas::Run continued = run(recipe);
    EXPECT_THAT(summary(continued, row.resumed), HasSubstr(kBefore));
    const quanvas::Run whole = run(recipe);
    EXPECT_THAT(summary(whole, row.resumed), ::testing::Not(HasSubstr(kBefore))) << "it was used up";
    EXPECT_EQ(continued.artifact, whole.artifact);
    ASSERT_EQ(continued.passes.size(), whole.passes.size());
    for (std::size_t i = 0; i < whole.passes.size(); ++i) {
      ASSERT_EQ(continued.passes[i].layers.size(), whole.passes[i].layers.size());
      for (std::size_t l = 0; l < whole.passes[i].layers.size(); ++l)
        EXPECT_EQ(continued.passes[i].layers[l].after, whole.passes[i].layers[l].after);
    }
  }
}

TEST_F(PassTest, PartsOfAnotherRunAreNotTaken) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = with({{"gptq"}});
  ASSERT_NO_FATAL_FAILURE(stop_at(recipe, "GPTQ"));
  EXPECT_THAT(summary(run(with({{"gptq", true, {{"damping", 0.02}}}})), "gptq"), ::testing::Not(HasSubstr(kBefore)));
  EXPECT_THAT(summary(run(with({{"gptq"}}, 3)), "gptq"), ::testing::Not(HasSubstr(kBefore)));
  EXPECT_THAT(summary(run(with({{"magr", true, {{"steps", 2}}}, {"gptq"}})), "gptq"), ::testing::Not(HasSubstr(kBefore)));
  Recipe other = recipe;
  other.calibration.samples = 40;
  EXPECT_THAT(summary(run(other), "gptq"), ::testing::Not(HasSubstr(kBefore)));
  EXPECT_THAT(summary(run(recipe), "gptq"), HasSubstr(kBefore)) << "the others have left it alone";
}

TEST_F(PassTest, PartsTakeNoRoomForLong) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = with({{"gptq"}});
  const quanvas::Run whole = run(recipe);
  const std::size_t before = artifacts();
  ASSERT_NO_FATAL_FAILURE(stop_at(recipe, "GPTQ"));
  ASSERT_NO_FATAL_FAILURE(stop_at(with({{"qronos"}}), "Qronos"));
  EXPECT_EQ(artifacts(), before + 1) << "of the run that was stopped last";
  ASSERT_NO_FATAL_FAILURE(stop_at(recipe, "GPTQ"));
  EXPECT_EQ(run(recipe).artifact, whole.artifact);
  EXPECT_EQ(artifacts(), before);
}

// The second stop comes while parts of the first are being taken: those that it did not come to are still there.
TEST_F(PassTest, ASecondStopLosesNothing) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = with({{"gptq"}, {"polish"}});
  ASSERT_NO_FATAL_FAILURE(stop_at(recipe, "evaluate"));
  ASSERT_NO_FATAL_FAILURE(stop_at(recipe, "GPTQ"));
  const quanvas::Run continued = run(recipe);
  EXPECT_THAT(summary(continued, "gptq"), HasSubstr(std::string("2 of them ") + kBefore));
  EXPECT_THAT(summary(continued, "polish"), HasSubstr(std::string("2 of them ") + kBefore));
}

TEST_F(PassTest, AnExportLeavesNoParts) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = with({{"gptq"}}, 8);
  ASSERT_TRUE(bench_->set_recipe(recipe, "r"));
  ExportRequest request;
  request.target = "onnx-qdq";
  request.path = (dir_ / "out.onnx").string();
  const auto report = bench_->export_model(request, job_);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_TRUE(report->refusals.empty());
  ASSERT_NO_FATAL_FAILURE(stop_at(with({{"magr", true, {{"steps", 2}}}}), "MagR"));
  EXPECT_THAT(summary(run(recipe), "gptq"), ::testing::Not(HasSubstr(kBefore)));
}

TEST_F(PassTest, DamagedPartsAreMadeAgain) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = with({{"gptq"}});
  const quanvas::Run whole = run(recipe);
  std::set<std::string> known;
  for (const auto& entry : std::filesystem::directory_iterator(dir_ / "tiny.quanvas.data")) known.insert(entry.path().string());
  for (const bool gone : {false, true}) {
    ASSERT_NO_FATAL_FAILURE(stop_at(recipe, "GPTQ"));
    bench_.reset();
    int damaged = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_ / "tiny.quanvas.data")) {
      if (known.count(entry.path().string())) continue;
      ++damaged;
      if (gone) std::filesystem::remove(entry.path());
      else std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) / 2);
    }
    ASSERT_EQ(damaged, 1);
    ASSERT_NO_FATAL_FAILURE(reopen());
    EXPECT_EQ(run(recipe).artifact, whole.artifact);
  }
}

// A cell is the network in which one layer alone has a format, rounded by the pass.
TEST_F(PassTest, ASweepRoundsAsARunDoes) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe base = uniform_recipe(3, 0);
  ASSERT_TRUE(bench_->set_recipe(base, "base"));
  for (const char* pass : {"gptq", "adaround"}) {
    SCOPED_TRACE(pass);
    SweepSettings settings;
    settings.bits = {4, 3, 2};
    settings.samples = 0;
    settings.passes = {{pass}};
    const auto swept = bench_->sweep(settings, 0, job_);
    ASSERT_TRUE(swept) << swept.error().text();
    settings.passes.clear();
    const auto nearest = bench_->sweep(settings, 0, job_);
    ASSERT_TRUE(nearest);
    ASSERT_EQ(swept->sweep->cells.size(), 6u);
    int better = 0;
    for (std::size_t i = 0; i < 6; ++i) {
      const SweepCell& cell = swept->sweep->cells[i];
      SCOPED_TRACE(std::to_string(cell.node) + " at " + std::to_string(cell.bits));
      better += cell.layer_sqnr_db > nearest->sweep->cells[i].layer_sqnr_db;
      Recipe alone = uniform_recipe(cell.bits, 0);
      Rule others;
      for (const char* name : {"conv1", "fc1"})
        if (node(name) != cell.node) others.select.names.push_back(name);
      others.is_float = true;
      alone.rules.push_back(others);
      alone.passes.push_back({pass, true, {{"inputs", "float"}}});
      const quanvas::Run single = run(alone);
      EXPECT_NEAR(single.accuracy->output_sqnr_db, cell.output_sqnr_db, 1e-6);
      EXPECT_EQ(single.accuracy->top1, cell.top1);
    }
    EXPECT_EQ(better, 6) << "the data are those that the pass has seen";
  }
}

// fc1 without its bias: the pass would add one.
TEST_F(PassTest, ASweepGoesOnWhereAPassCannot) {
  ASSERT_NO_FATAL_FAILURE(open());
  ASSERT_TRUE(bench_->set_recipe(Recipe{}, "no folding: conv1 has no bias of its own"));
  SweepSettings settings;
  settings.bits = {3};
  settings.samples = 0;
  const auto nearest = bench_->sweep(settings, 0, job_);
  ASSERT_TRUE(nearest) << nearest.error().text();
  settings.passes = {{"bias-correction"}};
  const auto swept = bench_->sweep(settings, 0, job_);
  ASSERT_TRUE(swept) << swept.error().text();
  EXPECT_TRUE(swept->sweep->complete);
  ASSERT_EQ(swept->sweep->cells.size(), nearest->sweep->cells.size());
}

TEST_F(PassTest, ASweepRefusesPassesThatRoundNoLayer) {
  ASSERT_NO_FATAL_FAILURE(open());
  struct Row {
    PassEntry pass;
    bool weights;
    const char* sentence;
  };
  const Row rows[] = {{{"equalize"}, true, "does not work on the weights of single layers"},
                      {{"qat"}, true, "does not work on the weights of single layers"},
                      {{"gptq"}, false, "has nothing to round"},
                      {{"nothing"}, true, "nothing"},
                      {{"gptq", true, {{"speed", 3}}}, true, "speed"}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.pass.id);
    SweepSettings settings;
    settings.passes = {row.pass};
    settings.weights = row.weights;
    settings.activations = !row.weights;
    const auto swept = bench_->sweep(settings, 0, job_);
    ASSERT_FALSE(swept);
    EXPECT_THAT(swept.error().message, HasSubstr(row.sentence));
  }
}

TEST_F(PassTest, ChecksARecipeBeforeItRuns) {
  ASSERT_NO_FATAL_FAILURE(open());
  struct Row {
    const char* name;
    std::vector<PassEntry> passes;
    int pass;
    Severity severity;
    const char* sentence;
    bool pending = false;
  };
  Selector none;
  none.names = {"no such layer"};
  const Row rows[] = {
      {"memory", {{"gptq"}}, 1, Severity::kInfo, "second moments ('fc1', 64 inputs)"},
      {"no layer", {{"gptq", true, json::object(), none}}, 1, Severity::kWarning, "No layer is selected"},
      {"training of some layers", {{"qat", true, json::object(), none}}, 1, Severity::kError, "cannot be limited to layers"},
      {"unknown pass", {{"gptq"}, {"made-up"}}, 2, Severity::kError, "made-up"},
      {"unknown option", {{"gptq", true, {{"speed", 3}}}}, 1, Severity::kError, "speed"},
      {"float inputs have no sums", {{"gptq", true, {{"accumulator_bits", 16}, {"accumulator_tile", 7}}}}, 1, Severity::kInfo, "second moments"},
      {"a bound that is broken", {{"gptq", true, {{"accumulator_bits", 16}}}, {"adaround"}}, 2, Severity::kWarning, "no longer holds"},
      {"a graph pass of some layers", {{"absorb-bias"}, {"equalize", true, json::object(), none}}, 2, Severity::kError, "cannot be limited to layers"},
      {"not measured yet", {{"smoothquant", true, {{"method", "layerwise"}}}}, 1, Severity::kInfo, "", true}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const auto issues = bench_->check_recipe(with(row.passes));
    ASSERT_TRUE(issues) << issues.error().text();
    EXPECT_THAT(*issues, ::testing::Contains(::testing::Truly([&](const RecipeIssue& i) {
      return i.pass == row.pass && i.issue.severity == row.severity && i.is_pending == row.pending &&
             i.issue.message.find(row.sentence) != std::string::npos;
    }))) << to_json_text(*issues);
  }
  // What is measured is no longer pending; a recipe without passes has nothing to say.
  const Recipe smooth = with({{"smoothquant", true, {{"method", "layerwise"}}}});
  run(smooth);
  const auto after = bench_->check_recipe(smooth);
  ASSERT_TRUE(after);
  for (const RecipeIssue& issue : *after) EXPECT_FALSE(issue.is_pending) << issue.issue.message;
  const auto empty = bench_->check_recipe(Recipe{});
  ASSERT_TRUE(empty);
  EXPECT_TRUE(empty->empty());
}

}  // namespace
}  // namespace quanvas
