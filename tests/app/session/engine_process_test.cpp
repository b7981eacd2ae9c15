// An engine of our own that dies, hangs, is another release or is not there: the window must live on.
#include <signal.h>

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <QElapsedTimer>
#include <QFile>
#include <QSignalSpy>
#include <QTest>
#include <QTimer>

#include "app/session/engine_process.h"
#include "app/session/session.h"
#include "tests/app/session/fake_engine.h"

namespace quanvas {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Phase = JobStatus::Phase;

constexpr int kPatienceMs = 30000;

template <class Fn>
bool wait_for(Fn fn) {
  return QTest::qWaitFor(fn, kPatienceMs);
}

class Environment {
 public:
  Environment(const char* name, const QByteArray& value) : name_(name), before_(qgetenv(name)) {
    qputenv(name, value);
  }
  ~Environment() {
    if (before_.isEmpty())
      qunsetenv(name_);
    else
      qputenv(name_, before_);
  }

 private:
  const char* name_;
  QByteArray before_;
};

struct EndRow {
  int code;
  QProcess::ExitStatus status;
  const char* messages;
  const char* says;
};
TEST(EngineProcessTest, SaysHowTheEngineEnded) {
  const EndRow rows[] = {
      {SIGKILL, QProcess::CrashExit, "", "was killed (signal 9). The system does that when memory runs out"},
      {SIGSEGV, QProcess::CrashExit, "", "crashed (signal 11, segmentation fault)"},
      {31, QProcess::CrashExit, "", "ended by signal 31"},
      {0, QProcess::NormalExit, "listening", "ended by itself (exit code 0)."},
      {6, QProcess::NormalExit, "a\nquanvas-engine: No space.\n", "(exit code 6). It said: No space."},
  };
  for (const auto& row : rows)
    EXPECT_THAT(describe_end(row.code, row.status, row.messages).toStdString(), HasSubstr(row.says));
}

// The engine that is being killed does not answer any more, and who notices that kills it again.
TEST(EngineProcessTest, SaysTheFirstReasonOfAKill) {
  EngineProcess process;
  QSignalSpy ended(&process, &EngineProcess::ended);
  for (const bool again : {true, false}) {
    process.start();
    ASSERT_TRUE(wait_for([&] { return process.is_running(); }));
    process.kill(QStringLiteral("It did not stop."), again);
    process.kill(QStringLiteral("It did not answer."), !again);
    ASSERT_TRUE(wait_for([&] { return ended.count() == 1; }));
    EXPECT_EQ(ended[0][0].toString(), QStringLiteral("It did not stop."));
    EXPECT_EQ(ended[0][1].toBool(), again);
    ended.clear();
  }
  process.start();
  ASSERT_TRUE(wait_for([&] { return process.is_running(); }));
  process.kill(QStringLiteral("It did not stop."));
  ASSERT_TRUE(wait_for([&] { return ended.count() == 1; }));
  process.start();  // what was said of the last one says nothing about the next
  ASSERT_TRUE(wait_for([&] { return process.is_running(); }));
  process.kill(QStringLiteral("It hangs."));
  ASSERT_TRUE(wait_for([&] { return ended.count() == 2; }));
  EXPECT_EQ(ended[1][0].toString(), QStringLiteral("It hangs."));
}

pid_t engine_pid(const Session& session) { return std::stoi(session.engine_versions().at("pid")); }

TEST(OwnEngineTest, IsStartedAgainWhenItIsKilledAndNoEditIsLost) {
  test::SocketFolder folder;
  const auto store = folder.path() / "store";
  Environment keep("FAKE_ENGINE_STORE", QByteArray::fromStdString(store.string()));
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost), ready(&session, &Session::engine_ready);
  QSignalSpy opened(&session, &Session::project_opened);
  session.start();
  session.open("net.onnx");
  ASSERT_TRUE(wait_for([&] { return opened.count() == 1; }));
  EXPECT_FALSE(session.engine_is_remote());
  const pid_t first = engine_pid(session);

