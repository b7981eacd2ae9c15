// Dynamic activations through the verbs: nothing to calibrate, the same results for any number of threads.
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using testing::WorkbenchTest;

Recipe dynamic_recipe(const json& more = json::object()) {
  Recipe recipe = uniform_recipe(4, 4);
  for (auto& rule : recipe.rules)
    if (rule.select.sites == std::vector<SiteKind>{SiteKind::kInput}) {
      rule.override_fields["source"] = "dynamic";
      rule.override_fields.update(more);
    }
  return recipe;
}

TEST_F(WorkbenchTest, DynamicActivationsNeedNoCalibration) {
  ASSERT_NO_FATAL_FAILURE(open());
  DataSettings data = testing::data_settings();
  data.calibrate = DataSource{};
  data.calibrate.reader.clear();
  ASSERT_TRUE(bench_->set_data(data));
  const quanvas::Run r = run(dynamic_recipe());
  ASSERT_TRUE(r.accuracy);
  EXPECT_FALSE(bench_->state().calibrated);
  EXPECT_GT(r.accuracy->output_sqnr_db, 5);
  ASSERT_EQ(r.layers.size(), 2u);
  EXPECT_FALSE(r.layers[0].activation_format.empty());
  EXPECT_GT(r.bytes, 0);
  // The bias has no accumulator scale: that of the input is not known beforehand.
  const auto plan = resolve(*bench_->graph(), dynamic_recipe(), PresetLibrary::builtin());
  ASSERT_TRUE(plan);
  for (const auto& site : plan->sites)
    if (site.site.kind == SiteKind::kBias) {
      EXPECT_NE(site.why.find("found anew from each sample"), std::string::npos) << site.why;
    }
}

TEST_F(WorkbenchTest, DynamicRunsAreBitEqualForAnyNumberOfThreads) {
  for (const json& more : {json{{"granularity", "tensor"}}, json{{"granularity", "row"}},
                           json{{"granularity", "group"}, {"group_size", 3}, {"statistic", "minmax"}}}) {
    Recipe recipe = dynamic_recipe(more);
    recipe.passes.push_back({"bias-correction", true, json::object()});
    recipe.passes.push_back({"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 16}}});
    std::string artifact;
    double sqnr = 0;
    for (const int threads : {1, 2, 7}) {
      ASSERT_NO_FATAL_FAILURE(open(threads));
      const quanvas::Run r = run(recipe);
      ASSERT_FALSE(r.artifact.empty()) << more.dump();
      ASSERT_TRUE(r.accuracy);
      if (artifact.empty()) {
        artifact = r.artifact;
        sqnr = r.accuracy->output_sqnr_db;
      }
      EXPECT_EQ(r.artifact, artifact) << threads << " threads, " << more.dump();
      EXPECT_EQ(r.accuracy->output_sqnr_db, sqnr) << threads << " threads, " << more.dump();
      const auto again = bench_->evaluate_run(r.id, 0, job_);
      ASSERT_TRUE(again) << again.error().text();
      EXPECT_EQ(again->accuracy->output_sqnr_db, sqnr) << "stored and opened again";
    }
  }
}

TEST_F(WorkbenchTest, DynamicActivationsInFactsHistogramDumpSweepAndExport) {
  ASSERT_NO_FATAL_FAILURE(open());
  const Recipe recipe = dynamic_recipe({{"granularity", "row"}});
  auto before = bench_->layer_facts(recipe, node("fc1"));
  ASSERT_TRUE(before) << before.error().text();
  const auto input_of = [](const LayerFacts& facts) {
    for (const auto& site : facts.sites)
      if (site.site.kind == SiteKind::kInput) return site;
    return SiteFacts{};
  };
  EXPECT_EQ(input_of(*before).missing, "Calibrate first.");
  ASSERT_TRUE(bench_->set_recipe(recipe, "dynamic"));
  ASSERT_TRUE(bench_->calibrate(job_));
  auto facts = bench_->layer_facts(recipe, node("fc1"));
  ASSERT_TRUE(facts) << facts.error().text();
  ASSERT_TRUE(facts->output);
  EXPECT_EQ(input_of(*facts).missing, "");
  EXPECT_GT(input_of(*facts).error.sqnr_db, 10);
  EXPECT_EQ(input_of(*facts).codes_total, 16);
  EXPECT_LT(input_of(*facts).scale_min, input_of(*facts).scale_max);
  auto histogram = bench_->histogram(recipe, {node("fc1"), SiteKind::kInput, 0}, 32);
  ASSERT_TRUE(histogram) << histogram.error().text();
  EXPECT_TRUE(histogram->grid.empty());
  EXPECT_NE(histogram->grid_note.find("run time"), std::string::npos);

  const quanvas::Run r = run(recipe);
  DumpRequest dump;
  dump.folder = (dir_ / "dump").string();
  dump.code_samples = 40;  // more than a chunk
  const auto dumped = bench_->dump_run(r.id, dump, job_);
  ASSERT_TRUE(dumped) << dumped.error().text();
  EXPECT_EQ(fs::file_size(dir_ / "dump" / "codes-0.i32"), 40u * 64 * 4);

  SweepSettings sweep;
  sweep.bits = {4, 8};
  sweep.activations = true;
  const auto swept = bench_->sweep(sweep, 0, job_);
  ASSERT_TRUE(swept) << swept.error().text();
  EXPECT_EQ(swept->sweep->cells.size(), 4u);

  auto refusals = bench_->check_export(recipe, "onnx-qdq", json::object());
  ASSERT_TRUE(refusals) << refusals.error().text();
  int named = 0;
  for (const auto& refusal : *refusals) named += refusal.rule == "granularity";
  EXPECT_EQ(named, 2);
}

}  // namespace
}  // namespace quanvas
