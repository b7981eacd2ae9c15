// Exported weights, dequantized by NumPy as the formats' own libraries do (read_weights.py), against the fake-quantized ones.
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
    for (const std::string& name : {std::string(given ? given : ""), std::string("python3"), std::string("/usr/bin/python3")})
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
      for (int bits = 1; bits <= 8; ++bits) rows.push_back({"compressed-tensors", ints(bits, is_signed, granularity), {{"packing", "dense"}}});
      rows.push_back({"compressed-tensors", ints(8, is_signed, granularity), {{"format", "int-quantized"}}});
      for (const int bits : {2, 3, 4, 8})
        rows.push_back({"gptq", half(ints(bits, is_signed, granularity)), {{"checkpoint_format", is_signed ? "gptq" : "gptq_v2"}}});
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
  const std::string script = std::string(QUANVAS_TEST_DATA) + "/interop/read_weights.py";
  const auto compare = [&](const QuantizedModel& model, const std::string& file, const std::string& config, bool by_module) {
    const std::string log = path("python.txt");
    ASSERT_EQ(std::system((interpreter + " " + script + " " + file + " " + config + " " + folder_.string() + " > " + log + " 2>&1").c_str()), 0)
        << read_file(log).value_or("");
    const std::pair<const char*, const char*> names[] = {{"model.up.weight", "model.up"}, {"model.down.weight", "model.down"}, {"onnx::MatMul_77", "lm_head"}};
    for (const auto& [initializer, module] : names) {
      const auto got = read_npy(path((by_module ? module : initializer) + std::string(".npy")));
      ASSERT_TRUE(got) << got.error().text();
      const std::vector<float> x = net->weights->find(initializer)->to_floats();
      std::vector<float> wanted(x.size());
      for (const auto& [site, p] : model.quantizers)
        if (net->graph->find(site.node)->inputs[1] == net->graph->tensor(initializer)) quant::fake_quantize(p, p.layout, x.data(), wanted.data());
      const bool transposed = by_module && initializer != std::string("model.down.weight");
      const Shape shape = net->weights->find(initializer)->shape;
      ASSERT_EQ(got->values.size(), x.size());
      for (std::int64_t i = 0; i < shape[0]; ++i)
        for (std::int64_t j = 0; j < shape[1]; ++j) {
          const auto at = static_cast<std::size_t>(transposed ? j * shape[0] + i : i * shape[1] + j);
          ASSERT_EQ(got->values[at], wanted[static_cast<std::size_t>(i * shape[1] + j)]) << initializer << " " << i << " " << j;
        }
    }
  };
  for (const Row& row : table()) {
    SCOPED_TRACE(std::string(row.target) + " " + describe(row.spec) + " " + row.options.dump());
    const QuantizedModel model = linear_net::quantize(net, row.spec);
    ASSERT_NO_FATAL_FAILURE(write(row.target, model, row.options));
    ASSERT_NO_FATAL_FAILURE(compare(model, path(), path("config.json"), true));
  }
  // Groups on axis 1 would need the description; channels of MatMul lie on axis 1.
  QuantizedModel model = linear_net::quantize(net, ints(6, false, kChannel), {}, {"/model/down/Gemm"});
  ASSERT_NO_FATAL_FAILURE(write("npz", model, {}, "out.npz"));
  const std::string log = path("python.txt");
  ASSERT_EQ(std::system((interpreter + " " + script + " " + path("out.npz") + " - " + folder_.string() + " > " + log + " 2>&1").c_str()), 0)
      << read_file(log).value_or("");
  for (const char* initializer : {"model.up.weight", "onnx::MatMul_77"}) {
    const auto got = read_npy(path(initializer + std::string(".npy")));
    ASSERT_TRUE(got) << got.error().text();
    const std::vector<float> x = net->weights->find(initializer)->to_floats();
    std::vector<float> wanted(x.size());
    for (const auto& [site, p] : model.quantizers)
      if (net->graph->find(site.node)->inputs[1] == net->graph->tensor(initializer)) quant::fake_quantize(p, p.layout, x.data(), wanted.data());
    EXPECT_EQ(got->values, wanted);
    EXPECT_EQ(got->shape, net->weights->find(initializer)->shape);
  }
}

}  // namespace
}  // namespace quanvas
