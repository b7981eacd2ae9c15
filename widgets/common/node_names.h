// Quanvas - what nodes are called where there is little room. Pure functions.
#pragma once

#include <string>

#include <QString>

#include "core/graph/graph.h"

namespace quanvas {

// Within its scope, for a card: "conv1" of "/layer1/layer1.0/conv1/Conv", "features.0" of "features.0", "Conv 0" of
// "/0/Conv", "Conv_67" of "Conv_67". nodes_in_scope: nodes of the graph that have the node's scope, itself included.
QString card_name(const Node& node, std::size_t nodes_in_scope);
// With its scope but without what exporters repeat, for a list: "layer1.0.conv1" of "/layer1/layer1.0/conv1/Conv",
// "layer1.0.Relu_1" of "/layer1/layer1.0/Relu_1", "Conv 0" of "/0/Conv"; names without '/' stay as they are.
QString list_name(const Node& node, std::size_t nodes_in_scope);

// "1×3×N×N": N for sizes that the file leaves open.
QString shown_shape(const Shape& shape);

}  // namespace quanvas
