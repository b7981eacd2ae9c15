// Quanvas - what ONNX's nodes say the same of as a network's quantizers. Shared by the ONNX exporters and their audits.
#pragma once

#include "core/plugin/placement.h"

namespace quanvas::onnx_file {

// Whether QuantizeLinear, which rounds x / scale once, gives the codes of a truncated output with half-even
// rounding: where nothing is cut off, and where input scale and number of averaged elements are powers of two, so
// that float32 holds the mean, the scale and their quotient exactly, however the mean is computed. Elsewhere ties
// fall to either side.
bool truncates_exactly(const Graph& graph, const PlacedQuantizer& placed);

}  // namespace quanvas::onnx_file
