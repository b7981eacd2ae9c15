// Quanvas - the graph's operators in TorchScript. No LibTorch here: only text.
#pragma once

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/graph/weights.h"
#include "plugins/exporters/torchscript/program.h"

namespace quanvas::torchscript_file {

// Why a node has no expression, as a clause. Caught by express() alone.
struct Unsaid : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One node on its way into the program.
struct Saying {
  const Model& model;
  const Node& node;
  std::vector<std::string> in;                              // expressions of the inputs, "" for omitted ones
  std::function<std::string(const std::string&)> variable;  // a fresh name
  std::vector<std::string>& lines;                          // for what takes more than one expression

  const Graph& graph() const { return *model.graph; }
  int opset() const { return model.graph->opset(); }
  bool has(std::size_t i) const { return i < in.size() && !in[i].empty(); }
  const std::string& x(std::size_t i = 0) const;  // Unsaid when omitted
  const TensorInfo& info(std::size_t i = 0) const;
  const TensorData* constant(std::size_t i) const;             // null: computed, or not there
  std::int64_t rank(std::size_t i = 0) const;                  // Unsaid when not known
  std::int64_t axis(std::int64_t a, std::int64_t rank) const;  // in [0, rank)
  // From the attribute, or the constant input; none: neither is there. Unsaid when the input is computed.
  std::optional<Ints> ints(const char* attribute, std::size_t input) const;
  std::optional<double> number(const char* attribute, std::size_t input) const;
  std::string kept(const std::string& base, const std::string& expression);  // as a variable
};

// The window of a convolution or a pool with its pads, whatever auto_pad says.
struct Window {
  Ints kernel, stride, dilation, begin, end;
  bool symmetric() const { return begin == end; }
};
Window window_of(const Saying& s, const Ints& kernel);
// Pads of the last axes as torch.constant_pad_nd lists them: the last axis first.
Ints flat_pads(const Ints& begin, const Ints& end);

// One expression per output. kUnsupported with a clause when TorchScript cannot say the node here.
Result<std::vector<std::string>> express(Saying& s);
// The same without a program: "" when it can.
std::string inexpressible(const Model& model, const Node& node);
// Names of all operators that have an expression somewhere, sorted.
std::vector<std::string> expressible_operators();

using Say = std::vector<std::string> (*)(Saying&);
using Says = std::map<std::string, Say>;
const Says& shape_says();  // operators_shape.cpp
const Says& layer_says();  // operators_layers.cpp

}  // namespace quanvas::torchscript_file
