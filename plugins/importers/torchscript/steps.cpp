// What is no arithmetic: attributes, calls, lists, dictionaries, questions about values.
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

#include "plugins/importers/torchscript/walk.h"

namespace quanvas::torchscript {
namespace {

using torch::jit::Node;

const Refs kDone = {make_none()};  // done, without a result

std::size_t place_in(const Ref& list, const Ref& index) {
  if (!index->is_known()) throw Unmapped("which item of a list is meant depends on the network's input");
  const auto n = static_cast<std::int64_t>(list->items.size());
  const std::int64_t i = index->integer < 0 ? index->integer + n : index->integer;
  if (i < 0 || i >= n) throw Raised("list index out of range");
  return static_cast<std::size_t>(i);
}

bool same_key(const Ref& a, const Ref& b) {
  return a->kind == b->kind && a->is_known() && b->is_known() && a->integer == b->integer && a->real == b->real &&
         a->text == b->text;
}

// Where the value of a key stands; items.size() when it is not there.
std::size_t find_key(const Ref& dictionary, const Ref& key) {
  for (std::size_t i = 0; i + 1 < dictionary->items.size(); i += 2)
    if (same_key(dictionary->items[i], key)) return i + 1;
  return dictionary->items.size();
}

bool is_module(const Ref& v) {
  return v->kind == Kind::kObject && v->type && (*static_cast<c10::ClassTypePtr*>(v->type.get()))->is_module();
}

bool is_leaf(const Ref& object) {
  return std::none_of(object->members.begin(), object->members.end(),
                      [](const auto& m) { return is_module(m.second); });
}

c10::ClassTypePtr class_of(const Ref& object) {
  if (object->kind != Kind::kObject || !object->type) throw Unmapped("an object is not known");
  return *static_cast<c10::ClassTypePtr*>(object->type.get());
}

}  // namespace

Refs Walk::constant(Node* n, const Refs&) {
  if (n->outputs()[0]->type()->cast<c10::FunctionType>()) return {make_other("a function")};
  const auto value = torch::jit::toIValue(n->outputs()[0]);
  return {value ? import_value(*value, net_.scope.empty() ? "constant" : net_.scope + ".constant")
                : make_other("a constant")};
}

Refs Walk::get_attribute(Node* n, const Refs& in) {
  const std::string& name = n->s(torch::jit::attr::name);
  const auto it = in[0]->members.find(name);
  if (it == in[0]->members.end()) throw Unmapped("the attribute '" + name + "' is not known");
  return {it->second};
}

Refs Walk::set_attribute(Node* n, const Refs& in) {
  class_of(in[0]);
  if (is_module(in[0])) writes_state_ = true;
  mutate(in[0]);
  in[0]->members[n->s(torch::jit::attr::name)] = in[1];
  return kDone;
}

Refs Walk::create_object(Node* n, const Refs&) {
  const auto type = n->outputs()[0]->type()->cast<c10::ClassType>();
  if (!type) throw Unmapped("an object of an unknown class");
  Ref out = make_none();
  out->kind = Kind::kObject;
  out->type = std::make_shared<c10::ClassTypePtr>(type);
  return {out};
}

Refs Walk::call_method(Node* n, const Refs& in) {
  const auto type = class_of(in[0]);
  const std::string& name = n->s(torch::jit::attr::name);
  torch::jit::Function* method = type->findMethod(name);
  if (!method) throw Unmapped("the method '" + name + "' is not known");
  if (!is_module(in[0])) return call(*method, in);
  const std::string scope = std::exchange(net_.scope, in[0]->path);
  const bool leaf = std::exchange(net_.is_leaf, is_leaf(in[0]));
  const auto restore = [&] {
    net_.scope = scope;
    net_.is_leaf = leaf;
  };
  try {
    Refs out = call(*method, in);
    restore();
    return out.empty() ? kDone : out;
  } catch (...) {
    restore();
    throw;
  }
}

Refs Walk::call_function(Node* n, const Refs& in) {
  const auto type = n->inputs()[0]->type()->cast<c10::FunctionType>();
  if (!type) throw Unmapped("an unknown function is called");
  Refs out = call(*type->function(), Refs(in.begin() + 1, in.end()));
  return out.empty() ? kDone : out;
}

Refs Walk::make_sequence(Node* n, const Refs& in) {
  return {make_list(in, n->kind() == torch::jit::prim::TupleConstruct ? Kind::kTuple : Kind::kList)};
}
Refs Walk::make_dictionary(Node*, const Refs& in) {
  return {make_list(in, Kind::kDict)};
}

Refs Walk::unpack(Node* n, const Refs& in) {
  if (!in[0]->is_list()) throw Unmapped(in[0]->kind == Kind::kOther ? in[0]->text : "what is no list is unpacked");
  if (in[0]->items.size() != n->outputs().size())
    throw Raised("a list of " + std::to_string(in[0]->items.size()) + " items is unpacked into " +
                 std::to_string(n->outputs().size()));
  return in[0]->items.empty() ? kDone : in[0]->items;
}
Refs Walk::tuple_item(Node*, const Refs& in) {
  if (!in[0]->is_list()) throw Unmapped("a tuple is not known");
  return {in[0]->items[place_in(in[0], in[1])]};
}
Refs Walk::tuple_slice(Node* n, const Refs& in) {
  if (!in[0]->is_list()) throw Unmapped("a tuple is not known");
  const auto size = static_cast<std::int64_t>(in[0]->items.size());
  const std::int64_t begin = std::clamp<std::int64_t>(n->i(torch::jit::attr::beg), 0, size),
                     end = std::clamp<std::int64_t>(n->i(torch::jit::attr::end), begin, size);
  return {make_list(Refs(in[0]->items.begin() + begin, in[0]->items.begin() + end), Kind::kTuple)};
}

Refs Walk::raise(Node* n, const Refs& in) {
  const bool said = !in.empty() && in[0]->kind == Kind::kText && !in[0]->text.empty();
  throw Raised((said ? in[0]->text : "an error") + (place_of(n).empty() ? "" : ", " + place_of(n)));
}
Refs Walk::nothing(Node*, const Refs&) {
  return kDone;
}
Refs Walk::first(Node*, const Refs& in) {
  return {in.at(0)};
}
Refs Walk::uninitialized(Node*, const Refs&) {
  return {make_other("a value that was never set")};
}

Refs Walk::number_to_tensor(Node*, const Refs& in) {
  return {make_tensor(net_.tensor_of(in.at(0)))};
}
Refs Walk::tensor_to_number(Node* n, const Refs& in) {
  return fit(n, {make_tensor(net_.tensor_of(in.at(0)))});
}

Refs Walk::type_of(Node*, const Refs& in) {
  return {make_int(scalar_type_number(net_.type(net_.tensor_of(in.at(0)))))};
}
Refs Walk::device_of(Node*, const Refs&) {
  return {make_text("cpu")};
}
Refs Walk::is_floating(Node*, const Refs& in) {
  const DataType t = net_.type(net_.tensor_of(in.at(0)));
  return {make_bool(t != DataType::kBool && !quanvas::torchscript::is_integer(t))};
}

Refs Walk::is_instance(Node* n, const Refs& in) {
  static const std::map<Kind, c10::TypeKind> kinds = {
      {Kind::kNone, c10::TypeKind::NoneType},   {Kind::kInt, c10::TypeKind::IntType},
      {Kind::kReal, c10::TypeKind::FloatType},  {Kind::kBool, c10::TypeKind::BoolType},
      {Kind::kText, c10::TypeKind::StringType}, {Kind::kTensor, c10::TypeKind::TensorType},
      {Kind::kList, c10::TypeKind::ListType},   {Kind::kTuple, c10::TypeKind::TupleType},
      {Kind::kDict, c10::TypeKind::DictType}};
  const auto kind = kinds.find(in.at(0)->kind);
  if (kind == kinds.end()) throw Unmapped("the type of a value is not known");
  for (const auto& type : n->tys(torch::jit::attr::types))
    if (type->kind() == kind->second) return {make_bool(true)};
  return {make_bool(false)};
}

// item in list
Refs Walk::contains(Node*, const Refs& in) {
  if (in.size() != 2 || !in[0]->is_list() || !in[1]->is_number() || in[1]->is_known()) return {};
  std::string any;
  for (const Ref& item : in[0]->items) {
    if (item->kind == Kind::kInt && item->is_known()) compared_.insert(item->integer);
    const DataType type = promoted(net_, {item, in[1]});
    const std::string is = net_.emit("Equal", {net_.tensor_of(item, type), net_.tensor_of(in[1], type)});
    any = any.empty() ? is : net_.emit("Or", {any, is});
  }
  return {any.empty() ? make_bool(false) : net_.number_of(any, Kind::kBool)};
}

Refs Walk::is_same(Node* n, const Refs& in) {
  const bool negated = n->kind() == torch::jit::aten::__isnot__;
  if (in[0]->kind == Kind::kOther || in[1]->kind == Kind::kOther)
    throw Unmapped("whether a value is there is not known");
  const bool none[2] = {in[0]->kind == Kind::kNone, in[1]->kind == Kind::kNone};
  if (!none[0] && !none[1] && in[0] != in[1]) return {};
  return {make_bool((none[0] == none[1]) != negated)};
}

// min and max of numbers, or of a list of them.
Refs Walk::extreme(Node* n, const Refs& in) {
  const bool is_max = n->kind() == torch::jit::prim::max;
  const Refs items = in.size() == 1 && in[0]->is_list() ? in[0]->items : in;
  if (std::all_of(in.begin(), in.end(), [&](const Ref& v) { return is_constant(v); })) return {};
  if (items.empty()) throw Unmapped("the extreme of nothing");
  std::vector<std::string> names;
  const DataType type = promoted(net_, items);
  for (const Ref& v : items) names.push_back(net_.tensor_of(v, type));
  return {net_.number_of(net_.emit(is_max ? "Max" : "Min", names), is_integer(type) ? Kind::kInt : Kind::kReal)};
}

Refs Walk::size(Node*, const Refs& in) {
  const std::string t = net_.tensor_of(in.at(0));
  if (in.size() == 1) {
    Refs out;
    for (std::int64_t i = 0; i < net_.rank(t); ++i) out.push_back(net_.size(t, i));
    return {make_list(out)};
  }
  if (!in[1]->is_known()) throw Unmapped("the axis depends on the network's input");
  return {net_.size(t, in[1]->integer)};
}
Refs Walk::rank(Node*, const Refs& in) {
  return {make_int(net_.rank(net_.tensor_of(in.at(0))))};
}
Refs Walk::count(Node*, const Refs& in) {
  return {net_.number_of(net_.emit("Size", {net_.tensor_of(in.at(0))}), Kind::kInt)};
}

Refs Walk::length(Node*, const Refs& in) {
  const Ref& v = in.at(0);
  if (v->kind == Kind::kText) return {make_int(static_cast<std::int64_t>(v->text.size()))};
  if (v->kind == Kind::kTensor) return {net_.size(net_.tensor_of(v), 0)};
  if (v->kind == Kind::kDict) return {make_int(static_cast<std::int64_t>(v->items.size() / 2))};
  if (!v->is_list()) throw Unmapped("the length of what is no list");
  return {make_int(static_cast<std::int64_t>(v->items.size()))};
}

Refs Walk::get_item(Node*, const Refs& in) {
  if (in[0]->kind == Kind::kDict) {
    const std::size_t at = find_key(in[0], in[1]);
    if (at == in[0]->items.size()) throw Raised("a key is not in a dictionary");
    return {in[0]->items[at]};
  }
  if (!in[0]->is_list()) return {};
  return {in[0]->items[place_in(in[0], in[1])]};
}
Refs Walk::set_item(Node*, const Refs& in) {
  mutate(in[0]);
  if (in[0]->kind == Kind::kDict) {
    const std::size_t at = find_key(in[0], in[1]);
    if (at < in[0]->items.size())
      in[0]->items[at] = in[2];
    else
      in[0]->items.insert(in[0]->items.end(), {in[1], in[2]});
    return kDone;
  }
  if (!in[0]->is_list()) throw Unmapped("an item of what is no list is set");
  in[0]->items[place_in(in[0], in[1])] = in[2];
  return kDone;
}
Refs Walk::append(Node*, const Refs& in) {
  if (!in[0]->is_list()) throw Unmapped("something is appended to what is no list");
  mutate(in[0]);
  in[0]->items.push_back(in[1]);
  return {in[0]};
}
Refs Walk::extend(Node*, const Refs& in) {
  if (!in[0]->is_list() || !in[1]->is_list()) throw Unmapped("a list is not known");
  mutate(in[0]);
  const Refs more = in[1]->items;
  in[0]->items.insert(in[0]->items.end(), more.begin(), more.end());
  return kDone;
}
Refs Walk::insert(Node*, const Refs& in) {
  if (!in[0]->is_list() || !in[1]->is_known()) throw Unmapped("a list is not known");
  mutate(in[0]);
  const auto n = static_cast<std::int64_t>(in[0]->items.size());
  const std::int64_t at =
      in[1]->integer < 0 ? std::max<std::int64_t>(in[1]->integer + n, 0) : std::min(in[1]->integer, n);
  in[0]->items.insert(in[0]->items.begin() + at, in[2]);
  return kDone;
}
Refs Walk::pop(Node*, const Refs& in) {
  if (!in[0]->is_list()) throw Unmapped("a list is not known");
  const std::size_t at = place_in(in[0], in.size() > 1 ? in[1] : make_int(-1));
  mutate(in[0]);
  const Ref out = in[0]->items[at];
  in[0]->items.erase(in[0]->items.begin() + static_cast<std::ptrdiff_t>(at));
  return {out};
}
Refs Walk::clear(Node*, const Refs& in) {
  mutate(in[0]);
  in[0]->items.clear();
  return kDone;
}
Refs Walk::copy_list(Node*, const Refs& in) {
  if (!in[0]->is_list()) return {};
  return {make_list(in[0]->items)};
}
Refs Walk::keys(Node*, const Refs& in) {
  Refs out;
  for (std::size_t i = 0; i + 1 < in[0]->items.size(); i += 2) out.push_back(in[0]->items[i]);
  return {make_list(out)};
}
Refs Walk::dict_values(Node*, const Refs& in) {
  Refs out;
  for (std::size_t i = 1; i < in[0]->items.size(); i += 2) out.push_back(in[0]->items[i]);
  return {make_list(out)};
}

Refs Walk::format(Node*, const Refs& in) {
  if (std::all_of(in.begin(), in.end(), [&](const Ref& v) { return is_constant(v) && v->kind != Kind::kTensor; }))
    return {};
  return {make_text(in.empty() ? "" : in[0]->text)};
}

namespace {

// Lists of values that are not all known: joined, cut, repeated. No result: no such case.
Refs list_arithmetic(const std::string& op, const Refs& in) {
  if (in.empty() || in[0]->kind != Kind::kList) return {};
  Refs out = in[0]->items;
  if (op == "aten::add" && in[1]->kind == Kind::kList) {
    out.insert(out.end(), in[1]->items.begin(), in[1]->items.end());
    return {make_list(out)};
  }
  if (op != "aten::slice") return {};
  const auto n = static_cast<std::int64_t>(out.size());
  const auto at = [&](std::size_t i, std::int64_t fallback) {
    if (in.size() <= i || in[i]->kind != Kind::kInt) return fallback;
    if (!in[i]->is_known()) throw Unmapped("how a list is cut depends on the network's input");
    return std::clamp<std::int64_t>(in[i]->integer < 0 ? in[i]->integer + n : in[i]->integer, 0, n);
  };
  const std::int64_t begin = at(1, 0), end = std::max(at(2, n), begin);
  if (in.size() > 3 && !(in[3]->is_known() && in[3]->integer == 1)) throw Unmapped("every other item of a list");
  return {make_list(Refs(out.begin() + begin, out.begin() + end))};
}

}  // namespace

const std::map<std::string, Walk::Step>& Walk::steps() {
  using W = Walk;
  static const std::map<std::string, Step> table = {{"prim::Constant", &W::constant},
                                                    {"prim::GetAttr", &W::get_attribute},
                                                    {"prim::SetAttr", &W::set_attribute},
                                                    {"prim::CreateObject", &W::create_object},
                                                    {"prim::CallMethod", &W::call_method},
                                                    {"prim::CallFunction", &W::call_function},
                                                    {"prim::ListConstruct", &W::make_sequence},
                                                    {"prim::TupleConstruct", &W::make_sequence},
                                                    {"prim::DictConstruct", &W::make_dictionary},
                                                    {"prim::ListUnpack", &W::unpack},
                                                    {"prim::TupleUnpack", &W::unpack},
                                                    {"prim::TupleIndex", &W::tuple_item},
                                                    {"prim::TupleSlice", &W::tuple_slice},
                                                    {"prim::RaiseException", &W::raise},
                                                    {"prim::Print", &W::nothing},
                                                    {"aten::warn", &W::nothing},
                                                    {"prim::Enter", &W::nothing},
                                                    {"prim::Exit", &W::nothing},
                                                    {"aten::_set_grad_enabled", &W::nothing},
                                                    {"prim::Uninitialized", &W::uninitialized},
                                                    {"prim::unchecked_cast", &W::first},
                                                    {"prim::unchecked_unwrap_optional", &W::first},
                                                    {"aten::_unwrap_optional", &W::first},
                                                    {"prim::data", &W::first},
                                                    {"prim::NumToTensor", &W::number_to_tensor},
                                                    {"prim::ImplicitTensorToNum", &W::tensor_to_number},
                                                    {"prim::dtype", &W::type_of},
                                                    {"prim::device", &W::device_of},
                                                    {"prim::isinstance", &W::is_instance},
                                                    {"aten::__is__", &W::is_same},
                                                    {"aten::__isnot__", &W::is_same},
                                                    {"aten::__contains__", &W::contains},
                                                    {"prim::max", &W::extreme},
                                                    {"prim::min", &W::extreme},
                                                    {"aten::size", &W::size},
                                                    {"prim::shape", &W::size},
                                                    {"aten::dim", &W::rank},
                                                    {"aten::numel", &W::count},
                                                    {"aten::len", &W::length},
                                                    {"aten::is_floating_point", &W::is_floating},
                                                    {"aten::__getitem__", &W::get_item},
                                                    {"aten::_set_item", &W::set_item},
                                                    {"aten::append", &W::append},
                                                    {"aten::extend", &W::extend},
                                                    {"aten::insert", &W::insert},
                                                    {"aten::pop", &W::pop},
                                                    {"aten::clear", &W::clear},
                                                    {"aten::list", &W::copy_list},
                                                    {"aten::copy", &W::copy_list},
                                                    {"aten::keys", &W::keys},
                                                    {"aten::values", &W::dict_values},
                                                    {"aten::format", &W::format},
                                                    {"aten::add", &W::list_step},
                                                    {"aten::slice", &W::list_step}};
  return table;
}

Refs Walk::list_step(Node* n, const Refs& in) {
  return list_arithmetic(n->kind().toQualString(), in);
}

}  // namespace quanvas::torchscript
