#include "widgets/panels/inspector_state.h"

#include <algorithm>
#include <set>

#include <QCoreApplication>

#include "widgets/common/node_names.h"
#include "widgets/models/recipe_edits.h"
#include "widgets/models/shown_spec.h"
#include "widgets/models/counted.h"

namespace quanvas {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("Inspector", text); }
QString qs(const std::string& s) { return QString::fromStdString(s); }

QString tensor_text(const Graph& graph, TensorId id) {
  if (id == kNoTensor) return {};
  const auto& t = graph.tensor(id);
  const QString shape = t.shape ? shown_shape(*t.shape) : tr("shape unknown");
  return t.type == DataType::kUndefined ? shape : shape + QStringLiteral(", ") + qs(type_name(t.type));
}

const SiteFacts* find_facts(const LayerFacts& facts, const Site& site) {
  for (const auto& f : facts.sites)
    if (f.site == site) return &f;
  return nullptr;
}

int layers_of_rule(const Plan& plan, int rule, SiteKind kind) {
  std::set<NodeId> nodes;
  for (const auto& s : plan.sites)
    if (s.rule == rule && s.site.kind == kind) nodes.insert(s.site.node);
  return static_cast<int>(nodes.size());
}

void add_site(InspectorTab& tab, const Graph& graph, const Layer& layer, const Plan& plan, const Site& site) {
  const SitePlan* p = plan.find(site);
  tab.sites.push_back(site);
  tab.specs.push_back(p ? p->spec : std::nullopt);
  const TensorId tensor = site_tensor(layer, site);
  tab.tensor_texts.push_back(tensor_text(graph, tensor));
  tab.shapes.push_back(tensor == kNoTensor ? std::nullopt : graph.tensor(tensor).shape);
  const int rule = p ? p->rule : -1;
  if (tab.sites.size() == 1) {
    tab.group = p && p->spec ? shorter_group(graph, layer, site, *p->spec) : 0;
    tab.rule = rule;
    tab.why = p ? qs(p->why) : QString();
  } else if (rule != tab.rule) {
    tab.same_rule = false;
  }
}

QString site_name(const Graph& graph, const Site& site) {
  const Node* node = graph.find(site.node);
  const QString name = node ? qs(node->name) : QString::number(site.node);
  return site.operand > 0 ? QStringLiteral("%1 %2 %3").arg(name, site_word(site.kind)).arg(site.operand + 1)
                          : QStringLiteral("%1 %2").arg(name, site_word(site.kind));
}

QString list_text(const QStringList& names) {
  constexpr qsizetype kShown = 4;
  if (names.size() <= kShown) return names.join(QStringLiteral(", "));
  return tr("%1 and %2 more").arg(names.first(kShown - 1).join(QStringLiteral(", "))).arg(names.size() - kShown + 1);
}

void set_share(InspectorTab& tab, const Graph& graph, const Recipe& recipe, const Plan& plan) {
  constexpr std::size_t kMostSites = 32;  // each is looked up among all sites of the network
  std::set<std::string> names;
  std::set<Site> members;
  for (const Site& site : tab.sites) {
    const SitePlan* p = plan.find(site);
    if (!p || p->rule < 0 || p->rule >= static_cast<int>(recipe.rules.size())) continue;
    const Rule& rule = recipe.rules[static_cast<std::size_t>(p->rule)];
    if (rule.share.empty() || rule.is_float) continue;
    tab.shared = tab.shared || !p->share.empty();
    names.insert(rule.share == "node" ? "#" + std::to_string(site.node) : rule.share);
    if (tab.sites.size() > kMostSites || members.count(site)) continue;
    const auto sharing = sharing_sites(recipe, plan, site);
    members.insert(sharing.begin(), sharing.end());
  }
  // Without a partner a layer's input that is to share with its other inputs is like any other.
  std::erase_if(names, [&](const std::string& n) { return n.starts_with("#") && members.size() == 1; });
  tab.named = !names.empty();
  if (names.size() != 1 || members.empty()) return;
  tab.share_name = names.begin()->starts_with("#") ? QStringLiteral("node") : qs(*names.begin());
  tab.sharers = static_cast<int>(members.size());
  tab.shared = tab.shared || members.size() > 1;
  QStringList others;
  for (const Site& site : members)
    if (std::find(tab.sites.begin(), tab.sites.end(), site) == tab.sites.end()) others << site_name(graph, site);
  tab.share_mates = list_text(others);
}

