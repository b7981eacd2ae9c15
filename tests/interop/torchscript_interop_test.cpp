// PyTorch reads what the TorchScript exporters write. Needs Debian's python3-torch (packaging/test installs it); skipped with
// a message without it. QUANVAS_PYTHON names another interpreter.
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>

#include "core/base/files.h"
#include "tests/plugins/torchscript_codes_nets.h"
#include "tests/plugins/torchscript_export_support.h"

namespace quanvas {
namespace {

using namespace torchscript_export;
constexpr int kNotInstalled = 77, kNoEngine = 78;

class PyTorchTest : public TorchScriptExportTest {
 protected:
  int status_ = 0;

  // Empty: PyTorch or its engine is not there (`status_`), or it has failed.
  Tensors pytorch(const at::Tensor& input, const std::string& engine) {
    const at::Tensor x = input.contiguous();
    std::ofstream(path("in"), std::ios::binary)
        .write(static_cast<const char*>(x.data_ptr()), static_cast<std::streamsize>(x.nbytes()));
    const char* python = std::getenv("QUANVAS_PYTHON");
    std::string shape;
    for (const std::int64_t d : x.sizes()) shape += (shape.empty() ? "" : ",") + std::to_string(d);
    const std::string command = std::string(python ? python : "/usr/bin/python3") +
                                " '" QUANVAS_SOURCE_DIR "/tests/interop/run_torch.py' '" + path() + "' '" + path("in") + "' " +
                                shape + " '" + path("out") + "' " + engine + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string answer;
    char buffer[4096];
    for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) answer.append(buffer, n);
    const int status = pclose(pipe);
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (status_ == 127) status_ = kNotInstalled;
    if (status_ == kNotInstalled || status_ == kNoEngine) return {};
    EXPECT_EQ(status_, 0) << answer;
    const auto at = answer.find("{\"version\"");
    if (status_ != 0 || at == std::string::npos) return {};
    Tensors out;
    const json parsed = json::parse(answer.substr(at));
    for (const json& s : parsed["shapes"]) {
      const std::string bytes = *read_file(path("out" + std::to_string(out.size())));
      at::Tensor t = at::empty(s.get<std::vector<std::int64_t>>(), at::kFloat);
      EXPECT_EQ(bytes.size(), t.nbytes());
      if (bytes.size() == t.nbytes()) std::memcpy(t.data_ptr(), bytes.data(), bytes.size());
      out.push_back(t);
    }
    return out;
  }
};

// The codes at every quantizer that can be seen, over more than 100,000 values each: within one step, none apart where scales
// are powers of two and nothing is added by QNNPACK's fixed-point factors.
TEST_F(PyTorchTest, ComputesTheIntegersOfTheScreen) {
  const at::Tensor x = random_input({2048, 1, 8, 8}, 7);
  const char* const layers[] = {"fc", "conv1", "conv2", "add"};
  int run = 0;
  for (const char* id : {kPacked, kFloat})
    for (const std::string engine : {"onednn", "qnnpack"})
      for (const bool power_of_two : {true, false}) {
        SCOPED_TRACE(std::string(id) + ", " + engine + (power_of_two ? ", powers of two" : ""));
        if (id == std::string(kFloat) && engine == "qnnpack") continue;  // float operators have no engine
        const Formats formats = {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true};
        QuantizedModel model = shown(quantize(small_net(), formats), {"c1", "c2", "s"});
        if (power_of_two) {
          for (auto& [site, p] : model.quantizers)
            for (float& s : p.scale)
              if (site.kind != SiteKind::kBias) s = std::exp2(std::round(std::log2(s)));
          for (auto& [site, p] : model.quantizers)
            if (site.kind == SiteKind::kBias)
              for (std::size_t i = 0; i < p.scale.size(); ++i)
                p.scale[i] = model.quantizers.at({site.node, SiteKind::kInput, 0}).scale[0] *
                             model.quantizers.at({site.node, SiteKind::kWeight, 0}).scale[i];
        }
        ASSERT_NO_FATAL_FAILURE(write(id, model));
        const Tensors got = pytorch(x, engine);
        if (status_ == kNotInstalled) GTEST_SKIP() << "PyTorch for Python is not installed (apt-get install python3-torch)";
        if (status_ == kNoEngine) continue;
        ++run;
        const Tensors wanted = screen(model, {x});
        ASSERT_EQ(got.size(), wanted.size());
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          const Steps s = steps_between(wanted[i], got[i], at_site(model, layers[i], SiteKind::kOutput).scale[0]);
          std::printf("  %s %s%s %s: %lld of %lld differ, most %lld\n", id, engine.c_str(), power_of_two ? " 2^n" : "",
                      layers[i], static_cast<long long>(s.differing), static_cast<long long>(s.values),
                      static_cast<long long>(s.most));
          if (i > 0) {
            EXPECT_GE(s.values, 100000);
          }
          const bool exact = power_of_two && engine != "qnnpack";
          EXPECT_LE(s.most, exact ? 0 : 1) << layers[i];
          EXPECT_LE(s.differing * (engine == "qnnpack" ? 20 : 1000), s.values) << layers[i];
        }
      }
  EXPECT_GT(run, 0) << "PyTorch has none of the engines";
}

