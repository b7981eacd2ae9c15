// quanvas_engine_main: the engine with everything linked in. Called by the thin executable.
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>

#include "app/engine/service.h"

namespace quanvas {
namespace {

Backend real_backend(const EngineOptions& options) {
  return {[options](const std::string& path, const std::string& project_path,
                    const ImportOptions& import, JobContext& job) {
            return Workbench::open(path, options, job, project_path, import);
          },
          plugin_catalog, [options] { return engine_info(options); }, engine_warnings};
}

// Readable when the process `pid` has ended; -1 when it has ended already or cannot be watched.
int watch_process(long pid) { return static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)); }

int signal_source() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return ::signalfd(-1, &set, SFD_CLOEXEC);
}

// When memory runs out, the engine goes before the window with the user's edits does.
void offer_to_oom_killer() { std::ofstream("/proc/self/oom_score_adj") << 500; }

void wait_for_any(pollfd* sources, nfds_t count) {
  while (::poll(sources, count, -1) < 0 && errno == EINTR) {
  }
}

int serve(const char* address, const EngineOptions& options, long parent) {
  const int signals = signal_source();  // before any thread: they inherit the mask
  int parent_gone = -1;
  if (parent > 0) {
    parent_gone = watch_process(parent);
    if (parent_gone < 0) {
      std::fprintf(stderr, "quanvas-engine: the process %ld, which this engine belongs to, is not there.\n", parent);
      return exit_code(ErrorCode::kNotFound);
    }
    offer_to_oom_killer();
  }
  {
    JobContext job({}, {}, [](const Issue& i) { std::fprintf(stderr, "quanvas-engine: %s\n", i.message.c_str()); });
    load_plugins(job);
  }
  const int shutdown = ::eventfd(0, EFD_CLOEXEC);
  Server server(real_backend(options), [shutdown] { ::eventfd_write(shutdown, 1); });
  if (const auto status = server.listen(address); !status) {
    std::fprintf(stderr, "quanvas-engine: %s\n", status.error().text().c_str());
    return exit_code(status.error().code);
  }
  std::fprintf(stderr, "quanvas-engine: listening at %s\n", address);

  pollfd sources[] = {{signals, POLLIN, 0}, {shutdown, POLLIN, 0}, {parent_gone, POLLIN, 0}};
  wait_for_any(sources, 3);  // poll skips a source of -1
  // A job that does not look at its stop token in time: the process ends without it. The project file is
  // safe at any moment, each edit is a transaction.
  if (!server.stop(std::chrono::milliseconds(1500))) ::_exit(0);
  return 0;
}

}  // namespace
}  // namespace quanvas

extern "C" __attribute__((visibility("default"))) int quanvas_engine_main(const char* address, const char* device,
                                                                          int threads, long parent) {
  return quanvas::serve(address, {device, threads}, parent);
}
