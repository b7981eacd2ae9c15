// Readers of data sets: values, and a sentence for every way in which a file can be wrong.
#include <sys/stat.h>
#include <zlib.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include <gmock/gmock.h>

#include "tests/core/engine/data_files.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using namespace testing_data;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// -- idx

class IdxReader : public FolderTest {};

TEST_F(IdxReader, ReadsPlainAndGzip) {
  write("a", idx(8, {3, 2, 2}, counting(12)));
  write("a.gz", gzip(idx(8, {3, 2, 2}, counting(12))));
  write("l", idx(8, {3}, std::string("\x05\x00\x09", 3)));
  for (const char* name : {"a", "a.gz"}) {
    const auto data = open("idx", {{"images", name}, {"labels", "l"}});
    ASSERT_TRUE(data) << data.error().text();
    EXPECT_EQ((*data)->size(), 3);
    EXPECT_TRUE((*data)->is_image());
    const auto sample = (*data)->read(1);
    ASSERT_TRUE(sample);
    EXPECT_EQ(sample->shape, (Shape{2, 2}));
    EXPECT_THAT(sample->values, ElementsAre(4, 5, 6, 7));
    EXPECT_EQ(sample->label, 0);
    EXPECT_FALSE((*data)->read(3));
    EXPECT_FALSE((*data)->read(-1));
  }
  EXPECT_EQ((*open("idx", {{"images", "a"}}))->hash(), (*open("idx", {{"images", "a.gz"}}))->hash());
  EXPECT_NE((*open("idx", {{"images", "a"}}))->hash(), (*open("idx", {{"images", "a"}, {"labels", "l"}}))->hash());
}

struct IdxTypeRow {
  int type;
  std::string values;
  std::vector<float> expected;
};
class IdxTypes : public FolderTest, public ::testing::WithParamInterface<IdxTypeRow> {};
TEST_P(IdxTypes, AreBigEndian) {
  write("a", idx(GetParam().type, {2, 1}, GetParam().values));
  const auto data = open("idx", {{"images", "a"}});
  ASSERT_TRUE(data) << data.error().text();
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_THAT((*data)->read(static_cast<std::int64_t>(i))->values, ElementsAre(GetParam().expected[i]));
}
INSTANTIATE_TEST_SUITE_P(Rows, IdxTypes,
                         ::testing::Values(IdxTypeRow{8, "\x01\xff", {1, 255}}, IdxTypeRow{9, "\x01\xff", {1, -1}},
                                           IdxTypeRow{11, std::string("\x01\x02\xff\xfe", 4), {258, -2}},
                                           IdxTypeRow{12, std::string("\0\0\x01\0\xff\xff\xff\xff", 8), {256, -1}},
                                           IdxTypeRow{13, std::string("\x3f\x80\0\0\xc0\0\0\0", 8), {1, -2}},
                                           IdxTypeRow{14, std::string("\x3f\xf0\0\0\0\0\0\0\xc0\0\0\0\0\0\0\0", 16), {1, -2}}));

