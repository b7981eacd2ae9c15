#include "core/quant/qtensor.h"

#include <algorithm>
#include <cmath>

#include "core/quant/grid.h"
#include "core/quant/packing.h"

namespace quanvas::quant {
namespace {

Failure refused(std::string why, std::string hint = {}) {
  return fail(ErrorCode::kUnsupported, std::move(why), std::move(hint));
}

bool plain_integers(const QuantParams& p) {
  return p.spec.format == "int" && p.spec.zero_point != ZeroPointType::kFloat && p.spec.zero_point != ZeroPointType::kOffset;
}

// The narrowest declaration of integers that holds lo .. hi with scales and zero points as given.
Result<QuantParams> widened(QuantParams params, std::int64_t lo, std::int64_t hi) {
  int bits = 1;
  const bool is_signed = lo < 0;
  const auto fits = [&] {
    return is_signed ? lo >= -(std::int64_t{1} << (bits - 1)) && hi <= (std::int64_t{1} << (bits - 1)) - 1
                     : hi <= (std::int64_t{1} << bits) - 1;
  };
  while (bits < 33 && !fits()) ++bits;
  if (bits > 32)
    return refused("The result needs codes from " + std::to_string(lo) + " to " + std::to_string(hi) +
                   "; at most 32 bits are possible.");
  params.spec.bits = bits;
  params.spec.is_signed = is_signed;
  params.spec.narrow = false;
  params.lo = lo;
  params.hi = hi;
  params.code_scale.clear();
  params.center.clear();
  params.rounding.clear();
  params.super_scale.clear();
  params.super_offset.clear();
  params.spec.decoupled = Decoupling::kNone;
  params.spec.accumulator_bits.reset();
  params.spec.zero_centered = false;
  return params;
}

// Whether codes of both stand for the same values, scales apart.
bool same_grid(const QuantParams& a, const QuantParams& b) {
  const QuantSpec &s = a.spec, &t = b.spec;
  return s.format == t.format && a.lo == b.lo && a.hi == b.hi && s.zero_point == t.zero_point &&
         s.exponent_bits == t.exponent_bits && s.mantissa_bits == t.mantissa_bits && s.exponent_bias == t.exponent_bias &&
         s.specials == t.specials && s.is_signed == t.is_signed;
}
bool same_layout(const BlockLayout& a, const BlockLayout& b) {
  return a.granularity == b.granularity && a.outer == b.outer && a.dim == b.dim && a.inner == b.inner && a.group == b.group;
}

// What is packed: a binary code as one bit, 1 for the positive value.
bool is_binary(const QuantParams& p) { return p.spec.format == "binary"; }

std::int64_t whole(const QuantParams& p, std::int32_t code) {
  return p.lo >= 0 ? static_cast<std::int64_t>(static_cast<std::uint32_t>(code)) : code;
}

}  // namespace

Result<QTensor> QTensor::quantize(const QuantParams& params, const Shape& shape, const float* x) {
  QUANVAS_TRY(const BlockLayout layout, rebatch(params, shape));
  std::vector<std::int32_t> codes(static_cast<std::size_t>(layout.elements()));
  quantize_codes(params, layout, x, codes.data());
  return QTensor(params, layout, shape, std::move(codes));
}

Result<QTensor> QTensor::from_values(const QuantParams& params, const Shape& shape, const std::vector<float>& values) {
  QUANVAS_TRY(const BlockLayout layout, rebatch(params, shape));
  if (static_cast<std::int64_t>(values.size()) != layout.elements())
    return fail(ErrorCode::kInvalidArgument, std::to_string(values.size()) + " values do not fill the shape " + shape_text(shape) + ".");
  // The code of a value on the grid, found without the center that a decoupled quantizer takes off first.
  QuantParams plain = params;
  plain.code_scale.clear();
  plain.center.clear();
  plain.rounding.clear();
  plain.spec.rounding = Rounding::kHalfEven;
  std::vector<std::int32_t> codes(values.size());
  quantize_codes(plain, layout, values.data(), codes.data());
  QTensor t(params, layout, shape, std::move(codes));
  const std::vector<float> back = t.values();
  for (std::size_t i = 0; i < values.size(); ++i)
    if (back[i] != values[i] && !(std::isnan(back[i]) && std::isnan(values[i])))
      return fail(ErrorCode::kInvalidArgument,
                  "Value " + std::to_string(values[i]) + " of element " + std::to_string(i) +
                      " is not on the quantizer's grid; the nearest grid point is " + std::to_string(back[i]) + ".",
                  "Quantize the tensor first.");
  return t;
}

Result<QTensor> QTensor::from_codes(const QuantParams& params, const Shape& shape, std::vector<std::int32_t> codes) {
  QUANVAS_TRY(const BlockLayout layout, rebatch(params, shape));
  QTensor t(params, layout, shape, std::move(codes));
  if (const std::string why = t.problem(); !why.empty()) return fail(ErrorCode::kInvalidArgument, why);
  return t;
}

Result<QTensor> QTensor::from_packed(const QuantParams& params, const Shape& shape, const std::vector<std::uint8_t>& bytes) {
  QUANVAS_TRY(const BlockLayout layout, rebatch(params, shape));
  const int bits = code_bits(params.spec);
  const std::int64_t needed = packed_bytes(layout.elements(), bits);
  if (static_cast<std::int64_t>(bytes.size()) != needed)
    return fail(ErrorCode::kInvalidArgument, std::to_string(bytes.size()) + " bytes do not hold " +
                                                 std::to_string(layout.elements()) + " codes of " + std::to_string(bits) +
                                                 " bits, which take " + std::to_string(needed) + ".");
  std::vector<std::int32_t> codes(static_cast<std::size_t>(layout.elements()));
  unpack(bytes.data(), layout.elements(), bits, params.lo < 0 && !is_binary(params), codes.data());
  if (is_binary(params))
    for (std::int32_t& q : codes) q = 2 * q - 1;
  return from_codes(params, shape, std::move(codes));
}

std::vector<float> QTensor::values() const {
  std::vector<float> out(codes_.size());
  dequantize_codes(params_, layout_, codes_.data(), out.data());
  return out;
}

std::vector<std::uint8_t> QTensor::packed() const {
  const auto n = static_cast<std::int64_t>(codes_.size());
  std::vector<std::uint8_t> out(static_cast<std::size_t>(packed_bytes(n, bits())));
  std::vector<std::int32_t> positive;
  if (is_binary(params_))
    for (const std::int32_t q : codes_) positive.push_back(q > 0);
  pack(positive.empty() ? codes_.data() : positive.data(), n, bits(), out.data());
  return out;
}

std::string QTensor::problem() const {
  if (static_cast<std::int64_t>(codes_.size()) != layout_.elements())
    return std::to_string(codes_.size()) + " codes do not fill the shape " + shape_text(shape_) + ".";
  if (static_cast<std::int64_t>(params_.scale.size()) != layout_.parameters())
    return std::to_string(params_.scale.size()) + " scales where the layout has " + std::to_string(layout_.parameters()) + ".";
  if (!params_.zero_point.empty() && params_.zero_point.size() != params_.scale.size())
    return std::to_string(params_.zero_point.size()) + " zero points for " + std::to_string(params_.scale.size()) + " scales.";
  for (std::size_t i = 0; i < params_.scale.size(); ++i)
    if (!std::isfinite(params_.scale[i]) || params_.scale[i] == 0)
      return "Scale " + std::to_string(i) + " is " + std::to_string(params_.scale[i]) + "; it must be finite and not 0.";
  for (std::size_t i = 0; i < params_.zero_point.size(); ++i)
    if (!std::isfinite(params_.zero_point[i]) ||
        (params_.spec.zero_point == ZeroPointType::kInteger && params_.zero_point[i] != std::nearbyint(params_.zero_point[i])))
      return "Zero point " + std::to_string(i) + " is " + std::to_string(params_.zero_point[i]) +
             (params_.spec.zero_point == ZeroPointType::kInteger ? ", which is no integer." : ", which is not finite.");
  for (std::size_t i = 0; i < codes_.size(); ++i)
    if (const std::int64_t q = whole(params_, codes_[i]); q < params_.lo || q > params_.hi)
      return "Code " + std::to_string(q) + " of element " + std::to_string(i) + " is outside " + std::to_string(params_.lo) +
             " … " + std::to_string(params_.hi) + ".";
    else if (is_binary(params_) && q == 0)
      return "Code 0 of element " + std::to_string(i) + " is none of a binary format; its codes are -1 and 1.";
  return {};
}

std::size_t QTensor::parameter(std::int64_t e) const {
  const BlockLayout& l = layout_;
  if (l.granularity == Granularity::kTensor) return 0;
  const std::int64_t i = e % l.inner, d = e / l.inner % l.dim, o = e / l.inner / l.dim;
  if (l.granularity == Granularity::kChannel) return static_cast<std::size_t>(d);
  return static_cast<std::size_t>((o * ((l.dim + l.group - 1) / l.group) + d / l.group) * l.inner + i);
}
float QTensor::zero_at(std::int64_t e) const { return params_.zero_point.empty() ? 0.0f : params_.zero_point[parameter(e)]; }

QTensor QTensor::with_codes(const std::vector<std::int64_t>& codes, QuantParams params) const {
  std::vector<std::int32_t> stored(codes.size());
  std::transform(codes.begin(), codes.end(), stored.begin(), [](std::int64_t q) { return static_cast<std::int32_t>(q); });
  return QTensor(std::move(params), layout_, shape_, std::move(stored));
}

Result<QTensor> QTensor::add(const QTensor& other) const {
  if (!plain_integers(params_) || !plain_integers(other.params_))
    return refused("Only integers add without rounding.", "Dequantize first.");
  if (shape_ != other.shape_)
    return refused("Shapes " + shape_text(shape_) + " and " + shape_text(other.shape_) + " differ.");
  if (params_.scale != other.params_.scale || !same_layout(layout_, other.layout_))
    return refused("The scales differ, so the sum is on neither grid.", "Let both share a scale.");
  QUANVAS_TRY(QuantParams sum, widened(params_, params_.lo + other.params_.lo, params_.hi + other.params_.hi));
  if (!other.params_.zero_point.empty()) {
    sum.zero_point.resize(sum.scale.size());
    for (std::size_t p = 0; p < sum.zero_point.size(); ++p) sum.zero_point[p] += other.params_.zero_point[p];
    sum.spec.zero_point = ZeroPointType::kInteger;
  }
  std::vector<std::int64_t> codes(codes_.size());
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = whole(params_, codes_[i]) + whole(other.params_, other.codes_[i]);
  return with_codes(codes, std::move(sum));
}

Result<QTensor> QTensor::multiply(const QTensor& other) const {
  if (!plain_integers(params_) || !plain_integers(other.params_))
    return refused("Only integers multiply without rounding.", "Dequantize first.");
  const bool scalar = other.codes_.size() == 1;
  if (!scalar && shape_ != other.shape_)
    return refused("Shapes " + shape_text(shape_) + " and " + shape_text(other.shape_) + " differ.");
  if (other.params_.scale.size() != 1) return refused("The second factor has more than one scale.");
  // Steps from the zero point, at the ends of both ranges.
  const auto ends = [](const QuantParams& p) {
    std::int64_t lo = p.lo, hi = p.hi;
    for (const float z : p.zero_point) {
      lo = std::min(lo, p.lo - static_cast<std::int64_t>(z));
      hi = std::max(hi, p.hi - static_cast<std::int64_t>(z));
    }
    return std::pair{lo, hi};
  };
  const auto [a, b] = ends(params_);
  const auto [c, d] = ends(other.params_);
  QuantParams product = params_;
  product.zero_point.clear();
  product.spec.zero_point = ZeroPointType::kNone;
  QUANVAS_TRY(product, widened(std::move(product), std::min({a * c, a * d, b * c, b * d}), std::max({a * c, a * d, b * c, b * d})));
  for (float& s : product.scale) s *= other.params_.scale[0];
  std::vector<std::int64_t> codes(codes_.size());
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const auto e = static_cast<std::int64_t>(i), f = scalar ? 0 : e;
    codes[i] = (whole(params_, codes_[i]) - static_cast<std::int64_t>(zero_at(e))) *
               (whole(other.params_, other.codes_[static_cast<std::size_t>(f)]) - static_cast<std::int64_t>(other.zero_at(f)));
  }
  return with_codes(codes, std::move(product));
}

