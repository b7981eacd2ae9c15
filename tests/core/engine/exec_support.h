// Quanvas - small models and data sets for the tests of core/exec and plugins/passes.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "core/exec/runner.h"
#include "core/graph/weights.h"

namespace quanvas::testing {

// Builds a model node by node; every tensor gets a name that the test chooses.
class ModelMaker {
 public:
  explicit ModelMaker(int opset = 13) { builder_.set_opset(opset); }
  ModelMaker& input(const std::string& name, Shape shape, DataType type = DataType::kFloat) {
    builder_.tensor(name, type, std::move(shape));
    builder_.input(name);
    return *this;
  }
  ModelMaker& weight(const std::string& name, const at::Tensor& value) {
    TensorData data = exec::to_data(value);
    builder_.initializer(name, data.type, data.shape);
    weights_->set(name, std::move(data));
    return *this;
  }
  ModelMaker& node(const std::string& name, const std::string& op, std::vector<std::string> inputs,
                   std::vector<std::string> outputs, Attributes attributes = {}) {
    for (const auto& o : outputs)
      if (!o.empty()) builder_.tensor(o, DataType::kFloat, std::nullopt);
    ids_[name] = builder_.node(name, op, std::move(inputs), std::move(outputs), std::move(attributes));
    return *this;
  }
  ModelMaker& shape(const std::string& name, Shape shape) {
    builder_.tensor(name, DataType::kFloat, std::move(shape));
    return *this;
  }
  ModelMaker& output(const std::string& name) {
    builder_.output(name);
    return *this;
  }
  NodeId id(const std::string& node) const { return ids_.at(node); }
  ModelPtr build() {
    auto graph = builder_.build();
    if (!graph) throw std::runtime_error(graph.error().text());
    return std::make_shared<const Model>(Model{*graph, weights_, "test"});
  }

 private:
  GraphBuilder builder_;
  std::shared_ptr<WeightStore> weights_ = std::make_shared<WeightStore>();
  std::map<std::string, NodeId> ids_;
};

inline at::Tensor tensor(const Shape& shape, const std::vector<float>& values) {
  return at::tensor(values, at::kFloat).reshape(shape);
}
inline at::Tensor ints(const std::vector<std::int64_t>& values) { return at::tensor(values, at::kLong); }

// Numbers in [-1, 1) that look random and are the same everywhere.
inline at::Tensor noise(const Shape& shape, std::uint64_t seed) {
  at::Tensor t = at::empty(shape, at::kFloat);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    t.data_ptr<float>()[i] = static_cast<float>(static_cast<double>(state >> 33) / 1073741824.0 - 1.0);
  }
  return t;
}

// Class c of K: noise around one of K fixed patterns; learnable by a small network.
class PatternData final : public Dataset {
 public:
  PatternData(Shape shape, std::int64_t classes, std::int64_t size, float spread = 0.6f)
      : shape_(std::move(shape)), classes_(classes), size_(size), spread_(spread) {
    Shape all = shape_;
    all.insert(all.begin(), classes);
    patterns_ = noise(all, 77);
  }
  std::int64_t size() const override { return size_; }
  Shape sample_shape() const override { return shape_; }
  bool has_labels() const override { return true; }
  Status read(const std::vector<std::int64_t>& indices, float* out, std::int64_t* labels) const override {
    const std::int64_t n = element_count(shape_);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const std::int64_t c = indices[i] % classes_;
      const at::Tensor x = patterns_[c] + spread_ * noise(shape_, static_cast<std::uint64_t>(indices[i]) + 1000);
      std::copy_n(x.contiguous().data_ptr<float>(), n, out + static_cast<std::int64_t>(i) * n);
      if (labels) labels[i] = c;
    }
    return {};
  }
  std::string hash() const override { return "patterns"; }

 private:
  Shape shape_;
  std::int64_t classes_, size_;
  float spread_;
  at::Tensor patterns_;
};