struct BadFile {
  const char* name;
  std::string bytes;
  const char* problem;
};
class BadIdx : public FolderTest, public ::testing::WithParamInterface<BadFile> {};
TEST_P(BadIdx, IsRefusedInASentence) {
  write("file", GetParam().bytes);
  EXPECT_THAT(problem("idx", {{"images", "file"}}), HasSubstr(GetParam().problem));
}
INSTANTIATE_TEST_SUITE_P(
    Rows, BadIdx,
    ::testing::Values(BadFile{"empty", "", "file' is empty."}, BadFile{"short", "\x01", "is no IDX file"},
                      BadFile{"magic", std::string(100, 'x'), "is no IDX file"},
                      BadFile{"type", idx(7, {1, 1}, "x"), "is no IDX file"},
                      BadFile{"cut_header", idx(8, {3, 2, 2}, "").substr(0, 10), "ends inside its header"},
                      BadFile{"cut_values", idx(8, {3, 2, 2}, counting(11)), "is truncated: its header says 12 bytes"},
                      BadFile{"too_long", idx(8, {3, 2, 2}, counting(13)), "has more bytes than its header says"},
                      BadFile{"huge", idx(8, {4294967295u, 4294967295u, 4294967295u}, "x"), "more than 16 GiB"},
                      BadFile{"large_claim", idx(8, {100000, 28, 28}, "x"), "is truncated"},
                      BadFile{"no_samples", idx(8, {0, 28, 28}, ""), "has no samples"},
                      BadFile{"labels_only", idx(8, {3}, "abc"), "has one dimension only"},
                      BadFile{"cut_gzip", gzip(idx(8, {300, 28, 28}, std::string(300 * 784, 'a'))).substr(0, 100), "file' is "},
                      BadFile{"broken_gzip", "\x1f\x8b\x08" + std::string(50, '\xff'), "file' "}),
    [](const auto& row) { return row.param.name; });

TEST_F(IdxReader, OptionsAreChecked) {
  write("a", idx(8, {3, 2, 2}, counting(12)));
  write("l", idx(8, {2}, "ab"));
  fs::create_directory(folder_ / "dir");
  EXPECT_THAT(problem("idx", {{"images", "none"}}), HasSubstr("There is no file '" + base() + "/none'"));
  EXPECT_THAT(problem("idx", {{"images", "dir"}}), HasSubstr("is a folder"));
  EXPECT_THAT(problem("idx", json::object()), HasSubstr("Option 'images' of data set reader 'idx' is missing."));
  EXPECT_THAT(problem("idx", {{"image", "a"}}), HasSubstr("Unknown option 'image'"));
  EXPECT_THAT(problem("idx", {{"images", 3}}), HasSubstr("must be a text"));
  EXPECT_THAT(problem("idx", {{"images", "a"}, {"labels", "l"}}), HasSubstr("has 3 samples, but"));
  EXPECT_THAT(problem("idx", {{"images", "a"}, {"labels", "a"}}), HasSubstr("labels have one dimension"));
  EXPECT_EQ(problem("idx", {{"images", (folder_ / "a").string()}}), "");
}

// -- npy

class NpyReader : public FolderTest {};

TEST_F(NpyReader, ReadsEveryType) {
  write("f4", npy("'<f4'", "(2, 3)", bytes_of<float>({1, 2, 3, 4, 5, 6.5f})));
  write("f8", npy("'<f8'", "(2, 3)", bytes_of<double>({1, 2, 3, 4, 5, 6.5})));
  write("i1", npy("'|i1'", "(2, 3)", std::string("\1\2\3\4\5\xff", 6)));
  write("u1", npy("'|u1'", "(2, 3)", std::string("\1\2\3\4\5\xff", 6)));
  write("i2", npy("'<i2'", "(2, 3)", bytes_of<std::int16_t>({1, 2, 3, 4, 5, -300})));
  write("i4", npy("'<i4'", "(2, 3)", bytes_of<std::int32_t>({1, 2, 3, 4, 5, -70000})));
  write("i8", npy("'<i8'", "(2, 3)", bytes_of<std::int64_t>({1, 2, 3, 4, 5, 1 << 20})));
  const std::vector<std::pair<const char*, float>> rows = {{"f4", 6.5f},  {"f8", 6.5f},    {"i1", -1},        {"u1", 255},
                                                           {"i2", -300},  {"i4", -70000},  {"i8", 1 << 20}};
  for (const auto& [name, last] : rows) {
    const auto data = open("npy", {{"data", name}});
    ASSERT_TRUE(data) << data.error().text();
    EXPECT_EQ((*data)->size(), 2);
    EXPECT_THAT((*data)->read(1)->values, ElementsAre(4, 5, last)) << name;
  }
}

