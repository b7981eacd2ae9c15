// Pictures as 8 bit pixels: JPEG and PNG. Thread-safe. Torch-free.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/result.h"

namespace quanvas {

struct DecodedImage {
  std::int64_t height = 0, width = 0, channels = 0;  // 1 (grey) or 3 (RGB)
  std::vector<std::uint8_t> pixels;                  // height x width x channels
};

// By the first bytes, not by the name. Transparency is dropped, 16 bit is shortened to 8, palettes and CMYK
// become RGB; no colour management, as in PIL. `name` is for messages.
Result<DecodedImage> decode_image(const std::string& bytes, const std::string& name);

}  // namespace quanvas
