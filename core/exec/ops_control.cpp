// Operators that run subgraphs: If, Loop, Scan, SequenceMap.
#include <limits>

#include <ATen/ATen.h>

#include "core/exec/ops.h"
#include "core/exec/worker.h"

namespace quanvas::exec {
namespace {

// What the subgraphs see of the caller's hooks: nothing that goes by tensor ids or layers of the outer graph.
RunHooks inner_hooks(const ValueCall& call, std::uint64_t round) {
  RunHooks hooks;
  hooks.training = call.hooks.training;
  hooks.seed = call.hooks.seed * 31 + static_cast<std::uint64_t>(call.node.id) * 1009 + round;
  return hooks;
}

Result<const Runner*> body_of(const ValueCall& call, const char* key) {
  const auto it = call.bodies.find(key);
  if (it == call.bodies.end()) return bad_node("its subgraph '" + std::string(key) + "' is missing.");
  return it->second.get();
}

// Runs `body` on `formals` and on what it captures.
ValuesResult run_body(const ValueCall& call, const Runner& body, Values formals, std::uint64_t round = 0) {
  if (stop_requested()) return fail(ErrorCode::kCancelled, "Stopped.");
  formals.insert(formals.end(), call.in.begin() + static_cast<std::ptrdiff_t>(call.own_inputs()), call.in.end());
  return body.run_values(formals, inner_hooks(call, round));
}

Result<bool> truth(const Value& v, const char* what) {
  if (!v.tensor.defined()) return bad_node(std::string("'") + what + "' must be a tensor.");
  QUANVAS_TRY(const double value, one_real(v.tensor, what));
  return value != 0;
}

ValuesResult if_else(const ValueCall& call) {
  QUANVAS_TRY(const bool condition, truth(call.in[0], "cond"));
  QUANVAS_TRY(const Runner* body, body_of(call, condition ? "then_branch" : "else_branch"));
  return run_body(call, *body, {});
}

// Results of all rounds along a new axis; without a round the shape that the subgraph declares.
Result<at::Tensor> stacked(const std::vector<at::Tensor>& rounds, const Runner& body, std::size_t output) {
  if (!rounds.empty()) return at::stack(rounds, 0);
  const TensorInfo& info = body.graph().tensor(body.graph().outputs()[output]);
  const auto type = scalar_type(info.type).value_or(at::kFloat);
  Ints shape = {0};
  for (const auto d : info.shape.value_or(Shape{})) shape.push_back(std::max<std::int64_t>(d, 0));
  return at::empty(shape, type);
}

ValuesResult loop(const ValueCall& call) {
  QUANVAS_TRY(const Runner* body, body_of(call, "body"));
  const std::size_t own = call.own_inputs();
  if (own < 2) return bad_node("it needs the inputs 'M' and 'cond', which may be empty.");
  const std::size_t carried = own - 2, outputs = body->graph().outputs().size();
  if (outputs < 1 + carried)
    return bad_node("its subgraph gives " + std::to_string(outputs) + " results for " + std::to_string(carried) +
                    " carried values and the condition.");
  std::int64_t rounds = std::numeric_limits<std::int64_t>::max();
  if (call.has(0)) {
    QUANVAS_TRY(rounds, one_integer(call.in[0].tensor, "M"));
  }
  bool goes_on = true;
  if (call.has(1)) {
    QUANVAS_TRY(goes_on, truth(call.in[1], "cond"));
  }
  Values state(call.in.begin() + 2, call.in.begin() + static_cast<std::ptrdiff_t>(own));
  std::vector<std::vector<at::Tensor>> scans(outputs - 1 - carried);
  for (std::int64_t i = 0; i < rounds && goes_on; ++i) {
    Values formals = {Value::of(at::scalar_tensor(i, at::kLong)), Value::of(at::scalar_tensor(true, at::kBool))};
    formals.insert(formals.end(), state.begin(), state.end());
    QUANVAS_TRY(Values out, run_body(call, *body, std::move(formals), static_cast<std::uint64_t>(i)));
    QUANVAS_TRY(goes_on, truth(out[0], "cond"));
    for (std::size_t k = 0; k < carried; ++k) state[k] = std::move(out[1 + k]);
    for (std::size_t k = 0; k < scans.size(); ++k) {
      if (!out[1 + carried + k].tensor.defined()) return bad_node("a scanned result must be a tensor.");
      scans[k].push_back(std::move(out[1 + carried + k].tensor));
    }
  }
  Values results = std::move(state);
  for (std::size_t k = 0; k < scans.size(); ++k) {
    QUANVAS_TRY(at::Tensor all, stacked(scans[k], *body, 1 + carried + k));
    results.push_back(Value::of(std::move(all)));
  }
  return results;
}

// Axes and directions of a Scan, one per scanned input or result.
struct ScanPlan {
  std::size_t states = 0, scanned = 0, results = 0;
  Ints axes, directions, result_axes, result_directions;
};

Result<ScanPlan> plan_scan(const ValueCall& call, const Runner& body, std::size_t inputs) {
  ScanPlan p;
  p.scanned = static_cast<std::size_t>(std::max<std::int64_t>(0, call.node.integer("num_scan_inputs", 0)));
  const std::size_t outputs = body.graph().outputs().size();
  if (p.scanned < 1 || p.scanned > inputs)
    return bad_node("'num_scan_inputs' is " + std::to_string(p.scanned) + ", the node has " +
                    std::to_string(inputs) + " inputs.");
  p.states = inputs - p.scanned;
  if (outputs < p.states)
    return bad_node("its subgraph gives fewer results than there are states (" + std::to_string(p.states) + ").");
  p.results = outputs - p.states;
  const bool batched = call.opset() < 9;
  const auto list = [&](const char* key, std::size_t n) { return call.node.integers(key, Ints(n, 0)); };
  p.axes = list("scan_input_axes", p.scanned);
  p.directions = list(batched ? "directions" : "scan_input_directions", p.scanned);
  p.result_axes = list("scan_output_axes", p.results);
  p.result_directions = list("scan_output_directions", p.results);
  if (p.axes.size() != p.scanned || p.directions.size() != p.scanned || p.result_axes.size() != p.results ||
      p.result_directions.size() != p.results)
    return bad_node("its lists of axes and directions do not have one entry per scanned tensor.");
  return p;
}

// One walk over sequences of `length`: states after it, and the results stacked along axis 0.
ValuesResult scan_line(const ValueCall& call, const Runner& body, const ScanPlan& p, Values state,
                       const std::vector<at::Tensor>& lines, std::int64_t length) {
  std::vector<std::vector<at::Tensor>> rounds(p.results);
  for (std::int64_t i = 0; i < length; ++i) {
    Values formals = state;
    for (std::size_t k = 0; k < p.scanned; ++k)
      formals.push_back(Value::of(lines[k].select(0, p.directions[k] ? length - 1 - i : i)));
    QUANVAS_TRY(Values out, run_body(call, body, std::move(formals), static_cast<std::uint64_t>(i)));
    for (std::size_t k = 0; k < p.states; ++k) state[k] = std::move(out[k]);
    for (std::size_t k = 0; k < p.results; ++k) {
      if (!out[p.states + k].tensor.defined()) return bad_node("a scanned result must be a tensor.");
      rounds[k].push_back(std::move(out[p.states + k].tensor));
    }
  }
  for (std::size_t k = 0; k < p.results; ++k) {
    if (p.result_directions[k]) std::reverse(rounds[k].begin(), rounds[k].end());
    QUANVAS_TRY(at::Tensor all, stacked(rounds[k], body, p.states + k));
    state.push_back(Value::of(std::move(all)));
  }
  return state;
}

Status check_tensors(const ValueCall& call, std::size_t first) {
  for (std::size_t i = first; i < call.own_inputs(); ++i)
    if (!call.in[i].tensor.defined()) return bad_node("its input " + std::to_string(i + 1) + " must be a tensor.");
  return {};
}

ValuesResult scan(const ValueCall& call) {
  QUANVAS_TRY(const Runner* body, body_of(call, "body"));
  QUANVAS_CHECK(check_tensors(call, 0));
  QUANVAS_TRY(const ScanPlan p, plan_scan(call, *body, call.own_inputs()));
  Values state(call.in.begin(), call.in.begin() + static_cast<std::ptrdiff_t>(p.states));
  std::vector<at::Tensor> lines;
  std::int64_t length = -1;
  for (std::size_t k = 0; k < p.scanned; ++k) {
    const at::Tensor& x = call.in[p.states + k].tensor;
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(p.axes[k], x.dim()));
    if (x.dim() == 0) return bad_node("a scalar cannot be scanned.");
    if (length >= 0 && x.size(axis) != length) return bad_node("the scanned inputs have different lengths.");
    length = x.size(axis);
    lines.push_back(x.movedim(axis, 0));
  }
  QUANVAS_TRY(Values out, scan_line(call, *body, p, std::move(state), lines, length));
  for (std::size_t k = 0; k < p.results; ++k) {
    at::Tensor& y = out[p.states + k].tensor;
    QUANVAS_TRY(const std::int64_t axis, resolve_axis(p.result_axes[k], y.dim()));
    y = y.movedim(0, axis);
  }
  return out;
}

// Opset 8: the first input holds the lengths, everything else leads with the batch.
ValuesResult scan_batches(const ValueCall& call) {
  QUANVAS_TRY(const Runner* body, body_of(call, "body"));
  QUANVAS_CHECK(check_tensors(call, 1));
  if (call.own_inputs() < 2) return bad_node("it needs at least one input beside the lengths.");
  QUANVAS_TRY(const ScanPlan p, plan_scan(call, *body, call.own_inputs() - 1));
  for (std::size_t i = 1; i < call.own_inputs(); ++i)
    if (call.in[i].tensor.dim() < (i > p.states ? 2 : 1) || call.in[i].tensor.size(0) != call.in[1].tensor.size(0))
      return bad_node("its inputs do not have the batch as first dimension.");
  const std::int64_t batch = call.in[1].tensor.size(0), longest = call.in[1 + p.states].tensor.size(1);
  const Ints lengths = call.has(0) ? int_values(call.in[0].tensor) : Ints(static_cast<std::size_t>(batch), longest);
  if (static_cast<std::int64_t>(lengths.size()) != batch)
    return bad_node("there is not one length per batch entry.");
  std::vector<std::vector<at::Tensor>> columns(p.states + p.results);
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t length = lengths[static_cast<std::size_t>(b)];
    if (length < 0 || length > longest) return bad_node("a length is " + std::to_string(length) + ".");
    Values state;
    std::vector<at::Tensor> lines;
    for (std::size_t k = 0; k < p.states; ++k) state.push_back(Value::of(call.in[1 + k].tensor.select(0, b)));
    for (std::size_t k = 0; k < p.scanned; ++k)
      lines.push_back(call.in[1 + p.states + k].tensor.select(0, b).narrow(0, 0, length));
    QUANVAS_TRY(Values out, scan_line(call, *body, p, std::move(state), lines, length));
    for (std::size_t k = 0; k < out.size(); ++k) {
      at::Tensor y = out[k].tensor;
      if (k >= p.states && length < longest) {
        Ints shape = y.sizes().vec();
        shape[0] = longest - length;
        y = at::cat({y, at::zeros(shape, y.options())}, 0);
      }
      columns[k].push_back(std::move(y));
    }
  }
  Values results;
  for (const auto& column : columns) {
    if (column.empty()) return bad_node("the batch is empty.");
    results.push_back(Value::of(at::stack(column, 0)));
  }
  return results;
}

