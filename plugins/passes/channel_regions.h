// Quanvas - channels that can be scaled against each other without changing what a network computes: some layers make them
// (sources), they pass only operators that keep a positive factor per channel, and other layers read them (sinks).
// Multiplying the sources' output channels by s and dividing the sinks' input channels by s cancels out
// (Nagel et al. 2019, section 4.1; over residual sums and concatenations, too).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/graph/layers.h"
#include "plugins/passes/edit.h"

namespace quanvas {

// The stored weight of a layer, seen by output and input channels. Of a normalization its scale: output channels only.
class ChannelWeight {
 public:
  // Nothing where the weight is computed, has an unexpected shape or is not of floats.
  static std::optional<ChannelWeight> of(const Model& model, const Node& node, const Layer* layer);

  const Node& node() const { return *node_; }
  std::int64_t outputs() const { return outputs_; }
  std::int64_t inputs() const { return inputs_; }   // 0: a normalization
  const std::vector<double>& values() const { return values_; }
  const std::vector<double>& bias() const { return bias_; }  // per output channel, as added; empty: none
  std::int64_t output_of(std::int64_t element) const;
  std::int64_t input_of(std::int64_t element) const;

  // Multiplies output and input channels; an empty list leaves them. The bias follows its output channel.
  void scale(const std::vector<double>& outputs, const std::vector<double>& inputs);
  // Writes what scale() has changed.
  void write(const Model& model, ModelEdit& edit) const;

 private:
  const Node* node_ = nullptr;
  TensorId weight_ = kNoTensor, bias_id_ = kNoTensor;
  std::int64_t outputs_ = 0, inputs_ = 0, inner_ = 1, group_ = 1;
  bool outputs_first_ = true;  // [out, in / group, ...], else [in, out / group, ...]
  std::vector<double> values_, bias_;
  bool changed_ = false;
};

struct ChannelUse {
  std::size_t layer = 0;  // index into ChannelRegions::layers
  std::int64_t channel = 0;
};
// What one factor scales.
struct ChannelClass {
  std::vector<ChannelUse> sources, sinks;
};
// All channels with the same sources and sinks.
struct ChannelRegion {
  std::vector<std::size_t> sources, sinks;
  std::vector<ChannelClass> channels;
};
struct ChannelRegions {
  std::vector<ChannelWeight> layers;   // in graph order
  std::vector<ChannelRegion> regions;  // in the order of their first sources
  std::vector<std::string> left;       // "'conv3': 'Clip' does not keep a factor": sources in no region
};

// The node names in `left` and in ChannelWeight are those of model, which must outlive the result.
ChannelRegions find_channel_regions(const Model& model);

}  // namespace quanvas