TEST_F(NpyReader, ReadsArchives) {
  const std::string x = npy("'<f4'", "(2, 2)", bytes_of<float>({1, 2, 3, 4})), y = npy("'<i8'", "(2,)", bytes_of<std::int64_t>({7, 1}));
  for (const bool deflated : {false, true}) {
    write("set.npz", zip({{"x.npy", x, deflated}, {"y.npy", y, deflated}}));
    const auto data =
        open("npy", {{"data", "set.npz"}, {"data_array", "x"}, {"labels", "set.npz"}, {"labels_array", "y"}});
    ASSERT_TRUE(data) << data.error().text();
    EXPECT_THAT((*data)->read(1)->values, ElementsAre(3, 4));
    EXPECT_EQ((*data)->read(0)->label, 7);
  }
  EXPECT_THAT(problem("npy", {{"data", "set.npz"}}), HasSubstr("holds several arrays; one must be named. Its arrays: x, y."));
  EXPECT_THAT(problem("npy", {{"data", "set.npz"}, {"data_array", "z"}}), HasSubstr("holds no array 'z'"));
}

TEST_F(NpyReader, DamagedArchivesAreRefused) {
  const std::string whole = zip({{"x.npy", npy("'<f4'", "(2, 2)", bytes_of<float>({1, 2, 3, 4})), true}});
  write("whole.npz", whole);
  ASSERT_EQ(problem("npy", {{"data", "whole.npz"}}), "");
  for (std::size_t n = 1; n < whole.size(); ++n) {
    write("cut.npz", whole.substr(0, n));
    EXPECT_NE(problem("npy", {{"data", "cut.npz"}}), "") << n;
  }
  int refused = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 0x55);
    write("bad.npz", bad);
    refused += !problem("npy", {{"data", "bad.npz"}}).empty();
  }
  EXPECT_GT(refused, 100);
}

class BadNpy : public FolderTest, public ::testing::WithParamInterface<BadFile> {};
TEST_P(BadNpy, IsRefusedInASentence) {
  write("file", GetParam().bytes);
  EXPECT_THAT(problem("npy", {{"data", "file"}}), HasSubstr(GetParam().problem));
}
INSTANTIATE_TEST_SUITE_P(
    Rows, BadNpy,
    ::testing::Values(
        BadFile{"empty_member", zip({{"x.npy", "", false}}), "is no NumPy array"},
        BadFile{"empty", "", "is empty"}, BadFile{"magic", "hello world, this is text", "is no NumPy array"},
        BadFile{"version", "\x93NUMPY\x09" + std::string(20, '\0'), "has version 9"},
        BadFile{"cut_header", npy("'<f4'", "(2, 2)", "").substr(0, 30), "ends inside its header"},
        BadFile{"huge_header", std::string("\x93NUMPY\x02\x00\xff\xff\xff\x7f", 12) + "{", "declares a header of 2147483647 bytes"},
        BadFile{"no_keys", npy("'<f4'", "nothing", "x"), "has a header without"},
        BadFile{"big_endian", npy("'>f4'", "(1, 2)", "12345678"), "type '>f4', which is big endian"},
        BadFile{"objects", npy("'|O'", "(1, 2)", "12345678"), "NumPy type '|O'"},
        BadFile{"fields", npy("[('a', '<f4')]", "(2,)", "12345678"), "NumPy type [('a', '<f4')]"},
        BadFile{"fortran", npy("'<f4'", "(1, 2)", "12345678", "True"), "Fortran order"},
        BadFile{"scalar", npy("'<f4'", "()", "1234"), "samples stand in the first of its dimensions"},
        BadFile{"no_samples", npy("'<f4'", "(0, 4)", ""), "has the shape 0×4"},
        BadFile{"truncated", npy("'<f4'", "(2, 2)", "12345678"), "is truncated: the shape 2×2 needs 4 elements of 4 bytes"},
        BadFile{"huge_shape", npy("'<f4'", "(9007199254740992, 9007199254740992)", "1"), "has the shape"},
        BadFile{"larger_shape", npy("'<f4'", "(99999999999999999999999, 2)", "1"), "has a header without"},
        BadFile{"negative", npy("'<f4'", "(-3, 2)", "1"), "has a header without"}),
    [](const auto& row) { return row.param.name; });

