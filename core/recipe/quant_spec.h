// Quanvas - QuantSpec: the declaration of a quantizer. A plain value, JSON in and out.
//
// number format x scale x zero point x granularity x rounding x how its parameters are found. Which
// combinations are legal is said by check(); what the fields mean numerically is said in core/quant/.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/base/json.h"
#include "core/base/schema.h"
#include "core/graph/layers.h"

namespace quanvas {

// kRow: one scale for each line along the axis (a token of an activation); the last axis unless `axis` says another.
enum class Granularity { kTensor, kChannel, kGroup, kRow };
inline const EnumNames<Granularity>& enum_names(Granularity) {
  static const EnumNames<Granularity> names = {{Granularity::kTensor, "tensor"},
                                               {Granularity::kChannel, "channel"},
                                               {Granularity::kGroup, "group"},
                                               {Granularity::kRow, "row"}};
  return names;
}

// Which patterns of a minifloat are no finite numbers.
//   none  every pattern is a number (the formats of OCP MX with 4 and 6 bits)
//   nan   all exponent and mantissa bits set: NaN, no infinity (OCP e4m3)
//   ieee  highest exponent: infinity and NaN (OCP e5m2, IEEE 754)
//   fnuz  the pattern of -0 is NaN, no infinity, exponent bias one larger
enum class FloatSpecials { kNone, kNan, kIeee, kFnuz };
inline const EnumNames<FloatSpecials>& enum_names(FloatSpecials) {
  static const EnumNames<FloatSpecials> names = {{FloatSpecials::kNone, "none"},
                                                 {FloatSpecials::kNan, "nan"},
                                                 {FloatSpecials::kIeee, "ieee"},
                                                 {FloatSpecials::kFnuz, "fnuz"}};
  return names;
}

// What the clip threshold (and so the scale) is computed from.
// kMean: mean of |x|; kMeanSigma: mean of |x| + sigma standard deviations of |x|; kMaxMean: mean over the channels of
// their largest magnitude; kHe: sqrt(2 / fan in), from the shape alone; kKl: least Kullback-Leibler divergence;
// kHqo: half-quadratic optimization (docs/quantizers.md). kMaxRms: root mean square over the channels of their largest
// magnitude. kSignedMax: the value of the largest magnitude itself, which gets the lowest code; the scale has its sign.
enum class Statistic { kAbsMax, kMinMax, kPercentile, kMse, kMean, kMeanSigma, kMaxMean, kL1, kL2, kHe, kKl, kHqo,
                       kMaxRms, kSignedMax };
inline const EnumNames<Statistic>& enum_names(Statistic) {
  static const EnumNames<Statistic> names = {{Statistic::kAbsMax, "absmax"},
                                             {Statistic::kMinMax, "minmax"},
                                             {Statistic::kPercentile, "percentile"},
                                             {Statistic::kMse, "mse"},
                                             {Statistic::kMean, "mean"},
                                             {Statistic::kMeanSigma, "mean-sigma"},
                                             {Statistic::kMaxMean, "max-mean"},
                                             {Statistic::kL1, "l1"},
                                             {Statistic::kL2, "l2"},
                                             {Statistic::kHe, "he"},
                                             {Statistic::kKl, "kl"},
                                             {Statistic::kHqo, "hqo"},
                                             {Statistic::kMaxRms, "max-rms"},
                                             {Statistic::kSignedMax, "signed-max"}};
  return names;
}

// How the threshold of least squared error is searched for (statistic mse).
//   grid        among 20 fractions of the extreme
//   bracketing  among 10, then the interval around the best is divided five times into thirds on either side
enum class Search { kGrid, kBracketing };
inline const EnumNames<Search>& enum_names(Search) {
  static const EnumNames<Search> names = {{Search::kGrid, "grid"}, {Search::kBracketing, "bracketing"}};
  return names;
}

// kFloat16: rounded up to a float16, so that nothing more is clipped. kFloat8: two levels, a float32 for the tensor
// and an e4m3 for each block (NVFP4). kQuantized: an integer of scale_bits bits times a float16 that scale_group blocks
// share; an offset likewise (the super-blocks of GGUF's K formats).
enum class ScaleType { kFloat32, kPowerOfTwo, kFloat16, kFloat8, kQuantized };
inline const EnumNames<ScaleType>& enum_names(ScaleType) {
  static const EnumNames<ScaleType> names = {{ScaleType::kFloat32, "float32"},
                                             {ScaleType::kPowerOfTwo, "power-of-two"},
                                             {ScaleType::kFloat16, "float16"},
                                             {ScaleType::kFloat8, "float8"},
                                             {ScaleType::kQuantized, "quantized"}};
  return names;
}

// Exponent of a power-of-two scale for the threshold t and the format's largest value m = 2^e ...:
//   ceil   ceil(log2 t) - e      floor  floor(log2 t) - e (OCP MX)      round  round(log2 t) - e
//   fit    ceil(log2(t / m)): the least scale that does not clip        even   floor(log2 t') - e, t' = t with its
//          mantissa rounded to the format's first
//   next   floor(log2 t) + 1 - e: the least power of two above t (OCP MXINT8)
enum class ExponentRounding { kCeil, kFloor, kRound, kFit, kEven, kNext };
inline const EnumNames<ExponentRounding>& enum_names(ExponentRounding) {
  static const EnumNames<ExponentRounding> names = {{ExponentRounding::kCeil, "ceil"},
                                                    {ExponentRounding::kFloor, "floor"},
                                                    {ExponentRounding::kRound, "round"},
                                                    {ExponentRounding::kFit, "fit"},
                                                    {ExponentRounding::kEven, "even"},
                                                    {ExponentRounding::kNext, "next"}};
  return names;
}

// kNone: symmetric, zero point 0. kOffset: a real number m instead of a zero point, x~ = q s + m.
enum class ZeroPointType { kNone, kInteger, kFloat, kOffset };
inline const EnumNames<ZeroPointType>& enum_names(ZeroPointType) {
  static const EnumNames<ZeroPointType> names = {{ZeroPointType::kNone, "none"},
                                                 {ZeroPointType::kInteger, "integer"},
                                                 {ZeroPointType::kFloat, "float"},
                                                 {ZeroPointType::kOffset, "offset"}};
  return names;
}

// kDpu: ties of negative values upward, of positive ones to even (Xilinx DPU). kStochastic: up with the probability
// of the fraction, from a counter-based generator: the same for any number of threads. kLearned: by a parameter of each
// element, see LearnedRounding.
enum class Rounding { kHalfEven, kHalfUp, kHalfAway, kCeil, kFloor, kTowardZero, kDpu, kStochastic, kLearned };
inline const EnumNames<Rounding>& enum_names(Rounding) {
  static const EnumNames<Rounding> names = {{Rounding::kHalfEven, "half-even"},   {Rounding::kHalfUp, "half-up"},
                                            {Rounding::kHalfAway, "half-away"},   {Rounding::kCeil, "ceil"},
                                            {Rounding::kFloor, "floor"},          {Rounding::kTowardZero, "toward-zero"},
                                            {Rounding::kDpu, "dpu"},              {Rounding::kStochastic, "stochastic"},
                                            {Rounding::kLearned, "learned"}};
  return names;
}

// kStatistics, kLearned: whether quantization-aware training recomputes the scale from the statistic at every step
// or learns it. kConstant: scale_value, in training too. kDynamic: from each tensor at run time, no calibration.
// kStored: scale and zero point that the model's file gives for this site and format (core/quant/stored.h), in training
// too; where it gives none, as kStatistics.
enum class ScaleSource { kStatistics, kLearned, kConstant, kDynamic, kStored };
inline const EnumNames<ScaleSource>& enum_names(ScaleSource) {
  static const EnumNames<ScaleSource> names = {{ScaleSource::kStatistics, "statistics"},
                                               {ScaleSource::kLearned, "learned"},
                                               {ScaleSource::kConstant, "constant"},
                                               {ScaleSource::kDynamic, "dynamic"},
                                               {ScaleSource::kStored, "stored"}};
  return names;
}

// How the parameter p of an element rounds v = x / s (AdaRound, Nagel et al. 2020, eq. 23, and variants):
//   hard-sigmoid  floor(v) + clamp(1.2 sigmoid(p) - 0.1, 0, 1)     sigmoid  floor(v) + sigmoid(p)
//   identity      rint(v + clamp(p, -0.5, 0.5))
// Frozen (soft_rounding false), what is added to floor(v) is 1 where it is above a half and 0 elsewhere.
enum class LearnedRounding { kHardSigmoid, kSigmoid, kIdentity };
inline const EnumNames<LearnedRounding>& enum_names(LearnedRounding) {
  static const EnumNames<LearnedRounding> names = {{LearnedRounding::kHardSigmoid, "hard-sigmoid"},
                                                   {LearnedRounding::kSigmoid, "sigmoid"},
                                                   {LearnedRounding::kIdentity, "identity"}};
  return names;
}

// How calibration batches count: kAll: one statistic of all samples together. kMean: the mean of the batches'
// statistics. kEma: an exponential moving average, momentum times the newest.
enum class BatchStatistic { kAll, kMean, kEma };
inline const EnumNames<BatchStatistic>& enum_names(BatchStatistic) {
  static const EnumNames<BatchStatistic> names = {
      {BatchStatistic::kAll, "all"}, {BatchStatistic::kMean, "mean"}, {BatchStatistic::kEma, "ema"}};
  return names;
}

// A scale for the codes that is not the scale of the values: q = round(x / pre), x~ = q s, pre = s norm(x) / g
// (weight normalization, Salimans and Kingma 2016) with a norm of each scale's elements and g the norm itself unless
// training or accumulator_bits make it smaller.
enum class Decoupling { kNone, kL1, kL2, kInf };
inline const EnumNames<Decoupling>& enum_names(Decoupling) {
  static const EnumNames<Decoupling> names = {
      {Decoupling::kNone, "none"}, {Decoupling::kL1, "l1"}, {Decoupling::kL2, "l2"}, {Decoupling::kInf, "inf"}};
  return names;
}

// Whether a learned scale is trained as itself or as its base-2 logarithm.
enum class ScaleDomain { kLinear, kLog };
inline const EnumNames<ScaleDomain>& enum_names(ScaleDomain) {
  static const EnumNames<ScaleDomain> names = {{ScaleDomain::kLinear, "linear"}, {ScaleDomain::kLog, "log"}};
  return names;
}

// Removal of the low bits of integers that have a scale already: q' = round(q / t), s' = s t. kMsb: t = 2^(bits in -
// bits out). kStatistic: the power of two that the statistic asks for, between 1 and that.
enum class Truncation { kNone, kMsb, kStatistic };
inline const EnumNames<Truncation>& enum_names(Truncation) {
  static const EnumNames<Truncation> names = {
      {Truncation::kNone, "none"}, {Truncation::kMsb, "msb"}, {Truncation::kStatistic, "statistic"}};
  return names;
}

struct QuantSpec {
  std::string format = "int";  // id of a number format: int, float, ternary, binary or a codebook (codebooks())
  int bits = 8;                // int: 1..32; 1 bit signed is {-1, 0} (wide). The others have a width of their own:
                               // code_bits()
  bool is_signed = true;
  bool narrow = false;         // int, signed: lowest code dropped; unsigned: highest code dropped
  // float: patterns of sign, exponent and mantissa, subnormals included
  int exponent_bits = 4;       // 1..7
  int mantissa_bits = 3;       // 0..10
  std::optional<int> exponent_bias;  // default 2^(exponent_bits - 1) - 1, of fnuz one more
  FloatSpecials specials = FloatSpecials::kNan;
  bool saturate = true;        // values beyond the largest become it; else infinity or NaN where the format has one
  double ternary_threshold = 0.5;    // ternary: |x| <= threshold * scale becomes 0
  ZeroPointType zero_point = ZeroPointType::kNone;
  bool zero_point_inside = false;    // rint(x / s + z) instead of rint(x / s) + z
  bool zero_in_range = true;   // the range is widened to contain 0
  Granularity granularity = Granularity::kTensor;
  std::optional<int> axis;     // channel axis, or the axis that groups divide; default: the layer's own
  int group_size = 32;
  Statistic statistic = Statistic::kAbsMax;
  Search search = Search::kGrid;  // mse
  double percentile = 99.999;  // of |x| (symmetric) or of both tails (asymmetric); 50..100
  double sigma = 3;            // mean-sigma: standard deviations; 0..100
  ScaleType scale = ScaleType::kFloat32;
  ExponentRounding exponent_rounding = ExponentRounding::kCeil;  // power-of-two
  int scale_bits = 6;          // quantized: 2..8
  int scale_group = 8;         // quantized: blocks along the axis that share a float16; 0: all of a line
  ScaleSource source = ScaleSource::kStatistics;
  std::optional<double> scale_value;  // constant: the scale itself
  BatchStatistic batches = BatchStatistic::kAll;
  double momentum = 0.1;       // batches ema: share of the newest; above 0, up to 1
  Rounding rounding = Rounding::kHalfEven;
  int seed = 0;                // stochastic rounding
  LearnedRounding learned_rounding = LearnedRounding::kHardSigmoid;
  bool soft_rounding = false;  // learned rounding: the parameter's value itself, as during its training
  Decoupling decoupled = Decoupling::kNone;
  // Least width of a signed accumulator that no input can overflow (A2Q, Colbert et al. 2023, eq. 15; zero_centered:
  // A2Q+, Colbert et al. 2024): the norm l1 of each channel's codes is bounded. 4..32.
  std::optional<int> accumulator_bits;
  int accumulator_input_bits = 8;     // of the input's codes
  bool accumulator_input_signed = false;
  bool zero_centered = false;
  Truncation truncation = Truncation::kNone;
  // Quantization-aware training.
  ScaleDomain scale_domain = ScaleDomain::kLog;  // of a learned scale
  bool learn_zero_point = false;
  bool learn_bits = false;     // the width is trained, 2 bits at least; starts from `bits`
  // No gradient where x is clipped; default: for activations.
  std::optional<bool> clip_gradient;
  int delay = 0;               // training steps before quantization begins
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
  v("exponent_bits", s.exponent_bits);
  v("mantissa_bits", s.mantissa_bits);
  v("exponent_bias", s.exponent_bias);
  v("specials", s.specials);
  v("saturate", s.saturate);
  v("ternary_threshold", s.ternary_threshold);
  v("zero_point", s.zero_point);
  v("zero_point_inside", s.zero_point_inside);
  v("zero_in_range", s.zero_in_range);
  v("granularity", s.granularity);
  v("axis", s.axis);
  v("group_size", s.group_size);
  v("statistic", s.statistic);
  v("search", s.search);
  v("percentile", s.percentile);
  v("sigma", s.sigma);
  v("scale", s.scale);
  v("exponent_rounding", s.exponent_rounding);
  v("scale_bits", s.scale_bits);
  v("scale_group", s.scale_group);
  v("source", s.source);
  v("scale_value", s.scale_value);
  v("batches", s.batches);
  v("momentum", s.momentum);
  v("rounding", s.rounding);
  v("seed", s.seed);
  v("learned_rounding", s.learned_rounding);
  v("soft_rounding", s.soft_rounding);
  v("decoupled", s.decoupled);
  v("accumulator_bits", s.accumulator_bits);
  v("accumulator_input_bits", s.accumulator_input_bits);
  v("accumulator_input_signed", s.accumulator_input_signed);
  v("zero_centered", s.zero_centered);
  v("truncation", s.truncation);
  v("scale_domain", s.scale_domain);
  v("learn_zero_point", s.learn_zero_point);
  v("learn_bits", s.learn_bits);
  v("clip_gradient", s.clip_gradient);
  v("delay", s.delay);
  v("clip_min", s.clip_min);
  v("clip_max", s.clip_max);
  v("scale_from_accumulator", s.scale_from_accumulator);
}

// A number format that is a list of values, ascending, in units of the scale.
struct Codebook {
  std::string id, title, doc;
  std::vector<float> values;
};
const std::vector<Codebook>& codebooks();
const Codebook* find_codebook(const std::string& id);  // null when there is none

// Bits of one code as it is stored: `bits` of an integer, sign + exponent + mantissa of a minifloat, 2, 1.
int code_bits(const QuantSpec& spec);
// The same quantizer with integers of so many bits: what a sweep over widths tries.
QuantSpec with_bits(QuantSpec spec, int bits);
// The largest finite value of a minifloat in units of the scale, and the exponent of its leading bit.
double largest_float(const QuantSpec& spec);

// Lowest and highest code; of a minifloat its bit patterns, from 0 on.
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
// The same of recurrent layers.
inline constexpr const char* kSeveralProducts = "the layer adds up products of several weights";
// "W4", "U8", "A4 po2" ...: chip text of at most 8 characters; `site` decides the letter of signed formats.
std::string chip_text(const QuantSpec& spec, SiteKind site);
// "Integer 4 bit signed, −7 … 7, per channel, MSE, float32 scale".
std::string describe(const QuantSpec& spec);
// The form of the inspector for a site kind: fields with titles, docs, ranges, choices, enabled-if. Keys are
// those of QuantSpec's JSON; clip_min and clip_max are dragged in the histogram and so not in the form: an edit replaces
// the form's keys in the JSON of the old spec and keeps the others.
const Schema& quant_spec_schema(SiteKind site);

}  // namespace quanvas
