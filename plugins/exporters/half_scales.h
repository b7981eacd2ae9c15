// Quanvas - scales that a file has as float16: exact, or rounded when the user asks for it (GPTQ, AWQ).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "plugins/exporters/linear_layers.h"

namespace quanvas::weight_file {

inline Field scales_field() {
  return choice_field(
      "scales", "Scales", "The file has them as float16.", "exact",
      {{"exact", "Exact", "Scales that are no float16 are refused."},
       {"round", "Rounded", "To the nearest float16; the audit says what that changes, and no row is equal then."}});
}
inline bool rounds_scales(const json& options) {
  return options.value("scales", std::string("exact")) == "round";
}

// One row: integers of linear layers, with everything but widths, signs and zero points.
inline TargetTable half_table(const json& options) {
  TargetTable t;
  TargetRow r;
  r.sites = {SiteKind::kWeight};
  r.ops = {"Gemm", "MatMul"};
  r.narrow.reset();
  r.zero_point_inside.reset();  // codes are stored as they are
  r.granularities = {Granularity::kGroup, Granularity::kChannel, Granularity::kTensor};
  r.group_sizes = {128, 64, 32, 16, 256};
  r.roundings.clear();
  if (!rounds_scales(options)) r.scales = {ScaleType::kFloat16, ScaleType::kPowerOfTwo};
  t.rows = {r};
  t.half_scales = !rounds_scales(options);
  t.exactness = rounds_scales(options) ? Exactness::kNear : Exactness::kWeights;
  t.notes = {"Readers compute in float16 or bfloat16; exactness is that of the stored numbers.",
             "Quantizers of inputs, outputs and biases, and those of layers other than linear ones, have no place."};
  return t;
}

// What rounding cannot hold either; exact scales are asked for by check_quantizers().
inline void check_half_scales(const LinearLayer& l, const json& options, std::vector<Refusal>& out) {
  if (!rounds_scales(options)) return;
  for (const float s : l.quantizer->scale) {
    const float half = half_to_float(float_to_half(s));
    if (std::isfinite(s) && std::isfinite(half) && half > 0) continue;
    out.push_back(at_weight(l, "scale", "scale " + std::to_string(s), "float16 numbers above 0 and below 65520", "Leave it float."));
    return;
  }
}

}  // namespace quanvas::weight_file
