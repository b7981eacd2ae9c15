// A language model exported to every form that holds its weights, read and computed by llama_readers.py (NumPy; ONNX:
// onnxruntime; TorchScript: PyTorch), which shares nothing with Quanvas: the same predictions as the screen's.
#include <ATen/ATen.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "core/exec/runner.h"
#include "core/recipe/recipe.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;
constexpr std::int64_t kWindows = 2, kTokens = 96;

const fs::path kStories = fs::path(QUANVAS_SHARED_DIR) / "models" / "tinystories260k";

const std::string kScript = " '" QUANVAS_SOURCE_DIR "/tests/interop/llama_readers.py' --json --ids '";

std::string python() {
  const char* given = std::getenv("QUANVAS_PYTHON");
  for (const std::string& name : {std::string(given ? given : ""), std::string("/usr/bin/python3"), std::string("python3")})
    if (!name.empty() && std::system((name + " -c 'import numpy' > /dev/null 2>&1").c_str()) == 0) return name;
  return {};
}

struct Row {
  const char *target, *file;
  json options;
  // Of a weight [in, out]; none: float.
  std::function<std::optional<QuantSpec>(std::int64_t in, std::int64_t out)> spec;
};

std::vector<Row> table() {
  const auto all = [](QuantSpec s) { return [s](std::int64_t, std::int64_t) { return std::optional(s); }; };
  const auto if_fits = [](QuantSpec s, bool outputs) {
    return [s, outputs](std::int64_t in, std::int64_t out) {
      return in % 32 == 0 && (!outputs || out % 32 == 0) ? std::optional(s) : std::nullopt;
    };
  };
  // Feed-forward layers have 172 inputs or outputs, which fill words as 8 bit only.
  const auto mixed = [](bool is_signed) {
    return [is_signed](std::int64_t in, std::int64_t out) -> std::optional<QuantSpec> {
      if (in % 32 == 0 && out % 32 == 0) return half(ints(4, is_signed, kGroup, 32));
      return half(ints(8, is_signed, in % 32 == 0 ? kGroup : kChannel, 32));
    };
  };
  const auto gguf = [](const char* preset) {
    const QuantSpec s = PresetLibrary::builtin().find(preset)->spec;
    return [s](std::int64_t in, std::int64_t) { return in % 32 == 0 ? std::optional(s) : std::nullopt; };
  };
  const json tokenizer = {{"form", "llama"}, {"tokenizer", (kStories / "tokenizer.bin").string()}};
  std::vector<Row> rows = {
      {"gptq", "out.safetensors", json::object(), mixed(true)},
      {"gptq", "out.safetensors", {{"checkpoint_format", "gptq_v2"}}, mixed(true)},
      {"gptq", "out.safetensors", {{"checkpoint_format", "gptq_v2"}}, mixed(false)},
      {"gptq", "out.safetensors", json::object(), if_fits(half(ints(3, true, kGroup, 32)), true)},
      {"awq", "out.safetensors", json::object(), if_fits(half(ints(4, false, kGroup, 32)), true)},
      {"awq", "out.safetensors", json::object(),
       [](std::int64_t, std::int64_t out) {
         return out % 8 == 0 ? std::optional(half(ints(4, true, kChannel))) : std::nullopt;
       }},
      {"compressed-tensors", "out.safetensors", json::object(),
       [](std::int64_t in, std::int64_t) { return in % 32 == 0 ? ints(4, true, kGroup, 32) : ints(4, true, kChannel); }},
      {"compressed-tensors", "out.safetensors", json::object(),
       [](std::int64_t in, std::int64_t) { return in % 32 == 0 ? ints(4, false, kGroup, 32) : ints(8, false, kChannel); }},
      {"compressed-tensors", "out.safetensors", {{"format", "int-quantized"}}, all(ints(8, true, kChannel))},
      {"safetensors", "out.safetensors", json::object(), all(ints(4, true, kGroup, 32))},
      {"safetensors", "out.safetensors", json::object(), all(ints(6, false, kChannel))},
      {"npz", "out.npz", json::object(), all(ints(4, false, kGroup, 32))},
      {"npz", "out.npz", json::object(), all(ints(8, true, Granularity::kTensor))},
      {"c-header", "out.h", json::object(), all(ints(4, true, kGroup, 32))},
      {"onnx", "out.onnx", json::object(), [](std::int64_t, std::int64_t) { return std::optional<QuantSpec>(); }},
      {"onnx-qdq", "out.onnx", json::object(), all(ints(4, true, kGroup, 32))},
      {"onnx-qdq", "out.onnx", {{"native", true}}, all(ints(4, false, kGroup, 32))},
      {"onnx-qdq", "out.onnx", json::object(), all(ints(8, true, kChannel))},
      {"qonnx", "out.onnx", json::object(), all(ints(5, true, kChannel))},
      {"torchscript-qcdq", "out.pt", json::object(), all(ints(6, true, kChannel))},
  };
  for (const char* p : {"gguf-q8_0", "gguf-q4_0", "gguf-q4_1", "gguf-q5_0", "gguf-q5_1"})
    rows.push_back({"gguf", "out.gguf", tokenizer, gguf(p)});
  return rows;
}

class LlamaInterop : public WeightFileTest {};

