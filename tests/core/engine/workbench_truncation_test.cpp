// A truncated output from recipe to stored run: facts, evaluation, training, artifact.
#include <gmock/gmock.h>

#include "core/quant/truncate.h"
#include "core/workflow/state.h"
#include "tests/core/engine/exec_support.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using Ints = std::vector<std::int64_t>;
using ::testing::HasSubstr;
using testing::noise;
using testing::WorkbenchTest;

// conv -> Relu -> AveragePool -> GlobalAveragePool -> Gemm
ModelPtr pooled() {
  testing::ModelMaker m;
  m.input("x", {-1, 1, 8, 8});
  m.weight("w1", noise({4, 1, 3, 3}, 1)).weight("w2", noise({3, 4}, 3));
  m.shape("c", {-1, 4, 8, 8}).shape("r", {-1, 4, 8, 8}).shape("p", {-1, 4, 4, 4}).shape("g", {-1, 4, 1, 1});
  m.node("conv", "Conv", {"x", "w1"}, {"c"}, {{"pads", Ints{1, 1, 1, 1}}}).node("relu", "Relu", {"c"}, {"r"});
  m.node("pool", "AveragePool", {"r"}, {"p"}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  m.node("global", "GlobalAveragePool", {"p"}, {"g"}).node("flat", "Flatten", {"g"}, {"f"});
  m.node("fc", "Gemm", {"f", "w2"}, {"y"}, {{"transB", std::int64_t{1}}});
  m.output("y");
  return m.build();
}

Recipe recipe_of(const std::string& preset) {
  auto recipe = parse_recipe(R"(rules:
  - {select: {names: [relu], sites: [output]}, set: {bits: 6, signed: false, source: learned}}
  - {select: {names: [pool, global], sites: [output]}, preset: )" +
                                 preset + ", set: {bits: 5}}\n",
                             "r.yaml");
  EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().text());
  return recipe.value_or(Recipe{});
}

const SiteFacts* output(const LayerFacts& facts) {
  for (const auto& site : facts.sites)
    if (site.site.kind == SiteKind::kOutput) return &site;
  return nullptr;
}

TEST_F(WorkbenchTest, TruncatedOutputsFollowTheQuantizerBeforeThem) {
  ASSERT_NO_FATAL_FAILURE(open_model(pooled(), "1x8x8"));
  const Recipe recipe = recipe_of("TruncTo8bit");
  const auto early = bench_->layer_facts(recipe, node("pool"));
  ASSERT_TRUE(early && output(*early));
  EXPECT_EQ(output(*early)->missing, "Calibrate first.");
  ASSERT_TRUE(bench_->calibrate(job_));
  const auto relu = bench_->layer_facts(recipe, node("relu"));
  ASSERT_TRUE(relu && output(*relu));
  const float scale = static_cast<float>(output(*relu)->scale_max);
  // 6 bits and 4 elements: a sum of 8 bits, of which 5 stay; of 5 bits and 16 elements 9, of which 5 stay.
  const auto pool = bench_->layer_facts(recipe, node("pool")), global = bench_->layer_facts(recipe, node("global"));
  ASSERT_TRUE(pool && output(*pool) && global && output(*global));
  EXPECT_EQ(output(*pool)->scale_max, scale / 4 * 8);
  EXPECT_EQ(output(*global)->scale_max, scale / 4 * 8 / 16 * 16);
  EXPECT_EQ(output(*pool)->codes_total, 32);
  EXPECT_GT(output(*pool)->codes_used, 4);
  EXPECT_TRUE(std::isfinite(output(*pool)->error.sqnr_db));
  EXPECT_TRUE(pool->output) << "the layer's own error is known";
  const auto histogram = bench_->histogram(recipe, {node("pool"), SiteKind::kOutput, 0}, 64);
  ASSERT_TRUE(histogram);
  EXPECT_EQ(histogram->grid.size(), 32u);
  EXPECT_FLOAT_EQ(static_cast<float>(histogram->clip_hi.value_or(0)), 31 * (scale / 4 * 8));
}

TEST_F(WorkbenchTest, RunsWithTruncationsAreStoredAndReadAgain) {
  for (const std::string preset : {"TruncTo8bit", "RoundTo8bit", "ShiftRoundSaturateTo8bit"}) {
    std::string artifact;
    for (const int threads : {1, 3}) {
      ASSERT_NO_FATAL_FAILURE(open_model(pooled(), "1x8x8"));
      ASSERT_NO_FATAL_FAILURE(open_file(dir_ / "model.onnx", testing::data_settings(), threads));
      Recipe recipe = recipe_of(preset);
      recipe.passes.push_back(
          {"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 0}, {"scales", "all"}}});
      const quanvas::Run r = run(recipe);
      ASSERT_TRUE(r.accuracy) << preset;
      if (artifact.empty()) artifact = r.artifact;
      EXPECT_EQ(r.artifact, artifact) << preset << ", " << threads << " threads";
      const auto again = bench_->evaluate_run(r.id, 0, job_);
      ASSERT_TRUE(again) << again.error().text();
      EXPECT_EQ(again->accuracy->output_sqnr_db, r.accuracy->output_sqnr_db) << preset;
      EXPECT_EQ(again->accuracy->top1, r.accuracy->top1) << preset;
    }
  }
}

TEST_F(WorkbenchTest, WhatCannotBeTruncatedIsAWarningOfTheRun) {
  ASSERT_NO_FATAL_FAILURE(open_model(pooled(), "1x8x8"));
  auto recipe =
      parse_recipe("rules:\n  - {select: {names: [pool], sites: [output]}, preset: TruncTo8bit}\n", "r.yaml");
  ASSERT_TRUE(recipe);
  std::string warnings;
  JobContext job({}, {}, [&](const Issue& issue) { warnings += issue.message + "\n"; });
  RunRequest request;
  request.recipe = *recipe;
  ASSERT_TRUE(bench_->run_recipe(request, job));
  EXPECT_THAT(
      warnings,
      HasSubstr("pool output is to be truncated and stays float: its input is float; it needs an integer format"));
}

TEST(Artifact, KeepsWhatATruncationShortens) {
  const ModelPtr model = pooled();
  QuantizedModel network;
  network.model = model;
  const Site site{model->graph->find("pool")->id, SiteKind::kOutput, 0};
  QuantSpec spec;
  spec.truncation = Truncation::kMsb;
  spec.is_signed = false;
  network.quantizers[site] = *quant::truncation_params(spec, {-1, 4, 4, 4}, {0.0123f / 49, 12}, 0);
  const auto again = unpack_artifact(pack_artifact(network, *model), model);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(again->quantizers.at(site).truncated, network.quantizers[site].truncated);
  EXPECT_EQ(again->quantizers.at(site).scale, network.quantizers[site].scale);
  struct Row {
    const char* what;
    void (*change)(quant::QuantParams&);
  };
  const Row rows[] = {
      {"no integers", [](quant::QuantParams& p) { p.truncated.reset(); }},
      {"integers of no truncation", [](quant::QuantParams& p) { p.spec.truncation = Truncation::kNone; }},
      {"scale 0", [](quant::QuantParams& p) { p.truncated->scale = 0; }},
      {"40 bits", [](quant::QuantParams& p) { p.truncated->bits = 40; }},
      {"-1 bits", [](quant::QuantParams& p) { p.truncated->bits = -1; }}};
  for (const Row& row : rows) {
    QuantizedModel bad = network;
    row.change(bad.quantizers[site]);
    EXPECT_FALSE(unpack_artifact(pack_artifact(bad, *model), model)) << row.what;
  }
}

}  // namespace
}  // namespace quanvas
