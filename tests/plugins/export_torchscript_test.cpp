#include "tests/plugins/torchscript_export_support.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <set>

#include "core/base/files.h"

namespace quanvas {
namespace {

using namespace torchscript_export;

Formats plain() { return {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true}; }

struct FormatCase {
  const char* name;
  Formats formats;
};
const FormatCase kPackedCases[] = {
    {"w8 narrow per channel, u8 asymmetric", plain()},
    {"w8 per tensor, s8", {spec(8, true, false, kNone, kTensor), spec(8, true, false, kNone, kTensor), true}},
    {"w7 per channel, u8", {spec(7, true, false, kNone, kChannel), spec(8, false, false, kNone, kTensor), true}},
    {"w4 per tensor, u8", {spec(4, true, true, kNone, kTensor), spec(8, false, false, kInteger, kTensor), true}},
    {"w2 per channel, s8 asymmetric", {spec(2, true, false, kNone, kChannel), spec(8, true, false, kInteger, kTensor), true}},
};
const FormatCase kFloatCases[] = {
    {"w8 narrow per channel, u8 asymmetric", plain()},
    {"w8, s8 narrow", {spec(8, true, true, kNone, kTensor), spec(8, true, true, kNone, kTensor), true}},
    {"w4 per channel, u4", {spec(4, true, true, kNone, kChannel), spec(4, false, false, kNone, kTensor), false}},
    {"w3, s5", {spec(3, true, true, kNone, kTensor), spec(5, true, false, kNone, kTensor), true}},
    {"w2, u2", {spec(2, true, true, kNone, kChannel), spec(2, false, false, kNone, kTensor), false}},
    {"w8 asymmetric per channel, u7",
     {spec(8, false, false, kInteger, kChannel), spec(7, false, false, kInteger, kTensor), true}},
    {"w1, u1", {spec(1, true, false, kNone, kTensor), spec(1, false, false, kNone, kTensor), true}},
    {"activations per channel", {spec(8, true, true, kNone, kTensor), spec(8, true, true, kNone, kChannel), false}},
    {"activations per channel, asymmetric",
     {spec(8, true, true, kNone, kTensor), spec(8, false, false, kInteger, kChannel), false}},
};

// Values of the last layer: within one step of its quantizer, and nearly all the same.
void expect_near(const at::Tensor& a, const at::Tensor& b, double scale, const char* who) {
  ASSERT_EQ(a.sizes(), b.sizes());
  const Steps s = steps_between(a, b, scale);
  EXPECT_LE(s.most, 1) << who;
  EXPECT_LE(s.differing * 100, s.values) << who << ": " << s.differing << " of " << s.values;
}

TEST_F(TorchScriptExportTest, EveryPackedFormatIsWrittenAuditedReadAndRun) {
  const at::Tensor x = random_input({64, 1, 8, 8});
  for (const FormatCase& c : kPackedCases)
    for (const bool few : {false, true}) {
      if (few && &c != &kPackedCases[0]) continue;  // the same with other formats
      SCOPED_TRACE(std::string(c.name) + (few ? ", outputs from readers" : ""));
      QuantizedModel model = few ? few_outputs(c.formats) : quantize(small_net(), c.formats);
      ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
      const auto rows = audit(kPacked, model);
      EXPECT_EQ(rows.size(), model.quantizers.size());
      EXPECT_TRUE(all_equal(rows)) << text_of(rows);
      for (const AuditRow& row : rows) EXPECT_GT(row.bytes, 0) << row.layer;
      const double scale = at_site(model, "fc", SiteKind::kOutput).scale[0];
      const at::Tensor wanted = screen(model, {x})[0];
      expect_near(libtorch({x})[0], wanted, scale, "LibTorch");
      JobContext job;
      const auto back = exporter(kPacked).read(model, path(), json::object(), job);
      ASSERT_TRUE(back) << back.error().text();
      expect_near(run(back->model, {x})[0], wanted, scale, "read back");
    }
}

TEST_F(TorchScriptExportTest, EveryFloatFormatIsWrittenAuditedReadAndRun) {
  const at::Tensor x = random_input({64, 1, 8, 8});
  for (const FormatCase& c : kFloatCases)
    for (const char* form : {"exact", "torch"}) {
      SCOPED_TRACE(std::string(c.name) + ", " + form);
      QuantizedModel model = quantize(small_net(), c.formats);
      if (form == std::string("torch") && (&c - kFloatCases) % 3 != 1) continue;  // some of them
      ASSERT_NO_FATAL_FAILURE(write(kFloat, model, {{"form", form}}));
      const auto rows = audit(kFloat, model);
      EXPECT_EQ(rows.size(), model.quantizers.size());
      EXPECT_TRUE(all_equal(rows)) << text_of(rows);
      const at::Tensor wanted = screen(model, {x})[0], got = libtorch({x})[0];
      JobContext job;
      const auto back = exporter(kFloat).read(model, path(), json::object(), job);
      ASSERT_TRUE(back) << back.error().text();
      const at::Tensor again = run(back->model, {x})[0];
      // Sums of floats, whose order differs: a value on a tie moves by a step of an inner quantizer.
      const double largest = wanted.abs().max().item<double>();
      EXPECT_LE((got - wanted).abs().gt(1e-5 * largest).sum().item<int>(), wanted.numel() / 50);
      EXPECT_LE((again - wanted).abs().gt(1e-5 * largest).sum().item<int>(), wanted.numel() / 50);
    }
}

// Scales of biases as the layers' other scales make them.
QuantizedModel with_bias_scales(QuantizedModel model) {
  for (auto& [site, p] : model.quantizers)
    if (site.kind == SiteKind::kBias) {
      const auto &x = model.quantizers.at({site.node, SiteKind::kInput, 0}),
                 &w = model.quantizers.at({site.node, SiteKind::kWeight, 0});
      for (std::size_t i = 0; i < p.scale.size(); ++i) p.scale[i] = x.scale[0] * w.scale[w.scale.size() == 1 ? 0 : i];
    }
  return model;
}

// The codes at every quantizer that can be seen, over more than 100,000 values each.
TEST_F(TorchScriptExportTest, IntegersInsideAreThoseOfTheScreen) {
  const std::vector<std::string> tensors = {"c1", "c2", "s"};
  const at::Tensor x = random_input({2048, 1, 8, 8}, 7);
  for (const bool power_of_two : {true, false})
    for (const char* id : {kPacked, kFloat}) {
      SCOPED_TRACE(std::string(id) + (power_of_two ? ", powers of two" : ""));
      QuantizedModel model = shown(quantize(small_net(), plain()), tensors);
      if (power_of_two)
        for (auto& [site, p] : model.quantizers)
          for (float& s : p.scale)
            if (site.kind != SiteKind::kBias) s = std::exp2(std::round(std::log2(s)));
      if (power_of_two) model = with_bias_scales(std::move(model));
      ASSERT_NO_FATAL_FAILURE(write(id, model));
      const Tensors wanted = screen(model, {x}), got = libtorch({x});
      ASSERT_EQ(wanted.size(), got.size());
      const char* const layers[] = {"fc", "conv1", "conv2", "add"};
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        const Steps s = steps_between(wanted[i], got[i], at_site(model, layers[i], SiteKind::kOutput).scale[0]);
        if (i > 0) EXPECT_GE(s.values, 100000) << layers[i];
        EXPECT_LE(s.most, power_of_two ? 0 : 1) << layers[i] << ": " << s.differing << " of " << s.values;
        EXPECT_LE(s.differing * 1000, s.values) << layers[i];
      }
    }
}

ModelPtr one_relu() {
  GraphBuilder b;
  b.set_name("one");
  b.tensor("x", DataType::kFloat, Shape{-1});
  b.tensor("y", DataType::kFloat, Shape{-1});
  b.input("x");
  b.node("relu", "Relu", {"x"}, {"y"});
  b.output("y");
  return std::make_shared<const Model>(Model{*b.build(), std::make_shared<WeightStore>(), "one"});
}

// float(1/s) puts what is nearly in the middle on the other side; a division does not, nor do powers of two.
TEST_F(TorchScriptExportTest, ReciprocalScalesMoveOnlyWhatIsNearlyInTheMiddle) {
  std::int64_t moved = 0;
  for (const float s : {0.0123f, 0.1f, 1.0f / 3, 0.0078125f, 0.25f, 0.71f}) {
    std::vector<float> near;
    for (int k = 0; k < 120; ++k) {
      float v = (static_cast<float>(k) + 0.5f) * s;
      for (int i = 0; i < 20; ++i) v = std::nextafter(v, 0.0f);
      for (int i = 0; i < 40; ++i, v = std::nextafter(v, 1e9f)) near.push_back(v);
    }
    const at::Tensor x = at::tensor(near);
    QuantizedModel model;
    model.model = one_relu();
    QuantSpec spec8 = spec(8, false, false, kNone, kTensor);
    const auto layout = *quant::make_layout(spec8, Shape{-1}, 0);
    quant::QuantParams p = quant::params_from_range(spec8, layout, {0}, {255 * s});
    p.scale = {s};
    model.quantizers[{0, SiteKind::kOutput, 0}] = p;
    ASSERT_EQ(model.model->graph->nodes()[0].id, 0);
    const at::Tensor wanted = screen(model, {x})[0];
    const bool power_of_two = s == 0.25f || s == 0.0078125f;
    ASSERT_NO_FATAL_FAILURE(write(kFloat, model));
    EXPECT_EQ(steps_between(libtorch({x})[0], wanted, s).differing, 0) << s;
    for (const auto& [id, options] : {std::pair<const char*, json>{kFloat, {{"form", "torch"}}}, {kPacked, json::object()}}) {
      ASSERT_NO_FATAL_FAILURE(write(id, model, options));
      const Steps steps = steps_between(libtorch({x})[0], wanted, s);
      EXPECT_LE(steps.most, power_of_two ? 0 : 1) << s;
      moved += steps.differing;
    }
  }
  EXPECT_GT(moved, 0) << "LibTorch divides now: the note of both targets is out of date";
}

std::set<std::string> rules(const std::vector<Refusal>& refusals) {
  std::set<std::string> out;
  for (const Refusal& r : refusals) out.insert(r.rule);
  return out;
}

TEST_F(TorchScriptExportTest, RefusesByRule) {
  struct Row {
    const char* name;
    const char* id;
    json options;
    Formats formats;
    std::string rule;
  };
  const QuantSpec w8 = spec(8, true, true, kNone, kChannel), a8 = spec(8, false, false, kInteger, kTensor);
  const auto changed = [](QuantSpec s, const std::function<void(QuantSpec&)>& change) {
    change(s);
    return s;
  };
  const json none = json::object();
  const Row rows[] = {
      {"unsigned weight", kPacked, none, {spec(8, false, false, kNone, kTensor), a8, true}, "sign"},
      {"weight with zero points", kPacked, none, {spec(8, true, false, kInteger, kTensor), a8, true}, "zero point"},
      {"9-bit weight", kPacked, none, {spec(9, true, false, kNone, kTensor), a8, true}, "bit width"},
      {"8-bit weight on FBGEMM", kPacked, {{"profile", "fbgemm"}}, {w8, a8, true}, "bit width"},
      {"7-bit activation", kPacked, none, {w8, spec(7, false, false, kInteger, kTensor), true}, "bit width"},
      {"narrow activation", kPacked, none, {w8, spec(8, true, true, kNone, kTensor), true}, "range of codes"},
      {"activation per channel", kPacked, none, {w8, spec(8, false, false, kNone, kChannel), true}, "granularity"},
      {"zero point inside",
       kPacked,
       none,
       {w8, changed(a8, [](QuantSpec& s) { s.zero_point_inside = true; }), true},
       "place of the zero point"},
      {"rounding", kPacked, none, {w8, changed(a8, [](QuantSpec& s) { s.rounding = Rounding::kFloor; }), true}, "rounding"},
      {"no output quantizer", kPacked, none, {w8, a8, false}, "missing quantizer"},
      {"9-bit weight", kFloat, none, {spec(9, true, false, kNone, kTensor), a8, true}, "bit width"},
      {"16-bit activation", kFloat, none, {w8, spec(16, true, false, kNone, kTensor), true}, "bit width"},
      {"rounding", kFloat, none, {w8, changed(a8, [](QuantSpec& s) { s.rounding = Rounding::kFloor; }), true}, "rounding"},
      {"zero point inside",
       kFloat,
       none,
       {w8, changed(a8, [](QuantSpec& s) { s.zero_point_inside = true; }), true},
       "place of the zero point"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(std::string(row.id) + ": " + row.name);
    const auto refusals = check(row.id, quantize(small_net(), row.formats), row.options);
    ASSERT_FALSE(refusals.empty());
    EXPECT_TRUE(rules(refusals).count(row.rule)) << refusals[0].text();
    for (const Refusal& r : refusals) EXPECT_FALSE(r.layer.empty() || r.suggestion.empty() || r.allowed.empty()) << r.text();
  }
  // The same with 7 bits.
  EXPECT_TRUE(
      check(kPacked, quantize(small_net(), {spec(7, true, true, kNone, kChannel), a8, true}), {{"profile", "fbgemm"}}).empty());
}

TEST_F(TorchScriptExportTest, MissingQuantizersAreNamedWithTheirFix) {
  const QuantizedModel whole = quantize(small_net(), plain());
  for (const SiteKind kind : {SiteKind::kOutput, SiteKind::kBias, SiteKind::kInput, SiteKind::kWeight}) {
    QuantizedModel model = whole;
    const Site site{node_of(model, "fc").id, kind, 0};
    ASSERT_EQ(model.quantizers.erase(site), 1u);
    const auto refusals = check(kPacked, model);
    ASSERT_FALSE(refusals.empty()) << enum_text(kind);
    bool found = false;
    for (const Refusal& r : refusals)
      found = found || (r.rule == "missing quantizer" && r.site == site && r.fix && r.layer == "fc");
    EXPECT_TRUE(found) << refusals[0].text();
    EXPECT_TRUE(check(kFloat, model).empty()) << enum_text(kind);  // it computes in float
  }
  QuantizedModel other = whole;
  at_site(other, "fc", SiteKind::kBias).scale[0] *= 2;
  EXPECT_TRUE(rules(check(kPacked, other)).count("scale of a bias"));
}

// Two readers that want different codes of one convolution's result.
TEST_F(TorchScriptExportTest, ReadersWithDifferentQuantizersGiveNoOutputQuantizer) {
  QuantizedModel model = few_outputs(plain());
  EXPECT_TRUE(check(kPacked, model).empty());
  at_site(model, "add", SiteKind::kInput, 1).scale[0] *= 2;  // reads p, as conv2 does
  const auto refusals = check(kPacked, model);
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].layer, "conv1");
  EXPECT_EQ(refusals[0].quantizer, "output");
}