Result<QTensor> QTensor::negate() const {
  if (!plain_integers(params_)) return refused("Only integers are negated by their codes.");
  QUANVAS_TRY(QuantParams negated, widened(params_, -params_.hi, -params_.lo));
  for (float& z : negated.zero_point) z = z == 0 ? 0.0f : -z;
  std::vector<std::int64_t> codes(codes_.size());
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = -whole(params_, codes_[i]);
  return with_codes(codes, std::move(negated));
}

Result<QTensor> QTensor::relu() const {
  if (!plain_integers(params_)) return refused("Only integers are clamped by their codes.");
  QTensor out = *this;
  for (std::size_t i = 0; i < codes_.size(); ++i) {
    const auto zero = static_cast<std::int64_t>(zero_at(static_cast<std::int64_t>(i)));
    const bool falling = params_.scale[parameter(static_cast<std::int64_t>(i))] < 0;
    const std::int64_t q = whole(params_, codes_[i]);
    out.codes_[i] = static_cast<std::int32_t>(falling ? std::min(q, zero) : std::max(q, zero));
  }
  return out;
}

Result<QTensor> QTensor::concat(const QTensor& other, int axis) const {
  const auto rank = static_cast<int>(shape_.size());
  const auto at = static_cast<std::size_t>(axis < 0 ? axis + rank : axis);
  if (at >= shape_.size() || other.shape_.size() != shape_.size())
    return refused("Shapes " + shape_text(shape_) + " and " + shape_text(other.shape_) + " have no axis " + std::to_string(axis) + " in common.");
  for (std::size_t d = 0; d < shape_.size(); ++d)
    if (d != at && shape_[d] != other.shape_[d])
      return refused("Shapes " + shape_text(shape_) + " and " + shape_text(other.shape_) + " differ beside axis " + std::to_string(axis) + ".");
  if (params_.scale.size() != 1 || params_.scale != other.params_.scale || params_.zero_point != other.params_.zero_point ||
      !same_grid(params_, other.params_))
    return refused("The tensors have not the same format, one scale and zero point.", "Let both share a quantizer.");
  Shape shape = shape_;
  shape[at] += other.shape_[at];
  std::int64_t outer = 1, mine = 1, theirs = 1;
  for (std::size_t d = 0; d < at; ++d) outer *= shape_[d];
  for (std::size_t d = at; d < shape_.size(); ++d) {
    mine *= shape_[d];
    theirs *= other.shape_[d];
  }
  std::vector<std::int32_t> codes;
  codes.reserve(codes_.size() + other.codes_.size());
  for (std::int64_t o = 0; o < outer; ++o) {
    codes.insert(codes.end(), codes_.begin() + o * mine, codes_.begin() + (o + 1) * mine);
    codes.insert(codes.end(), other.codes_.begin() + o * theirs, other.codes_.begin() + (o + 1) * theirs);
  }
  QuantParams joined = params_;
  joined.rounding.clear();
  return from_codes(joined, shape, std::move(codes));
}

Result<QTensor> QTensor::reshape(const Shape& shape) const {
  if (params_.scale.size() != 1) return refused("A tensor with several scales keeps its shape.");
  if (element_count(shape) != static_cast<std::int64_t>(codes_.size()))
    return refused("Shape " + shape_text(shape) + " does not hold " + std::to_string(codes_.size()) + " elements.");
  return from_codes(params_, shape, codes_);
}

}  // namespace quanvas::quant
