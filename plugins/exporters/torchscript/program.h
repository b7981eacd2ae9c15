// Quanvas - a TorchScript file in the making: modules with their tensors and the lines of their forward(). Plain values; no
// LibTorch in this header, so that what says operators in TorchScript does not wait for its headers.
//
// The text is that of torch.jit (https://pytorch.org/docs/1.13/jit_language_reference.html): "y = torch.relu(x)". Not
// thread-safe: one program per file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/graph/weights.h"

namespace quanvas::torchscript_file {

using Ints = std::vector<std::int64_t>;

// Weight and bias as the operators of namespace `quantized` keep them. Codes are int8, zero points 0.
struct Packed {
  enum class Kind { kLinear, kConv1d, kConv2d, kConv3d };
  Kind kind = Kind::kLinear;
  Shape shape;                      // output channels first
  std::vector<std::int32_t> codes;  // row-major
  std::vector<float> scale;         // one, or one per output channel
  bool per_channel = false;
  std::vector<float> bias;         // empty: none
  Ints stride, padding, dilation;  // of convolutions, one per spatial axis
  std::int64_t groups = 1;
};

struct ModuleText {
  std::string layer;  // the node's name in the network, kept in the file as attribute "layer"; empty: no layer
  std::vector<std::pair<std::string, TensorData>> tensors;  // buffers
  std::vector<std::pair<std::string, Packed>> packed;
  std::vector<std::string> arguments;  // of forward(), without self
  std::vector<std::string> lines;
  std::string result;  // an expression
};

class Program {
 public:
  ModuleText root;
  std::map<std::vector<std::string>, ModuleText> modules;  // by path

  // `wanted` as an identifier that nothing in the program has yet.
  std::string variable(const std::string& wanted);
  // The module of a layer; its path follows the layer's name ("layer1.0.conv1" -> layer1, 0, conv1).
  std::vector<std::string> module_path(const std::string& layer);
  // How the root calls it: "self.layer1" or getattr(self, "0").
  static std::string reference(const std::vector<std::string>& path);

 private:
  std::unordered_set<std::string> variables_;
};

// A literal that reads as exactly this number.
std::string literal(double value);
std::string literal(const Ints& values);

// Builds the modules and writes them atomically. What LibTorch says against the text is kInternal: it names the module.
Status save(const Program& program, const std::string& path);

}  // namespace quanvas::torchscript_file
