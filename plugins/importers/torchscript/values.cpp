// Values of LibTorch as values of the walk and back, and what is computed while walking.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <utility>

#include "core/base/guarded.h"
#include "plugins/importers/torchscript/walk.h"

namespace quanvas::torchscript {
namespace {

constexpr std::int64_t kMostElements = std::int64_t{1} << 26;

struct TypeRow {
  DataType type;
  at::ScalarType scalar;
};
constexpr TypeRow kTypes[] = {{DataType::kFloat, at::kFloat},  {DataType::kDouble, at::kDouble},
                              {DataType::kFloat16, at::kHalf}, {DataType::kBfloat16, at::kBFloat16},
                              {DataType::kInt64, at::kLong},   {DataType::kInt32, at::kInt},
                              {DataType::kInt16, at::kShort},  {DataType::kInt8, at::kChar},
                              {DataType::kUint8, at::kByte},   {DataType::kBool, at::kBool}};

// Sizes that a creation of a tensor could take too literally.
bool is_huge(const Refs& in) {
  for (const Ref& v : in) {
    if (v->kind == Kind::kInt && v->integer > kMostElements && v->integer < (std::int64_t{1} << 62)) return true;
    if (!v->is_list()) continue;
    Shape sizes;
    for (const Ref& item : v->items)
      if (item->kind == Kind::kInt) sizes.push_back(item->integer);
    if (element_count(sizes) > kMostElements) return true;
  }
  return false;
}

}  // namespace

DataType data_type(at::ScalarType type) {
  for (const TypeRow& row : kTypes)
    if (row.scalar == type) return row.type;
  return DataType::kUndefined;
}
at::ScalarType scalar_type_of(DataType type) {
  for (const TypeRow& row : kTypes)
    if (row.type == type) return row.scalar;
  return at::ScalarType::Undefined;
}
std::int64_t scalar_type_number(DataType type) {
  const auto scalar = scalar_type_of(type);
  return static_cast<std::int64_t>(scalar == at::ScalarType::Undefined ? at::kFloat : scalar);
}

Ref Walk::import_tensor(const at::Tensor& t, const std::string& name) {
  if (!t.defined()) return make_none();
  if (t.is_quantized()) return make_other("a tensor that is already quantized");
  if (t.layout() != at::kStrided) return make_other("a sparse tensor");
  const DataType type = data_type(t.scalar_type());
  if (type == DataType::kUndefined)
    return make_other(std::string("a tensor of type ") + c10::toString(t.scalar_type()));
  auto kept = std::make_shared<at::Tensor>(t.detach().cpu().contiguous().resolve_conj().resolve_neg());
  TensorData data{type, kept->sizes().vec(), static_cast<const std::byte*>(kept->data_ptr()), kept->nbytes(), kept};
  return make_tensor(net_.constant(name, std::move(data)));
}

Ref Walk::import_value(const c10::IValue& v, const std::string& name) {
  if (v.isNone()) return make_none();
  if (v.isInt()) return make_int(v.toInt());
  if (v.isDouble()) return make_real(v.toDouble());
  if (v.isBool()) return make_bool(v.toBool());
  if (v.isString()) return make_text(v.toStringRef());
  if (v.isDevice()) return make_text("cpu");  // wherever it was made, it is run here
  if (v.isTensor()) {
    if (!remembers_) return import_tensor(v.toTensor(), name);
    Ref& known = imported_[v.toTensor().unsafeGetTensorImpl()];
    if (!known) known = import_tensor(v.toTensor(), name);
    return known;
  }
  if (v.isObject()) {
    if (const auto type = v.type()->cast<c10::ClassType>(); type && type->name() && type->name()->qualifiedName().find("torch.classes.quantized.") != std::string::npos)
      return import_packed(v, name, type->name()->name());
    if (!v.type()->cast<c10::ClassType>() || !v.toObject()->type())
      return make_other("an object of a class of another program");
    return import_module(torch::jit::Module(v.toObject()));
  }
  Refs items;
  if (v.isTuple()) {
    for (const auto& item : v.toTupleRef().elements()) items.push_back(import_value(item, name));
    return make_list(items, Kind::kTuple);
  }
  if (v.isList()) {
    int i = 0;
    for (const c10::IValue& item : v.toListRef())
      items.push_back(import_value(item, name + "." + std::to_string(i++)));
    return make_list(items);
  }
  if (v.isGenericDict()) {
    for (const auto& entry : v.toGenericDict()) {
      items.push_back(import_value(entry.key(), name));
      items.push_back(
          import_value(entry.value(), name + "." + (entry.key().isString() ? entry.key().toStringRef() : "")));
    }
    return make_list(items, Kind::kDict);
  }
  return make_other("a value of type " + v.tagKind());
}

// Weight, scales and bias of packed parameters, as members of an object; "what" is their class.
Ref Walk::import_packed(const c10::IValue& value, const std::string& name, const std::string& what) {
  Ref& known = imported_[value.toObject().get()];
  if (known) return known;
  const Ref out = make_none();
  const auto ask = [&](const std::string& op) {
    const auto schema = c10::Dispatcher::singleton().findSchemaOrThrow(("quantized::" + op).c_str(), "");
    torch::jit::Stack stack = {value};
    schema.callBoxed(&stack);
    return stack;
  };
  const bool linear = what == "LinearPackedParamsBase", conv = what == "Conv2dPackedParamsBase" || what == "Conv3dPackedParamsBase";
  if (!linear && !conv) return known = make_other("packed parameters of class " + what);
  const std::string prefix = linear ? "linear" : what == "Conv2dPackedParamsBase" ? "conv2d" : "conv3d";
  try {
    const torch::jit::Stack parts = ask(prefix + "_unpack");
    const at::Tensor weight = parts.at(0).toTensor();
    if (conv)
      for (const char* list : {"stride", "padding", "dilation"}) {
        Refs items;
        for (const std::int64_t i : ask(prefix + "_" + list).at(0).toIntVector()) items.push_back(make_int(i));
        out->members[list] = make_list(std::move(items));
      }
    if (conv) out->members["groups"] = make_int(ask(prefix + "_groups").at(0).toInt());
    if (const c10::IValue turned = conv ? ask(prefix + "_transpose").at(0) : c10::IValue(false); turned.isInt() ? turned.toInt() != 0 : turned.toBool())
      return known = make_other("packed parameters of a transposed convolution");
    const bool channels = weight.qscheme() == at::kPerChannelAffine;
    if (!channels && weight.qscheme() != at::kPerTensorAffine) return known = make_other("packed parameters whose scales are no numbers");
    const at::Tensor scale = channels ? weight.q_per_channel_scales() : at::scalar_tensor(weight.q_scale(), at::kDouble);
    const at::Tensor zero = channels ? weight.q_per_channel_zero_points() : at::scalar_tensor(weight.q_zero_point(), at::kLong);
    const at::Tensor codes = weight.int_repr();
    out->members["codes"] = import_tensor(codes, name + ".weight_codes");
    out->members["scale"] = import_tensor(scale.to(at::kFloat), name + ".weight_scale");
    out->members["zero_point"] = import_tensor(zero.to(codes.scalar_type()), name + ".weight_zero_point");
    out->members["axis"] = make_int(channels ? weight.q_per_channel_axis() : -1);
    out->members["bias"] = parts.at(1).isTensor() && parts.at(1).toTensor().defined() ? import_tensor(parts.at(1).toTensor(), name + ".bias") : make_none();
    out->kind = Kind::kObject;
    out->path = name;
  } catch (const std::exception& e) {
    return known = make_other(std::string("packed parameters that LibTorch does not unpack (") + first_line(e.what()) + ")");
  }
  return known = out;
}

Ref Walk::import_module(const torch::jit::Module& module) {
  const auto object = module._ivalue();
  Ref& known = imported_[object.get()];
  if (known) return known;
  const Ref out = known = make_none();
  out->kind = Kind::kObject;
  out->type = std::make_shared<c10::ClassTypePtr>(object->type());
  std::string path = net_.scope;
  // Files of Quanvas keep the name that a layer had in its network.
  const auto& class_name = object->type()->name();
  if (const auto slot = object->type()->findAttributeSlot("layer");
      slot && class_name && class_name->qualifiedName().find("__torch__.quanvas.") == 0 && object->getSlot(*slot).isString())
    net_.reserve(path = object->getSlot(*slot).toStringRef());
  const std::string outer = std::exchange(net_.scope, path);
  out->path = path;
  for (std::size_t i = 0; i < object->type()->numAttributes(); ++i) {
    const std::string& name = object->type()->getAttributeName(i);
    const std::string inner = path.empty() ? name : path + "." + name;
    net_.scope = inner;
    out->members[name] = import_value(object->getSlot(i), inner);
    net_.scope = path;
  }
  net_.scope = outer;
  return out;
}

bool Walk::is_constant(const Ref& v) const {
  if (!v->spoiled.empty()) return false;
  switch (v->kind) {
    case Kind::kNone:
    case Kind::kText:
      return true;
    case Kind::kInt:
    case Kind::kReal:
    case Kind::kBool:
      return v->is_known();
    case Kind::kTensor:
      return net_.draft.constant(v->name) != nullptr;
    case Kind::kList:
    case Kind::kTuple:
      return std::all_of(v->items.begin(), v->items.end(), [&](const Ref& item) { return is_constant(item); });
    default:
      return false;
  }
}

c10::IValue Walk::ivalue(const Ref& v, const c10::TypePtr& type) const {
  if (const auto optional = type->cast<c10::OptionalType>(); optional && v->kind != Kind::kNone)
    return ivalue(v, optional->getElementType());
  switch (v->kind) {
    case Kind::kNone:
      return {};
    case Kind::kInt:
      return type->kind() == c10::TypeKind::FloatType ? c10::IValue(static_cast<double>(v->integer))
                                                      : c10::IValue(v->integer);
    case Kind::kReal:
      return v->real;
    case Kind::kBool:
      return v->integer != 0;
    case Kind::kText:
      return type->kind() == c10::TypeKind::DeviceObjType ? c10::IValue(c10::Device(c10::kCPU))
                                                          : c10::IValue(v->text);
    case Kind::kTensor: {
      const TensorData& data = *net_.draft.constant(v->name);
      return at::from_blob(
          const_cast<std::byte*>(data.data), data.shape, [owner = data.owner](void*) {},
          at::TensorOptions().dtype(scalar_type_of(data.type)));
    }
    default:
      break;
  }
  if (const auto tuple = type->cast<c10::TupleType>()) {
    std::vector<c10::IValue> items;
    for (std::size_t i = 0; i < v->items.size(); ++i) items.push_back(ivalue(v->items[i], tuple->elements().at(i)));
    return c10::ivalue::Tuple::create(std::move(items));
  }
  const auto list = type->cast<c10::ListType>();
  if (!list) throw Unmapped("a list stands where another value is needed");
  c10::impl::GenericList items(list->getElementType());
  for (const Ref& item : v->items) items.push_back(ivalue(item, list->getElementType()));
  return items;
}

// The results when they do not depend on the network's inputs.
std::optional<Refs> Walk::folded(torch::jit::Node* n, const Refs& in) {
  const auto* schema = n->maybeSchema();
  if (!schema || !n->blocks().empty() || n->outputs().empty() || schema->is_mutable() || is_huge(in))
    return std::nullopt;
  if (!std::all_of(in.begin(), in.end(), [&](const Ref& v) { return is_constant(v); })) return std::nullopt;
  if (n->hasSideEffects() || n->isNondeterministic()) return std::nullopt;
  static const std::set<std::string> kept = {"aten::empty",     "aten::empty_like", "aten::new_empty",
                                             "aten::from_file", "aten::save",       "aten::device"};
  const std::string op = n->kind().toQualString();
  if (kept.count(op) || op.find("rand") != std::string::npos) return std::nullopt;
  std::string base = net_.scope.empty() ? "value" : net_.scope + ".value";
  torch::jit::Stack stack;
  try {
    for (std::size_t i = 0; i < in.size(); ++i) {
      stack.push_back(ivalue(in[i], n->inputs()[i]->type()));
      if (in[i]->kind == Kind::kTensor && base.find(".value") != std::string::npos)
        base = in[i]->name + "." + op.substr(op.find("::") + 2);
    }
    n->getOperation()(stack);
  } catch (const std::exception&) {
    return std::nullopt;  // it is mapped as if nothing were known: the error comes when it is run
  }
  Refs out;
  remembers_ = false;  // these tensors do not live on
  for (const c10::IValue& v : stack) out.push_back(import_value(v, base));
  remembers_ = true;
  if (out.size() == 1 && out[0]->kind == Kind::kTensor)
    if (auto kept = dequantized_constant(net_, op, in, out[0]->name)) out[0] = make_tensor(std::move(*kept));
  return out;
}

}  // namespace quanvas::torchscript
