// Quanvas - whether bytes are text in UTF-8.
#pragma once

#include <cstddef>
#include <string_view>

namespace quanvas {

// Bytes of the character that begins with this byte; 0: none does.
std::size_t utf8_length(unsigned char lead);
// Where `text` is no UTF-8 (overlong forms and surrogates are none); its size when all of it is.
std::size_t find_bad_utf8(std::string_view text);

}  // namespace quanvas
