// Quanvas - what keeps the rounding passes from working, asked before a run and again in it.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "plugins/passes/rounding.h"
#include "plugins/passes/rounding_layers.h"

namespace quanvas::rounding {

// Why sums of codes of a layer with this input (null: float) and these weights cannot be bounded; empty: they can.
std::string sums_problem(const QuantSpec* input, const QuantSpec& weight);
extern const char* const kSumsHint;
inline constexpr std::int64_t kKeptActivations = std::int64_t{2} << 30;  // bytes between layers; samples are left out beyond that
// "51.4 MB of activations (512 samples)": what is kept of so many networks, or of tensors as large. Empty: the samples are not known.
std::string kept_activations(const PassQuestion& question, int networks);
// Why weights of this format cannot be rounded one by one; empty: they can.
std::string format_problem(const QuantSpec& spec);
// Moves layers whose scales cannot be chosen from `targets` to `left`. quantizer: spec and share of a weight; null: it has none.
using QuantizerOf = std::function<std::pair<const QuantSpec*, std::string>(const Site&)>;
void leave_fixed_scales(Targets& found, const QuantizerOf& quantizer_of);
// What a pass lacks that looks at calibration data, as errors, and the layers that it leaves as they are, as notes.
std::vector<Issue> problems(const Graph& graph, bool calibration_data, const Targets& found, const std::string& title);

}  // namespace quanvas::rounding
