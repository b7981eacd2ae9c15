#include "plugins/exporters/gguf_file.h"

#include <type_traits>

namespace quanvas::gguf_file {
namespace {

// gguf_type
constexpr std::uint32_t kU8 = 0, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9;
constexpr std::uint32_t kVersion = 3;

template <class T>
void append(std::string& out, T v) {
  static_assert(std::is_arithmetic_v<T>);
  out.append(reinterpret_cast<const char*>(&v), sizeof v);  // little endian, as every machine that Quanvas runs on
}
void append_text(std::string& out, std::string_view v) {
  append(out, static_cast<std::uint64_t>(v.size()));
  out.append(v);
}

}  // namespace

void Metadata::key(std::string_view name, std::uint32_t type) {
  append_text(encoded_, name);
  append(encoded_, type);
  ++count_;
}
template <class T>
void Metadata::number(T v) {
  append(encoded_, v);
}
void Metadata::string(std::string_view v) {
  append_text(encoded_, v);
}

void Metadata::u32(std::string_view name, std::uint32_t v) {
  key(name, kU32), number(v);
}
void Metadata::f32(std::string_view name, float v) {
  key(name, kF32), number(v);
}
void Metadata::boolean(std::string_view name, bool v) {
  key(name, kBool), number(static_cast<std::uint8_t>(v));
}
void Metadata::text(std::string_view name, std::string_view v) {
  key(name, kString), string(v);
}

void Metadata::texts(std::string_view name, const std::vector<std::string>& v) {
  key(name, kArray), number(kString), number(static_cast<std::uint64_t>(v.size()));
  for (const std::string& s : v) string(s);
}
void Metadata::f32s(std::string_view name, const std::vector<float>& v) {
  key(name, kArray), number(kF32), number(static_cast<std::uint64_t>(v.size()));
  for (const float x : v) number(x);
}
void Metadata::i32s(std::string_view name, const std::vector<std::int32_t>& v) {
  key(name, kArray), number(kI32), number(static_cast<std::uint64_t>(v.size()));
  for (const std::int32_t x : v) number(x);
}
void Metadata::bytes(std::string_view name, std::string_view v) {
  key(name, kArray), number(kU8), number(static_cast<std::uint64_t>(v.size()));
  encoded_.append(v);
}

std::string head(const Metadata& metadata, const std::vector<TensorInfoOut>& tensors) {
  std::string out = "GGUF";
  append(out, kVersion);
  append(out, static_cast<std::uint64_t>(tensors.size()));
  append(out, metadata.count());
  out += metadata.encoded();
  std::uint64_t offset = 0;
  for (const TensorInfoOut& t : tensors) {
    append_text(out, t.name);
    append(out, static_cast<std::uint32_t>(t.dims.size()));
    for (const std::uint64_t d : t.dims) append(out, d);
    append(out, t.type);
    append(out, offset);
    offset += t.bytes + padding(t.bytes);
  }
  out.append(padding(out.size()), '\0');
  return out;
}

}  // namespace quanvas::gguf_file
