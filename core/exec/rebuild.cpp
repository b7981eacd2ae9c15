#include "core/exec/rebuild.h"

#include "core/plugin/placement.h"
#include "core/quant/params.h"
#include "core/quant/shared.h"
#include "core/quant/truncate.h"
#include "core/recipe/pool_sum.h"

namespace quanvas::exec {
namespace {

Result<quant::QuantParams> from_initializer(const Model& model, TensorId id, const QuantSpec& spec, int axis) {
  const std::string& name = model.graph->tensor(id).name;
  const TensorData* data = model.weights->find(name);
  if (!data) return fail(ErrorCode::kCorrupt, "The model holds no data for '" + name + "'.");
  const std::vector<float> values = data->to_floats();
  auto params = quant::find_params(spec, data->shape, values.data(), axis);
  if (!params) params.error().context = name;
  return params;
}

// Weights with one quantizer: found on all of them, each once.
Status rebuild_shared(const Model& model, const std::string& share, QuantizerMap& quantizers) {
  const std::vector<Layer> layers = find_layers(*model.graph);
  std::map<TensorId, std::vector<float>> weights;
  std::vector<quant::QuantParams*> users;
  for (auto& [site, params] : quantizers) {
    const Layer* layer = site.kind == SiteKind::kWeight && params.share == share ? find_layer(layers, site.node) : nullptr;
    const TensorId id = layer ? site_tensor(*layer, site) : kNoTensor;
    if (id == kNoTensor) continue;
    const TensorData* data = model.weights->find(model.graph->tensor(id).name);
    if (!data) return fail(ErrorCode::kCorrupt, "The model holds no data for '" + model.graph->tensor(id).name + "'.");
    users.push_back(&params);
    weights.try_emplace(id, data->to_floats());
  }
  std::vector<quant::Values> values;
  for (const auto& [id, floats] : weights) values.emplace_back(floats.data(), static_cast<std::int64_t>(floats.size()));
  if (users.empty()) return {};
  QUANVAS_TRY(const quant::QuantParams found, quant::find_shared_params(users[0]->spec, values));
  for (quant::QuantParams* user : users) {
    user->scale = found.scale;
    user->zero_point = found.zero_point;
  }
  return {};
}

// The integers that the layer's output consists of.
Result<quant::TruncationInput> integers_of(const Graph& graph, const Layer& layer, const QuantizerMap& quantizers) {
  const Site from = quantized_input(graph, layer, [&](const Site& s) { return quantizers.count(s) > 0; });
  const quant::QuantParams* input = from.node == kNoNode ? nullptr : &quantizers.at(from);
  const std::string problem = truncation_problem(graph, layer, input ? &input->spec : nullptr);
  if (!problem.empty()) return fail(ErrorCode::kUnsupported, "It would be truncated, and " + problem + ".");
  const std::int64_t elements = averaged_elements(graph, layer).count;
  return quant::TruncationInput{input->scale.at(0) / static_cast<float>(elements), sum_bits(input->spec, elements)};
}

}  // namespace

int site_axis(const Layer& layer, const QuantSpec& spec, SiteKind kind) {
  if (kind == SiteKind::kBias) return layer.bias_axis;
  if (kind != SiteKind::kWeight) return 1;
  return spec.granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis;
}

int site_axis(const Layer& layer, const Node& node, const QuantSpec& spec, SiteKind kind) {
  if (!is_activation(kind) || spec.granularity != Granularity::kGroup) return site_axis(layer, spec, kind);
  return own_axis(layer, node, spec, kind).value_or(1);
}

Result<quant::QuantParams> accumulator_bias(const Model& model, const Layer& layer, const QuantSpec& spec,
                                            const QuantizerMap& quantizers) {
  const auto find = [&](const Site& site) {
    const auto it = quantizers.find(site);
    return it == quantizers.end() ? nullptr : &it->second;
  };
  const Site from = quantized_input(*model.graph, layer, [&](const Site& s) { return quantizers.count(s) > 0; });
  const quant::QuantParams *input = find(from), *weight = find({layer.node, SiteKind::kWeight, 0});
  const std::string problem = layer.weights() > 1 ? kSeveralProducts
                                                  : accumulator_problem(input ? &input->spec : nullptr, weight ? &weight->spec : nullptr);
  if (!problem.empty())
    return fail(ErrorCode::kUnsupported, "Its scale would be input scale × weight scale, and " + problem + ".",
                "Give the layer's input and weight a format, or the bias a scale of its own.");
  const std::string& name = model.graph->tensor(layer.bias).name;
  const TensorData* data = model.weights->find(name);
  if (!data) return fail(ErrorCode::kCorrupt, "The model holds no data for '" + name + "'.");
  return quant::bias_params(spec, input->scale.at(0), weight->scale, data->shape, layer.bias_axis);
}

Result<quant::QuantParams> truncation(const Graph& graph, const Layer& layer, const QuantSpec& spec,
                                      float threshold, const QuantizerMap& quantizers) {
  QUANVAS_TRY(const quant::TruncationInput integers, integers_of(graph, layer, quantizers));
  return quant::truncation_params(spec, graph.tensor(layer.output).shape.value_or(Shape{}), integers, threshold);
}

Status rebuild_truncations(const Graph& graph, const std::vector<Layer>& layers, QuantizerMap& quantizers) {
  for (const Layer& layer : layers) {
    const auto it = quantizers.find({layer.node, SiteKind::kOutput, 0});
    if (it == quantizers.end() || !it->second.truncated) continue;
    const auto integers = integers_of(graph, layer, quantizers);
    if (integers)
      QUANVAS_CHECK(quant::retarget(it->second, *integers));
    else if (integers.error().code == ErrorCode::kUnsupported)
      quantizers.erase(it);
    else
      return Failure(integers.error());
  }
  return {};
}

Status rebuild_weight(const Model& model, const Layer& layer, QuantizerMap& quantizers) {
  for (const Site& site : layer.sites()) {
    const auto it = site.kind == SiteKind::kWeight ? quantizers.find(site) : quantizers.end();
    if (it == quantizers.end()) continue;
    const QuantSpec spec = it->second.spec;
    if (spec.source == ScaleSource::kStored) continue;  // what the model file says holds whatever the values are
    if (!it->second.share.empty()) {
      QUANVAS_CHECK(rebuild_shared(model, it->second.share, quantizers));
      continue;
    }
    QUANVAS_TRY(it->second, from_initializer(model, site_tensor(layer, site), spec, site_axis(layer, spec, SiteKind::kWeight)));
  }
  return {};
}

Status rebuild_bias(const Model& model, const Layer& layer, QuantizerMap& quantizers) {
  const auto it = quantizers.find({layer.node, SiteKind::kBias, 0});
  if (it == quantizers.end() || layer.bias == kNoTensor) return {};
  const QuantSpec spec = it->second.spec;
  if (spec.source == ScaleSource::kStored) return {};
  if (!spec.scale_from_accumulator) {
    QUANVAS_TRY(it->second, from_initializer(model, layer.bias, spec, site_axis(layer, spec, SiteKind::kBias)));
    return {};
  }
  auto params = accumulator_bias(model, layer, spec, quantizers);
  if (params)
    it->second = std::move(*params);
  else if (params.error().code == ErrorCode::kUnsupported)
    quantizers.erase(it);
  else
    return Failure(params.error());
  return {};
}

}  // namespace quanvas::exec
