// Quanvas - which inputs of which nodes the quantizers of a model stand at, and the words for a quantizer.
// Shared by the ONNX exporters and their audits.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "core/plugin/registry.h"

namespace quanvas::onnx_file {

struct PlacedQuantizer {
  Site site;
  const quant::QuantParams* params = nullptr;
  const Node* node = nullptr;          // of the layer
  const Node* reader = nullptr;        // that reads the tensor: another one where weights are joined first (canonical.h)
  TensorId tensor = kNoTensor;         // as the model has it, before quantization
  std::string name;                    // "weight", "input 2", "hidden state"
  std::vector<std::size_t> inputs;     // indices of the reader's inputs; empty: output, or inside the operator
};

struct Placement {
  std::vector<PlacedQuantizer> quantizers;  // in the order of the sites
  std::vector<Site> lost;                   // sites that no layer of the graph has
};
Placement place(const QuantizedModel& model);

// "int4 narrow, per channel (16), zero points": bits from the code range.
std::string quantizer_text(bool is_signed, std::int64_t lo, std::int64_t hi, bool per_channel,
                           std::size_t parameters, const std::vector<std::int64_t>& zero_points);
std::string quantizer_text(const quant::QuantParams& params);
// Zero points as integers, one per scale; none means 0. Rounded when they are no integers (check() refuses).
std::vector<std::int64_t> zero_points(const quant::QuantParams& params);
// Axis of a per-channel quantizer in a tensor of this rank, 0 .. rank-1.
std::int64_t channel_axis(const quant::QuantParams& params, std::size_t rank);
// Whether QuantizeLinear, which rounds x / scale once, gives the codes of a truncated output with half-even
// rounding: where nothing is cut off, and where input scale and number of averaged elements are powers of two, so
// that float32 holds the mean, the scale and their quotient exactly, however the mean is computed. Elsewhere ties
// fall to either side.
bool truncates_exactly(const Graph& graph, const PlacedQuantizer& placed);
// Shape of the model's tensor; empty when unknown.
Shape shape_of(const QuantizedModel& model, TensorId tensor);

}  // namespace quanvas::onnx_file
