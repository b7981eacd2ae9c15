#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/train.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using exec::TrainSettings;
using testing::ModelMaker;
using testing::noise;
using testing::PatternData;
using testing::quantize_all;
using testing::same_bits;
using testing::small_cnn;

TrainSettings quick(int epochs = 2) {
  TrainSettings s;
  s.epochs = epochs;
  s.batch = 32;
  s.learning_rate = 5e-3;
  s.validation_samples = 200;
  return s;
}

exec::TrainResult trained(const ModelPtr& model, const exec::QuantizerMap* q, const Dataset& data, const TrainSettings& s) {
  JobContext job;
  auto r = exec::train(model, q, data, s, "cpu", job);
  EXPECT_TRUE(r) << (r ? "" : r.error().text());
  return r ? *r : exec::TrainResult{};
}

ModelPtr with_weights(const ModelPtr& model, const WeightsPtr& weights) {
  return std::make_shared<const Model>(Model{model->graph, weights, model->source});
}

double accuracy(const ModelPtr& model, const exec::QuantizerMap* q, const Dataset& data, std::int64_t n) {
  at::Tensor x = at::empty({n, 1, 8, 8}), labels = at::empty({n}, at::kLong);
  std::vector<std::int64_t> all(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  EXPECT_TRUE(data.read(all, x.data_ptr<float>(), labels.data_ptr<std::int64_t>()));
  return (testing::run_one(model, x, q).argmax(1) == labels).to(at::kDouble).mean().item().toDouble();
}

TEST(Train, AFloatNetworkLearns) {
  const PatternData data({1, 8, 8}, 4, 1200);
  for (const char* optimizer : {"adam", "sgd"}) {
    TrainSettings s = quick();
    s.optimizer = optimizer;
    if (s.optimizer == "sgd") s.learning_rate = 0.02;
    const auto r = trained(small_cnn(), nullptr, data, s);
    ASSERT_FALSE(r.curve.empty()) << optimizer;
    EXPECT_LT(r.curve.front().top1.value(), 0.6) << optimizer;
    EXPECT_GT(r.best_top1, 0.95) << optimizer;
    EXPECT_GE(r.best_epoch, 1);
    EXPECT_GT(accuracy(with_weights(small_cnn(), r.weights), nullptr, data, 400), 0.95);
    EXPECT_TRUE(r.quantizers.empty());
  }
}

TEST(Train, BatchNormalizationKeepsRunningAverages) {
  const PatternData data({1, 8, 8}, 4, 1200);
  const ModelPtr model = small_cnn(4, true);
  const auto r = trained(model, nullptr, data, quick());
  EXPECT_GT(r.best_top1, 0.95);
  const auto mean = r.weights->find("bn.m")->to_floats(), variance = r.weights->find("bn.v")->to_floats();
  for (std::size_t c = 0; c < mean.size(); ++c) {
    EXPECT_NE(mean[c], 0.0f);
    EXPECT_GT(variance[c], 0.0f);
  }
  // What the averages say fits what the convolution makes.
  at::Tensor x = at::empty({400, 1, 8, 8});
  std::vector<std::int64_t> all(400);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  ASSERT_TRUE(data.read(all, x.data_ptr<float>(), nullptr));
  auto runner = exec::Runner::create(with_weights(model, r.weights), nullptr);
  const auto env = (*runner)->run_all({x});
  const at::Tensor c = (*env)[static_cast<std::size_t>(model->graph->tensor("c"))];
  EXPECT_TRUE(at::allclose(c.mean(at::IntArrayRef{0, 2, 3}), at::tensor(mean, at::kFloat), 0.2, 0.05));
}

TEST(Train, QuantizationAwareTrainingRecoversLowBits) {
  const PatternData data({1, 8, 8}, 8, 2400, 1.2f);
  TrainSettings s = quick(4);
  const auto full = trained(small_cnn(8), nullptr, data, s);
  const ModelPtr model = with_weights(small_cnn(8), full.weights);
  at::Tensor sample = at::empty({64, 1, 8, 8});
  std::vector<std::int64_t> first(64);
  for (std::size_t i = 0; i < first.size(); ++i) first[i] = static_cast<std::int64_t>(i);
  ASSERT_TRUE(data.read(first, sample.data_ptr<float>(), nullptr));
  const exec::QuantizerMap q = quantize_all(model, sample, 2, 2);
  s.force_learned = true;
  s.epochs = 3;
  s.learning_rate = 2e-3;
  const auto r = trained(model, &q, data, s);
  const double start = r.curve.front().top1.value(), lost = full.best_top1 - start;
  EXPECT_GT(lost, 0.02) << "the start is too good for this test";
  EXPECT_GT(r.best_top1 - start, 0.5 * lost) << "float " << full.best_top1 << ", start " << start << ", end " << r.best_top1;
  ASSERT_EQ(r.quantizers.size(), q.size());
  // Zero points stay, scales move, biases follow input scale x weight scale.
  const NodeId fc = model->graph->find("fc")->id;
  const auto& input = r.quantizers.at({fc, SiteKind::kInput, 0});
  const auto& weight = r.quantizers.at({fc, SiteKind::kWeight, 0});
  const auto& bias = r.quantizers.at({fc, SiteKind::kBias, 0});
  EXPECT_NE(input.scale, q.at({fc, SiteKind::kInput, 0}).scale);
  EXPECT_NE(weight.scale, q.at({fc, SiteKind::kWeight, 0}).scale);
  for (std::size_t c = 0; c < bias.scale.size(); ++c) EXPECT_EQ(bias.scale[c], input.scale[0] * weight.scale[c]);
  // What was measured in training is what the returned network does.
  EXPECT_NEAR(accuracy(with_weights(model, r.weights), &r.quantizers, data, 2400), r.best_top1, 0.06);
}

TEST(Train, ScalesComeFromTheStatisticUnlessLearned) {
  const PatternData data({1, 8, 8}, 4, 600);
  const ModelPtr model = small_cnn();
  exec::QuantizerMap q = quantize_all(model, noise({32, 1, 8, 8}, 1), 4, 8);
  for (auto& [site, params] : q)
    if (site.kind == SiteKind::kWeight) params.spec.statistic = Statistic::kAbsMax;
  TrainSettings s = quick(1);
  s.learn_scales = false;
  const auto r = trained(model, &q, data, s);
  ASSERT_GE(r.best_epoch, 1);
  const NodeId conv = model->graph->find("conv")->id;
  const auto& params = r.quantizers.at({conv, SiteKind::kWeight, 0});
  const std::vector<float> w = r.weights->find("conv.w")->to_floats();
  for (std::size_t c = 0; c < 6; ++c) {
    float most = 0;
    for (std::size_t i = 0; i < 9; ++i) most = std::max(most, std::abs(w[c * 9 + i]));
    EXPECT_FLOAT_EQ(params.scale[c], most / 7);
  }
  EXPECT_EQ(r.quantizers.at({conv, SiteKind::kInput, 0}).scale, q.at({conv, SiteKind::kInput, 0}).scale);
}

TEST(Train, ResultsDoNotDependOnTheNumberOfThreads) {
  const PatternData data({1, 8, 8}, 4, 400);
  const ModelPtr model = small_cnn(4, true);
  const exec::QuantizerMap q = quantize_all(model, noise({32, 1, 8, 8}, 1), 3, 3);
  for (const exec::QuantizerMap* quantizers : {static_cast<const exec::QuantizerMap*>(nullptr), &q}) {
    TrainSettings s = quick(1);
    s.force_learned = true;
    exec::set_threads(1);
    const auto one = trained(model, quantizers, data, s);
    exec::set_threads(2);
    const auto two = trained(model, quantizers, data, s);
    exec::set_threads(0);
    EXPECT_EQ(one.weights->hash(), two.weights->hash());
    for (const auto& [site, params] : one.quantizers) EXPECT_EQ(params.scale, two.quantizers.at(site).scale);
    ASSERT_EQ(one.curve.size(), two.curve.size());
    for (std::size_t i = 0; i < one.curve.size(); ++i) EXPECT_EQ(one.curve[i].loss, two.curve[i].loss);
    s.seed = 1;
    EXPECT_NE(trained(model, quantizers, data, s).weights->hash(), one.weights->hash());
  }
}

TEST(Train, StoppingReturnsTheBestSoFar) {
  const PatternData data({1, 8, 8}, 4, 800);
  std::stop_source stop;
  int ends = 0;
  JobContext job(stop.get_token(), {}, {}, [&](const std::string& kind, const std::string& text) {
    EXPECT_EQ(kind, "train-step");
    const auto point = from_json_text<TrainPoint>(text);
    ASSERT_TRUE(point);
    if (point->top1 && point->step > 0 && ++ends == 1) stop.request_stop();
  });
  auto r = exec::train(small_cnn(), nullptr, data, quick(50), "cpu", job);
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_TRUE(r->cancelled);
  EXPECT_EQ(r->best_epoch, 1);
  EXPECT_NE(r->weights->hash(), small_cnn()->weights->hash());

  std::stop_source at_once;
  at_once.request_stop();
  JobContext stopped(at_once.get_token());
  r = exec::train(small_cnn(), nullptr, data, quick(1), "cpu", stopped);
  ASSERT_TRUE(r) << r.error().text();
  EXPECT_TRUE(r->cancelled);
  EXPECT_EQ(r->weights->hash(), small_cnn()->weights->hash());
}

TEST(Train, DivergenceIsAnErrorWithAHint) {
  const PatternData data({1, 8, 8}, 4, 400);
  TrainSettings s = quick(5);
  s.optimizer = "sgd";
  s.learning_rate = 1e30;
  const exec::QuantizerMap q = quantize_all(small_cnn(), noise({8, 1, 8, 8}, 1), 4, 4);
  for (const exec::QuantizerMap* quantizers : {static_cast<const exec::QuantizerMap*>(nullptr), &q}) {
    JobContext job;
    auto r = exec::train(small_cnn(), quantizers, data, s, "cpu", job);
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find("diverged"), std::string::npos) << r.error().text();
    EXPECT_NE(r.error().hint.find("learning rate"), std::string::npos) << r.error().text();
  }
}

