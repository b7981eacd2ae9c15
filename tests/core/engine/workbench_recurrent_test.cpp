// The verbs on networks with recurrent layers and attention: every site is calibrated, measured, trained.
#include "core/graph/canonical.h"
#include "tests/core/engine/exec_support.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

using testing::ints;
using testing::ModelMaker;
using testing::noise;

class Recurrent : public testing::WorkbenchTest {
 protected:
  // Rows of the picture are steps; the last hidden state is classified.
  void open_recurrent(const std::string& op, const std::string& direction) {
    const std::int64_t sides = direction == "bidirectional" ? 2 : 1, rows = static_cast<std::int64_t>(gates(op).size()) * 6;
    ModelMaker m(14);
    m.input("x", {-1, 1, 8, 8}).weight("shape", ints({-1, 8, 8})).weight("zero", ints({0})).weight("flat", ints({-1, sides * 6}));
    m.weight("w", noise({sides, rows, 8}, 1)).weight("r", noise({sides, rows, 6}, 2)).weight("b", noise({sides, 2 * rows}, 3) * 0.2);
    m.weight("v", noise({sides * 6, 3}, 4)).weight("c", noise({3}, 5));
    m.node("steps", "Reshape", {"x", "shape"}, {"s"}).node("first", "Transpose", {"s"}, {"t"}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}});
    m.node("cell", op, {"t", "w", "r", "b"}, {"", "h"}, {{"direction", direction}, {"hidden_size", std::int64_t{6}}});
    m.node("turn", "Transpose", {"h"}, {"u"}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}}).node("join", "Reshape", {"u", "flat"}, {"f"});
    m.node("fc", "MatMul", {"f", "v"}, {"p"}).shape("p", {-1, 3}).node("bias", "Add", {"p", "c"}, {"y"}).shape("y", {-1, 3});
    open_model(m.output("y").build(), "1x8x8");
  }
  static Rule rule(const std::string& op, SiteKind site, const json& spec, int operand = -1) {
    Rule r;
    r.select.ops = {op};
    r.select.sites = {site};
    r.select.operand = operand;
    r.override_fields = spec;
    return r;
  }
  static const LayerResult* layer(const quanvas::Run& run, const std::string& name) {
    for (const LayerResult& l : run.layers)
      if (l.name == name) return &l;
    return nullptr;
  }
};

TEST_F(Recurrent, EverySiteIsQuantizedAndMeasured) {
  for (const std::string op : {"LSTM", "GRU", "RNN"})
    for (const std::string direction : {"forward", "bidirectional"}) {
      SCOPED_TRACE(op + " " + direction);
      ASSERT_NO_FATAL_FAILURE(open_recurrent(op, direction));
      Recipe recipe = uniform_recipe(8, 8);
      recipe.rules.push_back(rule(op, SiteKind::kInternal, {{"bits", 8}}));
      const quanvas::Run r = run(recipe);
      for (const Issue& issue : r.issues) EXPECT_NE(issue.severity, Severity::kWarning) << issue.message;
      ASSERT_TRUE(layer(r, "cell"));
      ASSERT_TRUE(layer(r, "cell")->weight && layer(r, "cell")->isolated && layer(r, "cell")->cumulative);
      EXPECT_GT(layer(r, "cell")->weight->sqnr_db, 35);
      EXPECT_GT(layer(r, "cell")->isolated->sqnr_db, 15);
      EXPECT_LT(layer(r, "cell")->isolated->sqnr_db, 60);
      EXPECT_LT(r.bytes, 0.5 * r.bytes_float);

      const auto facts = bench_->layer_facts(recipe, node("cell"));
      ASSERT_TRUE(facts) << facts.error().text();
      const std::size_t sides = direction == "forward" ? 1 : 2;
      const std::size_t weights = gates(op).size() == 1 && sides == 1 ? 2 : 2 * gates(op).size() * sides;
      EXPECT_EQ(facts->sites.size(), weights + 1 + sides + sides * cell_sites(op).size()) << "the bias stays float";
      for (const SiteFacts& site : facts->sites) {
        EXPECT_EQ(site.missing, "");
        EXPECT_GT(site.error.sqnr_db, 20) << enum_text(site.site.kind) << site.site.operand;
      }
      ASSERT_TRUE(facts->output);
      EXPECT_NEAR(facts->output->sqnr_db, layer(r, "cell")->isolated->sqnr_db, 3) << "on fewer samples";
    }
}

