// The generated form: one editor per type of field, defaults, conditions with their reason, errors, mixed values.
#include <gtest/gtest.h>

#include <QCheckBox>
#include <QComboBox>
#include <QLineEdit>
#include <QShortcut>
#include <QSpinBox>
#include <QTest>
#include <QToolButton>

#include "widgets/forms/field_editor.h"
#include "widgets/forms/schema_form.h"

namespace quanvas {
namespace {

Field with_unit(Field field, const char* unit) {
  field.unit = unit;
  return field;
}

Schema schema() {
  Field empty = real_field("limit", "Limit", "May be empty.", 0, 0, 10);
  empty.default_value = nullptr;
  return {{bool_field("on", "On", "", false), when(integer_field("count", "Count", "How many.", 5, 1, 9), "on", {true}),
           real_field("rate", "Rate", "", 0.5, 0, 1), choice_field("how", "How", "", "b", {{"a", "First", ""}, {"b", "Second", ""}}),
           text_field("note", "Note", "", "x"), text_field("folder", "Folder", "", ""), empty,
           integer_field("big", "Big", "", 5000000000, 0, 1e12), with_unit(integer_field("batch", "Batch", "", 128, 1, 4096), "samples")}};
}

class FormTest : public testing::Test {
 protected:
  FormTest() {
    form_.set_schema(schema());
    form_.resize(400, 400);
    form_.show();
    QObject::connect(&form_, &SchemaForm::edited, &form_, [this](const QString& key, const json& value, bool) { edits_.emplace_back(key.toStdString(), value); });
  }
  template <class T>
  T* control(const char* key) {
    return form_.editor(key)->findChild<T*>();
  }
  void type(const char* key, const char* text) {
    auto* edit = control<QLineEdit>(key);
    edit->setFocus();
    edit->selectAll();
    edit->insert(QString::fromUtf8(text));  // as a paste: keys know ASCII only
    QTest::keyClick(edit, Qt::Key_Return);
  }
  SchemaForm form_;
  std::vector<std::pair<std::string, json>> edits_;
};

TEST_F(FormTest, RefusedChoicesCannotBePickedAndSayWhy) {
  form_.set_refusal([](const std::string& key, const json& value) {
    return key == "how" && value == "a" ? QStringLiteral("First needs more.") : QString();
  });
  auto* how = control<QComboBox>("how");
  EXPECT_FALSE(how->model()->flags(how->model()->index(0, 0)) & Qt::ItemIsEnabled);
  EXPECT_EQ(how->itemData(0, Qt::ToolTipRole).toString(), QStringLiteral("Not now: First needs more."));
  EXPECT_TRUE(how->model()->flags(how->model()->index(1, 0)) & Qt::ItemIsEnabled);
  how->setFocus();
  QTest::keyClick(how, Qt::Key_Up);
  EXPECT_EQ(how->currentText(), QStringLiteral("Second"));
  EXPECT_TRUE(edits_.empty());
  form_.set_refusal([](const std::string&, const json&) { return QString(); });
  QTest::keyClick(how, Qt::Key_Up);
  EXPECT_EQ(how->currentText(), QStringLiteral("First"));
}

TEST_F(FormTest, RareFieldsShowWhenAskedForOrNotAtTheirDefault) {
  form_.set_hide_disabled(true);
  form_.set_advanced({"rate"});
  EXPECT_FALSE(form_.editor("rate")->isVisible());
  form_.set_values({{"rate", 0.25}});
  EXPECT_TRUE(form_.editor("rate")->isVisible());
  form_.set_values({});
  EXPECT_FALSE(form_.editor("rate")->isVisible());
  form_.set_hide_disabled(false);
  EXPECT_TRUE(form_.editor("rate")->isVisible());
}

TEST_F(FormTest, StartsWithTheDefaults) {
  EXPECT_EQ(form_.values(), schema().defaults());
  EXPECT_EQ(control<QComboBox>("how")->currentText(), QStringLiteral("Second"));
  EXPECT_EQ(control<QLineEdit>("big")->text(), QStringLiteral("5000000000"));
  EXPECT_NE(control<QToolButton>("folder"), nullptr) << "a folder can be browsed for";
  EXPECT_EQ(control<QToolButton>("note"), nullptr);
}

TEST_F(FormTest, AConditionDisablesWithTheReason) {
  EXPECT_FALSE(form_.editor("count")->isEnabled());
  EXPECT_EQ(form_.disabled_reason("count"), QStringLiteral("Only when On is on."));
  EXPECT_TRUE(form_.editor("count")->toolTip().contains(QStringLiteral("Only when On is on.")));
  auto* box = control<QCheckBox>("on");
  QTest::mouseClick(box, Qt::LeftButton, {}, QPoint(8, box->height() / 2));
  EXPECT_TRUE(form_.editor("count")->isEnabled());
  EXPECT_EQ(edits_, (std::vector<std::pair<std::string, json>>{{"on", true}}));
  form_.set_values({{"on", false}});
  form_.set_hide_disabled(true);
  EXPECT_FALSE(form_.editor("count")->isVisible());
}

TEST_F(FormTest, NumbersAreCheckedAtTheirField) {
  struct Row {
    const char *key, *text;
    json value;  // discarded: refused
  };
  const json refused = json::value_t::discarded;
  const Row rows[] = {{"rate", "0.25", 0.25}, {"rate", "1.5", refused}, {"rate", "abc", refused}, {"rate", "nan", refused},
                      {"rate", "inf", refused}, {"rate", "", refused},  {"limit", "", nullptr},   {"limit", "3", 3.0},
                      {"limit", "−1", refused}, {"big", "7", 7},        {"big", "7.5", refused}};
  for (const auto& row : rows) {
    SCOPED_TRACE(std::string(row.key) + " " + row.text);
    edits_.clear();
    form_.clear_errors();
    if (std::string(row.text).empty()) {
      auto* edit = control<QLineEdit>(row.key);
      edit->setText(QStringLiteral("1"));
      edit->setFocus();
      edit->selectAll();
      QTest::keyClick(edit, Qt::Key_Delete);
      QTest::keyClick(edit, Qt::Key_Return);
    } else {
      type(row.key, row.text);
    }
    if (row.value.is_discarded()) {
      EXPECT_TRUE(edits_.empty());
      EXPECT_TRUE(form_.has_errors());
    } else {
      ASSERT_EQ(edits_.size(), 1u);
      EXPECT_EQ(edits_[0].second, row.value);
      EXPECT_FALSE(form_.has_errors());
    }
  }
}

TEST_F(FormTest, ANumberTypedBeforeItsUnitIsTaken) {
  struct Row {
    const char* text;
    Qt::Key end;
    json value;  // discarded: as before
  };
  const Row rows[] = {{"64", Qt::Key_Return, 64}, {"32", Qt::Key_Tab, 32}, {"6x4", Qt::Key_Return, 64}, {"9999", Qt::Key_Return, 999}};
  form_.activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(&form_));
  auto* spin = control<QSpinBox>("batch");
  EXPECT_EQ(spin->text(), QStringLiteral("128 samples"));
  for (const auto& row : rows) {
    SCOPED_TRACE(row.text);
    edits_.clear();
    spin->setFocus();
    spin->selectAll();
    QTest::keyClicks(spin, QString::fromUtf8(row.text));
    QTest::keyClick(spin, row.end);
    EXPECT_EQ(form_.values()["batch"], row.value);
    EXPECT_EQ(spin->text(), QStringLiteral("%1 samples").arg(row.value.get<int>()));
    ASSERT_EQ(edits_.size(), 1u);
  }
  form_.set_values({{"batch", 8}}, {"batch"});
  EXPECT_EQ(spin->text(), QStringLiteral("mixed"));
  spin->setFocus();
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("8"));
  QTest::keyClick(spin, Qt::Key_Return);
  EXPECT_EQ(form_.values()["batch"], 8) << "the number that was there below 'mixed'";
  EXPECT_EQ(spin->text(), QStringLiteral("8 samples"));
  form_.set_values({{"batch", 4000}});
  EXPECT_EQ(spin->text(), QStringLiteral("4,000 samples"));
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("1,234"));
  QTest::keyClick(spin, Qt::Key_Return);
  EXPECT_EQ(form_.values()["batch"], 1234);
}

