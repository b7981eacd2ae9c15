// The whole window with a real engine: open, select, edit, undo, run; skipped where the engine is not built.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QComboBox>
#include <QDockWidget>
#include <QDropEvent>
#include <QFileInfo>
#include <QLabel>
#include <QMimeData>
#include <QLineEdit>
#include <QSettings>
#include <QSlider>
#include <QSpinBox>
#include <QTableView>
#include <QTemporaryDir>
#include <QTest>

#include "app/window/docks.h"
#include "app/window/views.h"
#include "core/base/files.h"
#include "tests/app/window/window_support.h"
#include "widgets/forms/field_editor.h"
#include "widgets/forms/schema_form.h"
#include "widgets/panels/rule_dialog.h"
#include "widgets/panels/shapes_dialog.h"
#include "widgets/panels/sweep_dialog.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

TEST_F(WindowTest, StartsEmptyAndSaysWhatToDo) {
  build();
  EXPECT_FALSE(window_->shows_project());
  EXPECT_THAT(window_->start_page()->text().toStdString(), HasSubstr("Drop an ONNX file here"));
  for (const char* id : {"run", "calibrate", "train", "sweep", "export", "save-copy", "undo", "redo", "cancel"})
    EXPECT_FALSE(window_->actions().at(QLatin1String(id))->isEnabled()) << id;
  EXPECT_EQ(window_->actions().at(QStringLiteral("run"))->toolTip(), QStringLiteral("Open a model first."));
}

TEST_F(WindowTest, ADroppedFileIsOpened) {
  build();
  QString wanted;
  QObject::connect(window_.get(), &MainWindow::open_wanted, window_.get(), [&](const QString& p) { wanted = p; });
  QMimeData data;
  data.setUrls({QUrl::fromLocalFile(QStringLiteral("/tmp/a model.onnx"))});
  // A drop goes to the widget that accepted the drag before it.
  QDragEnterEvent enter(QPoint(10, 10), Qt::CopyAction, &data, Qt::LeftButton, Qt::NoModifier);
  QCoreApplication::sendEvent(window_.get(), &enter);
  EXPECT_TRUE(enter.isAccepted());
  QDropEvent event(QPointF(10, 10), Qt::CopyAction, &data, Qt::LeftButton, Qt::NoModifier);
  QCoreApplication::sendEvent(window_.get(), &event);
  EXPECT_EQ(wanted, QStringLiteral("/tmp/a model.onnx"));
}

TEST_F(WindowTest, ABrokenLayoutGivesTheDefault) {
  build();
  QSettings settings;
  settings.setValue(QStringLiteral("window/state-v2"), QByteArray("no layout at all"));
  window_->docks()->restore_last();
  for (auto* dock : window_->findChildren<QDockWidget*>()) EXPECT_FALSE(dock->isFloating()) << dock->objectName().toStdString();
  EXPECT_TRUE(window_->panels().layers->isVisibleTo(window_.get()));
  settings.remove(QStringLiteral("window/state-v2"));
}

TEST_F(WindowTest, AFileThatIsNoModelIsSaidOnTheStartPage) {
  if (!QFileInfo::exists(QString::fromUtf8(qgetenv("QUANVAS_ENGINE")))) GTEST_SKIP() << "the engine is not built";
  build();
  const QString path = folder_.filePath(QStringLiteral("broken.onnx"));
  ASSERT_TRUE(write_file_atomically(path.toStdString(), "this is no model"));
  session_->start();
  QString failure;
  QObject::connect(wiring_.get(), &Wiring::open_failed, window_.get(), [&](const QString& s) { failure = s; });
  Q_EMIT window_->open_wanted(path);
  ASSERT_TRUE(wait_for([&] { return !failure.isEmpty(); }));
  EXPECT_THAT(failure.toStdString(), HasSubstr("broken.onnx"));
  EXPECT_FALSE(window_->shows_project());
}

