// The session against an engine in this process: opening, edits, questions, jobs, a lost connection.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QElapsedTimer>
#include <QSignalSpy>
#include <QTest>

#include "app/session/session.h"
#include "tests/app/session/fake_engine.h"

namespace quanvas {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using Phase = JobStatus::Phase;

constexpr int kPatienceMs = 20000;

template <class Fn>
bool wait_for(Fn fn) {
  return QTest::qWaitFor(fn, kPatienceMs);
}

class SessionTest : public testing::Test {
 protected:
  void SetUp() override { serve(); }
  void serve() {
    server_ = std::make_unique<Server>(test::fake_backend(world_), [] {});
    const auto status = server_->listen(folder_.address());
    ASSERT_TRUE(status) << status.error().text();
  }
  void open(const char* path = "net.onnx") {
    session_ = std::make_unique<Session>(QString::fromStdString(folder_.address()));
    session_->open(path);
    session_->start();
    ASSERT_TRUE(wait_for([&] { return session_->has_project(); }));
    ASSERT_TRUE(wait_for([&] { return session_->facts().size() == 3; }));
  }
  Recipe changed(int bits, NodeId node = 0) const {
    QuantSpec spec;
    spec.bits = bits;
    return with_assignment(session_->recipe(), *session_->graph(), {{node, SiteKind::kWeight, 0}}, spec);
  }
  std::vector<std::string> labels() {
    std::lock_guard lock(world_.mutex);
    std::vector<std::string> out;
    for (const auto& [label, recipe] : world_.stored) out.push_back(label);
    return out;
  }
  const JobStatus& job(const QString& id) {
    for (const auto& job : session_->jobs())
      if (job.id == id) return job;
    static const JobStatus none;
    return none;
  }
  bool said(const char* text) {
    for (const auto& issue : session_->issues())
      if (issue.message.find(text) != std::string::npos) return true;
    return false;
  }

