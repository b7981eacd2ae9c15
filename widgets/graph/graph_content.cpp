#include "widgets/graph/graph_content.h"

#include <algorithm>
#include <set>

#include "widgets/common/node_names.h"

namespace quanvas {

namespace {

constexpr double kLayerWidth = 200, kLayerHeight = 44, kSmallHeight = 28;

QString text(const std::string& s) { return QString::fromStdString(s); }

// Without the batch.
QString sample_shape(const TensorInfo& tensor) {
  if (!tensor.shape) return {};
  Shape shape = *tensor.shape;
  if (shape.size() >= 2 && (shape.front() == -1 || shape.front() == 1)) shape.erase(shape.begin());
  return shown_shape(shape);
}

bool is_small(const Layer* layer) {
  return layer == nullptr || layer->kind == LayerKind::kActivation || layer->kind == LayerKind::kElementwise;
}

CardInfo card_of(const Graph& graph, const Node& node, const Layer* layer, std::size_t nodes_in_scope) {
  CardInfo card;
  card.id = node.id;
  card.kind = is_small(layer) ? CardKind::kSmall : CardKind::kLayer;
  card.layer = layer != nullptr;
  card.name = text(node.name);
  card.op = text(node.op);
  card.title = card_name(node, nodes_in_scope);
  card.description = text(describe(graph, node));
  card.opaque_reason = text(node.opaque_reason);
  for (const TensorId output : node.outputs)
    if (output != kNoTensor && card.shape.isEmpty()) card.shape = sample_shape(graph.tensor(output));
  // "Gemm 400 → 120" says its shape already.
  card.subtitle = text(describe_short(graph, node));
  if (!card.shape.isEmpty() && !card.subtitle.contains(QChar(0x2192))) card.subtitle += QStringLiteral(" · ") + card.shape;
  const NodeCost cost = node_cost(graph, node);
  card.macs = cost.macs;
  card.parameters = cost.parameters;
  return card;
}

CardInfo terminal(const Graph& graph, TensorId tensor, NodeId id, const QString& what) {
  CardInfo card;
  card.id = id;
  card.kind = CardKind::kTerminal;
  card.title = card.name = text(graph.tensor(tensor).name);
  card.shape = sample_shape(graph.tensor(tensor));
  card.op = what;
  card.subtitle = what + (card.shape.isEmpty() ? QString() : QStringLiteral(" · ") + card.shape);
  card.description = card.subtitle;
  return card;
}

class Maker {
 public:
  Maker(const Graph& graph, const std::vector<Layer>& layers) : graph_(graph) {
    for (const Layer& l : layers) layer_of_[l.node] = &l;
    for (const Node& n : graph.nodes()) ++in_scope_[n.scope];
  }

  GraphContent make() {
    for (std::size_t i = 0; i < graph_.inputs().size(); ++i) add_input(i);
    for (const Node& n : graph_.nodes()) {
      const auto it = layer_of_.find(n.id);
      add(card_of(graph_, n, it == layer_of_.end() ? nullptr : it->second, in_scope_[n.scope]), n.scope);
    }
    for (const auto& [input, t] : inputs_)
      for (const NodeId consumer : graph_.tensor(t).consumers) link(input, consumer);
    for (const Node& n : graph_.nodes())
      for (const TensorId t : n.inputs)
        if (t != kNoTensor) link(graph_.tensor(t).producer, n.id);
    for (std::size_t i = 0; i < graph_.outputs().size(); ++i) add_output(i);
    rank_operators();
    return std::move(out_);
  }

 private:
  void add(CardInfo card, const std::string& scope) {
    const bool small = card.kind == CardKind::kSmall;
    const double text_width = 7.2 * static_cast<double>(card.title.size()) + (card.layer ? 96 : 44);
    out_.layout.nodes.push_back({card.id, small ? std::clamp(text_width, 110.0, kLayerWidth) : kLayerWidth,
                                 small ? kSmallHeight : kLayerHeight, scope});
    out_.index[card.id] = out_.cards.size();
    out_.most_macs = std::max(out_.most_macs, card.macs);
    out_.most_parameters = std::max(out_.most_parameters, card.parameters);
    out_.cards.push_back(std::move(card));
  }

  void link(NodeId from, NodeId to) {
    if (out_.index.count(from) == 0 || from == to || !linked_.emplace(from, to).second) return;
    out_.edges.push_back({from, to});
    out_.layout.edges.push_back({from, to});
  }

  void add_input(std::size_t i) {
    const NodeId id = -2 - 2 * static_cast<NodeId>(i);
    const TensorId tensor = graph_.inputs()[i];
    add(terminal(graph_, tensor, id, QStringLiteral("Input")), {});
    inputs_.emplace_back(id, tensor);
  }

  void add_output(std::size_t i) {
    const NodeId id = -3 - 2 * static_cast<NodeId>(i);
    const TensorId tensor = graph_.outputs()[i];
    add(terminal(graph_, tensor, id, QStringLiteral("Output")), {});
    link(graph_.tensor(tensor).producer, id);
  }

  void rank_operators() {
    std::map<QString, int> count;
    for (const CardInfo& c : out_.cards)
      if (c.layer) ++count[c.op];
    std::vector<std::pair<int, QString>> sorted;
    for (const auto& [op, n] : count) sorted.emplace_back(-n, op);
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 0; i < sorted.size(); ++i) out_.op_rank[sorted[i].second] = static_cast<int>(i);
  }

  const Graph& graph_;
  std::unordered_map<NodeId, const Layer*> layer_of_;
  std::unordered_map<std::string, std::size_t> in_scope_;
  std::vector<std::pair<NodeId, TensorId>> inputs_;
  std::set<std::pair<NodeId, NodeId>> linked_;
  GraphContent out_;
};

}  // namespace

const CardInfo* GraphContent::find(NodeId id) const {
  const auto it = index.find(id);
  return it == index.end() ? nullptr : &cards[it->second];
}

GraphContent make_content(const Graph& graph, const std::vector<Layer>& layers) { return Maker(graph, layers).make(); }

}  // namespace quanvas
