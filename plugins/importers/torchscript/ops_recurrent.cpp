// LSTM, GRU, RNN and their cells. LibTorch stacks gates as i f g o and r z n; ONNX as i o f c and z r h.
#include <cstring>

#include "plugins/importers/torchscript/net.h"

namespace quanvas::torchscript {
namespace {

using Order = std::vector<std::size_t>;

struct Family {
  const char* op;
  Order order;  // the gate that stands at each place
};
const Family kLstm = {"LSTM", {0, 3, 1, 2}}, kGru = {"GRU", {1, 0, 2}}, kRnn = {"RNN", {0}};

const TensorData& floats_of(Call& c, const std::string& t) {
  const TensorData* data = c.net.draft.constant(t);
  if (!data || data->type != DataType::kFloat || data->shape.empty())
    throw Unmapped("its weights are computed, or not of type float32");
  return *data;
}

// Blocks of rows of each part in the new order, appended.
void append(std::vector<float>& out, const TensorData& data, const Order& order) {
  const std::vector<float> values = data.to_floats();
  const std::size_t each = values.size() / order.size();
  for (const std::size_t gate : order)
    out.insert(out.end(), values.begin() + static_cast<std::ptrdiff_t>(gate * each),
               values.begin() + static_cast<std::ptrdiff_t>((gate + 1) * each));
}

struct Layer {
  std::vector<std::vector<std::string>> directions;  // w_ih, w_hh, b_ih, b_hh
  std::string name;
};

struct Weights {
  std::string w, r, b;
  std::int64_t hidden = 0;
};

Weights weights_of(Call& c, const Family& f, const Layer& layer, bool has_bias) {
  std::vector<float> w, r, b;
  const auto n = static_cast<std::int64_t>(layer.directions.size()),
             gates = static_cast<std::int64_t>(f.order.size());
  const TensorData &first = floats_of(c, layer.directions[0][0]), &again = floats_of(c, layer.directions[0][1]);
  if (first.shape.size() != 2 || again.shape.size() != 2) throw Unmapped("its weights are no matrices");
  const std::int64_t hidden = first.shape[0] / gates, width = first.shape[1];
  for (const auto& d : layer.directions) {
    append(w, floats_of(c, d[0]), f.order);
    append(r, floats_of(c, d[1]), f.order);
    for (std::size_t i = 2; has_bias && i < 4; ++i) append(b, floats_of(c, d[i]), f.order);
  }
  if (again.shape[1] != hidden || static_cast<std::int64_t>(w.size()) != n * gates * hidden * width ||
      static_cast<std::int64_t>(r.size()) != n * gates * hidden * hidden ||
      (has_bias && static_cast<std::int64_t>(b.size()) != n * 2 * gates * hidden))
    throw Unmapped("its weights do not fit each other (a projection is not mapped)");
  Weights out;
  out.hidden = hidden;
  out.w = c.net.constant(layer.name + ".W", TensorData::of_floats({n, gates * hidden, width}, w));
  out.r = c.net.constant(layer.name + ".R", TensorData::of_floats({n, gates * hidden, hidden}, r));
  if (has_bias) out.b = c.net.constant(layer.name + ".B", TensorData::of_floats({n, 2 * gates * hidden}, b));
  return out;
}

Attributes attributes_of(const Call& c, const Family& f, std::int64_t hidden, bool both) {
  Attributes a = {{"hidden_size", hidden}, {"direction", std::string(both ? "bidirectional" : "forward")}};
  if (f.op == std::string("GRU")) a["linear_before_reset"] = std::int64_t{1};
  if (c.op.find("rnn_relu") != std::string::npos) a["activations"] = std::vector<std::string>(both ? 2 : 1, "Relu");
  return a;
}

std::string slice_of(Call& c, const std::string& t, std::int64_t first, std::int64_t count) {
  return c.net.emit("Slice", {t, c.net.ints({first}), c.net.ints({first + count}), c.net.ints({0})});
}

std::string joined(Call& c, const std::vector<std::string>& parts) {
  return parts.size() == 1 ? parts[0] : c.net.emit("Concat", parts, {{"axis", std::int64_t{0}}});
}

// (input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
Results stacked(Call& c, const Family& f) {
  if (c.overload == "data") throw Unmapped("packed sequences");
  const bool is_lstm = f.op == std::string("LSTM"), has_bias = c.flag(3), both = c.flag(7), batch_first = c.flag(8);
  const Refs start = c.list(1);
  const auto layers = static_cast<std::size_t>(c.integer(4)), directions = std::size_t{both ? 2u : 1u},
             each = std::size_t{has_bias ? 4u : 2u};
  const std::vector<std::string> params = c.tensors(2);
  if (params.size() != layers * directions * each)
    throw Unmapped("the number of its weights is not that of its layers");
  std::string x = c.x();
  const std::int64_t n = static_cast<std::int64_t>(directions);
  const std::string base = c.net.scope.empty() ? "rnn" : c.net.scope;
  c.net.learn(x, DataType::kFloat, Shape{-1, -1, floats_of(c, params[0]).shape.back()});
  if (c.net.rank(x) != 3) throw Unmapped("a sequence without a batch");
  if (batch_first) x = c.net.emit("Transpose", {x}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}});
  std::vector<std::string> last[2];
  for (std::size_t l = 0; l < layers; ++l) {
    Layer layer{{}, base + ".l" + std::to_string(l)};
    for (std::size_t d = 0; d < directions; ++d) {
      const auto at = params.begin() + static_cast<std::ptrdiff_t>((l * directions + d) * each);
      layer.directions.emplace_back(at, at + static_cast<std::ptrdiff_t>(each));
    }
    const Weights w = weights_of(c, f, layer, has_bias);
    std::vector<std::string> inputs = {x, w.w, w.r, w.b, ""};
    for (const Ref& s : start) {
      const std::string state = c.net.tensor_of(s);
      inputs.push_back(layers == 1 ? state : slice_of(c, state, static_cast<std::int64_t>(l) * n, n));
    }
    const auto out = c.net.emit_many(f.op, inputs, is_lstm ? 3 : 2, attributes_of(c, f, w.hidden, both));
    for (std::size_t k = 0; k + 1 < out.size(); ++k) last[k].push_back(out[k + 1]);
    // [length, directions, batch, hidden] to [length, batch, directions * hidden]
    x = both ? c.net.emit("Reshape",
                          {c.net.emit("Transpose", {out[0]}, {{"perm", std::vector<std::int64_t>{0, 2, 1, 3}}}),
                           c.net.ints({0, 0, n * w.hidden})})
             : c.net.emit("Squeeze", {out[0], c.net.ints({1})});
  }
  if (batch_first) x = c.net.emit("Transpose", {x}, {{"perm", std::vector<std::int64_t>{1, 0, 2}}});
  Results results = {make_tensor(x), make_tensor(joined(c, last[0]))};
  if (is_lstm) results.push_back(make_tensor(joined(c, last[1])));
  return results;
}
Results lstm(Call& c) {
  return stacked(c, kLstm);
}
Results gru(Call& c) {
  return stacked(c, kGru);
}
Results rnn(Call& c) {
  return stacked(c, kRnn);
}

