// Quanvas - quanvas-engine: the process that computes. The window starts it and talks to its socket.
#include <cstdio>
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "app/engine/launch.h"

int main(int argc, char** argv) {
  CLI::App app("The engine of Quanvas: opens projects, calibrates, quantizes, trains, exports; a window or "
               "another client talks to it over a Unix socket.",
               "quanvas-engine");
  std::string listen, device = "cpu";
  int threads = 0;
  long parent = 0;
  app.add_option("--listen", listen, "Address to listen at, unix:PATH; the file gets mode 0600")->required();
  app.add_option("--device", device, "Where tensors are computed")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--threads", threads, "Threads that compute; 0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--with-parent", parent, "End when the process with this number ends")
      ->check(CLI::PositiveNumber)
      ->type_name("PID");
  app.set_version_flag("--version", quanvas::version_text("quanvas-engine"));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : quanvas::exit_code(quanvas::ErrorCode::kInvalidArgument);
  }

  auto entry = quanvas::load_runtime("quanvas_engine_main");
  if (!entry) {
    std::fprintf(stderr, "quanvas-engine: %s\n", entry.error().text().c_str());
    return quanvas::exit_code(entry.error().code);
  }
  using Entry = int (*)(const char*, const char*, int, long);
  return reinterpret_cast<Entry>(*entry)(listen.c_str(), device.c_str(), threads, parent);
}
