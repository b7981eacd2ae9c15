// Block reconstruction: how networks fall into blocks, what is learned in one, and the pass over all of them.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "core/algorithms/learned.h"
#include "core/exec/pass_context.h"
#include "core/exec/reconstruct.h"
#include "plugins/passes/blocks.h"
#include "plugins/passes/rounding_layers.h"
#include "tests/core/engine/exec_support.h"
#include "tests/plugins/transformer_nets.h"

namespace quanvas {
namespace {

using testing::ModelMaker;
using testing::noise;
using Ints = std::vector<std::int64_t>;

// conv -> relu -> (conv -> relu -> conv) + itself -> relu -> pool -> gemm -> softmax
ModelPtr residual_net() {
  ModelMaker m;
  const Attributes same = {{"pads", Ints{1, 1, 1, 1}}};
  m.input("x", {-1, 2, 8, 8});
  m.weight("a.w", noise({6, 2, 3, 3}, 1))
      .weight("a.b", noise({6}, 2) * 0.1)
      .weight("b.w", noise({6, 6, 3, 3}, 3) * 0.4)
      .weight("c.w", noise({6, 6, 3, 3}, 4) * 0.4);
  m.weight("f.w", noise({4, 6}, 5)).weight("f.b", noise({4}, 6) * 0.1);
  m.node("a", "Conv", {"x", "a.w", "a.b"}, {"ya"}, same).node("ra", "Relu", {"ya"}, {"za"});
  m.node("b", "Conv", {"za", "b.w"}, {"yb"}, same)
      .node("rb", "Relu", {"yb"}, {"zb"})
      .node("c", "Conv", {"zb", "c.w"}, {"yc"}, same);
  m.node("sum", "Add", {"yc", "za"}, {"s"}).node("rs", "Relu", {"s"}, {"zs"});
  m.node("pool", "GlobalAveragePool", {"zs"}, {"g"}).node("flat", "Flatten", {"g"}, {"h"});
  m.node("f", "Gemm", {"h", "f.w", "f.b"}, {"y"}, {{"transB", std::int64_t{1}}})
      .node("soft", "Softmax", {"y"}, {"p"})
      .output("p");
  return m.build();
}

PassContext context(const ModelPtr& model, int weight_bits, int input_bits, const Shape& sample,
                    std::int64_t samples = 96) {
  PassContext ctx;
  ctx.model = ctx.quantized.model = model;
  Shape shape = sample;
  shape.insert(shape.begin(), 64);
  ctx.quantized.quantizers = testing::quantize_all(model, noise(shape, 5), weight_bits, input_bits);
  ctx.calibration_data = std::make_shared<testing::PatternData>(sample, 4, samples);
  return ctx;
}
const Shape kResidual = {2, 8, 8};

Result<std::string> apply(PassContext& ctx, json given = json::object(), JobContext job = JobContext()) {
  if (!given.contains("iterations")) given["iterations"] = 120;
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("brecq", "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, "brecq"));
  return pass->apply(ctx, options, job);
}

std::vector<float> values_of(const ModelPtr& model, const std::string& name) {
  return model->weights->find(name)->to_floats();
}
std::vector<std::string> names_of(const Graph& graph, const rounding::BlockRange& block) {
  std::vector<std::string> out;
  for (const std::size_t p : block.layers) out.push_back(graph.nodes()[p].name);
  return out;
}
using Names = std::vector<std::string>;

TEST(Blocks, AreCutWhereOneTensorPasses) {
  const ModelPtr net = residual_net();
  const Graph& graph = *net->graph;
  auto blocks = rounding::find_blocks(graph, 1);
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(names_of(graph, blocks[0]), Names{"a"});
  EXPECT_EQ(names_of(graph, blocks[1]), (Names{"b", "c"}));
  EXPECT_EQ(names_of(graph, blocks[2]), Names{"f"});
  // Each with the activation behind it, the last one without the softmax.
  const auto id = [&](const char* name) { return graph.tensor(name); };
  EXPECT_EQ(blocks[0].outputs, std::vector<TensorId>{id("za")});
  EXPECT_EQ(blocks[1].inputs, std::vector<TensorId>{id("za")});
  EXPECT_EQ(blocks[2].outputs, std::vector<TensorId>{id("y")});
  EXPECT_EQ(blocks[1].begin, blocks[0].end);
  blocks = rounding::find_blocks(graph, 3);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(names_of(graph, blocks[0]), (Names{"a", "b", "c"}));
  EXPECT_EQ(rounding::find_blocks(graph, 4).size(), 1u);
  // A transformer: attention with its residual sum, the gated layers with theirs, the head.
  const ModelPtr llama = testing::small_llama(false);
  const auto halves = rounding::find_blocks(*llama->graph, 1);
  ASSERT_EQ(halves.size(), 3u);
  EXPECT_EQ(names_of(*llama->graph, halves[0]).size(), 4u);
  EXPECT_EQ(names_of(*llama->graph, halves[1]).size(), 3u);
  EXPECT_EQ(halves[0].outputs, std::vector<TensorId>{llama->graph->tensor("r1")});
  EXPECT_EQ(rounding::find_blocks(*llama->graph, 7).size(), 2u);
  // Every layer stands in one block.
  for (const std::int64_t most : {1, 2, 3, 100}) {
    std::size_t end = 0, layers = 0;
    for (const auto& block : rounding::find_blocks(graph, most)) {
      EXPECT_GE(block.begin, end);
      end = block.end;
      layers += block.layers.size();
    }
    EXPECT_EQ(layers, 4u);
  }
}

// One block of the whole network: what it says is the network's output error.
TEST(Brecq, ABlocksErrorNeverEndsAboveRoundingToNearest) {
  for (const char* method : {"adaround", "autoround"})
    for (const int bits : {2, 4}) {
      SCOPED_TRACE(std::string(method) + " " + std::to_string(bits));
      PassContext ctx = context(testing::small_cnn(), bits, 8, {1, 8, 8});
      const auto quantizers = ctx.quantized.quantizers;
      const auto text =
          apply(ctx, {{"layers", 10}, {"importance", "none"}, {"mix", 0}, {"method", method}, {"iterations", 300}});
      ASSERT_TRUE(text) << text.error().text();
      EXPECT_EQ(text->find("2 layers in 1 block on 96 samples: 0."), 0u) << *text;
      EXPECT_NE(text->find("MiB of activations kept"), std::string::npos);
      at::Tensor x = at::empty({96, 1, 8, 8});
      Ints all(96);
      for (std::size_t i = 0; i < 96; ++i) all[i] = static_cast<std::int64_t>(i);
      ASSERT_TRUE(ctx.calibration_data->read(all, x.data_ptr<float>(), nullptr));
      const at::Tensor y = testing::run_one(ctx.model, x);
      const auto error = [&](const ModelPtr& model) {
        return (testing::run_one(model, x, &quantizers) - y).pow(2).sum().item().toDouble() / 96;
      };
      ASSERT_EQ(ctx.layers.size(), 1u);
      EXPECT_NEAR(ctx.layers[0].before, error(ctx.model), 1e-4 * ctx.layers[0].before);
      EXPECT_NEAR(ctx.layers[0].after, error(ctx.quantized.model), 1e-4 * ctx.layers[0].after);
      EXPECT_LT(ctx.layers[0].after, (bits == 2 ? 0.9 : 0.7) * ctx.layers[0].before);
      // Weights: one of the two values of the grid around the float ones.
      for (const rounding::Target& target : rounding::find_targets(ctx).targets) {
        const std::string& name = ctx.model->graph->tensor(target.layer.weight).name;
        const auto w = values_of(ctx.model, name), q = values_of(ctx.quantized.model, name);
        const auto quantizer = *quant::ColumnQuantizer::create(quantizers.at(target.weight_site()), target.view(0));
        const auto gates = *algorithms::gates_of(target.m, target.n, w.data(), w.data(), quantizer);
        for (std::size_t i = 0; i < w.size(); ++i)
          EXPECT_LT(std::min(std::fabs(q[i] - gates.lower[i]), std::fabs(q[i] - gates.upper[i])), 1e-6f);
      }
      EXPECT_EQ(values_of(ctx.quantized.model, "fc.b"), values_of(ctx.model, "fc.b"));
    }
}

TEST(Brecq, RegularizationDecidesTheGates) {
  PassContext ctx = context(residual_net(), 3, 8, kResidual);
  ASSERT_TRUE(apply(ctx, {{"iterations", 1000}}));
  ASSERT_EQ(ctx.layers.size(), 2u);
  for (const PassLayer& l : ctx.layers) {
    ASSERT_NE(l.note.rfind("moved, "), std::string::npos) << l.note;
    const auto comma = l.note.rfind(", ");
    EXPECT_LT(std::stod(l.note.substr(comma + 2)), 1) << l.note;
  }
  EXPECT_NE(ctx.layers[0].note.find("together: a, b, c"), std::string::npos) << ctx.layers[0].note;
  PassContext open = context(residual_net(), 3, 8, kResidual);
  ASSERT_TRUE(apply(open, {{"iterations", 300}, {"rate", 0.01}, {"regularization", 0}}));
  EXPECT_GT(std::stod(open.layers[0].note.substr(open.layers[0].note.rfind(", ") + 2)), 5);
}

TEST(Brecq, OtherLayersKeepTheirBits) {
  PassContext ctx = context(residual_net(), 3, 8, kResidual);
  const auto id = [&](const char* name) { return ctx.model->graph->find(name)->id; };
  ctx.nodes = {id("c"), id("f")};
  const auto text = apply(ctx, {{"layers", 1}});
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("2 layers in 2 blocks"), 0u) << *text;
  for (const char* name : {"a.w", "a.b", "b.w", "f.b"})
    EXPECT_EQ(values_of(ctx.quantized.model, name), values_of(ctx.model, name)) << name;
  for (const char* name : {"c.w", "f.w"})
    EXPECT_NE(values_of(ctx.quantized.model, name), values_of(ctx.model, name)) << name;
}

TEST(Brecq, KeepsItsBitsForThreadsAndSeeds) {
  const auto run = [](int threads, int seed, const char* method) {
    const int before = exec::threads();
    exec::set_threads(threads);
    PassContext ctx = context(residual_net(), 3, 8, kResidual, 70);
    const auto text = apply(ctx, {{"seed", seed},
                                  {"iterations", 60},
                                  {"method", method},
                                  {"batch", 16},
                                  {"mix", 0.5},
                                  {"importance", "labels"}});
    exec::set_threads(before);
    EXPECT_TRUE(text) << text.error().text();
    std::vector<float> out;
    for (const char* name : {"a.w", "b.w", "c.w", "f.w"})
      for (const float v : values_of(ctx.quantized.model, name)) out.push_back(v);
    return out;
  };
  for (const char* method : {"adaround", "autoround"}) {
    const auto one = run(1, 0, method);
    EXPECT_EQ(run(2, 0, method), one);
    EXPECT_NE(run(2, 1, method), one);
  }
}

TEST(Brecq, ContinuesFromWhatAnEarlierPassHasFound) {
  PassContext ctx = context(residual_net(), 3, 8, kResidual);
  const Pass* gptq = *Registry<Pass>::instance().get("gptq", "pass");
  JobContext job;
  ASSERT_TRUE(gptq->apply(ctx, *gptq->schema().complete(json::object(), "gptq"), job));
  const ModelPtr rounded = ctx.quantized.model;
  ctx.layers.clear();
  // Up to the scores of classes: one block of all layers.
  at::Tensor x = at::empty({96, 2, 8, 8});
  Ints all(96);
  for (std::size_t i = 0; i < 96; ++i) all[i] = static_cast<std::int64_t>(i);
  ASSERT_TRUE(ctx.calibration_data->read(all, x.data_ptr<float>(), nullptr));
  const auto scores = [&](const ModelPtr& model, const exec::QuantizerMap* quantizers) {
    auto env = *(*exec::Runner::create(model, quantizers))->run_all({x});
    return env[static_cast<std::size_t>(model->graph->tensor("y"))];
  };
  const at::Tensor aim = scores(ctx.model, nullptr);
  const double start = (scores(rounded, &ctx.quantized.quantizers) - aim).pow(2).sum().item().toDouble() / 96;
  for (const int iterations : {1, 200}) {
    ctx.quantized.model = rounded;
    ctx.layers.clear();
    ASSERT_TRUE(
        apply(ctx, {{"iterations", iterations}, {"layers", 10}, {"method", "autoround"}, {"importance", "none"}}));
    EXPECT_LE(ctx.layers[0].after, start * (1 + 1e-5));
    const double now =
        (scores(ctx.quantized.model, &ctx.quantized.quantizers) - aim).pow(2).sum().item().toDouble() / 96;
    EXPECT_NEAR(ctx.layers[0].after, now, 1e-4 * now);
  }
  EXPECT_LT(ctx.layers[0].after, 0.8 * start);
}

TEST(Brecq, WeighsOutputsAndTakesTokens) {
  for (const char* importance : {"none", "prediction", "labels"}) {
    PassContext ctx = context(residual_net(), 2, 4, kResidual);
    const auto text = apply(ctx, {{"importance", importance}, {"layers", 1}});
    ASSERT_TRUE(text) << text.error().text();
    for (const PassLayer& l : ctx.layers) EXPECT_LE(l.after, l.before);
    EXPECT_EQ(ctx.measure.find("importance") != std::string::npos, std::string(importance) != "none");
  }
  // Gather of token ids, attention, shared batch and token axes.
  class Tokens final : public Dataset {
   public:
    std::int64_t size() const override { return 16; }
    Shape sample_shape() const override { return {5}; }
    bool has_labels() const override { return false; }
    Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t*) const override {
      for (std::size_t i = 0; i < indices.size(); ++i)
        for (std::int64_t t = 0; t < 5; ++t)
          out[i * 5 + static_cast<std::size_t>(t)] = static_cast<float>((indices[i] * 7 + t * 11) % 40);
      return {};
    }
    std::string hash() const override { return "tokens"; }
  };
  PassContext ctx;
  ctx.model = ctx.quantized.model = testing::small_llama(false);
  for (const Layer& layer : find_layers(*ctx.model->graph)) {
    if (layer.kind != LayerKind::kCompute || layer.weight == kNoTensor) continue;
    QuantSpec spec;
    spec.bits = 3;
    spec.granularity = Granularity::kChannel;
    const TensorData* data = ctx.model->weights->find(ctx.model->graph->tensor(layer.weight).name);
    ctx.quantized.quantizers[{layer.node, SiteKind::kWeight, 0}] =
        *quant::find_params(spec, data->shape, data->to_floats().data(), layer.channel_axis);
  }
  ctx.calibration_data = std::make_shared<Tokens>();
  const auto text = apply(ctx, {{"batch", 4}, {"layers", 1}});  // pieces of two samples, the graph's batch
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("8 layers in 3 blocks on 16 samples: 0."), 0u) << *text;
  for (const PassLayer& l : ctx.layers) EXPECT_LE(l.after, l.before);
}

