// Operators on codes as what they stand for: DequantizeLinear, the operator on real numbers, QuantizeLinear.
#include <functional>

#include "plugins/importers/onnx_quant_parts.h"

namespace quanvas::onnx_import {
namespace {

constexpr const char* kMicrosoft = "com.microsoft";

class Expander {
 public:
  Expander(Draft& draft, bool only_foreign) : draft_(draft), only_foreign_(only_foreign) {
    for (const DraftNode& n : draft.nodes) {
      taken_.insert(n.inputs.begin(), n.inputs.end());
      taken_.insert(n.outputs.begin(), n.outputs.end());
      // What sums of codes at run time are made of.
      static const std::set<std::string> parts = {"DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "Cast", "Mul"};
      if (n.domain.empty() && parts.count(n.op) && !n.removed && !n.outputs.empty())
        for (const std::string& t : n.outputs) makers_[t] = n;
    }
  }

  void run() {
    for (DraftNode& node : draft_.nodes) {
      if (!expand(node)) out_.push_back(std::move(node));
    }
    draft_.nodes = std::move(out_);
  }

 private:
  Draft& draft_;
  bool only_foreign_;
  std::vector<DraftNode> out_;
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, DraftNode> makers_;      // by result
  std::unordered_map<std::string, std::string> dynamic_;   // real numbers of codes with a scale of their own run

  using Rule = void (Expander::*)(DraftNode&);

  bool expand(DraftNode& node) {
    if (only_foreign_ && node.domain.empty()) return false;
    if (node.domain.empty() && node.op == "Mul" && !node.removed) return scaled_sums(node);
    if (node.domain == kMicrosoft && (node.op == "DynamicQuantizeMatMul" || node.op == "MatMulIntegerToFloat") && !node.removed) return float_product(node);
    const bool is_finn = node.domain == "qonnx.custom_op.general" || node.domain == "finn.custom_op.general";
    if (is_finn && node.op == "QuantAvgPool2d" && !node.removed)
      return expand_integer_average(draft_, node, [this](const std::string& wish) { return fresh(wish); }, out_);
    static const std::map<std::pair<std::string, std::string>, std::pair<std::size_t, Rule>> rules = {
        {{"", "QLinearConv"}, {8, &Expander::convolution}},
        {{"", "QLinearMatMul"}, {8, &Expander::product}},
        {{kMicrosoft, "QLinearAdd"}, {8, &Expander::two_operands}},
        {{kMicrosoft, "QLinearMul"}, {8, &Expander::two_operands}},
        {{kMicrosoft, "QLinearGlobalAveragePool"}, {5, &Expander::one_operand}},
        {{kMicrosoft, "QLinearAveragePool"}, {5, &Expander::one_operand}},
        {{kMicrosoft, "QLinearSigmoid"}, {5, &Expander::one_operand}},
        {{kMicrosoft, "QLinearLeakyRelu"}, {5, &Expander::one_operand}},
        {{kMicrosoft, "QLinearSoftmax"}, {5, &Expander::one_operand}},
        {{kMicrosoft, "QLinearConcat"}, {5, &Expander::concat}},
        {{kMicrosoft, "QGemm"}, {6, &Expander::gemm}},
        {{kMicrosoft, "QuantizeLinear"}, {2, &Expander::as_standard}},
        {{kMicrosoft, "DequantizeLinear"}, {2, &Expander::as_standard}}};
    const auto it = rules.find({node.domain, node.op});
    if (it == rules.end() || node.removed || node.inputs.size() < it->second.first || node.outputs.size() != 1) return false;
    if (node.integer("channels_last", 0) != 0 || !scales_are_constant(node)) return false;
    node.opaque_reason.clear();
    (this->*it->second.second)(node);
    return true;
  }

  static std::vector<std::size_t> scale_inputs(const DraftNode& node) {
    if (node.op == "QLinearConv" || node.op == "QLinearMatMul" || node.op == "QLinearAdd" || node.op == "QLinearMul") return {1, 4, 6};
    if (node.op == "QGemm") return {1, 4, 7};
    if (node.op != "QLinearConcat") return node.op.starts_with("QLinear") ? std::vector<std::size_t>{1, 3} : std::vector<std::size_t>{};
    std::vector<std::size_t> out = {0};
    for (std::size_t i = 3; i < node.inputs.size(); i += 3) out.push_back(i);
    return out;
  }
  bool scales_are_constant(const DraftNode& node) const {
    for (const std::size_t i : scale_inputs(node))
      if (!node.input(i).empty() && !draft_.constant(node.input(i))) return false;
    return true;
  }

  std::string fresh(const std::string& wish) {
    std::string name = wish;
    while (draft_.facts.count(name) || draft_.declared.count(name) || !taken_.insert(name).second) name += "_";
    return name;
  }

  // Real numbers of codes. axis: of several scales.
  std::string real(const std::string& codes, const std::string& scale, const std::string& zero, std::int64_t axis) {
    DraftNode n;
    n.op = "DequantizeLinear";
    n.inputs = {codes, scale};
    if (!zero.empty()) n.inputs.push_back(zero);
    n.outputs = {fresh(codes + "_real")};
    const TensorData* data = draft_.constant(scale);
    if (!data || data->count() != 1) n.attributes["axis"] = axis;
    out_.push_back(n);
    return n.outputs[0];
  }

  void codes(const std::string& real, const std::string& scale, const std::string& zero, const std::string& result) {
    DraftNode n;
    n.op = "QuantizeLinear";
    n.inputs = {real, scale};
    if (!zero.empty()) n.inputs.push_back(zero);
    n.outputs = {result};
    out_.push_back(n);
  }

  // The node on real numbers; gives the name of its result.
  std::string emit(const DraftNode& from, const std::string& op, std::vector<std::string> inputs,
                   const std::set<std::string>& attributes, const std::string& result) {
    DraftNode n;
    n.name = from.name;
    n.op = op;
    n.inputs = std::move(inputs);
    n.outputs = {result};
    for (const auto& [key, value] : from.attributes)
      if (attributes.count(key)) n.attributes[key] = value;
    out_.push_back(std::move(n));
    return result;
  }

  // factor * a * b, element by element of b.
  std::string product_of(const std::string& a, const std::string& b, float factor, const std::string& wish) {
    const std::vector<float> left = draft_.constant(a)->to_floats();
    const TensorData& right = *draft_.constant(b);
    std::vector<float> values = right.to_floats();
    for (float& v : values) v = (left.empty() ? 0.0f : left[0]) * v * factor;
    const std::string name = fresh(wish);
    draft_.constants[name] = TensorData::of_floats(right.shape, std::move(values));
    draft_.facts[name] = {DataType::kFloat, right.shape};
    return name;
  }

  // --- codes whose scale is found at run time: DynamicQuantizeLinear gives codes, scale and zero point

  const DraftNode* maker(const std::string& tensor, const char* op) const {
    const auto it = makers_.find(tensor);
    return it != makers_.end() && it->second.op == op ? &it->second : nullptr;
  }
  const DraftNode* dynamic_codes(const std::string& codes, const std::string& scale, const std::string& zero) const {
    const DraftNode* n = maker(codes, "DynamicQuantizeLinear");
    return n && n->outputs.size() == 3 && n->outputs[0] == codes && n->outputs[1] == scale && n->outputs[2] == zero ? n : nullptr;
  }
  std::string dynamic_real(const DraftNode& quantize) {
    std::string& name = dynamic_[quantize.outputs[0]];
    if (name.empty()) name = real(quantize.outputs[0], quantize.outputs[1], quantize.outputs[2], 1);
    return name;
  }
  // A list of so many numbers, of a constant that has as many or one; one number is no list.
  std::string as_list(const std::string& name, std::int64_t count) {
    const TensorData& data = *draft_.constant(name);
    const Shape wanted = count == 1 ? Shape{} : Shape{count};
    if (data.shape == wanted) return name;
    std::string bytes;
    for (std::int64_t i = 0; i < count / data.count(); ++i) bytes.append(static_cast<const char*>(static_cast<const void*>(data.data)), data.bytes);
    const std::string copy = fresh(name + "_list");
    draft_.facts[copy] = {data.type, wanted};
    draft_.constants[copy] = TensorData::copy_of(data.type, wanted, bytes.data(), bytes.size());
    return copy;
  }

  // Whether a product by this scale multiplies each output channel by one number: its shape says so, not its size alone.
  bool is_by_channel(const Shape& scale, std::int64_t channels, bool convolution, std::size_t weight_rank, const std::string& x) const {
    const auto is_one = [](std::int64_t d) { return d == 1; };
    const std::size_t rank = scale.size();
    const bool one = std::all_of(scale.begin(), scale.end(), is_one);
    if (convolution) {
      if (one) return rank <= weight_rank;
      const std::size_t at = rank == weight_rank ? 1 : 0;  // [1, C, 1, 1] or [C, 1, 1]
      if (rank + 1 != weight_rank && rank != weight_rank) return false;
      for (std::size_t i = 0; i < rank; ++i)
        if (i != at && scale[i] != 1) return false;
      return scale[at] == channels;
    }
    if (rank > 1) {  // more axes than the product has would be new ones; it has as many as x
      const auto declared = draft_.declared.find(x);
      const TensorFacts* facts = draft_.known(x);
      const std::optional<Shape> shape = facts && facts->shape ? facts->shape : declared != draft_.declared.end() ? declared->second.shape : std::nullopt;
      if (!shape || shape->size() < rank) return false;
    }
    return one || (scale.back() == channels && std::all_of(scale.begin(), scale.end() - 1, is_one));
  }

  // Real numbers of a weight's codes, by output channel; empty: scale or zero point are none of a weight. x: the layer's
  // input.
  std::string weight_real(const std::string& codes, const std::string& scale, const std::string& zero, bool convolution, const std::string& x) {
    const TensorData *w = draft_.constant(codes), *s = draft_.constant(scale), *z = zero.empty() ? nullptr : draft_.constant(zero);
    if (!w || !s || s->type != DataType::kFloat || (!zero.empty() && !z) || (convolution ? w->shape.size() < 3 : w->shape.size() != 2)) return {};
    const std::int64_t channels = convolution ? w->shape[0] : w->shape[1], count = std::max(s->count(), z ? z->count() : 1);
    if (!is_by_channel(s->shape, channels, convolution, w->shape.size(), x)) return {};
    if (z && z->shape.size() > 1) return {};
    if (z && z->type != DataType::kInt8 && z->type != DataType::kUint8) return {};
    for (const TensorData* data : {s, z})
      if (data && (!data->data || data->count() <= 0 || (data->count() != 1 && data->count() != channels))) return {};
    const std::string scales = as_list(scale, count), zeros = z ? as_list(zero, count) : std::string();
    return real(codes, scales, zeros, convolution ? 0 : 1);
  }

  // Cast(MatMulInteger(codes, weight)) * (scale * weight scale), or ConvInteger.
  bool scaled_sums(const DraftNode& n) {
    if (n.inputs.size() != 2 || n.outputs.size() != 1) return false;
    for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
      const DraftNode* cast = maker(n.inputs[i], "Cast");
      if (!cast || cast->integer("to", 0) != static_cast<std::int64_t>(DataType::kFloat)) continue;
      const DraftNode* sums = maker(cast->input(0), "MatMulInteger");
      const bool convolution = !sums;
      if (!sums) sums = maker(cast->input(0), "ConvInteger");
      const DraftNode* scales = maker(n.inputs[1 - i], "Mul");
      if (!sums || !scales || scales->inputs.size() != 2) continue;
      for (const std::size_t k : {std::size_t{0}, std::size_t{1}}) {
        const DraftNode* codes = dynamic_codes(sums->input(0), scales->inputs[k], sums->input(2));
        if (!codes || !draft_.constant(scales->inputs[1 - k])) continue;
        const std::string weight = weight_real(sums->input(1), scales->inputs[1 - k], sums->input(3), convolution, codes->input(0));
        if (weight.empty()) return false;
        DraftNode layer = *sums;
        if (layer.name.empty()) layer.name = n.name;
        emit(layer, convolution ? "Conv" : "MatMul", {dynamic_real(*codes), weight},
             convolution ? std::set<std::string>{"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"} : std::set<std::string>{}, n.outputs[0]);
        return true;
      }
    }
    return false;
  }

