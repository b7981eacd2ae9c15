// Bias correction and quantization-aware training as passes.
#include <gtest/gtest.h>

#include <fstream>

#include "core/exec/pass_context.h"
#include "tests/plugins/graph_pass_support.h"

namespace quanvas {
namespace {

using testing::ModelMaker;
using testing::noise;
using testing::PatternData;

PassContext context(const ModelPtr& model, int weight_bits, int input_bits, const Shape& sample) {
  PassContext ctx;
  ctx.model = model;
  ctx.quantized.model = model;
  Shape shape = sample;
  shape.insert(shape.begin(), 64);
  ctx.quantized.quantizers = testing::quantize_all(model, noise(shape, 5), weight_bits, input_bits);
  for (const Layer& layer : find_layers(*model->graph))
    for (const Site& site : layer.sites()) {
      const auto it = ctx.quantized.quantizers.find(site);
      SitePlan p{site, std::nullopt, 0, "test"};
      if (it != ctx.quantized.quantizers.end()) p.spec = it->second.spec;
      ctx.quantized.plan.sites.push_back(p);
    }
  ctx.calibration_data = std::make_shared<PatternData>(sample, 4, 200);
  ctx.training_data = std::make_shared<PatternData>(sample, 4, 600);
  return ctx;
}

Result<std::string> apply(const std::string& id, PassContext& ctx, const json& given, JobContext& job) {
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(id, "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, id));
  return pass->apply(ctx, options, job);
}

// Mean over the calibration samples of float minus quantized at a tensor, per channel (axis 1).
at::Tensor mean_shift(const PassContext& ctx, const ModelPtr& before, const std::string& tensor_name, const Shape& sample) {
  Shape shape = sample;
  shape.insert(shape.begin(), 200);
  at::Tensor x = at::empty(shape);
  std::vector<std::int64_t> all(200);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  EXPECT_TRUE(ctx.calibration_data->read(all, x.data_ptr<float>(), nullptr));
  const auto at_tensor = [&](const ModelPtr& model, const exec::QuantizerMap* q) {
    auto env = (*exec::Runner::create(model, q))->run_all({x});
    EXPECT_TRUE(env) << env.error().text();
    const at::Tensor y = (*env)[static_cast<std::size_t>(model->graph->tensor(tensor_name))].to(at::kDouble);
    return y.transpose(0, 1).flatten(1).mean(1);
  };
  return at_tensor(before, nullptr) - at_tensor(ctx.quantized.model, &ctx.quantized.quantizers);
}

double bias_step(const PassContext& ctx, const std::string& node) {
  const auto& p = ctx.quantized.quantizers.at({ctx.quantized.model->graph->find(node)->id, SiteKind::kBias, 0});
  return *std::max_element(p.scale.begin(), p.scale.end());
}

TEST(BiasCorrection, RemovesTheMeanShiftOfEveryLayer) {
  for (const char* inputs : {"quantized", "float"}) {
    const ModelPtr model = testing::small_cnn();
    PassContext ctx = context(model, 2, 8, {1, 8, 8});
    const double conv_before = mean_shift(ctx, model, "c", {1, 8, 8}).abs().max().item().toDouble();
    const double fc_before = mean_shift(ctx, model, "y", {1, 8, 8}).abs().max().item().toDouble();
    JobContext job;
    const auto text = apply("bias-correction", ctx, {{"inputs", inputs}}, job);
    ASSERT_TRUE(text) << text.error().text();
    EXPECT_NE(text->find("Corrected 2 layers on 200 samples"), std::string::npos) << *text;
    const double conv = mean_shift(ctx, model, "c", {1, 8, 8}).abs().max().item().toDouble();
    const double fc = mean_shift(ctx, model, "y", {1, 8, 8}).abs().max().item().toDouble();
    // What is left is the rounding of the bias itself.
    EXPECT_GT(conv_before, 2 * bias_step(ctx, "conv"));
    EXPECT_LT(conv, 0.51 * bias_step(ctx, "conv") + 1e-5) << inputs;
    if (std::string(inputs) == "quantized") {
      EXPECT_GT(fc_before, 2 * bias_step(ctx, "fc"));
      EXPECT_LT(fc, 0.51 * bias_step(ctx, "fc") + 1e-5);
    }
    // Weights stay, biases change, their scale is still input scale x weight scale.
    EXPECT_EQ(ctx.quantized.model->weights->find("conv.w")->content_hash(), model->weights->find("conv.w")->content_hash());
    EXPECT_NE(ctx.quantized.model->weights->find("conv.b")->content_hash(), model->weights->find("conv.b")->content_hash());
    const NodeId fc_node = model->graph->find("fc")->id;
    const auto& q = ctx.quantized.quantizers;
    for (std::size_t c = 0; c < 4; ++c)
      EXPECT_EQ(q.at({fc_node, SiteKind::kBias, 0}).scale[c],
                q.at({fc_node, SiteKind::kInput, 0}).scale[0] * q.at({fc_node, SiteKind::kWeight, 0}).scale[c]);
  }
}

// What an earlier pass made of the weights is corrected, too: the reference is the network as it was trained.
TEST(BiasCorrection, IsMeasuredAgainstTheWeightsBeforeAllPasses) {
  for (const char* inputs : {"quantized", "float"}) {
    const ModelPtr model = testing::small_cnn();
    PassContext ctx = context(model, 4, 8, {1, 8, 8});
    auto weights = std::make_shared<WeightStore>(*model->weights);
    const TensorData* w = weights->find("conv.w");
    weights->set("conv.w", exec::to_data(at::tensor(w->to_floats(), at::kFloat).reshape(w->shape) + 0.1));
    ctx.quantized.model = std::make_shared<const Model>(Model{model->graph, weights, model->source});
    JobContext job;
    ASSERT_TRUE(apply("bias-correction", ctx, {{"inputs", inputs}}, job));
    EXPECT_LT(mean_shift(ctx, model, "c", {1, 8, 8}).abs().max().item().toDouble(), 0.51 * bias_step(ctx, "conv") + 1e-5) << inputs;
  }
}

ModelPtr without_biases() {
  ModelMaker m;
  m.input("x", {-1, 3, 4, 4}).weight("w1", noise({5, 3, 2, 2}, 1)).weight("w2", noise({45, 4}, 2) * 0.3);
  m.node("conv", "Conv", {"x", "w1"}, {"c"}).node("relu", "Relu", {"c"}, {"r"}).node("flat", "Flatten", {"r"}, {"f"});
  m.node("fc", "MatMul", {"f", "w2"}, {"y"}).output("y");
  return m.build();
}

TEST(BiasCorrection, AddsBiasesWhereThereAreNone) {
  const ModelPtr model = without_biases();
  PassContext ctx = context(model, 2, 8, {3, 4, 4});
  JobContext job;
  const auto text = apply("bias-correction", ctx, json::object(), job);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_NE(text->find("2 of them got a bias"), std::string::npos) << *text;
  const Graph& graph = *ctx.quantized.model->graph;
  EXPECT_EQ(graph.find("conv")->inputs.size(), 3u);
  EXPECT_EQ(graph.tensor(graph.outputs()[0]).name, "y");
  EXPECT_EQ(graph.find("fc")->inputs.size(), 3u);
  EXPECT_LT(mean_shift(ctx, model, "c", {3, 4, 4}).abs().max().item().toDouble(), 0.51 * bias_step(ctx, "conv") + 1e-5);
  EXPECT_LT(mean_shift(ctx, model, "y", {3, 4, 4}).abs().max().item().toDouble(), 0.51 * bias_step(ctx, "fc") + 1e-5);
  const NodeId conv = graph.find("conv")->id;
  ASSERT_TRUE(ctx.quantized.quantizers.count({conv, SiteKind::kBias, 0}));
  ASSERT_NE(ctx.quantized.plan.find({conv, SiteKind::kBias, 0}), nullptr);
  EXPECT_EQ(ctx.quantized.plan.find({conv, SiteKind::kBias, 0})->spec->bits, 32);

  PassContext kept = context(model, 2, 8, {3, 4, 4});
  const auto skipped = apply("bias-correction", kept, {{"add_bias", false}}, job);
  ASSERT_TRUE(skipped);
  EXPECT_EQ(kept.quantized.model, model);
}

TEST(BiasCorrection, DoesNotDependOnTheNumberOfThreads) {
  std::string hashes[2];
  for (int threads : {1, 2}) {
    exec::set_threads(threads);
    PassContext ctx = context(testing::small_cnn(), 2, 4, {1, 8, 8});
    JobContext job;
    ASSERT_TRUE(apply("bias-correction", ctx, json::object(), job));
    hashes[threads - 1] = ctx.quantized.model->weights->hash();
  }
  exec::set_threads(0);
  EXPECT_EQ(hashes[0], hashes[1]);
}

// Both layers see the float network's inputs, as in the reference.
TEST(BiasCorrection, AgreesWithTheReference) {
  std::ifstream file(std::string(QUANVAS_TEST_DATA) + "/golden/alg_bias_correction_mlp.json");
  const json golden = json::parse(file);
  const auto read = [](const json& t) { return testing::tensor(t.at("shape").get<Shape>(), t.at("data").get<std::vector<float>>()); };
  ModelMaker m(17);
  m.input("x", {-1, 32});
  for (const std::string n : {"fc1", "fc2"})
    for (const char* part : {".weight", ".bias"}) m.weight(n + part, read(golden.at("weights_before").at(n + part)));
  m.node("fc1", "Gemm", {"x", "fc1.weight", "fc1.bias"}, {"h"}, {{"transB", std::int64_t{1}}}).node("relu", "Relu", {"h"}, {"r"});
  m.node("fc2", "Gemm", {"r", "fc2.weight", "fc2.bias"}, {"y"}, {{"transB", std::int64_t{1}}}).output("y");
  const ModelPtr model = m.build();
  std::vector<at::Tensor> batches;
  for (const json& batch : golden.at("calib")) batches.push_back(read(batch));
  PassContext ctx;
  ctx.model = model;
  ctx.quantized.model = model;
  ctx.calibration_data = std::make_shared<testing::Samples>(at::cat(batches));
  for (const std::string n : {"fc1", "fc2"}) {
    const json& q = golden.at("quant").at(n);
    QuantSpec w, x;
    w.bits = 4;
    w.narrow = true;
    w.granularity = Granularity::kChannel;
    x.bits = 8;
    const at::Tensor values = read(golden.at("weights_before").at(n + ".weight"));
    auto weight = *quant::find_params(w, Shape(values.sizes().begin(), values.sizes().end()), values.contiguous().data_ptr<float>(), 0);
    const auto scale = q.at("scale").at("data").get<std::vector<float>>();
    ASSERT_EQ(weight.scale.size(), scale.size());
    for (std::size_t i = 0; i < scale.size(); ++i) EXPECT_NEAR(weight.scale[i], scale[i], 1e-6 * scale[i]);
    auto input = *quant::find_params(x, {4, values.size(1)}, at::ones({4, values.size(1)}).data_ptr<float>(), 1);
    input.scale = q.at("input_scale").at("data").get<std::vector<float>>();
    ctx.quantized.quantizers[{m.id(n), SiteKind::kWeight, 0}] = weight;
    ctx.quantized.quantizers[{m.id(n), SiteKind::kInput, 0}] = input;
  }
  JobContext job;
  const auto text = apply("bias-correction", ctx, {{"inputs", "float"}}, job);
  ASSERT_TRUE(text) << text.error().text();
  for (const std::string n : {"fc1", "fc2"}) {
    const at::Tensor found = at::tensor(ctx.quantized.model->weights->find(n + ".bias")->to_floats());
    EXPECT_LT(testing::relative_difference(found, read(golden.at("weights_after").at(n + ".bias"))), 1e-5) << n;
  }
}

TEST(BiasCorrection, NeedsCalibrationData) {
  PassContext ctx = context(testing::small_cnn(), 4, 4, {1, 8, 8});
  ctx.calibration_data = nullptr;
  JobContext job;
  const auto r = apply("bias-correction", ctx, json::object(), job);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().text().find("calibration data"), std::string::npos);
}

TEST(BiasCorrection, CanBeStopped) {
  std::stop_source stop;
  stop.request_stop();
  JobContext job(stop.get_token());
  PassContext ctx = context(testing::small_cnn(), 4, 4, {1, 8, 8});
  const auto r = apply("bias-correction", ctx, json::object(), job);
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, ErrorCode::kCancelled);
}

TEST(BnStatistics, AreThoseOfTheQuantizedNetwork) {
  const ModelPtr model = testing::small_cnn(4, /*with_bn=*/true);
  const Shape sample = {1, 8, 8};
  PassContext ctx = context(model, 2, 4, sample);
  JobContext job;
  const auto text = apply("bn-statistics", ctx, json::object(), job);
  ASSERT_TRUE(text) << text.error().text();
  ASSERT_EQ(ctx.layers.size(), 1u);
  EXPECT_GT(ctx.layers[0].before, 0);
  std::vector<std::int64_t> all(200);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  at::Tensor x = at::empty({200, 1, 8, 8});
  ASSERT_TRUE(ctx.calibration_data->read(all, x.data_ptr<float>(), nullptr));
  const auto env = (*exec::Runner::create(ctx.quantized.model, &ctx.quantized.quantizers))->run_all({x});
  const at::Tensor c = (*env)[static_cast<std::size_t>(model->graph->tensor("c"))].to(at::kDouble).transpose(0, 1).flatten(1);
  const auto stored = [&](const char* name) { return at::tensor(ctx.quantized.model->weights->find(name)->to_floats()); };
  EXPECT_LT(testing::relative_difference(stored("bn.m"), c.mean(1)), 1e-5);
  EXPECT_LT(testing::relative_difference(stored("bn.v"), c.var(1, /*unbiased=*/false)), 1e-5);
  // It is a fixed point, for any number of threads.
  const auto again = apply("bn-statistics", ctx, json::object(), job);
  ASSERT_TRUE(again);
  EXPECT_LT(ctx.layers.back().before, 1e-5);
}

TEST(BnStatistics, TheGeometricMeanLiesBetweenBothVariances) {
  JobContext job;
  PassContext measured = context(testing::small_cnn(4, true), 2, 4, {1, 8, 8}), between = context(testing::small_cnn(4, true), 2, 4, {1, 8, 8});
  ASSERT_TRUE(apply("bn-statistics", measured, json::object(), job));
  ASSERT_TRUE(apply("bn-statistics", between, {{"variance", "geometric"}}, job));
  const auto stored = [](const ModelPtr& model, const char* name) { return at::tensor(model->weights->find(name)->to_floats()); };
  const at::Tensor old = stored(measured.model, "bn.v"), now = stored(measured.quantized.model, "bn.v");
  EXPECT_LT(testing::relative_difference(stored(between.quantized.model, "bn.v"), (old * now).sqrt()), 1e-6);
  EXPECT_GT(testing::relative_difference(now, old), 0.05);
  EXPECT_TRUE(testing::same_bits(stored(between.quantized.model, "bn.m"), stored(measured.quantized.model, "bn.m")));
}

TEST(BnStatistics, SeveralMayReadOneTensor) {
  ModelMaker m(17);
  m.input("x", {-1, 1, 8, 8}).weight("c.w", noise({6, 1, 3, 3}, 1)).node("c", "Conv", {"x", "c.w"}, {"c"}).node("r", "Relu", {"c"}, {"r"});
  for (const std::string n : {"n1", "n2"}) {
    m.weight(n + ".g", at::ones({6})).weight(n + ".b", at::zeros({6})).weight(n + ".m", at::full({6}, 9.0f)).weight(n + ".v", at::full({6}, 4.0f));
    m.node(n, "BatchNormalization", {"r", n + ".g", n + ".b", n + ".m", n + ".v"}, {n});
  }
  m.node("s", "Add", {"n1", "n2"}, {"y"}).output("y");
  PassContext ctx = context(m.build(), 4, 8, {1, 8, 8});
  JobContext job;
  const auto text = apply("bn-statistics", ctx, json::object(), job);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_NE(text->find("Measured 2 batch normalizations"), std::string::npos) << *text;
  for (const char* name : {"n1.m", "n2.m"}) EXPECT_LT(at::tensor(ctx.quantized.model->weights->find(name)->to_floats()).max().item<float>(), 5);
}

TEST(BnStatistics, SayWhatIsMissing) {
  JobContext job;
  PassContext folded = context(testing::small_cnn(4), 4, 8, {1, 8, 8});
  const auto none = apply("bn-statistics", folded, json::object(), job);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("no batch normalization"), std::string::npos) << none.error().text();
  PassContext bare = context(testing::small_cnn(4, true), 4, 8, {1, 8, 8});
  bare.calibration_data = nullptr;
  EXPECT_FALSE(apply("bn-statistics", bare, json::object(), job));
}

