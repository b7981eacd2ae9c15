// GGUF files that are not what they should be: tampered, damaged, hostile; and writes that fail.
#include <cstring>
#include <ctime>
#include <random>

#include "tests/plugins/export_gguf_net.h"

namespace quanvas {
namespace {

using namespace gguf_net;

class GgufDamageTest : public GgufTest {
 protected:
  void overwrite(const std::string& bytes, const std::string& name = "out.gguf") const {
    std::ofstream(path(name), std::ios::binary) << bytes;
  }
  std::string bytes() const { return *read_file(path()); }
};

// The audit is worth something only if it sees every one of these.
TEST_F(GgufDamageTest, AuditSeesEveryTampering) {
  for (const char* id : {"gguf-q8_0", "gguf-q4_1", "gguf-q4_k", "gguf-q3_k", "gguf-tq1_0", "gguf-mxfp4", "gguf-iq4_nl"}) {
    SCOPED_TRACE(id);
    const QuantizedModel model = quantize(network(256, 256), preset(id));
    ASSERT_NO_FATAL_FAILURE(write(model));
    ASSERT_TRUE(all_equal(audit(model)));
    const std::string good = bytes();
    const gguf_in::File f = file();
    const gguf_in::TypeInfo& type = *gguf_in::type_info(f.find("up")->type);
    // Each byte of one block carries something: a scale, an offset or codes.
    const std::uint64_t block = f.find("up")->offset + 5 * type.bytes;
    for (std::uint64_t i = 0; i < type.bytes; ++i) {
      std::string bad = good;
      bad[static_cast<std::size_t>(block + i)] ^= 0x10;
      overwrite(bad);
      ASSERT_FALSE(all_equal(audit(model))) << "byte " << i << " of a block";
    }
    std::string bad = good;
    bad[static_cast<std::size_t>(f.find("up.bias")->offset)] ^= 1;
    overwrite(bad);
    EXPECT_FALSE(all_equal(audit(model))) << "a float";
    const auto replaced = [&](const std::string& from, const std::string& to) {
      std::string text = good;
      const auto at = text.find(from);
      EXPECT_NE(at, std::string::npos) << from;
      text.replace(at, from.size(), to);
      overwrite(text);
      const auto rows = exporter().audit(model, path(), options());
      return !rows || !all_equal(*rows);
    };
    EXPECT_TRUE(replaced("\"order\":[1,0]", "\"order\":[0,1]")) << "how a tensor lies";
    EXPECT_TRUE(replaced("\"tensor\":\"down\"", "\"tensor\":\"dawn\"")) << "which tensor it is";
    EXPECT_TRUE(replaced("quanvas.tensors", "quanvas.tensorz")) << "the list";
  }
}

TEST_F(GgufDamageTest, TheWrongTypeOrAFloatInsteadIsSeen) {
  const ModelPtr net = network();
  const QuantizedModel model = quantize(net, preset("gguf-q4_0"), {"up", "down"});
  ASSERT_NO_FATAL_FAILURE(write(quantize(net, preset("gguf-q5_0"), {"up", "down"})));
  auto rows = audit(model);
  for (const AuditRow& r : rows) EXPECT_FALSE(r.equal) << r.layer;
  ASSERT_NO_FATAL_FAILURE(write(quantize(net, preset("gguf-q4_0"), {"up"})));
  rows = audit(model);
  ASSERT_EQ(rows.size(), 2u);
  for (const AuditRow& r : rows) EXPECT_EQ(r.equal, r.layer == "up");
  // A quantizer that nobody asked for.
  ASSERT_NO_FATAL_FAILURE(write(quantize(net, preset("gguf-q4_0"))));
  rows = audit(model);
  EXPECT_EQ(rows.size(), 4u);
  EXPECT_FALSE(all_equal(rows)) << text_of(rows);
}

TEST_F(GgufDamageTest, FailedWriteLeavesTheOldFile) {
  const QuantizedModel model = quantize(network(), preset("gguf-q4_0"));
  JobContext job;
  const Status nowhere = exporter().write(model, path("no/such/folder/out.gguf"), options(), job);
  ASSERT_FALSE(nowhere);
  EXPECT_NE(nowhere.error().message.find("out.gguf"), std::string::npos) << nowhere.error().text();
  overwrite("old");
  std::stop_source stop;
  stop.request_stop();
  JobContext stopped(stop.get_token());
  const Status cancelled = exporter().write(model, path(), options(), stopped);
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(bytes(), "old");
  // A disk that is full: the temporary file is a link to one that takes nothing.
  const std::string temporary = path() + ".tmp-" + std::to_string(getpid());
  std::filesystem::create_symlink("/dev/full", temporary);
  const Status full = exporter().write(model, path(), options(), job);
  std::filesystem::remove(temporary);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kIo);
  EXPECT_EQ(bytes(), "old");
}

TEST_F(GgufDamageTest, DamagedFilesAreErrorsNotCrashes) {
  const QuantizedModel model = quantize(network(32, 64), preset("gguf-q4_0"));
  ASSERT_NO_FATAL_FAILURE(write(model));
  const std::string good = bytes();
  JobContext job;
  for (std::size_t keep = 0; keep < good.size(); keep += 1 + good.size() / 200) {
    overwrite(good.substr(0, keep));
    const auto rows = exporter().audit(model, path(), options());
    EXPECT_FALSE(rows && all_equal(*rows)) << keep << " of " << good.size() << " bytes";
    EXPECT_FALSE(import_model(path(), job)) << keep;
  }
  std::mt19937 generator(7);
  for (int i = 0; i < 400; ++i) {
    std::string bad = good;
    const std::size_t range = i % 2 ? bad.size() : std::min<std::size_t>(bad.size(), 6000);
    for (int k = 0; k < 4; ++k) bad[generator() % range] = static_cast<char>(generator());
    overwrite(bad);
    (void)exporter().audit(model, path(), options());
    (void)exporter().read(model, path(), options(), job);
    (void)import_model(path(), job);
  }
  EXPECT_FALSE(exporter().audit(model, path("missing.gguf"), options()));
}

// Files by hand.
struct Bytes {
  std::string out = "GGUF";
  template <class T>
  Bytes& number(T v) {
    out.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Bytes& u32(std::uint32_t v) { return number(v); }
  Bytes& u64(std::uint64_t v) { return number(v); }
  Bytes& text(const std::string& s) {
    u64(s.size());
    out += s;
    return *this;
  }
  Bytes& header(std::uint64_t tensors, std::uint64_t keys) { return u32(3).u64(tensors).u64(keys); }
  Bytes& tensor(const std::string& name, std::vector<std::uint64_t> dims, std::uint32_t type, std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t d : dims) u64(d);
    return u32(type).u64(offset);
  }
  Bytes& zeros(std::size_t n) {
    out.append(n, '\0');
    return *this;
  }
};

TEST_F(GgufDamageTest, HostileHeadersAreRefused) {
  constexpr std::uint64_t kHuge = std::uint64_t{1} << 63;
  const std::pair<const char*, Bytes> cases[] = {
      {"no magic",
       [] {
         Bytes b;
         b.out = "GGML";
         return b.header(0, 0);
       }()},
      {"version 1", Bytes().u32(1).u64(0).u64(0)},
      {"version 9", Bytes().u32(9).u64(0).u64(0)},
      {"big endian", Bytes().u32(0x03000000).u64(0).u64(0)},
      {"2^63 tensors", Bytes().header(kHuge, 0)},
      {"2^64 - 1 keys", Bytes().header(0, ~std::uint64_t{0})},
      {"a key of 2^63 bytes", Bytes().header(0, 1).u64(kHuge).zeros(64)},
      {"a text of 2^63 bytes", Bytes().header(0, 1).text("k").u32(8).u64(kHuge).zeros(64)},
      {"2^62 numbers", Bytes().header(0, 1).text("k").u32(9).u32(6).u64(kHuge / 2).zeros(64)},
      {"2^61 + 1 doubles, whose bytes overflow",
       Bytes().header(0, 1).text("k").u32(9).u32(12).u64((std::uint64_t{1} << 61) + 1).zeros(64)},
      {"2^60 texts", Bytes().header(0, 1).text("k").u32(9).u32(8).u64(kHuge / 8).zeros(64)},
      {"arrays in arrays", Bytes().header(0, 1).text("k").u32(9).u32(9).u64(1).zeros(64)},
      {"a value of type 13", Bytes().header(0, 1).text("k").u32(13).zeros(64)},
      {"a key twice", Bytes().header(0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1)},
      {"five dimensions", Bytes().header(1, 0).tensor("t", {1, 1, 1, 1, 1}, 0, 0).zeros(64)},
      {"2^31 dimensions", Bytes().header(1, 0).text("t").u32(0x80000000).zeros(64)},
      {"elements that overflow", Bytes().header(1, 0).tensor("t", {kHuge / 2, 8}, 0, 0).zeros(64)},
      {"bytes that overflow", Bytes().header(1, 0).tensor("t", {std::uint64_t{1} << 62}, 0, 0).zeros(64)},
      {"an empty dimension", Bytes().header(1, 0).tensor("t", {0, 4}, 0, 0).zeros(64)},
      {"a row that is no multiple of the block", Bytes().header(1, 0).tensor("t", {33}, 2, 0).zeros(64)},
      {"an unknown type", Bytes().header(1, 0).tensor("t", {4}, 99, 0).zeros(64)},
      {"a tensor twice", Bytes().header(2, 0).tensor("t", {1}, 0, 0).tensor("t", {1}, 0, 32).zeros(128)},
      {"an offset that is not aligned", Bytes().header(1, 0).tensor("t", {1}, 0, 4).zeros(128)},
      {"an offset beyond the end", Bytes().header(1, 0).tensor("t", {1}, 0, kHuge).zeros(128)},
      {"a tensor beyond the end", Bytes().header(1, 0).tensor("t", {1000}, 0, 0).zeros(128)},
      {"alignment 0", Bytes().header(1, 1).text("general.alignment").u32(4).u32(0).tensor("t", {1}, 0, 0).zeros(64)},
      {"alignment 3", Bytes().header(1, 1).text("general.alignment").u32(4).u32(3).tensor("t", {1}, 0, 0).zeros(64)},
      {"alignment as a text",
       Bytes().header(1, 1).text("general.alignment").u32(8).text("32").tensor("t", {1}, 0, 0).zeros(64)},
  };
  JobContext job;
  for (const auto& [name, b] : cases) {
    SCOPED_TRACE(name);
    overwrite(b.out);
    const auto read = gguf_in::read(path());
    ASSERT_FALSE(read);
    EXPECT_TRUE(read.error().code == ErrorCode::kCorrupt || read.error().code == ErrorCode::kUnsupported);
    EXPECT_NE(read.error().message.find("out.gguf"), std::string::npos) << read.error().text();
    EXPECT_FALSE(import_model(path(), job));
  }
}

TEST_F(GgufDamageTest, HostileListsAndGraphsAreRefused) {
  const auto with = [](const std::string& tensors, const std::string& graph) {
    Bytes b;
    b.header(1, 3).text("quanvas.tensors").u32(8).text(tensors).text("quanvas.graph").u32(8).text(graph);
    b.text("quanvas.constant.0").u32(9).u32(0).u64(8).zeros(8);
    b.tensor("t", {4, 2}, 0, 0);
    while (b.out.size() % 32 != 0) b.zeros(1);
    return b.zeros(32).out;
  };
  GraphBuilder g;
  g.tensor("x", DataType::kFloat, Shape{2, 4});
  g.input("x");
  g.initializer("w", DataType::kFloat, {2, 4});
  g.node("add", "Add", {"x", "w"}, {"y"});
  g.tensor("y", DataType::kFloat, Shape{2, 4});
  g.output("y");
  const std::string graph = graph_to_json(**g.build()).dump();
  const std::string good = R"([{"tensor":"w","shape":[2,4],"type":1,"file":"t","order":[0,1]}])";
  JobContext job;
  overwrite(with(good, graph));
  const auto opened = import_model(path(), job);
  ASSERT_TRUE(opened) << opened.error().text();
  const std::pair<const char*, std::string> lists[] = {
      {"no JSON", "{"},
      {"no list", "{}"},
      {"no map", "[1]"},
      {"an unknown field", R"([{"tensor":"w","size":1}])"},
      {"nothing in it", "[]"},
      {"no name", R"([{"shape":[2,4],"type":1,"file":"t","order":[0,1]}])"},
      {"twice", good.substr(0, good.size() - 1) + "," + good.substr(1)},
      {"neither place", R"([{"tensor":"w","shape":[2,4],"type":1,"order":[0,1]}])"},
      {"no such tensor", R"([{"tensor":"w","shape":[2,4],"type":1,"file":"u","order":[0,1]}])"},
      {"no such initializer", R"([{"tensor":"v","shape":[2,4],"type":1,"file":"t","order":[0,1]}])"},
      {"another size", R"([{"tensor":"w","shape":[2,5],"type":1,"file":"t","order":[0,1]}])"},
      {"a negative size", R"([{"tensor":"w","shape":[-2,-4],"type":1,"file":"t","order":[0,1]}])"},
      {"sizes that overflow", R"([{"tensor":"w","shape":[4294967296,4294967296,4],"type":1,"file":"t","order":[0,1,2]}])"},
      {"another shape", R"([{"tensor":"w","shape":[4,2],"type":1,"file":"t","order":[0,1]}])"},
      {"another type", R"([{"tensor":"w","shape":[2,4],"type":7,"file":"t","order":[0,1]}])"},
      {"a vector", R"([{"tensor":"w","shape":[8],"type":1,"file":"t","order":[0]}])"},
      {"no order", R"([{"tensor":"w","shape":[2,4],"type":1,"file":"t"}])"},
      {"an axis twice", R"([{"tensor":"w","shape":[2,4],"type":1,"file":"t","order":[1,1]}])"},
      {"an axis too many", R"([{"tensor":"w","shape":[2,4],"type":1,"file":"t","order":[0,2]}])"},
      {"heads that do not divide", R"([{"tensor":"w","shape":[2,4],"type":1,"file":"t","order":[0,1],"heads":3}])"},
      {"negative heads", R"([{"tensor":"w","shape":[2,4],"type":1,"file":"t","order":[0,1],"heads":-1}])"},
      {"a missing key", R"([{"tensor":"w","shape":[2,4],"type":1,"key":"quanvas.constant.9"}])"},
      {"a key of another size", R"([{"tensor":"w","shape":[2,4],"type":1,"key":"quanvas.constant.0"}])"},
      {"a key that is no array", R"([{"tensor":"w","shape":[2,4],"type":1,"key":"quanvas.graph"}])"},
      {"an element type that is none", R"([{"tensor":"w","shape":[2,4],"type":77,"key":"quanvas.constant.0"}])"},
  };
  for (const auto& [name, list] : lists) {
    SCOPED_TRACE(name);
    overwrite(with(list, graph));
    const auto failed = import_model(path(), job);
    ASSERT_FALSE(failed);
    EXPECT_FALSE(failed.error().message.empty());
  }
  for (const std::string& bad : {std::string("{"), std::string("[]"), std::string("{\"nodes\":3}"), std::string(200000, '[')}) {
    overwrite(with(good, bad));
    EXPECT_FALSE(import_model(path(), job));
  }
}

// Two initializers in one tensor of the file: its bytes would be decoded as often as a small file names them.
TEST_F(GgufDamageTest, ATensorOfTheFileIsThatOfOneInitializer) {
  GraphBuilder g;
  g.tensor("x", DataType::kFloat, Shape{2, 4});
  g.input("x");
  std::string from = "x", list = "[";
  for (const char* w : {"v", "w"}) {
    g.initializer(w, DataType::kFloat, {2, 4});
    g.node(std::string("add ") + w, "Add", {from, w}, {std::string("sum ") + w});
    from = std::string("sum ") + w;
    g.tensor(from, DataType::kFloat, Shape{2, 4});
    list += std::string(R"({"tensor":")") + w + R"(","shape":[2,4],"type":1,"file":"t","order":[0,1]},)";
  }
  g.output(from);
  list.back() = ']';
  Bytes b;
  b.header(1, 2).text("quanvas.tensors").u32(8).text(list);
  b.text("quanvas.graph").u32(8).text(graph_to_json(**g.build()).dump());
  b.tensor("t", {4, 2}, 0, 0);
  while (b.out.size() % 32 != 0) b.zeros(1);
  overwrite(b.zeros(32).out);
  JobContext job;
  const auto opened = import_model(path(), job);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kCorrupt);
}

// The tables of the rotary embedding are as wide as the file says that a head is: first its tensors must be.
TEST_F(GgufDamageTest, HeadsThatAreNotThereTakeNoMemory) {
  Bytes b;
  b.header(1, 6).text("general.architecture").u32(8).text("llama");
  const std::pair<const char*, std::uint32_t> sizes[] = {{"embedding_length", 4},
                                                         {"block_count", 1},
                                                         {"feed_forward_length", 4},
                                                         {"attention.head_count", 1},
                                                         {"attention.key_length", 1 << 24}};
  for (const auto& [key, value] : sizes) b.text(std::string("llama.") + key).u32(4).u32(value);
  b.tensor("token_embd.weight", {4, 2}, 0, 0);
  while (b.out.size() % 32 != 0) b.zeros(1);
  overwrite(b.zeros(32).out);
  JobContext job;
  const std::clock_t start = std::clock();
  const auto opened = import_model(path(), job);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("attn_q"), std::string::npos) << opened.error().message;
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 0.2);
}

// Vocabularies that llama.cpp ships: files without a network.
TEST_F(GgufDamageTest, FilesOfOthersAreReadAndRefusedForLackOfAGraph) {
  const std::filesystem::path shared = std::filesystem::path(QUANVAS_SHARED_DIR) / "models" / "gguf";
  if (!std::filesystem::is_directory(shared)) GTEST_SKIP() << "no shared models";
  JobContext job;
  for (const char* name : {"ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf"}) {
    const auto read = gguf_in::read((shared / name).string());
    ASSERT_TRUE(read) << read.error().text();
    EXPECT_GT(std::get<gguf_in::Array>(read->values.at("tokenizer.ggml.tokens")).texts.size(), 1000u);
    const auto opened = import_model((shared / name).string(), job);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported) << opened.error().text();
  }
}

}  // namespace
}  // namespace quanvas
