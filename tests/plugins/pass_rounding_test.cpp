// GPTQ, GPFQ, Qronos, MagR and coordinate descent as passes: what they do to networks. Their mathematics is tested in
// tests/core/algorithms.
#include <gtest/gtest.h>

#include <map>

#include "core/algorithms/accumulator.h"
#include "core/exec/pass_context.h"
#include "plugins/passes/rounding_layers.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

using testing::ModelMaker;
using testing::noise;
using testing::PatternData;
using Ints = std::vector<std::int64_t>;

const std::vector<std::string> kRounding = {"gptq", "gpfq", "qronos", "polish", "adaround"};

PassContext context(const ModelPtr& model, int weight_bits, int input_bits, const Shape& sample) {
  PassContext ctx;
  ctx.model = model;
  ctx.quantized.model = model;
  Shape shape = sample;
  shape.insert(shape.begin(), 64);
  ctx.quantized.quantizers = testing::quantize_all(model, noise(shape, 5), weight_bits, input_bits);
  ctx.calibration_data = std::make_shared<PatternData>(sample, 4, 150);
  return ctx;
}

Result<std::string> apply(const std::string& id, PassContext& ctx, const json& given, JobContext& job) {
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get(id, "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, id));
  return pass->apply(ctx, options, job);
}
Result<std::string> apply(const std::string& id, PassContext& ctx, const json& given = json::object()) {
  JobContext job;
  return apply(id, ctx, given, job);
}

at::Tensor samples(const PassContext& ctx, const Shape& sample) {
  Shape shape = sample;
  shape.insert(shape.begin(), ctx.calibration_data->size());
  at::Tensor x = at::empty(shape);
  Ints all(static_cast<std::size_t>(shape[0]));
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
  EXPECT_TRUE(ctx.calibration_data->read(all, x.data_ptr<float>(), nullptr));
  return x;
}

double output_error(const PassContext& ctx, const Shape& sample) {
  const at::Tensor x = samples(ctx, sample);
  return (testing::run_one(ctx.model, x) - testing::run_one(ctx.quantized.model, x, &ctx.quantized.quantizers))
      .pow(2).sum().item().toDouble();
}

std::vector<float> weights(const ModelPtr& model, const std::string& name) { return model->weights->find(name)->to_floats(); }

// conv (stride, pads) -> depthwise -> 1x1 -> two matrix products of the same tensor -> their sum.
ModelPtr branching_net() {
  ModelMaker m;
  m.input("x", {-1, 2, 9, 8});
  m.weight("a.w", noise({6, 2, 3, 3}, 1) * 0.5).weight("a.b", noise({6}, 2) * 0.1);
  m.weight("d.w", noise({6, 1, 3, 3}, 3) * 0.5).weight("p.w", noise({8, 6, 1, 1}, 4) * 0.5);
  m.weight("q.w", noise({8, 5}, 5) * 0.5).weight("k.w", noise({8, 5}, 6) * 0.5);
  m.node("a", "Conv", {"x", "a.w", "a.b"}, {"ya"}, {{"pads", Ints{1, 0, 0, 1}}, {"strides", Ints{2, 1}}});
  m.node("ra", "Relu", {"ya"}, {"za"});
  m.node("d", "Conv", {"za", "d.w"}, {"yd"}, {{"pads", Ints{1, 1, 1, 1}}, {"group", std::int64_t{6}}});
  m.node("p", "Conv", {"yd", "p.w"}, {"yp"});
  m.node("rp", "Relu", {"yp"}, {"zp"});
  m.node("pool", "GlobalAveragePool", {"zp"}, {"g"});
  m.node("flat", "Flatten", {"g"}, {"f"});
  m.node("q", "MatMul", {"f", "q.w"}, {"yq"});
  m.node("k", "MatMul", {"f", "k.w"}, {"yk"});
  m.node("sum", "Add", {"yq", "yk"}, {"y"});
  m.output("y");
  return m.build();
}
const Shape kBranching = {2, 9, 8};

// Of each layer alone on float inputs, by its name: the squared error of its output with these weights.
std::map<std::string, double> layer_errors(const PassContext& ctx, const ModelPtr& changed, const Shape& sample) {
  JobContext job;
  const auto env = (*exec::Runner::create(ctx.model, nullptr))->run_all({samples(ctx, sample)});
  std::map<std::string, double> out;
  for (const rounding::Target& target : rounding::find_targets(ctx).targets) {
    rounding::ColumnSums sums(*ctx.model->graph, target, false);
    EXPECT_TRUE(sums.add((*env)[static_cast<std::size_t>(target.input)], {}, {}));
    const auto grams = *sums.finish({});
    const std::string& name = ctx.model->graph->tensor(target.layer.weight).name;
    const auto a = weights(changed, name), b = weights(ctx.model, name);
    const auto& params = ctx.quantized.quantizers.at(target.weight_site());
    std::vector<float> q(a.size());
    quant::fake_quantize(params, params.layout, a.data(), q.data());
    double& sum = out[target.name];
    for (std::int64_t g = 0; g < target.groups; ++g)
      for (std::int64_t r = 0; r < target.m; ++r)
        for (std::int64_t i = 0; i < target.n; ++i)
          for (std::int64_t j = 0; j < target.n; ++j) {
            const auto x = static_cast<std::size_t>(target.view(g).element(r, i)), y = static_cast<std::size_t>(target.view(g).element(r, j));
            sum += static_cast<double>(q[x] - b[x]) * static_cast<double>(q[y] - b[y]) *
                   grams[static_cast<std::size_t>(g)].h[static_cast<std::size_t>(i * target.n + j)];
          }
  }
  return out;
}

TEST(RoundingPasses, LowerTheLayersErrorsAndKeepTheQuantizers) {
  for (const std::string& id : kRounding)
    for (const char* inputs : {"quantized", "float"}) {
      SCOPED_TRACE(id + " " + inputs);
      PassContext ctx = context(testing::small_cnn(), 3, 8, {1, 8, 8});
      const auto quantizers = ctx.quantized.quantizers;
      const auto before = layer_errors(ctx, ctx.model, {1, 8, 8});
      const auto text = apply(id, ctx, {{"inputs", inputs}});
      ASSERT_TRUE(text) << text.error().text();
      EXPECT_EQ(text->find("2 layers on 150 samples: 0."), 0u) << *text;
      auto after = layer_errors(ctx, ctx.quantized.model, {1, 8, 8});
      if (std::string(inputs) == "float") {
        EXPECT_LE(after["conv"], before.at("conv"));
        EXPECT_LT(after["fc"], 0.6 * before.at("fc"));
      }
      for (const Layer& layer : find_layers(*ctx.quantized.model->graph)) {
        const Site site{layer.node, SiteKind::kWeight, 0};
        const auto at = ctx.quantized.quantizers.find(site);
        if (at == ctx.quantized.quantizers.end()) continue;
        EXPECT_EQ(at->second.scale, quantizers.at(site).scale);
        // The weights are those that the quantizer keeps.
        const auto values = weights(ctx.quantized.model, ctx.quantized.model->graph->tensor(layer.weight).name);
        std::vector<float> again(values.size());
        quant::fake_quantize(at->second, at->second.layout, values.data(), again.data());
        EXPECT_EQ(values, again);
      }
      EXPECT_EQ(weights(ctx.quantized.model, "fc.b"), weights(ctx.model, "fc.b"));
    }
}

TEST(RoundingPasses, WorkOnStridesGroupsAndSharedInputs) {
  for (const std::string& id : kRounding)
    for (const bool act_order : {false, true}) {
      const bool ordered = id != "polish" && id != "adaround";
      if (!ordered && act_order) continue;
      SCOPED_TRACE(id + (act_order ? " act-order" : ""));
      PassContext ctx = context(branching_net(), 3, 8, kBranching);
      const double before = output_error(ctx, kBranching);
      const auto text = apply(id, ctx, ordered ? json{{"act_order", act_order}} : json::object());
      ASSERT_TRUE(text) << text.error().text();
      EXPECT_EQ(text->find("5 layers"), 0u) << *text;
      EXPECT_LT(output_error(ctx, kBranching), 0.8 * before) << *text;
    }
}

// What the moments say of a change of the weights is what a convolution with that change gives.
TEST(RoundingPasses, ColumnsAreThoseOfTheLayer) {
  struct Row {
    Shape x, w;
    Attributes attributes;
    std::int64_t group = 1;
  };
  const std::vector<Row> rows = {
      {{3, 4, 7, 6}, {5, 4, 3, 3}, {}},
      {{3, 4, 7, 6}, {4, 2, 3, 2}, {{"group", std::int64_t{2}}, {"pads", Ints{1, 2, 0, 1}}, {"strides", Ints{2, 1}}}, 2},
      {{2, 3, 9, 9}, {3, 1, 3, 3}, {{"group", std::int64_t{3}}, {"dilations", Ints{2, 2}}, {"auto_pad", std::string("SAME_UPPER")}}, 3},
      {{5, 3, 20}, {4, 3, 5}, {{"pads", Ints{2, 2}}, {"strides", Ints{3}}}},
      {{2, 2, 5, 4, 3}, {3, 2, 2, 2, 2}, {{"pads", Ints{1, 0, 0, 0, 0, 1}}}},
      {{40, 2, 64, 64}, {3, 2, 3, 3}, {{"pads", Ints{1, 1, 1, 1}}}}};
  for (const Row& row : rows) {
    ModelMaker m;
    Shape input = row.x;
    input[0] = -1;
    m.input("x", input).weight("w", noise(row.w, 3));
    m.node("c", "Conv", {"x", "w"}, {"y"}, row.attributes);
    m.output("y");
    const ModelPtr model = m.build();
    PassContext ctx;
    ctx.model = ctx.quantized.model = model;
    QuantSpec spec;
    spec.granularity = Granularity::kChannel;
    const auto values = weights(model, "w");
    ctx.quantized.quantizers[{model->graph->find("c")->id, SiteKind::kWeight, 0}] = *quant::find_params(spec, row.w, values.data(), 0);
    const auto targets = rounding::find_targets(ctx).targets;
    ASSERT_EQ(targets.size(), 1u);
    const rounding::Target& target = targets[0];
    rounding::ColumnSums sums(*model->graph, target, false);
    const at::Tensor x = noise(row.x, 7);
    ASSERT_TRUE(sums.add(x.narrow(0, 0, 1), {}, {}));
    ASSERT_TRUE(sums.add(x.narrow(0, 1, row.x[0] - 1), {}, {}));
    const auto grams = sums.finish({});
    ASSERT_TRUE(grams) << grams.error().text();
    double sum = 0;
    for (std::int64_t g = 0; g < row.group; ++g)
      for (std::int64_t r = 0; r < target.m; ++r)
        for (std::int64_t i = 0; i < target.n; ++i)
          for (std::int64_t j = 0; j < target.n; ++j) {
            const quant::MatrixView view = target.view(g);
            sum += static_cast<double>(values[static_cast<std::size_t>(view.element(r, i))]) *
                   static_cast<double>(values[static_cast<std::size_t>(view.element(r, j))]) *
                   (*grams)[static_cast<std::size_t>(g)].h[static_cast<std::size_t>(i * target.n + j)];
          }
    const double expected = testing::run_one(model, x).to(at::kDouble).pow(2).sum().item().toDouble();
    EXPECT_NEAR(sum, expected, 1e-5 * expected);
  }
}

TEST(RoundingPasses, LayersCanBeChosenAndAreReported) {
  PassContext some = context(branching_net(), 3, 8, kBranching);
  const auto id = [&](const char* name) { return some.quantized.model->graph->find(name)->id; };
  some.nodes = {id("q"), id("d")};
  const auto text = apply("gptq", some, {{"samples", 40}});
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("2 layers on 40 samples"), 0u) << *text;
  for (const char* name : {"a.w", "p.w", "k.w"}) EXPECT_EQ(weights(some.quantized.model, name), weights(some.model, name)) << name;
  for (const char* name : {"q.w", "d.w"}) EXPECT_NE(weights(some.quantized.model, name), weights(some.model, name)) << name;
  ASSERT_EQ(some.layers.size(), 2u);
  EXPECT_EQ(some.layers[0].layer, "d");
  EXPECT_EQ(some.layers[1].layer, "q");
  for (const PassLayer& l : some.layers) EXPECT_LT(l.after, l.before) << l.layer;
  EXPECT_NE(some.measure.find("squared error"), std::string::npos);
  // One of the chosen has no format: the others are rounded; none has one: an error.
  PassContext ctx = context(branching_net(), 3, 8, kBranching);
  ctx.quantized.quantizers.erase({id("p"), SiteKind::kWeight, 0});
  ctx.nodes = {id("p"), id("q")};
  EXPECT_EQ(apply("gptq", ctx, {{"samples", 40}})->find("1 layer on"), 0u);
  ctx.nodes = {id("p")};
  const auto without = apply("gptq", ctx);
  ASSERT_FALSE(without);
  EXPECT_NE(without.error().text().find("No layer has a quantized weight"), std::string::npos);
}

