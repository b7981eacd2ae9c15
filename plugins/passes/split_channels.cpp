// Outlier channel splitting: the channels with the largest weights become two channels of half the size each, so that the
// range of the weights shrinks (Zhao et al. 2019, arXiv 1901.09504). The network grows and computes the same.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/exec/pass_context.h"
#include "core/exec/rebuild.h"
#include "plugins/passes/channel_regions.h"

namespace quanvas {
namespace {

// f(x) of each value for itself, and what pools each channel for itself.
const std::set<std::string> kElementwise = {"Relu", "LeakyRelu", "Identity", "Dropout", "Abs", "Neg", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "HardSigmoid",
                                            "HardSwish", "Gelu", "Erf", "Swish", "Clip"};
const std::set<std::string> kPools = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"};
// f(x / 2) = f(x) / 2.
const std::set<std::string> kHomogeneous = {"Relu", "LeakyRelu", "Identity", "Dropout", "Abs", "Neg", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool",
                                            "GlobalLpPool"};

bool is_convolution(const Node& node) { return node.op == "Conv" || node.op == "ConvTranspose"; }
bool is_group_free(const Node& node) { return node.integer("group", 1) == 1; }

// What lies between a layer and the layers that read its channels.
struct Region {
  const Node* source = nullptr;
  std::vector<const Node*> sinks;
  std::vector<TensorId> tensors;  // that get the new channels, the source's output first
};

class Splitter {
 public:
  Splitter(ModelPtr model, bool halve_source, double ratio, bool aware, const std::function<Result<Plan>()>& plan)
      : model_(std::move(model)), halve_source_(halve_source), ratio_(ratio), aware_(aware), plan_(plan) {}

  Status run(JobContext& job) {
    // Ids stay, the model is another one after each split.
    std::vector<NodeId> ids;
    for (const Node& node : model_->graph->nodes()) ids.push_back(node.id);
    layers_ = find_layers(*model_->graph);
    for (const NodeId id : ids) {
      QUANVAS_CHECK(job.check());
      const Node& node = *model_->graph->find(id);
      const auto weight = weight_of(node);
      if (!weight || weight->inputs() == 0) continue;
      Region region{&node, {}, {}};
      std::string why = is_group_free(node) ? walk(node.outputs[0], region) : "it is divided into groups";
      if (why.empty() && region.sinks.empty()) why = "no layer with a weight reads it";
      if (!why.empty()) {
        left_.push_back("'" + node.name + "': " + why);
        continue;
      }
      QUANVAS_CHECK(split(region, *weight));
    }
    return {};
  }
  ModelPtr model() const { return model_; }
  std::vector<PassLayer>& report() { return report_; }
  std::string text() const {
    std::string out = "Split " + std::to_string(channels_) + (channels_ == 1 ? " channel" : " channels") + " of " + std::to_string(regions_) + (regions_ == 1 ? " layer" : " layers");
    if (!left_.empty()) out += "; left: " + join_some(left_);
    return out + ".";
  }

 private:
  std::optional<ChannelWeight> weight_of(const Node& node) const { return ChannelWeight::of(*model_, node, find_layer(layers_, node.id)); }

  // Follows the tensor to its readers; why the source cannot be split, or nothing.
  std::string walk(TensorId id, Region& region) const {
    const Graph& graph = *model_->graph;
    const TensorInfo& tensor = graph.tensor(id);
    if (is_graph_output(graph, id)) return "it is an output of the network";
    region.tensors.push_back(id);
    for (const NodeId reader : tensor.consumers) {
      const Node& node = *graph.find(reader);
      const std::string refusal = "'" + node.name + "' (" + node.op + ") does not take more channels";
      if (node.input(0) != id || std::count(node.inputs.begin(), node.inputs.end(), id) != 1 || !node.domain.empty() || node.outputs.size() != 1 || !node.opaque_reason.empty()) return refusal;
      if (const auto weight = weight_of(node); weight && weight->inputs() > 0) {
        if (!is_group_free(node)) return "'" + node.name + "' is divided into groups";
        if (weight->inputs() != weight_of(*region.source)->outputs() || is_convolution(node) != is_convolution(*region.source)) return refusal;
        region.sinks.push_back(&node);
        continue;
      }
      const bool pool = kPools.count(node.op) > 0;
      if ((!pool && !kElementwise.count(node.op)) || (pool && !is_convolution(*region.source))) return refusal;
      if (halve_source_ && !kHomogeneous.count(node.op)) return "'" + node.name + "' (" + node.op + ") of a half is not the half of it";
      for (std::size_t i = 1; i < node.inputs.size(); ++i)
        if (node.inputs[i] != kNoTensor && !graph.tensor(node.inputs[i]).is_initializer) return refusal;
      if (std::string why = walk(node.outputs[0], region); !why.empty()) return why;
    }
    return {};
  }

