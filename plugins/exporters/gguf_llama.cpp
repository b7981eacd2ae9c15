#include "plugins/exporters/gguf_llama.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <random>

#include "plugins/exporters/gguf_probe.h"
#include "plugins/exporters/gguf_reach.h"

namespace quanvas::gguf_file {
namespace {

constexpr std::size_t kProbeTokens = 5, kMostNamed = 32;
constexpr double kTolerance = 1e-4;  // of the largest value: the graph's tables are float32
constexpr int kMostBlocks = 1000, kUsualContext = 2048;

using Reason = tl::unexpected<std::string>;

// y = x W [+ b] with initializers.
struct Linear {
  const Node* node = nullptr;
  TensorId input = kNoTensor, output = kNoTensor, weight = kNoTensor, bias = kNoTensor;
  std::int64_t in = 0, out = 0;
};

class Finder {
 public:
  explicit Finder(const Model& model) : model_(model), graph_(*model.graph), reach_(model) {}

  tl::expected<Llama, std::string> run() {
    if (graph_.inputs().size() != 1 || graph_.outputs().size() != 1)
      return Reason("it has other inputs than token ids, or several outputs");
    const Node* embedding = find_embedding();
    if (!embedding) return Reason("its ids are not looked up in one table");
    const Shape& table = *graph_.tensor(embedding->input(0)).shape;
    out_.vocabulary = static_cast<int>(table[0]);
    out_.embedding = static_cast<int>(table[1]);
    add("token_embd.weight", embedding->input(0), embedding->id);
    TensorId x = embedding->outputs[0];
    for (int i = 0; i <= kMostBlocks; ++i) {
      const Node* norm = reader(x, "RMSNormalization");
      if (!norm) return Reason("no RMS norm follows '" + graph_.tensor(x).name + "'");
      if (!reader(x, "Add")) return finish(*norm);
      if (auto done = block(i, x, *norm); !done) return Reason(done.error());
    }
    return Reason("it has more than " + std::to_string(kMostBlocks) + " blocks");
  }

 private:
  const std::string& name(TensorId t) const { return graph_.tensor(t).name; }
  bool is_weight(TensorId t, std::size_t rank) const {
    if (t == kNoTensor || !graph_.tensor(t).is_initializer || graph_.tensor(t).type != DataType::kFloat) return false;
    return graph_.tensor(t).shape && graph_.tensor(t).shape->size() == rank;
  }
  void add(std::string name, TensorId t, NodeId reader, int heads = 0) {
    out_.tensors.push_back({std::move(name), t, reader, heads});
  }

  // Those who compute with it: reading its shape does not count.
  std::vector<const Node*> readers(TensorId t) const {
    std::vector<const Node*> out;
    for (const NodeId id : graph_.tensor(t).consumers)
      if (const Node* n = graph_.find(id); n && n->op != "Shape") out.push_back(n);
    return out;
  }
  const Node* reader(TensorId t, const char* op) const {
    for (const Node* n : readers(t))
      if (n->op == op && n->domain.empty()) return n;
    return nullptr;
  }

  const Node* find_embedding() const {
    const Node* found = nullptr;
    for (const Node& n : graph_.nodes()) {
      if (n.op != "Gather" || n.input(1) != graph_.inputs()[0] || !is_weight(n.input(0), 2) || n.integer("axis", 0) != 0)
        continue;
      if (found) return nullptr;
      found = &n;
    }
    return found;
  }

  std::optional<Linear> linear(const Node& n) const {
    if (!n.domain.empty() || !is_weight(n.input(1), 2) || n.outputs.empty()) return std::nullopt;
    const Shape& shape = *graph_.tensor(n.input(1)).shape;
    Linear l{&n, n.input(0), n.outputs[0], n.input(1), n.input(2), shape[0], shape[1]};
    if (n.op == "Gemm") {
      if (n.real("alpha", 1) != 1 || n.real("beta", 1) != 1 || n.integer("transA", 0) != 0) return std::nullopt;
      if (n.integer("transB", 0) != 0) std::swap(l.in, l.out);
    } else if (n.op != "MatMul") {
      return std::nullopt;
    }
    if (l.bias != kNoTensor && !is_weight(l.bias, 1)) return std::nullopt;
    return l;
  }
  std::optional<Linear> linear_giving(TensorId t) const {
    const Node* n = graph_.find(graph_.tensor(t).producer);
    return n ? linear(*n) : std::nullopt;
  }
  void add(const std::string& name, const Linear& l, int heads = 0) {
    add(name + ".weight", l.weight, l.node->id, heads);
    if (l.bias != kNoTensor) add(name + ".bias", l.bias, l.node->id, heads);
  }