// Formats whose values move when they are rounded again, and those that bound sums of codes, are refused before the run.
TEST(RoundingPasses, RefuseFormatsThatDoNotKeepTheirValues) {
  const std::pair<std::function<void(QuantSpec&)>, const char*> rows[] = {
      {[](QuantSpec& s) { s.rounding = Rounding::kFloor; }, "rounded floor"},
      {[](QuantSpec& s) { s.rounding = Rounding::kLearned; }, "rounded learned"},
      {[](QuantSpec& s) { s.zero_point = ZeroPointType::kFloat; }, "zero point"},
      {[](QuantSpec& s) { s.decoupled = Decoupling::kL2; }, "one scale for rounding"},
      {[](QuantSpec& s) { s.accumulator_bits = 16; }, "bounds the accumulator"}};
  for (const auto& [change, sentence] : rows) {
    PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
    const Site site{ctx.model->graph->find("fc")->id, SiteKind::kWeight, 0};
    QuantSpec spec;
    change(spec);
    ctx.quantized.plan.sites = {{site, spec, 0, "test"}};
    const std::set<NodeId> all;
    for (const char* id : {"gptq", "gpfq", "qronos", "polish", "adaround", "magr"}) {
      const auto issues = (*Registry<Pass>::instance().get(id, "pass"))->check({*ctx.model, ctx.quantized.plan, all, true, false}, {});
      const auto error = std::find_if(issues.begin(), issues.end(), [](const Issue& i) { return i.severity == Severity::kError; });
      EXPECT_EQ(error != issues.end(), std::string(id) != "magr") << id << sentence;
      if (error == issues.end()) continue;
      EXPECT_EQ(error->where, "fc");
      EXPECT_NE(error->message.find(sentence), std::string::npos) << error->message;
    }
  }
}

