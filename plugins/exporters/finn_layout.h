// Quanvas - where the quantizers of a network stand in a file for FINN, which turns each into thresholds: right behind a
// ReLU, whose thresholds it becomes together with it, or anywhere else if it is signed.
//
// A quantizer of an input moves towards the ReLU before it past operators that only select values (MaxPool, Flatten ...): it
// rounds in order, so the largest of quantized values is the quantized largest. A Clip from 0 up is written as ReLU where the
// quantizer's highest code lies at or below the Clip's end.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/plugin/placement.h"

namespace quanvas::onnx_file {

struct FinnPlace {
  const PlacedQuantizer* quantizer = nullptr;
  TensorId at = kNoTensor;  // the tensor that is quantized
  NodeId relu = kNoNode;    // that makes it: Relu, or a Clip that is written as one
  bool for_all = false;     // all who read the tensor see it quantized
};

class FinnLayout {
 public:
  // Points into the model and the placement.
  FinnLayout(const QuantizedModel& model, const Placement& placement);

  // In the order of the placement, one for each activation quantizer; several may have the same `at` and be one.
  const std::vector<FinnPlace>& places() const { return places_; }
  const FinnPlace* place_of(const PlacedQuantizer& q) const;
  // The quantizer that all who read the tensor see; null: none.
  const FinnPlace* on(TensorId tensor) const;
  // Tensors between a quantizer that moved and the layers that it is for: they hold quantized values in the file.
  bool is_behind(TensorId tensor) const { return behind_.count(tensor) > 0; }
  bool is_relu(NodeId node) const { return relus_.count(node) > 0; }  // of a quantizer

 private:
  bool all_read_it(TensorId tensor, const std::string& key) const;
  bool is_relu_for(const Node& node, const quant::QuantParams& params) const;
  FinnPlace find(const PlacedQuantizer& q);

  const QuantizedModel& model_;
  const Graph& graph_;
  const Placement& placement_;
  std::vector<FinnPlace> places_;
  std::set<NodeId> relus_;
  std::set<TensorId> behind_;
};

}  // namespace quanvas::onnx_file
