// Which declarations of a quantizer are legal.
#include "core/recipe/quant_spec.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quanvas {
namespace {

constexpr int kMaxBits = 32;
constexpr int kMaxGroup = 65536;

bool is_integer(const QuantSpec& s) { return s.format == "int"; }
bool is_float(const QuantSpec& s) { return s.format == "float"; }
bool is_codebook(const QuantSpec& s) { return find_codebook(s.format) != nullptr; }

std::string number(double v) { return real(v).is_string() ? real(v).get<std::string>() : json(v).dump(); }

std::string between(const char* field, const std::string& value, const std::string& lo, const std::string& hi) {
  return std::string(field) + " is " + value + "; it must lie between " + lo + " and " + hi + ".";
}
std::string between(const char* field, int value, int lo, int hi) {
  return value >= lo && value <= hi ? std::string()
                                    : between(field, std::to_string(value), std::to_string(lo), std::to_string(hi));
}

// The first sentence that is not empty.
template <class... Rest>
std::string first_of(std::string text, Rest... rest) {
  if constexpr (sizeof...(rest) == 0) return text;
  else return !text.empty() ? text : first_of(std::move(rest)...);
}

std::string check_integer(const QuantSpec& s) {
  if (auto text = between("bits", s.bits, 1, kMaxBits); !text.empty()) return text;
  if (s.bits == 1 && s.narrow)
    return "narrow is true with 1 bit; that leaves a single code. Use 2 bits or the wide range.";
  return {};
}

std::string check_float(const QuantSpec& s) {
  if (auto text = first_of(between("exponent_bits", s.exponent_bits, 1, 7), between("mantissa_bits", s.mantissa_bits, 0, 10));
      !text.empty())
    return text;
  if (s.exponent_bias)
    if (auto text = between("exponent_bias", *s.exponent_bias, -64, 127); !text.empty()) return text;
  if (s.specials == FloatSpecials::kFnuz && !s.is_signed)
    return "specials is fnuz with signed false; its NaN is the pattern of negative zero, which an unsigned format lacks.";
  if (s.specials == FloatSpecials::kIeee && s.exponent_bits < 2)
    return "specials is ieee with exponent_bits 1; infinity and NaN would take every normal number.";
  if (s.specials == FloatSpecials::kNan && s.exponent_bits == 1 && s.mantissa_bits == 0)
    return "specials is nan with exponent_bits 1 and mantissa_bits 0; NaN would take the only number but 0.";
  // Every value must be a float32 that is normal, and so must its distance to the next.
  const int bias = s.exponent_bias.value_or((1 << (s.exponent_bits - 1)) - (s.specials == FloatSpecials::kFnuz ? 0 : 1));
  if (((1 << s.exponent_bits) - 1) - bias > 100 || 1 - bias - s.mantissa_bits < -126)
    return "exponent_bias is " + std::to_string(bias) + " with exponent_bits " + std::to_string(s.exponent_bits) +
           "; the format's values must lie between 2^-126 and 2^100.";
  return {};
}

// What only integers have.
std::string check_not_integer(const QuantSpec& s) {
  if (s.narrow) return "narrow is true with format " + s.format + "; only integers have a narrow range.";
  if (s.zero_point != ZeroPointType::kNone)
    return std::string("zero_point is ") + enum_text(s.zero_point) + " with format " + s.format +
           "; only integers have a zero point.";
  if (!s.is_signed && !is_float(s)) return "signed is false with format " + s.format + "; its values have both signs.";
  if (s.scale_from_accumulator)
    return "scale_from_accumulator is true with format " + s.format + "; an accumulator holds integers.";
  if (!is_float(s) && s.rounding != Rounding::kHalfEven)
    return std::string("rounding is ") + enum_text(s.rounding) + " with format " + s.format + "; nothing is rounded there.";
  if (s.decoupled != Decoupling::kNone)
    return std::string("decoupled is ") + enum_text(s.decoupled) + " with format " + s.format + "; it is defined for integers.";
  if (s.truncation != Truncation::kNone)
    return std::string("truncation is ") + enum_text(s.truncation) + " with format " + s.format + "; only integers are truncated.";
  if (s.learn_bits) return "learn_bits is true with format " + s.format + "; its width is fixed.";
  if (s.rounding == Rounding::kLearned)
    return "rounding is learned with format " + s.format + "; it is defined for integers.";
  if (s.statistic == Statistic::kSignedMax && !is_codebook(s))
    return "statistic is signed-max with format " + s.format + "; its values are the same on both sides of 0.";
  if (s.statistic == Statistic::kKl || s.statistic == Statistic::kHqo)
    return std::string("statistic is ") + enum_text(s.statistic) + " with format " + s.format + "; it is defined for integers.";
  return {};
}

std::string check_format(const QuantSpec& s) {
  if (is_integer(s)) return check_integer(s);
  if (is_float(s)) return first_of(check_float(s), check_not_integer(s));
  if (s.format == "ternary") {
    if (!(s.ternary_threshold > 0 && s.ternary_threshold < 1))
      return between("ternary_threshold", number(s.ternary_threshold), "0", "1 (both exclusive)");
    return check_not_integer(s);
  }
  if (s.format == "binary" || is_codebook(s)) return check_not_integer(s);
  std::string known = "int, float, ternary, binary";
  for (const Codebook& book : codebooks()) known += ", " + book.id;
  return "format is '" + s.format + "'; known formats: " + known + ".";
}

std::string check_clip(const QuantSpec& s) {
  if (!s.clip_min && !s.clip_max) return {};
  if (s.granularity != Granularity::kTensor)
    return std::string("clip_min and clip_max need granularity tensor, not ") + enum_text(s.granularity) + ".";
  const double lo = s.clip_min.value_or(0), hi = s.clip_max.value_or(0);
  constexpr double kMost = std::numeric_limits<float>::max();
  if (!(lo >= -kMost && lo <= 0)) return between("clip_min", number(lo), "the lowest float32", "0");
  if (!(hi >= 0 && hi <= kMost)) return between("clip_max", number(hi), "0", "the highest float32");
  if (!s.is_signed && s.zero_point == ZeroPointType::kNone && !(hi > 0))
    return "clip_max is 0 or missing; an unsigned format without zero point needs a limit above 0.";
  if (static_cast<float>(hi) - static_cast<float>(lo) <= 0)
    return "clip_min and clip_max are both 0; the range between them is empty.";
  return {};
}

std::string check_scale(const QuantSpec& s) {
  const bool constant = s.source == ScaleSource::kConstant;
  if (constant && s.scale_value && !(*s.scale_value >= 1e-37 && *s.scale_value <= 1e37))
    return between("scale_value", number(*s.scale_value), "1e-37", "1e37");
  if (constant && (s.clip_min || s.clip_max)) return "clip_min and clip_max have no meaning beside a constant scale.";
  if (s.source == ScaleSource::kStored && (s.clip_min || s.clip_max))
    return "clip_min and clip_max have no meaning with source stored; the scale is the model file's.";
  if (s.source == ScaleSource::kDynamic && (s.clip_min || s.clip_max))
    return "clip_min and clip_max have no meaning with source dynamic; the range is that of each tensor.";
  if (s.scale == ScaleType::kFloat8 && s.granularity == Granularity::kTensor)
    return "scale is float8 with granularity tensor; its second level needs several scales.";
  if (s.scale == ScaleType::kFloat8 && s.source == ScaleSource::kLearned)
    return "scale is float8 with source learned; two-level scales come from statistics.";
  if (s.scale == ScaleType::kFloat16 && s.source == ScaleSource::kLearned)
    return "scale is float16 with source learned; a trained scale is a float32 or a power of two.";
  if (s.scale == ScaleType::kQuantized) {
    if (auto text = first_of(between("scale_bits", s.scale_bits, 2, 8), between("scale_group", s.scale_group, 0, kMaxGroup));
        !text.empty())
      return text;
    if (s.granularity == Granularity::kTensor)
      return "scale is quantized with granularity tensor; a second level needs several scales.";
    if (s.zero_point == ZeroPointType::kOffset && !s.zero_in_range)
      return "scale is quantized with zero_point offset and zero_in_range false; offsets of two levels are at or below 0.";
    if (s.source == ScaleSource::kLearned)
      return "scale is quantized with source learned; scales of two levels come from statistics.";
    if (s.source == ScaleSource::kConstant) return "scale is quantized with source constant; a constant is what it is.";
  }
  if (s.scale == ScaleType::kPowerOfTwo && s.exponent_rounding == ExponentRounding::kEven && !is_float(s))
    return "exponent_rounding is even with format " + s.format + "; it looks at the mantissa of a minifloat.";
  return {};
}

std::string check_statistic(const QuantSpec& s) {
  if (!(s.percentile >= 50 && s.percentile <= 100)) return between("percentile", number(s.percentile), "50", "100");
  if (!(s.sigma >= 0 && s.sigma <= 100)) return between("sigma", number(s.sigma), "0", "100");
  const bool one_sided = s.statistic != Statistic::kAbsMax && s.statistic != Statistic::kMinMax &&
                         s.statistic != Statistic::kPercentile && s.statistic != Statistic::kMse &&
                         s.statistic != Statistic::kHqo;
  if (s.statistic == Statistic::kSignedMax && (!s.is_signed || s.narrow))
    return "statistic is signed-max with a format that is not signed and wide; its lowest code needs no opposite.";
  if (s.statistic == Statistic::kSignedMax && s.scale == ScaleType::kPowerOfTwo)
    return "statistic is signed-max with scale power-of-two; such a scale has no sign.";
  if (s.statistic == Statistic::kSignedMax && s.source == ScaleSource::kLearned)
    return "statistic is signed-max with source learned; a learned scale is positive.";
  if (one_sided && s.zero_point != ZeroPointType::kNone)
    return std::string("statistic is ") + enum_text(s.statistic) + " with zero_point " + enum_text(s.zero_point) +
           "; it gives one threshold, so zero_point must be none.";
  if ((s.statistic == Statistic::kMaxMean || s.statistic == Statistic::kMaxRms) && s.granularity != Granularity::kTensor)
    return std::string("statistic is ") + enum_text(s.statistic) + " with granularity " + enum_text(s.granularity) +
           "; the mean over the channels is one number, so granularity must be tensor.";
  if (s.statistic == Statistic::kHqo && s.source == ScaleSource::kConstant)
    return "statistic is hqo with source constant; there is nothing to find.";
  if (s.statistic == Statistic::kHqo && s.zero_point == ZeroPointType::kNone && s.scale != ScaleType::kFloat32)
    return std::string("statistic is hqo with scale ") + enum_text(s.scale) + "; without a zero point it finds float32 scales.";
  if (s.statistic == Statistic::kHqo && s.batches != BatchStatistic::kAll)
    return std::string("statistic is hqo with batches ") + enum_text(s.batches) + "; it searches all values at once.";
  if (!(s.momentum > 0 && s.momentum <= 1)) return between("momentum", number(s.momentum), "0 (exclusive)", "1");
  return {};
}

std::string check_zero_point(const QuantSpec& s) {
  if (s.zero_point == ZeroPointType::kFloat && !s.zero_point_inside)
    return "zero_point is float with zero_point_inside false; a fraction can only be added before the rounding.";
  if (s.zero_point == ZeroPointType::kOffset) {
    if (s.is_signed) return "zero_point is offset with signed true; codes count from the offset, so signed must be false.";
    if (s.zero_point_inside) return "zero_point is offset with zero_point_inside true; an offset is taken off before the rounding.";
    if (s.learn_zero_point) return "learn_zero_point is true with zero_point offset; integer and float zero points are learned.";
    if (s.statistic == Statistic::kHqo) return "statistic is hqo with zero_point offset; it finds a zero point or none.";
  }
  if (s.learn_zero_point && s.zero_point == ZeroPointType::kNone)
    return "learn_zero_point is true with zero_point none; there is none to learn.";
  if (s.zero_point == ZeroPointType::kNone && s.source != ScaleSource::kConstant) return {};
  if (s.zero_point != ZeroPointType::kNone && s.source == ScaleSource::kConstant)
    return std::string("source is constant with zero_point ") + enum_text(s.zero_point) + "; a constant scale is symmetric.";
  return {};
}

// Two scales, accumulators, learned rounding, truncation: what they need of the other fields.
std::string check_forms(const QuantSpec& s) {
  const bool two_scales = s.decoupled != Decoupling::kNone;
  if (two_scales && s.zero_point != ZeroPointType::kNone)
    return std::string("decoupled is ") + enum_text(s.decoupled) + " with zero_point " + enum_text(s.zero_point) +
           "; two scales are defined without a zero point.";
  if (s.zero_centered && !s.accumulator_bits) return "zero_centered is true without accumulator_bits; it belongs to that bound.";
  if (s.accumulator_bits) {
    if (auto text = first_of(between("accumulator_bits", *s.accumulator_bits, 4, 32),
                             between("accumulator_input_bits", s.accumulator_input_bits, 1, 16));
        !text.empty())
      return text;
    if (s.decoupled != Decoupling::kL1 && s.decoupled != Decoupling::kNone)
      return std::string("accumulator_bits needs decoupled l1 or none, not ") + enum_text(s.decoupled) +
             "; it bounds the l1 norm of a channel's codes.";
    if (s.format != "int" || !s.is_signed) return "accumulator_bits needs format int and signed true.";
    if (s.decoupled == Decoupling::kNone) {
      if (s.zero_centered) return "zero_centered is true with decoupled none; the mean is taken off the codes of a second scale.";
      if (s.zero_point != ZeroPointType::kNone || s.scale != ScaleType::kFloat32 || s.source != ScaleSource::kStatistics)
        return "accumulator_bits with decoupled none needs zero_point none, scale float32 and source statistics; the scale "
               "grows until the codes fit.";
      if (s.rounding == Rounding::kStochastic || s.rounding == Rounding::kLearned || s.rounding == Rounding::kCeil ||
          s.rounding == Rounding::kFloor)
        return std::string("accumulator_bits with rounding ") + enum_text(s.rounding) +
               "; no scale bounds its codes. Use rounding to the nearest or toward-zero.";
      if (s.clip_min || s.clip_max) return "clip_min and clip_max have no meaning beside accumulator_bits; the scale grows.";
    } else if (s.rounding != Rounding::kTowardZero)
      return std::string("accumulator_bits needs rounding toward-zero, not ") + enum_text(s.rounding) +
             "; another rounding can exceed the bound.";
    if (s.granularity != Granularity::kChannel && s.granularity != Granularity::kTensor)
      return std::string("accumulator_bits needs granularity channel or tensor, not ") + enum_text(s.granularity) + ".";
  }
  if (s.rounding == Rounding::kLearned && s.zero_point_inside)
    return "rounding is learned with zero_point_inside true; the parameter belongs to x / s alone.";
  if (s.soft_rounding && s.rounding != Rounding::kLearned) return "soft_rounding is true without rounding learned.";
  if (s.accumulator_bits && s.statistic == Statistic::kSignedMax)
    return "accumulator_bits with statistic signed-max; the bound needs a scale above 0.";
  if (s.truncation != Truncation::kNone) {
    if (s.zero_point != ZeroPointType::kNone || s.granularity != Granularity::kTensor)
      return "truncation needs zero_point none and granularity tensor; the integers have one scale.";
    if (s.source == ScaleSource::kConstant || s.source == ScaleSource::kDynamic || s.source == ScaleSource::kStored)
      return std::string("truncation with source ") + enum_text(s.source) + "; its scale follows from that of the integers.";
    if (s.statistic == Statistic::kSignedMax) return "truncation with statistic signed-max; a power of two has no sign.";
    if (s.scale == ScaleType::kFloat16)
      return "truncation with scale float16; its scale is that of the integers times a power of two.";
    if (s.learn_bits) return "truncation with learn_bits true; how many bits are cut off is not learned.";
    if (s.truncation == Truncation::kMsb && (s.clip_min || s.clip_max))
      return "truncation msb with clip_min or clip_max; it keeps the highest bits whatever the values are. Use "
             "statistic.";
  }
  if (s.learn_bits && s.bits > 16)
    return between("bits", std::to_string(s.bits), "2", "16") + " A width that is learned has these.";
  if (s.learn_bits && s.source != ScaleSource::kLearned)
    return std::string("learn_bits is true with source ") + enum_text(s.source) + "; a learned width needs a learned scale.";
  if (s.delay < 0) return between("delay", std::to_string(s.delay), "0", "2147483647");
  return {};
}

// Of a batch less is kept than of all samples together.
std::string check_batches(const QuantSpec& s) {
  const std::string beside = std::string(" with batches ") + enum_text(s.batches);
  if (s.granularity == Granularity::kChannel && s.batches != BatchStatistic::kMean)
    return "granularity is channel" + beside + "; of a batch's channels only the mean is kept.";
  if (s.statistic == Statistic::kPercentile) {
    for (const double kept : {99.0, 99.9, 99.99, 99.999, 100.0})
      if (s.percentile == kept) return {};
    return "percentile is " + number(s.percentile) + beside + "; kept of a batch are 99, 99.9, 99.99, 99.999 and 100.";
  }
  if (s.statistic == Statistic::kAbsMax || s.statistic == Statistic::kMinMax || s.statistic == Statistic::kMaxMean) return {};
  return std::string("statistic is ") + enum_text(s.statistic) + beside + "; use absmax, minmax, percentile or max-mean.";
}

std::string check_activation(const QuantSpec& s) {
  if (s.source == ScaleSource::kDynamic) {
    if (s.batches != BatchStatistic::kAll)
      return std::string("batches is ") + enum_text(s.batches) + " with source dynamic; such a scale comes from one sample.";
    if (s.axis && *s.axis == 0) return "axis is 0 with source dynamic; that axis is the batch, and each sample has scales of its own.";
    return {};
  }
  if (s.granularity == Granularity::kGroup || s.granularity == Granularity::kRow)
    return std::string("granularity is ") + enum_text(s.granularity) +
           "; the static scales of an activation are per tensor or per channel. Use source dynamic.";
  if (s.granularity == Granularity::kChannel &&
      (s.zero_point != ZeroPointType::kNone || s.statistic != Statistic::kAbsMax) && s.source != ScaleSource::kConstant &&
      s.source != ScaleSource::kStored)
    return "granularity is channel; of an activation's channels calibration keeps only the largest magnitude, so "
           "zero_point must be none and statistic absmax.";
  constexpr Statistic kKept[] = {Statistic::kAbsMax, Statistic::kMinMax, Statistic::kPercentile, Statistic::kMse,
                                 Statistic::kMean,   Statistic::kMeanSigma, Statistic::kKl,
                                 Statistic::kMaxMean};
  if (std::find(std::begin(kKept), std::end(kKept), s.statistic) == std::end(kKept))
    return std::string("statistic is ") + enum_text(s.statistic) + "; it is defined for weights only.";
  return s.batches == BatchStatistic::kAll ? std::string() : check_batches(s);
}

std::string check_bias(const QuantSpec& s) {
  if (s.granularity == Granularity::kGroup || s.granularity == Granularity::kRow)
    return std::string("granularity is ") + enum_text(s.granularity) + "; a bias is per tensor or per channel.";
  if (!s.scale_from_accumulator) return {};
  if (!s.is_signed) return "signed is false; a bias with the accumulator's scale is a signed integer.";
  if (s.zero_point != ZeroPointType::kNone)
    return std::string("zero_point is ") + enum_text(s.zero_point) + "; a bias with the accumulator's scale has zero point 0.";
  if (s.clip_min || s.clip_max)
    return "clip_min and clip_max have no meaning for a bias with the accumulator's scale.";
  if (s.source == ScaleSource::kConstant || s.source == ScaleSource::kDynamic || s.source == ScaleSource::kStored)
    return std::string("source is ") + enum_text(s.source) + "; the accumulator's scale follows from input and weight.";
  return {};
}

std::string check_common(const QuantSpec& s) {
  if (auto text = check_format(s); !text.empty()) return text;
  if (s.granularity == Granularity::kGroup && (s.group_size < 1 || s.group_size > kMaxGroup))
    return between("group_size", std::to_string(s.group_size), "1", std::to_string(kMaxGroup));
  if (s.axis && (*s.axis < -8 || *s.axis > 7)) return between("axis", std::to_string(*s.axis), "-8", "7");
  return first_of(check_statistic(s), check_zero_point(s), check_scale(s), check_clip(s), check_forms(s));
}

}  // namespace

