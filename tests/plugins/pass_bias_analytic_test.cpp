// Bias correction from batch normalizations, without data, and the means that it goes by.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "core/exec/pass_context.h"
#include "plugins/passes/normalized_means.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::ModelMaker;
using testing::noise;
using Ints = std::vector<std::int64_t>;
constexpr double kInfinite = std::numeric_limits<double>::infinity();

TEST(ClippedNormal, MeansAreThoseOfManySamples) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> z(400000);
  for (double& v : z) v = normal(random);
  for (const double mean : {-2.0, -0.3, 0.0, 1.5, 7.0})
    for (const double deviation : {0.0, 0.2, 1.0, 3.0})
      for (const auto& [low, high] : {std::pair(-kInfinite, kInfinite), std::pair(0.0, kInfinite),
                                      std::pair(0.0, 6.0), std::pair(-1.0, 1.0), std::pair(-kInfinite, 2.0)}) {
        double sum = 0;
        for (const double v : z) sum += std::clamp(mean + deviation * v, low, high);
        EXPECT_NEAR(clipped_normal_mean(mean, deviation, low, high), sum / static_cast<double>(z.size()),
                    2e-3 * std::max(1.0, deviation) * 2)
            << mean << " " << deviation << " " << low << " " << high;
      }
  EXPECT_EQ(clipped_normal_mean(-3, 0, 0, 6), 0);
  EXPECT_NEAR(clipped_normal_mean(0, 1, 0, kInfinite), 1 / std::sqrt(2 * 3.14159265358979), 1e-12);
}

// conv -> bn -> relu -> conv (groups of 2) -> bn -> clip to [0, 6] -> pool -> flatten -> product.
ModelPtr net() {
  ModelMaker m;
  m.input("x", {-1, 3, 10, 10}).weight("a.w", noise({8, 3, 3, 3}, 1));
  m.weight("n.g", noise({8}, 2) + 1.5)
      .weight("n.b", noise({8}, 3))
      .weight("n.m", noise({8}, 4))
      .weight("n.v", noise({8}, 5).abs() + 2);
  m.weight("b.w", noise({6, 4, 1, 1}, 6)).weight("b.b", noise({6}, 7));
  m.weight("k.g", noise({6}, 8) * 3)
      .weight("k.b", noise({6}, 9) * 2)
      .weight("k.m", noise({6}, 10))
      .weight("k.v", noise({6}, 11).abs() + 1);
  m.weight("lo", at::tensor({0.0f}).reshape({}))
      .weight("hi", at::tensor({6.0f}).reshape({}))
      .weight("f.w", noise({6, 4}, 12));
  m.node("a", "Conv", {"x", "a.w"}, {"ya"})
      .node("n", "BatchNormalization", {"ya", "n.g", "n.b", "n.m", "n.v"}, {"yn"})
      .node("r", "Relu", {"yn"}, {"zn"});
  m.node("b", "Conv", {"zn", "b.w", "b.b"}, {"yb"}, {{"group", std::int64_t{2}}})
      .node("k", "BatchNormalization", {"yb", "k.g", "k.b", "k.m", "k.v"}, {"yk"});
  m.node("c", "Clip", {"yk", "lo", "hi"}, {"zk"})
      .node("p", "GlobalAveragePool", {"zk"}, {"g"})
      .node("flat", "Flatten", {"g"}, {"h"});
  m.node("f", "MatMul", {"h", "f.w"}, {"y"}).output("y");
  return m.build();
}

