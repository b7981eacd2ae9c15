// Quanvas - how the thin executables (quanvas-engine, quanvas-cli) reach the engine's library: LibTorch takes
// half a second to load, so --help and --version answer before it. No Torch here.
#pragma once

#include <string>

#include "core/base/result.h"

namespace quanvas {

// Names and versions of everything that the program links, one a line; loads none of it.
std::string version_text(const std::string& program);

// Loads libquanvas_runtime.so (beside the executable, or in ../lib/quanvas) and returns the address of its
// function `symbol`. Sets OMP_WAIT_POLICY=passive first unless the user has set it: libgomp reads it only
// while it is loaded, and spinning threads make a shared machine crawl. Call once, before other threads.
Result<void*> load_runtime(const char* symbol);

}  // namespace quanvas
