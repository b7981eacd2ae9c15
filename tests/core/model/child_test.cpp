// Programs of its own: how they end, and that they can be stopped.
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>

#include "core/base/child.h"

namespace quanvas {
namespace {

const std::filesystem::path kShell = "/bin/sh";

TEST(Child, SaysHowItEnded) {
  const ExchangeFolder folder;
  ASSERT_TRUE(folder.is_there());
  const auto run = [&](const char* script) { return run_program(kShell, {"-c", script}, folder.file("messages")); };
  EXPECT_TRUE(run("exit 0").fine());
  const ChildEnd three = run("echo first >&2; echo 'it is too small' >&2; exit 3");
  EXPECT_EQ(three.code, 3);
  EXPECT_EQ(three.why(), "it is too small");
  EXPECT_EQ(run("exit 4").why(), "exit code 4");
  const ChildEnd killed = run("kill -SEGV $$");
  EXPECT_EQ(killed.signal, SIGSEGV);
  EXPECT_EQ(killed.why(), "reading it crashed (signal 11)");
  EXPECT_FALSE(run_program("/nowhere/program", {}, folder.file("messages")).started);
}

TEST(Child, EndsWhenItIsStoppedOrLate) {
  const ExchangeFolder folder;
  const auto begin = std::chrono::steady_clock::now();
  const ChildEnd late = run_program(kShell, {"-c", "exec sleep 60"}, folder.file("messages"), {}, 0.1);
  EXPECT_TRUE(late.timed_out);
  EXPECT_EQ(late.signal, SIGKILL);
  std::stop_source stop;
  stop.request_stop();
  const ChildEnd stopped = run_program(kShell, {"-c", "exec sleep 60"}, folder.file("messages"), stop.get_token());
  EXPECT_TRUE(stopped.stopped);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

TEST(Child, AProgramThatIsNotThereIsASentence) {
  const auto found = find_program("quanvas-no-such-program", "QUANVAS_NO_SUCH_VARIABLE", "it does nothing");
  ASSERT_FALSE(found);
  EXPECT_NE(found.error().text().find("quanvas-no-such-program"), std::string::npos);
}

}  // namespace
}  // namespace quanvas
