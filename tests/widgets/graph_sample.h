// A LeNet-like network with visuals, and a chain of residual blocks with scopes: what the graph tests show.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "widgets/graph/node_visual.h"

namespace quanvas::sample {

struct Net {
  GraphPtr graph;
  std::vector<Layer> layers;
  NodeId id(const std::string& name) const { return graph->find(name)->id; }
};

inline Net finish(GraphBuilder& builder) {
  auto graph = builder.build();
  if (!graph) return {};
  return {*graph, find_layers(**graph)};
}

inline void conv(GraphBuilder& b, const std::string& name, const std::string& in, const std::string& out,
                 std::int64_t from, std::int64_t to, std::int64_t kernel, std::int64_t side) {
  b.initializer(name + "_w", DataType::kFloat, {to, from, kernel, kernel});
  b.node(name, "Conv", {in, name + "_w"}, {out}, {{"kernel_shape", std::vector<std::int64_t>{kernel, kernel}}});
  b.tensor(out, DataType::kFloat, Shape{1, to, side, side});
}

inline void gemm(GraphBuilder& b, const std::string& name, const std::string& in, const std::string& out,
                 std::int64_t from, std::int64_t to) {
  b.initializer(name + "_w", DataType::kFloat, {to, from});
  b.node(name, "Gemm", {in, name + "_w"}, {out}, {{"transB", std::int64_t{1}}});
  b.tensor(out, DataType::kFloat, Shape{1, to});
}

inline void pool(GraphBuilder& b, const std::string& name, const std::string& in, const std::string& out,
                 std::int64_t channels, std::int64_t side) {
  b.node(name, "MaxPool", {in}, {out}, {{"kernel_shape", std::vector<std::int64_t>{2, 2}},
                                        {"strides", std::vector<std::int64_t>{2, 2}}});
  b.tensor(out, DataType::kFloat, Shape{1, channels, side, side});
}

inline Net lenet() {
  GraphBuilder b;
  b.set_name("lenet");
  b.tensor("input", DataType::kFloat, Shape{1, 1, 28, 28});
  b.input("input");
  conv(b, "conv1", "input", "c1", 1, 6, 5, 28);
  b.node("relu1", "Relu", {"c1"}, {"r1"});
  pool(b, "pool1", "r1", "p1", 6, 14);
  conv(b, "conv2", "p1", "c2", 6, 16, 5, 10);
  b.node("relu2", "Relu", {"c2"}, {"r2"});
  pool(b, "pool2", "r2", "p2", 16, 5);
  b.node("flatten", "Flatten", {"p2"}, {"f"});
  gemm(b, "fc1", "f", "g1", 400, 120);
  gemm(b, "fc2", "g1", "g2", 120, 84);
  gemm(b, "fc3", "g2", "logits", 84, 10);
  b.output("logits");
  return finish(b);
}

inline std::map<NodeId, NodeVisual> lenet_visuals(const Net& net) {
  struct Row {
    const char* name;
    int bits;
    double db;
    const char* result;
  };
  const Row rows[] = {{"conv1", 8, 27.9, "U4"}, {"relu1", 0, NAN, "U4"}, {"pool1", 0, NAN, "U4"},
                      {"conv2", 4, 22.1, "U4"}, {"relu2", 0, NAN, "U4"}, {"pool2", 0, NAN, "U4"},
                      {"fc1", 3, 15.4, "U4"},   {"fc2", 4, 19.8, "U4"},  {"fc3", 8, 33.0, ""}};
  std::map<NodeId, NodeVisual> out;
  for (const Row& r : rows) {
    NodeVisual v;
    if (r.bits > 0) v.weight_chip = QStringLiteral("W%1").arg(r.bits);
    v.weight_bits = r.bits;
    v.activation_chip = QString::fromLatin1(r.result);
    v.activation_bits = *r.result != 0 ? 4 : 0;
    v.isolated_db = r.db;
    v.input_chip = std::string(r.name) == "conv1" ? QStringLiteral("U8") : QString();
    out[net.id(r.name)] = v;
  }
  return out;
}

// `blocks` residual blocks of four nodes, three to a stage, with scopes "stage0.1" ...
inline Net residual(int blocks) {
  GraphBuilder b;
  b.set_name("residual");
  b.tensor("x", DataType::kFloat, Shape{1, 16, 32, 32});
  b.input("x");
  std::string at = "x";
  for (int k = 0; k < blocks; ++k) {
    std::string scope = "/stage";
    scope += std::to_string(k / 3) + "/block" + std::to_string(k % 3) + "/";
    conv(b, scope + "conv1", at, scope + "a", 16, 16, 3, 32);
    b.node(scope + "relu1", "Relu", {scope + "a"}, {scope + "b"});
    conv(b, scope + "conv2", scope + "b", scope + "c", 16, 16, 3, 32);
    b.node(scope + "add", "Add", {scope + "c", at}, {scope + "d"});
    b.node(scope + "relu2", "Relu", {scope + "d"}, {scope + "e"});
    at = scope + "e";
  }
  b.output(at);
  return finish(b);
}

}  // namespace quanvas::sample
