// One walk over the nodes in their order: constants are folded, clutter is removed, shapes are found and
// Reshapes are freed from a batch size that the exporter happened to use.
#include <algorithm>
#include <deque>

#include "plugins/importers/onnx_draft.h"

namespace quanvas::onnx_import {
namespace {

bool is_number(const Cell& c, std::int64_t v) {
  return c.symbol == 0 && c.integer == v;
}

// Exporters are supposed to write nodes in order; those that do not are put in order here. A cycle is left
// to the graph's builder, which names it.
void sort_nodes(std::vector<DraftNode>& nodes) {
  std::unordered_map<std::string, std::size_t> producer;
  for (std::size_t i = 0; i < nodes.size(); ++i)
    for (const std::string& t : nodes[i].outputs)
      if (!t.empty()) producer.emplace(t, i);
  std::vector<std::vector<std::size_t>> readers(nodes.size());
  std::vector<std::size_t> waits(nodes.size(), 0);
  bool sorted = true;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    for (const std::string& t : nodes[i].inputs) {
      const auto it = producer.find(t);
      if (it == producer.end()) continue;
      readers[it->second].push_back(i);
      ++waits[i];
      sorted = sorted && it->second < i;
    }
  }
  if (sorted) return;
  std::deque<std::size_t> ready;
  for (std::size_t i = 0; i < waits.size(); ++i)
    if (waits[i] == 0) ready.push_back(i);
  std::vector<DraftNode> ordered;
  while (!ready.empty()) {
    const std::size_t i = ready.front();
    ready.pop_front();
    ordered.push_back(nodes[i]);
    for (const std::size_t r : readers[i])
      if (--waits[r] == 0) ready.push_back(r);
  }
  if (ordered.size() == nodes.size()) nodes = std::move(ordered);
}

struct Walk {
  Draft draft;
  Knowledge known{draft, {}};
  std::int64_t batch_symbol = 0;  // 0: no batch is made free
  std::int64_t fixed_batch = 0;
  std::int64_t budget = std::int64_t{160} << 20;  // elements that ConstantOfShape may become; VGG-19 has 144 M
  std::unordered_map<std::string, std::string> alias;
  std::unordered_set<std::string> names;                      // of all tensors that nodes read or make
  std::vector<std::pair<std::string, std::string>> problems;  // node, why

  explicit Walk(Draft d) : draft(std::move(d)) {}

  void run(JobContext& job) {
    for (const DraftNode& node : draft.nodes) {
      names.insert(node.inputs.begin(), node.inputs.end());
      names.insert(node.outputs.begin(), node.outputs.end());
    }
    for (std::size_t i = 0; i < draft.nodes.size(); ++i) {  // by index: branches are put in after their If
      if (job.stopped()) return;
      for (std::string& t : draft.nodes[i].inputs)
        if (const auto it = alias.find(t); it != alias.end()) t = it->second;
      if (take_branch(i)) continue;
      DraftNode& node = draft.nodes[i];
      if (skip(node) || fold(node)) continue;
      rewrite(node);
      refuse_texts(node);
      for (const auto& [key, body] : node.bodies) infer_body(*body);
      if (const std::string why = infer(node, known, draft); !why.empty()) problems.emplace_back(node.label(), why);
      take_types_of_bodies(node);
    }
  }

  // Types and shapes inside a subgraph. Of its own inputs only the type is taken: in a loop their shape may change.
  void infer_body(const DraftBody& body) {
    for (const std::string& t : body.inputs) {
      const auto said = draft.declared.find(t);
      draft.facts[t] = {said == draft.declared.end() ? DataType::kUndefined : said->second.type, std::nullopt};
    }
    for (const DraftNode& node : body.nodes) {
      for (const auto& [key, inner] : node.bodies) infer_body(*inner);
      infer(node, known, draft);
      take_types_of_bodies(node);
    }
  }

