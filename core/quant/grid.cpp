#include "core/quant/grid.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "core/quant/kernels.h"

namespace quanvas::quant {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::int32_t exponent_mask(const Grid& g) {
  return (1 << g.exponent_bits) - 1;
}
std::int32_t mantissa_mask(const Grid& g) {
  return (1 << g.mantissa_bits) - 1;
}
std::int32_t sign_bit(const Grid& g) {
  return g.is_signed ? 1 << (g.exponent_bits + g.mantissa_bits) : 0;
}

}  // namespace

Grid grid_of(const QuantSpec& spec) {
  Grid g;
  g.rounding = spec.rounding;
  g.seed = static_cast<std::uint32_t>(spec.seed);
  const CodeRange codes = code_range(spec);
  g.lo = static_cast<double>(codes.lo);
  g.hi = static_cast<double>(codes.hi);
  g.inside = spec.zero_point_inside;
  g.offset = spec.zero_point == ZeroPointType::kOffset;
  g.learned = spec.learned_rounding;
  g.soft = spec.soft_rounding;
  g.is_signed = spec.is_signed;
  if (spec.format == "ternary") {
    g.family = Family::kTernary;
    g.threshold = static_cast<float>(spec.ternary_threshold);
  } else if (spec.format == "binary") {
    g.family = Family::kBinary;
  } else if (const Codebook* book = find_codebook(spec.format)) {
    g.family = Family::kCodebook;
    g.values = &book->values;
  } else if (spec.format == "float") {
    g.family = Family::kFloat;
    g.exponent_bits = std::clamp(spec.exponent_bits, 1, 8);
    g.mantissa_bits = std::clamp(spec.mantissa_bits, 0, 10);
    const bool fnuz = spec.specials == FloatSpecials::kFnuz;
    g.bias = spec.exponent_bias.value_or((1 << (g.exponent_bits - 1)) - (fnuz ? 0 : 1));
    g.largest = static_cast<float>(largest_float(spec));
    g.saturate = spec.saturate;
    g.has_nan = spec.specials != FloatSpecials::kNone;
    g.negative_zero = spec.is_signed && !fnuz;
    g.overflow = spec.specials == FloatSpecials::kIeee ? kInf : g.has_nan ? kNan : g.largest;
  }
  return g;
}

double full_scale(const Grid& g) {
  switch (g.family) {
    case Family::kInteger:
      return std::max(1.0, g.is_signed ? -g.lo : g.hi);
    case Family::kFloat:
      return static_cast<double>(g.largest);
    case Family::kCodebook:
      return static_cast<double>(std::min(-g.values->front(), g.values->back()));
    case Family::kTernary:
    case Family::kBinary:
      return 1;
  }
  return 1;
}

int full_exponent(const Grid& g, const QuantSpec& spec) {
  if (g.family == Family::kInteger) return spec.is_signed ? spec.bits - 1 : spec.bits;
  return floor_log2(static_cast<float>(full_scale(g)));
}

int floor_log2(float v) {
  int exponent = 0;
  std::frexp(v, &exponent);
  return exponent - 1;
}
int ceil_log2(float v) {
  int exponent = 0;
  return std::frexp(v, &exponent) == 0.5f ? exponent - 1 : exponent;
}

double round_to_whole(Rounding rounding, double v, double random) {
  switch (rounding) {
    case Rounding::kHalfEven:
      return std::nearbyint(v);
    case Rounding::kHalfUp:
      return std::floor(v) + (v - std::floor(v) >= 0.5 ? 1 : 0);
    case Rounding::kHalfAway:
      return std::round(v);
    case Rounding::kCeil:
      return std::ceil(v);
    case Rounding::kFloor:
      return std::floor(v);
    case Rounding::kTowardZero:
      return std::trunc(v);
    case Rounding::kDpu:
      return v < 0 && v - std::floor(v) == 0.5 ? std::ceil(v) : std::nearbyint(v);
    case Rounding::kStochastic:
      return std::floor(v) + (random < v - std::floor(v) ? 1 : 0);
    case Rounding::kLearned:
      return std::nearbyint(v);  // without its parameter: see learned_round()
  }
  return v;
}

std::int32_t nearest_in(const std::vector<float>& values, float v) {
  if (std::isnan(v)) v = 0;
  const auto above = std::lower_bound(values.begin(), values.end(), v);
  if (above == values.begin()) return 0;
  if (above == values.end()) return static_cast<std::int32_t>(values.size()) - 1;
  const auto index = static_cast<std::int32_t>(above - values.begin());
  return *above - v < v - *(above - 1) ? index : index - 1;
}

