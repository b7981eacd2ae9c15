// One member of a ZIP archive (an .npz file), stored or deflated, with ZIP64 sizes. Torch-free.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/data/sources.h"

namespace quanvas {

struct ZipMember {
  std::string name;
  std::uint64_t offset = 0;      // of its local header
  std::uint64_t compressed = 0, size = 0;
  int method = 0;                // 0 stored, 8 deflated
  std::uint32_t crc = 0;
};

// The central directory. kCorrupt for files that are no archive or cut short.
Result<std::vector<ZipMember>> zip_members(const SourceFile& file);
// The member's bytes, at most `most`; its checksum is verified.
Result<std::vector<std::byte>> read_zip_member(const SourceFile& file, const ZipMember& member, std::uint64_t most);

}  // namespace quanvas
