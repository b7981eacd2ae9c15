// Clipping search as a pass: which scales it moves, on what it sees, and what follows them.
#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/pass_context.h"
#include "core/exec/worker.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::ModelMaker;
using testing::noise;
using Ints = std::vector<std::int64_t>;

// Convolutions (one depthwise), a product that reads [in, out].
ModelPtr net() {
  ModelMaker m;
  m.input("x", {-1, 2, 8, 8});
  m.weight("a.w", noise({8, 2, 3, 3}, 1))
      .weight("a.b", noise({8}, 2) * 0.1)
      .weight("d.w", noise({8, 1, 3, 3}, 3))
      .weight("f.w", noise({8, 5}, 4));
  m.node("a", "Conv", {"x", "a.w", "a.b"}, {"ya"}, {{"pads", Ints{1, 1, 1, 1}}}).node("ra", "Relu", {"ya"}, {"za"});
  m.node("d", "Conv", {"za", "d.w"}, {"yd"}, {{"group", std::int64_t{8}}})
      .node("pool", "GlobalAveragePool", {"yd"}, {"g"});
  m.node("flat", "Flatten", {"g"}, {"h"}).node("f", "MatMul", {"h", "f.w"}, {"y"}).output("y");
  return m.build();
}

PassContext context(Granularity granularity = Granularity::kChannel) {
  PassContext ctx;
  ctx.model = ctx.quantized.model = net();
  ctx.quantized.quantizers = testing::quantize_all(ctx.model, noise({16, 2, 8, 8}, 5), 3, 8);
  for (const Layer& layer : find_layers(*ctx.model->graph)) {
    const auto at = ctx.quantized.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (at == ctx.quantized.quantizers.end()) continue;
    QuantSpec spec = at->second.spec;
    spec.statistic = Statistic::kAbsMax;
    spec.granularity = granularity;
    spec.group_size = 4;
    if (granularity != Granularity::kChannel) spec.axis.reset();
    const TensorData* data = ctx.model->weights->find(ctx.model->graph->tensor(layer.weight).name);
    at->second =
        *quant::find_params(spec, data->shape, data->to_floats().data(),
                            granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis);
  }
  for (const Layer& layer : find_layers(*ctx.model->graph))
    if (const auto b = ctx.quantized.quantizers.find({layer.node, SiteKind::kBias, 0});
        b != ctx.quantized.quantizers.end())
      if (granularity == Granularity::kGroup) ctx.quantized.quantizers.erase(b);
  ctx.calibration_data = std::make_shared<testing::PatternData>(Shape{2, 8, 8}, 4, 100);
  return ctx;
}

