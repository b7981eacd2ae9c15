// Quanvas - which nodes the operators of namespace `quantized` compute, and with which scales. No LibTorch here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/plugin/placement.h"
#include "plugins/exporters/torchscript/operators.h"

namespace quanvas::torchscript_file {

// Quantizers by the node that reads or, for outputs, gives the tensor.
using ByNode = std::map<NodeId, std::vector<PlacedQuantizer>>;
ByNode by_node(const QuantizedModel& model);
const PlacedQuantizer* find_quantizer(const std::vector<PlacedQuantizer>& of_node, SiteKind kind,
                                      std::size_t input);  // null: float

// Equal texts: the same codes of the same values.
std::string key_of(const quant::QuantParams& params);
// Activations are kept as quint8: signed codes and their zero point have 128 added, which changes no value.
std::int64_t stored_zero_point(const quant::QuantParams& params);

// Operators that codes go through: what they give of quantized values is the quantized form of what they give of the
// values, for any quantizer with one scale that keeps the order (elements are moved, limited, or the largest are taken).
bool keeps_codes(const Model& model, const Node& node);
// The quantizer that a node's result gets before anyone sees it: its own, or the one that all its readers have, behind
// operators that keep codes. null: it is float, or its readers differ.
const quant::QuantParams* output_of(const QuantizedModel& model, const ByNode& quantizers, const Node& node);

// Whether LibTorch computes this operator's codes from codes by a scale of the result.
bool has_curve(const Node& node);

// A convolution or a matrix product on codes.
struct PackedLayer {
  const PlacedQuantizer *input = nullptr, *weight = nullptr, *bias = nullptr;
  const quant::QuantParams* output = nullptr;
  const Node* relu = nullptr;                // that is part of it
  bool is_conv = false, transposes = false;  // the weight has its output channels last
  bool finds_scale = false;                  // of its input at run time: linear_dynamic, whose result is float
  Window window;                             // of convolutions
};
// A node whose input and weight have quantizers. Trouble: rule, what it is, what is allowed, for a refusal; empty when it
// can be computed on codes. None: not such a node.
struct PackedTrouble {
  std::string rule, got, allowed, suggestion;
  std::optional<Site> site;
  std::optional<QuantSpec> fix;
  bool float_fixes = false;
};
struct PackedPlan {
  PackedLayer layer;
  std::vector<PackedTrouble> troubles;
};
std::optional<PackedPlan> packed_plan(const QuantizedModel& model, const ByNode& quantizers, const Node& node,
                                      std::size_t least_axes = 1, std::size_t most_axes = 3);

// The only node that reads the result, if it is a Relu whose result may stand for both. Null: none.
const Node* relu_behind(const QuantizedModel& model, const ByNode& quantizers, const Node& node);

}  // namespace quanvas::torchscript_file
