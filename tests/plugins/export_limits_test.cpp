// A Clip behind a layer that rounds its own result, where the limit lies between two of its codes: targets that compute on
// codes must not round the limit, too.
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/plugins/export_site_support.h"

namespace quanvas {
namespace {

using namespace export_site;

// first (1x1) -> Clip(0, limit) -> second (1x1). All scales are powers of two, so that every sum is exact.
QuantizedModel limited(float limit, float next_scale) {
  GraphBuilder b;
  auto weights = std::make_shared<WeightStore>();
  b.set_opset(10);
  b.tensor("x", DataType::kFloat, Shape{-1, 2, 6, 6});
  b.input("x");
  for (const auto& [name, shape] : {std::pair<std::string, Shape>{"w1", {3, 2, 1, 1}}, {"w2", {4, 3, 1, 1}}}) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, export_net::random_floats(shape, static_cast<std::uint32_t>(name.back()), 2.0f));
  }
  for (const char* t : {"c", "r"}) b.tensor(t, DataType::kFloat, Shape{-1, 3, 6, 6});
  b.tensor("y", DataType::kFloat, Shape{-1, 4, 6, 6});
  b.node("first", "Conv", {"x", "w1"}, {"c"});
  b.node("limit", "Clip", {"c"}, {"r"}, {{"min", 0.0f}, {"max", limit}});
  b.node("second", "Conv", {"r", "w2"}, {"y"});
  b.output("y");
  const auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  QuantizedModel model = quantize(std::make_shared<const Model>(Model{*graph, weights, "limit"}),
                                  {spec(8, true, true, kNone, kTensor), spec(8, false, false, kInteger, kTensor), true});
  std::erase_if(model.quantizers, [&](const auto& q) { return q.first.node == (*graph)->find("limit")->id; });
  round_scales(model);
  const auto set = [&](const char* node, SiteKind kind, float scale, float zero) {
    quant::QuantParams& p = at_site(model, node, kind);
    p.scale = {scale};
    p.zero_point = {zero};
  };
  set("first", SiteKind::kInput, 1.0f / 16, 128);
  set("first", SiteKind::kOutput, 0.125f, 100);
  set("second", SiteKind::kInput, next_scale, next_scale == 0.125f ? 100 : 0);
  set("second", SiteKind::kOutput, 1.0f / 8, 128);
  return model;
}

TEST(ExportLimits, BetweenTwoCodesAreThoseOfTheScreen) {
  const auto folder = std::filesystem::temp_directory_path() / ("quanvas-limits-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const at::Tensor x = noise({16, 2, 6, 6}, 5, 6);
  struct Row {
    const char* target;
    const char* file;
    float limit, next_scale;
  };
  // 5.9 is no code of 1/8; 5.875 is one; with the next quantizer the same, rounding and limiting commute.
  for (const Row& row : {Row{"onnx-qoperator", "q.onnx", 5.9f, 1.0f / 32}, Row{"onnx-qoperator", "q.onnx", 5.875f, 1.0f / 32},
                         Row{"onnx-qoperator", "q.onnx", 5.9f, 0.125f}, Row{"torchscript-quantized", "q.pt", 5.9f, 1.0f / 32},
                         Row{"torchscript-quantized", "q.pt", 5.875f, 1.0f / 32},
                         Row{"torchscript-quantized", "q.pt", 5.9f, 0.125f}}) {
    SCOPED_TRACE(std::string(row.target) + " " + std::to_string(row.limit) + " " + std::to_string(row.next_scale));
    const QuantizedModel model = limited(row.limit, row.next_scale);
    const Exporter& exporter = **Registry<Exporter>::instance().get(row.target, "target");
    const json options = *exporter.schema().complete(json::object(), row.target);
    const auto refused = exporter.check(model, options);
    ASSERT_TRUE(refused.empty()) << refused[0].text();
    JobContext job;
    const std::string path = (folder / row.file).string();
    const Status written = exporter.write(model, path, options, job);
    ASSERT_TRUE(written) << written.error().text();
    const auto rows = exporter.audit(model, path, options);
    ASSERT_TRUE(rows) << rows.error().text();
    EXPECT_EQ(rows->size(), model.quantizers.size());
    for (const AuditRow& r : *rows) EXPECT_TRUE(r.equal) << r.layer << " " << r.quantizer << ": " << r.written;
    const auto back = exporter.read(model, path, options, job);
    ASSERT_TRUE(back) << back.error().text();
    const c10::InferenceMode no_gradient;
    const auto screen = (*exec::Runner::create(model.model, &model.quantizers))->run_all({x});
    const auto file = (*exec::Runner::create(back->model, nullptr))->run({x});
    ASSERT_TRUE(screen && file) << (file ? "" : file.error().text());
    const Graph& graph = *model.model->graph;
    const at::Tensor before = (*screen)[static_cast<std::size_t>(graph.tensor("c"))];
    EXPECT_GT(before.gt(row.limit).sum().item<int>(), 50) << "the limit is reached";
    const at::Tensor wanted = (*screen)[static_cast<std::size_t>(graph.tensor("y"))], got = (*file)[0];
    ASSERT_EQ(wanted.sizes(), got.sizes());
    EXPECT_EQ(wanted.ne(got).sum().item<int>(), 0) << "of " << wanted.numel();
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace quanvas
