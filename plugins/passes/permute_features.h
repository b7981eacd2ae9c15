// Quanvas - the order of features in front of rotations in blocks (core/algorithms/block_order.h), folded into the weights that
// make and read them ("PeRQ/MixQuant", arXiv 2601.22347, permutation-equivariant regions).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/algorithms/block_order.h"
#include "core/exec/pass_context.h"
#include "plugins/passes/rotator.h"

namespace quanvas {

struct Permuted {
  ModelPtr model;
  std::string text;  // a clause for the summary
};

// model: that ctx.model becomes the way there; blocks: of it. `key` says by which options it was made. Magnitudes are
// those of the float network over the calibration samples, kept by ctx.measured. Errors: those of ctx.measured, kCancelled.
Result<Permuted> permute_features(const PassContext& ctx, const ModelPtr& model, const std::vector<Rotator::Blocks>& blocks,
                                  algorithms::BlockOrder order, std::uint64_t seed, const std::string& key);

// The model whose features behind `tensor` stand in another order: place j of every run of order.size() features gets feature
// order[j]. Tensors of one permuted region (feature_regions.h) are named once. Not possible where a region is blocked, or where
// its granule is another one: `left` says why.
Result<ModelPtr> reorder_features(const ModelPtr& model, const std::map<TensorId, std::vector<std::int64_t>>& orders,
                                  std::vector<std::string>& left);

}  // namespace quanvas