TEST_F(LlamaInterop, IndependentReadersPredictAsTheScreenDoes) {
  const std::string interpreter = python();
  if (interpreter.empty()) GTEST_SKIP() << "python3 with numpy is not installed (Debian: python3-numpy)";
  const std::string original = (kStories / "tinystories260k.onnx").string();
  if (!fs::exists(original)) GTEST_SKIP() << "no shared models";
  JobContext job;
  auto imported = import_model(original, job);
  ASSERT_TRUE(imported) << imported.error().text();
  const ModelPtr net = std::make_shared<const Model>(std::move(*imported));
  at::Tensor ids = at::empty({kWindows, kTokens}, at::kLong);
  std::uint32_t state = 5;
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    state = state * 1664525u + 1013904223u;
    ids.data_ptr<std::int64_t>()[i] = i % kTokens == 0 ? 1 : static_cast<std::int64_t>(state >> 16) % 509 + 3;
  }
  std::ofstream(path("ids"), std::ios::binary)
      .write(static_cast<const char*>(ids.data_ptr()), static_cast<std::streamsize>(ids.nbytes()));
  int read = 0, n = 0;
  std::set<std::string> missing;
  for (const Row& row : table()) {
    const std::string folder = "row" + std::to_string(n++);
    SCOPED_TRACE(std::string(row.target) + " " + row.options.dump() + " in " + folder);
    fs::create_directory(path(folder));
    QuantizedModel model;
    model.model = net;
    for (const Layer& layer : find_layers(*net->graph)) {
      const Node& node = *net->graph->find(layer.node);
      const TensorData* data = layer.weight == kNoTensor ? nullptr : net->weights->find(net->graph->tensor(layer.weight).name);
      if (node.op != "MatMul" || !data) continue;
      const auto spec = row.spec(data->shape[0], data->shape[1]);
      if (!spec) continue;
      const bool group = spec->granularity == kGroup;
      const std::vector<float> values = data->to_floats();
      auto params = quant::find_params(*spec, data->shape, values.data(), group ? layer.reduction_axis : layer.channel_axis);
      ASSERT_TRUE(params) << params.error().text();
      model.quantizers[{layer.node, SiteKind::kWeight, 0}] = *params;
    }
    ASSERT_NO_FATAL_FAILURE(write(row.target, model, row.options, folder + "/" + row.file));
    const auto runner = exec::Runner::create(net, &model.quantizers);
    ASSERT_TRUE(runner) << runner.error().text();
    const auto scores = (*runner)->run({ids});
    ASSERT_TRUE(scores) << scores.error().text();
    const at::Tensor logits = scores->at(0).contiguous();
    std::ofstream(path(folder + "/logits.f32"), std::ios::binary)
        .write(static_cast<const char*>(logits.data_ptr()), static_cast<std::streamsize>(logits.nbytes()));
    const int status = std::system((interpreter + kScript + path("ids") + "' --window " + std::to_string(kTokens) + " --model '" + original + "' --screen '" +
                                    path(folder) + "' '" + path(folder + "/" + row.file) + "' > '" + path("answer") + "' 2>&1")
                                       .c_str());
    const std::string answer = *read_file(path("answer"));
    ASSERT_EQ(status, 0) << answer;
    const json said = json::parse(answer);
    if (said.contains("skipped")) {
      missing.insert(said["skipped"].get<std::string>());
      continue;
    }
    ++read;
    EXPECT_EQ(said["of"], kWindows * kTokens);
    EXPECT_GE(said["equal"].get<int>(), kWindows * kTokens - 1) << "a tie may fall otherwise";
    EXPECT_LT(said["largest"].get<double>(), 1e-4);
    EXPECT_NEAR(said["perplexity"].get<double>(), said["screen"].get<double>(), 1e-4 * said["screen"].get<double>());
    EXPECT_GT(fs::file_size(path(folder + "/" + row.file)), 0u);
  }
  for (const std::string& m : missing) std::printf("not installed: %s\n", m.c_str());
  EXPECT_GE(read, 9) << "those that need nothing but NumPy";
}

// A reader that is wrong, or a file that is, must not look right: one code changed is seen.
TEST_F(LlamaInterop, AChangedFileIsSeen) {
  const std::string interpreter = python();
  if (interpreter.empty()) GTEST_SKIP() << "python3 with numpy is not installed (Debian: python3-numpy)";
  const std::string original = (kStories / "tinystories260k.onnx").string();
  if (!fs::exists(original)) GTEST_SKIP() << "no shared models";
  std::ofstream(path("broken.safetensors"), std::ios::binary) << "nothing of the kind";
  std::ofstream(path("ids"), std::ios::binary) << std::string(8 * kTokens, '\0');
  const auto run = [&](const std::string& file) {
    return std::system((interpreter + kScript + path("ids") + "' --window " + std::to_string(kTokens) + " '" + file + "' > '" + path("answer") + "' 2>&1")
                           .c_str());
  };
  EXPECT_NE(run(path("broken.safetensors")), 0);
  EXPECT_NE(run(path("not there.gguf")), 0);
  EXPECT_TRUE(json::parse(*read_file(path("answer"))).contains("error"));
}

}  // namespace
}  // namespace quanvas
