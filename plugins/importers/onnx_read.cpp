// ModelProto to Draft: names, attributes, initializers; what cannot be represented becomes opaque.
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "plugins/importers/onnx_draft.h"
#include "plugins/importers/onnx_quant.h"
#include "plugins/importers/onnx_scope.h"

namespace quanvas::onnx_import {
namespace {

Failure bad(const Source& source, const std::string& what) {
  return fail(ErrorCode::kCorrupt, "'" + source.path + "': " + what + ".",
              "The file is damaged or was written by a faulty exporter.");
}

bool is_default_domain(const std::string& domain) {
  return domain.empty() || domain == "ai.onnx";
}

std::string plain_domain(const std::string& domain) {
  return is_default_domain(domain) ? std::string() : domain;
}

constexpr int kDeepest = 64;                 // subgraphs and functions in each other
constexpr std::size_t kMostNodes = 1 << 20;  // that functions may be expanded to

class Reader {
 public:
  Reader(onnx::ModelProto& model, const Source& source, Draft& draft)
      : graph_(*model.mutable_graph()), source_(source), draft_(draft) {
    for (const auto& f : model.functions()) functions_[{plain_domain(f.domain()), f.name()}] = &f;
  }

  Status run() {
    for (const auto& n : graph_.node())
      for (const auto& t : n.output()) used_.insert(printable(t));
    for (const auto& v : graph_.input()) used_.insert(printable(v.name()));
    QUANVAS_CHECK(initializers(graph_, scope_));
    inputs();
    for (auto& info : *graph_.mutable_value_info()) declare(info, scope_);
    for (auto& info : *graph_.mutable_output()) {
      declare(info, scope_);
      draft_.outputs.push_back(printable(info.name()));
      draft_.output_names.insert(draft_.outputs.back());
    }
    for (auto& node : *graph_.mutable_node()) QUANVAS_CHECK(add_node(node, scope_, draft_.nodes));
    return {};
  }

 private:
  onnx::GraphProto& graph_;
  const Source& source_;
  Draft& draft_;
  Scope scope_;                                            // of the main graph: names stay as they are
  std::map<std::string, std::int64_t> symbols_;            // of dim_param
  std::unordered_map<std::string, std::string> produced_;  // tensor, node
  std::unordered_set<std::string> used_;
  std::map<std::pair<std::string, std::string>, const onnx::FunctionProto*> functions_;
  std::size_t expanded_ = 0;
  std::map<std::string, int> two_bit_;  // constants of two bits: their type in the file

  // A name that nothing in the file has: the given one, or with a number.
  std::string fresh(const std::string& wanted) {
    std::string name = wanted.empty() ? "value" : wanted;
    for (int k = 2; !used_.insert(name).second; ++k) name = wanted + "_" + std::to_string(k);
    return name;
  }
  const std::string& define(const std::string& name, Scope& scope, const std::string& prefix = {}) {
    return scope.names[name] = fresh(prefix + printable(name));
  }

  Status add_constant(const std::string& name, TensorData data) {
    if (name.empty()) return bad(source_, "an initializer has no name");
    draft_.facts[name] = {data.type, data.shape};
    if (!draft_.constants.emplace(name, std::move(data)).second)
      return bad(source_, "two initializers are called '" + name + "'");
    return {};
  }

