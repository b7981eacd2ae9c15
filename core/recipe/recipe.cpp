#include "core/recipe/recipe.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/base/files.h"

namespace quanvas {
namespace fs = std::filesystem;
namespace {

bool is_wildcard(char c) { return c == '*' || c == '?'; }
bool is_float_width(int bits) { return bits == 0 || bits == 32; }

Rule make_rule(std::vector<SiteKind> sites, json fields, std::string note, std::string position = {}) {
  Rule rule;
  rule.select.sites = std::move(sites);
  rule.select.kinds = {LayerKind::kCompute};
  rule.select.position = std::move(position);
  rule.override_fields = std::move(fields);
  rule.note = std::move(note);
  return rule;
}

// Measured choice for convolutional networks: from 8 bits on, clipping nothing is best; below, the threshold
// that minimizes the squared error is.
json activation_fields(int bits) {
  return {{"bits", bits}, {"signed", false}, {"zero_point", "integer"}, {"statistic", bits >= 8 ? "minmax" : "mse"}};
}

}  // namespace

bool is_position(const std::string& text) {
  static const std::set<std::string> words = {"", "first", "last", "not-first", "not-last", "inner"};
  return words.count(text) > 0;
}

std::string quote_pattern(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (is_wildcard(c) || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// Greedy with one point of return: linear in practice, at worst pattern x name.
bool matches_pattern(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    const bool quoted = p + 1 < pattern.size() && pattern[p] == '\\';
    const std::size_t at = quoted ? p + 1 : p;
    if (at < pattern.size() && (pattern[at] == name[n] || (!quoted && pattern[at] == '?')) &&
        (quoted || pattern[at] != '*')) {
      p = at + 1;
      ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Recipe uniform_recipe(int weight_bits, int activation_bits) {
  Recipe recipe;
  const bool weights = !is_float_width(weight_bits), activations = !is_float_width(activation_bits);
  recipe.name = (weights ? "W" + std::to_string(weight_bits) : "") + (activations ? "A" + std::to_string(activation_bits) : "");
  if (recipe.name.empty()) recipe.name = "float";
  if (weights)
    recipe.rules.push_back(make_rule(
        {SiteKind::kWeight},
        {{"bits", weight_bits}, {"narrow", weight_bits > 1}, {"granularity", "channel"}, {"statistic", "absmax"}},
        "Weights: symmetric, one scale for each output channel."));
  if (activations) {
    recipe.rules.push_back(make_rule({SiteKind::kInput}, activation_fields(activation_bits),
                                     "Inputs: asymmetric, so that signed and unsigned tensors fit."));
    if (activation_bits < 8)
      recipe.rules.push_back(make_rule({SiteKind::kInput}, activation_fields(8),
                                       "The network's own input keeps 8 bits.", "first"));
  }
  if (weights && activations)
    recipe.rules.push_back(make_rule({SiteKind::kBias}, {{"bits", 32}, {"scale_from_accumulator", true}},
                                     "Bias: added to the integer accumulator."));
  recipe.passes.push_back({"fold-bn", true, json::object()});
  return recipe;
}

std::vector<std::string> builtin_recipe_ids() {
  std::error_code ec;
  std::vector<std::string> ids;
  for (fs::directory_iterator it(resource_dir() / "recipes", ec), end; !ec && it != end; it.increment(ec))
    if (it->path().extension() == ".yaml") ids.push_back(it->path().stem().string());
  std::sort(ids.begin(), ids.end());
  return ids;
}

Result<Recipe> builtin_recipe(const std::string& id) {
  const auto ids = builtin_recipe_ids();
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) {
    std::string known;
    for (const auto& k : ids) known += (known.empty() ? "" : ", ") + k;
    return fail(ErrorCode::kNotFound, "There is no built-in recipe '" + id + "'.", "Known: " + known + ".");
  }
  const fs::path file = resource_dir() / "recipes" / (id + ".yaml");
  QUANVAS_TRY(const std::string text, read_file(file));
  return parse_recipe(text, file.string());
}

}  // namespace quanvas
