// GraphBuilder: edits by name, and build(), which turns names into ids and refuses what is no graph.
#include <algorithm>
#include <unordered_set>

#include "core/base/hash.h"
#include "core/graph/graph.h"

namespace quanvas {
namespace {

std::string quoted(const std::string& s) {
  return "'" + s + "'";
}

// Exporters repeat the parent in the child ("/layer1/layer1.0/conv1"): such a parent is dropped.
std::string joined_scope(const std::vector<std::string>& parts) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i + 1 < parts.size() && parts[i + 1].starts_with(parts[i] + ".")) continue;
    if (!out.empty()) out += '.';
    out += parts[i];
  }
  return out;
}

std::string scope_of(const std::string& name) {
  const std::size_t end = name.find_last_of("/.");
  if (end == std::string::npos) return {};
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin < end) {
    const std::size_t slash = std::min(name.find('/', begin), end);
    if (slash > begin) parts.push_back(name.substr(begin, slash - begin));
    begin = slash + 1;
  }
  return joined_scope(parts);
}

// "Conv_67" of tensor "67", "block1/Conv_out" of tensor "block1/out".
std::string made_name(const std::string& op, const std::vector<std::string>& outputs) {
  std::string tensor;
  for (const std::string& o : outputs)
    if (tensor.empty()) tensor = o;
  const std::size_t slash = tensor.rfind('/');
  const std::size_t at = slash == std::string::npos ? 0 : slash + 1;
  if (tensor.empty()) return op;
  return tensor.substr(0, at) + op + "_" + tensor.substr(at);
}

void hash_attribute(Hasher& h, const Attribute& attribute) {
  h.number(static_cast<std::int64_t>(attribute.index()));
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::int64_t>) {
          h.number(v);
        } else if constexpr (std::is_same_v<T, float>) {
          h.bytes(&v, sizeof v);
        } else if constexpr (std::is_same_v<T, std::string>) {
          h.text(v);
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          h.number(static_cast<std::int64_t>(v.size()));
          for (const auto& s : v) h.text(s);
        } else if constexpr (std::is_same_v<T, GraphPtr>) {
          h.text(v ? v->hash() : std::string());
        } else {
          h.number(static_cast<std::int64_t>(v.size()));
          h.bytes(v.data(), v.size() * sizeof(v[0]));
        }
      },
      attribute);
}

void hash_ids(Hasher& h, const std::vector<TensorId>& ids) {
  h.number(static_cast<std::int64_t>(ids.size()));
  h.bytes(ids.data(), ids.size() * sizeof(TensorId));
}

void hash_tensor(Hasher& h, const TensorInfo& t) {
  h.text(t.name).number(static_cast<int>(t.type)).number(t.is_initializer).number(t.shape.has_value());
  if (!t.shape) return;
  h.number(static_cast<std::int64_t>(t.shape->size()));
  h.bytes(t.shape->data(), t.shape->size() * sizeof(std::int64_t));
}

void hash_node(Hasher& h, const Node& n) {
  h.number(n.id).text(n.name).text(n.op).text(n.domain).text(n.opaque_reason);
  hash_ids(h, n.inputs);
  hash_ids(h, n.outputs);
  h.number(static_cast<std::int64_t>(n.attributes.size()));
  for (const auto& [key, value] : n.attributes) {
    h.text(key);
    hash_attribute(h, value);
  }
}

}  // namespace

GraphBuilder::GraphBuilder(const Graph& base) : name_(base.name()), opset_(base.opset()) {
  for (const TensorInfo& t : base.tensors()) {
    tensor_index_[t.name] = tensors_.size();
    TensorInfo copy;
    copy.name = t.name;
    copy.type = t.type;
    copy.shape = t.shape;
    copy.is_initializer = t.is_initializer;
    tensors_.emplace_back(t.name, std::move(copy));
  }
  const auto name_of = [&](TensorId id) { return id == kNoTensor ? std::string() : base.tensor(id).name; };
  for (const Node& n : base.nodes()) {
    Draft draft{n, {}, {}};
    for (const TensorId t : n.inputs) draft.inputs.push_back(name_of(t));
    for (const TensorId t : n.outputs) draft.outputs.push_back(name_of(t));
    drafts_.emplace(n.id, std::move(draft));
    next_id_ = std::max(next_id_, n.id + 1);
  }
  for (const TensorId t : base.inputs()) inputs_.push_back(name_of(t));
  for (const TensorId t : base.outputs()) outputs_.push_back(name_of(t));
}

