#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "core/graph/layers.h"
#include "core/recipe/recipe.h"
#include "tests/fuzz/exported.h"
#include "tests/plugins/export_net.h"

namespace quanvas::fuzz {
namespace {

using Ints = std::vector<std::int64_t>;

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

template <class T>
T needed(Result<T> result) {
  if (!result) stop(result.error().text());
  return std::move(*result);
}

class NetBuilder {
 public:
  explicit NetBuilder(Shape input) {
    b_.set_name("small");
    b_.set_opset(13);
    b_.tensor("x", DataType::kFloat, std::move(input));
    b_.input("x");
  }
  std::string weight(const std::string& name, Shape shape) {
    b_.initializer(name, DataType::kFloat, shape);
    weights_->set(name, export_net::random_floats(std::move(shape), ++seed_));
    return name;
  }
  std::string node(const std::string& op, const std::string& name, std::vector<std::string> inputs,
                   const std::string& out, Shape shape, Attributes attributes = {}) {
    b_.tensor(out, DataType::kFloat, std::move(shape));
    b_.node(name, op, std::move(inputs), {out}, std::move(attributes));
    return out;
  }
  ModelPtr done(const std::string& output) {
    b_.output(output);
    return std::make_shared<const Model>(Model{needed(b_.build()), weights_, "small.onnx"});
  }

