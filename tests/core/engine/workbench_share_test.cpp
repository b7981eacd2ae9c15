// Shared quantizers and averaged batches from recipe to stored run.
#include "core/exec/runner.h"
#include "core/workflow/state.h"
#include "tests/core/engine/exec_support.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using testing::noise;
using testing::WorkbenchTest;

// conv1 -> conv2 -> Add of both -> Gemm
ModelPtr residual() {
  testing::ModelMaker m;
  m.input("x", {-1, 1, 8, 8});
  m.weight("w1", noise({4, 1, 3, 3}, 1)).weight("w2", noise({4, 4, 3, 3}, 2) * 0.2).weight("w3", noise({3, 256}, 3) * 0.1);
  m.shape("c1", {-1, 4, 8, 8}).shape("c2", {-1, 4, 8, 8}).shape("sum", {-1, 4, 8, 8}).shape("flat", {-1, 256}).shape("y", {-1, 3});
  const Attributes pads = {{"pads", std::vector<std::int64_t>{1, 1, 1, 1}}};
  m.node("conv1", "Conv", {"x", "w1"}, {"c1"}, pads).node("conv2", "Conv", {"c1", "w2"}, {"c2"}, pads);
  m.node("add", "Add", {"c1", "c2"}, {"sum"}).node("flatten", "Flatten", {"sum"}, {"flat"});
  m.node("fc", "Gemm", {"flat", "w3"}, {"y"}, {{"transB", std::int64_t{1}}});
  m.output("y");
  return m.build();
}

Recipe recipe_of(const std::string& rules) {
  auto recipe = parse_recipe(rules, "r.yaml");
  EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().text());
  return recipe.value_or(Recipe{});
}

const SiteFacts* input(const LayerFacts& facts, int operand) {
  for (const auto& site : facts.sites)
    if (site.site.kind == SiteKind::kInput && site.site.operand == operand) return &site;
  return nullptr;
}

TEST_F(WorkbenchTest, OperandsOfAnAdditionShareAScale) {
  ASSERT_NO_FATAL_FAILURE(open_model(residual(), "1x8x8"));
  ASSERT_TRUE(bench_->calibrate(job_));
  const std::string rule = "rules:\n  - {select: {names: [add], sites: [input]}, set: {bits: 8, statistic: minmax";
  const Recipe alone = recipe_of(rule + "}}\n"), shared = recipe_of(rule + "}, share: node}\n");
  const auto a = bench_->layer_facts(alone, node("add")), s = bench_->layer_facts(shared, node("add"));
  ASSERT_TRUE(a && s);
  ASSERT_TRUE(input(*a, 0) && input(*a, 1) && input(*s, 0) && input(*s, 1));
  EXPECT_NE(input(*a, 0)->scale_max, input(*a, 1)->scale_max);
  EXPECT_EQ(input(*s, 0)->scale_max, input(*s, 1)->scale_max);
  EXPECT_EQ(input(*s, 0)->scale_max, std::max(input(*a, 0)->scale_max, input(*a, 1)->scale_max)) << "the wider range of both";
}

TEST_F(WorkbenchTest, NamedSharesGoThroughTrainingAndStorage) {
  const std::string rules = R"(rules:
  - {select: {kinds: [compute], sites: [weight]}, share: w, set: {bits: 4}}
  - {select: {names: [conv2, fc], sites: [input]}, share: a, set: {bits: 4, source: learned}}
  - {select: {names: [add], sites: [input]}, share: node, set: {bits: 8}}
)";
  std::string artifact;
  for (const int threads : {1, 2, 7}) {
    ASSERT_NO_FATAL_FAILURE(open_model(residual(), "1x8x8"));
    ASSERT_NO_FATAL_FAILURE(open_file(dir_ / "model.onnx", testing::data_settings(), threads));
    Recipe recipe = recipe_of(rules);
    recipe.passes.push_back({"qat", true, {{"epochs", 1}, {"batch", 16}, {"validation_samples", 0}, {"scales", "all"}}});
    const quanvas::Run r = run(recipe);
    ASSERT_FALSE(r.artifact.empty());
    if (artifact.empty()) artifact = r.artifact;
    EXPECT_EQ(r.artifact, artifact) << threads << " threads";
    ASSERT_TRUE(r.accuracy);
    const auto again = bench_->evaluate_run(r.id, 0, job_);
    ASSERT_TRUE(again) << again.error().text();
    EXPECT_EQ(again->accuracy->output_sqnr_db, r.accuracy->output_sqnr_db);
  }
  // Facts of one layer look at the weights of all.
  const auto one = bench_->layer_facts(recipe_of(rules), node("conv1")), two = bench_->layer_facts(recipe_of(rules), node("fc"));
  ASSERT_TRUE(one && two);
  EXPECT_EQ(one->sites[0].scale_max, two->sites[0].scale_max);
}

