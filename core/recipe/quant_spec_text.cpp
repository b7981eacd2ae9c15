// A QuantSpec in words.
#include "core/recipe/quant_spec.h"

#include <algorithm>

namespace quanvas {
namespace {

constexpr int kMaxBits = 32;
constexpr int kMaxSymbolBits = 16;  // up to here the lowest and highest code are worth telling
constexpr const char* kMinus = "\u2212";

bool is_integer(const QuantSpec& s) { return s.format == "int"; }
bool is_float(const QuantSpec& s) { return s.format == "float"; }

std::string number(double v) { return real(v).is_string() ? real(v).get<std::string>() : json(v).dump(); }

std::string with_minus(std::string text) {
  return !text.empty() && text[0] == '-' ? kMinus + text.substr(1) : text;
}
std::string code_text(std::int64_t v) { return with_minus(std::to_string(v)); }

std::string statistic_text(const QuantSpec& s) {
  if (s.source == ScaleSource::kConstant) return "scale " + number(s.scale_value.value_or(1));
  if (s.source == ScaleSource::kStored) return "scale of the model file";
  if (s.clip_min || s.clip_max) {
    const auto limit = [](std::optional<double> v) { return v ? with_minus(number(*v)) : std::string("?"); };
    return "clipped at " + limit(s.clip_min) + " … " + limit(s.clip_max);
  }
  switch (s.statistic) {
    case Statistic::kAbsMax: return "absolute maximum";
    case Statistic::kMinMax: return "min/max";
    case Statistic::kPercentile: return "percentile " + number(s.percentile) + " %";
    case Statistic::kMse: return s.search == Search::kBracketing ? "MSE by bracketing" : "MSE";
    case Statistic::kMean: return "mean magnitude";
    case Statistic::kMeanSigma: return "mean + " + number(s.sigma) + " σ";
    case Statistic::kMaxMean: return "mean of the channels' maxima";
    case Statistic::kL1: return "L1 norm";
    case Statistic::kL2: return "L2 norm";
    case Statistic::kHe: return "He initialization";
    case Statistic::kKl: return "KL divergence";
    case Statistic::kHqo: return "HQO";
    case Statistic::kMaxRms: return "RMS of the channels' maxima";
    case Statistic::kSignedMax: return "signed maximum";
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
    case ScaleType::kQuantized:
      return std::to_string(s.scale_bits) + " bit scale" +
             (s.scale_group > 0 ? " over " + std::to_string(s.scale_group) + " blocks" : "");
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
  if (const Codebook* book = find_codebook(s.format)) return book->title;
  std::string text = (is_integer(s) ? "Integer" : s.format) + " " + std::to_string(s.bits) + " bit " +
                     (s.is_signed ? "signed" : "unsigned");
  if (s.bits > kMaxSymbolBits) return text;
  const CodeRange codes = code_range(s);
  return text + ", " + code_text(codes.lo) + " … " + code_text(codes.hi);
}

}  // namespace

std::string chip_text(const QuantSpec& spec, SiteKind site) {
  const char letter = !spec.is_signed ? 'U' : site == SiteKind::kWeight ? 'W' : site == SiteKind::kBias ? 'B' : 'A';
  if (is_float(spec)) {
    const bool mx = spec.scale == ScaleType::kPowerOfTwo && spec.granularity == Granularity::kGroup;
    return (mx ? "MX " : "") + float_name(spec);
  }
  if (spec.format == "ternary") return letter + std::string("1.58");
  if (find_codebook(spec.format)) return spec.format;
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
    out += spec.zero_point == ZeroPointType::kFloat    ? ", float zero point"
           : spec.zero_point == ZeroPointType::kOffset ? ", offset"
                                                       : ", zero point";
  out += ", " + granularity_text(spec) + ", " + statistic_text(spec);
  if (spec.source != ScaleSource::kConstant && spec.source != ScaleSource::kStored) out += ", " + scale_text(spec);
  if (spec.rounding != Rounding::kHalfEven) out += std::string(", rounding ") + enum_text(spec.rounding);
  if (spec.accumulator_bits)
    out += ", " + std::to_string(*spec.accumulator_bits) + " bit accumulator" + (spec.zero_centered ? ", centered" : "");
  else if (spec.decoupled != Decoupling::kNone)
    out += std::string(", ") + enum_text(spec.decoupled) + " norm of its own";
  if (spec.truncation != Truncation::kNone) out += std::string(", truncating by ") + enum_text(spec.truncation);
  if (spec.batches != BatchStatistic::kAll)
    out += spec.batches == BatchStatistic::kMean ? ", mean of the batches" : ", moving average of the batches";
  if (spec.source == ScaleSource::kLearned)
    out += std::string(", learned in training") + (spec.scale_domain == ScaleDomain::kLinear ? " (linear)" : "") +
           (spec.learn_bits ? ", width learned" : "");
  if (spec.delay > 0) out += ", from step " + std::to_string(spec.delay);
  if (spec.source == ScaleSource::kDynamic) out += ", dynamic";
  return out;
}
}  // namespace quanvas
