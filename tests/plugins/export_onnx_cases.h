// Networks with quantizers of every kind that ONNX QDQ holds, for the tests of its file, its audit and onnxruntime.
#pragma once

#include <string>
#include <vector>

#include "core/quant/dynamic.h"
#include "tests/plugins/export_net.h"

namespace quanvas::export_net {

// x[N,3,7,5] -> conv [4,3,3,3] -> relu -> flatten -> fc [7,140] -> logits. Rows of an odd number of weights, three input
// channels that no group of two divides.
inline ModelPtr odd_net(int opset = 13) {
  GraphBuilder b;
  b.set_name("odd");
  b.set_opset(opset);
  auto weights = std::make_shared<WeightStore>();
  const auto parameter = [&](const std::string& name, Shape shape, std::uint32_t seed) {
    b.initializer(name, DataType::kFloat, shape);
    weights->set(name, random_floats(shape, seed));
  };
  const auto out = [&](const std::string& name, Shape shape) { b.tensor(name, DataType::kFloat, std::move(shape)); };
  out("x", {-1, 3, 7, 5});
  b.input("x");
  parameter("conv.weight", {4, 3, 3, 3}, 11);
  parameter("conv.bias", {4}, 12);
  parameter("fc.weight", {7, 140}, 13);
  parameter("fc.bias", {7}, 14);
  out("c", {-1, 4, 7, 5});
  out("r", {-1, 4, 7, 5});
  out("f", {-1, 140});
  out("logits", {-1, 7});
  using Ints = std::vector<std::int64_t>;
  b.node("conv", "Conv", {"x", "conv.weight", "conv.bias"}, {"c"}, {{"pads", Ints{1, 1, 1, 1}}, {"kernel_shape", Ints{3, 3}}});
  b.node("relu", "Relu", {"c"}, {"r"});
  b.node("flatten", "Flatten", {"r"}, {"f"}, {{"axis", std::int64_t{1}}});
  b.node("fc", "Gemm", {"f", "fc.weight", "fc.bias"}, {"logits"}, {{"transB", std::int64_t{1}}});
  b.output("logits");
  auto graph = b.build();
  if (!graph) throw std::runtime_error(graph.error().text());
  return std::make_shared<const Model>(Model{*graph, weights, "odd.onnx"});
}

// Weights and inputs (and the last output) of every compute layer; biases where the accumulator gives their scale.
inline QuantizedModel quantize_all(ModelPtr model, const QuantSpec& weight, const QuantSpec& activation, bool outputs = false) {
  const auto check = [](auto result) {
    if (!result) throw std::runtime_error(result.error().text());
    return *result;
  };
  QuantizedModel out;
  out.model = model;
  for (const Layer& layer : find_layers(*model->graph)) {
    if (layer.kind != LayerKind::kCompute) continue;
    for (const Site& site : layer.sites()) {
      const TensorInfo& tensor = model->graph->tensor(site_tensor(layer, site));
      if (site.kind == SiteKind::kWeight) {
        const std::vector<float> values = model->weights->find(tensor.name)->to_floats();
        const int axis = weight.granularity == Granularity::kGroup ? layer.reduction_axis : layer.channel_axis;
        out.quantizers[site] = check(quant::find_params(weight, *tensor.shape, values.data(), axis));
      } else if (site.kind == SiteKind::kInput || (site.kind == SiteKind::kOutput && outputs)) {
        if (activation.source == ScaleSource::kDynamic) {
          out.quantizers[site] = check(quant::dynamic_params(activation, 1));
          continue;
        }
        const auto layout = check(quant::make_layout(activation, *tensor.shape, 1));
        const auto n = static_cast<std::size_t>(layout.parameters());
        std::vector<float> lo(n), hi(n);
        for (std::size_t i = 0; i < n; ++i) {
          hi[i] = 1.7f + 0.11f * static_cast<float>(i % 9);
          lo[i] = activation.is_signed ? -hi[i] : activation.zero_point == ZeroPointType::kInteger ? -1.25f : 0.0f;
        }
        QuantSpec resolved = activation;
        if (resolved.granularity != Granularity::kTensor) resolved.axis = 1;
        out.quantizers[site] = quant::params_from_range(resolved, layout, lo, hi);
      }
    }
    const auto input = out.quantizers.find({layer.node, SiteKind::kInput, 0});
    const auto w = out.quantizers.find({layer.node, SiteKind::kWeight, 0});
    if (layer.bias == kNoTensor || weight.format != "int" || activation.format != "int" ||
        weight.granularity == Granularity::kGroup || weight.zero_point != ZeroPointType::kNone ||
        input->second.scale.size() != 1)
      continue;
    QuantSpec bias = spec(32, true, false, ZeroPointType::kNone, Granularity::kTensor);
    bias.scale_from_accumulator = true;
    out.quantizers[{layer.node, SiteKind::kBias, 0}] = check(quant::bias_params(
        bias, input->second.scale[0], w->second.scale, *model->graph->tensor(layer.bias).shape, layer.bias_axis));
  }
  return out;
}

inline QuantSpec of_format(const char* format, Granularity granularity, int group = 2) {
  QuantSpec s;
  s.format = format;
  s.granularity = granularity;
  s.group_size = group;
  if (s.format == "binary") s.statistic = Statistic::kMean;
  return s;
}
inline QuantSpec minifloat(int exponent, int mantissa, FloatSpecials specials, Granularity granularity,
                           ScaleType scale = ScaleType::kFloat32, int group = 2) {
  QuantSpec s = of_format("float", granularity, group);
  s.exponent_bits = exponent;
  s.mantissa_bits = mantissa;
  s.specials = specials;
  s.scale = scale;
  s.exponent_rounding = ExponentRounding::kFloor;
  return s;
}
inline QuantSpec in_groups(QuantSpec s, int group) {
  s.granularity = Granularity::kGroup;
  s.group_size = group;
  return s;
}
inline QuantSpec dynamic_uint8() {
  QuantSpec s = spec(8, false, false, ZeroPointType::kInteger, Granularity::kTensor);
  s.source = ScaleSource::kDynamic;
  return s;
}

struct QdqCase {
  const char* name;
  QuantSpec weight, activation;
  bool native;
  int opset;           // the lowest that holds it
  bool in_ort = true;  // onnxruntime 1.30 has the kernels on the CPU
};

inline std::vector<QdqCase> qdq_cases() {
  constexpr auto kNone = ZeroPointType::kNone;
  constexpr auto kInteger = ZeroPointType::kInteger;
  constexpr auto kTensor = Granularity::kTensor;
  constexpr auto kChannel = Granularity::kChannel;
  constexpr auto kGroup = Granularity::kGroup;
  const QuantSpec u8 = spec(8, false, false, kInteger, kTensor), s8 = spec(8, true, false, kNone, kTensor);
  const QuantSpec w8 = spec(8, true, true, kNone, kChannel);
  const auto nan = FloatSpecials::kNan, ieee = FloatSpecials::kIeee, fnuz = FloatSpecials::kFnuz, none = FloatSpecials::kNone;
  const auto po2 = ScaleType::kPowerOfTwo;
  const QuantSpec e4m3 = minifloat(4, 3, nan, kTensor), e5m2 = minifloat(5, 2, ieee, kTensor);
  const QuantSpec e4m3fnuz = minifloat(4, 3, fnuz, kTensor), e5m2fnuz = minifloat(5, 2, fnuz, kTensor);
  return {
      {"int8", w8, u8, false, 13},
      {"int8 narrow activations", w8, spec(8, true, true, kNone, kTensor), false, 13},
      {"int8 activations per channel", spec(8, true, true, kNone, kTensor), spec(8, true, true, kNone, kChannel), false, 13},
      {"weights with zero points", spec(8, false, false, kInteger, kChannel), u8, false, 13},
      {"negative zero points", w8, spec(8, true, false, kInteger, kTensor), false, 13},
      {"int2 by Clip", spec(2, true, true, kNone, kChannel), spec(2, true, false, kNone, kTensor), false, 13},
      {"int3, uint5", spec(3, true, true, kNone, kTensor), spec(5, false, false, kInteger, kTensor), false, 13},
      {"int4 by Clip", spec(4, true, false, kNone, kChannel), spec(4, false, false, kInteger, kTensor), false, 13},
      {"int7 narrow", spec(7, true, true, kNone, kTensor), spec(7, true, true, kNone, kTensor), false, 13},
      {"int1", spec(1, true, false, kNone, kTensor), spec(6, false, true, kNone, kTensor), false, 13},
      {"native int4", spec(4, true, false, kNone, kChannel), spec(4, false, false, kInteger, kTensor), true, 21},
      {"native int4 narrow and int4", spec(4, true, true, kNone, kChannel), spec(4, true, false, kNone, kTensor), true, 21},
      {"native uint4 weights in groups", in_groups(spec(4, false, false, kInteger, kGroup), 2), u8, true, 21},
      {"native int3 in int4", spec(3, true, true, kNone, kTensor), u8, true, 21},
      {"native int2", spec(2, true, false, kNone, kChannel), spec(2, true, false, kNone, kTensor), true, 25},
      {"native uint2 in groups", in_groups(spec(2, false, false, kInteger, kGroup), 2), spec(2, false, false, kNone, kTensor),
       true, 25},
      {"int9", spec(9, true, true, kNone, kChannel), spec(9, true, false, kNone, kTensor), false, 21},
      {"int16 narrow", spec(16, true, true, kNone, kTensor), spec(16, true, true, kNone, kTensor), false, 21},
      {"int16", spec(16, true, false, kNone, kTensor), spec(16, true, false, kNone, kTensor), false, 21},
      {"uint12", spec(12, false, false, kInteger, kChannel), spec(12, false, false, kInteger, kTensor), false, 21},
      {"int16 in groups", in_groups(spec(16, true, true, kNone, kGroup), 2), u8, false, 21},
      {"int8 in groups of 2, ragged", in_groups(spec(8, true, true, kNone, kGroup), 2), u8, false, 21},
      {"int8 in groups of 32", in_groups(spec(8, true, true, kNone, kGroup), 32), s8, false, 21},
      {"float8e4m3fn", minifloat(4, 3, nan, kChannel), e4m3, false, 19},
      {"float8e5m2", minifloat(5, 2, ieee, kChannel), e5m2, false, 19},
      {"float8e4m3fnuz", minifloat(4, 3, fnuz, kTensor), e4m3fnuz, false, 19},
      {"float8e5m2fnuz", minifloat(5, 2, fnuz, kTensor), e5m2fnuz, false, 19},
      {"float8 in groups", minifloat(4, 3, nan, kGroup, ScaleType::kFloat32), e4m3, false, 21},
      {"MXFP8, float32 scales", minifloat(4, 3, nan, kGroup, po2, 32), e4m3, false, 21},
      {"MXFP8", minifloat(4, 3, nan, kGroup, po2, 32), e4m3, true, 24, false},
      {"MXFP4", minifloat(2, 1, none, kGroup, po2, 32), u8, true, 24, false},
      {"float4", minifloat(2, 1, none, kChannel), minifloat(2, 1, none, kTensor), false, 23, false},
      {"float4 in groups", minifloat(2, 1, none, kGroup), u8, false, 23, false},
      {"binary", of_format("binary", kChannel), u8, false, 13},
      {"ternary", of_format("ternary", kChannel), u8, false, 13},
      {"ternary in groups", of_format("ternary", kGroup), u8, false, 21},
      {"native binary", of_format("binary", kChannel), u8, true, 25},
      {"native ternary", of_format("ternary", kTensor), u8, true, 25},
      {"dynamic", w8, dynamic_uint8(), false, 13},
  };
}

inline json qdq_json(const QdqCase& c) {
  return {{"native", c.native}};
}

}  // namespace quanvas::export_net
