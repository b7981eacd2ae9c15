#include "plugins/exporters/onnx_write.h"

#include <bit>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/base/files.h"
#include "core/base/version.h"

namespace quanvas::onnx_file {

namespace {

struct Release {
  int opset, ir;
};
constexpr Release kReleases[] = {{25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9}, {15, 8}, {12, 7}, {11, 6},
                                 {10, 5},  {0, 4}};

struct DomainVersion {
  const char* domain;
  int version;
};
// A Graph keeps the opset of ai.onnx only; these are the newest that runtimes of opset 13 know.
constexpr DomainVersion kDomains[] = {{"ai.onnx.ml", 2}};

struct SetAttribute {
  onnx::AttributeProto& proto;
  void operator()(std::int64_t v) const {
    proto.set_type(onnx::AttributeProto::INT);
    proto.set_i(v);
  }
  void operator()(float v) const {
    proto.set_type(onnx::AttributeProto::FLOAT);
    proto.set_f(v);
  }
  void operator()(const std::string& v) const {
    proto.set_type(onnx::AttributeProto::STRING);
    proto.set_s(v);
  }
  void operator()(const std::vector<std::int64_t>& v) const {
    proto.set_type(onnx::AttributeProto::INTS);
    proto.mutable_ints()->Add(v.begin(), v.end());
  }
  void operator()(const std::vector<float>& v) const {
    proto.set_type(onnx::AttributeProto::FLOATS);
    proto.mutable_floats()->Add(v.begin(), v.end());
  }
  void operator()(const std::vector<std::string>& v) const {
    proto.set_type(onnx::AttributeProto::STRINGS);
    for (const std::string& s : v) proto.add_strings(s);
  }
  void operator()(const GraphPtr&) const {}  // refused by check_graph
};

// ConstantOfShape's value is a tensor of one element in the file; a Graph holds the number and its type.
bool set_fill_value(const Attributes& attributes, onnx::NodeProto& node) {
  const auto value = attributes.find("value");
  const auto type = attributes.find("dtype");
  if (value == attributes.end() || type == attributes.end()) return false;
  const auto* number = std::get_if<std::int64_t>(&type->second);
  if (number == nullptr) return false;
  onnx::AttributeProto* a = node.add_attribute();
  a->set_name("value");
  a->set_type(onnx::AttributeProto::TENSOR);
  onnx::TensorProto* t = a->mutable_t();
  t->add_dims(1);
  t->set_data_type(static_cast<int>(*number));
  const auto* real = std::get_if<float>(&value->second);
  const auto* integer = std::get_if<std::int64_t>(&value->second);
  switch (static_cast<DataType>(*number)) {
    case DataType::kFloat: t->add_float_data(real ? *real : 0); break;
    case DataType::kDouble: t->add_double_data(real ? *real : 0); break;
    case DataType::kInt64: t->add_int64_data(integer ? *integer : 0); break;
    case DataType::kFloat16: t->add_int32_data(float_to_half(real ? *real : 0)); break;
    case DataType::kBfloat16:
      t->add_int32_data(static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(real ? *real : 0.0f) >> 16));
      break;
    case DataType::kUint32:
    case DataType::kUint64: t->add_uint64_data(integer ? static_cast<std::uint64_t>(*integer) : 0); break;
    default: t->add_int32_data(integer ? static_cast<std::int32_t>(*integer) : 0); break;
  }
  return real != nullptr || integer != nullptr;
}

}  // namespace

int ir_version(int opset) {
  for (const Release& r : kReleases)
    if (opset >= r.opset) return r.ir;
  return 4;
}

std::string data_path(const std::string& path) {
  return path + ".data";
}

std::vector<std::string> onnx_files(const std::string& path, bool external) {
  std::error_code ec;
  if (external || std::filesystem::exists(data_path(path), ec)) return {path, data_path(path)};
  return {path};
}

Field external_field() {
  return choice_field("external_data", "Weights",
                      "In the file itself as far as it holds them (2 GiB), or always in a second file beside it, *.data.",
                      "auto", {{"auto", "In the file up to 2 GiB", ""}, {"always", "Beside the file", ""}});
}

void add_attribute(onnx::NodeProto& node, const std::string& name, const Attribute& value) {
  onnx::AttributeProto* a = node.add_attribute();
  a->set_name(name);
  std::visit(SetAttribute{*a}, value);
}