  tl::expected<void, std::string> norm(const Node& n, const std::string& as) {
    const std::size_t rank = graph_.tensor(n.input(0)).shape ? graph_.tensor(n.input(0)).shape->size() : 0;
    const std::int64_t axis = n.integer("axis", -1);
    if (!is_weight(n.input(1), 1) || (axis != -1 && axis != static_cast<std::int64_t>(rank) - 1))
      return Reason("'" + n.name + "' is no RMS norm of the features");
    const float epsilon = n.real("epsilon", 1e-5f);
    if (out_.epsilon != 0 && out_.epsilon != epsilon) return Reason("its RMS norms have several epsilons");
    out_.epsilon = epsilon;
    add(as, n.input(1), n.id);
    return {};
  }

  // The sum that the residual path goes on with, and the product that is added.
  std::optional<std::pair<const Node*, Linear>> residual(TensorId x) const {
    const Node* sum = reader(x, "Add");
    if (!sum || sum->inputs.size() != 2 || readers(x).size() != 2) return std::nullopt;
    const auto added = linear_giving(sum->inputs[sum->inputs[0] == x ? 1 : 0]);
    if (!added) return std::nullopt;
    return std::pair{sum, *added};
  }

  tl::expected<void, std::string> block(int index, TensorId& x, const Node& first) {
    const std::string at = "blk." + std::to_string(index) + ".";
    const auto after_attention = residual(x);
    if (!after_attention) return Reason("nothing linear is added to '" + name(x) + "'");
    if (auto ok = norm(first, at + "attn_norm.weight"); !ok) return ok;
    std::vector<Linear> projections;
    for (const Node* n : readers(first.outputs[0]))
      if (const auto l = linear(*n)) projections.push_back(*l);
    if (projections.size() != 3 || readers(first.outputs[0]).size() != 3)
      return Reason("'" + name(first.outputs[0]) + "' has other readers than queries, keys and values");
    if (auto ok = attention_of(index, projections, after_attention->second, {x, first.outputs[0]}); !ok) return ok;
    const TensorId h = after_attention->first->outputs[0];
    const auto after_feed = residual(h);
    const Node* second = reader(h, "RMSNormalization");
    if (!after_feed || !second) return Reason("no RMS norm and feed-forward follow '" + name(h) + "'");
    if (auto ok = norm(*second, at + "ffn_norm.weight"); !ok) return ok;
    if (auto ok = feed_forward(at, second->outputs[0], after_feed->second); !ok) return ok;
    x = after_feed->first->outputs[0];
    out_.blocks = index + 1;
    return {};
  }

  // x sigmoid(x); returns x.
  TensorId silu(TensorId t) const {
    const Node* n = graph_.find(graph_.tensor(t).producer);
    if (!n) return kNoTensor;
    if (n->op == "Swish" && n->real("alpha", 1) == 1) return n->input(0);
    if (n->op != "Mul" || n->inputs.size() != 2) return kNoTensor;
    for (const std::size_t i : {0u, 1u}) {
      const Node* gate = graph_.find(graph_.tensor(n->inputs[i]).producer);
      if (gate && gate->op == "Sigmoid" && gate->input(0) == n->inputs[1 - i]) return n->inputs[1 - i];
    }
    return kNoTensor;
  }

  tl::expected<void, std::string> feed_forward(const std::string& at, TensorId x, const Linear& down) {
    const Node* product = graph_.find(graph_.tensor(down.input).producer);
    if (!product || product->op != "Mul" || product->inputs.size() != 2)
      return Reason("'" + name(down.input) + "' is no gated product");
    for (const std::size_t i : {0u, 1u}) {
      const TensorId gated = silu(product->inputs[i]);
      if (gated == kNoTensor) continue;
      const auto gate = linear_giving(gated), up = linear_giving(product->inputs[1 - i]);
      if (!gate || !up || gate->input != x || up->input != x || readers(x).size() != 2) continue;
      if (out_.feed_forward != 0 && out_.feed_forward != gate->out) return Reason("its feed-forward layers have several sizes");
      out_.feed_forward = static_cast<int>(gate->out);
      if (gate->out != up->out || down.in != up->out || down.out != out_.embedding)
        return Reason("the sizes of '" + at + "' do not fit each other");
      add(at + "ffn_gate", *gate);
      add(at + "ffn_up", *up);
      add(at + "ffn_down", down);
      return {};
    }
    return Reason("'" + name(down.input) + "' is no product with a SiLU");
  }

  bool has_fixed_tokens() const {
    const auto& shape = graph_.tensor(graph_.inputs()[0]).shape;
    return shape && shape->size() == 2 && (*shape)[1] > 0;
  }
  std::size_t tokens() const {
    const auto& shape = graph_.tensor(graph_.inputs()[0]).shape;
    return shape && shape->size() == 2 && (*shape)[1] > 0 ? static_cast<std::size_t>((*shape)[1]) : kProbeTokens;
  }