// A limit between convolutions, on codes whose channels lie innermost.
TEST_F(PyTorchTest, LimitsCodesInTheirPlaces) {
  GraphBuilder b;
  auto weights = std::make_shared<WeightStore>();
  using Ints = std::vector<std::int64_t>;
  b.tensor("x", DataType::kFloat, Shape{-1, 3, 8, 8});
  b.input("x");
  for (const auto& [name, shape] : {std::pair<std::string, Shape>{"w1", {8, 3, 3, 3}}, {"w2", {8, 1, 3, 3}}}) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, export_net::random_floats(shape, static_cast<std::uint32_t>(name.back())));
  }
  b.tensor("a", DataType::kFloat, Shape{-1, 8, 8, 8});
  b.tensor("c", DataType::kFloat, Shape{-1, 8, 8, 8});
  b.tensor("y", DataType::kFloat, Shape{-1, 8, 8, 8});
  b.node("first", "Conv", {"x", "w1"}, {"a"}, {{"pads", Ints{1, 1, 1, 1}}});
  b.node("limit", "Clip", {"a"}, {"c"}, {{"min", 0.0f}, {"max", 1.0f}});
  b.node("second", "Conv", {"c", "w2"}, {"y"}, {{"pads", Ints{1, 1, 1, 1}}, {"group", std::int64_t{8}}});
  b.output("y");
  b.set_opset(10);
  const auto graph = b.build();
  ASSERT_TRUE(graph);
  QuantizedModel model = quantize(std::make_shared<const Model>(Model{*graph, weights, "limit"}),
                                  {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), true});
  ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
  const at::Tensor x = random_input({256, 3, 8, 8}, 5), wanted = screen(model, {x})[0];
  for (const char* engine : {"onednn", "qnnpack"}) {
    const Tensors got = pytorch(x, engine);
    if (status_ == kNotInstalled) GTEST_SKIP() << "PyTorch for Python is not installed (apt-get install python3-torch)";
    if (status_ == kNoEngine) continue;
    ASSERT_EQ(got.size(), 1u);
    const Steps s = steps_between(wanted, got[0], at_site(model, "second", SiteKind::kOutput).scale[0]);
    EXPECT_GE(s.values, 100000);
    EXPECT_LE(s.most, 1) << engine;
    EXPECT_LE(s.differing * 1000, s.values) << engine << ": " << s.differing;
  }
}

// quantize_per_tensor and the division, on values around the middle of two codes.
TEST_F(PyTorchTest, DividesExactlyInTheExactForm) {
  GraphBuilder b;
  b.tensor("x", DataType::kFloat, Shape{-1});
  b.tensor("y", DataType::kFloat, Shape{-1});
  b.input("x");
  b.node("relu", "Relu", {"x"}, {"y"});
  b.output("y");
  QuantizedModel model;
  model.model = std::make_shared<const Model>(Model{*b.build(), std::make_shared<WeightStore>(), "one"});
  const QuantSpec u8 = spec(8, false, false, kNone, kTensor);
  quant::QuantParams p = quant::params_from_range(u8, *quant::make_layout(u8, Shape{-1}, 0), {0}, {1});
  for (const float s : {0.0123f, 0.0317f}) {
    p.scale = {s};
    model.quantizers[{model.model->graph->nodes()[0].id, SiteKind::kOutput, 0}] = p;
    std::vector<float> near;
    for (int k = 0; k < 255; ++k) {
      float v = (static_cast<float>(k) + 0.5f) * s;
      for (int i = 0; i < 200; ++i) v = std::nextafter(v, 0.0f);
      for (int i = 0; i < 400; ++i, v = std::nextafter(v, 1e9f)) near.push_back(v);
    }
    ASSERT_GE(near.size(), 100000u);
    const at::Tensor x = at::tensor(near), wanted = screen(model, {x})[0];
    for (const auto& [id, most] : {std::pair<const char*, int>{kFloat, 0}, {kPacked, 1}}) {
      ASSERT_NO_FATAL_FAILURE(write(id, model));
      const Tensors got = pytorch(x, "onednn");
      if (status_ == kNotInstalled) GTEST_SKIP() << "PyTorch for Python is not installed (apt-get install python3-torch)";
      ASSERT_EQ(got.size(), 1u);
      const Steps steps = steps_between(wanted, got[0], s);
      std::printf("  %s scale %g: %lld of %lld near ties differ\n", id, static_cast<double>(s),
                  static_cast<long long>(steps.differing), static_cast<long long>(steps.values));
      EXPECT_LE(steps.most, most);
    }
  }
}

