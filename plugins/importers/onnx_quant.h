// Quanvas - quantizers that an ONNX file carries, while it is being imported: recognised in the draft, taken out of it and
// given to the sites of layers. What fits no site stays in the draft as nodes that are executed.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/graph/layers.h"
#include "core/quant/stored.h"
#include "core/recipe/recipe.h"
#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {

// Quant, BipolarQuant, Trunc, FloatQuant, MultiThreshold in the domains that QONNX and FINN have used.
bool is_qonnx_operator(const std::string& domain, const std::string& op);

// One quantizer: y = fake quantization of x, made by one node or a few (QuantizeLinear, Clip, DequantizeLinear).
struct Quantizer {
  std::string input;                  // x; empty: a constant
  std::string output;                 // y
  std::vector<std::size_t> nodes;     // of the draft that make it, the last one gives y
  QuantSpec spec;                     // source is stored; axis as the tensor counts it
  std::vector<float> scale, zero_point;
  std::string source;                 // constant: its name in the draft
  std::optional<TensorData> values;   // constant: float32. Of integers what they stand for, else the float values
  std::string activation;             // what x goes through in the float network: "", "Relu", "HardTanh"
  std::string label;                  // for messages
};
// A node that quantizes, and why it is no quantizer of a recipe, as a clause.
struct LeftOver {
  std::size_t node = 0;
  std::string why;
};
struct Found {
  std::vector<Quantizer> quantizers;  // in the order of their last nodes
  std::vector<LeftOver> left;
};

// Layers of Xilinx' DPU (domain pyxir) as layers between Quant nodes, in onnx_pyxir.cpp. rounding: of their activations, a
// rounding_mode of QONNX. Before shapes are inferred.
void expand_dpu_layers(Draft& draft, const std::string& rounding);
// Operators on codes (QLinearConv ...) as operators on real numbers between DequantizeLinear and QuantizeLinear. Those
// whose scales are not constants stay. only_foreign: ai.onnx's own stay, too, as they are executed; those of com.microsoft
// are not. Before shapes are inferred.
void expand_integer_operators(Draft& draft, bool only_foreign = false);
// Moves QuantizeLinear behind operators that only move codes or take the largest of them: what follows then sees real
// numbers. The results are the same.
void quantize_late(Draft& draft);
Found find_quantizers(const Draft& draft);
// MultiThreshold, alone or with the Add and Mul of constants behind it, in onnx_quant_threshold.cpp. An error says, as a
// clause, why it is no uniform quantizer.
Result<Quantizer> threshold_quantizer(const Draft& draft, std::size_t node);

// Integer codes lo..hi as a format. shift: what is added to codes and zero point so that they fit. None: no format has
// just these codes.
struct CodeFormat {
  int bits = 8;
  bool is_signed = true, narrow = false;
  std::int64_t shift = 0;
};
std::optional<CodeFormat> format_of_codes(std::int64_t lo, std::int64_t hi);

// What was taken out of the draft, by node and site.
struct Lifted {
  struct Item {
    std::string output;  // first output of the layer's node in the draft
    SiteKind kind = SiteKind::kWeight;
    int operand = 0;
    quant::Stored stored;  // without `values`; spec.source is statistics when the accumulator gives the scale
  };
  std::vector<Item> items;
};
// Gives quantizers to sites, changes the draft and tells the rest as issues.
Result<Lifted> lift_quantizers(Draft& draft, const std::string& path, JobContext& job);
// The recipe of what was lifted; scales and zero points go beside the weights.
Recipe recipe_of(const Lifted& lifted, const Graph& graph, WeightStore& weights, const std::string& path);

}  // namespace quanvas::onnx_import
