// Texts as data: tokenizers against a slow one and against each other, windows against a count by hand, and a sentence
// for every way in which a file can be wrong.
#include <array>
#include <random>

#include <gmock/gmock.h>

#include "core/base/files.h"
#include "core/data/token_windows.h"
#include "core/data/tokenizer.h"
#include "tests/core/engine/data_files.h"
#include "tests/core/engine/text_files.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using namespace testing_data;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const fs::path kShared = QUANVAS_SHARED_DIR;

// -- tokenizers

// Letters with ties between the scores, joined in several ways, some through others.
const std::vector<Token>& letters() {
  static const std::vector<Token> table =
      vocabulary({{" ", -9}, {"a", -9}, {"b", -9}, {"ab", -1}, {"ba", -1}, {" a", -2}, {"aba", -3}, {"abab", -4}, {" ab", -1.5f},
                  {"\xc3\xa9", -9}, {"\xc3\xa9" "a", -0.5f}, {"  ", -3}});
  return table;
}

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, const std::string& text) {
  const auto out = tokenizer.encode({text}, 0);
  EXPECT_TRUE(out) << out.error().text();
  return out ? out->at(0) : std::vector<std::int32_t>();
}

std::vector<std::int32_t> with_llama2c(const std::string& text) {
  const auto tokenizer = read_llama2c_tokenizer(llama2c_file(letters()), "test");
  EXPECT_TRUE(tokenizer) << tokenizer.error().text();
  return encode(**tokenizer, text);
}

std::int32_t id(const std::string& text) {
  for (std::size_t i = 0; i < letters().size(); ++i)
    if (letters()[i].text == text) return static_cast<std::int32_t>(i);
  return -1;
}

// Looks at every pair again after every join.
std::vector<std::int32_t> slow_bpe(std::vector<std::int32_t> ids) {
  while (true) {
    std::size_t best = SIZE_MAX;
    float score = -1e30f;
    std::int32_t joined = -1;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto at = [&](std::size_t k) { return letters()[static_cast<std::size_t>(ids[k])].text; };
      const std::int32_t token = id(at(i) + at(i + 1));
      if (token < 0 || letters()[static_cast<std::size_t>(token)].score <= score) continue;
      best = i;
      joined = token;
      score = letters()[static_cast<std::size_t>(token)].score;
    }
    if (best == SIZE_MAX) return ids;
    ids[best] = joined;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Tokenizer, JoinsTheBestPairFirst) {
  struct Row {
    std::string text;
    std::vector<std::int32_t> expected;
  };
  const std::vector<Row> rows = {
      {"", {}},
      {"a", {id(" a")}},
      {"ab", {id(" ab")}},                        // "ab" (-1) goes before " a" (-2)
      {"bab", {id(" "), id("ba"), id("b")}},      // of equal scores the left one
      {"abab", {id(" ab"), id("ab")}},            // " ab" (-1.5) goes before "abab" (-4)
      {"\xc3\xa9" "ab", {id(" "), id("\xc3\xa9" "a"), id("b")}},
      {"c", {id(" "), 3 + 'c'}},                  // no token: its byte
      {"\xe2\x82\xac", {id(" "), 3 + 0xe2, 3 + 0x82, 3 + 0xac}},
      {std::string("\0", 1), {id(" "), 3}},
      {"\n", {id(" "), 3 + '\n'}},
  };
  for (const Row& row : rows) EXPECT_EQ(with_llama2c(row.text), row.expected) << row.text;
}

TEST(Tokenizer, IsThatOfTheSlowOne) {
  std::mt19937 random(5);
  const std::array<std::string, 5> characters = {"a", "b", " ", "\xc3\xa9", "a"};
  for (int round = 0; round < 300; ++round) {
    std::string text;
    std::vector<std::int32_t> ids = {id(" ")};
    for (unsigned i = 0, n = 1 + random() % 40; i < n; ++i) {
      const std::string& c = characters[random() % characters.size()];
      text += c;
      ids.push_back(id(c));
    }
    EXPECT_EQ(with_llama2c(text), slow_bpe(ids)) << text;
  }
}

