// Assignments by click: rules for nodes by name, and the quantizers that sites share.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/recipe/plan_settle.h"

namespace quanvas {
namespace {

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

// Rules at the end of `out` for these sites, one for each target.
void append_rules(Recipe& out, const Graph& graph, const std::vector<Site>& sites,
                  const std::optional<QuantSpec>& spec, const std::string& share) {
  std::vector<NodeId> order;
  std::map<NodeId, std::vector<Site>> by_node;
  for (const Site& site : sites) {
    if (!graph.find(site.node)) continue;
    auto& of_node = by_node[site.node];
    if (of_node.empty()) order.push_back(site.node);
    of_node.push_back(site);
  }
  const std::vector<Layer> layers = find_layers(graph);
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
    rule.share = share;
    drop_covered(out.rules, rule);
    out.rules.push_back(std::move(rule));
  }
}

using Shared = std::pair<std::string, std::vector<Site>>;  // under this name; empty: each its own

// The sites by the names that they share under, in the order given, each followed by those that share with it.
std::vector<Shared> by_share(const Recipe& recipe, const Plan& plan, const std::vector<Site>& sites) {
  std::map<std::string, std::vector<Site>> mates;
  for (const SitePlan& s : plan.sites)
    if (const std::string key = share_key(recipe, s); !key.empty()) mates[key].push_back(s.site);
  std::vector<Shared> out;
  std::set<Site> taken;
  const auto add = [&](const std::string& name, const Site& site) {
    if (!taken.insert(site).second) return;
    auto group = std::find_if(out.begin(), out.end(), [&](const Shared& g) { return g.first == name; });
    if (group == out.end()) group = out.insert(out.end(), {name, {}});
    group->second.push_back(site);
  };
  for (const Site& site : sites) {
    const SitePlan* own = plan.find(site);
    const std::string key = own ? share_key(recipe, *own) : std::string();
    const std::string name = key.empty() ? key : recipe.rules[static_cast<std::size_t>(own->rule)].share;
    add(name, site);
    // Once for each name: what was added is not asked for again.
    for (const Site& mate : std::exchange(mates[key], {}))
      if (is_activation(mate.kind) == is_activation(site.kind)) add(name, mate);
  }
  return out;
}

bool shares(const Recipe& recipe) {
  return std::any_of(recipe.rules.begin(), recipe.rules.end(), [](const Rule& r) { return !r.share.empty(); });
}

}  // namespace

Recipe with_assignment(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites,
                       const std::optional<QuantSpec>& spec) {
  Recipe out = recipe;
  const auto plan =
      spec && shares(recipe) ? resolve(graph, recipe, PresetLibrary::builtin()) : Result<Plan>(Plan());
  if (!plan || plan->sites.empty()) {
    append_rules(out, graph, sites, spec, {});
    return out;
  }
  for (const auto& [name, group] : by_share(recipe, *plan, sites)) append_rules(out, graph, group, spec, name);
  return out;
}

Recipe with_share(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites,
                  const std::string& share) {
  Recipe out = recipe;
  const auto plan = resolve(graph, recipe, PresetLibrary::builtin());
  if (!plan) return out;
  std::vector<std::pair<QuantSpec, std::vector<Site>>> formats;
  for (const Site& site : sites) {
    const SitePlan* own = plan->find(site);
    if (!own || own->rule < 0 || recipe.rules[static_cast<std::size_t>(own->rule)].is_float) continue;
    const auto spec = rule_spec(recipe.rules[static_cast<std::size_t>(own->rule)], PresetLibrary::builtin());
    if (!spec) continue;
    auto group = std::find_if(formats.begin(), formats.end(), [&](const auto& f) { return f.first == *spec; });
    if (group == formats.end()) group = formats.insert(formats.end(), {*spec, {}});
    group->second.push_back(site);
  }
  for (const auto& [spec, group] : formats) append_rules(out, graph, group, spec, share);
  return out;
}

}  // namespace quanvas
