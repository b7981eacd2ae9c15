// Quanvas - edits of a Recipe as pure functions of values: what the panels' buttons mean.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <QString>

#include "core/graph/layers.h"
#include "core/recipe/plan.h"

namespace quanvas {

// Sites and the quantizer they get; no spec: float.
struct Assignment {
  std::vector<Site> sites;
  std::optional<QuantSpec> spec;
};

// A rule that says `spec`: by the preset it equals, else by the fields that differ from QuantSpec's defaults.
Rule rule_for(const Selector& select, const std::optional<QuantSpec>& spec, SiteKind kind,
              const PresetLibrary& presets);
// Presets under the names that other tools have for them.
bool named_after_other_tool(const Preset& preset);
// Id of the preset for this kind of site that equals the spec, our own first; empty when none does.
std::string preset_of(const QuantSpec& spec, SiteKind kind, const PresetLibrary& presets);

Recipe with_assignments(const Recipe& recipe, const Graph& graph, const std::vector<Assignment>& assignments);
Recipe with_rule(const Recipe& recipe, const Rule& rule);                        // at the end: it wins
// The same for a rule that is to reach what it matches by a click: sites that share a quantizer go on sharing it.
Recipe with_rule_for_all(const Recipe& recipe, const Graph& graph, const Rule& rule);
Recipe with_rule_at(const Recipe& recipe, int index, const Rule& rule);          // replaces
Recipe without_rule(const Recipe& recipe, int index);
Recipe with_rule_moved(const Recipe& recipe, int from, int to);
Recipe with_pass_moved(const Recipe& recipe, int from, int to);

// A name under which these sites can share a quantizer that no rule has yet; "node" where they are inputs of one layer.
std::string fresh_share_name(const Recipe& recipe, const std::vector<Site>& sites);
// Why these assignments would break up a quantizer that is shared, a sentence; empty: they do not.
QString sharing_refusal(const Graph& graph, const Plan& plan, const std::vector<Assignment>& assignments);

// Whether the rule names layers one by one, this one among them ("own rule").
bool is_own_rule(const Rule& rule, const std::string& node_name, SiteKind kind);
// Takes these sites out of rules that name their layers one by one; rules that become empty go.
Recipe without_own_rules(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites);

// Number of sites that the selector matches.
int count_matches(const Graph& graph, const Selector& select);

// The specs' fields as JSON (of the first) and the keys on which they differ. No specs: defaults.
std::pair<json, std::vector<std::string>> common_fields(const std::vector<QuantSpec>& specs);

}  // namespace quanvas