  ::kill(first, SIGKILL);
  QuantSpec spec;
  spec.bits = 3;
  session.assign({{0, SiteKind::kWeight, 0}}, spec, "just as it died");
  ASSERT_TRUE(wait_for([&] { return opened.count() == 2; }));
  EXPECT_THAT(lost[0][0].toString().toStdString(), HasSubstr("signal 9"));
  EXPECT_EQ(ready.count(), 2);
  EXPECT_TRUE(opened[1][0].toBool());
  EXPECT_NE(engine_pid(session), first);
  EXPECT_EQ(session.plan().find({0, SiteKind::kWeight, 0})->spec->bits, 3);
  const auto stored = [&] {
    std::ifstream in(store);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  EXPECT_TRUE(wait_for([&] { return stored() == "just as it died\n"; })) << stored();
}

TEST(OwnEngineTest, AJobIsFailedWithTheReasonWhenTheEngineDies) {
  Session session;
  session.start();
  session.open("deaf.onnx");
  ASSERT_TRUE(wait_for([&] { return session.has_project(); }));
  const QString id = session.start_calibrate();
  ASSERT_TRUE(wait_for([&] { return session.jobs().back().phase == Phase::kRunning; }));
  ::kill(engine_pid(session), SIGKILL);
  ASSERT_TRUE(wait_for([&] { return session.jobs().back().phase == Phase::kFailed; }));
  EXPECT_THAT(session.jobs().back().message.toStdString(), HasSubstr("signal 9"));
}

TEST(OwnEngineTest, AJobThatDoesNotStopCostsTheEngineNotTheWindow) {
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost), opened(&session, &Session::project_opened);
  session.start();
  session.open("deaf.onnx");
  ASSERT_TRUE(wait_for([&] { return opened.count() == 1; }));
  const QString id = session.start_calibrate();
  ASSERT_TRUE(wait_for([&] { return session.jobs().back().phase == Phase::kRunning; }));
  const auto begin = std::chrono::steady_clock::now();
  session.cancel(id);
  EXPECT_EQ(session.jobs().back().phase, Phase::kCancelling);
  ASSERT_TRUE(wait_for([&] { return session.jobs().back().phase == Phase::kCancelled; }));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(6));
  EXPECT_THAT(lost[0][0].toString().toStdString(), HasSubstr("did not stop within 2 s"));
  EXPECT_TRUE(wait_for([&] { return opened.count() == 2; }));
}

TEST(OwnEngineTest, AJobThatFinishesSomethingAfterItWasStoppedIsLeftToIt) {
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost), finished(&session, &Session::job_finished);
  session.start();
  session.open("finishes.onnx");
  ASSERT_TRUE(wait_for([&] { return session.has_project(); }));
  const QString id = session.start_run();
  ASSERT_TRUE(wait_for([&] { return session.jobs().back().phase == Phase::kRunning; }));
  session.cancel(id);
  session.cancel(id);  // a double click
  ASSERT_TRUE(wait_for([&] { return finished.count() == 1; }));
  EXPECT_EQ(session.jobs().back().phase, Phase::kDone) << session.jobs().back().message.toStdString();
  EXPECT_EQ(session.runs().size(), 1u);
  EXPECT_EQ(lost.count(), 0);
}

TEST(OwnEngineTest, CancellingAgainEndsAJobThatTakesItsTime) {
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost);
  session.start();
  session.open("finishes.onnx");
  ASSERT_TRUE(wait_for([&] { return session.has_project(); }));
  const QString id = session.start_run();
  ASSERT_TRUE(wait_for([&] { return session.jobs().back().phase == Phase::kRunning; }));
  session.cancel(id);
  QTest::qWait(2500);
  EXPECT_EQ(session.jobs().back().phase, Phase::kCancelling);
  session.cancel(id);
  ASSERT_TRUE(wait_for([&] { return lost.count() == 1; }));
  EXPECT_EQ(session.jobs().back().phase, Phase::kCancelled);
}

TEST(OwnEngineTest, AFileThatKillsTheEngineIsNotTriedAgain) {
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost), ready(&session, &Session::engine_ready);
  QSignalSpy failed(&session, &Session::open_failed);
  session.start();
  session.open("crash.onnx");
  ASSERT_TRUE(wait_for([&] { return failed.count() == 1; }));
  EXPECT_THAT(failed[0][1].toString().toStdString(), HasSubstr("segmentation fault"));
  ASSERT_TRUE(wait_for([&] { return ready.count() == 2; }));
  QTest::qWait(200);
  EXPECT_EQ(lost.count(), 1);
  EXPECT_FALSE(session.has_project());
}

