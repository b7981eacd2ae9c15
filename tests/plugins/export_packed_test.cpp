// Files of packed linear layers beyond their bits: names, configuration, refusals, tampering, failures while writing.
#include <sys/resource.h>
#include <csignal>
#include <functional>

#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class PackedFileTest : public WeightFileTest {
 protected:
  json config() const { return json::parse(*read_file(path("config.json"))); }
};

QuantSpec w4() {
  return half(ints(4, true, kGroup, 32));
}

TEST_F(PackedFileTest, NamesAreThoseOfModules) {
  const QuantizedModel model = linear_net::quantize(net(), w4(), {}, {"/model/down/Gemm"});
  for (const char* target : {"gptq", "awq", "compressed-tensors"}) {
    SCOPED_TRACE(target);
    if (std::string(target) == "awq") {
      // "model.down" is part of no other name.
      EXPECT_TRUE(exporter(target).check(model, options(target, {})).empty());
    }
    ASSERT_NO_FATAL_FAILURE(write(target, model));
    const auto file = safetensors::File::open(path());
    ASSERT_TRUE(file);
    std::set<std::string> modules;
    for (const auto& [name, entry] : (*file)->tensors()) modules.insert(name.substr(0, name.rfind('.')));
    EXPECT_EQ(modules, (std::set<std::string>{"model.up", "model.down", "model.norm", "lm_head"}));
    EXPECT_EQ((*file)->tensor("model.up.bias")->shape, (Shape{96}));
    // The float layer's weight stands as modules have it, [out, in].
    EXPECT_EQ((*file)->tensor("model.down.weight")->shape, (Shape{64, 96}));
    EXPECT_FALSE((*file)->tensor("shape"));
    EXPECT_EQ(*(*file)->metadata("format"), "pt");
    EXPECT_TRUE(all_equal(audit(target, model))) << text_of(audit(target, model));
    expect_reopens(model);
  }
  const QuantizedModel other = linear_net::quantize(net(), w4(), {}, {"/model/up/MatMul"});
  ASSERT_NO_FATAL_FAILURE(write("gptq", other));
  const auto file = safetensors::File::open(path());
  EXPECT_EQ((*file)->tensor("model.up.weight")->shape, (Shape{96, 64}));  // [in, out] in the graph
  expect_reopens(other);
}

TEST_F(PackedFileTest, TheConfigurationSaysWhatReadersAsk) {
  const QuantizedModel model = linear_net::quantize(net(), w4(), {}, {"/lm_head/MatMul"});
  ASSERT_NO_FATAL_FAILURE(write("gptq", model));
  json q = config()["quantization_config"];
  EXPECT_EQ(q["quant_method"], "gptq");
  EXPECT_EQ(q["bits"], 4);
  EXPECT_EQ(q["group_size"], 32);
  EXPECT_EQ(q["sym"], true);
  EXPECT_EQ(q["desc_act"], false);
  EXPECT_EQ(q["checkpoint_format"], "gptq");
  EXPECT_EQ(q["lm_head"], false);
  EXPECT_TRUE(q["dynamic"].contains("-:^lm_head$"));
  ASSERT_NO_FATAL_FAILURE(write("awq", model));
  q = config()["quantization_config"];
  EXPECT_EQ(q, (json{{"quant_method", "awq"},
                     {"bits", 4},
                     {"group_size", 32},
                     {"zero_point", true},
                     {"version", "gemm"},
                     {"modules_to_not_convert", {"lm_head"}}}));
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  q = config()["quantization_config"];
  EXPECT_EQ(q["format"], "pack-quantized");
  EXPECT_EQ(q["quantization_status"], "compressed");
  EXPECT_EQ(q["ignore"], json::array({"lm_head"}));
  EXPECT_TRUE(q["kv_cache_scheme"].is_null());
  const json& group = q["config_groups"]["group_0"];
  EXPECT_EQ(group["targets"], json::array({"Linear"}));
  EXPECT_EQ(group["weights"]["num_bits"], 4);
  EXPECT_EQ(group["weights"]["strategy"], "group");
  EXPECT_EQ(group["weights"]["group_size"], 32);
  EXPECT_EQ(group["weights"]["symmetric"], true);
  EXPECT_TRUE(group["input_activations"].is_null());
  EXPECT_FALSE(group.contains("format"));
}

