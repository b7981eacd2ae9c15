// Codes, scales and zero points as safetensors and NumPy archives: exactness, opening again, hostile files.
#include <random>

#include "plugins/exporters/dump.h"
#include "plugins/importers/npz_file.h"
#include "tests/fuzz/stored_zip.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
using export_net::small_net;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class DumpTest : public WeightFileTest {
 protected:
  static std::string file_name(const std::string& target) { return "out." + target; }
};

struct Format {
  std::string name;
  QuantizedModel model;
};

std::vector<Format> formats() {
  std::vector<Format> out;
  const ModelPtr net = small_net(), linear = linear_net::net();
  for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24}) {
    const auto n = std::to_string(bits);
    out.push_back({"signed " + n, export_net::quantize(net, {spec(bits, true, false, kNone, kChannel),
                                                             spec(8, false, false, kInteger, kTensor), true})});
    out.push_back({"unsigned groups " + n, linear_net::quantize(linear, ints(bits, false, kGroup, 24))});
    out.push_back({"unsigned " + n, linear_net::quantize(linear, ints(bits, false, kChannel))});
  }
  out.push_back({"signed, zero points", linear_net::quantize(linear, [] {
                   QuantSpec s = ints(4, false, kChannel);
                   s.is_signed = true;
                   return s;
                 }())});
  out.push_back(
      {"narrow", export_net::quantize(net, {spec(4, true, true, kNone, kTensor), spec(4, true, true, kNone, kTensor)})});
  QuantSpec fraction = ints(4, false, kGroup);
  fraction.zero_point = ZeroPointType::kFloat;
  fraction.zero_point_inside = true;
  out.push_back({"zero points that are fractions", linear_net::quantize(linear, fraction)});
  fraction.zero_point = ZeroPointType::kOffset;
  fraction.zero_point_inside = false;
  out.push_back({"offsets", linear_net::quantize(linear, fraction)});
  for (const char* format : {"ternary", "binary", "nf4"}) {
    QuantSpec s;
    s.format = format;
    s.granularity = kChannel;
    out.push_back({format, linear_net::quantize(linear, s)});
  }
  out.push_back({"e4m3", linear_net::quantize(linear, minifloat(4, 3, FloatSpecials::kNan, kChannel))});
  out.push_back({"e5m2", linear_net::quantize(linear, minifloat(5, 2, FloatSpecials::kIeee, kTensor))});
  out.push_back({"e4m3fnuz", linear_net::quantize(linear, minifloat(4, 3, FloatSpecials::kFnuz, kGroup))});
  out.push_back({"e2m1", linear_net::quantize(linear, minifloat(2, 1, FloatSpecials::kNone, kGroup))});
  out.push_back({"e3m2", linear_net::quantize(linear, minifloat(3, 2, FloatSpecials::kNone, kChannel))});
  QuantSpec row = ints(8, true, Granularity::kRow);
  row.source = ScaleSource::kDynamic;
  out.push_back({"dynamic inputs", linear_net::quantize(linear, ints(8, true, kChannel), row)});
  return out;
}

TEST_F(DumpTest, EveryFormatIsExactAndOpensAgain) {
  for (const Format& f : formats())
    for (const char* target : {"safetensors", "npz", "c-header"})
      for (const char* packing : {"none", "dense"}) {
        SCOPED_TRACE(f.name + ", " + target + ", " + packing);
        const json given = {{"packing", packing}};
        const std::string name = file_name(target);
        ASSERT_NO_FATAL_FAILURE(write(target, f.model, given, name));
        const auto rows = audit(target, f.model, given, name);
        EXPECT_EQ(rows.size(), f.model.quantizers.size());
        ASSERT_TRUE(all_equal(rows)) << text_of(rows);
        // Codes of 24 bits, dequantized to float32 and quantized again, are not always the same.
        if (target != std::string("c-header") && f.name.find("24") == std::string::npos) {
          ASSERT_NO_FATAL_FAILURE(expect_reopens(f.model, name));
        }
        JobContext job;
        const auto back = exporter(target).read(f.model, path(name), options(target, given), job);
        ASSERT_TRUE(back) << back.error().text();
        for (const PlacedQuantizer& q : place(f.model).quantizers) {
          if (is_activation(q.site.kind)) {
            EXPECT_EQ(back->quantizers.at(q.site).scale, q.params->scale);
            continue;
          }
          const auto stored = stored_tensor(f.model, q);
          ASSERT_TRUE(stored);
          EXPECT_EQ(back->model->weights->find(back->model->graph->tensor(q.tensor).name)->to_floats(), stored->values);
        }
      }
}