TEST(OwnEngineTest, IsNotStartedForeverWhenItKeepsDying) {
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost), ready(&session, &Session::engine_ready);
  session.start();
  for (int i = 1; i <= 5; ++i) {
    ASSERT_TRUE(wait_for([&] { return ready.count() == i; }));
    ::kill(engine_pid(session), SIGKILL);
    ASSERT_TRUE(wait_for([&] { return lost.count() >= i; }));
  }
  ASSERT_TRUE(wait_for([&] { return lost.count() == 6; }));
  EXPECT_THAT(lost[5][0].toString().toStdString(), HasSubstr("ended 5 times within a minute"));
  QTest::qWait(300);
  EXPECT_EQ(ready.count(), 5);
  session.start();
  EXPECT_TRUE(wait_for([&] { return ready.count() == 6; }));
}

struct BadEngine {
  const char* variable;
  const char* value;
  const char* says;
};
TEST(OwnEngineTest, AnEngineThatCannotBeUsedIsSaidOnce) {
  const BadEngine rows[] = {
      {"QUANVAS_ENGINE", "/nowhere/quanvas-engine", "/nowhere/quanvas-engine' does not start"},
      {"FAKE_ENGINE_EXIT", "1", "It said: A library is missing."},
      {"FAKE_ENGINE_OTHER_RELEASE", "1", "Use the window and the engine of the same release."},
  };
  for (const auto& row : rows) {
    Environment environment(row.variable, row.value);
    Session session;
    QSignalSpy lost(&session, &Session::engine_lost), ready(&session, &Session::engine_ready);
    QElapsedTimer since;
    qint64 longest = 0;  // that the event loop was not served
    QTimer tick;
    QObject::connect(&tick, &QTimer::timeout, [&] { longest = std::max(longest, since.restart()); });
    since.start();
    tick.start(5);
    session.start();
    ASSERT_TRUE(wait_for([&] { return lost.count() == 1; })) << row.variable;
    QTest::qWait(20);
    EXPECT_LT(longest, 1000) << row.variable << ": the window stood still";
    EXPECT_THAT(lost[0][0].toString().toStdString(), HasSubstr(row.says));
    QTest::qWait(300);
    EXPECT_EQ(lost.count(), 1) << row.variable;
    EXPECT_EQ(ready.count(), 0) << row.variable;
    EXPECT_FALSE(session.engine_is_ready());
  }
}

// The real engine, where it has been built: start, open a network, be killed, come back.
TEST(RealEngineTest, OpensANetworkAndComesBackAfterAKill) {
  const QByteArray program = QUANVAS_BINARY_DIR "/bin/quanvas-engine";
  if (!QFile::exists(program)) GTEST_SKIP() << "quanvas-engine is not built";
  Environment engine("QUANVAS_ENGINE", program);
  test::SocketFolder folder;
  Environment data("XDG_DATA_HOME", QByteArray::fromStdString(folder.path().string()));
  const auto model = folder.path() / "tiny.net.yaml";
  std::ofstream(model) << "name: tiny\ninput: [1, 8, 8]\nseed: 1\nlayers:\n"
                          "  - {op: conv, name: conv1, out: 4, kernel: 3, pad: 1}\n"
                          "  - {op: relu, name: relu1}\n"
                          "  - {op: flatten, name: flat}\n"
                          "  - {op: linear, name: fc, out: 10}\n";
  Session session;
  QSignalSpy lost(&session, &Session::engine_lost), opened(&session, &Session::project_opened);
  QSignalSpy failed(&session, &Session::open_failed);
  session.open(QString::fromStdString(model.string()));
  session.start();
  ASSERT_TRUE(wait_for([&] { return opened.count() + failed.count() > 0; }));
  ASSERT_TRUE(failed.empty()) << failed[0][1].toString().toStdString();
  EXPECT_GE(session.layers().size(), 2u);
  QuantSpec spec;
  spec.bits = 4;
  const NodeId conv = session.graph()->find("conv1")->id;
  session.assign({{conv, SiteKind::kWeight, 0}}, spec, "W4");
  ASSERT_TRUE(wait_for([&] { return session.facts().count(conv) && !session.facts_are_stale(conv); }));
  const auto facts = session.facts().at(conv);
  ASSERT_FALSE(facts.sites.empty());
  EXPECT_GT(facts.sites[0].error.sqnr_db, 5);

  ASSERT_TRUE(session.engine_versions().count("pid"));
  ::kill(engine_pid(session), SIGKILL);
  ASSERT_TRUE(wait_for([&] { return opened.count() == 2; }));
  EXPECT_EQ(lost.count(), 1);
  EXPECT_EQ(session.plan().find({conv, SiteKind::kWeight, 0})->spec->bits, 4);
}

}  // namespace
}  // namespace quanvas