// One block of two layers with smooth activations and no activation quantizer.
struct Small {
  ModelPtr model;
  exec::QuantizerMap none;
  std::shared_ptr<const exec::Runner> runner;
  exec::Block block;
  std::vector<exec::BlockWeight> weights;
};
Small small_block() {
  Small s;
  ModelMaker m;
  m.input("x", {-1, 3}).weight("a.w", noise({3, 4}, 1)).weight("b.w", noise({4, 2}, 2));
  m.node("a", "MatMul", {"x", "a.w"}, {"ya"})
      .node("t", "Tanh", {"ya"}, {"za"})
      .node("b", "MatMul", {"za", "b.w"}, {"y"})
      .output("y");
  s.model = m.build();
  s.runner = *exec::Runner::create(s.model, nullptr);
  const Graph& graph = *s.model->graph;
  for (const Node& node : graph.nodes()) s.block.nodes.push_back(node.id);
  s.block.outputs = {graph.tensor("y")};
  for (int i = 0; i < 4; ++i) {
    const at::Tensor x = noise({5, 3}, 10 + static_cast<std::uint64_t>(i));
    s.block.pieces.push_back(
        {5, {{graph.tensor("x"), x}}, {}, {testing::run_one(s.model, x)}, {noise({5, 2}, 20).abs()}});
  }
  for (const char* name : {"a.w", "b.w"}) {
    exec::BlockWeight w;
    w.id = graph.tensor(name);
    w.original = testing::weight_of(s.model, name);
    const float step = 0.25f;
    w.nearest = w.start = (w.original / step).round() * step;
    for (const float v : values_of(s.model, name)) {
      w.lower.push_back(std::floor(v / step) * step);
      w.upper.push_back(w.lower.back() + step);
      w.h.push_back((v - w.lower.back()) / step);
    }
    s.weights.push_back(std::move(w));
  }
  return s;
}

