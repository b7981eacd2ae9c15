// Rare fields of the inspector's form: shown when asked for, open only where they are legal, with the reason where
// not.
#include <QCheckBox>
#include <QSpinBox>
#include <QToolButton>

#include "tests/widgets/inspector_bench.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

class FieldsTest : public InspectorTest {
 protected:
  void show_all() { panel_.form()->set_hide_disabled(false); }
  std::string reason(const char* key) { return panel_.form()->disabled_reason(key).toStdString(); }
  // The weight of conv2 (16×6×5×5) with these fields.
  void give(const json& fields) {
    json j = to_json_value(QuantSpec{});
    j.update(fields);
    p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.weight("conv2")}, from_json_value<QuantSpec>(j).value()));
    select({"conv2"});
  }
};

TEST_F(FieldsTest, TheyAreShownWhenAskedForOrGiven) {
  give({{"granularity", "channel"}});
  for (const char* key : {"axis", "accumulator_bits", "exponent_bias"})
    EXPECT_TRUE(panel_.form()->editor(key)->isHidden()) << key;
  give({{"granularity", "channel"}, {"axis", 1}});
  EXPECT_FALSE(panel_.form()->editor("axis")->isHidden());
  EXPECT_EQ(control<QLineEdit>("axis")->text(), QStringLiteral("1"));
  for (auto* b : panel_.findChildren<QToolButton*>())
    if (b->text() == QStringLiteral("All fields")) b->click();
  for (const char* key : {"axis", "accumulator_bits", "exponent_bias"})
    EXPECT_FALSE(panel_.form()->editor(key)->isHidden()) << key;
}

TEST_F(FieldsTest, TheAxisIsOneOfTheTensors) {
  give({{"granularity", "channel"}});
  show_all();
  type("axis", "1");
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].assignments[0].spec->axis, 1);
  EXPECT_EQ(asked_[0].label, QStringLiteral("conv2 weight: Axis 1"));
  apply();
  type("axis", "-1");
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_EQ(asked_[1].assignments[0].spec->axis, -1);
  apply();
  type("axis", "4");
  EXPECT_EQ(asked_.size(), 2u);
  EXPECT_THAT(field_error("axis").toStdString(), HasSubstr("axis is 4; this tensor has 4 axes: 0 … 3"));
  auto* axis = control<QLineEdit>("axis");
  axis->selectAll();
  QTest::keyClick(axis, Qt::Key_Delete);
  QTest::keyClick(axis, Qt::Key_Return);
  ASSERT_EQ(asked_.size(), 3u);
  EXPECT_FALSE(asked_[2].assignments[0].spec->axis) << "empty: the layer's own";
  EXPECT_EQ(asked_[2].label, QStringLiteral("conv2 weight: Axis automatic"));
}

TEST_F(FieldsTest, AnAxisNeedsScalesAlongIt) {
  give({{"granularity", "tensor"}});
  show_all();
  EXPECT_FALSE(control<QLineEdit>("axis")->isEnabled());
  EXPECT_EQ(reason("axis"), "Only when Granularity is Per channel or Per group or Per row.");
  // Of a static activation calibration keeps one axis.
  p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.input("conv2")},
                         from_json_text<QuantSpec>(R"({"granularity":"channel"})", "").value()));
  select({"conv2"});
  panel_.set_current_kind(SiteKind::kInput);
  EXPECT_THAT(reason("axis"), HasSubstr("axis 1 only"));
  p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.input("conv2")},
                         from_json_text<QuantSpec>(R"({"granularity":"channel","source":"dynamic"})", "").value()));
  select({"conv2"});
  EXPECT_EQ(reason("axis"), "");
  type("axis", "0");
  EXPECT_TRUE(asked_.empty());
  EXPECT_THAT(field_error("axis").toStdString(), HasSubstr("axis is 0 with source dynamic"));
}

TEST_F(FieldsTest, TheExponentBiasOfAMinifloat) {
  give({{"format", "float"}});
  show_all();
  EXPECT_EQ(reason("exponent_bias"), "");
  type("exponent_bias", "9");
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].assignments[0].spec->exponent_bias, 9);
  apply();
  type("exponent_bias", "127");
  EXPECT_EQ(asked_.size(), 1u);
  EXPECT_THAT(field_error("exponent_bias").toStdString(), HasSubstr("exponent_bias is 127 with exponent_bits 4"));
  give({{"bits", 4}});
  EXPECT_EQ(reason("exponent_bias"), "Only when Format is Minifloat.");
}

