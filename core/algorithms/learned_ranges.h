// Quanvas - learned rounding with learned ranges: AutoRound (Cheng et al. 2023, arXiv 2309.05516, eq. 3 to 5) on
// second moments.
//
//   w~ = s (clip(round(w / s + v) + z) - z),   s = (beta H - alpha L) / (hi - lo),   z = round(lo - alpha L / s)
// with |v| <= 1/2 for each weight and alpha, beta in (0, 1] for each scale; [L, H] is the range as it was found.
// Formats without a zero point have s = beta s0. All are learned together by the sign of the gradient straight
// through the rounding and, for v, not through the clipping, with rates that fall from 1 / iterations to 0: a range
// shrinks to a half at most. The loss of a row is the objective of rounding.h. Of each row the best weights are
// kept with their scales; the start counts as met, so that no row's objective grows.
#pragma once

#include <string>

#include "core/algorithms/learned.h"

namespace quanvas::algorithms {

struct RangeReport : LearnedReport {
  std::int64_t scales = 0;  // that differ from the start's, of those that serve this matrix
};

// Why the ranges of this matrix cannot be learned, as a clause about "it"; empty: they can. Codes must be whole
// numbers, scales above 0 and each of them for weights of one row.
std::string range_problem(const quant::QuantParams& params, const quant::MatrixView& view);

// w0, w: see learn_rounding(); weights that lie on the grid start from their codes. params: the quantizer of the
// whole weight, of which this matrix is `view`; scales and zero points of the matrix are replaced by those of the
// result, whose values they keep bit for bit. Of options `iterations` and `stop` count. Memory: 9 * 4 * 32 n bytes
// per thread. Work: iterations * m n^2. Threads: rows in stripes of 32; the same bits for any number. Errors:
// kUnsupported (range_problem), kInvalidArgument, kCancelled (w and params are then unchanged), kOutOfMemory.
Result<RangeReport> learn_ranges(std::int64_t m, std::int64_t n, const float* w0, float* w, const Moments& moments,
                                 quant::QuantParams& params, const quant::MatrixView& view,
                                 const LearnedOptions& options = {});

}  // namespace quanvas::algorithms
