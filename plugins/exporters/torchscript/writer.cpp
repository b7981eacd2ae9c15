#include "plugins/exporters/torchscript/writer.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "plugins/exporters/code_limits.h"
#include "plugins/exporters/torchscript/plan.h"

namespace quanvas::torchscript_file {
namespace {

constexpr int kQint8 = 12, kQuint8 = 13, kFloat = 6;  // c10::ScalarType

// What the program has of one tensor of the network.
struct Held {
  std::string real;                                           // variable with the very values; empty: only codes are there
  std::string codes;                                          // quantized tensor that stands for the same values
  const quant::QuantParams* params = nullptr;                 // of codes
  std::map<std::string, std::string> quantized, dequantized;  // by key_of()
};

TensorData integers(DataType type, const Shape& shape, const std::vector<std::int32_t>& codes) {
  if (type == DataType::kInt32) return TensorData::copy_of(type, shape, codes.data(), codes.size() * sizeof(std::int32_t));
  std::vector<std::uint8_t> bytes(codes.size());
  for (std::size_t i = 0; i < codes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(codes[i]);
  return TensorData::copy_of(type, shape, bytes.data(), bytes.size());
}

bool mentions(const std::string& text, const std::string& word) {
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) {
    const char next = at + word.size() < text.size() ? text[at + word.size()] : ' ';
    if (!std::isalnum(static_cast<unsigned char>(next)) && next != '_') return true;
  }
  return false;
}

class Writer {
 public:
  Writer(const QuantizedModel& model, const Form& form)
      : model_(model), graph_(*model.model->graph), form_(form), quantizers_(by_node(model)) {}

  Result<Program> run(JobContext& job) {
    for (const TensorId t : graph_.inputs()) {
      held_[t].real = program_.variable(graph_.tensor(t).name);
      program_.root.arguments.push_back(held_[t].real);
    }
    for (const Node& node : graph_.nodes()) {
      QUANVAS_CHECK(job.check());
      if (done_.insert(node.id).second) QUANVAS_CHECK(add(node));
    }
    std::string result;
    for (const TensorId t : graph_.outputs()) {
      const bool constant = graph_.tensor(t).is_initializer;
      result += (result.empty() ? "" : ", ") + (constant ? root_constant(t) : real(t));
    }
    program_.root.result = graph_.outputs().size() > 1 ? "(" + result + ")" : result;
    return std::move(program_);
  }

 private:
  const QuantizedModel& model_;
  const Graph& graph_;
  const Form form_;
  ByNode quantizers_;
  Program program_;
  std::map<TensorId, Held> held_;
  std::set<NodeId> done_;
  std::map<TensorId, std::string> root_constants_;

  const std::vector<PlacedQuantizer>& of(const Node& node) { return quantizers_[node.id]; }
  void line(std::string text) { program_.root.lines.push_back(std::move(text)); }
  std::string variable(TensorId t, const char* end = "") { return program_.variable(graph_.tensor(t).name + end); }

  std::string root_constant(TensorId t) {
    std::string& name = root_constants_[t];
    if (name.empty()) {
      name = variable(t, "_constant");
      program_.root.tensors.emplace_back(name, *model_.model->weights->find(graph_.tensor(t).name));
    }
    return "self." + name;
  }

  // --- activations

  std::string real(TensorId t) {
    Held& h = held_[t];
    if (h.real.empty() && !h.codes.empty()) {
      h.real = variable(t, "_real");
      line(h.real + " = torch.dequantize(" + h.codes + ")");
    }
    return h.real;
  }

  // The tensor as its quantizer makes it: of packed forms a quantized tensor, else real values.
  std::string quantized(const PlacedQuantizer& q) {
    const std::string key = key_of(*q.params);
    Held& h = held_[q.tensor];
    if (!h.codes.empty() && key_of(*h.params) == key) return h.codes;
    const auto known = h.quantized.find(key);
    if (known != h.quantized.end()) return known->second;
    const std::string source = real(q.tensor), name = variable(q.tensor, "_q");
    quantize(*q.params, q.tensor, source, name);
    return held_[q.tensor].quantized[key] = name;
  }
  std::string dequantized(const PlacedQuantizer& q) {
    const std::string codes = quantized(q);
    if (!form_.packed) return codes;
    if (codes == held_[q.tensor].codes) return real(q.tensor);
    std::string& name = held_[q.tensor].dequantized[key_of(*q.params)];
    if (name.empty()) {
      name = variable(q.tensor, "_dq");
      line(name + " = torch.dequantize(" + codes + ")");
    }
    return name;
  }

