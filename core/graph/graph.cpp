#include "core/graph/graph.h"

#include <algorithm>
#include <limits>

namespace quanvas {
namespace {

struct TypeRow {
  const char* name;
  std::size_t bytes;
};

// By ONNX number. Sub-byte types and strings have no whole number of bytes per element.
constexpr TypeRow kTypes[] = {
    {"undefined", 0},      {"float32", 4},  {"uint8", 1},        {"int8", 1},           {"uint16", 2},
    {"int16", 2},          {"int32", 4},    {"int64", 8},        {"string", 0},         {"bool", 1},
    {"float16", 2},        {"float64", 8},  {"uint32", 4},       {"uint64", 8},         {"complex64", 8},
    {"complex128", 16},    {"bfloat16", 2}, {"float8e4m3fn", 1}, {"float8e4m3fnuz", 1}, {"float8e5m2", 1},
    {"float8e5m2fnuz", 1}, {"uint4", 0},    {"int4", 0},         {"float4e2m1", 0},
    {"float8e8m0", 1},
};

const TypeRow* type_row(DataType type) {
  const auto i = static_cast<std::size_t>(type);
  return i < std::size(kTypes) ? &kTypes[i] : nullptr;
}

template <class T>
const T* attribute(const Node& node, const std::string& key) {
  const auto it = node.attributes.find(key);
  return it == node.attributes.end() ? nullptr : std::get_if<T>(&it->second);
}

}  // namespace

const char* type_name(DataType type) {
  const TypeRow* row = type_row(type);
  return row ? row->name : "unknown type";
}

std::size_t element_size(DataType type) {
  const TypeRow* row = type_row(type);
  return row ? row->bytes : 0;
}

std::string shape_text(const Shape& shape) {
  if (shape.empty()) return "scalar";
  std::string out;
  for (const std::int64_t d : shape) {
    if (!out.empty()) out += "×";
    out += d < 0 ? "?" : std::to_string(d);
  }
  return out;
}

std::int64_t element_count(const Shape& shape) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::int64_t n = 1;
  for (const std::int64_t d : shape) {
    if (d <= 1) continue;
    if (n > kMost / d) return kMost;
    n *= d;
  }
  return n;
}

std::int64_t Node::integer(const std::string& key, std::int64_t fallback) const {
  const auto* v = attribute<std::int64_t>(*this, key);
  return v ? *v : fallback;
}

float Node::real(const std::string& key, float fallback) const {
  if (const auto* v = attribute<float>(*this, key)) return *v;
  const auto* i = attribute<std::int64_t>(*this, key);
  return i ? static_cast<float>(*i) : fallback;
}

std::string Node::text(const std::string& key, const std::string& fallback) const {
  const auto* v = attribute<std::string>(*this, key);
  return v ? *v : fallback;
}

std::vector<std::int64_t> Node::integers(const std::string& key, std::vector<std::int64_t> fallback) const {
  const auto* v = attribute<std::vector<std::int64_t>>(*this, key);
  return v ? *v : fallback;
}

std::vector<float> Node::reals(const std::string& key, std::vector<float> fallback) const {
  const auto* v = attribute<std::vector<float>>(*this, key);
  return v ? *v : fallback;
}

std::vector<std::string> Node::texts(const std::string& key, std::vector<std::string> fallback) const {
  const auto* v = attribute<std::vector<std::string>>(*this, key);
  return v ? *v : fallback;
}

bool Graph::is_output(TensorId t) const {
  return std::find(outputs_.begin(), outputs_.end(), t) != outputs_.end();
}

GraphPtr Node::subgraph(const std::string& key) const {
  const auto* v = attribute<GraphPtr>(*this, key);
  return v ? *v : nullptr;
}

const Node* Graph::find(NodeId id) const {
  const auto it = position_.find(id);
  return it == position_.end() ? nullptr : &nodes_[it->second];
}

const Node* Graph::find(const std::string& node_name) const {
  const auto it = node_by_name_.find(node_name);
  return it == node_by_name_.end() ? nullptr : &nodes_[it->second];
}

TensorId Graph::tensor(const std::string& tensor_name) const {
  const auto it = tensor_by_name_.find(tensor_name);
  return it == tensor_by_name_.end() ? kNoTensor : it->second;
}

std::size_t Graph::position(NodeId id) const {
  const auto it = position_.find(id);
  return it == position_.end() ? nodes_.size() : it->second;
}

std::vector<NodeId> Graph::downstream(NodeId id) const {
  const std::size_t start = position(id);
  std::vector<NodeId> out;
  if (start == nodes_.size()) return out;
  std::vector<bool> reached(nodes_.size(), false);
  reached[start] = true;
  for (std::size_t i = start; i < nodes_.size(); ++i) {
    if (!reached[i]) continue;
    out.push_back(nodes_[i].id);
    for (const TensorId t : nodes_[i].outputs) {
      if (t == kNoTensor) continue;
      for (const NodeId consumer : tensor(t).consumers) reached[position_.at(consumer)] = true;
    }
  }
  return out;
}

}  // namespace quanvas