TEST_F(WindowTest, SelectionIsOneThingInAllViews) {
  open();
  if (IsSkipped()) return;
  const auto& panels = window_->panels();
  panels.layers->set_selection({});
  panels.graph->set_selection({});
  wiring_->select({node("conv2")});
  EXPECT_EQ(panels.graph->selection(), std::vector<NodeId>{node("conv2")});
  EXPECT_EQ(panels.layers->selection(), std::vector<NodeId>{node("conv2")});
  EXPECT_EQ(panels.inspector->title(), QStringLiteral("conv2"));
  auto* table = panels.layers->table();
  QTest::mouseClick(table->viewport(), Qt::LeftButton, {}, table->visualRect(table->model()->index(0, 0)).center());
  EXPECT_EQ(panels.graph->selection(), panels.layers->selection());
  EXPECT_EQ(wiring_->selection(), panels.layers->selection());
  ASSERT_TRUE(wait_for([&] { return panels.distribution->chart()->histogram().has_value(); }));
}

TEST_F(WindowTest, AnEditIsRepaintedMergedAndUndone) {
  open();
  if (IsSkipped()) return;
  const auto before = weight("conv2");
  ASSERT_TRUE(before);
  wiring_->select({node("conv2")});
  auto* slider = window_->panels().inspector->form()->editor("bits")->findChild<QSlider*>();
  ASSERT_TRUE(slider);
  const int steps = session_->undo_stack()->count();
  slider->setFocus();
  for (int i = 0; i < 2; ++i) QTest::keyClick(slider, Qt::Key_Right);
  EXPECT_EQ(weight("conv2")->bits, before->bits + 2);
  EXPECT_EQ(session_->undo_stack()->count(), steps + 1) << "one drag, one step";
  ASSERT_TRUE(wait_for([&] { return wiring_->settled(); }));
  EXPECT_THAT(window_->panels().inspector->facts_text().toStdString(), HasSubstr("SQNR of the weight"));
  window_->actions().at(QStringLiteral("undo"))->trigger();
  EXPECT_EQ(weight("conv2"), before);
  window_->actions().at(QStringLiteral("redo"))->trigger();
  EXPECT_EQ(weight("conv2")->bits, before->bits + 2);
}

TEST_F(WindowTest, BitsThatWereTypedAreUndoneFromTheirField) {
  open();
  if (IsSkipped()) return;
  wiring_->select({node("conv2")});
  window_->activateWindow();
  ASSERT_TRUE(QTest::qWaitForWindowActive(window_.get()));
  auto* spin = window_->panels().inspector->form()->editor("bits")->findChild<QSpinBox*>();
  ASSERT_TRUE(spin);
  spin->setFocus();
  spin->selectAll();
  QTest::keyClicks(spin, QStringLiteral("6"));
  QTest::keyClick(spin, Qt::Key_Return);
  EXPECT_EQ(weight("conv2")->bits, 6);
  QTest::keyClick(spin, Qt::Key_Z, Qt::ControlModifier);
  EXPECT_EQ(weight("conv2")->bits, 4);
}

TEST_F(WindowTest, DraggedLimitsAreOneStepPerDrag) {
  open();
  if (IsSkipped()) return;
  wiring_->select({node("conv2")});
  QuantSpec spec = *weight("conv2");
  spec.granularity = Granularity::kTensor;
  session_->assign({{node("conv2"), SiteKind::kWeight, 0}}, spec, QStringLiteral("per tensor"));
  const int steps = session_->undo_stack()->count();
  auto* panel = window_->panels().distribution;
  const Site site{node("conv2"), SiteKind::kWeight, 0};
  for (int drag = 0; drag < 2; ++drag)
    for (const double t : {0.5, 0.4, 0.3}) Q_EMIT panel->clip_changed(site, -t, t - 0.1 * drag, t == 0.3);
  EXPECT_EQ(session_->undo_stack()->count(), steps + 2);
  EXPECT_DOUBLE_EQ(weight("conv2")->clip_max.value_or(0), 0.2);
}

TEST_F(WindowTest, APresetForSeveralLayersIsOneStep) {
  open();
  if (IsSkipped()) return;
  const Preset* preset = PresetLibrary::builtin().find("int8-weight-per-tensor");
  ASSERT_TRUE(preset);
  const int steps = session_->undo_stack()->count();
  Q_EMIT window_->panels().layers->format_chosen({node("conv1"), node("fc1")}, SiteKind::kWeight, preset->spec, QStringLiteral("Set"));
  EXPECT_EQ(session_->undo_stack()->count(), steps + 1);
  for (const char* name : {"conv1", "fc1"}) EXPECT_EQ(weight(name), preset->spec);
  wiring_->select({node("conv1")});
  window_->actions().at(QStringLiteral("reset-layer"))->trigger();
  EXPECT_NE(weight("conv1"), preset->spec);
  EXPECT_EQ(weight("fc1"), preset->spec);
}

