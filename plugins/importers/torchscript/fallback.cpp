// Operators that have no counterpart in the graph's own set: a node that LibTorch runs itself
// (core/exec/torch_call.h).
#include <ATen/ATen.h>

#include <cmath>

#include "core/exec/torch_call.h"
#include "plugins/importers/torchscript/walk.h"

namespace quanvas::torchscript {
namespace {

// Arguments as JSON; tensors and numbers that only a run knows become inputs.
json argument(const Ref& v, Net& net, std::vector<std::string>& inputs) {
  if (!v->spoiled.empty()) throw Unmapped(v->spoiled);
  if (!v->name.empty()) {
    inputs.push_back(v->name);
    return {{v->kind == Kind::kTensor ? "tensor" : "number", inputs.size() - 1}};
  }
  json items = json::array();
  switch (v->kind) {
    case Kind::kNone:
      return nullptr;
    case Kind::kInt:
      return v->integer;
    case Kind::kReal:
      return std::isfinite(v->real) ? json(v->real)
                                    : json{{"real", v->real > 0   ? "inf"
                                                    : v->real < 0 ? "-inf"
                                                                  : "nan"}};
    case Kind::kBool:
      return v->integer != 0;
    case Kind::kText:
      return v->text;
    case Kind::kList:
    case Kind::kTuple:
      for (const Ref& item : v->items) items.push_back(argument(item, net, inputs));
      return items;
    default:
      throw Unmapped(v->kind == Kind::kOther ? v->text : "an argument that is no tensor, number or list");
  }
}

// How many tensors a list of them has: as many as it is unpacked into.
std::size_t list_length(torch::jit::Node* n) {
  for (const auto& use : n->outputs()[0]->uses())
    if (use.user->kind() == torch::jit::prim::ListUnpack) return use.user->outputs().size();
  throw Unmapped("how many tensors it gives is not known");
}

}  // namespace

Refs Walk::torch_node(torch::jit::Node* n, const Refs& in, const std::string& why) {
  const auto* schema = n->maybeSchema();
  if (!schema) throw Unmapped(why);
  exec::TorchCall call;
  call.op = schema->name();
  call.overload = schema->overload_name();
  if (schema->is_mutable() && call.op.back() == '_') call.op.pop_back();
  DraftNode node;
  call.arguments = json::array();
  for (const Ref& v : in) call.arguments.push_back(argument(v, net_, node.inputs));
  if (const std::string refusal = exec::torch_refusal(call); !refusal.empty()) throw Unmapped(why + "; " + refusal);
  const bool is_list = n->outputs().size() == 1 && n->outputs()[0]->type()->kind() == c10::TypeKind::ListType;
  const std::size_t results = is_list ? list_length(n) : n->outputs().size();
  node.op = "TorchScript";
  node.domain = "torch";
  node.attributes = {{"operator", call.op}, {"overload", call.overload}, {"arguments", call.arguments.dump()}};
  node.outputs.resize(results);
  net_.add_node(std::move(node));
  const DraftNode made = net_.nodes->back();
  find_facts(call, made);
  Refs out;
  for (const std::string& t : made.outputs) out.push_back(make_tensor(t));
  if (is_list) return {make_list(out)};
  return fit(n, out);
}

// Types and shapes of the results, from runs on zeros: sizes that do not change with the unknown ones are known.
void Walk::find_facts(const exec::TorchCall& call, const DraftNode& node) {
  const auto run = [&](std::int64_t stand_in) -> std::optional<std::vector<at::Tensor>> {
    std::vector<at::Tensor> inputs;
    for (const std::string& t : node.inputs) {
      const Shape* shape = net_.shape(t);
      const TensorFacts* facts = net_.draft.known(t);
      if (!shape || !facts) return std::nullopt;
      Shape sizes = *shape;
      for (std::int64_t& d : sizes) d = d < 0 ? stand_in : d;
      if (element_count(sizes) > (1 << 24)) return std::nullopt;
      const auto scalar = scalar_type_of(net_.type(t));
      if (scalar == at::ScalarType::Undefined) return std::nullopt;
      inputs.push_back(at::zeros(sizes, scalar));
    }
    auto out = exec::run_torch(call, inputs, node.outputs.size());
    return out ? std::optional(*out) : std::nullopt;
  };
  const auto first = run(6), second = run(8), single = run(1);  // a size of 1 may be special: squeeze
  if (!first || !second || !single) return;
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    const at::Tensor &a = (*first)[i], &b = (*second)[i];
    if (a.dim() != b.dim() || a.dim() != (*single)[i].dim()) continue;
    TensorFacts facts{data_type(a.scalar_type()), a.sizes().vec()};
    for (std::size_t k = 0; k < facts.shape->size(); ++k)
      if (a.size(static_cast<std::int64_t>(k)) != b.size(static_cast<std::int64_t>(k)))
        (*facts.shape)[k] = net_.draft.new_symbol();
    net_.draft.facts[node.outputs[i]] = facts;
    net_.draft.declared[node.outputs[i]] = facts;
  }
}

}  // namespace quanvas::torchscript
