// The inspector over the sample project, and what its edits asked for.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QApplication>
#include <QComboBox>
#include <QLabel>
#include <QLineEdit>
#include <QTest>

#include "tests/widgets/panel_sample.h"
#include "widgets/forms/field_editor.h"
#include "widgets/forms/schema_form.h"
#include "widgets/panels/inspector_panel.h"

namespace quanvas {

struct Asked {
  std::vector<Assignment> assignments;
  QString label, merge_key;
};

class InspectorTest : public testing::Test {
 protected:
  InspectorTest() {
    panel_.resize(300, 700);
    panel_.show();
    QObject::connect(&panel_, &InspectorPanel::assign, &panel_,
                     [this](const std::vector<Assignment>& a, const QString& label, const QString& key) {
                       asked_.push_back({a, label, key});
                     });
  }
  void select(const std::vector<std::string>& names) {
    names_ = names;
    std::vector<NodeId> nodes;
    for (const auto& n : names) nodes.push_back(p_.id(n));
    panel_.set_state(inspector_state(*p_.net.graph, p_.net.layers, p_.recipe, p_.plan, p_.facts, nodes));
  }
  void set_bits(const std::string& name, int bits) {
    QuantSpec spec = p_.spec(p_.weight(name));
    spec.bits = bits;
    p_.set(with_assignment(p_.recipe, *p_.net.graph, {p_.weight(name)}, spec));
  }
  template <class T>
  T* control(const char* key) {
    return panel_.form()->editor(key)->findChild<T*>();
  }
  void choose(QComboBox* combo, int index) {
    combo->setCurrentIndex(index);
    Q_EMIT combo->activated(index);
  }
  QString field_error(const char* key) {
    for (auto* label : panel_.form()->findChildren<QLabel*>())
      if (label->property("role") == QLatin1String("error") && !label->isHidden()) return label->text();
    (void)key;
    return {};
  }
  // A link in one of the panel's sentences.
  bool follow(const char* id) {
    for (auto* label : panel_.findChildren<QLabel*>())
      if (!label->isHidden() && label->text().contains(QStringLiteral("href=\"%1\"").arg(QLatin1String(id)))) {
        Q_EMIT label->linkActivated(QLatin1String(id));
        return true;
      }
    return false;
  }
  void type(const char* key, const char* text) {
    auto* edit = control<QLineEdit>(key);
    edit->setFocus();
    edit->selectAll();
    QTest::keyClicks(edit, QLatin1String(text));
    QTest::keyClick(edit, Qt::Key_Return);
  }
  // The recipe after the newest edit, as the session would have it.
  void apply() {
    p_.set(with_assignments(p_.recipe, *p_.net.graph, asked_.back().assignments));
    select(names_);
  }

  sample::Project p_ = sample::project();
  std::vector<std::string> names_;
  InspectorPanel panel_;
  std::vector<Asked> asked_;
};

}  // namespace quanvas