  // Those of subgraphs become initializers of the whole, which the subgraphs capture.
  Status initializers(onnx::GraphProto& graph, Scope& scope) {
    const bool is_main = &scope == &scope_;
    const auto add = [&](const std::string& name, Result<TensorData> data) -> Status {
      if (!data) return Failure(data.error());
      if (is_main) {
        used_.insert(printable(name));
        return add_constant(printable(name), std::move(*data));
      }
      if (scope.names.count(name)) return {};  // the default of an input that is always given
      return add_constant(define(name, scope), std::move(*data));
    };
    for (auto& t : *graph.mutable_initializer()) {
      QUANVAS_CHECK(source_.job.check());
      const int type = t.data_type();
      QUANVAS_CHECK(add(t.name(), read_tensor(t, source_)));
      if (is_two_bit_type(type)) two_bit_[scope.resolve(t.name())] = type;
    }
    for (auto& t : *graph.mutable_sparse_initializer())
      QUANVAS_CHECK(add(t.values().name(), read_sparse(t, source_)));
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
    facts.type = static_cast<DataType>(wide_type(type.elem_type()));
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

  void declare(const onnx::ValueInfoProto& info, const Scope& scope) {
    const std::string name = scope.resolve(info.name());
    if (!draft_.facts.count(name)) draft_.declared[name] = facts_of(info, false);
  }

  Status add_node(onnx::NodeProto& proto, Scope& scope, std::vector<DraftNode>& nodes,
                  const std::string& prefix = {}) {
    QUANVAS_CHECK(source_.job.check());
    const auto function = functions_.find({plain_domain(proto.domain()), proto.op_type()});
    if (function != functions_.end()) return expand(*function->second, proto, scope, nodes, prefix);
    if (is_default_domain(proto.domain()) && proto.op_type() == "Constant" && proto.output_size() == 1) {
      QUANVAS_TRY(const bool done, add_constant_node(proto, scope));
      if (done) return {};
    }
    DraftNode node;
    node.name = proto.name().empty() ? std::string() : prefix + printable(proto.name());
    node.op = printable(proto.op_type());
    if (node.op.empty()) return bad(source_, "the node '" + node.name + "' has no operator");
    if (!is_default_domain(proto.domain())) node.domain = printable(proto.domain());
    for (const auto& t : proto.input()) node.inputs.push_back(scope.resolve(t));
    for (const auto& t : proto.output()) node.outputs.push_back(scope.resolve(t));
    if (node.outputs.empty()) return bad(source_, "the node '" + node.label() + "' has no outputs");
    for (const std::string& t : node.outputs)
      if (!t.empty() && (draft_.facts.count(t) || !produced_.emplace(t, node.label()).second))
        return bad(source_,
                   "the tensor '" + t + "' is produced twice, the second time by the node '" + node.label() + "'");
    for (auto& a : *proto.mutable_attribute()) QUANVAS_CHECK(add_argument(a, node, scope));
    capture(node);
    judge(node);
    std::optional<DraftNode> clip = two_bit_clip(node);
    nodes.push_back(std::move(node));
    if (clip) nodes.push_back(std::move(*clip));
    return {};
  }

  static int wide_type(std::int64_t type) {
    const DataType wide = type == kUint2Type  ? DataType::kUint8
                          : type == kInt2Type ? DataType::kInt8
                                              : static_cast<DataType>(type);
    return static_cast<int>(wide);
  }

  // Codes of two bits are held in eight: QuantizeLinear then needs telling which there are.
  std::optional<DraftNode> two_bit_clip(DraftNode& node) {
    if (!node.domain.empty() || node.op != "QuantizeLinear" || node.outputs.size() != 1) return std::nullopt;
    const auto zero = two_bit_.find(node.input(2));
    const std::int64_t said = node.integer("output_dtype", 0), type = zero != two_bit_.end() ? zero->second : said;
    if (!is_two_bit_type(type)) return std::nullopt;
    if (said != 0) node.attributes["output_dtype"] = static_cast<std::int64_t>(wide_type(said));
    DraftNode clip;
    clip.op = "Clip";
    clip.outputs = node.outputs;
    node.outputs = {fresh(node.outputs[0] + "_wide")};
    clip.inputs = node.outputs;
    const bool is_signed = type == kInt2Type;
    for (const int limit : {is_signed ? -2 : 0, is_signed ? 1 : 3}) {
      const std::string name = fresh(clip.outputs[0] + (limit < 1 ? "_least" : "_most"));
      const auto code = static_cast<std::uint8_t>(limit);
      TensorData data = TensorData::copy_of(is_signed ? DataType::kInt8 : DataType::kUint8, {}, &code, 1);
      draft_.facts[name] = {data.type, data.shape};
      draft_.constants[name] = std::move(data);
      clip.inputs.push_back(name);
    }
    return clip;
  }

  // The nodes of a function instead of its call.
  Status expand(const onnx::FunctionProto& function, const onnx::NodeProto& call, const Scope& outer,
                std::vector<DraftNode>& nodes, const std::string& prefix) {
    if (outer.depth >= kDeepest)
      return bad(source_, "the function '" + printable(function.name()) + "' calls itself or too many others");
    if (expanded_ += static_cast<std::size_t>(function.node_size()); expanded_ > kMostNodes)
      return bad(source_, "its functions stand for more than a million nodes");
    std::string path = prefix + printable(call.name().empty() ? call.op_type() : call.name());
    path = call.name().empty() ? fresh(path) + "/" : path + "/";
    Scope scope;
    scope.depth = outer.depth + 1;
    std::map<std::string, const onnx::AttributeProto*> arguments;
    std::vector<onnx::AttributeProto> defaults = default_arguments(function);
    for (const auto& a : defaults) arguments[a.name()] = &a;
    for (const auto& a : call.attribute()) {
      const onnx::AttributeProto* value = &a;
      if (!a.ref_attr_name().empty()) value = outer.argument(a.ref_attr_name());
      if (value) arguments[a.name()] = value;
    }
    scope.arguments = &arguments;
    for (int i = 0; i < function.input_size(); ++i)
      scope.names[function.input(i)] = i < call.input_size() ? outer.resolve(call.input(i)) : std::string();
    std::vector<std::pair<std::string, std::string>> passed;  // results that are inputs
    for (int i = 0; i < function.output_size(); ++i) {
      const std::string result = i < call.output_size() ? outer.resolve(call.output(i)) : std::string();
      if (const std::string* known = scope.find(function.output(i))) {
        if (!result.empty()) passed.emplace_back(*known, result);
      } else if (!result.empty()) {
        scope.names[function.output(i)] = result;
      }
    }
    for (const auto& n : function.node())
      for (const auto& t : n.output())
        if (!t.empty() && !scope.names.count(t)) define(t, scope, path);
    for (onnx::NodeProto n : function.node()) QUANVAS_CHECK(add_node(n, scope, nodes, path));
    for (const auto& [from, to] : passed) {
      DraftNode identity;
      identity.op = "Identity";
      identity.inputs = {from};
      identity.outputs = {to};
      nodes.push_back(std::move(identity));
    }
    return {};
  }

  // Field 11 came with a newer version of the format than the library knows.
  static std::vector<onnx::AttributeProto> default_arguments(const onnx::FunctionProto& function) {
    std::vector<onnx::AttributeProto> out;
    const auto& fields = function.unknown_fields();
    for (int i = 0; i < fields.field_count(); ++i) {
      const auto& field = fields.field(i);
      onnx::AttributeProto a;
      if (field.number() == 11 && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED &&
          a.ParseFromString(field.length_delimited()))
        out.push_back(std::move(a));
    }
    return out;
  }

  static void judge(DraftNode& node) {
    if (!node.opaque_reason.empty()) return;
    // Early exporters named no domain for them.
    if (node.domain.empty() && is_qonnx_operator("onnx.brevitas", node.op)) node.domain = "onnx.brevitas";
    if (node.domain == "ai.onnx.ml")
      node.opaque_reason = "the operators of ai.onnx.ml (trees, support vectors, tables of texts) are not computed";
    else if (node.domain == "ai.onnx.preview.training" || node.domain == "ai.onnx.training")
      node.opaque_reason =
          "the operator " + node.op + " belongs to training, and networks are trained by recipes here";
    else if (is_qonnx_operator(node.domain, node.op))
      return;
    else if (!node.domain.empty())
      node.opaque_reason = "the operator " + node.op + " of the domain '" + node.domain + "' is not known";
    else if (!is_known_operator(node.op))
      node.opaque_reason = "there is no ONNX operator " + node.op;
    else if (const std::string why = implausible(node); !why.empty())
      node.opaque_reason = why;
  }

  Result<bool> add_constant_node(onnx::NodeProto& proto, const Scope& scope) {
    const std::string name = scope.resolve(proto.output(0));
    if (proto.attribute_size() != 1) return false;
    onnx::AttributeProto a = proto.attribute(0);
    if (!a.ref_attr_name().empty()) {
      const onnx::AttributeProto* value = scope.argument(a.ref_attr_name());
      if (!value) return false;
      const std::string key = a.name();
      a = *value;
      a.set_name(key);
    }
    std::optional<TensorData> data;
    if (a.name() == "value" && a.has_t()) {
      a.mutable_t()->set_name(proto.output(0));
      if (is_two_bit_type(a.t().data_type())) two_bit_[name] = a.t().data_type();
      QUANVAS_TRY(data, read_tensor(*a.mutable_t(), source_));
    } else if (a.name() == "sparse_value" && a.has_sparse_tensor()) {
      QUANVAS_TRY(data, read_sparse(*a.mutable_sparse_tensor(), source_));
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
    if (produced_.count(name)) return bad(source_, "the tensor '" + name + "' is produced twice");
    QUANVAS_CHECK(add_constant(name, std::move(*data)));
    return true;
  }

  Status add_argument(onnx::AttributeProto& a, DraftNode& node, Scope& scope) {
    if (a.ref_attr_name().empty()) return add_attribute(a, node, scope);
    const onnx::AttributeProto* value = scope.argument(a.ref_attr_name());
    if (!value) return {};  // the operator's own default
    onnx::AttributeProto copy = *value;
    copy.set_name(a.name());
    return add_attribute(copy, node, scope);
  }

  Status add_attribute(onnx::AttributeProto& a, DraftNode& node, Scope& scope) {
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
      case A::TYPE_PROTO:  // of an optional that holds nothing: nothing to compute with
        return {};
      case A::GRAPH: {
        if (a.g().output_size() == 0) {
          node.opaque_reason = "its subgraph '" + key + "' has no outputs";
          return {};
        }
        QUANVAS_TRY(node.bodies[key], read_body(*a.mutable_g(), scope, node.label()));
        return {};
      }
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

  Result<std::shared_ptr<const DraftBody>> read_body(onnx::GraphProto& graph, const Scope& outer,
                                                     const std::string& owner) {
    Scope scope;
    scope.outer = &outer;
    scope.depth = outer.depth + 1;
    if (scope.depth > kDeepest)
      return bad(source_, "the node '" + owner + "' holds subgraphs in each other without end");
    auto body = std::make_shared<DraftBody>();
    body->name = printable(graph.name());
    for (const auto& v : graph.input()) body->inputs.push_back(define(v.name(), scope));
    QUANVAS_CHECK(initializers(graph, scope));
    for (const auto& n : graph.node())
      for (const auto& t : n.output()) {
        if (t.empty()) continue;
        if (scope.names.count(t))
          return bad(source_,
                     "the tensor '" + printable(t) + "' is produced twice in a subgraph of '" + owner + "'");
        define(t, scope);
      }
    for (auto* infos : {graph.mutable_input(), graph.mutable_value_info(), graph.mutable_output()})
      for (const auto& info : *infos) declare(info, scope);
    for (auto& n : *graph.mutable_node()) QUANVAS_CHECK(add_node(n, scope, body->nodes));
    for (const auto& v : graph.output()) body->outputs.push_back(scope.resolve(v.name()));
    return body;
  }

  // What subgraphs read from outside become the last inputs of their node.
  static void capture(DraftNode& node) {
    std::unordered_set<std::string> there;
    for (const auto& [key, body] : node.bodies) {
      std::unordered_set<std::string> inside(body->inputs.begin(), body->inputs.end());
      for (const DraftNode& n : body->nodes) inside.insert(n.outputs.begin(), n.outputs.end());
      const auto add = [&](const std::string& t) {
        if (!t.empty() && !inside.count(t) && there.insert(t).second) node.captured.push_back(t);
      };
      for (const DraftNode& n : body->nodes)
        for (const std::string& t : n.inputs) add(t);
      for (const std::string& t : body->outputs) add(t);
    }
    node.inputs.insert(node.inputs.end(), node.captured.begin(), node.captured.end());
  }
};

}  // namespace

Result<Draft> read_draft(onnx::ModelProto& model, const Source& source) {
  Draft draft;
  if (!model.has_graph()) return bad(source, "it has no graph; it is no ONNX model or only its beginning");
  if (model.opset_import_size() == 0)
    return bad(source, "it names no operator set (opset_import); it is no ONNX model or only its beginning");
  // A model whose main graph only calls functions may leave the operators' version to them.
  draft.opset = 1;
  const auto take = [&](const auto& imports) {
    for (const auto& o : imports)
      if (is_default_domain(o.domain()))
        draft.opset = static_cast<int>(std::clamp<std::int64_t>(o.version(), 1, 1000));
  };
  for (const auto& f : model.functions()) take(f.opset_import());
  take(model.opset_import());
  draft.name = printable(model.graph().name());
  QUANVAS_CHECK(Reader(model, source, draft).run());
  if (draft.outputs.empty()) return bad(source, "its graph has no outputs");
  return draft;
}

}  // namespace quanvas::onnx_import
