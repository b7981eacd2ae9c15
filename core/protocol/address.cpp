#include "core/protocol/address.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "core/protocol/protocol.h"

namespace quanvas::protocol {

bool somebody_listens(const std::string& path) {
  sockaddr_un address{};
  static_assert(sizeof address.sun_path == kMaxSocketPath + 1);
  if (path.size() > kMaxSocketPath) return false;
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const bool answered = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return answered;
}

}  // namespace quanvas::protocol
