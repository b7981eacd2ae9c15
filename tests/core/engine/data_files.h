// Files that tests of data sets make: bytes, gzip, PNG, JPEG, NumPy.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/plugin/registry.h"
#include "tests/core/engine/packed_files.h"
#include "tests/core/engine/picture_files.h"

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

}  // namespace quanvas::testing_data
