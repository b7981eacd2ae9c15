// The target lens: what an export target refuses, mended by a click and undone; the export dialogue with its audit.
#include <gmock/gmock.h>

#include <QComboBox>
#include <QLineEdit>
#include <QListWidget>
#include <QPushButton>
#include <QStandardItemModel>
#include <QTableWidget>
#include <QToolButton>
#include <QTreeWidget>
#include <QUndoStack>

#include "app/window/docks.h"
#include "tests/app/window/window_support.h"
#include "widgets/panels/export_dialog.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

class TargetTest : public WindowTest {
 protected:
  // W4A4 is legal everywhere; here conv1's weight has a fraction as zero point, fc1's input no quantizer of the target.
  void open_with_trouble() {
    open();
    if (IsSkipped()) return;
    QuantSpec odd;
    odd.bits = 4;
    odd.zero_point = ZeroPointType::kFloat;
    odd.zero_point_inside = true;
    odd.statistic = Statistic::kMinMax;
    session_->assign({{node("conv1"), SiteKind::kWeight, 0}}, odd, QStringLiteral("odd"));
    window_->docks()->show_panel(panel());
    auto* targets = panel()->targets();
    targets->setFocus();
    targets->setCurrentIndex(targets->findData(QStringLiteral("onnx-qdq")));
    Q_EMIT targets->activated(targets->currentIndex());
    ASSERT_TRUE(wait_for([&] { return panel()->list()->topLevelItemCount() > 0; }));
  }
  TargetPanel* panel() const { return window_->panels().target; }
  QTreeWidgetItem* row_of(const char* layer) const {
    for (int i = 0; i < panel()->list()->topLevelItemCount(); ++i)
      if (panel()->list()->topLevelItem(i)->text(0) == QLatin1String(layer)) return panel()->list()->topLevelItem(i);
    return nullptr;
  }
  int refused_layers() const {
    int count = 0;
    for (int i = 0; i < panel()->list()->topLevelItemCount(); ++i) count += panel()->list()->topLevelItem(i)->text(0) != QStringLiteral("The model");
    return count;
  }
};

TEST_F(TargetTest, WhatIsRefusedIsMarkedMendedAndUndone) {
  open_with_trouble();
  if (IsSkipped()) return;
  auto* list = panel()->list();
  QTreeWidgetItem* row = row_of("conv1");
  ASSERT_TRUE(row);
  EXPECT_EQ(refused_layers(), 1) << "beside the model as a whole, which is not calibrated";
  EXPECT_THAT(row->text(1).toStdString(), HasSubstr("zero point"));
  EXPECT_THAT(row->text(2).toStdString(), HasSubstr("4 bit"));
  EXPECT_THAT(panel()->summary().toStdString(), HasSubstr("1 can be fixed"));
  EXPECT_THAT(window_->panels().graph->visual(node("conv1")).problem.toStdString(), HasSubstr("zero point"));
  EXPECT_FALSE(window_->panels().graph->visual(node("conv1")).is_hopeless);
  EXPECT_TRUE(window_->panels().graph->visual(node("conv2")).problem.isEmpty());

  // A click on the row selects the layer, a layer selected elsewhere its row.
  EXPECT_FALSE(panel()->fix_button()->isEnabled());
  QTest::mouseClick(list->viewport(), Qt::LeftButton, {}, list->visualItemRect(row).center());
  EXPECT_EQ(wiring_->selection(), std::vector<NodeId>{node("conv1")});
  wiring_->select({node("conv2")});
  EXPECT_TRUE(list->selectedItems().isEmpty());
  wiring_->select({node("conv1")});
  ASSERT_TRUE(panel()->fix_button()->isEnabled());

  const auto before = weight("conv1");
  const int steps = session_->undo_stack()->count();
  QTest::mouseClick(panel()->fix_button(), Qt::LeftButton);
  ASSERT_TRUE(wait_for([&] { return session_->undo_stack()->count() == steps + 1; }));
  ASSERT_TRUE(wait_for([&] { return refused_layers() == 0; }));
  EXPECT_NE(weight("conv1")->zero_point, ZeroPointType::kFloat);
  EXPECT_EQ(weight("conv1")->bits, 4);
  EXPECT_TRUE(window_->panels().graph->visual(node("conv1")).problem.isEmpty());
  EXPECT_FALSE(panel()->fix_all_button()->isEnabled());

  session_->undo_stack()->undo();
  EXPECT_EQ(weight("conv1"), before);
  ASSERT_TRUE(wait_for([&] { return refused_layers() == 1; })) << "asked again with every recipe";
}

