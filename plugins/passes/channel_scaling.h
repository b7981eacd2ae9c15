// Quanvas - factors between the channels of activations and the weights that read them: an activation is divided by a
// factor per channel and the weights are multiplied by it, so the network computes the same and the rounding changes. The
// division goes into the layers that make the channels where that is exact (channel_regions.h), else a multiplication is
// put in front of the layers.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/algorithms/gram.h"
#include "core/exec/pass_context.h"
#include "plugins/passes/channel_regions.h"
#include "plugins/passes/rounding_layers.h"

namespace quanvas::scaling {

// Channels of an activation over the calibration samples.
struct ChannelMoments {
  std::vector<double> absmax, mean;          // largest and mean magnitude
  std::vector<double> average, deviation;    // mean and standard deviation of the values themselves
};

// Channel classes that get a factor each; all of them have sinks.
struct Region {
  std::vector<ChannelClass> channels;
  std::vector<std::size_t> sinks;  // indexes into Regions::layers, ascending
  // The tensor behind which a multiplication is put for the sinks; kNoTensor: the sources are divided.
  TensorId input = kNoTensor;
};
struct Regions {
  std::vector<ChannelWeight> layers;
  std::vector<Region> regions;
  std::vector<std::string> left;  // layers in no region and why; only without multiplications
  const ChannelWeight& sink(const ChannelUse& use) const { return layers[use.layer]; }
};
// The option that says where the division goes: fused, into the sources where these can be divided; layerwise, a
// multiplication in front of each layer with a weight; both, the second where the first is not possible.
Field method_field();
Regions find_regions(const Model& model, const std::string& method);

// Of tensors with their channels' axes (below 0: the last). Runs the network over the calibration samples.
Result<std::map<TensorId, ChannelMoments>> measure_channels(const PassContext& ctx, const std::map<TensorId, int>& axes, JobContext& job);
// Of the inputs of all sinks.
Result<std::map<TensorId, ChannelMoments>> measure_inputs(const PassContext& ctx, const Regions& regions, JobContext& job);
// One value per class of a region: the largest over its sinks.
std::vector<double> of_classes(const Regions& regions, const Region& region, const std::map<TensorId, ChannelMoments>& inputs,
                               std::vector<double> ChannelMoments::* what);
// The largest magnitude of the weights that read each class.
std::vector<double> weight_maxima(const Regions& regions, const Region& region);

// What a region's factors do to the outputs of its sinks in the recipe's formats: the squared error of the weights'
// rounding over the calibration samples, tr(D H D'), and of the inputs' rounding, which counts as noise of an even
// distribution (integer formats).
class Objective {
 public:
  // inputs: as measure_inputs() has them; null: without the inputs' rounding.
  Objective(const PassContext& ctx, const Regions& regions, const Plan& plan, const std::map<TensorId, ChannelMoments>* inputs);

  // Whether a sink of the region has a weight format (or an input format, where inputs count).
  bool knows(const Region& region) const;
  // Why it does not know the region, as a clause.
  std::string why_not(const Region& region) const;
  // Everything that the errors depend on besides model and data.
  std::string key() const;
  // Calls f(region index) for each region that it knows, in order, when error() can be asked about it. Walks the
  // samples as often as the moments of all layers need memory: at most 1 GiB of them are kept, or those of one region.
  Status visit(JobContext& job, const std::function<Status(std::size_t)>& f);
  // factors: one per class of the region; in units of the squared float output.
  Result<double> error(const Region& region, const std::vector<double>& factors, const std::stop_token& stop) const;

 private:
  struct Sink {
    rounding::Target target;
    std::optional<QuantSpec> weight, input;
    std::vector<algorithms::Moments> moments;  // of each group; empty: not there now
    double output = 0;                         // squares of the float output
    double columns = 0;
  };
  Status gather(const std::vector<std::size_t>& layers, JobContext& job);
  Result<double> weight_error(const ChannelWeight& layer, const Sink& sink, const std::vector<double>& factors,
                              const std::stop_token& stop) const;
  double input_error(const ChannelWeight& layer, const Sink& sink, const std::vector<double>& factors) const;

  const PassContext& ctx_;
  const Regions& regions_;
  const std::map<TensorId, ChannelMoments>* inputs_;
  std::map<std::size_t, Sink> sinks_;        // by layer
  std::map<std::string, std::string> left_;  // layers whose moments cannot be had, and why
};

// Factors of all regions, as a measurement keeps them.
struct Choice {
  std::vector<double> factors;                 // one per class: the activation is divided by it
  double parameter = 0, before = 0, after = 0;  // what was chosen, and what it changes
  bool overflows = false;                       // apply() has left the region: the type of a weight cannot hold the result
};
std::string to_bytes(const std::vector<Choice>& choices);
// Nothing: not what to_bytes() writes for these regions.
std::optional<std::vector<Choice>> from_bytes(const std::string& bytes, const Regions& regions);

// The model with these factors. Scales regions.layers. Factors whose results a weight's type cannot hold are taken back.
Result<ModelPtr> apply(const Model& model, Regions& regions, std::vector<Choice>& choices);
// "'fc1', 'fc2'": the sinks of a region.
std::string name_of(const Regions& regions, const Region& region);

}  // namespace quanvas::scaling