  // Computes the graph's attention on random queries, keys and values, and finds the form that gives the same. `lines`:
  // tensors [N, tokens, features] before it.
  tl::expected<void, std::string> attention_of(int index, std::vector<Linear>& projections, const Linear& result,
                                               std::vector<TensorId> lines) {
    const std::string where = "block " + std::to_string(index);
    const std::size_t t = tokens();
    if (t < 2) return Reason("it reads one token at a time");
    if (result.out != out_.embedding) return Reason("its attention gives another size");
    std::mt19937 random(1 + static_cast<unsigned>(index));
    Probe probe(model_);
    const auto count = static_cast<std::int64_t>(t);
    probe.set(graph_.inputs()[0], {{1, count}, std::vector<double>(t, 1.0)});
    std::vector<std::vector<double>> values;
    for (const Linear& l : projections) {
      std::vector<double> v(t * static_cast<std::size_t>(l.out));
      for (double& x : v) x = static_cast<double>(random()) / 2147483648.0 - 1;
      probe.set(l.output, {{1, count, l.out}, v});
      values.push_back(std::move(v));
    }
    const auto computed = probe.value(result.input);
    if (!computed) return Reason("what its attention computes is not known: " + computed.error());
    if (computed->at.size() != t * static_cast<std::size_t>(result.in)) return Reason("its attention gives another size");
    std::vector<std::size_t> order = {0, 1, 2};
    do {
      const Linear &q = projections[order[0]], &k = projections[order[1]], &v = projections[order[2]];
      if (q.out != result.in || k.out != v.out || q.in != out_.embedding) continue;
      for (const RopeAttention& form : forms(q.out, k.out)) {
        const std::vector<double> expected = attention(form, t, values[order[0]], values[order[1]], values[order[2]]);
        if (!near(computed->at, expected)) continue;
        if (out_.heads == 0) settle(form);
        if (!has_fixed_tokens()) {
          const auto far = reach_.check({graph_.inputs()[0], q.output, k.output, v.output, result.input, std::move(lines),
                                         out_.embedding, form, out_.context});
          if (!far) return Reason(where + " computes another attention than llama's: " + far.error());
          out_.context = std::min(out_.context, static_cast<int>(*far));
        }
        const std::string at = "blk." + std::to_string(index) + ".";
        add(at + "attn_q", q, form.halves ? form.heads : 0);
        add(at + "attn_k", k, form.halves ? form.kv_heads : 0);
        add(at + "attn_v", v);
        add(at + "attn_output", result);
        return {};
      }
    } while (std::next_permutation(order.begin(), order.end()));
    return Reason(where + " computes another attention than llama's" + named(projections, values, computed->at, result, t));
  }

  // What it has that llama's has not, where that is known by a name: ": a sliding window of 4 tokens".
  std::string named(const std::vector<Linear>& projections, const std::vector<std::vector<double>>& values,
                    const std::vector<double>& computed, const Linear& result, std::size_t tokens) const {
    if (tokens > kMostNamed) return {};
    std::vector<std::size_t> order = {0, 1, 2};
    do {
      const Linear &q = projections[order[0]], &k = projections[order[1]], &v = projections[order[2]];
      if (q.out != result.in || k.out != v.out || q.in != out_.embedding) continue;
      for (const RopeAttention& form : forms(q.out, k.out))
        for (const auto& [other, name] : kin(form, tokens))
          if (near(computed, attention(other, tokens, values[order[0]], values[order[1]], values[order[2]]))) return ": " + name;
    } while (std::next_permutation(order.begin(), order.end()));
    return {};
  }

  static bool near(const std::vector<double>& a, const std::vector<double>& b) {
    double most = 0, apart = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!std::isfinite(a[i])) return false;
      most = std::max(most, std::fabs(b[i]));
      apart = std::max(apart, std::fabs(a[i] - b[i]));
    }
    return apart <= kTolerance * most;
  }

  // What is known already, or all that the sizes allow.
  std::vector<RopeAttention> forms(std::int64_t q, std::int64_t k) const {
    if (settled_) return {*settled_};
    std::vector<RopeAttention> out;
    for (std::int64_t size = 2; size <= std::min(q, k); size += 2) {
      if (q % size != 0 || k % size != 0 || q / size % (k / size) != 0) continue;
      for (const double base : bases(size))
        for (const bool halves : {false, true})
          out.push_back({static_cast<int>(q / size), static_cast<int>(k / size), static_cast<int>(size), halves, base});
    }
    return out;
  }