  test::FakeWorld world_;
  test::SocketFolder folder_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Session> session_;
};

TEST_F(SessionTest, OpensAndGetsTheFactsOfEveryLayer) {
  open();
  EXPECT_TRUE(session_->engine_is_remote());
  EXPECT_TRUE(session_->engine_is_ready());
  EXPECT_EQ(session_->layers().size(), 3u);
  EXPECT_EQ(session_->engine_versions().at("quanvas"), "test");
  EXPECT_TRUE(session_->catalog().contains("presets"));
  for (const auto& layer : session_->layers()) EXPECT_FALSE(session_->facts_are_stale(layer.node));
}

TEST_F(SessionTest, AFileThatIsNotThereIsSaidAndTheLastProjectStays) {
  open();
  QSignalSpy failed(session_.get(), &Session::open_failed);
  session_->open("missing.onnx");
  ASSERT_TRUE(wait_for([&] { return failed.count() == 1; }));
  EXPECT_THAT(failed[0][1].toString().toStdString(), HasSubstr("There is no file 'missing.onnx'."));
  EXPECT_TRUE(session_->has_project());
  session_->edit_recipe(changed(4), "after");
  EXPECT_TRUE(wait_for([&] { return world_.stored_count() == 1; }));
}

TEST_F(SessionTest, AnEditShowsAtOnceAndOnlyItsLayerIsStale) {
  open();
  QSignalSpy spy(session_.get(), &Session::recipe_changed);
  const Recipe after = changed(4, 1);
  session_->edit_recipe(after, "Set fc2 to 4 bit");
  EXPECT_EQ(spy.count(), 1);
  EXPECT_TRUE(session_->recipe() == after);
  const auto* site = session_->plan().find({1, SiteKind::kWeight, 0});
  ASSERT_TRUE(site && site->spec);
  EXPECT_EQ(site->spec->bits, 4);
  EXPECT_FALSE(session_->facts_are_stale(0));
  EXPECT_TRUE(session_->facts_are_stale(1));
  EXPECT_FALSE(session_->facts_are_stale(2));
  EXPECT_TRUE(wait_for([&] { return !session_->facts_are_stale(1); }));
  EXPECT_TRUE(wait_for([&] { return world_.stored_count() == 1; }));
  EXPECT_THAT(labels(), ElementsAre("Set fc2 to 4 bit"));
}

TEST_F(SessionTest, WhoSharesAQuantizerIsStaleWhenAnotherJoinsOrLeaves) {
  open();
  session_->edit_recipe(with_assignment(session_->recipe(), *session_->graph(), {{0, SiteKind::kWeight, 0}, {1, SiteKind::kWeight, 0}, {2, SiteKind::kWeight, 0}}, QuantSpec{}), "all");
  const auto settle = [&] { return wait_for([&] { return !session_->facts_are_stale(0) && !session_->facts_are_stale(1) && !session_->facts_are_stale(2); }); };
  ASSERT_TRUE(settle());
  const auto share = [&](NodeId node, const char* name) {
    session_->edit_recipe(with_share(session_->recipe(), *session_->graph(), {{node, SiteKind::kWeight, 0}}, name), "share");
  };
  share(0, "w");
  EXPECT_FALSE(session_->facts_are_stale(0)) << "alone under its name";
  share(1, "w");
  EXPECT_TRUE(session_->facts_are_stale(0)) << "its scale is that of both";
  EXPECT_TRUE(session_->facts_are_stale(1));
  EXPECT_FALSE(session_->facts_are_stale(2));
  ASSERT_TRUE(settle());
  share(1, "");
  EXPECT_TRUE(session_->facts_are_stale(0));
  session_->undo_stack()->undo();
  EXPECT_EQ(session_->plan().find({1, SiteKind::kWeight, 0})->share, "w");
}

TEST_F(SessionTest, UndoAndRedoAreEditsToo) {
  open();
  const Recipe before = session_->recipe();
  const Recipe after = changed(4);
  session_->edit_recipe(after, "edit");
  session_->undo_stack()->undo();
  EXPECT_TRUE(session_->recipe() == before);
  session_->undo_stack()->redo();
  EXPECT_TRUE(session_->recipe() == after);
  ASSERT_TRUE(wait_for([&] { return world_.stored_count() == 3; }));
  EXPECT_THAT(labels(), ElementsAre("edit", "Undo: edit", "edit"));
  EXPECT_TRUE(world_.stored.back().second == after);
}

TEST_F(SessionTest, AnEditThatChangesNothingIsNone) {
  open();
  session_->edit_recipe(session_->recipe(), "nothing");
  EXPECT_EQ(session_->undo_stack()->count(), 0);
}

TEST_F(SessionTest, AnIllegalRecipeIsAnIssueAndNoEdit) {
  open();
  Recipe broken = session_->recipe();
  Rule rule;
  rule.preset = "no-such-preset";
  broken.rules.push_back(rule);
  const Recipe before = session_->recipe();
  session_->edit_recipe(broken, "break");
  EXPECT_TRUE(session_->recipe() == before);
  EXPECT_EQ(session_->undo_stack()->count(), 0);
  EXPECT_TRUE(said("no-such-preset"));
}

TEST_F(SessionTest, ADragIsOneStepAndStoredOnceItRests) {
  open();
  const Recipe before = session_->recipe();
  for (const int bits : {8, 7, 6, 5, 4}) session_->edit_recipe(changed(bits), "drag", "gesture-1");
  EXPECT_EQ(session_->undo_stack()->count(), 1);
  const Recipe last = session_->recipe();
  ASSERT_TRUE(wait_for([&] { return world_.stored_count() == 1; }));
  QTest::qWait(300);
  EXPECT_EQ(world_.stored_count(), 1u);
  EXPECT_TRUE(world_.stored.back().second == last);
  session_->edit_recipe(changed(3), "drag", "gesture-2");
  EXPECT_EQ(session_->undo_stack()->count(), 2);
  session_->undo_stack()->undo();
  session_->undo_stack()->undo();
  EXPECT_TRUE(session_->recipe() == before);
}

TEST_F(SessionTest, UndoWorksAcrossRestarts) {
  Recipe one, two, three;
  one.name = "one";
  two.name = "two";
  three.name = "three";
  world_.edits = {{1, "first", "", one}, {2, "second", "", two}, {3, "third", "", three}};
  open();
  ASSERT_EQ(session_->undo_stack()->count(), 2);
  EXPECT_EQ(session_->undo_stack()->undoText(), "third");
  EXPECT_EQ(world_.stored_count(), 0u);
  session_->undo_stack()->undo();
  EXPECT_EQ(session_->recipe().name, "two");
  session_->undo_stack()->undo();
  EXPECT_EQ(session_->recipe().name, "one");
  session_->undo_stack()->redo();
  EXPECT_EQ(session_->recipe().name, "two");
}

TEST_F(SessionTest, AnUndoIsStillAnUndoAfterARestart) {
  Recipe one, two, three;
  one.name = "one";
  two.name = "two";
  three.name = "three";
  world_.edits = {{1, "first", "", one},       {2, "second", "", two}, {3, "drag", "", three},
                  {4, "drag", "", one},        {5, "Undo: drag", "", two}, {6, "Undo: second", "", one},
                  {7, "second", "", two}};
  open();
  EXPECT_EQ(session_->undo_stack()->count(), 2);
  EXPECT_EQ(session_->undo_stack()->undoText(), "second");
  EXPECT_EQ(session_->undo_stack()->redoText(), "drag");
  EXPECT_EQ(session_->recipe().name, "two");
  session_->undo_stack()->undo();
  EXPECT_EQ(session_->recipe().name, "one");
  EXPECT_FALSE(session_->undo_stack()->canUndo());
  session_->undo_stack()->redo();
  session_->undo_stack()->redo();
  EXPECT_EQ(session_->recipe().name, "one");
  session_->undo_stack()->undo();
  EXPECT_EQ(session_->recipe().name, "two");
  ASSERT_TRUE(wait_for([&] { return world_.stored_count() == 4; }));
  EXPECT_EQ(labels().back(), "Undo: drag");
}

TEST_F(SessionTest, AnUndoOfWhatIsNotKnownAnyMoreIsNoStep) {
  Recipe one, two, three;
  one.name = "one";
  two.name = "two";
  three.name = "three";
  world_.edits = {{8, "later", "", one}, {9, "Undo: later", "", two}, {10, "next", "", three}};
  open();
  EXPECT_EQ(session_->undo_stack()->count(), 1);
  EXPECT_EQ(session_->undo_stack()->undoText(), "next");
}

TEST_F(SessionTest, EditsThatCannotBeStoredWaitAndAreTriedAgain) {
  open();
  world_.disk_full = true;
  session_->edit_recipe(changed(4), "one");
  ASSERT_TRUE(wait_for([&] { return session_->unstored().contains(QStringLiteral("disk is full")); }));
  session_->edit_recipe(changed(3), "two");
  ASSERT_TRUE(wait_for([&] { return said("2 edits were not stored"); }));
  EXPECT_EQ(session_->issues().size(), 1u);
  EXPECT_THAT(session_->store_edits().toStdString(), HasSubstr("The disk is full."));
  world_.disk_full = false;
  ASSERT_TRUE(wait_for([&] { return session_->unstored().isEmpty(); })) << "nothing else reminds it";
  EXPECT_THAT(labels(), ElementsAre("one", "two"));
  EXPECT_TRUE(session_->issues().empty());
  EXPECT_EQ(session_->store_edits(), QString());
}

TEST_F(SessionTest, JobsAndCopiesDoNotWaitForTheDisk) {
  open();
  world_.disk_full = true;
  session_->edit_recipe(changed(4), "one");
  QSignalSpy finished(session_.get(), &Session::job_finished);
  QSignalSpy failed(session_.get(), &Session::copy_failed);
  session_->start_run();
  session_->save_copy("copy.quanvas");
  EXPECT_TRUE(wait_for([&] { return finished.count() == 1 && failed.count() == 1; }));
  world_.disk_full = false;
  EXPECT_EQ(session_->store_edits(), QString());
  EXPECT_THAT(labels(), ElementsAre("one"));
}

TEST_F(SessionTest, EditsOfAReadOnlyProjectStayHere) {
  world_.read_only = true;
  open();
  session_->edit_recipe(changed(4), "edit");
  session_->edit_recipe(changed(3), "edit");
  EXPECT_TRUE(said("read-only"));
  EXPECT_EQ(session_->issues().size(), 1u);
  EXPECT_EQ(session_->undo_stack()->count(), 2);
  QTest::qWait(100);
  EXPECT_EQ(world_.stored_count(), 0u);
}

TEST_F(SessionTest, HistogramsAreAnsweredAndTheNewestWins) {
  open();
  QSignalSpy ready(session_.get(), &Session::histogram_ready);
  for (int i = 0; i < 50; ++i) session_->request_histogram({i % 2, SiteKind::kWeight, 0}, 8);
  session_->request_histogram({2, SiteKind::kWeight, 0}, 8);
  const auto last_node = [&] {
    return ready.empty() ? -1 : qvariant_cast<Histogram>(ready.last()[0]).site.node;
  };
  EXPECT_TRUE(wait_for([&] { return last_node() == 2; }));
  EXPECT_LT(world_.histograms_asked, 10);
  world_.fail_histogram = true;
  QSignalSpy failed(session_.get(), &Session::histogram_failed);
  session_->request_histogram({0, SiteKind::kWeight, 0}, 8);
  ASSERT_TRUE(wait_for([&] { return failed.count() == 1; }));
  EXPECT_THAT(failed[0][1].toString().toStdString(), HasSubstr("There is no such site."));
}

TEST_F(SessionTest, FactsThatFailAreAnIssueOnce) {
  open();
  world_.throw_in_facts = true;
  session_->request_facts({0, 1, 2});
  ASSERT_TRUE(wait_for([&] { return said("a tensor went wrong"); }));
  world_.throw_in_facts = false;
  const int asked = world_.facts_asked;
  session_->request_facts({2});
  EXPECT_TRUE(wait_for([&] { return world_.facts_asked > asked; }));
  EXPECT_EQ(session_->issues().size(), 1u);
}

TEST_F(SessionTest, ChecksThePassesOfTheRecipeThatIsShown) {
  open();
  EXPECT_EQ(world_.recipes_checked, 0) << "without passes there is nothing to ask";
  QSignalSpy checked(session_.get(), &Session::recipe_checked);
  Recipe recipe = session_->recipe();
  for (const char* id : {"gptq", "polish"}) {
    recipe.passes.push_back({id});
    session_->edit_recipe(recipe, "add");
  }
  ASSERT_TRUE(wait_for([&] { return session_->recipe_issues().size() == 2; })) << "of the newest recipe";
  EXPECT_EQ(session_->recipe_issues()[1].pass, 1);
  EXPECT_EQ(session_->recipe_issues()[1].issue.message, "polish is not possible.");
  session_->undo_stack()->undo();
  ASSERT_TRUE(wait_for([&] { return session_->recipe_issues().size() == 1; }));
  recipe.passes.clear();
  session_->edit_recipe(recipe, "none");
  EXPECT_TRUE(wait_for([&] { return session_->recipe_issues().empty(); }));
}

TEST_F(SessionTest, FactsAreAskedAgainWhenAPassHasMeasured) {
  open();
  world_.passes_pending = true;
  Recipe recipe = session_->recipe();
  recipe.passes.push_back({"smoothquant"});
  session_->edit_recipe(recipe, "add");
  ASSERT_TRUE(wait_for([&] { return session_->recipe_issues().size() == 1 && session_->recipe_issues()[0].is_pending; }));
  world_.passes_pending = false;
  QSignalSpy finished(session_.get(), &Session::job_finished);
  QSignalSpy facts(session_.get(), &Session::facts_changed);
  session_->start_run();
  ASSERT_TRUE(wait_for([&] { return finished.count() == 1 && !session_->recipe_issues()[0].is_pending; }));
  EXPECT_TRUE(wait_for([&] { return facts.count() > 0; }));
}

TEST_F(SessionTest, ChecksAnExport) {
  open();
  QSignalSpy checked(session_.get(), &Session::export_checked);
  session_->check_export("onnx-qdq", json::object());
  ASSERT_TRUE(wait_for([&] { return checked.count() == 1; }));
  EXPECT_EQ(checked[0][0].toString(), "onnx-qdq");
  EXPECT_EQ(qvariant_cast<std::vector<Refusal>>(checked[0][1]).size(), 2u);
}

TEST_F(SessionTest, ATargetAnswersAtOnceAndNumbersFollowWhenEditsRest) {
  open();
  world_.numbers_ms = 200;
  QSignalSpy looked(session_.get(), &Session::target_looked);
  session_->look_at_target("onnx-qdq", json::object());
  ASSERT_TRUE(wait_for([&] { return looked.count() == 1; }));
  EXPECT_TRUE(session_->target_is_known());
  EXPECT_FALSE(session_->target_is_whole());
  ASSERT_EQ(session_->target_refusals().size(), 1u);
  EXPECT_EQ(session_->target_refusals()[0].layer, "fc1");
  EXPECT_EQ(world_.exports_checked, 0) << "not yet";
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  ASSERT_EQ(session_->target_refusals().size(), 2u);
  EXPECT_EQ(session_->target_refusals()[0].layer, "fc1") << "in the order of the network, whatever the engine's";
  EXPECT_EQ(session_->target_refusals()[1].layer, "fc2");
  // Edits in a row: numbers once.
  const int before = world_.exports_checked;
  for (const int bits : {7, 6, 5, 4}) {
    session_->edit_recipe(changed(bits, 2), QStringLiteral("edit"));
    QTest::qWait(30);
    EXPECT_FALSE(session_->target_is_whole());
  }
  // What numbers said of layers that the edits leave alone stays meanwhile.
  ASSERT_TRUE(wait_for([&] { return world_.declarations_checked >= 3; }));
  EXPECT_EQ(session_->target_refusals().size(), 2u);
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  EXPECT_EQ(world_.exports_checked - before, 1);
}

TEST_F(SessionTest, WhatNumbersSaidOfALayerThatChangesIsForgotten) {
  open();
  session_->look_at_target("onnx-qdq", json::object());
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  ASSERT_EQ(session_->target_refusals().size(), 2u);
  world_.numbers_refuse = false;
  QSignalSpy looked(session_.get(), &Session::target_looked);
  session_->edit_recipe(changed(4, 1), QStringLiteral("mends fc2"));
  ASSERT_TRUE(wait_for([&] { return looked.count() == 1; }));
  EXPECT_FALSE(session_->target_is_whole());
  EXPECT_EQ(session_->target_refusals().size(), 1u);
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  EXPECT_EQ(session_->target_refusals().size(), 1u);
}

TEST_F(SessionTest, TheNextEditStopsTheNumbers) {
  open();
  world_.numbers_ms = 60000;
  session_->look_at_target("onnx-qdq", json::object());
  ASSERT_TRUE(wait_for([&] { return world_.exports_checked == 1; }));
  QElapsedTimer clock;
  clock.start();
  QSignalSpy looked(session_.get(), &Session::target_looked);
  session_->edit_recipe(changed(4), QStringLiteral("edit"));
  ASSERT_TRUE(wait_for([&] { return world_.checks_stopped == 1; }));
  ASSERT_TRUE(wait_for([&] { return looked.count() == 1; })) << "declarations do not wait for numbers";
  EXPECT_LT(clock.elapsed(), 5000);
  EXPECT_TRUE(session_->target_trouble().isEmpty());
  EXPECT_EQ(session_->target_refusals().size(), 1u);
  // Nor does anything else that is quick, while they are looked at again.
  ASSERT_TRUE(wait_for([&] { return world_.exports_checked == 2; }));
  QSignalSpy histogram(session_.get(), &Session::histogram_ready);
  session_->request_histogram({0, SiteKind::kWeight, 0}, 64);
  ASSERT_TRUE(wait_for([&] { return histogram.count() == 1; }));
  session_->look_at_target({}, json::object());
  EXPECT_TRUE(wait_for([&] { return world_.checks_stopped == 2; })) << "no target, no question";
}

TEST_F(SessionTest, NumbersThatFailAreSaidAndTheNextEditAsksAgain) {
  open();
  world_.fail_numbers = true;
  session_->look_at_target("onnx-qdq", json::object());
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  EXPECT_THAT(session_->target_trouble().toStdString(), HasSubstr("A weight is not there."));
  world_.fail_numbers = false;
  session_->edit_recipe(changed(4), QStringLiteral("edit"));
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole() && session_->target_trouble().isEmpty(); }));
  EXPECT_EQ(session_->target_refusals().size(), 2u);
}