TEST_F(NpyReader, FloatLabelsAreRefused) {
  write("x", npy("'<f4'", "(2, 1)", "12345678"));
  write("f", npy("'<f4'", "(2,)", "12345678"));
  write("three", npy("'|u1'", "(3,)", "123"));
  write("matrix", npy("'|u1'", "(2, 2)", "1234"));
  EXPECT_THAT(problem("npy", {{"data", "x"}, {"labels", "f"}}), HasSubstr("labels are whole numbers"));
  EXPECT_THAT(problem("npy", {{"data", "x"}, {"labels", "three"}}), HasSubstr("has 2 samples, but"));
  EXPECT_THAT(problem("npy", {{"data", "x"}, {"labels", "matrix"}}), HasSubstr("one number for each sample"));
}

// -- raw

class RawReader : public FolderTest {};

TEST_F(RawReader, AppliesScaleAndZeroPoint) {
  write("d", "HEAD" + std::string("\x00\x53\x7f\x80", 4));
  write("l", std::string("\x02\xff", 2));
  const json options = {{"data", "d"}, {"labels", "l"},       {"type", "int8"}, {"shape", "2x1"},
                        {"offset", 4}, {"zero_point", 83}, {"scale", 0.5}};
  const auto data = open("raw", options);
  ASSERT_TRUE(data) << data.error().text();
  EXPECT_EQ((*data)->size(), 2);
  EXPECT_EQ((*data)->read(0)->shape, (Shape{2, 1}));
  EXPECT_THAT((*data)->read(0)->values, ElementsAre(-41.5f, 0.f));
  EXPECT_THAT((*data)->read(1)->values, ElementsAre(22.f, -105.5f));
  EXPECT_EQ((*data)->read(1)->label, 255);
  const std::string before = (*data)->hash();
  json other = options;
  other["scale"] = 0.25;
  EXPECT_NE((*open("raw", other))->hash(), before);
  write("d", "HEAD" + std::string("\x00\x53\x7f\x81", 4));
  EXPECT_NE((*open("raw", options))->hash(), before);
}

// 17 MB, as large as it must be for its hash to be worth remembering.
TEST_F(RawReader, TheHashOfLargeFilesIsRememberedUntilTheyChange) {
  const auto cache = folder_ / "cache";
  ::setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  write("d", "data");
  std::filesystem::resize_file(folder_ / "d", 17 << 20);
  const auto hash = [&] { return (*open("raw", {{"data", "d"}, {"shape", "1024"}}))->hash(); };
  const auto remembered = [&] {
    std::vector<std::filesystem::path> files;
    std::error_code ec;
    for (const auto& entry : std::filesystem::directory_iterator(cache / "quanvas" / "data-hashes", ec)) files.push_back(entry.path());
    return files;
  };
  const std::string fresh = hash();
  EXPECT_TRUE(remembered().empty()) << "a change within the clock's tick would not be seen";
  std::this_thread::sleep_for(std::chrono::milliseconds(3100));
  EXPECT_EQ(hash(), fresh);
  ASSERT_EQ(remembered().size(), 1u);
  const auto entry = remembered()[0];
  std::ofstream(entry) << std::string(32, '0');
  EXPECT_NE(hash(), fresh) << "it is taken from there";
  for (const auto& damaged : {std::string(), std::string("0123"), std::string(32, 'x'), std::string(1000, '0')}) {
    std::ofstream(entry) << damaged;
    EXPECT_EQ(hash(), fresh) << damaged.size();
  }
  std::ofstream(entry) << std::string(32, '0');
  const auto time = std::filesystem::last_write_time(folder_ / "d");
  std::fstream(folder_ / "d", std::ios::binary | std::ios::in | std::ios::out) << "DATA";
  std::filesystem::last_write_time(folder_ / "d", time);  // as a copying tool does
  const std::string changed = hash();
  ::unsetenv("XDG_CACHE_HOME");
  EXPECT_NE(changed, fresh);
  EXPECT_EQ(remembered().size(), 1u);
}

