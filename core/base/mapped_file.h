// Quanvas - a file seen as memory, read only: its pages come when they are looked at and go when memory is short. For
// files that are too large to be read whole. Who cuts the file off while it is mapped ends the process (SIGBUS), as
// with every map; so files of ordinary size are read instead, see kMapFrom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

#include "core/base/result.h"

namespace quanvas {

inline constexpr std::uint64_t kMapFrom = std::uint64_t{256} << 20;  // bytes

// Immutable; thread-safe.
class MappedFile {
 public:
  // kNotFound, kIo with the system's reason. An empty file has no data.
  static Result<std::shared_ptr<const MappedFile>> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  MappedFile(const std::byte* data, std::size_t size);
  const std::byte* data_;
  std::size_t size_;
};

// Gives the pages of these bytes back to the system if they lie in a mapped file (they come again when they are
// looked at); does nothing to other memory. Thread-safe.
void release_mapped(const void* data, std::size_t bytes);

}  // namespace quanvas
