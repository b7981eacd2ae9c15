// Quanvas - features that can be rotated without changing what a network computes: some layers and constants make them
// (sources), they pass only operators that treat all features along the last axis alike, and other linear layers read them
// (sinks). Multiplying what the sources give by an orthogonal matrix R and the sinks' weights by R' cancels out
// (Ashkboos et al. 2024, "QuaRot", section 4; RMSNorm without a scale only sees the length of the features).
//
// Reshapes may regroup the last axis, as attention heads do: R is then one small matrix for every run of `granule` features.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/job.h"
#include "core/graph/layers.h"
#include "plugins/passes/edit.h"

namespace quanvas {

// A linear layer y = x w + b on the last axis: MatMul with a matrix on the right, Gemm without transA.
class LinearWeight {
 public:
  // Whether `node` is one whose weight and bias are stored; `why` says what is in the way where it nearly is.
  static bool fits(const Model& model, const Node& node, std::string* why = nullptr);
  // Of a node that fits.
  static LinearWeight of(const Model& model, const Node& node);
  // The stored weight's sizes, without its values.
  static std::int64_t inputs_of(const Graph& graph, const Node& node);
  static std::int64_t outputs_of(const Graph& graph, const Node& node);

  std::int64_t inputs = 0, outputs = 0;
  std::vector<double> w;  // [inputs, outputs]
  std::vector<double> b;  // [outputs], as added; empty: none
  bool is_finite() const;
  double largest() const;  // magnitude of weights and biases; 0: none
  // The mean over outputs of the largest magnitude of their weights over the root mean square: what a rounding error per
  // channel is proportional to.
  double spread() const;
  void write(const Model& model, const Node& node, ModelEdit& edit) const;
};

// Real numbers, one at least, none of them missing; false for null.
bool has_reals(const TensorData* data);
// The largest magnitude that a type of real numbers holds.
double largest_of(DataType type);
// Data in double precision, whatever the stored type.
std::vector<double> doubles_of(const TensorData& data);
bool is_real(DataType type);
bool all_finite(const std::vector<double>& values);

struct FeatureSource {
  NodeId node = kNoNode;
  int constant = -1;  // -1: what the linear layer gives; else the input of the node that is a constant [.., features]
};
struct FeatureRegion {
  std::int64_t granule = 0;            // divides the last axis of every tensor
  std::vector<FeatureSource> sources;  // in graph order, as all lists
  std::vector<NodeId> sinks;
  std::vector<NodeId> norms_inside;    // whose input and output belong to it
  std::vector<NodeId> norms_from, norms_to;  // that make its features and read them
  std::string blocked;                 // not empty: why its features cannot be rotated
};
struct FeatureRegions {
  std::vector<FeatureRegion> regions;
  std::map<TensorId, std::size_t> region_of;  // tensors of real numbers with a known last axis
  const FeatureRegion* find(TensorId id) const {
    const auto it = region_of.find(id);
    return it == region_of.end() ? nullptr : &regions[it->second];
  }
};

// passes: whether a normalization over the last axis gives the same features as it gets, rotated alike; else its two sides
// are regions of their own.
FeatureRegions find_feature_regions(const Model& model, const std::function<bool(const Node&)>& passes);
// The same for permutations of the features, which change nothing behind operators that treat each value for itself either,
// nor behind normalizations over the last axis, whatever their scales, which are sources like other constants.
FeatureRegions find_permuted_regions(const Model& model);

// LayerNormalization or RMSNormalization over the last axis alone.
bool is_last_axis_norm(const Graph& graph, const Node& node);
struct NormScale {
  std::vector<double> scale, bias;  // of each feature; bias empty: none
  bool is_neutral() const;          // x 1 + 0
  bool is_uniform() const;          // one number for all features, no bias
};
// Nothing: computed, of another length, or not finite.
std::optional<NormScale> norm_scale(const Model& model, const Node& node);

// What merging of normalizations has done.
struct MergedNorms {
  ModelPtr model;
  std::size_t norms = 0, merged = 0, neutral = 0, made_rms = 0, centred = 0;
  std::vector<std::string> left;               // "'ln1': 'add' (Add) ..."
  std::map<std::string, std::string> notes;    // by layer
  std::string text() const;                    // without a full stop
};
// Scales and biases of normalizations go into the linear layers behind them; with to_rms, layer normalizations whose input
// can be centred where it is made become RMSNormalization.
Result<MergedNorms> merge_norms(const ModelPtr& model, bool to_rms, JobContext& job);

}  // namespace quanvas
