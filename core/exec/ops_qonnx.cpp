// Quantizers of QONNX and FINN as operators: what no rule of a recipe can say runs as the file has it. Semantics: QONNX
// (Pappalardo et al. 2022, https://github.com/fastmachinelearning/qonnx): the zero point is added before the rounding,
// values are clamped before they are rounded, everything in float32.
#include <ATen/ATen.h>

#include <cmath>

#include "core/exec/ops.h"

namespace quanvas::exec {
namespace {

using Rounder = at::Tensor (*)(const at::Tensor&);

at::Tensor away(const at::Tensor& x) { return at::sign(x) * at::ceil(at::abs(x)); }
at::Tensor half_away(const at::Tensor& x) { return at::sign(x) * at::floor(at::abs(x) + 0.5); }
at::Tensor half_inward(const at::Tensor& x) { return at::sign(x) * at::ceil(at::abs(x) - 0.5); }
// Ties of negative values upward, of positive ones to even.
at::Tensor dpu(const at::Tensor& x) { return at::where(x < 0, at::floor(x + 0.5), at::round(x)); }
at::Tensor to_even(const at::Tensor& x) { return at::round(x); }
at::Tensor upward(const at::Tensor& x) { return at::ceil(x); }
at::Tensor downward(const at::Tensor& x) { return at::floor(x); }
at::Tensor inward(const at::Tensor& x) { return at::trunc(x); }

Rounder rounder(const std::string& mode) {
  static const std::map<std::string, Rounder> modes = {
      {"ROUND", to_even},   {"HALF_EVEN", to_even},     {"CEIL", upward}, {"FLOOR", downward},
      {"UP", away},         {"DOWN", inward},           {"DPU", dpu},     {"ROUND_TO_ZERO", inward},
      {"HALF_UP", half_away}, {"HALF_DOWN", half_inward}};
  std::string name = mode;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
  const auto it = modes.find(name);
  return it == modes.end() ? nullptr : it->second;
}

std::string refuse_rounding(const Node& node) {
  const std::string mode = node.text("rounding_mode", node.op == "Trunc" ? "FLOOR" : "ROUND");
  return rounder(mode) ? std::string() : "its rounding_mode is '" + mode + "', which is none of QONNX's";
}

at::Tensor real(const OpCall& call, std::size_t i) { return call.x(i).to(at::kFloat); }

// Scales and zero points are stretched to x, never the other way round.
Status check_fits(const at::Tensor& x, const at::Tensor& parameter, const char* what) {
  const auto extra = x.dim() - parameter.dim();
  bool fits = extra >= 0;
  for (std::int64_t i = 0; fits && i < parameter.dim(); ++i)
    fits = parameter.size(i) == 1 || parameter.size(i) == x.size(i + extra);
  if (fits) return {};
  return bad_node(std::string("its ") + what + " " + sizes_text(parameter) + " does not fit its input " + sizes_text(x) + ".");
}

Result<at::Tensor> scale_of(const OpCall& call, std::size_t i, const at::Tensor& x) {
  const at::Tensor scale = real(call, i);
  QUANVAS_CHECK(check_fits(x, scale, "scale"));
  if (!(scale.gt(0) & at::isfinite(scale)).all().item<bool>())
    return bad_node("its scale is not above 0 and finite.", "Look at the scale's values in the file.");
  return scale;
}

Result<at::Tensor> zero_of(const OpCall& call, std::size_t i, const at::Tensor& x) {
  const at::Tensor zero = real(call, i);
  QUANVAS_CHECK(check_fits(x, zero, "zero point"));
  if (!at::isfinite(zero).all().item<bool>()) return bad_node("its zero point is not finite.");
  return zero;
}

Result<at::Tensor> width_of(const OpCall& call, std::size_t i, const at::Tensor& x) {
  const at::Tensor bits = call.x(i).to(at::kDouble);
  QUANVAS_CHECK(check_fits(x, bits, "bit width"));
  if (!(bits.ge(1) & bits.le(32)).all().item<bool>())
    return bad_node("its bit width does not lie between 1 and 32.", "Look at the bit width's value in the file.");
  return bits;
}

at::Tensor clamp_codes(const at::Tensor& q, const at::Tensor& bits, bool is_signed, bool narrow) {
  const at::Tensor half = at::exp2(bits - 1), lost = at::full({}, narrow ? 1.0 : 0.0, half.options());
  const at::Tensor lo = is_signed ? lost - half : at::zeros_like(half);
  const at::Tensor hi = is_signed ? half - 1 : 2 * half - 1 - lost;
  return at::minimum(at::maximum(q, lo.to(at::kFloat)), hi.to(at::kFloat));
}

at::Tensor signs(const at::Tensor& x) { return at::where(x.ge(0), at::ones({}, x.options()), at::full({}, -1.0, x.options())); }

OpResult quant_node(const OpCall& call) {
  const at::Tensor x = real(call, 0);
  QUANVAS_TRY(const at::Tensor scale, scale_of(call, 1, x));
  QUANVAS_TRY(const at::Tensor zero, zero_of(call, 2, x));
  QUANVAS_TRY(const at::Tensor bits, width_of(call, 3, x));
  const bool is_signed = call.node.integer("signed", 1) != 0;
  const at::Tensor q = x / scale + zero;
  const bool bipolar = is_signed && bits.numel() == 1 && bits.item<double>() == 1;
  const Rounder round = rounder(call.node.text("rounding_mode", "ROUND"));
  const at::Tensor code = bipolar ? signs(q) : round(clamp_codes(q, bits, is_signed, call.node.integer("narrow", 0) != 0));
  return one((code - zero) * scale);
}

OpResult bipolar_quant(const OpCall& call) {
  const at::Tensor x = real(call, 0);
  QUANVAS_TRY(const at::Tensor scale, scale_of(call, 1, x));
  return one(signs(x) * scale);
}

// With five inputs the result keeps the scale of the input (version 1), with six it has one of its own.
OpResult trunc_node(const OpCall& call) {
  const at::Tensor x = real(call, 0);
  const bool own_scale = call.in.size() > 5;
  if (call.in.size() > 6) return bad_node("it has " + std::to_string(call.in.size()) + " inputs; QONNX gives it 5 or 6.");
  QUANVAS_TRY(const at::Tensor scale, scale_of(call, 1, x));
  QUANVAS_TRY(const at::Tensor zero, zero_of(call, 2, x));
  QUANVAS_TRY(const at::Tensor bits, width_of(call, 3, x));
  QUANVAS_TRY(const at::Tensor bits_out, width_of(call, own_scale ? 5 : 4, x));
  const Rounder round = rounder(call.node.text("rounding_mode", "FLOOR"));
  const at::Tensor whole = at::round(x / scale + zero);
  if (!own_scale) return one((round(whole / at::exp2(bits - bits_out).to(at::kFloat)) - zero) * scale);
  QUANVAS_TRY(const at::Tensor scale_out, scale_of(call, 4, x));
  const at::Tensor cut = at::exp2(at::round(at::log2(scale_out / scale)));
  const at::Tensor code =
      round(clamp_codes(whole / cut, bits_out, call.node.integer("signed", 1) != 0, call.node.integer("narrow", 0) != 0));
  return one((code - zero / cut) * scale_out);
}

Result<double> whole_number(const OpCall& call, std::size_t i, const char* what, double lo, double hi) {
  QUANVAS_TRY(const double v, one_real(call.x(i), what));
  if (v >= lo && v <= hi && v == std::floor(v)) return v;
  return bad_node(std::string("its ") + what + " is no whole number between " + std::to_string(static_cast<int>(lo)) +
                  " and " + std::to_string(static_cast<int>(hi)) + ".");
}

OpResult float_quant(const OpCall& call) {
  const at::Tensor x = real(call, 0);
  QUANVAS_TRY(const at::Tensor scale, scale_of(call, 1, x));
  QUANVAS_TRY(const double exponent, whole_number(call, 2, "exponent width", 1, 8));
  QUANVAS_TRY(const double mantissa, whole_number(call, 3, "mantissa width", 0, 23));
  QUANVAS_TRY(const double bias, whole_number(call, 4, "exponent bias", -64, 127));
  double largest = (2 - std::exp2(-mantissa)) * std::exp2(std::exp2(exponent) - 1 - bias);
  if (call.has(5)) {
    QUANVAS_TRY(const double most, one_real(call.x(5), "largest value"));
    if (!(most > 0)) return bad_node("its largest value is not above 0.");
    largest = std::min(largest, most);
  }
  const at::Tensor v = x / scale;
  const at::Tensor leading = std::get<1>(at::frexp(v)).to(at::kFloat) - 1;  // exponent of the leading bit
  const at::Tensor step = at::exp2(at::clamp_min(at::where(v.eq(0), at::full_like(leading, -126), leading) - mantissa, 1 - bias - mantissa));
  const at::Tensor q = step * rounder(call.node.text("rounding_mode", "ROUND"))(v / step);
  const at::Tensor held = at::clamp(q, -largest, largest);
  if (call.node.integer("saturation", 1) != 0) return one(held * scale);
  const bool has_inf = call.node.integer("has_inf", 0) != 0;
  if (!has_inf && call.node.integer("has_nan", 0) == 0)
    return bad_node("it does not saturate, and its format has neither infinity nor NaN.");
  const at::Tensor beyond = has_inf ? at::sign(q) * INFINITY : at::full_like(q, NAN);
  return one(at::where(at::abs(q).gt(largest), beyond, held) * scale);
}

// How many of the channel's thresholds x reaches.
OpResult multi_threshold(const OpCall& call) {
  const at::Tensor x = real(call, 0), thresholds = real(call, 1);
  if (thresholds.dim() != 2 || thresholds.size(0) < 1)
    return bad_node("its thresholds are " + sizes_text(thresholds) + "; they must be [channels, steps].");
  if (at::isnan(thresholds).any().item<bool>()) return bad_node("one of its thresholds is NaN.");
  const std::string layout = call.node.text("data_layout", "NCHW");
  const bool last = (x.dim() != 2 && x.dim() != 4) || layout == "NHWC";
  const std::int64_t axis = last || x.dim() < 2 ? x.dim() - 1 : 1;
  if (x.dim() == 0 || (thresholds.size(0) != 1 && thresholds.size(0) != x.size(axis)))
    return bad_node("its thresholds " + sizes_text(thresholds) + " do not fit the channels of " + sizes_text(x) + ".");
  const at::Tensor moved = at::movedim(x, axis, 0).contiguous();
  const at::Tensor sorted = std::get<0>(at::sort(thresholds, 1)).expand({x.size(axis), thresholds.size(1)}).contiguous();
  at::Tensor count = at::searchsorted(sorted, moved.reshape({x.size(axis), -1}), false, true).reshape(moved.sizes());
  count = at::where(at::isnan(moved), at::zeros_like(count), count);
  const double scale = call.node.real("out_scale", 1), bias = call.node.real("out_bias", 0);
  return one((at::movedim(count, 0, axis).to(at::kDouble) * scale + bias).to(at::kFloat).contiguous());
}

}  // namespace

const std::vector<OpRow>& qonnx_ops() {
  static const std::vector<OpRow> rows = {{"Quant", 4, quant_node, refuse_rounding},
                                          {"IntQuant", 4, quant_node, refuse_rounding},
                                          {"BipolarQuant", 2, bipolar_quant},
                                          {"Trunc", 5, trunc_node, refuse_rounding},
                                          {"FloatQuant", 5, float_quant, refuse_rounding},
                                          {"MultiThreshold", 2, multi_threshold}};
  return rows;
}

}  // namespace quanvas::exec
