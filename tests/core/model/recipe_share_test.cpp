// Rules whose sites share one quantizer, and accumulators whose bound needs the input's width.
#include <gtest/gtest.h>

#include "core/recipe/plan.h"

namespace quanvas {
namespace {

// x -> conv1 -> Relu -> conv2 -> Add with the Relu's output -> Concat with conv1's output
GraphPtr graph() {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, Shape{-1, 4, 8, 8});
  b.input("x");
  const auto conv = [&](const std::string& name, const std::string& in, const std::string& out) {
    b.initializer(name + ".weight", DataType::kFloat, {4, 4, 3, 3});
    b.initializer(name + ".bias", DataType::kFloat, {4});
    b.tensor(out, DataType::kFloat, Shape{-1, 4, 8, 8});
    b.node(name, "Conv", {in, name + ".weight", name + ".bias"}, {out}, {{"pads", std::vector<std::int64_t>{1, 1, 1, 1}}});
  };
  conv("conv1", "x", "c1");
  b.tensor("r1", DataType::kFloat, Shape{-1, 4, 8, 8});
  b.node("relu", "Relu", {"c1"}, {"r1"});
  conv("conv2", "r1", "c2");
  b.tensor("sum", DataType::kFloat, Shape{-1, 4, 8, 8});
  b.node("add", "Add", {"c2", "r1"}, {"sum"});
  b.tensor("y", DataType::kFloat, Shape{-1, 8, 8, 8});
  b.node("cat", "Concat", {"sum", "c1"}, {"y"}, {{"axis", std::int64_t{1}}});
  b.output("y");
  auto made = b.build();
  EXPECT_TRUE(made) << (made ? "" : made.error().text());
  return made.value_or(nullptr);
}

Plan plan_of(const std::string& rules) {
  auto recipe = parse_recipe("rules:\n" + rules, "r.yaml");
  EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().text());
  auto plan = resolve(*graph(), recipe.value_or(Recipe{}), PresetLibrary::builtin());
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().text());
  return plan.value_or(Plan{});
}

const SitePlan& site(const Plan& plan, const std::string& node, SiteKind kind, int operand = 0) {
  return *plan.find({graph()->find(node)->id, kind, operand});
}

TEST(RecipeShare, SitesOfOneNameAreOneGroup) {
  const Plan plan = plan_of(R"(
  - {select: {names: [conv*], sites: [weight]}, share: w, set: {bits: 4}}
  - {select: {names: [conv2, add], sites: [input]}, share: a, set: {bits: 8}}
  - {select: {names: [conv1], sites: [input]}, share: alone, set: {bits: 8}}
)");
  for (const char* conv : {"conv1", "conv2"}) EXPECT_EQ(site(plan, conv, SiteKind::kWeight).share, "w") << conv;
  EXPECT_EQ(site(plan, "add", SiteKind::kInput, 0).share, "a");
  EXPECT_EQ(site(plan, "add", SiteKind::kInput, 1).share, "a");
  EXPECT_NE(site(plan, "conv2", SiteKind::kInput).why.find("shares 'a' with 2 others"), std::string::npos)
      << site(plan, "conv2", SiteKind::kInput).why;
  EXPECT_EQ(site(plan, "conv1", SiteKind::kInput).share, "") << "one site shares with nobody";
  EXPECT_TRUE(site(plan, "conv1", SiteKind::kInput).spec);
  EXPECT_TRUE(plan.warnings.empty());
}

TEST(RecipeShare, NodeJoinsTheOperandsOfEachLayer) {
  const Plan plan = plan_of("  - {share: node, set: {bits: 8, granularity: tensor}}\n");
  for (const char* node : {"add", "cat"}) {
    const std::string share = site(plan, node, SiteKind::kInput, 0).share;
    EXPECT_EQ(share, "#" + std::to_string(graph()->find(node)->id));
    EXPECT_EQ(site(plan, node, SiteKind::kInput, 1).share, share);
    EXPECT_EQ(site(plan, node, SiteKind::kOutput).share, "");
  }
  EXPECT_EQ(site(plan, "conv1", SiteKind::kInput).share, "");
  EXPECT_EQ(site(plan, "conv1", SiteKind::kWeight).share, "");
  EXPECT_TRUE(plan.warnings.empty()) << plan.warnings[0];
}