  // What the file does not say of the results of If and Loop, the subgraphs do.
  void take_types_of_bodies(const DraftNode& node) {
    if (node.bodies.empty() || (node.op != "If" && node.op != "Loop")) return;
    const std::size_t skipped = node.op == "Loop" ? 1 : 0;  // the condition
    for (std::size_t k = 0; k < node.outputs.size(); ++k) {
      std::optional<TensorFacts> common;
      for (const auto& [key, body] : node.bodies) {
        const std::size_t at = k + skipped;
        const TensorFacts* facts = at < body->outputs.size() ? draft.known(body->outputs[at]) : nullptr;
        if (!facts || node.outputs[k].empty()) return;
        if (!common) common = *facts;
        if (common->type != facts->type) common->type = DataType::kUndefined;
        if (common->shape != facts->shape || skipped) common->shape.reset();
      }
      TensorFacts& own = draft.facts[node.outputs[k]];
      if (own.type == DataType::kUndefined) own.type = common->type;
      if (!own.shape) own.shape = common->shape;
    }
  }

  // An If whose condition is known is the branch that is taken.
  bool take_branch(std::size_t index) {
    DraftNode& node = draft.nodes[index];
    if (node.op != "If" || !node.domain.empty() || !node.opaque_reason.empty() || node.own_inputs() != 1)
      return false;
    const auto condition = known.value(node.inputs[0]);
    if (!condition || condition->cells.size() != 1 || !condition->is_number()) return false;
    const auto it = node.bodies.find(condition->cells[0].integer ? "then_branch" : "else_branch");
    if (it == node.bodies.end() || it->second->outputs.size() < node.outputs.size()) return false;
    const std::shared_ptr<const DraftBody> body = it->second;
    std::vector<DraftNode> nodes = body->nodes;
    sort_nodes(nodes);
    for (std::size_t k = 0; k < node.outputs.size(); ++k) {
      if (node.outputs[k].empty()) continue;
      DraftNode result;
      result.op = "Identity";
      result.inputs = {body->outputs[k]};
      result.outputs = {node.outputs[k]};
      nodes.push_back(std::move(result));
    }
    for (const DraftNode& n : nodes) {
      names.insert(n.inputs.begin(), n.inputs.end());
      names.insert(n.outputs.begin(), n.outputs.end());
    }
    node.removed = true;
    draft.nodes.insert(draft.nodes.begin() + static_cast<std::ptrdiff_t>(index) + 1,
                       std::make_move_iterator(nodes.begin()), std::make_move_iterator(nodes.end()));
    return true;
  }

  void refuse_texts(DraftNode& node) const {
    if (!node.opaque_reason.empty()) return;
    for (const std::string& t : node.inputs)
      if (known.type(t) == DataType::kString)
        node.opaque_reason = "it reads texts, and only numbers are computed with";
  }

  // Identity, and Dropout as it is at inference.
  bool skip(DraftNode& node) {
    if (!node.domain.empty() || !node.opaque_reason.empty() || node.input(0).empty()) return false;
    const bool is_cast = node.op == "Cast" && known.type(node.input(0)) != DataType::kUndefined &&
                         static_cast<int>(known.type(node.input(0))) == node.integer("to", 0);
    if (node.op != "Identity" && node.op != "Dropout" && !is_cast) return false;
    for (std::size_t i = 1; i < node.outputs.size(); ++i)
      if (is_used(node.outputs[i])) return false;
    if (node.op == "Dropout" && !is_inference(node)) return false;
    if (draft.is_output(node.outputs[0])) return false;
    alias[node.outputs[0]] = node.input(0);
    node.removed = true;
    return true;
  }

  bool is_inference(const DraftNode& node) const {
    if (node.input(2).empty()) return true;
    const auto training = known.value(node.input(2));
    return training && training->is_number() && training->cells.size() == 1 && training->cells[0].integer == 0;
  }

  bool is_used(const std::string& tensor) const {
    if (tensor.empty()) return false;
    if (draft.is_output(tensor)) return true;
    return std::any_of(draft.nodes.begin(), draft.nodes.end(), [&](const DraftNode& n) {
      return std::find(n.inputs.begin(), n.inputs.end(), tensor) != n.inputs.end();
    });
  }

  bool fold(DraftNode& node) {
    if (node.outputs.size() != 1 || !node.domain.empty() || !node.opaque_reason.empty()) return false;
    const std::string& out = node.outputs[0];
    if (out.empty() || draft.constants.count(out)) return false;
    if (auto data = made_constant(node, known, budget)) return keep_constant(node, std::move(*data));
    if (auto data = move_constants(node, known)) return keep_constant(node, std::move(*data));
    auto value = evaluate(node, known);
    if (!value) return false;
    if (auto data = data_of(*value)) return keep_constant(node, std::move(*data));
    draft.facts[out] = {value->type, value->shape};
    known.values[out] = std::move(*value);
    return true;  // stays a node: needed when somebody still reads it
  }

