// One of several sites of a kind: gates of an LSTM, what lies inside it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QComboBox>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTabBar>
#include <QTest>
#include <QToolButton>

#include "core/graph/canonical.h"
#include "widgets/forms/field_editor.h"
#include "widgets/forms/schema_form.h"
#include "widgets/panels/inspector_panel.h"

namespace quanvas {
namespace {

class SitesOfAnLstm : public testing::Test {
 protected:
  SitesOfAnLstm() {
    GraphBuilder b;
    auto weights = std::make_shared<WeightStore>();
    const auto weight = [&](const std::string& name, const Shape& shape) {
      b.initializer(name, DataType::kFloat, shape);
      weights->set(name, TensorData::of_floats(shape, std::vector<float>(static_cast<std::size_t>(element_count(shape)), 0.5f)));
    };
    b.tensor("x", DataType::kFloat, Shape{8, 1, 4});
    b.input("x");
    weight("w", {1, 24, 4});
    weight("r", {1, 24, 6});
    b.tensor("y", DataType::kFloat, Shape{8, 1, 1, 6});
    b.node("lstm", "LSTM", {"x", "w", "r"}, {"y"}, {{"hidden_size", std::int64_t{6}}});
    b.output("y");
    graph_ = canonical({b.build().value(), weights, "test"}).value().graph;
    layers_ = find_layers(*graph_);
    set(uniform_recipe(8, 8));
    panel_.resize(300, 700);
    panel_.show();
    QObject::connect(&panel_, &InspectorPanel::assign, &panel_,
                     [this](const std::vector<Assignment>& a, const QString&, const QString&) { asked_ = a; });
    show();
  }
  void set(const Recipe& recipe) {
    recipe_ = recipe;
    plan_ = resolve(*graph_, recipe_, PresetLibrary::builtin()).value();
  }
  void show() { panel_.set_state(inspector_state(*graph_, layers_, recipe_, plan_, {}, {layers_.at(0).node})); }
  // By keyboard, as the list is walked.
  void choose(const char* name) {
    auto* combo = panel_.site_combo();
    const int wanted = combo->findText(QLatin1String(name));
    ASSERT_GE(wanted, 0) << name;
    combo->setFocus();
    QTest::keyClick(combo, Qt::Key_Home);
    while (combo->currentIndex() < wanted) QTest::keyClick(combo, Qt::Key_Down);
    ASSERT_EQ(combo->currentText(), QLatin1String(name));
  }
  int bits() const { return panel_.form()->editor("bits")->findChild<QSpinBox*>()->value(); }
  void set_bits(int bits) {
    panel_.form()->editor("bits")->findChild<QSpinBox*>()->setValue(bits);
    set(with_assignments(recipe_, *graph_, asked_));
    show();
  }
  int bits_of(SiteKind kind, int operand) const {
    const SitePlan* p = plan_.find({layers_[0].node, kind, operand});
    return p && p->spec ? p->spec->bits : 0;
  }

  GraphPtr graph_;
  std::vector<Layer> layers_;
  Recipe recipe_;
  Plan plan_;
  InspectorPanel panel_;
  std::vector<Assignment> asked_;
};

TEST_F(SitesOfAnLstm, AreChosenOneByOneOrTogether) {
  EXPECT_EQ(panel_.site_combo()->count(), 9);
  EXPECT_EQ(panel_.site_combo()->currentText(), QStringLiteral("All 8"));
  EXPECT_EQ(bits(), 8);
  choose("Weight forget gate of the input");
  set_bits(4);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(bits_of(SiteKind::kWeight, i), i == 2 ? 4 : 8) << i;
  EXPECT_EQ(panel_.site_combo()->currentText(), QStringLiteral("Weight forget gate of the input")) << "an edit leaves the choice";
  EXPECT_EQ(bits(), 4);
  choose("All 8");
  set_bits(3);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(bits_of(SiteKind::kWeight, i), 3) << i;
  // Other kinds are untouched, and have names of their own.
  EXPECT_EQ(bits_of(SiteKind::kInput, 0), 8);
  panel_.set_current_kind(SiteKind::kInput);
  EXPECT_EQ(panel_.site_combo()->currentText(), QStringLiteral("All 2"));
  EXPECT_GE(panel_.site_combo()->findText(QStringLiteral("Hidden state")), 0);
  panel_.set_current_kind(SiteKind::kOutput);
  EXPECT_FALSE(panel_.site_combo()->isVisible());
}

TEST_F(SitesOfAnLstm, WhatLiesInsideStartsFloatAndTakesAFormat) {
  panel_.set_current_kind(SiteKind::kInternal);
  ASSERT_EQ(panel_.current_kind(), SiteKind::kInternal);
  EXPECT_EQ(panel_.tabs()->tabText(panel_.tabs()->currentIndex()), QStringLiteral("Inside"));
  choose("Cell state");
  panel_.float_button()->click();
  set(with_assignments(recipe_, *graph_, asked_));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(bits_of(SiteKind::kInternal, i), i == 8 ? 8 : 0) << i;
}

}  // namespace
}  // namespace quanvas
