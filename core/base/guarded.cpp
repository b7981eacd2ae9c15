#include "core/base/guarded.h"

namespace quanvas {

std::string first_line(std::string_view what) {
  return std::string(what.substr(0, what.find('\n')));
}

}  // namespace quanvas
