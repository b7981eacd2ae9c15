// ONNX QOperator: what becomes an operator on codes, what is refused, and what the file computes.
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <set>

#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "core/base/files.h"
#include "tests/plugins/export_code_nets.h"
#include "tests/plugins/onnx_file_test.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using namespace export_net;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;

const QuantSpec kW8 = spec(8, true, true, kNone, kChannel), kU8 = spec(8, false, false, kInteger, kTensor),
                kS8 = spec(8, true, false, kNone, kTensor);

class QOperatorExport : public OnnxFileTest {
 protected:
  QOperatorExport() : OnnxFileTest("onnx-qoperator") {}
};

std::map<std::string, int> operators(const onnx::ModelProto& proto) {
  std::map<std::string, int> out;
  for (const auto& n : proto.graph().node()) ++out[n.op_type()];
  return out;
}

// Codes of a tensor of the opened file at each site, and those of the screen there.
TEST_F(QOperatorExport, EveryCaseIsAuditedAndComputesTheScreensCodes) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  for (const CodeCase& c : code_cases()) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize_codes_of(c.net(), c.formats);
    ASSERT_NO_FATAL_FAILURE(write(model, c.options));
    EXPECT_EQ(unequal(model), "");
    const auto back = exporter().read(model, path(), c.options, job);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_TRUE(back->notes.empty()) << back->notes[0];
    for (const Node& n : back->model->graph->nodes()) EXPECT_EQ(n.opaque_reason, "") << n.name;
    const auto screen = *exec::Runner::create(model.model, &model.quantizers);
    const auto file = *exec::Runner::create(back->model, nullptr);
    const at::Tensor x = code_input(*model.model, 8, 9);
    exec::RunHooks hooks;
    std::map<Site, at::Tensor> seen;
    hooks.quantize = [&](const Site& site, const at::Tensor& v) {
      const auto q = model.quantizers.find(site);
      return seen[site] = q == model.quantizers.end() ? v : exec::fake_quantize(v, q->second);
    };
    const auto want = screen->run({x}, hooks);
    const auto got = file->run_all({x});
    ASSERT_TRUE(want) << want.error().text();
    ASSERT_TRUE(got) << got.error().text();
    for (const auto& [site, held] : back->sites) {
      const at::Tensor codes = (*got)[static_cast<std::size_t>(back->model->graph->tensor(held.tensor))];
      ASSERT_TRUE(codes.defined()) << held.tensor;
      const at::Tensor values = (codes.to(at::kFloat) - held.zero_point[0]) * held.scale[0];
      const at::Tensor steps = ((values - seen.at(site).reshape(values.sizes())) / held.scale[0]).abs();
      const std::string where = model.model->graph->find(site.node)->name + " " + enum_text(site.kind);
      if (c.exact) {
        EXPECT_EQ(steps.max().item<float>(), 0) << where;
      } else {
        EXPECT_LE(steps.max().item<float>(), 1.01f) << where;
        EXPECT_LE(steps.gt(0.5).to(at::kFloat).mean().item<float>(), 0.02f) << where;
      }
    }
  }
}

// Everything of picture_net is on codes: float only at the ends.
TEST_F(QOperatorExport, NothingBetweenTheEndsIsFloat) {
  for (const bool outputs : {true, false}) {
    ASSERT_NO_FATAL_FAILURE(write(quantize_codes_of(picture_net(), {kW8, kU8, outputs})));
    const auto ops = operators(load());
    EXPECT_EQ(ops.at("QLinearConv"), 4) << "two convolutions, two Gemms";
    EXPECT_EQ(ops.at("QLinearAdd"), 1);
    EXPECT_EQ(ops.at("QLinearConcat"), 1);
    EXPECT_EQ(ops.at("QLinearAveragePool"), 1);
    EXPECT_EQ(ops.at("QuantizeLinear"), 1);
    EXPECT_EQ(ops.at("DequantizeLinear"), 1);
    EXPECT_FALSE(ops.count("Conv") || ops.count("Gemm") || ops.count("Relu"));
  }
}

TEST_F(QOperatorExport, ProductsHaveThreeForms) {
  struct Form {
    const char* option;
    const char* op;
    int count;
  };
  for (const Form f : {Form{"qlinearconv", "QLinearConv", 4}, {"qgemm", "QGemm", 2}}) {
    ASSERT_NO_FATAL_FAILURE(write(quantize_codes_of(picture_net(), {kW8, kU8}), {{"gemm", f.option}}));
    const auto proto = load();
    EXPECT_EQ(operators(proto).at(f.op), f.count);
    bool microsoft = false;
    for (const auto& o : proto.opset_import()) microsoft = microsoft || o.domain() == "com.microsoft";
    EXPECT_TRUE(microsoft);
    EXPECT_EQ(proto.opset_import(0).version(), 13);
    EXPECT_EQ(proto.ir_version(), 7);
  }
  const auto refusals = exporter().check(quantize_codes_of(picture_net(), {kW8, kU8}), {{"gemm", "qlinearmatmul"}});
  ASSERT_EQ(refusals.size(), 2u);
  EXPECT_EQ(refusals[0].rule, "operator");
  // Without a bias it is the one form of a MatMul.
  ASSERT_NO_FATAL_FAILURE(write(quantize_codes_of(token_net(), {kW8, kU8}), json::object()));
  EXPECT_EQ(operators(load()).at("QLinearMatMul"), 3);
}

