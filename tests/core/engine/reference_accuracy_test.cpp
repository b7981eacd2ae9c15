// Figures of real networks on real data, as published with them or measured with onnxruntime. Skipped without the data.
#include <gtest/gtest.h>

#include "core/recipe/recipe.h"
#include "core/workflow/workbench.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(QUANVAS_SHARED_DIR) / "models";
const fs::path kFashion = "/usr/share/datasets/fashion-mnist";

struct Reference {
  const char* name;
  fs::path model, data;        // data: what must be there
  DataSource source;
  Preprocessing preprocessing;
  double correct, samples;     // of top-1
};

Preprocessing pictures() {
  Preprocessing p;
  p.scale = 1 / 255.0;
  p.mean = {0.485, 0.456, 0.406};
  p.std = {0.229, 0.224, 0.225};
  p.crop_height = p.crop_width = 224;
  p.channels = "rgb";
  return p;
}
Preprocessing scaled(double scale) {
  Preprocessing p;
  p.scale = scale;
  return p;
}
json idx(const fs::path& folder) {
  return {{"images", (folder / "t10k-images-idx3-ubyte.gz").string()}, {"labels", (folder / "t10k-labels-idx1-ubyte.gz").string()}};
}

std::vector<Reference> references() {
  const auto path = [](const char* name) { return (kModels / name).string(); };
  return {
      {"squeezenet", kModels / "squeezenet1.1/squeezenet1.1.onnx", kModels / "imagenet500",
       {"images", {{"folder", path("imagenet500/images")}, {"labels", path("imagenet500/labels.csv")}}, 0, -1}, pictures(), 323, 500},
      {"mnist", kModels / "mnist/mnist_8/model.onnx", kModels / "mnist", {"idx", idx(kModels / "mnist"), 0, -1}, {}, 9891, 10000},
      {"dwcnn", kModels / "fashion/dwcnn.onnx", kFashion, {"idx", idx(kFashion), 0, -1}, scaled(1 / 255.0), 8730, 10000},
      {"dwcnn_bn", kModels / "fashion/dwcnn_bn.onnx", kFashion, {"idx", idx(kFashion), 0, -1}, scaled(1 / 255.0), 8730, 10000},
      {"keywords", kModels / "kws/kws_dscnn.onnx", kModels / "kws",
       {"raw",
        {{"data", path("kws/kws01_1000x49x10_int8.bin")}, {"labels", path("kws/kws01_labels_u8.bin")}, {"type", "int8"},
         {"shape", "49x10x1"}, {"scale", 0.5847029}, {"zero_point", 83}},
        0, -1},
       {}, 913, 1000},
      {"magika", kModels / "magika/model.onnx", kModels / "magika/samples",
       {"bytes", {{"folder", path("magika/samples")}, {"labels", path("magika/labels.json")}}, 0, -1}, {}, 76, 76},
  };
}

class ReferenceAccuracy : public ::testing::TestWithParam<std::size_t> {
 protected:
  // On a project that is gone with the test.
  void open(const fs::path& model, const DataSettings& data) {
    project_ = fs::temp_directory_path() / ("quanvas-reference-" + std::to_string(::getpid()) + ".quanvas");
    fs::remove(project_);
    auto bench = Workbench::open(model.string(), {}, job_, project_.string());
    ASSERT_TRUE(bench) << bench.error().text();
    bench_ = std::move(*bench);
    const auto state = bench_->set_data(data);
    ASSERT_TRUE(state) << state.error().text();
    ASSERT_TRUE(state->data_status.can_evaluate) << state->data_status.problem;
  }
  void TearDown() override {
    bench_.reset();
    if (!project_.empty()) fs::remove(project_), fs::remove_all(project_.string() + ".data");
  }
  JobContext job_;
  fs::path project_;
  std::unique_ptr<Workbench> bench_;
};

TEST_P(ReferenceAccuracy, IsReproduced) {
  const Reference r = references()[GetParam()];
  if (!fs::exists(r.model) || !fs::exists(r.data)) GTEST_SKIP() << "no reference model or data for " << r.name;
  DataSettings data;
  data.evaluate = r.source;
  data.preprocessing = r.preprocessing;
  ASSERT_NO_FATAL_FAILURE(open(r.model, data));
  const auto run = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(run) << run.error().text();
  EXPECT_EQ(run->accuracy->samples, r.samples);
  // A sample may change sides where two scores are as good as equal.
  EXPECT_NEAR(run->accuracy->top1 * r.samples, r.correct, 0.0005 * r.samples) << r.name;
}
INSTANTIATE_TEST_SUITE_P(Networks, ReferenceAccuracy, ::testing::Range<std::size_t>(0, references().size()),
                         [](const auto& info) { return std::string(references()[info.param].name); });

// 1.2664 nats per token on 1804 tokens: documents between <|endoftext|>, each behind a BOS.
class ReferencePerplexity : public ReferenceAccuracy {};
TEST_F(ReferencePerplexity, OfTinyStoriesIsReproduced) {
  const fs::path folder = kModels / "tinystories260k";
  if (!fs::exists(folder)) GTEST_SKIP() << "no reference model";
  DataSettings data;
  data.evaluate = {"text",
                   {{"data", (folder / "tinystories_sample.txt").string()}, {"tokenizer", (folder / "tokenizer.bin").string()},
                    {"separator", "<|endoftext|>"}},
                   0, -1};
  ASSERT_NO_FATAL_FAILURE(open(folder / "tinystories260k.onnx", data));
  const auto run = bench_->evaluate_float(0, job_);
  ASSERT_TRUE(run) << run.error().text();
  EXPECT_EQ(run->accuracy->tokens, 1804);
  EXPECT_NEAR(run->accuracy->loss, 1.2664, 5e-5);
  EXPECT_NEAR(run->accuracy->perplexity, 3.548, 5e-4);
  RunRequest request;
  request.recipe = uniform_recipe(8, 0);
  const auto quantized = bench_->run_recipe(request, job_);
  ASSERT_TRUE(quantized) << quantized.error().text();
  EXPECT_NEAR(quantized->accuracy->perplexity, run->accuracy->perplexity, 0.02);
  EXPECT_NE(quantized->accuracy->perplexity, run->accuracy->perplexity);
  EXPECT_GT(quantized->accuracy->agreement, 0.97);
}

}  // namespace
}  // namespace quanvas
