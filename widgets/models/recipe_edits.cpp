#include "widgets/models/recipe_edits.h"

#include <algorithm>
#include <map>
#include <optional>

#include <QCoreApplication>

namespace quanvas {
namespace {

template <class T>
std::vector<T> moved(std::vector<T> list, int from, int to) {
  const int n = static_cast<int>(list.size());
  if (from < 0 || from >= n || to < 0 || to >= n) return list;
  T item = std::move(list[static_cast<std::size_t>(from)]);
  list.erase(list.begin() + from);
  list.insert(list.begin() + to, std::move(item));
  return list;
}

template <class T>
bool contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// The one name that a pattern matches ('\\' takes the next character as it is); none when it has wildcards.
std::optional<std::string> literal_name(const std::string& pattern) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '*' || pattern[i] == '?') return std::nullopt;
    if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
    out += pattern[i];
  }
  return out;
}

bool names_one_by_one(const Selector& s) {
  return !s.names.empty() &&
         std::all_of(s.names.begin(), s.names.end(), [](const std::string& n) { return literal_name(n).has_value(); });
}

// What is left of a rule once one site kind of one layer is taken out of it: none, one or two rules.
std::vector<Rule> without_site(const Rule& rule, const std::string& name, SiteKind kind) {
  if (!is_own_rule(rule, name, kind)) return {rule};
  std::vector<Rule> out;
  Rule others = rule;
  Rule same = rule;
  same.select.names.clear();
  std::erase_if(others.select.names, [&](const std::string& pattern) {
    if (literal_name(pattern) != name) return false;
    same.select.names = {pattern};
    return true;
  });
  if (!others.select.names.empty()) out.push_back(others);
  if (same.select.sites.empty())
    same.select.sites = {SiteKind::kWeight, SiteKind::kBias, SiteKind::kInput, SiteKind::kOutput, SiteKind::kInternal};
  std::erase(same.select.sites, kind);
  if (!same.select.sites.empty()) out.push_back(same);
  return out;
}

}  // namespace

bool named_after_other_tool(const Preset& preset) { return preset.group == "Brevitas" || preset.group == "GGUF"; }

std::string preset_of(const QuantSpec& spec, SiteKind kind, const PresetLibrary& presets) {
  // The same declaration may have several names; our own tells what it is, those of other tools where it comes from.
  const Preset* found = nullptr;
  for (const auto& p : presets.all()) {
    if (p.spec != spec || !contains(p.sites, kind)) continue;
    const bool own = !named_after_other_tool(p);
    if (!found || own) found = &p;
    if (own) break;
  }
  return found ? found->id : std::string();
}

Rule rule_for(const Selector& select, const std::optional<QuantSpec>& spec, SiteKind kind,
              const PresetLibrary& presets) {
  Rule rule;
  rule.select = select;
  rule.is_float = !spec;
  if (!spec) return rule;
  rule.preset = preset_of(*spec, kind, presets);
  if (!rule.preset.empty()) return rule;
  const json defaults = to_json_value(QuantSpec{});
  const json given = to_json_value(*spec);  // named: items() of a temporary would dangle
  for (const auto& [key, value] : given.items())
    if (!defaults.contains(key) || defaults[key] != value) rule.override_fields[key] = value;
  return rule;
}

Recipe with_assignments(const Recipe& recipe, const Graph& graph, const std::vector<Assignment>& assignments) {
  Recipe out = recipe;
  for (const auto& a : assignments)
    if (!a.sites.empty()) out = with_assignment(out, graph, a.sites, a.spec);
  return out;
}

Recipe with_rule(const Recipe& recipe, const Rule& rule) {
  Recipe out = recipe;
  out.rules.push_back(rule);
  return out;
}

Recipe with_rule_for_all(const Recipe& recipe, const Graph& graph, const Rule& rule) {
  Recipe out = with_rule(recipe, rule);
  const auto before = resolve(graph, recipe, PresetLibrary::builtin());
  const auto after = resolve(graph, out, PresetLibrary::builtin());
  if (!before || !after || rule.is_float) return out;
  std::map<std::string, std::vector<Site>> shared;
  for (std::size_t i = 0; i < after->sites.size(); ++i) {
    const SitePlan& was = before->sites[i];
    if (was.share.empty() || after->sites[i].rule != static_cast<int>(recipe.rules.size())) continue;
    shared[recipe.rules[static_cast<std::size_t>(was.rule)].share].push_back(was.site);
  }
  for (const auto& [name, sites] : shared) out = with_share(out, graph, sites, name);
  return out;
}

