// Modules: shared libraries whose registrars run when they are opened.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "core/plugin/registry.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

std::vector<std::string> folders() {
  const char* variable = std::getenv("QUANVAS_PLUGIN_PATH");
  std::vector<std::string> out;
  std::string rest = variable ? variable : "";
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    if (colon != 0) out.push_back(rest.substr(0, colon));
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  return out;
}

// Sorted: the order of registration must not depend on the file system.
std::vector<fs::path> modules_in(const std::string& folder, JobContext& job) {
  std::vector<fs::path> out;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("lib") && name.ends_with(".so")) out.push_back(it->path());
  }
  if (ec)
    job.issue({Severity::kWarning, folder, "Cannot list the plug-in folder '" + folder + "': " + ec.message() + ".",
               "Correct QUANVAS_PLUGIN_PATH."});
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

void load_plugins(JobContext& job) {
  for (const std::string& folder : folders()) {
    for (const fs::path& module : modules_in(folder, job)) {
      if (dlopen(module.c_str(), RTLD_NOW | RTLD_LOCAL)) continue;
      const char* why = dlerror();
      job.issue(
          {Severity::kWarning, module.string(),
           "The plug-in module '" + module.string() + "' does not load: " + (why ? why : "unknown reason") + ".",
           "Build it against this version of Quanvas."});
    }
  }
}

}  // namespace quanvas