PassContext context(const ModelPtr& model, int bits) {
  PassContext ctx;
  ctx.model = ctx.quantized.model = model;
  const TensorInfo& x = model->graph->tensor(model->graph->inputs()[0]);
  Shape shape = *x.shape;
  shape[0] = 16;
  ctx.quantized.quantizers = testing::quantize_all(model, noise(shape, 5), bits, 8);
  return ctx;
}
Result<std::string> apply(PassContext& ctx, json given = json::object(), JobContext job = JobContext()) {
  given["method"] = "analytic";
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("bias-correction", "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, "bias-correction"));
  return pass->apply(ctx, options, job);
}
std::vector<float> values_of(const ModelPtr& model, const std::string& name) {
  return model->weights->find(name)->to_floats();
}

TEST(AnalyticBias, TakesTheMeanOfTheRoundingFromTheBiasWithoutData) {
  const ModelPtr model = net();
  PassContext ctx = context(model, 2);
  const auto quantizers = ctx.quantized.quantizers;
  const auto text = apply(ctx);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("Corrected 2 layers from batch normalizations"), 0u) << *text;
  EXPECT_NE(text->find("'a' (no batch normalization comes before it)"), std::string::npos) << *text;
  // The layer that is left gets no bias, the product without one does.
  const Graph& graph = *ctx.quantized.model->graph;
  EXPECT_EQ(graph.find("a")->inputs.size(), 2u);
  ASSERT_EQ(graph.find("f")->inputs.size(), 3u);
  EXPECT_EQ(values_of(ctx.quantized.model, "b.w"), values_of(model, "b.w"));
  // By hand: each output of the convolution in groups.
  const auto w = values_of(model, "b.w"), b = values_of(model, "b.b"), now = values_of(ctx.quantized.model, "b.b");
  const auto g = values_of(model, "n.g"), beta = values_of(model, "n.b"), v = values_of(model, "n.v");
  const NodeId id = model->graph->find("b")->id;
  const auto& params = quantizers.at({id, SiteKind::kWeight, 0});
  std::vector<float> q(w.size());
  quant::fake_quantize(params, params.layout, w.data(), q.data());
  const auto& of_bias = quantizers.at({id, SiteKind::kBias, 0});
  double moved = 0;
  for (std::size_t o = 0; o < 6; ++o) {
    double shift = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const std::size_t c = o / 3 * 4 + i;
      const double deviation = std::fabs(static_cast<double>(g[c])) *
                               std::sqrt(static_cast<double>(v[c]) / (static_cast<double>(v[c]) + 1e-5));
      shift += static_cast<double>(q[o * 4 + i] - w[o * 4 + i]) *
               clipped_normal_mean(static_cast<double>(beta[c]), deviation, 0, kInfinite);
    }
    EXPECT_NEAR(static_cast<double>(now[o] - b[o]), -shift, 0.51 * static_cast<double>(of_bias.scale[o]) + 1e-5)
        << o;
    moved = std::max(moved, std::fabs(shift));
  }
  EXPECT_GT(moved, 0.05);
}

// Where the batch normalization tells the truth of the data, the mean of the output comes back.
TEST(AnalyticBias, BringsMeansBackWhereTheNormalizationIsRight) {
  ModelMaker m;
  m.input("x", {-1, 16})
      .weight("g", noise({16}, 2) + 1.5)
      .weight("b", noise({16}, 3))
      .weight("m", at::zeros({16}))
      .weight("v", at::ones({16}));
  m.weight("w", noise({16, 8}, 4))
      .node("n", "BatchNormalization", {"x", "g", "b", "m", "v"}, {"yn"})
      .node("r", "Relu", {"yn"}, {"z"});
  m.node("f", "MatMul", {"z", "w"}, {"y"}).output("y");
  const ModelPtr model = m.build();
  PassContext ctx = context(model, 2);
  for (auto it = ctx.quantized.quantizers.begin(); it != ctx.quantized.quantizers.end();)
    it = is_activation(it->first.kind) ? ctx.quantized.quantizers.erase(it) : std::next(it);
  at::Tensor x = at::empty({20000, 16});
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = normal(random);
  const at::Tensor aim = testing::run_one(model, x).mean(0);
  const double before =
      (testing::run_one(model, x, &ctx.quantized.quantizers).mean(0) - aim).abs().max().item().toDouble();
  ASSERT_TRUE(apply(ctx));
  const double after = (testing::run_one(ctx.quantized.model, x, &ctx.quantized.quantizers).mean(0) - aim)
                           .abs()
                           .max()
                           .item()
                           .toDouble();
  EXPECT_GT(before, 0.3);
  EXPECT_LT(after, 0.05 * before);
}

// Padding is 0, not the normalization's mean.
TEST(AnalyticBias, CountsPaddingAsZeros) {
  ModelMaker m;
  m.input("x", {-1, 4, 5, 6}).weight("g", noise({4}, 2) + 1.5).weight("b", noise({4}, 3) + 1);
  m.weight("m", at::zeros({4})).weight("v", at::ones({4})).weight("w", noise({4, 1, 3, 3}, 4));
  m.node("n", "BatchNormalization", {"x", "g", "b", "m", "v"}, {"yn"}).shape("yn", {-1, 4, 5, 6});
  m.node("r", "Relu", {"yn"}, {"z"}).shape("z", {-1, 4, 5, 6});
  m.node("c", "Conv", {"z", "w"}, {"y"}, {{"group", std::int64_t{4}}, {"pads", Ints{1, 1, 1, 0}}, {"strides", Ints{2, 1}}});
  m.output("y");
  const ModelPtr model = m.build();
  PassContext ctx = context(model, 2);
  for (auto it = ctx.quantized.quantizers.begin(); it != ctx.quantized.quantizers.end();)
    it = is_activation(it->first.kind) ? ctx.quantized.quantizers.erase(it) : std::next(it);
  at::Tensor x = at::empty({3000, 4, 5, 6});
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = normal(random);
  const auto means = [&](const ModelPtr& of, const exec::QuantizerMap* q) { return testing::run_one(of, x, q).transpose(0, 1).flatten(1).mean(1); };
  const at::Tensor aim = means(model, nullptr);
  const double before = (means(model, &ctx.quantized.quantizers) - aim).abs().max().item().toDouble();
  ASSERT_TRUE(apply(ctx));
  EXPECT_GT(before, 0.1);
  EXPECT_LT((means(ctx.quantized.model, &ctx.quantized.quantizers) - aim).abs().max().item().toDouble(), 0.06 * before);
}

