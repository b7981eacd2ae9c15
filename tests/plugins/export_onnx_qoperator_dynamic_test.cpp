// ONNX QOperator: layers whose input finds its scale at run time, as ConvInteger and MatMulInteger.
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "core/base/files.h"
#include "core/workflow/export_proof.h"
#include "tests/plugins/export_dynamic_nets.h"
#include "tests/plugins/import_quantized_support.h"
#include "tests/plugins/onnx_file_test.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using namespace export_net;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;

const QuantSpec kW8 = spec(8, true, true, kNone, kChannel), kU8 = spec(8, false, false, kInteger, kTensor);

class RunTimeScales : public OnnxFileTest {
 protected:
  RunTimeScales() : OnnxFileTest("onnx-qoperator") {}
};

const onnx::NodeProto* find(const onnx::ModelProto& m, const std::string& name) {
  for (const auto& n : m.graph().node())
    if (n.name() == name) return &n;
  return nullptr;
}
int count(const onnx::ModelProto& m, const std::string& op) {
  int n = 0;
  for (const auto& node : m.graph().node()) n += node.op_type() == op;
  return n;
}
const onnx::TensorProto* tensor(const onnx::ModelProto& m, const std::string& name) {
  for (const auto& t : m.graph().initializer())
    if (t.name() == name) return &t;
  return nullptr;
}

// Sample by sample: what goes into the first layers has the screen's values to the bit; behind them stand float sums of
// another order, so a value may fall to the other side of a tie.
TEST_F(RunTimeScales, EveryCaseIsAuditedAndComputesTheScreensNumbers) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  for (const RunTimeCase& c : run_time_cases()) {
    SCOPED_TRACE(c.name);
    ASSERT_NO_FATAL_FAILURE(write(c.model));
    EXPECT_EQ(unequal(c.model), "");
    const auto back = exporter().read(c.model, path(), json::object(), job);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_TRUE(back->notes.empty()) << back->notes[0];
    for (const Node& n : back->model->graph->nodes()) EXPECT_EQ(n.opaque_reason, "") << n.name;
    const auto screen = *exec::Runner::create(c.model.model, &c.model.quantizers);
    const auto file = *exec::Runner::create(back->model, nullptr);
    const at::Tensor all = code_input(*c.model.model, 6, 9);
    std::size_t dynamic = 0;
    for (std::int64_t i = 0; i < all.size(0); ++i) {
      const at::Tensor x = all.narrow(0, i, 1);
      exec::RunHooks hooks;
      std::map<Site, at::Tensor> seen, raw;
      hooks.quantize = [&](const Site& site, const at::Tensor& v) {
        const auto q = c.model.quantizers.find(site);
        raw[site] = v;
        return seen[site] = q == c.model.quantizers.end() ? v : exec::fake_quantize(v, q->second);
      };
      const auto want = screen->run({x}, hooks);
      const auto got = file->run_all({x});
      ASSERT_TRUE(want) << want.error().text();
      ASSERT_TRUE(got) << got.error().text();
      for (const auto& [site, held] : back->sites) {
        if (!held.scale.empty()) continue;
        ++dynamic;
        const at::Tensor values = (*got)[static_cast<std::size_t>(back->model->graph->tensor(held.tensor))];
        ASSERT_TRUE(values.defined()) << held.tensor;
        const at::Tensor shown = seen.at(site);
        const float step = (raw.at(site).max().clamp_min(0) - raw.at(site).min().clamp_max(0)).item<float>() / 255;
        const std::string where = c.model.model->graph->find(site.node)->name;
        if (c.model.model->graph->find(site.node)->input(0) == c.model.model->graph->inputs()[0]) {
          EXPECT_TRUE(at::equal(values, shown)) << where;
        } else {
          EXPECT_LE((values - shown).abs().max().item<float>(), 1.02f * step) << where;
          EXPECT_LE((values - shown).abs().gt(0.5f * step).to(at::kFloat).mean().item<float>(), 0.02f) << where;
        }
      }
      const auto y = (*got)[static_cast<std::size_t>(back->model->graph->outputs()[0])];
      EXPECT_LT(import_test::difference(y, (*want)[0]), 0.02);
    }
    EXPECT_GE(dynamic, 12u);
  }
}

