// Truncated outputs as QuantizeLinear and DequantizeLinear: where that is exact, and where it is refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "core/exec/rebuild.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using Ints = std::vector<std::int64_t>;

struct Row {
  const char* what;
  int window;
  float scale;  // of the input
  int bits_in, bits;
  bool is_signed;
  Rounding rounding;
  const char* refused;  // the rule; null: exact
};
const Row kRows[] = {
    {"powers of two", 2, 0x1p-5f, 8, 8, false, Rounding::kHalfEven, nullptr},
    {"signed", 4, 0x1p-5f, 8, 8, true, Rounding::kHalfEven, nullptr},
    {"few bits", 2, 0x1p-3f, 4, 3, false, Rounding::kHalfEven, nullptr},
    {"nothing is cut off", 3, 0.0123f, 4, 8, true, Rounding::kHalfEven, nullptr},
    {"floor", 2, 0x1p-5f, 8, 8, false, Rounding::kFloor, "rounding"},
    {"another scale", 2, 0.0123f, 8, 8, false, Rounding::kHalfEven, "truncation"},
    {"nine elements", 3, 0x1p-5f, 8, 8, false, Rounding::kHalfEven, "truncation"},
    {"nine elements whose scale is nine", 3, 9 * 0x1p-5f, 8, 8, false, Rounding::kHalfEven, "truncation"},
};

QuantizedModel network(const Row& row) {
  testing::ModelMaker m;
  m.input("x", {-1, 3, 8, 8}).shape("y", {-1, 3, 9 - row.window, 9 - row.window});
  m.node("pool", "AveragePool", {"x"}, {"y"}, {{"kernel_shape", Ints{row.window, row.window}}});
  m.output("y");
  QuantizedModel out;
  out.model = m.build();
  const NodeId id = out.model->graph->find("pool")->id;
  QuantSpec in;
  in.bits = row.bits_in;
  in.is_signed = row.is_signed;
  in.source = ScaleSource::kConstant;
  in.scale_value = static_cast<double>(row.scale);
  const float none = 0;
  auto params = *quant::find_params(in, {1, 1, 1, 1}, &none, 1);
  params.layout = *quant::make_layout(in, {-1, 3, 8, 8}, 1);
  out.quantizers[{id, SiteKind::kInput, 0}] = params;
  QuantSpec trunc;
  trunc.bits = row.bits;
  trunc.is_signed = row.is_signed;
  trunc.rounding = row.rounding;
  trunc.truncation = Truncation::kMsb;
  out.quantizers[{id, SiteKind::kOutput, 0}] =
      *exec::truncation(*out.model->graph, find_layers(*out.model->graph)[0], trunc, 0, out.quantizers);
  return out;
}

class ExportTruncation : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = fs::temp_directory_path() / ("quanvas-truncation-" + std::to_string(getpid()) + ".onnx");
    exporter_ = Registry<Exporter>::instance().find("onnx-qdq");
    ASSERT_NE(exporter_, nullptr);
  }
  void TearDown() override { fs::remove(file_); }
  void write(const QuantizedModel& model) {
    JobContext job;
    const auto written = exporter_->write(model, file_.string(), json::object(), job);
    ASSERT_TRUE(written) << written.error().text();
  }
  bool equal(const QuantizedModel& model) {
    const auto rows = exporter_->audit(model, file_.string(), json::object());
    EXPECT_TRUE(rows) << rows.error().text();
    return rows && rows->size() == 2 && (*rows)[0].equal && (*rows)[1].equal;
  }
  fs::path file_;
  const Exporter* exporter_ = nullptr;
};

TEST_F(ExportTruncation, IsWrittenWhereItIsExactAndRefusedElsewhere) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.what);
    const QuantizedModel model = network(row);
    const auto refusals = exporter_->check(model, json::object());
    if (row.refused) {
      ASSERT_EQ(refusals.size(), 1u);
      EXPECT_EQ(refusals[0].rule, row.refused);
      EXPECT_EQ(refusals[0].layer, "pool");
      EXPECT_EQ(refusals[0].quantizer, "output");
      ASSERT_NO_FATAL_FAILURE(write(model));  // the audit would see it, too
      EXPECT_FALSE(equal(model));
      continue;
    }
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    ASSERT_NO_FATAL_FAILURE(write(model));
    EXPECT_TRUE(equal(model));
    // What the file computes is what the network computes, on values that reach both ends.
    JobContext job;
    const Importer* importer = Registry<Importer>::instance().find("onnx");
    ASSERT_NE(importer, nullptr);
    ImportOptions as_nodes;
    as_nodes.quantizers = FileQuantizers::kNodes;
    const auto file = importer->load(file_.string(), as_nodes, job);
    ASSERT_TRUE(file) << file.error().text();
    const at::Tensor x =
        testing::noise({16, 3, 8, 8}, 3) * (1.2f * row.scale * std::exp2(static_cast<float>(row.bits_in)));
    const at::Tensor want = testing::run_one(model.model, x, &model.quantizers);
    EXPECT_TRUE(testing::same_bits(testing::run_one(std::make_shared<const Model>(file->model), x), want));
  }
}

TEST_F(ExportTruncation, TheAuditSeesAnotherRounding) {
  const QuantizedModel model = network(kRows[0]);
  ASSERT_NO_FATAL_FAILURE(write(model));
  ASSERT_TRUE(equal(model));
  for (auto change : {+[](quant::QuantParams& p) { p.spec.rounding = Rounding::kFloor; },
                      +[](quant::QuantParams& p) { p.spec.rounding = Rounding::kHalfUp; },
                      +[](quant::QuantParams& p) { p.scale[0] *= 2; }}) {
    QuantizedModel other = model;
    for (auto& [site, p] : other.quantizers)
      if (p.truncated) change(p);
    EXPECT_FALSE(equal(other));
  }
}

}  // namespace
}  // namespace quanvas