 private:
  GraphBuilder b_;
  std::shared_ptr<WeightStore> weights_ = std::make_shared<WeightStore>();
  std::uint32_t seed_ = 0;
};

bool is_limit(const std::string& op) {
  return op == "Relu" || op == "MaxPool" || op == "Flatten";
}

// Nobody quantizes the sum in front of a Relu.
bool is_before_relu(const Graph& graph, TensorId t) {
  for (const NodeId id : graph.tensor(t).consumers)
    if (graph.find(id)->op == "Relu") return true;
  return false;
}

quant::QuantParams of_range(QuantSpec spec, const Shape& shape) {
  if (spec.granularity != Granularity::kTensor) spec.axis = 1;
  const auto layout = needed(quant::make_layout(spec, shape, 1));
  const auto n = static_cast<std::size_t>(layout.parameters());
  const bool symmetric = spec.is_signed || spec.format != "int";
  return quant::params_from_range(spec, layout, std::vector<float>(n, symmetric ? -2.0f : 0.0f),
                                  std::vector<float>(n, 2.0f));
}

}  // namespace

const Exporter& exporter(const char* id) {
  const Exporter* found = Registry<Exporter>::instance().find(id);
  if (!found) stop(std::string("There is no target ") + id);
  return *found;
}

json options_of(const Exported& e) {
  return needed(exporter(e.target).schema().complete(e.options, e.target));
}

void write(const Exported& e, const std::string& path) {
  const json options = options_of(e);
  for (const Refusal& r : exporter(e.target).check(e.model, options)) stop(std::string(e.target) + ": " + r.text());
  JobContext job;
  const Status done = exporter(e.target).write(e.model, path, options, job);
  if (!done) stop(done.error().text());
}

Bytes written(const std::vector<Exported>& all, const char* name) {
  Bytes out;
  for (const Exported& e : all) {
    write(e, scratch_path(name));
    out.push_back(contents(scratch_path(name)));
  }
  return out;
}

void audit_file(const Exported& e, const std::string& path) {
  (void)exporter(e.target).audit(e.model, path, options_of(e));
}

void read_file_again(const Exported& e, const std::string& path) {
  JobContext job;
  (void)exporter(e.target).read(e.model, path, options_of(e), job);
}

ModelPtr picture_model() {
  static const ModelPtr model = [] {
    NetBuilder n({-1, 1, 4, 4});
    const Attributes three = {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}};
    Attributes depthwise = three;
    depthwise["group"] = std::int64_t{2};
    n.node("Conv", "conv1", {"x", n.weight("w1", {2, 1, 3, 3}), n.weight("b1", {2})}, "c1", {-1, 2, 4, 4}, three);
    n.node("Relu", "relu1", {"c1"}, "r1", {-1, 2, 4, 4});
    n.node("MaxPool", "pool", {"r1"}, "p", {-1, 2, 2, 2}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
    n.node("Conv", "conv2", {"p", n.weight("w2", {2, 1, 3, 3})}, "c2", {-1, 2, 2, 2}, depthwise);
    n.node("Add", "add", {"c2", "p"}, "s", {-1, 2, 2, 2});
    n.node("Flatten", "flatten", {"s"}, "f", {-1, 8}, {{"axis", std::int64_t{1}}});
    n.node("Gemm", "fc", {"f", n.weight("w3", {3, 8}), n.weight("b3", {3})}, "y", {-1, 3},
           {{"transB", std::int64_t{1}}});
    return n.done("y");
  }();
  return model;
}

ModelPtr linear_model(std::int64_t inputs, std::int64_t outputs) {
  NetBuilder n({-1, inputs});
  n.node("Gemm", "/fc/Gemm", {"x", n.weight("fc.weight", {outputs, inputs}), n.weight("fc.bias", {outputs})}, "h",
         {-1, outputs}, {{"transB", std::int64_t{1}}});
  n.node("Relu", "/Relu", {"h"}, "r", {-1, outputs});
  n.node("MatMul", "/head/MatMul", {"r", n.weight("head.weight", {outputs, 8})}, "y", {-1, 8});
  return n.done("y");
}

QuantizedModel with_specs(const ModelPtr& model, const Specs& specs) {
  QuantizedModel out = with_weights(model, specs.weight);
  const Graph& graph = *model->graph;
  for (const Layer& layer : find_layers(graph)) {
    const bool limit = is_limit(graph.find(layer.node)->op);
    for (const Site& site : layer.sites()) {
      const TensorId t = site_tensor(layer, site);
      const bool read = site.kind == SiteKind::kInput && (specs.limits || !limit);
      const bool made =
          site.kind == SiteKind::kOutput && !is_before_relu(graph, t) && (specs.made || graph.is_output(t));
      if (read || made) out.quantizers[site] = of_range(specs.activation, *graph.tensor(t).shape);
    }
    const auto input = out.quantizers.find({layer.node, SiteKind::kInput, 0});
    const auto weight = out.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (!specs.biases || layer.bias == kNoTensor || weight == out.quantizers.end() ||
        input == out.quantizers.end() || input->second.scale.size() != 1 || specs.weight.format != "int" ||
        specs.weight.granularity == Granularity::kGroup)
      continue;
    QuantSpec bias = ints(32, true, Granularity::kTensor);
    bias.scale_from_accumulator = true;
    out.quantizers[{layer.node, SiteKind::kBias, 0}] = needed(quant::bias_params(
        bias, input->second.scale[0], weight->second.scale, *graph.tensor(layer.bias).shape, layer.bias_axis));
  }
  return out;
}

QuantizedModel with_weights(const ModelPtr& model, const QuantSpec& weight) {
  QuantizedModel out;
  out.model = model;
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.weight == kNoTensor) continue;
    const TensorData& data = *model->weights->find(model->graph->tensor(layer.weight).name);
    const int axis = weight.granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis;
    out.quantizers[{layer.node, SiteKind::kWeight, 0}] =
        needed(quant::find_params(weight, data.shape, data.to_floats().data(), axis));
  }
  return out;
}

QuantSpec ints(int bits, bool is_signed, Granularity granularity, int group) {
  QuantSpec s;
  s.bits = bits;
  s.is_signed = is_signed;
  s.granularity = granularity;
  s.group_size = group;
  if (!is_signed) {
    s.zero_point = ZeroPointType::kInteger;
    s.statistic = Statistic::kMinMax;
  }
  return s;
}

QuantSpec minifloat(int exponent, int mantissa, FloatSpecials specials, Granularity granularity) {
  QuantSpec s;
  s.format = "float";
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = specials;
  s.granularity = granularity;
  return s;
}

QuantSpec preset(const std::string& id) {
  const Preset* found = PresetLibrary::builtin().find(id);
  if (!found) stop("There is no preset " + id);
  return found->spec;
}

}  // namespace quanvas::fuzz
