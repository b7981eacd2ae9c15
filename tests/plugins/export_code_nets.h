// Networks with every operator that ONNX has on codes, quantized by the ranges of a run, for the tests of QOperator files.
#pragma once

#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "core/exec/runner.h"
#include "tests/plugins/export_net.h"

namespace quanvas::export_net {

class NetBuilder {
 public:
  NetBuilder(const std::string& name, Shape input) : weights_(std::make_shared<WeightStore>()) {
    b_.set_name(name);
    b_.set_opset(13);
    b_.tensor("x", DataType::kFloat, std::move(input));
    b_.input("x");
  }
  std::string weight(const std::string& name, Shape shape, float amplitude = 0.5f) {
    b_.initializer(name, DataType::kFloat, shape);
    weights_->set(name, random_floats(shape, ++seed_, amplitude));
    return name;
  }
  std::string integers(const std::string& name, std::vector<std::int64_t> values) {
    const Shape shape = {static_cast<std::int64_t>(values.size())};
    b_.initializer(name, DataType::kInt64, shape);
    weights_->set(name, TensorData::of_int64(shape, std::move(values)));
    return name;
  }
  std::string number(const std::string& name, float value) {
    b_.initializer(name, DataType::kFloat, {});
    weights_->set(name, TensorData::of_floats({}, {value}));
    return name;
  }
  // The node and its result carry one name.
  std::string node(const std::string& op, const std::string& name, std::vector<std::string> inputs, Shape shape,
                   Attributes attributes = {}) {
    b_.tensor(name + ".y", DataType::kFloat, std::move(shape));
    b_.node(name, op, std::move(inputs), {name + ".y"}, std::move(attributes));
    return name + ".y";
  }
  ModelPtr done(const std::string& output) {
    b_.output(output);
    auto graph = b_.build();
    if (!graph) throw std::runtime_error(graph.error().text());
    return std::make_shared<const Model>(Model{*graph, weights_, "net.onnx"});
  }