// One layer: the sums are those of the codes, and the result is the screen's but for the rounding of float sums.
TEST_F(RunTimeScales, SumsAreThoseOfTheCodes) {
  const c10::InferenceMode no_gradient;
  JobContext job;
  for (const bool picture : {true, false}) {
    NetBuilder n("one", picture ? Shape{-1, 4, 9, 7} : Shape{-1, 30});
    const ModelPtr net =
        picture ? n.done(n.node("Conv", "layer", {"x", n.weight("w", {6, 2, 3, 2}), n.weight("b", {6})}, {-1, 6, 5, 4},
                                {{"kernel_shape", Ints{3, 2}},
                                 {"pads", Ints{1, 0, 1, 1}},
                                 {"strides", Ints{2, 2}},
                                 {"group", std::int64_t{2}}}))
                : n.done(n.node("Gemm", "layer", {"x", n.weight("w", {6, 30}), n.weight("b", {6})}, {-1, 6},
                                {{"transB", std::int64_t{1}}}));
    const QuantizedModel model = quantize_at_run_time(net, kW8);
    ASSERT_NO_FATAL_FAILURE(write(model));
    EXPECT_EQ(unequal(model), "");
    const onnx::ModelProto proto = load();
    EXPECT_EQ(find(proto, "layer")->op_type(), picture ? "ConvInteger" : "MatMulInteger");
    const auto back = exporter().read(model, path(), json::object(), job);
    ASSERT_TRUE(back) << back.error().text();
    const auto screen = *exec::Runner::create(net, &model.quantizers);
    const auto file = *exec::Runner::create(back->model, nullptr);
    for (std::int64_t i = 0; i < 20; ++i) {
      // A range that does not reach 0, and one of zeros alone, are widened and have a scale.
      at::Tensor x = code_input(*net, 1, static_cast<std::uint64_t>(i)) + static_cast<double>(i % 4);
      if (i == 19) x.zero_();
      const auto want = screen->run({x}), got = file->run({x});
      ASSERT_TRUE(want && got);
      EXPECT_LT(import_test::difference((*got)[0], (*want)[0]), 2e-6) << i;
    }
  }
}

TEST_F(RunTimeScales, TheFileIsForOneSampleAndHasNoFloatLayer) {
  ASSERT_NO_FATAL_FAILURE(write(quantize_at_run_time(picture_net(), kW8)));
  const onnx::ModelProto m = load();
  EXPECT_EQ(m.graph().input(0).type().tensor_type().shape().dim(0).dim_value(), 1);
  EXPECT_EQ(m.graph().output(0).type().tensor_type().shape().dim(0).dim_value(), 1);
  EXPECT_EQ(count(m, "ConvInteger"), 2);
  EXPECT_EQ(count(m, "MatMulInteger"), 2);
  EXPECT_EQ(count(m, "DynamicQuantizeLinear"), 4);
  EXPECT_EQ(count(m, "Conv") + count(m, "Gemm"), 0);
  // onnxruntime's ConvInteger was long uint8 alone; its MatMulInteger takes int8.
  EXPECT_EQ(tensor(m, "conv1.w_codes")->data_type(), onnx::TensorProto::UINT8);
  EXPECT_EQ(tensor(m, find(m, "conv1")->input(3))->raw_data(), std::string(1, static_cast<char>(128)));
  EXPECT_EQ(tensor(m, "fc1.w_codes")->data_type(), onnx::TensorProto::INT8);
  EXPECT_EQ(tensor(m, "fc1.w_codes")->dims(0), 64) << "[inputs, outputs]";
  // Two readers of one tensor share its codes.
  ASSERT_NO_FATAL_FAILURE(write(quantize_at_run_time(token_net(), kW8)));
  EXPECT_EQ(count(load(), "DynamicQuantizeLinear"), 2) << "x is read twice";
}

struct Refused {
  const char* name;
  const char* layer;
  const char* rule;
  std::function<void(QuantizedModel&)> spoil;
  bool has_fix = true;
};

