// Quanvas - scales and zero points that a model's file gives: kept beside the weights, by the site that they belong to.
// A quantizer whose source is "stored" takes them instead of a statistic (docs/decisions/0009). Torch-free.
#pragma once

#include <optional>
#include <string>

#include "core/graph/weights.h"
#include "core/quant/params.h"

namespace quanvas::quant {

struct Stored {
  QuantSpec spec;                  // the format that the numbers are made for; source is stored
  std::vector<float> scale;        // above 0, finite; one for each parameter of the layout
  std::vector<float> zero_point;   // empty when spec.zero_point is none
  std::string values;              // weights and biases: content_hash() of the tensor; empty: of any values
};

// "conv1 weight", "add input 1": what the numbers are kept under. Node names are unique and outlast graph passes.
std::string stored_key(const std::string& node, const Site& site);
void store(WeightStore& weights, const std::string& key, const Stored& stored);
// None: nothing is kept there, or what is kept cannot be right.
std::optional<Stored> find_stored(const WeightStore& weights, const std::string& key);

// Whether a scale made for one of these formats is one for the other: what scale and codes mean is the same. How a
// statistic would be found, how ties are rounded and what training does play no part.
bool is_same_format(const QuantSpec& a, const QuantSpec& b);
// The parameters on a tensor of this shape. kUnsupported, with the reason as a clause, when the numbers are not made
// for this format, these values or this shape; `values`: see Stored, empty for activations.
Result<QuantParams> stored_params(const QuantSpec& spec, const Shape& shape, const std::string& values, int default_axis,
                                  const Stored& stored);

}  // namespace quanvas::quant
