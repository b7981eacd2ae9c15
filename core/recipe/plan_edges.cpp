#include "core/recipe/plan_edges.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <unordered_map>

#include "core/graph/canonical.h"
#include "core/recipe/plan_settle.h"

namespace quanvas {
namespace {

template <std::size_t N>
bool one_of(const std::string& op, const char* const (&names)[N]) {
  return std::any_of(std::begin(names), std::end(names), [&](const char* name) { return op == name; });
}

// Clamps, and factors and offsets that are constants: an integer kernel applies them to its sums before it rounds them.
bool takes_sums(const Layer& layer, const Node& node) {
  static constexpr const char* kByConstants[] = {"Add", "Sub", "Mul", "Div", "Max", "Min"};
  return node.op == "Relu" || node.op == "Clip" || node.op == "BatchNormalization" ||
         (layer.inputs.size() == 1 && one_of(node.op, kByConstants));
}

bool needs_inputs_on_one_scale(const Node& node) {
  static constexpr const char* kOps[] = {"Add", "Sub", "Sum", "Mean", "Max", "Min", "Concat"};
  return one_of(node.op, kOps);
}

// What it gives are values that it has read (or a limit): they are on its input's scale.
bool keeps_scale(const Node& node) {
  static constexpr const char* kOps[] = {"Max", "Min", "Concat", "MaxPool", "GlobalMaxPool", "Relu", "Clip"};
  return one_of(node.op, kOps);
}

// Layers whose result is a sum or product in wide integers that is yet to be rounded.
bool has_wide_sums(const Layer& layer, const Node& node) {
  static constexpr const char* kOps[] = {"Add", "Sub", "Sum", "Mul", "Div", "BatchNormalization"};
  if (layer.kind == LayerKind::kCompute) return !is_recurrent(node) && node.op != "Attention";
  return one_of(node.op, kOps);
}

bool is_real(DataType t) {
  return t == DataType::kUndefined || t == DataType::kFloat || t == DataType::kFloat16 || t == DataType::kBfloat16 ||
         t == DataType::kDouble;
}

class Sets {
 public:
  explicit Sets(std::size_t n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), 0); }
  TensorId root(TensorId t) {
    while (parent_[at(t)] != t) t = parent_[at(t)] = parent_[at(parent_[at(t)])];
    return t;
  }
  // The smaller one stays the root, so that names do not depend on the order.
  void join(TensorId a, TensorId b) {
    a = root(a), b = root(b);
    parent_[at(std::max(a, b))] = std::min(a, b);
  }

 private:
  static std::size_t at(TensorId t) { return static_cast<std::size_t>(t); }
  std::vector<TensorId> parent_;
};

// One edge: who gives it and who reads it.
struct Edge {
  SitePlan* giver = nullptr;  // the output site of the layer that makes it
  const Layer* maker = nullptr;
  std::vector<SitePlan*> readers;      // input sites
  std::vector<const Node*> consumers;  // all operators that do not only move values, those of `readers` among them
  bool leaves = false;                 // an output of the network
  bool wide = false;                   // sums that are not rounded yet
  bool masked = false;                 // scores of attention behind their mask
};

class EdgeSettler {
 public:
  EdgeSettler(const Graph& graph, const Recipe& recipe, Plan& plan)
      : graph_(graph),
        recipe_(recipe),
        plan_(plan),
        layers_(find_layers(graph)),
        edges_(graph.tensors().size()),
        scales_(graph.tensors().size()) {
    for (const Layer& layer : layers_) layer_of_[layer.node] = &layer;
  }

  void run() {
    join_moved();
    collect();
    for (auto& [id, edge] : by_root_) edge.wide = is_wide(edge);
    find_masks();
    tie_scales();
    const std::vector<std::vector<SitePlan*>> groups = group();
    for (auto& [id, edge] : by_root_) choose(edge);
    for (const auto& sites : groups) name(sites);
    warn_of_float();
  }

 private:
  bool is_edge_site(const SitePlan& s) const {
    return s.spec && s.rule >= 0 && recipe_.rules[static_cast<std::size_t>(s.rule)].share == kEdgeShare;
  }
  bool is_moved(const Node& node) const { return moves_values(node) && layer_of_.count(node.id) == 0; }

  void join_moved() {
    for (const Node& node : graph_.nodes()) {
      if (!is_moved(node) || node.input(0) == kNoTensor || graph_.tensor(node.inputs[0]).is_initializer) continue;
      for (const TensorId out : node.outputs)
        if (out != kNoTensor) edges_.join(node.inputs[0], out);
    }
  }