TEST_F(RunTimeScales, RefusalsNameLayerRuleAndFix) {
  const auto other = [](const char* layer, void (*change)(QuantSpec&)) {
    return [layer, change](QuantizedModel& m) {
      QuantSpec s = found_at_run_time();
      change(s);
      set_at_run_time(m, {layer}, s);
    };
  };
  const auto site = [](QuantizedModel& m, const char* layer, SiteKind kind) -> quant::QuantParams& {
    return m.quantizers.at({m.model->graph->find(layer)->id, kind, 0});
  };
  const Refused rows[] = {
      {"signed", "fc1", "sign", other("fc1", [](QuantSpec& s) { s.is_signed = true; })},
      {"symmetric", "fc1", "zero point", other("fc1", [](QuantSpec& s) { s.zero_point = kNone; })},
      {"narrow", "conv1", "range of codes", other("conv1", [](QuantSpec& s) { s.narrow = true; })},
      {"7 bits", "conv1", "bit width", other("conv1", [](QuantSpec& s) { s.bits = 7; })},
      {"rows", "fc1", "granularity", other("fc1", [](QuantSpec& s) { s.granularity = Granularity::kRow; })},
      {"channels", "conv1", "granularity", other("conv1", [](QuantSpec& s) { s.granularity = kChannel; })},
      {"power of two", "conv1", "scale type", other("conv1", [](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; })},
      {"rounding", "conv1", "rounding", other("conv1", [](QuantSpec& s) { s.rounding = Rounding::kHalfAway; })},
      {"zero point inside", "conv1", "place of the zero point", other("conv1", [](QuantSpec& s) { s.zero_point_inside = true; })},
      {"percentile", "conv1", "statistic", other("conv1", [](QuantSpec& s) { s.statistic = Statistic::kPercentile; })},
      {"a range without 0", "conv1", "statistic", other("conv1", [](QuantSpec& s) { s.zero_in_range = false; })},
      {"fixed limits", "conv1", "statistic", other("conv1", [](QuantSpec& s) { s.clip_min = -1, s.clip_max = 1; })},
      {"at the input of a sum", "add", "scale source", other("add", [](QuantSpec&) {})},
      {"at an output", "fc2", "scale source",
       [](QuantizedModel& m) {
         m.quantizers[{m.model->graph->find("fc2")->id, SiteKind::kOutput, 0}] = *quant::dynamic_params(found_at_run_time(), 1);
       }},
      {"a float weight", "fc1", "missing quantizer",
       [](QuantizedModel& m) { m.quantizers.erase({m.model->graph->find("fc1")->id, SiteKind::kWeight, 0}); }},
      {"zero points by channel", "conv1", "zero point",
       [&](QuantizedModel& m) {
         auto& w = site(m, "conv1", SiteKind::kWeight);
         w.spec.zero_point = kInteger;
         w.zero_point.assign(w.scale.size(), 0);
         w.zero_point[1] = 3;
       }},
      {"a bias of integers", "fc1", "scale of a bias",
       [&](QuantizedModel& m) {
         QuantSpec s = spec(32, true, false, kNone, kTensor);
         s.scale_from_accumulator = true;
         m.quantizers[{m.model->graph->find("fc1")->id, SiteKind::kBias, 0}] =
             *quant::bias_params(s, 0.01f, site(m, "fc1", SiteKind::kWeight).scale, {10}, 0);
       },
       false},
  };
  const QuantizedModel good = quantize_at_run_time(picture_net(), kW8);
  ASSERT_TRUE(exporter().check(good, json::object()).empty());
  for (const Refused& r : rows) {
    SCOPED_TRACE(r.name);
    QuantizedModel model = good;
    r.spoil(model);
    const auto refusals = exporter().check(model, json::object());
    ASSERT_EQ(refusals.size(), 1u) << (refusals.empty() ? "" : refusals[0].text() + refusals.back().text());
    EXPECT_EQ(refusals[0].layer, r.layer);
    EXPECT_EQ(refusals[0].rule, r.rule) << refusals[0].text();
    EXPECT_FALSE(refusals[0].got.empty() || refusals[0].allowed.empty() || refusals[0].suggestion.empty());
    EXPECT_TRUE(r.has_fix ? refusals[0].fix.has_value() : refusals[0].float_fixes) << refusals[0].text();
    if (refusals[0].fix) {
      EXPECT_EQ(check(*refusals[0].fix, refusals[0].site->kind), "");
    }
  }
}

