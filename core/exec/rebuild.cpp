#include "core/exec/rebuild.h"

#include "core/quant/params.h"

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

}  // namespace

int site_axis(const Layer& layer, const QuantSpec& spec, SiteKind kind) {
  if (kind == SiteKind::kBias) return layer.bias_axis;
  if (kind != SiteKind::kWeight) return 1;
  return spec.granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis;
}

Result<quant::QuantParams> accumulator_bias(const Model& model, const Layer& layer, const QuantSpec& spec,
                                            const QuantizerMap& quantizers) {
  const auto find = [&](SiteKind kind) {
    const auto it = quantizers.find({layer.node, kind, 0});
    return it == quantizers.end() ? nullptr : &it->second;
  };
  const quant::QuantParams *input = find(SiteKind::kInput), *weight = find(SiteKind::kWeight);
  const std::string problem = accumulator_problem(input ? &input->spec : nullptr, weight ? &weight->spec : nullptr);
  if (!problem.empty())
    return fail(ErrorCode::kUnsupported, "Its scale would be input scale × weight scale, and " + problem + ".",
                "Give the layer's input and weight a format, or the bias a scale of its own.");
  const std::string& name = model.graph->tensor(layer.bias).name;
  const TensorData* data = model.weights->find(name);
  if (!data) return fail(ErrorCode::kCorrupt, "The model holds no data for '" + name + "'.");
  return quant::bias_params(spec, input->scale.at(0), weight->scale, data->shape, layer.bias_axis);
}

Status rebuild_weight(const Model& model, const Layer& layer, QuantizerMap& quantizers) {
  const auto it = quantizers.find({layer.node, SiteKind::kWeight, 0});
  if (it == quantizers.end() || layer.weight == kNoTensor) return {};
  const QuantSpec spec = it->second.spec;
  QUANVAS_TRY(it->second, from_initializer(model, layer.weight, spec, site_axis(layer, spec, SiteKind::kWeight)));
  return {};
}

Status rebuild_bias(const Model& model, const Layer& layer, QuantizerMap& quantizers) {
  const auto it = quantizers.find({layer.node, SiteKind::kBias, 0});
  if (it == quantizers.end() || layer.bias == kNoTensor) return {};
  const QuantSpec spec = it->second.spec;
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
