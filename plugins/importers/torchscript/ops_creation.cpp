// Tensors made from numbers.
#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

// `shape`: a vector of sizes.
Results filled(Call& c, const Ref& value, const std::string& shape, DataType type) {
  return one(c.net.emit("Expand", {c.net.tensor_of(value, type), shape}));
}

DataType number_type(const Ref& v) {
  return v->kind == Kind::kReal ? DataType::kFloat : v->kind == Kind::kBool ? DataType::kBool : DataType::kInt64;
}

Results zeros(Call& c) {
  return filled(c, make_int(0), c.net.sizes(c.list(0)), c.dtype().value_or(DataType::kFloat));
}
Results ones(Call& c) {
  return filled(c, make_int(1), c.net.sizes(c.list(0)), c.dtype().value_or(DataType::kFloat));
}
Results full(Call& c) {
  return filled(c, c.at(1), c.net.sizes(c.list(0)), c.dtype().value_or(number_type(c.at(1))));
}

DataType own_type(Call& c) {
  return c.dtype().value_or(c.net.type(c.x()));
}
Results zeros_like(Call& c) {
  return filled(c, make_int(0), c.net.shape_of(c.x()), own_type(c));
}
Results ones_like(Call& c) {
  return filled(c, make_int(1), c.net.shape_of(c.x()), own_type(c));
}
Results full_like(Call& c) {
  return filled(c, c.at(1), c.net.shape_of(c.x()), own_type(c));
}
Results new_zeros(Call& c) {
  return filled(c, make_int(0), c.net.sizes(c.list(1)), own_type(c));
}
Results new_ones(Call& c) {
  return filled(c, make_int(1), c.net.sizes(c.list(1)), own_type(c));
}
Results new_full(Call& c) {
  return filled(c, c.at(2), c.net.sizes(c.list(1)), own_type(c));
}

// arange(end), arange(start, end), arange(start, end, step); of reals as soon as one number is.
Results arange(Call& c) {
  const bool from_zero = c.overload.empty() || c.overload == "default";
  Refs numbers = {from_zero ? make_int(0) : c.at(0), from_zero ? c.at(0) : c.at(1),
                  c.overload == "start_step" ? c.at(2) : make_int(1)};
  bool real = false;
  for (const Ref& v : numbers) real = real || v->kind == Kind::kReal;
  const DataType type = c.dtype().value_or(real ? DataType::kFloat : DataType::kInt64);
  const DataType step_type = real && is_integer(type) ? DataType::kFloat : type;
  std::vector<std::string> names;
  for (const Ref& v : numbers) names.push_back(c.net.tensor_of(v, step_type));
  return one(c.net.cast(c.net.emit("Range", names), type));
}

// tensor(1.5), tensor([1, n])
Results tensor(Call& c) {
  const Ref& v = c.at(0);
  const auto type = c.dtype();
  if (v->kind == Kind::kTensor || v->is_number()) return one(c.net.tensor_of(v, type.value_or(number_type(v))));
  for (const Ref& item : v->items)
    if (!item->is_number() && item->kind != Kind::kTensor) throw Unmapped("a nested list");
  const DataType common = type.value_or(promoted(c.net, v->items));
  std::vector<std::string> parts;
  for (const Ref& item : v->items)
    parts.push_back(c.net.emit("Unsqueeze", {c.net.tensor_of(item, common), c.net.ints({0})}));
  if (parts.empty()) throw Unmapped("an empty list");
  return one(parts.size() == 1 ? parts[0] : c.net.emit("Concat", parts, {{"axis", std::int64_t{0}}}));
}

Results zero(Call& c) {
  return zeros_like(c);
}
Results fill(Call& c) {
  return filled(c, c.at(1), c.net.shape_of(c.x()), c.net.type(c.x()));
}
// Takes the shape of what is overwritten.
Results copy(Call& c) {
  const std::string x = c.x();
  return one(c.net.emit("Expand", {c.net.tensor_of(c.at(1), c.net.type(x)), c.net.shape_of(x)}));
}

}  // namespace

const Handlers& creation_handlers() {
  static const Handlers table = {{"zeros", zeros},
                                 {"ones", ones},
                                 {"full", full},
                                 {"zeros_like", zeros_like},
                                 {"ones_like", ones_like},
                                 {"full_like", full_like},
                                 {"new_zeros", new_zeros},
                                 {"new_ones", new_ones},
                                 {"new_full", new_full},
                                 {"arange", arange},
                                 {"tensor", tensor},
                                 {"scalar_tensor", tensor},
                                 {"zero", zero},
                                 {"fill", fill},
                                 {"copy", copy}};
  return table;
}

}  // namespace quanvas::torchscript