TEST(Tokenizer, MostTokensLeavesLaterTextsOut) {
  const auto tokenizer = *read_llama2c_tokenizer(llama2c_file(letters()), "test");
  EXPECT_EQ(tokenizer->encode({"ab", "ab", "ab"}, 2)->size(), 2u);
  EXPECT_EQ(tokenizer->encode({"ab", "ab", "ab"}, 0)->size(), 3u);
}

struct DamagedRow {
  const char* name;
  std::string bytes;
  const char* sentence;
};
class DamagedTokenizer : public FolderTest {};
TEST_F(DamagedTokenizer, IsRefusedWithASentence) {
  const std::string good = llama2c_file(letters());
  const auto with_length = [&](std::int32_t length) { return good.substr(0, 8) + raw_bytes(length) + good.substr(12); };
  std::string nan = good;
  nan.replace(4, 4, raw_bytes(std::nanf("")));
  const std::vector<DamagedRow> rows = {
      {"empty", "", "is empty"},
      {"two bytes", "ab", "is no tokenizer: it has 2 bytes"},
      {"only a head", raw_bytes(std::int32_t{7}), "has 0 tokens; at least 259"},
      {"head of 0", raw_bytes(std::int32_t{0}) + good.substr(4), "its longest token would have 0 bytes"},
      {"head below 0", raw_bytes(std::int32_t{-5}) + good.substr(4), "its longest token would have -5 bytes"},
      {"huge head", raw_bytes(std::int32_t{0x7fffffff}) + good.substr(4), "its longest token would have 2147483647 bytes"},
      {"length below 0", with_length(-1), "token 0 has -1 bytes"},
      {"huge length", with_length(0x7fffffff), "token 0 has 2147483647 bytes"},
      {"cut within a number", good.substr(0, good.size() - letters().back().text.size() - 3), "ends within token"},
      {"cut within a text", good.substr(0, good.size() - 1), "ends within token"},
      {"too few", llama2c_file({{"<unk>"}, {"a"}}), "has 2 tokens"},
      {"no score", nan, "no number as the score of token 0"},
      {"another format", "PK\x03\x04" + std::string(100, 'x'), "is no tokenizer"},
  };
  write("t.txt", "ab ab");
  for (const DamagedRow& row : rows) {
    write("tokenizer", row.bytes);
    const auto data = open("text", {{"data", "t.txt"}, {"tokenizer", "tokenizer"}});
    ASSERT_FALSE(data) << row.name;
    EXPECT_EQ(data.error().code, ErrorCode::kCorrupt) << row.name;
    EXPECT_THAT(data.error().text(), HasSubstr(row.sentence)) << row.name;
    EXPECT_THAT(data.error().text(), HasSubstr("tokenizer")) << row.name;
  }
}

TEST_F(DamagedTokenizer, NoCutAndNoFlippedByteCrashes) {
  const std::string good = llama2c_file(letters());
  write("t.txt", "abba");
  std::mt19937 random(9);
  for (int round = 0; round < 300; ++round) {
    std::string bytes = good;
    if (round % 2) bytes.resize(random() % bytes.size());
    for (int i = 0; i < 3 && !bytes.empty(); ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    (void)read_llama2c_tokenizer(bytes, "test").map([](const TokenizerPtr& t) { return t->encode({"abba \xc3\xa9"}, 0); });
  }
}

class SentencePiece : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    write("llama2c.bin", llama2c_file(letters()));
    write("piece.model", sentencepiece_file(letters()));
  }
  // The inputs of all windows, one after the other.
  std::vector<float> ids(const std::string& tokenizer) {
    const auto data = open("text", {{"data", "t.txt"}, {"tokenizer", tokenizer}, {"window", 4096}});
    EXPECT_TRUE(data) << data.error().text();
    return data ? (*data)->read(0)->values : std::vector<float>();
  }
};

// Two tokenizers that know nothing of each other.
TEST_F(SentencePiece, GivesTheTokensOfTheSameVocabulary) {
  std::mt19937 random(6);
  const std::array<std::string, 8> characters = {"a", "b", " ", "\xc3\xa9", "c", "\n", "ab", "\xe2\x82\xac"};
  for (int round = 0; round < 12; ++round) {
    std::string text = "a";
    for (int i = 0; i < 200; ++i) text += characters[random() % characters.size()];
    write("t.txt", text);
    const auto expected = ids("llama2c.bin");
    ASSERT_GT(expected.size(), 10u);
    EXPECT_EQ(ids("piece.model"), expected) << text;
  }
}

