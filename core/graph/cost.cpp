// What a node costs, and how it is called in the window.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/graph/canonical.h"
#include "core/graph/layers.h"
#include "core/graph/rotation_node.h"

namespace quanvas {
namespace {

const Shape* shape_of(const Graph& g, TensorId t) {
  return t != kNoTensor && g.tensor(t).shape ? &*g.tensor(t).shape : nullptr;
}

std::optional<std::int64_t> batch_of(const Graph& g) {
  for (const TensorId t : g.inputs())
    if (const Shape* s = shape_of(g, t); s && !s->empty()) return (*s)[0];
  return std::nullopt;
}

// Elements for one sample: the leading dimension is left out when it is unknown or the inputs' batch.
// 0 when another dimension is unknown.
double sample_elements(const Graph& g, TensorId t) {
  const Shape* s = shape_of(g, t);
  if (!s) return 0;
  double n = 1;
  for (std::size_t i = 0; i < s->size(); ++i) {
    const std::int64_t d = (*s)[i];
    if (i == 0 && (d < 0 || (s->size() > 1 && d == batch_of(g)))) continue;
    if (d < 0) return 0;
    n *= static_cast<double>(d);
  }
  return n;
}

double product(const Shape& s, std::size_t from) {
  double n = 1;
  for (std::size_t i = from; i < s.size(); ++i) {
    if (s[i] < 0) return 0;
    n *= static_cast<double>(s[i]);
  }
  return n;
}

// Every step of every direction meets every weight of its gates once.
double recurrent_macs(const Graph& g, const Node& n) {
  const Shape *x = shape_of(g, n.input(0)), *r = shape_of(g, n.input(2));
  if (!x || x->size() != 3 || !r || r->size() != 3) return 0;
  const std::int64_t steps = (*x)[n.integer("layout", 0) ? 1 : 0], columns = (*x)[2], hidden = (*r)[2];
  if (steps < 0 || columns < 0 || (*r)[1] < 0 || hidden < 0) return 0;
  return static_cast<double>(steps) * directions(n) * static_cast<double>((*r)[1]) * static_cast<double>(columns + hidden);
}

double macs_of(const Graph& g, const Node& n) {
  const TensorId y = n.outputs.empty() ? kNoTensor : n.outputs[0];
  if (n.op == "Conv" || n.op == "ConvTranspose") {
    const Shape* w = shape_of(g, n.input(1));
    // Each output of a Conv, each input of a ConvTranspose meets every weight of its channel once.
    return w && w->size() >= 2 ? product(*w, 1) * sample_elements(g, n.op == "Conv" ? y : n.input(0)) : 0;
  }
  const Shape* a = shape_of(g, n.input(0));
  if (!a || a->empty()) return 0;
  std::int64_t depth = 0;
  if (is_recurrent(n)) return recurrent_macs(g, n);
  if (n.op == "MatMul") depth = a->back();
  // A product with a constant matrix, as branches of low rank are.
  if (n.op == "Einsum" && n.inputs.size() == 2 && g.tensor(n.input(1)).is_initializer)
    if (const Shape* b = shape_of(g, n.input(1)); b && b->size() == 2 && (*b)[0] == a->back()) depth = a->back();
  if (n.op == "Gemm" && a->size() == 2) depth = (*a)[n.integer("transA", 0) ? 0 : 1];
  return depth > 0 ? static_cast<double>(depth) * sample_elements(g, y) : 0;
}

// Which inputs are learnt when they are initializers.
const std::set<int>& learnt_inputs(const std::string& op) {
  static const std::map<std::string, std::set<int>> table = {
      {"Conv", {1, 2}},
      {"ConvTranspose", {1, 2}},
      {"Gemm", {0, 1, 2}},
      {"MatMul", {0, 1, 2}},
      {"BatchNormalization", {1, 2, 3, 4}},
      {"InstanceNormalization", {1, 2}},
      {"LayerNormalization", {1, 2}},
      {"GroupNormalization", {1, 2}},
      {"RMSNormalization", {1}},
      {"PRelu", {1}},
      {"Gather", {0}},
      {"LSTM", {1, 2, 3, 7}},
      {"GRU", {1, 2, 3}},
      {"RNN", {1, 2, 3}},
      {"Add", {0, 1}},
      {"Sub", {0, 1}},
      {"Mul", {0, 1}},
      {"Div", {0, 1}},
      {"DequantizeLinear", {0}},
      {"Quant", {0}},
      {"FloatQuant", {0}},
      {"BipolarQuant", {0}},
      {"QLinearConv", {3, 8}},
      {"QLinearMatMul", {3}},
      {"ConvInteger", {1}},
      {"MatMulInteger", {1}},
  };
  static const std::set<int> none;
  const auto it = table.find(op);
  return it == table.end() ? none : it->second;
}

bool is_learnt(const TensorInfo& t, const std::string& op) {
  const bool is_index = t.type == DataType::kInt64 || t.type == DataType::kString || t.type == DataType::kBool;
  const bool two_operands = op == "Add" || op == "Sub" || op == "Mul" || op == "Div";
  // A single number in an Add or Mul is a constant of the formula, not a parameter.
  return t.is_initializer && t.shape && !is_index && !(two_operands && element_count(*t.shape) <= 1);
}

std::string times(const std::vector<std::int64_t>& v) {
  return shape_text(v);
}

// "2" for {2,2}, "2×1" otherwise.
std::string compact(const std::vector<std::int64_t>& v) {
  const bool same = std::all_of(v.begin(), v.end(), [&](std::int64_t x) { return x == v[0]; });
  return v.empty() ? "1" : same ? std::to_string(v[0]) : times(v);
}

std::string number(double v) {
  std::string s = std::to_string(v);
  s.erase(s.find_last_not_of('0') + 1);
  if (s.ends_with('.')) s.pop_back();
  return v < 0 ? "−" + s.substr(1) : s;
}

std::string dim(const Shape& s, std::size_t i) {
  return i < s.size() && s[i] >= 0 ? std::to_string(s[i]) : "?";
}

std::string scaled(std::int64_t d, std::int64_t by) {
  return d >= 0 ? std::to_string(d * by) : "?";
}

bool is_depthwise(const Node& n, const Shape& w) {
  const std::int64_t group = n.integer("group", 1);
  return group > 1 && w.size() >= 2 && (n.op == "Conv" ? w[1] == 1 : w[0] == group && w[1] == 1);
}

std::string conv_short(const Graph& g, const Node& n) {
  const Shape* w = shape_of(g, n.input(1));
  if (!w || w->size() < 3) return n.op;
  const Shape kernel(w->begin() + 2, w->end());
  return (is_depthwise(n, *w) ? "DW " : "") + n.op + " " + times(kernel);
}

std::string conv_text(const Graph& g, const Node& n) {
  const Shape* w = shape_of(g, n.input(1));
  if (!w || w->size() < 3) return n.op;
  const std::int64_t group = std::max<std::int64_t>(n.integer("group", 1), 1);
  const bool transposed = n.op == "ConvTranspose";
  const std::string in = transposed ? dim(*w, 0) : scaled((*w)[1], group);
  const std::string out = transposed ? scaled((*w)[1], group) : dim(*w, 0);
  std::string text = is_depthwise(n, *w) ? "Depthwise " : "";
  text += n.op + " " + times(Shape(w->begin() + 2, w->end())) + ", " + in + " → " + out;
  text += ", stride " + compact(n.integers("strides"));
  if (const auto d = compact(n.integers("dilations")); d != "1") text += ", dilation " + d;
  if (group > 1 && !is_depthwise(n, *w)) text += ", " + std::to_string(group) + " groups";
  return text;
}

std::string matrix_text(const Graph& g, const Node& n) {
  const Shape* w = shape_of(g, n.input(1));
  if (!w || w->size() != 2 || !g.tensor(n.input(1)).is_initializer) return n.op;
  const bool flipped = n.op == "Gemm" && n.integer("transB", 0) != 0;
  return n.op + " " + dim(*w, flipped ? 1 : 0) + " → " + dim(*w, flipped ? 0 : 1);
}

// "LSTM 64 → 128, bidirectional"
std::string recurrent_text(const Graph& g, const Node& n) {
  const Shape *w = shape_of(g, n.input(1)), *r = shape_of(g, n.input(2));
  std::string text = n.op;
  if (w && w->size() == 3 && r && r->size() == 3) text += " " + dim(*w, 2) + " → " + dim(*r, 2);
  const std::string direction = n.text("direction", "forward");
  return direction == "forward" ? text : text + ", " + direction;
}

std::string pool_short(const Graph&, const Node& n) {
  const auto kernel = n.integers("kernel_shape");
  return kernel.empty() ? n.op : n.op + " " + times(kernel);
}

std::string pool_text(const Graph& g, const Node& n) {
  return pool_short(g, n) + ", stride " + compact(n.integers("strides"));
}

std::string normalization_text(const Graph& g, const Node& n) {
  const Shape* s = shape_of(g, n.input(1));
  return s && s->size() == 1 ? n.op + ", " + dim(*s, 0) + " channels" : n.op;
}

std::string gather_text(const Graph& g, const Node& n) {
  const Shape* s = shape_of(g, n.input(0));
  if (!s || s->size() != 2 || !g.tensor(n.input(0)).is_initializer) return n.op;
  return "Gather of " + dim(*s, 0) + "×" + dim(*s, 1) + " (embedding)";
}

std::string axis_text(const Graph&, const Node& n) {
  return n.op + ", axis " + std::to_string(n.integer("axis", n.op == "Concat" || n.op == "Flatten" ? 1 : -1));
}

std::string slope_text(const Graph&, const Node& n) {
  return n.op + ", slope " + number(n.real("alpha", 0.01f));
}

std::string clip_text(const Graph&, const Node& n) {
  if (!n.attributes.count("min") && !n.attributes.count("max")) return n.op;
  const auto limit = [&](const char* key, const char* open) {
    return n.attributes.count(key) ? number(n.real(key, 0)) : std::string(open);
  };
  return n.op + " " + limit("min", "−∞") + " … " + limit("max", "∞");
}

std::string shape_change_text(const Graph& g, const Node& n) {
  const Shape* s = n.outputs.empty() ? nullptr : shape_of(g, n.outputs[0]);
  return s ? n.op + " to " + shape_text(*s) : n.op;
}

std::string op_text(const Graph&, const Node& n) {
  return n.op;
}

// "Hadamard 172 → 176", "Hadamard 768, blocks of 256"
std::string hadamard_text(const Graph&, const Node& n) {
  const auto h = hadamard_node(n);
  if (!h) return n.op;
  std::string text = n.op + " " + std::to_string(h->width);
  if (h->outputs() != h->width) text += " → " + std::to_string(h->outputs());
  return h->blocks() > 1 ? text + ", blocks of " + std::to_string(h->size) : text;
}

using Text = std::string (*)(const Graph&, const Node&);
struct Wording {
  Text full, brief;
};

Wording wording(const Node& n) {
  static const std::map<std::string, Wording> table = {
      {"Conv", {conv_text, conv_short}},
      {"ConvTranspose", {conv_text, conv_short}},
      {"Gemm", {matrix_text, matrix_text}},
      {"MatMul", {matrix_text, matrix_text}},
      {"LSTM", {recurrent_text, op_text}},
      {"GRU", {recurrent_text, op_text}},
      {"RNN", {recurrent_text, op_text}},
      {"MaxPool", {pool_text, pool_short}},
      {"AveragePool", {pool_text, pool_short}},
      {"LpPool", {pool_text, pool_short}},
      {"BatchNormalization", {normalization_text, op_text}},
      {"InstanceNormalization", {normalization_text, op_text}},
      {"LayerNormalization", {normalization_text, op_text}},
      {"Gather", {gather_text, op_text}},
      {"Concat", {axis_text, op_text}},
      {"Softmax", {axis_text, op_text}},
      {"LogSoftmax", {axis_text, op_text}},
      {"LeakyRelu", {slope_text, op_text}},
      {"Clip", {clip_text, clip_text}},
      {"Reshape", {shape_change_text, op_text}},
      {"Flatten", {shape_change_text, op_text}},
      {"Transpose", {shape_change_text, op_text}},
      {"Resize", {shape_change_text, op_text}},
      {"Upsample", {shape_change_text, op_text}},
      {"Pad", {shape_change_text, op_text}},
      {"Slice", {shape_change_text, op_text}},
  };
  if (is_hadamard(n.domain, n.op)) return {hadamard_text, op_text};
  const auto it = n.domain.empty() ? table.find(n.op) : table.end();
  return it == table.end() ? Wording{op_text, op_text} : it->second;
}

}  // namespace

NodeCost node_cost(const Graph& graph, const Node& node) {
  NodeCost cost;
  if (node.domain.empty()) cost.macs = macs_of(graph, node);
  // Additions, which count as much: the fast part's stages, and each row of the core.
  if (const auto h = hadamard_node(node); h && !node.outputs.empty())
    cost.macs = sample_elements(graph, node.outputs[0]) *
                (std::log2(static_cast<double>(h->size / h->core)) + (h->core > 1 ? static_cast<double>(h->core) : 0));
  for (const int i : learnt_inputs(node.op)) {
    const TensorId t = node.input(static_cast<std::size_t>(i));
    const std::vector<TensorId> parts = is_recurrent(node) ? constant_parts(graph, t) : std::vector<TensorId>{t};
    for (const TensorId part : parts) {
      if (part == kNoTensor || !is_learnt(graph.tensor(part), node.op)) continue;
      const auto elements = static_cast<double>(element_count(*graph.tensor(part).shape));
      cost.parameters += elements;
      cost.weight_bytes += elements * static_cast<double>(element_size(graph.tensor(part).type));
    }
  }
  if (!node.outputs.empty()) cost.output_elements = sample_elements(graph, node.outputs[0]);
  return cost;
}

std::string describe(const Graph& graph, const Node& node) {
  const std::string text = wording(node).full(graph, node);
  return node.opaque_reason.empty() ? text : text + " (not executable)";
}

std::string describe_short(const Graph& graph, const Node& node) {
  return wording(node).brief(graph, node);
}

}  // namespace quanvas
