// quanvas-sentencepiece MODEL TEXTS IDS: tokenizes the texts in the file TEXTS, each behind its size in bytes (uint64), with
// a SentencePiece model and writes to IDS, as int32: the id of BOS (-1: none), then for each text the number of its tokens
// and their ids. A program of its own, see plugins/datasets/sentencepiece.h. What is wrong is said in one line on standard
// error, exit code 1.
#include <sys/resource.h>

#include <sentencepiece_processor.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace {

// What a model that is made to harm may use up.
constexpr rlim_t kMostMemory = rlim_t{8} << 30, kMostSeconds = 600;

void limit(int resource, rlim_t most) {
  const rlimit both{most, most};
  ::setrlimit(static_cast<decltype(RLIMIT_AS)>(resource), &both);
}

int refuse(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  return 1;
}

bool read(const char* path, std::string& out) {
  std::ifstream file(path, std::ios::binary);
  out.assign(std::istreambuf_iterator<char>(file), {});
  return static_cast<bool>(file);
}

// Cuts the next text off the front of `rest`; false: it is cut short.
bool next_text(std::string_view& rest, std::string_view& text) {
  std::uint64_t size = 0;
  if (rest.size() < sizeof size) return false;
  std::memcpy(&size, rest.data(), sizeof size);
  rest.remove_prefix(sizeof size);
  if (size > rest.size()) return false;
  text = rest.substr(0, size);
  rest.remove_prefix(size);
  return true;
}

int tokenize(const char* model, const char* texts_path, const char* ids_path) {
  std::string bytes, texts;
  if (!read(model, bytes)) return refuse("it cannot be read");
  if (!read(texts_path, texts)) return refuse("the texts cannot be read");
  sentencepiece::SentencePieceProcessor processor;
  if (const auto status = processor.LoadFromSerializedProto(bytes); !status.ok()) return refuse(status.ToString());
  std::ofstream out(ids_path, std::ios::binary);
  const auto write = [&](const std::int32_t* numbers, std::size_t count) {
    out.write(reinterpret_cast<const char*>(numbers), static_cast<std::streamsize>(count * sizeof *numbers));
  };
  const std::int32_t bos = processor.bos_id();
  write(&bos, 1);
  for (std::string_view rest = texts, text; !rest.empty();) {
    if (!next_text(rest, text)) return refuse("the texts are cut short");
    std::vector<std::int32_t> ids;
    if (const auto status = processor.Encode(text, &ids); !status.ok()) return refuse(status.ToString());
    const auto count = static_cast<std::int32_t>(ids.size());
    write(&count, 1);
    write(ids.data(), ids.size());
  }
  out.close();
  return out ? 0 : refuse("the tokens cannot be written");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return refuse("quanvas-sentencepiece MODEL TEXTS IDS");
  limit(RLIMIT_CPU, kMostSeconds);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // sanitizers reserve far more than they use
  limit(RLIMIT_AS, kMostMemory);
#endif
  limit(RLIMIT_CORE, 0);
  try {
    return tokenize(argv[1], argv[2], argv[3]);
  } catch (const std::exception& e) {
    return refuse(e.what());
  }
}