TEST_F(DumpTest, TensorsHaveTheNarrowestTypeAndTheModelsShape) {
  struct Case {
    int bits;
    bool is_signed;
    DataType type;
  };
  for (const Case c : {Case{4, true, DataType::kInt8}, Case{8, true, DataType::kInt8}, Case{7, false, DataType::kInt8},
                       Case{8, false, DataType::kUint8}, Case{9, true, DataType::kInt16}, Case{15, false, DataType::kInt16},
                       Case{16, false, DataType::kInt32}, Case{17, true, DataType::kInt32}}) {
    SCOPED_TRACE(c.bits);
    ASSERT_NO_FATAL_FAILURE(write("safetensors", linear_net::quantize(net(), ints(c.bits, c.is_signed, kGroup))));
    const auto file = safetensors::File::open(path());
    ASSERT_TRUE(file);
    EXPECT_EQ((*file)->tensor("model.up.weight.codes")->type, c.type);
    EXPECT_EQ((*file)->tensor("model.up.weight.codes")->shape, (Shape{64, 96}));
    EXPECT_EQ((*file)->tensor("model.up.weight.scale")->shape, (Shape{2 * 96}));
    EXPECT_EQ((*file)->tensor("model.norm.weight")->type, DataType::kFloat);
    EXPECT_EQ((*file)->tensor("model.up.weight.zero_point").has_value(), !c.is_signed);
  }
}

TEST_F(DumpTest, DenseCodesLieAsBitsTheLowestFirst) {
  // 0 1 2 3 4 5 6 7 in 3 bits: 88 c6 fa.
  const QuantizedModel model = with_codes(1, 9, ints(3, false, kChannel), false, {0, 1, 2, 3, 4, 5, 6, 7, 5}, {4});
  ASSERT_NO_FATAL_FAILURE(write("safetensors", model, {{"packing", "dense"}}));
  EXPECT_EQ(values<std::uint8_t>("fc.weight.codes"), (std::vector<std::uint8_t>{0x88, 0xc6, 0xfa, 5}));
  EXPECT_EQ(values<std::int32_t>("fc.weight.zero_point"), (std::vector<std::int32_t>{4}));
}

TEST_F(DumpTest, HeadersAreAlignedAndDataHasNoGaps) {
  ASSERT_NO_FATAL_FAILURE(write("safetensors", linear_net::quantize(net(), ints(4, false, kGroup))));
  const std::string bytes = *read_file(path());
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_EQ(bytes[8], '{');
  const json header = json::parse(bytes.substr(8, length));
  EXPECT_EQ(header["__metadata__"]["format"], "pt");
  std::uint64_t end = 0;
  std::map<std::uint64_t, std::pair<std::uint64_t, std::size_t>> spans;
  for (const auto& [name, t] : header.items()) {
    if (name == "__metadata__") continue;
    const std::size_t width = element_size(safetensors::type_of(t["dtype"]));
    const std::uint64_t begin = t["data_offsets"][0];
    EXPECT_EQ(begin % width, 0u) << name;
    spans[begin] = {t["data_offsets"][1], width};
  }
  for (const auto& [begin, span] : spans) {
    EXPECT_EQ(begin, end);
    end = span.first;
  }
  EXPECT_EQ(8 + length + end, bytes.size());
}

