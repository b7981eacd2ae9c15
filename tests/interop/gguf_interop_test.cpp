// ggml reads the GGUF files that we export, and llama.cpp runs those of the Llama. Needs the npm package
// @node-llama-cpp/linux-x64 (packaging/test installs it into build/interop); skipped with a message without it.
#include <ATen/ATen.h>

#include <bit>
#include <cmath>

#include "core/data/dataset.h"
#include "core/exec/runner.h"
#include "tests/interop/ggml.h"
#include "tests/plugins/export_gguf_net.h"
#include "tests/plugins/llama_net.h"

namespace quanvas {
namespace {

using namespace gguf_net;
using interop::GgmlFile;
using interop::LlamaModel;

class GgufInteropTest : public GgufTest {
 protected:
  void SetUp() override {
    GgufTest::SetUp();
    llama_ = interop::llama_folder();
    if (llama_.empty()) GTEST_SKIP() << "@node-llama-cpp/linux-x64 is not installed; packaging/test does it";
    ggml_ = dlopen((llama_ + "/libggml-base.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!ggml_) GTEST_SKIP() << "libggml-base.so does not load: " << dlerror();
  }
  std::string llama_;
  void* ggml_ = nullptr;
};

struct BlockCase {
  const char *preset, *reader;
  int type;
};
const BlockCase kBlocks[] = {
    {"gguf-q8_0", "dequantize_row_q8_0", 8},      {"gguf-q4_0", "dequantize_row_q4_0", 2},
    {"gguf-q4_1", "dequantize_row_q4_1", 3},      {"gguf-q5_0", "dequantize_row_q5_0", 6},
    {"gguf-q5_1", "dequantize_row_q5_1", 7},      {"gguf-q2_k", "dequantize_row_q2_K", 10},
    {"gguf-q3_k", "dequantize_row_q3_K", 11},     {"gguf-q4_k", "dequantize_row_q4_K", 12},
    {"gguf-q5_k", "dequantize_row_q5_K", 13},     {"gguf-q6_k", "dequantize_row_q6_K", 14},
    {"gguf-iq4_nl", "dequantize_row_iq4_nl", 20}, {"gguf-tq1_0", "dequantize_row_tq1_0", 34},
    {"gguf-tq2_0", "dequantize_row_tq2_0", 35},   {"gguf-mxfp4", "dequantize_row_mxfp4", 39},
};

TEST_F(GgufInteropTest, GgmlDequantizesTheVeryWeightsOfTheScreen) {
  const ModelPtr net = network();
  for (const BlockCase& c : kBlocks) {
    SCOPED_TRACE(c.preset);
    const QuantizedModel model = quantize(net, preset(c.preset));
    ASSERT_NO_FATAL_FAILURE(write(model));
    const GgmlFile file(ggml_, path());
    ASSERT_TRUE(file) << "gguf_init_from_file refuses the file";
    EXPECT_EQ(file.tensors(), 5);
    EXPECT_EQ(file.text("general.architecture"), "custom");
    EXPECT_EQ(file.u32("general.quantization_version"), 2);
    EXPECT_EQ(file.u32("general.alignment"), 32);
    auto* read = interop::symbol<void(const void*, float*, std::int64_t)>(ggml_, c.reader);
    ASSERT_NE(read, nullptr);
    const std::string bytes = *read_file(path());
    std::int64_t compared = 0, different = 0, signs = 0;
    for (const char* layer : {"embedding", "up", "down", "head"}) {
      std::string tensor;
      const std::vector<float> wanted = values_of(model, layer, &tensor);
      const Shape shape = net->weights->find(tensor)->shape;
      const bool is_transposed = layer == std::string("up") || layer == std::string("head");
      const std::int64_t rows = shape[is_transposed ? 1 : 0], columns = shape[is_transposed ? 0 : 1];
      const std::int64_t id = file.find(tensor);
      ASSERT_GE(id, 0) << tensor;
      ASSERT_EQ(file.type(id), c.type);
      ASSERT_EQ(file.dims(id), (std::vector<std::int64_t>{columns, rows, 1, 1}));
      ASSERT_LE(file.offset(id) + file.bytes(id), bytes.size());
      std::vector<float> got(wanted.size());
      // ggml's readers take blocks at their own alignment.
      std::vector<std::uint64_t> block((file.bytes(id) + 7) / 8);
      std::memcpy(block.data(), bytes.data() + file.offset(id), file.bytes(id));
      read(block.data(), got.data(), static_cast<std::int64_t>(got.size()));
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < columns; ++i, ++compared) {
          const float a = got[static_cast<std::size_t>(r * columns + i)];
          const float b = wanted[static_cast<std::size_t>(is_transposed ? i * rows + r : r * columns + i)];
          if (std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b)) continue;
          if (a == 0 && b == 0)
            ++signs;
          else
            ++different;
        }
    }
    EXPECT_GT(compared, 100000);
    EXPECT_EQ(different, 0);
    // E2M1 has a zero with a sign; ggml's table has none.
    if (c.type != 39) {
      EXPECT_EQ(signs, 0);
    }
    RecordProperty(std::string(c.preset) + ": values", std::to_string(compared));
  }
}

// Scales of tensors and channels, repeated in blocks; zero points.
TEST_F(GgufInteropTest, GgmlReadsWhatOtherQuantizersBecome) {
  auto half = [](QuantSpec s) {
    s.scale = ScaleType::kFloat16;
    return s;
  };
  using export_net::spec;
  const std::pair<QuantSpec, const char*> cases[] = {
      {half(spec(8, true, true, ZeroPointType::kNone, Granularity::kChannel)), "dequantize_row_q8_0"},
      {half(spec(3, true, false, ZeroPointType::kNone, Granularity::kTensor)), "dequantize_row_q4_0"},
      {half(spec(4, false, false, ZeroPointType::kInteger, Granularity::kChannel)), "dequantize_row_q5_0"},
  };
  for (const auto& [quantizer, reader] : cases) {
    const QuantizedModel model = quantize(network(), quantizer, {"down"});
    ASSERT_NO_FATAL_FAILURE(write(model));
    const GgmlFile file(ggml_, path());
    ASSERT_TRUE(file);
    const std::int64_t id = file.find("down");
    const std::vector<float> wanted = values_of(model, "down");
    std::vector<float> got(wanted.size());
    const std::string bytes = *read_file(path());
    std::vector<std::uint64_t> block((file.bytes(id) + 7) / 8);
    std::memcpy(block.data(), bytes.data() + file.offset(id), file.bytes(id));
    interop::symbol<void(const void*, float*, std::int64_t)>(ggml_, reader)(block.data(), got.data(),
                                                                            static_cast<std::int64_t>(got.size()));
    EXPECT_EQ(got, wanted) << reader;
  }
}

// --- the Llama ---

struct Stories {
  ModelPtr model;
  std::string tokenizer, text;
};
std::optional<Stories> stories() {
  const std::filesystem::path folder = std::filesystem::path(QUANVAS_SHARED_DIR) / "models" / "tinystories260k";
  if (!std::filesystem::is_directory(folder)) return std::nullopt;
  JobContext job;
  auto model = import_model((folder / "tinystories260k.onnx").string(), job);
  if (!model) throw std::runtime_error(model.error().text());
  return Stories{std::make_shared<const Model>(std::move(*model)), (folder / "tokenizer.bin").string(),
                 (folder / "tinystories_sample.txt").string()};
}

// Rows that blocks of 32 fit: not the 172 of the feed-forward's second matrix.
QuantizedModel quantize_rows(ModelPtr model, const QuantSpec& spec) {
  QuantizedModel out;
  out.model = model;
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.weight == kNoTensor) continue;
    const Shape& shape = *model->graph->tensor(layer.weight).shape;
    if (shape[static_cast<std::size_t>(layer.reduction_axis)] % 32 != 0) continue;
    out.quantizers[{layer.node, SiteKind::kWeight, 0}] = params_for(*model, layer, {layer.node, SiteKind::kWeight, 0}, spec);
  }
  return out;
}

