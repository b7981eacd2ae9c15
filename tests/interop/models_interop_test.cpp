// Real networks give what onnxruntime gives.
#include <onnx/onnx_pb.h>

#include "tests/interop/runtime_support.h"

namespace quanvas::interop {
namespace {

at::Tensor noise(const Shape& shape, std::uint64_t seed, double low = -1, double high = 1) {
  at::Tensor t = at::empty(shape, at::kFloat);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    t.data_ptr<float>()[i] =
        static_cast<float>(low + (high - low) * static_cast<double>(state >> 33) / 2147483648.0);
  }
  return t;
}

at::Tensor whole(const Shape& shape, std::uint64_t seed, double high, at::ScalarType type) {
  return noise(shape, seed, 0, high).floor().to(type);
}

// At least as long as the model's receptive field: speech-like tones.
at::Tensor tones(std::int64_t n) {
  const at::Tensor t = at::arange(n, at::kFloat) / 16000.0f;
  return ((t * 1300).sin() * 0.3 + (t * 5100).sin() * 0.1 * (t * 40).cos()).reshape({1, n});
}

// Dark strokes in a line on white, which a text detector takes for text: far from 0, where runtimes cut the sigmoid
// off.
at::Tensor strokes() {
  at::Tensor x = at::full({1, 3, 96, 160}, 2.0f);
  for (std::int64_t c = 24; c < 136; c += 8) {
    x.slice(2, 36, 60).slice(3, c, c + 3).fill_(-2.0f);
    x.slice(2, 36 + c % 24, 39 + c % 24).slice(3, c, c + 7).fill_(-2.0f);
  }
  return x;
}

const std::vector<Job>& jobs() {
  static std::vector<Job> all = {
      {"silero opset 15, 16 kHz",
       "silero/silero_vad_16k_op15.onnx",
       {{"input", tones(512)},
        {"state", noise({2, 1, 128}, 3, -0.1, 0.1)},
        {"sr", at::scalar_tensor(16000, at::kLong)}}},
      {"silero opset 18",
       "silero/silero_vad_op18_ifless.onnx",
       {{"input", tones(576)},
        {"state", noise({2, 1, 128}, 4, -0.1, 0.1)},
        {"sr", at::scalar_tensor(16000, at::kLong)}}},
      {"ocr", "ocr/ch_PP-OCRv4_det_infer.onnx", {{"x", strokes()}}},
      {"super resolution", "superres/model.onnx", {{"input", noise({1, 1, 224, 224}, 6, 0, 1)}}},
      {"magika", "magika/model.onnx", {{"bytes", whole({2, 2048}, 7, 257, at::kInt)}}},
      {"tinystories", "tinystories260k/tinystories260k.onnx", {{"ids", whole({2, 33}, 8, 512, at::kLong)}}},
      {"keywords", "kws/kws_dscnn.onnx", {{"", noise({3, 49, 10, 1}, 9)}}},
      {"mnist", "mnist/mnist_8/model.onnx", {{"Input3", noise({1, 1, 28, 28}, 10, 0, 255)}}},
      {"squeezenet", "squeezenet1.1/squeezenet1.1.onnx", {{"", noise({1, 3, 224, 224}, 11)}}},
      {"resnet20", "resnet20/resnet20_bn.onnx", {{"", noise({4, 3, 32, 32}, 12)}}},
  };
  if (all.size() == 10)
    for (const char* name : {"bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50",
                             "shufflenet", "squeezenet", "vgg19", "zfnet512"})
      all.push_back({name, std::string("light/light_") + name + ".onnx", {{"", noise({1, 3, 224, 224}, 13)}}});
  return all;
}

class RealModels : public RuntimeTest {
 protected:
  // A copy of the file that ends at what its last Softmax reads. The light models have made-up weights, all of a layer
  // alike: their classes tie at values like 4.9e9, of which float's last bit is 512, so that rounding, and with it the
  // order of sums of the machine at hand, decides what a softmax makes of them.
  std::string before_softmax(const std::string& file) {
    onnx::ModelProto model;
    std::ifstream in(file, std::ios::binary);
    EXPECT_TRUE(model.ParseFromIstream(&in)) << file;
    auto& nodes = *model.mutable_graph()->mutable_node();
    if (nodes.rbegin()->op_type() != "Softmax") return file;
    auto& output = *model.mutable_graph()->mutable_output(0);
    output.set_name(nodes.rbegin()->input(0));
    output.mutable_type()->mutable_tensor_type()->clear_shape();
    nodes.RemoveLast();
    const std::string copy = path(fs::path(file).filename().string());
    std::ofstream out(copy, std::ios::binary);
    EXPECT_TRUE(model.SerializeToOstream(&out));
    return copy;
  }
};

TEST_F(RealModels, GiveWhatOnnxruntimeGives) {
  const fs::path models = fs::path(QUANVAS_SHARED_DIR) / "models";
  if (!fs::exists(models)) GTEST_SKIP() << "no reference models";
  std::vector<Job> run;
  for (Job job : jobs()) {
    job.model = (models / job.model).string();
    if (job.model.find("/light_") != std::string::npos) job.model = before_softmax(job.model);
    JobContext context;
    const auto model = import_model(job.model, context);
    ASSERT_TRUE(model) << job.name << ": " << model.error().text();
    if (job.inputs.size() == 1 && job.inputs[0].name.empty())
      job.inputs[0].name = model->graph->tensor(model->graph->inputs()[0]).name;
    run.push_back(std::move(job));
  }
  const std::vector<Answer> answers = onnxruntime(run);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
  ASSERT_EQ(answers.size(), run.size());
  for (std::size_t i = 0; i < run.size(); ++i) {
    SCOPED_TRACE(run[i].name);
    EXPECT_EQ(answers[i].error, "");
    const auto got = quanvas(run[i]);
    ASSERT_TRUE(got) << got.error().text();
    ASSERT_EQ(got->size(), answers[i].outputs.size());
    for (std::size_t k = 0; k < got->size(); ++k) {
      const double d = relative_difference((*got)[k], answers[i].outputs[k]);
      std::cout << run[i].name << ", output " << k << ": relative difference " << d << "\n";
      // Sums of thousands of equal terms round the same way each time, so made-up weights differ by more.
      EXPECT_LE(d, run[i].model.find("/light_") == std::string::npos ? 1e-5 : 1e-4);
    }
  }
}

}  // namespace
}  // namespace quanvas::interop
