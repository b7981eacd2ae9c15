// Quanvas - the quantizers that a file of packed linear layers could hold instead of those it refuses: whole, so that one
// step of a repair is enough. Shared by compressed-tensors, GPTQ and AWQ.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "plugins/exporters/linear_layers.h"

namespace quanvas::weight_file {

struct PackedLimits {
  // The quantizer with a width that the layer's inputs and outputs have room for; none: no width has. Not asked of others
  // than integers.
  std::function<std::optional<QuantSpec>(const LinearLayer&, QuantSpec)> width;
  bool one_group = false;  // one group size for the whole file
};

// Groups as a setting: their size, at most the layer's inputs; -1: a scale for each output, or one for all.
int group_setting(const LinearLayer& l, const QuantSpec& spec);
inline int group_setting(const LinearLayer& l) {
  return group_setting(l, l.quantizer->spec);
}

// What every layer that the file can hold at all would take, and nothing of the others: width first, then groups: the
// largest of 256, 128, 64, 32, 16 that is not above those asked for and divides the layer's inputs (`one_group`: those of
// all layers), else a scale for each output. In the order of `layers`; the same quantizer where nothing is wrong.
std::vector<std::optional<QuantSpec>> mended_layers(const std::vector<LinearLayer>& layers, const TargetTable& table,
                                                    const PackedLimits& limits);

// Puts these into the refusals of weights. Of layers that the file cannot hold "leave it float" is all that is left.
void add_fixes(const std::vector<LinearLayer>& layers, const std::vector<std::optional<QuantSpec>>& mended,
               std::vector<Refusal>& refusals);

}  // namespace quanvas::weight_file