void finish(InspectorTab& tab, const Graph& graph, const Recipe& recipe, const Plan& plan) {
  for (const auto& spec : tab.specs)
    if (spec && tab.problem.isEmpty()) tab.problem = qs(check(*spec, tab.kind));
  set_share(tab, graph, recipe, plan);
  if (tab.rule < 0 || tab.rule >= static_cast<int>(recipe.rules.size())) return;
  const Rule& rule = recipe.rules[static_cast<std::size_t>(tab.rule)];
  tab.rule_words = qs(describe(rule.select));
  tab.rule_layers = layers_of_rule(plan, tab.rule, tab.kind);
  const Node* node = graph.find(tab.sites.front().node);
  tab.own_rule = node && is_own_rule(rule, node->name, tab.kind);
}

void set_header(InspectorState& state, const Graph& graph) {
  if (state.layers.size() == 1) {
    const Node* node = graph.find(state.layers.front());
    if (!node) return;
    state.title = qs(node->name);
    state.description = qs(describe(graph, *node));
    state.op = qs(node->op);
    return;
  }
  QStringList ops;
  for (const NodeId id : state.layers)
    if (const Node* node = graph.find(id); node && !ops.contains(qs(node->op))) ops << qs(node->op);
  state.title = counted(static_cast<double>(state.layers.size()), tr("1 layer"), tr("%1 layers"));
  state.description = ops.join(QStringLiteral(", "));
  state.op = ops.size() == 1 ? ops.first() : QString();
}

}  // namespace

InspectorState inspector_state(const Graph& graph, const std::vector<Layer>& layers, const Recipe& recipe,
                               const Plan& plan, const std::map<NodeId, LayerFacts>& facts,
                               const std::vector<NodeId>& selected) {
  InspectorState state;
  state.layer_count = static_cast<int>(layers.size());
  std::map<SiteKind, InspectorTab> tabs;
  for (const NodeId id : selected) {
    const Layer* layer = find_layer(layers, id);
    if (!layer) continue;
    state.layers.push_back(id);
    for (const auto& site : layer->sites()) {
      auto& tab = tabs[site.kind];
      tab.kind = site.kind;
      add_site(tab, graph, *layer, plan, site);
    }
  }
  if (state.layers.size() == 1) {
    const Layer& layer = *find_layer(layers, state.layers.front());
    for (auto& [kind, tab] : tabs)
      for (std::size_t i = 0; tab.sites.size() > 1 && i < tab.sites.size(); ++i) {
        InspectorTab one;
        one.kind = kind;
        one.name = qs(site_name(layer, tab.sites[i]));
        one.name[0] = one.name[0].toUpper();
        add_site(one, graph, layer, plan, tab.sites[i]);
        tab.single.push_back(std::move(one));
      }
  }
  for (auto& [kind, tab] : tabs) {
    finish(tab, graph, recipe, plan);
    for (InspectorTab& one : tab.single) finish(one, graph, recipe, plan);
  }
  set_header(state, graph);
  if (state.layers.size() == 1) {
    if (const auto it = facts.find(state.layers.front()); it != facts.end()) {
      state.output = it->second.output;
      for (auto& [kind, tab] : tabs) {
        if (const auto* f = find_facts(it->second, tab.sites.front())) tab.facts = *f;
        for (InspectorTab& one : tab.single)
          if (const auto* f = find_facts(it->second, one.sites.front())) one.facts = *f;
      }
    }
  }
  for (auto& [kind, tab] : tabs) state.tabs.push_back(std::move(tab));
  return state;
}

QString site_title(SiteKind kind) {
  switch (kind) {
    case SiteKind::kWeight: return tr("Weight");
    case SiteKind::kBias: return tr("Bias");
    case SiteKind::kInput: return tr("Input");
    case SiteKind::kOutput: return tr("Output");
    case SiteKind::kInternal: return tr("Inside");
  }
  return {};
}

QString site_word(SiteKind kind) { return site_title(kind).toLower(); }

}  // namespace quanvas