  bool keep_constant(DraftNode& node, TensorData data) {
    const std::string& out = node.outputs[0];
    draft.facts[out] = {data.type, data.shape};
    if (draft.is_output(out)) {
      if (auto value = value_of(data)) known.values[out] = std::move(*value);
      return true;
    }
    draft.constants[out] = std::move(data);
    node.removed = true;
    return true;
  }

  void rewrite(DraftNode& node) {
    if (!node.domain.empty() || !node.opaque_reason.empty()) return;
    if (node.op == "Reshape" && node.inputs.size() == 2) rewrite_reshape(node);
    if (node.op == "Expand" && node.inputs.size() == 2) rewrite_expand(node);
    if (node.op == "Resize" && node.inputs.size() == 4 && batch_symbol) rewrite_resize(node);
  }

  // Sizes name the batch, scales do not; Resize computes with size / dimension either way.
  void rewrite_resize(DraftNode& node) {
    const Shape* x = known.shape(node.input(0));
    const auto sizes = known.value(node.input(3));
    if (!x || !sizes || !sizes->is_number() || sizes->cells.size() != x->size() || x->empty()) return;
    if ((*x)[0] != batch_symbol || !is_number(sizes->cells[0], fixed_batch)) return;
    std::vector<float> scales = {1};
    for (std::size_t i = 1; i < x->size(); ++i) {
      const std::int64_t d = (*x)[i], size = sizes->cells[i].integer;
      if (d <= 0 || size <= 0) return;
      scales.push_back(static_cast<float>(size) / static_cast<float>(d));
      if (static_cast<std::int64_t>(static_cast<float>(d) * scales.back()) != size) return;
    }
    const Shape shape = {static_cast<std::int64_t>(scales.size())};
    set_constant_input(node, 2, TensorData::of_floats(shape, std::move(scales)));
    node.inputs.pop_back();
  }

  void rewrite_reshape(DraftNode& node) {
    const Shape* x = known.shape(node.input(0));
    const auto target = known.value(node.input(1));
    if (!x || !target || target->shape.size() != 1) return;
    const auto numbers =
        batch_free_target(*x, *target, batch_symbol, fixed_batch, node.integer("allowzero", 0) != 0);
    if (!numbers || is_equal(*target, *numbers)) return;
    node.attributes.erase("allowzero");
    set_constant_input(node, 1, *numbers);
  }

  // A dimension that the data has anyway may be written as 1: Expand broadcasts both ways.
  void rewrite_expand(DraftNode& node) {
    const Shape* x = known.shape(node.input(0));
    const auto target = known.value(node.input(1));
    if (!x || !target || target->shape.size() != 1 || target->is_number()) return;
    std::vector<std::int64_t> numbers;
    for (std::size_t i = 0; i < target->cells.size(); ++i) {
      const Cell& c = target->cells[i];
      const std::size_t from_end = target->cells.size() - i;
      const bool same = from_end <= x->size() && c.symbol < kUnknownDim && (*x)[x->size() - from_end] == c.symbol;
      if (c.symbol && !same) return;
      numbers.push_back(same ? 1 : c.integer);
    }
    set_constant_input(node, 1, numbers);
  }

  static bool is_equal(const Value& target, const std::vector<std::int64_t>& numbers) {
    for (std::size_t i = 0; i < numbers.size(); ++i)
      if (!is_number(target.cells[i], numbers[i])) return false;
    return true;
  }

  void set_constant_input(DraftNode& node, std::size_t index, const std::vector<std::int64_t>& numbers) {
    set_constant_input(node, index, TensorData::of_int64({static_cast<std::int64_t>(numbers.size())}, numbers));
  }