TEST_F(TorchScriptExportTest, AuditSeesWhatIsNotTheNetworkOfTheScreen) {
  for (const char* id : {kPacked, kFloat}) {
    QuantizedModel model = quantize(small_net(), plain());
    ASSERT_NO_FATAL_FAILURE(write(id, model));
    ASSERT_TRUE(all_equal(audit(id, model))) << text_of(audit(id, model));
    const auto differs = [&](const std::string& layer, const char* what, const std::function<void(QuantizedModel&)>& change) {
      QuantizedModel other = model;
      change(other);
      bool found = false;
      for (const AuditRow& r : audit(id, other)) found = found || (r.layer == layer && r.quantizer == what && !r.equal);
      EXPECT_TRUE(found) << id << ": " << layer << " " << what;
    };
    differs("conv1", "input", [](QuantizedModel& m) {
      at_site(m, "conv1", SiteKind::kInput).scale[0] = std::nextafter(at_site(m, "conv1", SiteKind::kInput).scale[0], 1.0f);
    });
    differs("fc", "input", [](QuantizedModel& m) { at_site(m, "fc", SiteKind::kInput).zero_point[0] += 1; });
    differs("fc", "output", [](QuantizedModel& m) { at_site(m, "fc", SiteKind::kOutput).scale[0] *= 1.5f; });
    differs("conv2", "weight", [](QuantizedModel& m) { at_site(m, "conv2", SiteKind::kWeight).scale[2] *= 1.01f; });
    differs("fc", "bias", [](QuantizedModel& m) { at_site(m, "fc", SiteKind::kBias).scale[0] *= 1.01f; });
    differs("add", "input 2", [](QuantizedModel& m) { at_site(m, "add", SiteKind::kInput, 1).scale[0] *= 2; });
    differs("conv1", "weight", [](QuantizedModel& m) {
      auto weights = std::make_shared<WeightStore>(*m.model->weights);
      std::vector<float> w = weights->find("conv1.weight")->to_floats();
      w[5] = -w[5];
      weights->set("conv1.weight", TensorData::of_floats({4, 1, 3, 3}, w));
      m.model = std::make_shared<const Model>(Model{m.model->graph, weights, "other"});
    });
  }
}

