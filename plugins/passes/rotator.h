// Quanvas - rotations of features, planned and folded into the weights of a model: what `rotate` does with a network whose
// normalizations are merged.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "core/base/job.h"
#include "core/graph/rotation_node.h"
#include "core/report/report.h"
#include "plugins/passes/rotation.h"

namespace quanvas {

struct RotateOptions {
  std::string kind = "signs", online = "none", layers = "*";
  std::uint64_t seed = 0;
  std::int64_t block = 0, step = 0;  // step: Hadamard sizes above the first that inputs are padded to
  bool residual = true, heads = true, expand = false;
};

// A tensor that fused rotations change, as it is before them: [rows, columns] becomes blocks(in)' values blocks(out).
struct TurnedTensor {
  NodeId node = kNoNode;  // that reads it, as input number `input`; in the model that Rotator::finish() gives, too
  std::size_t input = 0;
  std::int64_t rows = 0, columns = 0;
  std::vector<double> values;  // row-major, with what a Gemm multiplies it by and after an online rotation of its inputs
  bool is_flipped = false;     // stored as [columns, rows]
  int in = -1, out = -1;       // indexes into Rotator::rotations(); -1: none
};

class Rotator {
 public:
  Rotator(ModelPtr model, const RotateOptions& options);

  // Decides what is rotated. Errors: kCancelled.
  Status plan(JobContext& job);
  // The matrices of the fused rotations, after plan(), and others of the same sizes in their place.
  std::vector<Rotation> rotations() const;
  void replace(const std::vector<Rotation>& rotations);
  // Where features are rotated in blocks that are smaller than they are, after plan(): the tensor and the block's size. Each
  // tensor of a known shape once, in graph order.
  struct Blocks {
    TensorId tensor = kNoTensor;
    std::int64_t size = 0;
  };
  std::vector<Blocks> blocks() const;

  // Changes the weights; with `turned`, tells what it has changed. Errors: kCancelled, kOutOfMemory.
  Status apply(JobContext& job, std::vector<TurnedTensor>* turned = nullptr);
  bool changed() const { return changed_; }
  Result<ModelPtr> finish() { return edit_.finish(); }
  std::vector<PassLayer> rows() && { return std::move(rows_); }
  std::string text() const;  // without a full stop

 private:
  // What stands alike in every block of a network is told once: `alike` is the kind of operator, or the sentence.
  struct Left {
    std::string layer, why, alike;
    std::size_t more = 0;
  };
  struct Online {
    std::optional<HadamardNode> node;
    std::string why;  // there is none although it was asked for
  };
  void leave(const Node& layer, const std::string& why);
  const Node& node(NodeId id) const { return *graph_.find(id); }
  Status plan_region(std::size_t index);
  Status rotate_constants();
  Status change(const Node& layer);
  std::int64_t width(const FeatureSource& source) const;
  std::string not_finite(const FeatureRegion& region) const;
  std::string unfit(const Node& layer, std::int64_t features) const;
  const Rotation* rotation_of(TensorId id) const;
  int index_of(TensorId id) const;
  std::string reason_of(TensorId id) const;
  void note_left(const std::string& side, TensorId id, PassLayer& row, const Node& layer);
  Online online_of(const Node& layer, std::int64_t inputs) const;
  Result<std::string> online(const Node& layer, LinearWeight& w);
  std::string rotated(const Node& layer, const HadamardNode& h);
  bool is_named(const std::string& layer) const;
  bool is_behind_activation(const Node& layer) const;

  const ModelPtr model_;
  const Graph& graph_;
  RotateOptions options_;
  std::stop_token stop_;
  ModelEdit edit_;
  std::vector<Layer> layers_;
  FeatureRegions found_;
  std::map<std::size_t, Rotation> rotations_;   // by region
  std::map<std::size_t, std::string> reasons_;  // why a region that could be rotated was not
  std::map<TensorId, std::string> nodes_;       // tensors with an online rotation, and what it gives
  std::set<std::string> names_;
  std::set<NodeId> fused_layers_;
  std::size_t whole_ = 0, heads_ = 0, constants_ = 0, online_layers_ = 0, padded_ = 0;
  std::vector<Left> left_;
  std::vector<PassLayer> rows_;
  std::vector<TurnedTensor>* turned_ = nullptr;
  bool changed_ = false;
};

}  // namespace quanvas
