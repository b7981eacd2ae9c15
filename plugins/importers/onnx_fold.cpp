// The evaluator for what exporters leave around shapes: arithmetic on small tensors, whose elements may be
// symbols that stand for dimensions.
#include <cmath>

#include <algorithm>
#include <limits>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

constexpr std::int64_t kMostMoved = 1 << 20;
constexpr std::int64_t kMostMade = 65536;
using MaybeCell = std::optional<Cell>;

Cell integer_cell(std::int64_t v) {
  return {v, 0, 0};
}
Cell unknown_cell() {
  return {0, 0, kUnknownDim};
}
bool is_dimension(const Cell& c) {
  return c.symbol < kUnknownDim;
}
bool same_dimension(const Cell& a, const Cell& b) {
  return is_dimension(a) && a.symbol == b.symbol;
}
bool is_value(const Cell& c, std::int64_t v) {
  return c.symbol == 0 && c.integer == v;
}

// What is left of integer arithmetic when an operand is a dimension.
Cell symbolic(const std::string& op, const Cell& a, const Cell& b) {
  if (op == "Add" && is_value(b, 0)) return a;
  if (op == "Add" && is_value(a, 0)) return b;
  if (op == "Sub" && is_value(b, 0)) return a;
  if (op == "Sub" && same_dimension(a, b)) return integer_cell(0);
  if (op == "Mul" && is_value(b, 1)) return a;
  if (op == "Mul" && is_value(a, 1)) return b;
  if (op == "Div" && is_value(b, 1)) return a;
  if (op == "Div" && same_dimension(a, b)) return integer_cell(1);
  return unknown_cell();
}

MaybeCell integer_arithmetic(const std::string& op, const Cell& a, const Cell& b) {
  if (a.symbol || b.symbol) return symbolic(op, a, b);
  std::int64_t r = 0;
  const std::int64_t x = a.integer, y = b.integer;
  bool overflow = false;
  if (op == "Add")
    overflow = __builtin_add_overflow(x, y, &r);
  else if (op == "Sub")
    overflow = __builtin_sub_overflow(x, y, &r);
  else if (op == "Mul")
    overflow = __builtin_mul_overflow(x, y, &r);
  else if (op == "Min")
    r = std::min(x, y);
  else if (op == "Max")
    r = std::max(x, y);
  else if (op == "Div" && y != 0 && y != -1)
    r = x / y;
  else
    return std::nullopt;
  if (overflow) return std::nullopt;
  return integer_cell(r);
}

// In double, then rounded to float once: the same as float arithmetic for these operators.
MaybeCell real_arithmetic(const std::string& op, double x, double y, DataType type) {
  double r = 0;
  if (op == "Add")
    r = x + y;
  else if (op == "Sub")
    r = x - y;
  else if (op == "Mul")
    r = x * y;
  else if (op == "Div")
    r = x / y;
  else if (op == "Min")
    r = std::min(x, y);
  else if (op == "Max")
    r = std::max(x, y);
  else if (op == "Pow")
    r = type == DataType::kFloat ? std::pow(static_cast<float>(x), static_cast<float>(y)) : std::pow(x, y);
  else
    return std::nullopt;
  return Cell{0, type == DataType::kDouble ? r : static_cast<float>(r), 0};
}

MaybeCell compare(const std::string& op, const Cell& a, const Cell& b, bool real) {
  if (a.symbol || b.symbol) {
    const Cell& number = a.symbol ? b : a;
    if (op == "Equal" && same_dimension(a, b)) return integer_cell(1);
    // A dimension is never negative.
    if (op == "Equal" && number.symbol == 0 && number.integer < 0) return integer_cell(0);
    return unknown_cell();
  }
  const double x = real ? a.real : 0, y = real ? b.real : 0;
  if (op == "Equal") return integer_cell(real ? x == y : a.integer == b.integer);
  if (op == "Less") return integer_cell(real ? x < y : a.integer < b.integer);
  if (op == "Greater") return integer_cell(real ? x > y : a.integer > b.integer);
  if (op == "LessOrEqual") return integer_cell(real ? x <= y : a.integer <= b.integer);
  if (op == "GreaterOrEqual") return integer_cell(real ? x >= y : a.integer >= b.integer);
  if (op == "And") return integer_cell(a.integer && b.integer);
  if (op == "Or") return integer_cell(a.integer || b.integer);
  return std::nullopt;
}

