// onnxruntime reads what we export and computes what our executor computes. Needs node and onnxruntime-node
// (packaging/test installs it into build/interop); skipped with a message without them.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <sys/wait.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include "core/base/files.h"
#include "core/exec/runner.h"
#include "tests/plugins/export_net.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using export_net::Formats;
using export_net::spec;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr int kNotInstalled = 77;
constexpr std::int64_t kBatch = 16;

struct Output {
  std::string name, type;
  std::string bytes;
  std::vector<float> floats() const {
    std::vector<float> out(bytes.size() / sizeof(float));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
    return out;
  }
  std::vector<int> codes() const {
    std::vector<int> out;
    for (const char c : bytes) out.push_back(type == "int8" ? static_cast<std::int8_t>(c) : static_cast<std::uint8_t>(c));
    return out;
  }
};

class InteropTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-interop-" + std::to_string(getpid()));
    fs::create_directories(folder_);
    if (std::system("node --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "node is not installed";
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  // Runs the file on `input` in onnxruntime. Empty when the package is missing (`missing_` is set then).
  std::vector<Output> onnxruntime(const std::string& model, const at::Tensor& input, const std::vector<std::string>& tensors) {
    std::ofstream(path("input.f32"), std::ios::binary)
        .write(static_cast<const char*>(input.data_ptr()), static_cast<std::streamsize>(input.nbytes()));
    std::string shape, command = "node '" QUANVAS_SOURCE_DIR "/tests/interop/run_onnx.js' '" + model + "' --input '" +
                                 path("input.f32") + "' --out '" + path("out") + "'";
    for (const std::int64_t d : input.sizes()) shape += (shape.empty() ? "" : ",") + std::to_string(d);
    command += " --shape " + shape;
    for (const std::string& t : tensors) command += " --tensor '" + t + "'";
    command += " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    std::string answer;
    char buffer[4096];
    for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) answer.append(buffer, n);
    const int status = pclose(pipe);
    missing_ = WIFEXITED(status) && WEXITSTATUS(status) == kNotInstalled;
    if (missing_) return {};
    EXPECT_EQ(status, 0) << answer;
    std::vector<Output> out;
    const auto start = answer.find("{\"outputs\"");
    if (start == std::string::npos) return out;
    const json parsed = json::parse(answer.substr(start));
    for (const json& o : parsed["outputs"])
      out.push_back({o["name"], o["type"], *read_file(o["file"].get<std::string>())});
    return out;
  }

  fs::path folder_;
  bool missing_ = false;
};

at::Tensor test_input() {
  const TensorData data = export_net::random_floats({kBatch, 1, 8, 8}, 99, 2.5f);
  return exec::to_tensor(data).clone();
}

// Code tensors of the file: outputs of QuantizeLinear, or of the Clip behind it, and what enters them.
struct CodeTensor {
  std::string codes, source;
};
std::vector<CodeTensor> code_tensors(const std::string& path) {
  onnx::ModelProto proto;
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(proto.ParseFromIstream(&in));
  std::vector<CodeTensor> out;
  for (const auto& n : proto.graph().node()) {
    if (n.op_type() == "QuantizeLinear") out.push_back({n.output(0), n.input(0)});
    if (n.op_type() == "Clip" && !out.empty() && n.input(0) == out.back().codes) out.back().codes = n.output(0);
  }
  return out;
}

const std::pair<const char*, Formats> kCases[] = {
    {"w8a8", {spec(8, true, true, kNone, kChannel), spec(8, false, false, kInteger, kTensor), false}},
    {"w4a4", {spec(4, true, true, kNone, kChannel), spec(4, false, false, kInteger, kTensor), false}},
    {"w2a3", {spec(2, true, true, kNone, kTensor), spec(3, true, false, kNone, kTensor), false}},
    {"asymmetric weights, outputs", {spec(8, false, false, kInteger, kChannel), spec(8, true, false, kNone, kTensor), true}},
    {"activations per channel", {spec(8, true, true, kNone, kTensor), spec(8, true, true, kNone, kChannel), false}},
};

