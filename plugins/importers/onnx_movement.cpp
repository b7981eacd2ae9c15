// Operators that only move elements, as lists of "where from". Shapes of data inputs must be known exactly.
#include <algorithm>
#include <limits>
#include <numeric>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

using Ints = std::vector<std::int64_t>;

constexpr std::int64_t kMostMoved = std::int64_t{1} << 25;  // 16 bytes each while it is done

bool is_static(const Shape& s) {
  return std::all_of(s.begin(), s.end(), [](std::int64_t d) { return d >= 0; });
}

Ints strides_of(const Shape& s) {
  Ints out(s.size(), 1);
  // Unsigned: a shape with a 0 may have other dimensions whose product overflows.
  for (std::size_t i = s.size(); i-- > 1;)
    out[i - 1] = static_cast<std::int64_t>(static_cast<std::uint64_t>(out[i]) * static_cast<std::uint64_t>(s[i]));
  return out;
}

// Calls fn(coordinates) for every element of the shape, last axis fastest.
template <class Fn>
void for_each_position(const Shape& s, Fn&& fn) {
  if (element_count(s) == 0) return;
  Ints at(s.size(), 0);
  for (;;) {
    fn(at);
    std::size_t i = s.size();
    while (i > 0 && ++at[i - 1] == s[i - 1]) at[--i] = 0;
    if (i == 0) return;
  }
}

std::optional<Ints> numbers(const Knowledge& known, const std::string& tensor) {
  const auto v = known.value(tensor);
  if (!v || !v->is_number() || is_floating(v->type)) return std::nullopt;
  Ints out;
  for (const Cell& c : v->cells) out.push_back(c.integer);
  return out;
}

// Attribute up to some operator set, input after it.
std::optional<Ints> listed(const DraftNode& n, const Knowledge& known, const char* key, std::size_t input) {
  if (auto v = n.integers(key)) return v;
  return numbers(known, n.input(input));
}

std::optional<std::size_t> axis_in(std::int64_t axis, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  if (axis < -r || axis >= r) return std::nullopt;
  return static_cast<std::size_t>(axis < 0 ? axis + r : axis);
}

std::optional<Movement> plain(const Shape& from, Shape to) {
  if (element_count(from) != element_count(to)) return std::nullopt;
  Movement m;
  m.shape = std::move(to);
  m.is_plain = true;
  return m;
}

std::optional<Movement> reshape(const DraftNode& n, const Knowledge& known, const Shape& x) {
  auto target = n.integers("shape");
  if (!target) target = numbers(known, n.input(1));
  if (!target) return std::nullopt;
  std::int64_t rest = 1;
  std::optional<std::size_t> open;
  for (std::size_t i = 0; i < target->size(); ++i) {
    std::int64_t& d = (*target)[i];
    if (d == 0 && n.integer("allowzero", 0) == 0) {
      if (i >= x.size()) return std::nullopt;
      d = x[i];
    }
    if (d == -1 && !open) {
      open = i;
      continue;
    }
    if (d < 0 || (d > 0 && rest > (std::int64_t{1} << 40) / d)) return std::nullopt;
    rest *= d;
  }
  if (open) {
    if (rest == 0 || element_count(x) % rest != 0) return std::nullopt;
    (*target)[*open] = element_count(x) / rest;
  }
  return plain(x, *target);
}

std::optional<Movement> unsqueeze(const DraftNode& n, const Knowledge& known, const Shape& x) {
  const auto axes = listed(n, known, "axes", 1);
  if (!axes || axes->size() > 16) return std::nullopt;
  std::vector<bool> is_new(x.size() + axes->size(), false);
  for (const std::int64_t a : *axes) {
    const auto i = axis_in(a, is_new.size());
    if (!i || is_new[*i]) return std::nullopt;
    is_new[*i] = true;
  }
  Shape out;
  std::size_t next = 0;
  for (const bool fresh : is_new) out.push_back(fresh ? 1 : x[next++]);
  return plain(x, out);
}

std::optional<Movement> squeeze(const DraftNode& n, const Knowledge& known, const Shape& x) {
  std::vector<bool> gone(x.size(), false);
  if (n.integers("axes") || !n.input(1).empty()) {
    const auto axes = listed(n, known, "axes", 1);
    if (!axes) return std::nullopt;
    for (const std::int64_t a : *axes) {
      const auto i = axis_in(a, x.size());
      if (!i || x[*i] != 1) return std::nullopt;
      gone[*i] = true;
    }
  } else {
    for (std::size_t i = 0; i < x.size(); ++i) gone[i] = x[i] == 1;
  }
  Shape out;
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!gone[i]) out.push_back(x[i]);
  return plain(x, out);
}

std::optional<Movement> flatten(const DraftNode& n, const Knowledge&, const Shape& x) {
  const auto r = static_cast<std::int64_t>(x.size());
  std::int64_t axis = n.integer("axis", 1);
  if (axis < -r || axis > r) return std::nullopt;
  if (axis < 0) axis += r;
  const auto product = [&](std::int64_t a, std::int64_t b) {
    return element_count(Shape(x.begin() + a, x.begin() + b));
  };
  return plain(x, {product(0, axis), product(axis, r)});
}

