#include "plugins/exporters/gguf_probe.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <stdexcept>

namespace quanvas::gguf_file {
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 26;
constexpr int kDeepest = 400;

// Caught in Probe::value(): everything here is about graphs whose form nobody promises.
struct NotKnown : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void require(bool condition, const char* what) {
  if (!condition) throw NotKnown(what);
}

std::int64_t count_of(const Shape& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) {
    require(d >= 0 && (d == 0 || n <= kMostElements / d), "a shape that is too large");
    n *= d;
  }
  return n;
}
std::size_t index(std::int64_t axis, std::size_t rank) {
  const auto r = static_cast<std::int64_t>(rank);
  if (axis < 0) axis += r;
  require(axis >= 0 && axis < r, "an axis that is none");
  return static_cast<std::size_t>(axis);
}
std::vector<std::int64_t> whole(const Values& v) {
  std::vector<std::int64_t> out;
  for (const double x : v.at) {
    require(!std::isnan(x), "an integer that is none");
    out.push_back(static_cast<std::int64_t>(std::clamp(x, -1e15, 1e15)));  // slices end at the largest there is
  }
  return out;
}
Values made(Shape shape) {
  const auto n = static_cast<std::size_t>(count_of(shape));
  return {std::move(shape), std::vector<double>(n)};
}

Shape broadcast_shape(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1, y = i < b.size() ? b[b.size() - 1 - i] : 1;
    require(x == y || x == 1 || y == 1, "shapes that do not fit each other");
    out[out.size() - 1 - i] = x == 1 ? y : x;
  }
  return out;
}
Values stretched(const Values& v, const Shape& shape) {
  if (v.shape == shape) return v;
  Values out = made(shape);
  std::vector<std::size_t> stride(shape.size(), 0);
  std::size_t step = 1;
  for (std::size_t i = v.shape.size(); i-- > 0;) {
    stride[i + shape.size() - v.shape.size()] = v.shape[i] == 1 ? 0 : step;
    step *= static_cast<std::size_t>(v.shape[i]);
  }
  for (std::size_t e = 0; e < out.at.size(); ++e) {
    std::size_t rest = e, from = 0;
    for (std::size_t i = shape.size(); i-- > 0;) {
      from += rest % static_cast<std::size_t>(shape[i]) * stride[i];
      rest /= static_cast<std::size_t>(shape[i]);
    }
    out.at[e] = v.at[from];
  }
  return out;
}

// The tensor seen as [outer, dim, inner] around an axis.
struct Around {
  std::size_t outer = 1, dim = 1, inner = 1;
  Around(const Shape& shape, std::size_t axis) : dim(static_cast<std::size_t>(shape[axis])) {
    for (std::size_t i = 0; i < shape.size(); ++i)
      if (i != axis) (i < axis ? outer : inner) *= static_cast<std::size_t>(shape[i]);
  }
};
Values picked(const Values& v, std::size_t axis, const std::vector<std::int64_t>& from) {
  const Around a(v.shape, axis);
  Values out = v;
  out.shape[axis] = static_cast<std::int64_t>(from.size());
  out.at.resize(static_cast<std::size_t>(count_of(out.shape)));
  for (std::size_t o = 0; o < a.outer; ++o)
    for (std::size_t j = 0; j < from.size(); ++j) {
      const std::int64_t d = from[j] < 0 ? from[j] + static_cast<std::int64_t>(a.dim) : from[j];
      require(d >= 0 && d < static_cast<std::int64_t>(a.dim), "an index that is none");
      for (std::size_t i = 0; i < a.inner; ++i)
        out.at[(o * from.size() + j) * a.inner + i] = v.at[(o * a.dim + static_cast<std::size_t>(d)) * a.inner + i];
    }
  return out;
}

struct Call {
  const Node& node;
  std::vector<Values> in;  // omitted ones are empty scalars
  std::vector<bool> given;
  bool is_whole = false;  // the output's elements are integers

  bool has(std::size_t i) const { return i < given.size() && given[i]; }
  const Values& x() const {
    require(has(0), "no input");
    return in[0];
  }
  const Values& input(std::size_t i) const {
    require(has(i), "a missing input");
    return in[i];
  }
  std::vector<std::int64_t> axes(const char* name, std::size_t i) const { return has(i) ? whole(in[i]) : node.integers(name); }
};
using Outputs = std::vector<Values>;