  Edge& edge_at(TensorId t) { return by_root_[edges_.root(t)]; }

  void collect() {
    for (const Node& node : graph_.nodes()) {
      if (is_moved(node) || node.op == "Shape" || node.op == "Size") continue;
      for (const TensorId t : node.inputs) {
        if (t == kNoTensor || graph_.tensor(t).is_initializer) continue;
        std::vector<const Node*>& consumers = edge_at(t).consumers;
        if (consumers.empty() || consumers.back() != &node) consumers.push_back(&node);  // each once
      }
    }
    for (const TensorId t : graph_.outputs()) edge_at(t).leaves = true;
    for (const Layer& layer : layers_)
      if (layer.output != kNoTensor) edge_at(layer.output).maker = &layer;
    for (SitePlan& s : plan_.sites) {
      const auto layer = layer_of_.find(s.site.node);
      if (layer == layer_of_.end() || (s.site.kind != SiteKind::kInput && s.site.kind != SiteKind::kOutput)) continue;
      const TensorId t = site_tensor(*layer->second, s.site);
      if (t == kNoTensor) continue;
      if (s.site.kind == SiteKind::kOutput) edge_at(t).giver = &s;
      else if (graph_.tensor(t).producer != s.site.node) edge_at(t).readers.push_back(&s);  // hidden states stay inside
    }
  }

  bool is_wide(const Edge& edge) const {
    if (!edge.maker || edge.leaves || edge.consumers.size() != 1 || edge.readers.size() != 1) return false;
    return has_wide_sums(*edge.maker, *graph_.find(edge.maker->node)) &&
           takes_sums(*layer_of_.at(edge.readers[0]->site.node), *edge.consumers[0]);
  }

  // The numbers that shut scores out of a softmax would stretch their scale until nothing is left of them: scores are
  // rounded in front of the mask.
  void find_masks() {
    std::vector<char> computed(graph_.nodes().size(), 0);  // by a layer with weights, or from what one gives
    for (std::size_t i = 0; i < computed.size(); ++i) {
      const Node& node = graph_.nodes()[i];
      const auto layer = layer_of_.find(node.id);
      computed[i] = layer != layer_of_.end() && layer->second->kind == LayerKind::kCompute;
      for (const TensorId t : node.inputs)
        if (const NodeId from = t == kNoTensor ? kNoNode : graph_.tensor(t).producer; from != kNoNode)
          computed[i] |= computed[graph_.position(from)];
    }
    const auto is_computed = [&](TensorId t) {
      const NodeId from = graph_.tensor(t).producer;
      return from != kNoNode && computed[graph_.position(from)];
    };
    for (auto& [id, edge] : by_root_) {
      const Node* mask = graph_.find(graph_.tensor(id).producer);
      const bool into_softmax =
          edge.consumers.size() == 1 && (edge.consumers[0]->op == "Softmax" || edge.consumers[0]->op == "LogSoftmax");
      if (!mask || !into_softmax || edge.leaves || edge.readers.size() != 1) continue;
      if (mask->op == "Where") {
        edge.masked = true;
        masks_.insert(mask->id);
      }
      const auto layer = layer_of_.find(mask->id);
      if (mask->op != "Add" || layer == layer_of_.end()) continue;
      const std::vector<TensorId>& inputs = layer->second->inputs;
      if (inputs.size() == 2 && is_computed(inputs[0]) != is_computed(inputs[1])) {
        edge.masked = true;
        masked_by_.push_back({mask->id, is_computed(inputs[0]) ? 1 : 0});
      }
    }
    for (const auto& [node, operand] : masked_by_) {
      const TensorId mask = layer_of_.at(node)->inputs[static_cast<std::size_t>(operand)];
      Edge& edge = edge_at(mask);
      const std::string why = "it is a mask in front of a softmax";
      const auto is_it = [&, node = node, operand = operand](const SitePlan* s) {
        return s->site.node == node && s->site.operand == operand;
      };
      for (SitePlan* s : edge.readers)
        if (is_it(s) && is_edge_site(*s)) drop(*s, why);
      const bool only_masks = std::all_of(edge.consumers.begin(), edge.consumers.end(), [&](const Node* n) {
        return std::any_of(masked_by_.begin(), masked_by_.end(), [&](const auto& m) { return m.first == n->id; });
      });
      if (only_masks && edge.giver && is_edge_site(*edge.giver)) drop(*edge.giver, why);
    }
  }

  void tie(TensorId& first, TensorId tensor) {
    if (tensor == kNoTensor || edge_at(tensor).wide || edge_at(tensor).masked) return;
    if (first == kNoTensor) first = tensor;
    scales_.join(edges_.root(first), edges_.root(tensor));
  }