TEST(Reconstruct, BeginsAsTheFloatNetwork) {
  Small s = small_block();
  exec::ReconstructOptions o;
  o.iterations = 400;
  JobContext job;
  const auto done = exec::reconstruct(*s.runner, s.none, s.block, s.weights, o, job);
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_LT(done->soft, 1e-6 * done->nearest);
  EXPECT_GT(done->nearest, 0);
  EXPECT_LT(done->after, 0.8 * done->nearest);
  EXPECT_LT(done->undecided, 0.01);
  std::int64_t moved = 0;
  for (const exec::BlockWeight& w : s.weights) moved += (w.result != w.start).sum().item().toLong();
  EXPECT_EQ(done->changed, moved);
  // All 2^20 choices are too many; each single one that is turned over is not much better: it is a good one.
  EXPECT_GT(moved, 0);
}

TEST(Reconstruct, GradientIsThatOfTheLoss) {
  const Small s = small_block();
  std::vector<std::vector<float>> v;
  std::uint64_t seed = 30;
  for (const exec::BlockWeight& w : s.weights) {
    const at::Tensor t = noise({static_cast<std::int64_t>(w.h.size())}, ++seed) * 1.5;
    v.emplace_back(t.data_ptr<float>(), t.data_ptr<float>() + t.numel());
  }
  const auto here = exec::soft_loss(*s.runner, s.none, s.block, s.weights, v, 1, 3.0);
  ASSERT_TRUE(here) << here.error().text();
  double largest = 0;
  for (const auto& part : here->gradient)
    for (const float g : part) largest = std::max(largest, std::fabs(static_cast<double>(g)));
  EXPECT_GT(largest, 0.01);
  for (std::size_t i = 0; i < v.size(); ++i)
    for (std::size_t k = 0; k < v[i].size(); ++k) {
      auto more = v, less = v;
      more[i][k] += 0.02f, less[i][k] -= 0.02f;
      const double up = exec::soft_loss(*s.runner, s.none, s.block, s.weights, more, 1, 3.0)->loss;
      const double down = exec::soft_loss(*s.runner, s.none, s.block, s.weights, less, 1, 3.0)->loss;
      EXPECT_NEAR(static_cast<double>(here->gradient[i][k]),
                  (up - down) / (static_cast<double>(more[i][k]) - static_cast<double>(less[i][k])),
                  5e-3 * largest);
    }
}