TEST_F(PackedFileTest, LayersOfSeveralFormatsAreGroupsByName) {
  QuantizedModel model = linear_net::quantize(net(), w4());
  const QuantizedModel wide = linear_net::quantize(net(), ints(8, true, kChannel), ints(8, true, kTensor),
                                                   {"/model/up/MatMul", "/model/down/Gemm"});
  for (const auto& [site, p] : wide.quantizers) model.quantizers[site] = p;
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  const json q = config()["quantization_config"];
  EXPECT_EQ(q["format"], "mixed-precision");
  ASSERT_EQ(q["config_groups"].size(), 2u);
  EXPECT_EQ(q["config_groups"]["group_0"]["format"], "pack-quantized");
  EXPECT_EQ(q["config_groups"]["group_0"]["targets"], json::array({"model.up", "model.down"}));
  EXPECT_EQ(q["config_groups"]["group_1"]["format"], "int-quantized");
  EXPECT_EQ(q["config_groups"]["group_1"]["targets"], json::array({"lm_head"}));
  EXPECT_EQ(q["config_groups"]["group_1"]["input_activations"]["strategy"], "tensor");
  EXPECT_TRUE(all_equal(audit("compressed-tensors", model))) << text_of(audit("compressed-tensors", model));
  expect_reopens(model);
}

TEST_F(PackedFileTest, InputsAreStaticByTensorOrDynamicByToken) {
  QuantSpec fixed = ints(8, false, kTensor), row = ints(8, true, Granularity::kRow),
            fp8 = minifloat(4, 3, FloatSpecials::kNan, kTensor);
  row.source = ScaleSource::kDynamic;
  QuantSpec fp8_row = fp8;
  fp8_row.granularity = Granularity::kRow;
  fp8_row.source = ScaleSource::kDynamic;
  struct Case {
    QuantSpec weight, input;
    const char* form;
    const char* strategy;
  };
  for (const Case& c : {Case{ints(8, true, kChannel), fixed, "int-quantized", "tensor"},
                        Case{ints(8, true, kChannel), row, "int-quantized", "token"},
                        Case{minifloat(4, 3, FloatSpecials::kNan, kChannel), fp8, "float-quantized", "tensor"},
                        Case{minifloat(4, 3, FloatSpecials::kNan, kTensor), fp8_row, "float-quantized", "token"}}) {
    SCOPED_TRACE(describe(c.input));
    const QuantizedModel model = linear_net::quantize(net(), c.weight, c.input);
    ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
    const json q = config()["quantization_config"];
    EXPECT_EQ(q["format"], c.form);
    const json in = q["config_groups"]["group_0"]["input_activations"];
    EXPECT_EQ(in["strategy"], c.strategy);
    EXPECT_EQ(in["dynamic"], c.input.source == ScaleSource::kDynamic);
    EXPECT_EQ(in["symmetric"], c.input.zero_point == ZeroPointType::kNone);
    const auto rows = audit("compressed-tensors", model);
    EXPECT_EQ(rows.size(), model.quantizers.size());
    EXPECT_TRUE(all_equal(rows)) << text_of(rows);
    expect_reopens(model);
  }
  const QuantizedModel model = linear_net::quantize(net(), ints(8, true, kChannel), fixed);
  const quant::QuantParams& p =
      model.quantizers.at({model.model->graph->find("/model/up/MatMul")->id, SiteKind::kInput, 0});
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  EXPECT_EQ(values<float>("model.up.input_scale"), p.scale);
  EXPECT_EQ(values<std::int8_t>("model.up.input_zero_point")[0], static_cast<int>(p.zero_point[0]) - 128);
}