TEST_F(FieldsTest, TheAccumulatorIsOpenWhereItsBoundIsDefined) {
  give({{"granularity", "channel"}, {"narrow", true}});
  show_all();
  EXPECT_EQ(reason("accumulator_bits"), "");
  EXPECT_EQ(reason("accumulator_input_bits"), "Only when Accumulator is 4 … 32 bit.");
  type("accumulator_bits", "16");
  ASSERT_EQ(asked_.size(), 1u);
  EXPECT_EQ(asked_[0].assignments[0].spec->accumulator_bits, 16);
  apply();
  EXPECT_EQ(reason("accumulator_input_bits"), "");
  auto* bits = control<QSpinBox>("accumulator_input_bits");
  bits->setFocus();
  bits->selectAll();
  QTest::keyClicks(bits, QStringLiteral("4"));
  QTest::keyClick(bits, Qt::Key_Return);
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_EQ(asked_[1].assignments[0].spec->accumulator_input_bits, 4);
  apply();
  EXPECT_FALSE(control<QCheckBox>("zero_centered")->isEnabled()) << "only with a second scale";
  type("accumulator_bits", "33");
  EXPECT_EQ(asked_.size(), 2u);
  // A format without the bound takes it away.
  auto* format = control<QComboBox>("format");
  choose(format, format->findData(QStringLiteral("float")));
  ASSERT_EQ(asked_.size(), 3u);
  EXPECT_FALSE(asked_[2].assignments[0].spec->accumulator_bits);

  give({{"granularity", "group"}});
  EXPECT_THAT(reason("accumulator_bits"), HasSubstr("needs granularity channel or tensor, not group"));
  give({{"signed", false}, {"zero_point", "integer"}});
  EXPECT_THAT(reason("accumulator_bits"), HasSubstr("needs format int and signed true"));
}

TEST_F(FieldsTest, AConstantScaleHasAValue) {
  give({{"granularity", "tensor"}});
  show_all();
  EXPECT_EQ(reason("scale_value"), "Only when Scale from is Constant.");
  auto* source = control<QComboBox>("source");
  choose(source, source->findData(QStringLiteral("constant")));
  ASSERT_EQ(asked_.size(), 1u);
  apply();
  type("scale_value", "0.125");
  ASSERT_EQ(asked_.size(), 2u);
  EXPECT_EQ(asked_[1].assignments[0].spec->scale_value, 0.125);
  type("scale_value", "0");
  EXPECT_EQ(asked_.size(), 2u);
  EXPECT_FALSE(field_error("scale_value").isEmpty());
}

TEST_F(FieldsTest, AGroupLongerThanItsAxisIsSaid) {
  give({{"granularity", "group"}, {"group_size", 32}});
  const auto note = [&] {
    for (auto* label : panel_.form()->findChildren<QLabel*>())
      if (!label->isHidden() && label->text().startsWith(QStringLiteral("The axis has")))
        return label->text().toStdString();
    return std::string();
  };
  EXPECT_EQ(note(), "The axis has 6 elements: one group.");
  give({{"granularity", "group"}, {"group_size", 4}});
  EXPECT_EQ(note(), "");
  give({{"granularity", "group"}, {"group_size", 32}, {"axis", 0}});
  EXPECT_EQ(note(), "The axis has 16 elements: one group.");
  select({"fc1"});
  EXPECT_EQ(note(), "");
}

TEST_F(FieldsTest, TheChipOfAGroupIsThatOfItsAxis) {
  give({{"bits", 4}, {"granularity", "group"}, {"group_size", 32}});
  const auto chip = [&](const char* name) {
    for (const auto& row : sample::rows(p_))
      if (row.node == p_.id(name)) return row.weight.chip.toStdString();
    return std::string();
  };
  EXPECT_EQ(chip("conv2"), "W4 g6");
  p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.weight("fc1")}, p_.spec(p_.weight("conv2"))));
  EXPECT_EQ(chip("fc1"), "W4 g32");
}

}  // namespace
}  // namespace quanvas
