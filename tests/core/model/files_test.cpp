// Reading whole files: no more than was asked for, whatever the file says of its size.
#include <unistd.h>

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/files.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(ReadFile, GivesUpWhereAFileHasNoEnd) {
  const auto endless = read_file("/dev/zero", 1000);
  ASSERT_FALSE(endless);
  EXPECT_THAT(endless.error().text(), HasSubstr("'/dev/zero' has more than 1000 bytes"));
}

TEST(ReadFile, ReadsUpToTheMost) {
  const fs::path path = fs::temp_directory_path() / ("quanvas-read-" + std::to_string(::getpid()));
  for (const std::size_t size : {0u, 1u, 999u, 1000u, 1001u}) {
    ASSERT_TRUE(write_file_atomically(path, std::string(size, 'x')));
    const auto bytes = read_file(path, 1000);
    EXPECT_EQ(static_cast<bool>(bytes), size <= 1000) << size;
    if (bytes) EXPECT_EQ(bytes->size(), size);
    else EXPECT_THAT(bytes.error().text(), HasSubstr("has 1001 bytes; at most 1000 are read here"));
  }
  fs::remove(path);
  EXPECT_TRUE(read_file("/proc/self/status", 1 << 20));  // says that it has 0 bytes
}

}  // namespace
}  // namespace quanvas
