// Quanvas - one quantizer for several weights. Torch-free, deterministic.
#pragma once

#include <utility>
#include <vector>

#include "core/quant/params.h"

namespace quanvas::quant {

// A weight as it lies in memory: first value and number of values.
using Values = std::pair<const float*, std::int64_t>;

// Parameters of all values as if they were one tensor: of granularity tensor, and of statistics that look at the
// values alone, which resolve() makes sure of. The layout is that of all values together; each weight that is quantized
// with them needs its own. Copies the values.
Result<QuantParams> find_shared_params(const QuantSpec& spec, const std::vector<Values>& weights);

}  // namespace quanvas::quant
