// ONNX's own node cases (package libonnx-testdata) for every operator of the table.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include <onnx/onnx_pb.h>

#include "core/exec/runner.h"
#include "core/plugin/registry.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
const fs::path kCases = "/usr/share/libonnx-testdata/data/node";

// Cases that the executor leaves out although it has their operator, each with its reason.
const std::map<std::string, std::string>& left_out() {
  static const std::map<std::string, std::string> reasons = {
      {"test_resize_downsample_scales_cubic_align_corners", "divides by the length before it is rounded; runtimes do not"},
      {"test_resize_downsample_scales_linear_align_corners", "divides by the length before it is rounded; runtimes do not"},
      {"test_cast_BFLOAT16_to_FLOAT", "bfloat16 data stored as integers"},
      {"test_cast_FLOAT_to_BFLOAT16", "bfloat16 data stored as integers"},
      {"test_castlike_BFLOAT16_to_FLOAT_expanded", "bfloat16 data stored as integers"},
      {"test_castlike_FLOAT_to_BFLOAT16_expanded", "bfloat16 data stored as integers"},
      {"test_training_dropout", "random masks differ"},
      {"test_training_dropout_default", "random masks differ"},
      {"test_training_dropout_default_mask", "random masks differ"},
      {"test_training_dropout_mask", "random masks differ"},
  };
  return reasons;
}

bool parse(const fs::path& path, google::protobuf::MessageLite& message) {
  std::ifstream in(path, std::ios::binary);
  return in && message.ParseFromIstream(&in);
}

// Independent of the importer: only the types that occur in the cases.
at::Tensor read_tensor(const fs::path& path) {
  onnx::TensorProto t;
  if (!parse(path, t)) return {};
  const Shape shape(t.dims().begin(), t.dims().end());
  const auto raw = [&](DataType type) {
    return exec::to_tensor(TensorData::copy_of(type, shape, t.raw_data().data(), t.raw_data().size()));
  };
  if (!t.raw_data().empty()) return raw(static_cast<DataType>(t.data_type()));
  if (t.float_data_size() > 0)
    return at::tensor(std::vector<float>(t.float_data().begin(), t.float_data().end())).reshape(shape);
  if (t.int64_data_size() > 0)
    return at::tensor(std::vector<std::int64_t>(t.int64_data().begin(), t.int64_data().end()), at::kLong).reshape(shape);
  return element_count(shape) == 0 && !shape.empty() ? raw(static_cast<DataType>(t.data_type())) : at::Tensor();
}

std::vector<at::Tensor> read_all(const fs::path& folder, const std::string& prefix) {
  std::vector<at::Tensor> out;
  for (int i = 0; fs::exists(folder / (prefix + std::to_string(i) + ".pb")); ++i)
    out.push_back(read_tensor(folder / (prefix + std::to_string(i) + ".pb")));
  return out;
}

bool all_defined(const std::vector<at::Tensor>& ts) {
  return std::all_of(ts.begin(), ts.end(), [](const at::Tensor& t) { return t.defined(); });
}

// The reference data of float16 cases carry half precision.
at::Tensor comparable(const at::Tensor& t) { return t.to(at::kDouble); }

struct Tally {
  int passed = 0, skipped = 0;
  std::set<std::string> operators;
};

void check_case(const fs::path& folder, Tally& tally) {
  const std::string name = folder.filename();
  if (left_out().count(name)) return;
  JobContext job;
  auto model = import_model(folder / "model.onnx", job);
  if (!model) return;  // strings, sequences, opsets that the importer refuses: its own tests
  for (const Node& node : model->graph->nodes())
    if (!exec::unsupported_reason(node).empty()) {
      ++tally.skipped;
      return;
    }
  const auto inputs = read_all(folder / "test_data_set_0", "input_"), expected = read_all(folder / "test_data_set_0", "output_");
  if (!all_defined(inputs) || !all_defined(expected) || inputs.size() != model->graph->inputs().size()) {
    ++tally.skipped;
    return;
  }
  auto runner = exec::Runner::create(std::make_shared<const Model>(*model), nullptr);
  ASSERT_TRUE(runner) << name;
  const auto out = (*runner)->run(inputs);
  ASSERT_TRUE(out) << name << ": " << out.error().text();
  for (std::size_t i = 0; i < std::min(out->size(), expected.size()); ++i) {
    const bool half = expected[i].scalar_type() == at::kHalf || expected[i].scalar_type() == at::kBFloat16;
    const bool window = name.find("window") != std::string::npos;  // made with a pi of five digits
    const double tolerance = half ? 2e-3 : window ? 1e-4 : 1e-5;
    ASSERT_EQ((*out)[i].sizes(), expected[i].sizes()) << name;
    EXPECT_TRUE(at::allclose(comparable((*out)[i]), comparable(expected[i]), 10 * tolerance, tolerance, true))
        << name << " output " << i << "\n" << (*out)[i] << "\n" << expected[i];
  }
  ++tally.passed;
  for (const Node& node : model->graph->nodes()) tally.operators.insert(node.op);
}

TEST(ExecConformance, OnnxNodeCases) {
  if (!fs::exists(kCases)) GTEST_SKIP() << "libonnx-testdata is not installed";
  if (Registry<Importer>::instance().find("onnx") == nullptr) GTEST_SKIP() << "no ONNX importer";
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(kCases)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  Tally tally;
  for (const auto& folder : folders) {
    if (!fs::exists(folder / "model.onnx")) continue;
    check_case(folder, tally);
  }
  RecordProperty("passed", tally.passed);
  std::string missing;
  for (const std::string& op : exec::supported_operators())
    if (!tally.operators.count(op)) missing += op + " ";
  std::cout << tally.passed << " cases passed, " << tally.skipped << " skipped; operators without a case: " << missing << "\n";
  EXPECT_GT(tally.passed, 650);
}

}  // namespace
}  // namespace quanvas
