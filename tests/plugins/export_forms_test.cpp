// What canonical() makes of a network goes into files in ONNX's own words, and comes back as it was.
#include <gtest/gtest.h>
#include <onnx/checker.h>
#include <onnx/onnx_pb.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>

#include "core/graph/canonical.h"
#include "core/plugin/registry.h"
#include "tests/core/engine/exec_support.h"

namespace quanvas {
namespace {

namespace fs = std::filesystem;
using exec::QuantizerMap;
using testing::ModelMaker;
using testing::noise;
using testing::relative_difference;
using testing::run_one;

ModelPtr canonical_of(const ModelPtr& model) {
  auto out = canonical(*model);
  if (!out) throw std::runtime_error(out.error().text());
  return std::make_shared<const Model>(std::move(*out));
}

class ExportForms : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("quanvas-forms-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  static const Exporter& exporter(const std::string& id) { return **Registry<Exporter>::instance().get(id, "target"); }
  std::string path() const { return (folder_ / "out.onnx").string(); }

  void write(const std::string& target, const QuantizedModel& model) {
    JobContext job;
    const auto refusals = exporter(target).check(model, json::object());
    ASSERT_TRUE(refusals.empty()) << refusals[0].layer << ": " << refusals[0].rule << ", " << refusals[0].got;
    const Status written = exporter(target).write(model, path(), json::object(), job);
    ASSERT_TRUE(written) << written.error().text();
    onnx::ModelProto proto;
    std::ifstream in(path(), std::ios::binary);
    ASSERT_TRUE(proto.ParseFromIstream(&in));
    constexpr int kKnown = 17;  // to Debian's checker
    if (proto.opset_import(0).version() <= kKnown) ASSERT_NO_THROW(onnx::checker::check_model(proto));
    const auto rows = exporter(target).audit(model, path(), json::object());
    ASSERT_TRUE(rows) << rows.error().text();
    EXPECT_EQ(rows->size(), model.quantizers.empty() ? rows->size() : model.quantizers.size());
    for (const AuditRow& row : *rows) EXPECT_TRUE(row.equal) << row.layer << " " << row.quantizer << ": " << row.requested << ", file: " << row.written;
  }
  ModelPtr back() const {
    JobContext job;
    auto model = import_model(path(), job);
    if (!model) throw std::runtime_error(model.error().text());
    return std::make_shared<const Model>(std::move(*model));
  }
  fs::path folder_;
};

struct Form {
  const char* name;
  int opset;
  const char* op;
  std::vector<const char*> inputs;
  Attributes attributes = {};
};
void PrintTo(const Form& f, std::ostream* out) { *out << f.name; }

class FloatForms : public ExportForms, public ::testing::WithParamInterface<Form> {};

TEST_P(FloatForms, ComeBackAsTheyWere) {
  const Form& f = GetParam();
  ModelMaker m(f.opset);
  m.input("x", {-1, 3, 4}).weight("w", noise({4, 4}, 1)).weight("g", noise({4}, 2)).weight("b", noise({4}, 3));
  m.node("n/it", f.op, {f.inputs.begin(), f.inputs.end()}, {"y"}, f.attributes).shape("y", {-1, 3, 4});
  QuantizedModel q;
  q.model = m.output("y").build();
  ASSERT_NO_FATAL_FAILURE(write("onnx", q));
  const ModelPtr read = back();
  ASSERT_EQ(read->graph->nodes().size(), 1u);
  EXPECT_EQ(read->graph->nodes()[0].op, f.op);
  const at::Tensor x = noise({2, 3, 4}, 9) * 2;
  EXPECT_LE(relative_difference(run_one(read, x), run_one(q.model, x)), 1e-6);
}

const Form kForms[] = {
    {"linear", 13, "MatMul", {"x", "w", "b"}},
    {"layer_norm_13", 13, "LayerNormalization", {"x", "g", "b"}, {{"axis", std::int64_t{-1}}, {"epsilon", 1e-3f}}},
    {"layer_norm_without_bias", 13, "LayerNormalization", {"x", "g"}, {{"axis", std::int64_t{-1}}}},
    {"layer_norm_17", 17, "LayerNormalization", {"x", "g", "b"}, {{"axis", std::int64_t{-1}}}},
    {"rms_norm_13", 13, "RMSNormalization", {"x", "g"}, {{"axis", std::int64_t{-1}}, {"epsilon", 1e-3f}}},
    {"rms_norm_18", 18, "RMSNormalization", {"x", "g"}, {{"axis", std::int64_t{-1}}}},
    {"gelu", 13, "Gelu", {"x"}},
    {"gelu_tanh", 13, "Gelu", {"x"}, {{"approximate", std::string("tanh")}}},
};
INSTANTIATE_TEST_SUITE_P(ExportForms, FloatForms, ::testing::ValuesIn(kForms), [](const auto& info) { return std::string(info.param.name); });

quant::QuantParams params_for(const at::Tensor& values, int bits, bool channels = false, int axis = 1) {
  QuantSpec spec;
  spec.bits = bits;
  if (channels) {
    spec.granularity = Granularity::kChannel;
    spec.axis = axis;
  }
  const at::Tensor x = values.contiguous();
  auto p = quant::find_params(spec, x.sizes().vec(), x.data_ptr<float>(), axis);
  if (!p) throw std::runtime_error(p.error().text());
  return *p;
}

// Weights and biases, the input, and the output of the layer; what the file computes is what fake-quantization gives.
QuantizerMap outer_quantizers(const ModelPtr& model, const at::Tensor& x) {
  QuantizerMap q;
  for (const Layer& layer : find_layers(*model->graph))
    for (const Site& site : layer.sites()) {
      const TensorInfo& t = model->graph->tensor(site_tensor(layer, site));
      if (site.kind == SiteKind::kWeight)
        q[site] = params_for(exec::to_tensor(*model->weights->find(t.name)), 4 + site.operand % 5, true, layer.channel_axis);
      if (site.kind == SiteKind::kInput && t.name == "x") q[site] = params_for(x, 8);
      if (site.kind == SiteKind::kOutput) q[site] = params_for(run_one(model, x), 8);
      if (site.kind == SiteKind::kBias && layer.weights() == 1) {
        QuantSpec spec;
        spec.bits = 32;
        q[site] = *quant::bias_params(spec, 0.001f, {0.01f}, *t.shape, layer.bias_axis);
      }
    }
  return q;
}

TEST_F(ExportForms, ALinearLayerIsQuantizedWithItsBiasAndBehindIt) {
  ModelMaker m;
  m.input("x", {-1, 3, 4}).weight("w", noise({4, 5}, 1)).weight("b", noise({5}, 2));
  m.node("fc", "MatMul", {"x", "w"}, {"p"}).node("add", "Add", {"p", "b"}, {"y"}).shape("p", {-1, 3, 5}).shape("y", {-1, 3, 5});
  QuantizedModel q;
  q.model = canonical_of(m.output("y").build());
  const at::Tensor x = noise({2, 3, 4}, 9);
  q.quantizers = outer_quantizers(q.model, x);
  ASSERT_EQ(q.quantizers.size(), 4u);
  ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", q));
  EXPECT_LE(relative_difference(run_one(back(), x), run_one(q.model, x, &q.quantizers)), 1e-6);
}

TEST_F(ExportForms, RecurrentWeightsAreQuantizedGateByGate) {
  for (const std::string op : {"LSTM", "GRU", "RNN"})
    for (const std::string direction : {"forward", "bidirectional"}) {
      const std::int64_t sides = direction == "forward" ? 1 : 2, rows = static_cast<std::int64_t>(gates(op).size()) * 6;
      ModelMaker m(14);
      m.input("x", {-1, 2, 4}).weight("w", noise({sides, rows, 4}, 1)).weight("r", noise({sides, rows, 6}, 2)).weight("b", noise({sides, 2 * rows}, 3));
      m.node("cell", op, {"x", "w", "r", "b"}, {"y"}, {{"direction", direction}, {"hidden_size", std::int64_t{6}}}).shape("y", {-1, sides, 2, 6});
      QuantizedModel q;
      q.model = canonical_of(m.output("y").build());
      const at::Tensor x = noise({3, 2, 4}, 9);
      q.quantizers = outer_quantizers(q.model, x);
      ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", q)) << op;
      EXPECT_LE(relative_difference(run_one(back(), x), run_one(q.model, x, &q.quantizers)), 1e-6) << op << direction;
    }
}

// Quantizers around a recurrent node stay nodes when the file is opened: a rule would mean the hidden state, too.
TEST_F(ExportForms, AQuantizedRecurrentFileComputesTheSameWhenItIsOpened) {
  for (const bool y : {true, false}) {
    ModelMaker m(14);
    m.input("x", {-1, 2, 4}).weight("w", noise({1, 24, 4}, 1)).weight("r", noise({1, 24, 6}, 2));
    m.node("cell", "LSTM", {"x", "w", "r"}, {y ? "y" : "", y ? "" : "h"}, {{"hidden_size", std::int64_t{6}}});
    m.shape(y ? "y" : "h", y ? Shape{-1, 1, 2, 6} : Shape{1, 2, 6});
    QuantizedModel q;
    q.model = canonical_of(m.output(y ? "y" : "h").build());
    const at::Tensor x = noise({3, 2, 4}, 9);
    q.quantizers = outer_quantizers(q.model, x);
    std::erase_if(q.quantizers, [](const auto& s) { return s.first.kind == SiteKind::kOutput; });
    ASSERT_NO_FATAL_FAILURE(write("onnx-qdq", q));
    JobContext job;
    ImportOptions options;
    options.quantizers = FileQuantizers::kRules;
    auto opened = import_file(path(), options, job);
    ASSERT_TRUE(opened) << opened.error().text();
    EXPECT_FALSE(opened->recipe);
    EXPECT_LE(relative_difference(run_one(std::make_shared<const Model>(opened->model), x), run_one(q.model, x, &q.quantizers)), 1e-6) << y;
  }
}

TEST_F(ExportForms, PartsOfANodeHaveNamesOfTheirOwn) {
  ModelMaker m(13);
  m.input("x", {-1, 3, 4}).node("a", "Gelu", {"x"}, {"t"}, {{"approximate", std::string("tanh")}}).shape("t", {-1, 3, 4});
  m.node("a_result", "Relu", {"t"}, {"y"}).shape("y", {-1, 3, 4});
  QuantizedModel q;
  q.model = m.output("y").build();
  ASSERT_NO_FATAL_FAILURE(write("onnx", q));
  onnx::ModelProto proto;
  std::ifstream in(path(), std::ios::binary);
  ASSERT_TRUE(proto.ParseFromIstream(&in));
  std::set<std::string> names;
  for (const auto& node : proto.graph().node()) EXPECT_TRUE(names.insert(node.name()).second) << node.name();
  EXPECT_EQ(names.size(), 10u);
}

TEST_F(ExportForms, WhatLiesInsideAnOperatorIsRefused) {
  ModelMaker m(14);
  m.input("x", {-1, 2, 4}).weight("w", noise({1, 24, 4}, 1)).weight("r", noise({1, 24, 6}, 2));
  m.node("cell", "LSTM", {"x", "w", "r"}, {"y"}, {{"hidden_size", std::int64_t{6}}});
  QuantizedModel q;
  q.model = canonical_of(m.output("y").build());
  const Layer layer = find_layers(*q.model->graph).at(0);
  for (const Site& site : {Site{layer.node, SiteKind::kInput, 1}, Site{layer.node, SiteKind::kInternal, 8}}) {
    q.quantizers = {{site, params_for(noise({4, 6}, 1), 8)}};
    const auto refusals = exporter("onnx-qdq").check(q, json::object());
    ASSERT_EQ(refusals.size(), 1u);
    EXPECT_EQ(refusals[0].got, site_name(layer, site) + " inside LSTM");
  }
}

}  // namespace
}  // namespace quanvas
