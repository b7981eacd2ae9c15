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

// conv1 -> Relu -> conv2 -> Concat of both -> MaxPool -> conv3, with biases; the Relu's tensor leaves the network, too.
ModelPtr joined() {
  testing::ModelMaker m;
  m.input("x", {-1, 1, 8, 8});
  m.weight("w1", noise({4, 1, 3, 3}, 1)).weight("b1", noise({4}, 5)).weight("w2", noise({4, 4, 3, 3}, 2) * 0.2).weight("b2", noise({4}, 6));
  m.weight("w3", noise({3, 8, 4, 4}, 3) * 0.1).weight("b3", noise({3}, 7));
  m.shape("c1", {-1, 4, 8, 8}).shape("r1", {-1, 4, 8, 8}).shape("c2", {-1, 4, 8, 8}).shape("cat", {-1, 8, 8, 8}).shape("p", {-1, 8, 4, 4}).shape("c3", {-1, 3, 1, 1});
  using L = std::vector<std::int64_t>;
  const Attributes pads = {{"pads", L{1, 1, 1, 1}}};
  m.node("conv1", "Conv", {"x", "w1", "b1"}, {"c1"}, pads).node("relu", "Relu", {"c1"}, {"r1"}).node("conv2", "Conv", {"r1", "w2", "b2"}, {"c2"}, pads);
  m.node("cat", "Concat", {"r1", "c2"}, {"cat"}, {{"axis", std::int64_t{1}}});
  m.node("pool", "MaxPool", {"cat"}, {"p"}, {{"kernel_shape", L{2, 2}}, {"strides", L{2, 2}}}).node("conv3", "Conv", {"p", "w3", "b3"}, {"c3"});
  m.node("flatten", "Flatten", {"c3"}, {"y"}).shape("y", {-1, 3}).output("y").output("r1");
  return m.build();
}

TEST_F(WorkbenchTest, IntegersRunAlongEveryEdge) {
  const auto recipe = builtin_recipe("w8a8-integer");
  ASSERT_TRUE(recipe) << recipe.error().text();
  ASSERT_NO_FATAL_FAILURE(open_model(joined(), "1x8x8"));
  const auto before = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(before);
  const quanvas::Run done = run(*recipe);
  const auto after = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(done.accuracy && after && before->accuracy && after->accuracy);
  EXPECT_EQ(before->accuracy->loss, after->accuracy->loss) << "the float network is what it was";
  EXPECT_GT(done.accuracy->output_sqnr_db, 25);
  const auto of = [&](const char* name, SiteKind kind, int operand = 0) -> SiteFacts {
    const auto facts = bench_->layer_facts(*recipe, node(name));
    EXPECT_TRUE(facts) << name;
    if (facts)
      for (const auto& s : facts->sites)
        if (s.site.kind == kind && s.site.operand == operand) return s;
    return {};
  };
  // The Relu's tensor is read by two and leaves the network: its own quantizer, on the scale of all that is joined.
  const SiteFacts relu = of("relu", SiteKind::kOutput), other = of("cat", SiteKind::kInput, 1), joint = of("conv3", SiteKind::kInput);
  ASSERT_GT(relu.scale_max, 0);
  EXPECT_EQ(relu.scale_max, other.scale_max);
  EXPECT_EQ(relu.zero_point_max, other.zero_point_max);
  EXPECT_EQ(relu.scale_max, joint.scale_max) << "maximum pooling keeps the scale";
  EXPECT_EQ(relu.zero_point_max, joint.zero_point_max);
  EXPECT_EQ(of("conv2", SiteKind::kInput).scale_max, 0) << "it reads codes";
  // Its bias has the scale of those codes times its weights'.
  const SiteFacts bias = of("conv2", SiteKind::kBias), weight = of("conv2", SiteKind::kWeight);
  EXPECT_NEAR(bias.scale_max, relu.scale_max * weight.scale_max, 1e-6 * bias.scale_max);

  ExportRequest request;
  request.target = "onnx-qdq";
  request.path = (dir_ / "integer.onnx").string();
  request.run = done.id;
  const auto report = bench_->export_model(request, job_);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_TRUE(report->refusals.empty());
  EXPECT_FALSE(report->audit.empty());
  EXPECT_EQ(report->max_output_difference, 0);
  // One quantizer for each tensor: x, the Relu's, conv2's, what is joined, what is pooled.
  std::ifstream file(request.path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}}, node = std::string("\x22\x0e") + "QuantizeLinear";
  int quantizers = 0;
  for (std::size_t at = bytes.find(node); at != std::string::npos; at = bytes.find(node, at + 1)) ++quantizers;
  EXPECT_EQ(quantizers, 5);
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
