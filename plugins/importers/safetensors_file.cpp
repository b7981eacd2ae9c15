#include "plugins/importers/safetensors_file.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <vector>

#include "core/base/files.h"
#include "core/base/mapped_file.h"

namespace quanvas::safetensors {
namespace {

constexpr std::uint64_t kMostHeader = std::uint64_t{100} << 20;  // as the format's own library

struct Named {
  const char* dtype;
  DataType type;
  std::uint64_t bytes;
};
constexpr Named kTypes[] = {{"F64", DataType::kDouble, 8},
                            {"I64", DataType::kInt64, 8},
                            {"U64", DataType::kUint64, 8},
                            {"F32", DataType::kFloat, 4},
                            {"I32", DataType::kInt32, 4},
                            {"U32", DataType::kUint32, 4},
                            {"F16", DataType::kFloat16, 2},
                            {"BF16", DataType::kBfloat16, 2},
                            {"I16", DataType::kInt16, 2},
                            {"U16", DataType::kUint16, 2},
                            {"I8", DataType::kInt8, 1},
                            {"U8", DataType::kUint8, 1},
                            {"BOOL", DataType::kBool, 1},
                            {"F8_E4M3", DataType::kFloat8E4M3Fn, 1},
                            {"F8_E5M2", DataType::kFloat8E5M2, 1},
                            {"F8_E8M0", DataType::kFloat8E8M0, 1}};

std::uint64_t bytes_per_element(DataType type) {
  for (const Named& n : kTypes)
    if (n.type == type) return n.bytes;
  return 0;
}

std::uint64_t little_endian(const char* bytes) {
  std::uint64_t v = 0;
  for (int i = 8; i-- > 0;) v = v << 8 | static_cast<unsigned char>(bytes[i]);
  return v;
}

// A key that stands twice in one object: readers differ in which one they take.
std::string repeated_key(const std::string& text) {
  std::vector<std::set<std::string>> open;
  std::string twice;
  const auto look = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end && !open.empty()) open.pop_back();
    if (event == json::parse_event_t::key && !open.empty() && twice.empty() &&
        !open.back().insert(parsed.get<std::string>()).second)
      twice = parsed.get<std::string>();
    return true;
  };
  const json all = json::parse(text, look, /*allow_exceptions=*/false);
  return all.is_discarded() ? std::string() : twice;  // the caller has parsed it before
}

}  // namespace

DataType type_of(const std::string& dtype) {
  for (const Named& n : kTypes)
    if (dtype == n.dtype) return n.type;
  return DataType::kUndefined;
}
const char* dtype_of(DataType type) {
  for (const Named& n : kTypes)
    if (n.type == type) return n.dtype;
  return nullptr;
}

bool looks_like_safetensors(const std::string& head) {
  if (head.size() < 10 || head[8] != '{') return false;
  const std::uint64_t length = little_endian(head.data());
  return length >= 2 && length <= kMostHeader;
}

Result<std::shared_ptr<const File>> File::open(const std::string& path) {
  auto file = std::make_shared<File>();
  file->path_ = path;
  std::error_code ec;
  const auto size = std::filesystem::file_size(path, ec);
  if (!ec && size >= kMapFrom) {
    QUANVAS_TRY(const auto mapped, MappedFile::open(path));
    file->owner_ = mapped;
    QUANVAS_CHECK(file->read(reinterpret_cast<const char*>(mapped->data()), mapped->size()));
  } else {
    QUANVAS_TRY(std::string bytes, read_file(path, kMapFrom));
    const auto owned = std::make_shared<const std::string>(std::move(bytes));
    file->owner_ = owned;
    QUANVAS_CHECK(file->read(owned->data(), owned->size()));
  }
  return std::shared_ptr<const File>(std::move(file));
}

const std::string* File::metadata(const std::string& key) const {
  const auto it = metadata_.find(key);
  return it == metadata_.end() ? nullptr : &it->second;
}