TEST_F(SentencePiece, DocumentsAreTokenizedOneByOne) {
  write("t.txt", "\nab ba\n--\n\n--\n\xc3\xa9" "a c\n--\n");
  for (const char* tokenizer : {"llama2c.bin", "piece.model"}) {
    const auto data = open("text", {{"data", "t.txt"}, {"tokenizer", tokenizer}, {"window", 16}, {"separator", "--"}});
    ASSERT_TRUE(data) << data.error().text();
    ASSERT_EQ((*data)->size(), 2) << "white space alone is no document";
    const TokenWindow first = (*data)->token_window(0);
    EXPECT_EQ((*data)->read(0)->values[0], 1) << "BOS";
    EXPECT_EQ((*data)->read(0)->values[1], static_cast<float>(id(" ab")));
    EXPECT_EQ(first.length, 1 + 3) << "_ab _ ba";
    EXPECT_EQ((*data)->read(1)->values[1], static_cast<float>(id(" ")));
  }
}

TEST_F(SentencePiece, WithoutBosSaysSo) {
  write("t.txt", "ab ba");
  write("piece.model", sentencepiece_file(letters(), /*with_bos=*/false));
  const auto data = open("text", {{"data", "t.txt"}, {"tokenizer", "piece.model"}});
  ASSERT_FALSE(data);
  EXPECT_THAT(data.error().text(), HasSubstr("has no token for the beginning of a text (BOS)"));
  EXPECT_TRUE(open("text", {{"data", "t.txt"}, {"tokenizer", "piece.model"}, {"bos", false}}));
}

TEST_F(SentencePiece, ADamagedModelIsASentence) {
  write("t.txt", "ab ab");
  const std::string good = sentencepiece_file(letters());
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 40; ++round) {
    std::string bytes = good;
    if (round % 2) bytes.resize(4 + random() % (bytes.size() - 4));
    else for (int i = 0; i < 4; ++i) bytes[4 + random() % (bytes.size() - 4)] = static_cast<char>(random());
    write("piece.model", bytes);
    const auto data = open("text", {{"data", "t.txt"}, {"tokenizer", "piece.model"}});
    if (data) continue;
    ++refused;
    EXPECT_THAT(data.error().text(), HasSubstr("piece.model'"));
    EXPECT_EQ(data.error().text().find('\n'), std::string::npos);
  }
  EXPECT_GT(refused, 5);
}

TEST(RealTokenizer, OfTinyStoriesIsThatOfSentencePiece) {
  const fs::path folder = kShared / "models/tinystories260k";
  if (!fs::exists(folder)) GTEST_SKIP() << "no shared data";
  const std::string file = *read_file(folder / "tokenizer.bin");
  std::vector<Token> tokens;
  for (std::size_t at = 4; at < file.size();) {
    Token token;
    std::int32_t size = 0;
    std::memcpy(&token.score, file.data() + at, 4);
    std::memcpy(&size, file.data() + at + 4, 4);
    token.text = file.substr(at + 8, static_cast<std::size_t>(size));
    at += 8 + static_cast<std::size_t>(size);
    tokens.push_back(token);
  }
  ASSERT_EQ(tokens.size(), 512u);
  ASSERT_EQ(llama2c_file(tokens), file);
  const fs::path model = fs::temp_directory_path() / ("quanvas-" + std::to_string(::getpid()) + ".model");
  ASSERT_TRUE(write_file_atomically(model, sentencepiece_file(tokens)));
  const auto hash = [&](const fs::path& tokenizer, const fs::path& text) {
    const DataSource source{"text", {{"data", text.string()}, {"tokenizer", tokenizer.string()}}, 0, -1};
    const auto data = open_dataset(source, {}, "", {-1, -1});
    EXPECT_TRUE(data) << data.error().text();
    return data ? (*data)->hash() : std::string();
  };
  for (const char* text : {"tinystories260k/tinystories_sample.txt", "wikitext2/valid.txt"})
    EXPECT_EQ(hash(folder / "tokenizer.bin", kShared / "models" / text), hash(model, kShared / "models" / text)) << text;
  fs::remove(model);
}

// -- windows

