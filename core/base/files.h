// Quanvas - files: read whole, write atomically (temporary file beside the target, fsync, rename).
// Errors name the path and what the operating system said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <string_view>

#include "core/base/result.h"

namespace quanvas {

// Refuses folders, missing files and files larger than max_bytes, whatever they say of their size.
Result<std::string> read_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{8} << 30);

// The target is the old file or the whole new one, never half of it: also when the disk is full, the
// program is killed or `write` fails.
Status write_file_atomically(const std::filesystem::path& path,
                             const std::function<Status(std::ostream&)>& write);
Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// Folders as the XDG base directory specification names them, created on demand.
std::filesystem::path user_data_dir();   // ~/.local/share/quanvas
std::filesystem::path user_cache_dir();  // ~/.cache/quanvas
std::filesystem::path runtime_dir();     // $XDG_RUNTIME_DIR/quanvas or a private folder in /tmp, mode 0700
// resources/ of the source tree in a build, share/quanvas when installed; QUANVAS_RESOURCES overrides.
std::filesystem::path resource_dir();

}  // namespace quanvas
