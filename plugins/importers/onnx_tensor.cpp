// TensorProto to TensorData: raw bytes, typed fields and external files, each checked against the dimensions.
#include <onnx/onnx_pb.h>

#include <filesystem>
#include <fstream>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 40;

Failure bad(const Source& source, const std::string& name, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + source.path + "': the tensor '" + name + "' " + what + ".",
              "The file is damaged or was written by a faulty exporter.");
}

Result<Shape> checked_dims(const onnx::TensorProto& t, const std::string& name, const Source& source) {
  Shape shape(t.dims().begin(), t.dims().end());
  if (shape.size() > 32) return bad(source, name, "has " + std::to_string(shape.size()) + " dimensions");
  for (const std::int64_t d : shape)
    if (d < 0) return bad(source, name, "has the negative dimension " + std::to_string(d));
  if (element_count(shape) > kMostElements)
    return bad(source, name, "claims " + shape_text(shape) + " elements, more than any file holds");
  return shape;
}

struct External {
  std::string location;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;
};

std::optional<std::uint64_t> parse_number(const std::string& s) {
  if (s.empty() || s.size() > 18 || s.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return std::stoull(s);
}

Result<External> external_of(const onnx::TensorProto& t, const std::string& name, const Source& source) {
  External e;
  for (const auto& entry : t.external_data()) {
    if (entry.key() == "location") e.location = entry.value();
    if (entry.key() != "offset" && entry.key() != "length") continue;
    const auto value = parse_number(entry.value());
    if (!value) return bad(source, name, "has the external " + entry.key() + " '" + printable(entry.value()) + "'");
    if (entry.key() == "offset") e.offset = *value;
    if (entry.key() == "length") e.length = *value;
  }
  if (e.location.empty() && !source.file) return bad(source, name, "is stored outside the file, but no location is given");
  return e;
}

// The file must lie in the model's folder, links followed: a model must not make us read other files.
Result<fs::path> external_path(const External& e, const std::string& name, const Source& source) {
  const fs::path relative(e.location);
  std::error_code ec;
  const fs::path parent = fs::absolute(fs::path(source.path), ec).parent_path();
  const fs::path folder = fs::weakly_canonical(parent, ec);
  const fs::path full = fs::weakly_canonical(folder / relative, ec);
  const auto inside = std::mismatch(folder.begin(), folder.end(), full.begin(), full.end()).first == folder.end();
  if (relative.is_absolute() || !inside || ec || e.location.find('\0') != std::string::npos)
    return fail(ErrorCode::kUnsupported,
                "'" + source.path + "': the tensor '" + name + "' is stored in '" + printable(e.location) +
                    "', which lies outside the model's folder.",
                "Put the data file beside the model and name it without '..'.");
  if (!fs::is_regular_file(full, ec))
    return fail(ErrorCode::kNotFound,
                "'" + source.path + "': the data file '" + printable(e.location) + "' of the tensor '" + name +
                    "' is missing.",
                "Put it beside the model.");
  return full;
}

TensorData in_map(std::shared_ptr<const MappedFile> file, std::uint64_t offset, DataType type, Shape shape) {
  const std::byte* const data = file->data() + offset;
  const std::size_t bytes = bytes_of(type, element_count(shape));
  return {type, std::move(shape), data, bytes, std::move(file)};
}

// One map for all tensors of a file, as long as one of them is there.
Result<std::shared_ptr<const MappedFile>> mapped(const fs::path& path, const Source& source) {
  auto& known = source.maps[path.string()];
  if (!known) {
    QUANVAS_TRY(known, MappedFile::open(path));
  }
  return known;
}

Result<TensorData> read_external(const onnx::TensorProto& t, DataType type, Shape shape, const std::string& name,
                                 const Source& source) {
  QUANVAS_TRY(const External e, external_of(t, name, source));
  const bool is_inside = e.location.empty();
  fs::path path = source.path;
  if (!is_inside) {
    QUANVAS_TRY(path, external_path(e, name, source));
  }
  const std::uint64_t need = bytes_of(type, element_count(shape));
  std::error_code ec;
  const std::uint64_t size = is_inside ? source.file->size() : fs::file_size(path, ec);
  if (ec || e.offset > size || need > size - e.offset || (e.length && *e.length != need))
    return bad(source, name,
               "needs " + std::to_string(need) + " bytes at " + std::to_string(e.offset) + " of '" +
                   printable(e.location) + "', which has " + std::to_string(ec ? 0 : size));
  if (is_inside) return in_map(source.file, e.offset, type, std::move(shape));
  if (size >= kMapFrom) {
    QUANVAS_TRY(auto file, mapped(path, source));
    if (file->size() >= e.offset + need) return in_map(std::move(file), e.offset, type, std::move(shape));
  }
  auto bytes = std::make_shared<std::vector<char>>(need);
  std::ifstream in(path, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(e.offset));
  if (!in.read(bytes->data(), static_cast<std::streamsize>(need)))
    return fail(ErrorCode::kIo, "Cannot read '" + path.string() + "'.");
  return TensorData{type, std::move(shape), reinterpret_cast<const std::byte*>(bytes->data()), bytes->size(),
                    bytes};
}

template <class To, class Field>
TensorData from_field(DataType type, Shape shape, const Field& field) {
  std::vector<To> values;
  values.reserve(static_cast<std::size_t>(field.size()));
  for (const auto v : field) values.push_back(static_cast<To>(v));
  return TensorData::copy_of(type, std::move(shape), values.data(), values.size() * sizeof(To));
}

Result<TensorData> read_fields(const onnx::TensorProto& t, DataType type, Shape shape, const std::string& name,
                               const Source& source) {
  switch (type) {
    case DataType::kFloat:
      return from_field<float>(type, std::move(shape), t.float_data());
    case DataType::kDouble:
      return from_field<double>(type, std::move(shape), t.double_data());
    case DataType::kInt64:
      return from_field<std::int64_t>(type, std::move(shape), t.int64_data());
    case DataType::kUint64:
      return from_field<std::uint64_t>(type, std::move(shape), t.uint64_data());
    case DataType::kUint32:
      return from_field<std::uint32_t>(type, std::move(shape), t.uint64_data());
    case DataType::kInt32:
      return from_field<std::int32_t>(type, std::move(shape), t.int32_data());
    default:
      break;
  }
  if (element_size(type) == 2) return from_field<std::uint16_t>(type, std::move(shape), t.int32_data());
  if (element_size(type) == 1 || is_four_bit_type(type))
    return from_field<std::uint8_t>(type, std::move(shape), t.int32_data());
  return bad(source, name, std::string("has no data that can be read as ") + type_name(type));
}

// Codes of two bits, four to a byte, the first in the lowest bits, as int8 or uint8: a Graph has no type for them.
Result<TensorData> read_two_bit(onnx::TensorProto& t, const std::string& name, const Source& source) {
  const bool is_signed = t.data_type() == kInt2Type;
  QUANVAS_TRY(Shape shape, checked_dims(t, name, source));
  const std::int64_t count = element_count(shape);
  t.clear_dims();
  t.add_dims(count / 4 + (count % 4 != 0));
  t.set_data_type(onnx::TensorProto::UINT8);
  QUANVAS_TRY(const TensorData packed, read_tensor(t, source));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const int code = static_cast<std::uint8_t>(packed.data[i / 4]) >> (2 * (i % 4)) & 3;
    codes[i] = static_cast<std::uint8_t>(is_signed && code > 1 ? code - 4 : code);
  }
  return TensorData::copy_of(is_signed ? DataType::kInt8 : DataType::kUint8, std::move(shape), codes.data(), codes.size());
}

}  // namespace