Outputs binary(const Call& c, const std::function<double(double, double)>& f) {
  const Shape shape = broadcast_shape(c.input(0).shape, c.input(1).shape);
  Values a = stretched(c.in[0], shape);
  const Values b = stretched(c.in[1], shape);
  for (std::size_t i = 0; i < a.at.size(); ++i) a.at[i] = f(a.at[i], b.at[i]);
  return {a};
}
Outputs unary(const Call& c, double (*f)(double)) {
  Values a = c.x();
  for (double& v : a.at) v = f(v);
  return {a};
}

Outputs reshape(const Call& c) {
  Shape shape = whole(c.input(1));
  std::int64_t known = 1;
  std::size_t open = shape.size();
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0 && c.node.integer("allowzero", 0) == 0)
      require(i < c.x().shape.size(), "a shape that is none"), shape[i] = c.x().shape[i];
    if (shape[i] == -1)
      open = i;
    else
      known *= std::max<std::int64_t>(shape[i], 0);
  }
  if (open < shape.size()) shape[open] = known > 0 ? static_cast<std::int64_t>(c.x().at.size()) / known : 0;
  require(count_of(shape) == static_cast<std::int64_t>(c.x().at.size()), "a shape of another size");
  return {{shape, c.x().at}};
}
Outputs transpose(const Call& c) {
  const Shape& shape = c.x().shape;
  std::vector<std::int64_t> perm = c.node.integers("perm");
  if (perm.empty())
    for (std::size_t i = shape.size(); i-- > 0;) perm.push_back(static_cast<std::int64_t>(i));
  require(perm.size() == shape.size(), "a permutation that is none");
  Shape to;
  for (const std::int64_t p : perm) to.push_back(shape[index(p, shape.size())]);
  Values out = made(to);
  std::vector<std::size_t> stride(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) stride[i - 1] = stride[i] * static_cast<std::size_t>(shape[i]);
  for (std::size_t e = 0; e < out.at.size(); ++e) {
    std::size_t rest = e, from = 0;
    for (std::size_t i = to.size(); i-- > 0;) {
      from += rest % static_cast<std::size_t>(to[i]) * stride[static_cast<std::size_t>(perm[i])];
      rest /= static_cast<std::size_t>(to[i]);
    }
    require(from < c.x().at.size(), "a permutation that is none");
    out.at[e] = c.x().at[from];
  }
  return {out};
}
Outputs unsqueeze(const Call& c) {
  std::vector<std::int64_t> axes = c.axes("axes", 1);
  const std::size_t rank = c.x().shape.size() + axes.size();
  for (std::int64_t& a : axes) a = static_cast<std::int64_t>(index(a, rank));
  std::sort(axes.begin(), axes.end());
  Values out = c.x();
  for (const std::int64_t a : axes) {
    require(a <= static_cast<std::int64_t>(out.shape.size()), "an axis that is none");
    out.shape.insert(out.shape.begin() + a, 1);
  }
  return {out};
}
Outputs squeeze(const Call& c) {
  const std::vector<std::int64_t> axes = c.axes("axes", 1);
  std::vector<bool> drop(c.x().shape.size(), false);
  for (const std::int64_t a : axes) drop[index(a, drop.size())] = true;
  Values out = c.x();
  out.shape.clear();
  for (std::size_t i = 0; i < drop.size(); ++i)
    if (axes.empty() ? c.x().shape[i] != 1 : !drop[i]) out.shape.push_back(c.x().shape[i]);
  require(count_of(out.shape) == static_cast<std::int64_t>(out.at.size()), "an axis that is not 1");
  return {out};
}
Outputs slice(const Call& c) {
  const std::vector<std::int64_t> starts = c.axes("starts", 1), ends = c.axes("ends", 2);
  std::vector<std::int64_t> axes = c.axes("axes", 3),
                            steps = c.has(4) ? whole(c.in[4]) : std::vector<std::int64_t>(starts.size(), 1);
  if (axes.empty())
    for (std::size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<std::int64_t>(i));
  require(starts.size() == ends.size() && axes.size() == starts.size() && steps.size() == starts.size(),
          "a slice that is none");
  Values out = c.x();
  for (std::size_t k = 0; k < starts.size(); ++k) {
    const std::size_t axis = index(axes[k], out.shape.size());
    const std::int64_t d = out.shape[axis], step = steps[k];
    require(step != 0, "a step of 0");
    const auto clip = [&](std::int64_t v, std::int64_t lo, std::int64_t hi) { return std::clamp(v < 0 ? v + d : v, lo, hi); };
    std::vector<std::int64_t> from;
    const std::int64_t begin = step > 0 ? clip(starts[k], 0, d) : clip(starts[k], 0, d - 1);
    const std::int64_t end = step > 0 ? clip(ends[k], 0, d)
                                      : std::clamp<std::int64_t>(ends[k] < -d  ? -1
                                                                 : ends[k] < 0 ? ends[k] + d
                                                                               : ends[k],
                                                                 -1, d);
    for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step) from.push_back(i);
    out = picked(out, axis, from);
  }
  return {out};
}
Outputs gather(const Call& c) {
  const std::size_t axis = index(c.node.integer("axis", 0), c.x().shape.size());
  const Values& at = c.input(1);
  Values out = picked(c.x(), axis, whole(at));
  out.shape.erase(out.shape.begin() + static_cast<std::ptrdiff_t>(axis));
  out.shape.insert(out.shape.begin() + static_cast<std::ptrdiff_t>(axis), at.shape.begin(), at.shape.end());
  return {out};
}
Outputs concat(const Call& c) {
  const std::size_t axis = index(c.node.integer("axis", 0), c.x().shape.size());
  Shape shape = c.x().shape;
  shape[axis] = 0;
  for (std::size_t i = 0; i < c.in.size(); ++i) {
    require(c.input(i).shape.size() == shape.size(), "shapes that do not fit each other");
    shape[axis] += c.in[i].shape[axis];
  }
  Values out = made(shape);
  const Around to(shape, axis);
  std::size_t begin = 0;
  for (const Values& v : c.in) {
    const Around from(v.shape, axis);
    require(from.outer == to.outer && from.inner == to.inner, "shapes that do not fit each other");
    for (std::size_t o = 0; o < to.outer; ++o)
      std::copy_n(v.at.begin() + static_cast<std::ptrdiff_t>(o * from.dim * from.inner), from.dim * from.inner,
                  out.at.begin() + static_cast<std::ptrdiff_t>((o * to.dim + begin) * to.inner));
    begin += from.dim;
  }
  return {out};
}
Outputs split(const Call& c) {
  const std::size_t axis = index(c.node.integer("axis", 0), c.x().shape.size());
  const auto parts = static_cast<std::int64_t>(c.node.outputs.size());
  std::vector<std::int64_t> sizes = c.axes("split", 1);
  if (sizes.empty()) sizes.assign(c.node.outputs.size(), (c.x().shape[axis] + parts - 1) / parts);
  Outputs out;
  std::int64_t begin = 0;
  for (const std::int64_t size : sizes) {
    require(size >= 0 && size <= kMostElements, "a part that is none");
    std::vector<std::int64_t> from(static_cast<std::size_t>(size));
    std::iota(from.begin(), from.end(), begin);
    out.push_back(picked(c.x(), axis, from));
    begin += size;
  }
  return out;
}
Outputs matmul(const Call& c) {
  const Values &a = c.input(0), &b = c.input(1);
  const std::size_t ra = a.shape.size(), rb = b.shape.size();
  require(ra >= 2 && rb >= 2 && a.shape[ra - 1] == b.shape[rb - 2] && !c.has(2), "a product of other shapes");
  Shape batch = broadcast_shape(Shape(a.shape.begin(), a.shape.end() - 2), Shape(b.shape.begin(), b.shape.end() - 2));
  const auto with = [&](const Values& v) {
    Shape s = batch;
    s.insert(s.end(), v.shape.end() - 2, v.shape.end());
    return stretched(v, s);
  };
  const Values x = with(a), y = with(b);
  const auto m = static_cast<std::size_t>(a.shape[ra - 2]), k = static_cast<std::size_t>(a.shape[ra - 1]),
             n = static_cast<std::size_t>(b.shape[rb - 1]);
  const auto groups = static_cast<std::size_t>(count_of(batch));
  Shape shape = batch;
  shape.insert(shape.end(), {a.shape[ra - 2], b.shape[rb - 1]});
  Values out = made(shape);
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t i = 0; i < m; ++i)
      for (std::size_t l = 0; l < k; ++l)
        for (std::size_t j = 0; j < n; ++j)
          out.at[(g * m + i) * n + j] += x.at[(g * m + i) * k + l] * y.at[(g * k + l) * n + j];
  return {out};
}
Outputs softmax(const Call& c) {
  Values out = c.x();
  require(!out.shape.empty() && index(c.node.integer("axis", -1), out.shape.size()) + 1 == out.shape.size(),
          "a softmax of another axis");
  const auto n = static_cast<std::size_t>(out.shape.back());
  for (std::size_t r = 0; n > 0 && r < out.at.size(); r += n) {
    double* row = &out.at[r];
    const double most = *std::max_element(row, row + n);
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += row[i] = std::exp(row[i] - most);
    for (std::size_t i = 0; i < n; ++i) row[i] /= sum;
  }
  return {out};
}
Outputs range(const Call& c) {
  const double begin = c.input(0).at.at(0), end = c.input(1).at.at(0), step = c.input(2).at.at(0);
  require(step != 0 && std::fabs((end - begin) / step) < static_cast<double>(kMostElements), "a range that is too large");
  Values out;
  for (double v = begin; step > 0 ? v < end : v > end; v += step) out.at.push_back(v);
  out.shape = {static_cast<std::int64_t>(out.at.size())};
  return {out};
}
Outputs trilu(const Call& c) {
  Values out = c.x();
  require(out.shape.size() >= 2, "a triangle of less than a matrix");
  const std::int64_t k = c.has(1) ? whole(c.in[1]).at(0) : 0, columns = out.shape.back(),
                     rows = out.shape[out.shape.size() - 2];
  const bool upper = c.node.integer("upper", 1) != 0;
  for (std::size_t e = 0; e < out.at.size(); ++e) {
    const std::int64_t j = static_cast<std::int64_t>(e) % columns, i = static_cast<std::int64_t>(e) / columns % rows;
    if (upper ? j - i < k : j - i > k) out.at[e] = 0;
  }
  return {out};
}
Outputs where(const Call& c) {
  const Shape shape = broadcast_shape(broadcast_shape(c.input(0).shape, c.input(1).shape), c.input(2).shape);
  const Values condition = stretched(c.in[0], shape), b = stretched(c.in[2], shape);
  Values a = stretched(c.in[1], shape);
  for (std::size_t i = 0; i < a.at.size(); ++i)
    if (condition.at[i] == 0) a.at[i] = b.at[i];
  return {a};
}
Outputs constant_of_shape(const Call& c) {
  Values out = made(whole(c.x()));
  const auto it = c.node.attributes.find("value");
  double value = 0;
  if (it != c.node.attributes.end()) {
    if (const auto* f = std::get_if<std::vector<float>>(&it->second); f && f->size() == 1)
      value = static_cast<double>((*f)[0]);
    else if (const auto* i = std::get_if<std::vector<std::int64_t>>(&it->second); i && i->size() == 1)
      value = static_cast<double>((*i)[0]);
    else
      throw NotKnown("a constant of another form");
  }
  std::fill(out.at.begin(), out.at.end(), value);
  return {out};
}