TEST(RecipeShare, WhatCannotShareStaysFloatAndIsNamed) {
  struct Row {
    const char* rules;
    const char* reason;
  };
  const Row rows[] = {
      {"  - {select: {names: [conv1], sites: [weight]}, share: s, set: {bits: 4}}\n"
       "  - {select: {names: [conv2], sites: [weight]}, share: s, set: {bits: 5}}\n", "their formats differ"},
      {"  - {select: {names: [conv*], sites: [weight]}, share: s, set: {granularity: channel}}\n", "granularity is channel"},
      {"  - {select: {names: [conv*], sites: [weight]}, share: s, set: {statistic: max-mean}}\n", "looks at the shape"},
      {"  - {select: {names: [conv*], sites: [weight, input]}, share: s, set: {bits: 8}}\n", "weights and activations"},
      {"  - {select: {names: [conv*], sites: [bias]}, share: s, set: {bits: 8}}\n", "a bias shares nothing"},
      {"  - {select: {names: [conv*], sites: [input]}, share: s, set: {source: dynamic}}\n", "source is dynamic"},
  };
  for (const Row& row : rows) {
    const Plan plan = plan_of(row.rules);
    ASSERT_EQ(plan.warnings.size(), 1u) << row.reason;
    EXPECT_NE(plan.warnings[0].find(row.reason), std::string::npos) << plan.warnings[0];
    EXPECT_NE(plan.warnings[0].find("conv1 "), std::string::npos) << plan.warnings[0];
    EXPECT_NE(plan.warnings[0].find("conv2 "), std::string::npos) << plan.warnings[0];
    for (const SitePlan& s : plan.sites) {
      EXPECT_FALSE(s.spec) << row.reason;
      EXPECT_EQ(s.share, "") << row.reason;
    }
  }
}

TEST(RecipeShare, SurvivesYamlAndJson) {
  Recipe recipe;
  recipe.rules.resize(2);
  recipe.rules[0].share = "node";
  recipe.rules[1].share = "first two";
  const auto again = parse_recipe(recipe_to_yaml(recipe), "r.yaml");
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(*again, recipe);
  const auto json_again = from_json_text<Recipe>(to_json_text(recipe), "recipe");
  ASSERT_TRUE(json_again);
  EXPECT_EQ(*json_again, recipe);
  EXPECT_EQ(recipe_to_yaml(Recipe{{}, {Rule{}}, {}, {}}).find("share"), std::string::npos) << "left out when empty";
  EXPECT_FALSE(parse_recipe("rules:\n  - {float: true, share: s}\n", "r.yaml"));
  EXPECT_FALSE(parse_recipe("rules:\n  - {share: '#3'}\n", "r.yaml"));
  const Plan plan = plan_of("  - {select: {names: [conv*], sites: [weight]}, share: w}\n");
  const auto plan_again = from_json_text<Plan>(to_json_text(plan), "plan");
  ASSERT_TRUE(plan_again);
  EXPECT_EQ(plan_again->sites[0].share, plan.sites[0].share);
}