// A file with a quantizer more than the network of the screen has: every other row is equal, and one says so.
TEST_F(TorchScriptExportTest, QuantizersThatNobodyAskedForAreRows) {
  struct Extra {
    const char* layer;
    SiteKind kind;
    int operand;
    const char* row;  // of the layer that reads it float
  };
  const QuantizedModel asked = quantize(small_net(), {plain().weight, plain().activation, false});
  ASSERT_NO_FATAL_FAILURE(write(kFloat, asked));
  ASSERT_TRUE(all_equal(audit(kFloat, asked))) << text_of(audit(kFloat, asked));
  const Formats other{plain().weight, spec(5, true, true, kNone, kTensor), true};
  const QuantizedModel more = quantize(small_net(), other);
  for (const Extra& e : {Extra{"conv1", SiteKind::kInput, 0, "input 1"}, Extra{"conv2", SiteKind::kWeight, 0, "input 2"}, Extra{"add", SiteKind::kInput, 1, "input 2"},
                         Extra{"add", SiteKind::kInput, 0, "input 1"}, Extra{"fc", SiteKind::kInput, 0, "input 1"}, Extra{"fc", SiteKind::kBias, 0, "input 3"}}) {
    SCOPED_TRACE(std::string(e.layer) + " " + enum_text(e.kind));
    const Site site{node_of(asked, e.layer).id, e.kind, e.operand};
    QuantizedModel without = asked;
    without.quantizers.erase(site);
    if (e.kind == SiteKind::kWeight || (e.kind == SiteKind::kInput && e.layer != std::string("add"))) without.quantizers.erase({site.node, SiteKind::kBias, 0});
    QuantizedModel tampered = without;
    tampered.quantizers[site] = e.kind == SiteKind::kInput ? more.quantizers.at(site) : asked.quantizers.at(site);
    ASSERT_NO_FATAL_FAILURE(write(kFloat, without));
    EXPECT_TRUE(all_equal(audit(kFloat, without))) << text_of(audit(kFloat, without));
    ASSERT_NO_FATAL_FAILURE(write(kFloat, tampered));
    const auto rows = audit(kFloat, without);
    ASSERT_EQ(rows.size(), without.quantizers.size() + 1) << text_of(rows);
    for (const AuditRow& r : rows) {
      const bool is_extra = r.layer == e.layer && r.quantizer == e.row && r.requested == "float";
      EXPECT_EQ(r.equal, !is_extra) << text_of(rows);
    }
    EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [](const AuditRow& r) { return !r.equal && r.written.find("int") != std::string::npos; }));
  }
}

