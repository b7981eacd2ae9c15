// Normalizations and Gelu that a file spells out, as the one operator that they are.
#include <cmath>

#include "core/graph/canonical_parts.h"

namespace quanvas::canonical_form {
namespace {

// As float32 holds the number: files that cut constants short compute something else.
bool near(std::optional<double> value, double wanted) { return value && std::abs(*value - wanted) <= 2e-7 * std::abs(wanted); }

// The operand of a binary node that is not `t`; kNoTensor when `t` is none of them or both.
TensorId other(const Node& node, TensorId t) {
  if (node.inputs.size() != 2 || (node.inputs[0] == t) == (node.inputs[1] == t)) return kNoTensor;
  return node.inputs[node.inputs[0] == t ? 1 : 0];
}

// What is multiplied or added to the number `wanted` by this node, in whichever order.
TensorId beside_number(const Rewrite& r, const Node* node, const char* op, double wanted) {
  if (!is(node, op) || node->inputs.size() != 2) return kNoTensor;
  for (const int i : {0, 1})
    if (near(r.number(node->inputs[static_cast<std::size_t>(i)]), wanted)) return node->inputs[static_cast<std::size_t>(1 - i)];
  return kNoTensor;
}

// x of Pow(x, 2) and Mul(x, x).
TensorId squared(const Rewrite& r, const Node* node) {
  if (is(node, "Pow") && node->inputs.size() == 2 && near(r.number(node->inputs[1]), 2)) return node->inputs[0];
  return is(node, "Mul") && node->inputs.size() == 2 && node->inputs[0] == node->inputs[1] ? node->inputs[0] : kNoTensor;
}

// x of a mean over its last axis that keeps it.
TensorId averaged(const Rewrite& r, const Node* node) {
  if (!is(node, "ReduceMean") || node->integer("keepdims", 1) != 1) return kNoTensor;
  std::vector<std::int64_t> axes = node->integers("axes");
  if (const TensorData* given = r.constant(node->input(1))) axes = given->to_int64();
  const TensorId x = node->input(0);
  if (axes.size() != 1 || x == kNoTensor) return kNoTensor;
  const auto& shape = r.graph.tensor(x).shape;
  const bool last = axes[0] == -1 || (shape && axes[0] == static_cast<std::int64_t>(shape->size()) - 1);
  return last ? x : kNoTensor;
}

// A node of `op` that takes the place of `parts`, the last of which gave `result`.
struct Joined {
  Rewrite& r;
  std::vector<const Node*> parts;