TEST_F(PackedFileTest, ConfigurationsKeepTheirOtherSettings) {
  const QuantizedModel model = linear_net::quantize(net(), w4());
  overwrite(R"({"model_type": "llama", "quantization_config": {"quant_method": "old"}})", "config.json");
  ASSERT_NO_FATAL_FAILURE(write("awq", model));
  EXPECT_EQ(config()["model_type"], "llama");
  EXPECT_EQ(config()["quantization_config"]["quant_method"], "awq");
  overwrite(R"({"hidden_size": 64})", "base.json");
  const json with_base = {{"base_config", path("base.json")}, {"config", "quantized.json"}};
  EXPECT_EQ(exporter("awq").files(path(), options("awq", with_base)),
            (std::vector<std::string>{path(), path("quantized.json")}));
  ASSERT_NO_FATAL_FAILURE(write("awq", model, with_base));
  EXPECT_EQ(json::parse(*read_file(path("quantized.json")))["hidden_size"], 64);
  EXPECT_TRUE(all_equal(audit("awq", model, with_base)));
  fs::remove(path("config.json"));
  ASSERT_NO_FATAL_FAILURE(write("awq", model, {{"config", ""}}));
  EXPECT_FALSE(fs::exists(path("config.json")));
  EXPECT_TRUE(all_equal(audit("awq", model, {{"config", ""}})));
  EXPECT_EQ(rules(exporter("awq").check(model, options("awq", {{"config", "../x.json"}}))),
            (std::set<std::string>{"configuration"}));
  EXPECT_EQ(rules(exporter("awq").check(model, options("awq", {{"base_config", path("none.json")}}))),
            (std::set<std::string>{"configuration"}));
}

struct RefusalCase {
  const char* target;
  const char* name;
  std::function<QuantizedModel()> make;
  const char* rule;
  bool has_fix;
};

QuantizedModel spoiled(QuantizedModel model, const std::function<void(quant::QuantParams&)>& spoil) {
  spoil(model.quantizers.begin()->second);
  return model;
}

