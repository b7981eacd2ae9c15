// Quanvas - writes .npz files: a ZIP archive of stored members, each a NumPy array of version 1.0. Sources: NumPy,
// numpy.lib.format; PKWARE, APPNOTE.TXT 6.3, sections 4.3 and 4.4.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/graph/weights.h"

namespace quanvas::npz {

// Null: NumPy has no such type.
const char* descr_of(DataType type);

class Writer {
 public:
  // kUnsupported: a type without name, a name of more than 65535 bytes, or that is there already.
  Status add(const std::string& name, DataType type, const Shape& shape, std::string bytes);
  // What save() would write; ZIP64 is not written, so it must stay below 4 GiB.
  std::uint64_t bytes() const;
  Status save(const std::string& path) const;

 private:
  std::vector<std::pair<std::string, std::string>> members_;  // name, bytes of the array
};

}  // namespace quanvas::npz