std::unique_ptr<RawDataset> windows(std::vector<std::vector<std::int32_t>> streams, WindowSettings s) {
  auto out = token_windows(streams, s, "test");
  EXPECT_TRUE(out) << out.error().text();
  return out ? std::move(*out) : nullptr;
}
std::vector<std::int32_t> counted(int n, int from = 0) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < n; ++i) out.push_back(100 + from + i);
  return out;
}

struct WindowRow {
  int tokens, window, stride, bos;
  bool keep_last;
  // Each window as "inputs|scored inputs".
  std::vector<std::string> expected;
};

// "1 100 101|100 101"
std::vector<std::string> told(const RawDataset& data) {
  std::vector<std::string> out;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    const TokenWindow w = data.token_window(i);
    const auto values = data.read(i)->values;
    std::string inputs, scored;
    for (std::int64_t p = 0; p < w.length; ++p) {
      const std::string id = std::to_string(static_cast<int>(values[static_cast<std::size_t>(p)]));
      inputs += (p ? " " : "") + id;
      if (p >= w.first) scored += (p > w.first ? " " : "") + id;
    }
    out.push_back(inputs + "|" + scored);
  }
  return out;
}

TEST(TokenWindows, AreThoseOfTheDefinition) {
  const std::vector<WindowRow> rows = {
      {6, 3, 0, -1, true, {"100 101 102|101 102", "103 104 105|104 105"}},
      {6, 3, 0, 1, true, {"1 100 101|100 101", "1 102 103|102 103", "1 104 105|104 105"}},
      {5, 3, 0, -1, true, {"100 101 102|101 102", "103 104|104"}},
      {5, 3, 0, -1, false, {"100 101 102|101 102"}},
      {4, 3, 0, -1, true, {"100 101 102|101 102"}},  // one token foretells nothing
      {4, 4, 0, 1, true, {"1 100 101 102|100 101 102", "1 103|103"}},
      {6, 4, 2, -1, true, {"100 101 102 103|101 102 103", "102 103 104 105|104 105"}},
      {7, 4, 2, -1, true, {"100 101 102 103|101 102 103", "102 103 104 105|104 105", "104 105 106|106"}},
      {7, 4, 2, -1, false, {"100 101 102 103|101 102 103", "102 103 104 105|104 105"}},
      {5, 4, 1, 1, true, {"1 100 101 102|100 101 102", "1 101 102 103|103", "1 102 103 104|104"}},
      {3, 8, 0, 1, true, {"1 100 101 102|100 101 102"}},
      {1, 8, 0, 1, true, {"1 100|100"}},
  };
  for (const WindowRow& row : rows) {
    const auto data = windows({counted(row.tokens)}, {row.window, row.stride, row.bos, row.keep_last, 0});
    ASSERT_TRUE(data);
    EXPECT_EQ(told(*data), row.expected) << row.tokens << " tokens, window " << row.window << ", stride " << row.stride << ", BOS " << row.bos;
    for (std::int64_t i = 0; i < data->size(); ++i) EXPECT_EQ(data->read(i)->shape, (Shape{row.window})) << "all of one size";
  }
}

TEST(TokenWindows, DocumentsDoNotMeet) {
  const auto data = windows({counted(3), {}, counted(1, 50), counted(2, 60)}, {3, 0, -1, true, 0});
  EXPECT_THAT(told(*data), ElementsAre("100 101 102|101 102", "160 161|161"));
  const auto limited = windows({counted(3), counted(5, 50)}, {3, 0, 1, true, 4});
  EXPECT_THAT(told(*limited), ElementsAre("1 100 101|100 101", "1 102|102", "1 150|150")) << "four tokens in all";
}

// Every setting of small size, against a count that follows the definition token by token.
TEST(TokenWindows, ScoreNoTokenTwice) {
  for (int tokens = 2; tokens < 14; ++tokens)
    for (int window = 2; window < 8; ++window)
      for (const int bos : {-1, 7})
        for (int stride = 1; stride <= window - (bos >= 0); ++stride) {
          const int held = window - (bos >= 0);
          std::vector<int> expected(static_cast<std::size_t>(tokens)), got(expected.size());
          for (int j = 0; j < tokens; ++j) {
            int k = 0;  // the first window that holds it
            while (k * stride + held <= j) ++k;
            expected[static_cast<std::size_t>(j)] = bos >= 0 || j > k * stride;
          }
          const auto data = token_windows({counted(tokens)}, {window, stride, bos, true, 0}, "test");
          ASSERT_TRUE(data) << data.error().text();
          for (std::int64_t i = 0; i < (*data)->size(); ++i) {
            const TokenWindow w = (*data)->token_window(i);
            ASSERT_LT(w.first, w.length);
            for (std::int64_t p = w.first; p < w.length; ++p)
              ++got[static_cast<std::size_t>((*data)->read(i)->values[static_cast<std::size_t>(p)]) - 100];
          }
          EXPECT_EQ(got, expected) << tokens << " tokens, window " << window << ", stride " << stride << ", BOS " << bos;
        }
}

