#include "plugins/importers/gguf_read.h"

#include <bit>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/base/files.h"
#include "core/base/mapped_file.h"
#include "plugins/importers/gguf_values.h"

namespace quanvas::gguf_in {
namespace {

constexpr std::uint32_t kTypes = 13;  // gguf_type 0 .. 12
constexpr std::uint32_t kString = 8, kArray = 9;
constexpr std::uint64_t kSizes[kTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr std::uint64_t kLeastKey = 8 + 4 + 1, kLeastTensor = 8 + 4 + 8 + 4 + 8;  // bytes
constexpr std::uint64_t kLargestAlignment = 1 << 20;

class Parser {
 public:
  Parser(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  Result<File> run() {
    QUANVAS_CHECK(header());
    if (keys_ > left() / kLeastKey) return bad("claims " + std::to_string(keys_) + " keys, more than it has room for");
    for (std::uint64_t i = 0; i < keys_; ++i) QUANVAS_CHECK(key());
    if (tensors_ > left() / kLeastTensor)
      return bad("claims " + std::to_string(tensors_) + " tensors, more than it has room for");
    for (std::uint64_t i = 0; i < tensors_; ++i) QUANVAS_CHECK(info());
    QUANVAS_CHECK(data());
    return std::move(file_);
  }

 private:
  Failure bad(const std::string& what) const {
    return fail(ErrorCode::kCorrupt, "'" + path_ + "' " + what + " (at byte " + std::to_string(at_) + ").",
                "Export or copy the file again.");
  }
  std::uint64_t left() const { return bytes_.size() - at_; }

  template <class T>
  bool take(T& value) {
    if (left() < sizeof value) return false;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return true;
  }
  bool take(std::string_view& value) {
    std::uint64_t size = 0;
    if (!take(size) || size > left()) return false;
    value = bytes_.substr(at_, static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return true;
  }

  Status header() {
    if (!bytes_.starts_with("GGUF")) return bad("is no GGUF file");
    at_ = 4;
    if (!take(file_.version)) return bad("ends within its header");
    if (file_.version == __builtin_bswap32(2) || file_.version == __builtin_bswap32(3))
      return fail(ErrorCode::kUnsupported, "'" + path_ + "' is a GGUF file of a big-endian machine.",
                  "Convert it to little endian first.");
    if (file_.version != 2 && file_.version != 3)
      return fail(ErrorCode::kUnsupported,
                  "'" + path_ + "' is GGUF version " + std::to_string(file_.version) + "; 2 and 3 are read.",
                  "Convert it with a newer program.");
    if (!take(tensors_) || !take(keys_)) return bad("ends within its header");
    return {};
  }

  template <class T, class Stored>
  Status number(Value& out) {
    T v{};
    if (!take(v)) return bad("ends within a value");
    out = static_cast<Stored>(v);
    return {};
  }

  Status value(std::uint32_t type, Value& out) {
    switch (type) {
      case 0:
        return number<std::uint8_t, std::uint64_t>(out);
      case 1:
        return number<std::int8_t, std::int64_t>(out);
      case 2:
        return number<std::uint16_t, std::uint64_t>(out);
      case 3:
        return number<std::int16_t, std::int64_t>(out);
      case 4:
        return number<std::uint32_t, std::uint64_t>(out);
      case 5:
        return number<std::int32_t, std::int64_t>(out);
      case 6:
        return number<float, double>(out);
      case 7: {
        std::uint8_t v = 0;
        if (!take(v)) return bad("ends within a value");
        out = v != 0;
        return {};
      }
      case kString: {
        std::string_view v;
        if (!take(v)) return bad("holds a text that is longer than the file");
        out = v;
        return {};
      }
      case kArray:
        return array(out);
      case 10:
        return number<std::uint64_t, std::uint64_t>(out);
      case 11:
        return number<std::int64_t, std::int64_t>(out);
      case 12:
        return number<double, double>(out);
      default:
        return bad("holds a value of unknown type " + std::to_string(type));
    }
  }

  Status array(Value& out) {
    Array a;
    if (!take(a.type) || !take(a.count)) return bad("ends within an array");
    if (a.type >= kTypes || a.type == kArray) return bad("holds an array of type " + std::to_string(a.type));
    if (a.type == kString) {
      if (a.count > left() / 8)
        return bad("holds an array of " + std::to_string(a.count) + " texts, more than it has room for");
      a.texts.resize(static_cast<std::size_t>(a.count));
      for (std::string_view& t : a.texts)
        if (!take(t)) return bad("holds a text that is longer than the file");
    } else {
      if (a.count > left() / kSizes[a.type])
        return bad("holds an array of " + std::to_string(a.count) + " numbers, more than it has room for");
      a.bytes = bytes_.substr(at_, static_cast<std::size_t>(a.count * kSizes[a.type]));
      at_ += a.bytes.size();
    }
    out = std::move(a);
    return {};
  }

  Status key() {
    std::string_view name;
    std::uint32_t type = 0;
    if (!take(name) || !take(type)) return bad("ends within a key");
    Value v;
    QUANVAS_CHECK(value(type, v));
    if (!file_.values.emplace(std::string(name), std::move(v)).second)
      return bad("has the key '" + std::string(name) + "' twice");
    return {};
  }

  Status info() {
    Tensor t;
    std::string_view name;
    std::uint32_t rank = 0;
    if (!take(name) || !take(rank)) return bad("ends within a tensor's description");
    t.name = name;
    const std::string what = "tensor '" + t.name.substr(0, 200) + "'";
    if (!names_.insert(t.name).second) return bad("has " + what + " twice");
    if (rank > 4) return bad(what + " has " + std::to_string(rank) + " dimensions; at most 4 are legal");
    std::uint64_t elements = 1;
    for (std::uint32_t i = 0; i < rank; ++i) {
      std::uint64_t d = 0;
      if (!take(d)) return bad("ends within a tensor's description");
      if (d == 0) return bad(what + " is empty");
      if (__builtin_mul_overflow(elements, d, &elements) || d > INT64_MAX || elements > INT64_MAX)
        return bad(what + " has more elements than fit");
      t.dims.push_back(d);
    }
    if (!take(t.type) || !take(t.offset)) return bad("ends within a tensor's description");
    const TypeInfo* known = type_info(t.type);
    if (!known)
      return fail(ErrorCode::kUnsupported,
                  "'" + path_ + "': " + what + " has ggml's type " + std::to_string(t.type) + ", which is not read here.",
                  "Convert the file to one of the types in docs/export-targets.md.");
    if (t.columns() % known->block != 0)
      return bad(what + " has rows of " + std::to_string(t.columns()) + " elements, no multiple of " +
                 std::to_string(known->block));
    std::uint64_t size = 0;
    if (__builtin_mul_overflow(elements / known->block, std::uint64_t{known->bytes}, &size))
      return bad(what + " has more elements than fit");
    sizes_.push_back(size);
    file_.tensors.push_back(std::move(t));
    return {};
  }

  Status data() {
    std::uint64_t alignment = 32;
    if (const auto it = file_.values.find("general.alignment"); it != file_.values.end()) {
      const auto* v = std::get_if<std::uint64_t>(&it->second);
      if (!v || *v == 0 || *v > kLargestAlignment || !std::has_single_bit(*v))
        return bad("has a general.alignment that is no power of two");
      alignment = *v;
    }
    if (file_.tensors.empty()) return {};
    const std::uint64_t begin = (at_ + alignment - 1) / alignment * alignment;
    if (begin > bytes_.size()) return bad("ends before its tensors");
    const std::uint64_t room = bytes_.size() - begin;
    for (std::size_t i = 0; i < file_.tensors.size(); ++i) {
      Tensor& t = file_.tensors[i];
      const std::string what = "tensor '" + t.name.substr(0, 200) + "'";
      if (t.offset % alignment != 0) return bad(what + " is not aligned to " + std::to_string(alignment) + " bytes");
      if (t.offset > room || sizes_[i] > room - t.offset) return bad(what + " reaches beyond the end of the file");
      t.offset += begin;
      t.bytes = bytes_.substr(static_cast<std::size_t>(t.offset), static_cast<std::size_t>(sizes_[i]));
    }
    return {};
  }

  std::string_view bytes_;
  const std::string& path_;
  std::size_t at_ = 0;
  std::uint64_t tensors_ = 0, keys_ = 0;
  std::set<std::string> names_;
  std::vector<std::uint64_t> sizes_;
  File file_;
};

}  // namespace

std::uint64_t Tensor::rows() const {
  std::uint64_t n = 1;
  for (std::size_t i = 1; i < dims.size(); ++i) n *= dims[i];
  return n;
}

const Tensor* File::find(const std::string& name) const {
  for (const Tensor& t : tensors)
    if (t.name == name) return &t;
  return nullptr;
}

std::string_view File::text(const std::string& key) const {
  const auto it = values.find(key);
  const auto* v = it == values.end() ? nullptr : std::get_if<std::string_view>(&it->second);
  return v ? *v : std::string_view{};
}

Result<File> parse(std::string_view bytes, const std::string& path) {
  return Parser(bytes, path).run();
}

Result<File> read(const std::string& path) {
  std::error_code ec;
  const auto size = std::filesystem::file_size(path, ec);
  if (!ec && size >= kMapFrom) {
    QUANVAS_TRY(const auto map, MappedFile::open(path));
    QUANVAS_TRY(File file, parse({reinterpret_cast<const char*>(map->data()), map->size()}, path));
    file.owner = map;
    return file;
  }
  QUANVAS_TRY(std::string bytes, read_file(path));
  const auto kept = std::make_shared<const std::string>(std::move(bytes));
  QUANVAS_TRY(File file, parse(*kept, path));
  file.owner = kept;
  return file;
}

}  // namespace quanvas::gguf_in