TEST(RecipeAccumulator, TheBoundMustHoldForTheLayersInput) {
  const std::string weight =
      "  - {select: {names: [conv2], sites: [weight]}, set: {bits: 4, granularity: channel, decoupled: l1, rounding: "
      "toward-zero, accumulator_bits: 16, accumulator_input_bits: 6";
  struct Row {
    const char* more;   // fields of the weight
    const char* input;  // of the input; empty: float
    const char* says;   // empty: nothing
  };
  const Row rows[] = {
      {"", "bits: 6, signed: false", ""},
      {"", "bits: 4, signed: false", ""},
      {", accumulator_input_signed: true", "bits: 6", ""},
      {", accumulator_input_signed: true", "bits: 5, signed: false", ""},
      {"", "bits: 8, signed: false", "Set accumulator_input_bits to 8,"},
      {"", "bits: 6", "accumulator_input_signed to true"},
      {", accumulator_input_signed: true", "bits: 6, signed: false", "accumulator_input_signed to false"},
      {"", "format: float", "the layer's input is float"},
      {"", "", "the layer's input is float"},
  };
  for (const Row& row : rows) {
    std::string rules = weight + row.more + "}}\n";
    if (*row.input) rules += std::string("  - {select: {names: [conv2], sites: [input]}, set: {") + row.input + "}}\n";
    const Plan plan = plan_of(rules);
    ASSERT_TRUE(site(plan, "conv2", SiteKind::kWeight).spec) << (plan.warnings.empty() ? "" : plan.warnings[0]);
    EXPECT_EQ(plan.warnings.empty(), *row.says == 0) << row.more << row.input << (plan.warnings.empty() ? "" : plan.warnings[0]);
    if (plan.warnings.empty() || !*row.says) continue;
    EXPECT_EQ(plan.warnings[0].rfind("conv2: ", 0), 0u) << plan.warnings[0];
    EXPECT_NE(plan.warnings[0].find(row.says), std::string::npos) << plan.warnings[0];
  }
}

Recipe recipe_of(const std::string& rules) { return parse_recipe("rules:\n" + rules, "r.yaml").value_or(Recipe{}); }
Site site_of(const Graph& g, const char* node, SiteKind kind, int operand = 0) { return {g.find(node)->id, kind, operand}; }
Plan resolved(const Graph& g, const Recipe& recipe) { return resolve(g, recipe, PresetLibrary::builtin()).value_or(Plan{}); }

TEST(RecipeShare, AnAssignmentKeepsTheShareAndReachesAllThatShare) {
  const auto g = graph();
  const Recipe before = recipe_of(R"(
  - {select: {sites: [input]}, set: {bits: 8}}
  - {select: {names: [conv2, add], sites: [input]}, share: a, set: {bits: 8}}
  - {select: {names: [cat], sites: [input]}, share: node, set: {bits: 8}}
)");
  QuantSpec six;
  six.bits = 6;
  const Plan named = resolved(*g, with_assignment(before, *g, {site_of(*g, "add", SiteKind::kInput, 1)}, six));
  for (const auto& [node, operand] : {std::pair{"conv2", 0}, {"add", 0}, {"add", 1}}) {
    const SitePlan* s = named.find(site_of(*g, node, SiteKind::kInput, operand));
    EXPECT_EQ(s->spec, six) << node << operand << ": " << s->why;
    EXPECT_EQ(s->share, "a") << node << operand;
  }
  EXPECT_EQ(named.find(site_of(*g, "conv1", SiteKind::kInput))->spec->bits, 8) << "it shares with none";
  EXPECT_EQ(named.find(site_of(*g, "cat", SiteKind::kInput, 0))->spec->bits, 8) << "it shares under another name";
  EXPECT_TRUE(named.warnings.empty());

  const Recipe of_node = with_assignment(before, *g, {site_of(*g, "cat", SiteKind::kInput, 0), site_of(*g, "conv1", SiteKind::kInput)}, six);
  const Plan plan = resolved(*g, of_node);
  for (const int operand : {0, 1}) {
    EXPECT_EQ(plan.find(site_of(*g, "cat", SiteKind::kInput, operand))->spec, six);
    EXPECT_EQ(plan.find(site_of(*g, "cat", SiteKind::kInput, operand))->share, "#" + std::to_string(g->find("cat")->id));
  }
  EXPECT_EQ(plan.find(site_of(*g, "conv1", SiteKind::kInput))->spec, six);
  EXPECT_EQ(plan.find(site_of(*g, "conv1", SiteKind::kInput))->share, "");
  EXPECT_EQ(plan.find(site_of(*g, "add", SiteKind::kInput, 0))->spec->bits, 8);
  EXPECT_EQ(with_assignment(of_node, *g, {site_of(*g, "cat", SiteKind::kInput, 1)}, six).rules.size(), of_node.rules.size())
      << "repeated clicks do not pile up";
}