TEST_F(FormTest, AZeroThatMeansAllSaysSo) {
  form_.set_schema({{integer_field("samples", "Samples", "Of the training split; 0: all.", 0, 0, 1e9, "samples")}});
  auto* spin = control<QSpinBox>("samples");
  EXPECT_EQ(spin->text(), QStringLiteral("all"));
  spin->setFocus();
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("6000"));
  QTest::keyClick(spin, Qt::Key_Return);
  EXPECT_EQ(form_.values()["samples"], 6000);
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("0"));
  QTest::keyClick(spin, Qt::Key_Return);
  EXPECT_EQ(form_.values()["samples"], 0);
  EXPECT_EQ(spin->text(), QStringLiteral("all"));
}

TEST(SchemaFormTest, CanGoWhileANumberIsBeingTyped) {
  auto form = std::make_unique<SchemaForm>();
  form->set_schema(schema());
  form->show();
  auto* spin = form->editor("batch")->findChild<QSpinBox*>();
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("3"));
  form.reset();
}

TEST_F(FormTest, UndoBelongsToTheWindowOnceANumberIsTaken) {
  QShortcut undo(QKeySequence::Undo, &form_);
  int undone = 0;
  QObject::connect(&undo, &QShortcut::activated, &form_, [&] { ++undone; });
  form_.activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(&form_));
  for (const char* key : {"batch", "rate"}) {
    SCOPED_TRACE(key);
    undone = 0;
    auto* field = form_.editor(key)->focus_widget();
    field->setFocus();
    control<QLineEdit>(key)->selectAll();
    QTest::keyClicks(field, QStringLiteral("1"));
    QTest::keyClick(field, Qt::Key_Z, Qt::ControlModifier);
    EXPECT_EQ(undone, 0) << "what is being typed is the field's own";
    QTest::keyClicks(field, QStringLiteral("1"));
    QTest::keyClick(field, Qt::Key_Return);
    QTest::keyClick(field, Qt::Key_Z, Qt::ControlModifier);
    EXPECT_EQ(undone, 1);
  }
}

