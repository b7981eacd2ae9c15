#include "core/quant/stored.h"

#include <algorithm>
#include <cmath>

namespace quanvas::quant {
namespace {

constexpr const char* kFormat = "#format";
constexpr const char* kScale = "#scale";
constexpr const char* kZeroPoint = "#zero_point";

struct Header {
  QuantSpec spec;
  std::string values;
};
template <class V>
void visit_fields(V& v, Header& h) {
  v("spec", h.spec);
  v("values", h.values);
}

std::vector<float> floats(const WeightStore& weights, const std::string& name) {
  const TensorData* data = weights.find(name);
  return data && data->type == DataType::kFloat ? data->to_floats() : std::vector<float>();
}

TensorData tensor_of(const std::vector<float>& values) {
  return TensorData::of_floats({static_cast<std::int64_t>(values.size())}, values);
}

bool is_plausible(const Stored& s) {
  const bool has_zero = s.spec.zero_point != ZeroPointType::kNone;
  return check(s.spec).empty() && !s.scale.empty() && s.zero_point.size() == (has_zero ? s.scale.size() : 0) &&
         std::all_of(s.scale.begin(), s.scale.end(), [](float v) { return v > 0 && std::isfinite(v); }) &&
         std::all_of(s.zero_point.begin(), s.zero_point.end(), [](float v) { return std::isfinite(v); });
}

// Everything that neither scale nor codes depend on, as in a fresh declaration.
QuantSpec format_of(const QuantSpec& spec) {
  const QuantSpec plain;
  QuantSpec out = spec;
  out.statistic = plain.statistic;
  out.search = plain.search;
  out.percentile = plain.percentile;
  out.sigma = plain.sigma;
  out.zero_in_range = plain.zero_in_range;
  out.scale = plain.scale;
  out.exponent_rounding = plain.exponent_rounding;
  out.batches = plain.batches;
  out.momentum = plain.momentum;
  out.rounding = plain.rounding;
  out.seed = plain.seed;
  out.scale_domain = plain.scale_domain;
  out.clip_gradient = plain.clip_gradient;
  out.delay = plain.delay;
  if (out.granularity == Granularity::kTensor) out.axis = plain.axis;
  if (out.granularity != Granularity::kGroup) out.group_size = plain.group_size;
  return out;
}

Failure unfit(std::string why) { return fail(ErrorCode::kUnsupported, std::move(why)); }

}  // namespace

std::string stored_key(const std::string& node, const Site& site) {
  return "quantizer:" + node + " " + enum_text(site.kind) + " " + std::to_string(site.operand);
}

void store(WeightStore& weights, const std::string& key, const Stored& stored) {
  const std::string header = to_json_value(Header{stored.spec, stored.values}).dump();
  weights.set(key + kFormat, TensorData::copy_of(DataType::kUint8, {static_cast<std::int64_t>(header.size())},
                                                 header.data(), header.size()));
  weights.set(key + kScale, tensor_of(stored.scale));
  if (!stored.zero_point.empty()) weights.set(key + kZeroPoint, tensor_of(stored.zero_point));
}

std::optional<Stored> find_stored(const WeightStore& weights, const std::string& key) {
  const TensorData* data = weights.find(key + kFormat);
  if (!data || data->type != DataType::kUint8) return std::nullopt;
  const std::string text(reinterpret_cast<const char*>(data->data), data->bytes);
  const auto header = from_json_text<Header>(text);
  if (!header) return std::nullopt;
  Stored out{header->spec, floats(weights, key + kScale), floats(weights, key + kZeroPoint), header->values};
  return is_plausible(out) ? std::optional(std::move(out)) : std::nullopt;
}

bool is_same_format(const QuantSpec& a, const QuantSpec& b) { return format_of(a) == format_of(b); }

Result<QuantParams> stored_params(const QuantSpec& spec, const Shape& shape, const std::string& values, int default_axis,
                                  const Stored& stored) {
  if (!is_same_format(spec, stored.spec))
    return unfit("the model file's scale is for another format (" + describe(stored.spec) + ")");
  if (!stored.values.empty() && stored.values != values) return unfit("the values are no longer the model file's");
  QUANVAS_TRY(const BlockLayout layout, make_layout(spec, shape, default_axis));
  const auto count = static_cast<std::int64_t>(stored.scale.size());
  if (layout.parameters() != count)
    return unfit("the model file gives " + std::to_string(count) + " scales, and the tensor has " +
                 std::to_string(layout.parameters()));
  QuantSpec resolved = spec;
  if (spec.granularity != Granularity::kTensor) {
    const int axis = spec.axis.value_or(spec.granularity == Granularity::kRow ? -1 : default_axis);
    resolved.axis = axis < 0 ? axis + static_cast<int>(shape.size()) : axis;
  }
  QuantParams params = params_from_range(resolved, layout, {}, {});
  params.scale = stored.scale;
  params.zero_point = stored.zero_point;
  return params;
}

}  // namespace quanvas::quant
