// RNN, GRU and LSTM with everything that ONNX says of them.
#include <ATen/ATen.h>

#include "core/exec/ops.h"
#include "core/graph/canonical.h"

namespace quanvas::exec {
namespace {

struct Activation {
  std::string name;
  double alpha = 0, beta = 0;

  at::Tensor operator()(const at::Tensor& x) const {
    if (name == "Sigmoid") return at::sigmoid(x);
    if (name == "Tanh") return at::tanh(x);
    if (name == "Relu") return at::relu(x);
    if (name == "LeakyRelu") return at::leaky_relu(x, alpha);
    if (name == "ThresholdedRelu") return at::where(x > alpha, x, at::zeros_like(x));
    if (name == "ScaledTanh") return at::tanh(x * beta) * alpha;
    if (name == "HardSigmoid") return (x * alpha + beta).clamp(0, 1);
    if (name == "Elu") return at::elu(x, alpha);
    if (name == "Softsign") return x / (x.abs() + 1);
    if (name == "Softplus") return at::softplus(x);
    return x * alpha + beta;  // Affine
  }
};

struct Defaults {
  const char* name;
  int parameters;  // of alpha, of alpha and beta
  double alpha, beta;
};
constexpr Defaults kActivations[] = {{"Sigmoid", 0, 0, 0},      {"Tanh", 0, 0, 0},    {"Relu", 0, 0, 0},
                                     {"LeakyRelu", 1, 0.01, 0}, {"Elu", 1, 1, 0},     {"ThresholdedRelu", 1, 1, 0},
                                     {"ScaledTanh", 2, 1, 1},   {"Affine", 2, 1, 0},  {"HardSigmoid", 2, 0.2, 0.5},
                                     {"Softsign", 0, 0, 0},     {"Softplus", 0, 0, 0}};

// Names are compared without case: files write "tanh", too.
const Defaults* find_activation(const std::string& name) {
  const auto same = [&](const std::string& other) {
    return name.size() == other.size() && std::equal(name.begin(), name.end(), other.begin(), [](char a, char b) {
             return std::tolower(static_cast<unsigned char>(a)) == std::tolower(static_cast<unsigned char>(b));
           });
  };
  for (const Defaults& d : kActivations)
    if (same(d.name)) return &d;
  return nullptr;
}

// Everything of the node but its data.
struct Cell {
  std::size_t gates = 1;
  std::vector<Activation> activations;  // all directions one after another
  std::int64_t hidden = 0, directions = 1;
  bool reverse = false, batch_first = false, input_forget = false, linear_before_reset = false;
  std::optional<double> clip;

  at::Tensor clipped(const at::Tensor& x) const { return clip ? x.clamp(-*clip, *clip) : x; }
  at::Tensor activate(std::size_t k, const at::Tensor& x) const { return activations[k](clipped(x)); }
};

std::vector<std::string> default_activations(const std::string& op) {
  if (op == "LSTM") return {"Sigmoid", "Tanh", "Tanh"};
  if (op == "GRU") return {"Sigmoid", "Tanh"};
  return {"Tanh"};
}

std::string refuse_recurrent(const Node& node) {
  for (const std::string& name : node.texts("activations"))
    if (!find_activation(name)) return "there is no activation '" + name + "'";
  const std::string direction = node.text("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional")
    return "its direction is '" + direction + "'";
  return {};
}

Result<Cell> cell_of(const OpCall& call) {
  const Node& node = call.node;
  Cell cell;
  cell.gates = node.op == "LSTM" ? 4 : node.op == "GRU" ? 3 : 1;
  const std::string direction = node.text("direction", "forward");
  cell.directions = direction == "bidirectional" ? 2 : 1;
  cell.reverse = direction == "reverse";
  cell.batch_first = node.integer("layout", 0) != 0;
  cell.input_forget = node.integer("input_forget", 0) != 0;
  cell.linear_before_reset = node.integer("linear_before_reset", 0) != 0;
  if (call.has_attribute("clip")) cell.clip = node.real("clip", 0);
  const auto each = default_activations(node.op);
  std::vector<std::string> names = node.texts("activations");
  if (names.empty())
    for (std::int64_t d = 0; d < cell.directions; ++d) names.insert(names.end(), each.begin(), each.end());
  if (names.size() != each.size() * static_cast<std::size_t>(cell.directions))
    return bad_node("'activations' has " + std::to_string(names.size()) + " entries, expected " +
                    std::to_string(each.size() * static_cast<std::size_t>(cell.directions)) + ".");
  const auto alphas = node.reals("activation_alpha"), betas = node.reals("activation_beta");
  std::size_t alpha = 0, beta = 0;
  for (const std::string& name : names) {
    const Defaults& d = *find_activation(name);
    Activation a{d.name, d.alpha, d.beta};
    if (d.parameters > 0 && alpha < alphas.size()) a.alpha = alphas[alpha++];
    if (d.parameters > 1 && beta < betas.size()) a.beta = betas[beta++];
    cell.activations.push_back(a);
  }
  return cell;
}

// What the quantizers inside one direction's cell make of a value, and what they saw of it: [batch, hidden] per step.
class Inside {
 public:
  Inside(const OpCall& call, int direction, std::size_t sites)
      : call_(call), hidden_(1 + direction), first_(direction * static_cast<int>(sites)), seen_(1 + sites) {}