Result<TensorData> File::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return fail(ErrorCode::kNotFound, "'" + path_ + "' has no tensor '" + name + "'.");
  TensorData out;
  out.type = it->second.type;
  out.shape = it->second.shape;
  out.data = data_ + it->second.begin;
  out.bytes = static_cast<std::size_t>(it->second.end - it->second.begin);
  out.owner = owner_;
  return out;
}

namespace {

Failure broken(const std::string& path, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + path + "' is not a whole safetensors file: " + what + ".",
              "Export or copy it again.");
}

}  // namespace

Status File::read(const char* bytes, std::uint64_t size) {
  if (size < 8) return broken(path_, "it has " + std::to_string(size) + " bytes");
  const std::uint64_t length = little_endian(bytes);
  if (length > kMostHeader) return broken(path_, "its header claims " + std::to_string(length) + " bytes");
  if (length > size - 8) return broken(path_, "it ends inside its header");
  const std::string text(bytes + 8, static_cast<std::size_t>(length));
  if (text.empty() || text[0] != '{') return broken(path_, "its header does not begin with {");
  QUANVAS_TRY(const json header, parse_json(text, "The header of '" + path_ + "'"));
  if (!header.is_object()) return broken(path_, "its header is no map");
  if (const std::string twice = repeated_key(text); !twice.empty())
    return broken(path_, "its header names '" + twice.substr(0, 80) + "' twice");
  const std::uint64_t data_size = size - 8 - length;
  data_ = reinterpret_cast<const std::byte*>(bytes + 8 + length);
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      QUANVAS_CHECK(read_entry(name, value, data_size));
      continue;
    }
    if (!value.is_object()) return broken(path_, "its metadata is no map");
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string()) return broken(path_, "its metadata '" + key + "' is no text");
      metadata_[key] = text_value.get<std::string>();
    }
  }
  return check_gaps(data_size);
}

Status File::read_entry(const std::string& name, const json& value, std::uint64_t data_size) {
  const auto bad = [&](const std::string& what) { return broken(path_, "tensor '" + name.substr(0, 200) + "' " + what); };
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets"))
    return bad("is no map of dtype, shape and data_offsets");
  const json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2)
    return bad("has a dtype, shape or data_offsets of another type");
  Entry e;
  e.type = type_of(dtype.get<std::string>());
  const std::uint64_t width = bytes_per_element(e.type);
  if (width == 0)
    return fail(ErrorCode::kUnsupported, "'" + path_ + "': tensor '" + name + "' has the type '" +
                                             dtype.get<std::string>().substr(0, 40) + "', which is not known.");
  std::uint64_t expected = width;
  for (const json& d : shape) {
    if (!d.is_number_unsigned() || d.get<std::uint64_t>() > (std::uint64_t{1} << 48))
      return bad("has a dimension that is none");
    e.shape.push_back(static_cast<std::int64_t>(d.get<std::uint64_t>()));
    if (__builtin_mul_overflow(expected, d.get<std::uint64_t>(), &expected)) return bad("has more elements than fit");
  }
  if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
    return bad("has offsets that are no whole numbers");
  e.begin = offsets[0].get<std::uint64_t>();
  e.end = offsets[1].get<std::uint64_t>();
  if (e.begin > e.end || e.end > data_size) return bad("lies beyond the end of the file");
  if (e.end - e.begin != expected)
    return bad("has " + std::to_string(e.end - e.begin) + " bytes; its type and shape need " + std::to_string(expected));
  tensors_[name] = std::move(e);
  return {};
}

Status File::check_gaps(std::uint64_t data_size) const {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
  for (const auto& [name, e] : tensors_) spans.emplace_back(e.begin, e.end);
  std::sort(spans.begin(), spans.end());
  std::uint64_t at = 0;
  for (const auto& [begin, end] : spans) {
    if (begin != at) return broken(path_, begin < at ? "its tensors overlap" : "there is a gap between its tensors");
    at = end;
  }
  if (at != data_size) return broken(path_, "there are bytes behind its last tensor");
  return {};
}

}  // namespace quanvas::safetensors