TEST_F(SessionTest, MendingIsOneEditOfTheRecipeThatWasLookedAt) {
  open();
  session_->look_at_target("onnx-qdq", json::object());
  ASSERT_TRUE(wait_for([&] { return session_->target_is_known(); }));
  session_->mend_target(QStringLiteral("fc1"), QStringLiteral("Fit"));
  ASSERT_TRUE(wait_for([&] { return session_->undo_stack()->count() == 1; }));
  EXPECT_EQ(session_->plan().find({0, SiteKind::kWeight, 0})->spec->bits, 3);
  EXPECT_EQ(session_->undo_stack()->undoText(), "Fit");
  // Another edit comes first: what was asked of the recipe before it is dropped.
  ASSERT_TRUE(wait_for([&] { return session_->target_is_whole(); }));
  const int steps = session_->undo_stack()->count();
  session_->mend_target({}, QStringLiteral("Fit"));
  session_->edit_recipe(changed(6, 2), QStringLiteral("other"));
  QTest::qWait(300);
  EXPECT_EQ(session_->undo_stack()->count(), steps + 1);
  EXPECT_EQ(session_->undo_stack()->undoText(), "other");
}

TEST_F(SessionTest, AJobEndsWithItsRunInTheList) {
  open();
  QSignalSpy finished(session_.get(), &Session::job_finished);
  bool run_was_there = false;
  QObject::connect(session_.get(), &Session::job_finished, [&] { run_was_there = session_->runs().size() == 1; });
  session_->edit_recipe(changed(4), "before the run");
  const QString id = session_->start_run();
  EXPECT_EQ(job(id).phase, Phase::kQueued);
  ASSERT_TRUE(wait_for([&] { return finished.count() == 1; }));
  EXPECT_TRUE(run_was_there);
  EXPECT_TRUE(finished[0][1].toBool()) << finished[0][2].toString().toStdString();
  EXPECT_EQ(job(id).phase, Phase::kDone);
  EXPECT_THAT(labels(), ElementsAre("before the run"));
}