std::string accumulator_problem(const QuantSpec* input, const QuantSpec* weight) {
  if (!weight) return "the weight is float";
  if (!input) return "the input is float";
  if (weight->granularity == Granularity::kGroup || weight->granularity == Granularity::kRow)
    return "the weight has one scale per group";
  if (weight->format != "int" || input->format != "int") return "input and weight are not both integers";
  if (input->source == ScaleSource::kDynamic) return "the input's scale is found anew from each sample";
  if (input->granularity != Granularity::kTensor) return "the input has more than one scale";
  return {};
}

std::string check(const QuantSpec& spec) { return check_common(spec); }

std::string check(const QuantSpec& spec, SiteKind site) {
  if (auto text = check_common(spec); !text.empty()) return text;
  if (spec.truncation != Truncation::kNone && site != SiteKind::kOutput)
    return std::string("truncation is ") + enum_text(spec.truncation) +
           "; it is for tensors that hold integers already: the output of an average pool.";
  if (site != SiteKind::kWeight && spec.decoupled != Decoupling::kNone)
    return std::string("decoupled is ") + enum_text(spec.decoupled) + "; only weights have two scales.";
  if (site != SiteKind::kWeight && spec.rounding == Rounding::kLearned)
    return "rounding is learned; only weights have a parameter for each element.";
  if (!is_activation(site) && spec.batches != BatchStatistic::kAll)
    return std::string("batches is ") + enum_text(spec.batches) + "; only activations come in batches.";
  if (site == SiteKind::kBias) return check_bias(spec);
  if (spec.scale_from_accumulator) return "scale_from_accumulator is true; only a bias can have the accumulator's scale.";
  if (site == SiteKind::kWeight && spec.source == ScaleSource::kDynamic)
    return "source is dynamic; a weight does not change at run time.";
  return is_activation(site) ? check_activation(spec) : std::string();
}

}  // namespace quanvas
