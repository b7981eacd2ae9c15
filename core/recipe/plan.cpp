#include "core/recipe/plan.h"
#include "core/recipe/plan_settle.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

namespace quanvas {
namespace {

// What selectors ask about a layer, computed once per graph.
struct LayerView {
  const Layer* layer = nullptr;
  const Node* node = nullptr;
  bool first = false, last = false, depthwise = false;
};

bool is_compute(const Layer* layer) { return layer && layer->kind == LayerKind::kCompute; }

bool reads_graph_input(const Graph& graph, const Layer& layer) {
  return std::any_of(layer.inputs.begin(), layer.inputs.end(), [&](TensorId t) {
    return t != kNoTensor && std::find(graph.inputs().begin(), graph.inputs().end(), t) != graph.inputs().end();
  });
}

bool is_depthwise(const Graph& graph, const Layer& layer, const Node& node) {
  if (layer.group <= 1 || layer.weight == kNoTensor || node.op.rfind("Conv", 0) != 0) return false;
  const auto& shape = graph.tensor(layer.weight).shape;
  if (!shape || shape->size() < 2) return false;
  // Conv's weight has input channels / group on its reduction axis; ConvTranspose's has all of them there.
  const std::int64_t inputs = (*shape)[static_cast<std::size_t>(layer.reduction_axis)];
  return node.op == "ConvTranspose" ? inputs == layer.group : inputs == 1;
}

class GraphView {
 public:
  explicit GraphView(const Graph& graph) : graph_(graph), layers_(find_layers(graph)) {
    views_.reserve(layers_.size());
    for (const Layer& layer : layers_) {
      LayerView v;
      v.layer = &layer;
      v.node = graph.find(layer.node);
      v.depthwise = v.node && is_depthwise(graph, layer, *v.node);
      by_node_[layer.node] = views_.size();
      if (v.node) by_name_[v.node->name] = views_.size();
      views_.push_back(v);
    }
    mark_ends();
  }

  const std::vector<LayerView>& all() const { return views_; }
  const LayerView* by_name(const std::string& name) const { return find(by_name_, name); }
  const LayerView* by_node(NodeId id) const { return find(by_node_, id); }

 private:
  template <class Map, class Key>
  const LayerView* find(const Map& map, const Key& key) const {
    const auto it = map.find(key);
    return it == map.end() ? nullptr : &views_[it->second];
  }

  void mark_ends() {
    const auto& nodes = graph_.nodes();
    // Per node: is there a compute layer strictly before (after) it?
    std::vector<char> before(nodes.size(), 0), after(nodes.size(), 0);
    std::vector<char> compute(nodes.size(), 0);
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (const auto* v = by_node(nodes[i].id)) compute[i] = is_compute(v->layer);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      for (const TensorId t : nodes[i].inputs) {
        const NodeId producer = t == kNoTensor ? kNoNode : graph_.tensor(t).producer;
        if (producer == kNoNode) continue;
        const std::size_t p = graph_.position(producer);
        before[i] |= before[p] | compute[p];
      }
    }
    for (std::size_t i = nodes.size(); i-- > 0;) {
      for (const TensorId t : nodes[i].inputs) {
        const NodeId producer = t == kNoTensor ? kNoNode : graph_.tensor(t).producer;
        if (producer != kNoNode) after[graph_.position(producer)] |= after[i] | compute[i];
      }
    }
    for (LayerView& v : views_) {
      const std::size_t i = graph_.position(v.layer->node);
      if (!is_compute(v.layer) || i >= nodes.size()) continue;
      v.first = !before[i] || reads_graph_input(graph_, *v.layer);
      v.last = !after[i];
    }
  }

