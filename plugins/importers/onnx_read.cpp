// ModelProto to Draft: names, attributes, initializers; what cannot be represented becomes opaque.
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

Failure bad(const Source& source, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + source.path + "': " + what + ".",
              "The file is damaged or was written by a faulty exporter.");
}

bool is_default_domain(const std::string& domain) {
  return domain.empty() || domain == "ai.onnx";
}

// Length of the UTF-8 sequence at i, 0 when it is none.
std::size_t utf8_length(const std::string& s, std::size_t i) {
  const auto c = static_cast<unsigned char>(s[i]);
  const std::size_t n = c < 0x80                ? 1
                        : c >= 0xc2 && c < 0xe0 ? 2
                        : c >= 0xe0 && c < 0xf0 ? 3
                        : c >= 0xf0 && c < 0xf5 ? 4
                                                : 0;
  if (n == 0 || i + n > s.size()) return 0;
  for (std::size_t k = 1; k < n; ++k)
    if ((static_cast<unsigned char>(s[i + k]) & 0xc0) != 0x80) return 0;
  const auto second = n > 1 ? static_cast<unsigned char>(s[i + 1]) : 0;
  const bool is_bad = (c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) ||
                      (c == 0xf0 && second < 0x90) || (c == 0xf4 && second >= 0x90);
  return is_bad ? 0 : n;
}

class Reader {
 public:
  Reader(onnx::GraphProto& graph, const Source& source, Draft& draft)
      : graph_(graph), source_(source), draft_(draft) {}

  Status run() {
    QUANVAS_CHECK(initializers());
    inputs();
    for (auto& info : *graph_.mutable_value_info()) declare(info);
    for (auto& info : *graph_.mutable_output()) {
      declare(info);
      draft_.outputs.push_back(printable(info.name()));
      draft_.output_names.insert(draft_.outputs.back());
    }
    for (auto& node : *graph_.mutable_node()) {
      QUANVAS_CHECK(source_.job.check());
      QUANVAS_CHECK(add_node(node));
    }
    return {};
  }

 private:
  onnx::GraphProto& graph_;
  const Source& source_;
  Draft& draft_;
  std::map<std::string, std::int64_t> symbols_;            // of dim_param
  std::unordered_map<std::string, std::string> produced_;  // tensor, node

  Status add_constant(const std::string& name, TensorData data) {
    if (name.empty()) return bad(source_, "an initializer has no name");
    draft_.facts[name] = {data.type, data.shape};
    if (!draft_.constants.emplace(name, std::move(data)).second)
      return bad(source_, "two initializers are called '" + name + "'");
    return {};
  }

  Status initializers() {
    if (graph_.sparse_initializer_size() > 0)
      return fail(ErrorCode::kUnsupported,
                  "'" + source_.path + "': the tensor '" + printable(graph_.sparse_initializer(0).values().name()) +
                      "' is stored as a sparse initializer, which is not supported.",
                  "Export the model with dense weights.");
    for (auto& t : *graph_.mutable_initializer()) {
      QUANVAS_CHECK(source_.job.check());
      QUANVAS_TRY(TensorData data, read_tensor(t, source_));
      QUANVAS_CHECK(add_constant(printable(t.name()), std::move(data)));
    }
    return {};
  }

  std::int64_t dimension(const onnx::TensorShapeProto::Dimension& d, bool is_input) {
    if (d.has_dim_value() && d.dim_value() > 0) return d.dim_value();
    // Old exporters write 0 or -1 for a batch that they do not know.
    if (d.has_dim_value() && d.dim_value() == 0 && !is_input) return 0;
    if (!d.dim_param().empty()) {
      const auto [it, added] = symbols_.try_emplace(d.dim_param(), 0);
      if (added) it->second = draft_.new_symbol();
      return it->second;
    }
    return is_input ? draft_.new_symbol() : kUnknownDim;
  }

