// Rules with `share: edge`: one quantizer for each edge of a network, and one scale where integers need it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "core/recipe/plan.h"

namespace quanvas {
namespace {

using ::testing::HasSubstr;
using L = std::vector<std::int64_t>;
const Shape kPicture = {-1, 4, 8, 8};

struct Net {
  GraphBuilder b;
  Net() {
    b.set_opset(17);
    b.tensor("x", DataType::kFloat, kPicture);
    b.input("x");
  }
  // The output is called like the node.
  Net& op(const std::string& name, const std::string& kind, std::vector<std::string> from, Attributes attributes = {}) {
    b.tensor(name, DataType::kFloat, kPicture);
    b.node(name, kind, std::move(from), {name}, std::move(attributes));
    return *this;
  }
  Net& conv(const std::string& name, const std::string& from, std::int64_t group = 1) {
    b.initializer(name + ".w", DataType::kFloat, {4, 4 / group, 3, 3});
    b.initializer(name + ".b", DataType::kFloat, {4});
    return op(name, "Conv", {from, name + ".w", name + ".b"}, {{"pads", L{1, 1, 1, 1}}, {"group", group}});
  }
  Net& linear(const std::string& name, const std::string& from) {
    b.initializer(name + ".w", DataType::kFloat, {8, 8});
    b.initializer(name + ".b", DataType::kFloat, {8});
    return op(name, "Gemm", {from, name + ".w", name + ".b"});
  }
  Net& out(const std::string& name) {
    b.output(name);
    return *this;
  }
  GraphPtr build() {
    auto made = b.build();
    EXPECT_TRUE(made) << (made ? "" : made.error().text());
    return made.value_or(nullptr);
  }
};

Net& pool(Net& n, const std::string& name, const std::string& from, const std::string& kind = "MaxPool") {
  return n.op(name, kind, {from}, {{"kernel_shape", L{2, 2}}});
}

GraphPtr residual() {
  Net n;
  n.conv("c1", "x").op("r1", "Relu", {"c1"});
  n.conv("c2", "r1").op("r2", "Relu", {"c2"}).conv("c3", "r2").op("add", "Add", {"c3", "r1"}).op("r3", "Relu", {"add"});
  n.op("gap", "GlobalAveragePool", {"r3"}).op("flat", "Flatten", {"gap"}).linear("fc", "flat");
  return n.out("fc").build();
}
GraphPtr joined() {
  Net n;
  n.conv("c0", "x").op("r0", "Relu", {"c0"});
  n.conv("c1", "r0").op("r1", "Relu", {"c1"}).conv("c2", "r0").op("cat", "Concat", {"r1", "c2"}, {{"axis", std::int64_t{1}}});
  pool(n, "p", "cat").conv("c3", "p");
  return n.out("c3").build();
}
GraphPtr depthwise() {
  Net n;
  n.conv("c1", "x").op("clip", "Clip", {"c1"}).conv("d", "clip", 4).op("r", "Relu", {"d"}).conv("c2", "r");
  n.op("sig", "Sigmoid", {"c2"}).op("mul", "Mul", {"sig", "c2"});
  pool(n, "avg", "mul", "AveragePool").op("flat", "Flatten", {"avg"}).linear("fc", "flat").op("soft", "Softmax", {"fc"});
  return n.out("soft").build();
}
GraphPtr transformer() {
  Net n;
  n.b.initializer("g", DataType::kFloat, {8});
  n.b.initializer("s", DataType::kInt64, {3});
  n.op("ln", "LayerNormalization", {"x", "g", "g"}).linear("q", "ln").linear("k", "ln").linear("v", "ln");
  for (const char* h : {"q", "k", "v"})
    n.op(std::string(h) + "r", "Reshape", {h, "s"}).op(std::string(h) + "t", "Transpose", {std::string(h) + "r"});
  n.op("scores", "MatMul", {"qt", "kt"}).op("soft", "Softmax", {"scores"}).op("heads", "MatMul", {"soft", "vt"});
  n.op("ht", "Transpose", {"heads"}).linear("o", "ht").op("add", "Add", {"x", "o"});
  n.op("ln2", "LayerNormalization", {"add", "g", "g"})
      .linear("up", "ln2")
      .op("gelu", "Gelu", {"up"})
      .linear("down", "gelu")
      .op("add2", "Add", {"add", "down"});
  return n.op("ln3", "LayerNormalization", {"add2", "g", "g"}).linear("head", "ln3").out("head").build();
}
// Sums of sums: neither is the sum's scale that of its operands, nor are all sums on one.
GraphPtr chain() {
  Net n;
  n.conv("c1", "x").op("a1", "Add", {"x", "c1"}).conv("c2", "a1").op("a2", "Add", {"a1", "c2"}).conv("c3", "a2");
  return n.out("c3").build();
}

// Factors, offsets and a normalization by constants, behind sums and behind rounded values.
GraphPtr affine() {
  Net n;
  n.b.initializer("c", DataType::kFloat, {4, 1, 1});
  n.conv("c1", "x")
      .op("m1", "Mul", {"c1", "c"})
      .op("a1", "Add", {"m1", "c"})
      .op("bn1", "BatchNormalization", {"a1", "c", "c", "c", "c"})
      .op("r1", "Relu", {"bn1"});
  n.op("sig", "Sigmoid", {"r1"})
      .op("m2", "Mul", {"sig", "c"})
      .conv("c2", "m2")
      .op("bn2", "BatchNormalization", {"c2", "c", "c", "c", "c"});
  pool(n, "p", "bn2")
      .op("bn3", "BatchNormalization", {"p", "c", "c", "c", "c"})
      .op("r3", "Relu", {"bn3"})
      .op("soft", "Softmax", {"r3"});
  return n.conv("c3", "soft").out("c3").build();
}

const std::string kRules = R"(
  - {select: {sites: [weight], kinds: [compute]}, preset: int8-weight-per-channel}
  - {select: {sites: [input, output]}, preset: uint8-activation, share: edge}
  - {select: {sites: [bias], kinds: [compute]}, preset: int32-bias}
  - {select: {sites: [output], position: last}, float: true}
)";

Plan plan_of(const GraphPtr& graph, const std::string& rules = kRules) {
  auto recipe = parse_recipe("rules:\n" + rules, "r.yaml");
  EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().text());
  auto plan = resolve(*graph, recipe.value_or(Recipe{}), PresetLibrary::builtin());
  EXPECT_TRUE(plan) << (plan ? "" : plan.error().text());
  return plan.value_or(Plan{});
}
const SitePlan& site(const GraphPtr& graph, const Plan& plan, const std::string& node, SiteKind kind, int operand = 0) {
  return *plan.find({graph->find(node)->id, kind, operand});
}
// The quantizers that a layer's operand has gone through since the layer that made it.
std::vector<const SitePlan*> quantizers_of(const GraphPtr& graph, const Plan& plan, const std::string& node, int operand = 0) {
  std::vector<const SitePlan*> out;
  const SitePlan& read = site(graph, plan, node, SiteKind::kInput, operand);
  if (read.spec) out.push_back(&read);
  const std::vector<Layer> layers = find_layers(*graph);
  TensorId t = site_tensor(*find_layer(layers, read.site.node), read.site);
  for (const std::set<std::string> moving = {"Reshape", "Transpose", "Flatten"};;) {
    const Node* maker = graph->find(graph->tensor(t).producer);
    if (!maker) return out;
    if (const SitePlan* given = plan.find({maker->id, SiteKind::kOutput, 0}); given && given->spec) out.push_back(given);
    if (moving.count(maker->op) == 0) return out;
    t = maker->inputs[0];
  }
}
// An operator that works on sums which are not rounded yet: a clamp, or one with constants.
bool takes_sums(const GraphPtr& graph, const Node& reader) {
  static const std::set<std::string> sums = {"Conv", "Gemm", "MatMul", "Add", "Mul", "BatchNormalization"};
  const TensorInfo& t = graph->tensor(reader.inputs[0]);
  const Node* maker = graph->find(t.producer);
  const bool by_constant = (reader.op == "Add" || reader.op == "Mul" || reader.op == "BatchNormalization") &&
                           graph->tensor(reader.inputs[1]).is_initializer;
  return (reader.op == "Relu" || reader.op == "Clip" || by_constant) && maker && sums.count(maker->op) > 0 &&
         t.consumers.size() == 1;
}