TEST_F(SessionTest, CalibrationMakesTheFactsNew) {
  open();
  QSignalSpy state(session_.get(), &Session::state_changed);
  const int asked = world_.facts_asked;
  session_->start_calibrate();
  ASSERT_TRUE(wait_for([&] { return session_->state().statistics_hash == "s1"; }));
  EXPECT_GE(state.count(), 1);
  EXPECT_TRUE(wait_for([&] { return world_.facts_asked >= asked + 3; }));
}

TEST_F(SessionTest, SweepCellsComeAsTheyAreMeasured) {
  open();
  QSignalSpy cells(session_.get(), &Session::sweep_cell);
  SweepSettings settings;
  settings.bits = {8, 4, 2};
  const QString id = session_->start_sweep(settings);
  ASSERT_TRUE(wait_for([&] { return job(id).phase == Phase::kDone; }));
  ASSERT_EQ(cells.count(), 3);
  EXPECT_EQ(QStringLiteral("j%1").arg(cells[0][0].toLongLong()), id);
  EXPECT_EQ(qvariant_cast<SweepCell>(cells[2][1]).bits, 2);
}

TEST_F(SessionTest, ARefusedExportIsAFailedJob) {
  open();
  QSignalSpy report(session_.get(), &Session::export_finished);
  const QString id = session_->start_export({"onnx-qdq", "/tmp/x.onnx", json::object(), 0, true});
  ASSERT_TRUE(wait_for([&] { return job(id).phase == Phase::kFailed; }));
  EXPECT_EQ(report.count(), 1);
  EXPECT_THAT(job(id).message.toStdString(), HasSubstr("Nothing was written"));
}

