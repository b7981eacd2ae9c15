// Real networks, where the reference data is there; and ONNX's own conformance models, where installed.
#include "core/graph/layers.h"
#include "tests/plugins/import_support.h"

namespace quanvas::import_test {
namespace {

namespace fs = std::filesystem;

struct RealModel {
  const char* file;
  std::size_t nodes, layers;
  double million_macs, parameters;
  const char *input, *output;
};

// Counted by hand from the papers where there is one (ResNet-20: 40.55 M, SqueezeNet 1.1: 349 M, 1.24 M
// parameters).
const RealModel kModels[] = {
    {"fashion/dwcnn.onnx", 17, 16, 0.500832, 8746, "?×1×28×28", "?×10"},
    {"fashion/dwcnn_bn.onnx", 24, 23, 0.500832, 9610, "?×1×28×28", "?×10"},
    {"resnet20/resnet20.onnx", 57, 49, 40.55104, 269034, "?×3×32×32", "?×10"},
    {"resnet20/resnet20_bn.onnx", 76, 68, 40.55104, 271098, "?×3×32×32", "?×10"},
    {"squeezenet1.1/squeezenet1.1.onnx", 65, 64, 349.151936, 1235496, "?×3×224×224", "?×1000"},
    {"kws/kws_dscnn.onnx", 32, 30, 2.656768, 24908, "?×49×10×1", "?×12"},
    {"mnist/mnist_8/model.onnx", 10, 9, 0.78656, 5994, "?×1×28×28", "?×10"},
    {"light/light_resnet50.onnx", 176, 175, 4089.184256, 25610152, "?×3×224×224", "?×1000"},
};

TEST(ImportModels, RealNetworksComeOutAsPublished) {
  const fs::path folder = fs::path(QUANVAS_SHARED_DIR) / "models";
  if (!fs::exists(folder)) GTEST_SKIP() << "no reference models";
  for (const RealModel& row : kModels) {
    const Imported m = import_file((folder / row.file).string());
    ASSERT_TRUE(m.model) << m.model.error().text();
    const Graph& g = m.graph();
    double macs = 0, parameters = 0;
    for (const Node& n : g.nodes()) {
      macs += node_cost(g, n).macs;
      parameters += node_cost(g, n).parameters;
      for (const TensorId t : n.outputs) {
        if (t != kNoTensor) {
          EXPECT_TRUE(g.tensor(t).shape) << row.file << " " << g.tensor(t).name;
        }
      }
    }
    EXPECT_EQ(g.nodes().size(), row.nodes) << row.file;
    EXPECT_EQ(find_layers(g).size(), row.layers) << row.file;
    EXPECT_NEAR(macs / 1e6, row.million_macs, 1e-6 * row.million_macs) << row.file;
    EXPECT_EQ(parameters, row.parameters) << row.file;
    EXPECT_EQ(shape_text(*g.tensor(g.inputs()[0]).shape), row.input) << row.file;
    EXPECT_EQ(shape_text(*g.tensor(g.outputs()[0]).shape), row.output) << row.file;
  }
}

TEST(ImportModels, EveryReferenceModelImports) {
  const fs::path folder = fs::path(QUANVAS_SHARED_DIR) / "models";
  if (!fs::exists(folder)) GTEST_SKIP() << "no reference models";
  int models = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".onnx") continue;
    const Imported m = import_file(entry.path().string());
    ASSERT_TRUE(m.model) << m.model.error().text();
    EXPECT_TRUE(graph_from_json(graph_to_json(m.graph()))) << entry.path();
    ++models;
  }
  EXPECT_GT(models, 20);
}

// Debian: libonnx-testdata. Each must import, or be refused with a sentence for what this version cannot hold.
TEST(ImportModels, ConformanceModelsImport) {
  const fs::path folder = "/usr/lib/python3/dist-packages/onnx/backend/test/data";
  if (!fs::exists(folder)) GTEST_SKIP() << "libonnx-testdata is not installed";
  int imported = 0;
  std::vector<std::string> refused;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().filename() != "model.onnx") continue;
    const Imported m = import_file(entry.path().string());
    if (m.model)
      ++imported;
    else
      refused.push_back(m.model.error().text());
    if (!m.model) {
      EXPECT_NE(m.model.error().code, ErrorCode::kInternal) << m.model.error().text();
    }
  }
  EXPECT_GT(imported, 900);
  EXPECT_TRUE(refused.empty()) << refused.size() << " refused, the first: " << refused[0];
}

}  // namespace
}  // namespace quanvas::import_test
