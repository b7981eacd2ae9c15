#include "core/data/sources.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <optional>

#include "core/base/files.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kHashBlock = 1 << 20;
constexpr std::uint64_t kWorthRemembering = 16 << 20;  // bytes
constexpr std::int64_t kSettledSeconds = 2;
constexpr std::size_t kHashDigits = 32;

template <class T, class Out>
void convert(const std::byte* bytes, std::size_t count, Out* out) {
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    out[i] = static_cast<Out>(value);
  }
}

template <class Out>
void convert_any(ElementType type, const std::byte* bytes, std::size_t count, Out* out) {
  switch (type) {
    case ElementType::kUint8: return convert<std::uint8_t>(bytes, count, out);
    case ElementType::kInt8: return convert<std::int8_t>(bytes, count, out);
    case ElementType::kInt16: return convert<std::int16_t>(bytes, count, out);
    case ElementType::kInt32: return convert<std::int32_t>(bytes, count, out);
    case ElementType::kInt64: return convert<std::int64_t>(bytes, count, out);
    case ElementType::kFloat32: return convert<float>(bytes, count, out);
    case ElementType::kFloat64: return convert<double>(bytes, count, out);
  }
}

}  // namespace

Result<fs::path> option_path(const std::string& value, const std::string& base, const std::string& key,
                             const std::string& reader) {
  if (value.empty())
    return fail(ErrorCode::kInvalidArgument, "Option '" + key + "' of data set reader '" + reader + "' is missing.",
                "Give the path, absolute or relative to the project's folder.");
  if (value.find('\0') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "Option '" + key + "' of data set reader '" + reader + "' is no path.");
  const fs::path given(value);
  const fs::path path = given.is_absolute() || base.empty() ? given : fs::path(base) / given;
  std::error_code ec;
  if (!may_be_file(path) && !fs::is_directory(path, ec))
    return fail(ErrorCode::kInvalidArgument, "Option '" + key + "' of data set reader '" + reader + "' is '" + path.string() +
                                                 "', which is neither a file nor a folder.",
                "Save the data to a file and give its path.");
  return path;
}

bool may_be_file(const fs::path& path) {
  std::error_code ec;
  const auto status = fs::status(path, ec);
  return fs::is_regular_file(status) || !fs::exists(status);
}

Result<std::shared_ptr<const SourceFile>> SourceFile::open(const fs::path& path) {
  std::error_code ec;
  const auto status = fs::status(path, ec);
  if (!fs::exists(status)) return fail(ErrorCode::kNotFound, "There is no file '" + path.string() + "'.");
  if (fs::is_directory(status))
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is a folder, not a file.");
  if (!fs::is_regular_file(status))
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is no regular file.");
  std::shared_ptr<SourceFile> file(new SourceFile);
  file->path_ = path;
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts {};
  if (file->fd_ < 0 || ::fstat(file->fd_, &facts) != 0)
    return fail(ErrorCode::kIo, "Cannot read '" + path.string() + "': " + std::strerror(errno) + ".");
  file->size_ = static_cast<std::uint64_t>(facts.st_size);
  if (file->size_ == 0) return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is empty.");
  return std::shared_ptr<const SourceFile>(std::move(file));
}

SourceFile::~SourceFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status SourceFile::read(std::uint64_t offset, void* out, std::size_t count) const {
  auto* to = static_cast<char*>(out);
  while (count > 0) {
    const ssize_t got = ::pread(fd_, to, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::kIo, "Cannot read '" + path_.string() + "': " + std::strerror(errno) + ".");
    if (got == 0)
      return fail(ErrorCode::kCorrupt, "'" + path_.string() + "' ends at byte " + std::to_string(offset) + "; " +
                                           std::to_string(count) + " more bytes were expected.");
    to += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
  return {};
}

std::string SourceFile::content_hash() const {
  return remembered_hash(FileStamps().add(path_, fd_), [this]() -> Result<std::string> {
    Hasher hasher;
    std::vector<char> block(kHashBlock);
    for (std::uint64_t at = 0; at < size_; at += kHashBlock) {
      const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(kHashBlock, size_ - at));
      QUANVAS_CHECK(read(at, block.data(), count));
      hasher.bytes(block.data(), count);
    }
    return hasher.hex();
  });
}