// What the integer operators do not have is refused, and with `mixed` stands in float between the same codes.
TEST_F(RunTimeScales, LayersWithoutAnIntegerForm) {
  struct Row {
    const char* name;
    std::function<std::string(NetBuilder&)> node;
    Shape input;
    const char* op;
  };
  const Row rows[] = {
      {"alpha",
       [](NetBuilder& n) { return n.node("Gemm", "layer", {"x", n.weight("w", {4, 5})}, {-1, 5}, {{"alpha", 0.5f}}); },
       {-1, 4},
       "Gemm"},
      {"a weight on the left", [](NetBuilder& n) { return n.node("MatMul", "layer", {n.weight("w", {3, 4}), "x"}, {-1, 3, 5}); },
       {-1, 4, 5}, "MatMul"},
      {"a weight of three dimensions",
       [](NetBuilder& n) { return n.node("MatMul", "layer", {"x", n.weight("w", {2, 4, 5})}, {-1, 2, 3, 5}); },
       {-1, 2, 3, 4},
       "MatMul"}};
  for (const Row& r : rows) {
    SCOPED_TRACE(r.name);
    NetBuilder n("net", r.input);
    const ModelPtr net = n.done(r.node(n));
    const QuantizedModel model = quantize_at_run_time(net, spec(8, true, true, kNone, kTensor));
    ASSERT_EQ(model.quantizers.size(), 2u);
    const auto refusals = exporter().check(model, json::object());
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].rule, "operator");
    ASSERT_NO_FATAL_FAILURE(write(model, {{"mixed", true}}));
    EXPECT_EQ(unequal(model), "");
    EXPECT_EQ(find(load(), "layer")->op_type(), r.op);
    EXPECT_EQ(count(load(), "DynamicQuantizeLinear"), 1);
    JobContext job;
    const auto back = exporter().read(model, path(), json::object(), job);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_TRUE(back->notes.empty());
    EXPECT_EQ(back->sites.size(), 1u);
  }
  // A batch of more than one sample has one scale for each here, and one for all there.
  NetBuilder n("batch", {4, 6});
  const QuantizedModel batch = quantize_at_run_time(n.done(n.node("MatMul", "layer", {"x", n.weight("w", {6, 5})}, {4, 5})), kW8);
  const auto refusals = exporter().check(batch, json::object());
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].rule, "samples");
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

TEST_F(RunTimeScales, AuditSeesEveryTampering) {
  QuantizedModel model = quantize_at_run_time(picture_net(), kW8);
  ASSERT_NO_FATAL_FAILURE(write(model));
  ASSERT_EQ(unequal(model), "");
  const onnx::ModelProto good = load();
  const Tamper tampers[] = {
      {"a code of a convolution", [](auto& m) { flip(m, "conv1.w_codes"); }},
      {"a code of a product", [](auto& m) { flip(m, "fc2.w_codes"); }},
      {"a scale", [](auto& m) { flip(m, "depthwise.w_scale"); }},
      {"the zero point of a weight", [](auto& m) { flip(m, node_of(m, "conv1").input(3)); }},
      {"the type of a zero point", [](auto& m) { node_of(m, "fc1").set_input(3, node_of(m, "conv1").input(3)); }},
      {"the bias", [](auto& m) { flip(m, "fc1.b"); }},
      {"a bias by channel", [](auto& m) { flip(m, "conv1.b_by_channel"); }},
      {"the wrong input", [](auto& m) { node_of(m, "quantize_" + std::string("flatten.y_dynamic")).set_input(0, "average.y"); }},
      {"the wrong zero point", [](auto& m) { node_of(m, "fc1").set_input(2, node_of(m, "fc2").input(2)); }},
      {"another run's scale", [](auto& m) { node_of(m, "fc1_scale").set_input(0, node_of(m, "fc2_scale").input(0)); }},
      {"a scale that is squared", [](auto& m) { node_of(m, "fc1_scale").set_input(1, node_of(m, "fc1_scale").input(0)); }},
      {"a scale of rows", [](auto& m) {
         for (auto& t : *m.mutable_graph()->mutable_initializer())
           if (t.name() == "fc1.w_scale") t.add_dims(1);
       }},
      {"no cast to float32", [](auto& m) { node_of(m, "conv1_real").mutable_attribute(0)->set_i(11); }},
      {"sums instead of products", [](auto& m) { node_of(m, "conv1_product").set_op_type("Add"); }},
      {"the bias is subtracted", [](auto& m) { node_of(m, "fc1_result").set_op_type("Sub"); }},
      {"the result of another name", [](auto& m) { node_of(m, "fc1_result").set_output(0, "elsewhere"); }},
      {"a layer is gone", [](auto& m) { node_of(m, "fc2").set_name("other"); }},
  };
  for (const Tamper& t : tampers) {
    SCOPED_TRACE(t.name);
    onnx::ModelProto proto = good;
    t.change(proto);
    store(proto);
    EXPECT_NE(unequal(model), "");
  }
}