// Columns of another shape than the layer says, or than the other network gives.
TEST(RoundingPasses, OddInputsAreRefusedNotReadBeyondTheirEnd) {
  PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
  const auto targets = rounding::find_targets(ctx).targets;
  ASSERT_EQ(targets.size(), 2u);
  const at::Tensor picture = noise({2, 1, 8, 8}, 1), rows = noise({2, 96}, 2);
  struct Row {
    std::size_t target;
    bool cross;
    at::Tensor x, reference;
    const char* sentence;
  };
  const Row bad[] = {{0, false, noise({2, 3, 8, 8}, 3), {}, "other channels"}, {0, false, noise({2, 64}, 3), {}, "other channels"},
                     {0, true, picture, noise({1, 1, 8, 8}, 3), "another number of values"}, {1, false, noise({2, 95}, 3), {}, "another length"},
                     {1, true, rows, noise({1, 96}, 3), "another number of values"}};
  for (const Row& row : bad) {
    rounding::ColumnSums sums(*ctx.model->graph, targets[row.target], row.cross);
    EXPECT_TRUE(sums.is_empty());
    const Status done = sums.add(row.x, row.reference, {});
    ASSERT_FALSE(done) << row.sentence;
    EXPECT_NE(done.error().message.find(row.sentence), std::string::npos) << done.error().message;
    EXPECT_NE(done.error().message.find(targets[row.target].name), std::string::npos);
  }
}

