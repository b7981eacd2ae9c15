#include "core/recipe/pool_sum.h"

#include <algorithm>
#include <set>

#include "core/recipe/plan_edges.h"

namespace quanvas {
namespace {

// The product of these dimensions; 0: one of them is unknown.
std::int64_t product(const std::vector<std::int64_t>& sizes) {
  std::int64_t count = 1;
  for (const std::int64_t n : sizes) {
    if (n < 1 || count > (std::int64_t{1} << 40) / n) return 0;
    count *= n;
  }
  return count;
}

AveragedElements of_windows(const Node& node) {
  const auto kernel = node.integers("kernel_shape"), pads = node.integers("pads");
  const std::string automatic = node.text("auto_pad", "NOTSET");
  const bool padded =
      std::any_of(pads.begin(), pads.end(), [](std::int64_t p) { return p != 0; }) || automatic.starts_with("SAME");
  if (node.integer("ceil_mode", 0) != 0)
    return {0, "with ceil_mode windows at the end may hold fewer elements than the others"};
  if (padded && node.integer("count_include_pad", 0) == 0)
    return {0,
            "windows that reach into the padding hold fewer elements than the others (it would need "
            "count_include_pad 1 or no pads)"};
  if (kernel.empty() || product(kernel) == 0) return {0, "the size of its window is not known"};
  return {product(kernel), {}};
}

}  // namespace

AveragedElements averaged_elements(const Graph& graph, const Layer& layer) {
  const Node* node = graph.find(layer.node);
  const TensorId input = layer.inputs.empty() ? kNoTensor : layer.inputs[0];
  if (!node || input == kNoTensor) return {0, "the layer averages nothing"};
  if (node->op == "AveragePool") return of_windows(*node);
  if (node->op != "GlobalAveragePool" && node->op != "ReduceMean")
    return {0, std::string(node->op) +
                   " is no average: AveragePool, GlobalAveragePool and ReduceMean over the picture are"};
  const auto& shape = graph.tensor(input).shape;
  if (!shape || shape->size() < 3) return {0, "the shape of its input is not known"};
  const auto rank = static_cast<std::int64_t>(shape->size());
  std::set<std::int64_t> axes;
  for (std::int64_t a : node->integers("axes"))
    if (node->op == "ReduceMean") axes.insert(a < 0 ? a + rank : a);
  for (std::int64_t a = 2; a < rank && node->op == "GlobalAveragePool"; ++a) axes.insert(a);
  std::vector<std::int64_t> sizes;
  for (const std::int64_t a : axes) {
    if (a < 2 || a >= rank) return {0, "its axes are not those of the picture"};
    sizes.push_back((*shape)[static_cast<std::size_t>(a)]);
  }
  if (sizes.empty() || product(sizes) == 0) return {0, "the size of the picture that it averages is not known"};
  return {product(sizes), {}};
}

int sum_bits(const QuantSpec& input, std::int64_t elements) {
  int more = 0;
  while ((std::int64_t{1} << more) < elements) ++more;
  return input.bits + more;
}

Site quantized_input(const Graph& graph, const Layer& layer,
                     const std::function<bool(const Site&)>& has_quantizer) {
  if (const Site own{layer.node, SiteKind::kInput, 0}; has_quantizer(own)) return own;
  if (layer.inputs.empty()) return {};
  // What only moves values gives integers of the scale that it was given.
  TensorId tensor = layer.inputs[0];
  for (;;) {
    const Node* producer = graph.find(graph.tensor(tensor).producer);
    if (!producer || producer->outputs.empty()) return {};
    const Site before{producer->id, SiteKind::kOutput, 0};
    if (producer->outputs[0] == tensor && has_quantizer(before)) return before;
    if (!moves_values(*producer) || producer->input(0) == kNoTensor) return {};
    tensor = producer->inputs[0];
  }
}

std::string truncation_problem(const Graph& graph, const Layer& layer, const QuantSpec* input) {
  const AveragedElements averaged = averaged_elements(graph, layer);
  if (averaged.count == 0) return averaged.problem;
  const std::string needed =
      "; it needs an integer format, per tensor, without zero point and with a scale that is known beforehand";
  if (!input) return "its input is float" + needed;
  if (input->format != "int") return "its input is " + input->format + needed;
  if (input->zero_point != ZeroPointType::kNone) return "its input has a zero point" + needed;
  if (input->granularity != Granularity::kTensor) return "its input has more than one scale" + needed;
  if (input->source == ScaleSource::kDynamic) return "its input's scale is found anew from each sample" + needed;
  if (const int bits = sum_bits(*input, averaged.count); bits > kMostSumBits)
    return "the sum of " + std::to_string(averaged.count) + " codes of " + std::to_string(input->bits) +
           " bits has " + std::to_string(bits) + "; float32 keeps " + std::to_string(kMostSumBits) +
           " exactly. It needs fewer bits at the input or a smaller window";
  return {};
}

}  // namespace quanvas