struct Row {
  const char* name;
  GraphPtr (*graph)();
};
const Row kNets[] = {{"residual", residual},       {"concat", joined}, {"depthwise", depthwise},
                     {"transformer", transformer}, {"chain", chain},   {"affine", affine}};

TEST(RecipeEdges, EveryEdgeBetweenTwoLayersHasOneQuantizer) {
  for (const Row& row : kNets) {
    SCOPED_TRACE(row.name);
    const GraphPtr graph = row.graph();
    const Plan plan = plan_of(graph);
    EXPECT_THAT(plan.warnings, ::testing::IsEmpty());
    int edges = 0;
    for (const Layer& layer : find_layers(*graph)) {
      const Node& node = *graph->find(layer.node);
      for (std::size_t i = 0; i < layer.inputs.size(); ++i, ++edges) {
        const auto found = quantizers_of(graph, plan, node.name, static_cast<int>(i));
        EXPECT_EQ(found.size(), takes_sums(graph, node) ? 0u : 1u) << node.name << " input " << i + 1;
      }
    }
    EXPECT_GT(edges, 5);
    for (const SitePlan& s : plan.sites) {
      if (s.site.kind == SiteKind::kBias || s.site.kind == SiteKind::kWeight) {
        EXPECT_TRUE(s.spec) << graph->find(s.site.node)->name << ": " << s.why;
        EXPECT_EQ(s.share, "") << "weights and biases are no edges";
      }
    }
  }
}