std::optional<Movement> transpose(const DraftNode& n, const Knowledge&, const Shape& x) {
  Ints perm(x.size());
  std::iota(perm.rbegin(), perm.rend(), 0);
  if (const auto given = n.integers("perm")) perm = *given;
  Ints sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i)
    if (sorted[i] != static_cast<std::int64_t>(i)) return std::nullopt;
  if (perm.size() != x.size()) return std::nullopt;
  const Ints strides = strides_of(x);
  Movement m;
  for (const std::int64_t p : perm) m.shape.push_back(x[static_cast<std::size_t>(p)]);
  m.from.reserve(static_cast<std::size_t>(element_count(x)));
  for_each_position(m.shape, [&](const Ints& at) {
    std::int64_t index = 0;
    for (std::size_t i = 0; i < at.size(); ++i) index += at[i] * strides[static_cast<std::size_t>(perm[i])];
    m.from.emplace_back(0, index);
  });
  return m;
}

struct Cut {
  std::int64_t start = 0, step = 1, count = 0;
};

Cut cut_of(std::int64_t d, std::int64_t start, std::int64_t end, std::int64_t step) {
  const std::int64_t low = step > 0 ? 0 : -1, high = step > 0 ? d : d - 1;
  if (start < 0) start = std::max(start, -d - 1) + d;
  if (end < 0) end = std::max(end, -d - 1) + d;
  start = std::clamp(start, step > 0 ? low : std::int64_t{0}, std::max(high, std::int64_t{0}));
  end = std::clamp(end, low, std::max(high, low));
  const std::int64_t span = step > 0 ? end - start : start - end;
  const std::int64_t pace = step > 0 ? step : -step;
  return {start, step, d > 0 && span > 0 ? (span - 1) / pace + 1 : 0};
}

std::optional<Movement> slice(const DraftNode& n, const Knowledge& known, const Shape& x) {
  const auto starts = listed(n, known, "starts", 1), ends = listed(n, known, "ends", 2);
  if (!starts || !ends || starts->size() != ends->size() || starts->size() > x.size()) return std::nullopt;
  Ints axes(starts->size()), steps(starts->size(), 1);
  std::iota(axes.begin(), axes.end(), 0);
  if (n.integers("axes") || !n.input(3).empty()) {
    const auto given = listed(n, known, "axes", 3);
    if (!given || given->size() != starts->size()) return std::nullopt;
    axes = *given;
  }
  if (!n.input(4).empty()) {
    const auto given = numbers(known, n.input(4));
    if (!given || given->size() != starts->size()) return std::nullopt;
    steps = *given;
  }
  std::vector<Cut> cuts;
  for (const std::int64_t d : x) cuts.push_back({0, 1, d});
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto a = axis_in(axes[i], x.size());
    if (!a || steps[i] == 0 || steps[i] == std::numeric_limits<std::int64_t>::min()) return std::nullopt;
    cuts[*a] = cut_of(x[*a], (*starts)[i], (*ends)[i], steps[i]);
  }
  Movement m;
  for (const Cut& c : cuts) m.shape.push_back(c.count);
  const Ints strides = strides_of(x);
  for_each_position(m.shape, [&](const Ints& at) {
    std::int64_t index = 0;
    for (std::size_t i = 0; i < at.size(); ++i) index += (cuts[i].start + at[i] * cuts[i].step) * strides[i];
    m.from.emplace_back(0, index);
  });
  return m;
}

std::optional<Movement> gather(const DraftNode& n, const Knowledge& known, const Shape& x) {
  const auto indices = numbers(known, n.input(1));
  const Shape* index_shape = known.shape(n.input(1));
  const auto axis = axis_in(n.integer("axis", 0), x.size());
  if (!indices || !index_shape || !axis) return std::nullopt;
  const std::int64_t d = x[*axis];
  const auto split = x.begin() + static_cast<std::ptrdiff_t>(*axis);
  const std::int64_t outer = element_count(Shape(x.begin(), split)),
                     inner = element_count(Shape(split + 1, x.end()));
  Movement m;
  m.shape.assign(x.begin(), split);
  m.shape.insert(m.shape.end(), index_shape->begin(), index_shape->end());
  m.shape.insert(m.shape.end(), split + 1, x.end());
  if (!is_static(m.shape) || element_count(m.shape) > kMostMoved) return std::nullopt;
  for (std::int64_t o = 0; o < outer; ++o) {
    for (const std::int64_t raw : *indices) {
      if (raw < -d || raw >= d) return std::nullopt;
      const std::int64_t row = o * d + (raw < 0 ? raw + d : raw);
      for (std::int64_t i = 0; i < inner; ++i) m.from.emplace_back(0, row * inner + i);
    }
  }
  return m;
}