// At the end of the network, where no layer reads it any more.
TEST_F(TorchScriptExportTest, AQuantizedOutputThatNobodyAskedForIsARow) {
  for (const char* id : {kPacked, kFloat}) {
    const QuantizedModel whole = quantize(small_net(), plain());
    QuantizedModel asked = whole;
    ASSERT_EQ(asked.quantizers.erase({node_of(asked, "fc").id, SiteKind::kOutput, 0}), 1u);
    ASSERT_NO_FATAL_FAILURE(write(id, whole));
    const auto rows = audit(id, asked);
    ASSERT_EQ(rows.size(), asked.quantizers.size() + 1) << text_of(rows);
    EXPECT_EQ(rows.back().quantizer, "output of the network");
    EXPECT_FALSE(rows.back().equal);
  }
}

// As packed operators have it: before a pool there is the quantizer that all who read the pool's result ask for, and only that.
TEST_F(TorchScriptExportTest, QuantizersOfReadersMayStandBeforeWhatMovesValues) {
  const QuantizedModel model = few_outputs(plain());
  ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
  EXPECT_TRUE(all_equal(audit(kPacked, model))) << text_of(audit(kPacked, model));
  QuantizedModel fewer = model;
  ASSERT_EQ(fewer.quantizers.erase({node_of(fewer, "add").id, SiteKind::kInput, 1}), 1u);  // reads the pool, as conv2 does
  const auto rows = audit(kPacked, fewer);
  EXPECT_FALSE(all_equal(rows)) << text_of(rows);
  EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [](const AuditRow& r) { return r.layer == "add" && r.quantizer == "input 2" && !r.equal; })) << text_of(rows);
}

