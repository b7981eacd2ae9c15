// Branches and loops. Those that are known are walked; the others become If and Loop, and what the two ways of a
// branch leave behind (results, attributes, items of lists) is merged into results of the If.
#include <algorithm>
#include <iterator>
#include <limits>

#include "plugins/importers/torchscript/walk.h"

namespace quanvas::torchscript {
namespace {

constexpr std::int64_t kMostRounds = 4096;

bool equal_values(const Val& a, const Val& b) {
  return a.kind == b.kind && a.integer == b.integer && a.real == b.real && a.text == b.text && a.name == b.name &&
         a.items == b.items && a.members == b.members && a.type == b.type && a.spoiled == b.spoiled;
}

// Runs `walk` with the nodes of a subgraph as the draft's.
template <class F>
void inside(Net& net, std::vector<DraftNode>& nodes, const F& walk) {
  auto* outer = std::exchange(net.nodes, &nodes);
  try {
    walk();
  } catch (...) {
    net.nodes = outer;
    throw;
  }
  net.nodes = outer;
}

}  // namespace

void capture(DraftNode& node) {
  std::set<std::string> there;
  for (const auto& [key, body] : node.bodies) {
    std::set<std::string> own(body->inputs.begin(), body->inputs.end());
    for (const DraftNode& n : body->nodes) own.insert(n.outputs.begin(), n.outputs.end());
    const auto add = [&](const std::string& t) {
      if (!t.empty() && !own.count(t) && there.insert(t).second) node.captured.push_back(t);
    };
    for (const DraftNode& n : body->nodes)
      for (const std::string& t : n.inputs) add(t);
    for (const std::string& t : body->outputs) add(t);
  }
  node.inputs.insert(node.inputs.end(), node.captured.begin(), node.captured.end());
}

namespace {

void drop_dead(std::vector<DraftNode>& nodes, std::set<std::string> wanted);

// An If without the results that nobody wants, and its subgraphs without what led to them.
void prune(DraftNode& node, const std::set<std::string>& wanted) {
  if (node.op == "If") {
    std::vector<bool> keep;
    for (const std::string& t : node.outputs) keep.push_back(wanted.count(t) > 0);
    const auto kept = [&](const std::vector<std::string>& all) {
      std::vector<std::string> out;
      for (std::size_t i = 0; i < all.size(); ++i)
        if (keep[i]) out.push_back(all[i]);
      return out;
    };
    for (auto& [key, body] : node.bodies) {
      auto fresh = std::make_shared<DraftBody>(*body);
      fresh->outputs = kept(fresh->outputs);
      body = fresh;
    }
    node.outputs = kept(node.outputs);
  }
  node.inputs.resize(node.own_inputs());
  node.captured.clear();
  for (auto& [key, body] : node.bodies) {
    auto fresh = std::make_shared<DraftBody>(*body);
    drop_dead(fresh->nodes, {fresh->outputs.begin(), fresh->outputs.end()});
    body = fresh;
  }
  capture(node);
}

void drop_dead(std::vector<DraftNode>& nodes, std::set<std::string> wanted) {
  std::vector<DraftNode> kept;
  for (auto n = nodes.rbegin(); n != nodes.rend(); ++n) {
    if (std::none_of(n->outputs.begin(), n->outputs.end(),
                     [&](const std::string& t) { return wanted.count(t) > 0; }))
      continue;
    if (!n->bodies.empty()) prune(*n, wanted);
    wanted.insert(n->inputs.begin(), n->inputs.end());
    kept.push_back(std::move(*n));
  }
  std::reverse(kept.begin(), kept.end());
  nodes = std::move(kept);
}

}  // namespace

void drop_unread_results(Draft& draft) {
  drop_dead(draft.nodes, {draft.outputs.begin(), draft.outputs.end()});
}

void Walk::branch_or_loop(torch::jit::Node* n, Env& env) {
  const std::size_t mark = net_.nodes->size();
  const std::string origin = std::exchange(net_.origin, n->kind().toQualString());
  try {
    if (n->kind() == torch::jit::prim::If)
      choose(n, env);
    else
      loop(n, env);
  } catch (const Unmapped& e) {
    net_.nodes->resize(mark);
    Refs in;
    for (const auto* v : n->inputs()) in.push_back(read(v, env));
    const Refs out = opaque(n, in, std::string(e.what()) + (place_of(n).empty() ? "" : " (" + place_of(n) + ")"));
    for (std::size_t i = 0; i < n->outputs().size(); ++i) env[n->outputs()[i]] = out[i];
  }
  net_.origin = origin;
}

void Walk::walk_inline(torch::jit::Node* n, torch::jit::Block* b, Env& env) {
  block(b, env);
  for (std::size_t i = 0; i < n->outputs().size(); ++i) env[n->outputs()[i]] = read(b->outputs()[i], env);
}

void Walk::choose(torch::jit::Node* n, Env& env) {
  const Ref condition = read(n->inputs()[0], env);
  if (!condition->is_number())
    throw Unmapped(condition->kind == Kind::kOther ? condition->text : "its condition is no truth value");
  if (condition->is_known()) return walk_inline(n, n->blocks()[condition->integer ? 0 : 1], env);
  Branch a = walk_branch(n->blocks()[0], env), b = walk_branch(n->blocks()[1], env);
  if (!a.raised.empty() && !b.raised.empty()) throw Raised(a.raised);
  if (!a.raised.empty() || !b.raised.empty()) {  // a check of the input: the way on is the other one
    checks_.push_back(a.raised.empty() ? b.raised : a.raised);
    const Refs results = go_on_with(a.raised.empty() ? a : b);
    assume(condition->name, a.raised.empty());
    for (std::size_t i = 0; i < n->outputs().size(); ++i) env[n->outputs()[i]] = results[i];
    return;
  }
  try {
    const Refs results = either(condition->name, a, b);
    for (std::size_t i = 0; i < n->outputs().size(); ++i) env[n->outputs()[i]] = results[i];
  } catch (const Unmapped& e) {
    spoil(a, e.what());
    spoil(b, e.what());
    throw;
  }
}

// What a part that is not mapped would have changed must not be read as if it had not.
void Walk::spoil(const Branch& branch, const std::string& why) {
  for (const auto& [value, after] : branch.changed) {
    mutate(value);
    value->spoiled = why;
  }
}

// What `walk` does, taken back: it stands in the branch.
Walk::Branch Walk::record(const std::function<Refs()>& walk) {
  Branch out;
  journals_.emplace_back();
  facts_before_.emplace_back();
  const auto undo = [&] {
    for (const auto& [value, before] : journals_.back()) {
      out.changed[value] = *value;
      *value = before;
    }
    journals_.pop_back();
    for (auto& [name, facts] : facts_before_.back()) net_.draft.facts[name] = facts;
    facts_before_.pop_back();
  };
  try {
    inside(net_, out.nodes, [&] { out.results = walk(); });
  } catch (const Raised& e) {
    out.raised = e.what();
  } catch (...) {
    undo();
    throw;
  }
  undo();
  return out;
}

Walk::Branch Walk::walk_branch(torch::jit::Block* b, Env& env) {
  return record([&] {
    block(b, env);
    Refs out;
    for (const auto* v : b->outputs()) out.push_back(read(v, env));
    return out;
  });
}

// From here on a dimension is the number that a check has compared it with.
void Walk::assume(const std::string& condition, bool holds) {
  const auto it = equalities_.find(condition);
  if (it == equalities_.end() || it->second.negated == holds) return;
  for (auto& [name, facts] : net_.draft.facts) {
    if (!facts.shape ||
        std::find(facts.shape->begin(), facts.shape->end(), it->second.dimension) == facts.shape->end())
      continue;
    if (!facts_before_.empty()) facts_before_.back().emplace(name, facts);
    std::replace(facts.shape->begin(), facts.shape->end(), it->second.dimension, it->second.value);
  }
}

Refs Walk::call_by_cases(torch::jit::Function& function, Refs arguments, std::size_t number,
                         std::vector<std::int64_t>& values) {
  const Ref unknown = arguments.at(number);
  std::vector<std::pair<std::int64_t, Branch>> cases;
  std::string refused;
  for (const std::int64_t v : values) {
    arguments[number] = make_int(v);
    Branch branch = record([&] { return call(function, arguments); });
    if (branch.raised.empty())
      cases.emplace_back(v, std::move(branch));
    else
      refused = branch.raised;
  }
  if (cases.empty()) throw Raised(refused);
  values.clear();
  for (const auto& [v, branch] : cases) values.push_back(v);
  net_.origin = "case";
  const std::function<Refs(std::size_t)> choose_from = [&](std::size_t i) -> Refs {
    if (i + 1 == cases.size()) return go_on_with(cases[i].second);
    Branch rest = record([&] { return choose_from(i + 1); });
    const std::string is = net_.emit("Equal", {unknown->name, net_.tensor_of(make_int(cases[i].first))});
    return either(is, cases[i].second, rest);
  };
  return choose_from(0);
}

// What the branch did holds.
Refs Walk::go_on_with(Branch& branch) {
  std::move(branch.nodes.begin(), branch.nodes.end(), std::back_inserter(*net_.nodes));
  for (const auto& [value, after] : branch.changed) {
    mutate(value);
    *value = after;
  }
  return branch.results;
}

// One value that is `a` or `b`.
Ref Walk::merged(const Val& a, const Val& b, DraftBody& then_body, DraftBody& else_body, DraftNode& out) {
  if (equal_values(a, b)) return std::make_shared<Val>(a);
  if (a.kind == Kind::kOther && a.text == "a value that was never set") return std::make_shared<Val>(b);
  if (b.kind == Kind::kOther && b.text == "a value that was never set") return std::make_shared<Val>(a);
  const auto spoiled = [](const std::string& why) {
    Ref v = make_other(why);
    v->spoiled = why;
    return v;
  };
  if (!a.spoiled.empty() || !b.spoiled.empty()) return spoiled(a.spoiled.empty() ? b.spoiled : a.spoiled);
  const bool numbers = a.is_number() && b.is_number();
  if (a.kind != b.kind && !numbers)
    return spoiled("a value is of another kind after one way of a branch than after the other");
  if (a.is_list() || a.kind == Kind::kObject) {
    Ref v = std::make_shared<Val>(a);
    if (a.items.size() != b.items.size() || a.members.size() != b.members.size())
      return spoiled("a list has another length after one way of a branch than after the other");
    for (std::size_t i = 0; i < a.items.size(); ++i)
      if (a.items[i] != b.items[i]) v->items[i] = merged(*a.items[i], *b.items[i], then_body, else_body, out);
    for (auto& [name, member] : v->members)
      if (const auto other = b.members.find(name); other == b.members.end())
        return spoiled("an attribute is only sometimes set");
      else if (member != other->second)
        member = merged(*member, *other->second, then_body, else_body, out);
    return v;
  }
  if (!numbers && a.kind != Kind::kTensor) return spoiled("a text depends on the network's input");
  const Refs both = {std::make_shared<Val>(a), std::make_shared<Val>(b)};
  const DataType type = numbers ? promoted(net_, both) : net_.type(a.name);
  if (!numbers && net_.type(b.name) != type)
    return spoiled("a tensor is of another type after one way of a branch than after the other");
  std::string names[2];
  DraftBody* bodies[2] = {&then_body, &else_body};
  for (int i = 0; i < 2; ++i) {
    inside(net_, bodies[i]->nodes, [&] {
      names[i] = net_.tensor_of(both[static_cast<std::size_t>(i)], numbers ? type : DataType::kUndefined);
    });
    bodies[i]->outputs.push_back(names[i]);
  }
  const std::string name = net_.new_tensor((net_.scope.empty() ? "" : net_.scope + ".") + "either");
  out.outputs.push_back(name);
  TensorFacts facts{type, std::nullopt};
  const Shape *first = net_.shape(names[0]), *second = net_.shape(names[1]);
  if (first && second && first->size() == second->size()) {
    facts.shape = *first;
    for (std::size_t i = 0; i < first->size(); ++i)
      if ((*first)[i] != (*second)[i]) (*facts.shape)[i] = net_.draft.new_symbol();
  }
  net_.draft.facts[name] = facts;
  Ref v = std::make_shared<Val>(a);
  v->name = name;
  v->group = 0;
  if (numbers) chosen_.insert(name);
  if (numbers) v->kind = type == DataType::kBool ? Kind::kBool : is_integer(type) ? Kind::kInt : Kind::kReal;
  return v;
}

Refs Walk::either(const std::string& condition, Branch& a, Branch& b) {
  auto then_body = std::make_shared<DraftBody>(), else_body = std::make_shared<DraftBody>();
  then_body->name = "then";
  else_body->name = "else";
  then_body->nodes = std::move(a.nodes);
  else_body->nodes = std::move(b.nodes);
  DraftNode node;
  node.op = "If";
  node.inputs = {net_.cast(condition, DataType::kBool)};
  const auto merge = [&](const Val& x, const Val& y) { return merged(x, y, *then_body, *else_body, node); };
  Refs results;
  for (std::size_t i = 0; i < std::min(a.results.size(), b.results.size()); ++i)
    results.push_back(a.results[i] == b.results[i] ? a.results[i] : merge(*a.results[i], *b.results[i]));
  std::set<Ref> changed;
  for (const auto* branch : {&a, &b})
    for (const auto& [value, after] : branch->changed) changed.insert(value);
  for (const Ref& value : changed) {
    const auto x = a.changed.find(value), y = b.changed.find(value);
    const Ref after = merge(x == a.changed.end() ? *value : x->second, y == b.changed.end() ? *value : y->second);
    mutate(value);
    *value = *after;
  }
  if (node.outputs.empty()) return results;
  node.bodies = {{"then_branch", then_body}, {"else_branch", else_body}};
  capture(node);
  net_.add_node(std::move(node));
  return results;
}

// --- loops
// --------------------------------------------------------------------------------------------------------

void Walk::loop(torch::jit::Node* n, Env& env) {
  if (!unroll(n, env)) unknown_loop(n, env);
}

// Round by round as long as it is known that it goes on. False: that is not known from the start.
bool Walk::unroll(torch::jit::Node* n, Env& env) {
  const Ref most = read(n->inputs()[0], env);
  Ref goes_on = read(n->inputs()[1], env);
  if (!most->is_known() || !goes_on->is_known()) return false;
  torch::jit::Block* body = n->blocks()[0];
  const bool counted = most->integer < std::numeric_limits<std::int64_t>::max();
  if (counted && most->integer > kMostRounds) return false;
  Refs state;
  for (std::size_t i = 2; i < n->inputs().size(); ++i) state.push_back(read(n->inputs()[i], env));
  for (std::int64_t round = 0; round < most->integer && goes_on->integer; ++round) {
    if (round > kMostRounds)
      throw Stopped({ErrorCode::kUnsupported,
                     "A loop (" + place_of(n) + ") has more than " + std::to_string(kMostRounds) + " rounds.",
                     "Export it as ONNX.",
                     {}});
    env[body->inputs()[0]] = make_int(round);
    for (std::size_t i = 0; i < state.size(); ++i) env[body->inputs()[i + 1]] = state[i];
    Branch walked = walk_branch(body, env);
    if (!walked.raised.empty()) throw Raised(walked.raised);
    if (!walked.results[0]->is_known()) {
      if (round == 0) return false;
      throw Stopped(
          {ErrorCode::kUnsupported,
           "When a loop ends (" + place_of(n) + ") depends on the network's input only after some rounds.",
           "Export it as ONNX.",
           {}});
    }
    const Refs results = go_on_with(walked);
    goes_on = results[0];
    state.assign(results.begin() + 1, results.end());
  }
  for (std::size_t i = 0; i < state.size(); ++i) env[n->outputs()[i]] = state[i];
  return true;
}

void Walk::unknown_loop(torch::jit::Node* n, Env& env) {
  torch::jit::Block* b = n->blocks()[0];
  const Ref most = read(n->inputs()[0], env), goes_on = read(n->inputs()[1], env);
  DraftNode node;
  node.op = "Loop";
  const bool endless = most->is_known() && most->integer == std::numeric_limits<std::int64_t>::max();
  node.inputs = {endless ? "" : net_.tensor_of(most, DataType::kInt64), net_.tensor_of(goes_on, DataType::kBool)};
  auto body = std::make_shared<DraftBody>();
  body->name = "body";
  const auto formal = [&](const char* base, DataType type, std::optional<Shape> shape) {
    const std::string name = net_.new_tensor((net_.scope.empty() ? "" : net_.scope + ".") + base);
    net_.draft.facts[name] = {type, std::move(shape)};
    net_.draft.declared[name] = {type, std::nullopt};
    body->inputs.push_back(name);
    return name;
  };
  env[b->inputs()[0]] = net_.number_of(formal("round", DataType::kInt64, Shape{}), Kind::kInt);
  net_.nonnegative.insert(body->inputs[0]);
  formal("goes_on", DataType::kBool, Shape{});
  Refs formals, starts;
  std::vector<std::size_t> carried;
  for (std::size_t i = 2; i < n->inputs().size(); ++i) {
    const Ref start = read(n->inputs()[i], env);
    starts.push_back(start);
    formals.push_back(start);
    if (start->kind == Kind::kTensor || start->is_number()) {
      const std::string t = net_.tensor_of(start);
      std::optional<Shape> shape;
      if (const Shape* s = net_.shape(t)) shape = Shape(s->size());
      for (std::size_t k = 0; shape && k < shape->size(); ++k) (*shape)[k] = net_.draft.new_symbol();
      node.inputs.push_back(t);
      const std::string name = formal("carried", net_.type(t), shape);
      formals.back() = start->kind == Kind::kTensor ? make_tensor(name) : net_.number_of(name, start->kind);
      carried.push_back(formals.size() - 1);
    }
    env[b->inputs()[i - 1]] = formals.back();
  }
  Branch round = walk_branch(b, env);
  if (!round.raised.empty()) throw Unmapped("every round of a loop ends in an error: " + round.raised);
  if (!round.changed.empty()) {
    const std::string why = "a loop of unknown length changes a list or an attribute";
    spoil(round, why);
    throw Unmapped(why);
  }
  body->nodes = std::move(round.nodes);
  inside(net_, body->nodes, [&] {
    body->outputs.push_back(net_.tensor_of(round.results[0], DataType::kBool));
    for (const std::size_t i : carried) {
      const std::string t = net_.tensor_of(round.results[i + 1]), in = body->inputs[2 + (body->outputs.size() - 1)];
      const Shape *before = net_.shape(in), *after = net_.shape(t);
      if (net_.type(t) != net_.type(in) || (before && (!after || after->size() != before->size())))
        throw Unmapped("a value changes its type or rank in a loop of unknown length");
      body->outputs.push_back(t);
    }
  });
  for (std::size_t i = 0; i < formals.size(); ++i)
    if (std::find(carried.begin(), carried.end(), i) == carried.end() &&
        !equal_values(*round.results[i + 1], *formals[i]))
      throw Unmapped("a list changes in a loop of unknown length");
  node.bodies = {{"body", body}};
  node.outputs.resize(carried.size());
  capture(node);
  net_.add_node(std::move(node));
  const std::vector<std::string> names = net_.nodes->back().outputs;
  for (std::size_t i = 0; i < starts.size(); ++i) env[n->outputs()[i]] = starts[i];
  for (std::size_t k = 0; k < carried.size(); ++k) {
    net_.draft.facts[names[k]] = *net_.draft.known(body->inputs[k + 2]);
    const Ref& start = starts[carried[k]];
    env[n->outputs()[carried[k]]] =
        start->kind == Kind::kTensor ? make_tensor(names[k]) : net_.number_of(names[k], start->kind);
  }
}

}  // namespace quanvas::torchscript
