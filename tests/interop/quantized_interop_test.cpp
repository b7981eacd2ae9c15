// Quantized files in onnxruntime and, as recipes, here.
#include "tests/interop/runtime_support.h"
#include "tests/plugins/import_quantized_operators.h"

namespace quanvas::interop {
namespace {

using import_test::operator_cases;
using import_test::operator_file;

class QuantizedFiles : public RuntimeTest {};

TEST_F(QuantizedFiles, AreWhatOnnxruntimeComputes) {
  std::vector<Job> jobs;
  const auto cases = operator_cases();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    Job job;
    job.name = cases[i].name;
    job.model = path("net" + std::to_string(i) + ".onnx");
    std::ofstream(job.model, std::ios::binary) << operator_file(cases[i], true).bytes();
    job.inputs = {{"x", import_test::input_of(cases[i].x)}};
    jobs.push_back(std::move(job));
  }
  const std::vector<Answer> answers = onnxruntime(jobs);
  if (answers.empty()) GTEST_SKIP() << "onnxruntime-node is not installed; packaging/test does it";
  ASSERT_EQ(answers.size(), jobs.size());
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    SCOPED_TRACE(jobs[i].name);
    EXPECT_EQ(answers[i].error, "");
    if (!answers[i].error.empty()) continue;
    const auto opened = import_test::open_file(jobs[i].model, FileQuantizers::kRules);
    const auto got = import_test::run(opened, {jobs[i].inputs[0].tensor});
    ASSERT_TRUE(got) << got.error().text();
    const at::Tensor off = ((*got)[0] - answers[i].outputs[0]).abs();
    const double least = 1e-6 * std::max(1.0, answers[i].outputs[0].abs().max().item<double>());
    const double step = cases[i].is_real ? least : 0.031;
    const double differ = off.gt(least).sum().item<double>(), most = off.max().item<double>();
    std::cout << jobs[i].name << ": " << differ << " of " << off.numel() << " values differ, at most by " << most << "\n";
    // Sums of integers are rounded to float32 here, and onnxruntime looks some functions up in tables.
    EXPECT_LE(most, 1.01 * step);
    EXPECT_LE(differ, 0.01 * static_cast<double>(off.numel()));
  }
}

}  // namespace
}  // namespace quanvas::interop
