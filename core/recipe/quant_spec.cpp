#include "core/recipe/quant_spec.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quanvas {
namespace {

constexpr int kMaxBits = 32;
constexpr int kMaxSymbolBits = 16;  // up to here the lowest and highest code are worth telling
constexpr int kMaxGroup = 65536;
constexpr const char* kMinus = "\u2212";

bool is_activation(SiteKind site) { return site == SiteKind::kInput || site == SiteKind::kOutput; }
bool is_integer(const QuantSpec& s) { return s.format == "int"; }
bool is_float(const QuantSpec& s) { return s.format == "float"; }

std::string number(double v) { return real(v).is_string() ? real(v).get<std::string>() : json(v).dump(); }

std::string with_minus(std::string text) {
  return !text.empty() && text[0] == '-' ? kMinus + text.substr(1) : text;
}
std::string code_text(std::int64_t v) { return with_minus(std::to_string(v)); }

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
  if (auto text = first_of(between("exponent_bits", s.exponent_bits, 1, 8), between("mantissa_bits", s.mantissa_bits, 0, 10));
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
  if (s.format == "binary") return check_not_integer(s);
  return "format is '" + s.format + "'; known formats: int, float, ternary, binary.";
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
  if (s.source == ScaleSource::kDynamic && (s.clip_min || s.clip_max))
    return "clip_min and clip_max have no meaning with source dynamic; the range is that of each tensor.";
  if (s.scale == ScaleType::kFloat8 && s.granularity == Granularity::kTensor)
    return "scale is float8 with granularity tensor; its second level needs several scales.";
  if (s.scale == ScaleType::kFloat8 && s.source == ScaleSource::kLearned)
    return "scale is float8 with source learned; two-level scales come from statistics.";
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
  if (one_sided && s.zero_point != ZeroPointType::kNone)
    return std::string("statistic is ") + enum_text(s.statistic) + " with zero_point " + enum_text(s.zero_point) +
           "; it gives one threshold, so zero_point must be none.";
  if (s.statistic == Statistic::kMaxMean && s.granularity != Granularity::kTensor)
    return std::string("statistic is max-mean with granularity ") + enum_text(s.granularity) +
           "; the mean over the channels is one number, so granularity must be tensor.";
  return {};
}

std::string check_zero_point(const QuantSpec& s) {
  if (s.zero_point == ZeroPointType::kFloat && !s.zero_point_inside)
    return "zero_point is float with zero_point_inside false; a fraction can only be added before the rounding.";
  if (s.zero_point == ZeroPointType::kNone && s.source != ScaleSource::kConstant) return {};
  if (s.zero_point != ZeroPointType::kNone && s.source == ScaleSource::kConstant)
    return std::string("source is constant with zero_point ") + enum_text(s.zero_point) + "; a constant scale is symmetric.";
  return {};
}

std::string check_activation(const QuantSpec& s) {
  if (s.source == ScaleSource::kDynamic) return "source is dynamic; networks are run with static scales.";
  if (s.granularity == Granularity::kGroup || s.granularity == Granularity::kRow)
    return std::string("granularity is ") + enum_text(s.granularity) +
           "; the static scales of an activation are per tensor or per channel.";
  if (s.granularity == Granularity::kChannel &&
      (s.zero_point != ZeroPointType::kNone || s.statistic != Statistic::kAbsMax) && s.source != ScaleSource::kConstant)
    return "granularity is channel; of an activation's channels calibration keeps only the largest magnitude, so "
           "zero_point must be none and statistic absmax.";
  constexpr Statistic kKept[] = {Statistic::kAbsMax, Statistic::kMinMax, Statistic::kPercentile, Statistic::kMse,
                                 Statistic::kMean,   Statistic::kMeanSigma, Statistic::kKl};
  if (std::find(std::begin(kKept), std::end(kKept), s.statistic) == std::end(kKept))
    return std::string("statistic is ") + enum_text(s.statistic) + "; it is defined for weights only.";
  return {};
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
  if (s.source == ScaleSource::kConstant || s.source == ScaleSource::kDynamic)
    return std::string("source is ") + enum_text(s.source) + "; the accumulator's scale follows from input and weight.";
  return {};
}

std::string check_common(const QuantSpec& s) {
  if (auto text = check_format(s); !text.empty()) return text;
  if (s.granularity == Granularity::kGroup && (s.group_size < 1 || s.group_size > kMaxGroup))
    return between("group_size", std::to_string(s.group_size), "1", std::to_string(kMaxGroup));
  if (s.axis && (*s.axis < -8 || *s.axis > 7)) return between("axis", std::to_string(*s.axis), "-8", "7");
  return first_of(check_statistic(s), check_zero_point(s), check_scale(s), check_clip(s));
}

std::string statistic_text(const QuantSpec& s) {
  if (s.source == ScaleSource::kConstant) return "scale " + number(s.scale_value.value_or(1));
  if (s.clip_min || s.clip_max) {
    const auto limit = [](std::optional<double> v) { return v ? with_minus(number(*v)) : std::string("?"); };
    return "clipped at " + limit(s.clip_min) + " … " + limit(s.clip_max);
  }
  switch (s.statistic) {
    case Statistic::kAbsMax: return "absolute maximum";
    case Statistic::kMinMax: return "min/max";
    case Statistic::kPercentile: return "percentile " + number(s.percentile) + " %";
    case Statistic::kMse: return "MSE";
    case Statistic::kMean: return "mean magnitude";
    case Statistic::kMeanSigma: return "mean + " + number(s.sigma) + " σ";
    case Statistic::kMaxMean: return "mean of the channels' maxima";
    case Statistic::kL1: return "L1 norm";
    case Statistic::kL2: return "L2 norm";
    case Statistic::kHe: return "He initialization";
    case Statistic::kKl: return "KL divergence";
    case Statistic::kHqo: return "HQO";
  }
  return {};
}

std::string granularity_text(const QuantSpec& s) {
  switch (s.granularity) {
    case Granularity::kTensor: return "per tensor";
    case Granularity::kChannel: return "per channel";
    case Granularity::kGroup: return "per group of " + std::to_string(s.group_size);
    case Granularity::kRow: return "per row";
  }
  return {};
}

std::string scale_text(const QuantSpec& s) {
  switch (s.scale) {
    case ScaleType::kFloat32: return "float32 scale";
    case ScaleType::kPowerOfTwo: return "power-of-two scale";
    case ScaleType::kFloat16: return "float16 scale";
    case ScaleType::kFloat8: return "float8 scale";
  }
  return {};
}

std::string float_name(const QuantSpec& s) {
  return "E" + std::to_string(s.exponent_bits) + "M" + std::to_string(s.mantissa_bits);
}

std::string format_text(const QuantSpec& s) {
  if (is_float(s)) {
    std::string text = float_name(s) + (s.is_signed ? "" : " unsigned") + ", largest " + number(largest_float(s));
    if (s.specials == FloatSpecials::kFnuz) text += ", FNUZ";
    return s.saturate ? text : text + ", not saturating";
  }
  if (s.format == "ternary") return std::string("Ternary ") + kMinus + "1, 0, 1";
  if (s.format == "binary") return std::string("Binary ") + kMinus + "1, 1";
  std::string text = (is_integer(s) ? "Integer" : s.format) + " " + std::to_string(s.bits) + " bit " +
                     (s.is_signed ? "signed" : "unsigned");
  if (s.bits > kMaxSymbolBits) return text;
  const CodeRange codes = code_range(s);
  return text + ", " + code_text(codes.lo) + " … " + code_text(codes.hi);
}

std::vector<Choice> granularity_choices(SiteKind site) {
  std::vector<Choice> out = {
      {"tensor", "Per tensor", "One scale for the whole tensor."},
      {"channel", "Per channel",
       is_activation(site) ? "One scale for each channel (axis 1). Symmetric only."
                           : "One scale for each output channel: no cost at run time on most targets."}};
  if (site != SiteKind::kWeight) return out;
  out.push_back({"group", "Per group",
                 "One scale for each block of group_size consecutive weights along the reduction axis."});
  out.push_back({"row", "Per row", "One scale for each line along the last axis."});
  return out;
}

std::vector<Choice> statistic_choices(SiteKind site) {
  std::vector<Choice> out = {
      {"absmax", "Absolute maximum", "t = max |x|: nothing is clipped."},
      {"minmax", "Min / max", "[min x, max x] widened to contain 0: nothing is clipped."},
      {"percentile", "Percentile",
       "The threshold that the given percentage of |x| stays below; with a zero point, of both tails."},
      {"mse", "Least squared error", "The threshold that minimizes Σ (x − x~)² by search."},
      {"kl", "Least KL divergence", "The threshold whose quantized histogram diverges least (Migacz 2017). Symmetric."},
      {"mean", "Mean magnitude", "t = mean |x|. Symmetric; the best scale of a binary format."},
      {"mean-sigma", "Mean + k σ", "t = mean |x| + k · standard deviation of |x|. Symmetric."}};
  if (is_activation(site)) return out;
  out.push_back({"max-mean", "Mean of channel maxima", "t = mean over the channels of max |x|. Per tensor."});
  out.push_back({"l1", "L1 norm", "t = Σ |x|. Symmetric."});
  out.push_back({"l2", "L2 norm", "t = √Σ x². Symmetric."});
  out.push_back({"he", "He initialization", "t = √(2 / fan in), from the shape alone (He et al. 2015). Symmetric."});
  out.push_back({"hqo", "Half-quadratic", "Scale and zero point by half-quadratic splitting (Badri and Shaji 2023)."});
  return out;
}

const char* const kIntOnly = "int";

void add_format_fields(SiteKind site, std::vector<Field>& f) {
  f.push_back(choice_field("format", "Format", "Number format: which values the codes stand for.", "int",
                           {{"int", "Integer", "x~ = (q − z) · s with q = clamp(rint(x / s) + z, lo, hi)."},
                            {"float", "Minifloat", "Sign, exponent and mantissa bits, with subnormals, times a scale."},
                            {"ternary", "Ternary", "−s, 0 or s."},
                            {"binary", "Binary", "−s or s; 0 becomes s."}}));
  f.push_back(when(integer_field("bits", "Bits", "Width of a code; 2^bits codes.", site == SiteKind::kBias ? 32 : 8, 1,
                                 kMaxBits, "bit"),
                   "format", {kIntOnly}));
  f.push_back(when(integer_field("exponent_bits", "Exponent", "Exponent bits.", 4, 1, 8, "bit"), "format", {"float"}));
  f.push_back(when(integer_field("mantissa_bits", "Mantissa", "Mantissa bits after the leading one.", 3, 0, 10, "bit"),
                   "format", {"float"}));
  f.push_back(when(choice_field("specials", "Infinity, NaN", "Patterns that are no numbers.", "nan",
                                {{"none", "None", "Every pattern is a number (OCP MX formats of 4 and 6 bits)."},
                                 {"nan", "NaN only", "All bits set is NaN (OCP E4M3)."},
                                 {"ieee", "As IEEE 754", "The highest exponent is infinity and NaN (OCP E5M2)."},
                                 {"fnuz", "FNUZ", "−0 is NaN; exponent bias one larger."}}),
                   "format", {"float"}));
  f.push_back(when(bool_field("saturate", "Saturate", "Values beyond the largest become it; else infinity or NaN.", true),
                   "format", {"float"}));
  f.push_back(when(real_field("ternary_threshold", "Threshold", "|x| up to this share of the scale becomes 0.", 0.5, 1e-6,
                              1 - 1e-6),
                   "format", {"ternary"}));
}

std::vector<Field> form_fields(SiteKind site) {
  const bool activation = is_activation(site);
  std::vector<Field> f;
  add_format_fields(site, f);
  f.push_back(when(bool_field("signed", "Signed",
                              "Codes −2^(b−1) … 2^(b−1)−1; otherwise 0 … 2^b−1, for tensors without negative values or "
                              "with a zero point.",
                              !activation),
                   "format", {"int", "float"}));
  f.push_back(when(bool_field("narrow", "Narrow range",
                              "Signed: drops the lowest code, so that the range is symmetric (8 bit: −127 … 127). "
                              "Unsigned: drops the highest.",
                              site == SiteKind::kWeight),
                   "format", {kIntOnly}));
  f.push_back(choice_field("granularity", "Granularity", "How many scales the tensor has.",
                           site == SiteKind::kWeight ? "channel" : "tensor", granularity_choices(site)));
  if (site == SiteKind::kWeight)
    f.push_back(when(integer_field("group_size", "Group size", "Values that share a scale; the last group may be shorter.",
                                   32, 1, kMaxGroup, "elements"),
                     "granularity", {"group"}));
  f.push_back(when(choice_field("zero_point", "Zero point", "Code of the value 0.", activation ? "integer" : "none",
                                {{"none", "None (symmetric)", "z = 0: cheaper arithmetic."},
                                 {"integer", "Integer (asymmetric)",
                                  "z = rint(lo − min / s), s = (max − min) / (hi − lo); the range always contains 0."},
                                 {"float", "Float", "z = lo − min / s, not rounded; added before the rounding."}}),
                   "format", {kIntOnly}));
  f.push_back(when(bool_field("zero_point_inside", "Added before rounding",
                              "rint(x / s + z) as QONNX; else rint(x / s) + z as ONNX and PyTorch.", false),
                   "zero_point", {"integer", "float"}));
  f.push_back(choice_field("statistic", "Range from", "What the clipping threshold, and so the scale, is computed from.",
                           activation ? "minmax" : "absmax", statistic_choices(site)));
  f.push_back(when(real_field("percentile", "Percentile",
                              "Share of |x| (symmetric) or of each tail (with a zero point) that is not clipped.", 99.999,
                              50, 100, "%"),
                   "statistic", {"percentile"}));
  f.push_back(when(real_field("sigma", "k", "Standard deviations above the mean.", 3, 0, 100), "statistic", {"mean-sigma"}));
  f.push_back(choice_field("scale", "Scale", "Which values the scale may take.", "float32",
                           {{"float32", "Float32", "Any positive float32."},
                            {"power-of-two", "Power of two", "2^e: multiplication by the scale is a shift."},
                            {"float16", "Float16", "A float16, rounded up."},
                            {"float8", "Two-level float8", "A float32 for the tensor and an E4M3 for each block (NVFP4)."}}));
  f.push_back(when(choice_field("exponent_rounding", "Exponent", "How the exponent of the scale follows from the threshold t.",
                                "ceil",
                                {{"ceil", "Ceil", "ceil(log2 t) − e: of an integer never clips."},
                                 {"floor", "Floor (OCP MX)", "floor(log2 t) − e: the top of a block may saturate."},
                                 {"round", "Round", "round(log2 t) − e."},
                                 {"fit", "Fit", "ceil(log2(t / largest)): the least that does not clip."},
                                 {"next", "Next", "floor(log2 t) + 1 − e: the least power of two above t (OCP MXINT8)."},
                                 {"even", "Even", "floor(log2 t) − e after rounding t's mantissa to the format's bits."}}),
                   "scale", {"power-of-two"}));
  f.push_back(choice_field("source", "Scale in training", "What quantization-aware training does with the scale.",
                           "statistics",
                           {{"statistics", "From statistics", "Computed anew from the tensor at every step."},
                            {"learned", "Learned", "A parameter trained by gradient (LSQ, Esser et al. 2020)."},
                            {"constant", "Constant", "The declaration's scale_value, 1 unless given; never changed."}}));
  f.push_back(when(choice_field("rounding", "Rounding", "How x / s becomes a code.", "half-even",
                                {{"half-even", "Half to even", "To the nearest, ties to the even one (IEEE 754)."},
                                 {"half-up", "Half up", "To the nearest, ties upward: floor(v + ½)."},
                                 {"half-away", "Half away from zero", "To the nearest, ties away from 0."},
                                 {"ceil", "Up", "ceil(v)."},
                                 {"floor", "Down", "floor(v)."},
                                 {"toward-zero", "Toward zero", "sign(v) · floor |v|."},
                                 {"dpu", "DPU", "Ties of negative values upward, of positive ones to even."},
                                 {"stochastic", "Stochastic", "Up with the probability of the fraction; seeded."}}),
                   "format", {"int", "float"}));
  f.push_back(when(integer_field("seed", "Seed", "Of the stochastic rounding.", 0, 0, 2147483647), "rounding", {"stochastic"}));
  return f;
}

Schema make_form(SiteKind site) {
  Schema schema{form_fields(site)};
  if (site != SiteKind::kBias) return schema;
  // A bias is an integer, at the accumulator's scale or at one of its own.
  std::erase_if(schema.fields, [](const Field& f) {
    return f.enabled_if && f.enabled_if->key == "format" && f.enabled_if->values == std::vector<json>{"float"};
  });
  std::erase_if(schema.fields, [](const Field& f) { return f.key == "ternary_threshold"; });
  for (auto& field : schema.fields) {
    if (field.key == "format") field.choices.resize(1);
    const bool of_format = field.enabled_if && field.enabled_if->key == "format";
    if (field.key == "format" || field.key == "bits" || (field.enabled_if && !of_format)) continue;
    field.enabled_if = EnabledIf{"scale_from_accumulator", {false}};
  }
  const auto after_bits = schema.fields.begin() + 2;
  schema.fields.insert(after_bits, bool_field("scale_from_accumulator", "Accumulator scale",
                                              "s = input scale · weight scale, zero point 0: the bias is added to the "
                                              "integer accumulator as it is.",
                                              true));
  return schema;
}

}  // namespace