struct RefusedRow {
  std::vector<std::int32_t> ids;
  WindowSettings settings;
  const char* sentence;
};
TEST(TokenWindows, WhatMakesNoSenseIsRefused) {
  const std::vector<RefusedRow> rows = {
      {counted(9), {1, 0, -1, true, 0}, "a window of 1 tokens foretells nothing"},
      {counted(9), {std::int64_t{1} << 40, 0, -1, true, 0}, "foretells nothing"},
      {counted(9), {4, 5, -1, true, 0}, "a stride of 5 would leave tokens out"},
      {counted(9), {4, 4, 1, true, 0}, "holds 3 tokens of the text"},
      {{}, {4, 0, -1, true, 0}, "gives 0 tokens, too few for one to be foretold"},
      {counted(1), {4, 0, -1, true, 0}, "gives 1 tokens, too few for one to be foretold"},
      {counted(3), {4, 0, -1, false, 0}, "too few for a window of 4"},
      {{5, -1, 5}, {4, 0, -1, true, 0}, "token 1 has the id -1"},
      {{5, 1 << 24, 5}, {4, 0, -1, true, 0}, "token 1 has the id 16777216"},
      {counted(9), {4, 0, 1 << 24, true, 0}, "begins each window has the id 16777216"},
  };
  for (const RefusedRow& row : rows) {
    const auto data = token_windows({row.ids}, row.settings, "test");
    ASSERT_FALSE(data) << row.sentence;
    EXPECT_THAT(data.error().text(), HasSubstr(row.sentence));
  }
}

// -- the readers

class TextReader : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    write("t.bin", llama2c_file(letters()));
  }
  json options(const json& more) {
    json out = {{"data", "t.txt"}, {"tokenizer", "t.bin"}};
    if (!more.is_null()) out.update(more);
    return out;
  }
};

TEST_F(TextReader, RefusesWhatIsNoText) {
  const std::vector<DamagedRow> rows = {
      {"empty", "", "is empty"},
      {"only a mark", "\xef\xbb\xbf", "is empty"},
      {"a lone byte", "ab\x80", "byte 2 begins no character"},
      {"cut short", "ab\xe2\x82", "byte 2 begins no character"},
      {"overlong", "a\xc0\x80", "byte 1 begins no character"},
      {"overlong of three", "\xe0\x80\x80", "byte 0 begins no character"},
      {"a surrogate", "\xed\xa0\x80", "byte 0 begins no character"},
      {"above the last", "\xf4\x90\x80\x80", "byte 0 begins no character"},
  };
  for (const DamagedRow& row : rows) {
    write("t.txt", row.bytes);
    const auto data = open("text", options({}));
    ASSERT_FALSE(data) << row.name;
    EXPECT_THAT(data.error().text(), HasSubstr(row.sentence)) << row.name;
    EXPECT_THAT(data.error().text(), HasSubstr("t.txt'")) << row.name;
  }
}

TEST_F(TextReader, LeavesAByteOrderMarkOut) {
  write("t.txt", "ab ab");
  const std::string plain = (*open("text", options({})))->hash();
  write("t.txt", "\xef\xbb\xbf" "ab ab");
  EXPECT_EQ((*open("text", options({})))->hash(), plain);
}

TEST_F(TextReader, ReadsTheTextsOfAFolderInOrder) {
  fs::create_directories(folder_ / "many");
  write("many/b.txt", "ba");
  write("many/a.txt", "ab");
  write("many/c.md", "\x80");
  const auto data = open("text", options({{"data", "many"}, {"window", 8}}));
  ASSERT_TRUE(data) << data.error().text();
  ASSERT_EQ((*data)->size(), 2);
  EXPECT_EQ((*data)->read(0)->values[1], static_cast<float>(id(" ab")));
  EXPECT_EQ((*data)->read(1)->values[1], static_cast<float>(id(" ")));
  fs::create_directories(folder_ / "none");
  EXPECT_THAT(open("text", options({{"data", "none"}})).error().text(), HasSubstr("holds no .txt files"));
}

