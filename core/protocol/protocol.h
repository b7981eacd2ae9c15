// Quanvas - what the window and the engine must agree on before they talk. No gRPC here.
#pragma once

#include <cstddef>

namespace quanvas::protocol {

// Raised whenever a message, a verb or a JSON value of the service changes in a way that the other side
// would misread. Both sides refuse another number, with a sentence.
inline constexpr int kVersion = 2;

// Bytes of one chunk of an upload.
inline constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

// A path of a Unix socket may not be longer (sockaddr_un::sun_path with its final zero).
inline constexpr std::size_t kMaxSocketPath = 107;

}  // namespace quanvas::protocol