int code_bits(const QuantSpec& spec) {
  if (is_float(spec)) return (spec.is_signed ? 1 : 0) + spec.exponent_bits + spec.mantissa_bits;
  if (spec.format == "ternary") return 2;
  if (spec.format == "binary") return 1;
  return spec.bits;
}

QuantSpec with_bits(QuantSpec spec, int bits) {
  spec.format = "int";
  spec.bits = bits;
  spec.narrow = spec.narrow && bits > 1;
  if (spec.exponent_rounding == ExponentRounding::kEven) spec.exponent_rounding = ExponentRounding::kCeil;
  if (spec.source == ScaleSource::kConstant) {
    spec.source = ScaleSource::kStatistics;
    spec.scale_value.reset();
  }
  return spec;
}

double largest_float(const QuantSpec& spec) {
  const int e = std::clamp(spec.exponent_bits, 1, 8), m = std::clamp(spec.mantissa_bits, 0, 10);
  const bool fnuz = spec.specials == FloatSpecials::kFnuz;
  const int bias = spec.exponent_bias.value_or((1 << (e - 1)) - (fnuz ? 0 : 1));
  // The highest pattern that is a number, as exponent field and mantissa field.
  int exponent = (1 << e) - 1, mantissa = (1 << m) - 1;
  if (spec.specials == FloatSpecials::kIeee) --exponent;
  if (spec.specials == FloatSpecials::kNan && --mantissa < 0) {
    --exponent;
    mantissa = (1 << m) - 1;
  }
  const double fraction = static_cast<double>(mantissa) / (1 << m);
  return exponent > 0 ? std::ldexp(1 + fraction, exponent - bias) : std::ldexp(fraction, 1 - bias);
}

