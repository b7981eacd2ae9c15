// Arguments of a call, the table of operators, and the operator set of the finished draft.
#include <algorithm>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {

bool Call::has(std::size_t i) const {
  return i < in.size() && in[i]->kind != Kind::kNone;
}

const Ref& Call::at(std::size_t i) const {
  if (!has(i)) throw Unmapped("its argument " + std::to_string(i + 1) + " is not given");
  if (!in[i]->spoiled.empty()) throw Unmapped(in[i]->spoiled);
  return in[i];
}

int Call::find(const std::string& argument) const {
  const auto it = std::find(arguments.begin(), arguments.end(), argument);
  return it == arguments.end() ? -1 : static_cast<int>(it - arguments.begin());
}

std::string Call::x(std::size_t i) const {
  return net.tensor_of(at(i));
}
std::string Call::optional(std::size_t i) const {
  return has(i) ? x(i) : std::string();
}

std::int64_t Call::integer(std::size_t i, std::int64_t fallback) const {
  if (!has(i)) return fallback;
  const Ref& v = at(i);
  if (!v->is_number() || !v->is_known())
    throw Unmapped("its argument " + std::to_string(i + 1) + " depends on the network's input");
  return v->kind == Kind::kReal ? static_cast<std::int64_t>(v->real) : v->integer;
}

double Call::real(std::size_t i, double fallback) const {
  if (!has(i)) return fallback;
  if (at(i)->kind == Kind::kReal && at(i)->is_known()) return at(i)->real;
  return static_cast<double>(integer(i));
}

bool Call::flag(std::size_t i, bool fallback) const {
  return integer(i, fallback) != 0;
}

std::string Call::text(std::size_t i, const std::string& fallback) const {
  return has(i) && at(i)->kind == Kind::kText ? at(i)->text : fallback;
}

Refs Call::list(std::size_t i) const {
  if (!has(i)) return {};
  const Ref& v = at(i);
  return v->is_list() ? v->items : Refs{v};
}

std::vector<std::int64_t> Call::ints(std::size_t i) const {
  std::vector<std::int64_t> out;
  for (const Ref& v : list(i)) {
    if (v->kind != Kind::kInt || !v->is_known())
      throw Unmapped("its argument " + std::to_string(i + 1) + " depends on the network's input");
    out.push_back(v->integer);
  }
  return out;
}

std::vector<std::int64_t> Call::ints(std::size_t i, std::size_t n) const {
  auto out = ints(i);
  if (out.size() == 1) out.resize(n, out[0]);
  if (out.size() != n)
    throw Unmapped("its argument " + std::to_string(i + 1) + " has " + std::to_string(out.size()) +
                   " numbers, expected " + std::to_string(n));
  return out;
}

std::vector<double> Call::reals(std::size_t i) const {
  std::vector<double> out;
  for (const Ref& v : list(i)) {
    if (!v->is_number() || !v->is_known())
      throw Unmapped("its argument " + std::to_string(i + 1) + " depends on the network's input");
    out.push_back(v->kind == Kind::kReal ? v->real : static_cast<double>(v->integer));
  }
  return out;
}

std::vector<std::string> Call::tensors(std::size_t i) const {
  std::vector<std::string> out;
  for (const Ref& v : list(i)) out.push_back(net.tensor_of(v));
  return out;
}

std::optional<DataType> Call::dtype() const {
  const int i = find("dtype");
  if (i < 0 || !has(static_cast<std::size_t>(i))) return std::nullopt;
  const auto type = torch_type(integer(static_cast<std::size_t>(i)));
  if (!type) throw Unmapped("its element type has no counterpart");
  return type;
}

Results one(const std::string& tensor) {
  return {make_tensor(tensor)};
}

namespace {
const std::vector<const Handlers*>& families() {
  static const std::vector<const Handlers*> all = {&math_handlers(),     &activation_handlers(), &layer_handlers(),
                                                   &pool_handlers(),     &shape_handlers(),      &index_handlers(),
                                                   &creation_handlers(), &recurrent_handlers(),  &quantized_handlers()};
  return all;
}
}  // namespace

Handler find_handler(const std::string& op) {
  if (op.rfind("quantized::", 0) == 0) {
    const auto it = packed_handlers().find(op.substr(11));
    return it == packed_handlers().end() ? nullptr : it->second;
  }
  if (op.rfind("aten::", 0) != 0) return nullptr;
  for (const Handlers* family : families())
    if (const auto it = family->find(op.substr(6)); it != family->end()) return it->second;
  return nullptr;
}

std::vector<std::string> mapped_operators() {
  std::vector<std::string> out;
  for (const Handlers* family : families())
    for (const auto& [name, handler] : *family) out.push_back(name);
  for (const auto& [name, handler] : packed_handlers()) out.push_back("quantized::" + name);
  std::sort(out.begin(), out.end());
  return out;
}

namespace {

// Reductions other than ReduceSum take their axes as an input from operator set 18 on.
void move_axes(DraftNode& node, Draft& draft) {
  const auto axes = node.integers("axes");
  if (node.op.rfind("Reduce", 0) != 0 || !axes) return;
  const std::string name = node.outputs[0] + ".axes";
  draft.constants[name] = TensorData::of_int64({static_cast<std::int64_t>(axes->size())}, *axes);
  draft.facts[name] = {DataType::kInt64, Shape{static_cast<std::int64_t>(axes->size())}};
  node.attributes.erase("axes");
  node.inputs.push_back(name);
}

}  // namespace

void choose_opset(Draft& draft) {
  static const std::map<std::string, int> since = {{"Mish", 18}, {"Gelu", 20}, {"GroupNormalization", 21}};
  int wanted = draft.opset;
  bool has_bodies = false;
  for (const DraftNode& n : draft.nodes) {
    has_bodies = has_bodies || !n.bodies.empty();
    if (const auto it = since.find(n.op); !n.removed && n.domain.empty() && it != since.end())
      wanted = std::max(wanted, it->second);
  }
  // The operators of subgraphs stay in their older form, which the executor knows as well.
  if (wanted == draft.opset || has_bodies) return;
  for (DraftNode& n : draft.nodes)
    if (!n.removed) move_axes(n, draft);
  draft.opset = wanted;
}

}  // namespace quanvas::torchscript
