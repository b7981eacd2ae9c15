// Quanvas - one sample from what the reader gives to what the model takes. Pure functions; Torch-free.
#pragma once

#include "core/data/dataset.h"

namespace quanvas {

// Refuses settings that can never work: a crop with one side, a standard deviation of 0, unknown words.
Status check_preprocessing(const Preprocessing& settings);

// is_image: sample is [H,W] or [H,W,C]. In this order: channels (grey: BT.601 luma; rgb: repeated; a fourth,
// alpha, channel is dropped), resize (shorter side; triangle filter widened when shrinking, rounded to whole
// levels after each direction when all values are whole numbers 0..255, as PIL does), centre crop, layout,
// x * scale, (x - mean) / std. Other samples keep their shape and are only scaled and normalized, with the
// channel axis that `layout` says.
Result<RawSample> preprocess(RawSample sample, bool is_image, const Preprocessing& settings);

// Height x width x channels floats, row-major, resized to new_height x new_width.
std::vector<float> resize_bilinear(const std::vector<float>& in, std::int64_t height, std::int64_t width,
                                   std::int64_t channels, std::int64_t new_height, std::int64_t new_width,
                                   bool round_levels);

}  // namespace quanvas