  // Half a step of the sink's format for each weight; empty: it has none of the kind that can be split that way.
  Result<std::vector<double>> half_steps(const Node& node, const ChannelWeight& weight) const {
    QUANVAS_TRY(const Plan plan, plan_());
    const Layer& layer = *find_layer(layers_, node.id);
    const SitePlan* site = plan.find({node.id, SiteKind::kWeight, 0});
    if (!site || !site->spec || site->spec->format != "int" || site->spec->zero_point != ZeroPointType::kNone) return std::vector<double>();
    QuantSpec spec = *site->spec;
    if (spec.source != ScaleSource::kStatistics) spec.source = ScaleSource::kStatistics;
    std::vector<float> values(weight.values().begin(), weight.values().end());
    const TensorData* data = initializer_data(*model_, layer.weight);
    const auto params = quant::find_params(spec, data->shape, values.data(), exec::site_axis(layer, node, spec, SiteKind::kWeight));
    if (!params) {
      Error e = params.error();
      e.context = node.name;
      return Failure(std::move(e));
    }
    const quant::BlockLayout& l = params->layout;
    if (l.granularity != Granularity::kTensor && l.granularity != Granularity::kChannel) return std::vector<double>();
    std::vector<double> out;
    for (std::size_t e = 0; e < values.size(); ++e) {
      const std::size_t set = params->scale.size() == 1 ? 0 : (e / static_cast<std::size_t>(l.inner)) % static_cast<std::size_t>(l.dim);
      out.push_back(set < params->scale.size() ? params->scale[set] / 2.0 : 0.0);
    }
    return out;
  }

  Status split(const Region& region, const ChannelWeight& source) {
    const auto channels = static_cast<std::size_t>(source.outputs());
    // By the largest weight on the side that is halved.
    std::vector<double> largest(channels);
    const auto look = [&](const ChannelWeight& w, bool outputs) {
      for (std::size_t e = 0; e < w.values().size(); ++e) {
        const auto element = static_cast<std::int64_t>(e);
        double& l = largest[static_cast<std::size_t>(outputs ? w.output_of(element) : w.input_of(element))];
        l = std::max(l, std::fabs(w.values()[e]));
      }
    };
    if (halve_source_) look(source, true);
    else
      for (const Node* sink : region.sinks) look(*weight_of(*sink), false);
    const auto count = std::min(channels, static_cast<std::size_t>(std::ceil(ratio_ * static_cast<double>(channels))));
    std::vector<std::size_t> chosen(channels);
    std::iota(chosen.begin(), chosen.end(), std::size_t{0});
    std::stable_sort(chosen.begin(), chosen.end(), [&](std::size_t a, std::size_t b) { return largest[a] > largest[b]; });
    chosen.resize(count);
    std::sort(chosen.begin(), chosen.end());
    if (count == 0) return {};

    ModelEdit edit(*model_);
    const double before = *std::max_element(largest.begin(), largest.end());
    double after = 0;
    QUANVAS_CHECK(widen(*region.source, source, true, halve_source_, chosen, edit, after));
    for (const Node* sink : region.sinks) QUANVAS_CHECK(widen(*sink, *weight_of(*sink), false, !halve_source_, chosen, edit, after));
    for (const TensorId id : region.tensors) {
      const TensorInfo& tensor = model_->graph->tensor(id);
      if (!tensor.shape || tensor.shape->empty()) continue;
      Shape shape = *tensor.shape;
      const std::size_t axis = is_convolution(*region.source) ? 1 : shape.size() - 1;
      if (axis < shape.size() && shape[axis] > 0) shape[axis] += static_cast<std::int64_t>(count);
      edit.builder().tensor(tensor.name, tensor.type, shape);
    }
    std::vector<std::string> names;
    for (const Node* sink : region.sinks) names.push_back(sink->name);
    report_.push_back({halve_source_ ? region.source->name : join_some(names, 3), before, after, std::to_string(count) + " of " + std::to_string(channels) + " channels"});
    channels_ += count, ++regions_;
    QUANVAS_TRY(model_, edit.finish());
    layers_ = find_layers(*model_->graph);
    return {};
  }

