// Exported weights, dequantized by NumPy as the formats' own libraries do (read_weights.py), against the fake-quantized
// ones.
#include <cstdlib>

#include "core/data/npy.h"
#include "tests/plugins/linear_net.h"

namespace quanvas {
namespace {

using namespace linear_net;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;
constexpr auto kGroup = Granularity::kGroup;

class WeightsInterop : public WeightFileTest {
 protected:
  static std::string python() {
    const char* given = std::getenv("QUANVAS_PYTHON");
    for (const std::string& name :
         {std::string(given ? given : ""), std::string("python3"), std::string("/usr/bin/python3")})
      if (!name.empty() && std::system((name + " -c 'import numpy' > /dev/null 2>&1").c_str()) == 0) return name;
    return {};
  }
};

struct Row {
  const char* target;
  QuantSpec spec;
  json options;
};

std::vector<Row> table() {
  std::vector<Row> rows;
  for (const bool is_signed : {true, false})
    for (const auto granularity : {kTensor, kChannel, kGroup}) {
      for (int bits = 1; bits <= 8; ++bits)
        rows.push_back({"compressed-tensors", ints(bits, is_signed, granularity), {{"packing", "dense"}}});
      rows.push_back({"compressed-tensors", ints(8, is_signed, granularity), {{"format", "int-quantized"}}});
      for (const int bits : {2, 3, 4, 8})
        rows.push_back(
            {"gptq", half(ints(bits, is_signed, granularity)), {{"checkpoint_format", is_signed ? "gptq" : "gptq_v2"}}});
      rows.push_back({"awq", half(ints(4, is_signed, granularity)), json::object()});
    }
  for (const auto granularity : {kTensor, kChannel, kGroup})
    rows.push_back({"compressed-tensors", minifloat(4, 3, FloatSpecials::kNan, granularity), json::object()});
  QuantSpec mx = minifloat(4, 3, FloatSpecials::kNan, kGroup, 32);
  mx.scale = ScaleType::kPowerOfTwo;
  rows.push_back({"compressed-tensors", mx, json::object()});
  QuantSpec fp4 = minifloat(2, 1, FloatSpecials::kNone, kGroup, 32);
  fp4.scale = ScaleType::kPowerOfTwo;
  rows.push_back({"compressed-tensors", fp4, json::object()});
  return rows;
}

TEST_F(WeightsInterop, NumpyReadsTheVeryFakeQuantizedWeights) {
  const std::string interpreter = python();
  if (interpreter.empty()) GTEST_SKIP() << "python3 with numpy is not installed (Debian: python3-numpy)";
  const ModelPtr net = linear_net::net();
  struct Job {
    std::string title, folder;
    QuantizedModel model;
    bool by_module;  // [out, in]; else as the graph has it
  };
  std::vector<Job> jobs;
  std::ofstream list(path("jobs.txt"));
  const auto add = [&](const std::string& target, const QuantSpec& spec, const json& given, const std::string& file,
                       const std::set<std::string>& left_float) {
    Job job{target + " " + describe(spec) + " " + given.dump(), "job" + std::to_string(jobs.size()),
            linear_net::quantize(net, spec, {}, left_float), target != "npz"};
    fs::create_directory(path(job.folder));
    ASSERT_NO_FATAL_FAILURE(write(target, job.model, given, job.folder + "/" + file));
    list << path(job.folder + "/" + file) << " " << (job.by_module ? path(job.folder + "/config.json") : "-") << " "
         << path(job.folder) << "\n";
    jobs.push_back(std::move(job));
  };
  for (const Row& row : table()) ASSERT_NO_FATAL_FAILURE(add(row.target, row.spec, row.options, "out.safetensors", {}));
  // The channels of a MatMul lie on axis 1, those of the Gemm on axis 0.
  ASSERT_NO_FATAL_FAILURE(add("npz", ints(6, false, kChannel), json::object(), "out.npz", {"/model/down/Gemm"}));
  list.close();
  const std::string log = path("python.txt");
  ASSERT_EQ(std::system((interpreter + " " + std::string(QUANVAS_TEST_DATA) + "/interop/read_weights.py " +
                         path("jobs.txt") + " > " + log + " 2>&1")
                            .c_str()),
            0)
      << read_file(log).value_or("");
  for (const Job& job : jobs) {
    SCOPED_TRACE(job.title);
    for (const auto& [site, p] : job.model.quantizers) {
      const Node& node = *net->graph->find(site.node);
      const std::string& initializer = net->graph->tensor(node.inputs[1]).name;
      const std::string module =
          initializer == "onnx::MatMul_77" ? "lm_head" : initializer.substr(0, initializer.size() - 7);
      const auto got = read_npy(path(job.folder + "/" + (job.by_module ? module : initializer) + ".npy"));
      ASSERT_TRUE(got) << got.error().text();
      const TensorData& data = *net->weights->find(initializer);
      const std::vector<float> x = data.to_floats();
      std::vector<float> wanted(x.size()), in_order(x.size());
      quant::fake_quantize(p, p.layout, x.data(), wanted.data());
      const bool transposed = job.by_module && node.op == "MatMul";
      for (std::size_t i = 0; i < x.size(); ++i) {
        const auto columns = static_cast<std::size_t>(data.shape[1]), rows = static_cast<std::size_t>(data.shape[0]);
        in_order[transposed ? i % columns * rows + i / columns : i] = wanted[i];
      }
      EXPECT_EQ(got->shape, transposed ? (Shape{data.shape[1], data.shape[0]}) : data.shape);
      EXPECT_EQ(got->values, in_order) << module;
    }
  }
}

}  // namespace
}  // namespace quanvas
