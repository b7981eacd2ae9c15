// MultiThreshold (FINN): y = scale * (how many thresholds x reaches) + bias. With thresholds at the steps of a quantizer it
// is that quantizer, which is proven at both sides of each threshold.
#include <algorithm>
#include <cmath>
#include <limits>

#include "plugins/importers/onnx_quant_parts.h"

namespace quanvas::onnx_import {
namespace {

float real_of(const DraftNode& n, const char* key, float fallback) {
  const auto it = n.attributes.find(key);
  return it != n.attributes.end() && std::holds_alternative<float>(it->second) ? std::get<float>(it->second) : fallback;
}

// The thresholds of all channels, which must be the same.
Result<std::vector<float>> common_thresholds(const Draft& draft, const DraftNode& n) {
  const TensorData* data = draft.constant(n.input(1));
  if (!data) return no_quantizer("its thresholds are not constants");
  const std::vector<float> all = data->to_floats();
  if (data->shape.size() != 2 || data->shape[0] < 1 || data->shape[1] < 1 || static_cast<std::int64_t>(all.size()) != data->count())
    return no_quantizer("its thresholds are " + shape_text(data->shape) + "; they must be [channels, steps]");
  if (!std::all_of(all.begin(), all.end(), [](float t) { return std::isfinite(t); }))
    return no_quantizer("its thresholds are not finite everywhere");
  const auto steps = static_cast<std::ptrdiff_t>(data->shape[1]);
  const std::vector<float> first(all.begin(), all.begin() + steps);
  for (auto row = all.begin(); row != all.end(); row += steps)
    if (!std::equal(first.begin(), first.end(), row)) return no_quantizer("its channels have different thresholds");
  if (!std::is_sorted(first.begin(), first.end())) return no_quantizer("its thresholds do not ascend");
  return first;
}

// What becomes of a count: nodes behind it that add or multiply one number are part of it.
struct Levels {
  std::vector<float> values;
  std::vector<std::size_t> nodes;
  std::string output;
};

Levels levels_of(const Draft& draft, std::size_t index, std::size_t steps) {
  const DraftNode& n = draft.nodes[index];
  Levels out{{}, {index}, n.outputs[0]};
  const double scale = static_cast<double>(real_of(n, "out_scale", 1)), bias = static_cast<double>(real_of(n, "out_bias", 0));
  for (std::size_t k = 0; k <= steps; ++k) out.values.push_back(static_cast<float>(static_cast<double>(k) * scale + bias));
  for (bool again = true; again && !draft.is_output(out.output);) {
    again = false;
    std::optional<std::size_t> reader;
    for (std::size_t i = 0; i < draft.nodes.size(); ++i) {
      const DraftNode& r = draft.nodes[i];
      if (r.removed || std::find(r.inputs.begin(), r.inputs.end(), out.output) == r.inputs.end()) continue;
      if (reader) return out;
      reader = i;
    }
    if (!reader) return out;
    const DraftNode& r = draft.nodes[*reader];
    if (!r.domain.empty() || (r.op != "Mul" && r.op != "Add") || r.inputs.size() != 2 || r.inputs[0] == r.inputs[1]) return out;
    const TensorData* data = draft.constant(r.inputs[0] == out.output ? r.inputs[1] : r.inputs[0]);
    if (!data || data->count() != 1 || data->type != DataType::kFloat || data->shape.size() > 1) return out;
    const float by = data->to_floats().at(0);
    for (float& v : out.values) v = r.op == "Mul" ? v * by : v + by;
    out.nodes.push_back(*reader);
    out.output = r.outputs[0];
    again = true;
  }
  return out;
}

// Whether the quantizer gives levels[k] up to thresholds[k] and levels[k + 1] from there on. It is monotone, as the
// thresholds are, so nothing lies between.
bool is_the_same(const quant::QuantParams& params, const std::vector<float>& thresholds, const std::vector<float>& levels) {
  std::vector<float> x, want;
  for (std::size_t k = 0; k < thresholds.size(); ++k) {
    x.insert(x.end(), {std::nextafter(thresholds[k], -std::numeric_limits<float>::infinity()), thresholds[k]});
    want.insert(want.end(), {levels[k], levels[k + 1]});
  }
  quant::BlockLayout layout;
  layout.inner = static_cast<std::int64_t>(x.size());
  std::vector<float> y(x.size());
  quant::fake_quantize(params, layout, x.data(), y.data());
  return y == want;
}

std::optional<quant::QuantParams> params_of(const QuantSpec& spec, float scale, std::int64_t shift, std::size_t elements) {
  quant::Stored stored{spec, {scale}, {}, {}};
  if (shift != 0) {
    stored.spec.zero_point = ZeroPointType::kInteger;
    stored.zero_point = {static_cast<float>(shift)};
  }
  auto params = quant::stored_params(stored.spec, {static_cast<std::int64_t>(elements)}, {}, 0, stored);
  return params ? std::optional(std::move(*params)) : std::nullopt;
}

}  // namespace

Result<Quantizer> threshold_quantizer(const Draft& draft, std::size_t node) {
  const DraftNode& n = draft.nodes[node];
  if (n.input(0).empty()) return no_quantizer("it has no input");
  QUANVAS_TRY(const std::vector<float> thresholds, common_thresholds(draft, n));
  const Levels levels = levels_of(draft, node, thresholds.size());
  Quantizer q;
  q.nodes = levels.nodes;
  q.input = n.input(0);
  q.output = levels.output;
  const std::vector<float>& v = levels.values;
  const float step = v[1] - v[0];
  if (!(step > 0)) return no_quantizer("its values do not ascend");
  if (thresholds.size() == 1 && v[0] == -v[1]) {
    q.spec = stored_spec();
    q.spec.format = "binary";
    q.scale = {v[1]};
    q.activation = "HardTanh";
    const auto params = params_of(q.spec, v[1], 0, 2);
    if (params && is_the_same(*params, thresholds, v)) return q;
    return no_quantizer("its threshold is not 0");
  }
  const double lowest = std::nearbyint(static_cast<double>(v[0]) / static_cast<double>(step));
  if (std::fabs(lowest) > 65536) return no_quantizer("its values lie far from 0");
  const auto lo = static_cast<std::int64_t>(lowest), hi = lo + static_cast<std::int64_t>(thresholds.size());
  const auto format = format_of_codes(lo, hi);
  if (!format) return no_quantizer("its " + std::to_string(thresholds.size() + 1) + " values are not those of an integer format");
  // Differences of rounded values are not always the scale itself.
  for (const float scale : {step, v.back() / static_cast<float>(hi == 0 ? 1 : hi), v[0] / static_cast<float>(lo == 0 ? 1 : lo)})
    for (const Rounding rounding : {Rounding::kHalfUp, Rounding::kHalfEven, Rounding::kHalfAway, Rounding::kFloor,
                                    Rounding::kCeil, Rounding::kTowardZero}) {
      q.spec = stored_spec();
      q.spec.bits = format->bits;
      q.spec.is_signed = format->is_signed;
      q.spec.narrow = format->narrow;
      q.spec.rounding = rounding;
      const auto params = params_of(q.spec, scale, format->shift, 2 * thresholds.size());
      if (!params || !is_the_same(*params, thresholds, v)) continue;
      q.spec = params->spec;
      q.scale = params->scale;
      q.zero_point = params->zero_point;
      q.activation = lo == 0 ? "Relu" : "";
      return q;
    }
  return no_quantizer("its thresholds are not those of an integer quantizer");
}

}  // namespace quanvas::onnx_import
