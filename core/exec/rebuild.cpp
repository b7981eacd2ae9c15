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

int weight_axis(const Layer& layer, const QuantSpec& spec) {
  return spec.granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis;
}

Status rebuild_weight(const Model& model, const Layer& layer, QuantizerMap& quantizers) {
  const auto it = quantizers.find({layer.node, SiteKind::kWeight, 0});
  if (it == quantizers.end() || layer.weight == kNoTensor) return {};
  const QuantSpec spec = it->second.spec;
  QUANVAS_TRY(it->second, from_initializer(model, layer.weight, spec, weight_axis(layer, spec)));
  return {};
}

Status rebuild_bias(const Model& model, const Layer& layer, QuantizerMap& quantizers) {
  const auto it = quantizers.find({layer.node, SiteKind::kBias, 0});
  if (it == quantizers.end() || layer.bias == kNoTensor) return {};
  const QuantSpec spec = it->second.spec;
  if (!spec.scale_from_accumulator) {
    QUANVAS_TRY(it->second, from_initializer(model, layer.bias, spec, 0));
    return {};
  }
  const auto input = quantizers.find({layer.node, SiteKind::kInput, 0});
  const auto weight = quantizers.find({layer.node, SiteKind::kWeight, 0});
  const bool exact = input != quantizers.end() && weight != quantizers.end() && input->second.scale.size() == 1 &&
                     weight->second.spec.granularity != Granularity::kGroup;
  if (!exact) {
    quantizers.erase(it);
    return {};
  }
  const TensorData* data = model.weights->find(model.graph->tensor(layer.bias).name);
  const std::int64_t channels =
      data ? data->count() : element_count(model.graph->tensor(layer.bias).shape.value_or(Shape{}));
  it->second = quant::bias_params(spec, input->second.scale[0], weight->second.scale, channels);
  return {};
}

}  // namespace quanvas::exec
