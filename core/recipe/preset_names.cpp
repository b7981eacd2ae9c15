#include "core/recipe/preset_names.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace quanvas {
namespace {

// A name of a megabyte, from a hostile recipe, is far from all of them.
constexpr std::size_t kMostLetters = 200;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Insertions, deletions and replacements that make one of the other (Levenshtein 1966).
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t corner = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = corner + (a[i] != b[j]);
      corner = row[j + 1];
      row[j + 1] = std::min({replaced, corner + 1, row[j] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> closest_presets(const std::string& name, const PresetLibrary& presets, std::size_t count) {
  const std::string wanted = lower(name.substr(0, kMostLetters));
  std::vector<std::pair<std::size_t, std::string>> ranked;
  for (const Preset& p : presets.all()) ranked.emplace_back(edit_distance(wanted, lower(p.id)), p.id);
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> out;
  for (std::size_t i = 0; i < std::min(count, ranked.size()); ++i) out.push_back(ranked[i].second);
  return out;
}

bool preset_contains(const Preset& preset, const std::string& text) {
  const std::string wanted = lower(text);
  for (const std::string* field : {&preset.id, &preset.title, &preset.group, &preset.doc})
    if (lower(*field).find(wanted) != std::string::npos) return true;
  return false;
}

std::string preset_hint(const std::string& name, const PresetLibrary& presets) {
  const auto closest = closest_presets(name, presets);
  if (closest.empty()) return "The folder of presets is empty or cannot be read.";
  std::string names;
  for (const auto& id : closest) names += (names.empty() ? "" : ", ") + id;
  return "Closest: " + names + ". 'quanvas-cli presets' lists all " + std::to_string(presets.all().size()) + ".";
}

}  // namespace quanvas
