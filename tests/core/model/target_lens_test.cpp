// The target lens's values: what a refusal mends in a recipe, in the network that the recipe's passes have made,
// and what a report of an export promises.
#include "core/report/target_lens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/recipe/plan.h"

namespace quanvas {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// fc1, fc2, fc3 in a row; `more` of the same kind behind them, as a pass would make them.
GraphPtr graph(std::vector<std::string> more = {}) {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, Shape{-1, 4});
  b.input("x");
  std::string last = "x";
  std::vector<std::string> names = {"fc1", "fc2", "fc3"};
  names.insert(names.end(), more.begin(), more.end());
  for (const std::string& name : names) {
    b.initializer(name + ".weight", DataType::kFloat, {4, 4});
    b.tensor(name + ".out", DataType::kFloat, Shape{-1, 4});
    b.node(name, "Gemm", {last, name + ".weight"}, {name + ".out"}, {{"transB", std::int64_t{1}}});
    last = name + ".out";
  }
  b.output(last);
  return *b.build();
}

QuantSpec bits(int n) {
  QuantSpec s;
  s.bits = n;
  return s;
}

Refusal refusal(const Graph& g, const std::string& layer, std::optional<QuantSpec> fix, bool float_fixes = false) {
  const Node* node = g.find(layer);
  Refusal r{layer,
            "weight",
            "bit width",
            "8 bit",
            "4 bit",
            "Use 4 bits.",
            Site{node ? node->id : 99, SiteKind::kWeight, 0},
            std::move(fix),
            float_fixes};
  return r;
}

Recipe all_weights(const std::string& share = {}) {
  Recipe recipe;
  Rule rule;
  rule.select.sites = {SiteKind::kWeight};
  rule.override_fields = {{"bits", 8}};
  rule.share = share;
  recipe.rules.push_back(rule);
  return recipe;
}

SitePlan at(const Graph& g, const Recipe& recipe, const std::string& layer) {
  const auto plan = resolve(g, recipe, PresetLibrary::builtin());
  EXPECT_TRUE(plan) << plan.error().text();
  return *plan->find({g.find(layer)->id, SiteKind::kWeight, 0});
}

TEST(TargetLens, LayersThatPassesMadeAreMendedWhereTheyStand) {
  const GraphPtr made = graph({"fc3.half"});
  const Recipe before = all_weights();
  const Recipe after =
      with_fixes(before, *made, {refusal(*made, "fc3.half", bits(4)), refusal(*made, "fc1", bits(4))});
  for (const auto& [layer, width] :
       {std::pair("fc1", 4), std::pair("fc2", 8), std::pair("fc3", 8), std::pair("fc3.half", 4)})
    EXPECT_EQ(at(*made, after, layer).spec->bits, width) << layer;
  EXPECT_EQ(after.rules.size(), before.rules.size() + 1) << "one quantizer, one rule";
}

// Whoever shares a quantizer keeps it, and its format, whether the network had the layer from the start or not.
TEST(TargetLens, SharedQuantizersStayShared) {
  const GraphPtr made = graph({"fc3.half"});
  for (const char* layer : {"fc3.half", "fc1"}) {
    const Recipe after = with_fixes(all_weights("tied"), *made, {refusal(*made, layer, bits(4))});
    for (const char* other : {"fc1", "fc2", "fc3", "fc3.half"}) {
      const SitePlan planned = at(*made, after, other);
      ASSERT_TRUE(planned.spec) << layer << ", " << other << ": " << planned.why;
      EXPECT_EQ(planned.spec->bits, 4) << layer << ", " << other;
      EXPECT_EQ(planned.share, "tied") << layer << ", " << other;
    }
  }
}

TEST(TargetLens, AMendedLayerThatBecomesFloatLeavesTheOthersAlone) {
  const GraphPtr made = graph({"fc3.half"});
  const Recipe after = with_fixes(all_weights("tied"), *made, {refusal(*made, "fc3.half", std::nullopt, true)});
  EXPECT_FALSE(at(*made, after, "fc3.half").spec);
  EXPECT_EQ(at(*made, after, "fc1").spec->bits, 8);
}

