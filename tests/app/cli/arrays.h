// NumPy files and reference results for tests of the command line.
#pragma once

#include <cstring>

#include "tests/app/cli/program.h"

namespace quanvas {

struct Array {
  std::string shape;  // as it stands in the header
  std::string bytes;
  std::vector<float> floats() const {
    std::vector<float> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  std::vector<std::int32_t> ints() const {
    std::vector<std::int32_t> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
};

inline std::string npy(const std::string& type, const std::string& shape, const std::string& data,
                       const char* fortran = "False") {
  std::string header = "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += static_cast<char>(header.size() & 0xff);
  out += static_cast<char>(header.size() >> 8);
  return out + header + data;
}

inline Array read_array(const fs::path& path) {
  const std::string all = slurp(path);
  const std::size_t length = static_cast<unsigned char>(all.at(8)) | static_cast<unsigned char>(all.at(9)) << 8;
  const std::string header = all.substr(10, length);
  const auto open = header.find('('), close = header.find(')');
  return {header.substr(open, close - open + 1), all.substr(10 + length)};
}

inline std::string bytes_of(const std::vector<float>& v) { return {reinterpret_cast<const char*>(v.data()), v.size() * 4}; }

// tests/golden/NAME.json.
inline json golden(const std::string& name) { return json::parse(slurp(QUANVAS_TEST_DATA "/golden/" + name + ".json")); }

// A tensor of such a file.
struct GoldenTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> data;

  explicit GoldenTensor(const json& j) {
    static const json shared = golden("shared_inputs");
    const json& source = j.contains("ref") ? shared.at(j.at("ref").get<std::string>()) : j;
    shape = (j.contains("reshape") ? j.at("reshape") : source.at("shape")).get<std::vector<std::int64_t>>();
    for (const json& v : source.at("data")) data.push_back(static_cast<float>(*real_from(v)));
  }
  std::string npy() const {
    std::string text = "(";
    for (const auto d : shape) text += std::to_string(d) + ", ";
    return quanvas::npy("<f4", text + ")", bytes_of(data));
  }
};

}  // namespace quanvas