struct BadOptions {
  const char* options;
  const char* problem;
};
class BadRaw : public FolderTest, public ::testing::WithParamInterface<BadOptions> {};
TEST_P(BadRaw, IsRefusedInASentence) {
  write("d", counting(12));
  write("e", "");
  write("l", "ab");
  EXPECT_THAT(problem("raw", json::parse(GetParam().options)), HasSubstr(GetParam().problem));
}
INSTANTIATE_TEST_SUITE_P(
    Rows, BadRaw,
    ::testing::Values(BadOptions{R"({"data":"d","shape":"2x3"})", ""},
                      BadOptions{R"({"data":"d","shape":"5"})", "is no multiple of 5 bytes (shape 5)"},
                      BadOptions{R"({"data":"d","shape":"0"})", "Option 'shape' of data set reader 'raw' is '0'"},
                      BadOptions{R"({"data":"d","shape":""})", "such as 49x10x1"},
                      BadOptions{R"({"data":"d","shape":"2xx3"})", "Option 'shape'"},
                      BadOptions{R"({"data":"d","shape":"-2"})", "Option 'shape'"},
                      BadOptions{R"({"data":"d","shape":"999999999x999999999x999999999"})", "Option 'shape'"},
                      BadOptions{R"({"data":"d","shape":"2","offset":12})", "should begin at byte 12"},
                      BadOptions{R"({"data":"d","shape":"2","offset":-1})", "'offset'"},
                      BadOptions{R"({"data":"d","shape":"2","type":"complex"})", "must be one of int8, uint8"},
                      BadOptions{R"({"data":"d","shape":"2","labels":"l"})", "has 6 samples, but"},
                      BadOptions{R"({"data":"e","shape":"2"})", "is empty"},
                      BadOptions{R"({"data":"none","shape":"2"})", "There is no file"}));

// -- images

class ImagesReader : public FolderTest {};