TEST(RecipeEdges, ATensorThatSeveralReadHasOneQuantizerForAll) {
  const GraphPtr graph = joined();
  const Plan plan = plan_of(graph);
  const auto &a = site(graph, plan, "c1", SiteKind::kInput), &b = site(graph, plan, "c2", SiteKind::kInput),
             &given = site(graph, plan, "r0", SiteKind::kOutput);
  ASSERT_TRUE(a.spec && b.spec);
  EXPECT_FALSE(given.spec) << "it would be a second one";
  EXPECT_THAT(given.why, HasSubstr("those that read it have it"));
  EXPECT_NE(a.share, "");
  EXPECT_EQ(a.share, b.share);
  EXPECT_THAT(a.why, HasSubstr("one quantizer with 1 other"));
}

TEST(RecipeEdges, WhatIsAddedOrJoinedHasOneScale) {
  struct Tie {
    GraphPtr (*graph)();
    const char* node;
    bool with_output;
  };
  for (const Tie& tie : {Tie{residual, "add", false}, Tie{joined, "cat", true}, Tie{joined, "p", true},
                         Tie{transformer, "add", false}, Tie{transformer, "add2", false}, Tie{chain, "a2", false}}) {
    SCOPED_TRACE(tie.node);
    const GraphPtr graph = tie.graph();
    const Plan plan = plan_of(graph);
    const Node& node = *graph->find(tie.node);
    std::set<std::string> shares;
    std::set<const SitePlan*> own;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const auto found = quantizers_of(graph, plan, node.name, static_cast<int>(i));
      ASSERT_EQ(found.size(), 1u);
      shares.insert(found[0]->share);
      EXPECT_EQ(*found[0]->spec, *quantizers_of(graph, plan, node.name)[0]->spec);
    }
    EXPECT_EQ(shares.size(), 1u);
    EXPECT_NE(*shares.begin(), "");
    // What reads the result.
    const Node& reader = *graph->find(graph->tensor(node.outputs[0]).consumers[0]);
    if (reader.op == "Relu") continue;
    const auto after = quantizers_of(graph, plan, reader.name);
    ASSERT_EQ(after.size(), 1u);
    EXPECT_EQ(shares.count(after[0]->share), tie.with_output ? 1u : 0u);
  }
}

TEST(RecipeEdges, ExemptLayersStayFloatWithTheirNeighboursQuantized) {
  const GraphPtr graph = residual();
  for (const char* exempt : {"first", "last"}) {
    const Plan plan = plan_of(graph, kRules + "  - {select: {position: " + exempt + "}, float: true}\n");
    const std::string name = *exempt == 'f' ? "c1" : "fc";
    for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput})
      EXPECT_FALSE(site(graph, plan, name, kind).spec) << name;
    EXPECT_THAT(plan.warnings, ::testing::IsEmpty());
  }
  // The pool's result is integer whoever reads it.
  const Plan plan = plan_of(graph, kRules + "  - {select: {position: last}, float: true}\n");
  EXPECT_TRUE(site(graph, plan, "gap", SiteKind::kOutput).spec);
  // An addition in float asks for no common scale.
  const Plan apart = plan_of(graph, kRules + "  - {select: {ops: [Add]}, float: true}\n");
  EXPECT_EQ(site(graph, apart, "c3", SiteKind::kOutput).share, "") << "of nobody else's scale";
  EXPECT_TRUE(site(graph, apart, "c3", SiteKind::kOutput).spec);
}