bool is_arithmetic(const std::string& op) {
  static const std::unordered_set<std::string> ops = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"};
  return ops.count(op) > 0;
}
bool is_comparison(const std::string& op) {
  static const std::unordered_set<std::string> ops = {"Equal",          "Less", "Greater", "LessOrEqual",
                                                      "GreaterOrEqual", "And",  "Or"};
  return ops.count(op) > 0;
}

std::optional<Shape> broadcast(const std::vector<Value>& values) {
  Shape out;
  for (const Value& v : values) {
    if (v.shape.size() > out.size()) out.insert(out.begin(), v.shape.size() - out.size(), 1);
    for (std::size_t i = 0; i < v.shape.size(); ++i) {
      std::int64_t& o = out[out.size() - 1 - i];
      const std::int64_t d = v.shape[v.shape.size() - 1 - i];
      if (o == 1)
        o = d;
      else if (d != 1 && d != o)
        return std::nullopt;
    }
  }
  return element_count(out) <= kMostMoved ? std::optional(out) : std::nullopt;
}

std::size_t broadcast_index(const Shape& out, std::int64_t flat, const Shape& in) {
  std::int64_t index = 0, stride = 1;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::int64_t d = out[out.size() - 1 - i], at = flat % d;
    flat /= d;
    if (i >= in.size()) continue;
    const std::int64_t own = in[in.size() - 1 - i];
    if (own != 1) index += at * stride;
    stride *= own;
  }
  return static_cast<std::size_t>(index);
}

template <class Fn>
std::optional<Value> elementwise(const std::vector<Value>& in, DataType type, Fn&& fn) {
  const auto shape = broadcast(in);
  if (!shape) return std::nullopt;
  Value out{type, *shape, {}};
  const std::int64_t n = element_count(*shape);
  std::vector<Cell> args(in.size());
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < in.size(); ++k) args[k] = in[k].cells[broadcast_index(*shape, i, in[k].shape)];
    const MaybeCell c = fn(args);
    if (!c) return std::nullopt;
    out.cells.push_back(*c);
  }
  return out;
}

std::optional<Value> binary(const DraftNode& n, const std::vector<Value>& in) {
  if (in.size() != 2 || in[0].type != in[1].type) return std::nullopt;
  if (n.attributes.count("broadcast") || n.attributes.count("axis")) return std::nullopt;  // before operator set 7
  const DataType type = in[0].type;
  const bool real = is_floating(type);
  if (real && !(in[0].is_number() && in[1].is_number())) return std::nullopt;
  if (type == DataType::kUint64) return std::nullopt;
  if (is_comparison(n.op))
    return elementwise(in, DataType::kBool, [&](const auto& a) { return compare(n.op, a[0], a[1], real); });
  return elementwise(in, type, [&](const auto& a) {
    return real ? real_arithmetic(n.op, a[0].real, a[1].real, type) : integer_arithmetic(n.op, a[0], a[1]);
  });
}

std::optional<Value> where(const std::vector<Value>& in) {
  if (in.size() != 3 || in[1].type != in[2].type) return std::nullopt;
  return elementwise(in, in[1].type, [](const auto& a) -> MaybeCell {
    if (a[0].symbol) return same_dimension(a[1], a[2]) ? a[1] : unknown_cell();
    return a[0].integer ? a[1] : a[2];
  });
}

MaybeCell unary_cell(const std::string& op, const Cell& c, bool real, DataType type) {
  const auto rounded = [type](double v) {
    return Cell{0, type == DataType::kDouble ? v : static_cast<float>(v), 0};
  };
  if (op == "Floor" && real) return rounded(std::floor(c.real));
  if (op == "Ceil" && real) return rounded(std::ceil(c.real));
  if (op == "Sqrt" && real) return rounded(std::sqrt(c.real));
  if (op == "Reciprocal" && real) return rounded(1 / c.real);
  if (op == "Neg" && real) return rounded(-c.real);
  if (op == "Abs" && real) return rounded(std::fabs(c.real));
  if (op == "Neg" && c.integer != std::numeric_limits<std::int64_t>::min()) return integer_cell(-c.integer);
  if (op == "Not") return integer_cell(!c.integer);
  return std::nullopt;
}

std::optional<Value> unary(const DraftNode& n, const std::vector<Value>& in) {
  if (in.size() != 1 || !in[0].is_number()) return std::nullopt;
  const bool real = is_floating(in[0].type);
  return elementwise(in, in[0].type, [&](const auto& a) { return unary_cell(n.op, a[0], real, in[0].type); });
}

