// Quantizers of QONNX: the zero point is added before the rounding, scales are stretched to what they quantize.
#include <algorithm>
#include <cmath>

#include "plugins/importers/onnx_quant_parts.h"

namespace quanvas::onnx_import {
namespace {

Result<Rounding> rounding_of(const DraftNode& n) {
  static const std::map<std::string, Rounding> modes = {
      {"ROUND", Rounding::kHalfEven}, {"HALF_EVEN", Rounding::kHalfEven},    {"CEIL", Rounding::kCeil},
      {"FLOOR", Rounding::kFloor},    {"DOWN", Rounding::kTowardZero},       {"ROUND_TO_ZERO", Rounding::kTowardZero},
      {"DPU", Rounding::kDpu},        {"HALF_UP", Rounding::kHalfAway}};
  std::string mode = n.attributes.count("rounding_mode") ? n.text("rounding_mode") : "ROUND";
  std::transform(mode.begin(), mode.end(), mode.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto it = modes.find(mode);
  if (it == modes.end()) return no_quantizer("its rounding mode '" + mode + "' is none of a recipe's");
  return it->second;
}

// The patterns that leave just this largest value.
Status set_specials(QuantSpec& spec, const DraftNode& n, double largest) {
  const bool inf = n.integer("has_inf", 0) != 0, nan = n.integer("has_nan", 0) != 0;
  std::vector<FloatSpecials> kinds = {inf ? FloatSpecials::kIeee : nan ? FloatSpecials::kNan : FloatSpecials::kNone};
  if (spec.saturate) kinds.insert(kinds.end(), {FloatSpecials::kNone, FloatSpecials::kNan, FloatSpecials::kIeee});
  for (const FloatSpecials kind : kinds) {
    spec.specials = kind;
    if (check(spec).empty() && largest_float(spec) == largest) {
      const QuantSpec plain = [&] { QuantSpec s = spec; s.exponent_bias.reset(); return s; }();
      if (largest_float(plain) == largest) spec.exponent_bias.reset();
      return {};
    }
  }
  return no_quantizer("no minifloat has its largest value");
}

Status set_quant(const Draft& draft, Quantizer& q, const DraftNode& n) {
  QUANVAS_TRY(const double bits, constant_number(draft, n.input(3), "bit width"));
  if (!(bits >= 1 && bits <= 32) || bits != std::floor(bits)) return no_quantizer("its bit width is no whole number from 1 to 32");
  q.spec = stored_spec();
  q.spec.bits = static_cast<int>(bits);
  q.spec.is_signed = n.integer("signed", 1) != 0;
  q.spec.narrow = n.integer("narrow", 0) != 0;
  QUANVAS_TRY(q.spec.rounding, rounding_of(n));
  if (q.spec.bits != 1 || !q.spec.is_signed) return {};
  q.spec = stored_spec();  // one signed bit is a sign
  q.spec.format = "binary";
  return {};
}

Status set_float_quant(const Draft& draft, Quantizer& q, const DraftNode& n) {
  QUANVAS_TRY(const double exponent, constant_number(draft, n.input(2), "exponent width"));
  QUANVAS_TRY(const double mantissa, constant_number(draft, n.input(3), "mantissa width"));
  QUANVAS_TRY(const double bias, constant_number(draft, n.input(4), "exponent bias"));
  double largest = 0;
  if (!n.input(5).empty()) {
    QUANVAS_TRY(largest, constant_number(draft, n.input(5), "largest value"));
    if (!(largest > 0)) return no_quantizer("its largest value is not above 0");
  }
  const auto is_whole = [](double v, double lo, double hi) { return v >= lo && v <= hi && v == std::floor(v); };
  if (!is_whole(exponent, 1, 7) || !is_whole(mantissa, 0, 10) || !is_whole(bias, -64, 127))
    return no_quantizer("its widths or its exponent bias are no minifloat's");
  q.spec = stored_spec();
  q.spec.format = "float";
  q.spec.exponent_bits = static_cast<int>(exponent);
  q.spec.mantissa_bits = static_cast<int>(mantissa);
  q.spec.exponent_bias = static_cast<int>(bias);
  q.spec.saturate = n.integer("saturation", 1) != 0;
  QUANVAS_TRY(q.spec.rounding, rounding_of(n));
  const double most = (2 - std::exp2(-mantissa)) * std::exp2(std::exp2(exponent) - 1 - bias);
  return set_specials(q.spec, n, n.input(5).empty() ? most : std::min(most, largest));
}

// Scales and zero points that are stretched to x: one, or one for each entry of one axis.
Status set_broadcast(Quantizer& q, const Numbers& scale, const Numbers& zero, const std::optional<Shape>& x) {
  const bool one_scale = scale.values.size() == 1, one_zero = zero.values.size() == 1;
  q.scale = scale.values;
  q.zero_point = zero.values;
  if (one_scale && one_zero) return {};
  if (!one_scale && !one_zero && scale.shape != zero.shape) return no_quantizer("its scale and zero point have different shapes");
  const Shape& shape = one_scale ? zero.shape : scale.shape;
  if (!x || shape.size() > x->size()) return no_quantizer("it has several scales, and the shape of what it quantizes is not known");
  const std::size_t before = x->size() - shape.size();
  std::optional<std::size_t> axis;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;
    if (axis || shape[i] != (*x)[before + i])
      return no_quantizer("its scales " + shape_text(shape) + " are not one for each entry of one axis of " + shape_text(*x));
    axis = before + i;
  }
  const std::size_t count = std::max(scale.values.size(), zero.values.size());
  q.scale.resize(count, scale.values[0]);
  q.zero_point.resize(count, zero.values[0]);
  q.spec.granularity = Granularity::kChannel;
  q.spec.axis = static_cast<int>(axis.value_or(0));
  return {};
}

}  // namespace

Result<Quantizer> qonnx_quantizer(const Draft& draft, std::size_t index) {
  const DraftNode& n = draft.nodes[index];
  if (n.op == "Trunc") return no_quantizer("it removes bits of integers that another quantizer has made");
  Quantizer q;
  q.nodes = {index};
  q.input = n.input(0);
  q.output = n.outputs[0];
  if (q.input.empty()) return no_quantizer("it has no input");
  if (n.op == "BipolarQuant") {
    q.spec = stored_spec();
    q.spec.format = "binary";
  } else {
    QUANVAS_CHECK(n.op == "FloatQuant" ? set_float_quant(draft, q, n) : set_quant(draft, q, n));
  }
  const TensorFacts* facts = draft.known(q.input);
  const auto shape = facts ? facts->shape : std::nullopt;
  QUANVAS_TRY(const Numbers scale, scales_of(draft, n.input(1)));
  Numbers zero{{0.0f}, {}};
  if (n.op == "Quant" || n.op == "IntQuant") {
    QUANVAS_TRY(zero, constant_numbers(draft, n.input(2), "zero point"));
  }
  QUANVAS_CHECK(set_broadcast(q, scale, zero, shape));
  QUANVAS_CHECK(settle_zero_point(q));
  q.spec.zero_point_inside = q.spec.zero_point != ZeroPointType::kNone;
  QUANVAS_CHECK(take_constant(draft, q));
  return q;
}

}  // namespace quanvas::onnx_import