TEST(RecipeEdges, ATensorThatLeavesTheNetworkIsQuantizedWhereItIsMade) {
  Net n;
  const GraphPtr graph = n.conv("c1", "x").op("r1", "Relu", {"c1"}).conv("c2", "r1").out("r1").out("c2").build();
  const Plan plan = plan_of(graph);
  EXPECT_TRUE(site(graph, plan, "r1", SiteKind::kOutput).spec);
  EXPECT_FALSE(site(graph, plan, "c2", SiteKind::kInput).spec);
  EXPECT_THAT(site(graph, plan, "c2", SiteKind::kInput).why, HasSubstr("'r1' gives these codes"));
  EXPECT_TRUE(site(graph, plan, "c2", SiteKind::kBias).spec)
      << "its scale is that of the codes it reads: " << site(graph, plan, "c2", SiteKind::kBias).why;
}

TEST(RecipeEdges, OtherFormatsOnOneEdge) {
  const GraphPtr graph = residual();
  // Of two readers one wants 4 bits: no one rounds twice.
  const Plan two = plan_of(graph, kRules + "  - {select: {names: [c2], sites: [input]}, share: edge, set: {bits: 4}}\n");
  EXPECT_EQ(site(graph, two, "c2", SiteKind::kInput).spec->bits, 4);
  EXPECT_EQ(site(graph, two, "add", SiteKind::kInput, 1).spec->bits, 8);
  EXPECT_FALSE(site(graph, two, "r1", SiteKind::kOutput).spec);
  ASSERT_EQ(two.warnings.size(), 1u);
  EXPECT_THAT(two.warnings[0], HasSubstr("their formats differ"));
  // Both operands of the addition differ.
  const Plan sum =
      plan_of(graph, kRules + "  - {select: {ops: [Add], sites: [input], operand: 0}, share: edge, set: {bits: 4}}\n");
  ASSERT_EQ(sum.warnings.size(), 1u);
  EXPECT_THAT(sum.warnings[0], HasSubstr("add input"));
  EXPECT_NE(site(graph, sum, "add", SiteKind::kInput, 0).share, site(graph, sum, "add", SiteKind::kInput, 1).share);
  // What leaves the network is rounded there; a reader in another format does it again, and the plan says so.
  Net n;
  const GraphPtr leaving = n.conv("c1", "x").op("r1", "Relu", {"c1"}).conv("c2", "r1").out("r1").out("c2").build();
  const Plan twice = plan_of(leaving, kRules + "  - {select: {names: [c2], sites: [input]}, set: {bits: 4}}\n");
  ASSERT_EQ(twice.warnings.size(), 1u);
  EXPECT_THAT(twice.warnings[0], HasSubstr("once more at c2 input"));
}

TEST(RecipeEdges, FormatsThatCannotBeSharedStayEachItsOwn) {
  const Plan plan = plan_of(residual(), "  - {select: {sites: [input, output]}, share: edge, set: {source: dynamic}}\n");
  const GraphPtr graph = residual();
  EXPECT_TRUE(site(graph, plan, "add", SiteKind::kInput, 0).spec);
  EXPECT_EQ(site(graph, plan, "add", SiteKind::kInput, 0).share, "");
  ASSERT_FALSE(plan.warnings.empty());
  EXPECT_THAT(plan.warnings[0], HasSubstr("source is dynamic"));
}

TEST(RecipeEdges, OperatorsThatComputeInFloatAreNamed) {
  Net n;
  const GraphPtr graph = n.conv("c1", "x").op("erf", "Erf", {"c1"}).conv("c2", "erf").out("c2").build();
  const Plan plan = plan_of(graph);
  ASSERT_EQ(plan.warnings.size(), 1u);
  EXPECT_THAT(plan.warnings[0], HasSubstr("'erf' (Erf)"));
  EXPECT_TRUE(site(graph, plan, "c1", SiteKind::kOutput).spec) << "what it reads are integers";
  EXPECT_TRUE(site(graph, plan, "c2", SiteKind::kInput).spec) << "and what it gives becomes integers again";
}

