// Files for Xilinx' DPU (domain pyxir): layers whose weights are whole numbers and whose attributes vai_quant_... give
// [bits, position of the binary point]. They become the layers of ai.onnx with a Quant node at each place, which the rest of
// the importer knows.
#include <algorithm>
#include <cmath>

#include "plugins/importers/onnx_quant.h"

namespace quanvas::onnx_import {
namespace {

constexpr const char* kQonnx = "qonnx.custom_op.general";

struct Fix {
  std::int64_t bits = 8, position = 0;  // scale 2^-position
  bool operator==(const Fix&) const = default;
};

class Expander {
 public:
  Expander(Draft& draft, std::string rounding) : draft_(draft), rounding_(std::move(rounding)) {
    for (const DraftNode& n : draft.nodes) {
      for (const std::string& t : n.inputs)
        if (!t.empty()) taken_.insert(t), ++readers_[t];
      taken_.insert(n.outputs.begin(), n.outputs.end());
    }
    taken_.insert(draft.inputs.begin(), draft.inputs.end());
  }

  void run() {
    for (DraftNode& node : draft_.nodes) {
      if (node.domain == "pyxir" || node.domain == "pyxir.onnx") {
        if (const std::string why = expand(node); !why.empty())
          node.opaque_reason = why;
        else
          continue;
      } else if (!node.removed && passes(node.op) && node.domain.empty() && !node.inputs.empty() && !node.outputs.empty()) {
        if (const auto it = grid_.find(node.inputs[0]); it != grid_.end()) grid_[node.outputs[0]] = it->second;
      }
      out_.push_back(std::move(node));
    }
    draft_.nodes = std::move(out_);
  }

 private:
  // Gives nothing but values that it takes.
  static bool passes(const std::string& op) {
    return op == "Relu" || op == "MaxPool" || op == "Flatten" || op == "Reshape" || op == "Transpose" || op == "Squeeze" ||
           op == "Unsqueeze";
  }

  std::string fresh(const std::string& wish) {
    std::string name = wish;
    while (draft_.facts.count(name) || draft_.declared.count(name) || !taken_.insert(name).second) name += "_";
    return name;
  }

  // The [bits, position] pairs of an attribute; none: it is no such list.
  static std::optional<std::vector<Fix>> fixes(const DraftNode& n, const std::string& key, std::size_t count) {
    const auto list = n.integers(key);
    if (!list || list->size() != 2 * count) return std::nullopt;
    std::vector<Fix> out;
    for (std::size_t i = 0; i < count; ++i) out.push_back({(*list)[2 * i], (*list)[2 * i + 1]});
    for (const Fix& f : out)
      if (f.bits < 2 || f.bits > 32 || f.position < -64 || f.position > 64) return std::nullopt;
    return out;
  }

  std::string number(const std::string& wish, float value) {
    const std::string name = fresh(wish);
    draft_.constants[name] = TensorData::of_floats({}, {value});
    draft_.facts[name] = {DataType::kFloat, Shape{}};
    return name;
  }

  void quantize(const std::string& from, const std::string& to, const Fix& f, const std::string& rounding) {
    DraftNode n;
    n.op = "Quant";
    n.domain = kQonnx;
    n.name = "quantize_" + to;
    n.inputs = {from, number(to + "_scale", static_cast<float>(std::ldexp(1.0, static_cast<int>(-f.position)))),
                number(to + "_zero_point", 0), number(to + "_bits", static_cast<float>(f.bits))};
    n.outputs = {to};
    n.attributes = {{"signed", std::int64_t{1}}, {"narrow", std::int64_t{0}}, {"rounding_mode", rounding}};
    out_.push_back(std::move(n));
  }

  // Whole numbers as what they stand for, and their quantizer.
  std::string real_constant(const std::string& name, const Fix& f) {
    const TensorData* data = draft_.constant(name);
    std::vector<float> values = data->to_floats();
    for (float& v : values) v = static_cast<float>(std::ldexp(static_cast<double>(v), static_cast<int>(-f.position)));
    const std::string own = readers_[name] == 1 && !draft_.is_output(name) ? name : fresh(name + "_real");
    const Shape shape = data->shape;
    draft_.constants[own] = TensorData::of_floats(shape, std::move(values));
    draft_.facts[own] = {DataType::kFloat, shape};
    const std::string result = fresh(own + "_quantized");
    quantize(own, result, f, "ROUND");
    return result;
  }

