// The inspector driven by mouse and keys: which quantizers its edits ask for, several layers at once, errors at
// their field, the reason and what can be done with it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QApplication>
#include <QCheckBox>
#include <QComboBox>
#include <QLabel>
#include <QLineEdit>
#include <QScrollArea>
#include <QSignalSpy>
#include <QSlider>
#include <QSpinBox>
#include <QTabBar>
#include <QTest>
#include <QToolButton>

#include "tests/widgets/inspector_bench.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

TEST_F(InspectorTest, ShowsTheLayerItsSitesAndItsFacts) {
  select({"conv2"});
  EXPECT_EQ(panel_.title(), QStringLiteral("conv2"));
  EXPECT_TRUE(panel_.subtitle().startsWith(QStringLiteral("Conv 5×5"))) << panel_.subtitle().toStdString();
  QStringList tabs;
  for (int i = 0; i < panel_.tabs()->count(); ++i) tabs << panel_.tabs()->tabText(i);
  EXPECT_EQ(tabs, (QStringList{"Weight", "Input", "Output"}));
  const std::string facts = panel_.facts_text().toStdString();
  for (const char* part : {"SQNR of the weight: 19.6", "SQNR at the output: 22.1", "Values clipped: 0.21", "Codes in use: 13 of 15", "Size: 9.6 → 1.3", "Bits per element: 4.21"})
    EXPECT_THAT(facts, HasSubstr(part));
  EXPECT_EQ(control<QSpinBox>("bits")->value(), 4);
}

TEST_F(InspectorTest, TheContentIsAsWideAsTheViewBesideItsScrollBar) {
  select({"fc1"});
  for (const int width : {322, 280})
    for (const int height : {900, 240}) {
      SCOPED_TRACE(std::to_string(width) + " x " + std::to_string(height));
      panel_.resize(width, height);
      QApplication::processEvents();
      const auto* scroll = panel_.findChild<QScrollArea*>();
      ASSERT_TRUE(scroll);
      EXPECT_EQ(scroll->widget()->width(), scroll->viewport()->width());
      for (const auto* child : scroll->widget()->findChildren<QWidget*>()) {
        if (!child->isVisible()) continue;
        EXPECT_LE(child->mapTo(scroll->widget(), QPoint(child->width(), 0)).x(), scroll->viewport()->width()) << child->metaObject()->className();
      }
    }
}

TEST_F(InspectorTest, AnActivationBeforeCalibrationSaysWhatToDo) {
  select({"conv2"});
  QSignalSpy wanted(&panel_, &InspectorPanel::calibrate_wanted);
  panel_.set_current_kind(SiteKind::kInput);
  EXPECT_THAT(panel_.facts_text().toStdString(), HasSubstr("Calibrate first."));
  EXPECT_THAT(panel_.facts_text().toStdString(), HasSubstr("href=\"calibrate\""));
}

TEST_F(InspectorTest, StepsOfTheBitsMergeAndAskForTheSpec) {
  select({"conv2"});
  auto* slider = control<QSlider>("bits");
  slider->setFocus();
  QTest::keyClick(slider, Qt::Key_Left);
  ASSERT_EQ(asked_.size(), 1u);
  ASSERT_EQ(asked_[0].assignments.size(), 1u);
  QuantSpec wanted = p_.spec(p_.weight("conv2"));
  wanted.bits = 3;
  EXPECT_EQ(asked_[0].assignments[0].spec, wanted);
  EXPECT_EQ(asked_[0].assignments[0].sites, std::vector<Site>{p_.weight("conv2")});
  EXPECT_FALSE(asked_[0].merge_key.isEmpty());
  EXPECT_EQ(asked_[0].label, QStringLiteral("conv2 weight: Bits 3"));
  QTest::keyClick(slider, Qt::Key_Left);
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_EQ(asked_[1].assignments[0].spec->bits, 2);
  EXPECT_EQ(asked_[1].merge_key, asked_[0].merge_key);
}