CodeRange code_range(const QuantSpec& spec) {
  if (is_float(spec)) return {0, (std::int64_t{1} << code_bits(spec)) - 1};
  if (!is_integer(spec)) return {-1, 1};
  const int bits = std::clamp(spec.bits, 1, kMaxBits);
  const std::int64_t half = std::int64_t{1} << (bits - 1);
  if (spec.is_signed) return {spec.narrow ? 1 - half : -half, half - 1};
  return {0, 2 * half - (spec.narrow ? 2 : 1)};
}

std::string accumulator_problem(const QuantSpec* input, const QuantSpec* weight) {
  if (!weight) return "the weight is float";
  if (!input) return "the input is float";
  if (weight->granularity == Granularity::kGroup || weight->granularity == Granularity::kRow)
    return "the weight has one scale per group";
  if (weight->format != "int" || input->format != "int") return "input and weight are not both integers";
  if (input->granularity != Granularity::kTensor) return "the input has more than one scale";
  return {};
}

std::string check(const QuantSpec& spec) { return check_common(spec); }

std::string check(const QuantSpec& spec, SiteKind site) {
  if (auto text = check_common(spec); !text.empty()) return text;
  if (site == SiteKind::kBias) return check_bias(spec);
  if (spec.scale_from_accumulator) return "scale_from_accumulator is true; only a bias can have the accumulator's scale.";
  if (site == SiteKind::kWeight && spec.source == ScaleSource::kDynamic)
    return "source is dynamic; a weight does not change at run time.";
  return is_activation(site) ? check_activation(spec) : std::string();
}