ValuesResult scan_any(const ValueCall& call) {
  return call.opset() < 9 ? scan_batches(call) : scan(call);
}

// The body on every element of the first sequence, with the same element of the other sequences; tensors as they
// are.
ValuesResult sequence_map(const ValueCall& call) {
  QUANVAS_TRY(const Runner* body, body_of(call, "body"));
  if (call.own_inputs() < 1 || !call.in[0].sequence) return bad_node("its first input must be a sequence.");
  const std::size_t n = call.in[0].sequence->size();
  std::vector<std::vector<at::Tensor>> results(body->graph().outputs().size());
  for (std::size_t i = 0; i < n; ++i) {
    Values formals;
    for (std::size_t k = 0; k < call.own_inputs(); ++k) {
      const Value& v = call.in[k];
      if (v.sequence && v.sequence->size() != n) return bad_node("its sequences have different lengths.");
      formals.push_back(v.sequence ? Value::of((*v.sequence)[i]) : v);
    }
    QUANVAS_TRY(Values out, run_body(call, *body, std::move(formals), i));
    for (std::size_t k = 0; k < results.size(); ++k) {
      if (!out[k].tensor.defined()) return bad_node("a result of its subgraph must be a tensor.");
      results[k].push_back(std::move(out[k].tensor));
    }
  }
  Values out;
  for (auto& sequence : results) out.push_back(Value::of(std::move(sequence)));
  return out;
}

std::string refuse_without_body(const Node& node) {
  for (const char* key : {"body", "then_branch", "else_branch"}) {
    const bool wanted = (node.op == "If") != (std::string(key) == "body");
    if (wanted && !node.subgraph(key)) return "its subgraph '" + std::string(key) + "' is missing";
  }
  return {};
}

}  // namespace

const std::vector<OpRow>& control_ops() {
  static const std::vector<OpRow> rows = {{"If", 1, nullptr, refuse_without_body, if_else},
                                          {"Loop", 0, nullptr, refuse_without_body, loop},
                                          {"Scan", 0, nullptr, refuse_without_body, scan_any},
                                          {"SequenceMap", 1, nullptr, refuse_without_body, sequence_map}};
  return rows;
}

}  // namespace quanvas::exec
