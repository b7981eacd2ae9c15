// A Graph as JSON. Tensors are referred to by index, attributes carry their type as a one-letter key.
#include <algorithm>
#include <limits>

#include "core/graph/graph.h"

namespace quanvas {
namespace {

json attribute_to_json(const Attribute& attribute) {
  return std::visit(
      [](const auto& v) -> json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::int64_t>) return {{"i", v}};
        if constexpr (std::is_same_v<T, float>) return {{"f", real(v)}};
        if constexpr (std::is_same_v<T, std::string>) return {{"s", v}};
        if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) return {{"I", v}};
        if constexpr (std::is_same_v<T, std::vector<float>>) return {{"F", to_json_value(v)}};
        if constexpr (std::is_same_v<T, std::vector<std::string>>) return {{"S", v}};
        if constexpr (std::is_same_v<T, GraphPtr>) return {{"g", graph_to_json(*v)}};
      },
      attribute);
}

template <class T>
Result<Attribute> read_as(const json& j, const std::string& where) {
  QUANVAS_TRY(T value, from_json_value<T>(j, where));
  return Attribute(std::move(value));
}

// Subgraphs in subgraphs, as deep as an importer lets them be.
struct Depth {
  static thread_local int now;
  Depth() { ++now; }
  ~Depth() { --now; }
};
thread_local int Depth::now = 0;
constexpr int kDeepest = 80;

Result<Attribute> attribute_from_json(const json& j, const std::string& where) {
  if (!j.is_object() || j.size() != 1 || j.begin().key().size() != 1)
    return json_type_error(where, "an attribute with one type key", j);
  const json& value = j.begin().value();
  switch (j.begin().key()[0]) {
    case 'i':
      return read_as<std::int64_t>(value, where);
    case 'f':
      return read_as<float>(value, where);
    case 's':
      return read_as<std::string>(value, where);
    case 'I':
      return read_as<std::vector<std::int64_t>>(value, where);
    case 'F':
      return read_as<std::vector<float>>(value, where);
    case 'S':
      return read_as<std::vector<std::string>>(value, where);
    case 'g': {
      const Depth depth;
      if (Depth::now > kDeepest)
        return fail(ErrorCode::kCorrupt, "'" + where + "' holds subgraphs in each other without end.");
      QUANVAS_TRY(GraphPtr body, graph_from_json(value));
      return Attribute(std::move(body));
    }
    default:
      return json_type_error(where, "an attribute of type i, f, s, I, F, S or g", j);
  }
}

json tensor_to_json(const TensorInfo& t) {
  json j = {{"name", t.name}, {"type", static_cast<int>(t.type)}};
  if (t.shape) j["shape"] = *t.shape;
  if (t.is_initializer) j["initializer"] = true;
  return j;
}

json node_to_json(const Node& n) {
  json j = {{"id", n.id}, {"name", n.name}, {"op", n.op}, {"inputs", n.inputs}, {"outputs", n.outputs}};
  if (!n.domain.empty()) j["domain"] = n.domain;
  if (!n.scope.empty()) j["scope"] = n.scope;
  if (!n.opaque_reason.empty()) j["opaque"] = n.opaque_reason;
  if (!n.attributes.empty()) {
    json& out = j["attributes"] = json::object();
    for (const auto& [key, value] : n.attributes) out[key] = attribute_to_json(value);
  }
  return j;
}

struct TensorJson {
  std::string name;
  int type = 0;
  std::optional<Shape> shape;
  bool initializer = false;
};
template <class V>
void visit_fields(V& v, TensorJson& t) {
  v("name", t.name);
  v("type", t.type);
  v("shape", t.shape);
  v("initializer", t.initializer);
}

struct NodeJson {
  NodeId id = kNoNode;
  std::string name, op, domain, scope, opaque;
  std::vector<TensorId> inputs, outputs;
  json attributes = json::object();
};
template <class V>
void visit_fields(V& v, NodeJson& n) {
  v("id", n.id);
  v("name", n.name);
  v("op", n.op);
  v("domain", n.domain);
  v("scope", n.scope);
  v("opaque", n.opaque);
  v("inputs", n.inputs);
  v("outputs", n.outputs);
  v("attributes", n.attributes);
}

