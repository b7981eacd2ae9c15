#include "widgets/models/shown_spec.h"

namespace quanvas {
namespace {

// The axis that groups divide (docs/quantizers.md): of weights the reduction's, of pictures the channels', else the
// last.
int group_axis(const Graph& graph, const Layer& layer, const Site& site, const QuantSpec& spec) {
  if (spec.axis) return *spec.axis;
  if (site.kind == SiteKind::kWeight) return layer.reduction_axis;
  const Node* node = graph.find(layer.node);
  const bool picture = layer.kind == LayerKind::kPool ||
                       (node && (node->op.starts_with("Conv") || node->op == "BatchNormalization"));
  return picture ? 1 : -1;
}

}  // namespace

int shorter_group(const Graph& graph, const Layer& layer, const Site& site, const QuantSpec& spec) {
  const TensorId tensor = site_tensor(layer, site);
  if (spec.granularity != Granularity::kGroup || tensor == kNoTensor) return 0;
  const auto& shape = graph.tensor(tensor).shape;
  if (!shape) return 0;
  const int given = group_axis(graph, layer, site, spec), rank = static_cast<int>(shape->size());
  const int axis = given < 0 ? given + rank : given;
  if (axis < 0 || axis >= rank) return 0;
  const std::int64_t length = (*shape)[static_cast<std::size_t>(axis)];
  return length > 0 && length < spec.group_size ? static_cast<int>(length) : 0;
}

QuantSpec shown_spec(const Graph& graph, const Layer& layer, const Site& site, QuantSpec spec) {
  if (const int group = shorter_group(graph, layer, site, spec)) spec.group_size = group;
  return spec;
}

}  // namespace quanvas
