#include "plugins/exporters/finn_layout.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "plugins/exporters/qonnx_nodes.h"

namespace quanvas::onnx_file {
namespace {

bool only_selects(const Node& node) {
  static const std::set<std::string> ops = {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"};
  return node.domain.empty() && ops.count(node.op) > 0 && node.outputs.size() == 1;
}

// The end of a Clip that begins at 0; none: it is no such.
std::optional<float> clip_end(const QuantizedModel& model, const Node& node) {
  const Graph& graph = *model.model->graph;
  const auto limit = [&](std::size_t i, const char* key, float fallback) -> std::optional<float> {
    if (node.attributes.count(key)) return node.real(key, fallback);
    const TensorId t = node.input(i);
    if (t == kNoTensor) return fallback;
    const TensorData* data = graph.tensor(t).is_initializer ? model.model->weights->find(graph.tensor(t).name) : nullptr;
    const std::vector<float> values = data ? data->to_floats() : std::vector<float>();
    return values.size() == 1 ? std::optional(values[0]) : std::nullopt;
  };
  constexpr float kFar = std::numeric_limits<float>::max();
  const auto lo = limit(1, "min", -kFar), hi = limit(2, "max", kFar);
  return lo && hi && *lo == 0 && *hi > 0 ? hi : std::nullopt;
}

}  // namespace

FinnLayout::FinnLayout(const QuantizedModel& model, const Placement& placement)
    : model_(model), graph_(*model.model->graph), placement_(placement) {
  for (const PlacedQuantizer& q : placement.quantizers)
    if (is_activation(q.site.kind)) places_.push_back(find(q));
  for (const FinnPlace& p : places_)
    if (p.relu != kNoNode) relus_.insert(p.relu);
}

const FinnPlace* FinnLayout::place_of(const PlacedQuantizer& q) const {
  for (const FinnPlace& p : places_)
    if (p.quantizer == &q) return &p;
  return nullptr;
}

const FinnPlace* FinnLayout::on(TensorId tensor) const {
  for (const FinnPlace& p : places_)
    if (p.for_all && p.at == tensor) return &p;
  return nullptr;
}

// Every reading of the tensor is one of this quantizer's sites.
bool FinnLayout::all_read_it(TensorId tensor, const std::string& key) const {
  if (graph_.is_output(tensor)) return false;
  std::size_t readings = 0, mine = 0;
  for (const NodeId id : graph_.tensor(tensor).consumers)
    for (const TensorId t : graph_.find(id)->inputs) readings += t == tensor;
  for (const PlacedQuantizer& q : placement_.quantizers)
    if (q.tensor == tensor && q.site.kind == SiteKind::kInput && quantizer_key(q) == key) mine += q.inputs.size();
  return readings == mine;
}

// Relu, or a Clip whose end the highest code reaches: what lies beyond it becomes that code either way.
bool FinnLayout::is_relu_for(const Node& node, const quant::QuantParams& p) const {
  if (!node.domain.empty()) return false;
  if (node.op == "Relu") return true;
  if (node.op != "Clip" || p.spec.is_signed || p.spec.format != "int" || p.truncated) return false;
  const auto end = clip_end(model_, node);
  if (!end) return false;
  for (const float s : p.scale) {
    quant::QuantParams alone = p;
    alone.spec.granularity = alone.layout.granularity = Granularity::kTensor;
    alone.scale = {s};
    alone.layout = {};
    std::int32_t code = 0;
    quant::quantize_codes(alone, alone.layout, &*end, &code);
    if (code != p.hi) return false;
  }
  return true;
}

FinnPlace FinnLayout::find(const PlacedQuantizer& q) {
  FinnPlace place{&q, q.tensor, kNoNode, q.site.kind == SiteKind::kOutput};
  const std::string key = quantizer_key(q);
  const auto producer = [&](TensorId t) { return graph_.find(graph_.tensor(t).producer); };
  const auto has_own = [&](TensorId t) {  // quantized where it is made
    return std::any_of(placement_.quantizers.begin(), placement_.quantizers.end(), [&](const PlacedQuantizer& other) {
      return other.tensor == t && other.site.kind == SiteKind::kOutput;
    });
  };
  if (place.for_all || !all_read_it(q.tensor, key) || has_own(q.tensor)) {
    const Node* maker = producer(q.tensor);
    // A Clip that others read as it is stays one.
    if (maker && is_relu_for(*maker, *q.params) && (place.for_all || (maker->op == "Relu" && !has_own(q.tensor))))
      place.relu = maker->id;
    return place;
  }
  place.for_all = true;
  TensorId at = q.tensor;
  std::set<TensorId> passed;
  const bool moves = !q.params->spec.is_signed && q.params->spec.granularity == Granularity::kTensor;
  for (const Node* maker = producer(at); maker; maker = producer(at)) {
    if (is_relu_for(*maker, *q.params)) {
      place.at = at;
      place.relu = maker->id;
      behind_.insert(passed.begin(), passed.end());
      return place;
    }
    const TensorId before = maker->input(0);
    if (!moves || !only_selects(*maker) || before == kNoTensor || graph_.is_output(before) || has_own(before) ||
        graph_.tensor(before).consumers.size() != 1)
      break;
    passed.insert(at);
    at = before;
  }
  return place;
}

}  // namespace quanvas::onnx_file
