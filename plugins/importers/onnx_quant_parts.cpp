#include "plugins/importers/onnx_quant_parts.h"

#include <algorithm>
#include <cmath>

namespace quanvas::onnx_import {

Failure no_quantizer(std::string why) { return fail(ErrorCode::kUnsupported, std::move(why)); }

QuantSpec stored_spec() {
  QuantSpec spec;
  spec.source = ScaleSource::kStored;
  return spec;
}

Result<Numbers> constant_numbers(const Draft& draft, const std::string& tensor, const char* what) {
  const TensorData* data = draft.constant(tensor);
  if (tensor.empty()) return no_quantizer(std::string("it has no ") + what);
  if (!data) return no_quantizer(std::string("its ") + what + " is not a constant");
  Numbers out{data->to_floats(), data->shape};
  if (out.values.empty() || static_cast<std::int64_t>(out.values.size()) != data->count())
    return no_quantizer(std::string("its ") + what + " has no values");
  return out;
}

Result<double> constant_number(const Draft& draft, const std::string& tensor, const char* what) {
  QUANVAS_TRY(const Numbers v, constant_numbers(draft, tensor, what));
  if (v.values.size() != 1) return no_quantizer(std::string("its ") + what + " is not a single number");
  return static_cast<double>(v.values[0]);
}

Result<Numbers> scales_of(const Draft& draft, const std::string& tensor) {
  QUANVAS_TRY(Numbers scale, constant_numbers(draft, tensor, "scale"));
  for (const float s : scale.values)
    if (!(s > 0) || !std::isfinite(s)) return no_quantizer("its scale is not above 0 and finite everywhere");
  return scale;
}

Status settle_zero_point(Quantizer& q) {
  const auto is = [&](auto f) { return std::all_of(q.zero_point.begin(), q.zero_point.end(), f); };
  if (is([](float z) { return z == 0; })) {
    q.zero_point.clear();
    return {};
  }
  if (q.spec.format != "int") return no_quantizer("its format is no integer, and its zero point is not 0");
  if (!is([](float z) { return std::isfinite(z) && z == std::nearbyint(z) && std::fabs(z) < 8388608.0f; }))
    return no_quantizer("its zero point is no whole number that a float32 adds exactly");
  q.spec.zero_point = ZeroPointType::kInteger;
  q.spec.statistic = Statistic::kMinMax;
  return {};
}

Status take_constant(const Draft& draft, Quantizer& q) {
  const TensorData* data = draft.constant(q.input);
  if (!data) return {};
  std::vector<float> values = data->to_floats();
  if (static_cast<std::int64_t>(values.size()) != data->count()) return no_quantizer("the file lacks data of '" + q.input + "'");
  q.source = q.input;
  q.input.clear();
  q.values = TensorData::of_floats(data->shape, std::move(values));
  return {};
}

// qonnx/custom_op/general/quantavgpool2d.py: the sum of a window has so many bits that the greatest one fits; what is more
// than obits is shifted out.
bool expand_integer_average(Draft& draft, const DraftNode& node,
                            const std::function<std::string(const std::string&)>& fresh, std::vector<DraftNode>& out) {
  const std::int64_t kernel = node.integer("kernel", 1), stride = node.integer("stride", 1), ibits = node.integer("ibits", 1),
                     obits = node.integer("obits", 1);
  const auto layout = node.attributes.find("data_layout");
  const std::string* order = layout == node.attributes.end() ? nullptr : std::get_if<std::string>(&layout->second);
  constexpr std::int64_t kMostKernel = 1024, kMostBits = 32;
  if (node.inputs.size() != 1 || node.outputs.size() != 1 || kernel < 1 || kernel > kMostKernel || stride < 1 || ibits < 1 ||
      ibits > kMostBits || obits < 1 || obits > kMostBits || (order && *order != "NCHW"))
    return false;
  int shift = -static_cast<int>(obits);
  for (std::int64_t most = ((std::int64_t{1} << ibits) - 1) * kernel * kernel; most > 0; most >>= 1) ++shift;
  std::string x = node.inputs[0];
  const auto add = [&](const char* op, std::optional<float> factor, bool is_last, Attributes attributes) {
    DraftNode n;
    n.op = op;
    n.inputs = {x};
    if (factor) {
      const std::string name = fresh(node.outputs[0] + "_factor");
      draft.constants[name] = TensorData::of_floats({}, {*factor});
      draft.facts[name] = {DataType::kFloat, Shape{}};
      n.inputs.push_back(name);
    }
    n.attributes = std::move(attributes);
    x = is_last ? node.outputs[0] : fresh(node.outputs[0] + "_" + op);
    n.outputs = {x};
    if (n.op == "AveragePool") n.name = node.name;
    out.push_back(std::move(n));
  };
  using Ints = std::vector<std::int64_t>;
  add("AveragePool", {}, false, {{"kernel_shape", Ints{kernel, kernel}}, {"strides", Ints{stride, stride}}});
  add("Mul", static_cast<float>(kernel * kernel), false, {});
  add("Round", {}, shift <= 0, {});  // the whole number that the division has hidden
  if (shift <= 0) return true;
  add("Mul", std::ldexp(1.0f, -shift), false, {});
  add("Floor", {}, true, {});
  return true;
}

}  // namespace quanvas::onnx_import
