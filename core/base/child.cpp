#include "core/base/child.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <thread>

#include "core/base/files.h"

extern char** environ;

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMostMessage = 4096;

std::string message_in(const fs::path& file) {
  auto text = read_file(file, std::uint64_t{1} << 20);
  if (!text) return {};
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return text->substr(text->find_last_of('\n') + 1).substr(0, kMostMessage);
}

}  // namespace

Result<fs::path> find_program(const std::string& name, const char* variable, const std::string& what) {
  if (const char* named = std::getenv(variable)) return fs::path(named);
  std::error_code ec;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ec).parent_path();
  for (const fs::path& place : {folder / name, folder.parent_path() / "bin" / name})
    if (fs::exists(place, ec)) return place;
  return fail(ErrorCode::kNotFound, "There is no program " + name + " in '" + folder.string() + "'; " + what + ".",
              "Install Quanvas again; the program belongs beside the others.");
}

std::string ChildEnd::why() const {
  if (!started) return "the program does not start";
  if (signal != 0) return "reading it crashed (signal " + std::to_string(signal) + ")";
  return message.empty() ? "exit code " + std::to_string(code) : message;
}

ChildEnd run_program(const fs::path& program, const std::vector<std::string>& arguments, const fs::path& messages,
                     const std::stop_token& stop, double most_seconds) {
  const std::string name = program.filename().string();
  std::vector<char*> argv = {const_cast<char*>(name.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, messages.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child = -1;
  const int failed = ::posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ChildEnd end;
  if (failed) return end;
  int status = -1;
  const auto begin = std::chrono::steady_clock::now();
  for (std::chrono::milliseconds pause{1};; pause = std::min(2 * pause, std::chrono::milliseconds(20))) {
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child) break;
    if (ended < 0 && errno != EINTR) return end;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    const bool late = most_seconds > 0 && took.count() > most_seconds;
    if (!end.stopped && !end.timed_out && (stop.stop_requested() || late)) {
      end.stopped = stop.stop_requested();
      end.timed_out = !end.stopped;
      ::kill(child, SIGKILL);
    }
    std::this_thread::sleep_for(pause);
  }
  end.started = true;
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  else end.code = WEXITSTATUS(status);
  end.message = message_in(messages);
  return end;
}

ExchangeFolder::ExchangeFolder() {
  std::string pattern = (runtime_dir() / "exchange-XXXXXX").string();
  if (::mkdtemp(pattern.data())) folder_ = pattern;
}

ExchangeFolder::~ExchangeFolder() {
  std::error_code ec;
  if (!folder_.empty()) fs::remove_all(folder_, ec);
}

}  // namespace quanvas
