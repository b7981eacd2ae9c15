// Quanvas - quanvas-cli: everything the window can do, without a window.
#include <cstdio>

#include "app/cli/options.h"
#include "app/cli/presets.h"
#include "app/cli/print.h"
#include "app/cli/tensor.h"
#include "app/cli/trust.h"
#include "app/engine/launch.h"
#include "core/base/guarded.h"

int main(int argc, char** argv) {
  quanvas::cli::Options options;
  if (const auto code = quanvas::cli::parse(argc, argv, options)) return *code;
  // Without the runtime, which takes half a second to load.
  if (options.verb == "tensor")
    return quanvas::cli::finish(quanvas::guarded("", [&] { return quanvas::cli::tensor(options); }), options, false);
  if (options.verb == "presets")
    return quanvas::cli::finish(quanvas::guarded("", [&] { return quanvas::cli::presets(options); }), options, false);
  if (options.verb == "trust")
    return quanvas::cli::finish(quanvas::guarded("", [&] { return quanvas::cli::trust(options); }), options, false);
  const auto entry = quanvas::load_runtime("quanvas_cli_main");
  if (!entry) {
    std::fprintf(stderr, "quanvas-cli: %s\n", entry.error().text().c_str());
    return quanvas::exit_code(entry.error().code);
  }
  return reinterpret_cast<int (*)(const quanvas::cli::Options*)>(*entry)(&options);
}
