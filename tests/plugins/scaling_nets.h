// Quanvas - small networks whose channels differ much, for the tests of passes that scale channels.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/core/engine/exec_support.h"

namespace quanvas::testing {

using L = std::vector<std::int64_t>;

inline at::Tensor weight(const ModelPtr& model, const std::string& name) {
  const TensorData* data = model->weights->find(name);
  return at::tensor(data->to_floats(), at::kFloat).reshape(data->shape);
}

// Channels that differ by up to 2^12.
inline at::Tensor uneven(const Shape& shape, std::uint64_t seed, int axis = 0) {
  Shape along(shape.size(), 1);
  along[static_cast<std::size_t>(axis)] = shape[static_cast<std::size_t>(axis)];
  return noise(shape, seed) * at::pow(2.0, 6 * noise(along, seed + 100));
}

struct Net {
  std::string name;
  Shape input;
  std::function<void(ModelMaker&)> build;  // from "x" to "y"
  int regions = 1;          // that can be scaled against each other
  std::string left;                        // part of the report
};

inline ModelMaker& conv(ModelMaker& m, const std::string& name, const std::string& from, const Shape& w, std::int64_t group = 1, bool bias = true) {
  m.weight(name + ".w", uneven(w, w.size() + name.size() + static_cast<std::size_t>(w[0])));
  if (bias) m.weight(name + ".b", noise({w[0]}, 3));
  return m.node(name, "Conv", bias ? std::vector<std::string>{from, name + ".w", name + ".b"} : std::vector<std::string>{from, name + ".w"}, {name},
                {{"group", group}, {"pads", L{1, 1, 1, 1}}});
}
inline ModelMaker& linear(ModelMaker& m, const std::string& name, const std::string& from, std::int64_t in, std::int64_t out) {
  m.weight(name + ".w", uneven({out, in}, name.size() + 11)).weight(name + ".b", noise({out}, 4));
  return m.node(name, "Gemm", {from, name + ".w", name + ".b"}, {name}, {{"transB", std::int64_t{1}}});
}
inline ModelMaker& matmul(ModelMaker& m, const std::string& name, const std::string& from, std::int64_t in, std::int64_t out) {
  m.weight(name + ".w", uneven({in, out}, name.size() + 21, 1));
  return m.node(name, "MatMul", {from, name + ".w"}, {name}).shape(name, {2, 5, out});
}

inline std::vector<Net> nets() {
  return {
      {"relu", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
       }, 1, "'b': it is an output of the network"},
      {"without_bias", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}, 1, false).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
       }},
      {"leaky_pools", {2, 3, 8, 8}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}).node("r", "LeakyRelu", {"a"}, {"r"}, {{"alpha", 0.2f}});
         m.node("p", "MaxPool", {"r"}, {"p"}, {{"kernel_shape", L{2, 2}}, {"strides", L{2, 2}}});
         m.node("q", "AveragePool", {"p"}, {"q"}, {{"kernel_shape", L{2, 2}}});
         conv(m, "b", "q", {4, 8, 3, 3}).output("b");
       }},
      {"depthwise", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 1, 1}).node("r", "Relu", {"a"}, {"r"});
         conv(m, "d", "r", {8, 1, 3, 3}, 8).node("s", "Relu", {"d"}, {"s"});
         conv(m, "b", "s", {4, 8, 1, 1}).output("b");
       }, 2},
      {"grouped", {2, 4, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 2, 3, 3}, 2).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "r", {6, 4, 3, 3}, 2).output("b");
       }},
      {"transposed", {2, 4, 5, 5}, [](ModelMaker& m) {
         m.weight("a.w", uneven({4, 3, 2, 2}, 1, 1)).weight("a.b", noise({6}, 2));
         m.node("a", "ConvTranspose", {"x", "a.w", "a.b"}, {"a"}, {{"group", std::int64_t{2}}, {"strides", L{2, 2}}}).node("r", "Relu", {"a"}, {"r"});
         m.weight("b.w", uneven({6, 2, 2, 2}, 5, 0));
         m.node("b", "ConvTranspose", {"r", "b.w"}, {"b"}, {{"group", std::int64_t{3}}}).output("b");
       }},
      {"flattened", {2, 3, 4, 4}, [](ModelMaker& m) {
         conv(m, "a", "x", {5, 3, 3, 3}).shape("a", {2, 5, 4, 4}).node("r", "Relu", {"a"}, {"r"}).shape("r", {2, 5, 4, 4});
         m.node("f", "Flatten", {"r"}, {"f"}).shape("f", {2, 80});
         linear(m, "fc", "f", 80, 6).output("fc");
       }},
      {"residual", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}).shape("a", {2, 8, 6, 6}).node("r", "Relu", {"a"}, {"r"}).shape("r", {2, 8, 6, 6});
         conv(m, "b", "r", {8, 8, 3, 3}).shape("b", {2, 8, 6, 6}).node("add", "Add", {"r", "b"}, {"s"}).shape("s", {2, 8, 6, 6});
         conv(m, "c", "s", {4, 8, 3, 3}).output("c");
       }},
      {"concat", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {5, 3, 3, 3}).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "x", {3, 3, 3, 3}).node("cat", "Concat", {"r", "b"}, {"s"}, {{"axis", std::int64_t{1}}}).shape("s", {2, 8, 6, 6});
         conv(m, "c", "s", {4, 8, 3, 3}).output("c");
       }, 2},
      {"gated", {2, 5, 6}, [](ModelMaker& m) {
         matmul(m, "gate", "x", 6, 8).node("sig", "Sigmoid", {"gate"}, {"s"}).shape("s", {2, 5, 8});
         matmul(m, "up", "x", 6, 8).node("mul", "Mul", {"s", "up"}, {"h"}).shape("h", {2, 5, 8});
         matmul(m, "down", "h", 8, 6).output("down");
       }, 1, "'gate': 'sig' (Sigmoid) does not keep a factor per channel"},
      {"norm", {2, 5, 6}, [](ModelMaker& m) {
         m.weight("g", uneven({6}, 1)).weight("beta", noise({6}, 2));
         m.node("ln", "LayerNormalization", {"x", "g", "beta"}, {"n"}).shape("n", {2, 5, 6});
         matmul(m, "q", "n", 6, 8);
         matmul(m, "kk", "n", 6, 4).node("cat", "Concat", {"q", "kk"}, {"y"}, {{"axis", std::int64_t{-1}}}).output("y");
       }},
      {"dead_channel", {2, 3, 6, 6}, [](ModelMaker& m) {
         at::Tensor w = uneven({8, 3, 3, 3}, 5);
         w[2].zero_();
         m.weight("a.w", w).node("a", "Conv", {"x", "a.w"}, {"a"}).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
       }},
      {"tied", {2, 6}, [](ModelMaker& m) {  // a weight that two layers read is scaled for one of them
         m.weight("w", uneven({6, 6}, 5));
         m.node("a", "Gemm", {"x", "w"}, {"a"}).node("r", "Relu", {"a"}, {"r"}).node("b", "Gemm", {"r", "w"}, {"b"}).output("b");
       }},
      // Not to be touched.
      {"relu6", {2, 3, 6, 6}, [](ModelMaker& m) {
         m.weight("lo", at::tensor({0.0f}).reshape({})).weight("hi", at::tensor({6.0f}).reshape({}));
         conv(m, "a", "x", {8, 3, 3, 3}).node("clip", "Clip", {"a", "lo", "hi"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
       }, 0, "'a': 'clip' (Clip) does not keep a factor per channel"},
      {"second_output", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b").output("r");
       }, 0, "'a': it is an output of the network"},
      {"softmax_beside", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}).node("soft", "Softmax", {"a"}, {"s"});
         conv(m, "b", "a", {8, 8, 1, 1}).output("s").output("b");
       }, 0, "(Softmax)"},
      {"input_added", {2, 8, 6, 6}, [](ModelMaker& m) {
         m.weight("a.w", uneven({8, 8, 1, 1}, 7)).node("a", "Conv", {"x", "a.w"}, {"a"}).shape("a", {2, 8, 6, 6});
         m.node("add", "Add", {"a", "x"}, {"s"}).shape("s", {2, 8, 6, 6});
         conv(m, "b", "s", {4, 8, 3, 3}).output("b");
       }, 0, "'a': 'add' (Add)"},
      {"pool_along_features", {1, 5, 6}, [](ModelMaker& m) {
         matmul(m, "a", "x", 6, 8).shape("a", {1, 5, 8});
         m.node("pool", "AveragePool", {"a"}, {"p"}, {{"kernel_shape", L{3}}, {"pads", L{1, 1}}, {"strides", L{1}}}).shape("p", {1, 5, 8});
         matmul(m, "b", "p", 8, 4).output("b");
       }, 0, "'a': 'pool' (AveragePool)"},
      {"global_pool_of_rows", {1, 8, 6}, [](ModelMaker& m) {
         matmul(m, "a", "x", 6, 8).shape("a", {1, 8, 8}).node("pool", "GlobalAveragePool", {"a"}, {"p"}).shape("p", {1, 8, 1});
         m.node("flat", "Flatten", {"p"}, {"f"}).shape("f", {1, 8});
         linear(m, "b", "f", 8, 4).output("b");
       }, 0, "'a': 'pool' (GlobalAveragePool)"},
      {"padded_channels", {2, 3, 6, 6}, [](ModelMaker& m) {
         m.weight("p", at::tensor({0, 1, 0, 0, 0, -1, 0, 0}, at::kLong));
         conv(m, "a", "x", {8, 3, 3, 3}).node("pad", "Pad", {"a", "p"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
       }, 0, "'a': 'pad' (Pad)"},
      {"computed_slope", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3});
         conv(m, "slope", "x", {8, 3, 3, 3}, 1, false).node("r", "PRelu", {"a", "slope"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3});
         conv(m, "d", "slope", {4, 8, 3, 3}, 1, false).output("b").output("d");
       }, 1, "'slope': 'r' (PRelu)"},
      {"bias_of_rows", {8, 6}, [](ModelMaker& m) {
         m.weight("a.w", uneven({6, 8}, 5, 1)).weight("c", noise({8, 1}, 6));
         m.node("a", "Gemm", {"x", "a.w", "c"}, {"a"}).node("r", "Relu", {"a"}, {"r"});
         linear(m, "b", "r", 8, 4).output("b");
       }, 0, ""},
      {"no_inputs", {2, 3, 6, 6}, [](ModelMaker& m) {
         conv(m, "a", "x", {8, 3, 3, 3}).node("r", "Relu", {"a"}, {"r"});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
         m.weight("e.w", at::empty({0, 8})).weight("e.b", noise({8}, 3)).weight("e.x", at::empty({2, 0}));
         m.node("e", "Gemm", {"e.x", "e.w", "e.b"}, {"e"}).output("e");
       }, 1},
      {"resized", {2, 3, 6, 6}, [](ModelMaker& m) {
         m.weight("s", at::tensor({1.0f, 1.0f, 2.0f, 2.0f}));
         conv(m, "a", "x", {8, 3, 3, 3}).node("up", "Resize", {"a", "", "s"}, {"r"}, {{"mode", std::string("nearest")}});
         conv(m, "b", "r", {4, 8, 3, 3}).output("b");
       }},
      {"wrong_axis", {2, 4, 6}, [](ModelMaker& m) {
         matmul(m, "a", "x", 6, 4).shape("a", {2, 4, 4}).node("t", "Transpose", {"a"}, {"t"}, {{"perm", L{0, 2, 1}}}).shape("t", {2, 4, 4});
         matmul(m, "b", "t", 4, 3).output("b");
       }, 0, "along another axis"},
  };
}

inline ModelPtr made(const Net& net) {
  Shape declared = net.input;
  declared[0] = -1;
  ModelMaker m(17);
  m.input("x", declared);
  net.build(m);
  return m.build();
}

inline at::Tensor all_outputs(const ModelPtr& model, const at::Tensor& x) {
  auto runner = exec::Runner::create(model, nullptr);
  std::vector<at::Tensor> flat;
  const auto outputs = (*runner)->run({x});
  if (!outputs) throw std::runtime_error(outputs.error().text());
  for (const at::Tensor& y : *outputs) flat.push_back(y.flatten());
  return at::cat(flat);
}

}  // namespace quanvas::testing
