// Quanvas - how near an export is to the screen.
#pragma once

#include "core/base/json.h"

namespace quanvas {

// How near a target's file computes to the network on the screen.
//   weights  the stored codes stand for the very fake-quantized weights; activations are the reader's business
//   node     besides, every node gives the same codes for the same inputs
//   model    besides, whole networks do but for the order of float sums: a value on a tie may be one step apart
//   near     by construction not the same arithmetic
enum class Exactness { kWeights, kNode, kModel, kNear };
inline const EnumNames<Exactness>& enum_names(Exactness) {
  static const EnumNames<Exactness> names = {{Exactness::kWeights, "weights"},
                                             {Exactness::kNode, "node"},
                                             {Exactness::kModel, "model"},
                                             {Exactness::kNear, "near"}};
  return names;
}

}  // namespace quanvas