  at::Tensor hidden(const at::Tensor& h) { return look(SiteKind::kInput, hidden_, 0, h); }
  // In the order of cell_sites().
  at::Tensor site(std::size_t k, const at::Tensor& x) {
    return look(SiteKind::kInternal, first_ + static_cast<int>(k), 1 + k, x);
  }
  // Rows of sequences that have not ended yet; undefined: all.
  void set_rows(at::Tensor rows) { rows_ = std::move(rows); }
  // The hidden state, then the sites; undefined when nobody wants to see them.
  std::vector<at::Tensor> seen() const {
    std::vector<at::Tensor> out;
    for (const auto& steps : seen_) out.push_back(steps.empty() ? at::Tensor() : at::cat(steps, 0));
    return out;
  }

 private:
  at::Tensor look(SiteKind kind, int operand, std::size_t slot, const at::Tensor& x) {
    if (call_.hooks.tap) seen_[slot].push_back(rows_.defined() ? x.index_select(0, rows_) : x);
    return call_.quantized(kind, operand, x);
  }

  const OpCall& call_;
  int hidden_, first_;
  std::vector<std::vector<at::Tensor>> seen_;
  at::Tensor rows_;
};

// One direction's data. x: [steps, batch, gates * hidden], the input's part of the gates with every bias that does
// not depend on the state.
struct Line {
  at::Tensor x, recurrent, bias, peephole;  // recurrent: [hidden, gates * hidden]; bias: of the state's part alone
  at::Tensor h, c;                          // [batch, hidden]
  std::size_t first = 0;                    // of its activations
  Inside* inside = nullptr;                 // null: nobody looks

