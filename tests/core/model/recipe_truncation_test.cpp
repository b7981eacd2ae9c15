// Outputs that are truncated: which layers have the integers for it, and what the plan says where there are none.
#include <gtest/gtest.h>

#include "core/recipe/plan.h"
#include "core/recipe/pool_sum.h"

namespace quanvas {
namespace {

using Ints = std::vector<std::int64_t>;

// x -> Relu -> pool -> Flatten; the pool is what a row says.
GraphPtr graph(const std::string& op, const Attributes& attributes, Shape shape = {-1, 4, 8, 8}) {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, shape);
  b.input("x");
  b.tensor("r", DataType::kFloat, shape);
  b.node("relu", "Relu", {"x"}, {"r"});
  b.tensor("p", DataType::kFloat, std::nullopt);
  b.node("pool", op, {"r"}, {"p"}, attributes);
  b.tensor("y", DataType::kFloat, std::nullopt);
  b.node("flat", "Flatten", {"p"}, {"y"});
  b.output("y");
  auto made = b.build();
  EXPECT_TRUE(made) << (made ? "" : made.error().text());
  return made.value_or(nullptr);
}

Plan plan_of(const GraphPtr& g, const std::string& rules) {
  auto recipe = parse_recipe("rules:\n" + rules, "r.yaml");
  EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().text());
  auto plan = resolve(*g, recipe.value_or(Recipe{}), PresetLibrary::builtin());
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().text());
  return plan.value_or(Plan{});
}

const char* const kInput = "  - {select: {names: [pool], sites: [input]}, set: {bits: 8, signed: false}}\n";
const char* const kTrunc = "  - {select: {names: [pool], sites: [output]}, preset: TruncTo8bit}\n";
const Attributes kWindow = {{"kernel_shape", Ints{2, 2}}};

TEST(RecipeTruncation, CountsWhatIsAveraged) {
  struct Row {
    const char* op;
    Attributes attributes;
    Shape shape;
    std::int64_t count;
    const char* problem;
  };
  const auto with = [](Attributes a, const std::string& key, Attribute value) {
    a[key] = std::move(value);
    return a;
  };
  const Ints pads = {1, 1, 1, 1};
  const Shape picture = {-1, 4, 8, 8}, unknown = {-1, 4, -1, 8};
  const std::int64_t yes = 1;
  const Row rows[] = {
      {"AveragePool", kWindow, picture, 4, ""},
      {"AveragePool", {{"kernel_shape", Ints{3, 5}}}, unknown, 15, ""},
      {"AveragePool", with(kWindow, "pads", Ints{0, 0, 0, 0}), picture, 4, ""},
      {"AveragePool", with(kWindow, "pads", pads), picture, 0, "count_include_pad"},
      {"AveragePool", with(with(kWindow, "pads", pads), "count_include_pad", yes), picture, 4, ""},
      {"AveragePool", with(kWindow, "auto_pad", std::string("SAME_UPPER")), picture, 0, "count_include_pad"},
      {"AveragePool", with(kWindow, "auto_pad", std::string("VALID")), picture, 4, ""},
      {"AveragePool", with(with(kWindow, "ceil_mode", yes), "count_include_pad", yes), picture, 0, "ceil_mode"},
      {"AveragePool", {}, picture, 0, "size of its window"},
      {"GlobalAveragePool", {}, picture, 64, ""},
      {"GlobalAveragePool", {}, {-1, 4, 3, 5, 7}, 105, ""},
      {"GlobalAveragePool", {}, unknown, 0, "size of the picture"},
      {"ReduceMean", {{"axes", Ints{2, 3}}}, picture, 64, ""},
      {"ReduceMean", {{"axes", Ints{-1}}}, picture, 8, ""},
      {"MaxPool", kWindow, picture, 0, "MaxPool is no average"},
  };
  for (const Row& row : rows) {
    const GraphPtr g = graph(row.op, row.attributes, row.shape);
    const auto layers = find_layers(*g);
    const Layer* layer = find_layer(layers, g->find("pool")->id);
    ASSERT_TRUE(layer) << row.op;
    const AveragedElements got = averaged_elements(*g, *layer);
    EXPECT_EQ(got.count, row.count) << row.op << ": " << row.problem;
    EXPECT_EQ(got.problem.empty(), row.count > 0);
    EXPECT_NE(got.problem.find(row.problem), std::string::npos) << got.problem;
  }
  QuantSpec s;
  for (const auto& [elements, bits] : {std::pair{1, 8}, {2, 9}, {3, 10}, {4, 10}, {49, 14}, {64, 14}, {65, 15}})
    EXPECT_EQ(sum_bits(s, elements), bits) << elements;
}

TEST(RecipeTruncation, TheInputGivesTheIntegers) {
  const GraphPtr g = graph("AveragePool", kWindow);
  const Site output{g->find("pool")->id, SiteKind::kOutput, 0};
  const char* const before = "  - {select: {names: [relu], sites: [output]}, set: {bits: 8}}\n";
  for (const std::string& rules :
       {std::string(kInput) + kTrunc, std::string(before) + kTrunc, std::string(before) + kInput + kTrunc}) {
    const Plan plan = plan_of(g, rules);
    EXPECT_TRUE(plan.warnings.empty()) << plan.warnings[0];
    const SitePlan* s = plan.find(output);
    ASSERT_TRUE(s && s->spec) << rules;
    EXPECT_EQ(s->spec->truncation, Truncation::kMsb);
    // The layer's own input comes before the output of the layer before it.
    const bool is_signed = rules.find("pool], sites: [input") == std::string::npos;
    EXPECT_EQ(s->spec->is_signed, is_signed) << rules;
    EXPECT_EQ(s->why.find("; signed, as its input is") != std::string::npos, is_signed) << s->why;
  }
}

