// Shapes of results: own rules where symbols or newer operator sets need them, else the ONNX library's
// function of that operator, called node by node so that one bad node does not hide all others' shapes.
#include <onnx/defs/schema.h>
#include <onnx/defs/shape_inference.h>

#include <algorithm>
#include <cmath>

#include "core/base/guarded.h"
#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

constexpr int kLibraryOpset = 17;
constexpr std::int64_t kMostDataElements = 4096;

// Operators of opsets that the library does not know yet.
const std::unordered_set<std::string>& newer_operators() {
  static const std::unordered_set<std::string> ops = {
      "Gelu",          "Mish",       "GroupNormalization", "RMSNormalization", "Attention",    "RotaryEmbedding",
      "Col2Im",        "BitwiseAnd", "BitwiseOr",          "BitwiseXor",       "BitwiseNot",   "CenterCropPad",
      "DeformConv",    "AffineGrid", "ImageDecoder",       "RegexFullMatch",   "StringConcat", "StringSplit",
      "TensorScatter", "Swish"};
  return ops;
}

bool is_reduction(const std::string& op) {
  return op.starts_with("Reduce") && op.size() > 6;
}

// Known to the library, but with other inputs or attributes since.
bool has_changed_since(const std::string& op) {
  static const std::unordered_set<std::string> ops = {"Resize", "Split", "Pad", "GroupNormalization"};
  return ops.count(op) > 0;
}

onnx::AttributeProto attribute_proto(const std::string& key, const Attribute& attribute) {
  using A = onnx::AttributeProto;
  A a;
  a.set_name(key);
  if (const auto* i = std::get_if<std::int64_t>(&attribute)) {
    a.set_type(A::INT);
    a.set_i(*i);
  } else if (const auto* f = std::get_if<float>(&attribute)) {
    a.set_type(A::FLOAT);
    a.set_f(*f);
  } else if (const auto* s = std::get_if<std::string>(&attribute)) {
    a.set_type(A::STRING);
    a.set_s(*s);
  } else if (const auto* is = std::get_if<std::vector<std::int64_t>>(&attribute)) {
    a.set_type(A::INTS);
    for (const auto v : *is) a.add_ints(v);
  } else if (const auto* fs = std::get_if<std::vector<float>>(&attribute)) {
    a.set_type(A::FLOATS);
    for (const auto v : *fs) a.add_floats(v);
  } else if (const auto* texts = std::get_if<std::vector<std::string>>(&attribute)) {
    a.set_type(A::STRINGS);
    for (const auto& v : *texts) a.add_strings(v);
  }
  return a;
}

onnx::NodeProto node_proto(const DraftNode& node) {
  onnx::NodeProto p;
  p.set_name(node.name);
  p.set_op_type(node.op);
  for (const auto& t : node.inputs) p.add_input(t);
  for (const auto& t : node.outputs) p.add_output(t);
  for (const auto& [key, value] : node.attributes) {
    const bool is_own = node.op == "ConstantOfShape" && (key == "dtype" || key == "value");
    if (!is_own) *p.add_attribute() = attribute_proto(key, value);
  }
  return p;
}

void write_dim(std::int64_t d, onnx::TensorShapeProto::Dimension& out) {
  if (d >= 0) out.set_dim_value(d);
  if (d < kUnknownDim) out.set_dim_param("s" + std::to_string(-d));
}

std::int64_t read_dim(const onnx::TensorShapeProto::Dimension& d) {
  if (d.has_dim_value()) return d.dim_value() >= 0 ? d.dim_value() : kUnknownDim;
  const std::string& p = d.dim_param();
  return p.size() > 1 && p.size() < 19 && p[0] == 's' ? -std::stoll(p.substr(1)) : kUnknownDim;
}

class Context final : public onnx::InferenceContext {
 public:
  Context(const onnx::NodeProto& node, const Knowledge& known)
      : node_(node), outputs_(static_cast<std::size_t>(node.output_size())) {
    const auto n = static_cast<std::size_t>(node.input_size());
    types_.resize(n);
    data_.resize(n);
    symbolic_.resize(n);
    for (std::size_t i = 0; i < n; ++i) add_input(i, node.input(static_cast<int>(i)), known);
  }