TEST_F(WindowTest, ARuleFromTheSelectionMeansJustThat) {
  if (!QFileInfo::exists(QString::fromUtf8(qgetenv("QUANVAS_ENGINE")))) GTEST_SKIP() << "the engine is not built";
  const QString path = folder_.filePath(QStringLiteral("names.net.yaml"));
  ASSERT_TRUE(write_file_atomically(path.toStdString(),
                                    "name: names\ninput: [4]\nlayers:\n  - {op: linear, name: 'fc*', out: 4}\n"
                                    "  - {op: linear, name: fcx, out: 4}\n"));
  ASSERT_NO_FATAL_FAILURE(open_file(path));
  Q_EMIT window_->panels().layers->rule_wanted({node("fc*")});
  const auto* dialog = window_->findChild<RuleDialog*>();
  ASSERT_TRUE(dialog);
  EXPECT_EQ(dialog->matches(), 1);
}

TEST_F(WindowTest, ASharedQuantizerIsNamedInARuleKeptByClicksAndTakenApart) {
  open();
  if (IsSkipped()) return;
  const auto& panels = window_->panels();
  const auto share = [&](const char* name) { return session_->plan().find({node(name), SiteKind::kWeight, 0})->share; };
  Q_EMIT panels.layers->rule_wanted({node("conv1"), node("conv2")});
  auto* dialog = window_->findChild<RuleDialog*>();
  ASSERT_TRUE(dialog);
  auto* format = dialog->form()->editor("format")->findChild<QComboBox*>();
  format->setCurrentIndex(format->findData(QStringLiteral("int8-weight-per-tensor")));
  Q_EMIT format->activated(format->currentIndex());
  QTest::keyClicks(dialog->form()->editor("share")->findChild<QLineEdit*>(), QStringLiteral("convs"));
  dialog->accept();
  EXPECT_EQ(share("conv1"), "convs");
  EXPECT_TRUE(session_->facts_are_stale(node("conv2")));
  ASSERT_TRUE(wait_for([&] { return wiring_->settled(); }));
  wiring_->select({node("conv1")});
  EXPECT_THAT(panels.inspector->share_text().toStdString(), HasSubstr("Shared with: conv2 weight"));
  EXPECT_EQ(session_->facts().at(node("conv1")).sites.front().scale_max, session_->facts().at(node("conv2")).sites.front().scale_max);

  QuantSpec six = *weight("conv1");
  six.bits = 6;
  Q_EMIT panels.layers->format_chosen({node("conv1")}, SiteKind::kWeight, six, QStringLiteral("Set"));
  for (const char* name : {"conv1", "conv2"}) {
    EXPECT_EQ(weight(name), six) << name;
    EXPECT_EQ(share(name), "convs") << name;
  }
  const int steps = session_->undo_stack()->count();
  six.granularity = Granularity::kChannel;
  Q_EMIT panels.layers->format_chosen({node("conv1")}, SiteKind::kWeight, six, QStringLiteral("Set"));
  EXPECT_EQ(session_->undo_stack()->count(), steps) << "it cannot be shared";
  EXPECT_THAT(window_->banner()->text().toStdString(), HasSubstr("conv1 shares its quantizer"));

  Q_EMIT panels.inspector->share_wanted({{node("conv1"), SiteKind::kWeight, 0}}, false);
  EXPECT_EQ(share("conv1"), "");
  EXPECT_EQ(panels.inspector->share_text(), QString());
  EXPECT_EQ(weight("conv1")->bits, 6);
  window_->actions().at(QStringLiteral("undo"))->trigger();
  EXPECT_EQ(share("conv1"), "convs");
  ASSERT_TRUE(wait_for([&] { return wiring_->settled(); }));
}

TEST_F(WindowTest, OnlyCellsOfTheSweepThatIsShownAreShown) {
  open();
  if (IsSkipped()) return;
  auto* panel = window_->panels().sweep;
  Q_EMIT panel->start_wanted();
  auto* dialog = window_->findChild<SweepDialog*>();
  ASSERT_TRUE(dialog);
  dialog->accept();
  const auto measure = [&](qint64 job) {
    for (const auto& layer : views::sweep_layers(*session_)) Q_EMIT session_->sweep_cell(job, {layer.node, 4, 20, 20, 0.9, 0.01});
  };
  const qint64 job = session_->jobs().back().id.mid(1).toLongLong();
  measure(job + 1);
  EXPECT_FALSE(panel->predicted_drop());
  measure(job);
  EXPECT_TRUE(panel->predicted_drop());
}