// Both networks' columns: H of the quantized one's, the mismatch of the difference.
TEST(RoundingPasses, CrossMomentsAreThoseOfTheTwoNetworks) {
  PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
  const auto targets = rounding::find_targets(ctx).targets;
  const at::Tensor x = noise({7, 96}, 2), reference = noise({7, 96}, 3);
  rounding::ColumnSums sums(*ctx.model->graph, targets[1], true);
  ASSERT_TRUE(sums.add(x, reference, {}));
  const auto grams = *sums.finish({});
  const at::Tensor h = at::mm(x.to(at::kDouble).t(), x.to(at::kDouble));
  const at::Tensor cross = at::mm(reference.to(at::kDouble).t(), x.to(at::kDouble));  // X X~'
  const at::Tensor own = at::tensor(grams[0].h, at::kDouble).reshape({96, 96});
  const at::Tensor mismatch = at::tensor(grams[0].mismatch, at::kDouble).reshape({96, 96});
  EXPECT_LT((own - h).abs().max().item().toDouble(), 1e-5);
  const double straight = (mismatch + own - cross).abs().max().item().toDouble(), turned = (mismatch + own - cross.t()).abs().max().item().toDouble();
  EXPECT_LT(std::min(straight, turned), 1e-5);
}

TEST(RoundingPasses, SayWhatIsMissing) {
  for (const char* id : {"gptq", "gpfq", "qronos", "polish", "adaround", "magr"}) {
    SCOPED_TRACE(id);
    PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
    ctx.calibration_data = nullptr;
    const auto no_data = apply(id, ctx);
    ASSERT_FALSE(no_data);
    EXPECT_NE(no_data.error().text().find("calibration data"), std::string::npos);
    PassContext bare = context(testing::small_cnn(), 4, 8, {1, 8, 8});
    bare.quantized.quantizers.clear();
    const auto no_layer = apply(id, bare);
    ASSERT_FALSE(no_layer);
    EXPECT_NE(no_layer.error().text().find("No layer has a quantized weight"), std::string::npos);
    std::stop_source stop;
    stop.request_stop();
    JobContext job(stop.get_token());
    PassContext stopped = context(testing::small_cnn(), 4, 8, {1, 8, 8});
    const auto cancelled = apply(id, stopped, json::object(), job);
    ASSERT_FALSE(cancelled);
    EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(stopped.quantized.model, stopped.model);
  }
  PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
  auto& params = ctx.quantized.quantizers.at({ctx.model->graph->find("fc")->id, SiteKind::kWeight, 0});
  params.spec.is_signed = params.spec.narrow = false;
  params.spec.zero_point = ZeroPointType::kFloat;  // what is clipped lies between two codes
  params.spec.statistic = Statistic::kPercentile;
  params.spec.percentile = 90;
  params = *quant::find_params(params.spec, {4, 96}, weights(ctx.model, "fc.w").data(), 0);
  const auto moving = apply("gptq", ctx);
  ASSERT_FALSE(moving);
  EXPECT_NE(moving.error().text().find("'fc'"), std::string::npos) << moving.error().text();
}

