// Two runs side by side: deltas, layers that only one has, and recipe differences in words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/report/compare.h"

namespace quanvas {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

LayerResult layer(NodeId node, const char* name, std::optional<double> cumulative) {
  LayerResult l;
  l.node = node;
  l.name = name;
  if (cumulative) {
    l.cumulative.emplace();
    l.cumulative->sqnr_db = *cumulative;
  }
  return l;
}

Run run(std::int64_t id, std::optional<double> top1, double bytes) {
  Run r;
  r.id = id;
  r.bytes = bytes;
  r.bops = 10 * bytes;
  if (top1) {
    r.accuracy.emplace();
    r.accuracy->top1 = *top1;
  }
  return r;
}

TEST(CompareTest, FiguresAreDifferencesAndUnknownStaysUnknown) {
  const auto known = compare(run(1, 0.9, 100), run(2, 0.85, 60));
  EXPECT_EQ(known.a, 1);
  EXPECT_EQ(known.b, 2);
  EXPECT_NEAR(known.top1_delta, -0.05, 1e-12);
  EXPECT_EQ(known.bytes_delta, -40);
  EXPECT_EQ(known.bops_delta, -400);
  const auto unknown = compare(run(1, std::nullopt, 0), run(2, 0.85, 60));
  for (const double v : {unknown.top1_delta, unknown.bytes_delta, unknown.bops_delta}) EXPECT_TRUE(std::isnan(v));
}

TEST(CompareTest, LayersAreMatchedByNode) {
  quanvas::Run a = run(1, 0.9, 1), b = run(2, 0.9, 1);
  a.layers = {layer(1, "conv1", 30), layer(2, "bn", 28), layer(3, "fc", INFINITY), layer(4, "x", std::nullopt)};
  b.layers = {layer(3, "fc", INFINITY), layer(1, "conv1", 27.5), layer(4, "x", 3), layer(9, "new", 5)};
  const auto c = compare(a, b);
  ASSERT_EQ(c.layers.size(), 5u);
  EXPECT_EQ(c.layers[0].cumulative_delta_db, -2.5);
  EXPECT_FALSE(c.layers[1].b);
  EXPECT_TRUE(std::isnan(c.layers[1].cumulative_delta_db));
  EXPECT_EQ(c.layers[2].cumulative_delta_db, 0) << "both lossless";
  EXPECT_TRUE(std::isnan(c.layers[3].cumulative_delta_db));
  EXPECT_EQ(c.layers[4].name, "new");
  EXPECT_FALSE(c.layers[4].a);
}

TEST(CompareTest, RecipesAreComparedInWords) {
  Rule weights, inputs;
  weights.select.sites = {SiteKind::kWeight};
  weights.override_fields = {{"bits", 8}, {"statistic", "mse"}};
  inputs.select.sites = {SiteKind::kInput};
  inputs.preset = "uint8-activation";
  Recipe a;
  a.name = "one";
  a.rules = {weights, inputs};
  a.passes = {{"fold-bn", true, json::object()}, {"gptq", true, {{"damping", 0.01}}}};
  const std::string weight_words = describe(weights.select), input_words = describe(inputs.select);

  Recipe b = a;
  b.name = "two";
  EXPECT_THAT(recipe_differences(a, b), IsEmpty()) << "a name is no difference";

  b.rules[0].override_fields = {{"bits", 4}};
  EXPECT_THAT(recipe_differences(a, b), ElementsAre("rule 1 (" + weight_words + "): bits 8 → 4, statistic mse → (default)"));

  b = a;
  b.rules[1].preset = "uint4-activation";
  EXPECT_THAT(recipe_differences(a, b), ElementsAre("rule 2 (" + input_words + "): uint8-activation → uint4-activation"));

  b = a;
  b.rules[1].is_float = true;
  EXPECT_THAT(recipe_differences(a, b), ElementsAre("rule 2 (" + input_words + "): uint8-activation → float"));

  b = a;
  std::swap(b.rules[0], b.rules[1]);
  EXPECT_THAT(recipe_differences(a, b), ElementsAre("rule 2 (" + input_words + ") moved to place 1"));

  b = a;
  b.rules.pop_back();
  EXPECT_THAT(recipe_differences(a, b), ElementsAre("rule 2 (" + input_words + ") removed: uint8-activation"));
  EXPECT_THAT(recipe_differences(b, a), ElementsAre("rule 2 (" + input_words + ") added: uint8-activation"));

  b = a;
  b.passes[0].enabled = false;
  b.passes[1].options["damping"] = 0.1;
  b.passes.push_back({"qat", true, json::object()});
  b.calibration.samples = 64;
  EXPECT_THAT(recipe_differences(a, b), ElementsAre("pass fold-bn removed", "pass gptq: damping 0.01 → 0.1", "pass qat added", "calibration: samples 512 → 64"));
}

}  // namespace
}  // namespace quanvas