  static std::string packed_quantize(const quant::QuantParams& p, const std::string& x) {
    return "torch.quantize_per_tensor(" + x + ", " + literal(p.scale[0]) + ", " + std::to_string(stored_zero_point(p)) + ", " +
           std::to_string(kQuint8) + ")";
  }

  void quantize(const quant::QuantParams& p, TensorId tensor, const std::string& x, const std::string& name) {
    const std::size_t rank = shape_of(model_, tensor).size();
    if (form_.packed) return line(name + " = " + packed_quantize(p, x));
    const bool channels = p.spec.granularity == Granularity::kChannel;
    const std::vector<std::int64_t> zeros = zero_points(p);
    const bool shifted = std::any_of(zeros.begin(), zeros.end(), [](std::int64_t z) { return z != 0; });
    std::string scale = literal(p.scale[0]), zero = literal(static_cast<double>(zeros[0]));
    if (channels) {
      // As many axes as the tensor, so that they stand along theirs.
      Shape shape(rank, 1);
      shape[static_cast<std::size_t>(channel_axis(p, rank))] = static_cast<std::int64_t>(p.scale.size());
      scale = root_tensor(name + "_scale", TensorData::of_floats(shape, p.scale));
      if (shifted)
        zero = root_tensor(name + "_zero_point", TensorData::of_floats(shape, std::vector<float>(zeros.begin(), zeros.end())));
    }
    std::string codes;
    if (form_.quantize == Quantize::kTorch) {
      const std::string type = std::to_string(p.spec.is_signed ? kQint8 : kQuint8);
      const std::string made =
          channels ? "torch.quantize_per_channel(" + x + ", torch.flatten(" + scale + "), torch.flatten(" +
                         (shifted ? zero + ").to(dtype=4)" : "torch.zeros_like(" + scale + ")).to(dtype=4)") + ", " +
                         std::to_string(channel_axis(p, rank)) + ", " + type + ")"
                   : "torch.quantize_per_tensor(" + x + ", " + scale + ", " + std::to_string(zeros[0]) + ", " + type + ")";
      codes = "torch.int_repr(" + made + ")";
    } else {
      codes = "torch.round(torch.div(" + x + ", " + scale + "))";
      if (shifted) codes = "torch.add(" + codes + ", " + zero + ")";
    }
    codes = "torch.clamp(" + codes + ", " + std::to_string(p.lo) + ", " + std::to_string(p.hi) + ")";
    if (form_.quantize == Quantize::kTorch) codes += ".to(dtype=" + std::to_string(kFloat) + ")";
    const std::string integer = program_.variable(name + "_codes");
    line(integer + " = " + codes);
    line(name + " = torch.mul(" + (shifted ? "torch.sub(" + integer + ", " + zero + ")" : integer) + ", " + scale + ")");
  }
  std::string root_tensor(const std::string& name, TensorData data) {
    const std::string own = program_.variable(name);
    program_.root.tensors.emplace_back(own, std::move(data));
    return "self." + own;
  }

  // --- nodes

  Status add(const Node& node) {
    if (form_.packed) {
      if (const auto plan = packed_plan(model_, quantizers_, node); plan && plan->troubles.empty())
        return packed_layer(node, plan->layer);
      if (elementwise(node) || passing(node) || curve(node)) return {};
    }
    return computed(node);
  }

  // The result with the layer's own output quantizer, if it has one.
  void give(const Node& node, std::size_t i, const std::string& expression) {
    const TensorId t = node.outputs[i];
    if (t == kNoTensor) return;
    const PlacedQuantizer* own = i == 0 ? find_quantizer(of(node), SiteKind::kOutput, 0) : nullptr;
    if (!own) {
      held_[t].real = variable(t);
      return line(held_[t].real + " = " + expression);
    }
    const std::string raw = variable(t, "_unquantized");
    line(raw + " = " + expression);
    const std::string name = variable(t);
    quantize(*own->params, t, raw, name);
    if (form_.packed) {
      held_[t].codes = name;
      held_[t].params = own->params;
    } else {
      held_[t].real = name;
      held_[t].quantized[key_of(*own->params)] = name;
    }
  }

