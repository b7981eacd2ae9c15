// Sweep and error panels: cells fill in, a click assigns, prediction beside measurement, the matrix of a run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QComboBox>
#include <QSignalSpy>
#include <QTest>
#include <QToolButton>

#include "tests/widgets/panel_sample.h"
#include "widgets/charts/heat_map.h"
#include "widgets/panels/error_panel.h"
#include "widgets/forms/schema_form.h"
#include "widgets/panels/sweep_dialog.h"
#include "widgets/panels/sweep_panel.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

class SweepTest : public testing::Test {
 protected:
  SweepTest() {
    panel_.resize(500, 260);
    panel_.set_layers({{1, "conv1", 8, 8}, {4, "conv2", 4, 4}, {9, "fc1", 3, 4}});
    panel_.set_can_start(true, {});
    settings_.bits = {8, 4, 3};
    QObject::connect(&panel_, &SweepPanel::width_chosen, &panel_,
                     [this](NodeId n, int bits, bool w, bool a) { chosen_.emplace_back(n, bits, w, a); });
    panel_.show();
  }
  SweepCell cell(NodeId node, int bits, double drop) const {
    SweepCell c;
    c.node = node;
    c.bits = bits;
    c.top1 = 0.9 - drop;
    c.top1_drop = drop;
    c.output_sqnr_db = 4.0 * bits;
    return c;
  }
  void click(int row, int column) { QTest::mouseClick(panel_.map()->viewport(), Qt::LeftButton, {}, panel_.map()->cell_rect(row, column).center()); }

  SweepPanel panel_;
  SweepSettings settings_;
  std::vector<std::tuple<NodeId, int, bool, bool>> chosen_;
};

TEST_F(SweepTest, CellsFillInWhileTheyAreMeasured) {
  panel_.begin(settings_);
  EXPECT_EQ(panel_.map()->data().rows, (QStringList{"conv1", "conv2", "fc1"}));
  EXPECT_EQ(panel_.map()->data().columns, (QStringList{"8 bit", "4 bit", "3 bit"}));
  EXPECT_TRUE(std::isnan(panel_.map()->data().values[1][1]));
  EXPECT_THAT(panel_.note().toStdString(), HasSubstr("0 of 9 cells"));
  panel_.add_cell(cell(4, 4, 0.006));
  EXPECT_NEAR(panel_.map()->data().values[1][1], 0.6, 1e-9) << "in points";
  EXPECT_THAT(panel_.note().toStdString(), HasSubstr("1 of 9 cells"));
  EXPECT_LE(panel_.minimumSizeHint().width(), 200) << "what it shows pushes no other dock";
  EXPECT_EQ(panel_.map()->data().outlined, (std::vector<int>{0, 1, 2}));
}

TEST_F(SweepTest, AClickOrEnterAssignsTheWidth) {
  settings_.activations = true;
  panel_.begin(settings_);
  click(1, 2);
  ASSERT_EQ(chosen_.size(), 1u);
  EXPECT_EQ(chosen_[0], std::make_tuple(NodeId{4}, 3, true, true));
  auto* map = panel_.map();
  map->setFocus();
  QTest::keyClick(map, Qt::Key_Up);
  QTest::keyClick(map, Qt::Key_Left);
  QTest::keyClick(map, Qt::Key_Return);
  ASSERT_EQ(chosen_.size(), 2u);
  EXPECT_EQ(chosen_[1], std::make_tuple(NodeId{1}, 4, true, true));
  QTest::mouseClick(map->viewport(), Qt::LeftButton, {}, QPoint(3, 3));
  EXPECT_EQ(chosen_.size(), 2u) << "names are no cells";
}

TEST_F(SweepTest, PredictionIsTheSumAndSaysWhenItCannotBe) {
  panel_.begin(settings_);
  for (const auto& c : {cell(1, 8, 0.001), cell(4, 4, 0.006), cell(9, 3, 0.008)}) panel_.add_cell(c);
  ASSERT_TRUE(panel_.predicted_drop());
  EXPECT_NEAR(*panel_.predicted_drop(), 0.015, 1e-12);
  EXPECT_THAT(panel_.note().toStdString(), HasSubstr("predicted loss 1.50 points, not measured yet"));
  panel_.set_measured(0.0146);
  EXPECT_THAT(panel_.note().toStdString(), HasSubstr("predicted loss 1.50 points, measured 1.46"));
  panel_.set_layers({{1, "conv1", 8, 8}, {4, "conv2", 5, 4}, {9, "fc1", 0, 4}});
  EXPECT_FALSE(panel_.predicted_drop());
  EXPECT_THAT(panel_.note().toStdString(), HasSubstr("no prediction: an assigned width was not swept"));
  panel_.set_layers({{1, "conv1", 8, 8}, {4, "conv2", 4, 4}, {9, "fc1", 0, 4}});
  EXPECT_NEAR(panel_.predicted_drop().value_or(-1), 0.007, 1e-12) << "a float layer costs nothing";
}

TEST_F(SweepTest, WithoutLabelsItShowsTheOutputsSqnr) {
  panel_.begin(settings_);
  auto c = cell(4, 4, 0);
  c.top1 = c.top1_drop = std::nan("");
  panel_.add_cell(c);
  EXPECT_EQ(panel_.map()->data().values[1][1], 16.0);
  EXPECT_THAT(panel_.subtitle().toStdString(), HasSubstr("dB; click assigns"));
}