TEST_F(WindowTest, ResultsDoNotMoveTheDocks) {
  open();
  if (IsSkipped()) return;
  window_->resize(1400, 900);
  QApplication::processEvents();
  const auto places = [&] {
    QApplication::processEvents();
    std::map<std::string, QRect> out;
    for (const auto* dock : window_->findChildren<QDockWidget*>())
      if (dock->isVisible()) out[dock->objectName().toStdString()] = dock->geometry();
    return out;
  };
  const auto before = places();
  SweepSettings settings;
  settings.bits = {8, 6, 5, 4, 3, 2};
  window_->panels().sweep->begin(settings);
  EXPECT_EQ(places(), before);
  std::vector<Issue> issues(3, {Severity::kWarning, std::string(200, 'x'), std::string(400, 'y'), "Nothing."});
  window_->panels().issues->set_issues(issues);
  wiring_->select({node("fc1")});
  ASSERT_TRUE(wait_for([&] { return wiring_->settled(); }));
  EXPECT_EQ(places(), before);
}

TEST_F(WindowTest, InputShapesAreGivenInADialogAndHold) {
  if (!QFileInfo::exists(QString::fromUtf8(qgetenv("QUANVAS_ENGINE")))) GTEST_SKIP() << "the engine is not built";
  // y = Relu(x) with x [N, T], as ONNX.
  const std::string bytes(
    "\010\010\072\105\012\022\012\001\170\022\001\171\032\004\162\145\154\165\042\004\122\145\154\165"
    "\022\001\147\132\025\012\001\170\022\020\012\016\010\001\022\012\012\003\022\001\116\012\003\022"
    "\001\124\142\025\012\001\171\022\020\012\016\010\001\022\012\012\003\022\001\116\012\003\022\001"
    "\124\102\002\020\015", 77);
  const QString path = folder_.filePath(QStringLiteral("open.onnx"));
  ASSERT_TRUE(write_file_atomically(path.toStdString(), bytes));
  open_file(path);
  if (HasFatalFailure()) return;
  const auto shape = [&] { return shape_text(*session_->graph()->tensor(session_->graph()->inputs()[0]).shape); };
  EXPECT_EQ(shape(), "?×?");
  window_->actions().at(QStringLiteral("shapes"))->trigger();
  auto* dialog = window_->findChild<ShapesDialog*>();
  ASSERT_NE(dialog, nullptr);
  auto* edit = dialog->findChild<QLineEdit*>(QStringLiteral("x"));
  ASSERT_NE(edit, nullptr);
  EXPECT_EQ(edit->text(), QStringLiteral("?,?"));
  edit->selectAll();
  QTest::keyClicks(edit, QStringLiteral("?,two"));
  QTest::keyClick(edit, Qt::Key_Return);
  EXPECT_TRUE(dialog->isVisible());
  const auto labels = dialog->findChildren<QLabel*>();
  EXPECT_TRUE(std::any_of(labels.begin(), labels.end(), [](const QLabel* l) { return l->isVisible() && l->text().startsWith(QLatin1String("x: 'two' is not a dimension.")); }));
  edit->selectAll();
  QTest::keyClicks(edit, QStringLiteral("?,24"));
  QTest::keyClick(edit, Qt::Key_Return);
  ASSERT_TRUE(wait_for([&] { return shape() == "?×24"; }));
  EXPECT_EQ(session_->state().import.shapes.at("x"), (Shape{-1, 24}));
}

TEST_F(WindowTest, ASweepCellAssignsItsWidth) {
  open();
  if (IsSkipped()) return;
  Q_EMIT window_->panels().sweep->width_chosen(node("fc2"), 3, true, false);
  EXPECT_EQ(weight("fc2")->bits, 3);
  const auto rows = views::sweep_layers(*session_);
  for (const auto& l : rows)
    if (l.name == QStringLiteral("fc2")) EXPECT_EQ(l.weight_bits, 3);
}

}  // namespace
}  // namespace quanvas