  // In float. Layers with tensors or quantizers of their own are modules.
  Status computed(const Node& node) {
    ModuleText module;
    std::vector<std::pair<std::string, std::string>> calls;  // argument, what the root gives for it
    std::vector<std::pair<std::string, TensorData>> constants;
    const bool is_module = node.outputs.size() == 1 && (!of(node).empty() || has_initializer(node));
    Saying s{*model_.model,
             node,
             {},
             [&](const std::string& base) { return program_.variable(base); },
             is_module ? module.lines : program_.root.lines};
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const TensorId t = node.inputs[i];
      if (t == kNoTensor) {
        s.in.push_back("");
      } else if (graph_.tensor(t).is_initializer) {
        QUANVAS_TRY(std::string text, constant(node, i, is_module, constants));
        s.in.push_back(std::move(text));
      } else {
        const PlacedQuantizer* q = find_quantizer(of(node), SiteKind::kInput, i);
        const std::string given = q ? dequantized(*q) : real(t);
        s.in.push_back(is_module ? argument(calls, given) : given);
      }
    }
    QUANVAS_TRY(const std::vector<std::string> said, express(s));
    if (!is_module) {
      for (std::size_t i = 0; i < node.outputs.size() && i < said.size(); ++i) give(node, i, said[i]);
      return {};
    }
    keep_used(module, constants, said[0]);
    if (module.tensors.empty() && of(node).empty()) {  // its constants are numbers of the text
      for (const std::string& l : module.lines) line(l);
      give(node, 0, said[0]);
      return {};
    }
    module.layer = node.name;
    module.result = said[0];
    give(node, 0, add_module(std::move(module), calls));
    return {};
  }

  bool has_initializer(const Node& node) const {
    return std::any_of(node.inputs.begin(), node.inputs.end(),
                       [&](TensorId t) { return t != kNoTensor && graph_.tensor(t).is_initializer; });
  }

  // A module calls its arguments as the root does, so that its text can stand in the root, too.
  static std::string argument(std::vector<std::pair<std::string, std::string>>& calls, const std::string& given) {
    for (const auto& [name, value] : calls)
      if (value == given) return name;
    calls.emplace_back(given, given);
    return given;
  }

  std::string add_module(ModuleText module, const std::vector<std::pair<std::string, std::string>>& calls) {
    std::string call;
    for (const auto& [name, value] : calls) {
      module.arguments.push_back(name);
      call += (call.empty() ? "" : ", ") + value;
    }
    const std::vector<std::string> path = program_.module_path(module.layer);
    program_.modules[path] = std::move(module);
    return Program::reference(path) + ".forward(" + call + ")";
  }

  static void keep_used(ModuleText& module, const std::vector<std::pair<std::string, TensorData>>& constants,
                        const std::string& result) {
    std::string text = result;
    for (const std::string& l : module.lines) text += "\n" + l;
    for (const auto& c : constants)
      if (mentions(text, "self." + c.first)) module.tensors.push_back(c);
  }

