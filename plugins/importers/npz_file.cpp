#include "plugins/importers/npz_file.h"

#include <algorithm>
#include <cstring>

#include "core/data/npy.h"
#include "plugins/datasets/zip_member.h"

namespace quanvas::npz {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{8} << 30;

DataType type_of(ElementType type) {
  switch (type) {
    case ElementType::kFloat32: return DataType::kFloat;
    case ElementType::kFloat64: return DataType::kDouble;
    case ElementType::kUint8: return DataType::kUint8;
    case ElementType::kInt8: return DataType::kInt8;
    case ElementType::kInt16: return DataType::kInt16;
    case ElementType::kInt32: return DataType::kInt32;
    case ElementType::kInt64: return DataType::kInt64;
    default: return DataType::kUndefined;
  }
}

Result<TensorData> array_of(const std::string& label, std::vector<std::byte> bytes) {
  const auto read = [&](std::uint64_t at, void* out, std::size_t count) -> Status {
    if (at > bytes.size() || count > bytes.size() - at) return fail(ErrorCode::kCorrupt, label + " ends too early.");
    std::memcpy(out, bytes.data() + at, count);
    return {};
  };
  QUANVAS_TRY(const NpyHeader header, read_npy_header(label, bytes.size(), read));
  TensorData out;
  out.type = type_of(header.type);
  if (out.type == DataType::kUndefined)
    return fail(ErrorCode::kUnsupported, label + " has elements of a type that is not known here.");
  out.shape = header.shape;
  const auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  out.data = owner->data() + header.data_at;
  out.bytes = static_cast<std::size_t>(element_count(header.shape)) * element_size(out.type);
  if (out.bytes != owner->size() - header.data_at)
    return fail(ErrorCode::kCorrupt, label + " has another size than its shape.");
  out.owner = owner;
  return out;
}

}  // namespace

Result<std::shared_ptr<const File>> File::open(const std::string& path) {
  QUANVAS_TRY(const auto source, SourceFile::open(path));
  QUANVAS_TRY(const std::vector<ZipMember> members, zip_members(*source));
  auto file = std::make_shared<File>();
  file->path_ = path;
  // Members may overlap in a hostile archive: what all of them claim is bounded first.
  std::uint64_t left = std::min<std::uint64_t>(kMostBytes, std::uint64_t{64} * (source->size() + (1 << 20)));
  for (const ZipMember& member : members) {
    std::string name = member.name;
    if (name.size() <= 4 || !name.ends_with(".npy")) continue;
    name.resize(name.size() - 4);
    if (member.size > left)
      return fail(ErrorCode::kCorrupt, "'" + path + "' claims more bytes than it can hold.", "Export it again.");
    left -= member.size;
    QUANVAS_TRY(std::vector<std::byte> bytes, read_zip_member(*source, member, kMostBytes));
    QUANVAS_TRY(TensorData data, array_of("'" + name + "' in '" + path + "'", std::move(bytes)));
    if (!file->arrays_.emplace(name, std::move(data)).second)
      return fail(ErrorCode::kCorrupt, "'" + path + "' has the array '" + name + "' twice.", "Export it again.");
  }
  return std::shared_ptr<const File>(std::move(file));
}

Result<TensorData> File::tensor(const std::string& name) const {
  const auto it = arrays_.find(name);
  if (it == arrays_.end()) return fail(ErrorCode::kNotFound, "'" + path_ + "' has no array '" + name + "'.");
  return it->second;
}

std::string File::text(const std::string& name) const {
  const auto it = arrays_.find(name);
  if (it == arrays_.end() || it->second.type != DataType::kUint8) return {};
  return std::string(reinterpret_cast<const char*>(it->second.data), it->second.bytes);
}

}  // namespace quanvas::npz
