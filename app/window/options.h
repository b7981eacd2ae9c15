// Quanvas - the window's command line. Parsed before Qt starts, so that --help and --version answer at once.
#pragma once

#include <string>
#include <vector>

#include "core/base/result.h"

namespace quanvas {

struct WindowOptions {
  std::string file;          // project or model to open
  std::string engine;        // "unix:PATH"; empty: an own engine
  std::string theme;         // "light", "dark", "system"; empty: as stored
  std::string screenshot;    // picture file; empty: none
  int width = 0, height = 0; // of the window; 0: as stored
  double scale = 0;          // device pixels per pixel; 0: as the desktop says
  std::string select;        // layer that is selected after opening
  std::string target;        // export target whose lens is on
  std::string show;          // panel that is brought to the front, or action that is triggered, before the picture
  int after_ms = 0;          // waits so long before the picture
  bool help = false, version = false;
};

// arguments: without the program's name. Errors name the option.
Result<WindowOptions> parse_window_options(const std::vector<std::string>& arguments);
std::string window_help();

}  // namespace quanvas