void GraphBuilder::tensor(const std::string& name, DataType type, std::optional<Shape> shape) {
  if (name.empty()) return;
  const auto [it, added] = tensor_index_.try_emplace(name, tensors_.size());
  if (added) {
    tensors_.emplace_back(name, TensorInfo{});
    tensors_.back().second.name = name;
  }
  TensorInfo& info = tensors_[it->second].second;
  if (type != DataType::kUndefined) info.type = type;
  if (shape) info.shape = std::move(shape);
}

void GraphBuilder::initializer(const std::string& name, DataType type, Shape shape) {
  tensor(name, type, std::move(shape));
  if (!name.empty()) tensors_[tensor_index_[name]].second.is_initializer = true;
}

void GraphBuilder::input(const std::string& name) {
  tensor(name, DataType::kUndefined, std::nullopt);
  inputs_.push_back(name);
}

void GraphBuilder::output(const std::string& name) {
  tensor(name, DataType::kUndefined, std::nullopt);
  outputs_.push_back(name);
}

NodeId GraphBuilder::node(std::string name, std::string op, std::vector<std::string> inputs,
                          std::vector<std::string> outputs, Attributes attributes, std::string domain,
                          std::string opaque_reason) {
  Draft draft;
  draft.node.id = next_id_++;
  draft.node.name = std::move(name);
  draft.node.op = std::move(op);
  draft.node.domain = std::move(domain);
  draft.node.attributes = std::move(attributes);
  draft.node.opaque_reason = std::move(opaque_reason);
  draft.inputs = std::move(inputs);
  draft.outputs = std::move(outputs);
  for (const auto& list : {draft.inputs, draft.outputs})
    for (const std::string& t : list) tensor(t, DataType::kUndefined, std::nullopt);
  const NodeId id = draft.node.id;
  drafts_.emplace(id, std::move(draft));
  return id;
}

void GraphBuilder::remove_node(NodeId id) {
  drafts_.erase(id);
}

void GraphBuilder::replace_input(NodeId id, const std::string& from, const std::string& to) {
  const auto it = drafts_.find(id);
  if (it == drafts_.end()) return;
  tensor(to, DataType::kUndefined, std::nullopt);
  std::replace(it->second.inputs.begin(), it->second.inputs.end(), from, to);
}

void GraphBuilder::replace_input_at(NodeId id, std::size_t index, const std::string& to) {
  const auto it = drafts_.find(id);
  if (it == drafts_.end() || index > it->second.inputs.size()) return;
  tensor(to, DataType::kUndefined, std::nullopt);
  if (index == it->second.inputs.size()) it->second.inputs.emplace_back();
  it->second.inputs[index] = to;
}

void GraphBuilder::replace_output(NodeId id, const std::string& from, const std::string& to) {
  const auto it = drafts_.find(id);
  if (it == drafts_.end()) return;
  tensor(to, DataType::kUndefined, std::nullopt);
  std::replace(it->second.outputs.begin(), it->second.outputs.end(), from, to);
}

void GraphBuilder::set_output_at(NodeId id, std::size_t index, const std::string& to) {
  const auto it = drafts_.find(id);
  if (it == drafts_.end()) return;
  tensor(to, DataType::kUndefined, std::nullopt);
  if (it->second.outputs.size() <= index) it->second.outputs.resize(index + 1);
  it->second.outputs[index] = to;
}

