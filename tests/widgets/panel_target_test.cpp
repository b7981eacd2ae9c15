// The panel of the target lens: an answer in two stages, without flicker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QComboBox>
#include <QLabel>
#include <QScrollBar>
#include <QTest>
#include <QToolButton>
#include <QTreeWidget>

#include "widgets/panels/target_panel.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

Refusal refusal(const std::string& layer, const char* rule, bool mends = true) {
  QuantSpec fix;
  fix.bits = 4;
  return {layer,
          "weight",
          rule,
          "8 bit",
          "4 bit",
          "Use 4 bits.",
          Site{0, SiteKind::kWeight, 0},
          mends ? std::optional(fix) : std::nullopt,
          false};
}

class TargetPanelTest : public testing::Test {
 protected:
  void SetUp() override {
    panel_.set_targets({{"onnx-qdq", "ONNX QDQ", "doc", {}, {}}});
    panel_.choose(kTarget);
    panel_.resize(500, 240);
    panel_.show();
    for (int i = 0; i < 40; ++i) layers_.insert("fc" + std::to_string(i));
  }
  bool answer(const std::vector<Refusal>& refusals, bool is_whole, const QString& trouble = {}) {
    return panel_.set_refusals(kTarget, refusals, layers_, trouble, is_whole);
  }
  QStringList rows() const {
    QStringList out;
    for (int i = 0; i < panel_.list()->topLevelItemCount(); ++i) out << panel_.list()->topLevelItem(i)->text(0);
    return out;
  }

  const QString kTarget = QStringLiteral("onnx-qdq");
  TargetPanel panel_;
  std::set<std::string> layers_;
};

TEST_F(TargetPanelTest, TheFirstStageShowsAtOnceAndTheSecondAdds) {
  EXPECT_TRUE(answer({refusal("fc1", "bit width")}, false));
  EXPECT_EQ(rows(), QStringList{QStringLiteral("fc1")});
  EXPECT_TRUE(panel_.note().isEmpty()) << "not for what may take a blink";
  ASSERT_TRUE(QTest::qWaitFor([&] { return !panel_.note().isEmpty(); }, 5000));
  EXPECT_TRUE(panel_.fix_all_button()->isEnabled()) << "what is known can be mended";
  EXPECT_TRUE(answer({refusal("fc1", "bit width"), refusal("fc2", "scale", false)}, true));
  EXPECT_EQ(rows(), (QStringList{QStringLiteral("fc1"), QStringLiteral("fc2")}));
  EXPECT_TRUE(panel_.note().isEmpty());
  EXPECT_THAT(panel_.summary().toStdString(), HasSubstr("38 of 40"));
}

TEST_F(TargetPanelTest, WhatIsShownAlreadyIsLeftAlone) {
  std::vector<Refusal> many;
  for (int i = 0; i < 40; ++i) many.push_back(refusal("fc" + std::to_string(i), "bit width"));
  ASSERT_TRUE(answer(many, true));
  auto* bar = panel_.list()->verticalScrollBar();
  ASSERT_TRUE(QTest::qWaitFor([&] { return bar->maximum() > 100; }, 5000));
  bar->setValue(100);
  panel_.list()->setCurrentItem(panel_.list()->topLevelItem(9));
  bar->setValue(100);
  const auto* item = panel_.list()->topLevelItem(9);
  const QRect place = panel_.findChild<QTreeWidget*>()->geometry();
  for (const bool is_whole : {false, true}) {
    EXPECT_FALSE(answer(many, is_whole)) << "nothing new";
    EXPECT_EQ(panel_.list()->topLevelItem(9), item) << "the very rows";
    EXPECT_EQ(bar->value(), 100);
  }
  // One more keeps place and selection.
  many[30].rule = "sign";
  EXPECT_TRUE(answer(many, false));
  EXPECT_EQ(bar->value(), 100);
  ASSERT_EQ(panel_.list()->selectedItems().size(), 1);
  EXPECT_EQ(panel_.list()->selectedItems()[0]->text(0), QStringLiteral("fc9"));
  ASSERT_TRUE(QTest::qWaitFor([&] { return !panel_.note().isEmpty(); }, 5000));
  EXPECT_EQ(panel_.findChild<QTreeWidget*>()->geometry(), place) << "the note has its place from the start";
}

TEST_F(TargetPanelTest, HoldsEverythingIsSaidOnlyWithNumbersAndStaysWhileTheyAreAskedAgain) {
  const auto says = [&](const char* text) {
    for (const auto* label : panel_.findChildren<QLabel*>())
      if (label->isVisible() && label->text().contains(QLatin1String(text))) return true;
    return false;
  };
  answer({}, false);
  EXPECT_FALSE(says("can hold everything"));
  EXPECT_TRUE(says("No format is refused"));
  answer({}, true);
  EXPECT_TRUE(says("can hold everything"));
  answer({}, false);  // another edit
  EXPECT_TRUE(says("can hold everything"));
  answer({refusal("fc1", "scale", false)}, true);
  EXPECT_FALSE(says("can hold everything"));
  EXPECT_EQ(rows(), QStringList{QStringLiteral("fc1")});
}

TEST_F(TargetPanelTest, ForgettingEndsTheNote) {
  answer({}, false);
  ASSERT_TRUE(QTest::qWaitFor([&] { return !panel_.note().isEmpty(); }, 5000));
  panel_.forget();
  EXPECT_TRUE(panel_.note().isEmpty());
  QTest::qWait(TargetPanel::kPatienceMs + 100);
  EXPECT_TRUE(panel_.note().isEmpty());
  EXPECT_TRUE(answer({}, true)) << "the same answer is new again";
  EXPECT_FALSE(panel_.set_refusals(QStringLiteral("other"), {}, {}, {}, true))
      << "of a target that is not looked at";
}

}  // namespace
}  // namespace quanvas