FileStamps& FileStamps::add(const fs::path& path) {
  struct stat facts {};
  add_facts(path, ::stat(path.c_str(), &facts) == 0, facts);
  return *this;
}

FileStamps& FileStamps::add(const fs::path& path, int fd) {
  struct stat facts {};
  add_facts(path, ::fstat(fd, &facts) == 0, facts);
  return *this;
}

// The time of the last change of the inode too: tools that copy set the other one back.
void FileStamps::add_facts(const fs::path& path, bool there, const struct ::stat& facts) {
  hasher_.text(fs::absolute(path).lexically_normal().string()).number(static_cast<std::int64_t>(facts.st_dev));
  hasher_.number(static_cast<std::int64_t>(facts.st_ino)).number(facts.st_size);
  for (const timespec& t : {facts.st_mtim, facts.st_ctim}) {
    hasher_.number(t.tv_sec).number(t.tv_nsec);
    settled_ = settled_ && t.tv_sec + kSettledSeconds < std::time(nullptr);
  }
  settled_ = settled_ && there;
  bytes_ += static_cast<std::uint64_t>(facts.st_size);
}

std::optional<std::string> FileStamps::key() const {
  if (!settled_ || bytes_ < kWorthRemembering) return std::nullopt;
  return hasher_.hex();
}

std::string remembered_hash(const FileStamps& stamps, const std::function<Result<std::string>()>& compute) {
  const auto key = stamps.key();
  const fs::path file = key ? user_cache_dir() / "data-hashes" / *key : fs::path();
  if (key)
    if (auto known = read_file(file, kHashDigits);
        known && known->size() == kHashDigits && known->find_first_not_of("0123456789abcdef") == std::string::npos)
      return *known;
  const auto hash = compute();
  if (!hash) return hash_text(hash.error().message);
  if (key) {
    std::error_code ec;
    fs::create_directories(file.parent_path(), ec);
    (void)write_file_atomically(file, *hash);  // a cache that cannot be written is none
  }
  return *hash;
}

std::size_t size_of(ElementType type) {
  switch (type) {
    case ElementType::kUint8:
    case ElementType::kInt8: return 1;
    case ElementType::kInt16: return 2;
    case ElementType::kInt32:
    case ElementType::kFloat32: return 4;
    case ElementType::kInt64:
    case ElementType::kFloat64: return 8;
  }
  return 1;
}

void to_float(ElementType type, const std::byte* bytes, std::size_t count, float* out) {
  convert_any(type, bytes, count, out);
}

Result<std::vector<std::int64_t>> to_whole(ElementType type, const std::byte* bytes, std::size_t count,
                                           const std::string& what) {
  if (type == ElementType::kFloat32 || type == ElementType::kFloat64)
    return fail(ErrorCode::kInvalidArgument, what + " holds floating point numbers; labels are whole numbers.");
  std::vector<std::int64_t> out(count);
  convert_any(type, bytes, count, out.data());
  return out;
}

std::optional<std::uint64_t> checked_product(const Shape& shape) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 53;
  std::uint64_t product = 1;
  for (const std::int64_t d : shape) {
    if (d < 0) return std::nullopt;
    if (d > 0 && product > kMost / static_cast<std::uint64_t>(d)) return std::nullopt;
    product *= static_cast<std::uint64_t>(d);
  }
  return product;
}

Status check_label_count(std::uint64_t samples, std::uint64_t labels, const std::string& samples_path,
                         const std::string& labels_path) {
  if (samples == labels) return {};
  return fail(ErrorCode::kInvalidArgument, "'" + samples_path + "' has " + std::to_string(samples) + " samples, but '" +
                                               labels_path + "' has " + std::to_string(labels) + " labels.",
              "Give the labels that belong to these samples.");
}

bool looks_like_image(const Shape& s) {
  return s.size() == 2 || (s.size() == 3 && (s[2] == 1 || s[2] == 3 || s[2] == 4));
}

}  // namespace quanvas