  // com.microsoft's DynamicQuantizeMatMul (A, B, b_scale, b_zero_point, bias) and MatMulIntegerToFloat (A, B, a_scale, b_scale, a_zero_point,
  // b_zero_point, bias).
  bool float_product(const DraftNode& n) {
    if (n.outputs.size() != 1) return false;
    const bool itself = n.op == "DynamicQuantizeMatMul";
    const DraftNode* codes = itself ? nullptr : dynamic_codes(n.input(0), n.input(2), n.input(4));
    if (!itself && !codes) return false;
    const std::string weight = weight_real(n.input(1), n.input(itself ? 2 : 3), n.input(itself ? 3 : 5), false, itself ? n.input(0) : codes->input(0));
    if (weight.empty()) return false;
    std::string x;
    if (itself) {
      DraftNode q;
      q.op = "DynamicQuantizeLinear";
      q.inputs = {n.input(0)};
      q.outputs = {fresh(n.input(0) + "_codes"), fresh(n.input(0) + "_scale"), fresh(n.input(0) + "_zero")};
      out_.push_back(q);
      x = real(q.outputs[0], q.outputs[1], q.outputs[2], 1);
    } else {
      x = dynamic_real(*codes);
    }
    const std::string& bias = n.input(itself ? 4 : 6);
    const std::string result = bias.empty() ? n.outputs[0] : fresh(n.outputs[0] + "_product");
    emit(n, "MatMul", {x, weight}, {}, result);
    if (bias.empty()) return true;
    DraftNode add;
    add.op = "Add";
    add.inputs = {result, bias};
    add.outputs = {n.outputs[0]};
    out_.push_back(std::move(add));
    return true;
  }

