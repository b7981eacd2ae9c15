// Graph passes that look at the calibration data: quick questions never wait for them, runs measure once, and a run's
// network is opened only on what it was made from.
#include <gtest/gtest.h>

#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using testing::WorkbenchTest;
using testing::data_settings;

class GraphPassTest : public WorkbenchTest {
 protected:
  static Recipe recipe(json options = {{"method", "layerwise"}}) {
    Recipe r;
    PassEntry pass;
    pass.id = "smoothquant";
    pass.options = std::move(options);
    r.passes.push_back(pass);
    Rule rule;
    rule.select.sites = {SiteKind::kWeight};
    r.rules.push_back(rule);
    return r;
  }
  double weight_error(const Recipe& r) {
    const auto facts = bench_->layer_facts(r, node("fc1"));
    EXPECT_TRUE(facts) << facts.error().text();
    for (const SiteFacts& s : facts->sites)
      if (s.site.kind == SiteKind::kWeight) return s.error.sqnr_db;
    return -1;
  }
};

TEST_F(GraphPassTest, AQuickQuestionLeavesOutWhatWasNotMeasured) {
  open();
  Recipe plain = recipe();
  plain.passes.clear();
  const double without = weight_error(plain);
  EXPECT_EQ(weight_error(recipe()), without);
  const quanvas::Run first = run(recipe());
  ASSERT_EQ(first.passes.size(), 1u);
  EXPECT_NE(first.passes[0].summary.find("Smoothed"), std::string::npos) << first.passes[0].summary;
  const double with = weight_error(recipe());
  EXPECT_NE(with, without);
  // Stored with the project.
  bench_.reset();
  auto again = Workbench::open((dir_ / "tiny.quanvas").string(), EngineOptions{}, job_);
  ASSERT_TRUE(again) << again.error().text();
  bench_ = std::move(*again);
  EXPECT_EQ(weight_error(recipe()), with);
}

// fc1 reads 64 values and gives 3: a branch of rank 2 has 2 * (64 + 3) numbers of 4 bytes.
TEST_F(GraphPassTest, ABranchBesideALayerCountsInTheSize) {
  open();
  Recipe branch = recipe(), plain = recipe();
  plain.passes.clear();
  branch.passes[0].id = "low-rank";
  branch.passes[0].options = {{"rank", 2}};
  const quanvas::Run with = run(branch), without = run(plain);
  EXPECT_EQ(with.bytes - without.bytes, 4 * 2 * (64 + 3));
  EXPECT_EQ(with.bops - without.bops, 2 * (64 + 3) * 32 * 32);
}

TEST_F(GraphPassTest, ARunIsOpenedOnTheNetworkThatItWasMadeFrom) {
  open();
  const quanvas::Run made = run(recipe());
  const auto same = bench_->evaluate_run(made.id, 0, job_);
  ASSERT_TRUE(same) << same.error().text();
  EXPECT_EQ(same->accuracy->top1, made.accuracy->top1);
  DataSettings other = data_settings();
  other.calibrate.begin = 40;
  ASSERT_TRUE(bench_->set_data(other));
  const auto refused = bench_->evaluate_run(made.id, 0, job_);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("calibration data has changed"), std::string::npos) << refused.error().text();
  // A new run measures anew.
  const quanvas::Run anew = run(recipe());
  EXPECT_TRUE(bench_->evaluate_run(anew.id, 0, job_));
}

// The order of the passes is known before the run, and that a later one undoes what an earlier one has proven.
TEST_F(GraphPassTest, APassThatBreaksABoundSaysSo) {
  open();
  const auto warnings = [&](std::vector<std::pair<std::string, json>> passes) {
    Recipe r = recipe();
    r.passes.clear();
    for (auto& [id, options] : passes) {
      PassEntry entry;
      entry.id = id;
      entry.options = std::move(options);
      r.passes.push_back(entry);
    }
    Rule rule;
    rule.select.sites = {SiteKind::kInput};
    r.rules.push_back(rule);
    int count = 0;
    JobContext job({}, {}, [&](const Issue& issue) { count += issue.message.find("that bound no longer holds") != std::string::npos; });
    RunRequest request;
    request.recipe = r;
    const auto done = bench_->run_recipe(request, job);
    EXPECT_TRUE(done) << done.error().text();
    return count;
  };
  const json twenty = {{"accumulator_bits", 20}};
  EXPECT_EQ(warnings({{"gptq", twenty}}), 0);
  EXPECT_EQ(warnings({{"gptq", twenty}, {"bias-correction", json::object()}}), 0);
  EXPECT_EQ(warnings({{"gptq", twenty}, {"polish", twenty}}), 0);
  EXPECT_EQ(warnings({{"gptq", twenty}, {"polish", json::object()}}), 1);
  EXPECT_EQ(warnings({{"gptq", twenty}, {"adaround", {{"iterations", 5}}}}), 1);
}

TEST_F(GraphPassTest, WithoutDataARunSaysWhatItNeeds) {
  open();
  DataSettings none = data_settings();
  none.calibrate = {};
  ASSERT_TRUE(bench_->set_data(none));
  RunRequest request;
  request.recipe = recipe();
  const auto refused = bench_->run_recipe(request, job_);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("SmoothQuant needs calibration data"), std::string::npos) << refused.error().text();
  EXPECT_GE(weight_error(recipe()), 0);  // the quick question still answers
}

}  // namespace
}  // namespace quanvas