std::string fresh_share_name(const Recipe& recipe, const std::vector<Site>& sites) {
  const auto of_first = [&](const Site& s) { return s.node == sites.front().node && s.kind == SiteKind::kInput; };
  if (!sites.empty() && std::all_of(sites.begin(), sites.end(), of_first)) return "node";
  const auto taken = [&](const std::string& name) {
    return std::any_of(recipe.rules.begin(), recipe.rules.end(), [&](const Rule& r) { return r.share == name; });
  };
  for (int i = 1;; ++i)
    if (const std::string name = i == 1 ? "shared" : "shared " + std::to_string(i); !taken(name)) return name;
}

QString sharing_refusal(const Graph& graph, const Plan& plan, const std::vector<Assignment>& assignments) {
  for (const auto& a : assignments)
    for (const Site& site : a.sites) {
      const SitePlan* p = plan.find(site);
      if (!a.spec || !p || p->share.empty()) continue;
      const std::string problem = sharing_problem(*a.spec, site.kind);
      const Node* node = graph.find(site.node);
      if (!problem.empty())
        return QCoreApplication::translate("RecipeEdits", "%1 shares its quantizer with other tensors, and %2. Unshare it in the inspector first.")
            .arg(QString::fromStdString(node ? node->name : std::string()), QString::fromStdString(problem));
    }
  return {};
}

Recipe with_rule_at(const Recipe& recipe, int index, const Rule& rule) {
  Recipe out = recipe;
  if (index >= 0 && index < static_cast<int>(out.rules.size())) out.rules[static_cast<std::size_t>(index)] = rule;
  return out;
}

Recipe without_rule(const Recipe& recipe, int index) {
  Recipe out = recipe;
  if (index >= 0 && index < static_cast<int>(out.rules.size())) out.rules.erase(out.rules.begin() + index);
  return out;
}

Recipe with_rule_moved(const Recipe& recipe, int from, int to) {
  Recipe out = recipe;
  out.rules = moved(out.rules, from, to);
  return out;
}

Recipe with_pass_moved(const Recipe& recipe, int from, int to) {
  Recipe out = recipe;
  out.passes = moved(out.passes, from, to);
  return out;
}

bool is_own_rule(const Rule& rule, const std::string& node_name, SiteKind kind) {
  if (!names_one_by_one(rule.select)) return false;
  if (!rule.select.sites.empty() && !contains(rule.select.sites, kind)) return false;
  return std::any_of(rule.select.names.begin(), rule.select.names.end(),
                     [&](const std::string& pattern) { return literal_name(pattern) == node_name; });
}

Recipe without_own_rules(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites) {
  Recipe out = recipe;
  for (const auto& site : sites) {
    const Node* node = graph.find(site.node);
    if (!node) continue;
    std::vector<Rule> rules;
    for (const auto& rule : out.rules)
      for (auto& left : without_site(rule, node->name, site.kind)) rules.push_back(std::move(left));
    out.rules = std::move(rules);
  }
  return out;
}

int count_matches(const Graph& graph, const Selector& select) {
  Recipe recipe;
  recipe.rules.push_back({select, {}, json::object(), true, {}});
  const auto plan = resolve(graph, recipe, PresetLibrary());
  if (!plan) return 0;
  return static_cast<int>(
      std::count_if(plan->sites.begin(), plan->sites.end(), [](const SitePlan& s) { return s.rule == 0; }));
}

std::pair<json, std::vector<std::string>> common_fields(const std::vector<QuantSpec>& specs) {
  json first = to_json_value(specs.empty() ? QuantSpec{} : specs.front());
  std::vector<std::string> mixed;
  const auto compare_with = [&](const json& a, const json& b) {
    for (const auto& [key, value] : a.items())
      if ((!b.contains(key) || b.at(key) != value) && !contains(mixed, key)) mixed.push_back(key);
  };
  for (const auto& spec : specs) {
    const json other = to_json_value(spec);
    compare_with(first, other);
    compare_with(other, first);
  }
  return {std::move(first), std::move(mixed)};
}

}  // namespace quanvas