 private:
  GraphBuilder b_;
  std::shared_ptr<WeightStore> weights_;
  std::uint32_t seed_ = 100;
};

using Ints = std::vector<std::int64_t>;

// x[N,4,8,8]: convolutions, Relu, Clip, MaxPool, Add, Concat, pools, Flatten, Gemm. Exact where scales are powers of two.
inline ModelPtr picture_net() {
  NetBuilder n("picture", {-1, 4, 8, 8});
  std::string t = n.node("Conv", "conv1", {"x", n.weight("conv1.w", {8, 4, 3, 3}), n.weight("conv1.b", {8})}, {-1, 8, 8, 8},
                         {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}});
  t = n.node("Relu", "relu1", {t}, {-1, 8, 8, 8});
  const std::string p = n.node("MaxPool", "pool", {t}, {-1, 8, 4, 4}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  t = n.node("Conv", "depthwise", {p, n.weight("depthwise.w", {8, 1, 3, 3}), n.weight("depthwise.b", {8})}, {-1, 8, 4, 4},
             {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}, {"group", std::int64_t{8}}});
  t = n.node("Clip", "clip", {t, n.number("clip.min", -0.5f), n.number("clip.max", 1.0f)}, {-1, 8, 4, 4});
  t = n.node("Add", "add", {t, p}, {-1, 8, 4, 4});
  const std::string c = n.node("Concat", "concat", {t, p}, {-1, 16, 4, 4}, {{"axis", std::int64_t{1}}});
  t = n.node("AveragePool", "average", {c}, {-1, 16, 2, 2}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  t = n.node("Flatten", "flatten", {t}, {-1, 64}, {{"axis", std::int64_t{1}}});
  t = n.node("Gemm", "fc1", {t, n.weight("fc1.w", {10, 64}), n.weight("fc1.b", {10})}, {-1, 10}, {{"transB", std::int64_t{1}}});
  t = n.node("Relu", "relu2", {t}, {-1, 10});
  return n.done(n.node("Gemm", "fc2", {t, n.weight("fc2.w", {10, 6}), n.weight("fc2.b", {6})}, {-1, 6}));
}

// The same operators without pools, and curves: Sigmoid, Mul, LeakyRelu, GlobalAveragePool, Softmax.
inline ModelPtr curve_net() {
  NetBuilder n("curves", {-1, 4, 6, 6});
  const std::string a = n.node("Conv", "conv", {"x", n.weight("conv.w", {6, 4, 1, 1}), n.weight("conv.b", {6})}, {-1, 6, 6, 6},
                               {{"kernel_shape", Ints{1, 1}}});
  const std::string s = n.node("Sigmoid", "sigmoid", {a}, {-1, 6, 6, 6});
  std::string t = n.node("Mul", "mul", {a, s}, {-1, 6, 6, 6});
  t = n.node("LeakyRelu", "leaky", {t}, {-1, 6, 6, 6}, {{"alpha", 0.125f}});
  t = n.node("GlobalAveragePool", "global", {t}, {-1, 6, 1, 1});
  t = n.node("Reshape", "rows", {t, n.integers("shape", {-1, 6})}, {-1, 6});
  t = n.node("Gemm", "fc", {t, n.weight("fc.w", {5, 6}, 2.0f), n.weight("fc.b", {5})}, {-1, 5}, {{"transB", std::int64_t{1}}});
  return n.done(n.node("Softmax", "softmax", {t}, {-1, 5}, {{"axis", std::int64_t{1}}}));
}

// x[N,6,8]: MatMul with and without a bias, of two activations; Transpose, Unsqueeze and Squeeze.
inline ModelPtr token_net() {
  NetBuilder n("tokens", {-1, 6, 8});
  const std::string q =
      n.node("MatMul", "queries", {"x", n.weight("queries.w", {8, 8}), n.weight("queries.b", {8})}, {-1, 6, 8});
  const std::string k = n.node("MatMul", "keys", {"x", n.weight("keys.w", {8, 8})}, {-1, 6, 8});
  std::string t = n.node("Transpose", "turn", {k}, {-1, 8, 6}, {{"perm", Ints{0, 2, 1}}});
  t = n.node("MatMul", "scores", {q, t}, {-1, 6, 6});
  t = n.node("Unsqueeze", "wide", {t, n.integers("axes", {1})}, {-1, 1, 6, 6});
  t = n.node("MaxPool", "largest", {t}, {-1, 1, 3, 3}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  t = n.node("Reshape", "flat", {t, n.integers("flat.shape", {-1, 9})}, {-1, 9});
  return n.done(n.node("MatMul", "last", {t, n.weight("last.w", {9, 4})}, {-1, 4}));
}

struct CodeFormats {
  QuantSpec weight, activation;
  bool outputs = true;                    // every layer's output, too, and not only the last one's
  std::set<std::string> keep_float = {};  // nodes without any quantizer
};

inline at::Tensor code_input(const Model& model, std::int64_t samples, std::uint64_t seed = 5) {
  Shape shape = *model.graph->tensor(model.graph->inputs()[0]).shape;
  shape[0] = samples;
  at::manual_seed(seed);
  return at::rand(shape) * 4 - 2;
}

// Every input and output of every layer by what a run of 16 samples shows, Relu and Clip excepted: their input is the sum
// that the layer before has yet to round.
inline QuantizedModel quantize_codes_of(ModelPtr model, const CodeFormats& formats) {
  const c10::InferenceMode no_gradient;
  const auto check = [](auto result) {
    if (!result) throw std::runtime_error(result.error().text());
    return *result;
  };
  QuantizedModel out;
  out.model = model;
  const Graph& graph = *model->graph;
  const auto runner = check(exec::Runner::create(model, nullptr));
  const auto values = check(runner->run_all({code_input(*model, 16)}));
  const auto activation = [&](TensorId t) {
    const at::Tensor v = values[static_cast<std::size_t>(t)];
    const float lo = v.min().item<float>(), hi = v.max().item<float>(), most = std::max(-lo, hi);
    quant::BlockLayout layout;
    layout.inner = v.numel();
    const bool symmetric = formats.activation.zero_point == ZeroPointType::kNone;
    return quant::params_from_range(formats.activation, layout, {symmetric ? -most : lo}, {symmetric ? most : hi});
  };
  for (const Layer& layer : find_layers(graph)) {
    const Node& node = *graph.find(layer.node);
    if (formats.keep_float.count(node.name)) continue;
    const bool limit = node.op == "Relu" || node.op == "Clip";
    const bool before_limit = [&] {
      for (const NodeId id : graph.tensor(layer.output).consumers)
        if (graph.find(id)->op == "Relu" || graph.find(id)->op == "Clip") return true;
      return false;
    }();
    for (const Site& site : layer.sites()) {
      const TensorId t = site_tensor(layer, site);
      if (site.kind == SiteKind::kWeight) {
        const std::vector<float> w = model->weights->find(graph.tensor(t).name)->to_floats();
        out.quantizers[site] = check(quant::find_params(formats.weight, *graph.tensor(t).shape, w.data(), layer.channel_axis));
      } else if (site.kind == SiteKind::kInput && !limit) {
        out.quantizers[site] = activation(t);
      } else if (site.kind == SiteKind::kOutput && !before_limit && (formats.outputs || graph.is_output(t))) {
        out.quantizers[site] = activation(t);
      }
    }
    const auto input = out.quantizers.find({layer.node, SiteKind::kInput, 0});
    const auto w = out.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (layer.bias == kNoTensor || w == out.quantizers.end()) continue;
    QuantSpec bias = spec(32, true, false, ZeroPointType::kNone, Granularity::kTensor);
    bias.scale_from_accumulator = true;
    out.quantizers[{layer.node, SiteKind::kBias, 0}] = check(
        quant::bias_params(bias, input->second.scale[0], w->second.scale, *graph.tensor(layer.bias).shape, layer.bias_axis));
  }
  return out;
}

inline QuantSpec power_of_two(QuantSpec s) {
  s.scale = ScaleType::kPowerOfTwo;
  return s;
}

struct CodeCase {
  const char* name;
  ModelPtr (*net)();
  CodeFormats formats;
  json options;
  bool exact;                      // scales are powers of two: sums and quotients are exact in float32 whatever their order
  double most = 1, share = 0.005;  // else: steps that codes may differ by in onnxruntime, and how many of them
};

inline std::vector<CodeCase> code_cases() {
  constexpr auto kNone = ZeroPointType::kNone;
  constexpr auto kInteger = ZeroPointType::kInteger;
  constexpr auto kTensor = Granularity::kTensor;
  constexpr auto kChannel = Granularity::kChannel;
  const QuantSpec w8 = spec(8, true, true, kNone, kChannel), u8 = spec(8, false, false, kInteger, kTensor);
  const QuantSpec s8 = spec(8, true, false, kNone, kTensor);
  const QuantSpec po2_w = power_of_two(spec(6, true, true, kNone, kChannel)), po2_s = power_of_two(s8),
                  po2_u = power_of_two(u8);
  const json gemm = {{"gemm", "qgemm"}};
  std::vector<CodeCase> out = {
      {"pictures, int8 powers of two", picture_net, {po2_w, po2_s}, json::object(), true},
      {"pictures, uint8 powers of two", picture_net, {po2_w, po2_u}, json::object(), true},
      {"pictures, QGemm, powers of two", picture_net, {po2_w, po2_u}, gemm, true},
      {"pictures, inputs only, powers of two", picture_net, {po2_w, po2_u, false}, json::object(), true},
      {"pictures, narrow int8 activations",
       picture_net,
       {po2_w, power_of_two(spec(8, true, true, kNone, kTensor))},
       json::object(),
       true},
      {"tokens, uint5 activations",
       token_net,
       {po2_w, power_of_two(spec(5, false, false, kInteger, kTensor))},
       json::object(),
       true},
      // onnxruntime's QLinearAdd adds the zero point before it rounds: of the many ties of few bits, those with an odd zero
      // point fall to the other side.
      {"pictures, uint5 activations",
       picture_net,
       {po2_w, power_of_two(spec(5, false, false, kInteger, kTensor))},
       json::object(),
       false,
       3,
       0.12},
      {"pictures, int4 weights", picture_net, {power_of_two(spec(4, true, true, kNone, kTensor)), po2_s}, json::object(), true},
      {"pictures, int2 weights",
       picture_net,
       {power_of_two(spec(2, true, true, kNone, kChannel)), po2_u},
       json::object(),
       true},
      {"pictures, Add without quantizers", picture_net, {po2_w, po2_u, true, {"add"}}, json::object(), true},
      {"pictures, mixed", picture_net, {po2_w, po2_u, true, {"relu1", "pool"}}, {{"mixed", true}}, true},
      {"tokens, powers of two", token_net, {po2_w, po2_s}, json::object(), true},
      {"tokens, uint8, inputs only", token_net, {po2_w, po2_u, false}, json::object(), true},
      {"pictures, int8", picture_net, {w8, s8}, json::object(), false},
      {"pictures, uint8", picture_net, {w8, u8}, json::object(), false},
      {"pictures, uint8, QGemm", picture_net, {w8, u8}, gemm, false},
      {"pictures, uint8 weights with a zero point",
       picture_net,
       {spec(8, false, false, kInteger, kTensor), u8},
       json::object(),
       false},
      {"tokens, uint8", token_net, {w8, u8}, json::object(), false},
      {"tokens, QGemm", token_net, {w8, s8}, gemm, false},
      {"curves, int8", curve_net, {w8, s8}, json::object(), false},
      {"curves, uint8", curve_net, {w8, u8}, json::object(), false},
      {"curves, uint8, inputs only", curve_net, {w8, u8, false}, json::object(), false},
  };
  return out;
}

}  // namespace quanvas::export_net