TEST_F(SessionTest, CancelStopsTheRunningAndTheWaitingJob) {
  open();
  world_.job_ms = 30000;
  const QString running = session_->start_calibrate(), waiting = session_->start_calibrate();
  ASSERT_TRUE(wait_for([&] { return job(running).phase == Phase::kRunning; }));
  ASSERT_TRUE(wait_for([&] { return job(waiting).progress.phase == "waiting"; }));
  EXPECT_EQ(job(waiting).phase, Phase::kQueued);
  session_->cancel(waiting);
  EXPECT_EQ(job(waiting).phase, Phase::kCancelling);
  EXPECT_TRUE(wait_for([&] { return job(waiting).phase == Phase::kCancelled; }));
  EXPECT_EQ(job(running).phase, Phase::kRunning);
  session_->cancel(running);
  EXPECT_TRUE(wait_for([&] { return job(running).phase == Phase::kCancelled; }));
}

TEST_F(SessionTest, JobsRunInTheOrderInWhichTheyWereStarted) {
  open();
  std::vector<std::string> names;
  QString last;
  for (int i = 0; i < 12; ++i) {
    Recipe recipe;
    recipe.name = names.emplace_back("run " + std::to_string(i));
    last = session_->start_run(recipe);
  }
  ASSERT_TRUE(wait_for([&] { return job(last).phase == Phase::kDone && session_->runs().size() == names.size(); }));
  std::vector<std::string> order;
  for (const auto& run : session_->runs()) order.push_back(run.name);
  EXPECT_EQ(order, names);
}