TEST_F(InteropTest, OnnxruntimeComputesTheNetworkOfTheScreen) {
  const at::Tensor input = test_input();
  const Exporter* exporter = *Registry<Exporter>::instance().get("onnx-qdq", "target");
  for (const auto& [name, formats] : kCases) {
    SCOPED_TRACE(name);
    const QuantizedModel model = export_net::quantize(export_net::small_net(), formats);
    JobContext job;
    ASSERT_TRUE(exporter->check(model, json::object()).empty());
    ASSERT_TRUE(exporter->write(model, path("m.onnx"), json::object(), job));
    const std::vector<CodeTensor> tensors = code_tensors(path("m.onnx"));
    std::vector<std::string> names;
    for (const CodeTensor& t : tensors) names.push_back(t.codes);
    const auto outputs = onnxruntime(path("m.onnx"), input, names);
    if (missing_) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
    ASSERT_EQ(outputs.size(), names.size() + 1);

    const auto runner = exec::Runner::create(model.model, &model.quantizers);
    ASSERT_TRUE(runner) << runner.error().text();
    // Every activation as it enters its quantizer, and the code tensors that our kernels make of it.
    std::map<std::string, at::Tensor> before;
    std::map<std::string, const quant::QuantParams*> params;
    exec::RunHooks hooks;
    hooks.quantize = [&](const Site& site, const at::Tensor& x) {
      const auto it = model.quantizers.find(site);
      if (it == model.quantizers.end()) return x;
      const auto layers = find_layers(*model.model->graph);
      std::string tensor = model.model->graph->tensor(site_tensor(*find_layer(layers, site.node), site)).name;
      if (site.kind == SiteKind::kOutput) tensor += "_unquantized";
      before[tensor] = x.contiguous().clone();
      params[tensor] = &it->second;
      return exec::fake_quantize(x, it->second);
    };
    const auto logits = (*runner)->run({input}, hooks);
    ASSERT_TRUE(logits) << logits.error().text();

    const std::vector<float> theirs = outputs[0].floats();
    const at::Tensor ours = logits->at(0).contiguous();
    ASSERT_EQ(static_cast<std::int64_t>(theirs.size()), ours.numel());
    const at::Tensor other = at::from_blob(const_cast<float*>(theirs.data()), ours.sizes(), at::kFloat);
    const double difference = (ours - other).abs().max().item<double>() / ours.abs().max().item<double>();

    std::int64_t codes = 0, different = 0;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (!before.count(tensors[t].source)) continue;  // an input quantizer that the output's already serves
      const at::Tensor& x = before[tensors[t].source];
      const quant::QuantParams& p = *params[tensors[t].source];
      const auto layout = quant::rebatch(p, Shape(x.sizes().begin(), x.sizes().end()));
      ASSERT_TRUE(layout) << layout.error().text();
      std::vector<std::int32_t> expected(static_cast<std::size_t>(x.numel()));
      quant::quantize_codes(p, *layout, x.data_ptr<float>(), expected.data());
      const std::vector<int> got = outputs[t + 1].codes();
      ASSERT_EQ(got.size(), expected.size()) << tensors[t].codes;
      std::int64_t here = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_LE(std::abs(got[i] - expected[i]), 1) << tensors[t].codes << " [" << i << "]";
        here += got[i] != expected[i];
      }
      if (tensors[t].source == "x") {
        EXPECT_EQ(here, 0) << "no arithmetic stands before the input's codes";
      }
      codes += static_cast<std::int64_t>(got.size());
      different += here;
    }
    EXPECT_GT(codes, kBatch * 64 * 3);
    // Sums are formed in another order, so a value on a rounding boundary may fall to the other side.
    EXPECT_LE(different, codes / 2000);
    EXPECT_LT(difference, different == 0 ? 1e-5 : 0.1);
    RecordProperty(std::string(name) + ": codes", std::to_string(codes));
    RecordProperty(std::string(name) + ": different codes", std::to_string(different));
  }
}

TEST_F(InteropTest, OnnxruntimeComputesTheFloatNetwork) {
  const at::Tensor input = test_input();
  const Exporter* exporter = *Registry<Exporter>::instance().get("onnx", "target");
  for (const int opset : {9, 13, 17}) {
    SCOPED_TRACE(opset);
    QuantizedModel model;
    model.model = export_net::small_net(opset);
    JobContext job;
    ASSERT_TRUE(exporter->write(model, path("f.onnx"), json::object(), job));
    const auto outputs = onnxruntime(path("f.onnx"), input, {"c1", "s"});
    if (missing_) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
    ASSERT_EQ(outputs.size(), 3u);
    const auto runner = exec::Runner::create(model.model, nullptr);
    ASSERT_TRUE(runner) << runner.error().text();
    const auto env = (*runner)->run_all({input});
    ASSERT_TRUE(env) << env.error().text();
    for (const Output& o : outputs) {
      const at::Tensor& ours = env->at(static_cast<std::size_t>(model.model->graph->tensor(o.name)));
      const std::vector<float> theirs = o.floats();
      ASSERT_EQ(static_cast<std::int64_t>(theirs.size()), ours.numel()) << o.name;
      const at::Tensor other = at::from_blob(const_cast<float*>(theirs.data()), ours.sizes(), at::kFloat);
      EXPECT_LT((ours - other).abs().max().item<double>(), 1e-5 * ours.abs().max().item<double>()) << o.name;
    }
  }
}

}  // namespace
}  // namespace quanvas