// Relu folds into a range that ends at the zero point, and is a Clip of codes elsewhere.
TEST_F(QOperatorExport, ReluFoldsIntoTheRange) {
  ASSERT_NO_FATAL_FAILURE(write(quantize_codes_of(picture_net(), {kW8, kU8})));
  std::set<std::string> names;
  const onnx::ModelProto folded = load();
  for (const auto& n : folded.graph().node()) names.insert(n.name());
  EXPECT_FALSE(names.count("relu1"));
  EXPECT_FALSE(names.count("clip")) << "the range of the codes ends at its limits";
  const QuantizedModel model = quantize_codes_of(picture_net(), {kW8, kS8});
  ASSERT_NO_FATAL_FAILURE(write(model));
  onnx::ModelProto proto = load();
  bool found = false;
  for (auto& n : *proto.mutable_graph()->mutable_node())
    if (n.name() == "relu1") {
      EXPECT_EQ(n.op_type(), "Clip");
      found = true;
      n.set_input(1, n.input(2));
    }
  EXPECT_TRUE(found);
  EXPECT_EQ(unequal(model), "");
  store(proto);
  EXPECT_NE(unequal(model), "") << "another limit";
}

struct Refused {
  const char* name;
  const char* layer;
  const char* rule;
  std::function<void(QuantizedModel&)> spoil;
};

quant::QuantParams& at_site(QuantizedModel& m, const char* node, SiteKind kind) {
  return m.quantizers.at({m.model->graph->find(node)->id, kind, 0});
}
void drop(QuantizedModel& m, const char* node, SiteKind kind) {
  m.quantizers.erase({m.model->graph->find(node)->id, kind, 0});
}

TEST_F(QOperatorExport, RefusalsNameLayerRuleAndFix) {
  const Refused rows[] = {
      {"no output", "fc2", "missing quantizer", [](auto& m) { drop(m, "fc2", SiteKind::kOutput); }},
      {"no bias", "fc1", "missing quantizer", [](auto& m) { drop(m, "fc1", SiteKind::kBias); }},
      {"no weight", "depthwise", "missing quantizer", [](auto& m) { drop(m, "depthwise", SiteKind::kWeight); }},
      {"no input", "conv1", "missing quantizer", [](auto& m) { drop(m, "conv1", SiteKind::kInput); }},
      {"a bias of another scale", "fc1", "scale of a bias", [](auto& m) { at_site(m, "fc1", SiteKind::kBias).scale[0] *= 2; }},
      {"a bias with a scale of its own", "fc1", "scale of a bias",
       [](auto& m) { at_site(m, "fc1", SiteKind::kBias).spec.scale_from_accumulator = false; }},
      {"uint8 weight of int8 input", "conv1", "types of a product",
       [](auto& m) {
         auto& w = at_site(m, "conv1", SiteKind::kWeight);
         w.spec.is_signed = false;
         auto& x = at_site(m, "conv1", SiteKind::kInput);
         x.spec.is_signed = true;
         x.zero_point = {0};
       }},
      {"9 bits", "conv1", "bit width", [](auto& m) { at_site(m, "conv1", SiteKind::kInput).spec.bits = 9; }},
      {"per channel", "fc1", "granularity", [](auto& m) { at_site(m, "fc1", SiteKind::kInput).spec.granularity = kChannel; }},
      {"minifloat", "fc1", "number format",
       [](auto& m) {
         auto& p = at_site(m, "fc1", SiteKind::kInput);
         p.spec.format = "float";
         p.spec.zero_point = kNone;
         p.zero_point.clear();
       }},
      {"fractional zero point", "fc1", "zero point",
       [](auto& m) {
         auto& p = at_site(m, "fc1", SiteKind::kInput);
         p.spec.zero_point = ZeroPointType::kFloat;
         p.zero_point = {0.5f};
       }},
      {"zero point inside", "fc1", "place of the zero point",
       [](auto& m) { at_site(m, "fc1", SiteKind::kInput).spec.zero_point_inside = true; }},
      {"rounding", "fc1", "rounding", [](auto& m) { at_site(m, "fc1", SiteKind::kInput).spec.rounding = Rounding::kFloor; }},
      {"dynamic, in front of no product", "add", "scale source",
       [](auto& m) {
         auto& p = at_site(m, "add", SiteKind::kInput);
         p.spec.source = ScaleSource::kDynamic;
         p.scale.clear();
         p.zero_point.clear();
       }},
      {"unsigned bias", "fc1", "sign",
       [](auto& m) {
         auto& p = at_site(m, "fc1", SiteKind::kBias);
         p.spec.is_signed = false;
         p.lo = 0;
       }},
      {"scale 0", "fc1", "scale", [](auto& m) { at_site(m, "fc1", SiteKind::kInput).scale[0] = 0; }},
      {"weight zero points by channel", "conv1", "zero point",
       [](auto& m) {
         auto& p = at_site(m, "conv1", SiteKind::kWeight);
         p.spec.zero_point = kInteger;
         p.zero_point.assign(p.scale.size(), 0);
         p.zero_point[1] = 3;
       }},
  };
  const QuantizedModel good = quantize_codes_of(picture_net(), {kW8, kU8});
  for (const Refused& r : rows) {
    SCOPED_TRACE(r.name);
    QuantizedModel model = good;
    r.spoil(model);
    const auto refusals = exporter().check(model, json::object());
    ASSERT_FALSE(refusals.empty());
    bool found = false;
    for (const Refusal& f : refusals) {
      found = found || (f.layer == r.layer && f.rule == r.rule);
      EXPECT_FALSE(f.got.empty() || f.allowed.empty() || f.suggestion.empty()) << f.text();
      if (f.rule == "missing quantizer") {
        EXPECT_TRUE(f.fix);
      }
    }
    EXPECT_TRUE(found) << refusals[0].text();
  }
}