TEST_F(DumpTest, FilesWithoutAGraphSayThatTheyHoldWeightsAlone) {
  const QuantizedModel model = linear_net::quantize(net(), ints(4, true, kChannel));
  JobContext job;
  for (const char* target : {"safetensors", "npz"}) {
    SCOPED_TRACE(target);
    const std::string name = file_name(target);
    ASSERT_NO_FATAL_FAILURE(write(target, model, {{"graph", false}}, name));
    EXPECT_TRUE(all_equal(audit(target, model, {{"graph", false}}, name)));
    const auto opened = import_file(path(name), {}, job);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(opened.error().message.find("alone"), std::string::npos) << opened.error().text();
  }
  // Of others' making.
  overwrite(std::string("\x40\0\0\0\0\0\0\0", 8) + R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}          )" +
            std::string("\0\0\x80\x3f", 4));
  const auto foreign = import_file(path(), {}, job);
  ASSERT_FALSE(foreign);
  EXPECT_EQ(foreign.error().code, ErrorCode::kUnsupported) << foreign.error().text();
}

TEST_F(DumpTest, WhatAnInt32CannotHoldIsRefused) {
  QuantizedModel model = linear_net::quantize(net(), ints(32, false, kTensor));
  EXPECT_EQ(rules(exporter("safetensors").check(model, options("safetensors", {}))), (std::set<std::string>{"bit width"}));
  model = linear_net::quantize(net(), ints(8, true, kTensor));
  model.quantizers.begin()->second.scale[0] = INFINITY;
  for (const char* target : {"safetensors", "npz", "c-header"})
    EXPECT_EQ(rules(exporter(target).check(model, options(target, {}))), (std::set<std::string>{"scale"}));
  model.quantizers.begin()->second.scale[0] = -0.5f;
  EXPECT_TRUE(exporter("npz").check(model, options("npz", {})).empty());
}

TEST_F(DumpTest, TamperedFilesAreNotEqual) {
  const QuantizedModel model = export_net::quantize(
      small_net(), {spec(4, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true});
  ASSERT_NO_FATAL_FAILURE(write("safetensors", model));
  const std::string good = *read_file(path());
  const auto file = safetensors::File::open(path());
  ASSERT_TRUE(file);
  std::uint64_t header = 0;
  std::memcpy(&header, good.data(), 8);
  for (const auto& [name, entry] : (*file)->tensors()) {
    std::string bad = good;
    bad[8 + header + entry.begin] ^= 1;
    overwrite(bad);
    const auto rows = exporter("safetensors").audit(model, path(), options("safetensors", {}));
    EXPECT_TRUE(!rows || !all_equal(*rows)) << name;
  }
  // The quantizers of activations stand in the header.
  for (const char* what : {"\\\"scale\\\":[", "\\\"zero_point\\\":["}) {
    std::string bad = good;
    std::size_t at = bad.find("\\\"kind\\\":\\\"input\\\"");
    ASSERT_NE(at, std::string::npos);
    at = bad.find(what, at);
    ASSERT_NE(at, std::string::npos) << what;
    at += std::string(what).size();
    while (!std::isdigit(static_cast<unsigned char>(bad[at]))) ++at;
    bad[at] = bad[at] == '1' ? '2' : '1';
    overwrite(bad);
    const auto rows = exporter("safetensors").audit(model, path(), options("safetensors", {}));
    EXPECT_TRUE(!rows || !all_equal(*rows)) << what;
  }
  ASSERT_NO_FATAL_FAILURE(write("npz", model, {}, "out.npz"));
  const std::string archive = *read_file(path("out.npz"));
  for (std::size_t at = 200; at < archive.size() / 2; at += 997) {
    std::string bad = archive;
    bad[at] ^= 4;
    overwrite(bad, "out.npz");
    const auto rows = exporter("npz").audit(model, path("out.npz"), options("npz", {}));
    EXPECT_TRUE(!rows || !all_equal(*rows)) << at;
  }
}

// --- hostile files ---

std::string with_header(const std::string& header, const std::string& data = {}) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return out + header + data;
}