// No input of the quantized network can make a sum of codes overflow: from the weights and quantizers that the pass leaves.
TEST(RoundingPasses, KeepSumsWithinAnAccumulator) {
  for (const char* id : {"gptq", "gpfq", "qronos"})
    for (const std::int64_t tile : {0, 4})
      for (const char* spread : {"total", "rounding", "best"}) {
        SCOPED_TRACE(std::string(id) + spread);
        const int bits = 12;
        PassContext ctx = context(branching_net(), 4, 8, kBranching);
        const auto text = apply(id, ctx, {{"accumulator_bits", bits}, {"accumulator_tile", tile}, {"accumulator_spread", spread}});
        ASSERT_TRUE(text) << text.error().text();
        EXPECT_NE(text->find("no input overflows accumulators of 12 bits"), std::string::npos) << *text;
        EXPECT_EQ(text->find("nor those of their sums of 15") != std::string::npos, tile == 4) << *text;
        double most = 0;
        for (const rounding::Target& target : rounding::find_targets(ctx).targets) {
          const auto& params = ctx.quantized.quantizers.at(target.weight_site());
          const auto& input = ctx.quantized.quantizers.at(target.input_site());
          const auto w = weights(ctx.quantized.model, ctx.model->graph->tensor(target.layer.weight).name);
          std::vector<std::int32_t> codes(w.size());
          quant::quantize_codes(params, params.layout, w.data(), codes.data());
          const std::int64_t length = tile == 0 ? target.n : tile;
          for (std::int64_t g = 0; g < target.groups; ++g)
            for (std::int64_t r = 0; r < target.m; ++r)
              for (std::int64_t begin = 0; begin < target.n; begin += length) {
                std::vector<std::int64_t> row;
                for (std::int64_t c = begin; c < std::min(target.n, begin + length); ++c)
                  row.push_back(codes[static_cast<std::size_t>(target.view(g).element(r, c))]);
                const auto worst = algorithms::worst_case(static_cast<std::int64_t>(row.size()), row.data(), input.lo, input.hi);
                EXPECT_LE(worst.most, 2047) << target.name;
                EXPECT_GE(worst.least, -2047) << target.name;
                most = std::max(most, static_cast<double>(std::max(worst.most, -worst.least)) / 2047);
              }
        }
        EXPECT_GT(most, 0.9);
        ASSERT_FALSE(ctx.layers.empty());
        for (const PassLayer& l : ctx.layers) EXPECT_NE(l.note.find("% of the 12 bit accumulator used"), std::string::npos) << l.note;
      }
  // Coordinate descent after it keeps the bound when it is told to, and says so when there is none to keep.
  PassContext both = context(branching_net(), 4, 8, kBranching), alone = context(branching_net(), 4, 8, kBranching);
  const json twelve = {{"accumulator_bits", 12}};
  ASSERT_TRUE(apply("gptq", both, twelve));
  const auto polished = apply("polish", both, twelve);
  ASSERT_TRUE(polished) << polished.error().text();
  EXPECT_NE(polished->find("no input overflows accumulators of 12 bits"), std::string::npos) << *polished;
  const auto beyond = apply("polish", alone, twelve);
  ASSERT_FALSE(beyond);
  EXPECT_NE(beyond.error().text().find("already at the start"), std::string::npos) << beyond.error().text();
  // Wide enough for anything: the same weights as without.
  for (const char* id : {"gptq", "gpfq", "qronos"}) {
    PassContext plain = context(branching_net(), 4, 8, kBranching), wide = context(branching_net(), 4, 8, kBranching);
    ASSERT_TRUE(apply(id, plain));
    ASSERT_TRUE(apply(id, wide, {{"accumulator_bits", 32}}));
    EXPECT_EQ(plain.quantized.model->weights->hash(), wide.quantized.model->weights->hash()) << id;
  }
}

