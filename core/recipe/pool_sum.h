// Quanvas - average pools as sums of integers: what a truncation of their output starts from. With codes of scale s
// at the input, the mean of k elements is a whole number n times s / k, and n has the input's bits and ceil(log2 k)
// more.
#pragma once

#include <functional>
#include <string>

#include "core/recipe/quant_spec.h"

namespace quanvas {

// Sums of more bits are not exact in float32, in which activations are: x_i = q_i s, their mean, s / k and the
// quotient of the last two are each off by up to 2^-24 of the largest sum, together by less than a half for so many
// bits.
inline constexpr int kMostSumBits = 21;

// Elements that each output of an AveragePool, GlobalAveragePool or ReduceMean is the mean of. 0: it is none of
// these, or the number is unknown or not the same everywhere; problem is then a clause that says so.
struct AveragedElements {
  std::int64_t count = 0;
  std::string problem;
};
AveragedElements averaged_elements(const Graph& graph, const Layer& layer);

// Bits of the sum of so many of the input's codes.
int sum_bits(const QuantSpec& input, std::int64_t elements);

// The site whose quantizer the layer's only input went through: its own input site, or the output of the layer
// before. node kNoNode: neither has one.
Site quantized_input(const Graph& graph, const Layer& layer, const std::function<bool(const Site&)>& has_quantizer);

// Why the layer's output cannot be truncated when its input has this format (null: float), as a clause that ends
// with what is needed; empty: it can.
std::string truncation_problem(const Graph& graph, const Layer& layer, const QuantSpec* input);

}  // namespace quanvas
