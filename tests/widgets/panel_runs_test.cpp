// Runs: the table, choosing two and comparing them, what jobs and issues say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QApplication>
#include <QLabel>
#include <QSignalSpy>
#include <QTableView>
#include <QTableWidget>
#include <QTest>
#include <QToolButton>
#include <QIcon>
#include <QTreeWidget>

#include "tests/widgets/panel_sample.h"
#include "widgets/panels/issues_panel.h"
#include "widgets/panels/jobs_panel.h"
#include "widgets/panels/run_views.h"
#include "widgets/panels/runs_panel.h"

namespace quanvas {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class RunsTest : public testing::Test {
 protected:
  RunsTest() : runs_{sample::run(p_, 1, RunKind::kFloat, 0.9087, 0), sample::run(p_, 2, RunKind::kQuantize, 0.879, 31900), sample::run(p_, 3, RunKind::kQuantize, 0.8941, 31000)} {
    panel_.resize(700, 300);
    panel_.set_runs(runs_, {2}, 3);
    panel_.show();
  }
  QString cell(int row, int column) const { return panel_.table()->model()->index(row, column).data().toString(); }
  void click(int row, Qt::KeyboardModifiers modifiers = {}) {
    QTest::mouseClick(panel_.table()->viewport(), Qt::LeftButton, modifiers, panel_.table()->visualRect(panel_.table()->model()->index(row, 1)).center());
  }
  sample::Project p_ = sample::project();
  std::vector<quanvas::Run> runs_;
  RunsPanel panel_;
};

TEST_F(RunsTest, TheTableTellsWhatWasLost) {
  EXPECT_EQ(cell(1, RunsModel::kTop1), QStringLiteral("87.90 ± 0.33"));
  EXPECT_EQ(cell(1, RunsModel::kDelta), QStringLiteral("−2.97"));
  EXPECT_EQ(cell(0, RunsModel::kDelta), QString());
  EXPECT_EQ(cell(0, RunsModel::kSize).replace(QChar(0xa0), u' '), QStringLiteral("246.8 kB"));
  EXPECT_EQ(cell(2, RunsModel::kSize).replace(QChar(0xa0), u' '), QStringLiteral("31.0 kB"));
  const auto mark = [&](int row) { return panel_.table()->model()->index(row, 0).data(Qt::DecorationRole).value<QIcon>().pixmap(16).toImage(); };
  EXPECT_NE(mark(1), mark(0)) << "stale";
  EXPECT_NE(mark(2), mark(0)) << "current";
  EXPECT_NE(mark(1), mark(2));
}

TEST_F(RunsTest, ARunOnOtherSamplesOrOfAnotherModelIsNoBaseline) {
  const auto same = runs_;
  runs_[0].accuracy->samples = 500;
  panel_.set_runs(runs_, {});
  EXPECT_EQ(cell(1, RunsModel::kDelta), QString());
  runs_ = same;
  runs_[0].model_hash = "another";
  panel_.set_runs(runs_, {});
  EXPECT_EQ(cell(1, RunsModel::kDelta), QString());
}

TEST_F(RunsTest, OfTokensItTellsThePerplexity) {
  const double perplexities[] = {3.548, 4.39, 3.551};
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    auto& a = *runs_[i].accuracy;
    a.top1 = a.top5 = a.top1_stderr = std::nan("");
    a.perplexity = perplexities[i];
    a.perplexity_stderr = 0.277;
    a.tokens = 1804;
  }
  EXPECT_EQ(panel_.table()->model()->headerData(RunsModel::kTop1, Qt::Horizontal).toString(), QStringLiteral("Top-1, %"));
  panel_.set_runs(runs_, {});
  EXPECT_EQ(panel_.table()->model()->headerData(RunsModel::kTop1, Qt::Horizontal).toString(), QStringLiteral("Perplexity"));
  EXPECT_EQ(cell(1, RunsModel::kTop1), QStringLiteral("4.390 ± 0.277 ppl"));
  EXPECT_EQ(cell(1, RunsModel::kDelta), QStringLiteral("+0.842"));
  panel_.table()->sortByColumn(RunsModel::kTop1, Qt::DescendingOrder);
  EXPECT_EQ(cell(0, RunsModel::kTop1), QStringLiteral("3.548 ± 0.277 ppl")) << "the best first, as of top-1";
  EXPECT_EQ(cell(2, RunsModel::kTop1), QStringLiteral("4.390 ± 0.277 ppl"));
}

