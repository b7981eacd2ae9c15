// quanvas_cli_main: opens what the command line names, runs the verb, turns its Status into an exit code.
#include "app/cli/verbs.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "core/base/guarded.h"

namespace quanvas::cli {
namespace {

struct VerbRow {
  const char* name;
  Verb verb;
  bool opens;  // the path is opened before
};
constexpr VerbRow kVerbs[] = {
    {"info", info, true},         {"new", new_project, false}, {"data", data, true},
    {"calibrate", calibrate, true}, {"quantize", quantize, true}, {"run", quantize, true},
    {"evaluate", evaluate, true}, {"train", train, true},      {"sweep", sweep, true},
    {"compare", compare_runs, true}, {"export", export_model, true}, {"runs", runs, true},
    {"dump", dump, true},         {"recipe", recipe, true},         {"check", check, true},
    {"catalog", catalog, false},  {"targets", targets, false},
};

// Ctrl-C asks the verb to stop, so that what was measured is stored; the second one ends the process.
class Interrupt {
 public:
  Interrupt() {
    sigemptyset(&set_);
    for (const int number : {SIGINT, SIGTERM, SIGUSR2}) sigaddset(&set_, number);
    ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);  // before any other thread, which inherits it
    thread_ = std::thread([this] { wait(); });
  }
  ~Interrupt() {
    ::pthread_kill(thread_.native_handle(), SIGUSR2);
    thread_.join();
  }
  std::stop_token token() const { return stop_.get_token(); }

 private:
  void wait() {
    int number = 0;
    while (::sigwait(&set_, &number) == 0 && number != SIGUSR2) {
      if (stop_.stop_requested()) ::_exit(exit_code(ErrorCode::kCancelled));
      std::fprintf(stderr, "\nStopping; once more ends at once.\n");
      stop_.request_stop();
    }
  }
  sigset_t set_;
  std::stop_source stop_;
  std::thread thread_;
};

// Opening has a context of its own, so that the verb's time left does not count the time that opening took.
Status carry_out(const Options& options, std::stop_token stop, ProgressLine& line) {
  const auto on_progress = [&](const Progress& p) { line.show(p); };
  const auto on_issue = [&](const Issue& i) { line.issue(i); };
  JobContext opening(stop, on_progress, on_issue);
  load_plugins(opening);
  for (const auto& row : kVerbs) {
    if (options.verb != row.name) continue;
    std::unique_ptr<Workbench> bench;
    if (row.opens) {
      QUANVAS_TRY(bench, open_bench(options, opening));
      for (const auto& issue : bench->state().issues) opening.issue(issue);
    }
    JobContext job(stop, on_progress, on_issue);
    Work work{options, job, std::move(bench)};
    return row.verb(work);
  }
  return fail(ErrorCode::kInvalidArgument, "There is no subcommand '" + options.verb + "'.");
}

int run(const Options& options) {
  Interrupt interrupt;
  ProgressLine line(options.quiet);
  const Status status = guarded("", [&] { return carry_out(options, interrupt.token(), line); });
  line.clear();
  return finish(status, options, interrupt.token().stop_requested());
}

}  // namespace
}  // namespace quanvas::cli

extern "C" __attribute__((visibility("default"))) int quanvas_cli_main(const quanvas::cli::Options* options) {
  return quanvas::cli::run(*options);
}
