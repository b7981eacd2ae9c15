// Files that tests make, packed or with a header: gzip, NumPy, ZIP.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

namespace quanvas::testing_data {

inline std::string gzip(const std::string& plain) {
  z_stream s{};
  deflateInit2(&s, 9, Z_DEFLATED, MAX_WBITS + 16, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&s, plain.size()) + 64, '\0');
  s.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  s.avail_in = static_cast<uInt>(plain.size());
  s.next_out = reinterpret_cast<Bytef*>(out.data());
  s.avail_out = static_cast<uInt>(out.size());
  deflate(&s, Z_FINISH);
  out.resize(s.total_out);
  deflateEnd(&s);
  return out;
}

inline std::string npy(const std::string& descr, const std::string& shape, const std::string& values,
                       const std::string& fortran = "False") {
  std::string header = "{'descr': " + descr + ", 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
  while ((header.size() + 11) % 64) header += ' ';
  header += '\n';
  std::string out = "\x93NUMPY";
  out += '\x01';
  out += '\0';
  out += static_cast<char>(header.size() & 255);
  out += static_cast<char>(header.size() >> 8);
  return out + header + values;
}
// A ZIP archive as numpy.savez writes it: local header, bytes, directory.
struct ZipPart {
  std::string name, plain;
  bool deflated = false;
};
inline std::string little(std::uint64_t v, int width) {
  std::string out;
  for (int i = 0; i < width; ++i) out += static_cast<char>(v >> (8 * i));
  return out;
}
inline std::string zip(const std::vector<ZipPart>& parts) {
  std::string out, directory;
  for (const auto& p : parts) {
    std::string data = p.plain;
    if (p.deflated) {
      const std::string gz = gzip(p.plain);
      data = gz.substr(10, gz.size() - 18);  // without gzip's header and trailer: raw deflate
    }
    const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(p.plain.data()), static_cast<uInt>(p.plain.size()));
    const std::string common = little(20, 2) + little(0, 2) + little(p.deflated ? 8 : 0, 2) + little(0, 4) + little(crc, 4) +
                               little(data.size(), 4) + little(p.plain.size(), 4) + little(p.name.size(), 2) + little(0, 2);
    directory += "PK\x01\x02" + little(20, 2) + common + little(0, 2) + little(0, 2) + little(0, 2) + little(0, 4) +
                 little(out.size(), 4) + p.name;
    out += "PK\x03\x04" + common + p.name + data;
  }
  const std::size_t at = out.size();
  return out + directory + "PK\x05\x06" + little(0, 4) + little(parts.size(), 2) + little(parts.size(), 2) +
         little(directory.size(), 4) + little(at, 4) + little(0, 2);
}

}  // namespace quanvas::testing_data