TEST_F(RunsTest, TwoSelectedRunsCompare) {
  QSignalSpy compare_wanted(&panel_, &RunsPanel::compare_wanted);
  EXPECT_FALSE(panel_.compare_button()->isEnabled());
  click(2);
  EXPECT_FALSE(panel_.compare_button()->isEnabled());
  click(1, Qt::ControlModifier);
  EXPECT_THAT(panel_.selection(), ElementsAre(2, 3));
  ASSERT_TRUE(panel_.compare_button()->isEnabled());
  panel_.compare_button()->click();
  ASSERT_EQ(compare_wanted.count(), 1);
  EXPECT_EQ(compare_wanted[0], (QList<QVariant>{2LL, 3LL})) << "the older one first";
}

TEST_F(RunsTest, TheComparisonShowsFiguresLayersAndRecipes) {
  runs_[2].recipe = uniform_recipe(8, 4);
  runs_[2].layers[1].weight_format = "W8";
  runs_[2].recipe.passes = {{"qat", true, json::object()}};
  runs_[2].passes = {{"qat", "Quantization-aware training", "", 1}};
  RunCompareView view(runs_[1], runs_[2]);
  EXPECT_EQ(view.figures()->item(1, 3)->text(), QStringLiteral("+1.51"));
  EXPECT_EQ(view.figures()->item(2, 3)->text().replace(QChar(0xa0), u' '), QStringLiteral("−900 B"));
  ASSERT_EQ(view.layers()->rowCount(), 5);
  EXPECT_EQ(view.layers()->item(1, 0)->text(), QStringLiteral("conv2"));
  EXPECT_EQ(view.layers()->item(1, 1)->text(), QStringLiteral("W4 float"));
  EXPECT_EQ(view.layers()->item(1, 2)->text(), QStringLiteral("W8 float"));
  EXPECT_EQ(view.layers()->item(1, 8)->text(), QStringLiteral("−1.0"));
  EXPECT_EQ(view.layers()->item(1, 5)->text(), QStringLiteral("0.0"));
  EXPECT_THAT(view.recipe_text().toStdString(), HasSubstr("bits 4 → 8"));
  EXPECT_THAT(view.recipe_text().toStdString(), HasSubstr("pass Quantization-aware training added"));
  std::vector<NodeId> clicked;
  QObject::connect(&view, &RunCompareView::layer_clicked, &view, [&](NodeId n) { clicked.push_back(n); });
  view.layers()->selectRow(2);
  EXPECT_THAT(clicked, ElementsAre(p_.id("fc1")));
}

TEST_F(RunsTest, DetailsOfAnyRunCanBeShown) {
  quanvas::Run bare;
  quanvas::Run full = runs_[1];
  full.passes = {{"gptq", "GPTQ", "5 layers", 1.5}};
  full.issues = {{Severity::kWarning, "conv2", "A channel is all zero.", "Nothing to do."}};
  full.curve = {{1, 0.1, 0.7, 1e-3, std::nullopt}, {2, 1, std::nan(""), 1e-3, 0.88}};
  for (const quanvas::Run& r : {bare, full}) {
    RunDetailsView view(r);
    view.resize(400, 300);
    view.show();
    EXPECT_FALSE(view.grab().isNull());
  }
}

