// Quanvas - the engine's service: gRPC in front of one Workbench. No Torch here: what opens a project and what
// describes the engine come in as functions, so that a test can serve a Workbench of its own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/workflow/workbench.h"

namespace quanvas {

struct Backend {
  std::function<Result<std::unique_ptr<Workbench>>(const std::string& path, const std::string& project_path,
                                                   const ImportOptions& import, JobContext& job)>
      open;
  std::function<json()> catalog;                              // plug-ins; presets and recipes are added
  std::function<std::map<std::string, std::string>()> versions;
  std::function<std::vector<Issue>()> warnings;
};

// Threads: gRPC's own for the calls, one lane for heavy jobs, one for quick questions.
class Server {
 public:
  // on_shutdown is called (from a call's thread) when a client asks the engine to end.
  Server(Backend backend, std::function<void()> on_shutdown);
  // Stops the jobs and ends the calls; waits for the job that runs until it looks at its stop token.
  ~Server();

  // address: unix:PATH. The file gets mode 0600. Refused with a sentence: other kinds of address, a path that
  // is too long, a folder that others may write to, a socket at which somebody answers.
  Status listen(const std::string& address);
  // Asks the jobs to stop, refuses new calls. True when the lanes are free before `patience` is over; else a
  // job does not react, and only ending the process ends it.
  bool stop(std::chrono::milliseconds patience);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quanvas