  void convolution(DraftNode& n) {
    std::vector<std::string> inputs = {real(n.input(0), n.input(1), n.input(2), 1), real(n.input(3), n.input(4), n.input(5), 0)};
    if (!n.input(8).empty())
      inputs.push_back(real(n.input(8), product_of(n.input(1), n.input(4), 1, n.input(8) + "_scale"), {}, 0));
    const std::string result = fresh(n.outputs[0] + "_real");
    emit(n, "Conv", inputs, {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}, result);
    codes(result, n.input(6), n.input(7), n.outputs[0]);
  }

  void product(DraftNode& n) {
    const std::string a = real(n.input(0), n.input(1), n.input(2), -2), b = real(n.input(3), n.input(4), n.input(5), -1);
    const std::string result = fresh(n.outputs[0] + "_real");
    emit(n, "MatMul", {a, b}, {}, result);
    codes(result, n.input(6), n.input(7), n.outputs[0]);
  }

  void two_operands(DraftNode& n) {
    const std::string a = real(n.input(0), n.input(1), n.input(2), 1), b = real(n.input(3), n.input(4), n.input(5), 1);
    const std::string result = fresh(n.outputs[0] + "_real");
    emit(n, n.op.substr(std::string("QLinear").size()), {a, b}, {}, result);
    codes(result, n.input(6), n.input(7), n.outputs[0]);
  }