  at::Tensor hidden(const at::Tensor& value) const { return inside ? inside->hidden(value) : value; }
  at::Tensor site(std::size_t k, const at::Tensor& value) const { return inside ? inside->site(k, value) : value; }
};

struct State {
  at::Tensor h, c;
};

State rnn_step(const Cell& cell, const Line& line, const State& s, const at::Tensor& x) {
  return {cell.activate(line.first, line.site(0, x + at::mm(line.hidden(s.h), line.recurrent))), {}};
}

State gru_step(const Cell& cell, const Line& line, const State& s, const at::Tensor& x) {
  const std::int64_t n = cell.hidden;
  const at::Tensor state = line.hidden(s.h);
  const at::Tensor both = x.narrow(1, 0, 2 * n) + at::mm(state, line.recurrent.narrow(1, 0, 2 * n));
  const at::Tensor z = line.site(3, cell.activate(line.first, line.site(0, both.narrow(1, 0, n))));
  const at::Tensor r = line.site(4, cell.activate(line.first, line.site(1, both.narrow(1, n, n))));
  const at::Tensor w = line.recurrent.narrow(1, 2 * n, n), b = line.bias.narrow(0, 2 * n, n);
  const at::Tensor own = cell.linear_before_reset ? r * (at::mm(state, w) + b) : at::mm(r * state, w) + b;
  const at::Tensor h = line.site(5, cell.activate(line.first + 1, line.site(2, x.narrow(1, 2 * n, n) + own)));
  return {(1 - z) * h + z * state, {}};
}

State lstm_step(const Cell& cell, const Line& line, const State& s, const at::Tensor& x) {
  const std::int64_t n = cell.hidden;
  const at::Tensor gates = x + at::mm(line.hidden(s.h), line.recurrent);  // input, output, forget, cell
  const auto gate = [&](std::int64_t k, std::int64_t peephole, const at::Tensor& c) {
    const at::Tensor g = gates.narrow(1, k * n, n);
    return line.site(static_cast<std::size_t>(k), line.peephole.defined() ? g + line.peephole.narrow(0, peephole * n, n) * c : g);
  };
  const at::Tensor i = line.site(4, cell.activate(line.first, gate(0, 0, s.c)));
  const at::Tensor f = line.site(6, cell.input_forget ? 1 - i : cell.activate(line.first, gate(2, 2, s.c)));
  const at::Tensor g = line.site(7, cell.activate(line.first + 1, line.site(3, gates.narrow(1, 3 * n, n))));
  const at::Tensor c = line.site(8, f * s.c + i * g);
  const at::Tensor o = line.site(5, cell.activate(line.first, gate(1, 1, c)));
  return {o * line.site(9, cell.activate(line.first + 2, c)), c};
}

State step(const Cell& cell, const Line& line, const State& s, const at::Tensor& x) {
  if (cell.gates == 4) return lstm_step(cell, line, s, x);
  return cell.gates == 3 ? gru_step(cell, line, s, x) : rnn_step(cell, line, s, x);
}

// Entry [t, b] comes from time lengths[b] - 1 - t inside a sequence and stays where it is beyond its end.
at::Tensor reversed(const at::Tensor& x, const at::Tensor& lengths) {
  if (!lengths.defined()) return x.flip({0});
  const at::Tensor t = at::arange(x.size(0), lengths.options()).unsqueeze(1), n = lengths.unsqueeze(0);
  const at::Tensor from = at::where(t < n, n - 1 - t, t).unsqueeze(2).expand_as(x);
  return x.gather(0, from);
}

// Y of all steps, and the last states.
std::pair<at::Tensor, State> run_line(const Cell& cell, const Line& line, const at::Tensor& lengths,
                                      bool backwards) {
  const at::Tensor x = backwards ? reversed(line.x, lengths) : line.x;
  State s{line.h, line.c};
  std::vector<at::Tensor> ys;
  for (std::int64_t t = 0; t < x.size(0); ++t) {
    if (line.inside && lengths.defined()) line.inside->set_rows((lengths > t).nonzero().flatten());
    State next = step(cell, line, s, x.select(0, t));
    at::Tensor y = next.h;
    if (lengths.defined()) {
      const at::Tensor goes_on = (lengths > t).unsqueeze(1);
      y = at::where(goes_on, next.h, at::zeros_like(next.h));
      next.h = at::where(goes_on, next.h, s.h);
      if (next.c.defined()) next.c = at::where(goes_on, next.c, s.c);
    }
    ys.push_back(y);
    s = std::move(next);
  }
  at::Tensor y = ys.empty() ? at::zeros({0, line.h.size(0), cell.hidden}, line.h.options()) : at::stack(ys, 0);
  return {backwards ? reversed(y, lengths) : y, s};
}

Status expect_sizes(const at::Tensor& t, const char* what, const Ints& sizes) {
  if (t.sizes() != at::IntArrayRef(sizes))
    return bad_node(std::string("'") + what + "' is " + sizes_text(t) + ", expected " + shape_text(sizes) + ".");
  return {};
}

Status check(const OpCall& call, const Cell& cell, const at::Tensor& x) {
  if (x.dim() != 3 || call.x(1).dim() != 3) return bad_node("'X' and 'W' must have rank 3.");
  const std::int64_t d = cell.directions, n = cell.hidden, g = static_cast<std::int64_t>(cell.gates),
                     batch = x.size(1);
  QUANVAS_CHECK(expect_sizes(call.x(1), "W", {d, g * n, x.size(2)}));
  QUANVAS_CHECK(expect_sizes(call.x(2), "R", {d, g * n, n}));
  if (call.has(3)) QUANVAS_CHECK(expect_sizes(call.x(3), "B", {d, 2 * g * n}));
  if (call.has(4)) QUANVAS_CHECK(expect_sizes(call.x(4), "sequence_lens", {batch}));
  const Ints state = cell.batch_first ? Ints{batch, d, n} : Ints{d, batch, n};
  if (call.has(5)) QUANVAS_CHECK(expect_sizes(call.x(5), "initial_h", state));
  if (g == 4 && call.has(6)) QUANVAS_CHECK(expect_sizes(call.x(6), "initial_c", state));
  if (g == 4 && call.has(7)) QUANVAS_CHECK(expect_sizes(call.x(7), "P", {d, 3 * n}));
  return {};
}

Line line_of(const OpCall& call, const Cell& cell, const at::Tensor& x, std::int64_t d) {
  const std::int64_t n = cell.hidden, g = static_cast<std::int64_t>(cell.gates);
  Line line;
  line.recurrent = call.x(2).select(0, d).t();
  line.first = static_cast<std::size_t>(d) * (cell.activations.size() / static_cast<std::size_t>(cell.directions));
  line.x = at::matmul(x, call.x(1).select(0, d).t());
  line.bias = at::zeros({g * n}, x.options());
  if (call.has(3)) {
    line.x = line.x + call.x(3).select(0, d).narrow(0, 0, g * n);
    line.bias = call.x(3).select(0, d).narrow(0, g * n, g * n);
  }
  // Only the candidate of a GRU needs its recurrent bias apart.
  const std::int64_t joined = g == 3 ? 2 * n : g * n;
  line.x = at::cat(
      {line.x.narrow(2, 0, joined) + line.bias.narrow(0, 0, joined), line.x.narrow(2, joined, g * n - joined)}, 2);
  if (g == 4 && call.has(7)) line.peephole = call.x(7).select(0, d);
  const auto state = [&](std::size_t i) {
    return call.has(i) ? call.x(i).select(cell.batch_first ? 1 : 0, d) : at::zeros({x.size(1), n}, x.options());
  };
  line.h = state(5);
  if (g == 4) line.c = state(6);
  return line;
}

OpResult recurrent(const OpCall& call) {
  QUANVAS_TRY(Cell cell, cell_of(call));
  if (call.x(2).dim() != 3) return bad_node("'R' must have rank 3.");
  cell.hidden = call.x(2).size(2);
  const at::Tensor x = cell.batch_first && call.x().dim() == 3 ? call.x().transpose(0, 1) : call.x();
  QUANVAS_CHECK(check(call, cell, x));
  const at::Tensor lengths = call.has(4) ? call.x(4).to(at::kLong) : at::Tensor();
  if (lengths.defined() && lengths.numel() > 0 &&
      (lengths.min().item().toLong() < 0 || lengths.max().item().toLong() > x.size(0)))
    return bad_node("'sequence_lens' holds a length outside 0 to " + std::to_string(x.size(0)) + ".");
  std::vector<at::Tensor> ys, hs, cs, hidden, inner;
  const bool is_watched = call.is_watched();
  for (std::int64_t d = 0; d < cell.directions; ++d) {
    Line line = line_of(call, cell, x, d);
    Inside inside(call, static_cast<int>(d), cell_sites(call.node.op).size());
    if (is_watched) line.inside = &inside;
    auto [y, last] = run_line(cell, line, lengths, cell.reverse || d == 1);
    const std::vector<at::Tensor> seen = inside.seen();
    hidden.push_back(seen[0]);
    inner.insert(inner.end(), seen.begin() + 1, seen.end());
    ys.push_back(y);
    hs.push_back(last.h);
    cs.push_back(last.c);
  }
  const std::int64_t at_direction = cell.batch_first ? 1 : 0;
  at::Tensor y = at::stack(ys, 1);  // [steps, directions, batch, hidden]
  if (cell.batch_first) y = y.permute({2, 0, 1, 3});
  Tensors out = {y, at::stack(hs, at_direction)};
  if (cell.gates == 4) out.push_back(at::stack(cs, at_direction));
  if (!is_watched) return out;
  out.insert(out.end(), hidden.begin(), hidden.end());
  out.insert(out.end(), inner.begin(), inner.end());
  return out;
}

}  // namespace

const std::vector<OpRow>& recurrent_ops() {
  static const std::vector<OpRow> rows = {{"LSTM", 3, recurrent, refuse_recurrent},
                                          {"GRU", 3, recurrent, refuse_recurrent},
                                          {"RNN", 3, recurrent, refuse_recurrent}};
  return rows;
}

}  // namespace quanvas::exec