// (input, hx, w_ih, w_hh, b_ih, b_hh): a sequence of one.
Results one_step(Call& c, const Family& f) {
  const std::string x = c.x();
  const bool has_bias = c.has(4) && c.has(5), is_lstm = f.op == std::string("LSTM");
  Layer layer{{{c.x(2), c.x(3)}}, c.net.scope.empty() ? "cell" : c.net.scope};
  if (has_bias) layer.directions[0].insert(layer.directions[0].end(), {c.x(4), c.x(5)});
  const Weights w = weights_of(c, f, layer, has_bias);
  if (c.net.rank(x) != 2) throw Unmapped("a cell without a batch");
  const auto with_axis = [&](const std::string& t) { return c.net.emit("Unsqueeze", {t, c.net.ints({0})}); };
  std::vector<std::string> inputs = {with_axis(x), w.w, w.r, w.b, ""};
  for (const Ref& s : c.list(1)) inputs.push_back(with_axis(c.net.tensor_of(s)));
  const auto out = c.net.emit_many(f.op, inputs, is_lstm ? 3 : 2, attributes_of(c, f, w.hidden, false));
  Results results;
  for (std::size_t k = 1; k < out.size(); ++k)
    results.push_back(make_tensor(c.net.emit("Squeeze", {out[k], c.net.ints({0})})));
  return results;
}
Results lstm_cell(Call& c) {
  return one_step(c, kLstm);
}
Results gru_cell(Call& c) {
  return one_step(c, kGru);
}
Results rnn_cell(Call& c) {
  return one_step(c, kRnn);
}

}  // namespace

const Handlers& recurrent_handlers() {
  static const Handlers table = {
      {"lstm", lstm},           {"gru", gru},           {"rnn_tanh", rnn},           {"rnn_relu", rnn},
      {"lstm_cell", lstm_cell}, {"gru_cell", gru_cell}, {"rnn_tanh_cell", rnn_cell}, {"rnn_relu_cell", rnn_cell}};
  return table;
}

}  // namespace quanvas::torchscript