TEST(RoundingPasses, SayWhichSumsCannotBeBounded) {
  const json bound = {{"accumulator_bits", 16}};
  struct Row {
    std::function<void(quant::QuantParams&)> input;  // empty: the input is float
    std::function<void(QuantSpec&)> weight;
    const char* sentence;
  };
  const Row rows[] = {
      {{}, {}, "its input is float"},
      {[](quant::QuantParams& p) { p.spec.format = "float"; }, {}, "its input is float"},
      {[](quant::QuantParams& p) { p.spec.source = ScaleSource::kDynamic; }, {}, "found anew from each sample"},
      {[](quant::QuantParams& p) { p.spec.granularity = Granularity::kChannel; }, {}, "more than one scale"},
      {[](quant::QuantParams&) {}, [](QuantSpec& s) { s.format = "float"; }, "its weights are float"},
      {[](quant::QuantParams&) {}, [](QuantSpec& s) { s.granularity = Granularity::kGroup; s.group_size = 32; }, "inside a tile"}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.sentence);
    PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
    const NodeId fc = ctx.model->graph->find("fc")->id;
    ctx.nodes = {fc};
    const Site input{fc, SiteKind::kInput, 0}, weight{fc, SiteKind::kWeight, 0};
    if (row.input) row.input(ctx.quantized.quantizers.at(input));
    else ctx.quantized.quantizers.erase(input);
    auto& params = ctx.quantized.quantizers.at(weight);
    if (row.weight) {
      row.weight(params.spec);
      params = *quant::find_params(params.spec, {4, 96}, weights(ctx.model, "fc.w").data(), params.spec.granularity == Granularity::kGroup ? 1 : 0);
    }
    ctx.quantized.plan.sites = {{weight, params.spec, 0, "test"}};
    if (row.input) ctx.quantized.plan.sites.push_back({input, ctx.quantized.quantizers.at(input).spec, 0, "test"});
    for (const char* id : {"gptq", "gpfq", "qronos"}) {
      const Pass* pass = *Registry<Pass>::instance().get(id, "pass");
      const json options = *pass->schema().complete(bound, id);
      const auto issues = pass->check({*ctx.model, ctx.quantized.plan, ctx.nodes, true, false}, options);
      ASSERT_EQ(issues.size(), 1u) << id;
      EXPECT_EQ(issues[0].where, "fc");
      EXPECT_EQ(issues[0].severity, Severity::kError);
      EXPECT_NE(issues[0].message.find(row.sentence), std::string::npos) << issues[0].message;
      EXPECT_TRUE(pass->check({*ctx.model, ctx.quantized.plan, ctx.nodes, true, false}, *pass->schema().complete(json::object(), id)).empty());
      // Quantizers that do not fit their tensors say so themselves.
      const auto at = ctx.quantized.quantizers.find(input);
      if (at != ctx.quantized.quantizers.end() && (at->second.spec.source == ScaleSource::kDynamic || at->second.spec.granularity == Granularity::kChannel)) continue;
      PassContext again = ctx;
      const auto refused = apply(id, again, bound);
      ASSERT_FALSE(refused);
      EXPECT_NE(refused.error().text().find("fc"), std::string::npos) << refused.error().text();
    }
  }
  // A format that bounds sums by itself stays refused, with and without.
  PassContext ctx = context(testing::small_cnn(), 4, 8, {1, 8, 8});
  const NodeId fc = ctx.model->graph->find("fc")->id;
  ctx.nodes = {fc};
  QuantSpec a2q = ctx.quantized.quantizers.at({fc, SiteKind::kWeight, 0}).spec;
  a2q.accumulator_bits = 16;
  ctx.quantized.plan.sites = {{{fc, SiteKind::kWeight, 0}, a2q, 0, "test"}, {{fc, SiteKind::kInput, 0}, QuantSpec{}, 0, "test"}};
  for (const int bits : {0, 12, 16}) {
    const Pass* pass = *Registry<Pass>::instance().get("gptq", "pass");
    const auto issues = pass->check({*ctx.model, ctx.quantized.plan, ctx.nodes, true, false}, *pass->schema().complete({{"accumulator_bits", bits}}, "gptq"));
    ASSERT_EQ(issues.size(), 1u);
    EXPECT_NE(issues[0].message.find("bounds the accumulator"), std::string::npos);
    EXPECT_EQ(issues[0].hint.find("without a bound of its own") != std::string::npos, bits > 0);
  }
}

