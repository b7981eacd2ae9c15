// The forms of canonical.h in ONNX's own words.
#include <cmath>
#include <utility>

#include "core/algorithms/hadamard.h"
#include "core/graph/canonical.h"
#include "core/graph/rotation_node.h"
#include "plugins/exporters/onnx_opset.h"

namespace quanvas::onnx_file {
namespace {

constexpr int kLayerNormalization = 17, kAxesAsInput = 18, kGelu = 20, kRmsNormalization = 23;

// The nodes that take the place of one, in their order.
class Chain {
 public:
  Chain(const NodeDraft& whole, int opset, const std::function<std::string(const std::string&)>& fresh)
      : whole_(whole), opset_(opset), fresh_(fresh) {}

  // A node with one output, whose name comes back.
  std::string add(const std::string& op, std::vector<std::string> inputs, Attributes attributes = {}) {
    const std::string name = parts_.empty() ? whole_.name : whole_.name + "_" + op;
    const std::string output = fresh_(whole_.outputs[0] + "_" + op);
    parts_.push_back({name, op, {}, std::move(inputs), {output}, std::move(attributes), std::move(constants_)});
    constants_.clear();
    return output;
  }
  // A constant of the next node, under a name that holds until that.
  std::string number(float value) { return constant(TensorData::of_floats({}, {value})); }
  std::string mean(const std::string& x) {
    if (opset_ < kAxesAsInput) return add("ReduceMean", {x}, {{"axes", std::vector<std::int64_t>{-1}}});
    return add("ReduceMean", {x, constant(TensorData::of_int64({1}, {-1}))});
  }
  std::vector<NodeDraft> done() {
    parts_.back().name = whole_.name + kResult;
    parts_.back().outputs = whole_.outputs;
    return std::move(parts_);
  }

 private:
  std::string constant(TensorData data) {
    const std::string name = whole_.outputs[0] + "_constant" + std::to_string(constants_.size());
    constants_.push_back({name, std::move(data)});
    return name;
  }

  const NodeDraft& whole_;
  int opset_;
  const std::function<std::string(const std::string&)>& fresh_;
  std::vector<NodeDraft> parts_;
  std::vector<NodeDraft::Constant> constants_;
};

float epsilon_of(const NodeDraft& draft) {
  const auto it = draft.attributes.find("epsilon");
  const float* value = it == draft.attributes.end() ? nullptr : std::get_if<float>(&it->second);
  return value ? *value : 1e-5f;
}

// y / sqrt(mean(y * y) + epsilon) * gamma [+ beta]
void add_normalized(Chain& c, const NodeDraft& draft, const std::string& y) {
  const std::string mean = c.mean(c.add("Mul", {y, y}));
  const std::string epsilon = c.number(epsilon_of(draft));
  const std::string root = c.add("Sqrt", {c.add("Add", {mean, epsilon})});
  const std::string scaled = c.add("Mul", {c.add("Div", {y, root}), draft.inputs[1]});
  if (draft.inputs.size() > 2 && !draft.inputs[2].empty()) c.add("Add", {scaled, draft.inputs[2]});
}

std::vector<NodeDraft> gelu(const NodeDraft& draft, Chain c) {
  const std::string& x = draft.inputs[0];
  const auto it = draft.attributes.find("approximate");
  const std::string* form = it == draft.attributes.end() ? nullptr : std::get_if<std::string>(&it->second);
  std::string curve;
  if (form && *form == "tanh") {
    const std::string cube = c.add("Mul", {c.add("Mul", {x, x}), x});
    const std::string factor = c.number(0.044715f);
    const std::string sum = c.add("Add", {x, c.add("Mul", {cube, factor})});
    const std::string slope = c.number(static_cast<float>(std::sqrt(2 / std::acos(-1.0))));
    curve = c.add("Tanh", {c.add("Mul", {sum, slope})});
  } else {
    const std::string root = c.number(static_cast<float>(std::sqrt(2.0)));
    curve = c.add("Erf", {c.add("Div", {x, root})});
  }
  const std::string one = c.number(1.0f);
  const std::string product = c.add("Mul", {x, c.add("Add", {curve, one})});
  const std::string half = c.number(0.5f);
  c.add("Mul", {product, half});
  return c.done();
}

// [x, 0] (I x H) as one product with a constant, which holds no rows for the zeros.
NodeDraft hadamard_product(NodeDraft draft, const HadamardNode& h) {
  const auto transform = algorithms::HadamardTransform::create(h.size, h.core);
  if (!transform) return draft;  // check_graph has refused it
  // As many rows of H as there are features: H may be far larger than they are.
  const std::int64_t rows = std::min(h.width, h.size), columns = h.outputs();
  std::vector<float> block(static_cast<std::size_t>(rows * h.size), 0.0f);
  for (std::int64_t i = 0; i < rows; ++i) block[static_cast<std::size_t>(i * h.size + i)] = 1;
  transform->apply(block.data(), block.data(), rows);
  std::vector<float> matrix(static_cast<std::size_t>(h.width * columns), 0.0f);
  for (std::int64_t i = 0; i < h.width; ++i)
    for (std::int64_t j = 0; j < h.size; ++j)
      matrix[static_cast<std::size_t>(i * columns + i / h.size * h.size + j)] =
          block[static_cast<std::size_t>(i % h.size * h.size + j)];
  const std::string name = draft.name + "_matrix";
  NodeDraft product{draft.name, "MatMul", {}, {draft.inputs[0], name}, draft.outputs, {}, {}};
  product.constants.push_back({name, TensorData::of_floats({h.width, columns}, std::move(matrix))});
  return product;
}

}  // namespace

std::vector<NodeDraft> in_onnx(NodeDraft draft, int opset, const std::function<std::string(const std::string&)>& fresh) {
  Node node;
  node.domain = draft.domain;
  node.op = draft.op;
  node.attributes = draft.attributes;
  if (const auto h = hadamard_node(node); h && !draft.outputs.empty()) return {hadamard_product(std::move(draft), *h)};
  if (!draft.domain.empty() || draft.outputs.empty()) return {std::move(draft)};
  node.outputs.resize(draft.outputs.size());
  draft.outputs.resize(std::min(draft.outputs.size(), own_outputs(node)));
  while (draft.outputs.size() > 1 && draft.outputs.back().empty()) draft.outputs.pop_back();
  Chain chain(draft, opset, fresh);
  if (draft.op == "MatMul" && draft.inputs.size() == 3) {
    chain.add("Add", {chain.add("MatMul", {draft.inputs[0], draft.inputs[1]}), draft.inputs[2]});
    return chain.done();
  }
  if (draft.op == "LayerNormalization" && opset < kLayerNormalization) {
    add_normalized(chain, draft, chain.add("Sub", {draft.inputs[0], chain.mean(draft.inputs[0])}));
    return chain.done();
  }
  if (draft.op == "RMSNormalization" && opset < kRmsNormalization) {
    add_normalized(chain, draft, draft.inputs[0]);
    return chain.done();
  }
  if (draft.op == "Gelu" && opset < kGelu) return gelu(draft, std::move(chain));
  return {std::move(draft)};
}

}  // namespace quanvas::onnx_file
