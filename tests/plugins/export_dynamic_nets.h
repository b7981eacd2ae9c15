// Networks with layers whose input finds its scale at run time, for the tests of QOperator files.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/quant/dynamic.h"
#include "tests/plugins/export_code_nets.h"

namespace quanvas::export_net {

inline QuantSpec found_at_run_time() {
  QuantSpec s = spec(8, false, false, ZeroPointType::kInteger, Granularity::kTensor);
  s.source = ScaleSource::kDynamic;
  return s;
}

// The input of these layers at run time, their bias float.
inline void set_at_run_time(QuantizedModel& model, const std::set<std::string>& layers, const QuantSpec& spec = found_at_run_time()) {
  for (const std::string& name : layers) {
    const NodeId id = model.model->graph->find(name)->id;
    model.quantizers[{id, SiteKind::kInput, 0}] = *quant::dynamic_params(spec, 1);
    model.quantizers.erase({id, SiteKind::kBias, 0});
  }
}

// Weights and inputs of all layers that have weights, nothing else.
inline QuantizedModel quantize_at_run_time(ModelPtr model, const QuantSpec& weight) {
  QuantizedModel out;
  out.model = model;
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.kind != LayerKind::kCompute || layer.weight == kNoTensor) continue;
    const TensorInfo& w = model->graph->tensor(layer.weight);
    const std::vector<float> values = model->weights->find(w.name)->to_floats();
    out.quantizers[{layer.node, SiteKind::kWeight, 0}] =
        *quant::find_params(weight, *w.shape, values.data(), layer.channel_axis);
    set_at_run_time(out, {model->graph->find(layer.node)->name});
  }
  return out;
}

struct RunTimeCase {
  const char* name;
  QuantizedModel model;
};

inline std::vector<RunTimeCase> run_time_cases() {
  constexpr auto kNone = ZeroPointType::kNone;
  constexpr auto kInteger = ZeroPointType::kInteger;
  constexpr auto kTensor = Granularity::kTensor;
  constexpr auto kChannel = Granularity::kChannel;
  const QuantSpec w8 = spec(8, true, true, kNone, kChannel), u8 = spec(8, false, false, kInteger, kTensor);
  std::vector<RunTimeCase> out = {
      {"pictures, int8 by channel", quantize_at_run_time(picture_net(), w8)},
      {"pictures, int8", quantize_at_run_time(picture_net(), spec(8, true, false, kNone, kTensor))},
      {"pictures, int4 by channel", quantize_at_run_time(picture_net(), spec(4, true, true, kNone, kChannel))},
      {"pictures, uint8 weights with a zero point", quantize_at_run_time(picture_net(), u8)},
      {"curves, int8 by channel", quantize_at_run_time(curve_net(), w8)},
      {"tokens, int8 by channel", quantize_at_run_time(token_net(), w8)},
      {"tokens, weights with zero points by channel", quantize_at_run_time(token_net(), spec(8, false, false, kInteger, kChannel))},
      {"pictures, two layers among codes", quantize_codes_of(picture_net(), {w8, u8})},
      {"pictures, two layers with output quantizers", quantize_codes_of(picture_net(), {w8, u8})}};
  set_at_run_time(out[7].model, {"conv1", "fc1"});
  set_at_run_time(out[8].model, {"depthwise", "fc2"});
  return out;
}

}  // namespace quanvas::export_net