  void set_constant_input(DraftNode& node, std::size_t index, TensorData data) {
    std::string name = node.outputs[0] + "_folded";
    while (draft.facts.count(name) || draft.declared.count(name) || !names.insert(name).second) name += "_";
    draft.facts[name] = {data.type, data.shape};
    draft.constants[name] = std::move(data);
    node.inputs[index] = name;
  }
};

// The size that all batch dimensions of the inputs have, when it is a number: 1 mostly. 0: none.
std::int64_t fixed_batch_of(const Draft& draft) {
  std::int64_t batch = 0;
  for (const std::string& t : draft.inputs) {
    const auto& shape = draft.facts.at(t).shape;
    if (!shape || shape->size() < 2) continue;
    const std::int64_t d = (*shape)[0];
    if (d <= 0 || (d > 1 && shape->size() != 4) || (batch && d != batch)) return 0;
    batch = d;
  }
  return batch;
}

Draft with_free_batch(Draft draft, std::int64_t symbol) {
  for (const std::string& t : draft.inputs) {
    auto& shape = draft.facts[t].shape;
    if (shape && shape->size() >= 2) (*shape)[0] = symbol;
  }
  // What the file says of results holds for its own batch only.
  for (auto& [name, facts] : draft.declared) facts.shape.reset();
  return draft;
}

// Free only what is proven: the batch must have reached every output.
bool carries_batch(const Draft& draft, std::int64_t symbol) {
  return std::all_of(draft.outputs.begin(), draft.outputs.end(), [&](const std::string& t) {
    const TensorFacts* facts = draft.known(t);
    return facts && facts->shape && !facts->shape->empty() && (*facts->shape)[0] == symbol;
  });
}

void drop_dead(Draft& draft, JobContext& job) {
  std::unordered_set<std::string> wanted(draft.outputs.begin(), draft.outputs.end());
  std::vector<std::string> dropped;
  static const std::unordered_set<std::string> kClutter = {
      "Shape", "Gather", "Unsqueeze", "Squeeze", "Concat", "Slice",           "Cast",  "Add",    "Sub",
      "Mul",   "Div",    "Size",      "Equal",   "Where",  "ConstantOfShape", "Range", "Reshape"};
  for (auto node = draft.nodes.rbegin(); node != draft.nodes.rend(); ++node) {
    if (node->removed) continue;
    const bool is_wanted = std::any_of(node->outputs.begin(), node->outputs.end(),
                                       [&](const std::string& t) { return !t.empty() && wanted.count(t); });
    if (is_wanted) {
      wanted.insert(node->inputs.begin(), node->inputs.end());
      continue;
    }
    node->removed = true;
    if (!kClutter.count(node->op)) dropped.push_back(node->label());
  }
  if (dropped.empty()) return;
  job.issue({Severity::kInfo,
             dropped.back(),
             std::to_string(dropped.size()) + " nodes that no output depends on were left out, the first is '" +
                 dropped.back() + "'.",
             {}});
}

void report(const Walk& walk, JobContext& job) {
  constexpr std::size_t kMostShown = 5;
  for (std::size_t i = 0; i < std::min(walk.problems.size(), kMostShown); ++i)
    job.issue(
        {Severity::kWarning, walk.problems[i].first,
         "The shape of the result of '" + walk.problems[i].first + "' is not known: " + walk.problems[i].second,
         "Costs and some checks are missing where shapes are unknown."});
  if (walk.problems.size() > kMostShown)
    job.issue({Severity::kWarning,
               {},
               "Shapes of the results of " + std::to_string(walk.problems.size() - kMostShown) +
                   " more nodes are not known.",
               {}});
}

}  // namespace

Draft simplify(Draft draft, JobContext& job) {
  sort_nodes(draft.nodes);
  const std::int64_t batch = fixed_batch_of(draft);
  if (batch > 0) {
    const std::int64_t symbol = draft.new_symbol();
    Walk walk(with_free_batch(draft, symbol));
    walk.batch_symbol = symbol;
    walk.fixed_batch = batch;
    walk.run(job);
    if (carries_batch(walk.draft, symbol)) {
      report(walk, job);
      drop_dead(walk.draft, job);
      return std::move(walk.draft);
    }
  }
  Walk walk(std::move(draft));
  walk.run(job);
  report(walk, job);
  if (batch > 0)
    job.issue({Severity::kInfo,
               {},
               "The network is made for batches of " + std::to_string(batch) + " and is run with that size only.",
               "Export it with a dynamic batch dimension to run larger batches."});
  drop_dead(walk.draft, job);
  return std::move(walk.draft);
}

}  // namespace quanvas::onnx_import