struct Perplexity {
  double ours = 0, theirs = 0, agree = 0, apart = 0;  // perplexities, share of equal best tokens, largest difference of scores
};

Perplexity compare(const QuantizedModel& model, const Stories& s, const LlamaModel& llama) {
  const json given = {{"data", s.text}, {"tokenizer", s.tokenizer}, {"separator", "<|endoftext|>"}, {"window", 512}};
  const DatasetReader* reader = *Registry<DatasetReader>::instance().get("text", "reader");
  auto complete = reader->schema().complete(given, "text");
  if (!complete) throw std::runtime_error(complete.error().text());
  auto data = reader->open(*complete, "");
  if (!data) throw std::runtime_error(data.error().text());
  auto runner = exec::Runner::create(model.model, &model.quantizers);
  if (!runner) throw std::runtime_error(runner.error().text());
  double ours = 0, theirs = 0, count = 0, equal = 0;
  Perplexity out;
  for (std::int64_t w = 0; w < (*data)->size(); ++w) {
    const TokenWindow window = (*data)->token_window(w);
    const auto sample = (*data)->read(w);
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < window.length; ++i)
      ids.push_back(static_cast<std::int32_t>(sample->values[static_cast<std::size_t>(i)]));
    at::Tensor input = at::empty({1, window.length}, at::kLong);
    std::copy(ids.begin(), ids.end(), input.data_ptr<std::int64_t>());
    auto result = (*runner)->run({input});
    if (!result) throw std::runtime_error(result.error().text());
    const std::vector<float> scores = llama.scores(ids);
    if (scores.empty()) throw std::runtime_error("llama_decode failed: " + llama.log());
    const at::Tensor a = result->at(0)[0].to(at::kFloat).contiguous();
    const at::Tensor b = at::from_blob(const_cast<float*>(scores.data()), a.sizes(), at::kFloat);
    out.apart = std::max(out.apart, (a - b).abs().max().item<double>());
    const at::Tensor la = at::log_softmax(a, 1), lb = at::log_softmax(b, 1);
    for (std::int64_t p = window.first; p < window.length; ++p, ++count) {
      ours -= la[p - 1][ids[static_cast<std::size_t>(p)]].item<double>();
      theirs -= lb[p - 1][ids[static_cast<std::size_t>(p)]].item<double>();
      equal += a[p - 1].argmax().item<std::int64_t>() == b[p - 1].argmax().item<std::int64_t>();
    }
  }
  out.ours = std::exp(ours / count);
  out.theirs = std::exp(theirs / count);
  out.agree = equal / count;
  return out;
}

