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

}  // namespace quanvas
