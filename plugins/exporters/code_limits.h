// Quanvas - limits of a Clip and the codes that they fall on or between: for targets that limit codes. Reentrant.
#pragma once

#include <utility>

#include "core/base/result.h"
#include "core/graph/weights.h"
#include "core/quant/params.h"

namespace quanvas {

// Least and largest of a Clip with constant limits; infinite: none. kInternal for a limit that is no single number.
Result<std::pair<float, float>> clip_limits(const Model& model, const Node& node);
// Whether such an operator gives values of these codes where it is given such: a Clip's limits may lie between two. True
// for every other operator.
bool limits_are_codes(const Model& model, const Node& node, const quant::QuantParams& p);

}  // namespace quanvas