// conv 3x3 -> relu -> pool -> flatten -> gemm on [n, 1, 8, 8]; `with_bn` puts a batch normalization behind the conv.
inline ModelPtr small_cnn(std::int64_t classes = 4, bool with_bn = false) {
  ModelMaker m;
  m.input("x", {-1, 1, 8, 8});
  m.weight("conv.w", noise({6, 1, 3, 3}, 1) * 0.5).weight("conv.b", noise({6}, 2) * 0.1);
  m.weight("fc.w", noise({classes, 96}, 3) * 0.15).weight("fc.b", at::zeros({classes}));
  m.node("conv", "Conv", {"x", "conv.w", "conv.b"}, {"c"}, {{"pads", std::vector<std::int64_t>{1, 1, 1, 1}}});
  std::string now = "c";
  if (with_bn) {
    m.weight("bn.g", at::ones({6})).weight("bn.b", at::zeros({6}));
    m.weight("bn.m", at::zeros({6})).weight("bn.v", at::ones({6}));
    m.node("bn", "BatchNormalization", {"c", "bn.g", "bn.b", "bn.m", "bn.v"}, {"n"});
    now = "n";
  }
  m.node("relu", "Relu", {now}, {"r"});
  m.node("pool", "MaxPool", {"r"}, {"p"},
         {{"kernel_shape", std::vector<std::int64_t>{2, 2}}, {"strides", std::vector<std::int64_t>{2, 2}}});
  m.node("flat", "Flatten", {"p"}, {"f"});
  m.node("fc", "Gemm", {"f", "fc.w", "fc.b"}, {"y"}, {{"transB", std::int64_t{1}}});
  m.output("y");
  return m.build();
}

inline at::Tensor run_one(const ModelPtr& model, const at::Tensor& x, const exec::QuantizerMap* quantizers = nullptr) {
  auto runner = exec::Runner::create(model, quantizers);
  if (!runner) throw std::runtime_error(runner.error().text());
  auto out = (*runner)->run({x});
  if (!out) throw std::runtime_error(out.error().text());
  return (*out)[0];
}

// max |a - b| / max |b|
inline double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  if (a.numel() == 0) return 0;
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double scale = std::max(1e-30, y.abs().max().item().toDouble());
  return (x - y).abs().max().item().toDouble() / scale;
}
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0;
}

// Weights per channel and inputs per tensor of the compute layers, found on `sample`; int32 biases; the network's
// own input with at least 8 bits.
inline exec::QuantizerMap quantize_all(const ModelPtr& model, const at::Tensor& sample, int weight_bits, int input_bits) {
  exec::QuantizerMap out;
  auto runner = exec::Runner::create(model, nullptr);
  auto env = (*runner)->run_all({sample});
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.kind != LayerKind::kCompute || layer.weight == kNoTensor) continue;
    QuantSpec w;
    w.bits = weight_bits;
    w.narrow = weight_bits > 1;
    w.granularity = Granularity::kChannel;
    w.axis = layer.channel_axis;
    w.statistic = Statistic::kMse;
    const TensorData* data = model->weights->find(model->graph->tensor(layer.weight).name);
    out[{layer.node, SiteKind::kWeight, 0}] = *quant::find_params(w, data->shape, data->to_floats().data(), layer.channel_axis);
    const at::Tensor x = (*env)[static_cast<std::size_t>(layer.inputs[0])].contiguous();
    QuantSpec a;
    const bool first = model->graph->tensor(layer.inputs[0]).producer == kNoNode;
    a.bits = first ? std::max(8, input_bits) : input_bits;
    a.is_signed = x.min().item().toFloat() < 0;
    a.statistic = Statistic::kMse;
    out[{layer.node, SiteKind::kInput, 0}] = *quant::find_params(a, x.sizes().vec(), x.data_ptr<float>(), 1);
    if (layer.bias == kNoTensor) continue;
    QuantSpec b;
    b.bits = 32;
    b.scale_from_accumulator = true;
    out[{layer.node, SiteKind::kBias, 0}] =
        *quant::bias_params(b, out[{layer.node, SiteKind::kInput, 0}].scale[0],
                            out[{layer.node, SiteKind::kWeight, 0}].scale,
                            model->weights->find(model->graph->tensor(layer.bias).name)->shape, layer.bias_axis);
  }
  return out;
}

}  // namespace quanvas::testing
