// Quanvas - finds quantizer parameters again after a pass or a training changed what they were found from.
#pragma once

#include "core/exec/runner.h"
#include "core/graph/layers.h"

namespace quanvas::exec {

// Axis that a spec without one uses at a site: of weights the layer's channels, or what groups divide; of
// activations 1.
int site_axis(const Layer& layer, const QuantSpec& spec, SiteKind kind);
// The same of a site of `node`: groups of an activation run along the channels of a convolution, a pool or a batch
// normalization (axis 1), else along the last axis.
int site_axis(const Layer& layer, const Node& node, const QuantSpec& spec, SiteKind kind);
// The quantizer of a bias at the accumulator's scale. kUnsupported, with the reason, when it has no such scale.
Result<quant::QuantParams> accumulator_bias(const Model& model, const Layer& layer, const QuantSpec& spec,
                                            const QuantizerMap& quantizers);
// The quantizer of an output that is truncated (core/quant/truncate.h): the integers are the sum of the codes that
// the layer averages, their scale that of its input over their number. threshold: see truncation_params().
// kUnsupported, with the reason, when the output is no such sum.
Result<quant::QuantParams> truncation(const Graph& graph, const Layer& layer, const QuantSpec& spec,
                                      float threshold, const QuantizerMap& quantizers);
// Truncated outputs after the quantizers of activations changed: in graph order each gets the scale of its input
// anew. One whose integers no longer exist loses its quantizer.
Status rebuild_truncations(const Graph& graph, const std::vector<Layer>& layers, QuantizerMap& quantizers);
// The weight quantizer of `layer` from the weight in `model`; fixed clip limits stay. Nothing when the layer's
// weight is float. A quantizer that several weights share is found on all of them, for all of them.
Status rebuild_weight(const Model& model, const Layer& layer, QuantizerMap& quantizers);
// The bias quantizer: input scale x weight scale, or from the bias itself when its spec says so. A bias whose
// accumulator scale no longer exists loses its quantizer.
Status rebuild_bias(const Model& model, const Layer& layer, QuantizerMap& quantizers);

}  // namespace quanvas::exec
