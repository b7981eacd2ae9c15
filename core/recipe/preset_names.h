// Quanvas - names of presets that were meant by a name that is none.
#pragma once

#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace quanvas {

// The ids with the least edit distance to the name, nearest first; upper and lower case are the same.
std::vector<std::string> closest_presets(const std::string& name, const PresetLibrary& presets,
                                         std::size_t count = 3);
// Whether the text stands in the preset's id, title, heading or description; upper and lower case are the same.
bool preset_contains(const Preset& preset, const std::string& text);
// What to do about a name that is none, as the hint of an error.
std::string preset_hint(const std::string& name, const PresetLibrary& presets);

}  // namespace quanvas
