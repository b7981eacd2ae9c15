#include "plugins/importers/torchscript/net.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace quanvas::torchscript {
namespace {

using onnx_import::kUnknownDim;
constexpr std::int64_t kMostMade = std::int64_t{1} << 26;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return text;
}

std::string unique(std::set<std::string>& taken, const std::string& base) {
  std::string name = base;
  for (int i = 2; !taken.insert(name).second; ++i) name = base + "_" + std::to_string(i);
  return name;
}

template <class T>
TensorData filled_with(DataType type, const Shape& shape, T value) {
  const std::vector<T> values(static_cast<std::size_t>(element_count(shape)), value);
  return TensorData::copy_of(type, shape, values.data(), values.size() * sizeof(T));
}

TensorData filled_tensor(DataType type, const Shape& shape, double value) {
  const auto integer = static_cast<std::int64_t>(std::isfinite(value) ? std::clamp(value, -9.2e18, 9.2e18) : 0);
  switch (type) {
    case DataType::kDouble:
      return filled_with(type, shape, value);
    case DataType::kFloat16:
      return filled_with(type, shape, float_to_half(static_cast<float>(value)));
    case DataType::kInt64:
      return filled_with(type, shape, integer);
    case DataType::kInt32:
      return filled_with(type, shape, static_cast<std::int32_t>(integer));
    case DataType::kInt16:
      return filled_with(type, shape, static_cast<std::int16_t>(integer));
    case DataType::kInt8:
      return filled_with(type, shape, static_cast<std::int8_t>(integer));
    case DataType::kUint8:
      return filled_with(type, shape, static_cast<std::uint8_t>(integer));
    case DataType::kBool:
      return filled_with(type, shape, static_cast<std::uint8_t>(value != 0));
    case DataType::kFloat:
      return filled_with(type, shape, static_cast<float>(value));
    default:
      throw Unmapped(std::string("constants of type ") + type_name(type) + " are not made");
  }
}

}  // namespace

Ref make_none() {
  return std::make_shared<Val>();
}
Ref make_int(std::int64_t v) {
  auto r = make_none();
  r->kind = Kind::kInt;
  r->integer = v;
  return r;
}
Ref make_real(double v) {
  auto r = make_none();
  r->kind = Kind::kReal;
  r->real = v;
  return r;
}
Ref make_bool(bool v) {
  auto r = make_int(v);
  r->kind = Kind::kBool;
  return r;
}
Ref make_text(std::string v) {
  auto r = make_none();
  r->kind = Kind::kText;
  r->text = std::move(v);
  return r;
}
Ref make_tensor(std::string name) {
  auto r = make_none();
  r->kind = Kind::kTensor;
  r->name = std::move(name);
  return r;
}
Ref make_list(Refs items, Kind kind) {
  auto r = make_none();
  r->kind = kind;
  r->items = std::move(items);
  return r;
}
Ref make_other(std::string what) {
  auto r = make_text(std::move(what));
  r->kind = Kind::kOther;
  return r;
}

Net::Net() {
  draft.opset = 17;
}

// A module of one operator gives its name to it; further operators stand below it.
std::string Net::node_name(const std::string& op) {
  if (is_leaf && origin != "aten::size" && !scope.empty() && (reserved_.erase(scope) > 0 || node_names_.insert(scope).second)) return scope;
  std::string last = origin.substr(origin.find("::") == std::string::npos ? 0 : origin.find("::") + 2);
  while (!last.empty() && last.back() == '_') last.pop_back();
  if (last.empty() || is_leaf) last = lower(op);
  return unique(node_names_, scope.empty() ? last : scope + "." + last);
}

void Net::reserve(const std::string& name) {
  if (node_names_.insert(name).second) reserved_.insert(name);
}

std::string Net::new_tensor(const std::string& base) {
  return unique(tensor_names_, base);
}

std::string Net::add_node(DraftNode node) {
  node.name = node_name(node.op);
  for (std::size_t i = 0; i < node.outputs.size(); ++i)
    if (node.outputs[i].empty()) node.outputs[i] = new_tensor(node.name + ".out" + (i ? std::to_string(i) : ""));
  const std::string first = node.outputs.empty() ? "" : node.outputs[0];
  for (const std::string& t : node.outputs) draft.facts[t];
  nodes->push_back(std::move(node));
  return first;
}

std::vector<std::string> Net::emit_many(const std::string& op, std::vector<std::string> inputs, std::size_t outputs,
                                        Attributes attributes) {
  DraftNode node;
  node.op = op;
  node.inputs = std::move(inputs);
  while (!node.inputs.empty() && node.inputs.back().empty()) node.inputs.pop_back();
  node.outputs.resize(outputs);
  node.attributes = std::move(attributes);
  if (outputs == 1) {
    node.outputs[0] = "?";
    if (const auto value = onnx_import::evaluate(node, known))
      if (auto data = onnx_import::data_of(*value))
        return {constant(scope.empty() ? "value" : scope + ".value", std::move(*data))};
    node.outputs[0].clear();
  }
  add_node(std::move(node));
  const DraftNode& made = nodes->back();
  if (outputs == 1)
    if (auto value = onnx_import::evaluate(made, known)) known.values[made.outputs[0]] = std::move(*value);
  onnx_import::infer(made, known, draft);
  return made.outputs;
}