TEST(QatPass, TrainsTheQuantizedNetwork) {
  const ModelPtr model = testing::small_cnn();
  PassContext ctx = context(model, 2, 2, {1, 8, 8});
  JobContext job;
  const auto text = apply("qat", ctx, {{"epochs", 3}, {"batch", 32}, {"learning_rate", 5e-3}}, job);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_NE(text->find("Kept the state after epoch"), std::string::npos) << *text;
  ASSERT_FALSE(ctx.curve.empty());
  EXPECT_GT(ctx.curve.back().top1.value(), ctx.curve.front().top1.value() + 0.2);
  EXPECT_FALSE(ctx.stopped_early);
  EXPECT_NE(ctx.quantized.model, model);
  EXPECT_EQ(ctx.quantized.model->graph, model->graph);
}

TEST(QatPass, PenaltiesAreOptionsOfThePass) {
  int bits[2];
  for (const double penalty : {0.0, 100.0}) {
    PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
    const Site site{ctx.model->graph->find("fc")->id, SiteKind::kWeight, 0};
    ctx.quantized.quantizers.at(site).spec.source = ScaleSource::kLearned;
    ctx.quantized.quantizers.at(site).spec.learn_bits = true;
    JobContext job;
    const json options = {{"epochs", 2},
                          {"batch", 32},
                          {"scale_learning_rate", 0.1},
                          {"bits_penalty", penalty},
                          {"accumulator_penalty", penalty},
                          {"validation_samples", 0}};
    const auto text = apply("qat", ctx, options, job);
    ASSERT_TRUE(text) << text.error().text();
    bits[penalty > 0] = ctx.quantized.quantizers.at(site).spec.bits;
  }
  EXPECT_LT(bits[1], bits[0]);
  JobContext job;
  PassContext ctx = context(testing::small_cnn(), 4, 4, {1, 8, 8});
  EXPECT_FALSE(apply("qat", ctx, {{"bits_penalty", -1}}, job));
}

TEST(QatPass, StoppingKeepsTheBestAndSaysSo) {
  std::stop_source stop;
  JobContext job(stop.get_token(), {}, {}, [&](const std::string&, const std::string&) { stop.request_stop(); });
  PassContext ctx = context(testing::small_cnn(), 2, 2, {1, 8, 8});
  const auto text = apply("qat", ctx, json::object(), job);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_TRUE(ctx.stopped_early);
  EXPECT_NE(text->find("stopped early"), std::string::npos) << *text;
}

TEST(QatPass, SaysWhatIsMissing) {
  JobContext job;
  PassContext ctx = context(testing::small_cnn(), 2, 2, {1, 8, 8});
  ctx.training_data = nullptr;
  auto r = apply("qat", ctx, json::object(), job);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().text().find("training data"), std::string::npos);
  ctx = context(testing::small_cnn(), 2, 2, {1, 8, 8});
  ctx.quantized.quantizers.clear();
  r = apply("qat", ctx, json::object(), job);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().text().find("Nothing is quantized"), std::string::npos);
  r = apply("qat", ctx, {{"epochs", -1}}, job);
  ASSERT_FALSE(r);
}

}  // namespace
}  // namespace quanvas