// Convolutions over three axes and curves on codes: within one step. Where scales are powers of two sums lie on ties, and oneDNN
// adds odd zero points before it rounds: a step of a convolution is several of the curve behind it, so that curves are not
// measured so.
TEST_F(PyTorchTest, ComputesCurvesAndVolumesOnCodes) {
  int run = 0;
  for (const bool volume : {false, true})
    for (const std::string engine : {"onednn", "qnnpack"})
      for (const bool power_of_two : {true, false}) {
        SCOPED_TRACE(std::string(volume ? "volume, " : "curves, ") + engine + (power_of_two ? ", powers of two" : ""));
        if (!volume && power_of_two) continue;
        if (volume && engine == "qnnpack") continue;  // refused: it does not read their packed parameters
        const std::vector<const char*> layers = volume ? std::vector<const char*>{"conv2", "relu"}
                                                       : std::vector<const char*>{"tanh", "leaky", "swish", "elu", "sigmoid"};
        std::vector<std::string> tensors;
        for (std::size_t i = 1; i < layers.size(); ++i) tensors.push_back(layers[i] + std::string(".y"));
        QuantizedModel model = shown(on_codes(volume ? volume_net() : curves_net(), power_of_two), tensors);
        ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
        const at::Tensor x = export_net::code_input(*model.model, volume ? 1200 : 256, 23);
        const Tensors got = pytorch(x, engine);
        if (status_ == kNotInstalled) GTEST_SKIP() << "PyTorch for Python is not installed (apt-get install python3-torch)";
        if (status_ == kNoEngine) continue;
        ++run;
        const Tensors wanted = screen(model, {x});
        ASSERT_EQ(got.size(), wanted.size());
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          const Steps s = steps_between(wanted[i], got[i], at_site(model, layers[i], SiteKind::kOutput).scale[0]);
          std::printf("  %s%s %s: %lld of %lld differ, most %lld\n", engine.c_str(), power_of_two ? " 2^n" : "", layers[i],
                      static_cast<long long>(s.differing), static_cast<long long>(s.values), static_cast<long long>(s.most));
          EXPECT_GE(s.values, 100000);
          EXPECT_LE(s.most, 1) << layers[i];
          EXPECT_LE(s.differing * 50, s.values) << layers[i];
        }
      }
  EXPECT_GT(run, 0) << "PyTorch has none of the engines";
}

// linear_dynamic, one sample a run: what it computes from the same codes is the screen's but for the order of float sums.
TEST_F(PyTorchTest, FindsScalesAtRunTime) {
  NetBuilder n("one", {-1, 64});
  const ModelPtr net = n.done(n.node("Gemm", "fc", {"x", n.weight("w", {400, 64}), n.weight("b", {400})}, {-1, 400},
                                     {{"transB", std::int64_t{1}}}));
  const QuantizedModel model = export_net::quantize_at_run_time(net, spec(8, true, true, kNone, kChannel));
  ASSERT_NO_FATAL_FAILURE(write(kPacked, model));
  for (const char* engine : {"onednn", "qnnpack"}) {
    double most = 0;
    std::int64_t differing = 0, values = 0;
    // Rows that have one range are one run's: the least and the greatest value are the same in all of them.
    at::Tensor x = export_net::code_input(*net, 256, 12);
    x.select(1, 0).fill_(-2.1f);
    x.select(1, 1).fill_(2.4f);
    const Tensors got = pytorch(x, engine);
    if (status_ == kNotInstalled) GTEST_SKIP() << "PyTorch for Python is not installed (apt-get install python3-torch)";
    if (status_ == kNoEngine) continue;
    ASSERT_EQ(got.size(), 1u);
    const at::Tensor wanted = screen(model, {x})[0];
    const at::Tensor away = (got[0] - wanted).abs() / wanted.abs().max();
    most = away.max().item<double>();
    values = away.numel();
    differing = away.gt(2e-6).sum().item<std::int64_t>();
    std::printf("  linear_dynamic %s: %lld of %lld results differ, by %g of the largest at most\n", engine,
                static_cast<long long>(differing), static_cast<long long>(values), most);
    EXPECT_GE(values, 100000);
    // A value near the middle of two codes changes all results of its row by one step of one input.
    EXPECT_LE(differing * 50, values);
    EXPECT_LT(most, 0.01);
  }
}

}  // namespace
}  // namespace quanvas
