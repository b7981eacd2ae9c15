// A ZIP archive of members as they are, with the right checksums: what LibTorch writes, from any names and bytes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <zlib.h>

namespace quanvas::fuzz {

using Members = std::vector<std::pair<std::string, std::string>>;  // name, bytes

inline std::string stored_zip(const Members& members) {
  const auto put = [](std::string& out, std::uint64_t v, int width) {
    for (int i = 0; i < width; ++i) out += static_cast<char>(v >> (8 * i));
  };
  std::string out, list;
  for (const auto& [name, bytes] : members) {
    std::string sizes;
    put(sizes, crc32(0, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size())), 4);
    for (int i = 0; i < 2; ++i) put(sizes, bytes.size(), 4);
    put(sizes, name.size(), 2);
    list += "PK\1\2" + std::string(12, '\0') + sizes + std::string(12, '\0');
    put(list, out.size(), 4);
    list += name;
    out += "PK\3\4" + std::string(10, '\0') + sizes + std::string(2, '\0') + name + bytes;
  }
  const std::size_t at = out.size();
  out += list + "PK\5\6" + std::string(4, '\0');
  for (int i = 0; i < 2; ++i) put(out, members.size(), 2);
  put(out, list.size(), 4);
  put(out, at, 4);
  put(out, 0, 2);
  return out;
}

}  // namespace quanvas::fuzz