TEST_F(WorkbenchTest, BatchesAreAveragedForAnyNumberOfThreads) {
  std::map<std::string, double> scale;
  for (const std::string batches : {"all", "mean", "ema"}) {
    double first = 0;
    for (const int threads : {1, 2, 7}) {
      ASSERT_NO_FATAL_FAILURE(open(threads));
      ASSERT_TRUE(bench_->calibrate(job_));
      const Recipe recipe = recipe_of("rules:\n  - {select: {names: [fc1], sites: [input]}, set: {statistic: percentile, percentile: 99.9, "
                                      "batches: " + batches + "}}\n");
      const auto facts = bench_->layer_facts(recipe, node("fc1"));
      ASSERT_TRUE(facts) << facts.error().text();
      ASSERT_TRUE(input(*facts, 0));
      if (threads == 1) first = input(*facts, 0)->scale_max;
      EXPECT_EQ(input(*facts, 0)->scale_max, first) << batches << ", " << threads << " threads";
    }
    scale[batches] = first;
  }
  EXPECT_NE(scale["mean"], scale["all"]);
  EXPECT_NE(scale["mean"], scale["ema"]);
}

// Every vector of a frozen quantizer, and the name under which it is shared.
TEST(Artifact, KeepsEveryVectorOfAQuantizer) {
  const ModelPtr model = residual();
  QuantizedModel network;
  network.model = model;
  const Site site{model->graph->find("conv2")->id, SiteKind::kWeight, 0};
  quant::QuantParams p;
  p.spec.granularity = Granularity::kChannel;
  p.spec.axis = 0;
  p.spec.is_signed = false;
  p.spec.zero_point = ZeroPointType::kOffset;
  p.spec.statistic = Statistic::kMinMax;
  ASSERT_EQ(check(p.spec), "");
  p.lo = 0;
  p.hi = 255;
  p.layout = *quant::make_layout(p.spec, {4, 4, 3, 3}, 0);
  p.scale = {0.5f, 0.25f, 1, 2};
  p.zero_point = {-0.75f, 0.1f, 0, 3};
  p.code_scale = {0.4f, 0.3f, 0.2f, 0.1f};
  p.center = {0.01f, 0, -0.02f, 0.5f};
  p.rounding.assign(144, 0.25f);
  p.super_scale = {0.125f};
  p.super_offset = {0.0625f};
  p.share = "w";
  network.quantizers[site] = p;
  quant::QuantParams dynamic;
  dynamic.spec.source = ScaleSource::kDynamic;
  dynamic.spec.granularity = Granularity::kRow;
  dynamic.spec.axis = -1;
  const Site input_site{site.node, SiteKind::kInput, 0};
  network.quantizers[input_site] = dynamic;
  const std::string bytes = pack_artifact(network, *model);
  const auto again = unpack_artifact(bytes, model);
  ASSERT_TRUE(again) << again.error().text();
  const quant::QuantParams& q = again->quantizers.at(site);
  EXPECT_EQ(q.spec, p.spec);
  EXPECT_EQ(q.scale, p.scale);
  EXPECT_EQ(q.zero_point, p.zero_point);
  EXPECT_EQ(q.code_scale, p.code_scale);
  EXPECT_EQ(q.center, p.center);
  EXPECT_EQ(q.rounding, p.rounding);
  QuantizedModel without = network;
  quant::QuantParams& bare = without.quantizers[site];
  bare.spec.zero_point = ZeroPointType::kNone;
  bare.spec.decoupled = Decoupling::kL1;  // whose codes need scales of their own
  bare.zero_point.clear();
  EXPECT_TRUE(unpack_artifact(pack_artifact(without, *model), model));
  bare.code_scale.clear();
  EXPECT_FALSE(unpack_artifact(pack_artifact(without, *model), model));
  EXPECT_EQ(q.super_scale, p.super_scale);
  EXPECT_EQ(q.super_offset, p.super_offset);
  EXPECT_EQ(q.share, p.share);
  EXPECT_EQ(q.lo, p.lo);
  EXPECT_EQ(q.hi, p.hi);
  EXPECT_EQ(again->quantizers.at(input_site).spec, dynamic.spec);

  // What the kernels could not work with is damage, not a network.
  struct Row {
    const char* what;
    void (*change)(quant::QuantParams&);
  };
  const Row rows[] = {{"one scale too few", [](quant::QuantParams& p) { p.scale.pop_back(); }},
                      {"scale 0", [](quant::QuantParams& p) { p.scale[1] = 0; }},
                      {"negative scale", [](quant::QuantParams& p) { p.scale[1] = -0.25f; }},
                      {"a declaration that is not legal", [](quant::QuantParams& p) { p.spec.statistic = Statistic::kSignedMax; }},
                      {"offset NaN", [](quant::QuantParams& p) { p.zero_point[0] = NAN; }},
                      {"code scale 0", [](quant::QuantParams& p) { p.code_scale[0] = 0; }},
                      {"two centers", [](quant::QuantParams& p) { p.center.resize(2); }},
                      {"rounding of another tensor", [](quant::QuantParams& p) { p.rounding.resize(7); }}};
  for (const Row& row : rows) {
    network.quantizers[site] = p;
    row.change(network.quantizers[site]);
    EXPECT_FALSE(unpack_artifact(pack_artifact(network, *model), model)) << row.what;
  }
}

}  // namespace
}  // namespace quanvas