  void one_operand(DraftNode& n) {
    const std::string x = real(n.input(0), n.input(1), n.input(2), 1);
    const std::string result = fresh(n.outputs[0] + "_real");
    emit(n, n.op.substr(std::string("QLinear").size()), {x},
         {"auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides", "alpha", "axis"}, result);
    codes(result, n.input(3), n.input(4), n.outputs[0]);
  }

  void concat(DraftNode& n) {
    std::vector<std::string> inputs;
    for (std::size_t i = 2; i + 1 < n.inputs.size(); i += 3) inputs.push_back(real(n.input(i), n.input(i + 1), n.input(i + 2), 1));
    const std::string result = fresh(n.outputs[0] + "_real");
    emit(n, "Concat", inputs, {"axis"}, result);
    codes(result, n.input(0), n.input(1), n.outputs[0]);
  }

  void gemm(DraftNode& n) {
    const auto alpha = n.attributes.find("alpha");
    const float factor = alpha != n.attributes.end() && std::holds_alternative<float>(alpha->second) ? std::get<float>(alpha->second) : 1;
    std::vector<std::string> inputs = {real(n.input(0), n.input(1), n.input(2), 1),
                                       real(n.input(3), n.input(4), n.input(5), n.integer("transB", 0) != 0 ? 0 : 1)};
    if (!n.input(6).empty())
      inputs.push_back(real(n.input(6), product_of(n.input(1), n.input(4), factor, n.input(6) + "_scale"), {}, 0));
    const bool is_real = n.input(7).empty();
    const std::string result = is_real ? n.outputs[0] : fresh(n.outputs[0] + "_real");
    emit(n, "Gemm", inputs, {"alpha", "transA", "transB"}, result);
    if (!is_real) codes(result, n.input(7), n.input(8), n.outputs[0]);
  }

