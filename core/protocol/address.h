// Quanvas - addresses of engines: unix:PATH. No gRPC here.
#pragma once

#include <string>

namespace quanvas::protocol {

inline constexpr char kScheme[] = "unix:";

// Whether a process takes connections at the socket `path`; at most kMaxSocketPath bytes.
bool somebody_listens(const std::string& path);

}  // namespace quanvas::protocol
