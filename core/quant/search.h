// Quanvas - the search for the range of least squared error. Private to core/quant.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "core/quant/affine.h"

namespace quanvas::quant {

// Squared error of each candidate.
using CandidateErrors = std::function<std::vector<double>(const std::vector<Affine>&)>;

// Tries fractions of `extreme` in `steps` equal steps from `first` / steps on: of the threshold (symmetric), or of
// both ends together, then of the lower, then of the upper one (asymmetric). `extreme` itself is always tried and
// wins ties.
Range search_range(const QuantSpec& spec, const CodeRange& codes, Range extreme, int steps, int first,
                   const CandidateErrors& errors);

// The same on the elements x; the result is never worse than `extreme` on them.
Range mse_range(const QuantSpec& spec, const CodeRange& codes, const float* x, std::int64_t n, Range extreme,
                int threads);

}  // namespace quanvas::quant
