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
#include "tests/core/engine/packed_files.h"

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

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
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