TEST(TargetLens, NoRuleNamesALayerThatIsNotThere) {
  const GraphPtr g = graph();
  const Recipe before = all_weights();
  EXPECT_EQ(with_fixes(before, *g, {refusal(*g, "fc3.half", bits(4))}), before);
  Refusal of_model = refusal(*g, "fc1", bits(4));
  of_model.site.reset();
  Refusal hopeless = refusal(*g, "fc1", std::nullopt);
  EXPECT_EQ(with_fixes(before, *g, {of_model, hopeless}), before);
  EXPECT_EQ(with_fixes(before, *g, {refusal(*g, "fc1", bits(4))}, "fc2"), before) << "another layer was asked for";
}

// The ids of refusals may be of the network before another edit: names decide.
TEST(TargetLens, TheNameDecides) {
  const GraphPtr g = graph();
  Refusal r = refusal(*g, "fc2", bits(4));
  r.site->node = g->find("fc1")->id;
  const Recipe after = with_fixes(all_weights(), *g, {r});
  EXPECT_EQ(at(*g, after, "fc2").spec->bits, 4);
  EXPECT_EQ(at(*g, after, "fc1").spec->bits, 8);
}

// The window resolves recipes on the imported network: a rule for a layer that a pass makes is no mistake there.
TEST(TargetLens, ARuleForAMadeLayerIsNotCalledWrong) {
  Recipe recipe = all_weights();
  Rule rule = recipe.rules[0];
  rule.select.names = {"fc3.half"};
  recipe.rules.push_back(rule);
  const auto warned = [&] { return resolve(*graph(), recipe, PresetLibrary::builtin())->warnings; };
  EXPECT_THAT(warned(), ElementsAre(testing::EndsWith("matches nothing in this network.")));
  recipe.passes.push_back({"split-channels"});
  EXPECT_THAT(warned(), ElementsAre(testing::EndsWith("matches nothing in this network as it is before the passes.")));
  recipe.passes[0].enabled = false;
  EXPECT_THAT(warned(), ElementsAre(testing::EndsWith("matches nothing in this network.")));
}

TEST(TargetLens, OneThatCannotBeMendedMakesTheLayerImpossible) {
  const GraphPtr g = graph();
  const auto layers =
      lens({refusal(*g, "fc1", bits(4)), refusal(*g, "fc2", bits(4)), refusal(*g, "fc2", std::nullopt)});
  ASSERT_EQ(layers.size(), 2u);
  EXPECT_EQ(layers[0].state, LensState::kFixable);
  EXPECT_EQ(layers[1].state, LensState::kImpossible);
  EXPECT_EQ(layers[1].refusals.size(), 2u);
}

TEST(TargetLens, AReportSaysHowNearTheFileIsAndWhetherItFallsShort) {
  ExportReport report;
  report.target = "gguf";
  report.path = "net.gguf";
  EXPECT_THAT(summary(report), testing::Not(HasSubstr("exactness")));
  EXPECT_FALSE(to_json_value(report).contains("exactness")) << "a float file promises nothing";
  report.audit = {{"fc1", "weight", "int4", "int4", 8, false}};
  report.checked_samples = 10;
  report.equal_predictions = 0.5;
  for (const Exactness e : {Exactness::kWeights, Exactness::kNode, Exactness::kModel, Exactness::kNear}) {
    report.exactness = e;
    EXPECT_THAT(summary(report), HasSubstr(std::string("exactness ") + enum_text(e)));
    EXPECT_EQ(to_json_value(report)["exactness"], enum_text(e));
    const auto again = from_json_value<ExportReport>(to_json_value(report));
    ASSERT_TRUE(again);
    EXPECT_EQ(again->exactness, e);
    EXPECT_STRNE(meaning(e), "");
    EXPECT_EQ(falls_short(report), e != Exactness::kNear);
  }
  report.exactness = Exactness::kModel;
  report.audit[0].equal = true;
  EXPECT_TRUE(falls_short(report)) << "half of the predictions";
  report.equal_predictions = 1;
  EXPECT_FALSE(falls_short(report));
  // Of an earlier version.
  json old = to_json_value(report);
  old.erase("exactness");
  const auto again = from_json_value<ExportReport>(old);
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->exactness);
}

}  // namespace
}  // namespace quanvas