  const onnx::AttributeProto* getAttribute(const std::string& name) const override {
    for (const auto& a : node_.attribute())
      if (a.name() == name) return &a;
    return nullptr;
  }
  size_t getNumInputs() const override { return types_.size(); }
  const onnx::TypeProto* getInputType(size_t i) const override {
    return i < types_.size() ? types_[i].get() : nullptr;
  }
  const onnx::TensorProto* getInputData(size_t i) const override {
    return i < data_.size() ? data_[i].get() : nullptr;
  }
  size_t getNumOutputs() const override { return outputs_.size(); }
  onnx::TypeProto* getOutputType(size_t i) override {
    if (i >= outputs_.size())
      throw std::runtime_error("there are only " + std::to_string(outputs_.size()) + " outputs");
    return &outputs_[i];
  }
  onnx::GraphInferencer* getGraphAttributeInferencer(const std::string&) override { return nullptr; }
  const onnx::SparseTensorProto* getInputSparseData(size_t) const override { return nullptr; }
  const onnx::TensorShapeProto* getSymbolicInput(size_t i) const override {
    return i < symbolic_.size() ? symbolic_[i].get() : nullptr;
  }

  TensorFacts result(std::size_t i) const {
    TensorFacts facts;
    if (!outputs_[i].has_tensor_type()) return facts;
    const auto& t = outputs_[i].tensor_type();
    facts.type = static_cast<DataType>(t.elem_type());
    if (!t.has_shape()) return facts;
    facts.shape.emplace();
    for (const auto& d : t.shape().dim()) facts.shape->push_back(read_dim(d));
    return facts;
  }

 private:
  const onnx::NodeProto& node_;
  std::vector<std::unique_ptr<onnx::TypeProto>> types_;
  std::vector<std::unique_ptr<onnx::TensorProto>> data_;
  std::vector<std::unique_ptr<onnx::TensorShapeProto>> symbolic_;
  std::vector<onnx::TypeProto> outputs_;

  void add_input(std::size_t i, const std::string& name, const Knowledge& known) {
    if (name.empty() || known.type(name) == DataType::kUndefined) return;
    types_[i] = std::make_unique<onnx::TypeProto>();
    auto* type = types_[i]->mutable_tensor_type();
    type->set_elem_type(static_cast<int>(known.type(name)));
    if (const Shape* s = known.shape(name)) {
      type->mutable_shape();
      for (const std::int64_t d : *s) write_dim(d, *type->mutable_shape()->add_dim());
    }
    add_data(i, name, known);
  }

  void add_data(std::size_t i, const std::string& name, const Knowledge& known) {
    const TensorData* constant = known.draft.constant(name);
    if (constant && constant->count() <= kMostDataElements && element_size(constant->type) > 0) {
      data_[i] = std::make_unique<onnx::TensorProto>();
      data_[i]->set_data_type(static_cast<int>(constant->type));
      for (const std::int64_t d : constant->shape) data_[i]->add_dims(d);
      data_[i]->set_raw_data(constant->data, constant->bytes);
      return;
    }
    const auto it = known.values.find(name);
    if (it == known.values.end() || it->second.shape.size() != 1 || is_floating(it->second.type)) return;
    symbolic_[i] = std::make_unique<onnx::TensorShapeProto>();
    for (const Cell& c : it->second.cells) {
      auto* d = symbolic_[i]->add_dim();
      c.symbol ? write_dim(c.symbol, *d) : d->set_dim_value(c.integer);
    }
  }
};

std::optional<TensorFacts> reduction(const DraftNode& n, const Knowledge& known) {
  const Shape* x = known.shape(n.input(0));
  auto axes = n.integers("axes");
  if (!axes && !n.input(1).empty()) {
    const auto v = known.value(n.input(1));
    if (!v || !v->is_number()) return std::nullopt;
    axes.emplace();
    for (const Cell& c : v->cells) axes->push_back(c.integer);
  }
  if (!x) return std::nullopt;
  const auto rank = static_cast<std::int64_t>(x->size());
  const bool keeps = n.integer("keepdims", 1) != 0;
  const bool all = !axes || axes->empty();
  if (all && n.integer("noop_with_empty_axes", 0) != 0) return TensorFacts{known.type(n.input(0)), *x};
  std::vector<bool> gone(x->size(), all);
  for (std::int64_t a : axes.value_or(std::vector<std::int64_t>{})) {
    if (a < 0) a += rank;
    if (a < 0 || a >= rank) return std::nullopt;
    gone[static_cast<std::size_t>(a)] = true;
  }
  Shape out;
  for (std::size_t i = 0; i < x->size(); ++i) {
    if (!gone[i])
      out.push_back((*x)[i]);
    else if (keeps)
      out.push_back(1);
  }
  return TensorFacts{known.type(n.input(0)), out};
}