TEST_F(TextReader, TakesTheWindowOfTheModel) {
  write("t.txt", "abababababababab ab ab ab");
  const auto shape = [&](const json& more, const Shape& expected) {
    const auto data = open_dataset({"text", options(more), 0, -1}, {}, folder_.string(), expected);
    EXPECT_TRUE(data) << data.error().text();
    return data ? (*data)->sample_shape() : Shape{};
  };
  EXPECT_EQ(shape({}, {-1, 6}), (Shape{6}));
  EXPECT_EQ(shape({}, {-1, -1}), (Shape{512}));
  EXPECT_EQ(shape({{"window", 9}}, {-1, -1}), (Shape{9}));
  const auto wrong = open_dataset({"text", options({{"window", 9}}), 0, -1}, {}, folder_.string(), {-1, 6});
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().text(), HasSubstr("have shape 9, but the model takes 6"));
}

TEST_F(TextReader, TakesNoPreprocessing) {
  write("t.txt", "ab ab");
  Preprocessing p;
  p.scale = 0.5;
  const auto data = open_dataset({"text", options({}), 0, -1}, p, folder_.string(), {-1, -1});
  ASSERT_FALSE(data);
  EXPECT_THAT(data.error().text(), HasSubstr("take no scale, mean, std"));
}

class TokensReader : public FolderTest {};

TEST_F(TokensReader, ReadsEveryType) {
  const std::vector<int> ids = {3, 0, 511, 7};
  std::string int16, int32, int64;
  for (const int v : ids) {
    int16 += raw_bytes(static_cast<std::int16_t>(v));
    int32 += raw_bytes(static_cast<std::int32_t>(v));
    int64 += raw_bytes(static_cast<std::int64_t>(v));
  }
  const std::vector<std::pair<std::string, json>> rows = {{int16, {{"type", "int16"}}},
                                                          {int16, {{"type", "uint16"}}},
                                                          {int32, json::object()},
                                                          {int64, {{"type", "int64"}}},
                                                          {npy("'<i8'", "(4,)", int64), json::object()},
                                                          {npy("'<i4'", "(2, 2)", int32), {{"type", "int16"}}}};
  for (const auto& [bytes, more] : rows) {
    write("ids", bytes);
    json options = {{"data", "ids"}, {"window", 8}, {"bos", 1}};
    if (!more.is_null()) options.update(more);
    const auto data = open("tokens", options);
    ASSERT_TRUE(data) << data.error().text();
    EXPECT_THAT(told(**data), ElementsAre("1 3 0 511 7|3 0 511 7")) << more;
  }
  write("ids", raw_bytes(std::uint16_t{60000}) + raw_bytes(std::uint16_t{1}));
  EXPECT_THAT(told(**open("tokens", {{"data", "ids"}, {"type", "uint16"}})), ElementsAre("60000 1|1"));
}

TEST_F(TokensReader, RefusesWhatIsNone) {
  struct Row {
    std::string bytes;
    json options;
    const char* sentence;
  };
  const std::vector<Row> rows = {
      {"", {}, "is empty"},
      {"abcde", {}, "has 5 bytes, which is no multiple of the 4 of an int32"},
      {raw_bytes(std::int64_t{1} << 40) + raw_bytes(std::int64_t{1}), {{"type", "int64"}}, "token 0 has the id 1099511627776"},
      {raw_bytes(-2) + raw_bytes(1), {}, "token 0 has the id -2"},
      {raw_bytes(5), {}, "too few for one to be foretold"},
      {npy("'<f4'", "(2,)", raw_bytes(1.0f) + raw_bytes(2.0f)), {}, "holds floating point numbers; token ids are whole numbers"},
      {npy("'<i4'", "(9,)", raw_bytes(1)), {}, "is truncated"},
      {"\x93NUMPY", {}, "is no NumPy array"},
  };
  for (const Row& row : rows) {
    write("ids", row.bytes);
    json options = {{"data", "ids"}};
    if (!row.options.is_null()) options.update(row.options);
    const auto data = open("tokens", options);
    ASSERT_FALSE(data) << row.sentence;
    EXPECT_THAT(data.error().text(), HasSubstr(row.sentence));
  }
}