TEST_F(SweepTest, OfTokensItShowsThePerplexitysRise) {
  panel_.begin(settings_);
  for (const auto& [node, bits, rise] : {std::tuple{1, 8, 0.001}, std::tuple{4, 4, 0.05}, std::tuple{9, 3, 0.02}}) {
    auto c = cell(node, bits, 0);
    c.top1 = c.top1_drop = std::nan("");
    c.perplexity = 3.5 * (1 + rise);
    c.perplexity_rise = rise;
    panel_.add_cell(c);
  }
  EXPECT_NEAR(panel_.map()->data().values[1][1], 5, 1e-9) << "in per cent";
  EXPECT_THAT(panel_.subtitle().toStdString(), HasSubstr("%; click assigns"));
  EXPECT_THAT(panel_.map()->data().tooltip(1, 1).toStdString(), HasSubstr("perplexity 3.675, +5"));
  panel_.set_measured(0.07);
  EXPECT_THAT(panel_.note().toStdString(), HasSubstr("predicted rise 7.10 %, measured 7.00"));
}

TEST_F(SweepTest, AnUnfinishedSweepCanGoOn) {
  SweepResult result;
  result.settings = settings_;
  result.cells = {cell(1, 8, 0)};
  panel_.set_sweep(result, 12);
  QSignalSpy resume(&panel_, &SweepPanel::resume_wanted);
  const auto tools = panel_.header_widgets();
  auto* button = qobject_cast<QToolButton*>(tools[1]);
  ASSERT_FALSE(button->isHidden());
  button->click();
  ASSERT_EQ(resume.count(), 1);
  EXPECT_EQ(resume[0][0].toLongLong(), 12);
  result.complete = true;
  panel_.set_sweep(result, 12);
  EXPECT_TRUE(button->isHidden());
}

TEST(SweepDialogTest, ReadsWidths) {
  struct Row {
    const char* text;
    std::vector<int> bits;  // empty: refused
  };
  const Row rows[] = {{"8, 4, 2", {8, 4, 2}}, {"8-5", {8, 7, 6, 5}}, {"2-4", {2, 3, 4}}, {"4,4", {4}}, {" 16 ", {16}}, {"0", {}},
                      {"17", {}}, {"", {}}, {"a", {}}, {"8--2", {}}, {"-3", {}}, {"3.5", {}}, {",", {}}};
  for (const auto& row : rows) {
    SCOPED_TRACE(row.text);
    EXPECT_EQ(parse_bits(QString::fromUtf8(row.text)).value_or(std::vector<int>{}), row.bits);
  }
}

TEST(SweepDialogTest, OffersThePassesThatRoundByTheirInputs) {
  const auto entry = [](const char* id, const char* stage, std::vector<Field> fields) {
    return PluginEntry{id, id, "", Schema{std::move(fields)}, {{"stage", stage}}};
  };
  const auto inputs = text_field("inputs", "Inputs", "", "float");
  SweepSettings last;
  last.passes = {{"gptq"}};
  SweepDialog dialog(last, {}, 5, {entry("gptq", "weights", {inputs}), entry("equalize", "graph", {}), entry("bias-correction", "weights", {})});
  const Field* field = dialog.form()->schema().find("rounding");
  ASSERT_TRUE(field);
  ASSERT_EQ(field->choices.size(), 2u);
  EXPECT_EQ(field->choices[1].value, "gptq");
  ASSERT_EQ(dialog.settings().passes.size(), 1u);
  EXPECT_EQ(dialog.settings().passes[0].id, "gptq");
  last.passes.clear();
  SweepDialog plain(last, {}, 5, {entry("gptq", "weights", {inputs})});
  EXPECT_TRUE(plain.settings().passes.empty());
  last.passes = {{"gptq"}};
  last.weights = false, last.activations = true;
  SweepDialog activations(last, {}, 5, {entry("gptq", "weights", {inputs})});
  EXPECT_TRUE(activations.settings().passes.empty()) << "there are no weights to round";
}

TEST(ErrorPanelTest, ShowsLiveFactsARunAndItsMatrix) {
  const auto p = sample::project();
  ErrorPanel panel;
  panel.resize(500, 300);
  panel.show();
  panel.set_live({{p.id("conv2"), "conv2", 22.1, std::nan(""), false}});
  EXPECT_EQ(panel.bars()->bars().size(), 1u);
  EXPECT_TRUE(panel.bars()->isVisible());
  panel.set_runs({sample::run(p, 1, RunKind::kFloat, 0.9, 0), sample::run(p, 2, RunKind::kQuantize, 0.88, 30000)});
  panel.source_combo()->setCurrentIndex(panel.source_combo()->findData(2));
  ASSERT_EQ(panel.bars()->bars().size(), 5u);
  EXPECT_NEAR(panel.bars()->bars()[0].cumulative, 27.9 - 7, 1e-9);
  std::vector<NodeId> clicked;
  QObject::connect(&panel, &ErrorPanel::layer_clicked, &panel, [&](NodeId n) { clicked.push_back(n); });
  QTest::mouseClick(panel.bars()->viewport(), Qt::LeftButton, {}, panel.bars()->row_rect(1).center());
  EXPECT_EQ(clicked, std::vector<NodeId>{p.id("conv2")});
  qobject_cast<QToolButton*>(panel.header_widgets()[1])->setChecked(true);
  EXPECT_TRUE(panel.matrix()->isVisible());
  EXPECT_EQ(panel.matrix()->data().columns.size(), 5);
  EXPECT_TRUE(std::isnan(panel.matrix()->data().values[0][0])) << "this run has no weight errors";
  EXPECT_NEAR(panel.matrix()->data().values[1][1], 22.1, 1e-9);
}

}  // namespace
}  // namespace quanvas