TEST_F(DumpTest, HostileHeadersAreRefusedWithAReason) {
  const auto tensor = [](const std::string& body) { return with_header("{\"w\":" + body + "}", std::string(8, 'x')); };
  std::string deep = "{\"w\":";
  for (int i = 0; i < 5000; ++i) deep += "[";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"empty", ""},
      {"7 bytes", "1234567"},
      {"length 2^63", std::string("\0\0\0\0\0\0\0\x80{}", 10)},
      {"length 2^64 - 1", std::string(8, '\xff') + "{}"},
      {"length beyond the end", std::string("\x20\0\0\0\0\0\0\0{}", 10)},
      {"no JSON", with_header("{\"w\": ")},
      {"a list", with_header("[]")},
      {"deep", with_header(deep)},
      {"a name twice",
       with_header(
           R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
           "abcd")},
      {"a key twice", with_header(R"({"w":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}})", "abcd")},
      {"overlapping",
       with_header(
           R"({"v":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
           "12345678")},
      {"a gap",
       with_header(
           R"({"v":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
           "12345678")},
      {"bytes behind", tensor(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})")},
      {"beyond the end", tensor(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})")},
      {"backwards", tensor(R"({"dtype":"U8","shape":[0],"data_offsets":[4,0]})")},
      {"offsets near 2^64",
       tensor(R"({"dtype":"U8","shape":[8],"data_offsets":[18446744073709551608,18446744073709551615]})")},
      {"wrong type for the size", tensor(R"({"dtype":"F32","shape":[8],"data_offsets":[0,8]})")},
      {"unknown type", tensor(R"({"dtype":"F99","shape":[8],"data_offsets":[0,8]})")},
      {"type that is no text", tensor(R"({"dtype":7,"shape":[8],"data_offsets":[0,8]})")},
      {"negative dimension", tensor(R"({"dtype":"U8","shape":[-8],"data_offsets":[0,8]})")},
      {"shape that overflows", tensor(R"({"dtype":"U8","shape":[4294967296,4294967296,8],"data_offsets":[0,8]})")},
      {"fraction as dimension", tensor(R"({"dtype":"U8","shape":[8.5],"data_offsets":[0,8]})")},
      {"three offsets", tensor(R"({"dtype":"U8","shape":[8],"data_offsets":[0,4,8]})")},
      {"no offsets", tensor(R"({"dtype":"U8","shape":[8]})")},
      {"metadata that is no text", with_header(R"({"__metadata__":{"quanvas.graph":{}}})")},
  };
  JobContext job;
  const QuantizedModel model = linear_net::quantize(net(), ints(4, true, kChannel));
  for (const auto& [name, bytes] : cases) {
    SCOPED_TRACE(name);
    overwrite(bytes);
    const auto file = safetensors::File::open(path());
    ASSERT_FALSE(file);
    EXPECT_NE(file.error().message.find("out.safetensors"), std::string::npos) << file.error().text();
    EXPECT_FALSE(import_file(path(), {}, job));
    for (const char* target : {"safetensors", "gptq", "awq", "compressed-tensors"})
      EXPECT_FALSE(exporter(target).audit(model, path(), options(target, {{"graph", true}})));
  }
  // An empty one is legal, and is refused for what it lacks.
  overwrite(with_header("{}"));
  EXPECT_TRUE(safetensors::File::open(path()));
  EXPECT_FALSE(import_file(path(), {}, job));
}