// Two's complement of the narrower type, as every runtime does it.
std::int64_t wrapped(std::int64_t v, DataType to) {
  switch (to) {
    case DataType::kInt32:
      return static_cast<std::int32_t>(v);
    case DataType::kInt16:
      return static_cast<std::int16_t>(v);
    case DataType::kInt8:
      return static_cast<std::int8_t>(v);
    case DataType::kUint32:
      return static_cast<std::uint32_t>(v);
    case DataType::kUint16:
      return static_cast<std::uint16_t>(v);
    case DataType::kUint8:
      return static_cast<std::uint8_t>(v);
    default:
      return v;
  }
}

MaybeCell cast_cell(const Cell& c, DataType from, DataType to) {
  if (c.symbol) return to == DataType::kInt64 || to == DataType::kInt32 ? c : unknown_cell();
  const bool was_real = is_floating(from);
  if (to == DataType::kBool) return integer_cell(was_real ? c.real != 0 : c.integer != 0);
  if (is_floating(to)) {
    const double v = was_real ? c.real : static_cast<double>(c.integer);
    return Cell{0, to == DataType::kDouble ? v : static_cast<float>(v), 0};
  }
  if (!was_real) return integer_cell(wrapped(c.integer, to));
  if (!(std::fabs(c.real) < 2147483648.0)) return std::nullopt;
  return integer_cell(wrapped(static_cast<std::int64_t>(c.real), to));
}

std::optional<Value> cast(const DraftNode& n, const std::vector<Value>& in) {
  const auto to = static_cast<DataType>(n.integer("to", 0));
  if (in.size() != 1 || element_size(to) == 0 || to == DataType::kBfloat16 || to == DataType::kUint64)
    return std::nullopt;
  // A dimension in float form is only good for arithmetic that gives it up anyway.
  if (is_floating(to) && !in[0].is_number()) return std::nullopt;
  return elementwise(in, to, [&](const auto& a) { return cast_cell(a[0], in[0].type, to); });
}

std::optional<Value> shape_value(const DraftNode& n, const Knowledge& known) {
  const Shape* s = known.shape(n.input(0));
  if (!s) return std::nullopt;
  const auto r = static_cast<std::int64_t>(s->size());
  const auto bound = [r](std::int64_t v) { return std::clamp<std::int64_t>(v < 0 ? v + r : v, 0, r); };
  const std::int64_t start = bound(std::max<std::int64_t>(n.integer("start", 0), -r));
  const std::int64_t end = bound(std::max<std::int64_t>(n.integer("end", r), -r));
  Value out{DataType::kInt64, {std::max<std::int64_t>(end - start, 0)}, {}};
  for (std::int64_t i = start; i < end; ++i) {
    const std::int64_t d = (*s)[static_cast<std::size_t>(i)];
    out.cells.push_back(d >= 0 ? integer_cell(d) : Cell{0, 0, d});
  }
  return out;
}

std::optional<Value> size_value(const DraftNode& n, const Knowledge& known) {
  const Shape* s = known.shape(n.input(0));
  if (!s || std::any_of(s->begin(), s->end(), [](std::int64_t d) { return d < 0; })) return std::nullopt;
  return Value{DataType::kInt64, {}, {integer_cell(element_count(*s))}};
}

std::optional<Value> constant_of_shape(const DraftNode& n, const std::vector<Value>& in) {
  if (in.size() != 1 || !in[0].is_number()) return std::nullopt;
  Shape shape;
  for (const Cell& c : in[0].cells) {
    if (c.integer < 0) return std::nullopt;
    shape.push_back(c.integer);
  }
  const std::int64_t count = element_count(shape);
  if (count > kMostMade) return std::nullopt;
  Cell cell;
  if (const auto it = n.attributes.find("value"); it != n.attributes.end()) {
    if (const auto* f = std::get_if<float>(&it->second)) cell.real = *f;
    if (const auto* i = std::get_if<std::int64_t>(&it->second)) cell.integer = *i;
  }
  const auto type = static_cast<DataType>(n.integer("dtype", static_cast<int>(DataType::kFloat)));
  return Value{type, shape, std::vector<Cell>(static_cast<std::size_t>(count), cell)};
}