// A truncated output is an integer tensor like any other, so the next pool may start from it.
TEST(RecipeTruncation, PoolsFollowEachOther) {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, Shape{-1, 4, 8, 8});
  b.input("x");
  b.node("one", "AveragePool", {"x"}, {"a"}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  b.tensor("a", DataType::kFloat, Shape{-1, 4, 4, 4});
  b.node("two", "GlobalAveragePool", {"a"}, {"y"});
  b.output("y");
  const GraphPtr g = *b.build();
  const std::string both = "  - {select: {sites: [output]}, preset: TruncTo8bit}\n";
  const Plan plan = plan_of(g, "  - {select: {names: [one], sites: [input]}, set: {bits: 8}}\n" + both);
  for (const char* name : {"one", "two"}) {
    const SitePlan* s = plan.find({g->find(name)->id, SiteKind::kOutput, 0});
    ASSERT_TRUE(s && s->spec) << name;
    EXPECT_TRUE(s->spec->is_signed) << name;
  }
  // Where the first stays float, the second has nothing to start from.
  const Plan none = plan_of(g, both);
  ASSERT_EQ(none.warnings.size(), 1u) << "one sentence for one reason";
  EXPECT_NE(none.warnings[0].find("one output, two output are to be truncated and stay float: its input is float"),
            std::string::npos)
      << none.warnings[0];
}

TEST(RecipeTruncation, WhereThereAreNoIntegersThePlanSaysWhy) {
  struct Row {
    std::string rules;
    const char* reason;
  };
  const std::string input = "  - {select: {names: [pool], sites: [input]}, set: ", trunc = kTrunc;
  const Row rows[] = {
      {trunc, "its input is float; it needs an integer format"},
      {input + "{format: float}}\n" + trunc, "its input is float; it needs"},
      {input + "{format: nf4}}\n" + trunc, "its input is nf4"},
      {input + "{signed: false, zero_point: integer, statistic: minmax}}\n" + trunc, "has a zero point"},
      {input + "{granularity: channel}}\n" + trunc, "more than one scale"},
      {input + "{source: dynamic}}\n" + trunc, "found anew from each sample"},
      {input + "{bits: 20}}\n" + trunc, "the sum of 4 codes of 20 bits has 22; float32 keeps 21 exactly"},
      {"  - {select: {names: [relu], sites: [output]}, preset: TruncTo8bit}\n", "Relu is no average"},
  };
  for (const Row& row : rows) {
    const Plan plan = plan_of(graph("AveragePool", kWindow), row.rules);
    ASSERT_EQ(plan.warnings.size(), 1u) << row.reason;
    EXPECT_NE(plan.warnings[0].find(row.reason), std::string::npos) << plan.warnings[0];
    EXPECT_NE(plan.warnings[0].find(" output is to be truncated and stays float"), std::string::npos)
        << plan.warnings[0];
    int truncated = 0;
    for (const SitePlan& s : plan.sites) {
      truncated += s.spec && s.spec->truncation != Truncation::kNone;
      if (s.site.kind == SiteKind::kOutput && s.rule >= 0) {
        EXPECT_NE(s.why.find(row.reason), std::string::npos) << s.why;
      }
    }
    EXPECT_EQ(truncated, 0) << row.reason;
  }
}

TEST(RecipeTruncation, DeclarationsAreForOutputsAlone) {
  QuantSpec s = PresetLibrary::builtin().find("TruncTo8bit")->spec;
  EXPECT_EQ(check(s, SiteKind::kOutput), "");
  for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput})
    EXPECT_NE(check(s, kind).find("the output of an average pool"), std::string::npos) << enum_text(kind);
  for (const char* id : {"TruncTo8bit", "RoundTo8bit", "ShiftRoundSaturateTo8bit"})
    EXPECT_EQ(PresetLibrary::builtin().find(id)->sites, std::vector<SiteKind>{SiteKind::kOutput}) << id;
  struct Row {
    void (*change)(QuantSpec&);
    const char* problem;
  };
  const Row rows[] = {{[](QuantSpec& q) { q.scale = ScaleType::kFloat16; }, "truncation with scale float16"},
                      {[](QuantSpec& q) {
                         q.source = ScaleSource::kLearned;
                         q.learn_bits = true;
                       },
                       "truncation with learn_bits"},
                      {[](QuantSpec& q) { q.clip_max = 1; }, "truncation msb with clip_min or clip_max"},
                      {[](QuantSpec& q) { q.source = ScaleSource::kDynamic; }, "truncation with source dynamic"}};
  for (const Row& row : rows) {
    QuantSpec q = s;
    row.change(q);
    EXPECT_NE(check(q, SiteKind::kOutput).find(row.problem), std::string::npos) << check(q, SiteKind::kOutput);
  }
}

TEST(RecipeTruncation, TruncationsShareNothing) {
  const Plan plan =
      plan_of(graph("AveragePool", kWindow),
              "  - {select: {names: [relu, pool], sites: [output]}, preset: TruncTo8bit, share: s}\n");
  ASSERT_EQ(plan.warnings.size(), 1u);
  EXPECT_NE(plan.warnings[0].find("follows from its own layer's input"), std::string::npos) << plan.warnings[0];
}

}  // namespace
}  // namespace quanvas
