// A program of the command line, run as a user runs it, in a folder of its own.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include "core/base/json.h"

namespace quanvas {

namespace fs = std::filesystem;

inline const std::string kCli = QUANVAS_BINARY_DIR "/bin/quanvas-cli";
inline const std::string kEngine = QUANVAS_BINARY_DIR "/bin/quanvas-engine";

struct Answer {
  int code = -1;
  std::string out, err;
  double cpu_seconds = 0;
};

inline std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A folder of its own for each test: home, data and what the programs write.
class Program : public testing::Test {
 protected:
  Program() {
    char name[] = "/tmp/quanvas-cli-XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~Program() override {
    std::error_code ec;
    fs::remove_all(folder_, ec);
  }
  pid_t begin(const std::string& program, const std::vector<std::string>& arguments) {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    const auto to_file = [](const fs::path& path, int fd) {
      ::dup2(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), fd);
    };
    to_file(folder_ / "out", 1);
    to_file(folder_ / "err", 2);
    ::setenv("XDG_DATA_HOME", (folder_ / "data").c_str(), 1);
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    if (::chdir(folder_.c_str()) != 0) ::_exit(126);
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    ::_exit(127);
  }
  Answer end(pid_t pid) {
    int status = 0;
    rusage usage{};
    ::wait4(pid, &status, 0, &usage);
    Answer answer;
    answer.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    answer.out = slurp(folder_ / "out");
    answer.err = slurp(folder_ / "err");
    const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
    answer.cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    return answer;
  }
  Answer run(const std::vector<std::string>& arguments, const std::string& program = kCli) {
    return end(begin(program, arguments));
  }
  json run_json(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Answer answer = run(arguments);
    EXPECT_EQ(answer.code, 0) << arguments[0] << ": " << answer.err;
    const json value = json::parse(answer.out, nullptr, false);
    EXPECT_FALSE(value.is_discarded()) << arguments[0] << ": " << answer.out;
    return value;
  }
  fs::path write(const std::string& name, const std::string& bytes) {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }

  fs::path folder_;
};

}  // namespace quanvas
