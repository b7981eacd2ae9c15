// Choosing elements, and changing types.
#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

Results select(Call& c) {
  return one(c.net.emit("Gather", {c.x(), c.net.tensor_of(c.at(2), DataType::kInt64)}, {{"axis", c.integer(1)}}));
}
Results index_select(Call& c) {
  return one(c.net.emit("Gather", {c.x(), c.x(2)}, {{"axis", c.integer(1)}}));
}
Results gather(Call& c) {
  return one(c.net.emit("GatherElements", {c.x(), c.x(2)}, {{"axis", c.integer(1)}}));
}

// x[:, i]: one list of places along one axis.
Results index(Call& c) {
  std::string places;
  std::int64_t axis = 0;
  const Refs indices = c.list(1);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    if (indices[i]->kind == Kind::kNone) continue;
    if (!places.empty()) throw Unmapped("several lists of places at once");
    places = c.net.tensor_of(indices[i]);
    axis = static_cast<std::int64_t>(i);
  }
  if (places.empty()) return one(c.x());
  const DataType type = c.net.type(places);
  if (c.net.is_input(places))
    c.net.learn(places, DataType::kInt64, std::nullopt);
  else if (!is_integer(type) || type == DataType::kUint8)
    throw Unmapped("places chosen by a mask");
  return one(c.net.emit("Gather", {c.x(), places}, {{"axis", axis}}));
}

Results top_k(Call& c) {
  const auto names = c.net.emit_many("TopK", {c.x(), c.net.sizes({c.at(1)})}, 2,
                                     {{"axis", c.integer(2, -1)},
                                      {"largest", std::int64_t{c.flag(3, true)}},
                                      {"sorted", std::int64_t{c.flag(4, true)}}});
  return {make_tensor(names[0]), make_tensor(names[1])};
}

// to(dtype), to(device, dtype), to(other): only the type matters here.
Results to(Call& c) {
  if (const auto type = c.dtype()) return one(c.net.cast(c.x(), *type));
  const int other = c.find("other");
  return one(other < 0 ? c.x() : c.net.cast(c.x(), c.net.type(c.x(static_cast<std::size_t>(other)))));
}
Results type_as(Call& c) {
  return one(c.net.cast(c.x(), c.net.type(c.x(1))));
}

template <DataType kType>
Results typed(Call& c) {
  return one(c.net.cast(c.x(), kType));
}

}  // namespace

const Handlers& index_handlers() {
  static const Handlers table = {{"select", select},
                                 {"index_select", index_select},
                                 {"gather", gather},
                                 {"index", index},
                                 {"topk", top_k},
                                 {"to", to},
                                 {"type_as", type_as},
                                 {"_cast_Float", typed<DataType::kFloat>},
                                 {"_cast_Long", typed<DataType::kInt64>},
                                 {"_cast_Int", typed<DataType::kInt32>}};
  return table;
}

}  // namespace quanvas::torchscript
