// Quanvas - Recipe: what the user edits, undoes and saves. Rules choose a QuantSpec per site, passes change
// weights or graph, calibration says what to look at. resolve() turns it into a Plan for one graph.
//
// Rules are read top to bottom and the last one that matches a site wins, as in .gitignore or CSS.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/recipe/quant_spec.h"

namespace quanvas {

// All given conditions must hold. Empty lists and texts match everything.
struct Selector {
  std::vector<SiteKind> sites;         // weight, bias, input, output, internal
  std::vector<std::string> ops;        // "Conv", "Gemm" ...
  std::vector<LayerKind> kinds;        // "compute" ...
  std::vector<std::string> names;      // node names; '*' and '?' are wildcards, '\' quotes the next
  std::string scope;                   // prefix of the scope path
  // "first": compute layers that read a graph input or have no other compute layer before them; "last":
  // those from which no other compute layer is reachable; "not-first", "not-last", "inner" (neither).
  // Among compute layers only.
  std::string position;
  bool depthwise_only = false;         // Conv with group == input channels > 1
  int operand = -1;                    // of layers with several sites of a kind (see Site); -1: each of them
  bool operator==(const Selector&) const = default;
};
template <class V>
void visit_fields(V& v, Selector& s) {
  v("sites", s.sites);
  v("ops", s.ops);
  v("kinds", s.kinds);
  v("names", s.names);
  v("scope", s.scope);
  v("position", s.position);
  v("depthwise_only", s.depthwise_only);
  v("operand", s.operand);
}

struct Rule {
  Selector select;
  std::string preset;  // id of a preset; empty: defaults of QuantSpec, or float when is_float
  json override_fields = json::object();  // QuantSpec fields that replace the preset's
  bool is_float = false;                  // the site stays float
  // Sites with the same name here have one scale and zero point, found on all of them together; empty: each its own.
  // "node": the inputs of each layer share, so that an integer addition needs no rescaling.
  std::string share;
  std::string note;
  bool operator==(const Rule&) const = default;
};
template <class V>
void visit_fields(V& v, Rule& r) {
  v("select", r.select);
  v("preset", r.preset);
  v("set", r.override_fields);
  v("float", r.is_float);
  v("share", r.share);
  v("note", r.note);
}

struct PassEntry {
  std::string id;  // of a pass plug-in
  bool enabled = true;
  json options = json::object();  // completed by the pass's schema
  Selector select = {};           // the layers that it may change; sites and operand are not asked. Not for graph passes
  bool operator==(const PassEntry&) const = default;
};
template <class V>
void visit_fields(V& v, PassEntry& p) {
  v("id", p.id);
  v("enabled", p.enabled);
  v("options", p.options);
  v("select", p.select);
}

struct CalibrationSettings {
  int samples = 512;      // from the calibration split, chosen by `seed`; 0 = all
  std::int64_t seed = 0;
  bool operator==(const CalibrationSettings&) const = default;
};
template <class V>
void visit_fields(V& v, CalibrationSettings& c) {
  v("samples", c.samples);
  v("seed", c.seed);
}

struct Recipe {
  std::string name = "untitled";
  std::vector<Rule> rules;
  std::vector<PassEntry> passes;
  CalibrationSettings calibration;
  bool operator==(const Recipe&) const = default;
};
template <class V>
void visit_fields(V& v, Recipe& r) {
  v("name", r.name);
  v("rules", r.rules);
  v("passes", r.passes);
  v("calibration", r.calibration);
}

// Presets: named QuantSpecs, one JSON file each in resources/presets/; ids are file names without ".json".
struct Preset {
  std::string id, title, doc, group;  // group: heading in menus ("Weights", "Activations", "Bias")
  std::vector<SiteKind> sites;        // where it makes sense
  QuantSpec spec;
  // Files only: the preset that 'spec' changes; its spec and, unless given, its sites and group are taken over.
  std::string base;
};
template <class V>
void visit_fields(V& v, Preset& p) {
  v("id", p.id);
  v("title", p.title);
  v("doc", p.doc);
  v("group", p.group);
  v("sites", p.sites);
  v("spec", p.spec);
}

// Whether the preset makes sense on sites of this kind: what lies inside an operator takes what outputs take.
bool fits(const Preset& preset, SiteKind kind);

class PresetLibrary {
 public:
  // All files of resources/presets; a broken file is an error that names it.
  static Result<PresetLibrary> load(const std::string& directory);
  static const PresetLibrary& builtin();  // resource_dir()/presets, loaded once; empty when unreadable
  const Preset* find(const std::string& id) const;
  const std::vector<Preset>& all() const { return presets_; }

 private:
  std::vector<Preset> presets_;
};

// The spec that a rule gives: preset, then override_fields. Errors name the preset or the field.
Result<QuantSpec> rule_spec(const Rule& rule, const PresetLibrary& presets);

// True for "" and the position words above.
bool is_position(const std::string& text);
// A name as a pattern that only matches itself, and whether a pattern matches a name.
std::string quote_pattern(const std::string& name);
bool matches_pattern(std::string_view pattern, std::string_view name);

// YAML or JSON text of a recipe file. Errors name line and key: "recipe.yaml:7: 'rules[1].set.bits' ...".
Result<Recipe> parse_recipe(const std::string& text, const std::string& file_name);
std::string recipe_to_yaml(const Recipe& recipe);

// The uniform recipe "W<w>A<a>": weights signed narrow per channel, activations unsigned or signed chosen
// at calibration (format int, asymmetric = integer zero point), the graph's input at no fewer than 8 bits,
// int32 bias, outputs of the network float, BN folded. For compute layers. 0 or 32 bits: these stay float.
Recipe uniform_recipe(int weight_bits, int activation_bits);
// Built-in recipe files in resources/recipes (id = file name).
std::vector<std::string> builtin_recipe_ids();
Result<Recipe> builtin_recipe(const std::string& id);

// The same recipe with one rule per spec at its end for exactly these sites of these nodes ('' spec = float).
// Trailing rules for named nodes lose the nodes that the new rule covers, so repeated clicks do not pile up.
// Sites keep the name under which they share a quantizer, and those that share it with them get the spec, too:
// else the formats would differ and none could keep it. A site that becomes float leaves the others alone.
Recipe with_assignment(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites,
                       const std::optional<QuantSpec>& spec);
// The same with these sites sharing one quantizer under the name, each with the format that its rule gives it; empty:
// each gets one of its own. Sites without a format are left out.
Recipe with_share(const Recipe& recipe, const Graph& graph, const std::vector<Site>& sites, const std::string& share);

}  // namespace quanvas