TEST_F(PackedFileTest, RefusalsNameTheRule) {
  const auto plain = [](QuantSpec s) { return [s] { return linear_net::quantize(net(), s); }; };
  const auto sized = [](Sizes sizes) {
    return [sizes] { return linear_net::quantize(net(sizes), half(ints(4, true, kChannel))); };
  };
  const auto conv = [] {
    export_net::Formats f{half(ints(4, true, kChannel)), {}, false};
    QuantizedModel m =
        export_net::quantize(export_net::small_net(), {half(ints(4, true, kChannel)), ints(8, true, kTensor), false});
    for (auto it = m.quantizers.begin(); it != m.quantizers.end();)
      it = it->first.kind == SiteKind::kWeight ? std::next(it) : m.quantizers.erase(it);
    return m;
  };
  QuantSpec float_zero = ints(4, false, kGroup);
  float_zero.zero_point = ZeroPointType::kFloat;
  const std::vector<RefusalCase> cases = {
      {"gptq", "5 bit", plain(half(ints(5, true, kChannel))), "bit width", true},
      {"gptq", "1 bit", plain(half(ints(1, true, kChannel))), "bit width", true},
      {"awq", "8 bit", plain(half(ints(8, true, kChannel))), "bit width", true},
      {"awq", "a codebook", plain([] {
         QuantSpec s;
         s.format = "nf4";
         s.granularity = kChannel;
         return s;
       }()),
       "number format", true},
      {"gptq", "float8", plain(minifloat(4, 3, FloatSpecials::kNan, kTensor)), "number format", true},
      {"gptq", "float32 scales", plain(ints(4, true, kGroup)), "scale type", true},
      {"awq", "float32 scales", plain(ints(4, true, kGroup)), "scale type", true},
      {"gptq", "fractions as zero points", plain(half(float_zero)), "zero point", true},
      {"gptq", "groups of 48", plain(half(ints(4, true, kGroup, 48))), "group size", true},
      {"compressed-tensors", "groups of 48", plain(ints(4, true, kGroup, 48)), "group size", true},
      {"gptq", "in % 8", sized({60, 96, 32}), "size", true},
      {"awq", "out % 8", sized({64, 96, 30}), "size", false},
      {"gptq", "out % 8", sized({64, 96, 30}), "size", false},
      {"gptq", "out % 8 of 4", sized({64, 96, 36}), "size", true},
      {"gptq", "convolutions", conv, "place of a quantizer", false},
      {"awq", "convolutions", conv, "place of a quantizer", false},
      {"compressed-tensors", "convolutions", conv, "place of a quantizer", false},
      {"gptq", "inputs", [] { return linear_net::quantize(net(), half(ints(4, true, kChannel)), ints(8, true, kTensor)); },
       "place of a quantizer", false},
      {"compressed-tensors", "9 bit", plain(ints(9, true, kChannel)), "bit width", true},
      {"compressed-tensors", "e5m2", plain(minifloat(5, 2, FloatSpecials::kIeee, kChannel)), "number format", true},
      {"compressed-tensors", "zero point beyond the codes",
       [&] {
         return spoiled(linear_net::quantize(net(), ints(4, false, kChannel)), [](auto& p) { p.zero_point[0] = 16; });
       },
       "zero point", false},
      {"gptq", "zero point beyond the codes",
       [&] {
         return spoiled(linear_net::quantize(net(), half(ints(4, false, kChannel))), [](auto& p) { p.zero_point[0] = 16; });
       },
       "zero point", false},
      {"gptq", "a scale that is no float16",
       [&] {
         return spoiled(linear_net::quantize(net(), half(ints(4, true, kChannel))), [](auto& p) { p.scale[0] = 0.1f; });
       },
       "scale", false},
      {"gptq", "scale nan",
       [&] {
         return spoiled(linear_net::quantize(net(), half(ints(4, true, kChannel))), [](auto& p) { p.scale[0] = NAN; });
       },
       "scale", false},
      {"awq", "soft rounding",
       [&] {
         return spoiled(linear_net::quantize(net(), half(ints(4, true, kChannel))), [](auto& p) {
           p.spec.rounding = Rounding::kLearned;
           p.spec.soft_rounding = true;
         });
       },
       "rounding", false},
      {"compressed-tensors", "scales of inputs",
       [&] {
         return spoiled(linear_net::quantize(net(), ints(4, true, kChannel)),
                        [](auto& p) { p.spec.axis = 1 - *p.spec.axis; });
       },
       "axis of scales", false},
      {"compressed-tensors", "inputs without weights",
       [&] {
         QuantizedModel m = linear_net::quantize(net(), ints(8, true, kChannel), ints(8, true, kTensor));
         m.quantizers.erase({m.model->graph->find("/model/up/MatMul")->id, SiteKind::kWeight, 0});
         return m;
       },
       "missing quantizer", true},
  };
  for (const RefusalCase& c : cases) {
    SCOPED_TRACE(std::string(c.target) + ": " + c.name);
    const auto refusals = exporter(c.target).check(c.make(), options(c.target, {}));
    ASSERT_FALSE(refusals.empty());
    EXPECT_TRUE(rules(refusals).count(c.rule)) << refusals[0].text();
    for (const Refusal& r : refusals) {
      EXPECT_FALSE(r.layer.empty());
      EXPECT_FALSE(r.allowed.empty());
      if (c.has_fix && r.rule == c.rule) {
        EXPECT_TRUE(r.fix) << r.text();
      }
      if (!r.fix || r.rule != c.rule || r.rule == "missing quantizer") continue;
      // What the fix says is taken.
      EXPECT_EQ(rules(exporter(c.target).check(
                          linear_net::quantize(net(), *r.fix),
                          options(c.target, {{c.target == std::string("gptq") ? "checkpoint_format" : "config",
                                              c.target == std::string("gptq") ? "gptq_v2" : "config.json"}})))
                    .count(c.rule),
                0u);
    }
  }
}

