// What is left when an export fails, for every target: the old files as they were, nothing half written, a sentence.
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <thread>

#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tests/plugins/export_fit.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using namespace export_fit;

std::string slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class ExportFailures : public ::testing::Test {
 protected:
  struct Case {
    const Exporter* exporter;
    json options;
    QuantizedModel network;
  };
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-failures-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::vector<Case> cases() {
    std::vector<Case> out;
    for (const Exporter* e : Registry<Exporter>::instance().all()) {
      if (!e->unavailable().empty()) continue;
      const json options = *e->schema().complete(json::object(), "options");
      for (const ModelPtr& model : {linear_net(), export_net::small_net()}) {
        QuantizedModel bare;
        bare.model = model;
        if (auto fits = fitted(*e, options, bare)) {
          out.push_back({e, options, std::move(*fits)});
          break;
        }
      }
    }
    return out;
  }
  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const auto& entry : fs::directory_iterator(folder_)) out.insert(entry.path().filename().string());
    return out;
  }
  std::string path_of(const Exporter& e) const { return (folder_ / ("net" + e.extension())).string(); }
  // Files that stand where the export is to write.
  std::map<std::string, std::string> put_old(const Exporter& e, const json& options) {
    std::map<std::string, std::string> old;
    for (const std::string& file : e.files(path_of(e), options)) {
      old[file] = json{{"old", file}}.dump();  // settings that are there already are read
      std::ofstream(file) << old[file];
    }
    return old;
  }
  void clear() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }

  fs::path folder_;
};

// A disk that is full is a file that cannot grow.
TEST_F(ExportFailures, AFullDiskLeavesTheOldFiles) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  for (const Case& c : cases()) {
    const std::string id = c.exporter->info().id;
    SCOPED_TRACE(id);
    clear();
    const auto old = put_old(*c.exporter, c.options);
    const auto files = names();
    rlimit small = before;
    small.rlim_cur = 512;
    setrlimit(RLIMIT_FSIZE, &small);
    JobContext job;
    const Status written = c.exporter->write(c.network, path_of(*c.exporter), c.options, job);
    setrlimit(RLIMIT_FSIZE, &before);
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, ErrorCode::kIo) << written.error().text();
    EXPECT_NE(written.error().text().find("net"), std::string::npos) << "names no file: " << written.error().text();
    for (const auto& [file, text] : old) EXPECT_EQ(slurp(file), text) << file;
    EXPECT_EQ(names(), files) << "something was left behind";
  }
}

TEST_F(ExportFailures, AFolderThatIsNotThereIsNamed) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.exporter->info().id);
    JobContext job;
    const std::string path = (folder_ / "missing" / ("net" + c.exporter->extension())).string();
    const Status written = c.exporter->write(c.network, path, c.options, job);
    ASSERT_FALSE(written);
    EXPECT_NE(written.error().text().find("missing"), std::string::npos) << written.error().text();
  }
}

TEST_F(ExportFailures, AFileThatCannotBeReplacedStays) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.exporter->info().id);
    clear();
    // A folder with something in it stands where the main file is to be: not even root can rename over it.
    fs::create_directories(fs::path(path_of(*c.exporter)) / "inside");
    JobContext job;
    const Status written = c.exporter->write(c.network, path_of(*c.exporter), c.options, job);
    ASSERT_FALSE(written);
    EXPECT_TRUE(fs::exists(fs::path(path_of(*c.exporter)) / "inside"));
    for (const std::string& name : names()) EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
  }
}

TEST_F(ExportFailures, AStopLeavesTheOldFiles) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.exporter->info().id);
    clear();
    const auto old = put_old(*c.exporter, c.options);
    std::stop_source stop;
    stop.request_stop();
    JobContext job(stop.get_token());
    const Status written = c.exporter->write(c.network, path_of(*c.exporter), c.options, job);
    if (written) continue;  // so small a network may be written before anything asks
    EXPECT_EQ(written.error().code, ErrorCode::kCancelled) << written.error().text();
    for (const auto& [file, text] : old) EXPECT_EQ(slurp(file), text) << file;
  }
}

// Killed at any moment, a file is the old one or the new one, whole.
TEST_F(ExportFailures, AKilledProgramLeavesWholeFiles) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.exporter->info().id);
    clear();
    JobContext job;
    ASSERT_TRUE(c.exporter->write(c.network, path_of(*c.exporter), c.options, job));
    std::map<std::string, std::string> whole;
    for (const std::string& file : c.exporter->files(path_of(*c.exporter), c.options)) whole[file] = slurp(file);
    const auto old = put_old(*c.exporter, c.options);
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      for (;;) {
        const bool written = static_cast<bool>(c.exporter->write(c.network, path_of(*c.exporter), c.options, job));
        if (::write(ends[1], written ? "y" : "n", 1) != 1) _exit(1);
      }
    }
    close(ends[1]);
    pollfd ready{ends[0], POLLIN, 0};
    constexpr int kPatienceMs = 2000;
    if (poll(&ready, 1, kPatienceMs) != 1) {
      // A child of a program with threads may wait for one that it has not got, which is no matter of the file.
      std::cout << c.exporter->info().id << ": not tried, its libraries do not write in a forked process\n";
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
      close(ends[0]);
      continue;
    }
    char first = 0;
    ASSERT_EQ(::read(ends[0], &first, 1), 1);
    EXPECT_EQ(first, 'y');
    std::this_thread::sleep_for(std::chrono::microseconds(1700));  // in the midst of a later one
    kill(child, SIGKILL);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    for (const auto& [file, bytes] : whole) {
      const std::string now = slurp(file);
      // Settings keep what else stood in them.
      const bool merged = fs::path(file).extension() == ".json" && json::accept(now);
      EXPECT_TRUE(now.size() == bytes.size() || now == old.at(file) || merged) << file << " has " << now.size() << " bytes";
    }
  }
}

}  // namespace
}  // namespace quanvas