// Scores are rounded in front of a mask, whose numbers no scale of theirs could hold.
TEST(RecipeEdges, MasksOfAttentionAreNoValues) {
  for (const char* kind : {"Add", "Where"}) {
    SCOPED_TRACE(kind);
    Net n;
    n.b.tensor("mask", DataType::kFloat, kPicture);
    n.b.input("mask");
    n.b.initializer("large", DataType::kFloat, {1});
    n.linear("q", "x")
        .linear("k", "x")
        .linear("v", "x")
        .op("scores", "MatMul", {"q", "k"})
        .op("scaled", "Mul", {"scores", "large"})
        .op("m", "Mul", {"mask", "large"});
    if (*kind == 'A') n.op("masked", "Add", {"scaled", "m"});
    else n.op("masked", "Where", {"mask", "scaled", "large"});
    n.op("soft", "Softmax", {"masked"}).op("heads", "MatMul", {"soft", "v"}).linear("o", "heads");
    if (*kind == 'W') n.op("unused", "Relu", {"m"}).out("unused");
    const GraphPtr graph = n.out("o").build();
    const Plan plan = plan_of(graph);
    EXPECT_THAT(plan.warnings, ::testing::IsEmpty());
    EXPECT_FALSE(site(graph, plan, "soft", SiteKind::kInput).spec);
    EXPECT_THAT(site(graph, plan, "soft", SiteKind::kInput).why, HasSubstr("behind a mask"));
    EXPECT_TRUE(site(graph, plan, "heads", SiteKind::kInput).spec);
    if (*kind == 'W') {
      EXPECT_TRUE(site(graph, plan, "scaled", SiteKind::kOutput).spec);
      continue;
    }
    EXPECT_TRUE(site(graph, plan, "masked", SiteKind::kInput, 0).spec);
    EXPECT_NE(site(graph, plan, "masked", SiteKind::kInput, 0).share, site(graph, plan, "m", SiteKind::kInput).share)
        << "on no scale with the mask";
    EXPECT_FALSE(site(graph, plan, "masked", SiteKind::kInput, 1).spec);
    EXPECT_FALSE(site(graph, plan, "masked", SiteKind::kOutput).spec);
    EXPECT_FALSE(site(graph, plan, "m", SiteKind::kOutput).spec);
    EXPECT_TRUE(site(graph, plan, "m", SiteKind::kInput).spec);
  }
}

TEST(RecipeEdges, AnAssignmentChangesTheWholeEdge) {
  const GraphPtr graph = residual();
  auto recipe = parse_recipe("rules:\n" + kRules, "r.yaml");
  ASSERT_TRUE(recipe);
  QuantSpec narrow = *site(graph, plan_of(graph), "c2", SiteKind::kInput).spec;
  narrow.bits = 4;
  const Recipe edited = with_assignment(*recipe, *graph, {site(graph, plan_of(graph), "c2", SiteKind::kInput).site}, narrow);
  const auto plan = resolve(*graph, edited, PresetLibrary::builtin());
  ASSERT_TRUE(plan);
  EXPECT_THAT(plan->warnings, ::testing::IsEmpty());
  for (const auto& [node, operand] : {std::pair{"c2", 0}, {"add", 0}, {"add", 1}})
    EXPECT_EQ(site(graph, *plan, node, SiteKind::kInput, operand).spec->bits, 4) << node;
  EXPECT_EQ(site(graph, *plan, "c3", SiteKind::kInput).spec->bits, 8);
}

TEST(RecipeEdges, BuiltInRecipesSayIt) {
  for (const char* id : {"w8a8-integer", "w4a8-integer"}) {
    const auto recipe = builtin_recipe(id);
    ASSERT_TRUE(recipe) << recipe.error().text();
    for (const Row& row : kNets) {
      const auto plan = resolve(*row.graph(), *recipe, PresetLibrary::builtin());
      ASSERT_TRUE(plan) << plan.error().text();
      EXPECT_THAT(plan->warnings, ::testing::IsEmpty()) << id << " " << row.name;
    }
  }
}

}  // namespace
}  // namespace quanvas
