#include "plugins/importers/onnx_wire.h"

#include <cstdint>
#include <optional>

namespace quanvas::onnx_import {
namespace {

constexpr int kDeepest = 200;  // messages in each other

enum class Message { kModel, kFunction, kGraph, kNode, kAttribute, kSparse, kTensor };

struct Child {
  Message in;
  std::uint64_t field;
  Message message;
};
// Where tensors may be found (onnx.proto).
constexpr Child kChildren[] = {
    {Message::kModel, 7, Message::kGraph},      {Message::kModel, 25, Message::kFunction},
    {Message::kFunction, 7, Message::kNode},    {Message::kGraph, 1, Message::kNode},
    {Message::kGraph, 5, Message::kTensor},     {Message::kGraph, 15, Message::kSparse},
    {Message::kNode, 5, Message::kAttribute},   {Message::kAttribute, 5, Message::kTensor},
    {Message::kAttribute, 6, Message::kGraph},  {Message::kAttribute, 10, Message::kTensor},
    {Message::kAttribute, 11, Message::kGraph}, {Message::kSparse, 1, Message::kTensor},
    {Message::kSparse, 2, Message::kTensor},
};
constexpr std::uint64_t kRawData = 9, kExternalData = 13, kDataLocation = 14;  // of TensorProto

std::optional<Message> child_of(Message in, std::uint64_t field) {
  for (const Child& row : kChildren)
    if (row.in == in && row.field == field) return row.message;
  return std::nullopt;
}

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(0x80 | (value & 0x7f)));
  out.push_back(static_cast<char>(value));
}
void put_bytes(std::string& out, std::uint64_t field, std::string_view bytes) {
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}
void put_entry(std::string& out, const char* key, std::uint64_t value) {
  std::string entry;
  put_bytes(entry, 1, key);
  put_bytes(entry, 2, std::to_string(value));
  put_bytes(out, kExternalData, entry);
}

class Slimmer {
 public:
  explicit Slimmer(std::string_view file) : file_(file) {}

  Result<std::string> message(Message type, std::size_t at, std::size_t end, int depth) {
    if (depth > kDeepest) return bad(at);
    std::string out;
    std::optional<Place> raw;
    while (at < end) QUANVAS_CHECK(field(type, at, end, depth, out, raw));
    if (!raw) return out;
    // Last, where they hold against what the message says itself.
    put_entry(out, "offset", raw->offset);
    put_entry(out, "length", raw->length);
    put_varint(out, kDataLocation << 3);
    put_varint(out, 1);
    return out;
  }

 private:
  struct Place {
    std::size_t offset = 0, length = 0;
  };
  std::string_view file_;

  static Failure bad(std::size_t at) {
    return fail(ErrorCode::kCorrupt, "it cannot be read beyond byte " + std::to_string(at));
  }

  Result<std::uint64_t> varint(std::size_t& at, std::size_t end) const {
    std::uint64_t value = 0;
    const std::size_t start = at;
    for (int shift = 0; at < end && shift < 70; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(file_[at++]);
      if (shift < 64) value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    return bad(start);
  }

  // Moves `at` behind one field of `type` and writes what is kept of it.
  Status field(Message type, std::size_t& at, std::size_t end, int depth, std::string& out,
               std::optional<Place>& raw) {
    const std::size_t start = at;
    QUANVAS_TRY(const std::uint64_t key, varint(at, end));
    std::size_t size = 0;
    switch (key & 7) {
      case 0: QUANVAS_CHECK(varint(at, end)); break;
      case 1: size = 8; break;
      case 5: size = 4; break;
      case 2: {
        QUANVAS_TRY(const std::uint64_t length, varint(at, end));
        if (length > end - at) return bad(start);
        size = static_cast<std::size_t>(length);
        break;
      }
      default: return bad(start);
    }
    if (size > end - at) return bad(start);
    const std::size_t content = at;
    at += size;
    const std::uint64_t number = key >> 3;
    const auto child = (key & 7) == 2 ? child_of(type, number) : std::nullopt;
    if (type == Message::kTensor && number == kRawData && (key & 7) == 2 && size >= kLargeTensor) {
      raw = Place{content, size};
    } else if (child) {
      QUANVAS_TRY(const std::string slim, message(*child, content, content + size, depth + 1));
      put_bytes(out, number, slim);
    } else {
      out.append(file_, start, at - start);
    }
    return {};
  }
};

}  // namespace

Result<std::string> without_large_tensors(std::string_view file) {
  return Slimmer(file).message(Message::kModel, 0, file.size(), 0);
}

}  // namespace quanvas::onnx_import