ModelWriter::ModelWriter(const Model& model, int opset) : model_(model), opset_(opset) {
  for (const TensorInfo& t : model.graph->tensors()) tensor_names_.insert(t.name);
  for (const Node& n : model.graph->nodes()) node_names_.insert(n.name);
  proto_.set_ir_version(ir_version(opset));
  proto_.set_producer_name("Quanvas");
  proto_.set_producer_version(QUANVAS_VERSION);
  proto_.mutable_graph()->set_name(model.graph->name().empty() ? "graph" : model.graph->name());
}

std::string ModelWriter::unique(const std::string& wanted, std::unordered_set<std::string>& taken) {
  std::string name = wanted;
  for (int i = 1; !taken.insert(name).second; ++i) name = wanted + "_" + std::to_string(i);
  return name;
}

void ModelWriter::initializer(const std::string& name, DataType type, const Shape& dims, std::string raw) {
  onnx::TensorProto* t = proto_.mutable_graph()->add_initializer();
  t->set_name(name);
  t->set_data_type(static_cast<int>(type));
  for (const std::int64_t d : dims) t->add_dims(d);
  t->set_raw_data(std::move(raw));
}

void ModelWriter::replace_initializer(const std::string& name, DataType type, const Shape& dims, std::string raw) {
  if (written_.insert(name).second) initializer(name, type, dims, std::move(raw));
}

void ModelWriter::need(const std::string& name) {
  const TensorId id = model_.graph->tensor(name);
  if (id == kNoTensor || !model_.graph->tensor(id).is_initializer || !written_.insert(name).second) return;
  if (const TensorData* data = model_.weights->find(name))
    initializer(name, data->type, data->shape, {reinterpret_cast<const char*>(data->data), data->bytes});
}

onnx::NodeProto& ModelWriter::node(const std::string& op, const std::string& name,
                                   const std::vector<std::string>& inputs,
                                   const std::vector<std::string>& outputs) {
  onnx::NodeProto* n = proto_.mutable_graph()->add_node();
  n->set_name(node_name(name));
  n->set_op_type(op);
  for (const std::string& s : inputs) {
    need(s);
    n->add_input(s);
  }
  for (const std::string& s : outputs) n->add_output(s);
  return *n;
}

Status ModelWriter::copy(NodeDraft draft) {
  bool is_own = true;
  for (NodeDraft& part : in_onnx(std::move(draft), opset_, [this](const std::string& t) { return tensor_name(t); }))
    QUANVAS_CHECK(copy_one(std::move(part), std::exchange(is_own, false)));
  return {};
}

Status ModelWriter::copy_one(NodeDraft draft, bool is_own) {
  const std::string own_name = draft.name;
  if (const std::string why = upgrade(draft, *model_.graph, model_.graph->opset(), opset_); !why.empty())
    return fail(ErrorCode::kUnsupported, "Node '" + own_name + "' cannot be written at opset " +
                                             std::to_string(opset_) + ": " + why + ".");
  for (NodeDraft::Constant& c : draft.constants) {
    // What is large and the same, as the matrices of rotations are, is in the file once.
    constexpr std::size_t kLarge = 4096;
    std::string& kept = constants_[c.data.bytes < kLarge ? c.name : shape_text(c.data.shape) + type_name(c.data.type) + c.data.content_hash()];
    const bool fresh = kept.empty() || c.data.bytes < kLarge;
    if (fresh) kept = tensor_name(c.name);
    for (std::string& input : draft.inputs)
      if (input == c.name) input = kept;
    if (fresh) initializer(kept, c.data.type, c.data.shape, {reinterpret_cast<const char*>(c.data.data), c.data.bytes});
  }
  while (!draft.inputs.empty() && draft.inputs.back().empty()) draft.inputs.pop_back();
  if (is_own) node_names_.erase(own_name);
  onnx::NodeProto& n = node(draft.op, own_name, draft.inputs, draft.outputs);
  if (!draft.domain.empty()) {
    n.set_domain(draft.domain);
    domains_.insert(draft.domain);
  }
  if (draft.op == "ConstantOfShape" && draft.domain.empty() && set_fill_value(draft.attributes, n)) return {};
  for (const auto& [key, value] : draft.attributes) add_attribute(n, key, value);
  return {};
}

