#include "core/recipe/quant_spec.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace quanvas {
namespace {

constexpr int kMaxBits = 16;
constexpr int kMaxBiasBits = 32;
constexpr int kMaxGroup = 65536;
constexpr const char* kMinus = "\u2212";

int max_bits(SiteKind site) { return site == SiteKind::kBias ? kMaxBiasBits : kMaxBits; }
bool is_activation(SiteKind site) { return site == SiteKind::kInput || site == SiteKind::kOutput; }

std::string number(double v) { return real(v).is_string() ? real(v).get<std::string>() : json(v).dump(); }

std::string with_minus(std::string text) {
  return !text.empty() && text[0] == '-' ? kMinus + text.substr(1) : text;
}
std::string code_text(std::int64_t v) { return with_minus(std::to_string(v)); }

std::string between(const char* field, const std::string& value, const std::string& lo, const std::string& hi) {
  return std::string(field) + " is " + value + "; it must lie between " + lo + " and " + hi + ".";
}

std::string check_bits(const QuantSpec& s, int most) {
  if (s.bits < 1 || s.bits > most)
    return between("bits", std::to_string(s.bits), "1", std::to_string(most));
  if (s.bits == 1 && s.narrow)
    return "narrow is true with 1 bit; that leaves a single code. Use 2 bits or the wide range.";
  return {};
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

std::string check_activation(const QuantSpec& s) {
  if (s.granularity == Granularity::kGroup)
    return "granularity is group; activations have static scales, per tensor or per channel.";
  if (s.granularity == Granularity::kChannel &&
      (s.zero_point != ZeroPointType::kNone || s.statistic == Statistic::kPercentile || s.statistic == Statistic::kMse))
    return "granularity is channel; of an activation's channels calibration keeps only the largest magnitude, so "
           "zero_point must be none and statistic absmax.";
  return {};
}

std::string check_bias(const QuantSpec& s) {
  if (s.granularity == Granularity::kGroup) return "granularity is group; a bias is per tensor or per channel.";
  if (!s.scale_from_accumulator) return {};
  if (!s.is_signed) return "signed is false; a bias with the accumulator's scale is a signed integer.";
  if (s.zero_point != ZeroPointType::kNone)
    return "zero_point is integer; a bias with the accumulator's scale has zero point 0.";
  if (s.clip_min || s.clip_max)
    return "clip_min and clip_max have no meaning for a bias with the accumulator's scale.";
  return {};
}

std::string check_common(const QuantSpec& s, int most_bits) {
  if (s.format != "int") return "format is '" + s.format + "'; known formats: int.";
  if (auto text = check_bits(s, most_bits); !text.empty()) return text;
  if (s.granularity == Granularity::kGroup && (s.group_size < 1 || s.group_size > kMaxGroup))
    return between("group_size", std::to_string(s.group_size), "1", std::to_string(kMaxGroup));
  if (!(s.percentile >= 50 && s.percentile <= 100)) return between("percentile", number(s.percentile), "50", "100");
  if (s.axis && (*s.axis < -8 || *s.axis > 7)) return between("axis", std::to_string(*s.axis), "-8", "7");
  return check_clip(s);
}

std::string statistic_text(const QuantSpec& s) {
  if (s.clip_min || s.clip_max) {
    const auto limit = [](std::optional<double> v) { return v ? with_minus(number(*v)) : std::string("?"); };
    return "clipped at " + limit(s.clip_min) + " … " + limit(s.clip_max);
  }
  switch (s.statistic) {
    case Statistic::kAbsMax: return "absolute maximum";
    case Statistic::kMinMax: return "min/max";
    case Statistic::kPercentile: return "percentile " + number(s.percentile) + " %";
    case Statistic::kMse: return "MSE";
  }
  return {};
}

std::string granularity_text(const QuantSpec& s) {
  if (s.granularity == Granularity::kTensor) return "per tensor";
  if (s.granularity == Granularity::kChannel) return "per channel";
  return "per group of " + std::to_string(s.group_size);
}

std::vector<Choice> granularity_choices(SiteKind site) {
  std::vector<Choice> out = {
      {"tensor", "Per tensor", "One scale for the whole tensor."},
      {"channel", "Per channel",
       is_activation(site) ? "One scale for each channel (axis 1). Symmetric only."
                           : "One scale for each output channel: no cost at run time on most targets."}};
  if (site == SiteKind::kWeight)
    out.push_back({"group", "Per group",
                   "One scale for each block of group_size consecutive weights along the reduction axis."});
  return out;
}

Field format_field() {
  return choice_field("format", "Format", "Number format: which values the codes stand for.", "int",
                      {{"int", "Integer", "x~ = (q − z) · s with q = clamp(rint(x / s) + z, lo, hi)."}});
}

Field statistic_field(SiteKind site) {
  return choice_field("statistic", "Range from", "What the clipping threshold, and so the scale, is computed from.",
                      is_activation(site) ? "minmax" : "absmax",
                      {{"absmax", "Absolute maximum", "t = max |x|: nothing is clipped."},
                       {"minmax", "Min / max", "[min x, max x] widened to contain 0: nothing is clipped."},
                       {"percentile", "Percentile",
                        "The threshold that the given percentage of |x| stays below; with a zero point, of both tails."},
                       {"mse", "Least squared error", "The threshold that minimizes Σ (x − x~)² by search."}});
}

std::vector<Field> form_fields(SiteKind site) {
  const bool activation = is_activation(site);
  std::vector<Field> f;
  f.push_back(format_field());
  f.push_back(integer_field("bits", "Bits", "Width of a code; 2^bits codes.", site == SiteKind::kBias ? 32 : 8, 1,
                            max_bits(site), "bit"));
  f.push_back(bool_field("signed", "Signed",
                         "Codes −2^(b−1) … 2^(b−1)−1; otherwise 0 … 2^b−1, for tensors without negative values or "
                         "with a zero point.",
                         !activation));
  f.push_back(bool_field("narrow", "Narrow range",
                         "Signed: drops the lowest code, so that the range is symmetric (8 bit: −127 … 127). "
                         "Unsigned: drops the highest.",
                         site == SiteKind::kWeight));
  f.push_back(choice_field("granularity", "Granularity", "How many scales the tensor has.",
                           site == SiteKind::kWeight ? "channel" : "tensor", granularity_choices(site)));
  if (site == SiteKind::kWeight)
    f.push_back(when(integer_field("group_size", "Group size", "Weights that share a scale; the last group may be shorter.",
                                   32, 1, kMaxGroup, "elements"),
                     "granularity", {"group"}));
  f.push_back(choice_field("zero_point", "Zero point", "Code of the value 0.", activation ? "integer" : "none",
                           {{"none", "None (symmetric)", "z = 0: cheaper arithmetic."},
                            {"integer", "Integer (asymmetric)",
                             "z = rint(lo − min / s), s = (max − min) / (hi − lo); the range always contains 0."}}));
  f.push_back(statistic_field(site));
  f.push_back(when(real_field("percentile", "Percentile",
                              "Share of |x| (symmetric) or of each tail (with a zero point) that is not clipped.", 99.999,
                              50, 100, "%"),
                   "statistic", {"percentile"}));
  f.push_back(choice_field("scale", "Scale", "Which values the scale may take.", "float32",
                           {{"float32", "Float32", "Any positive float32."},
                            {"power-of-two", "Power of two",
                             "2^ceil(log2(t / 2^(b−1))): multiplication by the scale is a shift."}}));
  f.push_back(choice_field("source", "Scale in training", "What quantization-aware training does with the scale.",
                           "statistics",
                           {{"statistics", "From statistics", "Computed anew from the tensor at every step."},
                            {"learned", "Learned", "A parameter trained by gradient (LSQ, Esser et al. 2020)."}}));
  f.push_back(choice_field("rounding", "Rounding", "How x / s becomes an integer.", "half-even",
                           {{"half-even", "Half to even", "To the nearest integer, ties to the even one (IEEE 754)."}}));
  return f;
}

Schema make_form(SiteKind site) {
  Schema schema{form_fields(site)};
  if (site != SiteKind::kBias) return schema;
  for (auto& field : schema.fields)
    if (field.key != "format" && field.key != "bits" && field.key != "rounding" && !field.enabled_if)
      field.enabled_if = EnabledIf{"scale_from_accumulator", {false}};
  const auto after_bits = schema.fields.begin() + 2;
  schema.fields.insert(after_bits, bool_field("scale_from_accumulator", "Accumulator scale",
                                              "s = input scale · weight scale, zero point 0: the bias is added to the "
                                              "integer accumulator as it is.",
                                              true));
  return schema;
}

}  // namespace

CodeRange code_range(const QuantSpec& spec) {
  const int bits = std::clamp(spec.bits, 1, kMaxBiasBits);
  const std::int64_t half = std::int64_t{1} << (bits - 1);
  if (spec.is_signed) return {spec.narrow ? 1 - half : -half, half - 1};
  return {0, 2 * half - (spec.narrow ? 2 : 1)};
}

std::string accumulator_problem(const QuantSpec* input, const QuantSpec* weight) {
  if (!weight) return "the weight is float";
  if (!input) return "the input is float";
  if (weight->granularity == Granularity::kGroup) return "the weight has one scale per group";
  if (input->granularity != Granularity::kTensor) return "the input has more than one scale";
  return {};
}

std::string check(const QuantSpec& spec) { return check_common(spec, kMaxBiasBits); }

std::string check(const QuantSpec& spec, SiteKind site) {
  if (auto text = check_common(spec, max_bits(site)); !text.empty()) return text;
  if (site == SiteKind::kBias) return check_bias(spec);
  if (spec.scale_from_accumulator) return "scale_from_accumulator is true; only a bias can have the accumulator's scale.";
  return is_activation(site) ? check_activation(spec) : std::string();
}

std::string chip_text(const QuantSpec& spec, SiteKind site) {
  const char letter = !spec.is_signed ? 'U' : site == SiteKind::kWeight ? 'W' : site == SiteKind::kBias ? 'B' : 'A';
  const std::string base = letter + std::to_string(std::clamp(spec.bits, 1, kMaxBiasBits));
  if (spec.scale == ScaleType::kPowerOfTwo) return base + " po2";
  if (spec.granularity != Granularity::kGroup) return base;
  const std::string grouped = base + " g" + std::to_string(spec.group_size);
  return grouped.size() <= 8 ? grouped : base;
}

std::string describe(const QuantSpec& spec) {
  std::string out = spec.format == "int" ? "Integer" : spec.format;
  out += " " + std::to_string(spec.bits) + " bit " + (spec.is_signed ? "signed" : "unsigned");
  if (spec.bits <= kMaxBits) {
    const CodeRange codes = code_range(spec);
    out += ", " + code_text(codes.lo) + " … " + code_text(codes.hi);
  }
  if (spec.scale_from_accumulator) return out + ", scale of the accumulator";
  if (spec.zero_point == ZeroPointType::kInteger) out += ", zero point";
  out += ", " + granularity_text(spec) + ", " + statistic_text(spec);
  out += spec.scale == ScaleType::kPowerOfTwo ? ", power-of-two scale" : ", float32 scale";
  if (spec.source == ScaleSource::kLearned) out += ", learned in training";
  return out;
}

const Schema& quant_spec_schema(SiteKind site) {
  static const Schema forms[] = {make_form(SiteKind::kWeight), make_form(SiteKind::kBias), make_form(SiteKind::kInput),
                                 make_form(SiteKind::kOutput)};
  return forms[static_cast<std::size_t>(site)];
}

}  // namespace quanvas
