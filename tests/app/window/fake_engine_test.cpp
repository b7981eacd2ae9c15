// The window in front of an engine that the test steers: what it says and asks when the disk is full, what it starts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QMessageBox>
#include <QPushButton>
#include <QRadioButton>
#include <QTableWidget>
#include <QTest>
#include <QTimer>

#include "app/session/session.h"
#include "app/window/main_window.h"
#include "app/window/wiring.h"
#include "core/base/files.h"
#include "tests/app/session/fake_engine.h"
#include "widgets/panels/quantizers_dialog.h"
#include "widgets/panels/train_dialog.h"
#include "widgets/panels/trust_dialog.h"

namespace quanvas {
namespace {

using testing::HasSubstr;

template <class Fn>
bool wait_for(Fn fn) {
  return QTest::qWaitFor(fn, 20000);
}

class SteeredWindow : public testing::Test {
 protected:
  void open() {
    start(test::fake_backend(world_));
    Q_EMIT window_->open_wanted(QStringLiteral("net.onnx"));
    ASSERT_TRUE(wait_for([&] { return window_->shows_project() && session_->facts().size() == 3; }));
  }
  void start(Backend backend) {
    backend.catalog = [] {
      json pass = {{"id", "qat"}, {"title", "QAT"}, {"doc", ""}, {"stage", "training"}};
      return json{{"passes", json::array({pass})}};
    };
    server_ = std::make_unique<Server>(std::move(backend), [] {});
    ASSERT_TRUE(server_->listen(folder_.address()));
    session_ = std::make_unique<Session>(QString::fromStdString(folder_.address()));
    window_ = std::make_unique<MainWindow>(session_->undo_stack());
    window_->keep_layout(false);
    wiring_ = std::make_unique<Wiring>(session_.get(), window_.get());
    window_->show();
    session_->start();
  }
  // An engine that opens nothing without trust; what it was asked with stands in `trusted`.
  Backend wary_backend(std::vector<std::string>& trusted) {
    Backend backend = test::fake_backend(world_);
    auto open = backend.open;
    backend.open = [open, &trusted](const std::string& path, const std::string& project, const ImportOptions& import,
                                    JobContext& job) -> Result<std::unique_ptr<Workbench>> {
      trusted.push_back(import.trusted);
      if (import.trusted.empty()) return fail(ErrorCode::kNeedsTrust, "It holds 3 code files with 120 lines.");
      return open(path, project, import, job);
    };
    return backend;
  }
  QMessageBox* trust_question() {
    QMessageBox* box = nullptr;
    wait_for([&] { return (box = window_->findChild<QMessageBox*>(QStringLiteral("trust-question"))) != nullptr; });
    return box;
  }
  Recipe changed(int bits, SiteKind kind = SiteKind::kWeight, ScaleSource source = ScaleSource::kStatistics) const {
    QuantSpec spec;
    spec.bits = bits;
    spec.source = source;
    return with_assignment(session_->recipe(), *session_->graph(), {{0, kind, 0}}, spec);
  }
  // Closes the window and answers the question with the button of this role; whether there was one.
  bool close_and_answer(QMessageBox::ButtonRole role) {
    bool asked = false;
    QTimer::singleShot(200, window_.get(), [&] {
      auto* box = window_->findChild<QMessageBox*>(QStringLiteral("unstored-question"));
      if (!box) return;
      asked = true;
      for (auto* button : box->buttons())
        if (box->buttonRole(button) == role) return button->click();
    });
    window_->close();
    QTest::qWait(250);
    return asked;
  }
  bool can(const char* action) { return window_->actions().at(QLatin1String(action))->isEnabled(); }

