// Networks for the TorchScript exporters' tests, and LibTorch itself as a reader of their files.
#pragma once

#include <torch/script.h>

#include <gtest/gtest.h>

#include <filesystem>

#include "core/exec/runner.h"
#include "tests/plugins/export_net.h"

namespace quanvas::torchscript_export {

namespace fs = std::filesystem;
using export_net::Formats;
using export_net::quantize;
using export_net::small_net;
using export_net::spec;
using Tensors = std::vector<at::Tensor>;
constexpr auto kNone = ZeroPointType::kNone;
constexpr auto kInteger = ZeroPointType::kInteger;
constexpr auto kTensor = Granularity::kTensor;
constexpr auto kChannel = Granularity::kChannel;

inline const char* const kPacked = "torchscript-quantized";
inline const char* const kFloat = "torchscript-qcdq";

class TorchScriptExportTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-tsx-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static const Exporter& exporter(const std::string& id) { return **Registry<Exporter>::instance().get(id, "target"); }
  static json complete(const std::string& id, const json& options) { return *exporter(id).schema().complete(options, id); }
  std::string path(const std::string& name = "out.pt") const { return (folder_ / name).string(); }

  static std::vector<Refusal> check(const std::string& id, const QuantizedModel& model, const json& options = json::object()) {
    return exporter(id).check(model, complete(id, options));
  }
  void write(const std::string& id, const QuantizedModel& model, const json& options = json::object()) {
    const auto refusals = check(id, model, options);
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    JobContext job;
    const Status written = exporter(id).write(model, path(), complete(id, options), job);
    ASSERT_TRUE(written) << written.error().text();
  }
  std::vector<AuditRow> audit(const std::string& id, const QuantizedModel& model) const {
    const auto rows = exporter(id).audit(model, path(), complete(id, json::object()));
    EXPECT_TRUE(rows) << rows.error().text();
    return rows.value_or(std::vector<AuditRow>{});
  }
  Tensors libtorch(const Tensors& inputs) const {
    torch::jit::Module module = torch::jit::load(path());
    const at::NoGradGuard no_gradients;
    const c10::IValue out = module.forward({inputs.begin(), inputs.end()});
    if (out.isTensor()) return {out.toTensor()};
    Tensors all;
    for (const auto& v : out.toTupleRef().elements()) all.push_back(v.toTensor());
    return all;
  }
  static Tensors screen(const QuantizedModel& model, const Tensors& inputs) {
    const auto runner = exec::Runner::create(model.model, &model.quantizers);
    EXPECT_TRUE(runner) << runner.error().text();
    const auto out = (*runner)->run(inputs);
    EXPECT_TRUE(out) << out.error().text();
    return *out;
  }
  static Tensors run(const ModelPtr& model, const Tensors& inputs) {
    const auto runner = exec::Runner::create(model, nullptr);
    EXPECT_TRUE(runner) << runner.error().text();
    const auto out = (*runner)->run(inputs);
    EXPECT_TRUE(out) << out.error().text();
    return *out;
  }

  fs::path folder_;
};

inline at::Tensor random_input(Shape shape, std::uint32_t seed = 99, float amplitude = 2.5f) {
  return exec::to_tensor(export_net::random_floats(std::move(shape), seed, amplitude)).clone();
}

inline bool all_equal(const std::vector<AuditRow>& rows) {
  return !rows.empty() && std::all_of(rows.begin(), rows.end(), [](const AuditRow& r) { return r.equal; });
}
inline std::string text_of(const std::vector<AuditRow>& rows) {
  std::string out;
  for (const AuditRow& r : rows)
    out += r.layer + " " + r.quantizer + ": " + r.requested + " | " + r.written + (r.equal ? "\n" : "  DIFFERENT\n");
  return out;
}

inline const Node& node_of(const QuantizedModel& m, const std::string& name) { return *m.model->graph->find(name); }
inline quant::QuantParams& at_site(QuantizedModel& m, const std::string& node, SiteKind kind, int operand = 0) {
  return m.quantizers.at({node_of(m, node).id, kind, operand});
}

// Output quantizers of the last layer alone: the others follow from their readers.
inline QuantizedModel few_outputs(const Formats& formats) {
  Formats all = formats;
  all.outputs = true;
  QuantizedModel model = quantize(small_net(), all);
  const NodeId last = node_of(model, "fc").id;
  std::erase_if(model.quantizers, [&](const auto& q) { return q.first.kind == SiteKind::kOutput && q.first.node != last; });
  return model;
}

// Every tensor with an output quantizer is an output of the network, too.
inline QuantizedModel shown(QuantizedModel model, const std::vector<std::string>& tensors) {
  GraphBuilder b(*model.model->graph);
  for (const std::string& t : tensors) b.output(t);
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  model.model = std::make_shared<const Model>(Model{*graph, model.model->weights, "shown"});
  return model;
}

// Steps of `scale` between two tensors of values on its grid.
struct Steps {
  std::int64_t values = 0, differing = 0, most = 0;
};
inline Steps steps_between(const at::Tensor& a, const at::Tensor& b, double scale) {
  const at::Tensor d = ((a.to(at::kDouble) - b.to(at::kDouble)) / scale).round().abs();
  return {d.numel(), d.ne(0).sum().item<std::int64_t>(), static_cast<std::int64_t>(d.max().item<double>())};
}

}  // namespace quanvas::torchscript_export