TEST_F(SessionTest, ALateAnswerDoesNotTakeBackANewerListOfRuns) {
  open();
  world_.late_runs = world_.runs_asked + 1;
  const QString first = session_->start_run(Recipe{});
  ASSERT_TRUE(wait_for([&] { return world_.runs_asked >= world_.late_runs; }));
  const QString second = session_->start_run(Recipe{});
  ASSERT_TRUE(wait_for([&] { return job(first).phase == Phase::kDone && job(second).phase == Phase::kDone; }));
  EXPECT_EQ(session_->runs().size(), 2u);
}

TEST_F(SessionTest, AJobCancelledBeforeItStartsNeverRuns) {
  open();
  const QString id = session_->start_run();
  session_->cancel(id);
  EXPECT_TRUE(wait_for([&] { return job(id).phase == Phase::kCancelled; }));
  EXPECT_TRUE(session_->runs().empty());
}

TEST_F(SessionTest, JobsWithoutAProjectFailWithASentence) {
  session_ = std::make_unique<Session>(QString::fromStdString(folder_.address()));
  QSignalSpy finished(session_.get(), &Session::job_finished);
  session_->start_run();
  ASSERT_TRUE(wait_for([&] { return finished.count() == 1; }));
  EXPECT_FALSE(finished[0][1].toBool());
  EXPECT_THAT(finished[0][2].toString().toStdString(), HasSubstr("engine is not running"));
}

