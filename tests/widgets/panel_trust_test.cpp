// How a model file is read: trust in its code, and its quantizers.
#include <gtest/gtest.h>

#include <QDialogButtonBox>
#include <QLabel>
#include <QPushButton>
#include <QRadioButton>
#include <QSignalSpy>
#include <QTableWidget>
#include <QTest>

#include "widgets/models/table_text.h"
#include "widgets/panels/quantizers_dialog.h"
#include "widgets/panels/trust_dialog.h"

namespace quanvas {
namespace {

TEST(LocalTimeText, SaysAStoredTimeAsTheComputerDoes) {
  const QString text = local_time_text("2026-03-01T12:34:56Z");
  EXPECT_TRUE(text.contains(QStringLiteral("34"))) << text.toStdString();
  EXPECT_FALSE(text.contains(u'T')) << text.toStdString();
  EXPECT_EQ(local_time_text("yesterday"), QStringLiteral("yesterday"));
}

QPushButton* button(QDialog& dialog, const char* text) {
  for (auto* b : dialog.findChildren<QPushButton*>())
    if (b->text().remove(u'&') == QLatin1String(text)) return b;
  return nullptr;
}

bool says(QDialog& dialog, const char* text) {
  for (const auto* label : dialog.findChildren<QLabel*>())
    if (label->isVisible() && label->text().contains(QString::fromUtf8(text))) return true;
  return false;
}

TEST(TrustDialog, TakesBackWhatIsSelected) {
  TrustDialog dialog;
  dialog.show();
  EXPECT_TRUE(says(dialog, "No file's code is trusted."));
  dialog.set_models({{std::string(64, 'a'), "2026-03-01T12:34:56Z", "/models/m.ts"}, {std::string(64, 'b'), "", ""}});
  EXPECT_FALSE(says(dialog, "No file's code is trusted."));
  ASSERT_EQ(dialog.table()->rowCount(), 2);
  EXPECT_EQ(dialog.table()->item(0, 0)->text(), QStringLiteral("/models/m.ts"));
  EXPECT_EQ(dialog.table()->item(1, 0)->text(), QStringLiteral("not known"));
  EXPECT_EQ(dialog.table()->item(0, 2)->text(), QStringLiteral("aaaaaaaaaaaa"));
  QPushButton* revoke = button(dialog, "Take back");
  ASSERT_NE(revoke, nullptr);
  EXPECT_FALSE(revoke->isEnabled()) << "nothing is selected";
  QSignalSpy wanted(&dialog, &TrustDialog::revoke_wanted);
  QTest::mouseClick(dialog.table()->viewport(), Qt::LeftButton, {}, dialog.table()->visualItemRect(dialog.table()->item(1, 0)).center());
  QTest::mouseClick(revoke, Qt::LeftButton);
  ASSERT_EQ(wanted.size(), 1);
  EXPECT_EQ(wanted[0][0].toStringList(), QStringList(QString(64, u'b')));
  dialog.set_problem(QStringLiteral("The disk is full."));
  EXPECT_TRUE(says(dialog, "The disk is full."));
  dialog.set_models({});
  EXPECT_TRUE(says(dialog, "No file's code is trusted."));
  EXPECT_FALSE(revoke->isEnabled());
}

TEST(QuantizersDialog, OpensTheOtherChoiceOnly) {
  for (const auto now : {FileQuantizers::kRules, FileQuantizers::kNodes}) {
    QuantizersDialog dialog(now);
    dialog.show();
    const bool rules = now == FileQuantizers::kRules;
    EXPECT_EQ(dialog.rules()->isChecked(), rules);
    QPushButton* open = button(dialog, "Open");
    ASSERT_NE(open, nullptr);
    EXPECT_FALSE(open->isEnabled()) << "that is what is open";
    QSignalSpy wanted(&dialog, &QuantizersDialog::wanted);
    QTest::mouseClick(rules ? dialog.nodes() : dialog.rules(), Qt::LeftButton, {}, QPoint(8, 8));
    QTest::mouseClick(open, Qt::LeftButton);
    ASSERT_EQ(wanted.size(), 1);
    EXPECT_EQ(wanted[0][0].value<FileQuantizers>(), rules ? FileQuantizers::kNodes : FileQuantizers::kRules);
    EXPECT_FALSE(dialog.isVisible());
  }
}

}  // namespace
}  // namespace quanvas