std::optional<Movement> concat(const DraftNode& n, const Knowledge& known, const Shape& x) {
  const auto axis = axis_in(n.integer("axis", 1), x.size());
  if (!axis) return std::nullopt;
  std::vector<Shape> shapes;
  Movement m;
  m.shape = x;
  m.shape[*axis] = 0;
  for (const std::string& t : n.inputs) {
    const Shape* s = known.shape(t);
    if (!s || s->size() != x.size() || !is_static(*s)) return std::nullopt;
    for (std::size_t i = 0; i < x.size(); ++i)
      if (i != *axis && (*s)[i] != x[i]) return std::nullopt;
    m.shape[*axis] += (*s)[*axis];
    shapes.push_back(*s);
  }
  const auto split = static_cast<std::ptrdiff_t>(*axis);
  const std::int64_t outer = element_count(Shape(x.begin(), x.begin() + split));
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::size_t k = 0; k < shapes.size(); ++k) {
      const std::int64_t block = element_count(Shape(shapes[k].begin() + split, shapes[k].end()));
      for (std::int64_t i = 0; i < block; ++i) m.from.emplace_back(static_cast<std::int32_t>(k), o * block + i);
    }
  }
  return m;
}

std::optional<Movement> expand(const DraftNode& n, const Knowledge& known, const Shape& x) {
  auto target = numbers(known, n.input(1));
  if (!target || target->size() > 32) return std::nullopt;
  Shape from = x;
  while (from.size() < target->size()) from.insert(from.begin(), 1);
  while (target->size() < from.size()) target->insert(target->begin(), 1);
  Movement m;
  for (std::size_t i = 0; i < from.size(); ++i) {
    const std::int64_t t = (*target)[i];
    if (t < 0 || (t != from[i] && t != 1 && from[i] != 1)) return std::nullopt;
    m.shape.push_back(from[i] == 1 ? t : from[i]);
  }
  // Larger results stay an operator: the file would grow by what the exporter had saved.
  if (element_count(m.shape) > std::max<std::int64_t>(65536, element_count(x))) return std::nullopt;
  const Ints strides = strides_of(from);
  for_each_position(m.shape, [&](const Ints& at) {
    std::int64_t index = 0;
    for (std::size_t i = 0; i < at.size(); ++i) index += from[i] == 1 ? 0 : at[i] * strides[i];
    m.from.emplace_back(0, index);
  });
  return m;
}

using Mover = std::optional<Movement> (*)(const DraftNode&, const Knowledge&, const Shape&);

const std::map<std::string, Mover>& movers() {
  static const std::map<std::string, Mover> table = {
      {"Reshape", reshape}, {"Unsqueeze", unsqueeze}, {"Squeeze", squeeze},
      {"Flatten", flatten}, {"Transpose", transpose}, {"Slice", slice},
      {"Gather", gather},   {"Concat", concat},       {"Expand", expand},
  };
  return table;
}

}  // namespace

std::optional<Movement> movement(const DraftNode& node, const Knowledge& known, std::int64_t most_elements) {
  const auto it = movers().find(node.op);
  if (it == movers().end() || node.outputs.size() != 1) return std::nullopt;
  const Shape* x = known.shape(node.input(0));
  if (!x || !is_static(*x)) return std::nullopt;
  std::int64_t total = 0;
  for (const std::string& t : node.inputs)
    if (const Shape* s = known.shape(t)) total += std::min(element_count(*s), std::int64_t{1} << 40);
  if (total > most_elements) return std::nullopt;
  auto m = it->second(node, known, *x);
  if (m) m->type = known.type(node.input(0));
  return m;
}

std::optional<TensorData> move_constants(const DraftNode& node, const Knowledge& known) {
  const std::size_t data_inputs = node.op == "Concat" ? node.inputs.size() : 1;
  std::vector<const TensorData*> data;
  for (std::size_t i = 0; i < data_inputs; ++i) {
    data.push_back(known.draft.constant(node.input(i)));
    if (!data.back()) return std::nullopt;
    if (data[0]->type != data[i]->type) return std::nullopt;
  }
  if (data.empty()) return std::nullopt;
  if (node.op == "Cast" && node.integer("to", 0) == static_cast<int>(DataType::kFloat)) {
    auto values = data[0]->to_floats();
    if (static_cast<std::int64_t>(values.size()) != data[0]->count()) return std::nullopt;
    return TensorData::of_floats(data[0]->shape, std::move(values));
  }
  const std::size_t size = element_size(data[0]->type);
  const auto m = size ? movement(node, known, kMostMoved) : std::nullopt;
  if (!m) return std::nullopt;
  if (m->is_plain) {
    TensorData same = *data[0];
    same.shape = m->shape;
    return same;
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(m->from.size() * size);
  std::byte* out = bytes->data();
  for (const auto& [k, i] : m->from) {
    std::memcpy(out, data[static_cast<std::size_t>(k)]->data + static_cast<std::size_t>(i) * size, size);
    out += size;
  }
  return TensorData{data[0]->type, m->shape, bytes->data(), bytes->size(), bytes};
}

}  // namespace quanvas::onnx_import