TEST(Train, ProgressNamesTheEpoch) {
  const PatternData data({1, 8, 8}, 4, 200);
  std::vector<std::string> phases;
  double last = 0;
  JobContext job({}, [&](const Progress& p) {
    if (phases.empty() || phases.back() != p.phase) phases.push_back(p.phase);
    EXPECT_GE(p.fraction, last);
    last = p.fraction;
  });
  ASSERT_TRUE(exec::train(small_cnn(), nullptr, data, quick(2), "cpu", job));
  EXPECT_EQ(phases, (std::vector<std::string>{"validate", "train epoch 1/2", "train epoch 2/2"}));
  EXPECT_DOUBLE_EQ(last, 1.0);
}

class Unlabelled final : public Dataset {
 public:
  std::int64_t size() const override { return 10; }
  Shape sample_shape() const override { return {1, 8, 8}; }
  bool has_labels() const override { return false; }
  Status read(const std::vector<std::int64_t>&, float*, std::int64_t*) const override { return {}; }
  std::string hash() const override { return "none"; }
};

TEST(Train, BadRequestsAreErrors) {
  const PatternData data({1, 8, 8}, 4, 100), many({1, 8, 8}, 9, 100), wrong({1, 4, 4}, 4, 100);
  const auto message = [](const Dataset& d, const TrainSettings& s, const ModelPtr& model = small_cnn()) {
    JobContext job;
    auto r = exec::train(model, nullptr, d, s, "cpu", job);
    EXPECT_FALSE(r);
    return r ? std::string() : r.error().text();
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has(message(Unlabelled(), quick()), "labels"));
  EXPECT_TRUE(has(message(many, quick()), "classes"));
  EXPECT_TRUE(has(message(wrong, quick()), "model expects"));
  TrainSettings s = quick();
  s.learning_rate = NAN;
  EXPECT_TRUE(has(message(data, s), "learning rate"));
  s = quick();
  s.optimizer = "lion";
  EXPECT_TRUE(has(message(data, s), "lion"));
  s = quick();
  s.epochs = 0;
  EXPECT_TRUE(has(message(data, s), "epoch"));
  ModelMaker m;
  m.input("x", {-1, 1, 8, 8}).node("f", "Flatten", {"x"}, {"y"}).output("y");
  EXPECT_TRUE(has(message(data, quick(), m.build()), "no weights"));
}

TEST(Train, ASharedWeightWithTwoFormatsIsRefused) {
  ModelMaker m;
  m.input("x", {-1, 1, 8, 8}).weight("w", noise({64, 64}, 1));
  m.node("flat", "Flatten", {"x"}, {"f"});
  m.node("a", "MatMul", {"f", "w"}, {"h"}).node("b", "MatMul", {"h", "w"}, {"y"}).output("y");
  const ModelPtr model = m.build();
  QuantSpec spec;
  exec::QuantizerMap q;
  q[{m.id("a"), SiteKind::kWeight, 0}] = *quant::find_params(spec, {64, 64}, noise({64, 64}, 1).data_ptr<float>(), 1);
  JobContext job;
  const PatternData data({1, 8, 8}, 4, 100);
  auto r = exec::train(model, &q, data, quick(1), "cpu", job);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().text().find("'w' is shared by 2"), std::string::npos) << r.error().text();
}

}  // namespace
}  // namespace quanvas
