// Quanvas - a network as the layers of Xilinx' DPU: which nodes are such layers, and with which position of the binary point
// each of their tensors is stored.
//
// A tensor whose own layer has no output quantizer is stored as what reads it wants it, also past ReLU, MaxPool and the like:
// they give nothing but values that they take, so quantizing before them is quantizing after them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/plugin/placement.h"

namespace quanvas::onnx_file {

// log2(1 / scale) of a quantizer with one power of two as its scale; none: it has another.
std::optional<int> fix_position(const quant::QuantParams& params);

class DpuPlan {
 public:
  // Points into the model and the placement. pads_apart: padding is a layer of its own (DPUv2).
  DpuPlan(const QuantizedModel& model, const Placement& placement, bool pads_apart);

  bool is_layer(const Node& node) const;    // written in the domain pyxir
  bool is_dropped(const Node& node) const;  // a pool of one element
  // Position of the binary point of what the file has in this tensor; none: it is real.
  std::optional<int> held(TensorId tensor) const;
  // The same of what the node's input sees, which may be quantized once more.
  std::optional<int> seen(const Node& node, std::size_t input) const;
  // Quantized in the file, but not on the screen, where its readers or what follows is.
  bool is_early(TensorId tensor) const;
  std::vector<std::int64_t> pads(const Node& node) const;  // as four numbers; else none that a DPU has

  const quant::QuantParams* at(const Node& node, SiteKind kind, int operand = 0) const;
  std::vector<Refusal> refusals() const;

 private:
  std::optional<int> asked(TensorId tensor, int depth = 0) const;
  std::optional<int> readers_agree(TensorId tensor) const;
  bool passes(const Node& node, std::optional<int> position) const;
  bool is_not_negative(TensorId tensor, int depth = 0) const;
  void check_form(const Node& node, std::vector<Refusal>& out) const;

  const QuantizedModel& model_;
  const Graph& graph_;
  const Placement& placement_;
  bool pads_apart_;
};

}  // namespace quanvas::onnx_file