// Shapes and attributes that the operators on codes do not have.
TEST_F(QOperatorExport, ProductsThatHaveNoFormAreRefused) {
  for (const char* which : {"bias by row", "alpha"}) {
    SCOPED_TRACE(which);
    const bool rows = std::string(which) == "bias by row";
    NetBuilder n("gemm", {16, 4});
    const QuantizedModel model = quantize_codes_of(
        n.done(n.node("Gemm", "fc", {"x", n.weight("w", {4, 5}), n.weight("b", rows ? Shape{16, 5} : Shape{5})}, {16, 5},
                      rows ? Attributes{} : Attributes{{"alpha", 0.5f}})),
        {spec(8, true, true, kNone, kTensor), kU8});
    const auto refusals = exporter().check(model, json::object());
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, "operator");
    ASSERT_NO_FATAL_FAILURE(write(model, {{"mixed", true}}));
    EXPECT_EQ(unequal(model), "");
    EXPECT_EQ(operators(load()).at("Gemm"), 1);
  }
}

// The quantizers of the readers are enough, as long as they are one.
TEST_F(QOperatorExport, AnOutputTakesTheQuantizerOfItsReaders) {
  QuantizedModel model = quantize_codes_of(curve_net(), {kW8, kU8, false});
  EXPECT_TRUE(exporter().check(model, json::object()).empty());
  at_site(model, "leaky", SiteKind::kInput).scale[0] *= 2;  // of what mul gives: one reader alone
  EXPECT_TRUE(exporter().check(model, json::object()).empty());
  // What the convolution gives is read twice: with two scales it has none of its own.
  at_site(model, "mul", SiteKind::kInput).scale[0] *= 2;
  const auto refusals = exporter().check(model, json::object());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].layer, "conv");
  EXPECT_EQ(refusals[0].quantizer, "output");
  ASSERT_NO_FATAL_FAILURE(write(model, {{"mixed", true}}));
  EXPECT_EQ(unequal(model), "");
  EXPECT_EQ(operators(load()).at("Conv"), 1);
}

TEST_F(QOperatorExport, MixedFilesKeepStoredCodes) {
  QuantizedModel model = quantize_codes_of(picture_net(), {kW8, kU8});
  drop(model, "fc2", SiteKind::kOutput);
  EXPECT_FALSE(exporter().check(model, json::object()).empty());
  ASSERT_NO_FATAL_FAILURE(write(model, {{"mixed", true}}));
  EXPECT_EQ(unequal(model), "");
  const auto proto = load();
  EXPECT_EQ(operators(proto).at("Gemm"), 1);
  for (const auto& t : proto.graph().initializer())
    if (t.name() == "fc2.w_codes") {
      EXPECT_EQ(t.data_type(), 3);
    }
}