TEST(Reconstruct, OddBlocks) {
  JobContext job;
  exec::ReconstructOptions o;
  o.iterations = 20;
  for (const auto& change : std::vector<std::function<void(exec::ReconstructOptions&)>>{
           [](auto& x) { x.iterations = -1; }, [](auto& x) { x.rate = 0; }, [](auto& x) { x.mix = 1.5; },
           [](auto& x) { x.warm_up = -0.1; }}) {
    Small s = small_block();
    exec::ReconstructOptions bad = o;
    change(bad);
    EXPECT_FALSE(exec::reconstruct(*s.runner, s.none, s.block, s.weights, bad, job));
  }
  // Targets that are no numbers: the start is kept. Weights on the grid already: nothing moves.
  Small broken = small_block();
  broken.block.pieces[2].targets[0] = at::full({5, 2}, NAN);
  const auto kept = exec::reconstruct(*broken.runner, broken.none, broken.block, broken.weights, o, job);
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->changed, 0);
  Small exact = small_block();
  for (exec::BlockWeight& w : exact.weights) {
    w.start = w.nearest = w.original;
    w.upper = w.lower;
  }
  const auto none = exec::reconstruct(*exact.runner, exact.none, exact.block, exact.weights, o, job);
  ASSERT_TRUE(none) << none.error().text();
  EXPECT_EQ(none->changed, 0);
  Small empty = small_block();
  empty.block.pieces.clear();
  EXPECT_FALSE(exec::reconstruct(*empty.runner, empty.none, empty.block, empty.weights, o, job));
}

