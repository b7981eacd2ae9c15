#include "plugins/exporters/onnx_scan.h"

#include <cstring>

#include <google/protobuf/io/coded_stream.h>

#include "core/base/files.h"

namespace quanvas::onnx_scan {

Result<onnx::ModelProto> read(const std::string& path) {
  QUANVAS_TRY(const std::string bytes, read_file(path, (std::uint64_t{1} << 31) - 1));
  google::protobuf::io::CodedInputStream in(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                            static_cast<int>(bytes.size()));
  onnx::ModelProto proto;
  if (!proto.ParseFromCodedStream(&in) || !in.ConsumedEntireMessage() || !proto.has_graph())
    return fail(ErrorCode::kCorrupt, "'" + path + "' is not a complete ONNX file.", "Export it again.");
  return proto;
}

Shape dims(const onnx::TensorProto& tensor) {
  return {tensor.dims().begin(), tensor.dims().end()};
}

std::optional<std::vector<float>> floats(const onnx::TensorProto* tensor) {
  if (tensor == nullptr || tensor->data_type() != onnx::TensorProto::FLOAT) return std::nullopt;
  for (const std::int64_t d : tensor->dims())
    if (d < 0) return std::nullopt;
  const auto count = static_cast<std::uint64_t>(element_count(dims(*tensor)));
  if (!tensor->has_raw_data()) {
    if (static_cast<std::uint64_t>(tensor->float_data_size()) != count) return std::nullopt;
    return std::vector<float>(tensor->float_data().begin(), tensor->float_data().end());
  }
  const std::string& raw = tensor->raw_data();
  if (raw.size() % sizeof(float) != 0 || raw.size() / sizeof(float) != count) return std::nullopt;
  std::vector<float> out(raw.size() / sizeof(float));
  if (!out.empty()) std::memcpy(out.data(), raw.data(), raw.size());
  return out;
}

const onnx::AttributeProto* attribute(const onnx::NodeProto& node, const std::string& name) {
  for (const auto& a : node.attribute())
    if (a.name() == name) return &a;
  return nullptr;
}
std::int64_t integer(const onnx::NodeProto& node, const std::string& name, std::int64_t fallback) {
  const auto* a = attribute(node, name);
  return a && a->type() == onnx::AttributeProto::INT ? a->i() : fallback;
}
float real(const onnx::NodeProto& node, const std::string& name, float fallback) {
  const auto* a = attribute(node, name);
  return a && a->type() == onnx::AttributeProto::FLOAT ? a->f() : fallback;
}
std::string text(const onnx::NodeProto& node, const std::string& name) {
  const auto* a = attribute(node, name);
  return a ? a->s() : std::string();
}
std::vector<std::int64_t> integers(const onnx::NodeProto& node, const std::string& name) {
  const auto* a = attribute(node, name);
  return a ? std::vector<std::int64_t>(a->ints().begin(), a->ints().end()) : std::vector<std::int64_t>();
}
std::vector<std::string> texts(const onnx::NodeProto& node, const std::string& name) {
  const auto* a = attribute(node, name);
  return a ? std::vector<std::string>(a->strings().begin(), a->strings().end()) : std::vector<std::string>();
}
const std::string& input(const onnx::NodeProto& node, int i) {
  static const std::string none;
  return i >= 0 && i < node.input_size() ? node.input(i) : none;
}

int version_of(const onnx::ModelProto& model, const std::string& domain) {
  for (const auto& o : model.opset_import())
    if (o.domain() == domain) return static_cast<int>(o.version());
  return 0;
}

Index::Index(const onnx::GraphProto& graph) {
  for (const auto& node : graph.node()) {
    nodes_.emplace(node.name(), &node);
    for (const auto& t : node.output())
      if (!t.empty()) producers_.emplace(t, &node);
    for (const auto& t : node.input())
      if (!t.empty()) readers_.emplace(t, &node);
  }
  for (const auto& t : graph.initializer()) initializers_.emplace(t.name(), &t);
}

namespace {
template <class Map>
typename Map::mapped_type find(const Map& map, const std::string& key) {
  const auto it = map.find(key);
  return it == map.end() ? nullptr : it->second;
}
}  // namespace

const onnx::NodeProto* Index::node(const std::string& name) const {
  return find(nodes_, name);
}
const onnx::NodeProto* Index::producer(const std::string& tensor) const {
  return find(producers_, tensor);
}
const onnx::TensorProto* Index::initializer(const std::string& name) const {
  return find(initializers_, name);
}
std::vector<const onnx::NodeProto*> Index::readers(const std::string& tensor) const {
  std::vector<const onnx::NodeProto*> out;
  const auto [begin, end] = readers_.equal_range(tensor);
  for (auto it = begin; it != end; ++it) out.push_back(it->second);
  return out;
}

}  // namespace quanvas::onnx_scan
