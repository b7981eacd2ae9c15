#include "plugins/exporters/gguf_fit.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <utility>

namespace quanvas::gguf_file {
namespace {

std::string number(double v) {
  std::ostringstream out;
  out.precision(9);
  out << v;
  return out.str();
}

float to_half(float v) {
  return half_to_float(float_to_half(v));
}

// Of E2M1 in halves, and of IQ4_NL; codes of other forms stand for themselves.
float unit_of(const Form& form, std::int32_t code) {
  if (form.type == Type::kMXFP4) {
    constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -kValues[code & 7] : kValues[code & 7];
  }
  if (form.type == Type::kIQ4_NL) {
    constexpr float kValues[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return kValues[code & 15];
  }
  return static_cast<float>(code);
}

Misfit half_misfit(const char* what, float v) {
  return {std::string("float16 ") + what, number(static_cast<double>(v)), "numbers that float16 holds",
          "Use a float16 scale (a gguf preset), or export with scales rounded."};
}

}  // namespace

View view_of(const Shape& shape, std::vector<int> order, bool merged) {
  View view{shape, std::move(order), 1, 1, 0};
  for (std::size_t i = 0; i < view.order.size(); ++i) {
    const std::int64_t d = shape[static_cast<std::size_t>(view.order[i])];
    const bool in_row = merged ? i > 0 : i + 1 == view.order.size();
    (in_row ? view.columns : view.rows) *= d;
  }
  return view;
}

std::int64_t View::source_row(std::int64_t index, std::int64_t count) const {
  if (heads <= 0 || count % heads != 0) return index;
  const std::int64_t size = count / heads, at = index % size;
  return index - at + at % 2 * (size / 2) + at / 2;
}

std::vector<std::int64_t> View::row(std::int64_t index) const {
  if (order.size() == 1) {
    // A vector is one row of the file; its elements belong to the rows of a matrix.
    std::vector<std::int64_t> out;
    for (std::int64_t i = 0; i < columns; ++i) out.push_back(source_row(i, columns));
    return out;
  }
  index = source_row(index, rows);
  const std::size_t rank = order.size();
  std::vector<std::int64_t> stride(rank, 1), size(rank), at(rank);
  for (std::size_t k = 0; k < rank; ++k) {
    const auto axis = static_cast<std::size_t>(order[k]);
    size[k] = shape[axis];
    for (std::size_t a = axis + 1; a < shape.size(); ++a) stride[k] *= shape[a];
  }
  std::int64_t rest = index * columns, position = 0;
  for (std::size_t k = rank; k-- > 0;) {
    at[k] = size[k] > 0 ? rest % size[k] : 0;
    rest = size[k] > 0 ? rest / size[k] : 0;
    position += at[k] * stride[k];
  }
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(columns));
  for (std::int64_t i = 0; i < columns; ++i) {
    out.push_back(position);
    for (std::size_t k = rank; k-- > 0;) {
      position += stride[k];
      if (++at[k] < size[k]) break;
      position -= stride[k] * size[k];
      at[k] = 0;
    }
  }
  return out;
}

std::size_t Fitter::parameter(std::int64_t element) const {
  const quant::BlockLayout& l = params_.layout;
  const std::int64_t inner = std::max<std::int64_t>(l.inner, 1), i = element % inner, d = element / inner % l.dim,
                     o = element / inner / l.dim;
  if (l.granularity == Granularity::kTensor) return 0;
  if (l.granularity == Granularity::kChannel) return static_cast<std::size_t>(d);
  return static_cast<std::size_t>((o * ((l.dim + l.group - 1) / l.group) + d / l.group) * inner + i);
}

// As quantize_scales() numbers them (core/quant/affine.cpp).
std::size_t Fitter::super_block(std::int64_t element) const {
  const quant::BlockLayout& l = params_.layout;
  const std::int64_t inner = std::max<std::int64_t>(l.inner, 1), i = element % inner, d = element / inner % l.dim,
                     o = element / inner / l.dim;
  const std::int64_t line = (l.dim + l.group - 1) / l.group;
  const std::int64_t together = params_.spec.scale_group > 0 ? std::min<std::int64_t>(params_.spec.scale_group, line) : line;
  return static_cast<std::size_t>((o * ((line + together - 1) / together) + d / l.group / together) * inner + i);
}

std::vector<Type> Fitter::candidates() const {
  const QuantSpec& spec = params_.spec;
  const bool whole_row = view_.columns % 256 == 0;
  if (spec.format == "iq4nl") return {Type::kIQ4_NL};
  if (spec.format == "float") return {Type::kMXFP4};
  if (spec.format == "ternary" || spec.format == "binary")
    return whole_row ? std::vector<Type>{Type::kTQ1_0, Type::kQ4_0} : std::vector<Type>{Type::kQ4_0};
  std::int64_t lowest = params_.lo, highest = params_.hi;
  if (spec.zero_point == ZeroPointType::kInteger) {
    const std::vector<std::int64_t> zeros = zero_points(params_);
    if (!zeros.empty()) {
      lowest -= *std::max_element(zeros.begin(), zeros.end());
      highest -= *std::min_element(zeros.begin(), zeros.end());
    }
  }
  const bool two = spec.scale == ScaleType::kQuantized, offset = spec.zero_point == ZeroPointType::kOffset;
  // Codes from 0 on need no sign; with an offset they are what they are.
  const bool from_lowest = offset || spec.zero_point == ZeroPointType::kInteger || params_.lo >= 0;
  const std::int64_t span = offset ? params_.hi : params_.hi - params_.lo;
  const Type order[] = {Type::kTQ2_0, Type::kQ2_K, Type::kQ3_K, Type::kQ4_0, Type::kQ4_K, Type::kQ4_1,
                        Type::kQ5_0,  Type::kQ5_K, Type::kQ5_1, Type::kQ6_K, Type::kQ8_0};
  std::vector<Type> out;
  for (const Type type : order) {
    const Form& form = form_of(type);
    if (is_super(form) != two) continue;
    if (type == Type::kTQ2_0 && !whole_row) continue;
    const bool holds =
        form.has_offset ? from_lowest && span <= form.highest : !offset && lowest >= form.lowest && highest <= form.highest;
    if (holds) out.push_back(type);
  }
  return out;
}

std::optional<Misfit> Fitter::one_level(const Form& form, std::size_t p, std::size_t sub, Row& out) const {
  float scale = params_.scale[p], offset = 0;
  if (form.type == Type::kMXFP4) {
    int exponent = 0;
    if (!(scale > 0) || std::frexp(scale, &exponent) != 0.5f || exponent < -125)
      return Misfit{"power-of-two scale", number(static_cast<double>(scale)), "2^-126 to 2^127", "Use a power-of-two scale."};
    out.scale[sub] = scale;
    return std::nullopt;
  }
  const float half = to_half(scale);
  const bool fits = half == scale;
  if (!fits && (!round_ || !std::isfinite(half))) return half_misfit("scale", scale);
  scale = half;
  if (form.has_offset) {
    if (params_.spec.zero_point == ZeroPointType::kOffset) {
      offset = params_.zero_point[p];
    } else {
      const float zero = params_.zero_point.empty() ? 0.0f : std::nearbyint(params_.zero_point[p]);
      offset = (static_cast<float>(params_.lo) - zero) * scale;
    }
    const float half_offset = to_half(offset);
    const bool is_own = params_.spec.zero_point == ZeroPointType::kOffset;
    if (half_offset != offset && (!round_ || !is_own || !std::isfinite(half_offset))) return half_misfit("offset", offset);
    offset = half_offset;
    out.offset[sub] = offset;
  }
  out.scale[sub] = scale;
  return std::nullopt;
}

std::optional<Misfit> Fitter::two_levels(const Form& form, std::int64_t element, std::size_t sub, Row& out) const {
  const std::size_t p = parameter(element), super = super_block(element);
  const std::size_t block = sub / static_cast<std::size_t>(form.block / form.sub_block);
  const bool is_first = sub % static_cast<std::size_t>(form.block / form.sub_block) == 0;
  const auto stale = [&](const std::string& got) {
    return Misfit{"super-block scales", got, "integers of the form's bits times a float16 of 256 elements",
                  "Quantize again with a preset of GGUF's K formats and without passes that change scales."};
  };
  if (params_.layout.granularity != Granularity::kGroup || super >= params_.super_scale.size()) return stale("none");
  const auto level = [&](float value, float unit, float& shared, std::int32_t& code) -> std::optional<Misfit> {
    if (to_half(unit) != unit) return half_misfit("scale", unit);
    if (is_first) shared = unit;
    if (shared != unit) return stale("another float16 within 256 elements");
    const double steps = unit == 0 ? 0 : std::nearbyint(static_cast<double>(value) / static_cast<double>(unit));
    if (!(steps >= form.scale_lowest && steps <= form.scale_highest)) return stale(number(steps));
    code = static_cast<std::int32_t>(steps);
    if (unit * static_cast<float>(code) != value) return stale(number(static_cast<double>(value)));
    return std::nullopt;
  };
  if (auto bad = level(params_.scale[p], params_.super_scale[super], out.super_scale[block], out.scale_code[sub])) return bad;
  if (!form.has_offset || params_.zero_point.empty()) return std::nullopt;
  if (super >= params_.super_offset.size()) return stale("none");
  return level(-params_.zero_point[p], params_.super_offset[super], out.super_offset[block], out.offset_code[sub]);
}

tl::expected<Row, Misfit> Fitter::row(Type type, std::int64_t index) const {
  const Form& form = form_of(type);
  if (view_.columns % form.block != 0)
    return tl::unexpected(
        Misfit{kRowLength, std::to_string(view_.columns) + " elements in a row of '" + std::string(form.name) + "'",
               "a multiple of " + std::to_string(form.block), "Leave this weight float: GGUF cuts rows into whole blocks."});
  const std::vector<std::int64_t> elements = view_.row(index);
  const std::size_t subs = elements.size() / static_cast<std::size_t>(form.sub_block);
  const std::size_t blocks = elements.size() / static_cast<std::size_t>(form.block);
  Row out;
  out.codes.resize(elements.size());
  if (is_super(form)) {
    out.scale_code.resize(subs);
    out.offset_code.resize(subs);
    out.super_scale.resize(blocks);
    out.super_offset.resize(blocks);
  } else {
    out.scale.resize(subs);
    out.offset.resize(subs);
  }
  const bool from_lowest = form.has_offset && params_.spec.zero_point != ZeroPointType::kOffset;
  for (std::size_t sub = 0; sub < subs; ++sub) {
    const std::size_t begin = sub * static_cast<std::size_t>(form.sub_block),
                      end = begin + static_cast<std::size_t>(form.sub_block);
    const std::size_t p = parameter(elements[begin]);
    if (p >= params_.scale.size())
      return tl::unexpected(Misfit{"scale", "none for an element", "one for each block", "Quantize again."});
    std::int64_t shift = 0;  // of codes
    if (from_lowest)
      shift = params_.lo;
    else if (params_.spec.zero_point == ZeroPointType::kInteger && !params_.zero_point.empty())
      shift = std::llrint(params_.zero_point[p]);
    for (std::size_t e = begin; e < end; ++e) {
      const std::size_t q = parameter(elements[e]);
      const bool same = q == p || (q < params_.scale.size() && params_.scale[q] == params_.scale[p] &&
                                   (params_.zero_point.empty() || params_.zero_point[q] == params_.zero_point[p]));
      if (!same)
        return tl::unexpected(
            Misfit{"blocks of scales", "scales that change within " + std::to_string(form.sub_block) + " elements of a row",
                   "one scale for each " + std::to_string(form.sub_block) + " of '" + form.name + "'",
                   "Use groups that are a multiple of " + std::to_string(form.sub_block) + " along the layer's own axis."});
      const std::int64_t code = stored_.codes[static_cast<std::size_t>(elements[e])] - shift;
      if (code < form.lowest || code > form.highest)
        return tl::unexpected(Misfit{"codes", std::to_string(code),
                                     std::to_string(form.lowest) + " to " + std::to_string(form.highest),
                                     "Use fewer bits, or no zero point."});
      out.codes[e] = static_cast<std::int32_t>(code);
    }
    if (auto bad = is_super(form) ? two_levels(form, elements[begin], sub, out) : one_level(form, p, sub, out))
      return tl::unexpected(std::move(*bad));
  }
  return out;
}

bool Fitter::holds(Type type, Misfit& why) const {
  const Form& form = form_of(type);
  for (std::int64_t r = 0; r < view_.rows; ++r) {
    const auto made = row(type, r);
    if (!made) {
      why = made.error();
      return false;
    }
    if (round_) continue;
    const std::vector<std::int64_t> elements = view_.row(r);
    for (std::size_t e = 0; e < elements.size(); ++e) {
      const float wanted = stored_.values[static_cast<std::size_t>(elements[e])], given = value_in(form, *made, e);
      if (given == wanted) continue;
      why = {"values", number(static_cast<double>(given)) + " for " + number(static_cast<double>(wanted)),
             "the very values of the network", "Use a preset of GGUF's formats."};
      return false;
    }
  }
  return true;
}

tl::expected<Type, Misfit> Fitter::find() const {
  if (!params_.zero_point.empty() && params_.zero_point.size() != params_.scale.size())
    return tl::unexpected(Misfit{
        "zero point", std::to_string(params_.zero_point.size()) + " for " + std::to_string(params_.scale.size()) + " scales",
        "one per scale", "Quantize again with this model."});
  Misfit why{"codes", std::to_string(params_.lo) + " to " + std::to_string(params_.hi),
             "what a GGUF type holds: at most 8 bits with a sign", "Use a preset of GGUF's formats, or leave it float."};
  for (const Type type : candidates())
    if (holds(type, why)) return type;
  return tl::unexpected(why);
}

float value_in(const Form& form, const Row& row, std::size_t e) {
  const std::size_t sub = e / static_cast<std::size_t>(form.sub_block);
  const float q = unit_of(form, row.codes[e]);
  if (!is_super(form)) return form.has_offset ? q * row.scale[sub] + row.offset[sub] : q * row.scale[sub];
  const std::size_t block = e / static_cast<std::size_t>(form.block);
  const float scale = row.super_scale[block] * static_cast<float>(row.scale_code[sub]);
  if (!form.has_offset) return scale * q;
  return scale * q - row.super_offset[block] * static_cast<float>(row.offset_code[sub]);
}

}  // namespace quanvas::gguf_file
