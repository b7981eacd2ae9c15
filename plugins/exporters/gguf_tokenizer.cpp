#include "plugins/exporters/gguf_tokenizer.h"

#include <google/protobuf/unknown_field_set.h>

#include <bit>
#include <cstring>

#include "core/base/files.h"

namespace quanvas::gguf_file {
namespace {

using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;
constexpr int kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;
constexpr std::int32_t kFirstByte = 3, kBytes = 256, kLongestToken = 1 << 16;
constexpr const char* kSpace = "\xe2\x96\x81";  // U+2581

Failure corrupt(const std::string& path, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + path + "' " + what, "Give a SentencePiece model, or a tokenizer.bin of llama2.c.");
}

Result<Vocabulary> llama2c(const std::string& bytes, const std::string& path) {
  Vocabulary out;
  std::size_t at = sizeof(std::int32_t);
  const auto take = [&](auto& value) {
    if (bytes.size() - at < sizeof value) return false;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return true;
  };
  if (bytes.size() < at) return corrupt(path, "is no tokenizer: it has " + std::to_string(bytes.size()) + " bytes.");
  while (at < bytes.size()) {
    float score = 0;
    std::int32_t length = 0;
    if (!take(score) || !take(length) || length < 0 || length > kLongestToken ||
        static_cast<std::size_t>(length) > bytes.size() - at)
      return corrupt(path, "ends within token " + std::to_string(out.tokens.size()) + ", or has none of a legal length there.");
    std::string text;
    for (std::int32_t i = 0; i < length; ++i) {
      const char c = bytes[at + static_cast<std::size_t>(i)];
      if (c == ' ')
        text += kSpace;
      else
        text += c;
    }
    at += static_cast<std::size_t>(length);
    const auto id = static_cast<std::int32_t>(out.tokens.size());
    const bool is_byte = id >= kFirstByte && id < kFirstByte + kBytes;
    out.types.push_back(id == 0 ? kUnknown : id < kFirstByte ? kControl : is_byte ? kByte : kNormal);
    if (id < kFirstByte) text = id == 0 ? "<unk>" : id == 1 ? "<s>" : "</s>";
    out.tokens.push_back(std::move(text));
    out.scores.push_back(score);
  }
  if (static_cast<std::int32_t>(out.tokens.size()) < kFirstByte + kBytes)
    return corrupt(path,
                   "is no tokenizer: it has " + std::to_string(out.tokens.size()) + " tokens, fewer than there are bytes.");
  return out;
}

// sentencepiece_model.proto: ModelProto{1 pieces, 2 trainer_spec, 3 normalizer_spec}, SentencePiece{1 piece, 2 score,
// 3 type}, TrainerSpec{3 model_type, 40 unk_id, 41 bos_id, 42 eos_id}, NormalizerSpec{3 add_dummy_prefix}. Its types of
// pieces have llama.cpp's numbers.
Result<Vocabulary> sentencepiece(const std::string& bytes, const std::string& path) {
  UnknownFieldSet model;
  if (!model.ParseFromString(bytes)) return corrupt(path, "is no SentencePiece model.");
  Vocabulary out;
  std::uint64_t kind = 1;  // unigram
  for (int i = 0; i < model.field_count(); ++i) {
    const UnknownField& field = model.field(i);
    UnknownFieldSet part;
    if (field.type() != UnknownField::TYPE_LENGTH_DELIMITED || field.number() > 3) continue;
    if (!part.ParseFromString(field.length_delimited())) return corrupt(path, "is a damaged SentencePiece model.");
    std::string text;
    float score = 0;
    std::int32_t type = kNormal;
    for (int k = 0; k < part.field_count(); ++k) {
      const UnknownField& f = part.field(k);
      const bool is_number = f.type() == UnknownField::TYPE_VARINT;
      if (field.number() == 1) {
        if (f.number() == 1 && f.type() == UnknownField::TYPE_LENGTH_DELIMITED) text = f.length_delimited();
        if (f.number() == 2 && f.type() == UnknownField::TYPE_FIXED32) score = std::bit_cast<float>(f.fixed32());
        if (f.number() == 3 && is_number) type = static_cast<std::int32_t>(f.varint());
      } else if (field.number() == 2 && is_number) {
        if (f.number() == 3) kind = f.varint();
        if (f.number() == 40) out.unknown = static_cast<int>(f.varint());
        if (f.number() == 41) out.bos = static_cast<int>(f.varint());
        if (f.number() == 42) out.eos = static_cast<int>(f.varint());
      } else if (field.number() == 3 && f.number() == 3 && is_number) {
        out.space_prefix = f.varint() != 0;
      }
    }
    if (field.number() != 1) continue;
    out.tokens.push_back(std::move(text));
    out.scores.push_back(score);
    out.types.push_back(type);
  }
  if (out.tokens.empty()) return corrupt(path, "is no SentencePiece model: it has no pieces.");
  if (kind != 2)
    return fail(ErrorCode::kUnsupported,
                "The SentencePiece model '" + path + "' is of type " + std::to_string(kind) +
                    "; llama.cpp's tokenizer 'llama' is BPE (2).",
                "Write a container without a tokenizer: form=container.");
  return out;
}

}  // namespace

Result<Vocabulary> read_vocabulary(const std::string& path) {
  QUANVAS_TRY(const std::string bytes, read_file(path, kMostBytes));
  // The first field of a SentencePiece model is a piece; in llama2.c's file the upper half of a small number is 0.
  if (bytes.size() >= 4 && bytes[0] == 0x0a && (bytes[2] != 0 || bytes[3] != 0)) return sentencepiece(bytes, path);
  return llama2c(bytes, path);
}

}  // namespace quanvas::gguf_file
