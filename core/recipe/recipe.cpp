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

json fields_of(const QuantSpec& spec) {
  const json defaults = to_json_value(QuantSpec{});
  json fields = {{"bits", spec.bits}};
  const json all = to_json_value(spec);
  for (const auto& [key, value] : all.items())
    if (!defaults.contains(key) || defaults[key] != value) fields[key] = value;
  return fields;
}

// A rule that with_assignment made: nodes by name, nothing else.
bool is_assignment(const Rule& rule) {
  const Selector& s = rule.select;
  return !s.names.empty() && !s.sites.empty() && s.ops.empty() && s.kinds.empty() && s.scope.empty() &&
         s.position.empty() && !s.depthwise_only;
}

bool covers(const Rule& wide, const Rule& narrow) {
  if (wide.select.operand >= 0 && wide.select.operand != narrow.select.operand) return false;
  const auto& kinds = wide.select.sites;
  return std::all_of(narrow.select.sites.begin(), narrow.select.sites.end(),
                     [&](SiteKind k) { return std::find(kinds.begin(), kinds.end(), k) != kinds.end(); });
}

void drop_covered(std::vector<Rule>& rules, const Rule& added) {
  const std::set<std::string> names(added.select.names.begin(), added.select.names.end());
  for (std::size_t i = rules.size(); i-- > 0 && is_assignment(rules[i]);) {
    if (!covers(added, rules[i])) continue;
    std::erase_if(rules[i].select.names, [&](const std::string& n) { return names.count(n) > 0; });
    if (rules[i].select.names.empty()) rules.erase(rules.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

// What one rule can say: site kinds and operand, for a list of nodes.
using Target = std::pair<int, std::vector<SiteKind>>;

int operands_of_kind(const Layer& layer, SiteKind kind) {
  const auto sites = layer.sites();
  return static_cast<int>(std::count_if(sites.begin(), sites.end(), [&](const Site& s) { return s.kind == kind; }));
}

// The node's sites as few targets: kinds whose operands are all there together, single operands one by one.
std::vector<Target> targets_of(const Layer* layer, const std::vector<Site>& sites) {
  std::map<SiteKind, std::set<int>> operands;
  for (const Site& s : sites) operands[s.kind].insert(s.operand);
  std::vector<Target> out;
  std::vector<SiteKind> whole;
  for (const auto& [kind, given] : operands) {
    const int all = layer ? operands_of_kind(*layer, kind) : 1;
    if (static_cast<int>(given.size()) >= all) {
      whole.push_back(kind);
      continue;
    }
    for (const int operand : given) out.push_back({operand, {kind}});
  }
  if (!whole.empty()) out.insert(out.begin(), {-1, whole});
  return out;
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

Recipe with_assignment(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites,
                       const std::optional<QuantSpec>& spec) {
  Recipe out = recipe;
  const std::vector<Layer> layers = find_layers(graph);
  std::vector<NodeId> order;
  std::map<NodeId, std::vector<Site>> by_node;
  for (const Site& site : sites) {
    if (!graph.find(site.node)) continue;
    auto& of_node = by_node[site.node];
    if (of_node.empty()) order.push_back(site.node);
    of_node.push_back(site);
  }
  std::map<NodeId, const Layer*> layer_of;
  for (const Layer& layer : layers) layer_of[layer.node] = &layer;
  std::vector<std::pair<Target, std::vector<std::string>>> groups;
  for (const NodeId node : order) {
    const auto layer = layer_of.find(node);
    for (const Target& target : targets_of(layer == layer_of.end() ? nullptr : layer->second, by_node[node])) {
      auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == target; });
      if (group == groups.end()) group = groups.insert(groups.end(), {target, {}});
      group->second.push_back(quote_pattern(graph.find(node)->name));
    }
  }
  for (auto& [target, names] : groups) {
    Rule rule;
    rule.select.sites = target.second;
    rule.select.operand = target.first;
    rule.select.names = std::move(names);
    rule.is_float = !spec;
    if (spec) rule.override_fields = fields_of(*spec);
    drop_covered(out.rules, rule);
    out.rules.push_back(std::move(rule));
  }
  return out;
}

}  // namespace quanvas
