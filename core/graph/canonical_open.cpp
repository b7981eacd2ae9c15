// Recurrent nodes and Attention with what lies inside them as outputs, and recurrent weights gate by gate.
#include "core/graph/canonical_parts.h"

namespace quanvas {

bool is_recurrent(const Node& node) {
  return node.domain.empty() && (node.op == "LSTM" || node.op == "GRU" || node.op == "RNN");
}

std::size_t own_outputs(const Node& node) {
  if (is_recurrent(node)) return node.op == "LSTM" ? 3 : 2;
  return node.domain.empty() && node.op == "Attention" ? 4 : node.outputs.size();
}

int directions(const Node& node) { return node.text("direction", "forward") == "bidirectional" ? 2 : 1; }

const std::vector<std::string>& gates(const std::string& op) {
  static const std::vector<std::string> lstm = {"input gate", "output gate", "forget gate", "cell gate"},
                                        gru = {"update gate", "reset gate", "hidden gate"}, rnn = {"hidden gate"};
  return op == "LSTM" ? lstm : op == "GRU" ? gru : rnn;
}

const std::vector<std::string>& cell_sites(const std::string& op) {
  const auto with = [](const std::string& of, const std::vector<std::string>& more) {
    std::vector<std::string> out;
    for (const char* what : {" accumulator", " activation"})
      for (const std::string& gate : gates(of)) out.push_back(gate + what);
    out.insert(out.end(), more.begin(), more.end());
    return out;
  };
  static const std::vector<std::string> lstm = with("LSTM", {"cell state", "cell state activation"}), gru = with("GRU", {}),
                                        rnn = {"hidden gate accumulator"};
  return op == "LSTM" ? lstm : op == "GRU" ? gru : rnn;
}

const std::vector<std::string>& attention_internals() {
  static const std::vector<std::string> names = {"scores", "probabilities"};
  return names;
}

RecurrentSites recurrent_sites(const Node& node) {
  RecurrentSites out;
  const int n = directions(node);
  const auto side = [n](int d) { return n == 1 ? std::string() : d == 0 ? std::string("forward ") : std::string("backward "); };
  for (const char* of : {"of the input", "of the hidden state"})
    for (int d = 0; d < n; ++d)
      for (const std::string& gate : gates(node.op)) out.weights.push_back(side(d) + gate + " " + of);
  for (int d = 0; d < n; ++d) {
    out.hidden.push_back(side(d) + "hidden state");
    for (const std::string& site : cell_sites(node.op)) out.internals.push_back(side(d) + site);
  }
  return out;
}

namespace canonical_form {
namespace {

// "forget gate" as part of a name.
std::string underscored(std::string text) {
  std::replace(text.begin(), text.end(), ' ', '_');
  return text;
}

// [directions, gates * hidden, columns] in parts of one gate each, that Concat nodes join again; the same bytes.
void split_weight(Rewrite& r, const Node& node, std::size_t input, const char* letter) {
  const TensorData* data = r.constant(node.input(input));
  const auto sides = static_cast<std::int64_t>(directions(node)), each = static_cast<std::int64_t>(gates(node.op).size());
  if (!data || data->shape.size() != 3 || data->shape[0] != sides || data->shape[1] < each || data->shape[1] % each != 0) return;
  const std::int64_t rows = data->shape[1] / each, columns = data->shape[2];
  const std::size_t size = element_size(data->type);
  if (columns < 1 || size == 0 || static_cast<std::size_t>(data->count()) > data->bytes / size || sides * each == 1) return;
  const TensorData whole = *data;
  const std::size_t bytes = static_cast<std::size_t>(rows * columns) * size;
  const std::string base = node.name + "/" + letter;
  std::vector<std::string> joined;
  for (std::int64_t d = 0; d < sides; ++d) {
    const std::string side = sides == 1 ? "" : d == 0 ? "_forward" : "_backward";
    std::vector<std::string> parts;
    for (std::int64_t g = 0; g < each; ++g) {
      TensorData part = whole;
      part.shape = {1, rows, columns};
      part.data += static_cast<std::size_t>(d * each + g) * bytes;
      part.bytes = bytes;
      parts.push_back(r.fresh(base + side + "_" + underscored(gates(node.op)[static_cast<std::size_t>(g)])));
      r.builder.initializer(parts.back(), part.type, part.shape);
      r.weights.set(parts.back(), std::move(part));
    }
    if (each == 1) {
      joined.push_back(parts[0]);
      continue;
    }
    joined.push_back(r.fresh(base + side));
    r.builder.tensor(joined.back(), whole.type, Shape{1, rows * each, columns});
    r.builder.node(joined.back(), "Concat", parts, {joined.back()}, {{"axis", std::int64_t{1}}});
  }
  if (sides > 1) {
    const std::string both = r.fresh(base);
    r.builder.tensor(both, whole.type, whole.shape);
    r.builder.node(both, "Concat", joined, {both}, {{"axis", std::int64_t{0}}});
    joined = {both};
  }
  r.builder.replace_input_at(node.id, input, joined[0]);
}

void add_outputs(Rewrite& r, const Node& node, const std::vector<std::string>& names, const std::vector<Shape>& shapes) {
  std::size_t at = own_outputs(node);
  for (std::size_t i = 0; i < names.size(); ++i) {
    const std::string tensor = r.fresh(node.name + "/" + underscored(names[i]));
    r.builder.set_output_at(node.id, at++, tensor);
    r.builder.tensor(tensor, DataType::kFloat, shapes[i]);
  }
  r.changed = true;
}

bool is_open(const Node& node) { return node.outputs.size() > own_outputs(node); }

std::vector<std::string> inner_names(const RecurrentSites& sites) {
  std::vector<std::string> names = sites.hidden;
  names.insert(names.end(), sites.internals.begin(), sites.internals.end());
  return names;
}

}  // namespace

void open_recurrent(Rewrite& r) {
  for (const Node& node : r.graph.nodes()) {
    if (!is_recurrent(node) || !node.opaque_reason.empty() || is_open(node) || node.inputs.size() < 3) continue;
    const RecurrentSites sites = recurrent_sites(node);
    std::int64_t hidden = node.integer("hidden_size", -1);
    if (const TensorId w = node.input(2); hidden < 0 && w != kNoTensor && r.graph.tensor(w).shape && r.graph.tensor(w).shape->size() == 3)
      hidden = (*r.graph.tensor(w).shape)[2];
    const std::vector<std::string> names = inner_names(sites);
    add_outputs(r, node, names, std::vector<Shape>(names.size(), Shape{-1, hidden}));
    split_weight(r, node, 1, "W");
    split_weight(r, node, 2, "R");
  }
}

void open_attention(Rewrite& r) {
  for (const Node& node : r.graph.nodes())
    if (is(&node, "Attention") && !is_open(node) && node.inputs.size() >= 3)
      add_outputs(r, node, attention_internals(), std::vector<Shape>(2, Shape{-1, -1, -1, -1}));
}

}  // namespace canonical_form
}  // namespace quanvas
