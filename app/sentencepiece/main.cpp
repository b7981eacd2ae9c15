// quanvas-sentencepiece MODEL TEXT IDS: tokenizes the file TEXT with a SentencePiece model and writes the id of BOS (-1:
// none) and those of the text to IDS, as int32. A program of its own, see plugins/datasets/sentencepiece.h. What is wrong
// is said in one line on standard error, exit code 1.
#include <sys/resource.h>

#include <sentencepiece_processor.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
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

int tokenize(const char* model, const char* text_path, const char* ids_path) {
  std::string bytes, text;
  if (!read(model, bytes)) return refuse("it cannot be read");
  if (!read(text_path, text)) return refuse("the text cannot be read");
  sentencepiece::SentencePieceProcessor processor;
  if (const auto status = processor.LoadFromSerializedProto(bytes); !status.ok()) return refuse(status.ToString());
  std::vector<int> ids;
  if (const auto status = processor.Encode(text, &ids); !status.ok()) return refuse(status.ToString());
  ids.insert(ids.begin(), processor.bos_id());
  std::ofstream out(ids_path, std::ios::binary);
  static_assert(sizeof(int) == sizeof(std::int32_t));
  out.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof(int)));
  out.close();
  return out ? 0 : refuse("the tokens cannot be written");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return refuse("quanvas-sentencepiece MODEL TEXT IDS");
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