TEST_F(InspectorTest, TypingANumberIsOneEdit) {
  select({"conv2"});
  auto* spin = control<QSpinBox>("bits");
  spin->setFocus();
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("12"));
  EXPECT_TRUE(asked_.empty()) << "not while it is typed";
  QTest::keyClick(spin, Qt::Key_Return);
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].assignments[0].spec->bits, 12);
}

TEST_F(InspectorTest, SeveralLayersSayMixedAndAnEditChangesAllInOneStep) {
  set_bits("conv1", 8);
  select({"conv1", "conv2", "fc1"});
  EXPECT_EQ(panel_.title(), QStringLiteral("3 layers"));
  auto* spin = control<QSpinBox>("bits");
  EXPECT_EQ(spin->text(), QStringLiteral("mixed"));
  EXPECT_EQ(panel_.preset_combo()->placeholderText(), QStringLiteral("mixed"));
  // Another field: the widths stay as different as they are.
  auto* narrow = control<QCheckBox>("narrow");
  EXPECT_EQ(narrow->checkState(), Qt::Checked);
  QTest::mouseClick(narrow, Qt::LeftButton, {}, QPoint(8, narrow->height() / 2));
  ASSERT_EQ(asked_.size(), 1u) << "one undo step";
  ASSERT_EQ(asked_[0].assignments.size(), 2u);
  EXPECT_EQ(asked_[0].assignments[0].spec->bits, 8);
  EXPECT_EQ(asked_[0].assignments[1].spec->bits, 4);
  EXPECT_EQ(asked_[0].assignments[1].sites, (std::vector<Site>{p_.weight("conv2"), p_.weight("fc1")}));
  for (const auto& a : asked_[0].assignments) EXPECT_FALSE(a.spec->narrow);
}

TEST_F(InspectorTest, TypingOverMixedSetsAllEvenToAValueThatOneHadAlready) {
  set_bits("conv1", 8);
  select({"conv1", "conv2"});
  auto* spin = control<QSpinBox>("bits");
  spin->setFocus();
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("8"));
  QTest::keyClick(spin, Qt::Key_Return);
  ASSERT_FALSE(asked_.empty());
  std::size_t sites = 0;
  for (const auto& a : asked_.back().assignments) {
    EXPECT_EQ(a.spec->bits, 8);
    sites += a.sites.size();
  }
  EXPECT_EQ(sites, 2u);
}

TEST_F(InspectorTest, AnIllegalChoiceIsSaidAtItsFieldAndAsksForNothing) {
  select({"conv2"});
  panel_.set_current_kind(SiteKind::kInput);
  auto* combo = control<QComboBox>("granularity");
  choose(combo, combo->findData(QStringLiteral("channel")));
  EXPECT_TRUE(asked_.empty());
  EXPECT_THAT(field_error("granularity").toStdString(), HasSubstr("granularity is channel"));
}

TEST_F(InspectorTest, OffersOnlyWhatFitsAndSaysWhatDoesNot) {
  select({"conv1"});
  auto* statistic = control<QComboBox>("statistic");
  const int row = statistic->findData(QStringLiteral("max-mean"));
  ASSERT_GE(row, 0);
  // conv1 is per channel; the mean over the channels is one number.
  EXPECT_FALSE(statistic->model()->flags(statistic->model()->index(row, 0)) & Qt::ItemIsEnabled);
  EXPECT_THAT(statistic->itemData(row, Qt::ToolTipRole).toString().toStdString(), HasSubstr("granularity must be tensor"));
}

TEST_F(InspectorTest, AnotherFormatDropsWhatOnlyTheOldOneHad) {
  select({"conv1"});
  auto* format = control<QComboBox>("format");
  choose(format, format->findData(QStringLiteral("float")));
  ASSERT_EQ(asked_.size(), 1u);
  const QuantSpec spec = *asked_[0].assignments.at(0).spec;
  EXPECT_EQ(spec.format, "float");
  EXPECT_FALSE(spec.narrow);
  EXPECT_EQ(check(spec, SiteKind::kWeight), "");
}

