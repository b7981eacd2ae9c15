// Quanvas - how far the range of a weight's quantizer is worth shrinking: large weights are clipped so that all
// others get a finer step (the clipping of AWQ, Lin et al. 2024, arXiv 2306.00978, section 5.1: a grid search per
// group on the output error).
//
// Each scale is multiplied by the factor out of 1, 1 - max_shrink / steps, ... 1 - max_shrink that leaves the least
// error tr(D H D'), D = Q(W) - W rounded to nearest, of the rows that it serves; of equal ones by the largest. Zero
// points stay, so that both ends of a range move by the same factor; an offset is multiplied, too, for it is an end
// of the range. Groups along the inputs are chosen one after the other, each against what the groups chosen before
// it have left (D H is kept); a row whose error, computed anew, has not become smaller keeps its scales. So no
// row's error grows (of a scale for the whole tensor: the sum's). Not idempotent: a second search begins at the
// ranges that the first one has found.
#pragma once

#include <vector>

#include "core/algorithms/gram.h"
#include "core/quant/column.h"

namespace quanvas::algorithms {

// The rows of a weight that multiply the same inputs.
struct ClipMatrix {
  quant::MatrixView view;
  const float* w = nullptr;          // [view.rows, view.columns], row-major
  const Moments* moments = nullptr;  // of its inputs in natural order; `mismatch` and `rest` are not looked at
};
struct ClipOptions {
  int steps = 20;           // factors beside 1, at least 1
  double max_shrink = 0.5;  // in (0, 1)
  std::stop_token stop;
};
struct ClipReport {
  double before = 0, after = 0;  // tr(D H D'), sums over all matrices
  std::int64_t changed = 0;      // scales that have become smaller
};

// matrices: all groups of one weight, of which `params` is the quantizer; its scales are replaced.
// Memory: 8 bytes per weight, and in groups for each thread 4 * 64 columns and a group's part of H. Work: with
// groups of g inputs m n (n + steps g), else steps m n^2 multiplications and additions. Threads: stripes of rows;
// the same bits for any number. Errors: kUnsupported when a scale serves parts of several rows; kInvalidArgument
// for shapes, options and weights that are not finite; kCancelled, kOutOfMemory. params are then unchanged.
Result<ClipReport> search_clip(const std::vector<ClipMatrix>& matrices, quant::QuantParams& params,
                               const ClipOptions& options = {});

}  // namespace quanvas::algorithms
