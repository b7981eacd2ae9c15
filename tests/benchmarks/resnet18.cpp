#include "tests/benchmarks/resnet18.h"

#include <cmath>
#include <cstdlib>
#include <cstdio>

#include <ATen/ATen.h>

namespace quanvas::benchmarks {
namespace {

ConvBn make_conv(const std::string& name, int in, int out, int kernel, int stride) {
  ConvBn c;
  c.name = name;
  c.weight = at::randn({out, in, kernel, kernel}) * std::sqrt(2.0 / (in * kernel * kernel));
  c.gamma = at::rand({out}) * 0.5 + 0.5;
  c.beta = at::randn({out}) * 0.1;
  c.mean = at::randn({out}) * 0.1;
  c.variance = at::rand({out}) + 0.5;
  c.stride = stride;
  c.pad = kernel / 2;
  return c;
}

at::Tensor conv_bn(const ConvBn& c, const at::Tensor& x) {
  return at::batch_norm(at::conv2d(x, c.weight, {}, at::IntArrayRef({c.stride, c.stride}), at::IntArrayRef({c.pad, c.pad})), c.gamma, c.beta, c.mean, c.variance, false, 0.1,
                        1e-5, true);
}

// The graph of the network while it is written.
class Writer {
 public:
  std::string initializer(const std::string& name, const at::Tensor& t) {
    const at::Tensor x = t.contiguous();
    const Shape shape(x.sizes().begin(), x.sizes().end());
    builder.initializer(name, DataType::kFloat, shape);
    weights->set(name, TensorData::copy_of(DataType::kFloat, shape, x.data_ptr(), x.nbytes()));
    return name;
  }
  std::string node(const std::string& name, const std::string& op, std::vector<std::string> inputs, Attributes a = {}) {
    builder.node(name, op, std::move(inputs), {name + ":0"}, std::move(a));
    return name + ":0";
  }
  std::string conv(const ConvBn& c, const std::string& x) {
    const std::int64_t s = c.stride, p = c.pad;
    const std::string y = node(c.name, "Conv", {x, initializer(c.name + ".weight", c.weight)},
                               {{"strides", std::vector<std::int64_t>{s, s}}, {"pads", std::vector<std::int64_t>{p, p, p, p}}});
    const std::string b = c.name + ".bn";
    return node(b, "BatchNormalization",
                {y, initializer(b + ".gamma", c.gamma), initializer(b + ".beta", c.beta),
                 initializer(b + ".mean", c.mean), initializer(b + ".variance", c.variance)},
                {{"epsilon", 1e-5f}});
  }

  GraphBuilder builder;
  std::shared_ptr<WeightStore> weights = std::make_shared<WeightStore>();
};

std::string write_block(Writer& w, const BasicBlock& block, const std::string& x) {
  const std::string& name = block.second.name;
  const std::string inner = w.node(block.first.name + ".relu", "Relu", {w.conv(block.first, x)});
  const std::string y = w.conv(block.second, inner);
  const std::string skip = block.shortcut.empty() ? x : w.conv(block.shortcut[0], x);
  return w.node(name + ".relu", "Relu", {w.node(name + ".add", "Add", {y, skip})});
}

}  // namespace

Resnet18 make_resnet18(int seed) {
  at::manual_seed(static_cast<std::uint64_t>(seed));
  Resnet18 net;
  net.stem = make_conv("stem", 3, 64, 7, 2);
  int in = 64;
  for (int stage = 0; stage < 4; ++stage)
    for (int i = 0; i < 2; ++i) {
      const int out = 64 << stage, stride = stage > 0 && i == 0 ? 2 : 1;
      const std::string name = "layer" + std::to_string(stage + 1) + "." + std::to_string(i);
      BasicBlock block{make_conv(name + ".conv1", in, out, 3, stride), make_conv(name + ".conv2", out, out, 3, 1), {}};
      if (in != out) block.shortcut.push_back(make_conv(name + ".downsample", in, out, 1, stride));
      net.blocks.push_back(std::move(block));
      in = out;
    }
  net.weight = at::randn({1000, 512}) * 0.04;
  net.bias = at::randn({1000}) * 0.1;
  return net;
}

ModelPtr as_model(const Resnet18& net) {
  Writer w;
  w.builder.set_name("resnet18");
  w.builder.tensor("image", DataType::kFloat, Shape{-1, 3, 224, 224});
  w.builder.input("image");
  std::string x = w.node("stem.relu", "Relu", {w.conv(net.stem, "image")});
  x = w.node("pool", "MaxPool", {x},
             {{"kernel_shape", std::vector<std::int64_t>{3, 3}}, {"strides", std::vector<std::int64_t>{2, 2}},
              {"pads", std::vector<std::int64_t>{1, 1, 1, 1}}});
  for (const BasicBlock& block : net.blocks) x = write_block(w, block, x);
  x = w.node("flatten", "Flatten", {w.node("mean", "GlobalAveragePool", {x})});
  x = w.node("fc", "Gemm", {x, w.initializer("fc.weight", net.weight), w.initializer("fc.bias", net.bias)},
             {{"transB", std::int64_t{1}}});
  w.builder.output(x);
  auto graph = w.builder.build();
  if (!graph) {
    std::fprintf(stderr, "%s\n", graph.error().text().c_str());
    std::abort();
  }
  return std::make_shared<const Model>(Model{*graph, w.weights, ""});
}

at::Tensor run_directly(const Resnet18& net, const at::Tensor& image) {
  at::Tensor x = conv_bn(net.stem, image);
  x = at::max_pool2d(x.relu_(), {3, 3}, {2, 2}, {1, 1});
  for (const BasicBlock& block : net.blocks) {
    at::Tensor y = conv_bn(block.first, x);
    y = conv_bn(block.second, y.relu_());
    y += block.shortcut.empty() ? x : conv_bn(block.shortcut[0], x);
    x = y.relu_();
  }
  return at::linear(at::adaptive_avg_pool2d(x, {1, 1}).flatten(1), net.weight, net.bias);
}

}  // namespace quanvas::benchmarks
