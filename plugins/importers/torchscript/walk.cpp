#include "plugins/importers/torchscript/walk.h"

#include <torch/csrc/jit/api/function_impl.h>

#include <algorithm>

#include "core/base/guarded.h"

namespace quanvas::torchscript {
namespace {

constexpr std::int64_t kMostSteps = 2000000;
constexpr std::size_t kMostNodes = 200000;
constexpr int kDeepest = 100;

// "aten::add_" of "aten::add"; not "aten::__and__".
bool writes_first(const std::string& op) {
  return op.rfind("aten::", 0) == 0 && op.size() > 7 && op.back() == '_' && op[op.size() - 2] != '_';
}

// What only hands values on may hold those that must not be read.
void refuse_spoiled(const std::string& op, const Refs& in) {
  static const std::set<std::string> handing_on = {"prim::CallMethod",    "prim::CallFunction",
                                                   "prim::ListConstruct", "prim::TupleConstruct",
                                                   "prim::DictConstruct", "prim::SetAttr"};
  if (handing_on.count(op)) return;
  for (const Ref& v : in)
    if (!v->spoiled.empty()) throw Unmapped(v->spoiled);
}

}  // namespace

std::string place_of(torch::jit::Node* node) {
  const auto place = node->sourceRange().file_line_col();
  if (!place) return {};
  const std::string& file = std::get<0>(*place);
  return file.substr(file.rfind('/') == std::string::npos ? 0 : file.rfind('/') + 1) + ":" +
         std::to_string(std::get<1>(*place));
}

Ref Walk::read(const torch::jit::Value* value, const Env& env) const {
  const auto it = env.find(value);
  return it == env.end() ? make_other("a value that is not computed") : it->second;
}

Refs Walk::call(torch::jit::Function& function, const Refs& arguments) {
  if (depth_ >= kDeepest) throw Unmapped("calls are nested too deeply");
  const auto graph = torch::jit::toGraphFunction(function).graph();
  if (graph->inputs().size() != arguments.size())
    throw Unmapped("'" + function.name() + "' is called with a wrong number of arguments");
  Env env;
  for (std::size_t i = 0; i < arguments.size(); ++i) env[graph->inputs()[i]] = arguments[i];
  ++depth_;
  try {
    block(graph->block(), env);
  } catch (...) {
    --depth_;
    throw;
  }
  --depth_;
  Refs out;
  for (const auto* v : graph->outputs()) out.push_back(read(v, env));
  return out;
}

void Walk::block(torch::jit::Block* block, Env& env) {
  for (torch::jit::Node* n : block->nodes()) {
    if (++walked_ > kMostSteps || net_.draft.nodes.size() > kMostNodes)
      throw Stopped({ErrorCode::kUnsupported,
                     "The network's code runs too long: more than " + std::to_string(kMostSteps) + " steps.",
                     "Export it as ONNX.",
                     {}});
    if (walked_ % 256 == 0)
      if (const Status status = job_.check(); !status) throw Stopped(status.error());
    node(n, env);
  }
}

void Walk::node(torch::jit::Node* n, Env& env) {
  if (n->kind() == torch::jit::prim::If || n->kind() == torch::jit::prim::Loop) return branch_or_loop(n, env);
  Refs in;
  for (const auto* v : n->inputs()) in.push_back(read(v, env));
  const Refs out = results_of(n, in);
  for (std::size_t i = 0; i < n->outputs().size(); ++i)
    env[n->outputs()[i]] = i < out.size() ? out[i] : make_other("a result that is not computed");
}

// Known values, what is no arithmetic, operators of the table, LibTorch's own operator; at last a node that says
// why it cannot be run.
Refs Walk::results_of(torch::jit::Node* n, const Refs& in) {
  const std::string op = n->kind().toQualString();
  const std::string before = std::exchange(net_.origin, op);
  std::string why;
  Refs out;
  try {
    refuse_spoiled(op, in);
    const auto step = steps().find(op);
    if (step != steps().end()) out = (this->*step->second)(n, in);
    if (out.empty()) {
      if (auto known = folded(n, in))
        out = std::move(*known);
      else
        out = mapped(n, in);
    }
  } catch (const Unmapped& e) {
    why = e.what();
  }
  net_.origin = op;
  if (!why.empty()) out = opaque(n, in, why);
  net_.origin = before;
  return out;
}

Refs Walk::mapped(torch::jit::Node* n, const Refs& in) {
  const std::string op = n->kind().toQualString();
  const bool in_place = writes_first(op);
  const std::string base = in_place ? op.substr(0, op.size() - 1) : op;
  const Handler handler = find_handler(base);
  const std::size_t mark = net_.nodes->size();
  std::string why = "operator '" + base + "' is not mapped";
  Refs out;
  const bool on_codes = std::any_of(in.begin(), in.end(), [&](const Ref& v) { return v->kind == Kind::kTensor && net_.quantized.count(v->name) > 0; });
  try {
    if (!handler) throw Unmapped(why);
    Call call{net_, base, {}, in, {}};
    if (const auto* schema = n->maybeSchema()) {
      call.overload = schema->overload_name();
      for (const auto& a : schema->arguments()) call.arguments.push_back(a.name());
    }
    out = fit(n, handler(call));
    if (const std::string lost = keep_quantized(net_, base, in, out); !lost.empty()) throw Unmapped(lost);
  } catch (const Unmapped& e) {
    why = e.what();
    net_.nodes->resize(mark);
    if (on_codes) throw;  // LibTorch would compute with values where the program has codes
    out = torch_node(n, in, why);
  } catch (const std::out_of_range&) {
    net_.nodes->resize(mark);
    out = torch_node(n, in, "its arguments are not the expected ones");
  }
  if (in_place) return write_in_place(n, in, out);
  share(base, in, out);
  note_comparison(base, in, out);
  return out;
}

// A number that only a run knows and one that is known: what the program tells about its input.
void Walk::note_comparison(const std::string& op, const Refs& in, const Refs& out) {
  if ((op != "aten::eq" && op != "aten::ne") || in.size() != 2 || out.empty()) return;
  const bool first = in[0]->kind == Kind::kInt && !in[0]->is_known();
  const Ref &unknown = in[first ? 0 : 1], &number = in[first ? 1 : 0];
  if (unknown->kind != Kind::kInt || unknown->is_known() || number->kind != Kind::kInt || !number->is_known())
    return;
  if (net_.is_input(unknown->name) || chosen_.count(unknown->name)) compared_.insert(number->integer);
  const auto value = net_.known.value(unknown->name);
  if (value && value->cells.size() == 1 && value->cells[0].symbol < onnx_import::kUnknownDim)
    equalities_[out[0]->name] = {value->cells[0].symbol, number->integer, op == "aten::ne"};
}

// Numbers where the schema says number.
Refs Walk::fit(torch::jit::Node* n, Results results) {
  for (std::size_t i = 0; i < results.size() && i < n->outputs().size(); ++i) {
    if (results[i]->kind != Kind::kTensor) continue;
    const auto type = n->outputs()[i]->type()->kind();
    const std::string name = results[i]->name;
    if (type == c10::TypeKind::IntType) results[i] = net_.number_of(name, Kind::kInt);
    if (type == c10::TypeKind::FloatType) results[i] = net_.number_of(name, Kind::kReal);
    if (type == c10::TypeKind::BoolType) results[i] = net_.number_of(name, Kind::kBool);
    if (type == c10::TypeKind::NumberType)
      results[i] = net_.number_of(name, is_integer(net_.type(name))          ? Kind::kInt
                                        : net_.type(name) == DataType::kBool ? Kind::kBool
                                                                             : Kind::kReal);
    if (results[i]->is_number() && net_.nonnegative.count(name)) net_.nonnegative.insert(results[i]->name);
  }
  return results;
}

// Results that share memory with the first argument: who writes to one changes the other, which the graph cannot
// say.
void Walk::share(const std::string& op, const Refs& in, const Refs& out) {
  if (!is_view(op) || in.empty() || in[0]->kind != Kind::kTensor) return;
  const auto join = [&](const Ref& v) {
    if (v->kind != Kind::kTensor || v == in[0]) return;
    static const std::set<std::string> copies = {"aten::to", "aten::type_as", "aten::reshape"};
    if (copies.count(op) && v->name != in[0]->name) return;
    if (in[0]->group == 0) {
      in[0]->group = next_group_++;
      groups_[in[0]->group].push_back(in[0]);
    }
    v->group = in[0]->group;
    groups_[v->group].push_back(v);
  };
  for (const Ref& v : out) {
    if (v->kind == Kind::kList)
      for (const Ref& item : v->items) join(item);
    join(v);
  }
}

Refs Walk::write_in_place(torch::jit::Node* n, const Refs& in, const Refs& out) {
  if (in.empty() || in[0]->kind != Kind::kTensor || out.empty() || out[0]->kind != Kind::kTensor) return out;
  const Ref& target = in[0];
  const std::string result = net_.cast(out[0]->name, net_.type(target->name));
  mutate(target);
  target->name = result;
  for (const auto& weak : groups_[target->group]) {
    const Ref other = weak.lock();
    if (!other || other == target) continue;
    mutate(other);
    other->spoiled = "it shares memory with a tensor that is written to in place (" + place_of(n) + ")";
  }
  return {target};
}

void Walk::mutate(const Ref& value) {
  if (!journals_.empty()) journals_.back().emplace(value, *value);
}

Refs Walk::opaque(torch::jit::Node* n, const Refs& in, const std::string& why) {
  DraftNode made;
  made.op = n->kind().toQualString();
  made.domain = "torch";
  made.opaque_reason = why;
  for (const Ref& v : in)
    if (v->spoiled.empty() && !v->name.empty()) made.inputs.push_back(v->name);
  made.outputs.resize(std::max<std::size_t>(n->outputs().size(), 1));
  net_.add_node(std::move(made));
  const auto names = net_.nodes->back().outputs;
  Refs out;
  for (std::size_t i = 0; i < n->outputs().size(); ++i) {
    const auto type = n->outputs()[i]->type()->kind();
    Ref v = type == c10::TypeKind::TensorType ? make_tensor(names[i])
                                              : make_other("a result of '" + std::string(n->kind().toQualString()) +
                                                           "', which is not mapped: " + why);
    out.push_back(v);
  }
  return out;
}

}  // namespace quanvas::torchscript