TEST_F(PackedFileTest, FloatLayersWhoseNameIsPartOfAnotherAreRefusedByAwq) {
  QuantizedModel model = linear_net::quantize(net(), w4(), {}, {"/model/up/MatMul"});
  EXPECT_TRUE(exporter("awq").check(model, options("awq", {})).empty());
  GraphBuilder b(*model.model->graph);
  // "model.up" and "model.up.gate".
  b.initializer("model.up.gate.weight", DataType::kFloat, {64, 32});
  b.replace_input(model.model->graph->find("/lm_head/MatMul")->id, "onnx::MatMul_77", "model.up.gate.weight");
  auto weights = std::make_shared<WeightStore>(*model.model->weights);
  weights->set("model.up.gate.weight", random_floats({64, 32}, 5));
  auto graph = b.build();
  ASSERT_TRUE(graph);
  model.model = std::make_shared<const Model>(Model{*graph, weights, ""});
  EXPECT_EQ(rules(exporter("awq").check(model, options("awq", {}))), (std::set<std::string>{"names of layers"}));
  EXPECT_TRUE(exporter("gptq").check(model, options("gptq", {})).empty());
}

TEST_F(PackedFileTest, RoundedScalesAreReportedNotEqual) {
  const QuantizedModel model = linear_net::quantize(net(), ints(4, true, kGroup));
  for (const char* target : {"gptq", "awq"}) {
    ASSERT_NO_FATAL_FAILURE(write(target, model, {{"scales", "round"}}));
    const auto rows = audit(target, model, {{"scales", "round"}});
    EXPECT_EQ(rows.size(), 3u);
    for (const AuditRow& row : rows) {
      EXPECT_FALSE(row.equal);
      EXPECT_NE(row.written.find("other scales, largest difference of a weight"), std::string::npos) << row.written;
    }
    EXPECT_EQ(exporter(target).table(options(target, {{"scales", "round"}})).exactness, Exactness::kNear);
  }
}

// A word, a scale, a zero point, a bias, a label: the audit sees each.
TEST_F(PackedFileTest, TamperedFilesAreNotEqual) {
  const QuantizedModel model = linear_net::quantize(net(), half(ints(4, false, kGroup)));
  for (const char* target : {"gptq", "awq", "compressed-tensors"}) {
    const json given = std::string(target) == "gptq" ? json{{"checkpoint_format", "gptq_v2"}} : json::object();
    ASSERT_NO_FATAL_FAILURE(write(target, model, given));
    ASSERT_TRUE(all_equal(audit(target, model, given)));
    const std::string good = *read_file(path());
    const auto file = safetensors::File::open(path());
    ASSERT_TRUE(file);
    std::uint64_t header = 0;
    std::memcpy(&header, good.data(), 8);
    for (const auto& [name, entry] : (*file)->tensors()) {
      SCOPED_TRACE(std::string(target) + " " + name);
      std::string bad = good;
      bad[8 + header + entry.begin + (entry.end - entry.begin) / 2] ^= 1;
      overwrite(bad);
      const auto rows = exporter(target).audit(model, path(), options(target, given));
      EXPECT_TRUE(!rows || !all_equal(*rows));
    }
    overwrite(good);
    const std::string config_text = *read_file(path("config.json"));
    for (const auto& [what, instead] :
         std::vector<std::pair<std::string, std::string>>{{"\"group_size\": 32", "\"group_size\": 16"}, {": 4", ": 8"}}) {
      std::string bad = config_text;
      ASSERT_NE(bad.find(what), std::string::npos);
      bad.replace(bad.find(what), what.size(), instead);
      overwrite(bad, "config.json");
      const auto rows = exporter(target).audit(model, path(), options(target, given));
      EXPECT_TRUE(!rows || !all_equal(*rows)) << what;
    }
    fs::remove(path("config.json"));
    EXPECT_FALSE(exporter(target).audit(model, path(), options(target, given)));
  }
}