  void tie_scales() {
    const auto asked = [&](const Layer& layer, SiteKind kind, std::size_t i) {
      const SitePlan* s = find({layer.node, kind, static_cast<int>(i)});
      return s && is_edge_site(*s);
    };
    for (const Layer& layer : layers_) {
      const Node& node = *graph_.find(layer.node);
      const bool keeps = keeps_scale(node);
      if (!keeps && !needs_inputs_on_one_scale(node)) continue;
      TensorId first = kNoTensor;
      for (std::size_t i = 0; i < layer.inputs.size(); ++i)
        if (asked(layer, SiteKind::kInput, i)) tie(first, layer.inputs[i]);
      if (keeps && first != kNoTensor && asked(layer, SiteKind::kOutput, 0)) tie(first, layer.output);
    }
  }

  // plan_.find() is slow until resolve() has sorted. A layer's sites stand together.
  const SitePlan* find(const Site& site) {
    if (first_site_.empty())
      for (std::size_t i = 0; i < plan_.sites.size(); ++i) first_site_.emplace(plan_.sites[i].site.node, i);
    const auto it = first_site_.find(site.node);
    for (std::size_t i = it == first_site_.end() ? plan_.sites.size() : it->second;
         i < plan_.sites.size() && plan_.sites[i].site.node == site.node; ++i)
      if (plan_.sites[i].site == site) return &plan_.sites[i];
    return nullptr;
  }

  // Sites of one scale and one format, in graph order of the scale's first tensor.
  std::vector<std::vector<SitePlan*>> group() {
    std::map<TensorId, std::vector<SitePlan*>> scales;
    for (auto& [id, edge] : by_root_) {
      if (edge.wide || edge.masked) continue;
      std::vector<SitePlan*>& sites = scales[scales_.root(id)];
      for (SitePlan* s : edge.readers)
        if (is_edge_site(*s)) sites.push_back(s);
      if (edge.giver && is_edge_site(*edge.giver)) sites.push_back(edge.giver);
    }
    std::vector<std::vector<SitePlan*>> out;
    for (auto& [id, sites] : scales) {
      if (sites.empty()) continue;
      std::sort(sites.begin(), sites.end());  // as in the plan
      const std::size_t begin = out.size();
      for (SitePlan* s : sites) {
        const auto same = std::find_if(out.begin() + static_cast<std::ptrdiff_t>(begin), out.end(),
                                       [&](const auto& g) { return *g[0]->spec == *s->spec; });
        if (same == out.end()) out.push_back({s});
        else same->push_back(s);
      }
      for (std::size_t i = begin; i < out.size(); ++i)
        keys_.push_back("#e" + std::to_string(id) + (i > begin ? "." + std::to_string(i - begin) : ""));
      if (out.size() - begin < 2) continue;
      plan_.warnings.push_back(
          names(sites) + " are to have one scale, but their formats differ, so each format has its own. Give them one format.");
    }
    return out;
  }

  static void drop(SitePlan& s, const std::string& why) {
    s.spec.reset();
    s.why += "; no quantizer here, because " + why;
  }

  void choose(Edge& edge) {
    if (edge.wide || edge.masked) {
      const std::string& reader = edge.consumers[0]->name;
      const std::string why = edge.masked ? "'" + reader + "' reads codes behind a mask"
                                          : "'" + reader + "' takes the sums of '" + graph_.find(edge.maker->node)->name +
                                                "' before they are rounded";
      if (edge.giver && is_edge_site(*edge.giver)) drop(*edge.giver, why);
      for (SitePlan* s : edge.readers)
        if (is_edge_site(*s)) drop(*s, why);
      return;
    }
    if (!edge.giver || !is_edge_site(*edge.giver)) return;
    std::set<NodeId> quantizing, consumers;
    for (const Node* n : edge.consumers) consumers.insert(n->id);
    for (const SitePlan* s : edge.readers)
      if (s->spec) quantizing.insert(s->site.node);
    // One that reads the edge twice, once in float, is among the readers twice.
    const bool all = std::all_of(edge.readers.begin(), edge.readers.end(), [](const SitePlan* s) { return s->spec.has_value(); });
    if (!edge.leaves && !consumers.empty() && all && quantizing == consumers) {
      drop(*edge.giver, edge.readers.size() > 1
                            ? "those that read it have it"
                            : "'" + graph_.find(edge.readers[0]->site.node)->name + "', which reads it, has it");
      return;
    }
    const std::string giver = "'" + graph_.find(edge.giver->site.node)->name + "' gives these codes";
    std::vector<SitePlan*> again;
    for (SitePlan* s : edge.readers) {
      if (!s->spec) continue;
      if (is_edge_site(*s) && *s->spec == *edge.giver->spec) drop(*s, giver);
      else again.push_back(s);
    }
    if (again.empty()) return;
    plan_.warnings.push_back("What '" + graph_.find(edge.giver->site.node)->name +
                             "' gives is quantized there and once more at " + names(again) +
                             ", in another format. Give them one format, or leave the output float.");
  }