struct Tamper {
  const char* name;
  std::function<void(onnx::ModelProto&)> change;
};
onnx::NodeProto& node_of(onnx::ModelProto& m, const std::string& name) {
  for (auto& n : *m.mutable_graph()->mutable_node())
    if (n.name() == name) return n;
  throw std::runtime_error("no node " + name);
}
void flip(onnx::ModelProto& m, const std::string& name) {
  for (auto& t : *m.mutable_graph()->mutable_initializer())
    if (t.name() == name) {
      (*t.mutable_raw_data())[0] ^= 1;
      return;
    }
  throw std::runtime_error("no tensor " + name);
}

TEST_F(QOperatorExport, AuditSeesEveryTampering) {
  const QuantizedModel model = quantize_codes_of(picture_net(), {kW8, spec(6, true, false, kNone, kTensor)});
  ASSERT_NO_FATAL_FAILURE(write(model));
  ASSERT_EQ(unequal(model), "");
  const onnx::ModelProto good = load();
  const Tamper tampers[] = {
      {"a weight's code", [](auto& m) { flip(m, "conv1.w_codes"); }},
      {"a bias' code", [](auto& m) { flip(m, "fc1.b_codes"); }},
      {"a weight's scale", [](auto& m) { flip(m, "fc1.w_scale"); }},
      {"the input's scale", [](auto& m) { flip(m, "x_scale"); }},
      {"the scale at a node alone", [](auto& m) { node_of(m, "fc1").set_input(1, "x_scale"); }},
      {"the scale of a result", [](auto& m) { node_of(m, "depthwise").set_input(6, "x_scale"); }},
      {"the zero point of a result", [](auto& m) { node_of(m, "add").set_input(7, "conv1.w_zero_point"); }},
      {"a narrow result without its Clip", [](auto& m) { node_of(m, "concat").set_input(2, "add.y_codes_wide"); }},
      {"the wrong tensor", [](auto& m) { node_of(m, "add").set_input(3, node_of(m, "concat").output(0)); }},
      {"a layer is gone", [](auto& m) { node_of(m, "fc2").set_name("other"); }},
      {"the Relu of the network", [](auto& m) { node_of(m, "relu1").set_input(1, node_of(m, "relu1").input(2)); }},
  };
  for (const Tamper& t : tampers) {
    SCOPED_TRACE(t.name);
    onnx::ModelProto proto = good;
    t.change(proto);
    store(proto);
    EXPECT_NE(unequal(model), "");
  }
}

TEST_F(QOperatorExport, FilesComeBackAsTheirRecipe) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  for (const CodeCase& c : code_cases()) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = quantize_codes_of(c.net(), c.formats);
    ASSERT_NO_FATAL_FAILURE(write(model, c.options));
    ImportOptions options;
    options.quantizers = FileQuantizers::kRules;
    const auto rules = import_file(path(), options, job);
    ASSERT_TRUE(rules) << rules.error().text();
    ASSERT_TRUE(rules->recipe);
    for (const Node& n : rules->model.graph->nodes())
      EXPECT_TRUE(n.op.find("QLinear") == std::string::npos && n.op != "QGemm") << n.op;
  }
}

TEST_F(QOperatorExport, WeightsBesideTheFileAndFailedWrites) {
  const QuantizedModel model = quantize_codes_of(picture_net(), {kW8, kU8});
  ASSERT_TRUE(write_file_atomically(path(), "old"));
  JobContext job;
  EXPECT_FALSE(exporter().write(model, path("no/folder/out.onnx"), json::object(), job));
  std::stop_source stop;
  stop.request_stop();
  JobContext stopped(stop.get_token());
  EXPECT_FALSE(exporter().write(model, path(), json::object(), stopped));
  EXPECT_EQ(*read_file(path()), "old");
  const json options = {{"external_data", "always"}};
  ASSERT_NO_FATAL_FAILURE(write(model, options));
  EXPECT_EQ(exporter().files(path(), options).size(), 2u);
  EXPECT_EQ(unequal(model), "");
}

TEST_F(QOperatorExport, DamagedFilesAreErrorsOrUnequalNeverACrash) {
  std::mt19937 generator(6);
  JobContext job;
  const QuantizedModel model = quantize_codes_of(picture_net(), {kW8, kU8});
  ASSERT_NO_FATAL_FAILURE(write(model));
  const std::string good = *read_file(path());
  for (std::size_t keep = 0; keep < good.size(); keep += good.size() / 37) {
    std::ofstream(path(), std::ios::binary) << good.substr(0, keep);
    EXPECT_NE(unequal(model), "") << keep;
    (void)exporter().read(model, path(), json::object(), job);
  }
  for (int i = 0; i < 150; ++i) {
    std::string bad = good;
    for (int k = 0; k < 8; ++k) bad[generator() % bad.size()] = static_cast<char>(generator());
    std::ofstream(path(), std::ios::binary) << bad;
    (void)unequal(model);
    (void)exporter().read(model, path(), json::object(), job);
  }
}

}  // namespace
}  // namespace quanvas