// As any file of quantize_dynamic: a float network with inputs that find their scale at run time.
TEST_F(RunTimeScales, FilesComeBackAsTheirRecipe) {
  const c10::InferenceMode no_gradient;
  for (const RunTimeCase& c : run_time_cases()) {
    SCOPED_TRACE(c.name);
    ASSERT_NO_FATAL_FAILURE(write(c.model));
    const auto rules = import_test::open_file(path(), FileQuantizers::kRules);
    ASSERT_TRUE(rules.file) << rules.file.error().text();
    // A scale that is found at run time from codes is a second quantizer of one tensor: the first one may stay a node.
    const bool among_codes = std::string(c.name).find("two layers") != std::string::npos;
    for (const std::string& op : rules.ops())
      EXPECT_TRUE(op.find("Integer") == std::string::npos && op.find("QLinear") == std::string::npos &&
                  (among_codes || op.find("uantizeLinear") == std::string::npos))
          << op << "\n" << rules.all_issues();
    const auto after = import_test::quantizers_of(*rules.file);
    ASSERT_TRUE(after) << after.error().text();
    std::size_t dynamic = 0, asked = 0;
    for (const auto& [site, p] : *after) dynamic += quant::is_dynamic(p);
    for (const auto& [site, p] : c.model.quantizers) asked += quant::is_dynamic(p);
    EXPECT_EQ(dynamic, asked);
    const at::Tensor x = code_input(*c.model.model, 16, 4);
    const auto want = (*exec::Runner::create(c.model.model, &c.model.quantizers))->run({x});
    const auto got = import_test::run(rules, {x});
    ASSERT_TRUE(want && got) << (got ? "" : got.error().text());
    EXPECT_LT(import_test::difference((*got)[0], (*want)[0]), 0.02);
  }
}

// Samples of very different ranges: one scale for several of them would be another network.
class Ranges final : public Dataset {
 public:
  explicit Ranges(Shape shape) : shape_(std::move(shape)) {}
  std::int64_t size() const override { return 24; }
  Shape sample_shape() const override { return shape_; }
  bool has_labels() const override { return false; }
  Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t*) const override {
    for (const std::int64_t i : indices) {
      const std::vector<float> values =
          random_floats(shape_, static_cast<std::uint32_t>(50 + i), std::exp2(static_cast<float>(i % 6))).to_floats();
      out = std::copy(values.begin(), values.end(), out);
    }
    return {};
  }
  std::string hash() const override { return "ranges"; }

 private:
  Shape shape_;
};

TEST_F(RunTimeScales, TheProofTakesOneSampleAtATime) {
  JobContext job;
  for (const char* id : {"onnx-qoperator", "onnx-qdq"}) {
    SCOPED_TRACE(id);
    const Exporter& target = **Registry<Exporter>::instance().get(id, "target");
    const json options = *target.schema().complete(json::object(), id);
    NetBuilder n("one", {-1, 30});
    const ModelPtr net = n.done(n.node("Gemm", "layer", {"x", n.weight("w", {6, 30})}, {-1, 6}, {{"transB", std::int64_t{1}}}));
    const QuantizedModel model = quantize_at_run_time(net, kW8);
    ASSERT_TRUE(target.write(model, path(), options, job));
    const auto back = target.read(model, path(), options, job);
    ASSERT_TRUE(back) << back.error().text();
    ExportReport report;
    ASSERT_TRUE(prove_export(model, true, *back, Ranges({30}), 256, "cpu", report, job));
    EXPECT_EQ(report.checked_samples, 24);
    EXPECT_EQ(report.equal_predictions, 1);
    EXPECT_LT(report.max_output_difference, 1e-3) << "of results up to about 100";
    ASSERT_FALSE(report.nodes.empty());
    EXPECT_EQ(report.nodes[0].differing, 0) << report.nodes[0].what;
  }
}

TEST_F(RunTimeScales, FailedWritesLeaveTheOldFile) {
  const QuantizedModel model = quantize_at_run_time(picture_net(), kW8);
  ASSERT_TRUE(write_file_atomically(path(), "old"));
  std::stop_source stop;
  stop.request_stop();
  JobContext stopped(stop.get_token()), job;
  EXPECT_FALSE(exporter().write(model, path(), json::object(), stopped));
  EXPECT_FALSE(exporter().write(model, (folder_ / "no/folder.onnx").string(), json::object(), job));
  EXPECT_EQ(*read_file(path()), "old");
}

TEST_F(RunTimeScales, DamagedFilesAreErrorsOrUnequalNeverACrash) {
  std::mt19937 generator(6);
  JobContext job;
  const QuantizedModel model = quantize_at_run_time(picture_net(), kW8);
  ASSERT_NO_FATAL_FAILURE(write(model));
  const std::string good = *read_file(path());
  for (std::size_t keep = 0; keep < good.size(); keep += good.size() / 29) {
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
