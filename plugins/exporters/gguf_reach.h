// Quanvas - what a few tokens do not tell of an attention: whether a query sees every key before it however far back
// (a sliding window hides those), and whether queries and keys are rotated far from the beginning as near it (rotary
// embeddings that are scaled for longer texts are not).
#pragma once

#include <set>
#include <string>
#include <vector>

#include <tl/expected.hpp>

#include "plugins/exporters/gguf_probe.h"

namespace quanvas::gguf_file {

// One block's attention, whose form at the first tokens is known.
struct Reach {
  TensorId ids = kNoTensor;               // the network's input
  TensorId queries = kNoTensor, keys = kNoTensor, values = kNoTensor;  // [N, tokens, width] behind their projections
  TensorId mixed = kNoTensor;             // what the attention gives
  std::vector<TensorId> lines;            // [N, tokens, features] before it; only their shape is read
  std::int64_t features = 0;
  RopeAttention form;
  std::int64_t context = 0;               // tokens that the file promises
};

class ReachChecker {
 public:
  explicit ReachChecker(const Model& model) : model_(model), graph_(*model.graph) {}
  // The tokens that the graph serves: reach.context, or less where its tables end before that. Else why it is another
  // attention than llama's, or not known to be it.
  tl::expected<std::int64_t, std::string> check(Reach reach);

 private:
  struct Path;  // from the scores to the softmax
  using Outcome = tl::expected<void, std::string>;

  bool depends(TensorId tensor, const Reach& reach, std::unordered_map<TensorId, bool>& known) const;
  tl::expected<Path, std::string> path_of(const Reach& reach) const;
  std::set<std::int64_t> numbers_behind(const std::vector<TensorId>& tensors) const;
  void set_lines(Probe& probe, const Reach& reach, std::int64_t tokens) const;
  tl::expected<Values, std::string> masked(const Reach& reach, const Path& path, std::int64_t& tokens) const;
  bool serves(const Reach& reach, const Path& path, std::int64_t tokens) const;
  Outcome check_mask(const Reach& reach, const Path& path, std::int64_t tokens) const;
  Outcome check_rotation(const Reach& reach, const Path& path) const;

  const Model& model_;
  const Graph& graph_;
  std::set<std::string> accepted_;  // masks that blocks have in common
};

}  // namespace quanvas::gguf_file
