#include "core/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>

namespace quanvas {
namespace {

// Every map that is alive, by its first byte: memory of other kinds must not be given back.
struct Maps {
  std::mutex mutex;
  std::map<std::uintptr_t, std::size_t> sizes;
};
Maps& maps() {
  static auto* all = new Maps;  // outlives every map
  return *all;
}

Failure refused(const std::filesystem::path& path) {
  const int error = errno;
  return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
              "Cannot read '" + path.string() + "': " + std::strerror(error) + ".");
}

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return refused(path);
  struct stat info {};
  const bool known = ::fstat(file, &info) == 0;
  const auto size = static_cast<std::size_t>(info.st_size);
  void* data = nullptr;
  if (known && size > 0) data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  const bool failed = !known || data == MAP_FAILED;
  auto refusal = failed ? std::optional(refused(path)) : std::nullopt;
  ::close(file);
  if (refusal) return *refusal;
  return std::shared_ptr<const MappedFile>(new MappedFile(static_cast<const std::byte*>(data), size));
}

MappedFile::MappedFile(const std::byte* data, std::size_t size) : data_(data), size_(size) {
  const std::lock_guard lock(maps().mutex);
  if (data_) maps().sizes[reinterpret_cast<std::uintptr_t>(data_)] = size_;
}

MappedFile::~MappedFile() {
  if (!data_) return;
  {
    const std::lock_guard lock(maps().mutex);
    maps().sizes.erase(reinterpret_cast<std::uintptr_t>(data_));
  }
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void release_mapped(const void* data, std::size_t bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::uintptr_t>(data);
  const std::lock_guard lock(maps().mutex);
  auto it = maps().sizes.upper_bound(first);
  if (it == maps().sizes.begin()) return;
  --it;
  if (first - it->first >= it->second || bytes > it->second - (first - it->first)) return;
  // Whole pages only: the neighbours' may be in use, which costs them a page fault and nothing else.
  const std::uintptr_t begin = first / page * page;
  ::madvise(reinterpret_cast<void*>(begin), first + bytes - begin, MADV_DONTNEED);
}

}  // namespace quanvas