void ModelWriter::value_info(TensorId id, onnx::ValueInfoProto& info) const {
  const TensorInfo& t = model_.graph->tensor(id);
  info.set_name(t.name);
  onnx::TypeProto::Tensor* type = info.mutable_type()->mutable_tensor_type();
  type->set_elem_type(static_cast<int>(t.type));
  if (!t.shape) return;
  onnx::TensorShapeProto* shape = type->mutable_shape();
  for (std::size_t i = 0; i < t.shape->size(); ++i) {
    onnx::TensorShapeProto::Dimension* dim = shape->add_dim();
    const std::int64_t d = (*t.shape)[i];
    if (d >= 0) {
      dim->set_dim_value(d);
    } else if (i == 0 && one_sample_) {
      dim->set_dim_value(1);
    } else {
      dim->set_dim_param(i == 0 ? "N" : t.name + "_dim" + std::to_string(i));
    }
  }
}

void ModelWriter::finish() {
  if (std::exchange(is_finished_, true)) return;
  const Graph& graph = *model_.graph;
  for (const TensorId id : graph.inputs()) value_info(id, *proto_.mutable_graph()->add_input());
  for (const TensorId id : graph.outputs()) {
    need(graph.tensor(id).name);
    value_info(id, *proto_.mutable_graph()->add_output());
  }
  onnx::OperatorSetIdProto* set = proto_.add_opset_import();
  set->set_domain("");
  set->set_version(opset_);
  for (const DomainVersion& d : kDomains)
    if (domains_.count(d.domain)) versions_.emplace(d.domain, d.version);
  for (const std::string& domain : domains_) versions_.emplace(domain, 1);
  for (const auto& [domain, version] : versions_) {
    onnx::OperatorSetIdProto* other = proto_.add_opset_import();
    other->set_domain(domain);
    other->set_version(version);
  }
}

Status ModelWriter::save(const std::string& path, bool external, std::size_t most_bytes) {
  finish();
  if (external || proto_.ByteSizeLong() > most_bytes) return save_external(path);
  return write_file_atomically(path, [&](std::ostream& out) { return save_model(path, out); });
}

Status ModelWriter::save_model(const std::string& path, std::ostream& out) const {
  if (const std::size_t bytes = proto_.ByteSizeLong(); bytes > kMaxFileBytes)
    return fail(ErrorCode::kUnsupported, "The ONNX file would have " + std::to_string(bytes) +
                                             " bytes beside its weights; one file holds less than 2 GiB.");
  if (!proto_.SerializeToOstream(&out) || !out.flush())
    return fail(ErrorCode::kIo, "Writing '" + path + "' failed.", "Check the space on the disk.");
  return {};
}

Status ModelWriter::save_external(const std::string& path) {
  constexpr std::size_t kSmallest = 1024, kLarge = std::size_t{1} << 20, kPage = 4096, kAligned = 64;
  struct Piece {
    std::uint64_t offset = 0;
    std::string bytes;
  };
  std::vector<Piece> pieces;
  std::uint64_t end = 0;
  const std::string data = data_path(path), location = std::filesystem::path(data).filename().string();
  for (onnx::TensorProto& t : *proto_.mutable_graph()->mutable_initializer()) {
    if (t.raw_data().size() < kSmallest) continue;
    const std::size_t unit = t.raw_data().size() < kLarge ? kAligned : kPage;  // pages can be mapped on their own
    Piece piece{(end + unit - 1) / unit * unit, std::move(*t.mutable_raw_data())};
    t.clear_raw_data();
    t.set_data_location(onnx::TensorProto::EXTERNAL);
    const auto entry = [&](const char* key, std::string value) {
      onnx::StringStringEntryProto* e = t.add_external_data();
      e->set_key(key);
      e->set_value(std::move(value));
    };
    entry("location", location);
    entry("offset", std::to_string(piece.offset));
    entry("length", std::to_string(piece.bytes.size()));
    end = piece.offset + piece.bytes.size();
    pieces.push_back(std::move(piece));
  }
  return write_file_atomically(path, [&](std::ostream& out) -> Status {
    QUANVAS_CHECK(save_model(path, out));
    return write_file_atomically(data, [&](std::ostream& file) -> Status {
      std::uint64_t at = 0;
      for (const Piece& piece : pieces) {
        const std::string gap(piece.offset - at, '\0');
        file.write(gap.data(), static_cast<std::streamsize>(gap.size()));
        file.write(piece.bytes.data(), static_cast<std::streamsize>(piece.bytes.size()));
        at = piece.offset + piece.bytes.size();
      }
      if (!file) return fail(ErrorCode::kIo, "Writing '" + data + "' failed.", "Check the space on the disk.");
      return {};
    });
  });
}

}  // namespace quanvas::onnx_file