const std::vector<float>& limits_of(const std::vector<float>& values) {
  // nearest_in() rises with v: bisection over the floats between two values finds where.
  static const std::map<const void*, std::vector<float>> all = [] {
    std::map<const void*, std::vector<float>> limits;
    for (const Codebook& book : codebooks())
      for (std::size_t i = 0; i + 1 < book.values.size(); ++i) {
        std::int64_t below = order_key(std::bit_cast<std::int32_t>(book.values[i]));
        std::int64_t reached = order_key(std::bit_cast<std::int32_t>(book.values[i + 1]));
        while (reached - below > 1) {
          const std::int64_t middle = below + (reached - below) / 2;
          (nearest_in(book.values, from_order_key(static_cast<std::int32_t>(middle))) > static_cast<std::int32_t>(i)
               ? reached
               : below) = middle;
        }
        limits[&book.values].push_back(from_order_key(static_cast<std::int32_t>(reached)));
      }
    return limits;
  }();
  return all.at(&values);
}

double learned_round(LearnedRounding kind, bool soft, float v, float p) {
  if (std::isnan(p)) return static_cast<double>(std::nearbyintf(v));
  if (kind == LearnedRounding::kIdentity)
    return static_cast<double>(std::nearbyintf(v + std::clamp(p, -0.5f, 0.5f)));
  const float sigmoid = 1.0f / (1.0f + std::exp(-p));
  const float added = kind == LearnedRounding::kSigmoid ? sigmoid : std::clamp(sigmoid * 1.2f - 0.1f, 0.0f, 1.0f);
  const double below = static_cast<double>(std::floor(v));
  if (!soft) return below + (added > 0.5f ? 1 : 0);
  return static_cast<double>(static_cast<float>(below) + added);
}

double element_random(std::uint32_t seed, std::int64_t element) {
  std::uint64_t z = (static_cast<std::uint64_t>(seed) << 32) ^ static_cast<std::uint64_t>(element);
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<double>(z >> 40) * 0x1p-24;
}

float nearest_float(const Grid& g, float v, std::int64_t element) {
  if (std::isnan(v)) return g.has_nan ? kNan : 0.0f;
  if (!g.is_signed && v < 0) return 0.0f;
  const float a = std::fabs(v);
  float magnitude;
  if (!(a < 2 * g.largest)) {
    magnitude = kInf;
  } else {
    const int exponent = a > 0 ? std::max(floor_log2(a), g.lowest_exponent()) : g.lowest_exponent();
    const float unit = std::ldexp(1.0f, exponent - g.mantissa_bits);
    // Rounded with its sign, which the directed modes look at.
    const double whole = round_to_whole(g.rounding, static_cast<double>(v / unit),
                                        g.rounding == Rounding::kStochastic ? element_random(g.seed, element) : 0);
    magnitude = static_cast<float>(std::fabs(whole)) * unit;
  }
  if (magnitude > g.largest) magnitude = g.saturate ? g.largest : g.overflow;
  if (magnitude == 0 && !g.negative_zero) return 0.0f;
  return std::copysign(magnitude, v);
}

std::int32_t float_code(const Grid& g, float value) {
  const std::int32_t sign = std::signbit(value) ? sign_bit(g) : 0;
  if (std::isnan(value)) {
    if (!g.has_nan) return 0;
    if (!g.negative_zero && g.is_signed) return sign_bit(g);  // fnuz
    return exponent_mask(g) << g.mantissa_bits | mantissa_mask(g);
  }
  const float a = std::fabs(value);
  if (a > g.largest) return sign | exponent_mask(g) << g.mantissa_bits;  // infinity
  if (a == 0) return g.negative_zero ? sign : 0;
  const int exponent = std::max(floor_log2(a), g.lowest_exponent());
  const auto units = static_cast<std::int32_t>(std::ldexp(a, g.mantissa_bits - exponent));
  // Subnormals have the field 0 and no leading one; carrying it over makes both cases one.
  return sign | (((exponent - g.lowest_exponent()) << g.mantissa_bits) + units);
}

float float_value(const Grid& g, std::int32_t code) {
  const bool negative = (code & sign_bit(g)) != 0;
  const std::int32_t magnitude = code & ((1 << (g.exponent_bits + g.mantissa_bits)) - 1);
  if (negative && magnitude == 0 && !g.negative_zero) return kNan;
  const std::int32_t field = magnitude >> g.mantissa_bits, fraction = magnitude & mantissa_mask(g);
  const float a = field > 0 ? std::ldexp(static_cast<float>(fraction + (1 << g.mantissa_bits)),
                                         field - g.bias - g.mantissa_bits)
                            : std::ldexp(static_cast<float>(fraction), g.lowest_exponent() - g.mantissa_bits);
  if (a > g.largest) return fraction == 0 && std::isinf(g.overflow) ? (negative ? -kInf : kInf) : kNan;
  return negative ? -a : a;
}

std::int64_t code_count(const Grid& g) {
  switch (g.family) {
    case Family::kInteger:
    case Family::kCodebook:
      return static_cast<std::int64_t>(g.hi - g.lo) + 1;
    case Family::kTernary:
      return 3;
    case Family::kBinary:
      return 2;
    case Family::kFloat:
      break;
  }
  std::int64_t count = 0;
  for (std::int32_t code = 0; code < 1 << ((g.is_signed ? 1 : 0) + g.exponent_bits + g.mantissa_bits); ++code)
    count += std::isfinite(float_value(g, code));
  return count;
}

}  // namespace quanvas::quant