  void as_standard(DraftNode& n) {
    n.domain.clear();
    out_.push_back(std::move(n));
  }
};

// --- QuantizeLinear behind operators that only move codes

bool moves_codes(const DraftNode& n) {
  static const std::unordered_set<std::string> ops = {
      "MaxPool", "GlobalMaxPool", "Reshape",      "Transpose",    "Flatten", "Squeeze", "Unsqueeze",
      "Slice",   "Identity",      "DepthToSpace", "SpaceToDepth", "Split",   "Expand",  "Tile"};
  return n.domain.empty() && ops.count(n.op) && n.opaque_reason.empty() && (n.op != "MaxPool" || n.outputs.size() == 1);
}

class Late {
 public:
  explicit Late(Draft& draft) : draft_(draft) {
    for (const DraftNode& n : draft.nodes) {
      taken_.insert(n.inputs.begin(), n.inputs.end());
      taken_.insert(n.outputs.begin(), n.outputs.end());
    }
  }

  void run() {
    for (DraftNode& node : draft_.nodes) {
      if (node.removed) continue;
      if (is_code_relu(node)) relu_as_clip(node);
      if (!move(node) && !concatenate(node)) keep(std::move(node));
    }
    draft_.nodes = std::move(out_);
    drop_unread();
  }

 private:
  // QuantizeLinear and the Clips behind it.
  struct Chain {
    std::string real;
    std::vector<DraftNode> nodes;
  };
  Draft& draft_;
  std::vector<DraftNode> out_;
  std::unordered_map<std::string, Chain> chains_;  // by code tensor
  std::unordered_set<std::string> taken_;

  bool is_code(const std::string& tensor) const {
    const TensorFacts* facts = draft_.known(tensor);
    return facts && (facts->type == DataType::kInt8 || facts->type == DataType::kUint8 || facts->type == DataType::kInt16 ||
                     facts->type == DataType::kUint16);
  }

  bool is_code_relu(const DraftNode& n) const {
    return n.domain.empty() && n.op == "Relu" && n.outputs.size() == 1 && chains_.count(n.input(0));
  }
  // On codes it cuts off below 0 whatever that stands for.
  void relu_as_clip(DraftNode& n) {
    const std::string name = fresh(n.outputs[0] + "_least");
    const DataType type = draft_.known(n.input(0))->type;
    const std::int16_t zero = 0;
    const TensorData data = TensorData::copy_of(type, {}, &zero, element_size(type));
    draft_.constants[name] = data;
    draft_.facts[name] = {type, Shape{}};
    n.op = "Clip";
    n.inputs = {n.inputs[0], name};
  }

  bool is_per_tensor(const DraftNode& n) const {
    const TensorData* scale = draft_.constant(n.input(1));
    return scale && scale->count() == 1;
  }

  void keep(DraftNode node) {
    if (node.domain.empty() && node.op == "QuantizeLinear" && node.outputs.size() == 1 && is_code(node.outputs[0]) &&
        is_per_tensor(node))
      chains_[node.outputs[0]] = {node.input(0), {node}};
    if (node.domain.empty() && node.op == "Clip" && node.outputs.size() == 1) {
      if (const auto it = chains_.find(node.input(0)); it != chains_.end()) {
        Chain chain = it->second;
        chain.nodes.push_back(node);
        chains_[node.outputs[0]] = std::move(chain);
      }
    }
    out_.push_back(std::move(node));
  }

