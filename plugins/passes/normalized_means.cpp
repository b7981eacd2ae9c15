#include "plugins/passes/normalized_means.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

double density(double x) {
  return std::isfinite(x) ? std::exp(-x * x / 2) / std::sqrt(2 * 3.14159265358979323846) : 0;
}
double distribution(double x) {
  return std::erfc(-x / std::sqrt(2.0)) / 2;
}

std::optional<double> limit(const Model& model, const Node& clip, std::size_t input, const char* attribute,
                            double fallback) {
  if (clip.input(input) != kNoTensor) {
    const TensorData* data = initializer_data(model, clip.input(input));
    if (!data || data->count() != 1) return std::nullopt;
    return static_cast<double>(data->to_floats()[0]);
  }
  return clip.attributes.count(attribute) ? static_cast<double>(clip.real(attribute, 0)) : fallback;
}

// Whether the mean of each channel stays; pooled: every channel has become one value.
bool keeps_means(const Node& node, bool flat) {
  if (node.op == "Identity" || node.op == "Dropout") return true;
  if (node.op == "GlobalAveragePool") return true;
  if (node.op == "AveragePool") {
    const auto pads = node.integers("pads");
    return !flat && node.text("auto_pad", "NOTSET") == "NOTSET" &&
           std::all_of(pads.begin(), pads.end(), [](std::int64_t p) { return p == 0; });
  }
  return false;
}

const TensorData* find_folded(const Model& model, const Node& node, TensorId made) {
  const TensorData *weight = initializer_data(model, node.input(1)), *bias = initializer_data(model, node.input(2));
  if (!weight || !bias) return nullptr;
  const TensorData* found = model.weights->find(folded_normalization(model.graph->tensor(made).name, *weight, *bias));
  return found && found->shape.size() == 2 && found->shape[0] == 2 ? found : nullptr;
}

}  // namespace

std::string folded_normalization(const std::string& tensor, const TensorData& weight, const TensorData& bias) {
  return tensor + ".normalization." + weight.content_hash() + "." + bias.content_hash();
}

double clipped_normal_mean(double mean, double deviation, double low, double high) {
  if (!(deviation > 0)) return std::clamp(mean, low, high);
  const double a = (low - mean) / deviation, b = (high - mean) / deviation;
  const double below = distribution(a), above = distribution(-b);
  double sum = mean * (1 - below - above) + deviation * (density(a) - density(b));
  if (std::isfinite(low)) sum += low * below;
  if (std::isfinite(high)) sum += high * above;
  return sum;
}

NormalizedMeans normalized_means(const Model& model, TensorId tensor) {
  const Graph& graph = *model.graph;
  const auto refuse = [](const std::string& why) { return NormalizedMeans{{}, why}; };
  double low = -kInfinite, high = kInfinite;
  bool clipped = false, flat = false;
  while (true) {
    const Node* node = tensor == kNoTensor ? nullptr : graph.find(graph.tensor(tensor).producer);
    if (!node) return refuse("no batch normalization comes before it");
    if (node->op == "BatchNormalization" && node->domain.empty()) {
      if (flat) return refuse("'" + node->name + "' is flattened without a global pool");
      if (node->integer("training_mode", 0) != 0) return refuse("'" + node->name + "' is in training mode");
      const TensorData *gamma = initializer_data(model, node->input(1)),
                       *beta = initializer_data(model, node->input(2)),
                       *variance = initializer_data(model, node->input(4));
      if (!gamma || !beta || !variance || gamma->count() != beta->count() || gamma->count() != variance->count())
        return refuse("the parameters of '" + node->name + "' are computed");
      const auto g = gamma->to_floats(), b = beta->to_floats(), v = variance->to_floats();
      const double epsilon = static_cast<double>(node->real("epsilon", 1e-5f));
      NormalizedMeans out;
      for (std::size_t c = 0; c < g.size(); ++c) {
        const auto var = static_cast<double>(v[c]);
        const double mean = static_cast<double>(b[c]),
                     deviation = std::fabs(static_cast<double>(g[c])) * std::sqrt(var / (var + epsilon));
        if (!std::isfinite(mean) || !std::isfinite(deviation))
          return refuse("the parameters of '" + node->name + "' are not finite");
        out.means.push_back(clipped_normal_mean(mean, deviation, low, high));
      }
      return out;
    }
    if (const TensorData* folded = find_folded(model, *node, tensor); folded && !flat) {
      const auto values = folded->to_floats();
      const std::size_t channels = values.size() / 2;
      NormalizedMeans out;
      for (std::size_t c = 0; c < channels; ++c)
        out.means.push_back(clipped_normal_mean(static_cast<double>(values[c]), static_cast<double>(values[channels + c]), low, high));
      return out;
    }
    if (node->op == "Flatten" && !clipped && !flat)
      flat = true;
    else if (flat && node->op == "GlobalAveragePool" && !clipped)
      flat = false;
    else if (!flat && !clipped && (node->op == "Relu" || node->op == "Clip")) {
      const auto from = node->op == "Relu" ? std::optional<double>(0.0) : limit(model, *node, 1, "min", -kInfinite);
      const auto to =
          node->op == "Relu" ? std::optional<double>(kInfinite) : limit(model, *node, 2, "max", kInfinite);
      if (!from || !to || !(*from <= *to)) return refuse("the limits of '" + node->name + "' are computed");
      low = *from, high = *to;
      clipped = true;
    } else if (!keeps_means(*node, flat) || (clipped && node->op != "Identity" && node->op != "Dropout")) {
      return refuse("'" + node->name + "' (" + node->op + ") comes between it and a batch normalization");
    }
    tensor = node->input(0);
  }
}

std::vector<double> inside_parts(const Graph& graph, const Node& convolution, const Shape& kernel) {
  const std::size_t axes = kernel.size();
  std::vector<double> out(static_cast<std::size_t>(element_count(kernel)), 1.0);
  const auto& shape = graph.tensor(convolution.input(0)).shape;
  const auto pads = convolution.integers("pads", std::vector<std::int64_t>(2 * axes, 0));
  const auto strides = convolution.integers("strides", std::vector<std::int64_t>(axes, 1));
  const auto dilations = convolution.integers("dilations", std::vector<std::int64_t>(axes, 1));
  const bool known = shape && shape->size() == axes + 2 && pads.size() == 2 * axes && strides.size() == axes &&
                     dilations.size() == axes && convolution.text("auto_pad", "NOTSET") == "NOTSET";
  if (!known) return out;
  std::int64_t inner = 1;
  for (std::size_t a = axes; a-- > 0;) {
    const std::int64_t size = (*shape)[a + 2], reach = dilations[a] * (kernel[a] - 1) + 1, step = strides[a];
    const std::int64_t span = size + pads[a] + pads[a + axes] - reach;
    if (size < 1 || step < 1 || span < 0) return std::vector<double>(out.size(), 1.0);
    const std::int64_t positions = span / step + 1;
    std::vector<double> part;
    for (std::int64_t k = 0; k < kernel[a]; ++k) {
      std::int64_t inside = 0;
      for (std::int64_t o = 0; o < positions; ++o) {
        const std::int64_t at = o * step - pads[a] + k * dilations[a];
        inside += at >= 0 && at < size;
      }
      part.push_back(static_cast<double>(inside) / static_cast<double>(positions));
    }
    for (std::size_t i = 0; i < out.size(); ++i) out[i] *= part[i / static_cast<std::size_t>(inner) % part.size()];
    inner *= kernel[a];
  }
  return out;
}

}  // namespace quanvas