Result<std::string> apply(PassContext& ctx, const json& given = json::object(), JobContext job = JobContext()) {
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("clip-search", "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, "clip-search"));
  return pass->apply(ctx, options, job);
}

TEST(ClipSearchPass, ShrinksRangesAndLeavesTheWeights) {
  for (const Granularity granularity : {Granularity::kTensor, Granularity::kChannel, Granularity::kGroup})
    for (const char* inputs : {"quantized", "float"}) {
      SCOPED_TRACE(std::string(enum_text(granularity)) + " " + inputs);
      PassContext ctx = context(granularity);
      const auto before = ctx.quantized.quantizers;
      const auto text = apply(ctx, {{"inputs", inputs}});
      ASSERT_TRUE(text) << text.error().text();
      EXPECT_EQ(text->find("3 layers on 100 samples: 0."), 0u) << *text;
      EXPECT_EQ(ctx.quantized.model, ctx.model);
      ASSERT_EQ(ctx.layers.size(), 3u);
      for (const PassLayer& l : ctx.layers) {
        EXPECT_LE(l.after, l.before) << l.layer;
        EXPECT_NE(l.note.find(" smaller"), std::string::npos);
      }
      bool moved = false;
      for (const auto& [site, params] : ctx.quantized.quantizers) {
        const auto& old = before.at(site);
        if (is_activation(site.kind)) EXPECT_EQ(params.scale, old.scale);
        if (site.kind == SiteKind::kWeight) {
          moved = moved || params.scale != old.scale;
          for (std::size_t i = 0; i < params.scale.size(); ++i) EXPECT_LE(params.scale[i], old.scale[i]);
        }
        if (site.kind != SiteKind::kBias) continue;
        const auto& weight = ctx.quantized.quantizers.at({site.node, SiteKind::kWeight, 0}).scale;
        const float input = ctx.quantized.quantizers.at({site.node, SiteKind::kInput, 0}).scale[0];
        for (std::size_t c = 0; c < weight.size(); ++c) EXPECT_EQ(params.scale[c], input * weight[c]);
      }
      EXPECT_TRUE(moved);
    }
}

// What the later layers see of the quantized network has the new ranges of those before.
TEST(ClipSearchPass, TheReportIsTheErrorOfTheNetworkWithTheNewRanges) {
  PassContext ctx = context();
  ASSERT_TRUE(apply(ctx));
  const auto shared = ctx.quantized.quantizers;
  at::Tensor x = at::empty({100, 2, 8, 8});
  Ints all(100);
  for (std::size_t i = 0; i < 100; ++i) all[i] = static_cast<std::int64_t>(i);
  ASSERT_TRUE(ctx.calibration_data->read(all, x.data_ptr<float>(), nullptr));
  const Graph& graph = *ctx.model->graph;
  const auto runner = *exec::Runner::create(ctx.model, &shared);
  const auto env = *runner->run_all({x});
  const Node& f = *graph.find("f");
  const at::Tensor h =
      exec::fake_quantize(env[static_cast<std::size_t>(f.inputs[0])], shared.at({f.id, SiteKind::kInput, 0}));
  const at::Tensor w = exec::to_tensor(*ctx.model->weights->find("f.w"));
  const at::Tensor q = exec::fake_quantize(w, shared.at({f.id, SiteKind::kWeight, 0}));
  const double error = at::matmul(h, q - w).pow(2).sum().item().toDouble();
  ASSERT_EQ(ctx.layers.back().layer, "f");
  EXPECT_NEAR(ctx.layers.back().after, error, 1e-3 * error);
}

TEST(ClipSearchPass, LeavesAndNamesWhatCannotMove) {
  struct Row {
    std::function<void(quant::QuantParams&)> change;
    const char* sentence;
  };
  const Row rows[] = {
      {[](quant::QuantParams& p) { p.spec.scale = ScaleType::kPowerOfTwo; }, "not any float32"},
      {[](quant::QuantParams& p) { p.spec.source = ScaleSource::kConstant; }, "its scale is given"},
      {[](quant::QuantParams& p) { p.share = "both"; }, "together with others"},
      {[](quant::QuantParams& p) { p.spec.rounding = Rounding::kLearned; }, "its rounding is learned"},
      {[](quant::QuantParams& p) { p.spec.accumulator_bits = 16; }, "bound of the codes"}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.sentence);
    PassContext ctx = context();
    const Site site{ctx.model->graph->find("d")->id, SiteKind::kWeight, 0};
    row.change(ctx.quantized.quantizers.at(site));
    const auto before = ctx.quantized.quantizers.at(site).scale;
    ASSERT_TRUE(apply(ctx));
    EXPECT_EQ(ctx.quantized.quantizers.at(site).scale, before);
    ASSERT_EQ(ctx.layers.size(), 3u);
    EXPECT_EQ(ctx.layers[2].layer, "d");
    EXPECT_NE(ctx.layers[2].note.find(row.sentence), std::string::npos) << ctx.layers[2].note;
    // Before the run; alone it is an error.
    Plan plan;
    plan.sites = {
        {site, ctx.quantized.quantizers.at(site).spec, 0, "test", ctx.quantized.quantizers.at(site).share}};
    const std::set<NodeId> all;
    const auto issues =
        (*Registry<Pass>::instance().get("clip-search", "pass"))->check({*ctx.model, plan, all, true, false}, {});
    ASSERT_EQ(issues.size(), 2u);
    EXPECT_EQ(issues[0].severity, Severity::kError);
    EXPECT_NE(issues[1].message.find(row.sentence), std::string::npos);
    ctx.nodes = {site.node};
    const auto none = apply(ctx);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, ErrorCode::kInvalidArgument);
  }
}

