// Texts as windows of tokens, for networks that foretell the next one.
#include <algorithm>
#include <filesystem>

#include "core/base/files.h"
#include "core/base/guarded.h"
#include "core/base/utf8.h"
#include "core/data/sources.h"
#include "core/data/token_windows.h"
#include "core/data/tokenizer.h"
#include "core/plugin/registry.h"
#include "plugins/datasets/sentencepiece.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostTextBytes = std::uint64_t{1} << 30;
constexpr std::uint64_t kMostTokenizerBytes = std::uint64_t{64} << 20;
constexpr std::string_view kWhiteSpace = " \t\n\r\v\f";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

// A SentencePiece model is a protobuf message that begins with the first token (field 1); in llama2.c's file the upper
// half of the length of its longest token is 0.
bool is_sentencepiece(const std::string& bytes) {
  return bytes.size() >= 4 && bytes[0] == 0x0a && (bytes[2] != 0 || bytes[3] != 0);
}

Result<TokenizerPtr> read_tokenizer(const fs::path& path) {
  QUANVAS_TRY(std::string bytes, read_file(path, kMostTokenizerBytes));
  if (bytes.empty()) return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is empty; it should hold a tokenizer.");
  if (is_sentencepiece(bytes)) return sentencepiece_tokenizer(path);
  return read_llama2c_tokenizer(std::move(bytes), "'" + path.string() + "'");
}

// The file itself, or the .txt files of a folder in the order of their names.
Result<std::vector<fs::path>> text_files(const fs::path& path) {
  std::error_code ec;
  if (!fs::is_directory(path, ec)) return std::vector<fs::path>{path};
  std::vector<fs::path> out;
  for (fs::directory_iterator it(path, ec), end; !ec && it != end; it.increment(ec))
    if (it->path().extension() == ".txt" && may_be_file(it->path())) out.push_back(it->path());
  if (ec) return fail(ErrorCode::kIo, "Cannot read the folder '" + path.string() + "': " + ec.message() + ".");
  if (out.empty()) return fail(ErrorCode::kInvalidArgument, "The folder '" + path.string() + "' holds no .txt files.");
  std::sort(out.begin(), out.end());
  return out;
}

Result<std::string> read_text(const fs::path& path) {
  QUANVAS_TRY(std::string text, read_file(path, kMostTextBytes));
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (text.empty()) return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is empty; it should hold a text.");
  if (const std::size_t bad = find_bad_utf8(text); bad < text.size())
    return fail(ErrorCode::kCorrupt, "'" + path.string() + "' is no text in UTF-8: byte " + std::to_string(bad) + " begins no character.",
                "Convert it to UTF-8, for example with iconv; for token ids use the reader 'tokens'.");
  return text;
}

// The parts between separators without the white space around them; parts of white space alone are none. Without a
// separator the text as it stands.
std::vector<std::string> documents(const std::string& text, const std::string& separator) {
  if (separator.empty()) return {text};
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    const std::string part = text.substr(at, end - at);
    if (const std::size_t first = part.find_first_not_of(kWhiteSpace); first != std::string::npos)
      out.push_back(part.substr(first, part.find_last_not_of(kWhiteSpace) + 1 - first));
    at = end + separator.size();
  }
  return out;
}

Result<std::vector<std::vector<std::int32_t>>> encode_all(const Tokenizer& tokenizer, const fs::path& path, const std::string& separator,
                                                          std::int64_t most) {
  QUANVAS_TRY(const auto files, text_files(path));
  std::vector<std::string> texts;
  for (const auto& file : files) {
    QUANVAS_TRY(const std::string text, read_text(file));
    for (auto& document : documents(text, separator)) texts.push_back(std::move(document));
  }
  return tokenizer.encode(texts, most);
}

class TextReader final : public DatasetReader {
 public:
  PluginInfo info() const override {
    return {"text", "Text", "UTF-8 text, tokenized and cut into windows; the network foretells each token from those before it."};
  }
  Schema schema() const override {
    Schema out{{text_field("data", "Text", "File, or folder whose .txt files are read in the order of their names.", ""),
                text_field("tokenizer", "Tokenizer", "A SentencePiece model (.model), or a tokenizer.bin of llama2.c.", ""),
                text_field("separator", "Separator",
                           "Text that stands between documents, such as <|endoftext|>. Each document has windows of its own, without the "
                           "white space around it; empty: a file is one document.",
                           ""),
                bool_field("bos", "BOS", "Put the tokenizer's token for the beginning before every window.", true)}};
    for (Field& f : window_fields()) out.fields.push_back(std::move(f));
    return out;
  }
  json options_for(const json& options, const Shape& expected) const override { return window_options_for(options, expected); }

  Result<std::unique_ptr<RawDataset>> open(const json& given, const std::string& base) const override {
    return guarded("reading a text", [&]() -> Result<std::unique_ptr<RawDataset>> {
      QUANVAS_TRY(const json options, schema().complete(given, "data set reader 'text'"));
      QUANVAS_TRY(const fs::path path, option_path(options["data"], base, "data", "text"));
      QUANVAS_TRY(const fs::path tokenizer_path, option_path(options["tokenizer"], base, "tokenizer", "text"));
      QUANVAS_TRY(const TokenizerPtr tokenizer, read_tokenizer(tokenizer_path));
      WindowSettings settings = window_settings(options);
      QUANVAS_TRY(auto ids, encode_all(*tokenizer, path, options["separator"], settings.max_tokens));
      if (options["bos"]) settings.bos = tokenizer->bos();
      if (options["bos"] && settings.bos < 0)
        return fail(ErrorCode::kInvalidArgument, "'" + tokenizer_path.string() + "' has no token for the beginning of a text (BOS).",
                    "Set the option bos to false.");
      return token_windows(ids, settings, "'" + path.string() + "'");
    });
  }
};

QUANVAS_PLUGIN(DatasetReader, TextReader)

}  // namespace
}  // namespace quanvas