// Declarations answer at once; what only numbers know (here that the network is not calibrated) comes when edits rest, and
// stays through the next edit instead of flickering.
TEST_F(TargetTest, NumbersAddToWhatDeclarationsSayAndNothingFlickers) {
  open_with_trouble();
  if (IsSkipped()) return;
  const auto has_model_row = [&] { return row_of("The model") != nullptr; };
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  ASSERT_TRUE(has_model_row());
  ASSERT_TRUE(row_of("conv1"));
  bool was_ever_away = false;
  int answers = 0;
  const auto looking = QObject::connect(session_.get(), &Session::target_looked, panel(), [&] {
    ++answers;
    was_ever_away = was_ever_away || !has_model_row() || !row_of("conv1");
  });
  for (const int bits : {3, 5, 6}) {
    QuantSpec spec = *weight("conv2");
    spec.bits = bits;
    session_->assign({{node("conv2"), SiteKind::kWeight, 0}}, spec, QStringLiteral("width"));
    EXPECT_FALSE(session_->target_is_whole());
    QTest::qWait(40);
  }
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  QObject::disconnect(looking);
  EXPECT_GE(answers, 2) << "at once and with numbers";
  EXPECT_FALSE(was_ever_away);
  EXPECT_TRUE(panel()->note().isEmpty());
}

TEST_F(TargetTest, NoTargetMarksNothing) {
  open_with_trouble();
  if (IsSkipped()) return;
  wiring_->look_at_target({});
  EXPECT_TRUE(window_->panels().graph->visual(node("conv1")).problem.isEmpty());
  EXPECT_EQ(panel()->list()->topLevelItemCount(), 0);
  EXPECT_FALSE(panel()->fix_all_button()->isEnabled());
}

TEST_F(TargetTest, TheDialogueSaysHowManyCanBeMended) {
  open_with_trouble();
  if (IsSkipped()) return;
  window_->actions().at(QStringLiteral("export"))->trigger();
  auto* dialog = window_->findChild<ExportDialog*>();
  ASSERT_TRUE(dialog);
  dialog->select_target(QStringLiteral("onnx-qdq"));
  ASSERT_TRUE(wait_for([&] { return dialog->message().contains(QStringLiteral("conv1")); }));
  EXPECT_THAT(dialog->message().toStdString(), HasSubstr("can be mended with one click"));
  EXPECT_FALSE(dialog->export_button()->isEnabled());
}

TEST_F(TargetTest, AnExportIsWrittenAndItsAuditShown) {
  open();
  if (IsSkipped()) return;
  session_->edit_recipe({}, QStringLiteral("float"));  // needs no data
  window_->actions().at(QStringLiteral("export"))->trigger();
  auto* dialog = window_->findChild<ExportDialog*>();
  ASSERT_TRUE(dialog);
  dialog->select_target(QStringLiteral("onnx"));
  ASSERT_TRUE(wait_for([&] { return dialog->export_button()->isEnabled(); }));
  const QString path = folder_.filePath(QStringLiteral("out.onnx"));
  dialog->path_box()->clear();
  QTest::keyClicks(dialog->path_box(), path);
  QTest::mouseClick(dialog->export_button(), Qt::LeftButton);
  ASSERT_TRUE(wait_for([&] { return dialog->audit()->rowCount() > 0; })) << dialog->message().toStdString();
  EXPECT_TRUE(QFileInfo::exists(path));
  EXPECT_THAT(dialog->message().toStdString(), HasSubstr("Written"));
  EXPECT_THAT(dialog->message().toStdString(), testing::Not(HasSubstr("Exactness"))) << "of a float file nothing is promised";
  EXPECT_TRUE(dialog->audit()->isVisible());
}

}  // namespace
}  // namespace quanvas
