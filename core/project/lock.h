// Quanvas - the advisory lock "<file>.lock" that makes one process (one Project) the writer of a project.
// Held by flock, so it goes away with its process however that ends. Private to core/project.
#pragma once

#include <memory>
#include <string>

namespace quanvas {

class WriteLock {
 public:
  // Null when another one has the lock or the lock file cannot be made; `reason` then says who or why.
  static std::unique_ptr<WriteLock> take(const std::string& project_path, std::string& reason);
  ~WriteLock();  // removes the lock file
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  WriteLock(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

}  // namespace quanvas
