// TorchScript: convolutions over three axes, curves on codes, and linear layers whose input finds its scale at run time.
#include "core/quant/dynamic.h"
#include "tests/plugins/import_quantized_support.h"
#include "tests/plugins/torchscript_codes_nets.h"

namespace quanvas {
namespace {

using namespace torchscript_export;
using export_net::code_input;
using export_net::found_at_run_time;
using export_net::quantize_at_run_time;
using export_net::set_at_run_time;

class TorchScriptCodes : public TorchScriptExportTest {
 protected:
  std::string code() const { return torch::jit::load(path()).dump_to_str(true, false, false); }

  // shape: of the input x, which a pad has to know.
  import_test::Opened reopened(const Shape& shape = {}) const {
    import_test::Opened out;
    JobContext job({}, {}, [&](const Issue& i) { out.issues.push_back(i); });
    ImportOptions options;
    options.quantizers = FileQuantizers::kRules;
    options.trusted = kTrustAny;
    if (!shape.empty()) options.shapes["x"] = shape;
    out.file = import_file(path(), options, job);
    return out;
  }
};

TEST_F(TorchScriptCodes, LayersAndCurvesRunOnCodes) {
  struct Row {
    const char* name;
    ModelPtr (*net)();
    std::vector<const char*> operators;
  };
  const Row rows[] = {
      {"curves", curves_net,
       {"quantized::leaky_relu(", "quantized::hardswish(", "quantized::elu(", "quantized::sigmoid(", "aten::tanh("}},
      {"volume", volume_net, {"quantized::conv3d_relu(", "quantized::conv3d("}}};
  for (const Row& r : rows)
    for (const bool power_of_two : {true, false}) {
      SCOPED_TRACE(std::string(r.name) + (power_of_two ? ", powers of two" : ""));
      QuantizedModel model = on_codes(r.net(), power_of_two);
      ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
      const std::string text = code();
      for (const char* op : r.operators) EXPECT_NE(text.find(op), std::string::npos) << op << "\n" << text;
      // Float only at the ends.
      static constexpr const char* kQuantize = "aten::quantize_per_tensor(";
      std::size_t quantizes = 0;
      for (std::size_t at = text.find(kQuantize); at != std::string::npos; at = text.find(kQuantize, at + 1))
        ++quantizes;
      EXPECT_EQ(quantizes, 1u) << text;
      const auto rows_of = audit(kPacked, model);
      EXPECT_TRUE(all_equal(rows_of)) << text_of(rows_of);
      EXPECT_EQ(rows_of.size(), model.quantizers.size());
      JobContext job;
      const auto back = exporter(kPacked).read(model, path(), complete(kPacked, json::object()), job);
      ASSERT_TRUE(back) << back.error().text();
      const at::Tensor x = code_input(*model.model, 64, 17);
      const at::Tensor wanted = screen(model, {x})[0], libtorchs = libtorch({x})[0], files = run(back->model, {x})[0];
      const double step = at_site(model, r.net == curves_net ? "tanh" : "conv2", SiteKind::kOutput).scale[0];
      const Steps to_file = steps_between(wanted, files, step), to_libtorch = steps_between(wanted, libtorchs, step);
      EXPECT_LE(to_file.most, power_of_two ? 0 : 1);
      // A step of one layer can be several of a curve behind it, whose steps are finer: each curve alone is the next test's. With
      // powers of two sums lie on ties, and oneDNN adds odd zero points before it rounds.
      if (r.net != curves_net) EXPECT_LE(to_libtorch.most, 1);
      EXPECT_LE(to_libtorch.differing * 50, to_libtorch.values) << to_libtorch.differing;
      const Graph& graph = *model.model->graph;
      const auto again = reopened(*graph.tensor(graph.inputs()[0]).shape);
      ASSERT_TRUE(again.file) << again.file.error().text();
      for (const std::string& op : again.ops()) EXPECT_EQ(op.find("uantizeLinear"), std::string::npos) << again.all_issues();
      const auto got = import_test::run(again, {x});
      ASSERT_TRUE(got) << got.error().text();
      EXPECT_LE(steps_between(wanted, (*got)[0], step).most, 1);
    }
}

TEST_F(TorchScriptCodes, EachCurveIsAtMostAStepApart) {
  struct Row {
    const char* op;
    double scale;  // 0: any
    double zero;
  };
  for (const Row& r : {Row{"LeakyRelu", 0, 0}, Row{"HardSwish", 0, 0}, Row{"Elu", 0, 0}, Row{"Sigmoid", 1.0 / 256, 0}, Row{"Tanh", 1.0 / 128, 128}}) {
    SCOPED_TRACE(r.op);
    QuantizedModel model = on_codes(curve_net(r.op), false);
    quant::QuantParams& out = at_site(model, "curve", SiteKind::kOutput);
    if (r.scale > 0) set_codes(out, static_cast<float>(r.scale), static_cast<float>(r.zero));
    ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
    EXPECT_EQ(code().find("aten::dequantize"), code().rfind("aten::dequantize")) << "once, at the end";
    const at::Tensor x = code_input(*model.model, 64, 17);
    const Steps apart = steps_between(screen(model, {x})[0], libtorch({x})[0], out.scale[0]);
    EXPECT_LE(apart.most, 1);
    EXPECT_LE(apart.differing * 100, apart.values) << apart.differing;
  }
}

// QNNPACK computes them, but does not read their packed parameters from a file.
TEST_F(TorchScriptCodes, VolumesAreRefusedForQnnpackAndRelay) {
  const QuantizedModel model = on_codes(volume_net(), false);
  EXPECT_TRUE(check(kPacked, model).empty());
  for (const char* profile : {"qnnpack", "relay"}) {
    const auto refusals = check(kPacked, model, {{"profile", profile}});
    ASSERT_EQ(refusals.size(), 2u) << profile;
    EXPECT_EQ(refusals[0].rule, "operator");
    EXPECT_EQ(refusals[0].layer, "conv1");
    EXPECT_TRUE(check(kPacked, on_codes(curves_net(), false), {{"profile", "qnnpack"}}).empty());
  }
}

// Sigmoid and Tanh on codes have one scale; with another they run in float, and every engine can.
TEST_F(TorchScriptCodes, CurvesOfAnotherScaleStayFloat) {
  QuantizedModel model = on_codes(curves_net(), false);
  set_codes(at_site(model, "sigmoid", SiteKind::kOutput), 0.005f, 0);
  set_codes(at_site(model, "tanh", SiteKind::kOutput), 1.0f / 128, 127);
  ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
  const std::string text = code();
  EXPECT_EQ(text.find("quantized::sigmoid("), std::string::npos);
  EXPECT_NE(text.find("aten::sigmoid("), std::string::npos);
  EXPECT_NE(text.find("quantized::elu("), std::string::npos);
  EXPECT_TRUE(all_equal(audit(kPacked, model)));
  const at::Tensor x = code_input(*model.model, 16, 3);
  EXPECT_LE(steps_between(screen(model, {x})[0], libtorch({x})[0], 1.0 / 128).most, 1);
}

TEST_F(TorchScriptCodes, AnotherNumberInTheFileIsSeen) {
  const QuantizedModel good = on_codes(curves_net(), false);
  ASSERT_NO_FATAL_FAILURE(write(kPacked, good));
  ASSERT_TRUE(all_equal(audit(kPacked, good)));
  for (const char* layer : {"leaky", "swish", "elu"}) {
    QuantizedModel other = good;
    at_site(other, layer, SiteKind::kOutput).scale[0] *= 1.5f;
    EXPECT_FALSE(all_equal(audit(kPacked, other))) << layer;
    other = good;
    at_site(other, layer, SiteKind::kOutput).zero_point[0] += 1;
    EXPECT_FALSE(all_equal(audit(kPacked, other))) << layer;
  }
}

TEST_F(TorchScriptCodes, LinearLayersFindTheirScaleAtRunTime) {
  const c10::InferenceMode no_gradient;
  for (const QuantSpec& weight :
       {spec(8, true, true, kNone, kChannel), spec(8, true, false, kNone, kTensor), spec(4, true, true, kNone, kChannel)}) {
    const QuantizedModel model = quantize_at_run_time(rows_net(), weight);
    ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
    const std::string text = code();
    EXPECT_NE(text.find("quantized::linear_dynamic("), std::string::npos) << text;
    EXPECT_EQ(text.find("quantize_per_tensor"), std::string::npos);
    const auto rows = audit(kPacked, model);
    EXPECT_TRUE(all_equal(rows)) << text_of(rows);
    JobContext job;
    const auto back = exporter(kPacked).read(model, path(), complete(kPacked, json::object()), job);
    ASSERT_TRUE(back) << back.error().text();
    EXPECT_EQ(back->sites.size(), 3u);
    const at::Tensor all = code_input(*model.model, 40, 8);
    for (std::int64_t i = 0; i < all.size(0); ++i) {
      const at::Tensor x = all.narrow(0, i, 1);
      const at::Tensor wanted = screen(model, {x})[0];
      // A value near the middle of two codes may get the other one, as everywhere in LibTorch.
      EXPECT_LT(import_test::difference(libtorch({x})[0], wanted), 0.03);
      EXPECT_LT(import_test::difference(run(back->model, {x})[0], wanted), 0.03);
    }
    const auto again = reopened();
    ASSERT_TRUE(again.file) << again.file.error().text();
    const auto quantizers = import_test::quantizers_of(*again.file);
    ASSERT_TRUE(quantizers) << quantizers.error().text();
    std::size_t dynamic = 0;
    for (const auto& [site, p] : *quantizers) dynamic += quant::is_dynamic(p);
    EXPECT_EQ(dynamic, 3u) << again.all_issues();
    const auto got = import_test::run(again, {all});
    ASSERT_TRUE(got) << got.error().text();
    EXPECT_LT(import_test::difference((*got)[0], screen(model, {all})[0]), 0.03);
    // The file says that it is not of that kind.
    QuantizedModel other = model;
    at_site(other, "first", SiteKind::kWeight).scale[0] *= 2;
    EXPECT_FALSE(all_equal(audit(kPacked, other)));
  }
}

TEST_F(TorchScriptCodes, OtherFormulasAndLayersAreRefused) {
  struct Refused {
    const char* name;
    const char* rule;
    std::function<void(QuantizedModel&)> spoil;
  };
  const auto other = [](void (*change)(QuantSpec&)) {
    return [change](QuantizedModel& m) {
      QuantSpec s = found_at_run_time();
      change(s);
      set_at_run_time(m, {"first"}, s);
    };
  };
  const Refused rows[] = {
      {"signed", "sign", other([](QuantSpec& s) { s.is_signed = true; })},
      {"symmetric", "zero point", other([](QuantSpec& s) { s.zero_point = kNone; })},
      {"7 bits", "bit width", other([](QuantSpec& s) { s.bits = 7; })},
      {"rows", "granularity", other([](QuantSpec& s) { s.granularity = Granularity::kRow; })},
      {"power of two", "scale type", other([](QuantSpec& s) { s.scale = ScaleType::kPowerOfTwo; })},
      {"percentile", "statistic", other([](QuantSpec& s) { s.statistic = Statistic::kPercentile; })},
      {"a range without 0", "statistic", other([](QuantSpec& s) { s.zero_in_range = false; })},
      {"a float weight", "operator",
       [](QuantizedModel& m) { m.quantizers.erase({node_of(m, "first").id, SiteKind::kWeight, 0}); }},
      {"a bias of integers", "scale of a bias",
       [](QuantizedModel& m) {
         QuantSpec s = spec(32, true, false, kNone, kTensor);
         s.scale_from_accumulator = true;
         m.quantizers[{node_of(m, "first").id, SiteKind::kBias, 0}] =
             *quant::bias_params(s, 0.01f, at_site(m, "first", SiteKind::kWeight).scale, {16}, 0);
       }}};
  const QuantizedModel good = quantize_at_run_time(rows_net(), spec(8, true, true, kNone, kChannel));
  for (const Refused& r : rows) {
    SCOPED_TRACE(r.name);
    QuantizedModel model = good;
    r.spoil(model);
    const auto refusals = check(kPacked, model);
    ASSERT_FALSE(refusals.empty());
    EXPECT_TRUE(std::any_of(refusals.begin(), refusals.end(),
                            [&](const Refusal& f) { return f.layer == "first" && f.rule == r.rule; }))
        << refusals[0].text();
  }
  // A convolution has no such operator.
  const auto refusals = check(kPacked, quantize_at_run_time(volume_net(), spec(8, true, true, kNone, kChannel)));
  ASSERT_FALSE(refusals.empty());
  EXPECT_EQ(refusals[0].rule, "scale source");
}

}  // namespace
}  // namespace quanvas