TEST_F(SessionTest, EditsMadeWithoutTheEngineReachTheNextOne) {
  open();
  QSignalSpy lost(session_.get(), &Session::engine_lost), opened(session_.get(), &Session::project_opened);
  server_.reset();
  ASSERT_TRUE(wait_for([&] { return lost.count() == 1; }));
  EXPECT_FALSE(session_->engine_is_ready());
  const Recipe first = changed(4);
  session_->edit_recipe(first, "alone 1");
  session_->edit_recipe(changed(3, 2), "alone 2");
  EXPECT_TRUE(session_->facts_are_stale(0));
  serve();
  ASSERT_TRUE(wait_for([&] { return opened.count() == 1; }));
  EXPECT_TRUE(opened[0][0].toBool());
  ASSERT_TRUE(wait_for([&] { return world_.stored_count() == 2; }));
  EXPECT_THAT(labels(), ElementsAre("alone 1", "alone 2"));
  EXPECT_TRUE(world_.stored[0].second == first);
  EXPECT_EQ(session_->undo_stack()->count(), 2);
  EXPECT_TRUE(wait_for([&] { return !session_->facts_are_stale(0) && !session_->facts_are_stale(2); }));
}

TEST_F(SessionTest, AJobThatIsStartedWhileTheProjectIsReopenedWaitsForIt) {
  open();
  QSignalSpy lost(session_.get(), &Session::engine_lost), ready(session_.get(), &Session::engine_ready);
  QSignalSpy opened(session_.get(), &Session::project_opened);
  server_.reset();
  ASSERT_TRUE(wait_for([&] { return lost.count() == 1; }));
  world_.open_ms = 500;
  serve();
  ASSERT_TRUE(wait_for([&] { return ready.count() == 1; }));
  ASSERT_EQ(opened.count(), 0);
  const QString id = session_->start_run();
  ASSERT_TRUE(wait_for([&] { return job(id).phase == Phase::kDone || job(id).phase == Phase::kFailed; }));
  EXPECT_EQ(job(id).phase, Phase::kDone) << job(id).message.toStdString();
}