TEST_F(TorchScriptExportTest, DamagedFilesAreErrorsAndNeverCrash) {
  const QuantizedModel model = quantize(small_net(), plain());
  ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
  const std::string whole = *read_file(path());
  const auto refused = [&](const std::string& bytes, const std::string& what) {
    std::ofstream(path(), std::ios::binary) << bytes;
    const auto rows = exporter(kPacked).audit(model, path(), json::object());
    EXPECT_TRUE(!rows || !all_equal(*rows)) << what;
    JobContext job;
    if (!rows) EXPECT_FALSE(exporter(kPacked).read(model, path(), json::object(), job)) << what;
  };
  refused("", "empty");
  refused("PK\3\4", "a head alone");
  refused(std::string(4096, '\0'), "zeros");
  for (const std::size_t n : {whole.size() / 4, whole.size() / 2, whole.size() - 1, whole.size() - 30})
    refused(whole.substr(0, n), "cut at " + std::to_string(n));
  // Bytes of members: their check sums tell.
  const std::size_t first = whole.find("data.pkl") + 200;
  for (std::size_t at = first; at < whole.size() * 3 / 4; at += whole.size() / 25) {
    std::string changed = whole;
    if (changed[at] == 0) continue;  // padding between members may change unseen
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    std::ofstream(path(), std::ios::binary) << changed;
    (void)exporter(kPacked).audit(model, path(), json::object());  // a name of a file in the list, padding, or an error
  }
}