std::optional<Value> range(const std::vector<Value>& in) {
  if (in.size() != 3) return std::nullopt;
  for (const Value& v : in)
    if (v.cells.size() != 1 || !v.is_number() || v.type != in[0].type || is_floating(v.type)) return std::nullopt;
  const std::int64_t start = in[0].cells[0].integer, limit = in[1].cells[0].integer, step = in[2].cells[0].integer;
  constexpr std::int64_t kFar = std::int64_t{1} << 40;
  if (step == 0 || std::abs(start) > kFar || std::abs(limit) > kFar || std::abs(step) > kFar) return std::nullopt;
  const std::int64_t span = step > 0 ? limit - start : start - limit;
  const std::int64_t count = span > 0 ? (span - 1) / std::abs(step) + 1 : 0;
  if (count > kMostMade) return std::nullopt;
  Value out{in[0].type, {count}, {}};
  for (std::int64_t i = 0; i < count; ++i) out.cells.push_back(integer_cell(start + i * step));
  return out;
}

// Product of a whole list of dimensions.
std::optional<Value> reduce_product(const DraftNode& n, const std::vector<Value>& in) {
  if (in.empty() || in[0].shape.size() != 1 || is_floating(in[0].type)) return std::nullopt;
  Cell product = integer_cell(1);
  for (const Cell& c : in[0].cells) {
    const MaybeCell next = integer_arithmetic("Mul", product, c);
    if (!next) return std::nullopt;
    product = *next;
  }
  return Value{in[0].type, n.integer("keepdims", 1) ? Shape{1} : Shape{}, {product}};
}

std::optional<Value> moved(const DraftNode& n, const Knowledge& known) {
  const auto m = movement(n, known, kMostMoved);
  if (!m) return std::nullopt;
  std::vector<Value> in;
  const std::size_t data_inputs = n.op == "Concat" ? n.inputs.size() : 1;
  for (std::size_t i = 0; i < data_inputs; ++i) {
    auto v = known.value(n.input(i));
    if (!v) return std::nullopt;
    in.push_back(std::move(*v));
  }
  Value out{in[0].type, m->shape, {}};
  if (m->is_plain) {
    out.cells = std::move(in[0].cells);
    return out;
  }
  for (const auto& [k, i] : m->from)
    out.cells.push_back(in[static_cast<std::size_t>(k)].cells[static_cast<std::size_t>(i)]);
  return out;
}

std::optional<std::vector<Value>> all_values(const DraftNode& n, const Knowledge& known) {
  std::vector<Value> out;
  for (const std::string& t : n.inputs) {
    auto v = known.value(t);
    if (!v) return std::nullopt;
    out.push_back(std::move(*v));
  }
  return out;
}

}  // namespace

std::optional<TensorData> made_constant(const DraftNode& node, const Knowledge& known, std::int64_t& budget) {
  const TensorData* dims = node.op == "ConstantOfShape" ? known.draft.constant(node.input(0)) : nullptr;
  const auto type = static_cast<DataType>(node.integer("dtype", static_cast<int>(DataType::kFloat)));
  if (!dims || type != DataType::kFloat) return std::nullopt;
  const Shape shape = dims->to_int64();
  if (shape.size() > 32 || std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; }))
    return std::nullopt;
  const std::int64_t count = element_count(shape);
  if (count > budget) return std::nullopt;
  budget -= count;
  const auto it = node.attributes.find("value");
  const auto* value = it == node.attributes.end() ? nullptr : std::get_if<float>(&it->second);
  return TensorData::of_floats(shape, std::vector<float>(static_cast<std::size_t>(count), value ? *value : 0.0f));
}

std::optional<Value> evaluate(const DraftNode& node, const Knowledge& known) {
  if (node.outputs.size() != 1 || !node.domain.empty() || !node.opaque_reason.empty()) return std::nullopt;
  if (node.op == "Shape") return shape_value(node, known);
  if (node.op == "Size") return size_value(node, known);
  if (auto v = moved(node, known)) return v;
  const bool is_ours = is_arithmetic(node.op) || is_comparison(node.op) || node.op == "Cast" ||
                       node.op == "Where" || node.op == "ConstantOfShape" || node.op == "Range" ||
                       node.op == "ReduceProd" || node.op == "Floor" || node.op == "Ceil" || node.op == "Sqrt" ||
                       node.op == "Reciprocal" || node.op == "Neg" || node.op == "Abs" || node.op == "Not";
  const auto in = is_ours ? all_values(node, known) : std::nullopt;
  if (!in || in->empty()) return std::nullopt;
  if (is_arithmetic(node.op) || is_comparison(node.op)) return binary(node, *in);
  if (node.op == "Cast") return cast(node, *in);
  if (node.op == "Where") return where(*in);
  if (node.op == "ConstantOfShape") return constant_of_shape(node, *in);
  if (node.op == "Range") return range(*in);
  if (node.op == "ReduceProd") return reduce_product(node, *in);
  return unary(node, *in);
}

}  // namespace quanvas::onnx_import
