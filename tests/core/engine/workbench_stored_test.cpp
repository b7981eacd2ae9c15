// A file that is quantized already, as a project: its recipe, runs without calibration, what happens to its scales when
// formats and weights change.
#include "core/report/import_options.h"
#include "tests/core/engine/workbench_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

class StoredTest : public testing::WorkbenchTest {
 protected:
  // The tiny network, quantized, exported, and opened again with data to evaluate on only.
  void SetUp() override {
    WorkbenchTest::SetUp();
    open();
    Recipe recipe = uniform_recipe(4, 8);
    ASSERT_TRUE(bench_->set_recipe(recipe, "W4A8"));
    before_ = run(recipe);
    ASSERT_GT(before_.id, 0);
    ExportRequest request;
    request.target = "onnx-qdq";
    request.path = file();
    request.run = before_.id;
    const auto report = bench_->export_model(request, job_);
    ASSERT_TRUE(report) << report.error().text();
  }
  std::string file() const { return (dir_ / "quantized.onnx").string(); }

  Status reopen(const std::string& project, FileQuantizers how = FileQuantizers::kUnset) {
    bench_.reset();
    ImportOptions import;
    import.quantizers = how;
    QUANVAS_TRY(bench_, Workbench::open(file(), {}, job_, (dir_ / project).string(), import));
    DataSettings data = testing::data_settings();
    data.calibrate = data.train = {};
    QUANVAS_TRY(const ProjectState state, bench_->set_data(data));
    (void)state;
    return {};
  }
  Result<quanvas::Run> run_here(const Recipe& recipe, std::vector<Issue>* issues = nullptr) {
    JobContext job({}, {}, [&](const Issue& i) { if (issues) issues->push_back(i); });
    RunRequest request;
    request.recipe = recipe;
    return bench_->run_recipe(request, job);
  }
  quanvas::Run before_;
};

TEST_F(StoredTest, RunsWithoutCalibrationAsBefore) {
  ASSERT_TRUE(reopen("a.quanvas"));
  const Recipe recipe = bench_->state().recipe;
  ASSERT_FALSE(recipe.rules.empty());
  std::vector<Issue> issues;
  const auto after = run_here(recipe, &issues);
  ASSERT_TRUE(after) << after.error().text();
  EXPECT_TRUE(issues.empty()) << issues[0].message;
  ASSERT_TRUE(after->accuracy && before_.accuracy);
  EXPECT_EQ(after->accuracy->top1, before_.accuracy->top1);
  EXPECT_EQ(after->bytes, before_.bytes);
  // Opened again the recipe is what the project has.
  Recipe other = recipe;
  other.rules.pop_back();
  ASSERT_TRUE(bench_->set_recipe(other, "less"));
  ASSERT_TRUE(reopen("a.quanvas"));
  EXPECT_EQ(bench_->state().recipe.rules.size(), other.rules.size());
}

TEST_F(StoredTest, AnotherFormatIsSearchedForAndSaidSo) {
  ASSERT_TRUE(reopen("a.quanvas"));
  Recipe recipe = bench_->state().recipe;
  int changed = 0;
  for (Rule& rule : recipe.rules)
    if (rule.select.sites == std::vector<SiteKind>{SiteKind::kWeight}) rule.override_fields["bits"] = 6, ++changed;
  ASSERT_GT(changed, 0);
  std::vector<Issue> issues;
  const auto after = run_here(recipe, &issues);
  ASSERT_TRUE(after) << after.error().text();
  ASSERT_FALSE(issues.empty());
  for (const Issue& issue : issues) EXPECT_NE(issue.message.find("comes from the statistic"), std::string::npos) << issue.message;
  EXPECT_GT(after->bytes, before_.bytes);
  // An activation has no scale without calibration.
  for (Rule& rule : recipe.rules)
    if (rule.select.sites == std::vector<SiteKind>{SiteKind::kInput}) rule.override_fields["bits"] = 6;
  EXPECT_FALSE(run_here(recipe));
}

TEST_F(StoredTest, NodesStayWhenAskedAndAProjectKeepsWhatItHas) {
  ASSERT_TRUE(reopen("nodes.quanvas", FileQuantizers::kNodes));
  EXPECT_TRUE(bench_->state().recipe.rules.empty());
  int nodes = 0;
  for (const Node& n : bench_->graph()->nodes()) nodes += n.op == "DequantizeLinear";
  EXPECT_GT(nodes, 0);
  const Status other = reopen("nodes.quanvas", FileQuantizers::kRules);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("decided when its project is made"), std::string::npos);
  ASSERT_TRUE(reopen("nodes.quanvas"));
  int again = 0;
  for (const Node& n : bench_->graph()->nodes()) again += n.op == "DequantizeLinear";
  EXPECT_EQ(again, nodes);
}

}  // namespace
}  // namespace quanvas
