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

// Product of the known dimensions from `begin`; none when one is not known.
std::optional<std::int64_t> known_product(const Shape& s, std::size_t begin) {
  std::int64_t n = 1;
  for (std::size_t i = begin; i < s.size(); ++i) {
    if (s[i] < 0 || (s[i] > 0 && n > (std::int64_t{1} << 40) / s[i])) return std::nullopt;
    n *= s[i];
  }
  return n;
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
  std::unordered_set<std::string> names;  // of all tensors that nodes read or make
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
      if (const std::string why = infer(node, known, draft); !why.empty()) problems.emplace_back(node.label(), why);
    }
  }

  // An If whose condition is known is the branch that is taken.
  bool take_branch(std::size_t index) {
    DraftNode& node = draft.nodes[index];
    if (node.op != "If" || !node.domain.empty() || !node.opaque_reason.empty() || node.own_inputs() != 1) return false;
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
      if (known.type(t) == DataType::kString) node.opaque_reason = "it reads texts, and only numbers are computed with";
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

std::optional<std::vector<std::int64_t>> batch_free_target(const Shape& data, const Value& target,
                                                           std::int64_t batch_symbol, std::int64_t fixed_batch,
                                                           bool allow_zero) {
  std::vector<std::int64_t> out;
  bool has_open = false, has_zero = false;
  for (const Cell& c : target.cells) {
    has_open = has_open || is_number(c, -1);
    has_zero = has_zero || is_number(c, 0);
  }
  if (allow_zero && has_zero) return std::nullopt;
  for (std::size_t i = 0; i < target.cells.size(); ++i) {
    const Cell& c = target.cells[i];
    if (c.symbol == 0) {
      out.push_back(c.integer);
    } else if (c.symbol < kUnknownDim && i < data.size() && data[i] == c.symbol) {
      out.push_back(0);
    } else if (!has_open) {
      has_open = true;
      out.push_back(-1);
    } else {
      return std::nullopt;
    }
  }
  const bool leads = batch_symbol && !out.empty() && out[0] == fixed_batch && target.cells[0].symbol == 0 &&
                     !data.empty() && data[0] == batch_symbol;
  if (!leads) return out;
  std::int64_t rest = 1;
  bool is_open = false;
  for (std::size_t i = 1; i < out.size(); ++i) {
    const std::int64_t d = out[i] == 0 && i < data.size() ? data[i] : out[i];
    if (d == -1 && !is_open)
      is_open = true;
    else if (d <= 0 || rest > (std::int64_t{1} << 40) / d)
      return out;
    else
      rest *= d;
  }
  const auto sample = known_product(data, 1);
  if (sample ? (is_open ? *sample % rest == 0 : *sample == rest) : is_open) out[0] = 0;
  return out;
}

std::optional<Shape> reshaped(const Shape& data, const Value& target, bool allow_zero, Draft& draft) {
  Shape out;
  std::optional<std::size_t> open;
  for (std::size_t i = 0; i < target.cells.size(); ++i) {
    const Cell& c = target.cells[i];
    const bool copies = is_number(c, 0) && !allow_zero;
    if (copies && i >= data.size()) return std::nullopt;
    if (is_number(c, -1) && !open)
      open = i;
    else if (c.symbol == 0 && c.integer < 0)
      return std::nullopt;
    out.push_back(copies ? data[i] : c.symbol ? c.symbol : c.integer);
  }
  if (!open) return out;
  // Equal symbols on both sides cancel; what is left of the data must fit in the open dimension.
  Shape left = data;
  std::int64_t divisor = 1, product = 1, symbol = 0;
  bool is_unknown = false;
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i == *open) continue;
    if (out[i] >= 0) {
      if (out[i] == 0 || divisor > (std::int64_t{1} << 40) / out[i]) return std::nullopt;
      divisor *= out[i];
      continue;
    }
    const auto same = std::find(left.begin(), left.end(), out[i]);
    if (same != left.end())
      left.erase(same);
    else
      is_unknown = true;
  }
  for (const std::int64_t d : left) {
    if (d < 0) {
      is_unknown = is_unknown || symbol != 0;
      symbol = d;
    } else if (d > 0 && product > (std::int64_t{1} << 40) / d) {
      return std::nullopt;
    } else {
      product *= d;
    }
  }
  if (!symbol && !is_unknown && product % divisor != 0) return std::nullopt;
  if (is_unknown || (symbol && product != divisor))
    out[*open] = draft.new_symbol();
  else
    out[*open] = symbol ? symbol : product / divisor;
  return out;
}

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