// -- bytes of files

class BytesReader : public FolderTest {
 protected:
  void file(const std::string& folder, const std::string& name, const std::string& bytes) {
    fs::create_directories(folder_ / folder);
    write(folder + "/" + name, bytes);
  }
};

TEST_F(BytesReader, ShowsBothEnds) {
  struct Row {
    std::string bytes;
    bool strip;
    std::vector<float> expected;  // three of the beginning, stripped before, two of the end, stripped behind, padded with 300
  };
  const std::vector<Row> rows = {{"\x01\x02\x03\x04\xff", true, {1, 2, 3, 4, 255}},
                                 {"\x01", true, {1, 300, 300, 300, 1}},
                                 {"  \n\x01\x02 \t\v\f\r", true, {1, 2, 32, 1, 2}},
                                 {" \x01 ", false, {32, 1, 32, 1, 32}},
                                 {"   ", true, {300, 300, 300, 300, 300}},
                                 {"a b", true, {97, 32, 98, 32, 98}}};
  for (const Row& row : rows) {
    file("in/only", "x", row.bytes);
    const auto data = open("bytes", {{"folder", "in"}, {"begin", 3}, {"end", 2}, {"padding", 300}, {"strip", row.strip}});
    ASSERT_TRUE(data) << data.error().text();
    EXPECT_EQ((*data)->read(0)->values, row.expected);
  }
}

TEST_F(BytesReader, FoldersAreClassesInTheOrderOfTheList) {
  file("in/zip", "b", "b");
  file("in/zip", "a", "a");
  file("in/c", "x", "x");
  file("in/nothing", "empty", "");
  write("labels.json", R"(["c", "other", "zip"])");
  const auto labels = [&](const json& more) {
    json options = {{"folder", "in"}};
    if (!more.is_null()) options.update(more);
    const auto data = open("bytes", options);
    EXPECT_TRUE(data) << data.error().text();
    std::vector<std::int64_t> out;
    for (std::int64_t i = 0; data && i < (*data)->size(); ++i) out.push_back((*data)->read(i)->label);
    return out;
  };
  EXPECT_THAT(labels({}), ElementsAre(0, 1, 1));
  EXPECT_THAT(labels({{"labels", "labels.json"}}), ElementsAre(0, 2, 2));
  EXPECT_EQ((*open("bytes", {{"folder", "in"}}))->read(0)->values.size(), 2048u);
  EXPECT_THAT(labels({{"folder", "in/zip"}}), ElementsAre(-1, -1)) << "without a class";
}

TEST_F(BytesReader, RefusesWhatIsWrong) {
  file("in/c", "x", "x");
  fs::create_directories(folder_ / "none");
  const std::vector<std::pair<json, const char*>> rows = {
      {{{"folder", "absent"}}, "There is no folder"},
      {{{"folder", "none"}}, "holds no files"},
      {{{"folder", "in"}, {"begin", 0}, {"end", 0}}, "are both 0"},
      {{{"folder", "in"}, {"labels", "bad.json"}}, "is not valid JSON"},
      {{{"folder", "in"}, {"labels", "map.json"}}, "is no JSON list of names"},
      {{{"folder", "in"}, {"labels", "other.json"}}, "names no class 'c'"},
      {{{"folder", "in"}, {"labels", "absent.json"}}, "absent.json"},
      {{{"folder", "in"}, {"labels", "deep.json"}}, "is nested more than"},
      {{{"folder", "in"}, {"labels", "/dev/zero"}}, "is neither a file nor a folder"},
  };
  write("bad.json", "[\"a\"");
  write("map.json", "{\"a\": 1}");
  write("other.json", "[\"a\"]");
  constexpr std::size_t kDeep = 4 << 20;  // more than any stack holds
  write("deep.json", std::string(kDeep, '[') + std::string(kDeep, ']'));
  for (const auto& [options, sentence] : rows) {
    const auto data = open("bytes", options);
    ASSERT_FALSE(data) << sentence;
    EXPECT_THAT(data.error().text(), HasSubstr(sentence));
  }
}

}  // namespace
}  // namespace quanvas
