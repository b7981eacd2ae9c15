// Quanvas - where the quantizers of a network stand: which inputs of which nodes, and the words for them. For exporters,
// their checks and their audits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "core/plugin/registry.h"
#include "core/recipe/plan.h"

namespace quanvas {

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
// Points into the model.
Placement place(const QuantizedModel& model);

// The axis on which a declaration without one puts its scales: of weights that of the output channels, or the one that
// groups divide; of activations the channels, groups along the last axis unless the layer looks at pictures; rows: the last.
// Below 0: from the last on. None: one scale, or a bias without channels.
std::optional<int> own_axis(const Layer& layer, const Node& node, const QuantSpec& spec, SiteKind kind);

// "int4 narrow, per channel (16), zero points": bits from the code range.
std::string quantizer_text(bool is_signed, std::int64_t lo, std::int64_t hi, bool per_channel,
                           std::size_t parameters, const std::vector<std::int64_t>& zero_points);
std::string quantizer_text(const quant::QuantParams& params);
// Zero points as integers, one per scale; none means 0. Rounded when they are no integers (check_quantizers() refuses).
std::vector<std::int64_t> zero_points(const quant::QuantParams& params);
// Axis of a per-channel quantizer in a tensor of this rank, 0 .. rank-1.
std::int64_t channel_axis(const quant::QuantParams& params, std::size_t rank);
// Shape of the model's tensor; empty when unknown.
Shape shape_of(const QuantizedModel& model, TensorId tensor);

// The quantizer of the site; null: it is float.
const quant::QuantParams* quantizer_at(const QuantizedModel& model, const Site& site);

// A weight or bias as its quantizer stores it. codes: row-major, as many as the tensor has elements; values: what they
// stand for, the very floats that the network on the screen computes with.
struct StoredTensor {
  Shape shape;
  std::vector<std::int32_t> codes;
  std::vector<float> values;
};
// kInternal when the initializer has no data or another number of elements than its quantizer was made for.
Result<StoredTensor> stored_tensor(const QuantizedModel& model, const PlacedQuantizer& placed);

// Rules of refusals that are about quantizers which are not there.
inline constexpr const char* kMissingQuantizer = "missing quantizer";
inline constexpr const char* kFloatLayer = "layer";

// Whether the target can do without a quantizer at this site of such a layer.
bool may_be_float(const TargetTable& table, const std::string& op, SiteKind site);

// What every target asks, in this order: quantizers that no layer has, the target's table, the numbers (finite scales above
// 0, integers as zero points within `storage_bits` bits of the codes' sign, one scale per index of the axis), quantizers
// that the target needs and layers that it cannot leave float. Each refusal names its layer and site, with the change that
// mends it where there is one.
std::vector<Refusal> check_quantizers(const QuantizedModel& model, const TargetTable& table, int storage_bits = 8);

// The part of it that declarations decide: no tensor is looked at, so that thousands of layers are answered within
// milliseconds. What it refuses, check_quantizers() refuses of the quantizers that the plan becomes, too. `layers` and
// `plan` are the graph's; in the order of the layers. Empty where the table has no rows.
std::vector<Refusal> check_declarations(const Graph& graph, const std::vector<Layer>& layers, const Plan& plan,
                                        const TargetTable& table);

}  // namespace quanvas