TEST_F(ImagesReader, ReadsPngAndJpegInTheOrderOfTheList) {
  write("pics/a.png", png(1, 2, 3, counting(6)));
  write("pics/b.png", png(2, 1, 1, "\x07\x09"));
  write("pics/c.png", png(1, 1, 4, std::string("\x0a\x14\x1e\xff", 4)));
  write("pics/d.jpg", jpeg(8, 16, 1, std::string(128, '\x64')));
  write("labels.csv", "file,class_index,name\r\nb.png,1,\"cat, \"\"black\"\"\"\r\nd.jpg,3,dog\r\na.png,0,fox\r\nc.png,1,cat\r\n\r\n");
  const auto data = open("images", {{"folder", "pics"}, {"labels", "labels.csv"}});
  ASSERT_TRUE(data) << data.error().text();
  ASSERT_EQ((*data)->size(), 4);
  EXPECT_TRUE((*data)->has_labels());
  EXPECT_THAT((*data)->class_names(), ElementsAre("fox", "cat, \"black\"", "", "dog"));
  EXPECT_EQ((*data)->read(0)->shape, (Shape{2, 1, 1}));
  EXPECT_THAT((*data)->read(0)->values, ElementsAre(7, 9));
  EXPECT_EQ((*data)->read(1)->shape, (Shape{8, 16, 1}));
  EXPECT_THAT((*data)->read(1)->values, ::testing::Each(100));
  EXPECT_THAT((*data)->read(2)->values, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT((*data)->read(3)->values, ElementsAre(10, 20, 30));
  EXPECT_EQ((*data)->read(3)->label, 1);
  const std::string before = (*data)->hash();
  write("pics/a.png", png(1, 2, 3, counting(7).substr(1)));
  EXPECT_NE((*open("images", {{"folder", "pics"}, {"labels", "labels.csv"}}))->hash(), before);
}

TEST_F(ImagesReader, CmykBecomesRgb) {
  // With Adobe's marker, which the encoder writes, amounts of ink are stored inverted: 0 is full ink, black.
  write("p/black.jpg", jpeg(8, 8, 4, std::string(256, '\0')));
  const auto data = open("images", {{"folder", "p"}});
  ASSERT_TRUE(data) << data.error().text();
  const auto sample = (*data)->read(0);
  ASSERT_TRUE(sample) << sample.error().text();
  EXPECT_EQ(sample->shape, (Shape{8, 8, 3}));
  EXPECT_THAT(sample->values, ::testing::Each(0));
}

TEST_F(ImagesReader, FoldersAreClasses) {
  write("set/b_dog/2.png", png(1, 1, 1, "\x02"));
  write("set/a_cat/1.PNG", png(1, 1, 1, "\x01"));
  write("set/a_cat/0.png", png(1, 1, 1, std::string(1, '\0')));
  write("set/empty/readme.txt", "x");
  const auto data = open("images", {{"folder", "set"}});
  ASSERT_TRUE(data) << data.error().text();
  EXPECT_THAT((*data)->class_names(), ElementsAre("a_cat", "b_dog"));
  ASSERT_EQ((*data)->size(), 3);
  EXPECT_EQ((*data)->read(2)->label, 1);
  EXPECT_THAT((*data)->read(2)->values, ElementsAre(2));
  write("flat/x.png", png(1, 1, 1, "\x03"));
  EXPECT_FALSE((*open("images", {{"folder", "flat"}}))->has_labels());
}

class BadImage : public FolderTest, public ::testing::WithParamInterface<BadFile> {};
TEST_P(BadImage, IsRefusedInASentence) {
  write("p/x.png", GetParam().bytes);
  EXPECT_THAT(problem("images", {{"folder", "p"}}), HasSubstr(GetParam().problem));
}
std::string noise(std::size_t n) {
  std::string out;
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < n; ++i) out += static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return out;
}
// Heads that claim far more pixels than the bytes behind them can hold.
std::string large_png() {
  std::string p = png(1, 1, 1, "x");
  p.replace(16, 8, big_endian(11000) + big_endian(11000));
  const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(p.data() + 12), 17);
  return p.replace(29, 4, big_endian(static_cast<std::uint32_t>(crc)));
}
std::string with_size(std::string jpeg_bytes, char frame, std::uint16_t side) {
  const std::size_t at = jpeg_bytes.find(std::string("\xff") + frame);
  const char size[] = {static_cast<char>(side >> 8), static_cast<char>(side)};
  return jpeg_bytes.replace(at + 5, 4, std::string(size, 2) + std::string(size, 2));
}
// Each of the empty scans is a walk over all blocks.
std::string many_scans() {
  std::string out = with_size(jpeg(8, 8, 1, noise(64), /*progressive=*/true), '\xc2', 4000);
  const std::string scan("\xff\xda\0\x08\1\1\0\0\0\0", 10);  // of the first component's mean, all bits
  out.resize(out.size() - 2);
  for (int i = 0; i < 1000; ++i) out += scan;
  return out + "\xff\xd9";
}
INSTANTIATE_TEST_SUITE_P(
    Rows, BadImage,
    ::testing::Values(BadFile{"empty", "", "it is empty"}, BadFile{"text", "hello", "neither JPEG nor PNG"},
                      BadFile{"cut_png", png(8, 8, 3, noise(192)).substr(0, 60), "it is truncated"},
                      BadFile{"png_head", png(8, 8, 3, noise(192)).substr(0, 8), "cannot be decoded"},
                      BadFile{"cut_jpeg", jpeg(64, 64, 3, noise(64 * 64 * 3)).substr(0, 4000), "truncated"},
                      BadFile{"jpeg_head", "\xff\xd8\xff", "cannot be decoded"},
                      BadFile{"large_png", large_png(), "it has 11000×11000 pixels, more than 80 bytes can hold"},
                      BadFile{"large_jpeg", with_size(jpeg(8, 8, 1, noise(64)), '\xc0', 11000), "it has 11000×11000 pixels, more than"},
                      BadFile{"jpeg_of_many_scans", many_scans(), "it has more than 100 scans"},
                      BadFile{"huge_png",
                              [] {
                                std::string p = png(1, 1, 1, "x");
                                p.replace(16, 8, std::string("\x7f\xff\xff\xff\x7f\xff\xff\xff", 8));
                                return p;
                              }(),
                              "cannot be decoded"}),
    [](const auto& row) { return row.param.name; });

