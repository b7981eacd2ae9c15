// Names of files as text that can be shown.
#include <cstdio>

#include "core/base/utf8.h"
#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {

std::string printable(const std::string& name) {
  std::string out;
  out.reserve(name.size());
  for (std::size_t i = 0; i < name.size(); ++i) {
    const std::size_t good = find_bad_utf8(std::string_view(name).substr(i));
    out.append(name, i, good);
    i += good;
    if (i == name.size()) break;
    char hex[5];
    std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(name[i]));
    out += hex;
  }
  return out;
}

}  // namespace quanvas::onnx_import