  std::string names(const std::vector<SitePlan*>& sites) const {
    std::vector<std::string> out;
    for (const SitePlan* s : sites) out.push_back(site_text(graph_, s->site));
    return list_text(std::move(out));
  }

  // One quantizer for the group, where its format can have one.
  void name(const std::vector<SitePlan*>& sites) {
    const std::string key = keys_[named_++];
    std::vector<SitePlan*> left;
    std::set<TensorId> tensors;
    for (SitePlan* s : sites) {
      if (!s->spec) continue;
      left.push_back(s);
      tensors.insert(edges_.root(site_tensor(*layer_of_.at(s->site.node), s->site)));
    }
    if (sites.size() < 2 || left.empty()) return;
    const std::string problem = sharing_problem(*left[0]->spec, left[0]->site.kind);
    if (problem.empty()) {
      for (SitePlan* s : sites) s->share = key;
      if (left.size() > 1)
        for (SitePlan* s : left)
          s->why += "; one quantizer with " + std::to_string(left.size() - 1) + " other" + (left.size() > 2 ? "s" : "");
    } else if (tensors.size() > 1) {
      plan_.warnings.push_back(names(left) + " are to have one scale, but " + problem + ", so each has its own.");
    }
  }

  // Operators between quantized edges that are no layers.
  void warn_of_float() {
    std::vector<std::string> names;
    for (const Node& node : graph_.nodes()) {
      if (layer_of_.count(node.id) || is_moved(node) || masks_.count(node.id) || node.outputs.empty() ||
          node.outputs[0] == kNoTensor || !is_real(graph_.tensor(node.outputs[0]).type))
        continue;
      if (!constant_parts(graph_, node.outputs[0]).empty()) continue;
      const bool beside = std::any_of(node.inputs.begin(), node.inputs.end(), [&](TensorId t) {
        return t != kNoTensor && !graph_.tensor(t).is_initializer && is_quantized(edge_at(t));
      });
      if (beside) names.push_back("'" + node.name + "' (" + node.op + ")");
    }
    if (names.empty()) return;
    const std::string verb = names.size() > 1 ? " have" : " has";
    plan_.warnings.push_back("Computed in float between integers, because the operator can have no format: " + list_text(names) +
                             ".");
  }
  static bool is_quantized(const Edge& edge) {
    return (edge.giver && edge.giver->spec) ||
           std::any_of(edge.readers.begin(), edge.readers.end(), [](const SitePlan* s) { return s->spec.has_value(); });
  }

  const Graph& graph_;
  const Recipe& recipe_;
  Plan& plan_;
  std::vector<Layer> layers_;
  std::unordered_map<NodeId, const Layer*> layer_of_;
  Sets edges_, scales_;  // over tensors; of scales_ only roots of edges_ are used
  std::map<TensorId, Edge> by_root_;
  std::unordered_map<NodeId, std::size_t> first_site_;
  std::vector<std::pair<NodeId, int>> masked_by_;  // additions of a mask, and which operand it is
  std::set<NodeId> masks_;                         // selections by one
  std::vector<std::string> keys_;                  // of the groups
  std::size_t named_ = 0;
};

}  // namespace

bool moves_values(const Node& node) {
  static constexpr const char* kOps[] = {"Reshape",      "Flatten", "Squeeze",        "Unsqueeze", "Transpose", "Identity",
                                         "Dropout",      "Slice",   "Split",          "Expand",    "Tile",      "DepthToSpace",
                                         "SpaceToDepth", "Gather",  "GatherElements", "GatherND",  "Pad"};
  if (!node.domain.empty() || !node.opaque_reason.empty()) return false;
  if (node.op == "Resize" || node.op == "Upsample") return node.text("mode", "nearest") == "nearest";
  return one_of(node.op, kOps);
}

void settle_edges(const Graph& graph, const Recipe& recipe, Plan& plan) {
  if (std::any_of(recipe.rules.begin(), recipe.rules.end(), [](const Rule& r) { return r.share == kEdgeShare; }))
    EdgeSettler(graph, recipe, plan).run();
}

}  // namespace quanvas