  TensorFacts facts_of(const onnx::ValueInfoProto& info, bool is_input) {
    TensorFacts facts;
    if (!info.type().has_tensor_type()) return facts;
    const auto& type = info.type().tensor_type();
    facts.type = static_cast<DataType>(type.elem_type());
    if (!type.has_shape()) return facts;
    facts.shape.emplace();
    for (const auto& d : type.shape().dim()) facts.shape->push_back(dimension(d, is_input));
    return facts;
  }

  void inputs() {
    for (const auto& info : graph_.input()) {
      const std::string name = printable(info.name());
      if (draft_.constants.count(name)) continue;
      draft_.inputs.push_back(name);
      draft_.facts[name] = facts_of(info, true);
    }
  }

  void declare(const onnx::ValueInfoProto& info) {
    const std::string name = printable(info.name());
    if (!draft_.facts.count(name)) draft_.declared[name] = facts_of(info, false);
  }

  Status add_node(onnx::NodeProto& proto) {
    if (is_default_domain(proto.domain()) && proto.op_type() == "Constant" && proto.output_size() == 1) {
      QUANVAS_TRY(const bool done, add_constant_node(proto));
      if (done) return {};
    }
    DraftNode node;
    node.name = printable(proto.name());
    node.op = printable(proto.op_type());
    if (node.op.empty()) return bad(source_, "the node '" + node.name + "' has no operator");
    if (!is_default_domain(proto.domain())) node.domain = printable(proto.domain());
    for (const auto& t : proto.input()) node.inputs.push_back(printable(t));
    for (const auto& t : proto.output()) node.outputs.push_back(printable(t));
    if (node.outputs.empty()) return bad(source_, "the node '" + node.label() + "' has no outputs");
    for (const std::string& t : node.outputs)
      if (!t.empty() && (draft_.facts.count(t) || !produced_.emplace(t, node.label()).second))
        return bad(source_,
                   "the tensor '" + t + "' is produced twice, the second time by the node '" + node.label() + "'");
    for (auto& a : *proto.mutable_attribute()) QUANVAS_CHECK(add_attribute(a, node));
    judge(node);
    draft_.nodes.push_back(std::move(node));
    return {};
  }

  static void judge(DraftNode& node) {
    if (!node.opaque_reason.empty()) return;
    if (!node.domain.empty())
      node.opaque_reason = "the operator " + node.op + " of the domain '" + node.domain + "' is not known";
    else if (!is_known_operator(node.op))
      node.opaque_reason = "there is no ONNX operator " + node.op;
    else if (const std::string why = implausible(node); !why.empty())
      node.opaque_reason = why;
  }

  Result<bool> add_constant_node(onnx::NodeProto& proto) {
    const std::string name = printable(proto.output(0));
    if (proto.attribute_size() != 1) return false;
    auto& a = *proto.mutable_attribute(0);
    std::optional<TensorData> data;
    if (a.name() == "value" && a.has_t()) {
      a.mutable_t()->set_name(proto.output(0));
      QUANVAS_TRY(data, read_tensor(*a.mutable_t(), source_));
    } else if (a.name() == "value_float") {
      data = TensorData::of_floats({}, {a.f()});
    } else if (a.name() == "value_int") {
      data = TensorData::of_int64({}, {a.i()});
    } else if (a.name() == "value_floats") {
      data = TensorData::of_floats({a.floats_size()}, {a.floats().begin(), a.floats().end()});
    } else if (a.name() == "value_ints") {
      data = TensorData::of_int64({a.ints_size()}, {a.ints().begin(), a.ints().end()});
    }
    if (!data) return false;
    QUANVAS_CHECK(add_constant(name, std::move(*data)));
    return true;
  }