struct GraphJson {
  std::string name, hash;
  int opset = 13;
  std::vector<TensorId> inputs, outputs;
  json tensors = json::array(), nodes = json::array();
};
template <class V>
void visit_fields(V& v, GraphJson& g) {
  v("name", g.name);
  v("hash", g.hash);
  v("opset", g.opset);
  v("inputs", g.inputs);
  v("outputs", g.outputs);
  v("tensors", g.tensors);
  v("nodes", g.nodes);
}

Result<std::vector<std::string>> names_of(const std::vector<TensorId>& ids, const std::vector<std::string>& names,
                                          const std::string& where) {
  std::vector<std::string> out;
  for (const TensorId id : ids) {
    if (id < kNoTensor || id >= static_cast<TensorId>(names.size()))
      return fail(ErrorCode::kCorrupt, "'" + where + "' names tensor " + std::to_string(id) + "; there are " +
                                           std::to_string(names.size()) + ".");
    out.push_back(id == kNoTensor ? std::string() : names[static_cast<std::size_t>(id)]);
  }
  return out;
}

Result<Attributes> attributes_from_json(const json& j, const std::string& where) {
  Attributes out;
  if (!j.is_object()) return json_type_error(where, "a map", j);
  for (const auto& [key, value] : j.items()) {
    QUANVAS_TRY(out[key], attribute_from_json(value, where + "." + key));
  }
  return out;
}

}  // namespace

json graph_to_json(const Graph& graph) {
  json tensors = json::array(), nodes = json::array();
  for (const TensorInfo& t : graph.tensors()) tensors.push_back(tensor_to_json(t));
  for (const Node& n : graph.nodes()) nodes.push_back(node_to_json(n));
  return {{"name", graph.name()},     {"hash", graph.hash()},       {"opset", graph.opset()},
          {"inputs", graph.inputs()}, {"outputs", graph.outputs()}, {"tensors", std::move(tensors)},
          {"nodes", std::move(nodes)}};
}

Result<GraphPtr> graph_from_json(const json& j) {
  QUANVAS_TRY(const GraphJson g, from_json_value<GraphJson>(j, "graph"));
  if (!g.tensors.is_array()) return json_type_error("graph.tensors", "a list", g.tensors);
  if (!g.nodes.is_array()) return json_type_error("graph.nodes", "a list", g.nodes);
  GraphBuilder b;
  b.set_name(g.name);
  b.set_opset(g.opset);
  std::vector<std::string> names;
  for (const json& entry : g.tensors) {
    QUANVAS_TRY(const TensorJson t, from_json_value<TensorJson>(entry, "graph.tensors"));
    if (t.name.empty() || b.tensor_index_.count(t.name))
      return fail(ErrorCode::kCorrupt,
                  "The graph's JSON has a tensor name '" + t.name + "' that is empty or repeated.");
    names.push_back(t.name);
    b.tensor(t.name, static_cast<DataType>(t.type), t.shape);
    b.tensors_.back().second.is_initializer = t.initializer;
  }
  for (const json& entry : g.nodes) {
    QUANVAS_TRY(NodeJson n, from_json_value<NodeJson>(entry, "graph.nodes"));
    if (n.id < 0 || n.id == std::numeric_limits<NodeId>::max() || b.drafts_.count(n.id))
      return fail(ErrorCode::kCorrupt,
                  "The graph's JSON has a node id " + std::to_string(n.id) + " that is negative or repeated.");
    GraphBuilder::Draft draft;
    draft.node.id = n.id;
    draft.node.name = n.name;
    draft.node.op = n.op;
    draft.node.domain = n.domain;
    draft.node.opaque_reason = n.opaque;
    QUANVAS_TRY(draft.node.attributes, attributes_from_json(n.attributes, "graph.nodes." + n.name + ".attributes"));
    QUANVAS_TRY(draft.inputs, names_of(n.inputs, names, n.name + ".inputs"));
    QUANVAS_TRY(draft.outputs, names_of(n.outputs, names, n.name + ".outputs"));
    b.drafts_.emplace(n.id, std::move(draft));
    b.next_id_ = std::max(b.next_id_, n.id + 1);
  }
  QUANVAS_TRY(b.inputs_, names_of(g.inputs, names, "graph.inputs"));
  QUANVAS_TRY(b.outputs_, names_of(g.outputs, names, "graph.outputs"));
  return b.build();
}

}  // namespace quanvas