void GraphBuilder::set_attribute(NodeId id, const std::string& key, Attribute value) {
  const auto it = drafts_.find(id);
  if (it != drafts_.end()) it->second.node.attributes[key] = std::move(value);
}

struct GraphBuilder::Assembly {
  GraphBuilder& from;
  Graph& graph;
  std::unordered_map<std::string, NodeId> producer;
  std::unordered_set<std::string> inputs;  // graph inputs that are no initializers
  std::vector<NodeId> order;

  bool is_initializer(const std::string& t) const {
    return from.tensors_[from.tensor_index_.at(t)].second.is_initializer;
  }
  const std::string& label(NodeId id) const { return from.drafts_.at(id).node.name; }

  Status names() {
    std::unordered_set<std::string> taken;
    std::vector<Draft*> unnamed;
    for (auto& [id, draft] : from.drafts_) {
      if (draft.node.name.empty() || !taken.insert(draft.node.name).second) unnamed.push_back(&draft);
    }
    std::unordered_map<std::string, int> last;
    for (Draft* draft : unnamed) {
      std::string base = draft->node.name;
      if (base.empty()) base = made_name(draft->node.op, draft->outputs);
      if (base.empty()) base = "node";
      std::string name = base;
      int& k = last.try_emplace(base, 1).first->second;
      while (!taken.insert(name).second) name = base + "_" + std::to_string(++k);
      draft->node.name = std::move(name);
    }
    for (auto& [id, draft] : from.drafts_) draft.node.scope = scope_of(draft.node.name);
    return {};
  }

  Status providers() {
    for (const std::string& t : from.inputs_) {
      if (t.empty()) return fail(ErrorCode::kCorrupt, "The graph has an input without a name.");
      if (!is_initializer(t) && !inputs.insert(t).second)
        return fail(ErrorCode::kCorrupt, "The graph lists its input " + quoted(t) + " twice.");
    }
    for (const auto& [id, draft] : from.drafts_) {
      for (const std::string& t : draft.outputs) {
        if (t.empty()) continue;
        const auto [it, added] = producer.emplace(t, id);
        if (!added)
          return fail(ErrorCode::kCorrupt, "The tensor " + quoted(t) + " is produced twice, by the nodes " +
                                               quoted(label(it->second)) + " and " + quoted(label(id)) + ".");
        if (inputs.count(t) || is_initializer(t))
          return fail(ErrorCode::kCorrupt, "The node " + quoted(label(id)) + " produces the tensor " + quoted(t) +
                                               ", which is an " + (inputs.count(t) ? "input" : "initializer") +
                                               " of the graph.");
      }
    }
    return {};
  }

  bool provided(const std::string& t) const { return producer.count(t) || inputs.count(t) || is_initializer(t); }

  Status consumers() const {
    for (const auto& [id, draft] : from.drafts_)
      for (const std::string& t : draft.inputs)
        if (!t.empty() && !provided(t))
          return fail(ErrorCode::kCorrupt, "The node " + quoted(label(id)) + " reads the tensor " + quoted(t) +
                                               ", which no node, input or initializer provides.");
    if (from.outputs_.empty()) return fail(ErrorCode::kCorrupt, "The graph has no outputs.");
    for (const std::string& t : from.outputs_)
      if (t.empty() || !provided(t))
        return fail(ErrorCode::kCorrupt, "Nothing produces the output " + quoted(t) + " of the graph.");
    return {};
  }

  // Depth first in the order of the ids, so a list that is sorted already keeps its order, and a node that
  // a pass inserts comes right before its first reader.
  Status sort() {
    enum : char { kNew, kOpen, kDone };
    std::unordered_map<NodeId, char> state;
    std::vector<std::pair<NodeId, std::size_t>> stack;
    for (const auto& [root, unused] : from.drafts_) {
      if (state[root] == kNew) {
        state[root] = kOpen;
        stack.emplace_back(root, 0);
      }
      while (!stack.empty()) {
        auto& [id, next] = stack.back();
        const auto& ins = from.drafts_.at(id).inputs;
        if (next == ins.size()) {
          state[id] = kDone;
          order.push_back(id);
          stack.pop_back();
          continue;
        }
        const auto it = producer.find(ins[next++]);
        if (it == producer.end()) continue;
        char& s = state[it->second];
        if (s == kOpen) return cycle(stack, it->second);
        if (s == kNew) {
          s = kOpen;
          stack.emplace_back(it->second, 0);
        }
      }
    }
    return {};
  }

