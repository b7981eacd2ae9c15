// Targets: files of data sets.
#include <zlib.h>

#include <cstdlib>

#include "core/data/tokenizer.h"
#include "core/plugin/registry.h"
#include "plugins/datasets/image_decode.h"
#include "tests/core/engine/packed_files.h"
#include "tests/core/engine/picture_files.h"
#include "tests/core/engine/text_files.h"
#include "tests/fuzz/parts.h"

namespace quanvas::fuzz {
namespace {

using namespace testing_data;

// The first and the last sample of what opens.
void read_dataset(const char* reader, const json& options) {
  const DatasetReader* const plugin = Registry<DatasetReader>::instance().find(reader);
  if (!plugin) std::abort();
  auto data = plugin->open(options, "");
  if (!data) return;
  for (const std::int64_t i : {std::int64_t{0}, (*data)->size() - 1})
    if (i >= 0 && i < (*data)->size()) (void)(*data)->read(i);
}

// --- numbers ---

Bytes npy_seeds() {
  return {npy("'<f4'", "(3, 4)", std::string(48, '\x3d')), npy("'|u1'", "(5, 2, 2)", std::string(20, '\x3d'))};
}
void read_npy_file(const std::string& bytes) { read_dataset("npy", {{"data", scratch_file("x.npy", bytes)}}); }

Bytes npz_seeds() { return {zip({{"x.npy", npy_seeds()[0], false}}), zip({{"x.npy", npy_seeds()[1], true}})}; }
void read_npz_file(const std::string& bytes) { read_dataset("npy", {{"data", scratch_file("x.npz", bytes)}}); }

Bytes idx_seeds() {
  const std::string pictures = std::string("\0\0\x8\3\0\0\0\2\0\0\0\3\0\0\0\3", 16) + std::string(18, '\x55');
  return {pictures, gzip(pictures)};
}
void read_idx_file(const std::string& bytes) { read_dataset("idx", {{"images", scratch_file("x.idx", bytes)}}); }

void read_raw_file(const std::string& bytes) {
  read_dataset("raw", {{"data", scratch_file("x.bin", bytes)}, {"type", "int16"}, {"shape", "2x3"}});
}
Bytes raw_seeds() { return {std::string(24, '\x11')}; }

// --- pictures ---

std::string some_pixels(std::size_t count) {
  std::string out(count, '\0');
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<char>(i * 37 % 251);
  return out;
}

void read_picture(const std::string& bytes) { (void)decode_image(bytes, "x"); }
Bytes jpeg_seeds() { return {jpeg(9, 11, 3, some_pixels(297)), jpeg(8, 8, 1, some_pixels(64)), jpeg(5, 4, 4, some_pixels(80))}; }

// A damaged chunk has a wrong checksum, at which the library stops: right ones let the damage reach further.
std::string with_checksums(std::string png_bytes) {
  constexpr std::size_t kHead = 8, kAround = 12;
  const auto number = [&](std::size_t at) {
    std::uint32_t v = 0;
    for (std::size_t i = 0; i < 4; ++i) v = v << 8 | static_cast<unsigned char>(png_bytes[at + i]);
    return v;
  };
  for (std::size_t at = kHead; at + kAround <= png_bytes.size();) {
    const std::size_t length = number(at);
    if (length > png_bytes.size() - at - kAround) break;
    const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(png_bytes.data() + at + 4), static_cast<uInt>(length + 4));
    for (std::size_t i = 0; i < 4; ++i) png_bytes[at + 8 + length + i] = static_cast<char>(crc >> (24 - 8 * i));
    at += kAround + length;
  }
  return png_bytes;
}
void read_png(const std::string& bytes) {
  read_picture(bytes);
  read_picture(with_checksums(bytes));
}
Bytes png_seeds() { return {png(5, 7, 3, some_pixels(105)), png(4, 4, 1, some_pixels(16)), png(3, 3, 4, some_pixels(36))}; }

void read_picture_list(const std::string& bytes) {
  scratch_file("listed/a.png", png_seeds()[1]);
  read_dataset("images", {{"folder", scratch_path("listed")}, {"labels", scratch_file("labels.csv", bytes)}});
}
Bytes picture_list_seeds() { return {"file,class_index,name\na.png,0,cat\nb.png,3,\"dog, small\"\n", "label,file\r\n1,a.png\r\n"}; }

// --- texts and bytes ---

const std::vector<Token>& tokens() {
  static const std::vector<Token> table = vocabulary({{" ", -9}, {"a", -9}, {"b", -9}, {"ab", -1}, {" a", -2}, {"aba", -3}});
  return table;
}

void read_tokenizer(const std::string& bytes) {
  if (const auto tokenizer = read_llama2c_tokenizer(bytes, "'t'"))
    (void)(*tokenizer)->encode({"ab abba\xc3\xa9\n", "", "aaaa"}, 0);
}
Bytes tokenizer_seeds() { return {llama2c_file(tokens())}; }

void read_text_file(const std::string& bytes) {
  static const std::string tokenizer = scratch_file("tokenizer.bin", llama2c_file(tokens()));
  read_dataset("text", {{"data", scratch_file("x.txt", bytes)}, {"tokenizer", tokenizer}, {"separator", "<|end|>"}, {"window", 4}});
}
Bytes text_seeds() { return {"ab ab\xc3\xa9 abab", "\xef\xbb\xbf" "a b<|end|>\n <|end|>abab aba\r\n"}; }

void read_token_file(const std::string& bytes) {
  for (const char* type : {"uint16", "int64"}) read_dataset("tokens", {{"data", scratch_file("x.tokens", bytes)}, {"type", type}, {"window", 3}});
}
Bytes token_seeds() {
  return {raw_bytes(std::int64_t{5}) + raw_bytes(std::int64_t{1 << 20}), npy("'<i4'", "(3,)", std::string("\1\0\0\0\2\0\0\0\3\0\0\0", 12))};
}

void read_byte_file(const std::string& bytes) {
  scratch_file("bytes/x.bin", bytes);
  for (const bool strip : {true, false}) read_dataset("bytes", {{"folder", scratch_path("bytes")}, {"begin", 5}, {"end", 7}, {"strip", strip}});
}
Bytes byte_seeds() { return {" \n ab \t", "0123456789abcdef"}; }

void read_class_list(const std::string& bytes) {
  scratch_file("classes/first/x.bin", "x");
  read_dataset("bytes", {{"folder", scratch_path("classes")}, {"labels", scratch_file("classes.json", bytes)}, {"begin", 1}, {"end", 0}});
}
Bytes class_list_seeds() { return {R"(["first", "second"])", R"(["\u00e9", [1, {"a": null}]])"}; }

}  // namespace

std::vector<Target> data_targets() {
  return {{"npy", read_npy_file, npy_seeds},
          {"npz", read_npz_file, npz_seeds},
          {"idx", read_idx_file, idx_seeds},
          {"raw", read_raw_file, raw_seeds},
          {"jpeg", read_picture, jpeg_seeds},
          {"png", read_png, png_seeds},
          {"picture-list", read_picture_list, picture_list_seeds},
          {"tokenizer", read_tokenizer, tokenizer_seeds},
          {"text", read_text_file, text_seeds},
          {"tokens", read_token_file, token_seeds},
          {"bytes", read_byte_file, byte_seeds},
          {"class-list", read_class_list, class_list_seeds}};
}

}  // namespace quanvas::fuzz
