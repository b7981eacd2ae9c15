// Quanvas - programs of its own that do what could take this process down: other people's readers on files from strangers.
#pragma once

#include <filesystem>
#include <stop_token>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace quanvas {

// Where the program lies: named by the environment variable, beside this one, or in the folder bin beside this one's.
// kNotFound otherwise; `what` it does stands in the sentence: "it reads SentencePiece models".
Result<std::filesystem::path> find_program(const std::string& name, const char* variable, const std::string& what);

struct ChildEnd {
  bool started = false;
  int signal = 0;       // that ended it; 0: none
  int code = -1;        // exit code, when no signal ended it
  bool stopped = false;    // killed because the stop was requested
  bool timed_out = false;  // killed because it took too long
  std::string message;  // the last line that it wrote to standard error, at most 4 KiB
  bool fine() const { return started && signal == 0 && code == 0; }
  // "reading it crashed (signal 11)", "exit code 3", or its own message.
  std::string why() const;
};

// Runs a program without input and waits for its end, at most so many seconds (0: no limit). Its working folder and
// environment are this process's; its standard error goes to the file `messages`.
ChildEnd run_program(const std::filesystem::path& program, const std::vector<std::string>& arguments,
                     const std::filesystem::path& messages, const std::stop_token& stop = {}, double most_seconds = 0);

// A folder for what goes to a program and comes back, gone with this.
class ExchangeFolder {
 public:
  ExchangeFolder();
  ~ExchangeFolder();
  ExchangeFolder(const ExchangeFolder&) = delete;
  ExchangeFolder& operator=(const ExchangeFolder&) = delete;
  bool is_there() const { return !folder_.empty(); }
  std::filesystem::path file(const char* name) const { return folder_ / name; }

 private:
  std::filesystem::path folder_;
};

}  // namespace quanvas