TEST_F(DumpTest, DescriptionsThatDoNotFitTheTensorsAreRefused) {
  const QuantizedModel model = linear_net::quantize(net(), half(ints(4, false, kGroup, 16)), {});
  JobContext job;
  const std::vector<std::pair<std::string, std::string>> lies = {
      {"\\\"bits\\\":4", "\\\"bits\\\":5"},
      {"\\\"form\\\":\\\"awq\\\"", "\\\"form\\\":\\\"gpt\\\""},
      {"\\\"group_size\\\":16", "\\\"group_size\\\":17"},
      {"\\\"shape\\\":[64,96]", "\\\"shape\\\":[64,97]"},
      {"\\\"shape\\\":[64,96]", "\\\"shape\\\":[-4,96]"},
      {"\\\"tensor\\\":\\\"model.up\\\"", "\\\"tensor\\\":\\\"model.no\\\""},
      {"\\\"version\\\":1", "\\\"version\\\":9"},
      {"\\\"initializer\\\":\\\"model.up.weight\\\"", "\\\"initializer\\\":\\\"model.xx.weight\\\""},
  };
  for (const char* packing : {"awq"}) {
    ASSERT_NO_FATAL_FAILURE(write(packing, model));
    const std::string good = *read_file(path());
    for (const auto& [what, lie] : lies) {
      SCOPED_TRACE(what + " -> " + lie);
      std::string bad = good;
      const std::size_t at = bad.find(what);
      ASSERT_NE(at, std::string::npos);
      bad.replace(at, what.size(), lie);
      ASSERT_EQ(bad.size(), good.size());
      overwrite(bad);
      const auto opened = import_file(path(), {}, job);
      EXPECT_FALSE(opened);
    }
  }
}

// x + v + w of a description by hand: what it may not say, however well the tensors fit.
TEST_F(DumpTest, DescriptionsThatSayTooMuchAreRefused) {
  GraphBuilder g;
  g.tensor("x", DataType::kFloat, Shape{2, 2});
  g.input("x");
  std::string sum = "x";
  for (const char* w : {"v", "w"}) {
    g.initializer(w, DataType::kFloat, {2, 2});
    g.node(std::string("add ") + w, "Add", {sum, w}, {std::string("sum ") + w});
    sum = std::string("sum ") + w;
    g.tensor(sum, DataType::kFloat, Shape{2, 2});
  }
  g.output(sum);
  const std::string graph = graph_to_json(**g.build()).dump();
  const auto source = [](const std::string&) -> Result<TensorData> {
    return TensorData::of_floats({2, 2}, {1, 2, 3, 4});
  };
  const auto weight = [](const char* name, const char* tensor, bool transposed) {
    return json{{"initializer", name}, {"tensor", tensor}, {"shape", {2, 2}}, {"transposed", transposed}};
  };
  const auto opens = [&](const json& weights, const json& constants) {
    const json network = {{"version", 1}, {"weights", weights}, {"constants", constants}};
    JobContext job;
    const auto loaded = described::load(source, graph, network.dump(), "x.safetensors", {}, job);
    EXPECT_TRUE(loaded || loaded.error().code == ErrorCode::kCorrupt) << loaded.error().text();
    return loaded.has_value();
  };
  for (const bool transposed : {false, true}) {
    EXPECT_TRUE(opens({weight("v", "a", transposed), weight("w", "b", transposed)}, json::array()));
    EXPECT_FALSE(opens({weight("v", "a", transposed), weight("w", "a", transposed)}, json::array())) << "one tensor for two";
  }
  const auto flag = [](double value) {
    return json::array({{{"name", "flag"}, {"type", static_cast<int>(DataType::kBool)}, {"shape", {1}}, {"values", {value}}}});
  };
  const json both = {weight("v", "a", false), weight("w", "b", false)};
  EXPECT_TRUE(opens(both, flag(1)));
  for (const double none : {2.0, -1.0, 300.0, 0.5}) EXPECT_FALSE(opens(both, flag(none))) << none;
}

