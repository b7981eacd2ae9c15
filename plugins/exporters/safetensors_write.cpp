#include "plugins/exporters/safetensors_write.h"

#include <algorithm>

#include "core/base/files.h"
#include "core/base/utf8.h"

namespace quanvas::safetensors {
namespace {

constexpr std::size_t kAlign = 8;

const char* name_of(DataType type) {
  switch (type) {
    case DataType::kFloat: return "F32";
    case DataType::kDouble: return "F64";
    case DataType::kFloat16: return "F16";
    case DataType::kBfloat16: return "BF16";
    case DataType::kInt8: return "I8";
    case DataType::kUint8: return "U8";
    case DataType::kInt16: return "I16";
    case DataType::kUint16: return "U16";
    case DataType::kInt32: return "I32";
    case DataType::kUint32: return "U32";
    case DataType::kInt64: return "I64";
    case DataType::kUint64: return "U64";
    case DataType::kBool: return "BOOL";
    case DataType::kFloat8E4M3Fn: return "F8_E4M3";
    case DataType::kFloat8E5M2: return "F8_E5M2";
    default: return nullptr;
  }
}

}  // namespace

Status Writer::add(const std::string& name, DataType type, Shape shape, std::string bytes) {
  if (!name_of(type))
    return fail(ErrorCode::kUnsupported,
                "The tensor '" + name + "' is " + type_name(type) + ", which safetensors files do not have.",
                "Convert it to float32.");
  if (name.empty() || name == "__metadata__" ||
      bytes.size() != static_cast<std::size_t>(element_count(shape)) * element_size(type))
    return fail(ErrorCode::kInternal, "The tensor '" + name + "' has " + std::to_string(bytes.size()) +
                                          " bytes, not those of " + shape_text(shape) + ".");
  if (!tensors_.emplace(name, Tensor{type, std::move(shape), std::move(bytes)}).second)
    return fail(ErrorCode::kInternal, "Two tensors are called '" + name + "'.", "Rename one of them in the model.");
  return {};
}

Status Writer::save(const std::string& path) const {
  std::vector<std::pair<const std::string*, const Tensor*>> order;
  for (const auto& [name, t] : tensors_) {
    if (find_bad_utf8(name) != name.size())
      return fail(ErrorCode::kUnsupported, "The tensor '" + name + "' has a name that is no UTF-8 text.",
                  "Rename it in the model.");
    order.emplace_back(&name, &t);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return element_size(a.second->type) > element_size(b.second->type);
  });
  json header = json::object();
  header["__metadata__"] = metadata_;
  std::uint64_t at = 0;
  for (const auto& [name, t] : order) {
    header[*name] = {{"dtype", name_of(t->type)}, {"shape", t->shape}, {"data_offsets", {at, at + t->bytes.size()}}};
    at += t->bytes.size();
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.append((kAlign - text.size() % kAlign) % kAlign, ' ');
  return write_file_atomically(path, [&](std::ostream& out) -> Status {
    std::string length;
    for (std::size_t i = 0; i < 8; ++i) length += static_cast<char>(text.size() >> (8 * i) & 0xff);
    out.write(length.data(), 8);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const auto& [name, t] : order) out.write(t->bytes.data(), static_cast<std::streamsize>(t->bytes.size()));
    return {};
  });
}

}  // namespace quanvas::safetensors