std::string Net::emit(const std::string& op, std::vector<std::string> inputs, Attributes attributes) {
  return emit_many(op, std::move(inputs), 1, std::move(attributes))[0];
}

std::string Net::constant(const std::string& base, TensorData data) {
  const std::string name = new_tensor(base);
  draft.facts[name] = {data.type, data.shape};
  draft.constants[name] = std::move(data);
  return name;
}

std::string Net::ints(const std::vector<std::int64_t>& values) {
  std::string& name = int_vectors_[values];
  if (name.empty())
    name = constant("ints", TensorData::of_int64({static_cast<std::int64_t>(values.size())}, values));
  return name;
}

std::string Net::scalar(double value, DataType type) {
  if (std::isnan(value)) return constant("number", filled_tensor(type, {}, value));
  std::string& name = scalars_[{value, type}];
  if (name.empty()) name = constant("number", filled_tensor(type, {}, value));
  return name;
}

std::string Net::filled(const Shape& shape, double value, const std::string& base) {
  if (element_count(shape) > kMostMade) throw Unmapped("a constant would have " + shape_text(shape) + " elements");
  return constant(base, filled_tensor(DataType::kFloat, shape, value));
}

DataType Net::type(const std::string& t) const {
  const TensorFacts* facts = draft.known(t);
  return facts && facts->type != DataType::kUndefined ? facts->type : DataType::kFloat;
}

const Shape* Net::shape(const std::string& t) const {
  const TensorFacts* facts = draft.known(t);
  return facts && facts->shape ? &*facts->shape : nullptr;
}

std::int64_t Net::rank(const std::string& t) const {
  if (const Shape* s = shape(t)) return static_cast<std::int64_t>(s->size());
  throw Unmapped("the number of dimensions of '" + t + "' is not known");
}

std::int64_t Net::axis(const std::string& t, std::int64_t dim) const {
  const std::int64_t n = std::max<std::int64_t>(rank(t), 1), a = dim < 0 ? dim + n : dim;
  if (a < 0 || a >= n)
    throw Unmapped("dimension " + std::to_string(dim) + " of a tensor of rank " + std::to_string(n));
  return a;
}

std::int64_t Net::dimension(const std::string& t, std::int64_t dim) const {
  const Shape* s = shape(t);
  if (!s) return kUnknownDim;
  const auto n = static_cast<std::int64_t>(s->size()), a = dim < 0 ? dim + n : dim;
  return a >= 0 && a < n ? (*s)[static_cast<std::size_t>(a)] : kUnknownDim;
}

bool Net::is_input(const std::string& t) const {
  return std::find(draft.inputs.begin(), draft.inputs.end(), t) != draft.inputs.end();
}

void Net::learn(const std::string& t, DataType type, std::optional<Shape> shape) {
  if (!is_input(t)) return;
  TensorFacts& facts = learned[t];
  if (facts.type == DataType::kUndefined) facts.type = type;
  if (!facts.shape) facts.shape = std::move(shape);
}

std::string Net::cast(const std::string& t, DataType to) {
  if (type(t) == to) return t;
  return emit("Cast", {t}, {{"to", static_cast<std::int64_t>(to)}});
}

std::string Net::tensor_of(const Ref& v, DataType to) {
  if (!v->spoiled.empty()) throw Unmapped(v->spoiled);
  if (!v->name.empty()) return to == DataType::kUndefined ? v->name : cast(v->name, to);
  if (!v->is_number())
    throw Unmapped(v->kind == Kind::kOther ? v->text : "a value that is no tensor stands where a tensor is needed");
  const bool real = v->kind == Kind::kReal;
  if (to == DataType::kUndefined)
    to = real ? DataType::kFloat : v->kind == Kind::kBool ? DataType::kBool : DataType::kInt64;
  if (!real && to == DataType::kInt64) {  // a double does not hold all of them
    std::string& name = scalars_[{static_cast<double>(v->integer), to}];
    const bool exact = std::abs(v->integer) < (std::int64_t{1} << 53);
    if (exact && !name.empty()) return name;
    const std::string made = constant("number", TensorData::of_int64({}, {v->integer}));
    if (exact) name = made;
    return made;
  }
  return scalar(real ? v->real : static_cast<double>(v->integer), to);
}

