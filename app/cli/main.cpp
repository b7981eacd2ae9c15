// Quanvas - quanvas-cli: everything the window can do, without a window.
#include <cstdio>

#include "app/cli/options.h"
#include "app/engine/launch.h"

int main(int argc, char** argv) {
  quanvas::cli::Options options;
  if (const auto code = quanvas::cli::parse(argc, argv, options)) return *code;
  const auto entry = quanvas::load_runtime("quanvas_cli_main");
  if (!entry) {
    std::fprintf(stderr, "quanvas-cli: %s\n", entry.error().text().c_str());
    return quanvas::exit_code(entry.error().code);
  }
  return reinterpret_cast<int (*)(const quanvas::cli::Options*)>(*entry)(&options);
}
