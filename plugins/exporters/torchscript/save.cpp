// The program as modules of LibTorch: tensors and packed parameters as attributes, forward() from its text.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>

#include <cstring>
#include <set>
#include <sstream>

#include "core/base/files.h"
#include "plugins/exporters/torchscript/program.h"

namespace quanvas::torchscript_file {
namespace {

using torch::jit::Module;

// ops.quantized.conv2d: what the text of define() needs beside "torch".
struct Namespace : torch::jit::SugaredValue {
  std::string name;
  explicit Namespace(std::string n) : name(std::move(n)) {}
  std::string kind() const override { return "namespace"; }
  std::shared_ptr<SugaredValue> attr(const torch::jit::SourceRange&, torch::jit::GraphFunction&,
                                     const std::string& field) override {
    if (name.empty()) return std::make_shared<Namespace>(field);
    return std::make_shared<torch::jit::BuiltinFunction>(c10::Symbol::fromQualString(name + "::" + field), c10::nullopt);
  }
};

struct Resolver : torch::jit::NativeResolver {
  std::shared_ptr<torch::jit::SugaredValue> resolveValue(const std::string& name, torch::jit::GraphFunction& method,
                                                         const torch::jit::SourceRange& at) override {
    if (name == "ops") return std::make_shared<Namespace>("");
    return NativeResolver::resolveValue(name, method, at);
  }
};

at::ScalarType scalar_type(DataType type) {
  switch (type) {
    case DataType::kFloat:
      return at::kFloat;
    case DataType::kDouble:
      return at::kDouble;
    case DataType::kFloat16:
      return at::kHalf;
    case DataType::kBfloat16:
      return at::kBFloat16;
    case DataType::kInt64:
      return at::kLong;
    case DataType::kInt32:
      return at::kInt;
    case DataType::kInt16:
      return at::kShort;
    case DataType::kInt8:
      return at::kChar;
    case DataType::kUint8:
      return at::kByte;
    case DataType::kBool:
      return at::kBool;
    default:
      return at::ScalarType::Undefined;
  }
}

at::Tensor tensor_of(const TensorData& data) {
  const at::Tensor out = at::empty(data.shape, at::TensorOptions().dtype(scalar_type(data.type)));
  if (out.nbytes() != data.bytes)
    throw std::runtime_error("a tensor has " + std::to_string(data.bytes) + " bytes, not " + std::to_string(out.nbytes()));
  if (data.bytes > 0) std::memcpy(out.data_ptr(), data.data, data.bytes);
  return out;
}

c10::IValue call(const char* name, std::vector<c10::IValue> arguments) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  op.callBoxed(&arguments);
  return arguments.at(0);
}

// quantized::*_prepack (ATen/native/quantized/cpu/qconv_prepack.cpp, qlinear_prepack.cpp) with the engine of this process;
// the file holds weight and bias as they are, for any engine.
c10::IValue pack(const Packed& p) {
  std::vector<std::int8_t> codes(p.codes.begin(), p.codes.end());
  const at::Tensor integers = at::empty(p.shape, at::kChar);
  std::memcpy(integers.data_ptr(), codes.data(), codes.size());
  at::Tensor weight;
  if (p.per_channel) {
    const auto n = static_cast<std::int64_t>(p.scale.size());
    const at::Tensor scales = at::empty({n}, at::kDouble), zeros = at::zeros({n}, at::kLong);
    for (std::int64_t i = 0; i < n; ++i) scales.data_ptr<double>()[i] = p.scale[static_cast<std::size_t>(i)];
    weight = at::_make_per_channel_quantized_tensor(integers, scales, zeros, 0);
  } else {
    weight = at::_make_per_tensor_quantized_tensor(integers, p.scale.at(0), 0);
  }
  c10::IValue bias;
  if (!p.bias.empty()) {
    const at::Tensor values = at::empty({static_cast<std::int64_t>(p.bias.size())}, at::kFloat);
    std::memcpy(values.data_ptr(), p.bias.data(), values.nbytes());
    bias = values;
  }
  if (p.kind == Packed::Kind::kLinear) return call("quantized::linear_prepack", {weight, bias});
  return call(p.kind == Packed::Kind::kConv1d   ? "quantized::conv1d_prepack"
              : p.kind == Packed::Kind::kConv2d ? "quantized::conv2d_prepack"
                                                : "quantized::conv3d_prepack",
              {weight, bias, c10::IValue(p.stride), c10::IValue(p.padding), c10::IValue(p.dilation), p.groups});
}

std::string source_of(const ModuleText& text) {
  std::string out = "def forward(self";
  for (const std::string& a : text.arguments) out += ", " + a + ": Tensor";
  out += "):\n";
  for (const std::string& line : text.lines) out += "    " + line + "\n";
  return out + "    return " + text.result + "\n";
}

// What LibTorch says, with the place in the code that it shows.
std::string one_line(const std::string& text) {
  std::string out;
  for (const char c : text.substr(0, 600))
    if (c != '\n' && c != ' ')
      out += c;
    else if (!out.empty() && out.back() != ' ')
      out += ' ';
  return out;
}

class Builder {
 public:
  explicit Builder(const Program& program) : program_(program) {}

  Module build() {
    Module root = make(program_.root, {});
    define(root, program_.root, "the network");
    root.eval();
    return root;
  }

 private:
  const Program& program_;
  const std::shared_ptr<Resolver> resolver_ = std::make_shared<Resolver>();
  int made_ = 0;

  // The first pieces of paths below this one, in order.
  std::set<std::string> children(const std::vector<std::string>& path) const {
    std::set<std::string> out;
    for (auto it = program_.modules.lower_bound(path); it != program_.modules.end(); ++it) {
      if (it->first.size() < path.size() || !std::equal(path.begin(), path.end(), it->first.begin())) break;
      if (it->first.size() > path.size()) out.insert(it->first[path.size()]);
    }
    return out;
  }

  Module make(const ModuleText& text, const std::vector<std::string>& path) {
    Module module("__torch__.quanvas.Module" + std::to_string(made_++));
    if (!text.layer.empty()) module.register_attribute("layer", c10::StringType::get(), text.layer);
    for (const auto& [name, data] : text.tensors) module.register_buffer(name, tensor_of(data));
    for (const auto& [name, packed] : text.packed) {
      const c10::IValue value = pack(packed);
      module.register_attribute(name, value.type(), value);
    }
    static const ModuleText none;
    for (const std::string& child : children(path)) {
      std::vector<std::string> below = path;
      below.push_back(child);
      const auto own = program_.modules.find(below);
      const ModuleText& inner = own == program_.modules.end() ? none : own->second;
      Module made = make(inner, below);
      if (own != program_.modules.end()) define(made, inner, "'" + inner.layer + "'");
      module.register_module(child, made);
    }
    return module;
  }

  void define(Module& module, const ModuleText& text, const std::string& what) {
    try {
      module.define(source_of(text), resolver_);
    } catch (const std::exception& e) {
      throw std::runtime_error("LibTorch does not take the code of " + what + ": " + one_line(e.what()));
    }
  }
};

}  // namespace

Status save(const Program& program, const std::string& path) {
  const at::NoGradGuard no_gradients;
  std::ostringstream bytes;
  Builder(program).build().save(bytes);
  return write_file_atomically(path, std::move(bytes).str());
}

}  // namespace quanvas::torchscript_file