using Op = std::function<Outputs(const Call&)>;
const std::map<std::string, Op>& operators() {
  const auto two = [](double (*f)(double, double)) { return [f](const Call& c) { return binary(c, f); }; };
  const auto one = [](double (*f)(double)) { return [f](const Call& c) { return unary(c, f); }; };
  static const std::map<std::string, Op> table = {
      {"Add", two([](double a, double b) { return a + b; })},
      {"Sub", two([](double a, double b) { return a - b; })},
      {"Mul", two([](double a, double b) { return a * b; })},
      {"Div",
       [](const Call& c) { return binary(c, [&](double a, double b) { return c.is_whole ? std::trunc(a / b) : a / b; }); }},
      {"Pow", two([](double a, double b) { return std::pow(a, b); })},
      {"Less", two([](double a, double b) { return a < b ? 1.0 : 0.0; })},
      {"LessOrEqual", two([](double a, double b) { return a <= b ? 1.0 : 0.0; })},
      {"Greater", two([](double a, double b) { return a > b ? 1.0 : 0.0; })},
      {"GreaterOrEqual", two([](double a, double b) { return a >= b ? 1.0 : 0.0; })},
      {"Equal", two([](double a, double b) { return a == b ? 1.0 : 0.0; })},
      {"And", two([](double a, double b) { return a != 0 && b != 0 ? 1.0 : 0.0; })},
      {"Or", two([](double a, double b) { return a != 0 || b != 0 ? 1.0 : 0.0; })},
      {"Not", one([](double a) { return a == 0 ? 1.0 : 0.0; })},
      {"Neg", one([](double a) { return -a; })},
      {"Cos", one([](double a) { return std::cos(a); })},
      {"Sin", one([](double a) { return std::sin(a); })},
      {"Sqrt", one([](double a) { return std::sqrt(a); })},
      {"Reciprocal", one([](double a) { return 1 / a; })},
      {"Identity", one([](double a) { return a; })},
      {"Cast", [](const Call& c) { return c.is_whole ? unary(c, [](double a) { return std::trunc(a); }) : Outputs{c.x()}; }},
      {"Shape",
       [](const Call& c) {
         const auto rank = static_cast<std::int64_t>(c.x().shape.size());
         const auto at = [&](const char* name, std::int64_t fallback) {
           const std::int64_t v = c.node.integer(name, fallback);
           return std::clamp<std::int64_t>(v < 0 ? v + rank : v, 0, rank);
         };
         Values out;
         for (std::int64_t i = at("start", 0); i < at("end", rank); ++i)
           out.at.push_back(static_cast<double>(c.x().shape[static_cast<std::size_t>(i)]));
         out.shape = {static_cast<std::int64_t>(out.at.size())};
         return Outputs{out};
       }},
      {"Reshape", reshape},
      {"Transpose", transpose},
      {"Unsqueeze", unsqueeze},
      {"Squeeze", squeeze},
      {"Slice", slice},
      {"Gather", gather},
      {"Concat", concat},
      {"Split", split},
      {"Expand", [](const Call& c) { return Outputs{stretched(c.x(), broadcast_shape(c.x().shape, whole(c.input(1))))}; }},
      {"MatMul", matmul},
      {"Softmax", softmax},
      {"Range", range},
      {"Trilu", trilu},
      {"Where", where},
      {"ConstantOfShape", constant_of_shape},
  };
  return table;
}

}  // namespace

