// Quanvas - shapes of inputs as people write them.
#pragma once

#include <string>

#include "core/base/result.h"
#include "core/graph/graph.h"

namespace quanvas {

// "1,3,224,224", also with x or × between; ? (or -1) for a dimension that stays open, which is -1; nothing: a scalar.
// kInvalidArgument with the part that is no dimension.
Result<Shape> parse_shape(const std::string& text);
std::string shape_entry(const Shape& shape);  // "?,3,224,224"

}  // namespace quanvas