std::optional<TensorFacts> same_as_input(const Knowledge& known, const DraftNode& n) {
  const Shape* x = known.shape(n.input(0));
  return TensorFacts{known.type(n.input(0)), x ? std::optional(*x) : std::nullopt};
}

// Reshape keeps symbols that the library would lose.
std::optional<TensorFacts> reshape(const DraftNode& n, const Knowledge& known, Draft& draft) {
  const Shape* x = known.shape(n.input(0));
  auto target = known.value(n.input(1));
  if (const auto attribute = n.integers("shape")) {
    target = Value{DataType::kInt64, {static_cast<std::int64_t>(attribute->size())}, {}};
    for (const std::int64_t d : *attribute) target->cells.push_back({d, 0, 0});
  }
  if (!x || !target) return std::nullopt;
  const auto shape = reshaped(*x, *target, n.integer("allowzero", 0) != 0, draft);
  return shape ? std::optional(TensorFacts{known.type(n.input(0)), *shape}) : std::nullopt;
}

std::optional<std::vector<Cell>> cells(const Knowledge& known, const std::string& tensor, std::size_t expected) {
  const auto v = known.value(tensor);
  return v && v->shape.size() == 1 && v->cells.size() == expected ? std::optional(v->cells) : std::nullopt;
}

// Scales (floats) or sizes; a scale of 1 keeps the dimension, symbol or not.
std::optional<TensorFacts> resize(const DraftNode& n, const Knowledge& known, Draft& draft) {
  const Shape* x = known.shape(n.input(0));
  if (!x || n.attributes.count("axes") || n.attributes.count("keep_aspect_ratio_policy")) return std::nullopt;
  if (n.text("coordinate_transformation_mode") == "tf_crop_and_resize") return std::nullopt;
  const std::size_t scales_at = n.op == "Upsample" || draft.opset < 11 ? 1 : 2;
  auto scales = cells(known, n.input(scales_at), x->size());
  if (const auto attribute = n.reals("scales"); attribute.size() == x->size()) {
    scales.emplace();
    for (const float f : attribute) scales->push_back({0, f, 0});
  }
  const auto sizes = cells(known, n.input(3), x->size());
  if (!scales && !sizes) return std::nullopt;
  Shape out;
  for (std::size_t i = 0; i < x->size(); ++i) {
    const std::int64_t d = (*x)[i];
    if (sizes)
      out.push_back((*sizes)[i].symbol ? (*sizes)[i].symbol : (*sizes)[i].integer);
    else if ((*scales)[i].real == 1)
      out.push_back(d);
    else
      out.push_back(d < 0 ? draft.new_symbol()
                          : static_cast<std::int64_t>(std::floor(static_cast<double>(d) * (*scales)[i].real)));
    if (out.back() > (1 << 30)) return std::nullopt;
  }
  return TensorFacts{known.type(n.input(0)), out};
}

// Extent of x[start:end:step] along a dimension; a symbol as end means "the first so many".
std::int64_t sliced(std::int64_t d, const Cell& start, const Cell& end, const Cell& step, Draft& draft) {
  if (start.symbol || step.symbol || step.integer != 1) return draft.new_symbol();
  const bool from_front = start.integer == 0;
  if (end.symbol) return from_front && end.symbol < kUnknownDim ? end.symbol : draft.new_symbol();
  if (from_front && end.integer >= (1 << 30)) return d;
  if (d < 0) return draft.new_symbol();
  const auto at = [d](std::int64_t v) { return std::clamp<std::int64_t>(v < 0 ? std::max(v, -d) + d : v, 0, d); };
  return std::max<std::int64_t>(at(end.integer) - at(start.integer), 0);
}