TEST_F(TorchScriptExportTest, FailedWritesLeaveTheOldFile) {
  const QuantizedModel model = quantize(small_net(), plain());
  for (const char* id : {kPacked, kFloat}) {
    JobContext job;
    EXPECT_FALSE(exporter(id).write(model, (folder_ / "none" / "out.pt").string(), complete(id, json::object()), job));
    EXPECT_FALSE(exporter(id).write(model, folder_.string(), complete(id, json::object()), job));
    std::ofstream(path(), std::ios::binary) << "old";
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit tiny{512, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tiny);
    const Status written = exporter(id).write(model, path(), complete(id, json::object()), job);
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_FALSE(written);
    EXPECT_EQ(*read_file(path()), "old");
    std::stop_source stop;
    stop.request_stop();
    JobContext stopped(stop.get_token());
    EXPECT_FALSE(exporter(id).write(model, path(), complete(id, json::object()), stopped));
    EXPECT_EQ(*read_file(path()), "old");
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
  }
}

// Opened as any other file: a float network with the layers' names and the file's quantizers as rules.
TEST_F(TorchScriptExportTest, OpensAgainAsARecipe) {
  for (const char* id : {kPacked, kFloat}) {
    SCOPED_TRACE(id);
    const QuantizedModel model = few_outputs(plain());
    ASSERT_NO_FATAL_FAILURE(write(id, model));
    ImportOptions options;
    options.trusted = kTrustAny;
    options.shapes["x"] = {-1, 1, 8, 8};
    JobContext job;
    const auto imported = import_file(path(), options, job);
    ASSERT_TRUE(imported) << imported.error().text();
    ASSERT_TRUE(imported->recipe);
    EXPECT_GE(imported->recipe->rules.size(), 4u);
    const Graph& graph = *imported->model.graph;
    for (const Node& n : graph.nodes())
      EXPECT_TRUE(n.op.find("quantize") == std::string::npos && n.op.find("Quantize") == std::string::npos)
          << n.name << " " << n.op;
    for (const char* name : {"conv1", "conv2", "add", "fc"}) EXPECT_NE(graph.find(std::string(name)), nullptr) << name;
  }
}

// Unless somebody trusts it, a file of ours is like any other.
TEST_F(TorchScriptExportTest, FilesNeedTrustAndNameNoForeignOperators) {
  ASSERT_NO_FATAL_FAILURE(write(kPacked, quantize(small_net(), plain())));
  JobContext job;
  const auto imported = import_file(path(), ImportOptions{}, job);
  ASSERT_FALSE(imported);
  EXPECT_EQ(imported.error().code, ErrorCode::kNeedsTrust);
  EXPECT_EQ(imported.error().message.find("not LibTorch's own"), std::string::npos) << imported.error().message;
}

}  // namespace
}  // namespace quanvas