TEST(Brecq, SaysWhatIsMissingAndStops) {
  PassContext blind = context(residual_net(), 3, 8, kResidual);
  blind.calibration_data = nullptr;
  EXPECT_NE(apply(blind).error().text().find("calibration data"), std::string::npos);
  PassContext bare = context(residual_net(), 3, 8, kResidual);
  bare.quantized.quantizers.clear();
  EXPECT_NE(apply(bare).error().text().find("No layer has a quantized weight"), std::string::npos);
  PassContext one = context(residual_net(), 3, 8, kResidual, 1);
  ASSERT_TRUE(apply(one, {{"iterations", 10}}));
  for (const PassLayer& l : one.layers) EXPECT_LE(l.after, l.before);
  // Formats whose values move are refused before the run.
  Plan plan;
  QuantSpec spec;
  spec.rounding = Rounding::kFloor;
  plan.sites = {{{bare.model->graph->find("b")->id, SiteKind::kWeight, 0}, spec, 0, "test"}};
  const std::set<NodeId> all;
  const auto issues =
      (*Registry<Pass>::instance().get("brecq", "pass"))->check({*bare.model, plan, all, true, false}, {});
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_NE(issues[0].message.find("rounded floor"), std::string::npos);

  PassContext ctx = context(residual_net(), 3, 8, kResidual);
  std::stop_source source;
  std::chrono::steady_clock::time_point asked;
  std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    asked = std::chrono::steady_clock::now();
    source.request_stop();
  });
  const auto done = apply(ctx, {{"iterations", 1000000}}, JobContext(source.get_token()));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCancelled);
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count(), 2);
  EXPECT_EQ(ctx.quantized.model, ctx.model);
}

}  // namespace
}  // namespace quanvas