  // The frequencies base^(-2i / size) stand in the graph: themselves, or as their cosines at position 1.
  std::vector<double> bases(std::int64_t size) const {
    std::vector<double> out = {10000, 500000, 1000000};
    if (size < 4) return out;
    for (const TensorInfo& info : graph_.tensors()) {
      if (!info.is_initializer || info.type != DataType::kFloat || !info.shape || info.shape->empty()) continue;
      const Shape& s = *info.shape;
      const std::int64_t last = s.back(), all = element_count(s);
      if (last != size / 2 && last != size) continue;
      const std::vector<float> v = model_.weights->find(info.name)->to_floats();
      double frequency = 0;
      if (all == last && v[0] == 1 && v.size() > 1) frequency = static_cast<double>(v[1]);
      const auto row = static_cast<std::size_t>(last);
      if (all >= 2 * last && std::all_of(v.begin(), v.begin() + last, [](float x) { return x == 1; })) {
        // Pairs may stand next to each other: 1, 1, c, c ...
        const std::size_t second = last == size && v[row] == v[row + 1] ? 2 : 1;
        frequency = std::acos(std::clamp(static_cast<double>(v[row + second]), -1.0, 1.0));
      }
      if (!(frequency > 0 && frequency < 1)) continue;
      double base = std::pow(frequency, -static_cast<double>(size) / 2);
      const double unit = std::pow(10.0, std::floor(std::log10(base)) - 2), even = std::nearbyint(base / unit) * unit;
      if (std::fabs(even - base) < 1e-3 * base) base = even;
      if (std::isfinite(base) && std::find(out.begin(), out.end(), base) == out.end()) out.push_back(base);
    }
    return out;
  }

  void settle(const RopeAttention& form) {
    settled_ = form;
    out_.heads = form.heads;
    out_.kv_heads = form.kv_heads;
    out_.head_size = form.size;
    out_.rope_base = static_cast<float>(form.base);
    // The longest text that the graph's tables serve.
    const auto& ids = graph_.tensor(graph_.inputs()[0]).shape;
    out_.context = ids && ids->size() == 2 && (*ids)[1] > 0 ? static_cast<int>((*ids)[1]) : 0;
    for (const TensorInfo& info : graph_.tensors())
      if (out_.context == 0 && info.is_initializer && info.type == DataType::kFloat && info.shape && info.shape->size() >= 2) {
        const Shape& s = *info.shape;
        const bool table = (s.back() == form.size || s.back() == form.size / 2) && s[s.size() - 2] > form.size &&
                           element_count(s) == s.back() * s[s.size() - 2];
        const std::vector<float> v = table ? model_.weights->find(info.name)->to_floats() : std::vector<float>();
        if (table && std::all_of(v.begin(), v.begin() + s.back(), [](float x) { return x == 1; }))
          out_.context = static_cast<int>(s[s.size() - 2]);
      }
    if (out_.context == 0) out_.context = kUsualContext;
  }

  // The output's matrix: of tied embeddings the table, read by a Gemm between two Reshapes or turned by a Transpose.
  std::optional<Linear> head_of(TensorId x) const {
    const auto only = [&](TensorId t) {
      const std::vector<const Node*> all = readers(t);
      return all.size() == 1 ? all[0] : nullptr;
    };
    const Node* n = only(x);
    const bool is_flat = n && n->op == "Reshape" && n->input(0) == x;
    if (is_flat) n = only(n->outputs[0]);
    if (!n) return std::nullopt;
    auto head = linear(*n);
    const Node* turned = n->op == "MatMul" && n->inputs.size() == 2 ? graph_.find(graph_.tensor(n->inputs[1]).producer) : nullptr;
    if (!head && turned && turned->op == "Transpose" && is_weight(turned->input(0), 2) &&
        turned->integers("perm") == std::vector<std::int64_t>{1, 0}) {
      const Shape& table = *graph_.tensor(turned->input(0)).shape;
      head = Linear{turned, n->inputs[0], n->outputs[0], turned->input(0), kNoTensor, table[1], table[0]};
    }
    if (!head || !is_flat) return head;
    const Node* back = only(head->output);
    if (!back || back->op != "Reshape" || back->input(0) != head->output) return std::nullopt;
    head->output = back->outputs[0];
    return head;
  }

  tl::expected<Llama, std::string> finish(const Node& last) {
    if (out_.blocks == 0) return Reason("it has no blocks of attention");
    if (auto ok = norm(last, "output_norm.weight"); !ok) return Reason(ok.error());
    const auto head = head_of(last.outputs[0]);
    if (!head || head->bias != kNoTensor || head->output != graph_.outputs()[0])
      return Reason("its last RMS norm is not followed by the output's matrix alone");
    if (head->in != out_.embedding || head->out != out_.vocabulary)
      return Reason("its output has another size than its vocabulary");
    add("output", *head);
    return out_;
  }

  const Model& model_;
  const Graph& graph_;
  ReachChecker reach_;
  std::optional<RopeAttention> settled_;
  Llama out_;
};

}  // namespace

tl::expected<Llama, std::string> find_llama(const Model& model) {
  return Finder(model).run();
}

}  // namespace quanvas::gguf_file