std::string chip_text(const QuantSpec& spec, SiteKind site) {
  const char letter = !spec.is_signed ? 'U' : site == SiteKind::kWeight ? 'W' : site == SiteKind::kBias ? 'B' : 'A';
  if (is_float(spec)) {
    const bool mx = spec.scale == ScaleType::kPowerOfTwo && spec.granularity == Granularity::kGroup;
    return (mx ? "MX " : "") + float_name(spec);
  }
  if (spec.format == "ternary") return letter + std::string("1.58");
  const std::string base = letter + std::to_string(std::clamp(code_bits(spec), 1, kMaxBits));
  if (spec.scale == ScaleType::kPowerOfTwo) return base + " po2";
  if (spec.granularity != Granularity::kGroup) return base;
  const std::string grouped = base + " g" + std::to_string(spec.group_size);
  return grouped.size() <= 8 ? grouped : base;
}

std::string describe(const QuantSpec& spec) {
  std::string out = format_text(spec);
  if (spec.scale_from_accumulator) return out + ", scale of the accumulator";
  if (spec.zero_point != ZeroPointType::kNone)
    out += spec.zero_point == ZeroPointType::kFloat ? ", float zero point" : ", zero point";
  out += ", " + granularity_text(spec) + ", " + statistic_text(spec);
  if (spec.source != ScaleSource::kConstant) out += ", " + scale_text(spec);
  if (spec.rounding != Rounding::kHalfEven) out += std::string(", rounding ") + enum_text(spec.rounding);
  if (spec.source == ScaleSource::kLearned) out += ", learned in training";
  if (spec.source == ScaleSource::kDynamic) out += ", dynamic";
  return out;
}

const Schema& quant_spec_schema(SiteKind site) {
  static const Schema forms[] = {make_form(SiteKind::kWeight), make_form(SiteKind::kBias), make_form(SiteKind::kInput),
                                 make_form(SiteKind::kOutput)};
  return forms[static_cast<std::size_t>(site)];
}

}  // namespace quanvas