  std::string expand(const DraftNode& source) {
    DraftNode node = source;
    if (node.outputs.empty() || node.outputs[0].empty()) return "it has no output";
    const std::size_t operands = node.op == "Add" || node.op == "Mul" ? 2 : 1;
    const auto has = [&](const char* key) { return node.attributes.count(key) > 0; };
    std::optional<std::vector<Fix>> in, out, weights, biases;
    const struct {
      const char* key;
      std::optional<std::vector<Fix>>* into;
      std::size_t count, input;
    } parts[] = {{"vai_quant_in", &in, operands, 0},
                 {"vai_quant_out", &out, 1, 0},
                 {"vai_quant_weights", &weights, 1, 1},
                 {"vai_quant_biases", &biases, 1, 2}};
    for (const auto& part : parts) {
      if (!has(part.key)) continue;
      *part.into = fixes(node, part.key, part.count);
      if (!*part.into)
        return std::string("its attribute ") + part.key + " is no list of bits and positions of the binary point";
      if (part.input > 0 && !draft_.constant(node.input(part.input)))
        return std::string("there is no constant for its attribute ") + part.key;
      if (part.input > 0 && static_cast<std::int64_t>(draft_.constant(node.input(part.input))->to_floats().size()) !=
                                draft_.constant(node.input(part.input))->count())
        return "the file lacks data of '" + node.input(part.input) + "'";
    }
    if (!is_known_operator(node.op)) return "there is no ONNX operator " + node.op;
    node.domain.clear();
    node.opaque_reason = implausible(node);
    std::erase_if(node.attributes, [](const auto& a) { return a.first.starts_with("vai_quant") || a.first == "domain"; });
    if (node.op == "Conv") take_padding(node);
    for (std::size_t i = 0; in && i < operands && i < node.inputs.size(); ++i) {
      const auto known = grid_.find(node.inputs[i]);
      if (node.inputs[i].empty() || (known != grid_.end() && known->second == (*in)[i])) continue;
      const std::string result = fresh(node.inputs[i] + "_quantized");
      quantize(node.inputs[i], result, (*in)[i], rounding_);
      node.inputs[i] = result;
      grid_[result] = (*in)[i];
    }
    if (weights) node.inputs[1] = real_constant(node.inputs[1], (*weights)[0]);
    if (biases) node.inputs[2] = real_constant(node.inputs[2], (*biases)[0]);
    if (node.op == "Pad") {
      if (const auto pads = node.integers("pads"); pads && pads->size() == 8 && is_zero_padding(node))
        pads_[node.outputs[0]] = {out_.size(), node.inputs[0], {(*pads)[2], (*pads)[3], (*pads)[6], (*pads)[7]}};
      pads_as_input(node);
    }
    const std::string result = node.outputs[0];
    const auto entered = grid_.find(node.input(0));
    const bool same =
        (passes(node.op) || node.op == "Pad") && entered != grid_.end() && (!out || entered->second == (*out)[0]);
    if (!out || same) {
      if (same) grid_[result] = entered->second;
      out_.push_back(std::move(node));
      return {};
    }
    node.outputs[0] = fresh(result + "_unquantized");
    const std::string raw = node.outputs[0];
    out_.push_back(std::move(node));
    quantize(raw, result, (*out)[0], rounding_);
    grid_[result] = (*out)[0];
    return {};
  }

  static bool is_zero_padding(const DraftNode& node) {
    const auto pads = *node.integers("pads");
    const auto value = node.attributes.find("value");
    const auto mode = node.attributes.find("mode");
    const bool zero = value == node.attributes.end() ||
                      (std::holds_alternative<float>(value->second) && std::get<float>(value->second) == 0);
    return zero && (mode == node.attributes.end() || node.text("mode") == "constant") && pads[0] == 0 && pads[1] == 0 &&
           pads[4] == 0 && pads[5] == 0 && *std::min_element(pads.begin(), pads.end()) >= 0;
  }

  // A convolution behind a layer of padding is one that pads.
  void take_padding(DraftNode& node) {
    const auto it = pads_.find(node.input(0));
    if (it == pads_.end() || node.attributes.count("pads") || !node.attributes.count("auto_pad") ||
        node.text("auto_pad") != "VALID")
      return;
    const auto inner = grid_.find(it->second.source), outer = grid_.find(node.inputs[0]);
    if ((inner == grid_.end()) != (outer == grid_.end()) || (inner != grid_.end() && !(inner->second == outer->second)))
      return;
    if (readers_[node.inputs[0]] == 1 && !draft_.is_output(node.inputs[0])) out_[it->second.node].removed = true;
    node.inputs[0] = it->second.source;
    node.attributes.erase("auto_pad");
    node.attributes["pads"] = it->second.pads;
  }

  // An attribute there, an input since opset 11.
  void pads_as_input(DraftNode& node) {
    constexpr int kPadsAreInputs = 11;
    const auto pads = node.integers("pads");
    if (draft_.opset < kPadsAreInputs || !pads || node.inputs.size() != 1) return;
    const std::string name = fresh(node.outputs[0] + "_pads");
    const Shape shape = {static_cast<std::int64_t>(pads->size())};
    draft_.constants[name] = TensorData::of_int64(shape, *pads);
    draft_.facts[name] = {DataType::kInt64, shape};
    node.inputs.push_back(name);
    const auto value = node.attributes.find("value");
    if (value != node.attributes.end() && std::holds_alternative<float>(value->second))
      node.inputs.push_back(number(node.outputs[0] + "_pad_value", std::get<float>(value->second)));
    node.attributes.erase("pads");
    node.attributes.erase("value");
  }

  Draft& draft_;
  std::string rounding_;
  std::vector<DraftNode> out_;
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, std::size_t> readers_;
  struct Padding {
    std::size_t node = 0;  // in out_
    std::string source;
    std::vector<std::int64_t> pads;
  };
  std::unordered_map<std::string, Padding> pads_;  // by result
  std::unordered_map<std::string, Fix> grid_;      // what tensors hold
};

}  // namespace

void expand_dpu_layers(Draft& draft, const std::string& rounding) {
  Expander(draft, rounding == "DPU" ? rounding : "ROUND").run();
}

}  // namespace quanvas::onnx_import
