// The check of a TorchScript file before LibTorch sees it: archives made by hand, whole, damaged and hostile.
#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "core/plugin/registry.h"
#include "plugins/importers/torchscript_archive.h"

namespace quanvas::torchscript {
namespace {

namespace fs = std::filesystem;

struct Entry {
  std::string name, bytes;
  bool deflated = false;
  std::uint16_t flags = 0;
  std::string listed;      // name in the list of contents when it is another
  std::int64_t size = -1;  // said, when not the true one
};

void put(std::string& out, std::uint64_t v, int width) {
  for (int i = 0; i < width; ++i) out += static_cast<char>(v >> (8 * i));
}

std::string deflated(const std::string& bytes) {
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, bytes.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

void put_common(std::string& out, const Entry& e, const std::string& packed, const std::string& name) {
  put(out, 20, 2);
  put(out, e.flags, 2);
  put(out, e.deflated ? 8 : 0, 2);
  put(out, 0, 4);
  put(out, crc32(0, reinterpret_cast<const Bytef*>(e.bytes.data()), static_cast<uInt>(e.bytes.size())), 4);
  put(out, packed.size(), 4);
  put(out, e.size < 0 ? e.bytes.size() : static_cast<std::uint64_t>(e.size), 4);
  put(out, name.size(), 2);
}

std::string zip(const std::vector<Entry>& entries, bool is_long = false) {
  std::string out, list;
  for (const Entry& e : entries) {
    const std::string packed = e.deflated ? deflated(e.bytes) : e.bytes,
                      listed = e.listed.empty() ? e.name : e.listed;
    const std::size_t at = out.size();
    out += "PK\3\4";
    put_common(out, e, packed, e.name);
    put(out, 0, 2);
    out += e.name + packed;
    list += "PK\1\2";
    put(list, 20, 2);
    put_common(list, e, packed, listed);
    put(list, 0, 2 + 2 + 2 + 2);
    put(list, 0, 4);
    put(list, at, 4);
    list += listed;
  }
  const std::size_t at = out.size();
  out += list;
  if (is_long) {
    const std::size_t end = out.size();
    out += "PK\6\6";
    put(out, 44, 8);
    put(out, 45 | 45 << 16, 4);
    put(out, 0, 8);
    put(out, entries.size(), 8);
    put(out, entries.size(), 8);
    put(out, list.size(), 8);
    put(out, at, 8);
    out += "PK\6\7";
    put(out, 0, 4);
    put(out, end, 8);
    put(out, 1, 4);
  }
  out += "PK\5\6";
  put(out, 0, 4);
  put(out, is_long ? 0xffff : entries.size(), 2);
  put(out, is_long ? 0xffff : entries.size(), 2);
  put(out, is_long ? 0xffffffff : list.size(), 4);
  put(out, is_long ? 0xffffffff : at, 4);
  put(out, 0, 2);
  return out;
}

const std::string kCode = "class Net(Module):\n  def forward(self, x):\n    return ops.custom.double(x)\n";
std::vector<Entry> net() {
  return {{"net/data.pkl", "\x80\x02."},
          {"net/code/__torch__.py", kCode, true, 0, "", -1},
          {"net/data/0", std::string(400, '\1')},
          {"net/version", "3\n"}};
}

class ArchiveTest : public testing::Test {
 protected:
  ArchiveTest() {
    std::string pattern = (fs::temp_directory_path() / "quanvas-zip-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~ArchiveTest() override {
    std::error_code ec;
    fs::remove_all(folder_, ec);
  }
  std::string file(const std::string& bytes) const {
    const fs::path path = folder_ / "net.pt";
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }
  fs::path folder_;
};

TEST_F(ArchiveTest, SaysWhatTheFileHolds) {
  for (const bool is_long : {false, true}) {
    const auto a = read_archive(file(zip(net(), is_long)));
    ASSERT_TRUE(a) << a.error().text();
    EXPECT_EQ(a->root, "net");
    EXPECT_EQ(a->members.size(), 4u);
    EXPECT_EQ(a->code_files, std::vector<std::string>{"code/__torch__.py"});
    EXPECT_EQ(a->content(),
              "1 code file with 3 lines, 1 tensor of 400 bytes, archive format 3, operators that are not "
              "LibTorch's own (custom::double)");
    EXPECT_EQ(a->hash.size(), 32u);
  }
}

TEST_F(ArchiveTest, EveryPrefixIsRefused) {
  const std::string bytes = zip(net());
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const auto a = read_archive(file(bytes.substr(0, n)));
    ASSERT_FALSE(a) << n;
    EXPECT_EQ(a.error().code, ErrorCode::kCorrupt) << n << ": " << a.error().text();
    EXPECT_NE(a.error().message.find("net.pt'"), std::string::npos);
  }
}

TEST_F(ArchiveTest, AnyBytesGiveAnAnswer) {
  const std::string whole = zip(net(), true);
  std::mt19937_64 random(3);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bad = whole;
    for (int k = 0; k <= i % 4; ++k) bad[random() % bad.size()] = static_cast<char>(random());
    const auto a = read_archive(file(bad));
    refused += !a;
    EXPECT_TRUE(a || a.error().code != ErrorCode::kInternal);
  }
  EXPECT_GT(refused, 1000);
}

struct Bad {
  const char* what;
  std::string bytes;
  ErrorCode code;
  const char* sentence;
};

TEST_F(ArchiveTest, EachDamageHasItsSentence) {
  const auto with = [](Entry e) {
    auto all = net();
    all.push_back(std::move(e));
    return zip(all);
  };
  std::string changed = zip(net());
  changed[changed.find(std::string(400, '\1')) + 7] = '\2';
  const std::string legacy("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  auto no_code = net();
  no_code.erase(no_code.begin() + 1);
  auto no_data = net();
  no_data.erase(no_data.begin());
  const Bad rows[] = {
      {"empty", "", ErrorCode::kCorrupt, "it is empty"},
      {"text", "hello, this is no model", ErrorCode::kCorrupt, "does not begin as a ZIP archive"},
      {"legacy", legacy, ErrorCode::kUnsupported, "pickle of an old torch.save()"},
      {"pickle", "\x80\x04}q", ErrorCode::kUnsupported, "Python pickle"},
      {"checkpoint", zip(no_code), ErrorCode::kUnsupported, "is a checkpoint"},
      {"no data.pkl", zip(no_data), ErrorCode::kCorrupt, "no 'data.pkl'"},
      {"other archive", zip({{"a/b.txt", "hi"}}), ErrorCode::kUnsupported, "no TorchScript file"},
      {"archive of nothing", "PK\5\6" + std::string(18, '\0'), ErrorCode::kUnsupported, "empty archive"},
      {"changed tensor", changed, ErrorCode::kCorrupt, "check sum"},
      {"bomb", with({"net/bomb", std::string(20 << 20, '\0'), true}), ErrorCode::kCorrupt, "would become 21.0 MB"},
      {"absurd size", with({"net/x", "abc", true, 0, "", 0xfffffff0}), ErrorCode::kCorrupt, "would become"},
      {"two sizes", with({"net/x", "abc", false, 0, "", 4}), ErrorCode::kCorrupt, "two different sizes"},
      {"encrypted", with({"net/x", "abc", false, 1}), ErrorCode::kUnsupported, "encrypted"},
      {"leaves its folder", with({"net/../../x", "abc"}), ErrorCode::kCorrupt, "leaves its folder"},
      {"absolute", with({"/etc/x", "abc"}), ErrorCode::kCorrupt, "a file called '/etc/x'"},
      {"backslash", with({"net\\x", "abc"}), ErrorCode::kCorrupt, "a file called"},
      {"twice", with({"net/version", "3\n"}), ErrorCode::kCorrupt, "twice"},
      {"two names", with({"net/x", "abc", false, 0, "net/y"}), ErrorCode::kCorrupt, "both 'net/y' and 'net/x'"},
  };
  for (const Bad& row : rows) {
    const auto a = read_archive(file(row.bytes));
    ASSERT_FALSE(a) << row.what;
    EXPECT_EQ(a.error().code, row.code) << row.what;
    EXPECT_NE(a.error().message.find(row.sentence), std::string::npos) << row.what << ": " << a.error().text();
  }
  EXPECT_EQ(read_archive("/nowhere/net.pt").error().code, ErrorCode::kIo);
  EXPECT_EQ(read_archive(folder_.string()).error().code, ErrorCode::kInvalidArgument);
}

// The whole way: damaged archives and archives whose inside is no network, with trust.
TEST_F(ArchiveTest, TheImporterNeverCrashes) {
  ImportOptions trust;
  trust.trusted = kTrustAny;
  JobContext job;
  auto wrong_code = net();
  wrong_code[1].bytes = "class Net(Module):\n  def forward(self, x:\n";
  const struct {
    std::string bytes;
    const char* sentence;
  } rows[] = {{zip(net()), "custom::double"},
              {zip(wrong_code), "net.pt'"},
              {zip({{"net/data.pkl", "garbage"}, {"net/code/a.py", "x"}, {"net/version", "3\n"}}), "net.pt'"}};
  for (const auto& row : rows) {
    const auto imported = import_file(file(row.bytes), trust, job);
    ASSERT_FALSE(imported);
    EXPECT_NE(imported.error().code, ErrorCode::kInternal) << imported.error().text();
    EXPECT_NE(imported.error().text().find(row.sentence), std::string::npos) << imported.error().text();
  }
}

// LibTorch 1.13 takes elements off an empty stack there and ends by a signal; it reads files in another process first.
TEST_F(ArchiveTest, WhatCrashesLibTorchIsASentence) {
  ImportOptions trust;
  trust.trusted = kTrustAny;
  JobContext job;
  for (const char* pickle : {"\x80\x02\x85.", "\x80\x02R.", "\x80\x02" "b.", "\x80\x02Q."}) {
    const std::string code = "class Net(Module):\n  def forward(self: __torch__.Net,\n    x: Tensor) -> Tensor:\n    return x\n";
    const auto imported = import_file(file(zip({{"net/data.pkl", pickle}, {"net/code/__torch__.py", code}, {"net/constants.pkl", "\x80\x02)."}, {"net/version", "3\n"}})), trust, job);
    ASSERT_FALSE(imported);
    EXPECT_EQ(imported.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(imported.error().message.find("net.pt' is not a whole TorchScript file: "), std::string::npos) << imported.error().text();
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they turn the signal into an exit code
    EXPECT_NE(imported.error().message.find("LibTorch crashes when it reads it (signal"), std::string::npos) << imported.error().text();
#endif
  }
}

}  // namespace
}  // namespace quanvas::torchscript