TEST_F(RunsTest, ExportsSayHowNearTheyAre) {
  RunDetailsView view(runs_[1]);
  ExportReport near, old;
  near.target = old.target = "gguf";
  near.path = "near.gguf";
  near.exactness = Exactness::kNear;
  view.set_exports({near, old});
  int column = -1;
  for (int c = 0; c < view.exports()->columnCount(); ++c)
    if (view.exports()->horizontalHeaderItem(c)->text() == QStringLiteral("Exactness")) column = c;
  ASSERT_GE(column, 0);
  EXPECT_EQ(view.exports()->item(0, column)->text(), QStringLiteral("near"));
  EXPECT_EQ(view.exports()->item(1, column)->text(), view.exports()->item(1, view.exports()->columnCount() - 1)->text()) << "unknown, as what is missing";
}

TEST(JobsPanelTest, ShowsProgressOutcomeAndCancels) {
  JobsPanel panel;
  panel.resize(400, 300);
  panel.show();
  QSignalSpy cancel(&panel, &JobsPanel::cancel_wanted);
  JobRow job{QStringLiteral("j1"), QStringLiteral("Run W4A4"), QStringLiteral("GPTQ: fc1, layer 4 of 8"), JobRow::Phase::kRunning, 0.47, 9, 8, {}};
  panel.set_jobs({job});
  const auto has = [&](const QString& text) {
    for (const auto* l : panel.findChildren<QLabel*>())
      if (l->isVisible() && l->text().replace(QChar(0xa0), u' ').contains(text)) return true;
    return false;
  };
  EXPECT_TRUE(has(QStringLiteral("9 s left")));
  EXPECT_TRUE(has(QStringLiteral("layer 4 of 8")));
  auto* button = panel.findChild<QToolButton*>();
  ASSERT_TRUE(button && button->isVisible());
  QTest::mouseClick(button, Qt::LeftButton);
  ASSERT_EQ(cancel.count(), 1);
  EXPECT_EQ(cancel[0][0].toString(), QStringLiteral("j1"));
  job.phase = JobRow::Phase::kFailed;
  job.message = QStringLiteral("The disk is full.");
  panel.set_jobs({job});
  EXPECT_TRUE(has(QStringLiteral("The disk is full.")));
  EXPECT_FALSE(button->isVisible());
}

TEST(IssuesPanelTest, CountsWhatNeedsAttention) {
  IssuesPanel panel;
  EXPECT_EQ(panel.name(), QStringLiteral("Issues"));
  panel.set_issues({{Severity::kWarning, "conv1", "Too wide.", "Use 8 bit."}, {Severity::kInfo, "", "Folded.", ""}});
  EXPECT_EQ(panel.name(), QStringLiteral("Issues (2)"));
  EXPECT_EQ(panel.subtitle(), QStringLiteral("1 needs attention"));
  QSignalSpy activated(&panel, &IssuesPanel::activated);
  panel.resize(460, 300);
  panel.show();
  QApplication::processEvents();
  const auto height = [&] { return panel.list()->visualItemRect(panel.list()->topLevelItem(0)).height(); };
  const int one_line = height();
  Issue issue{Severity::kWarning, "conv1", "The weights of this layer hold far more values than the format has codes for.", "Use 8 bit."};
  panel.set_issues({issue, issue});
  QApplication::processEvents();
  EXPECT_GE(height(), one_line + 2 * panel.fontMetrics().height()) << "as high as the text needs";
  const int narrow = height();
  panel.resize(1400, 300);
  QApplication::processEvents();
  EXPECT_LT(height(), narrow);
  panel.set_issues({{Severity::kWarning, "conv1", "Too wide.", "Use 8 bit."}});
  Q_EMIT panel.list()->itemActivated(panel.list()->topLevelItem(0), 0);
  ASSERT_EQ(activated.count(), 1);
  EXPECT_EQ(activated[0][0].toString(), QStringLiteral("conv1"));
}

}  // namespace
}  // namespace quanvas
