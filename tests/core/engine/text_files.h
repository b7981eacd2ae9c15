// Quanvas - small tokenizers and their files, for the tests of text data.
#pragma once

#include <cstring>
#include <string>
#include <vector>

namespace quanvas::testing_data {

struct Token {
  std::string text;  // with spaces as they are
  float score = 0;
};

template <class T>
std::string raw_bytes(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}

// Unknown, BOS, EOS, the bytes, then `more`.
inline std::vector<Token> vocabulary(const std::vector<Token>& more) {
  std::vector<Token> out = {{"<unk>"}, {"\n<s>\n"}, {"\n</s>\n"}};
  for (int i = 0; i < 256; ++i) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", i);
    out.push_back({name});
  }
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

// llama2.c's tokenizer.bin.
inline std::string llama2c_file(const std::vector<Token>& tokens) {
  std::int32_t longest = 1;
  for (const Token& t : tokens) longest = std::max(longest, static_cast<std::int32_t>(t.text.size()));
  std::string out = raw_bytes(longest);
  for (const Token& t : tokens) out += raw_bytes(t.score) + raw_bytes(static_cast<std::int32_t>(t.text.size())) + t.text;
  return out;
}

// Protocol Buffers by hand: a number, a field of bytes, one of a number, one of a float.
inline std::string varint(std::uint64_t v) {
  std::string out;
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  return out + static_cast<char>(v);
}
inline std::string field(int number, const std::string& bytes) {
  return varint(static_cast<std::uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}
inline std::string field(int number, std::uint64_t value) { return varint(static_cast<std::uint64_t>(number) << 3) + varint(value); }
inline std::string field(int number, float value) { return varint(static_cast<std::uint64_t>(number) << 3 | 5) + raw_bytes(value); }

// The same tokens as a SentencePiece model: BPE with bytes for unknown characters, nothing normalized, a space in front.
inline std::string sentencepiece_file(const std::vector<Token>& tokens, bool with_bos = true) {
  constexpr std::uint64_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6, kBpe = 2;
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    std::string text;
    for (const char c : tokens[i].text) text += c == ' ' ? "\xe2\x96\x81" : std::string(1, c);
    if (i == 1) text = with_bos ? "<s>" : "<none>";
    if (i == 2) text = "</s>";
    const std::uint64_t type = i == 0 ? kUnknown : i < 3 ? kControl : i < 259 ? kByte : kNormal;
    out += field(1, field(1, text) + field(2, tokens[i].score) + field(3, type));
  }
  const std::string trainer = field(3, kBpe) + field(4, std::uint64_t{tokens.size()}) + field(35, std::uint64_t{1});
  const std::string normalizer = field(1, std::string("identity")) + field(3, std::uint64_t{1}) + field(4, std::uint64_t{0}) + field(5, std::uint64_t{1});
  return out + field(2, trainer) + field(3, normalizer);
}

}  // namespace quanvas::testing_data