  // An initializer as an operand: its float values, or its codes with what makes values of them.
  Result<std::string> constant(const Node& node, std::size_t i, bool in_module,
                               std::vector<std::pair<std::string, TensorData>>& constants) {
    const TensorId t = node.inputs[i];
    const PlacedQuantizer* q = nullptr;
    for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput})
      if (!q) q = find_quantizer(of(node), kind, i);
    if (!q && !in_module) return root_constant(t);
    static const char* const kNames[] = {"input", "weight", "bias", "running_mean", "running_var"};
    const std::string base = i < 5 ? kNames[i] : "constant" + std::to_string(i);
    if (!q) {
      constants.emplace_back(base, *model_.model->weights->find(graph_.tensor(t).name));
      return "self." + base;
    }
    QUANVAS_TRY(const StoredTensor stored, stored_tensor(model_, *q));
    const quant::QuantParams& p = *q->params;
    const DataType type = p.spec.bits > 8 ? DataType::kInt32 : p.spec.is_signed ? DataType::kInt8 : DataType::kUint8;
    const auto attribute = [&](const std::string& end, TensorData data) {
      constants.emplace_back(base + end, std::move(data));
      return "self." + base + end;
    };
    std::string codes =
        attribute("_codes", integers(type, stored.shape, stored.codes)) + ".to(dtype=" + std::to_string(kFloat) + ")";
    const std::vector<std::int64_t> zeros = zero_points(p);
    const bool shifted = std::any_of(zeros.begin(), zeros.end(), [](std::int64_t z) { return z != 0; });
    std::string scale = literal(p.scale[0]), zero = literal(static_cast<double>(zeros[0]));
    if (p.spec.granularity == Granularity::kChannel) {
      Shape shape(stored.shape.size(), 1);
      shape[static_cast<std::size_t>(channel_axis(p, shape.size()))] = static_cast<std::int64_t>(p.scale.size());
      scale = attribute("_scale", TensorData::of_floats(shape, p.scale));
      if (shifted)
        zero = attribute("_zero_point", TensorData::of_floats(shape, std::vector<float>(zeros.begin(), zeros.end())));
    }
    if (shifted) codes = "torch.sub(" + codes + ", " + zero + ")";
    return "torch.mul(" + codes + ", " + scale + ")";
  }

  // --- codes

  static std::string output_scale(const quant::QuantParams& p) {
    return literal(p.scale[0]) + ", " + std::to_string(stored_zero_point(p));
  }

  void give_codes(const Node& node, const Node* relu, const quant::QuantParams& p, const std::string& expression) {
    const TensorId t = (relu ? relu : &node)->outputs[0];
    if (relu) done_.insert(relu->id);
    const std::string name = variable(t);
    line(name + " = " + expression);
    held_[t].codes = name;
    held_[t].params = &p;
  }

  Status packed_layer(const Node& node, const PackedLayer& l) {
    QUANVAS_TRY(const StoredTensor weight, stored_tensor(model_, *l.weight));
    Packed p;
    static constexpr Packed::Kind kConvolutions[] = {Packed::Kind::kConv1d, Packed::Kind::kConv2d, Packed::Kind::kConv3d};
    p.kind = l.is_conv ? kConvolutions[l.window.kernel.size() - 1] : Packed::Kind::kLinear;
    p.shape = weight.shape;
    p.codes = weight.codes;
    if (l.transposes) {
      const auto rows = static_cast<std::size_t>(weight.shape[0]), columns = static_cast<std::size_t>(weight.shape[1]);
      p.shape = {weight.shape[1], weight.shape[0]};
      for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < columns; ++c) p.codes[c * rows + r] = weight.codes[r * columns + c];
    }
    p.scale = l.weight->params->scale;
    p.per_channel = l.weight->params->spec.granularity == Granularity::kChannel;
    if (l.bias) {
      QUANVAS_TRY(const StoredTensor bias, stored_tensor(model_, *l.bias));
      p.bias = bias.values;
    }
    if (l.finds_scale) return found_at_run_time(node, l, std::move(p));
    std::string x = quantized(*l.input);
    const std::string argument = x;
    if (l.is_conv) {
      p.stride = l.window.stride;
      p.padding = l.window.begin;
      p.dilation = l.window.dilation;
      p.groups = node.integer("group", 1);
      if (!l.window.symmetric()) {
        // Results of conv3d lie with the channels innermost, which LibTorch 1.13 does not pad.
        if (l.window.kernel.size() == 3) x += ".contiguous()";
        x = "torch.constant_pad_nd(" + x + ", " + literal(flat_pads(l.window.begin, l.window.end)) + ", 0.)";
        p.padding.assign(p.padding.size(), 0);
      }
    }
    static const char* const kOps[] = {"linear", "conv1d", "conv2d", "conv3d"};
    ModuleText module;
    module.layer = node.name;
    module.result = std::string("ops.quantized.") + kOps[static_cast<int>(p.kind)] + (l.relu ? "_relu(" : "(") + x +
                    ", self.packed, " + output_scale(*l.output) + ")";
    module.packed.emplace_back("packed", std::move(p));
    give_codes(node, l.relu, *l.output, add_module(std::move(module), {{argument, argument}}));
    return {};
  }

  Status found_at_run_time(const Node& node, const PackedLayer& l, Packed p) {
    if (const TensorId bias = node.input(2); bias != kNoTensor) {
      const TensorData* data = model_.model->weights->find(graph_.tensor(bias).name);
      if (!data) return fail(ErrorCode::kInternal, "The bias of '" + node.name + "' has no data.");
      p.bias = data->to_floats();
    }
    const std::string x = real(l.input->tensor);
    ModuleText module;
    module.layer = node.name;
    module.result = "ops.quantized.linear_dynamic(" + x + ", self.packed, False)";
    module.packed.emplace_back("packed", std::move(p));
    give(node, 0, add_module(std::move(module), {{x, x}}));
    return {};
  }

  // Add, Mul and Concat of codes, when all operands and the result have some.
  bool elementwise(const Node& node) {
    const bool concat = node.op == "Concat";
    if (!node.domain.empty() || (node.op != "Add" && node.op != "Mul" && !concat)) return false;
    const quant::QuantParams* out = output_of(model_, quantizers_, node);
    if (!out) return false;
    const Shape first = shape_of(model_, node.inputs[0]);
    std::vector<const PlacedQuantizer*> own;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const TensorId t = node.inputs[i];
      if (t == kNoTensor || graph_.tensor(t).is_initializer) return false;
      if (!concat && (first.empty() || shape_of(model_, t) != first)) return false;
      own.push_back(find_quantizer(of(node), SiteKind::kInput, i));
      if (!own.back() && held_[t].codes.empty()) return false;
    }
    std::vector<std::pair<std::string, std::string>> calls;
    std::string list;
    for (std::size_t i = 0; i < own.size(); ++i)
      list += (i ? ", " : "") + argument(calls, own[i] ? quantized(*own[i]) : held_[node.inputs[i]].codes);
    const Node* relu = concat ? nullptr : relu_behind(model_, quantizers_, node);
    ModuleText module;
    module.layer = node.name;
    module.result = concat ? "ops.quantized.cat([" + list + "], " + std::to_string(node.integer("axis", 1)) + ", " +
                                 output_scale(*out) + ")"
                           : std::string("ops.quantized.") + (node.op == "Add" ? "add" : "mul") + (relu ? "_relu(" : "(") +
                                 list + ", " + output_scale(*out) + ")";
    give_codes(node, relu, *out, add_module(std::move(module), calls));
    return true;
  }

  // Curves that LibTorch has on codes, when operand and result have some (ATen/native/quantized/cpu/qelu.cpp, qsigmoid.cpp ...).
  bool curve(const Node& node) {
    const quant::QuantParams* out = has_curve(node) ? output_of(model_, quantizers_, node) : nullptr;
    const TensorId t = node.input(0);
    if (!out || t == kNoTensor || graph_.tensor(t).is_initializer) return false;
    const PlacedQuantizer* own = find_quantizer(of(node), SiteKind::kInput, 0);
    if (!own && held_[t].codes.empty()) return false;
    // Relay knows neither on codes: it refuses such nodes by their quantizers.
    if ((node.op == "Elu" || node.op == "Tanh") && of(node).empty()) return false;
    const std::string numbers = output_scale(*out);
    std::vector<std::pair<std::string, std::string>> calls;
    std::string text;
    // LibTorch gives these results one scale, whatever is wanted; QNNPACK has no other for Sigmoid.
    if (node.op == "Sigmoid" || node.op == "Tanh") {
      const bool half = node.op == "Tanh";
      if (out->scale[0] != (half ? 1.0f / 128 : 1.0f / 256) || stored_zero_point(*out) != (half ? 128 : 0)) return false;
    }
    const std::string x = argument(calls, own ? quantized(*own) : held_[t].codes);
    const std::string alpha = literal(static_cast<double>(node.real("alpha", node.op == "Elu" ? 1.0f : 0.01f)));
    if (node.op == "Sigmoid") text = "ops.quantized.sigmoid(" + x + ", " + numbers + ")";
    if (node.op == "Tanh") text = "torch.tanh(" + x + ")";
    if (node.op == "HardSwish") text = "ops.quantized.hardswish(" + x + ", " + numbers + ")";
    if (node.op == "LeakyRelu")
      text = "ops.quantized.leaky_relu(" + x + ", " + alpha + ", False, " + numbers + ")";
    if (node.op == "Elu") text = "ops.quantized.elu(" + x + ", " + numbers + ", " + alpha + ", 1, 1)";
    ModuleText module;
    module.layer = node.name;
    module.result = text;
    give_codes(node, nullptr, *out, add_module(std::move(module), calls));
    return true;
  }

  // Operators that keep codes, on codes.
  bool passing(const Node& node) {
    const TensorId t = node.input(0);
    if (t == kNoTensor || held_[t].codes.empty() || !of(node).empty() || !keeps_codes(*model_.model, node)) return false;
    // Where the layer itself rounds, a limit between two codes gives what is no code, unless it is rounded alike behind it.
    if (!limits_are_codes(*model_.model, node, *held_[t].params)) {
      const quant::QuantParams* behind = output_of(model_, quantizers_, node);
      if (!behind || key_of(*behind) != key_of(*held_[t].params)) return false;
    }
    Saying s{*model_.model,
             node,
             {held_[t].codes},
             [&](const std::string& base) { return program_.variable(base); },
             program_.root.lines};
    while (s.in.size() < node.inputs.size()) s.in.push_back("");
    // QNNPACK's clamp of LibTorch 1.13 mixes up the places of tensors whose channels lie innermost, as its convolutions give
    // them.
    if (node.op == "Clip") s.in[0] += ".contiguous()";
    const auto said = express(s);
    if (!said) return false;
    const quant::QuantParams* p = held_[t].params;
    give_codes(node, nullptr, *p, (*said)[0]);
    return true;
  }
};

}  // namespace

Result<Program> program_of(const QuantizedModel& model, const Form& form, JobContext& job) {
  return Writer(model, form).run(job);
}

}  // namespace quanvas::torchscript_file
