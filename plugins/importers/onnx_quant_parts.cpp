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

}  // namespace quanvas::onnx_import
