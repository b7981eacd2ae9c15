#include "core/data/npy.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>

#include "core/base/files.h"

namespace quanvas {
namespace {

constexpr std::uint64_t kMostHeader = 1 << 20;

struct NpyType {
  const char* name;
  ElementType type;
};
constexpr NpyType kTypes[] = {{"<f4", ElementType::kFloat32}, {"<f8", ElementType::kFloat64},
                              {"|u1", ElementType::kUint8},   {"|i1", ElementType::kInt8},
                              {"<i2", ElementType::kInt16},   {"<i4", ElementType::kInt32},
                              {"<i8", ElementType::kInt64},   {"<u1", ElementType::kUint8},
                              {"<i1", ElementType::kInt8}};

Failure corrupt(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kCorrupt, name + " " + what, "Write it again with numpy.save.");
}

// The value of 'key' in the header's dictionary, up to the comma or brace that ends it.
std::optional<std::string> header_value(const std::string& header, const std::string& key) {
  auto at = header.find("'" + key + "'");
  if (at == std::string::npos || (at = header.find(':', at)) == std::string::npos) return std::nullopt;
  at = header.find_first_not_of(' ', at + 1);
  if (at == std::string::npos) return std::nullopt;
  const char open = header[at];
  const char close = open == '(' ? ')' : open == '[' ? ']' : open == '\'' ? '\'' : ',';
  auto end = header.find(close, at + 1);
  if (close == ',') end = std::min(end, header.find('}', at));
  if (end == std::string::npos) return std::nullopt;
  return header.substr(at, end - at + (close == ',' ? 0 : 1));
}

std::optional<Shape> parse_tuple(const std::string& text) {
  Shape shape;
  if (text.size() < 2 || text.front() != '(' || text.back() != ')') return std::nullopt;
  std::int64_t value = -1;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const char c = text[i];
    if (std::isdigit(static_cast<unsigned char>(c))) {
      if (value > (std::int64_t{1} << 53)) return std::nullopt;
      value = (value < 0 ? 0 : value * 10) + (c - '0');
    } else if (c == ',' || c == ')') {
      if (value >= 0) shape.push_back(value);
      value = -1;
    } else if (c != ' ' && c != 'L') {
      return std::nullopt;
    }
  }
  return shape;
}

Result<ElementType> element_type(const std::string& name, const std::string& text) {
  for (const NpyType& t : kTypes)
    if (text == "'" + std::string(t.name) + "'") return t.type;
  const bool big = text.size() > 1 && text[1] == '>';
  return fail(ErrorCode::kUnsupported,
              name + " holds elements of NumPy type " + text.substr(0, 60) + (big ? ", which is big endian." : "."),
              "Convert with astype to float32, float64, uint8, int8, int16, int32 or int64, little endian.");
}

Result<std::string> read_header(const std::string& name, std::uint64_t size, const ReadBytes& read,
                                std::uint64_t& data_at) {
  unsigned char head[12] = {};
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(sizeof head, size));
  QUANVAS_CHECK(read(0, head, count));
  if (count < 10 || std::memcmp(head, "\x93NUMPY", 6) != 0)
    return corrupt(name, "is no NumPy array: it does not begin with \\x93NUMPY.");
  if (head[6] < 1 || head[6] > 3)
    return corrupt(name, "has version " + std::to_string(head[6]) + " of the NumPy format; 1 to 3 are known.");
  const std::uint64_t begin = head[6] == 1 ? 10 : 12;
  std::uint64_t length = head[8] | head[9] << 8;
  if (head[6] > 1) length |= static_cast<std::uint64_t>(head[10]) << 16 | static_cast<std::uint64_t>(head[11]) << 24;
  if (length > kMostHeader)
    return corrupt(name, "declares a header of " + std::to_string(length) + " bytes; at most 1 MiB is plausible.");
  if (begin + length > size) return corrupt(name, "ends inside its header.");
  std::string header(length, ' ');
  QUANVAS_CHECK(read(begin, header.data(), header.size()));
  data_at = begin + length;
  return header;
}


template <class T>
Status write_array(const std::filesystem::path& path, const char* type, const Shape& shape, const std::vector<T>& values) {
  std::string header = std::string("{'descr': '") + type + "', 'fortran_order': False, 'shape': (";
  for (const std::int64_t d : shape) header += std::to_string(d) + ",";
  header += "), }";
  constexpr std::size_t kAlign = 64, kHead = 10;
  header.append(kAlign - 1 - (kHead + header.size()) % kAlign, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  return write_file_atomically(path, bytes);
}

}  // namespace

Result<NpyHeader> read_npy_header(const std::string& name, std::uint64_t size, const ReadBytes& read) {
  NpyHeader out;
  QUANVAS_TRY(const std::string header, read_header(name, size, read, out.data_at));
  const auto type = header_value(header, "descr"), order = header_value(header, "fortran_order"),
             tuple = header_value(header, "shape");
  const auto shape = tuple ? parse_tuple(*tuple) : std::nullopt;
  if (!type || !order || !shape) return corrupt(name, "has a header without descr, fortran_order and shape.");
  QUANVAS_TRY(out.type, element_type(name, *type));
  if (order->rfind("False", 0) != 0 && shape->size() > 1)
    return fail(ErrorCode::kUnsupported, name + " is stored in Fortran order.", "Save numpy.ascontiguousarray of it.");
  const auto elements = checked_product(*shape);
  const std::uint64_t have = size - out.data_at, per_element = size_of(out.type);
  if (!elements) return corrupt(name, "has the shape " + shape_text(*shape) + ", more than 2^53 elements.");
  if (*elements > have / per_element)
    return corrupt(name, "is truncated: the shape " + shape_text(*shape) + " needs " + std::to_string(*elements) + " elements of " +
                             std::to_string(per_element) + " bytes, but there are " + std::to_string(have) + " bytes.");
  out.shape = *shape;
  return out;
}

Result<FloatArray> read_npy(const std::filesystem::path& path) {
  QUANVAS_TRY(const auto file, SourceFile::open(path));
  const auto read = [&](std::uint64_t at, void* out, std::size_t count) { return file->read(at, out, count); };
  QUANVAS_TRY(const NpyHeader header, read_npy_header("'" + path.string() + "'", file->size(), read));
  const auto count = static_cast<std::size_t>(*checked_product(header.shape));
  std::vector<std::byte> bytes(count * size_of(header.type));
  QUANVAS_CHECK(file->read(header.data_at, bytes.data(), bytes.size()));
  FloatArray array{header.shape, std::vector<float>(count)};
  to_float(header.type, bytes.data(), count, array.values.data());
  return array;
}

Status write_npy(const std::filesystem::path& path, const Shape& shape, const std::vector<float>& values) {
  return write_array(path, "<f4", shape, values);
}
Status write_npy(const std::filesystem::path& path, const Shape& shape, const std::vector<std::int32_t>& values) {
  return write_array(path, "<i4", shape, values);
}

}  // namespace quanvas
