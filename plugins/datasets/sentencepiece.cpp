#include "plugins/datasets/sentencepiece.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "core/base/files.h"

extern char** environ;

namespace quanvas {
namespace fs = std::filesystem;
namespace {

constexpr const char* kProgram = "quanvas-sentencepiece";
constexpr std::uint64_t kMostMessage = 4096;

Result<fs::path> find_program() {
  if (const char* named = std::getenv("QUANVAS_SENTENCEPIECE")) return fs::path(named);
  std::error_code ec;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ec).parent_path();
  for (const fs::path& place : {folder / kProgram, folder.parent_path() / "bin" / kProgram})
    if (fs::exists(place, ec)) return place;
  return fail(ErrorCode::kNotFound, std::string("There is no program ") + kProgram + " in '" + folder.string() +
                                        "'; it reads SentencePiece models.",
              "Install Quanvas again; the program belongs beside the others.");
}

// A folder for what goes to the program and comes back, gone with this.
class Exchange {
 public:
  Exchange() {
    std::string pattern = (runtime_dir() / "text-XXXXXX").string();
    if (::mkdtemp(pattern.data())) folder_ = pattern;
  }
  ~Exchange() {
    std::error_code ec;
    if (!folder_.empty()) fs::remove_all(folder_, ec);
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  bool is_there() const { return !folder_.empty(); }
  fs::path file(const char* name) const { return folder_ / name; }

 private:
  fs::path folder_;
};

// Exit status as waitpid gives it; -1 when it did not start.
int run(const fs::path& program, const std::array<std::string, 3>& arguments, const fs::path& messages) {
  std::array<char*, 5> argv{const_cast<char*>(kProgram), const_cast<char*>(arguments[0].c_str()),
                            const_cast<char*>(arguments[1].c_str()), const_cast<char*>(arguments[2].c_str()), nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, messages.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child = -1;
  const int failed = ::posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed) return -1;
  int status = -1;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return status;
}

// Its last line, without the name that it begins with.
std::string message_in(const fs::path& file) {
  auto text = read_file(file, std::uint64_t{1} << 20);
  if (!text) return {};
  while (!text->empty() && text->back() == '\n') text->pop_back();
  std::string line = text->substr(text->find_last_of('\n') + 1).substr(0, kMostMessage);
  return line;
}

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
    const Exchange exchange;
    if (!exchange.is_there())
      return fail(ErrorCode::kIo, std::string("Cannot make a folder for the tokenizer: ") + std::strerror(errno) + ".");
    QUANVAS_CHECK(write_file_atomically(exchange.file("texts"), [&](std::ostream& out) -> Status {
      for (const std::string& text : texts) {
        const std::uint64_t size = text.size();
        out.write(reinterpret_cast<const char*>(&size), sizeof size).write(text.data(), static_cast<std::streamsize>(size));
      }
      return {};
    }));
    const int status = run(program_, {model_.string(), exchange.file("texts").string(), exchange.file("ids").string()},
                           exchange.file("messages"));
    if (status == -1)
      return fail(ErrorCode::kNotFound, "The program '" + program_.string() + "' does not start; it reads SentencePiece models.",
                  "Install Quanvas again, or name the program in QUANVAS_SENTENCEPIECE.");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return refusal(status, message_in(exchange.file("messages")));
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

  Failure refusal(int status, const std::string& said) const {
    const std::string why = WIFSIGNALED(status) ? "reading it crashed (signal " + std::to_string(WTERMSIG(status)) + ")"
                            : said.empty()      ? "exit code " + std::to_string(WEXITSTATUS(status))
                                                : said;
    return fail(ErrorCode::kCorrupt, "'" + model_.string() + "' cannot be used as a SentencePiece model: " + why + ".",
                "Give a tokenizer that spm_train wrote, or a tokenizer.bin of llama2.c.");
  }

  fs::path program_, model_;
  std::int32_t bos_ = -1;
};

}  // namespace

Result<TokenizerPtr> sentencepiece_tokenizer(const fs::path& model) {
  QUANVAS_TRY(const fs::path program, find_program());
  auto tokenizer = std::make_shared<SentencePieceTokenizer>(program, model);
  QUANVAS_CHECK(tokenizer->find_bos());
  return TokenizerPtr(std::move(tokenizer));
}

}  // namespace quanvas
