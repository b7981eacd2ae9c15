#include "plugins/exporters/npz_write.h"

#include <zlib.h>

#include <algorithm>

#include "core/base/files.h"

namespace quanvas::npz {
namespace {

constexpr std::uint64_t kMost = 0xffffffff, kLocal = 30, kEntry = 46, kEnd = 22;
constexpr std::size_t kMostName = 0xffff, kMostMembers = 0xfffe, kAlign = 64, kHead = 10;
constexpr int kDay = 0x0021;  // the first that there is, 1980-01-01: files of the same network are the same bytes
constexpr int kUtf8 = 0x0800;

void put(std::string& out, std::uint64_t v, int width) {
  for (int i = 0; i < width; ++i) out += static_cast<char>(v >> (8 * i) & 0xff);
}

// What local header and directory entry have in common: from the version that is needed to the lengths of names.
std::string common(const std::string& name, const std::string& bytes) {
  std::uint32_t crc = 0;
  constexpr std::size_t kStep = std::size_t{1} << 30;
  for (std::size_t at = 0; at < bytes.size(); at += kStep)
    crc = static_cast<std::uint32_t>(crc32(crc, reinterpret_cast<const Bytef*>(bytes.data() + at),
                                           static_cast<uInt>(std::min(kStep, bytes.size() - at))));
  std::string out;
  put(out, 20, 2);
  put(out, kUtf8, 2);
  put(out, 0, 2);  // stored
  put(out, 0, 2);
  put(out, kDay, 2);
  put(out, crc, 4);
  put(out, bytes.size(), 4);
  put(out, bytes.size(), 4);
  put(out, name.size(), 2);
  put(out, 0, 2);
  return out;
}

}  // namespace

const char* descr_of(DataType type) {
  switch (type) {
    case DataType::kFloat: return "<f4";
    case DataType::kDouble: return "<f8";
    case DataType::kInt8: return "|i1";
    case DataType::kUint8: return "|u1";
    case DataType::kInt16: return "<i2";
    case DataType::kInt32: return "<i4";
    case DataType::kInt64: return "<i8";
    default: return nullptr;
  }
}

Status Writer::add(const std::string& name, DataType type, const Shape& shape, std::string bytes) {
  const char* descr = descr_of(type);
  const std::string member = name + ".npy";
  const bool taken = std::any_of(members_.begin(), members_.end(), [&](const auto& m) { return m.first == member; });
  if (!descr || member.size() > kMostName || taken || members_.size() == kMostMembers)
    return fail(ErrorCode::kUnsupported,
                "The array '" + name + "' of " + type_name(type) + " has no place in a NumPy archive.",
                "Rename it, or convert it to float32.");
  if (bytes.size() != static_cast<std::size_t>(element_count(shape)) * element_size(type))
    return fail(ErrorCode::kInternal, "The array '" + name + "' has " + std::to_string(bytes.size()) +
                                          " bytes, not those of " + shape_text(shape) + ".");
  std::string header = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (";
  for (std::size_t i = 0; i < shape.size(); ++i)
    header += std::to_string(shape[i]) + (shape.size() == 1 ? "," : i + 1 < shape.size() ? ", " : "");
  header += "), }";
  header.append(kAlign - 1 - (kHead + header.size()) % kAlign, ' ');
  header += '\n';
  std::string array("\x93NUMPY\x01\x00", 8);
  put(array, header.size(), 2);
  array += header;
  array += bytes;
  members_.emplace_back(member, std::move(array));
  return {};
}

std::uint64_t Writer::bytes() const {
  std::uint64_t n = kEnd;
  for (const auto& [name, bytes] : members_) n += kLocal + kEntry + 2 * name.size() + bytes.size();
  return n;
}

Status Writer::save(const std::string& path) const {
  if (bytes() >= kMost)
    return fail(ErrorCode::kUnsupported,
                "'" + path + "' would have " + std::to_string(bytes()) + " bytes; archives here have less than 4 GiB.",
                "Export to safetensors.");
  return write_file_atomically(path, [&](std::ostream& out) -> Status {
    std::string directory;
    std::uint64_t at = 0;
    for (const auto& [name, bytes] : members_) {
      const std::string facts = common(name, bytes);
      std::string local = "PK\3\4" + facts + name;
      directory += "PK\1\2";
      put(directory, 20, 2);
      directory += facts + std::string(10, '\0');  // comment, disk, attributes
      put(directory, at, 4);
      directory += name;
      out.write(local.data(), static_cast<std::streamsize>(local.size()));
      out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      at += local.size() + bytes.size();
    }
    std::string end = "PK\5\6" + std::string(4, '\0');
    put(end, members_.size(), 2);
    put(end, members_.size(), 2);
    put(end, directory.size(), 4);
    put(end, at, 4);
    put(end, 0, 2);
    out.write(directory.data(), static_cast<std::streamsize>(directory.size()));
    out.write(end.data(), static_cast<std::streamsize>(end.size()));
    return {};
  });
}

}  // namespace quanvas::npz
