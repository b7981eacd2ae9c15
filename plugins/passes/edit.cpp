#include "plugins/passes/edit.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "core/exec/pass_context.h"
#include "core/exec/runner.h"

namespace quanvas {

const TensorData* initializer_data(const Model& model, TensorId id) {
  if (id == kNoTensor || !model.graph->tensor(id).is_initializer) return nullptr;
  return model.weights->find(model.graph->tensor(id).name);
}

bool is_graph_output(const Graph& graph, TensorId id) {
  return std::find(graph.outputs().begin(), graph.outputs().end(), id) != graph.outputs().end();
}

bool is_per_channel(const Shape& shape, std::size_t channels, std::size_t behind) {
  const auto c = static_cast<std::int64_t>(channels);
  if (element_count(shape) != c) return false;
  if (c == 1) return true;
  const auto at = static_cast<std::size_t>(std::find(shape.begin(), shape.end(), c) - shape.begin());
  return shape.size() - 1 - at == behind;
}

std::function<std::int64_t(std::int64_t)> channel_map(const TensorData& weight, const Layer& layer, bool transposed) {
  const auto axis = static_cast<std::size_t>(layer.channel_axis);
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < weight.shape.size(); ++i) inner *= weight.shape[i];
  const std::int64_t dim = axis < weight.shape.size() ? weight.shape[axis] : 1;
  if (!transposed) return [inner, dim](std::int64_t i) { return i / inner % dim; };
  // ConvTranspose [in, out / group, ...]: the group is a matter of the input channel.
  const std::int64_t in_per_group = std::max<std::int64_t>(1, weight.shape[0] / std::max(1, layer.group));
  return [inner, dim, in_per_group](std::int64_t i) {
    return i / (inner * dim) / in_per_group * dim + i / inner % dim;
  };
}

TensorData make_data(DataType type, const Shape& shape, const std::vector<double>& values) {
  const at::Tensor wide = at::from_blob(const_cast<double*>(values.data()), shape, at::kDouble);
  if (type == DataType::kDouble) return exec::to_data(wide);
  if (type == DataType::kFloat16) return exec::to_data(wide.to(at::kHalf));
  if (type == DataType::kBfloat16) return exec::to_data(wide.to(at::kBFloat16));
  return exec::to_data(wide.to(at::kFloat));
}

std::string join_some(const std::vector<std::string>& items, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < std::min(most, items.size()); ++i) text += (i ? ", " : "") + items[i];
  if (items.size() > most) text += " and " + std::to_string(items.size() - most) + " more";
  return text;
}

ModelPtr original_model(const PassContext& ctx) {
  const Model& now = *ctx.quantized.model;
  if (!ctx.model || ctx.model->weights == now.weights) return ctx.quantized.model;
  auto weights = std::make_shared<WeightStore>(*now.weights);
  for (const auto& [name, data] : ctx.model->weights->all())
    if (const TensorData* current = now.weights->find(name); current && current->shape == data.shape && current->type == data.type)
      weights->set(name, data);
  // What passes have added were zeros: biases of layers that had none.
  for (const auto& [name, data] : now.weights->all())
    if (!ctx.model->weights->find(name)) weights->set(name, make_data(data.type, data.shape, std::vector<double>(static_cast<std::size_t>(element_count(data.shape)), 0.0)));
  return std::make_shared<const Model>(Model{now.graph, weights, now.source});
}

ModelEdit::ModelEdit(const Model& model) : base_(model), builder_(*model.graph), weights_(*model.weights) {}

std::string ModelEdit::new_initializer(const std::string& wish, DataType type, const Shape& shape,
                                       const std::vector<double>& values) {
  return new_initializer(wish, make_data(type, shape, values));
}

std::string ModelEdit::new_initializer(const std::string& wish, TensorData data) {
  std::string name = wish;
  for (int i = 2; weights_.find(name) || base_.graph->tensor(name) != kNoTensor; ++i)
    name = wish + "_" + std::to_string(i);
  builder_.initializer(name, data.type, data.shape);
  weights_.set(name, std::move(data));
  return name;
}

void ModelEdit::replace_initializer(const Node& node, TensorId id, DataType type, const Shape& shape,
                                    const std::vector<double>& values) {
  const TensorInfo& info = base_.graph->tensor(id);
  if (info.consumers.size() == 1 && !is_graph_output(*base_.graph, id)) {
    TensorData data = make_data(type, shape, values);
    builder_.initializer(info.name, data.type, shape);
    weights_.set(info.name, std::move(data));
    return;
  }
  const std::string name = new_initializer(info.name + "." + node.name, type, shape, values);
  for (std::size_t i = 0; i < node.inputs.size(); ++i)
    if (node.inputs[i] == id) builder_.replace_input_at(node.id, i, name);
}

void ModelEdit::overwrite_initializer(TensorId id, const std::vector<double>& values) {
  const TensorInfo& info = base_.graph->tensor(id);
  const TensorData& data = *base_.weights->find(info.name);
  if (!is_graph_output(*base_.graph, id)) {
    weights_.set(info.name, make_data(data.type, data.shape, values));
    return;
  }
  const std::string name = new_initializer(info.name + ".changed", data.type, data.shape, values);
  for (const NodeId reader : info.consumers) builder_.replace_input(reader, info.name, name);
}

Result<ModelPtr> ModelEdit::finish() {
  QUANVAS_TRY(const GraphPtr graph, builder_.build());
  auto kept = std::make_shared<WeightStore>();
  for (const auto& [name, data] : weights_.all())
    if (graph->tensor(name) != kNoTensor || base_.graph->tensor(name) == kNoTensor) kept->set(name, data);
  return std::make_shared<const Model>(Model{graph, kept, base_.source});
}

}  // namespace quanvas