// More bits, less error; 16 bits inside change next to nothing, and sites that a rule does not count stay float.
TEST_F(Recurrent, ErrorsFallWithTheBits) {
  ASSERT_NO_FATAL_FAILURE(open_recurrent("LSTM", "forward"));
  struct Row {
    const char* what;
    SiteKind kind;
    int operand;
  };
  for (const Row& row : {Row{"weights", SiteKind::kWeight, -1}, Row{"one gate's weight", SiteKind::kWeight, 6},
                         Row{"hidden state", SiteKind::kInput, 1}, Row{"inside", SiteKind::kInternal, -1}, Row{"cell state", SiteKind::kInternal, 8}}) {
    double last = 0;
    for (const int bits : {3, 6, 9, 16}) {
      Recipe recipe;
      recipe.rules = {rule("LSTM", row.kind, {{"bits", bits}}, row.operand)};
      const quanvas::Run r = run(recipe);
      ASSERT_TRUE(layer(r, "cell") && layer(r, "cell")->isolated) << row.what << bits;
      EXPECT_GT(layer(r, "cell")->isolated->sqnr_db, last + 6) << row.what << bits;
      last = layer(r, "cell")->isolated->sqnr_db;
      int quantized = 0;
      const auto facts = bench_->layer_facts(recipe, node("cell"));
      ASSERT_TRUE(facts) << facts.error().text();
      for (const SiteFacts& site : facts->sites) quantized += site.site.kind == row.kind;
      EXPECT_EQ(quantized, row.operand >= 0 ? 1 : row.kind == SiteKind::kWeight ? 8 : 10) << row.what;
    }
    EXPECT_GT(last, 60) << row.what;
  }
}

TEST_F(Recurrent, IsTrainedWithAllItsSites) {
  ASSERT_NO_FATAL_FAILURE(open_recurrent("LSTM", "forward"));
  Recipe recipe = uniform_recipe(4, 4);
  recipe.rules.push_back(rule("LSTM", SiteKind::kInternal, {{"bits", 6}}));
  const quanvas::Run before = run(recipe);
  recipe.passes.push_back({"qat", true, {{"epochs", 6}, {"batch", 16}, {"learning_rate", 0.02}, {"validation_samples", 0}}});
  const quanvas::Run after = run(recipe);
  ASSERT_TRUE(before.accuracy && after.accuracy);
  EXPECT_LT(after.accuracy->loss, before.accuracy->loss);
  EXPECT_LT(layer(after, "cell")->weight->sqnr_db, layer(before, "cell")->weight->sqnr_db) << "the gates' weights have moved";
}

TEST_F(Recurrent, AttentionIsQuantizedInsideAndMeasured) {
  ModelMaker m(23);
  m.input("x", {-1, 1, 8, 8}).weight("flat", ints({-1, 64})).weight("w", noise({64, 3}, 4));
  m.node("attend", "Attention", {"x", "x", "x"}, {"a"}).shape("a", {-1, 1, 8, 8}).node("flatten", "Reshape", {"a", "flat"}, {"f"});
  m.node("fc", "MatMul", {"f", "w"}, {"y"}).shape("y", {-1, 3});
  ASSERT_NO_FATAL_FAILURE(open_model(m.output("y").build(), "1x8x8"));
  Recipe recipe;
  recipe.rules = {rule("Attention", SiteKind::kInput, {{"bits", 8}}), rule("Attention", SiteKind::kInternal, {{"bits", 8}, {"signed", false}}, 1),
                  rule("Attention", SiteKind::kInternal, {{"bits", 8}}, 0)};
  const quanvas::Run r = run(recipe);
  ASSERT_TRUE(layer(r, "attend") && layer(r, "attend")->isolated);
  EXPECT_GT(layer(r, "attend")->isolated->sqnr_db, 30);
  EXPECT_LT(layer(r, "attend")->isolated->sqnr_db, 60);
  const auto facts = bench_->layer_facts(recipe, node("attend"));
  ASSERT_TRUE(facts) << facts.error().text();
  EXPECT_EQ(facts->sites.size(), 5u);
  ASSERT_TRUE(facts->output);
}

}  // namespace
}  // namespace quanvas