struct LlamaCase {
  const char* name;
  const char* preset;  // empty: float weights
  json options;
  double relative, agree;  // how near perplexities come, and how often the best token is the same
};
const LlamaCase kLlamas[] = {
    {"F32", "", json::object(), 0.001, 0.99},
    {"F16", "", {{"float_type", "f16"}, {"round_floats", true}}, 0.002, 0.99},
    {"BF16", "", {{"float_type", "bf16"}, {"round_floats", true}}, 0.02, 0.95},
    {"Q8_0", "gguf-q8_0", json::object(), 0.01, 0.95},
    {"Q5_1", "gguf-q5_1", json::object(), 0.02, 0.95},
    {"Q5_0", "gguf-q5_0", json::object(), 0.02, 0.95},
    {"Q4_1", "gguf-q4_1", json::object(), 0.02, 0.95},
    {"Q4_0", "gguf-q4_0", json::object(), 0.02, 0.95},
    {"IQ4_NL", "gguf-iq4_nl", json::object(), 0.02, 0.95},
    {"MXFP4", "gguf-mxfp4", json::object(), 0.02, 0.95},
};

TEST_F(GgufInteropTest, LlamaCppRunsTheNetworkOfTheScreen) {
  const auto s = stories();
  if (!s) GTEST_SKIP() << "no shared models";
  for (const LlamaCase& c : kLlamas) {
    SCOPED_TRACE(c.name);
    const QuantizedModel model = *c.preset ? quantize_rows(s->model, preset(c.preset)) : QuantizedModel{s->model, {}, {}};
    json given = c.options;
    given["form"] = "llama";
    given["tokenizer"] = s->tokenizer;
    ASSERT_NO_FATAL_FAILURE(write(model, given));
    if (*c.preset) {
      EXPECT_TRUE(all_equal(audit(model, given))) << text_of(audit(model, given));
    }
    const LlamaModel llama(llama_, path());
    ASSERT_TRUE(llama) << llama.log();
    EXPECT_EQ(llama.tokens(), 512);
    const Perplexity p = compare(model, *s, llama);
    std::printf("%-7s %8ju bytes  perplexity here %.4f, llama.cpp %.4f, same token %.2f %%, scores within %.4f\n", c.name,
                static_cast<std::uintmax_t>(std::filesystem::file_size(path())), p.ours, p.theirs, 100 * p.agree, p.apart);
    EXPECT_NEAR(p.theirs, p.ours, c.relative * p.ours);
    EXPECT_GT(p.agree, c.agree);
    JobContext job;
    const auto opened = import_model(path(), job);
    ASSERT_TRUE(opened) << opened.error().text();
    for (const auto& [name, data] : s->model->weights->all())
      if (s->model->graph->tensor(name) != kNoTensor) {
        EXPECT_NE(opened->weights->find(name), nullptr) << name;
      }
  }
}

