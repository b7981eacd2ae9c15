#include "core/base/utf8.h"

namespace quanvas {

std::size_t utf8_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

std::size_t find_bad_utf8(std::string_view text) {
  for (std::size_t at = 0, size; at < text.size(); at += size) {
    const auto lead = static_cast<unsigned char>(text[at]);
    size = utf8_length(lead);
    if (size == 0 || size > text.size() - at) return at;
    for (std::size_t i = 1; i < size; ++i)
      if ((static_cast<unsigned char>(text[at + i]) & 0xc0) != 0x80) return at;
    const auto next = size > 1 ? static_cast<unsigned char>(text[at + 1]) : 0;
    const bool overlong = (lead == 0xe0 && next < 0xa0) || (lead == 0xf0 && next < 0x90);
    const bool beyond = (lead == 0xed && next > 0x9f) || (lead == 0xf4 && next > 0x8f);  // surrogates, above U+10FFFF
    if (overlong || beyond) return at;
  }
  return text.size();
}

}  // namespace quanvas
