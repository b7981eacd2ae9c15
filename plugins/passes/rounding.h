// Quanvas - what the passes share that change weights so that the outputs of layers stay: the walk through the network
// with the calibration samples, the second moments of each layer's input, and the new weights' way into the model.
#pragma once

#include <any>
#include <functional>
#include <string>
#include <vector>

#include "core/algorithms/rounding.h"
#include "core/exec/pass_context.h"

namespace quanvas::rounding {

// One group of a layer: rows of the weight that multiply the same inputs.
struct Group {
  std::int64_t m = 0, n = 0;
  float* w = nullptr;                // [m, n] row-major: the weights of the network; replaced by the result
  const float* original = nullptr;   // [m, n]: the weights before any pass of this kind
  const algorithms::Gram* gram = nullptr;
  const quant::ColumnQuantizer* quantizer = nullptr;
  std::any* shared = nullptr;        // of all layers with this Gram: what depends on it alone
  std::stop_token stop;
  const algorithms::Accumulator* accumulator = nullptr;  // null: codes are not bounded
  // With Method::moves_scales: the layer's quantizer, whose scales and zero points of this group's weights may be replaced by those
  // of the result, and where these lie; null where they have to stay. `quantizer` is made from it before.
  quant::QuantParams* params = nullptr;
  quant::MatrixView view;
  std::string note = {};  // for the layer's row in the table
};

// A layer with all its groups, whose scales a method chooses.
struct Whole {
  std::vector<quant::MatrixView> views;       // of each group
  std::vector<std::vector<float>> w;          // [m, n] of each group, row-major
  const std::vector<algorithms::Gram>* grams = nullptr;
  std::vector<std::any>* shared = nullptr;    // see Group
  quant::QuantParams* params = nullptr;       // its scales are replaced
  std::stop_token stop;
  std::string note = {};
};

struct Method {
  std::string id, title;        // of the pass, for messages
  bool both_inputs = false;     // Gram with the mismatch of the float and the quantized network's inputs
  bool on_grid = true;          // the result lies on the quantizer's grid; else its parameters are found again
  std::string measure;          // what before and after measure, for the summary
  std::string table;            // the same with its unit, for the table of layers
  std::function<Result<algorithms::RoundingReport>(Group&)> round;
  // bits 0: none. Its input codes are filled in layer by layer.
  algorithms::AccumulatorOptions accumulator = {};
  // The options that Group::shared depends on beside the Gram: of the float network both are kept for other bit widths.
  // Empty: only the Gram is.
  std::string shared_key = {};
  bool moves_scales = false;    // `round` may replace scales, too
  // Instead of `round`, `on_grid` false: chooses scales, weights stay float. Layers whose scales cannot move are left as they are.
  std::function<Result<algorithms::RoundingReport>(Whole&)> tune = {};
};

// Why a pass may not choose the scales of such a weight, as a clause about "it"; empty: it may.
std::string scale_problem(const QuantSpec& spec, const std::string& share);

// Options of all these passes: inputs, samples.
std::vector<Field> common_fields(bool with_inputs);
// Options of those that choose one code after the other: accumulator_bits, accumulator_tile, with_spread accumulator_spread;
// and what they ask for.
void add_accumulator_fields(Schema& schema, bool with_spread = true);
algorithms::AccumulatorOptions accumulator_options(const json& options);
// Their preconditions: calibration data, one graph input, a layer to round, and for passes whose result lies on the grid
// formats that keep their own values and bound no sums; with accumulator bits an integer format of one scale at each
// layer's input, and of its weights. Layers that are left as they are get a note. An info states the memory that it
// will take with activations and moments of so many networks (2: Method::both_inputs with the quantized one's inputs); 0: it does not.
std::vector<Issue> check(const PassQuestion& question, const std::string& title, int networks, bool on_grid = true,
                         const algorithms::AccumulatorOptions& accumulator = {});
// Whether common_fields() ask for the inputs of the quantized network, and the networks that a method with both_inputs runs.
bool wants_quantized(const json& options);
inline int networks_of(const json& options) { return wants_quantized(options) ? 2 : 1; }
// Of passes that choose scales (Method::tune): the same without the demands on formats; layers whose scales cannot move get a note.
std::vector<Issue> check_scales(const PassQuestion& question, const std::string& title);
// That weights which this pass moves may no longer keep to the accumulator that a pass before it has kept; own_bits: that
// it keeps to itself. Empty: they do.
std::vector<Issue> broken_bound(const PassQuestion& question, int own_bits = 0);
// Method::shared_key of a factor.
std::string factor_key(const algorithms::FactorOptions& options);
// The rest of a pass: layers in topological order; each sees the samples as the network before it, with its new weights,
// gives them ("inputs": quantized) or as the float network does. Boundary activations are kept, so every node runs once
// per network. Layers that read the same tensor in the same way share one Gram, and those of the float network are kept
// between runs. Layers that a stopped run has finished are taken from it.
// Reports each layer in ctx.layers. Errors: those of check(), kCancelled.
Result<std::string> run(PassContext& ctx, const json& options, JobContext& job, const Method& method);

}  // namespace quanvas::rounding