TEST_F(FormTest, MixedFieldsAreLeftOutUntilTheyAreEdited) {
  form_.set_values({{"on", true}, {"count", 3}}, {"count", "how"});
  EXPECT_EQ(control<QSpinBox>("count")->text(), QStringLiteral("mixed"));
  EXPECT_EQ(control<QComboBox>("how")->currentIndex(), -1);
  EXPECT_FALSE(form_.values().contains("count"));
  EXPECT_FALSE(form_.values().contains("how"));
  control<QSpinBox>("count")->stepBy(1);
  EXPECT_EQ(form_.values()["count"], 4);
}

TEST_F(FormTest, ValuesOfTheWrongTypeShowTheDefault) {
  form_.set_values({{"on", "yes"}, {"count", "many"}, {"rate", json::array()}, {"how", 3}, {"note", nullptr}, {"unknown", 1}});
  EXPECT_FALSE(control<QCheckBox>("on")->isChecked());
  EXPECT_EQ(control<QSpinBox>("count")->value(), 5);
  EXPECT_EQ(control<QComboBox>("how")->currentText(), QStringLiteral("Second"));
  EXPECT_FALSE(form_.values().contains("unknown"));
}

TEST_F(FormTest, ASchemaThatDependsOnItselfEnds) {
  Schema loop{{when(bool_field("a", "A", "", false), "b", {true}), when(bool_field("b", "B", "", false), "a", {true})}};
  form_.set_schema(loop);
  EXPECT_FALSE(form_.disabled_reason("a").isEmpty());
}

}  // namespace
}  // namespace quanvas