TEST_F(InspectorTest, PresetsAndFloat) {
  select({"conv2"});
  auto* presets = panel_.preset_combo();
  const int index = presets->findData(QStringLiteral("int8-weight-per-tensor"));
  ASSERT_GE(index, 0);
  choose(presets, index);
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].assignments[0].spec, PresetLibrary::builtin().find("int8-weight-per-tensor")->spec);
  QTest::mouseClick(panel_.float_button(), Qt::LeftButton);
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_FALSE(asked_[1].assignments[0].spec.has_value());
  p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.weight("conv2")}, std::nullopt));
  select({"conv2"});
  EXPECT_TRUE(panel_.float_button()->isChecked());
  EXPECT_FALSE(panel_.form()->isVisible());
  QTest::mouseClick(panel_.float_button(), Qt::LeftButton);
  ASSERT_EQ(asked_.size(), 3u);
  ASSERT_TRUE(asked_[2].assignments[0].spec.has_value());
  EXPECT_EQ(check(*asked_[2].assignments[0].spec, SiteKind::kWeight), "");
}

TEST_F(InspectorTest, SaysWhyAndOffersWhatFollows) {
  select({"conv2"});
  EXPECT_THAT(panel_.why_text().toStdString(), HasSubstr("Set by rule 1"));
  EXPECT_THAT(panel_.why_text().toStdString(), HasSubstr("Applies to 5 of 9 layers."));
  QSignalSpy reset(&panel_, &InspectorPanel::reset_wanted);
  std::vector<Rule> added;
  QObject::connect(&panel_, &InspectorPanel::rule_added, &panel_, [&](const Rule& r) { added.push_back(r); });
  const auto follow = [&](const char* id) {
    for (auto* label : panel_.findChildren<QLabel*>())
      if (label->text().contains(QStringLiteral("href=\"%1\"").arg(QLatin1String(id)))) {
        Q_EMIT label->linkActivated(QLatin1String(id));
        return true;
      }
    return false;
  };
  EXPECT_FALSE(follow("reset")) << "a general rule is not this layer's own";
  ASSERT_TRUE(follow("type"));
  ASSERT_EQ(added.size(), 1u);
  EXPECT_EQ(added[0].select.ops, std::vector<std::string>{"Conv"});
  EXPECT_EQ(added[0].select.sites, std::vector<SiteKind>{SiteKind::kWeight});
  EXPECT_EQ(rule_spec(added[0], PresetLibrary::builtin()).value(), p_.spec(p_.weight("conv2")));
  set_bits("conv2", 2);
  select({"conv2"});
  ASSERT_TRUE(follow("reset"));
  EXPECT_EQ(reset.count(), 1);
}

TEST_F(InspectorTest, LimitsSetByHandCanBeTakenBack) {
  QuantSpec spec = p_.spec(p_.weight("conv2"));
  spec.granularity = Granularity::kTensor;
  spec.clip_min = -0.5;
  spec.clip_max = 0.5;
  p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.weight("conv2")}, spec));
  select({"conv2"});
  auto* statistic = control<QComboBox>("statistic");
  choose(statistic, statistic->findData(QStringLiteral("mse")));
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_FALSE(asked_[0].assignments[0].spec->clip_min);
  EXPECT_FALSE(asked_[0].assignments[0].spec->clip_max);
  EXPECT_EQ(asked_[0].assignments[0].spec->statistic, Statistic::kMse);
}

TEST_F(InspectorTest, NothingSelectedOrNothingToQuantizeIsHarmless) {
  select({});
  EXPECT_EQ(panel_.title(), QStringLiteral("Inspector"));
  select({"flatten"});
  EXPECT_EQ(panel_.title(), QStringLiteral("Inspector"));
  EXPECT_TRUE(asked_.empty());
}

}  // namespace
}  // namespace quanvas