  // The weight with copies of the chosen channels behind the others; halved: both copies have half the values.
  Status widen(const Node& node, const ChannelWeight& weight, bool outputs, bool halved, const std::vector<std::size_t>& chosen, ModelEdit& edit, double& largest) {
    const Layer& layer = *find_layer(layers_, node.id);
    const TensorData* data = initializer_data(*model_, layer.weight);
    std::vector<double> half;
    if (halved && aware_ && !outputs) {
      QUANVAS_TRY(half, half_steps(node, weight));
    }
    // The axis of these channels in the weight.
    std::size_t axis = 0;
    if (is_convolution(node)) axis = (node.op == "Conv") == outputs ? 0 : 1;
    else axis = (node.op == "Gemm" && node.integer("transB", 0) != 0) == outputs ? 0 : 1;
    Shape shape = data->shape;
    std::size_t outer = 1, inner = 1;
    for (std::size_t d = 0; d < shape.size(); ++d) (d < axis ? outer : inner) *= d == axis ? 1 : static_cast<std::size_t>(shape[d]);
    const auto channels = static_cast<std::size_t>(shape[axis]);
    std::vector<char> is_chosen(channels);
    for (const std::size_t c : chosen) is_chosen[c] = 1;
    std::vector<double> values;
    values.reserve(outer * (channels + chosen.size()) * inner);
    const auto append = [&](std::size_t o, std::size_t c, double sign) {
      for (std::size_t i = 0; i < inner; ++i) {
        const std::size_t e = (o * channels + c) * inner + i;
        double v = weight.values()[e];
        if (halved && is_chosen[c]) v = (v + (half.empty() ? 0.0 : sign * half[e])) / 2;
        values.push_back(v);
        if (halved) largest = std::max(largest, std::fabs(v));
      }
    };
    for (std::size_t o = 0; o < outer; ++o) {
      for (std::size_t c = 0; c < channels; ++c) append(o, c, -1);
      for (const std::size_t c : chosen) append(o, c, 1);
    }
    shape[axis] += static_cast<std::int64_t>(chosen.size());
    edit.replace_initializer(node, layer.weight, data->type, shape, values);
    if (!outputs || weight.bias().empty()) return {};
    std::vector<double> bias = weight.bias();
    for (const std::size_t c : chosen) {
      if (halved) bias[c] /= 2;
      bias.push_back(bias[c]);
    }
    const TensorData* old = initializer_data(*model_, node.input(2));
    Shape bias_shape = old->shape;
    if (bias_shape.empty()) bias_shape.push_back(0);
    bias_shape.back() = static_cast<std::int64_t>(bias.size());  // the channels are its last axis
    edit.replace_initializer(node, node.input(2), old->type, bias_shape, bias);
    return {};
  }

  ModelPtr model_;
  bool halve_source_;
  double ratio_;
  bool aware_;
  const std::function<Result<Plan>()>& plan_;
  std::vector<Layer> layers_;
  std::vector<PassLayer> report_;
  std::vector<std::string> left_;
  std::size_t channels_ = 0, regions_ = 0;
};

class SplitChannels final : public Pass {
 public:
  PluginInfo info() const override {
    return {"split-channels", "Split outlier channels",
            "Makes two channels of half the size of each of those with the largest weights, so that the range of the weights shrinks; the network grows and computes the same "
            "(Zhao et al. 2019, Outlier Channel Splitting)."};
  }
  Schema schema() const override {
    return {{real_field("ratio", "Share of the channels", "So many of each layer's channels are split, rounded up.", 0.02, 0, 1),
             choice_field("halve", "Halved", "Which weights of a split channel are halved; those of the other side are repeated.", "readers",
                          {{"readers", "Those that read it", ""}, {"makers", "Those that make it", "Only before operators of which the half is the half, as Relu."}}),
             when(bool_field("aware", "Quantization-aware", "Moves the two halves apart by half a step of the recipe's integer format, so that rounding them adds up to rounding the whole.", false), "halve",
                  {"readers"})}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const bool makers = options.at("halve").get<std::string>() == "makers";
    Splitter splitter(ctx.model, makers, options.at("ratio").get<double>(), !makers && options.value("aware", false), ctx.plan);
    QUANVAS_CHECK(splitter.run(job));
    ctx.model = splitter.model();
    ctx.layers = std::move(splitter.report());
    ctx.measure = "largest magnitude of the halved weights";
    return splitter.text();
  }
};

QUANVAS_PLUGIN(Pass, SplitChannels)

}  // namespace
}  // namespace quanvas