std::optional<TensorFacts> slice(const DraftNode& n, const Knowledge& known, Draft& draft) {
  const Shape* x = known.shape(n.input(0));
  const Shape* starts_shape = known.shape(n.input(1));
  if (!x || n.integers("starts") || !starts_shape || starts_shape->size() != 1) return std::nullopt;
  const std::int64_t count = (*starts_shape)[0];
  if (count <= 0 || count > static_cast<std::int64_t>(x->size())) return std::nullopt;
  const auto k = static_cast<std::size_t>(count);
  const auto given = [&](std::size_t i, std::int64_t fallback) {
    return n.input(i).empty() ? std::vector<Cell>(k, {fallback, 0, 0})
                              : cells(known, n.input(i), k).value_or(std::vector<Cell>(k, {0, 0, kUnknownDim}));
  };
  const auto starts = given(1, 0), ends = given(2, 0), steps = given(4, 1);
  auto axes = given(3, 0);
  Shape out = *x;
  for (std::size_t i = 0; i < k; ++i) {
    std::int64_t a = n.input(3).empty() ? static_cast<std::int64_t>(i) : axes[i].integer;
    if (axes[i].symbol) return std::nullopt;
    if (a < 0) a += static_cast<std::int64_t>(x->size());
    if (a < 0 || a >= static_cast<std::int64_t>(x->size())) return std::nullopt;
    auto& d = out[static_cast<std::size_t>(a)];
    d = sliced(d, starts[i], ends[i], steps[i], draft);
  }
  return TensorFacts{known.type(n.input(0)), out};
}

// The library reads beyond the shape when an axis lies outside of it. Some operators add an axis, so one more is
// let through, except for the operator that does not check at all.
bool axis_is_outside(const DraftNode& n, const Knowledge& known) {
  const Shape* x = n.input(0).empty() ? nullptr : known.shape(n.input(0));
  if (!x || !n.attributes.count("axis")) return false;
  const auto rank = static_cast<std::int64_t>(x->size()), axis = n.integer("axis", 0);
  const std::int64_t more = n.op == "LayerNormalization" ? 0 : 1;
  return axis < -rank - more || axis >= rank + more;
}

// The library takes the number of a convolution's spatial axes from its input and walks the weight's with it.
std::string unequal_ranks(const DraftNode& n, const Knowledge& known) {
  const std::size_t weight = n.op == "QLinearConv" ? 3 : 1;
  if (n.op != "Conv" && n.op != "ConvTranspose" && n.op != "ConvInteger" && n.op != "QLinearConv") return {};
  const Shape* x = n.input(0).empty() ? nullptr : known.shape(n.input(0));
  const Shape* w = n.input(weight).empty() ? nullptr : known.shape(n.input(weight));
  if (!x || !w || (x->size() == w->size() && x->size() > 2)) return {};
  return "its input has " + std::to_string(x->size()) + " dimensions and its weight " + std::to_string(w->size()) +
         ", expected as many as each other and three at least.";
}

std::optional<TensorFacts> own_rule(const DraftNode& n, const Knowledge& known, Draft& draft) {
  if (n.op == "Reshape") return reshape(n, known, draft);
  if (n.op == "Resize" || n.op == "Upsample") return resize(n, known, draft);
  if (n.op == "Slice") return slice(n, known, draft);
  // The library knows them at opset 13 at most, without blocks and small types.
  if (n.op == "QuantizeLinear" || n.op == "DequantizeLinear") {
    const auto facts = newer_rule(n, known);
    return facts ? std::optional(facts->front()) : std::nullopt;
  }
  if (is_reduction(n.op) && draft.opset > kLibraryOpset) return reduction(n, known);
  return std::nullopt;
}

std::string library_rule(const DraftNode& n, const Knowledge& known, Draft& draft) {
  if (axis_is_outside(n, known))
    return "its axis " + std::to_string(n.integer("axis", 0)) + " lies outside of its input.";
  if (std::string why = unequal_ranks(n, known); !why.empty()) return why;
  if (!n.bodies.empty()) return {};  // what the file says of the results is all that is known
  const auto* schema = onnx::OpSchemaRegistry::Schema(n.op, std::min(draft.opset, kLibraryOpset), "");
  if (!schema || !schema->has_type_and_shape_inference_function()) return {};
  if (draft.opset > kLibraryOpset && (is_reduction(n.op) || has_changed_since(n.op))) return {};
  for (const std::string& t : n.inputs)
    if (!t.empty() && known.type(t) == DataType::kUndefined) return {};
  const Status status = guarded("", [&]() -> Status {
    const onnx::NodeProto proto = node_proto(n);
    schema->Verify(proto);
    Context context(proto, known);
    schema->GetTypeAndShapeInferenceFunction()(context);
    for (std::size_t i = 0; i < n.outputs.size(); ++i) draft.facts[n.outputs[i]] = context.result(i);
    return {};
  });
  return status ? std::string() : status.error().message;
}

