// Files that tests of data sets make: bytes, gzip, PNG, JPEG, NumPy.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <jpeglib.h>
#include <png.h>

#include "core/data/dataset.h"
#include "core/plugin/registry.h"

namespace quanvas::testing_data {

// A folder of its own for one test, removed at its end.
class FolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(info->test_suite_name()) + "-" + info->name() + "-" + std::to_string(::getpid());
    for (char& c : name)
      if (c == '/') c = '_';
    folder_ = std::filesystem::temp_directory_path() / ("quanvas-" + name);
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string base() const { return folder_.string(); }
  void write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  Result<std::unique_ptr<RawDataset>> open(const std::string& reader, const json& options) const {
    return Registry<DatasetReader>::instance().find(reader)->open(options, base());
  }
  // The error text, or "" when the reader opens the source and reads its first and last sample.
  std::string problem(const std::string& reader, const json& options) const {
    const auto data = open(reader, options);
    if (!data) return data.error().text();
    for (const std::int64_t i : {std::int64_t{0}, (*data)->size() - 1})
      if (const auto sample = (*data)->read(i); !sample) return sample.error().text();
    return {};
  }

  std::filesystem::path folder_;
};

inline std::string big_endian(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8), static_cast<char>(v)};
}
inline std::string idx(int type, const std::vector<std::uint32_t>& shape, const std::string& values) {
  std::string out = {0, 0, static_cast<char>(type), static_cast<char>(shape.size())};
  for (const auto d : shape) out += big_endian(d);
  return out + values;
}
inline std::string counting(std::size_t n) {
  std::string out;
  for (std::size_t i = 0; i < n; ++i) out += static_cast<char>(i);
  return out;
}

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
template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
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

// pixels: height x width x channels (1 or 3).
inline std::string png(std::uint32_t height, std::uint32_t width, int channels, const std::string& pixels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = channels == 1 ? PNG_FORMAT_GRAY : channels == 4 ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  png_image_write_to_memory(&image, nullptr, &size, 0, pixels.data(), 0, nullptr);
  std::string out(size, '\0');
  png_image_write_to_memory(&image, out.data(), &size, 0, pixels.data(), 0, nullptr);
  out.resize(size);
  return out;
}
inline std::string jpeg(unsigned height, unsigned width, int channels, std::string pixels) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = width;
  info.image_height = height;
  info.input_components = channels;
  info.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 100, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < height) {
    auto* row = reinterpret_cast<JSAMPROW>(pixels.data() + static_cast<std::size_t>(info.next_scanline) * width *
                                                               static_cast<std::size_t>(channels));
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::string out(reinterpret_cast<char*>(bytes), size);
  free(bytes);
  return out;
}

}  // namespace quanvas::testing_data
