// Quanvas - Plan: a Recipe resolved against a Graph. For each site the QuantSpec it gets, the rule that won,
// or the reason why it has none. Pure function, cheap enough for every edit (10,000 layers under 16 ms).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/recipe/recipe.h"

namespace quanvas {

struct SitePlan {
  Site site;
  std::optional<QuantSpec> spec;  // none: float
  int rule = -1;                  // index into Recipe::rules; -1: no rule matched
  std::string why;                // "rule 3: compute layers, weight" or the reason for float
  std::string share = {};         // sites with the same text have one scale; empty: its own. "#7" is the node 7's own
};
template <class V>
void visit_fields(V& v, SitePlan& s) {
  v("site", s.site);
  v("spec", s.spec);
  v("rule", s.rule);
  v("why", s.why);
  v("share", s.share);
}

struct Plan {
  std::vector<SitePlan> sites;  // every site of every layer, in graph order
  std::vector<std::string> warnings;  // rules that match nothing, specs that are illegal on a site
  std::vector<std::uint32_t> by_site = {};  // indexes into sites, ascending by site, as resolve() leaves them
  // Null: no such site. Quick as long as no site has been added or removed since resolve().
  const SitePlan* find(const Site& site) const;
};
template <class V>
void visit_fields(V& v, Plan& p) {
  v("sites", p.sites);
  v("warnings", p.warnings);
}

Result<Plan> resolve(const Graph& graph, const Recipe& recipe, const PresetLibrary& presets);
// The sites that are to have one quantizer with this one by the names in their rules, itself among them, in graph
// order; also when their formats forbid it and they stay float. Empty: its rule has no name.
std::vector<Site> sharing_sites(const Recipe& recipe, const Plan& plan, const Site& site);
// Why sites of this kind cannot have one such quantizer together, as a clause; empty: they can.
std::string sharing_problem(const QuantSpec& spec, SiteKind kind);
// "type is Conv and not first": a selector in words.
std::string describe(const Selector& selector);
// The layers for which the conditions hold, sites and operand left aside, in graph order.
std::vector<NodeId> selected_layers(const Graph& graph, const Selector& selector);
// Index of the rules that match a site, in order; the last wins.
std::vector<int> matching_rules(const Graph& graph, const Recipe& recipe, const Site& site);

}  // namespace quanvas