  const Graph& graph_;
  std::vector<Layer> layers_;
  std::vector<LayerView> views_;
  std::unordered_map<NodeId, std::size_t> by_node_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

bool is_literal(const std::string& pattern) { return pattern.find_first_of("*?\\") == std::string::npos; }

bool in_scope(const std::string& scope, const std::string& prefix) {
  if (prefix.empty()) return true;
  if (scope.compare(0, prefix.size(), prefix) != 0) return false;
  const auto separates = [](char c) { return c == '.' || c == '/'; };
  return scope.size() == prefix.size() || separates(prefix.back()) || separates(scope[prefix.size()]);
}

bool position_holds(const LayerView& v, const std::string& position) {
  if (position.empty()) return true;
  if (!is_compute(v.layer)) return false;
  if (position == "first") return v.first;
  if (position == "last") return v.last;
  if (position == "not-first") return !v.first;
  if (position == "not-last") return !v.last;
  return !v.first && !v.last;
}

template <class T>
bool listed(const std::vector<T>& list, const T& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

// All conditions but those on the name and on the site.
bool layer_matches(const Selector& s, const LayerView& v) {
  return v.node && listed(s.ops, v.node->op) && listed(s.kinds, v.layer->kind) && in_scope(v.node->scope, s.scope) &&
         position_holds(v, s.position) && (!s.depthwise_only || v.depthwise);
}

bool name_matches(const Selector& s, const std::string& name) {
  return s.names.empty() || std::any_of(s.names.begin(), s.names.end(),
                                        [&](const std::string& p) { return matches_pattern(p, name); });
}

bool site_matches(const Selector& s, const Site& site) {
  if (!listed(s.sites, site.kind)) return false;
  if (s.operand < 0) return true;
  // Weights are counted in recurrent layers only: a rule must say that it means them.
  const bool counted = site.kind == SiteKind::kInput || site.kind == SiteKind::kInternal ||
                       (site.kind == SiteKind::kWeight && !s.sites.empty());
  return counted && site.operand == s.operand;
}

// Layers that a rule matches. Names without wildcards are looked up, so that ten thousand rules for one layer
// each do not cost ten thousand walks.
std::vector<const LayerView*> matching_layers(const GraphView& view, const Selector& s) {
  std::vector<const LayerView*> out;
  if (!s.names.empty() && std::all_of(s.names.begin(), s.names.end(), is_literal)) {
    for (const auto& name : s.names)
      if (const LayerView* v = view.by_name(name); v && layer_matches(s, *v)) out.push_back(v);
    return out;
  }
  for (const LayerView& v : view.all())
    if (layer_matches(s, v) && name_matches(s, v.node->name)) out.push_back(&v);
  return out;
}

std::string rule_name(std::size_t index, const Rule& rule) {
  return "rule " + std::to_string(index + 1) + ": " + describe(rule.select);
}

// The parts with `between` between them.
std::string join(const std::vector<std::string>& items, const std::string& between) {
  std::string out;
  for (const auto& item : items) out += (out.empty() ? "" : between) + item;
  return out;
}

// One rule after the other writes the sites that it matches; the last one stays.
class Resolver {
 public:
  Resolver(const Graph& graph, const Recipe& recipe, const PresetLibrary& presets)
      : graph_(graph), view_(graph), recipe_(recipe), presets_(presets) {
    for (const LayerView& v : view_.all()) {
      first_site_[v.layer] = plan_.sites.size();
      for (const Site& site : v.layer->sites()) plan_.sites.push_back({site, {}, -1, {}, {}});
    }
  }

  Result<Plan> run() {
    for (std::size_t i = 0; i < recipe_.rules.size(); ++i) QUANVAS_CHECK(apply(i));
    for (SitePlan& s : plan_.sites) finish(s);
    settle(graph_, recipe_, plan_);
    plan_.by_site.resize(plan_.sites.size());
    std::iota(plan_.by_site.begin(), plan_.by_site.end(), 0u);
    std::sort(plan_.by_site.begin(), plan_.by_site.end(),
              [&](std::uint32_t a, std::uint32_t b) { return plan_.sites[a].site < plan_.sites[b].site; });
    return std::move(plan_);
  }

 private:
  Status apply(std::size_t index) {
    const Rule& rule = recipe_.rules[index];
    const std::string number = "Rule " + std::to_string(index + 1);
    if (!is_position(rule.select.position))
      return fail(ErrorCode::kInvalidArgument, number + ": position is '" + rule.select.position + "'.",
                  "Use one of: first, last, not-first, not-last, inner.");
    specs_.emplace_back();
    if (!rule.is_float) {
      auto spec = spec_of(rule);
      if (!spec) return fail(spec.error().code, number + ": " + spec.error().message, spec.error().hint);
      specs_.back() = std::move(*spec);
    }
    bool any = false;
    for (const LayerView* v : matching_layers(view_, rule.select)) any |= write(index, *v);
    // A name may be that of a layer which a pass makes.
    const bool has_passes = std::any_of(recipe_.passes.begin(), recipe_.passes.end(), [](const PassEntry& p) { return p.enabled; });
    const char* where = has_passes && !rule.select.names.empty() ? "in this network as it is before the passes." : "in this network.";
    if (!any) plan_.warnings.push_back(number + " (" + describe(rule.select) + ") matches nothing " + where);
    return {};
  }

  // Assignments by click make many rules with few different formats.
  Result<QuantSpec> spec_of(const Rule& rule) {
    const std::pair<std::string, std::string> key(rule.preset, to_json_text(rule.override_fields));
    if (const auto it = known_specs_.find(key); it != known_specs_.end()) return it->second;
    QUANVAS_TRY(QuantSpec spec, rule_spec(rule, presets_));
    known_specs_[key] = spec;
    return spec;
  }

  bool write(std::size_t index, const LayerView& v) {
    bool any = false;
    for (std::size_t i = first_site_.at(v.layer);
         i < plan_.sites.size() && plan_.sites[i].site.node == v.layer->node; ++i) {
      if (!site_matches(recipe_.rules[index].select, plan_.sites[i].site)) continue;
      plan_.sites[i].rule = static_cast<int>(index);
      any = true;
    }
    return any;
  }

  void finish(SitePlan& s) {
    if (s.rule < 0) {
      s.why = "float: no rule matches";
      return;
    }
    const auto index = static_cast<std::size_t>(s.rule);
    const Rule& rule = recipe_.rules[index];
    auto [name, fresh] = names_.try_emplace(index);
    if (fresh) name->second = rule_name(index, rule);
    s.why = name->second;
    if (rule.is_float) {
      s.why += " (float)";
      return;
    }
    const std::string& problem = problem_of(index, s.site.kind);
    if (problem.empty())
      s.spec = specs_[index];
    else
      s.why += "; float, because the format is not legal here: " + problem;
  }

  const std::string& problem_of(std::size_t index, SiteKind kind) {
    auto [it, fresh] = problems_.try_emplace({index, kind});
    if (fresh) {
      it->second = check(*specs_[index], kind);
      if (!it->second.empty())
        plan_.warnings.push_back("Rule " + std::to_string(index + 1) + " gives a site of kind " + enum_text(kind) +
                                 " an illegal format, so it stays float: " + it->second);
    }
    return it->second;
  }

  const Graph& graph_;
  GraphView view_;
  const Recipe& recipe_;
  const PresetLibrary& presets_;
  Plan plan_;
  std::unordered_map<const Layer*, std::size_t> first_site_;
  std::vector<std::optional<QuantSpec>> specs_;
  std::map<std::pair<std::string, std::string>, QuantSpec> known_specs_;
  std::map<std::size_t, std::string> names_;
  std::map<std::pair<std::size_t, SiteKind>, std::string> problems_;
};

}  // namespace

const SitePlan* Plan::find(const Site& site) const {
  // Ids mostly rise with the topological order; passes that insert nodes break that, hence the second try.
  if (by_site.size() == sites.size()) {
    const auto at = std::lower_bound(by_site.begin(), by_site.end(), site,
                                     [&](std::uint32_t i, const Site& wanted) { return sites[i].site < wanted; });
    if (at != by_site.end() && sites[*at].site == site) return &sites[*at];
  }
  const auto guess = std::lower_bound(sites.begin(), sites.end(), site,
                                      [](const SitePlan& a, const Site& b) { return a.site < b; });
  if (guess != sites.end() && guess->site == site) return &*guess;
  const auto any = std::find_if(sites.begin(), sites.end(), [&](const SitePlan& s) { return s.site == site; });
  return any == sites.end() ? nullptr : &*any;
}

Result<Plan> resolve(const Graph& graph, const Recipe& recipe, const PresetLibrary& presets) {
  return Resolver(graph, recipe, presets).run();
}

std::vector<NodeId> selected_layers(const Graph& graph, const Selector& selector) {
  const GraphView view(graph);
  std::vector<NodeId> out;
  for (const LayerView* v : matching_layers(view, selector)) out.push_back(v->layer->node);
  return out;
}

std::string describe(const Selector& s) {
  std::vector<std::string> conditions;
  const auto negated = [](const std::string& p) { return p.rfind("not-", 0) == 0 ? "not " + p.substr(4) : p; };
  if (!s.ops.empty()) conditions.push_back("type is " + join(s.ops, " or "));
  if (!s.kinds.empty()) {
    std::vector<std::string> kinds;
    for (const LayerKind k : s.kinds) kinds.push_back(enum_text(k));
    conditions.push_back(join(kinds, " or ") + " layers");
  }
  if (!s.names.empty()) {
    const std::size_t shown = std::min<std::size_t>(s.names.size(), 3);
    std::string names = join({s.names.begin(), s.names.begin() + static_cast<std::ptrdiff_t>(shown)}, " or ");
    if (s.names.size() > shown) names += " or " + std::to_string(s.names.size() - shown) + " more";
    conditions.push_back("name is " + names);
  }
  if (!s.scope.empty()) conditions.push_back("inside " + s.scope);
  if (s.position == "inner")
    conditions.push_back("neither first nor last");
  else if (!s.position.empty())
    conditions.push_back(negated(s.position));
  if (s.depthwise_only) conditions.push_back("depthwise");
  std::string out = conditions.empty() ? "every layer" : join(conditions, " and ");
  std::vector<std::string> sites;
  for (const SiteKind k : s.sites) sites.push_back(enum_text(k));
  if (!sites.empty()) out += ", " + join(sites, " and ");
  if (s.operand >= 0) out += " of operand " + std::to_string(s.operand + 1);
  return out;
}

std::vector<int> matching_rules(const Graph& graph, const Recipe& recipe, const Site& site) {
  const GraphView view(graph);
  std::vector<int> out;
  const LayerView* v = view.by_node(site.node);
  if (!v || site_tensor(*v->layer, site) == kNoTensor) return out;
  for (std::size_t i = 0; i < recipe.rules.size(); ++i) {
    const Selector& s = recipe.rules[i].select;
    if (layer_matches(s, *v) && name_matches(s, v->node->name) && site_matches(s, site)) out.push_back(static_cast<int>(i));
  }
  return out;
}

}  // namespace quanvas