Result<std::string> learn(PassContext& ctx, const json& given) {
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("adaround", "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, "adaround"));
  JobContext job;
  return pass->apply(ctx, options, job);
}

// AutoRound's ranges through the same way: weights on the grids of the new scales, biases with them, and layers
// that keep theirs.
TEST(LearnedRangesPass, MovesScalesWithTheWeights) {
  PassContext with = context(), without = context();
  const auto before = with.quantized.quantizers;
  const Site d{with.model->graph->find("d")->id, SiteKind::kWeight, 0};
  for (PassContext* ctx : {&with, &without}) ctx->quantized.quantizers.at(d).share = "both";
  const json on{{"method", "autoround"}, {"learn_range", true}, {"inputs", "float"}},
      off{{"method", "autoround"}, {"inputs", "float"}};
  const auto text = learn(with, on);
  ASSERT_TRUE(text) << text.error().text();
  ASSERT_TRUE(learn(without, off));
  EXPECT_EQ(with.quantized.quantizers.at(d).scale, before.at(d).scale);
  ASSERT_EQ(with.layers.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_LE(with.layers[i].after, with.layers[i].before);
    if (with.layers[i].layer == "d") EXPECT_NE(with.layers[i].note.find("together with others"), std::string::npos);
    if (with.layers[i].layer == "f") EXPECT_LT(with.layers[i].after, without.layers[i].after);
  }
  for (const Layer& layer : find_layers(*with.model->graph)) {
    const auto at = with.quantized.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (at == with.quantized.quantizers.end()) continue;
    const auto values =
        with.quantized.model->weights->find(with.model->graph->tensor(layer.weight).name)->to_floats();
    std::vector<float> again(values.size());
    quant::fake_quantize(at->second, at->second.layout, values.data(), again.data());
    EXPECT_EQ(values, again);
    const auto b = with.quantized.quantizers.find({layer.node, SiteKind::kBias, 0});
    if (b == with.quantized.quantizers.end()) continue;
    const float input = with.quantized.quantizers.at({layer.node, SiteKind::kInput, 0}).scale[0];
    for (std::size_t c = 0; c < at->second.scale.size(); ++c)
      EXPECT_EQ(b->second.scale[c], input * at->second.scale[c]);
  }
  // With AdaRound scales stay, and that is said.
  Plan plan;
  plan.sites = {{d, before.at(d).spec, 0, "test"}};
  const std::set<NodeId> all;
  const auto issues = (*Registry<Pass>::instance().get("adaround", "pass"))
                          ->check({*with.model, plan, all, true, false}, {{"learn_range", true}});
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_EQ(issues[0].severity, Severity::kWarning);
  PassContext gates = context();
  ASSERT_TRUE(learn(gates, {{"learn_range", true}, {"iterations", 20}}));
  for (const auto& [site, params] : gates.quantized.quantizers) EXPECT_EQ(params.scale, before.at(site).scale);
}

// A depthwise layer has groups of one output each: a scale of the whole tensor must not move from group to group.
TEST(LearnedRangesPass, LeavesScalesThatSeveralGroupsHaveTogether) {
  PassContext ctx = context(Granularity::kTensor);
  const Site d{ctx.model->graph->find("d")->id, SiteKind::kWeight, 0};
  const auto before = ctx.quantized.quantizers.at(d).scale;
  const auto text = learn(ctx, {{"method", "autoround"}, {"learn_range", true}, {"inputs", "float"}});
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(ctx.quantized.quantizers.at(d).scale, before);
  for (const PassLayer& layer : ctx.layers)
    if (layer.layer == "d") EXPECT_NE(layer.note.find("one scale serves several groups"), std::string::npos) << layer.note;
}

TEST(ClipSearchPass, StopsMissesAndThreads) {
  std::stop_source stop;
  stop.request_stop();
  PassContext stopped = context();
  const auto before = stopped.quantized.quantizers;
  const auto cancelled = apply(stopped, json::object(), JobContext(stop.get_token()));
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  for (const auto& [site, params] : before) EXPECT_EQ(stopped.quantized.quantizers.at(site).scale, params.scale);
  PassContext blind = context();
  blind.calibration_data = nullptr;
  EXPECT_NE(apply(blind).error().text().find("calibration data"), std::string::npos);
  const int threads = exec::threads();
  std::vector<std::vector<float>> scales[2];
  for (const int t : {1, 2}) {
    exec::set_threads(t);
    PassContext ctx = context();
    ASSERT_TRUE(apply(ctx));
    for (const auto& [site, params] : ctx.quantized.quantizers) scales[t - 1].push_back(params.scale);
  }
  exec::set_threads(threads);
  EXPECT_EQ(scales[0], scales[1]);
}

}  // namespace
}  // namespace quanvas
