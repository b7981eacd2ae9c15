// Quanvas - small networks of linear layers, normalizations and attention for the tests of passes on features.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/core/engine/exec_support.h"

namespace quanvas::testing {

// Every tensor is called like its node and has a declared shape.
class NetMaker {
 public:
  using L = std::vector<std::int64_t>;
  explicit NetMaker(int opset = 17) : m(opset) {}
  ModelMaker m;
  std::uint64_t seed = 1;

  NetMaker& in(const Shape& shape) {
    m.input("x", shape);
    return *this;
  }
  NetMaker& ids(const Shape& shape) {
    m.input("x", shape, DataType::kInt64);
    return *this;
  }
  NetMaker& weight(const std::string& name, const Shape& shape, double scale = 1) {
    m.weight(name, noise(shape, ++seed) * scale);
    return *this;
  }
  NetMaker& op(const std::string& name, const std::string& kind, std::vector<std::string> from, const Shape& shape, Attributes attributes = {}) {
    m.node(name, kind, std::move(from), {name}, std::move(attributes)).shape(name, shape);
    return *this;
  }
  // [.., in] to [.., out]; shape: of the result.
  NetMaker& linear(const std::string& name, const std::string& from, std::int64_t in, const Shape& shape, bool bias = false) {
    weight(name + ".w", {in, shape.back()}, 1 / std::sqrt(static_cast<double>(in)));
    std::vector<std::string> inputs = {from, name + ".w"};
    if (bias) {
      weight(name + ".b", {shape.back()});
      inputs.push_back(name + ".b");
    }
    return op(name, "MatMul", std::move(inputs), shape);
  }
  NetMaker& rms(const std::string& name, const std::string& from, const Shape& shape) {
    m.weight(name + ".g", noise({shape.back()}, ++seed) + 1.5);
    return op(name, "RMSNormalization", {from, name + ".g"}, shape, {{"epsilon", 1e-5f}});
  }
  NetMaker& layer_norm(const std::string& name, const std::string& from, const Shape& shape) {
    m.weight(name + ".g", noise({shape.back()}, ++seed) + 1.5);
    weight(name + ".beta", {shape.back()});
    return op(name, "LayerNormalization", {from, name + ".g", name + ".beta"}, shape, {{"epsilon", 1e-5f}});
  }
  NetMaker& out(const std::string& name) {
    m.output(name);
    return *this;
  }
  // Queries of `heads`, keys and values of `kv` heads of `d` features each; reads and gives [2, 5, width].
  NetMaker& attention(const std::string& p, const std::string& from, std::int64_t width, std::int64_t heads, std::int64_t kv, std::int64_t d, bool bias = false) {
    linear(p + "q", from, width, {2, 5, heads * d}, bias).linear(p + "k", from, width, {2, 5, kv * d}, bias).linear(p + "v", from, width, {2, 5, kv * d}, bias);
    const auto shape = [&](const std::string& name, const L& values) { m.weight(p + name, ints(values)); };
    shape("sq", {2, 5, heads, d});
    shape("skv", {2, 5, kv, d});
    shape("srep", {2, 5, kv, heads / kv, d});
    shape("sone", {2, 5, kv, 1, d});
    shape("sout", {2, 5, heads * d});
    op(p + "qh", "Reshape", {p + "q", p + "sq"}, {2, 5, heads, d}).op(p + "kh", "Reshape", {p + "k", p + "skv"}, {2, 5, kv, d});
    op(p + "vh", "Reshape", {p + "v", p + "skv"}, {2, 5, kv, d});
    for (const std::string& s : {p + "k", p + "v"}) {
      op(s + "1", "Reshape", {s + "h", p + "sone"}, {2, 5, kv, 1, d}).op(s + "2", "Expand", {s + "1", p + "srep"}, {2, 5, kv, heads / kv, d});
      op(s + "3", "Reshape", {s + "2", p + "sq"}, {2, 5, heads, d});
    }
    op(p + "qt", "Transpose", {p + "qh"}, {2, heads, 5, d}, {{"perm", L{0, 2, 1, 3}}});
    op(p + "kt", "Transpose", {p + "k3"}, {2, heads, d, 5}, {{"perm", L{0, 2, 3, 1}}});
    op(p + "vt", "Transpose", {p + "v3"}, {2, heads, 5, d}, {{"perm", L{0, 2, 1, 3}}});
    op(p + "s", "MatMul", {p + "qt", p + "kt"}, {2, heads, 5, 5}).op(p + "p", "Softmax", {p + "s"}, {2, heads, 5, 5}, {{"axis", std::int64_t{-1}}});
    op(p + "h", "MatMul", {p + "p", p + "vt"}, {2, heads, 5, d}).op(p + "ht", "Transpose", {p + "h"}, {2, 5, heads, d}, {{"perm", L{0, 2, 1, 3}}});
    op(p + "hr", "Reshape", {p + "ht", p + "sout"}, {2, 5, heads * d});
    return linear(p + "o", p + "hr", heads * d, {2, 5, width}, bias);
  }
  // silu(gate) * up, then down.
  NetMaker& gated(const std::string& p, const std::string& from, std::int64_t width, std::int64_t hidden) {
    linear(p + "gate", from, width, {2, 5, hidden}).op(p + "sig", "Sigmoid", {p + "gate"}, {2, 5, hidden});
    op(p + "silu", "Mul", {p + "gate", p + "sig"}, {2, 5, hidden}).linear(p + "up", from, width, {2, 5, hidden});
    return op(p + "mul", "Mul", {p + "silu", p + "up"}, {2, 5, hidden}).linear(p + "down", p + "mul", hidden, {2, 5, width});
  }
  NetMaker& add(const std::string& name, const std::string& a, const std::string& b, const Shape& shape) { return op(name, "Add", {a, b}, shape); }
};

// Llama's block with tied embeddings: 2 kv heads for 4 heads of 8, width 32, hidden 48; tokens of 40.
inline ModelPtr small_llama(bool tied = true, std::int64_t hidden = 48) {
  NetMaker n;
  const Shape s = {2, 5, 32};
  n.ids({2, 5}).weight("emb", {40, 32}).op("tok", "Gather", {"emb", "x"}, s);
  n.rms("an", "tok", s).attention("a.", "an", 32, 4, 2, 8).add("r1", "tok", "a.o", s);
  n.rms("fn", "r1", s).gated("f.", "fn", 32, hidden).add("r2", "r1", "f.down", s).rms("norm", "r2", s);
  if (!tied) n.weight("head.w", {40, 32});
  return n.op("head", "Gemm", {"flat", tied ? "emb" : "head.w"}, {10, 40}, {{"transB", std::int64_t{1}}})
      .op("flat", "Reshape", {"norm", "two"}, {10, 32}).m.weight("two", ints({10, 32})).output("head").build();
}

inline at::Tensor tokens(const Shape& shape, std::int64_t vocabulary, std::uint64_t seed = 3) {
  return ((noise(shape, seed) + 1) * 0.5 * static_cast<double>(vocabulary)).to(at::kLong).clamp(0, vocabulary - 1);
}

inline at::Tensor all_outputs_of(const ModelPtr& model, const at::Tensor& x) {
  auto runner = exec::Runner::create(model, nullptr);
  if (!runner) throw std::runtime_error(runner.error().text());
  const auto outputs = (*runner)->run({x});
  if (!outputs) throw std::runtime_error(outputs.error().text());
  std::vector<at::Tensor> flat;
  for (const at::Tensor& y : *outputs) flat.push_back(y.flatten());
  return at::cat(flat);
}

inline at::Tensor weight_of(const ModelPtr& model, const std::string& name) {
  const TensorData* data = model->weights->find(name);
  if (!data) throw std::runtime_error("no weight '" + name + "'");
  return at::tensor(data->to_floats(), at::kFloat).reshape(data->shape);
}
// What the node reads as this input.
inline at::Tensor read_by(const ModelPtr& model, const std::string& node, std::size_t input = 1) {
  return weight_of(model, model->graph->tensor(model->graph->find(node)->input(input)).name);
}

}  // namespace quanvas::testing