TEST_F(PackedFileTest, ConfigurationsThatForgetAFloatLayerAreNotEqual) {
  const QuantizedModel model = linear_net::quantize(net(), w4(), {}, {"/lm_head/MatMul"});
  for (const char* target : {"gptq", "awq", "compressed-tensors"}) {
    SCOPED_TRACE(target);
    ASSERT_NO_FATAL_FAILURE(write(target, model));
    ASSERT_TRUE(all_equal(audit(target, model))) << text_of(audit(target, model));
    json all = config();
    for (const char* key : {"ignore", "dynamic", "modules_to_not_convert"}) all["quantization_config"].erase(key);
    overwrite(all.dump(), "config.json");
    EXPECT_FALSE(all_equal(audit(target, model)));
  }
  // Inputs that nobody asked for.
  ASSERT_NO_FATAL_FAILURE(write("compressed-tensors", model));
  json all = config();
  all["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {
      {"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}, {"symmetric", true}};
  overwrite(all.dump(), "config.json");
  EXPECT_FALSE(all_equal(audit("compressed-tensors", model)));
}

TEST_F(PackedFileTest, FailuresLeaveBothFilesAsTheyWere) {
  const QuantizedModel model = linear_net::quantize(net(), w4());
  JobContext job;
  for (const char* target : {"gptq", "awq", "compressed-tensors"}) {
    SCOPED_TRACE(target);
    EXPECT_FALSE(exporter(target).write(model, path("no/such/folder/out.safetensors"), options(target, {}), job));
    overwrite("old tensors");
    overwrite(R"({"old": 1})", "config.json");
    std::stop_source stop;
    stop.request_stop();
    JobContext stopped(stop.get_token());
    const Status cancelled = exporter(target).write(model, path(), options(target, {}), stopped);
    ASSERT_FALSE(cancelled);
    EXPECT_EQ(cancelled.error().code, ErrorCode::kCancelled);
    // The main file cannot be replaced: a folder is in its place.
    fs::create_directory(path("dir.safetensors"));
    EXPECT_FALSE(exporter(target).write(model, path("dir.safetensors"), options(target, {}), job));
    EXPECT_EQ(*read_file(path("config.json")), R"({"old": 1})");
    // A configuration that is none is not overwritten.
    overwrite("{ not json", "config.json");
    EXPECT_FALSE(exporter(target).write(model, path(), options(target, {}), job));
    EXPECT_EQ(*read_file(path("config.json")), "{ not json");
    EXPECT_EQ(*read_file(path()), "old tensors");
    fs::remove(path("config.json"));
    fs::create_directory(path("config.json"));
    EXPECT_FALSE(exporter(target).write(model, path(), options(target, {}), job));
    EXPECT_EQ(*read_file(path()), "old tensors");
    fs::remove(path("config.json"));
    // No file may grow beyond 4 KiB: the configuration fits, the tensors do not.
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit tiny = before;
    tiny.rlim_cur = 4096;
    setrlimit(RLIMIT_FSIZE, &tiny);
    const Status full = exporter(target).write(model, path(), options(target, {}), job);
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_FALSE(full);
    EXPECT_EQ(*read_file(path()), "old tensors");
    EXPECT_FALSE(fs::exists(path("config.json")));
    for (const auto& entry : fs::directory_iterator(folder_))
      EXPECT_EQ(entry.path().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

}  // namespace
}  // namespace quanvas
