// Quanvas - QuantSpec: the declaration of a quantizer. A plain value, JSON in and out.
//
// number format x scale x zero point x granularity x rounding x how its parameters are found. Which
// combinations are legal is said by check(); what the fields mean numerically is said in core/quant/.
#pragma once

#include <optional>
#include <string>

#include "core/base/json.h"
#include "core/base/schema.h"
#include "core/graph/layers.h"

namespace quanvas {

enum class Granularity { kTensor, kChannel, kGroup };
inline const EnumNames<Granularity>& enum_names(Granularity) {
  static const EnumNames<Granularity> names = {
      {Granularity::kTensor, "tensor"}, {Granularity::kChannel, "channel"}, {Granularity::kGroup, "group"}};
  return names;
}

// What the clip threshold (and so the scale) is computed from.
enum class Statistic { kAbsMax, kMinMax, kPercentile, kMse };
inline const EnumNames<Statistic>& enum_names(Statistic) {
  static const EnumNames<Statistic> names = {{Statistic::kAbsMax, "absmax"},
                                             {Statistic::kMinMax, "minmax"},
                                             {Statistic::kPercentile, "percentile"},
                                             {Statistic::kMse, "mse"}};
  return names;
}

enum class ScaleType { kFloat32, kPowerOfTwo };
inline const EnumNames<ScaleType>& enum_names(ScaleType) {
  static const EnumNames<ScaleType> names = {{ScaleType::kFloat32, "float32"},
                                             {ScaleType::kPowerOfTwo, "power-of-two"}};
  return names;
}

enum class ZeroPointType { kNone, kInteger };  // kNone: symmetric, zero point 0
inline const EnumNames<ZeroPointType>& enum_names(ZeroPointType) {
  static const EnumNames<ZeroPointType> names = {{ZeroPointType::kNone, "none"},
                                                 {ZeroPointType::kInteger, "integer"}};
  return names;
}

enum class Rounding { kHalfEven };
inline const EnumNames<Rounding>& enum_names(Rounding) {
  static const EnumNames<Rounding> names = {{Rounding::kHalfEven, "half-even"}};
  return names;
}

// Whether quantization-aware training learns the scale or recomputes it from the statistic at every step.
enum class ScaleSource { kStatistics, kLearned };
inline const EnumNames<ScaleSource>& enum_names(ScaleSource) {
  static const EnumNames<ScaleSource> names = {{ScaleSource::kStatistics, "statistics"},
                                               {ScaleSource::kLearned, "learned"}};
  return names;
}

struct QuantSpec {
  std::string format = "int";  // id of a number format in the plug-in registry
  int bits = 8;                // 1..16; 1 bit signed is {-1, 0} (wide); bias: up to 32
  bool is_signed = true;
  bool narrow = false;         // signed: lowest code dropped; unsigned: highest code dropped
  ZeroPointType zero_point = ZeroPointType::kNone;
  Granularity granularity = Granularity::kTensor;
  std::optional<int> axis;     // channel axis, or the axis that groups divide; default: the layer's own
  int group_size = 32;
  Statistic statistic = Statistic::kAbsMax;
  double percentile = 99.999;  // of |x| (symmetric) or of both tails (asymmetric); 50..100
  ScaleType scale = ScaleType::kFloat32;
  ScaleSource source = ScaleSource::kStatistics;
  Rounding rounding = Rounding::kHalfEven;
  // Fixed clip limits, as dragged in the histogram or typed; replace the statistic. Per tensor only.
  std::optional<double> clip_min, clip_max;
  // Bias only: scale = input scale x weight scale (int32 accumulator), no statistic.
  bool scale_from_accumulator = false;

  bool operator==(const QuantSpec&) const = default;
};
template <class V>
void visit_fields(V& v, QuantSpec& s) {
  v("format", s.format);
  v("bits", s.bits);
  v("signed", s.is_signed);
  v("narrow", s.narrow);
  v("zero_point", s.zero_point);
  v("granularity", s.granularity);
  v("axis", s.axis);
  v("group_size", s.group_size);
  v("statistic", s.statistic);
  v("percentile", s.percentile);
  v("scale", s.scale);
  v("source", s.source);
  v("rounding", s.rounding);
  v("clip_min", s.clip_min);
  v("clip_max", s.clip_max);
  v("scale_from_accumulator", s.scale_from_accumulator);
}

// Lowest and highest integer code.
struct CodeRange {
  std::int64_t lo = -128, hi = 127;
};
CodeRange code_range(const QuantSpec& spec);

// Empty when legal on a site of this kind, else a sentence that names the field ("bits is 20; ...").
std::string check(const QuantSpec& spec, SiteKind site);
// The part of it that holds for every site: what the number format "int" itself demands.
std::string check(const QuantSpec& spec);
// Why the bias of a layer with these formats (null: float) has no scale "input scale x weight scale", as the end of
// a sentence; empty: it has.
std::string accumulator_problem(const QuantSpec* input, const QuantSpec* weight);
// "W4", "U8", "A4 po2" ...: chip text of at most 8 characters; `site` decides the letter of signed formats.
std::string chip_text(const QuantSpec& spec, SiteKind site);
// "Integer 4 bit signed, −7 … 7, per channel, MSE, float32 scale".
std::string describe(const QuantSpec& spec);
// The form of the inspector for a site kind: fields with titles, docs, ranges, choices, enabled-if. Keys are
// those of QuantSpec's JSON; axis, clip_min and clip_max have no default value and so are not in the form: an
// edit replaces the form's keys in the JSON of the old spec and keeps the others.
const Schema& quant_spec_schema(SiteKind site);

}  // namespace quanvas