  Failure cycle(const std::vector<std::pair<NodeId, std::size_t>>& stack, NodeId at) const {
    std::string path;
    std::size_t i = stack.size();
    for (int shown = 0; i-- > 0; ++shown) {
      if (shown < 6) path += quoted(label(stack[i].first)) + " → ";
      if (shown == 6) path += "… → ";
      if (stack[i].first == at) break;
    }
    return fail(ErrorCode::kCorrupt, "The graph has a cycle: " + path + quoted(label(stack.back().first)) + ".");
  }

  void tensors() {
    std::unordered_set<std::string> used(inputs.begin(), inputs.end());
    used.insert(from.outputs_.begin(), from.outputs_.end());
    for (const auto& [id, draft] : from.drafts_) {
      used.insert(draft.inputs.begin(), draft.inputs.end());
      used.insert(draft.outputs.begin(), draft.outputs.end());
    }
    for (const auto& [name, info] : from.tensors_) {
      if (!used.count(name)) continue;
      graph.tensor_by_name_[name] = static_cast<TensorId>(graph.tensors_.size());
      graph.tensors_.push_back(info);
    }
  }

  TensorId id_of(const std::string& t) const { return t.empty() ? kNoTensor : graph.tensor_by_name_.at(t); }

  void nodes() {
    for (const NodeId id : order) {
      const Draft& draft = from.drafts_.at(id);
      Node node = draft.node;
      node.inputs.clear();
      node.outputs.clear();
      for (const std::string& t : draft.inputs) {
        node.inputs.push_back(id_of(t));
        if (t.empty()) continue;
        auto& readers = graph.tensors_[static_cast<std::size_t>(node.inputs.back())].consumers;
        if (readers.empty() || readers.back() != id) readers.push_back(id);
      }
      for (const std::string& t : draft.outputs) {
        node.outputs.push_back(id_of(t));
        if (!t.empty()) graph.tensors_[static_cast<std::size_t>(node.outputs.back())].producer = id;
      }
      graph.position_[id] = graph.nodes_.size();
      graph.node_by_name_[node.name] = graph.nodes_.size();
      graph.nodes_.push_back(std::move(node));
    }
    for (const std::string& t : from.inputs_)
      if (inputs.count(t)) graph.inputs_.push_back(id_of(t));
    for (const std::string& t : from.outputs_) graph.outputs_.push_back(id_of(t));
  }

  void hash() {
    Hasher h;
    h.text(graph.name_).number(graph.opset_);
    h.number(static_cast<std::int64_t>(graph.tensors_.size()));
    for (const TensorInfo& t : graph.tensors_) hash_tensor(h, t);
    h.number(static_cast<std::int64_t>(graph.nodes_.size()));
    for (const Node& n : graph.nodes_) hash_node(h, n);
    hash_ids(h, graph.inputs_);
    hash_ids(h, graph.outputs_);
    graph.hash_ = h.hex();
  }
};

Result<GraphPtr> GraphBuilder::build() {
  auto graph = std::make_shared<Graph>();
  graph->name_ = name_;
  graph->opset_ = opset_;
  Assembly a{*this, *graph, {}, {}, {}};
  QUANVAS_CHECK(a.names());
  QUANVAS_CHECK(a.providers());
  QUANVAS_CHECK(a.consumers());
  QUANVAS_CHECK(a.sort());
  a.tensors();
  a.nodes();
  a.hash();
  return GraphPtr(std::move(graph));
}

}  // namespace quanvas
