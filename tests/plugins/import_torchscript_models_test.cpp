// Real TorchScript files, run beside themselves; and what the executor runs of LibTorch's own operators.
#include "tests/plugins/torchscript_support.h"

namespace quanvas::torchscript_test {
namespace {

namespace fs = std::filesystem;

struct Model {
  const char* file;
  std::map<std::string, Shape> shapes;
  Shape input;
  std::int64_t vocabulary;  // of an input of tokens; 0: reals
  std::size_t layers;       // Conv, Gemm and MatMul with weights
  int torch_nodes = 0;      // run by LibTorch itself: where the rank is not known
};

at::Tensor input_of(const Model& row) {
  at::manual_seed(3);
  return row.vocabulary ? at::randint(row.vocabulary, row.input, at::kLong) : at::randn(row.input);
}

std::size_t weighted(const Graph& g) {
  std::size_t n = 0;
  for (const Node& node : g.nodes())
    n += (node.op == "Conv" || node.op == "Gemm" || node.op == "MatMul") && node.input(1) != kNoTensor &&
         g.tensor(node.input(1)).is_initializer;
  return n;
}

TEST(ImportTorchScriptModels, ResultsAreThoseOfLibTorch) {
  const fs::path folder = fs::path(QUANVAS_SHARED_DIR) / "models";
  if (!fs::exists(folder)) GTEST_SKIP() << "no reference models";
  const Model rows[] = {{"resnet20/resnet20.ts.pt", {{"x", {1, 3, 32, 32}}}, {4, 3, 32, 32}, 0, 20},
                        {"resnet20/resnet20.ts.pt", {}, {2, 3, 32, 32}, 0, 20},
                        {"fashion/dwcnn.ts.pt", {{"input", {1, 1, 28, 28}}}, {5, 1, 28, 28}, 0, 8},
                        {"tinystories260k/tinystories260k.ts.pt", {{"x", {-1, -1}}}, {2, 19}, 512, 36},
                        {"tinystories260k/tinystories260k.ts.pt", {}, {1, 7}, 512, 36, 25},
                        {"silero/silero_vad.jit", {{"x", {1, 512}}, {"sr", {16000}}}, {1, 512}, 0, 6},
                        {"silero/silero_vad.jit", {{"x", {1, 256}}, {"sr", {8000}}}, {1, 256}, 0, 6}};
  for (const Model& row : rows) {
    SCOPED_TRACE(row.file);
    const std::string path = (folder / row.file).string();
    const Read r = read_trusted(path, row.shapes);
    ASSERT_TRUE(r.imported) << r.imported.error().text();
    for (const Node& n : r.graph().nodes()) EXPECT_EQ(exec::unsupported_reason(n), "") << n.name;
    EXPECT_EQ(r.count("TorchScript"), row.torch_nodes);
    EXPECT_EQ(weighted(r.graph()), row.layers);
    const at::Tensor x = input_of(row);
    const auto ours = run(r.imported->model, {x});
    ASSERT_TRUE(ours) << ours.error().text();
    auto module = torch::jit::load(path);
    module.eval();
    std::vector<c10::IValue> arguments = {x};
    if (const auto sr = row.shapes.find("sr"); sr != row.shapes.end()) arguments.emplace_back(sr->second[0]);
    const at::NoGradGuard no_gradients;
    Tensors theirs;
    flatten(module.forward(arguments), theirs);
    const double apart = largest_difference(*ours, theirs);
    EXPECT_LE(apart, 1e-5);
    std::printf("%s: %zu nodes, largest relative difference %.3g\n", row.file, r.graph().nodes().size(), apart);
  }
}

// Both sample rates in one graph: the rate is an input.
TEST(ImportTorchScriptModels, ANumberThatChoosesTheNetworkIsAnIf) {
  const std::string path = (fs::path(QUANVAS_SHARED_DIR) / "models/silero/silero_vad.jit").string();
  if (!fs::exists(path)) GTEST_SKIP() << "no reference models";
  const Read r = read_trusted(path, {{"x", {1, -1}}});
  ASSERT_TRUE(r.imported) << r.imported.error().text();
  ASSERT_EQ(r.graph().inputs().size(), 2u);
  for (const Node& n : r.graph().nodes()) EXPECT_EQ(exec::unsupported_reason(n), "") << n.name;
  EXPECT_GE(r.count("If"), 1);
  for (const std::int64_t rate : {16000, 8000}) {
    at::manual_seed(3);
    const at::Tensor x = at::randn({1, rate == 16000 ? 512 : 256});
    const auto ours = run(r.imported->model, {x, at::scalar_tensor(rate, at::kLong)});
    ASSERT_TRUE(ours) << ours.error().text();
    auto module = torch::jit::load(path);
    const at::NoGradGuard no_gradients;
    EXPECT_LE(difference((*ours)[0], module.forward({x, rate}).toTensor()), 1e-5) << rate;
  }
}

// As ONNX and back.
TEST(ImportTorchScriptModels, ExportsAsOnnx) {
  const std::string path = (fs::path(QUANVAS_SHARED_DIR) / "models/resnet20/resnet20.ts.pt").string();
  if (!fs::exists(path)) GTEST_SKIP() << "no reference models";
  const Read r = read_trusted(path, {{"x", {1, 3, 32, 32}}});
  ASSERT_TRUE(r.imported);
  const auto model = std::make_shared<const quanvas::Model>(r.imported->model);
  const Exporter* exporter = Registry<Exporter>::instance().find("onnx");
  ASSERT_TRUE(exporter);
  const QuantizedModel plain{model, {}, {}};
  EXPECT_TRUE(exporter->check(plain, json::object()).empty());
  const TempFile out("resnet20.onnx");
  JobContext job;
  ASSERT_TRUE(exporter->write(plain, out.path(), json::object(), job));
  const auto again = quanvas::import_file(out.path(), {}, job);
  ASSERT_TRUE(again) << again.error().text();
  const at::Tensor x = input_of({"", {}, {2, 3, 32, 32}, 0, 0});
  const auto ours = run(*model, {x}), theirs = run(again->model, {x});
  ASSERT_TRUE(ours && theirs);
  EXPECT_LE(largest_difference(*ours, *theirs), 1e-6);
}

TEST(ImportTorchScript, ARowOfTheExecutorRunsOnlyWhatComputes) {
  const struct {
    const char* op;
    const char* arguments;
    const char* reason;
  } rows[] = {{"aten::from_file", "[\"/etc/passwd\", null, 4, null, null, null, null]", "does not compute"},
              {"aten::add_", "[{\"tensor\": 0}, 1, 1]", "has no operator"},
              {"aten::relu_", "[{\"tensor\": 0}]", "writes to its arguments"},
              {"aten::nonesuch", "[]", "has no operator"},
              {"prim::Print", "[]", "no operator"},
              {"aten::rand", "[[2], null, null, null, null]", "does not compute"},
              {"aten::roll", "[{\"tensor\": 0}]", "takes 3 arguments"},
              {"aten::roll", "what", "cannot be read"}};
  for (const auto& row : rows) {
    GraphBuilder b;
    b.tensor("x", DataType::kFloat, Shape{2});
    b.input("x");
    b.node(
        "n", "TorchScript", {"x"}, {"y"},
        {{"operator", std::string(row.op)}, {"overload", std::string()}, {"arguments", std::string(row.arguments)}},
        "torch");
    b.output("y");
    const auto g = b.build();
    ASSERT_TRUE(g);
    EXPECT_NE(exec::unsupported_reason((*g)->nodes()[0]).find(row.reason), std::string::npos)
        << row.op << ": " << exec::unsupported_reason((*g)->nodes()[0]);
  }
}

}  // namespace
}  // namespace quanvas::torchscript_test