TEST(RoundingPasses, DoNotDependOnTheNumberOfThreads) {
  for (const char* id : {"gptq", "gpfq", "qronos", "polish", "adaround", "magr"}) {
    std::string hashes[2];
    for (int threads : {1, 2}) {
      exec::set_threads(threads);
      PassContext ctx = context(branching_net(), 3, 4, kBranching);
      ASSERT_TRUE(apply(id, ctx));
      hashes[threads - 1] = ctx.quantized.model->weights->hash();
    }
    exec::set_threads(0);
    EXPECT_EQ(hashes[0], hashes[1]) << id;
  }
}

TEST(RoundingPasses, PolishAndLearnedRoundingContinueFromAnEarlierPass) {
  for (const auto& [id, options] : {std::pair{"polish", json::object()}, {"adaround", json::object()}, {"adaround", json{{"method", "autoround"}}}}) {
    PassContext ctx = context(testing::small_cnn(), 3, 8, {1, 8, 8});
    ASSERT_TRUE(apply("gptq", ctx));
    const double gptq = output_error(ctx, {1, 8, 8});
    const auto text = apply(id, ctx, options);
    ASSERT_TRUE(text) << text.error().text();
    EXPECT_LT(output_error(ctx, {1, 8, 8}), gptq) << *text;
    for (const PassLayer& l : ctx.layers) EXPECT_LE(l.after, l.before) << l.layer;
  }
}

TEST(RoundingPasses, MagrMakesScalesFiner) {
  PassContext ctx = context(branching_net(), 4, 8, kBranching);
  for (auto& [site, params] : ctx.quantized.quantizers)
    if (site.kind == SiteKind::kWeight) params.spec.statistic = Statistic::kAbsMax;
  for (const Layer& layer : find_layers(*ctx.model->graph))
    if (layer.kind == LayerKind::kCompute) {
      auto& params = ctx.quantized.quantizers.at({layer.node, SiteKind::kWeight, 0});
      const TensorData* data = ctx.model->weights->find(ctx.model->graph->tensor(layer.weight).name);
      params = *quant::find_params(params.spec, data->shape, data->to_floats().data(), layer.channel_axis);
    }
  const auto before = ctx.quantized.quantizers;
  const auto text = apply("magr", ctx, {{"alpha", 0.05}});
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_NE(text->find("of the largest weights"), std::string::npos) << *text;
  double sum_before = 0, sum_after = 0;
  for (const auto& [site, params] : ctx.quantized.quantizers) {
    if (site.kind != SiteKind::kWeight) continue;
    for (std::size_t i = 0; i < params.scale.size(); ++i) {
      EXPECT_LE(params.scale[i], before.at(site).scale[i] * 1.00001f);
      sum_before += static_cast<double>(before.at(site).scale[i]);
      sum_after += static_cast<double>(params.scale[i]);
    }
  }
  EXPECT_LT(sum_after, 0.97 * sum_before);
  EXPECT_TRUE(apply("gptq", ctx));
}

}  // namespace
}  // namespace quanvas
