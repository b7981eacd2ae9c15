// Quanvas - what the cards of a network say: texts, sizes, costs and edges, made once per Graph. Graph inputs and
// outputs become cards with negative ids. Pure value, any thread.
#pragma once

#include <map>
#include <unordered_map>
#include <vector>

#include <QString>

#include "core/graph/layers.h"
#include "core/graph/layout.h"

namespace quanvas {

enum class CardKind { kLayer, kSmall, kTerminal };

struct CardInfo {
  NodeId id = kNoNode;     // negative: an input or output of the graph
  CardKind kind = CardKind::kSmall;
  QString title;           // short name within its scope
  QString subtitle;        // "Conv 5×5 · 16×10×10"
  QString name, op, description, shape;
  QString opaque_reason;
  double macs = 0, parameters = 0;
  bool layer = false;
};

struct ContentEdge {
  NodeId from = kNoNode, to = kNoNode;
};

struct GraphContent {
  std::vector<CardInfo> cards;             // topological order: inputs, nodes, outputs
  std::vector<ContentEdge> edges;          // each pair once
  std::unordered_map<NodeId, std::size_t> index;
  std::map<QString, int> op_rank;          // operators of layers, the most frequent first
  double most_macs = 0, most_parameters = 0;
  LayoutInput layout;                      // sizes, scopes, edges; the collapsed set is the view's

  const CardInfo* find(NodeId id) const;
};

GraphContent make_content(const Graph& graph, const std::vector<Layer>& layers);

}  // namespace quanvas