TEST_F(SessionTest, WhileAnotherProjectIsOpenedThisOneIsLeftAlone) {
  open();
  world_.open_ms = 500;
  QSignalSpy opened(session_.get(), &Session::project_opened);
  session_->open("other.onnx");
  const QString id = session_->start_run();
  session_->set_data({});
  ASSERT_TRUE(wait_for([&] { return job(id).phase == Phase::kFailed; }));
  EXPECT_THAT(job(id).message.toStdString(), HasSubstr("Another project is being opened"));
  EXPECT_TRUE(said("Another project is being opened"));
  ASSERT_TRUE(wait_for([&] { return opened.count() == 1; }));
  EXPECT_EQ(world_.data_set, 0);
}

TEST_F(SessionTest, WhatWaitedForAnEditReachesTheNextEngine) {
  open();
  QSignalSpy lost(session_.get(), &Session::engine_lost);
  world_.hang_in_edits = true;
  session_->edit_recipe(changed(4), "never confirmed");
  session_->set_data({});
  session_->save_copy("copy.quanvas");
  QTest::qWait(100);
  ASSERT_EQ(world_.data_set, 0);
  std::jthread stopping([&] { server_->stop(0ms); });
  ASSERT_TRUE(wait_for([&] { return lost.count() == 1; }));
  world_.hang_in_edits = false;
  stopping.join();
  server_.reset();
  serve();
  EXPECT_TRUE(wait_for([&] { return world_.data_set == 1; }));
  EXPECT_TRUE(wait_for([&] { return said("Cannot write 'copy.quanvas'"); }));
}

TEST_F(SessionTest, AnEngineThatHangsDoesNotKeepTheWindowOpen) {
  open();
  world_.hang_in_data = true;
  session_->set_data({});
  ASSERT_TRUE(wait_for([&] { return world_.data_set == 1; }));
  session_->edit_recipe(changed(4), "behind it");
  const auto begin = std::chrono::steady_clock::now();
  session_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 6s);
  world_.hang_in_data = false;
}

TEST_F(SessionTest, EditsAreStoredWhenTheWindowCloses) {
  open();
  session_->edit_recipe(changed(4), "drag", "gesture");
  session_.reset();
  EXPECT_THAT(labels(), ElementsAre("drag"));
}

TEST_F(SessionTest, ARunIsStaleWhenWhatItCameFromChanged) {
  open();
  quanvas::Run run;
  run.model_hash = "m0";
  run.statistics_hash = "s0";
  run.recipe = session_->recipe();
  run.recipe.name = "another name";
  EXPECT_FALSE(session_->run_is_stale(run));
  run.model_hash = "m1";
  EXPECT_TRUE(session_->run_is_stale(run));
  run.model_hash = "m0";
  run.statistics_hash = "s9";
  EXPECT_TRUE(session_->run_is_stale(run));
  run.kind = RunKind::kFloat;
  EXPECT_FALSE(session_->run_is_stale(run));
  run.kind = RunKind::kQuantize;
  run.statistics_hash = "s0";
  session_->edit_recipe(changed(4), "edit");
  EXPECT_TRUE(session_->run_is_stale(run));
}

}  // namespace
}  // namespace quanvas