TEST(RecipeShare, ASiteThatBecomesFloatLeavesTheOthersAlone) {
  const auto g = graph();
  const Recipe before = recipe_of("  - {select: {names: [conv*, add], sites: [input]}, share: a, set: {bits: 8}}\n");
  const Plan plan = resolved(*g, with_assignment(before, *g, {site_of(*g, "conv1", SiteKind::kInput)}, std::nullopt));
  EXPECT_FALSE(plan.find(site_of(*g, "conv1", SiteKind::kInput))->spec);
  EXPECT_EQ(plan.find(site_of(*g, "conv2", SiteKind::kInput))->share, "a");
  EXPECT_TRUE(plan.find(site_of(*g, "add", SiteKind::kInput, 1))->spec);
  EXPECT_TRUE(plan.warnings.empty());
}

TEST(RecipeShare, NamesAreGivenAndTakenBack) {
  const auto g = graph();
  const Recipe plain = recipe_of("  - {select: {names: [conv*, add], sites: [input]}, set: {bits: 5}}\n");
  const std::vector<Site> sites = {site_of(*g, "conv2", SiteKind::kInput), site_of(*g, "add", SiteKind::kInput, 1)};
  const Recipe shared = with_share(plain, *g, sites, "sum");
  EXPECT_EQ(sharing_sites(shared, resolved(*g, shared), sites[1]), sites);
  for (const Site& s : sites) EXPECT_EQ(resolved(*g, shared).find(s)->spec->bits, 5) << "the format stays";
  EXPECT_TRUE(sharing_sites(shared, resolved(*g, shared), site_of(*g, "conv1", SiteKind::kInput)).empty());
  const Recipe apart = with_share(shared, *g, {sites[0]}, "");
  EXPECT_TRUE(sharing_sites(apart, resolved(*g, apart), sites[0]).empty());
  EXPECT_EQ(sharing_sites(apart, resolved(*g, apart), sites[1]), std::vector<Site>{sites[1]});
  EXPECT_EQ(resolved(*g, apart).find(sites[1])->share, "") << "alone under its name";
  EXPECT_EQ(with_share(plain, *g, {site_of(*g, "conv1", SiteKind::kWeight)}, "w"), plain) << "a float site has nothing to share";
}

TEST(RecipeShare, SitesWhoseFormatsDifferAreStillFoundAndCanBeTakenApart) {
  const auto g = graph();
  const Recipe bad = recipe_of(R"(
  - {select: {names: [conv1], sites: [weight]}, share: w, set: {bits: 4}}
  - {select: {names: [conv2], sites: [weight]}, share: w, set: {bits: 6}}
)");
  const Site one = site_of(*g, "conv1", SiteKind::kWeight), two = site_of(*g, "conv2", SiteKind::kWeight);
  EXPECT_FALSE(resolved(*g, bad).find(one)->spec);
  EXPECT_EQ(sharing_sites(bad, resolved(*g, bad), one), (std::vector<Site>{one, two}));
  const Plan apart = resolved(*g, with_share(bad, *g, {one}, ""));
  EXPECT_EQ(apart.find(one)->spec->bits, 4);
  EXPECT_EQ(apart.find(two)->spec->bits, 6);
  QuantSpec five;
  five.bits = 5;
  const Plan together = resolved(*g, with_assignment(bad, *g, {one}, five));
  for (const Site& s : {one, two}) EXPECT_EQ(together.find(s)->spec, five);
}

TEST(RecipeShare, SaysWhichFormatsCannotBeShared) {
  QuantSpec spec;
  EXPECT_EQ(sharing_problem(spec, SiteKind::kWeight), "");
  EXPECT_EQ(sharing_problem(spec, SiteKind::kBias), "a bias shares nothing");
  spec.granularity = Granularity::kChannel;
  EXPECT_EQ(sharing_problem(spec, SiteKind::kInput), "granularity is channel, which must be tensor");
}

}  // namespace
}  // namespace quanvas
