#include "core/project/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>

namespace quanvas {
namespace {

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

std::string owner_text(int fd) {
  char bytes[512] = {};
  const ssize_t got = ::pread(fd, bytes, sizeof bytes - 1, 0);
  std::istringstream in(std::string(bytes, got > 0 ? static_cast<std::size_t>(got) : 0));
  std::string pid, host;
  in >> pid >> host;
  if (pid.empty() || pid.find_first_not_of("0123456789") != std::string::npos) return "another process";
  if (pid == std::to_string(::getpid()) && host == host_name()) return "this program";
  return "process " + pid + " on " + (host.empty() || host == host_name() ? "this machine" : "'" + host + "'");
}

// The holder removes the file when it lets go: a lock on a file that has no name any more is worth nothing.
bool still_named(int fd, const std::string& path) {
  struct stat held {}, named {};
  return ::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
         held.st_dev == named.st_dev;
}

}  // namespace

std::unique_ptr<WriteLock> WriteLock::take(const std::string& project_path, std::string& reason) {
  const std::string path = project_path + ".lock";
  for (int attempt = 0; attempt < 100; ++attempt) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
      reason = std::string("The lock file beside the project cannot be made (") + std::strerror(errno) +
               "), so it is open for reading only.";
      return nullptr;
    }
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      reason = errno == EWOULDBLOCK ? "The project is open in " + owner_text(fd) + ", so it is open for reading only here."
                                    : std::string("The project cannot be locked (") + std::strerror(errno) +
                                          "), so it is open for reading only.";
      ::close(fd);
      return nullptr;
    }
    if (!still_named(fd, path)) {
      ::close(fd);
      continue;
    }
    const std::string owner = std::to_string(::getpid()) + " " + host_name() + "\n";
    // Who holds the lock is only told to people; failing to write it loses nothing.
    if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, owner.data(), owner.size(), 0) < 0) reason.clear();
    return std::unique_ptr<WriteLock>(new WriteLock(fd, path));
  }
  reason = "The project is being opened and closed by other processes, so it is open for reading only.";
  return nullptr;
}

WriteLock::~WriteLock() {
  ::unlink(path_.c_str());
  ::close(fd_);
}

}  // namespace quanvas