// Every spelling of the attention: rotary embedding of neighbours and of halves, whose rows are paired anew.
TEST_F(GgufInteropTest, LlamaCppComputesEverySpelling) {
  std::ofstream(path("tokenizer.bin"), std::ios::binary) << llama_net::tokenizer(320);
  for (const bool halves : {false, true})
    for (const std::int64_t kv_heads : {4, 2, 1})
      for (const bool biases : {false, true}) {
        SCOPED_TRACE(std::string(halves ? "halves, " : "neighbours, ") + std::to_string(kv_heads) +
                     (biases ? " keys, biases" : " keys"));
        llama_net::Form form;
        form.halves = halves;
        form.kv_heads = kv_heads;
        form.biases = biases;
        form.base = halves ? 500000 : 10000;
        const QuantizedModel model{llama_net::network(form), {}, {}};
        ASSERT_NO_FATAL_FAILURE(write(model, {{"form", "llama"}, {"tokenizer", path("tokenizer.bin")}}));
        const LlamaModel llama(llama_, path());
        ASSERT_TRUE(llama) << llama.log();
        const std::vector<std::int32_t> ids = {1, 300, 17, 42, 42, 319, 5, 260};
        at::Tensor input = at::empty({1, 8}, at::kLong);
        std::copy(ids.begin(), ids.end(), input.data_ptr<std::int64_t>());
        const auto runner = exec::Runner::create(model.model, nullptr);
        ASSERT_TRUE(runner);
        const auto ours = (*runner)->run({input});
        ASSERT_TRUE(ours) << ours.error().text();
        const std::vector<float> theirs = llama.scores(ids);
        const at::Tensor a = ours->at(0)[0].contiguous();
        ASSERT_EQ(static_cast<std::int64_t>(theirs.size()), a.numel());
        const at::Tensor b = at::from_blob(const_cast<float*>(theirs.data()), a.sizes(), at::kFloat);
        // llama.cpp keeps keys and values in half precision.
        EXPECT_LT((a - b).abs().max().item<double>(), 3e-3 * a.abs().max().item<double>());
      }
}

// Rows of 256 and 512, which the small Llama of the stories does not have. llama.cpp quantizes activations to 8 bits in
// blocks of 256 here.
TEST_F(GgufInteropTest, LlamaCppComputesWithEveryType) {
  std::ofstream(path("tokenizer.bin"), std::ios::binary) << llama_net::tokenizer(320);
  llama_net::Form form;
  form.features = 256;
  form.feed_forward = 512;
  form.heads = 8;
  form.kv_heads = 8;
  form.halves = true;
  const ModelPtr net = llama_net::network(form);
  const std::vector<std::int32_t> ids = {1, 300, 17, 42, 42, 319, 5, 260};
  at::Tensor input = at::empty({1, 8}, at::kLong);
  std::copy(ids.begin(), ids.end(), input.data_ptr<std::int64_t>());
  for (const BlockCase& c : kBlocks) {
    SCOPED_TRACE(c.preset);
    const QuantizedModel model = quantize(net, preset(c.preset));
    ASSERT_NO_FATAL_FAILURE(write(model, {{"form", "llama"}, {"tokenizer", path("tokenizer.bin")}}));
    const LlamaModel llama(llama_, path());
    ASSERT_TRUE(llama) << llama.log();
    const auto runner = exec::Runner::create(model.model, &model.quantizers);
    ASSERT_TRUE(runner);
    const auto ours = (*runner)->run({input});
    ASSERT_TRUE(ours) << ours.error().text();
    const std::vector<float> theirs = llama.scores(ids);
    const at::Tensor a = ours->at(0)[0].contiguous();
    ASSERT_EQ(static_cast<std::int64_t>(theirs.size()), a.numel());
    const at::Tensor b = at::from_blob(const_cast<float*>(theirs.data()), a.sizes(), at::kFloat);
    const double apart = (a - b).norm().item<double>() / a.norm().item<double>();
    EXPECT_LT(apart, 0.08);
    RecordProperty(std::string(c.preset) + ": relative difference", std::to_string(apart));
  }
}

TEST_F(GgufInteropTest, LlamaCppTokenizesAsWeDo) {
  const auto s = stories();
  if (!s) GTEST_SKIP() << "no shared models";
  const QuantizedModel model{s->model, {}, {}};
  ASSERT_NO_FATAL_FAILURE(write(model, {{"form", "llama"}, {"tokenizer", s->tokenizer}}));
  const LlamaModel llama(llama_, path());
  ASSERT_TRUE(llama) << llama.log();
  const std::string text = "Once upon a time, there was a little girl named Lily. She said: \"1 + 2 = 3!\"\nÄ ☃";
  std::ofstream(path("text.txt")) << text;
  const DatasetReader* reader = *Registry<DatasetReader>::instance().get("text", "reader");
  auto complete = reader->schema().complete({{"data", path("text.txt")}, {"tokenizer", s->tokenizer}, {"window", 512}}, "text");
  ASSERT_TRUE(complete);
  auto data = reader->open(*complete, "");
  ASSERT_TRUE(data) << data.error().text();
  const auto sample = (*data)->read(0);
  const std::int64_t length = (*data)->token_window(0).length;
  std::vector<std::int32_t> ours;
  for (std::int64_t i = 0; i < length; ++i)
    ours.push_back(static_cast<std::int32_t>(sample->values[static_cast<std::size_t>(i)]));
  EXPECT_EQ(llama.tokenize(text), ours);
}

}  // namespace
}  // namespace quanvas
