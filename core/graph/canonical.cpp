// One form for what files write in many: the driver, and biases.
#include "core/graph/canonical.h"

#include "core/graph/canonical_parts.h"

namespace quanvas {
namespace canonical_form {

bool is(const Node* node, const char* op) {
  return node && node->op == op && node->domain.empty() && node->opaque_reason.empty();
}

const Node* Rewrite::producer(TensorId t) const {
  const Node* node = t == kNoTensor ? nullptr : graph.find(graph.tensor(t).producer);
  return node && !gone.count(node->id) ? node : nullptr;
}

const Node* Rewrite::only_reader(TensorId t) const {
  if (t == kNoTensor || graph.is_output(t) || graph.tensor(t).consumers.size() != 1) return nullptr;
  const Node* node = graph.find(graph.tensor(t).consumers[0]);
  return node && !gone.count(node->id) && std::count(node->inputs.begin(), node->inputs.end(), t) == 1 ? node : nullptr;
}

const TensorData* Rewrite::constant(TensorId t) const {
  return t != kNoTensor && graph.tensor(t).is_initializer ? weights.find(name(t)) : nullptr;
}

std::optional<double> Rewrite::number(TensorId t) const {
  const TensorData* data = constant(t);
  // Of a higher rank it could widen what it meets.
  if (!data || data->count() != 1 || data->shape.size() > 1) return std::nullopt;
  const std::vector<float> values = data->to_floats();
  return values.size() == 1 ? std::optional<double>(values[0]) : std::nullopt;
}

std::string Rewrite::fresh(const std::string& wanted) {
  std::string out = wanted;
  for (int i = 2; !names.insert(out).second; ++i) out = wanted + "_" + std::to_string(i);
  return out;
}

void Rewrite::remove(NodeId id) {
  builder.remove_node(id);
  gone.insert(id);
  changed = true;
}

namespace {

// [.., 1, n] of a tensor of `rank` dimensions or fewer.
bool is_row(const Shape& shape, std::int64_t n, std::size_t rank) {
  return !shape.empty() && shape.size() <= rank && shape.back() == n && element_count(shape) == n;
}

}  // namespace

void join_biases(Rewrite& r) {
  for (const Node& node : r.graph.nodes()) {
    if (!is(&node, "MatMul") || node.inputs.size() != 2 || node.outputs.size() != 1 || r.kept.outputs.count(node.name)) continue;
    const TensorData* weight = r.constant(node.inputs[1]);
    if (!weight || weight->shape.size() != 2 || r.constant(node.inputs[0])) continue;
    const Node* add = r.only_reader(node.outputs[0]);
    if (!is(add, "Add") || add->inputs.size() != 2 || add->outputs.size() != 1 || r.kept.nodes.count(add->name)) continue;
    const TensorId bias = add->inputs[add->inputs[0] == node.outputs[0] ? 1 : 0];
    const TensorData* values = r.constant(bias);
    const auto& product = r.graph.tensor(node.outputs[0]).shape;
    if (!values || values->type != weight->type || !is_row(values->shape, weight->shape[1], product ? product->size() : 1)) continue;
    std::string name = r.name(bias);
    if (values->shape.size() > 1) {
      TensorData flat = *values;
      flat.shape = {weight->shape[1]};
      name = r.fresh(name + "_flat");
      r.builder.initializer(name, flat.type, flat.shape);
      r.weights.set(name, std::move(flat));
    }
    r.remove(add->id);
    r.builder.replace_input_at(node.id, 2, name);
    r.builder.replace_output(node.id, r.name(node.outputs[0]), r.name(add->outputs[0]));
  }
}

}  // namespace canonical_form

Result<Model> canonical(Model model, const Kept& kept) {
  using namespace canonical_form;
  const GraphPtr graph = model.graph;
  Rewrite r{*graph, kept, GraphBuilder(*graph), *model.weights, {}, {}, false};
  for (const TensorInfo& t : graph->tensors()) r.names.insert(t.name);
  join_biases(r);
  join_normalizations(r);
  join_gelus(r);
  open_recurrent(r);
  open_attention(r);
  if (!r.changed) return model;
  QUANVAS_TRY(model.graph, r.builder.build());
  // Constants that no node reads any more.
  for (const TensorInfo& t : graph->tensors())
    if (t.is_initializer && model.graph->tensor(t.name) == kNoTensor) r.weights.erase(t.name);
  model.weights = std::make_shared<const WeightStore>(std::move(r.weights));
  return model;
}

}  // namespace quanvas
