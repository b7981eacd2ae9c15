// Names of files as text that can be shown.
#include <cstdio>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

// Length of the UTF-8 sequence at i, 0 when it is none.
std::size_t utf8_length(const std::string& s, std::size_t i) {
  const auto c = static_cast<unsigned char>(s[i]);
  const std::size_t n = c < 0x80                ? 1
                        : c >= 0xc2 && c < 0xe0 ? 2
                        : c >= 0xe0 && c < 0xf0 ? 3
                        : c >= 0xf0 && c < 0xf5 ? 4
                                                : 0;
  if (n == 0 || i + n > s.size()) return 0;
  for (std::size_t k = 1; k < n; ++k)
    if ((static_cast<unsigned char>(s[i + k]) & 0xc0) != 0x80) return 0;
  const auto second = n > 1 ? static_cast<unsigned char>(s[i + 1]) : 0;
  const bool is_bad = (c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) ||
                      (c == 0xf0 && second < 0x90) || (c == 0xf4 && second >= 0x90);
  return is_bad ? 0 : n;
}

}  // namespace

std::string printable(const std::string& name) {
  std::string out;
  out.reserve(name.size());
  for (std::size_t i = 0; i < name.size();) {
    if (const std::size_t n = utf8_length(name, i)) {
      out.append(name, i, n);
      i += n;
      continue;
    }
    char hex[5];
    std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(name[i++]));
    out += hex;
  }
  return out;
}

}  // namespace quanvas::onnx_import
