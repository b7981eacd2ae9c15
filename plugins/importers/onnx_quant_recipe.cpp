// Quantizers of a file as rules of a recipe; their numbers beside the weights.
#include <filesystem>

#include "plugins/importers/onnx_quant.h"

namespace quanvas::onnx_import {
namespace {

// What differs from the defaults.
json fields_of(const QuantSpec& spec) {
  static const json plain = to_json_value(QuantSpec{});
  const json all = to_json_value(spec);
  json out = json::object();
  for (const auto& [key, value] : all.items())
    if (!plain.contains(key) || plain[key] != value) out[key] = value;
  return out;
}

const Node* layer_node(const Graph& graph, const std::string& output) {
  const TensorId t = graph.tensor(output);
  return t == kNoTensor ? nullptr : graph.find(graph.tensor(t).producer);
}

// One rule for all layers that get the same at the same kind of site.
Rule& rule_for(Recipe& recipe, SiteKind kind, int operand, const json& fields) {
  for (Rule& rule : recipe.rules)
    if (rule.select.sites[0] == kind && rule.select.operand == operand && rule.override_fields == fields) return rule;
  Rule rule;
  rule.select.sites = {kind};
  rule.select.operand = operand;
  rule.override_fields = fields;
  rule.note = "From the model file";
  recipe.rules.push_back(std::move(rule));
  return recipe.rules.back();
}

// Of weights and biases: a pass that changes them makes the file's scale a wrong one.
std::string values_of(const Layer& layer, const Site& site, const Graph& graph, const WeightStore& weights) {
  const TensorId t = site_tensor(layer, site);
  const TensorData* data = t != kNoTensor && graph.tensor(t).is_initializer ? weights.find(graph.tensor(t).name) : nullptr;
  return data ? data->content_hash() : std::string();
}

}  // namespace

Recipe recipe_of(const Lifted& lifted, const Graph& graph, WeightStore& weights, const std::string& path) {
  Recipe recipe;
  recipe.name = std::filesystem::path(path).stem().string() + ", as in the file";
  const std::vector<Layer> layers = find_layers(graph);
  std::map<NodeId, const Layer*> by_node;
  for (const Layer& layer : layers) by_node[layer.node] = &layer;
  for (const Lifted::Item& item : lifted.items) {
    const Node* node = layer_node(graph, item.output);
    const auto layer = node ? by_node.find(node->id) : by_node.end();
    if (layer == by_node.end()) continue;
    const Site site{node->id, item.kind, item.operand};
    const int operand = item.kind == SiteKind::kInput && layer->second->inputs.size() > 1 ? item.operand : -1;
    rule_for(recipe, item.kind, operand, fields_of(item.stored.spec)).select.names.push_back(quote_pattern(node->name));
    if (item.stored.spec.source != ScaleSource::kStored) continue;
    quant::Stored stored = item.stored;
    stored.values = values_of(*layer->second, site, graph, weights);
    quant::store(weights, quant::stored_key(node->name, site), stored);
  }
  return recipe;
}

}  // namespace quanvas::onnx_import
