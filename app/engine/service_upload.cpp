#include <unistd.h>

#include <atomic>
#include <filesystem>

#include "app/engine/service_calls.h"
#include "core/base/files.h"
#include "core/base/hash.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

// Only the last part of the name that the client gave: nothing of it may lead out of the folder.
Result<std::string> plain_name(const std::string& given) {
  const std::string name = fs::path(given).filename().string();
  if (name.empty() || name == "." || name == ".." || name.find('\0') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "The upload has no usable file name ('" + given + "').",
                "Send the name in the first chunk.");
  return name;
}

}  // namespace

Result<std::string> receive_upload(const grpc::ServerContext& context,
                                   grpc::ServerReader<protocol::FileChunk>* chunks) {
  static std::atomic<int> serial = 0;
  const fs::path uploads = user_cache_dir() / "uploads";
  const fs::path incoming =
      uploads / ("incoming-" + std::to_string(::getpid()) + "-" + std::to_string(serial++));
  std::error_code ec;
  fs::create_directories(uploads, ec);

  protocol::FileChunk chunk;
  std::string given;
  Hasher hasher;
  std::uint64_t bytes = 0;
  QUANVAS_CHECK(write_file_atomically(incoming, [&](std::ostream& out) -> Status {
    while (chunks->Read(&chunk)) {
      if (given.empty()) given = chunk.name();
      hasher.bytes(chunk.data().data(), chunk.data().size());
      out.write(chunk.data().data(), static_cast<std::streamsize>(chunk.data().size()));
      if (!out)
        return fail(ErrorCode::kIo, "Cannot store the upload '" + given + "' in '" + uploads.string() + "' after " +
                                        std::to_string(bytes) + " bytes.",
                    "Free some space on the engine's machine.");
      bytes += chunk.data().size();
    }
    if (context.IsCancelled()) return fail(ErrorCode::kCancelled, "The upload of '" + given + "' was stopped.");
    return {};
  }));
  const auto name = plain_name(given);
  if (!name) {
    fs::remove(incoming, ec);
    return Failure(name.error());
  }
  const fs::path folder = uploads / hasher.hex();
  fs::create_directories(folder, ec);
  fs::rename(incoming, folder / *name, ec);
  if (ec) {
    const std::string why = ec.message();
    fs::remove(incoming, ec);
    return fail(ErrorCode::kIo, "Cannot store the upload '" + *name + "' in '" + folder.string() + "': " + why + ".");
  }
  return (folder / *name).string();
}

}  // namespace quanvas