tl::expected<void, std::string> Probe::run(const Node& node) {
  const auto op = operators().find(node.op);
  if (!node.domain.empty() || op == operators().end())
    return tl::unexpected("it computes with " + node.op + " ('" + node.name + "')");
  Call call{node, {}, {}, false};
  for (const TensorId t : node.inputs) {
    call.given.push_back(t != kNoTensor);
    if (t == kNoTensor) {
      call.in.emplace_back();
      continue;
    }
    auto v = value(t);
    if (!v) return tl::unexpected(v.error());
    call.in.push_back(std::move(*v));
  }
  if (!node.outputs.empty() && node.outputs[0] != kNoTensor) {
    const DataType type = graph_.tensor(node.outputs[0]).type;
    call.is_whole = type == DataType::kInt64 || type == DataType::kInt32;
  }
  try {
    const Outputs out = op->second(call);
    for (std::size_t i = 0; i < node.outputs.size() && i < out.size(); ++i)
      if (node.outputs[i] != kNoTensor) known_[node.outputs[i]] = out[i];
  } catch (const std::exception& e) {  // NotKnown, and at()
    return tl::unexpected("'" + node.name + "' has " + e.what());
  }
  return {};
}

tl::expected<Values, std::string> Probe::value(TensorId tensor) {
  if (const auto it = known_.find(tensor); it != known_.end()) return it->second;
  const TensorInfo& info = graph_.tensor(tensor);
  if (info.is_initializer) {
    const TensorData* data = model_.weights->find(info.name);
    if (!data || data->count() > kMostElements) return tl::unexpected("'" + info.name + "' is too large");
    Values v{data->shape, {}};
    if (data->type == DataType::kInt64) {
      for (const std::int64_t x : data->to_int64()) v.at.push_back(static_cast<double>(x));
    } else {
      for (const float x : data->to_floats()) v.at.push_back(static_cast<double>(x));
    }
    return known_[tensor] = std::move(v);
  }
  const Node* node = graph_.find(info.producer);
  if (!node) return tl::unexpected("it reads '" + info.name + "'");
  if (depth_ >= kDeepest) return tl::unexpected(std::string("it is too deep"));
  ++depth_;
  const auto done = run(*node);
  --depth_;
  if (!done) return tl::unexpected(done.error());
  const auto it = known_.find(tensor);
  if (it == known_.end()) return tl::unexpected("'" + node->name + "' has no such output");
  return it->second;
}

}  // namespace quanvas::gguf_file
