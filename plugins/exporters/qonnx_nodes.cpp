#include "plugins/exporters/qonnx_nodes.h"

#include <algorithm>
#include <cmath>

namespace quanvas::onnx_file {
namespace {

std::string number(ModelWriter& writer, const std::string& wanted, float value) {
  const std::string name = writer.tensor_name(wanted);
  writer.initializer(name, DataType::kFloat, {}, pack_floats({value}));
  return name;
}

std::string numbers(ModelWriter& writer, const std::string& wanted, const Shape& shape, const std::vector<float>& values) {
  if (values.size() == 1 && shape.empty()) return number(writer, wanted, values[0]);
  const std::string name = writer.tensor_name(wanted);
  writer.initializer(name, DataType::kFloat, shape, pack_floats(values));
  return name;
}

onnx::NodeProto& own(ModelWriter& writer, const QonnxDialect& dialect, const std::string& op, const std::string& name,
                     const std::vector<std::string>& inputs, const std::string& result) {
  writer.set_domain(dialect.domain, dialect.version);
  onnx::NodeProto& node = writer.node(op, name, inputs, {result});
  node.set_domain(dialect.domain);
  return node;
}

void add_float_quant(ModelWriter& writer, const QonnxDialect& dialect, const quant::QuantParams& p, const std::string& name,
                     const std::string& source, const std::string& scale, const std::string& result, bool on_grid) {
  const QuantSpec& s = p.spec;
  const bool fnuz = s.specials == FloatSpecials::kFnuz;
  const int bias = s.exponent_bias.value_or((1 << (s.exponent_bits - 1)) - (fnuz ? 0 : 1));
  const std::vector<std::string> inputs = {source,
                                           scale,
                                           number(writer, result + "_exponent_bits", static_cast<float>(s.exponent_bits)),
                                           number(writer, result + "_mantissa_bits", static_cast<float>(s.mantissa_bits)),
                                           number(writer, result + "_exponent_bias", static_cast<float>(bias)),
                                           number(writer, result + "_largest", static_cast<float>(largest_float(s)))};
  onnx::NodeProto& n = own(writer, dialect, "FloatQuant", name, inputs, result);
  add_attribute(n, "has_inf", std::int64_t{s.specials == FloatSpecials::kIeee});
  add_attribute(n, "has_nan", std::int64_t{s.specials != FloatSpecials::kNone});
  add_attribute(n, "has_subnormal", std::int64_t{1});
  add_attribute(n, "saturation", std::int64_t{s.saturate || on_grid});
  add_attribute(n, "rounding_mode", std::string("ROUND"));
}

}  // namespace

std::string qonnx_rounding(Rounding rounding) {
  switch (rounding) {
    case Rounding::kHalfEven:
      return "ROUND";
    case Rounding::kCeil:
      return "CEIL";
    case Rounding::kFloor:
      return "FLOOR";
    case Rounding::kTowardZero:
      return "DOWN";
    case Rounding::kHalfAway:
      return "HALF_UP";
    default:
      return {};
  }
}

Shape qonnx_broadcast(const quant::QuantParams& params, std::size_t rank, std::size_t count) {
  if (params.spec.granularity != Granularity::kChannel) return {};
  const std::size_t dims = std::max<std::size_t>(rank, 1);
  Shape shape(dims, 1);
  const std::int64_t axis = channel_axis(params, dims);
  if (axis >= 0 && axis < static_cast<std::int64_t>(dims))
    shape[static_cast<std::size_t>(axis)] = static_cast<std::int64_t>(count);
  return shape;
}

void add_qonnx_quantizer(ModelWriter& writer, const QonnxDialect& dialect, const quant::QuantParams& p, std::size_t rank,
                         const std::string& name, const std::string& source, const std::string& result,
                         std::optional<Shape> scale_shape, bool on_grid) {
  const Shape shape = scale_shape ? *scale_shape : qonnx_broadcast(p, rank, p.scale.size());
  const std::string scale = numbers(writer, result + "_scale", shape, p.scale);
  if (p.spec.format == "binary") {
    own(writer, dialect, "BipolarQuant", name, {source, scale}, result);
    return;
  }
  if (p.spec.format == "float") return add_float_quant(writer, dialect, p, name, source, scale, result, on_grid);
  const bool ternary = p.spec.format == "ternary";
  const bool is_zero = std::all_of(p.zero_point.begin(), p.zero_point.end(), [](float z) { return z == 0; });
  const std::string zero =
      is_zero ? number(writer, result + "_zero_point", 0.0f) : numbers(writer, result + "_zero_point", shape, p.zero_point);
  const std::string bits = number(writer, result + "_bits", static_cast<float>(ternary ? 2 : p.spec.bits));
  onnx::NodeProto& n = own(writer, dialect, "Quant", name, {source, scale, zero, bits}, result);
  add_attribute(n, "signed", std::int64_t{ternary || p.spec.is_signed});
  add_attribute(n, "narrow", std::int64_t{ternary || p.spec.narrow});
  add_attribute(n, "rounding_mode", on_grid || ternary ? std::string("ROUND") : qonnx_rounding(p.spec.rounding));
}

void add_qonnx_truncation(ModelWriter& writer, const QonnxDialect& dialect, const quant::QuantParams& p,
                          const std::string& name, const std::string& source, const std::string& result) {
  const std::string in_scale = number(writer, result + "_sum_scale", p.truncated->scale);
  const std::string zero = number(writer, result + "_zero_point", 0.0f);
  const std::string in_bits = number(writer, result + "_sum_bits", static_cast<float>(p.truncated->bits));
  const std::string bits = number(writer, result + "_bits", static_cast<float>(p.spec.bits));
  std::vector<std::string> inputs = {source, in_scale, zero, in_bits, bits};
  const std::string mode = qonnx_rounding(p.spec.rounding);
  if (dialect.version >= 2) {
    inputs.insert(inputs.begin() + 4, number(writer, result + "_scale", p.scale[0]));
    onnx::NodeProto& n = own(writer, dialect, "Trunc", name, inputs, result);
    add_attribute(n, "rounding_mode", mode);
    add_attribute(n, "signed", std::int64_t{p.spec.is_signed});
    add_attribute(n, "narrow", std::int64_t{p.spec.narrow});
    return;
  }
  const std::string kept = writer.tensor_name(result + "_kept_scale");
  add_attribute(own(writer, dialect, "Trunc", name, inputs, kept), "rounding_mode", mode);
  const std::string cut = number(writer, result + "_cut", p.scale[0] / p.truncated->scale);
  writer.node("Mul", name + "_scale", {kept, cut}, {result});
}

std::string quantizer_key(const PlacedQuantizer& q) {
  const quant::QuantParams& p = *q.params;
  QuantSpec plain = p.spec;  // what is computed, not how it was found
  plain.statistic = {};
  plain.source = {};
  std::string key = std::to_string(q.tensor) + "," + std::to_string(p.lo) + "," + std::to_string(p.hi) + "," +
                    to_json_value(plain).dump() + "," + pack_floats(p.scale) + "," + pack_floats(p.zero_point) + "," +
                    pack_floats(p.code_scale) + "," + pack_floats(p.center) + "," + pack_floats(p.rounding);
  if (p.truncated) key += "," + std::to_string(p.truncated->bits) + pack_floats({p.truncated->scale});
  return key;
}

bool is_only_quantizer(const Graph& graph, const Placement& placement, const PlacedQuantizer& placed) {
  if (graph.is_output(placed.tensor)) return false;
  std::size_t readings = 0, mine = 0;
  for (const NodeId id : graph.tensor(placed.tensor).consumers)
    for (const TensorId t : graph.find(id)->inputs) readings += t == placed.tensor;
  const std::string key = quantizer_key(placed);
  for (const PlacedQuantizer& q : placement.quantizers)
    if (q.tensor == placed.tensor && !is_activation(q.site.kind) && quantizer_key(q) == key) mine += q.inputs.size();
  return readings == mine;
}

}  // namespace quanvas::onnx_file
