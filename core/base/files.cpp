#include "core/base/files.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kReadBlock = 64 << 10;

Failure io_error(const fs::path& path, const std::string& what, int err) {
  std::string hint;
  if (err == ENOSPC) hint = "Free some space or choose another folder.";
  if (err == EACCES || err == EPERM || err == EROFS) hint = "Choose a folder that you may write to.";
  return fail(err == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
              what + " '" + path.string() + "': " + std::strerror(err) + ".", hint);
}

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path home() {
  if (auto h = env("HOME"); !h.empty()) return h;
  if (const passwd* pw = getpwuid(getuid())) return pw->pw_dir;
  return "/tmp";
}

fs::path made(const fs::path& dir, bool is_private = false) {
  std::error_code ec;
  fs::create_directories(dir, ec);
  if (is_private) ::chmod(dir.c_str(), 0700);
  return dir;
}

fs::path xdg(const char* variable, const char* fallback) {
  const std::string base = env(variable);
  return made((base.empty() ? home() / fallback : fs::path(base)) / "quanvas");
}

}  // namespace

Result<std::string> read_file(const fs::path& path, std::uint64_t max_bytes) {
  std::error_code ec;
  const auto status = fs::status(path, ec);
  if (!fs::exists(status)) return fail(ErrorCode::kNotFound, "There is no file '" + path.string() + "'.");
  if (fs::is_directory(status)) return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is a folder, not a file.");
  const auto size = fs::file_size(path, ec);
  if (!ec && size > max_bytes)
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' has " + std::to_string(size) +
                                                 " bytes; at most " + std::to_string(max_bytes) + " are read here.");
  std::ifstream in(path, std::ios::binary);
  if (!in) return io_error(path, "Cannot read", errno);
  // As large as the file says; some say nothing (/proc) or grow meanwhile.
  std::string bytes(ec ? 0 : static_cast<std::size_t>(size), '\0');
  std::size_t got = 0;
  do {
    if (got == bytes.size()) bytes.resize(got + kReadBlock);
    in.read(bytes.data() + got, static_cast<std::streamsize>(bytes.size() - got));
    got += static_cast<std::size_t>(in.gcount());
    if (got > max_bytes)
      return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' has more than " + std::to_string(max_bytes) +
                                                   " bytes, which is the most that is read here.");
  } while (in && in.peek() != std::ifstream::traits_type::eof());
  if (in.bad()) return io_error(path, "Cannot read", errno);
  bytes.resize(got);
  return bytes;
}

Status write_file_atomically(const fs::path& path, const std::function<Status(std::ostream&)>& write) {
  // A device, a pipe or a folder would be replaced by a file.
  std::error_code unknown;
  if (const auto there = fs::status(path, unknown); fs::exists(there) && !fs::is_regular_file(there))
    return fail(ErrorCode::kInvalidArgument, "'" + path.string() + "' is no regular file.", "Give the name of a file.");
  fs::path temporary = path;
  temporary += ".tmp-" + std::to_string(::getpid());
  const auto give_up = [&](Failure f) -> Status {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    return f;
  };
  {
    errno = 0;
    std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
    if (!out) return io_error(path, "Cannot write", errno);
    if (auto status = write(out); !status) return give_up(Failure(status.error()));
    out.flush();
    if (!out) return give_up(io_error(path, "Cannot write", errno ? errno : ENOSPC));
  }
  if (const int fd = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC); fd >= 0) {
    const int rc = ::fsync(fd);
    const int err = errno;
    ::close(fd);
    if (rc != 0) return give_up(io_error(path, "Cannot write", err));
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return give_up(io_error(path, "Cannot write", errno));
  return {};
}

Status write_file_atomically(const fs::path& path, std::string_view bytes) {
  return write_file_atomically(path, [&](std::ostream& out) -> Status {
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return {};
  });
}

fs::path user_data_dir() { return xdg("XDG_DATA_HOME", ".local/share"); }
fs::path user_cache_dir() { return xdg("XDG_CACHE_HOME", ".cache"); }

fs::path runtime_dir() {
  const std::string base = env("XDG_RUNTIME_DIR");
  if (!base.empty() && ::access(base.c_str(), W_OK) == 0) return made(fs::path(base) / "quanvas", true);
  return made("/tmp/quanvas-" + std::to_string(::getuid()), true);
}

fs::path resource_dir() {
  if (auto dir = env("QUANVAS_RESOURCES"); !dir.empty()) return dir;
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  const fs::path installed = self.parent_path().parent_path() / "share" / "quanvas";
  if (fs::exists(installed / "presets", ec)) return installed;
  return QUANVAS_SOURCE_RESOURCES;
}

}  // namespace quanvas
