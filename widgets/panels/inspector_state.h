// Quanvas - what the inspector shows, worked out from values: one tab per kind of site that the selected layers
// have. Pure; no widgets.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include <QString>

#include "core/graph/layers.h"
#include "core/recipe/plan.h"
#include "core/report/report.h"

namespace quanvas {

struct InspectorTab {
  SiteKind kind = SiteKind::kWeight;
  std::vector<Site> sites;                       // of the selected layers, first selected layer first
  std::vector<std::optional<QuantSpec>> specs;   // per site; none: float
  std::vector<QString> tensor_texts;             // "16×6×5×5, float32"
  std::vector<std::optional<Shape>> shapes;      // per site; none: not known
  // Of the first site; `why` when no rule won.
  int rule = -1;
  QString rule_words, why;
  int rule_layers = 0;             // layers that the rule decides for this kind of site
  bool own_rule = false;           // the rule names its layers one by one: it can be reset here
  bool same_rule = true;           // all sites have this rule
  // The quantizer that several tensors share: under which name ("node": the inputs of a layer), with which others, and
  // how many they are with these sites. More than one name, or very many sites: only that it is so.
  bool named = false, shared = false;  // a rule gives a name; there are others under it
  QString share_name, share_mates;
  int sharers = 0;
  int group = 0;                   // values of a group where the axis is shorter than the spec's group; 0: as the spec says
  std::optional<SiteFacts> facts;  // one selected layer only
  QString problem;                 // the spec is illegal here: sentence that names the field
  // Of one selected layer with several sites of this kind: each alone, in their order, and what it is called.
  std::vector<InspectorTab> single;
  QString name;
};

struct InspectorState {
  std::vector<NodeId> layers;
  QString title, description;   // "conv2", "Conv 5×5, 6 → 16, stride 1"; several: "3 layers", their types
  QString op;                   // of all selected layers; empty when they differ
  int layer_count = 0;          // in the graph
  std::vector<InspectorTab> tabs;
  std::optional<TensorError> output;  // error at the output, one layer only
  bool stale = false;           // the facts are older than the recipe
  bool busy = false;
};

InspectorState inspector_state(const Graph& graph, const std::vector<Layer>& layers, const Recipe& recipe,
                               const Plan& plan, const std::map<NodeId, LayerFacts>& facts,
                               const std::vector<NodeId>& selected);

QString site_title(SiteKind kind);        // "Weight"
QString site_word(SiteKind kind);         // "weight"

}  // namespace quanvas