TEST_F(DumpTest, DamagedFilesNeverCrash) {
  const QuantizedModel model = linear_net::quantize(net({16, 24, 8}), half(ints(4, false, kGroup, 8)), {});
  QuantizedModel w8 = linear_net::quantize(net({16, 24, 8}), ints(8, true, kChannel), ints(8, false, kTensor));
  JobContext job;
  for (const char* target : {"safetensors", "npz", "compressed-tensors", "gptq", "c-header"}) {
    SCOPED_TRACE(target);
    const QuantizedModel& m = target == std::string("compressed-tensors") ? w8 : model;
    json given = json::object();
    if (target == std::string("gptq")) given = {{"checkpoint_format", "gptq_v2"}};
    if (target == std::string("gptq") && !exporter(target).check(m, options(target, given)).empty())
      continue;  // groups of 8
    const std::string name = file_name(target);
    ASSERT_NO_FATAL_FAILURE(write(target, m, given, name));
    const std::string good = *read_file(path(name));
    const auto look = [&] {
      const auto rows = exporter(target).audit(m, path(name), options(target, given));
      (void)exporter(target).read(m, path(name), options(target, given), job);
      (void)import_file(path(name), {}, job);
      return rows && all_equal(*rows);
    };
    EXPECT_TRUE(look());
    for (std::size_t keep = 0; keep < good.size(); keep += good.size() / 25 + 1) {
      overwrite(good.substr(0, keep), name);
      EXPECT_FALSE(look()) << keep;
    }
    std::mt19937 generator(5);
    for (int i = 0; i < 80; ++i) {
      std::string bad = good;
      for (int k = 0; k < 3; ++k) bad[generator() % bad.size()] = static_cast<char>(generator());
      overwrite(bad, name);
      (void)look();
    }
  }
}

TEST_F(DumpTest, ArchivesThatLieAreRefused) {
  JobContext job;
  const auto array = [](const std::string& header, const std::string& data) {
    std::string h = header;
    h.append((64 - (10 + h.size() + 1) % 64) % 64, ' ');
    h += '\n';
    return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(h.size() & 0xff) + static_cast<char>(h.size() >> 8) + h +
           data;
  };
  const std::string fine = array("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", "{}");
  for (const auto& members : std::vector<fuzz::Members>{
           {{"quanvas.graph.npy", "no array"}},
           {{"quanvas.graph.npy", fine}, {"quanvas.graph.npy", fine}},
           {{"quanvas.graph.npy", fine}, {"quanvas.network.npy", fine}},
           {{"w.npy", array("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", "abcd")}},
           {{"w.npy", array("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "abcd")}},
           {{"w.npy", array("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "abcdefgh")}},
           {}}) {
    overwrite(fuzz::stored_zip(members), "bad.npz");
    const auto opened = import_file(path("bad.npz"), {}, job);
    ASSERT_FALSE(opened);
    EXPECT_FALSE(opened.error().message.empty());
  }
}

TEST_F(DumpTest, FailuresLeaveTheOldFile) {
  const QuantizedModel model = linear_net::quantize(net(), ints(4, true, kChannel));
  JobContext job;
  for (const char* target : {"safetensors", "npz", "c-header"}) {
    SCOPED_TRACE(target);
    EXPECT_FALSE(exporter(target).write(model, path("no/folder/out"), options(target, {}), job));
    overwrite("old", "out.any");
    std::stop_source stop;
    stop.request_stop();
    JobContext stopped(stop.get_token());
    const Status cancelled = exporter(target).write(model, path("out.any"), options(target, {}), stopped);
    ASSERT_FALSE(cancelled);
    EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(*read_file(path("out.any")), "old");
    fs::create_directory(path("folder"));
    EXPECT_FALSE(exporter(target).write(model, path("folder"), options(target, {}), job));
    for (const auto& entry : fs::directory_iterator(folder_))
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace quanvas