// fold-bn keeps what the normalizations have said, for as long as the folded weights are theirs.
TEST(AnalyticBias, KnowsFoldedNormalizations) {
  const auto folded = [](const ModelPtr& model) {
    PassContext ctx;
    ctx.model = model;
    JobContext job;
    const Pass* fold = *Registry<Pass>::instance().get("fold-bn", "pass");
    EXPECT_TRUE(fold->apply(ctx, json::object(), job));
    return ctx.model;
  };
  const ModelPtr whole = net(), model = folded(whole);
  for (const Node& node : model->graph->nodes()) EXPECT_NE(node.op, "BatchNormalization");
  for (const auto& [name, data] : model->weights->all())
    if (name.find(".normalization.") != std::string::npos) {
      EXPECT_EQ(model->graph->tensor(name), kNoTensor);
    }
  for (const char* tensor : {"zn", "zk", "h"}) {
    const auto a = normalized_means(*whole, whole->graph->tensor(tensor)), b = normalized_means(*model, model->graph->tensor(tensor));
    ASSERT_EQ(b.means.size(), a.means.size()) << tensor << ": " << b.why;
    for (std::size_t i = 0; i < a.means.size(); ++i) EXPECT_NEAR(a.means[i], b.means[i], 1e-5) << tensor;
  }
  PassContext ctx = context(model, 2);
  const auto text = apply(ctx);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("Corrected 2 layers"), 0u) << *text;
  // Channels that were scaled since then are not those that were described.
  auto weights = std::make_shared<WeightStore>(*model->weights);
  const std::string name = model->graph->tensor(model->graph->find("a")->input(1)).name;
  const TensorData* w = weights->find(name);
  weights->set(name, exec::to_data(at::tensor(w->to_floats(), at::kFloat).reshape(w->shape) * 2));
  const Model scaled{model->graph, weights, ""};
  EXPECT_NE(normalized_means(scaled, model->graph->tensor("zn")).why, "");
  EXPECT_EQ(normalized_means(scaled, model->graph->tensor("zk")).why, "");
}

TEST(AnalyticBias, NamesWhatItLeaves) {
  PassContext pooled = context(testing::small_cnn(4, true), 3);
  const auto before = pooled.quantized.model;
  const auto text = apply(pooled);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("Corrected 0 layers"), 0u) << *text;
  EXPECT_NE(text->find("'fc' ('pool' (MaxPool) comes between it and a batch normalization)"), std::string::npos)
      << *text;
  EXPECT_EQ(pooled.quantized.model, before);
  ASSERT_EQ(pooled.layers.size(), 2u);
  // There never was one.
  PassContext folded = context(testing::small_cnn(), 3);
  EXPECT_NE(apply(folded)->find("'conv' (no batch normalization comes before it)"), std::string::npos);
  // Parameters that are no numbers.
  ModelMaker m;
  m.input("x", {-1, 2})
      .weight("g", at::ones({2}))
      .weight("b", at::tensor({0.0f, NAN}))
      .weight("m", at::zeros({2}))
      .weight("v", at::ones({2}))
      .weight("w", noise({2, 3}, 4));
  m.node("n", "BatchNormalization", {"x", "g", "b", "m", "v"}, {"z"})
      .node("f", "MatMul", {"z", "w"}, {"y"})
      .output("y");
  const ModelPtr broken = m.build();
  EXPECT_NE(normalized_means(*broken, broken->graph->tensor("z")).why.find("not finite"), std::string::npos);
  std::stop_source stop;
  stop.request_stop();
  PassContext stopped = context(net(), 3);
  const auto done = apply(stopped, json::object(), JobContext(stop.get_token()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(stopped.quantized.model, stopped.model);
}

}  // namespace
}  // namespace quanvas
