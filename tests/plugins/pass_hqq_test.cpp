// HQQ as a pass: which weights it changes, and what follows them.
#include <gtest/gtest.h>

#include <cmath>

#include "core/exec/pass_context.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

PassContext context(Statistic statistic) {
  PassContext ctx;
  ctx.model = ctx.quantized.model = testing::small_cnn();
  ctx.quantized.quantizers = testing::quantize_all(ctx.model, testing::noise({16, 1, 8, 8}, 5), 3, 8);
  for (const Layer& layer : find_layers(*ctx.model->graph)) {
    const auto at = ctx.quantized.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (at == ctx.quantized.quantizers.end()) continue;
    QuantSpec spec = at->second.spec;
    spec.statistic = statistic;
    const TensorData* data = ctx.model->weights->find(ctx.model->graph->tensor(layer.weight).name);
    at->second = *quant::find_params(spec, data->shape, data->to_floats().data(), layer.channel_axis);
  }
  return ctx;
}

Result<std::string> apply(PassContext& ctx, const json& given = json::object(), JobContext job = JobContext()) {
  QUANVAS_TRY(const Pass* pass, Registry<Pass>::instance().get("hqq", "pass"));
  QUANVAS_TRY(const json options, pass->schema().complete(given, "hqq"));
  return pass->apply(ctx, options, job);
}

TEST(HqqPass, MakesScalesBetterWithoutData) {
  PassContext ctx = context(Statistic::kAbsMax);
  const auto before = ctx.quantized.quantizers;
  const auto text = apply(ctx);
  ASSERT_TRUE(text) << text.error().text();
  EXPECT_EQ(text->find("2 weights: 0."), 0u) << *text;
  ASSERT_EQ(ctx.layers.size(), 2u);
  for (const PassLayer& l : ctx.layers) {
    EXPECT_LT(l.after, l.before) << l.layer;
    EXPECT_NE(l.note.find(" scales better"), std::string::npos);
  }
  EXPECT_EQ(ctx.quantized.model, ctx.model);  // weights stay as they are
  for (const auto& [site, params] : ctx.quantized.quantizers) {
    const auto& old = before.at(site);
    if (is_activation(site.kind)) EXPECT_EQ(params.scale, old.scale);
    else EXPECT_NE(params.scale, old.scale);
    if (site.kind != SiteKind::kBias) continue;
    const auto& weight = ctx.quantized.quantizers.at({site.node, SiteKind::kWeight, 0}).scale;
    const float input = ctx.quantized.quantizers.at({site.node, SiteKind::kInput, 0}).scale[0];
    for (std::size_t c = 0; c < weight.size(); ++c) EXPECT_EQ(params.scale[c], input * weight[c]);
  }
}

TEST(HqqPass, LeavesAndNamesWhatIsNotFree) {
  PassContext ctx = context(Statistic::kAbsMax);
  const auto id = [&](const char* name) { return ctx.model->graph->find(name)->id; };
  const Site conv{id("conv"), SiteKind::kWeight, 0}, fc{id("fc"), SiteKind::kWeight, 0};
  ctx.quantized.quantizers.at(conv).share = "both";
  const auto before = ctx.quantized.quantizers;
  ASSERT_TRUE(apply(ctx));
  EXPECT_EQ(ctx.quantized.quantizers.at(conv).scale, before.at(conv).scale);
  EXPECT_NE(ctx.quantized.quantizers.at(fc).scale, before.at(fc).scale);
  ASSERT_EQ(ctx.layers.size(), 2u);
  EXPECT_EQ(ctx.layers[1].layer, "conv");
  EXPECT_NE(ctx.layers[1].note.find("together with others"), std::string::npos);
  // The same before the run; and an error when nothing is left.
  const Pass* pass = *Registry<Pass>::instance().get("hqq", "pass");
  Plan plan;
  plan.sites = {{conv, before.at(conv).spec, 0, "test", "both"}, {fc, before.at(fc).spec, 0, "test"}};
  const std::set<NodeId> all, one = {conv.node};
  auto issues = pass->check({*ctx.model, plan, all, false, false}, {});
  ASSERT_EQ(issues.size(), 1u);
  EXPECT_EQ(issues[0].where, "conv");
  EXPECT_EQ(issues[0].severity, Severity::kInfo);
  issues = pass->check({*ctx.model, plan, one, false, false}, {});
  ASSERT_EQ(issues.size(), 2u);
  EXPECT_EQ(issues[1].severity, Severity::kError);
  ctx.nodes = one;
  const auto none = apply(ctx);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().text().find("No layer has a weight"), std::string::npos);
  // Stopped: all as it was.
  std::stop_source stop;
  stop.request_stop();
  PassContext stopped = context(Statistic::kAbsMax);
  const auto kept = stopped.quantized.quantizers;
  const auto cancelled = apply(stopped, json::object(), JobContext(stop.get_token()));
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(stopped.quantized.quantizers.at(fc).scale, kept.at(fc).scale);
}

}  // namespace
}  // namespace quanvas
