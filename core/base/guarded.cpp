#include "core/base/guarded.h"

#include <algorithm>

namespace quanvas {

std::string first_line(std::string_view what) {
  // Some libraries begin with an empty line.
  what.remove_prefix(std::min(what.find_first_not_of(" \t\r\n"), what.size()));
  what = what.substr(0, what.find('\n'));
  while (!what.empty() && (what.back() == '\r' || what.back() == ' ')) what.remove_suffix(1);
  return std::string(what.empty() ? "it gave no reason" : what);
}

}  // namespace quanvas
