#include "core/data/tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <queue>
#include <unordered_map>

#include "core/base/utf8.h"

namespace quanvas {
namespace {

constexpr std::int32_t kBos = 1, kFirstByte = 3, kBytes = 256;
constexpr std::int32_t kLongestToken = 1 << 16;

// Neighbours that may be joined: what they become, and where the left one stands. Joining makes entries out of date;
// `left_size` and `right_size` tell.
struct Pair {
  float score;
  std::size_t at;
  std::int32_t token;
  std::size_t left_size, right_size;
};
struct Later {
  bool operator()(const Pair& a, const Pair& b) const { return a.score != b.score ? a.score < b.score : a.at > b.at; }
};

// A token as a piece of the text; a list through the indices of its pieces.
struct Piece {
  std::size_t begin = 0, size = 0;  // size 0: joined to the one before
  std::int32_t token = 0;
  std::size_t before = SIZE_MAX, after = SIZE_MAX;
};

class BpeTokenizer final : public Tokenizer {
 public:
  struct Entry {
    std::string text;
    float score = 0;
  };
  explicit BpeTokenizer(std::vector<Entry> entries) : entries_(std::move(entries)) {
    for (std::size_t i = 0; i < entries_.size(); ++i) ids_.emplace(entries_[i].text, static_cast<std::int32_t>(i));
  }

  std::int32_t bos() const override { return kBos; }

  Result<std::vector<std::vector<std::int32_t>>> encode(const std::vector<std::string>& texts, std::int64_t most) const override {
    std::vector<std::vector<std::int32_t>> out;
    std::int64_t count = 0;
    for (std::size_t i = 0; i < texts.size() && (most == 0 || count < most); ++i) {
      out.push_back(encode_one(texts[i]));
      count += static_cast<std::int64_t>(out.back().size());
    }
    return out;
  }

 private:
  std::vector<std::int32_t> encode_one(const std::string& given) const {
    if (given.empty()) return {};
    const std::string text = " " + given;
    std::vector<Piece> pieces = split(text);
    join(pieces);
    std::vector<std::int32_t> out;
    for (std::size_t i = 0; i < pieces.size(); i = pieces[i].after) out.push_back(pieces[i].token);
    return out;
  }

  std::int32_t find(std::string_view text) const {
    const auto it = ids_.find(std::string(text));
    return it == ids_.end() ? -1 : it->second;
  }

  // Characters, or bytes where a character is no token.
  std::vector<Piece> split(const std::string& text) const {
    std::vector<Piece> out;
    const auto add = [&](std::size_t begin, std::size_t size, std::int32_t token) {
      out.push_back({begin, size, token, out.empty() ? SIZE_MAX : out.size() - 1, out.size() + 1});
    };
    for (std::size_t at = 0, size; at < text.size(); at += size) {
      size = std::clamp<std::size_t>(utf8_length(static_cast<unsigned char>(text[at])), 1, text.size() - at);
      if (const std::int32_t token = find(std::string_view(text).substr(at, size)); token >= 0) add(at, size, token);
      else
        for (std::size_t i = at; i < at + size; ++i) add(i, 1, kFirstByte + static_cast<unsigned char>(text[i]));
    }
    return out;
  }

  void join(std::vector<Piece>& pieces) const {
    std::priority_queue<Pair, std::vector<Pair>, Later> queue;
    const auto offer = [&](std::size_t left) {
      if (left >= pieces.size() || pieces[left].after >= pieces.size()) return;
      const Piece &a = pieces[left], &b = pieces[a.after];
      // The tokens' own texts: that of a byte token is its name, "<0x0A>", not the byte.
      const std::int32_t token = find(entry(a) + entry(b));
      if (token >= 0) queue.push({entries_[static_cast<std::size_t>(token)].score, left, token, a.size, b.size});
    };
    for (std::size_t i = 0; i < pieces.size(); ++i) offer(i);
    for (; !queue.empty(); queue.pop()) {
      const Pair best = queue.top();
      Piece& a = pieces[best.at];
      if (a.size != best.left_size || a.after >= pieces.size() || pieces[a.after].size != best.right_size) continue;
      Piece& b = pieces[a.after];
      a.size += b.size;
      a.token = best.token;
      b.size = 0;
      a.after = b.after;
      if (a.after < pieces.size()) pieces[a.after].before = best.at;
      offer(best.at);
      offer(a.before);
    }
  }

  const std::string& entry(const Piece& p) const { return entries_[static_cast<std::size_t>(p.token)].text; }

  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::int32_t> ids_;
};

// Reads little-endian numbers until the bytes end.
struct Cursor {
  const std::string& bytes;
  std::size_t at = 0;
  std::size_t left() const { return bytes.size() - at; }
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }
};

Failure corrupt(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kCorrupt, name + " " + what, "Give a tokenizer.bin of llama2.c, or a SentencePiece model.");
}

}  // namespace

Result<TokenizerPtr> read_llama2c_tokenizer(std::string bytes, const std::string& name) {
  Cursor in{bytes};
  if (in.left() < sizeof(std::int32_t)) return corrupt(name, "is no tokenizer: it has " + std::to_string(bytes.size()) + " bytes.");
  const auto longest = in.take<std::int32_t>();
  if (longest < 1 || longest > kLongestToken)
    return corrupt(name, "is no tokenizer: its longest token would have " + std::to_string(longest) + " bytes.");
  std::vector<BpeTokenizer::Entry> entries;
  while (in.left() > 0) {
    const std::string token = "token " + std::to_string(entries.size());
    if (in.left() < sizeof(float) + sizeof(std::int32_t)) return corrupt(name, "ends within " + token + ".");
    BpeTokenizer::Entry entry;
    entry.score = in.take<float>();
    const auto length = in.take<std::int32_t>();
    if (length < 0 || length > longest)
      return corrupt(name, "says that " + token + " has " + std::to_string(length) + " bytes; the longest has " +
                               std::to_string(longest) + ".");
    if (static_cast<std::size_t>(length) > in.left()) return corrupt(name, "ends within " + token + ".");
    if (std::isnan(entry.score)) return corrupt(name, "has no number as the score of " + token + ".");
    entry.text.assign(bytes, in.at, static_cast<std::size_t>(length));
    in.at += static_cast<std::size_t>(length);
    entries.push_back(std::move(entry));
  }
  if (entries.size() < static_cast<std::size_t>(kFirstByte + kBytes))
    return corrupt(name, "has " + std::to_string(entries.size()) + " tokens; at least " + std::to_string(kFirstByte + kBytes) +
                             " were expected: unknown, BOS, EOS and one for each byte.");
  return TokenizerPtr(std::make_shared<const BpeTokenizer>(std::move(entries)));
}

}  // namespace quanvas