  std::string fresh(const std::string& wish) {
    std::string name = wish;
    while (draft_.facts.count(name) || draft_.declared.count(name) || !taken_.insert(name).second) name += "_";
    return name;
  }

  // real -> the chain's nodes anew -> result
  void quantize(const Chain& chain, const std::string& real, const std::string& result) {
    std::string from = real;
    for (std::size_t i = 0; i < chain.nodes.size(); ++i) {
      DraftNode n = chain.nodes[i];
      n.name.clear();
      n.inputs[0] = from;
      const bool last = i + 1 == chain.nodes.size();
      const TensorFacts facts = draft_.facts[result];
      n.outputs = {last ? result : fresh(result + "_codes")};
      draft_.facts[n.outputs[0]] = facts;
      from = n.outputs[0];
      keep(std::move(n));
    }
  }

  // The node on real numbers, and its results as codes again.
  void emit(DraftNode node, const Chain& chain) {
    std::vector<std::pair<std::string, std::string>> results;
    for (std::string& t : node.outputs) {
      if (t.empty()) continue;
      const std::string real = fresh(t + "_real");
      draft_.facts[real] = {DataType::kFloat, draft_.facts[t].shape};
      results.emplace_back(real, t);
      t = real;
    }
    out_.push_back(std::move(node));
    for (const auto& [real, codes] : results) quantize(chain, real, codes);
  }

  bool move(DraftNode& node) {
    if (!moves_codes(node)) return false;
    const auto it = chains_.find(node.input(0));
    if (it == chains_.end()) return false;
    const Chain chain = it->second;
    node.inputs[0] = chain.real;
    emit(std::move(node), chain);
    return true;
  }

  static bool is_same(const Chain& a, const Chain& b) {
    if (a.nodes.size() != b.nodes.size()) return false;
    for (std::size_t i = 0; i < a.nodes.size(); ++i) {
      const DraftNode &x = a.nodes[i], &y = b.nodes[i];
      if (x.op != y.op || x.attributes != y.attributes || x.inputs.size() != y.inputs.size()) return false;
      if (!std::equal(x.inputs.begin() + 1, x.inputs.end(), y.inputs.begin() + 1)) return false;
    }
    return true;
  }

  bool concatenate(DraftNode& node) {
    if (!node.domain.empty() || node.op != "Concat" || node.inputs.empty() || node.outputs.size() != 1) return false;
    std::vector<Chain> parts;
    for (const std::string& t : node.inputs) {
      const auto it = chains_.find(t);
      if (it == chains_.end() || (!parts.empty() && !is_same(parts.front(), it->second))) return false;
      parts.push_back(it->second);
    }
    for (std::size_t i = 0; i < parts.size(); ++i) node.inputs[i] = parts[i].real;
    emit(std::move(node), parts.front());
    return true;
  }

  void drop_unread() {
    for (bool again = true; again;) {
      again = false;
      std::unordered_set<std::string> read(draft_.outputs.begin(), draft_.outputs.end());
      for (const DraftNode& n : draft_.nodes)
        if (!n.removed) read.insert(n.inputs.begin(), n.inputs.end());
      for (DraftNode& n : draft_.nodes) {
        if (n.removed || !chains_.count(n.outputs[0]) || read.count(n.outputs[0])) continue;
        n.removed = true;
        again = true;
      }
    }
  }
};

}  // namespace

bool is_qonnx_operator(const std::string& domain, const std::string& op) {
  static const std::unordered_set<std::string> domains = {"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"};
  static const std::unordered_set<std::string> ops = {"Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant", "MultiThreshold"};
  return domains.count(domain) && ops.count(op);
}

void expand_integer_operators(Draft& draft, bool only_foreign) {
  Expander(draft, only_foreign).run();
}

void quantize_late(Draft& draft) { Late(draft).run(); }

}  // namespace quanvas::onnx_import