  Status add_attribute(onnx::AttributeProto& a, DraftNode& node) {
    const std::string key = printable(a.name());
    using A = onnx::AttributeProto;
    switch (a.type()) {
      case A::INT:
        node.attributes[key] = a.i();
        return {};
      case A::FLOAT:
        node.attributes[key] = a.f();
        return {};
      case A::STRING:
        node.attributes[key] = printable(a.s());
        return {};
      case A::INTS:
        node.attributes[key] = std::vector<std::int64_t>(a.ints().begin(), a.ints().end());
        return {};
      case A::FLOATS:
        node.attributes[key] = std::vector<float>(a.floats().begin(), a.floats().end());
        return {};
      case A::STRINGS: {
        std::vector<std::string> texts;
        for (const auto& s : a.strings()) texts.push_back(printable(s));
        node.attributes[key] = std::move(texts);
        return {};
      }
      case A::TENSOR:
        return add_tensor_attribute(a, key, node);
      case A::GRAPH:
      case A::GRAPHS:
        node.opaque_reason = "it holds a subgraph ('" + key + "'), and subgraphs are not executed";
        node.attributes[key] = std::string("subgraph");
        if (a.has_g()) capture(a.g(), node);
        for (const auto& g : a.graphs()) capture(g, node);
        return {};
      default:
        node.opaque_reason = "its attribute '" + key + "' is of a kind that cannot be represented";
        return {};
    }
  }

  // ConstantOfShape: the one element becomes a plain number, its element type the attribute "dtype".
  Status add_tensor_attribute(onnx::AttributeProto& a, const std::string& key, DraftNode& node) {
    a.mutable_t()->set_name(node.label() + "." + key);
    QUANVAS_TRY(const TensorData data, read_tensor(*a.mutable_t(), source_));
    const auto value = data.count() == 1 ? value_of(data) : std::nullopt;
    if (node.op != "ConstantOfShape" || !value) {
      node.opaque_reason = "its tensor attribute '" + key + "' cannot be represented";
      return {};
    }
    const Cell& cell = value->cells[0];
    if (is_floating(data.type))
      node.attributes[key] = static_cast<float>(cell.real);
    else
      node.attributes[key] = cell.integer;
    node.attributes["dtype"] = static_cast<std::int64_t>(data.type);
    return {};
  }

  // What a subgraph reads from outside becomes inputs of its node, so that the graph shows the dependency.
  void capture(const onnx::GraphProto& g, DraftNode& node) const {
    std::unordered_set<std::string> inner;
    for (const auto& v : g.input()) inner.insert(v.name());
    for (const auto& t : g.initializer()) inner.insert(t.name());
    for (const auto& n : g.node()) inner.insert(n.output().begin(), n.output().end());
    const auto add = [&](const std::string& t) {
      const std::string name = printable(t);
      const bool there = std::find(node.inputs.begin(), node.inputs.end(), name) != node.inputs.end();
      if (!t.empty() && !inner.count(t) && !there && is_outer(name)) node.inputs.push_back(name);
    };
    for (const auto& n : g.node()) {
      for (const auto& t : n.input()) add(t);
      for (const auto& a : n.attribute()) {
        if (a.has_g()) capture(a.g(), node);
        for (const auto& nested : a.graphs()) capture(nested, node);
      }
    }
    for (const auto& v : g.output()) add(v.name());
  }

  bool is_outer(const std::string& name) const { return draft_.facts.count(name) || produced_.count(name); }
};

}  // namespace

std::string printable(const std::string& name) {
  std::string out;
  out.reserve(name.size());
  for (std::size_t i = 0; i < name.size();) {
    if (const std::size_t n = utf8_length(name, i)) {
      out.append(name, i, n);
      i += n;
      continue;
    }
    char hex[5];
    std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned char>(name[i++]));
    out += hex;
  }
  return out;
}

Result<Draft> read_draft(onnx::ModelProto& model, const Source& source) {
  Draft draft;
  if (!model.has_graph()) return bad(source, "it has no graph; it is no ONNX model or only its beginning");
  if (model.opset_import_size() == 0)
    return bad(source, "it names no operator set (opset_import); it is no ONNX model or only its beginning");
  draft.opset = 1;
  for (const auto& o : model.opset_import())
    if (is_default_domain(o.domain()))
      draft.opset = static_cast<int>(std::clamp<std::int64_t>(o.version(), 1, 1000));
  draft.name = printable(model.graph().name());
  QUANVAS_CHECK(Reader(*model.mutable_graph(), source, draft).run());
  if (draft.outputs.empty()) return bad(source, "its graph has no outputs");
  return draft;
}

}  // namespace quanvas::onnx_import
