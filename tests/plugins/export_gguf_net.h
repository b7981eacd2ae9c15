// A small network whose weights fill GGUF's blocks, and its quantizers, for the tests of the GGUF exporter.
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "core/base/files.h"
#include "core/plugin/placement.h"
#include "core/recipe/recipe.h"
#include "plugins/importers/gguf_contents.h"
#include "plugins/importers/gguf_values.h"
#include "tests/plugins/export_net.h"

namespace quanvas::gguf_net {

using export_net::random_floats;

// ids[N,T] -> embedding -> up (MatMul + bias) -> relu -> down (Gemm, transB) ... -> add -> head -> logits. Weights are
// [in, out] and [out, in], so that both orders occur. tied: the head reads the embedding's table.
inline ModelPtr network(std::int64_t features = 256, std::int64_t hidden = 512, bool tied = false,
                        const std::string& prefix = {}) {
  GraphBuilder b;
  b.set_name("small");
  b.set_opset(13);
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, random_floats(shape, seed));
  };
  const std::int64_t words = 40;
  b.tensor("ids", DataType::kInt64, Shape{-1, -1});
  b.input("ids");
  parameter(prefix + "table", {words, features}, 1);
  parameter(prefix + "up", {features, hidden}, 2);
  parameter(prefix + "up.bias", {hidden}, 3);
  parameter(prefix + "down", {features, hidden}, 4);
  b.initializer("rows", DataType::kInt64, Shape{2});
  weights->set("rows", TensorData::of_int64({2}, {-1, hidden}));
  const auto out = [&](const std::string& name, Shape shape) { b.tensor(name, DataType::kFloat, std::move(shape)); };
  out("e", {-1, -1, features});
  out("u", {-1, -1, hidden});
  out("r", {-1, -1, hidden});
  out("flat", {-1, hidden});
  out("d", {-1, features});
  out("logits", {-1, words});
  b.node("embedding", "Gather", {prefix + "table", "ids"}, {"e"});
  b.node("up", "MatMul", {"e", prefix + "up", prefix + "up.bias"}, {"u"});
  b.node("relu", "Relu", {"u"}, {"r"});
  b.node("reshape", "Reshape", {"r", "rows"}, {"flat"});
  b.node("down", "Gemm", {"flat", prefix + "down"}, {"d"}, {{"transB", std::int64_t{1}}});
  if (!tied) parameter(prefix + "head", {features, words}, 5);
  if (tied)
    b.node("head", "Gemm", {"d", prefix + "table"}, {"logits"}, {{"transB", std::int64_t{1}}});
  else
    b.node("head", "MatMul", {"d", prefix + "head"}, {"logits"});
  b.output("logits");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "small.onnx"});
}

inline QuantSpec preset(const std::string& id) {
  const Preset* found = PresetLibrary::builtin().find(id);
  if (!found) throw std::runtime_error("no preset " + id);
  return found->spec;
}

inline quant::QuantParams params_for(const Model& model, const Layer& layer, const Site& site, const QuantSpec& spec) {
  const TensorData& data = *model.weights->find(model.graph->tensor(site_tensor(layer, site)).name);
  const bool groups = spec.granularity == Granularity::kGroup;
  auto found =
      quant::find_params(spec, data.shape, data.to_floats().data(), groups ? layer.reduction_axis : layer.channel_axis);
  if (!found) throw std::runtime_error(found.error().text());
  return *found;
}

// The weights of these layers; no names: of all.
inline QuantizedModel quantize(ModelPtr model, const QuantSpec& spec, const std::vector<std::string>& layers = {}) {
  QuantizedModel out;
  out.model = model;
  for (const Layer& layer : find_layers(*model->graph)) {
    const std::string& name = model->graph->find(layer.node)->name;
    if (layer.weight == kNoTensor || (!layers.empty() && std::find(layers.begin(), layers.end(), name) == layers.end()))
      continue;
    const Site site{layer.node, SiteKind::kWeight, 0};
    out.quantizers[site] = params_for(*model, layer, site, spec);
  }
  return out;
}

inline const Exporter& exporter() {
  return **Registry<Exporter>::instance().get("gguf", "target");
}
inline json options(const json& given = json::object()) {
  auto complete = exporter().schema().complete(given, "gguf");
  if (!complete) throw std::runtime_error(complete.error().text());
  return *complete;
}

// Stored values of a layer's weight: what the screen computes with.
inline std::vector<float> values_of(const QuantizedModel& model, const std::string& layer, std::string* tensor = nullptr) {
  const Placement placement = place(model);
  for (const PlacedQuantizer& q : placement.quantizers)
    if (q.node->name == layer && q.site.kind == SiteKind::kWeight) {
      if (tensor) *tensor = model.model->graph->tensor(q.tensor).name;
      return stored_tensor(model, q)->values;
    }
  throw std::runtime_error("no weight quantizer at " + layer);
}

class GgufTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("quanvas-gguf-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name = "out.gguf") const { return (folder_ / name).string(); }

  void write(const QuantizedModel& model, const json& given = json::object()) {
    JobContext job;
    const auto refusals = exporter().check(model, options(given));
    ASSERT_TRUE(refusals.empty()) << refusals[0].text();
    const Status written = exporter().write(model, path(), options(given), job);
    ASSERT_TRUE(written) << written.error().text();
  }
  std::vector<AuditRow> audit(const QuantizedModel& model, const json& given = json::object()) const {
    const auto rows = exporter().audit(model, path(), options(given));
    EXPECT_TRUE(rows) << rows.error().text();
    return rows.value_or(std::vector<AuditRow>{});
  }
  gguf_in::File file() const {
    auto read = gguf_in::read(path());
    EXPECT_TRUE(read) << read.error().text();
    return read ? *read : gguf_in::File{};
  }
  std::string type_of(const std::string& tensor) const {
    const gguf_in::File f = file();
    const gguf_in::Tensor* t = f.find(tensor);
    return t ? gguf_in::type_info(t->type)->name : "missing";
  }
  std::filesystem::path folder_;
};

inline bool all_equal(const std::vector<AuditRow>& rows) {
  for (const AuditRow& row : rows)
    if (!row.equal) return false;
  return !rows.empty();
}
inline std::string text_of(const std::vector<AuditRow>& rows) {
  std::string out;
  for (const AuditRow& r : rows)
    out += r.layer + " " + r.quantizer + ": " + r.requested + " | " + r.written + (r.equal ? "\n" : "  DIFFERENT\n");
  return out;
}

}  // namespace quanvas::gguf_net
