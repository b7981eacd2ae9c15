// Quanvas - what readers of data sets share: paths, bytes of files read in pieces, element types, labels.
// Thread-safe once opened. Torch-free.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/hash.h"
#include "core/base/result.h"
#include "core/graph/graph.h"

namespace quanvas {

// An option that holds a path: absolute, or relative to `base`. kInvalidArgument when it is empty, or names a device or a
// pipe, which may have no end or let us wait for ever.
Result<std::filesystem::path> option_path(const std::string& value, const std::string& base, const std::string& key,
                                          const std::string& reader);

// An entry of a folder that is worth reading: not a folder, a pipe or a device. Links that lead nowhere are, so that
// reading them says it.
bool may_be_file(const std::filesystem::path& path);

// Which files some data were read from, as cheaply told as their content takes long to hash.
class FileStamps {
 public:
  FileStamps& add(const std::filesystem::path& path);
  FileStamps& add(const std::filesystem::path& path, int fd);  // of a file that is open
  // A hash of names, sizes and times. None when a file is missing, when one was changed within the last two seconds
  // (the clock of a file system is coarse: the next change might get the same time), and for a few bytes, which are
  // hashed as fast.
  std::optional<std::string> key() const;

 private:
  void add_facts(const std::filesystem::path& path, bool there, const struct ::stat& facts);
  Hasher hasher_;
  std::uint64_t bytes_ = 0;
  bool settled_ = true;
};
// What `compute` gives, or gave the last time for files of these stamps: remembered in the user's cache, where it may
// be deleted at any time. An error hashes to its text and is not remembered.
std::string remembered_hash(const FileStamps& stamps, const std::function<Result<std::string>()>& compute);

// A regular file of which pieces are read at any offset, by several threads at once.
class SourceFile {
 public:
  // kNotFound for a missing file, kInvalidArgument for a folder, device or empty file.
  static Result<std::shared_ptr<const SourceFile>> open(const std::filesystem::path& path);
  ~SourceFile();
  SourceFile(const SourceFile&) = delete;
  SourceFile& operator=(const SourceFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  // Exactly `count` bytes; kCorrupt when the file ends before.
  Status read(std::uint64_t offset, void* out, std::size_t count) const;
  // XXH3 of all bytes; see remembered_hash. A file that cannot be read hashes to its error text.
  std::string content_hash() const;

 private:
  SourceFile() = default;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  std::filesystem::path path_;
};

// Element types of raw data, little endian in memory.
enum class ElementType { kUint8, kInt8, kInt16, kInt32, kInt64, kFloat32, kFloat64 };
std::size_t size_of(ElementType type);
// Converts `count` elements at `bytes` (unaligned) to float32.
void to_float(ElementType type, const std::byte* bytes, std::size_t count, float* out);
// Whole numbers; kInvalidArgument for floating point types (`what` names the data).
Result<std::vector<std::int64_t>> to_whole(ElementType type, const std::byte* bytes, std::size_t count,
                                           const std::string& what);

// Product of the dimensions; none when a dimension is negative or the product exceeds 2^53.
std::optional<std::uint64_t> checked_product(const Shape& shape);

// kInvalidArgument naming both files and both counts when they differ.
Status check_label_count(std::uint64_t samples, std::uint64_t labels, const std::string& samples_path,
                         const std::string& labels_path);

// Whether samples of this shape are pictures: [H,W] or [H,W,C] with 1, 3 or 4 channels.
bool looks_like_image(const Shape& sample);

}  // namespace quanvas