Result<TensorData> read_tensor(onnx::TensorProto& t, const Source& source) {
  const std::string name = printable(t.name());
  if (is_two_bit_type(t.data_type())) return read_two_bit(t, name, source);
  const auto type = static_cast<DataType>(t.data_type());
  QUANVAS_TRY(Shape shape, checked_dims(t, name, source));
  if (t.has_segment()) return bad(source, name, "is stored in segments, which this version does not read");
  if (type == DataType::kString) return TensorData{type, std::move(shape), nullptr, 0, nullptr};
  if (element_size(type) == 0 && !is_four_bit_type(type))
    return bad(source, name, "has the unknown element type " + std::to_string(t.data_type()));
  if (t.data_location() == onnx::TensorProto::EXTERNAL)
    return read_external(t, type, std::move(shape), name, source);

  TensorData data;
  if (t.has_raw_data()) {
    auto raw = std::make_shared<const std::string>(std::move(*t.mutable_raw_data()));
    data = {type, std::move(shape), reinterpret_cast<const std::byte*>(raw->data()), raw->size(), raw};
  } else {
    QUANVAS_TRY(data, read_fields(t, type, std::move(shape), name, source));
  }
  const std::uint64_t need = bytes_of(type, data.count());
  if (data.bytes != need)
    return bad(source, name,
               "of shape " + shape_text(data.shape) + " and type " + type_name(type) + " needs " +
                   std::to_string(need) + " bytes but has " + std::to_string(data.bytes));
  return data;
}

Result<TensorData> read_sparse(onnx::SparseTensorProto& t, const Source& source) {
  constexpr std::int64_t kMostBytes = std::int64_t{1} << 31;
  const std::string name = printable(t.values().name());
  onnx::TensorProto whole;
  *whole.mutable_dims() = t.dims();
  QUANVAS_TRY(const Shape shape, checked_dims(whole, name, source));
  QUANVAS_TRY(const TensorData values, read_tensor(*t.mutable_values(), source));
  t.mutable_indices()->set_name(t.values().name());
  QUANVAS_TRY(const TensorData indices, read_tensor(*t.mutable_indices(), source));
  const std::size_t each = element_size(values.type);
  const std::int64_t count = values.count(), rank = static_cast<std::int64_t>(shape.size()),
                     total = element_count(shape);
  if (each == 0 || total > kMostBytes / static_cast<std::int64_t>(each))
    return bad(source, name,
               "is sparse and has " + shape_text(shape) + " elements, which are too many to be written out");
  const bool linear = indices.shape.size() == 1;
  if (indices.count() != (linear ? count : count * rank))
    return bad(source, name, "has not one place for each of its values");
  const std::vector<std::int64_t> at = indices.to_int64();
  std::vector<std::byte> dense(static_cast<std::size_t>(total) * each);
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t place = linear ? at[static_cast<std::size_t>(i)] : 0;
    for (std::int64_t d = 0; !linear && d < rank; ++d) {
      const std::int64_t v = at[static_cast<std::size_t>(i * rank + d)];
      if (v < 0 || v >= shape[static_cast<std::size_t>(d)])
        return bad(source, name, "has a value outside its dimensions");
      place = place * shape[static_cast<std::size_t>(d)] + v;
    }
    if (place < 0 || place >= total) return bad(source, name, "has a value outside its dimensions");
    std::memcpy(dense.data() + static_cast<std::size_t>(place) * each,
                values.data + static_cast<std::size_t>(i) * each, each);
  }
  return TensorData::copy_of(values.type, shape, dense.data(), dense.size());
}

}  // namespace quanvas::onnx_import