// What the file says about a result, where nothing better is known. A leading dimension that equals a batch
// which has become free is free here, too.
void use_declared(const std::string& tensor, Draft& draft) {
  const auto it = draft.declared.find(tensor);
  if (it == draft.declared.end()) return;
  TensorFacts& facts = draft.facts[tensor];
  if (facts.type == DataType::kUndefined) facts.type = it->second.type;
  if (!facts.shape) {
    facts.shape = it->second.shape;
    return;
  }
  if (!it->second.shape || it->second.shape->size() != facts.shape->size()) return;
  for (std::size_t i = 0; i < facts.shape->size(); ++i) {
    std::int64_t& d = (*facts.shape)[i];
    if (d == kUnknownDim) d = (*it->second.shape)[i];
  }
}

bool all_above_zero(const std::vector<std::int64_t>& v) {
  return std::all_of(v.begin(), v.end(), [](std::int64_t d) { return d > 0 && d < (1 << 30); });
}

}  // namespace

bool is_known_operator(const std::string& op) {
  return newer_operators().count(op) || onnx::OpSchemaRegistry::Schema(op, "") != nullptr;
}

std::string implausible(const DraftNode& n) {
  for (const char* key : {"strides", "dilations", "kernel_shape"}) {
    const auto v = n.integers(key);
    if (v && (!all_above_zero(*v) || v->size() > 8))
      return std::string("its attribute '") + key + "' makes no sense";
  }
  for (const char* key : {"pads", "output_padding", "output_shape", "axes", "perm"}) {
    const auto v = n.integers(key);
    const auto far = [](std::int64_t d) { return d > (1 << 30) || d < -(1 << 30); };
    if (v && (v->size() > 64 || std::any_of(v->begin(), v->end(), far)))
      return std::string("its attribute '") + key + "' makes no sense";
  }
  if (n.integer("group", 1) <= 0 || n.integer("group", 1) > (1 << 30))
    return "its attribute 'group' makes no sense";
  if (n.attributes.count("blocksize") && n.integer("blocksize", 0) <= 0)
    return "its attribute 'blocksize' makes no sense";
  if (std::abs(n.integer("axis", 0)) > 64) return "its attribute 'axis' makes no sense";
  return {};
}

std::string infer(const DraftNode& node, const Knowledge& known, Draft& draft) {
  for (const std::string& t : node.outputs)
    if (!t.empty()) draft.facts[t] = {};
  std::string problem;
  // What the quantizers of QONNX and FINN give has the shape of what they take.
  static const std::unordered_set<std::string> kQuantizers = {"Quant", "IntQuant", "BipolarQuant", "FloatQuant",
                                                              "Trunc", "MultiThreshold"};
  if (!node.domain.empty() && kQuantizers.count(node.op)) {
    draft.facts[node.outputs[0]] = *same_as_input(known, node);
  } else if (node.opaque_reason.empty()) {
    const bool is_newer = draft.opset > kLibraryOpset || newer_operators().count(node.op) > 0;
    if (const auto facts = own_rule(node, known, draft)) {
      draft.facts[node.outputs[0]] = *facts;
    } else {
      problem = library_rule(node, known, draft);
      const bool is_open = known.type(node.outputs[0]) == DataType::kUndefined;
      if (const auto newer = is_newer && is_open ? newer_rule(node, known) : std::nullopt) {
        problem.clear();
        for (std::size_t i = 0; i < std::min(newer->size(), node.outputs.size()); ++i)
          draft.facts[node.outputs[i]] = (*newer)[i];
      }
    }
  }
  for (const std::string& t : node.outputs) {
    if (t.empty()) continue;
    use_declared(t, draft);
    auto& shape = draft.facts[t].shape;
    if (!shape) continue;
    for (std::int64_t& d : *shape)
      if (d == kUnknownDim) d = draft.new_symbol();
  }
  return problem;
}

}  // namespace quanvas::onnx_import