  bool take(const Node* node) {
    if (!node || r.kept.nodes.count(node->name) || node->outputs.size() != 1) return false;
    parts.push_back(node);
    return true;
  }
  // Nothing outside may read what the parts give each other.
  bool is_closed() const {
    for (const Node* node : parts) {
      if (node == parts.back()) continue;
      if (r.graph.is_output(node->outputs[0])) return false;
      for (const NodeId reader : r.graph.tensor(node->outputs[0]).consumers)
        if (std::none_of(parts.begin(), parts.end(), [reader](const Node* p) { return p->id == reader; })) return false;
    }
    return true;
  }
  void replace(const std::string& op, const std::vector<std::string>& inputs, Attributes attributes) {
    const std::string& name = parts.front()->name;
    const std::size_t cut = name.find_last_of("/.");
    const std::string result = r.name(parts.back()->outputs[0]);
    for (const Node* node : parts) r.remove(node->id);
    r.builder.node(cut == std::string::npos ? std::string() : name.substr(0, cut + 1) + op, op, inputs, {result},
                   std::move(attributes));
  }
};

// A vector of as many constants as x has columns.
bool is_columns(const Rewrite& r, TensorId t, TensorId x) {
  const TensorData* data = r.constant(t);
  const auto& shape = r.graph.tensor(x).shape;
  return data && data->shape.size() == 1 && shape && !shape->empty() && shape->back() == data->shape[0];
}

// Takes the product with gamma behind `divided` and, for LayerNormalization, the sum with beta if there is one; false: no gamma.
bool take_scale(Joined& j, const Node* divided, TensorId x, bool with_bias, std::vector<std::string>& inputs) {
  const Node* scaled = j.r.only_reader(divided->outputs[0]);
  const TensorId gamma = is(scaled, "Mul") ? other(*scaled, divided->outputs[0]) : kNoTensor;
  if (gamma == kNoTensor || !is_columns(j.r, gamma, x)) return false;
  if (!j.take(scaled)) return false;
  inputs = {j.r.name(x), j.r.name(gamma)};
  const Node* shifted = with_bias ? j.r.only_reader(scaled->outputs[0]) : nullptr;
  const TensorId beta = is(shifted, "Add") ? other(*shifted, scaled->outputs[0]) : kNoTensor;
  if (beta == kNoTensor || !is_columns(j.r, beta, x)) return true;
  inputs.push_back(j.r.name(beta));
  return j.take(shifted);
}

// The node that gives y / root, written as a quotient or as a product with the reciprocal; its parts are taken.
const Node* divided_by(Joined& j, const Node& root, TensorId y) {
  const Node* reader = j.r.only_reader(root.outputs[0]);
  if (is(reader, "Div") && reader->inputs.size() == 2 && reader->inputs[0] == y && reader->inputs[1] == root.outputs[0])
    return j.take(reader) ? reader : nullptr;
  const bool reciprocal = is(reader, "Reciprocal") ||
                          (is(reader, "Div") && reader->inputs.size() == 2 && near(j.r.number(reader->inputs[0]), 1));
  if (!reciprocal || !j.take(reader)) return nullptr;
  const Node* product = j.r.only_reader(reader->outputs[0]);
  return is(product, "Mul") && other(*product, reader->outputs[0]) == y && j.take(product) ? product : nullptr;
}

// sqrt(mean(y²) + epsilon) and what is divided by it: y = x - mean(x) for LayerNormalization, y = x for RMSNormalization.
void join_normalization(Rewrite& r, const Node& root) {
  const Node* sum = r.producer(root.input(0));
  if (!is(sum, "Add") || sum->inputs.size() != 2) return;
  const int at = r.number(sum->inputs[1]) ? 1 : 0;
  const std::optional<double> epsilon = r.number(sum->inputs[static_cast<std::size_t>(at)]);
  const Node* mean = r.producer(sum->inputs[static_cast<std::size_t>(1 - at)]);
  const TensorId square = averaged(r, mean);
  const Node* power = r.producer(square);
  const TensorId y = squared(r, power);
  if (!epsilon || *epsilon < 0 || *epsilon > 1 || y == kNoTensor) return;
  const Node* centered = r.producer(y);
  const Node* center = is(centered, "Sub") ? r.producer(centered->input(1)) : nullptr;
  const TensorId x = center && averaged(r, center) == centered->input(0) ? centered->input(0) : y;
  const bool is_layer_norm = x != y;
  if (r.graph.tensor(x).type != DataType::kFloat) return;
  Joined j{r, {}};
  if (is_layer_norm && (!j.take(center) || !j.take(centered))) return;
  for (const Node* node : {power, mean, sum, &root})
    if (!j.take(node)) return;
  const Node* divided = divided_by(j, root, y);
  std::vector<std::string> inputs;
  if (!divided || !take_scale(j, divided, x, is_layer_norm, inputs) || !j.is_closed()) return;
  j.replace(is_layer_norm ? "LayerNormalization" : "RMSNormalization", inputs,
            {{"axis", std::int64_t{-1}}, {"epsilon", static_cast<float>(*epsilon)}});
}

// x of x³: Pow(x, 3), Mul(x, Mul(x, x)).
TensorId cubed(const Rewrite& r, const Node* node, Joined& j) {
  if (is(node, "Pow") && node->inputs.size() == 2 && near(r.number(node->inputs[1]), 3)) return j.take(node) ? node->inputs[0] : kNoTensor;
  if (!is(node, "Mul") || node->inputs.size() != 2) return kNoTensor;
  for (const TensorId t : node->inputs) {
    const Node* square = r.producer(t);
    const TensorId x = squared(r, square);
    if (x != kNoTensor && other(*node, t) == x) return j.take(square) && j.take(node) ? x : kNoTensor;
  }
  return kNoTensor;
}

// x of the argument of erf, x / √2, or of tanh, √(2/π) (x + 0.044715 x³).
TensorId gelu_argument(const Rewrite& r, const Node& curve, Joined& j) {
  const Node* inner = r.producer(curve.input(0));
  if (curve.op == "Erf") {
    TensorId x = beside_number(r, inner, "Mul", std::sqrt(0.5));
    if (is(inner, "Div") && inner->inputs.size() == 2 && near(r.number(inner->inputs[1]), std::sqrt(2.0))) x = inner->inputs[0];
    return x != kNoTensor && j.take(inner) ? x : kNoTensor;
  }
  const TensorId total = beside_number(r, inner, "Mul", std::sqrt(2 / std::acos(-1.0)));
  const Node* sum = r.producer(total);
  if (!is(sum, "Add") || sum->inputs.size() != 2) return kNoTensor;
  for (const TensorId t : sum->inputs) {
    const Node* term = r.producer(t);
    const TensorId cube = beside_number(r, term, "Mul", 0.044715);
    if (cube == kNoTensor) continue;
    const TensorId x = cubed(r, r.producer(cube), j);
    return x != kNoTensor && other(*sum, t) == x && j.take(term) && j.take(sum) && j.take(inner) ? x : kNoTensor;
  }
  return kNoTensor;
}

// ½ x (1 + curve), the factors in any order (Hendrycks and Gimpel 2016).
void join_gelu(Rewrite& r, const Node& curve) {
  Joined j{r, {}};
  const TensorId x = gelu_argument(r, curve, j);
  if (x == kNoTensor || r.graph.tensor(x).type != DataType::kFloat || !j.take(&curve)) return;
  const Node* plus = r.only_reader(curve.outputs[0]);
  if (beside_number(r, plus, "Add", 1) != curve.outputs[0] || !j.take(plus)) return;
  const Node* product = r.only_reader(plus->outputs[0]);
  if (!is(product, "Mul")) return;
  const TensorId factor = other(*product, plus->outputs[0]);
  if (factor == x) {  // x (1 + curve), then the half
    if (!j.take(product)) return;
    const Node* half = r.only_reader(product->outputs[0]);
    if (beside_number(r, half, "Mul", 0.5) != product->outputs[0] || !j.take(half)) return;
  } else if (near(r.number(factor), 0.5)) {  // ½ (1 + curve), then x
    if (!j.take(product)) return;
    const Node* last = r.only_reader(product->outputs[0]);
    if (!is(last, "Mul") || other(*last, product->outputs[0]) != x || !j.take(last)) return;
  } else {  // ½ x first
    const Node* half = r.producer(factor);
    if (beside_number(r, half, "Mul", 0.5) != x || !j.take(half) || !j.take(product)) return;
  }
  if (!j.is_closed()) return;
  j.replace("Gelu", {r.name(x)}, {{"approximate", std::string(curve.op == "Erf" ? "none" : "tanh")}});
}

}  // namespace

void join_normalizations(Rewrite& r) {
  for (const Node& node : r.graph.nodes())
    if (is(&node, "Sqrt") && !r.gone.count(node.id)) join_normalization(r, node);
}

void join_gelus(Rewrite& r) {
  for (const Node& node : r.graph.nodes())
    if ((is(&node, "Erf") || is(&node, "Tanh")) && !r.gone.count(node.id)) join_gelu(r, node);
}

}  // namespace quanvas::canonical_form
