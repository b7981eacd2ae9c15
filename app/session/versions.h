// Quanvas - what the session links, for --version.
#pragma once

namespace quanvas {

const char* transport_version();  // "gRPC 1.51.1"

}  // namespace quanvas