TEST_F(ImagesReader, DamagedFilesNeverCrash) {
  for (const std::string& whole : {png(9, 7, 3, noise(189)), jpeg(24, 24, 3, noise(24 * 24 * 3))}) {
    for (std::size_t i = 0; i < whole.size(); i += 3) {
      std::string bad = whole;
      bad[i] = static_cast<char>(bad[i] ^ 0xa5);
      write("p/x.png", bad);
      problem("images", {{"folder", "p"}});
      write("p/x.png", whole.substr(0, i));
      EXPECT_NE(problem("images", {{"folder", "p"}}), "") << i;
    }
  }
}

TEST_F(ImagesReader, WhatIsNoFileIsNoPicture) {
  fs::create_directories(folder_ / "p");
  ASSERT_EQ(::mkfifo((folder_ / "p" / "a.png").c_str(), 0600), 0);  // reading it would wait for a writer
  EXPECT_THAT(problem("images", {{"folder", "p"}}), HasSubstr("holds no .jpg"));
  write("p/b.png", png(1, 1, 1, "x"));
  EXPECT_EQ((*open("images", {{"folder", "p"}}))->size(), 1);
  EXPECT_THAT(problem("images", {{"folder", "p"}, {"labels", "p/a.png"}}), HasSubstr("is neither a file nor a folder"));
}

TEST_F(ImagesReader, ListsAreChecked) {
  write("p/a.png", png(1, 1, 1, "x"));
  const auto listed = [&](const std::string& csv) {
    write("l.csv", csv);
    return problem("images", {{"folder", "p"}, {"labels", "l.csv"}});
  };
  EXPECT_EQ(listed("label,file\n4,a.png\n"), "");
  EXPECT_THAT(listed(""), HasSubstr("lists no pictures"));
  EXPECT_THAT(listed("a.png,4\n"), HasSubstr("l.csv:1: the first line must name the columns"));
  EXPECT_THAT(listed("file,label\n"), HasSubstr("lists no pictures"));
  EXPECT_THAT(listed("file,label\na.png\n"), HasSubstr("l.csv:2: it has too few fields."));
  EXPECT_THAT(listed("file,label\na.png,cat\n"), HasSubstr("l.csv:2: the class 'cat' is no whole number"));
  EXPECT_THAT(listed("file,label\na.png,-1\n"), HasSubstr("l.csv:2: the class '-1'"));
  EXPECT_THAT(listed("file,label\na.png,99999999999\n"), HasSubstr("l.csv:2:"));
  EXPECT_THAT(listed("file,label\nb.png,1\n"), HasSubstr("There is no file"));
  EXPECT_THAT(problem("images", {{"folder", "nowhere"}}), HasSubstr("There is no folder"));
  fs::create_directory(folder_ / "none");
  EXPECT_THAT(problem("images", {{"folder", "none"}}), HasSubstr("holds no .jpg"));
}

}  // namespace
}  // namespace quanvas