Ref Net::number_of(const std::string& t, Kind kind) {
  Ref out = make_none();
  out->kind = kind;
  const auto value = known.value(t);
  if (value && value->is_number() && value->cells.size() == 1) {
    const onnx_import::Cell& c = value->cells[0];
    const bool real = onnx_import::is_floating(value->type);
    out->integer = real ? static_cast<std::int64_t>(c.real) : c.integer;
    out->real = real ? c.real : static_cast<double>(c.integer);
    return out;
  }
  const DataType wanted = kind == Kind::kReal   ? DataType::kFloat
                          : kind == Kind::kBool ? DataType::kBool
                                                : DataType::kInt64;
  const Shape* s = shape(t);
  out->name = cast(s && s->empty() ? t : emit("Reshape", {t, ints({})}), wanted);
  if (value && value->cells.size() == 1 && value->cells[0].symbol < kUnknownDim) nonnegative.insert(out->name);
  return out;
}

std::string Net::shape_of(const std::string& t) {
  return emit("Shape", {t});
}

Ref Net::size(const std::string& t, std::int64_t dim) {
  if (const std::int64_t d = dimension(t, dim); d >= 0) return make_int(d);
  const std::string index = tensor_of(make_int(shape(t) ? axis(t, dim) : dim));
  Ref out = number_of(emit("Gather", {shape_of(t), index}, {{"axis", std::int64_t{0}}}), Kind::kInt);
  if (!out->name.empty()) nonnegative.insert(out->name);
  return out;
}

std::string Net::sizes(const Refs& items) {
  std::vector<std::int64_t> numbers;
  for (const Ref& v : items)
    if (v->kind == Kind::kInt && v->is_known()) numbers.push_back(v->integer);
  if (numbers.size() == items.size()) return ints(numbers);
  std::vector<std::string> parts;
  for (const Ref& v : items)
    parts.push_back(v->is_known() && v->is_number()
                        ? ints({v->integer})
                        : emit("Unsqueeze", {tensor_of(v, DataType::kInt64), ints({0})}));
  return parts.size() == 1 ? parts[0] : emit("Concat", parts, {{"axis", std::int64_t{0}}});
}

std::string Net::transposed(const std::string& t) {
  const TensorData* data = draft.constant(t);
  const std::int64_t n = rank(t);
  if (n < 2) return t;
  std::vector<std::int64_t> perm;
  for (std::int64_t i = 0; i < n; ++i) perm.push_back(i);
  std::swap(perm[static_cast<std::size_t>(n) - 1], perm[static_cast<std::size_t>(n) - 2]);
  if (!data || n != 2 || element_size(data->type) == 0) return emit("Transpose", {t}, {{"perm", perm}});
  std::string& name = transposed_[t];
  if (!name.empty()) return name;
  const auto rows = static_cast<std::size_t>(data->shape[0]), columns = static_cast<std::size_t>(data->shape[1]),
             each = element_size(data->type);
  auto bytes = std::make_shared<std::vector<std::byte>>(data->bytes);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c)
      std::memcpy(bytes->data() + (c * rows + r) * each, data->data + (r * columns + c) * each, each);
  TensorData out{data->type, {data->shape[1], data->shape[0]}, bytes->data(), bytes->size(), bytes};
  return name = constant(t + ".t", std::move(out));
}

bool is_integer(DataType t) {
  switch (t) {
    case DataType::kUint8:
    case DataType::kInt8:
    case DataType::kInt16:
    case DataType::kInt32:
    case DataType::kInt64:
      return true;
    default:
      return false;
  }
}

DataType promoted(const Net& net, const Refs& operands) {
  const auto category = [](DataType t) { return t == DataType::kBool ? 0 : is_integer(t) ? 1 : 2; };
  const auto wider = [&](DataType a, DataType b) {
    if (category(a) != category(b)) return category(a) > category(b) ? a : b;
    return element_size(a) >= element_size(b) ? a : b;
  };
  std::optional<DataType> level[3];  // numbers, scalars, tensors
  for (const Ref& v : operands) {
    const Shape* s = v->kind == Kind::kTensor ? net.shape(v->name) : nullptr;
    const int l = v->kind != Kind::kTensor ? 0 : s && s->empty() ? 1 : 2;
    const DataType t = v->kind == Kind::kTensor ? net.type(v->name)
                       : v->kind == Kind::kReal ? DataType::kFloat
                       : v->kind == Kind::kBool ? DataType::kBool
                                                : DataType::kInt64;
    level[l] = level[l] ? wider(*level[l], t) : t;
  }
  DataType out = DataType::kBool;
  bool any = false;
  for (int l = 2; l >= 0; --l)
    if (level[l] && (!any || category(*level[l]) > category(out))) {
      out = *level[l];
      any = true;
    }
  return out;
}

std::optional<DataType> torch_type(std::int64_t t) {
  static const std::map<std::int64_t, DataType> types = {
      {0, DataType::kUint8}, {1, DataType::kInt8},     {2, DataType::kInt16}, {3, DataType::kInt32},
      {4, DataType::kInt64}, {5, DataType::kFloat16},  {6, DataType::kFloat}, {7, DataType::kDouble},
      {11, DataType::kBool}, {15, DataType::kBfloat16}};
  const auto it = types.find(t);
  return it == types.end() ? std::nullopt : std::optional(it->second);
}

}  // namespace quanvas::torchscript