  test::FakeWorld world_;
  test::SocketFolder folder_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<MainWindow> window_;
  std::unique_ptr<Wiring> wiring_;
};

TEST_F(SteeredWindow, EditsThatAreNotStoredAreSaidAndAskedAboutAtTheEnd) {
  open();
  world_.disk_full = true;
  session_->edit_recipe(changed(3), "Set fc1 to 3 bit");
  ASSERT_TRUE(wait_for([&] { return window_->banner()->text().contains(QStringLiteral("disk is full")); }));
  EXPECT_TRUE(close_and_answer(QMessageBox::RejectRole));
  EXPECT_TRUE(window_->isVisible());
  world_.disk_full = false;
  Q_EMIT window_->banner()->action_triggered(QStringLiteral("unstored"));
  ASSERT_TRUE(wait_for([&] { return session_->unstored().isEmpty(); }));
  EXPECT_FALSE(window_->banner()->text().contains(QStringLiteral("disk is full")));
  EXPECT_FALSE(close_and_answer(QMessageBox::RejectRole));
  EXPECT_FALSE(window_->isVisible());
}

TEST_F(SteeredWindow, AnEditThatFailsWhileTheWindowClosesIsAskedAbout) {
  open();
  world_.disk_full = true;
  session_->edit_recipe(changed(3), "Set fc1 to 3 bit");
  EXPECT_TRUE(close_and_answer(QMessageBox::DestructiveRole));
  EXPECT_FALSE(window_->isVisible());
}

TEST_F(SteeredWindow, ACopyThatCannotBeWrittenIsSaid) {
  open();
  session_->save_copy(QStringLiteral("copy.quanvas"));
  EXPECT_TRUE(wait_for([&] { return window_->banner()->text().contains(QStringLiteral("Cannot write 'copy.quanvas'")); }));
}

TEST_F(SteeredWindow, CodeOfAModelIsRunOnlyAfterAYes) {
  std::vector<std::string> trusted;
  start(wary_backend(trusted));
  Q_EMIT window_->open_wanted(QStringLiteral("net.ts.pt"));
  auto* box = trust_question();
  ASSERT_TRUE(box);
  EXPECT_THAT(box->informativeText().toStdString(), HasSubstr("3 code files with 120 lines"));
  EXPECT_EQ(box->defaultButton(), box->button(QMessageBox::Cancel));
  box->button(QMessageBox::Cancel)->click();
  QTest::qWait(100);
  EXPECT_FALSE(window_->shows_project());
  EXPECT_EQ(trusted, std::vector<std::string>{""});

  Q_EMIT window_->open_wanted(QStringLiteral("net.ts.pt"));
  ASSERT_TRUE(wait_for([&] { return trusted.size() == 2; }));
  box = trust_question();
  ASSERT_TRUE(box);
  for (auto* button : box->buttons())
    if (box->buttonRole(button) == QMessageBox::AcceptRole) button->click();
  EXPECT_TRUE(wait_for([&] { return window_->shows_project(); }));
  EXPECT_EQ(trusted, (std::vector<std::string>{"", "", kTrustAny}));
}

TEST_F(SteeredWindow, TheOtherChoiceOfQuantizersOpensInAProjectOfItsOwn) {
  open();
  EXPECT_FALSE(can("quantizers"));
  EXPECT_EQ(window_->actions().at(QStringLiteral("quantizers"))->toolTip(), QStringLiteral("This model's file carries no quantizers."));
  struct Asked {
    std::string path, project;
    FileQuantizers quantizers;
  };
  std::vector<Asked> asked;
  wiring_.reset();
  window_.reset();
  session_.reset();
  server_.reset();
  Backend backend = test::fake_backend(world_);
  backend.open = [&, open = backend.open](const std::string& path, const std::string& project, const ImportOptions& import, JobContext& job) {
    asked.push_back({path, project, import.quantizers});
    world_.import.quantizers = import.quantizers == FileQuantizers::kUnset ? FileQuantizers::kRules : import.quantizers;
    return open(project.empty() ? path : project, project, import, job);
  };
  start(backend);
  Q_EMIT window_->open_wanted(QStringLiteral("/models/tfc.onnx"));
  ASSERT_TRUE(wait_for([&] { return window_->shows_project(); }));
  ASSERT_TRUE(can("quantizers"));
  window_->actions().at(QStringLiteral("quantizers"))->trigger();
  auto* dialog = window_->findChild<QuantizersDialog*>();
  ASSERT_TRUE(dialog);
  EXPECT_TRUE(dialog->rules()->isChecked());
  dialog->nodes()->setChecked(true);
  dialog->accept();
  ASSERT_TRUE(wait_for([&] { return asked.size() == 2 && session_->state().import.quantizers == FileQuantizers::kNodes; }));
  EXPECT_EQ(asked[1].path, "/models/tfc.onnx");
  EXPECT_EQ(asked[1].project, "/models/tfc-nodes.quanvas");
  EXPECT_EQ(asked[1].quantizers, FileQuantizers::kNodes);
}

TEST_F(SteeredWindow, TrustIsListedAndTakenBack) {
  const QByteArray home = qgetenv("XDG_DATA_HOME");
  qputenv("XDG_DATA_HOME", (folder_.path() / "home").c_str());
  std::filesystem::create_directories(user_data_dir());
  remember_trust(std::string(64, 'a'), "/models/a.ts");
  remember_trust(std::string(64, 'b'), "/models/b.ts");
  open();
  window_->actions().at(QStringLiteral("trusted"))->trigger();
  auto* dialog = window_->findChild<TrustDialog*>();
  ASSERT_TRUE(dialog);
  ASSERT_TRUE(wait_for([&] { return dialog->table()->rowCount() == 2; }));
  QTest::mouseClick(dialog->table()->viewport(), Qt::LeftButton, {}, dialog->table()->visualItemRect(dialog->table()->item(0, 0)).center());
  for (auto* button : dialog->findChildren<QPushButton*>())
    if (button->text() == QStringLiteral("Take back")) QTest::mouseClick(button, Qt::LeftButton);
  EXPECT_TRUE(wait_for([&] { return dialog->table()->rowCount() == 1; }));
  EXPECT_EQ(trusted_hashes(), std::string(64, 'b'));
  if (home.isEmpty()) qunsetenv("XDG_DATA_HOME");
  else qputenv("XDG_DATA_HOME", home);
}

TEST_F(SteeredWindow, WeightsAreQuantizedWithoutData) {
  open();
  session_->edit_recipe(changed(4), "weights");
  EXPECT_TRUE(can("run"));
  EXPECT_FALSE(can("calibrate"));
  EXPECT_FALSE(can("evaluate-float"));
  session_->edit_recipe(changed(4, SiteKind::kInput), "inputs");
  EXPECT_FALSE(can("run"));
  EXPECT_EQ(window_->actions().at(QStringLiteral("run"))->toolTip(), QStringLiteral("Declare a data set first (Model, Data set)."));
  // Scales that each sample or the model's file gives need no calibration.
  for (const ScaleSource source : {ScaleSource::kDynamic, ScaleSource::kStored}) {
    session_->edit_recipe(changed(4, SiteKind::kInput, source), "needs none");
    EXPECT_TRUE(can("run")) << enum_text(source);
  }
}

TEST_F(SteeredWindow, TrainingLeavesTheRecipeAsItIs) {
  world_.data_status.ready = world_.data_status.can_train = world_.data_status.can_evaluate = true;
  open();
  window_->actions().at(QStringLiteral("train"))->trigger();
  auto* dialog = window_->findChild<TrainDialog*>();
  ASSERT_TRUE(dialog);
  const Recipe before = session_->recipe();
  dialog->accept();
  ASSERT_TRUE(wait_for([&] { return session_->runs().size() == 1; }));
  ASSERT_EQ(world_.asked.size(), 1u);
  ASSERT_EQ(world_.asked[0].passes.size(), before.passes.size() + 1);
  EXPECT_EQ(world_.asked[0].passes.back().id, "qat");
  EXPECT_TRUE(session_->recipe() == before);
  EXPECT_EQ(session_->undo_stack()->count(), 0);
}

}  // namespace
}  // namespace quanvas
