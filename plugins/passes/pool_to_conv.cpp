// Average pools become depthwise convolutions with weights 1 / k, k elements in a window: layers whose weight and input have
// formats, as targets without an averaging unit compute them.
#include <algorithm>
#include <numeric>

#include "core/exec/pass_context.h"
#include "core/graph/layers.h"
#include "core/plugin/registry.h"
#include "core/recipe/pool_sum.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

using Ints = std::vector<std::int64_t>;
constexpr std::int64_t kMostWeights = std::int64_t{1} << 24;

struct Window {
  Ints kernel;
  Attributes attributes;  // of the convolution
  bool flat = false;      // ReduceMean without the axes that it has averaged
};

bool is_average(const Node& node) {
  return node.domain.empty() && (node.op == "AveragePool" || node.op == "GlobalAveragePool" || node.op == "ReduceMean");
}

class Converter {
 public:
  explicit Converter(const Model& model) : model_(model), edit_(model) {}

  Result<std::string> run(JobContext& job) {
    for (const Layer& layer : find_layers(*model_.graph)) {
      const Node& node = *model_.graph->find(layer.node);
      if (!is_average(node)) continue;
      QUANVAS_CHECK(job.check());
      ++found_;
      const std::string reason = convert(layer, node);
      if (!reason.empty()) left_.push_back("'" + node.name + "' (" + reason + ")");
    }
    std::string text = "Made depthwise convolutions of " + std::to_string(found_ - left_.size()) + " of " +
                       std::to_string(found_) + " average pools";
    if (!left_.empty()) text += "; left: " + join_some(left_);
    return text + ".";
  }
  bool changed() const { return found_ > left_.size(); }
  Result<ModelPtr> finish() { return edit_.finish(); }

 private:
  std::string convert(const Layer& layer, const Node& node) {
    const Graph& g = *model_.graph;
    // Counts the elements of each window and says why they are not the same everywhere.
    if (const AveragedElements averaged = averaged_elements(g, layer); averaged.count == 0) return averaged.problem;
    const TensorInfo& input = g.tensor(layer.inputs[0]);
    if (!input.shape || input.shape->size() < 3) return "the shape of its input is not known";
    const std::int64_t channels = (*input.shape)[1];
    if (channels < 1) return "the number of its channels is not known";
    if (node.outputs.size() != 1 || input.type == DataType::kUndefined) return "the type of its input is not known";
    Window window = node.op == "AveragePool" ? of_pool(node) : of_mean(node, *input.shape);
    if (window.kernel.size() + 2 != input.shape->size()) return "its window does not have the axes of its input";
    if (window.flat && !std::equal(window.kernel.begin(), window.kernel.end(), input.shape->begin() + 2))
      return "it leaves out only some axes of the picture";
    const std::int64_t elements =
        std::accumulate(window.kernel.begin(), window.kernel.end(), std::int64_t{1}, std::multiplies<>());
    if (elements > kMostWeights / channels)
      return "the convolution would have more than " + std::to_string(kMostWeights) + " weights";
    write(node, channels, elements, std::move(window));
    return {};
  }

  Window of_pool(const Node& node) const {
    Window w;
    w.kernel = node.integers("kernel_shape");
    for (const char* key : {"strides", "pads", "dilations"})
      if (const Ints values = node.integers(key); !values.empty()) w.attributes[key] = values;
    if (const std::string automatic = node.text("auto_pad", "NOTSET"); automatic != "NOTSET")
      w.attributes["auto_pad"] = automatic;
    return w;
  }

  // Of all that is averaged at once.
  Window of_mean(const Node& node, const Shape& shape) const {
    Window w;
    const auto rank = static_cast<std::int64_t>(shape.size());
    w.kernel.assign(shape.size() - 2, node.op == "ReduceMean" ? 1 : 0);
    if (node.op == "GlobalAveragePool") {
      std::copy(shape.begin() + 2, shape.end(), w.kernel.begin());
      return w;
    }
    for (std::int64_t axis : node.integers("axes")) {
      axis = axis < 0 ? axis + rank : axis;
      w.kernel[static_cast<std::size_t>(axis - 2)] = shape[static_cast<std::size_t>(axis)];
    }
    w.flat = node.integer("keepdims", 1) == 0;
    return w;
  }

  void write(const Node& node, std::int64_t channels, std::int64_t elements, Window window) {
    const Graph& g = *model_.graph;
    const TensorInfo &input = g.tensor(node.inputs[0]), &output = g.tensor(node.outputs[0]);
    Shape shape = {channels, 1};
    shape.insert(shape.end(), window.kernel.begin(), window.kernel.end());
    const std::vector<double> values(static_cast<std::size_t>(channels * elements), 1.0 / static_cast<double>(elements));
    const std::string weight = edit_.new_initializer(node.name + ".weight", input.type, shape, values);
    window.attributes["kernel_shape"] = window.kernel;
    window.attributes["group"] = channels;
    edit_.builder().remove_node(node.id);
    if (!window.flat) {
      edit_.builder().node(node.name, "Conv", {input.name, weight}, {output.name}, std::move(window.attributes));
      return;
    }
    const std::string picture = unused_name(output.name + ".picture");
    Shape kept = {(*input.shape)[0], channels};
    kept.resize(input.shape->size(), 1);
    edit_.builder().tensor(picture, input.type, kept);
    edit_.builder().node(node.name, "Conv", {input.name, weight}, {picture}, std::move(window.attributes));
    edit_.builder().node(node.name + ".flatten", "Flatten", {picture}, {output.name}, {{"axis", std::int64_t{1}}});
  }

  std::string unused_name(const std::string& wish) const {
    std::string name = wish;
    for (int i = 2; model_.graph->tensor(name) != kNoTensor; ++i) name = wish + "_" + std::to_string(i);
    return name;
  }

  const Model& model_;
  ModelEdit edit_;
  std::size_t found_ = 0;
  std::vector<std::string> left_;
};

class PoolToConv final : public Pass {
 public:
  PluginInfo info() const override {
    return {
        "pool-to-conv", "Average pools as convolutions",
        "Average pools and means over the picture become depthwise convolutions with weights 1 / k, so that they get weight and "
        "input formats like other layers. The float network computes the same."};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json&, JobContext& job) const override {
    Converter converter(*ctx.model);
    QUANVAS_TRY(std::string text, converter.run(job));
    if (converter.changed()) {
      QUANVAS_TRY(ctx.model, converter.finish());
    }
    return text;
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, PoolToConv)

}  // namespace quanvas
