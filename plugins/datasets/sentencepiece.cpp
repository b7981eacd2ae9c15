#include "plugins/datasets/sentencepiece.h"

#include <cerrno>
#include <cstring>

#include "core/base/child.h"
#include "core/base/files.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr const char* kProgram = "quanvas-sentencepiece";

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(fs::path program, fs::path model) : program_(std::move(program)), model_(std::move(model)) {}

  std::int32_t bos() const override { return bos_; }
  Result<std::vector<std::vector<std::int32_t>>> encode(const std::vector<std::string>& texts, std::int64_t most) const override {
    std::int32_t bos = -1;
    QUANVAS_TRY(auto out, ask(texts, bos));
    std::int64_t count = 0;
    std::size_t kept = 0;
    for (; kept < out.size() && (most == 0 || count < most); ++kept) count += static_cast<std::int64_t>(out[kept].size());
    out.resize(kept);
    return out;
  }
  Status find_bos() {
    QUANVAS_TRY(const auto none, ask({}, bos_));
    (void)none;
    return {};
  }

 private:
  // The program reads each text behind its size in bytes (uint64) and writes the id of BOS, then for each text the number
  // of its tokens and their ids; int32 in the machine's order.
  Result<std::vector<std::vector<std::int32_t>>> ask(const std::vector<std::string>& texts, std::int32_t& bos) const {
    const ExchangeFolder exchange;
    if (!exchange.is_there())
      return fail(ErrorCode::kIo, std::string("Cannot make a folder for the tokenizer: ") + std::strerror(errno) + ".");
    QUANVAS_CHECK(write_file_atomically(exchange.file("texts"), [&](std::ostream& out) -> Status {
      for (const std::string& text : texts) {
        const std::uint64_t size = text.size();
        out.write(reinterpret_cast<const char*>(&size), sizeof size).write(text.data(), static_cast<std::streamsize>(size));
      }
      return {};
    }));
    const ChildEnd end = run_program(program_, {model_.string(), exchange.file("texts").string(), exchange.file("ids").string()},
                                     exchange.file("messages"));
    if (!end.started)
      return fail(ErrorCode::kNotFound, "The program '" + program_.string() + "' does not start; it reads SentencePiece models.",
                  "Install Quanvas again, or name the program in QUANVAS_SENTENCEPIECE.");
    if (!end.fine())
      return fail(ErrorCode::kCorrupt, "'" + model_.string() + "' cannot be used as a SentencePiece model: " + end.why() + ".",
                  "Give a tokenizer that spm_train wrote, or a tokenizer.bin of llama2.c.");
    QUANVAS_TRY(const std::string bytes, read_file(exchange.file("ids")));
    return parse(bytes, texts.size(), bos);
  }

  Result<std::vector<std::vector<std::int32_t>>> parse(const std::string& bytes, std::size_t texts, std::int32_t& bos) const {
    std::vector<std::int32_t> numbers(bytes.size() / sizeof bos);
    if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof bos);
    std::vector<std::vector<std::int32_t>> out;
    std::size_t at = 1;
    while (out.size() < texts && at < numbers.size()) {
      const auto count = static_cast<std::size_t>(numbers[at++]);
      if (count > numbers.size() - at) break;
      const auto begin = numbers.begin() + static_cast<std::ptrdiff_t>(at);
      out.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(count));
      at += count;
    }
    if (numbers.empty() || out.size() != texts || at != numbers.size())
      return fail(ErrorCode::kInternal, "The program '" + program_.string() + "' wrote no list of tokens.");
    bos = numbers[0];
    return out;
  }

  fs::path program_, model_;
  std::int32_t bos_ = -1;
};

}  // namespace

Result<TokenizerPtr> sentencepiece_tokenizer(const fs::path& model) {
  QUANVAS_TRY(const fs::path program, find_program(kProgram, "QUANVAS_SENTENCEPIECE", "it reads SentencePiece models"));
  auto tokenizer = std::make_shared<SentencePieceTokenizer>(program, model);
  QUANVAS_CHECK(tokenizer->find_bos());
  return TokenizerPtr(std::move(tokenizer));
}

}  // namespace quanvas
