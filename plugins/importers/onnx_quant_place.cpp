// Quantizers to the sites of layers. The draft without them is what find_layers() sees; each quantizer then looks for the
// layers that read what it gives, or for the one that makes what it takes.
#include <algorithm>
#include <cmath>

#include "core/graph/canonical.h"
#include "core/quant/params.h"
#include "plugins/importers/onnx_quant.h"

namespace quanvas::onnx_import {
namespace {

// A layer's site by the node in the draft.
struct Spot {
  std::size_t node = 0;
  SiteKind kind = SiteKind::kInput;
  int operand = 0;
  auto operator<=>(const Spot&) const = default;
};

// One layer of the float network: what its node's inputs are.
struct LayerSpots {
  LayerKind kind = LayerKind::kCompute;
  std::map<std::size_t, Spot> inputs;  // by the input's number
  std::string output;
  int channel_axis = 0, reduction_axis = 1, bias_axis = 0;
};

struct Reader {
  std::size_t node = 0, input = 0;
};

bool is_view(const DraftNode& n) {
  static const std::unordered_set<std::string> ops = {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity",
                                                      "Slice", "DepthToSpace", "SpaceToDepth", "Split", "Expand", "Tile"};
  return n.domain.empty() && n.opaque_reason.empty() && ops.count(n.op);
}
bool keeps_order(Rounding r) { return r != Rounding::kStochastic && r != Rounding::kLearned; }

class Placer {
 public:
  Placer(Draft& draft, const std::string& path) : draft_(draft), path_(path) {}

  Result<Lifted> run(JobContext& job) {
    found_ = find_quantizers(draft_);
    if (found_.quantizers.empty() && found_.left.empty()) return std::move(lifted_);
    index_readers();
    follow_constant_views();
    QUANVAS_CHECK(find_spots());
    taken_.resize(found_.quantizers.size());
    for (std::size_t i = found_.quantizers.size(); i-- > 0;) place_activation(i);
    for (const SiteKind kind : {SiteKind::kWeight, SiteKind::kBias})
      for (std::size_t i = 0; i < found_.quantizers.size(); ++i) place_constant(i, kind);
    apply();
    report(job);
    return std::move(lifted_);
  }

 private:
  Draft& draft_;
  const std::string& path_;
  Found found_;
  Lifted lifted_;
  std::unordered_map<std::string, std::vector<Reader>> readers_;
  std::unordered_map<std::string, std::size_t> producer_, by_input_, by_output_;  // by_*: of quantizers
  std::map<std::size_t, LayerSpots> layers_;
  std::map<Spot, std::size_t> occupied_;  // by the quantizer
  std::vector<std::vector<Spot>> taken_;  // spots of each quantizer; empty: it stays
  std::map<std::size_t, std::string> why_;  // why a quantizer stays
  std::unordered_map<std::string, std::string> renamed_;  // what layers give, since their quantizers were taken out
  std::set<std::size_t> viewed_;            // constants that only views read: those have quantizers of their own

  Quantizer& at(std::size_t i) { return found_.quantizers[i]; }

  void index_readers() {
    for (std::size_t i = 0; i < draft_.nodes.size(); ++i) {
      const DraftNode& n = draft_.nodes[i];
      if (n.removed) continue;
      for (std::size_t k = 0; k < n.inputs.size(); ++k)
        if (!n.inputs[k].empty()) readers_[n.inputs[k]].push_back({i, k});
      for (const std::string& t : n.outputs)
        if (!t.empty()) producer_[t] = i;
    }
  }

  const std::vector<Reader>& readers(const std::string& tensor) const {
    static const std::vector<Reader> none;
    const auto it = readers_.find(tensor);
    return it == readers_.end() ? none : it->second;
  }

  // --- constants that are transposed or reshaped before a layer reads them

  void follow_constant_views() {
    for (std::size_t i = 0; i < found_.quantizers.size(); ++i) {
      if (!at(i).values || draft_.is_output(at(i).output)) continue;
      bool all = !readers(at(i).output).empty();
      for (const Reader& r : readers(at(i).output)) all &= follow_view(i, r);
      if (all) viewed_.insert(i);
    }
    for (std::size_t i = 0; i < found_.quantizers.size(); ++i) by_output_[at(i).output] = i;
  }

  bool follow_view(std::size_t index, const Reader& reader) {
    const DraftNode& view = draft_.nodes[reader.node];
    if (!is_view(view) || reader.input != 0 || view.outputs.size() != 1 || view.op == "Expand" || view.op == "Tile" ||
        view.op == "Slice")
      return false;
    Quantizer next = at(index);
    draft_.constants[next.output] = *next.values;
    auto values = move_constants(view, Knowledge{draft_, {}});
    draft_.constants.erase(next.output);
    if (!values || !move_axis(next, view, values->shape)) return false;
    next.values = std::move(*values);
    next.nodes.push_back(reader.node);
    next.output = view.outputs[0];
    found_.quantizers.push_back(std::move(next));
    return true;
  }

  // Where the axis that scales run along has gone.
  static bool move_axis(Quantizer& q, const DraftNode& view, const Shape& to) {
    if (q.spec.granularity == Granularity::kTensor) return true;
    const Shape& from = q.values->shape;
    const auto axis = static_cast<std::size_t>(q.spec.axis.value_or(0));
    if (view.op == "Transpose" && q.spec.granularity == Granularity::kChannel) {
      auto perm = view.integers("perm").value_or(std::vector<std::int64_t>());
      if (perm.empty())
        for (std::size_t i = from.size(); i-- > 0;) perm.push_back(static_cast<std::int64_t>(i));
      const auto it = std::find(perm.begin(), perm.end(), static_cast<std::int64_t>(axis));
      q.spec.axis = static_cast<int>(it - perm.begin());
      return it != perm.end();
    }
    // The first axis stays the first when it keeps its size.
    return q.spec.granularity == Granularity::kChannel && axis == 0 && !to.empty() && to[0] == from[0];
  }

  // --- the layers of the network without quantizers

  Status find_spots() {
    Draft plain = draft_;
    std::unordered_map<std::string, std::string> alias;
    for (const Quantizer& q : found_.quantizers) {
      plain.nodes[q.nodes.back()].removed = true;
      if (q.values) {
        plain.constants[q.output] = *q.values;
        plain.facts[q.output] = {DataType::kFloat, q.values->shape};
      } else {
        alias[q.output] = q.input;
      }
    }
    const auto resolve = [&](std::string t) {
      // A hostile file may let quantizers read each other; the graph's builder says so.
      std::size_t steps = alias.size();
      for (auto it = alias.find(t); it != alias.end() && steps > 0; it = alias.find(t), --steps) t = it->second;
      return t;
    };
    std::unordered_map<std::string, std::size_t> node_of;
    for (std::size_t i = 0; i < plain.nodes.size(); ++i) {
      if (plain.nodes[i].removed) continue;
      for (std::string& t : plain.nodes[i].inputs) t = resolve(t);
      for (const std::string& t : plain.nodes[i].outputs) node_of[t] = i;
    }
    for (std::string& t : plain.outputs) t = resolve(t);
    QUANVAS_TRY(const Model model, finish(plain, path_));
    for (const Layer& layer : find_layers(*model.graph)) {
      const std::size_t node = node_of.at(model.graph->tensor(layer.output).name);
      // Recurrent nodes get more sites than the file knows of (canonical.h): a rule would mean those, too.
      if (!is_recurrent(*model.graph->find(layer.node)))
        layers_[node] = spots_of(layer, *model.graph, plain.nodes[node], node);
    }
    return {};
  }

  static LayerSpots spots_of(const Layer& layer, const Graph& graph, const DraftNode& n, std::size_t node) {
    LayerSpots out;
    out.kind = layer.kind;
    out.output = graph.tensor(layer.output).name;
    out.channel_axis = layer.channel_axis;
    out.reduction_axis = layer.reduction_axis;
    out.bias_axis = layer.bias_axis;
    const auto is = [&](TensorId t, const std::string& name) { return t != kNoTensor && graph.tensor(t).name == name; };
    std::size_t operand = 0;
    for (std::size_t k = 0; k < n.inputs.size(); ++k) {
      if (operand < layer.inputs.size() && is(layer.inputs[operand], n.inputs[k]))
        out.inputs[k] = {node, SiteKind::kInput, static_cast<int>(operand++)};
      else if (k < 2 && is(layer.weight, n.inputs[k]))
        out.inputs[k] = {node, SiteKind::kWeight, 0};
      else if (k == 2 && is(layer.bias, n.inputs[k]))
        out.inputs[k] = {node, SiteKind::kBias, 0};
    }
    return out;
  }

  const Spot* spot_at(const Reader& r) const {
    const auto layer = layers_.find(r.node);
    if (layer == layers_.end()) return nullptr;
    const auto spot = layer->second.inputs.find(r.input);
    return spot == layer->second.inputs.end() ? nullptr : &spot->second;
  }

  // --- activations

  bool is_free(const Spot& spot) const { return !occupied_.count(spot); }

  // The inputs of layers at which the quantizer does the same as here; none: some reader is no such input.
  std::optional<std::vector<Spot>> inputs_behind(const Quantizer& q, const std::string& tensor, int depth = 0) const {
    if (depth > 64 || draft_.is_output(tensor) || readers(tensor).empty()) return std::nullopt;
    std::vector<Spot> out;
    for (const Reader& r : readers(tensor)) {
      const DraftNode& n = draft_.nodes[r.node];
      // The range of what is cut out or pooled is another one than that of the whole.
      const bool one_scale = q.spec.granularity == Granularity::kTensor && keeps_order(q.spec.rounding) && q.spec.source != ScaleSource::kDynamic;
      const bool passes = one_scale && r.input == 0 && (is_view(n) || (n.domain.empty() && n.op == "MaxPool" && n.outputs.size() == 1));
      if (passes) {
        if (const auto behind = behind_all(q, n, depth)) {
          out.insert(out.end(), behind->begin(), behind->end());
          continue;
        }
      }
      const Spot* spot = spot_at(r);
      if (!spot || spot->kind != SiteKind::kInput || !is_free(*spot)) return std::nullopt;
      out.push_back(*spot);
    }
    return out;
  }
  std::optional<std::vector<Spot>> behind_all(const Quantizer& q, const DraftNode& n, int depth) const {
    std::vector<Spot> out;
    for (const std::string& t : n.outputs) {
      if (t.empty()) continue;
      const auto behind = inputs_behind(q, t, depth + 1);
      if (!behind) return std::nullopt;
      out.insert(out.end(), behind->begin(), behind->end());
    }
    return out;
  }

  // The output of the layer that makes what is quantized, when nobody else reads that.
  std::optional<Spot> output_before(const Quantizer& q) const {
    const auto it = producer_.find(q.input);
    if (it == producer_.end() || draft_.is_output(q.input)) return std::nullopt;
    const auto layer = layers_.find(it->second);
    if (layer == layers_.end() || layer->second.output != q.input) return std::nullopt;
    for (const Reader& r : readers(q.input))
      if (std::find(q.nodes.begin(), q.nodes.end(), r.node) == q.nodes.end()) return std::nullopt;
    const Spot spot{it->second, SiteKind::kOutput, 0};
    return is_free(spot) ? std::optional(spot) : std::nullopt;
  }

  // Of the activation that the float network gets in its place, or of the layer before it.
  std::optional<Spot> output_of(const Quantizer& q) {
    if (q.activation.empty()) return output_before(q);
    layers_[q.nodes.back()].kind = LayerKind::kActivation;
    return Spot{q.nodes.back(), SiteKind::kOutput, 0};
  }

  void place_activation(std::size_t i) {
    Quantizer& q = at(i);
    if (q.values) return;
    if (const std::string problem = check(q.spec, SiteKind::kInput); !problem.empty()) {
      why_[i] = "its format is none of an activation: " + problem;
      return;
    }
    std::vector<Spot> spots;
    if (auto inputs = inputs_behind(q, q.output)) {
      spots = std::move(*inputs);
    } else if (const auto output = output_of(q)) {
      spots = {*output};
    } else {
      why_[i] = "something that is no input of a layer reads it, and no layer gives what it takes alone";
      return;
    }
    take(i, spots);
  }

  void take(std::size_t i, const std::vector<Spot>& spots) {
    taken_[i] = spots;
    for (const Spot& s : spots) occupied_[s] = i;
  }

  // --- weights and biases

  void place_constant(std::size_t i, SiteKind kind) {
    Quantizer& q = at(i);
    if (!q.values || !taken_[i].empty() || viewed_.count(i)) return;
    std::vector<Spot> spots;
    for (const Reader& r : readers(q.output)) {
      const Spot* spot = spot_at(r);
      if (!spot || spot->kind == SiteKind::kInput) {
        why_[i] = "it is a constant that is no weight or bias of a layer";
        return;
      }
      if (spot->kind != kind) return;
      spots.push_back(*spot);
    }
    if (spots.empty() || draft_.is_output(q.output)) {
      why_[i] = "it is a constant that the network gives as it is";
      return;
    }
    if (const std::string problem = check(q.spec, kind); !problem.empty())
      why_[i] = std::string("its format is none of a ") + enum_text(kind) + ": " + problem;
    else if (!is_on_grid(q))
      why_[i] = "quantizing the values that it gives would change them";
    else
      take(i, spots);
  }

  // Integers that were given are found again; float values are quantized as the file does.
  bool is_on_grid(const Quantizer& q) const {
    const quant::Stored stored{q.spec, q.scale, q.zero_point, {}};
    const auto params = quant::stored_params(q.spec, q.values->shape, {}, q.spec.axis.value_or(0), stored);
    if (!params) return false;
    if (draft_.nodes[q.nodes.front()].op != "DequantizeLinear" && draft_.nodes[q.nodes.front()].op != "Clip") return true;
    const std::vector<float> x = q.values->to_floats();
    std::vector<float> y(x.size());
    quant::fake_quantize(*params, params->layout, x.data(), y.data());
    for (std::size_t k = 0; k < x.size(); ++k)
      if (!(std::fabs(x[k] - y[k]) <= 1e-6f * std::fabs(x[k]))) return false;
    return true;
  }

  // Whether input scale x weight scale is this scale, entry by entry.
  bool is_accumulator(const Quantizer& q, const Spot& bias) const {
    const auto input = occupied_.find({bias.node, SiteKind::kInput, 0}), weight = occupied_.find({bias.node, SiteKind::kWeight, 0});
    if (input == occupied_.end() || weight == occupied_.end()) return false;
    if (found_.quantizers[input->second].scale.empty()) return false;  // found at run time
    const Quantizer &x = found_.quantizers[input->second], &w = found_.quantizers[weight->second];
    if (!accumulator_problem(&x.spec, &w.spec).empty() || !q.zero_point.empty() || q.spec.narrow || !q.spec.is_signed) return false;
    auto params = quant::bias_params(accumulator_spec(q.spec), x.scale[0], w.scale, q.values->shape, layers_.at(bias.node).bias_axis);
    if (!params) return false;
    for (std::size_t k = 0; k < params->scale.size(); ++k)
      if (q.scale[q.scale.size() == 1 ? 0 : std::min(k, q.scale.size() - 1)] != params->scale[k]) return false;
    return q.scale.size() == 1 || q.scale.size() == params->scale.size();
  }
  static QuantSpec accumulator_spec(const QuantSpec& spec) {
    QuantSpec out;
    out.bits = spec.bits;
    out.rounding = spec.rounding;
    out.scale_from_accumulator = true;
    return out;
  }

  // --- the draft without them

  // Explicit only where a layer's own axis is another.
  void set_axis(QuantSpec& spec, const Spot& spot) const {
    const LayerSpots& layer = layers_.at(spot.node);
    const int own = spot.kind == SiteKind::kBias     ? layer.bias_axis
                    : spot.kind != SiteKind::kWeight ? 1
                    : spec.granularity == Granularity::kGroup ? layer.reduction_axis
                                                              : layer.channel_axis;
    if (spec.granularity == Granularity::kTensor || spec.axis == own) spec.axis.reset();
  }

  void apply() {
    for (std::size_t i = 0; i < found_.quantizers.size(); ++i) {
      if (taken_[i].empty()) continue;
      const Quantizer& q = at(i);
      for (const Spot& spot : taken_[i]) {
        quant::Stored stored{q.spec, q.scale, q.zero_point, {}};
        set_axis(stored.spec, spot);
        if (spot.kind == SiteKind::kBias && is_accumulator(q, spot)) stored.spec = accumulator_spec(q.spec);
        lifted_.items.push_back({draft_.nodes[spot.node].outputs[0], spot.kind, spot.operand, std::move(stored)});
      }
    }
    // From the last on: what an earlier one gives is read by a later one.
    for (std::size_t i = found_.quantizers.size(); i-- > 0;)
      if (!taken_[i].empty()) take_out(at(i), taken_[i][0]);
    drop_unread();
    for (std::size_t i = 0; i < found_.quantizers.size(); ++i)
      if (!taken_[i].empty() && at(i).values) give_name_back(at(i));
  }

  void replace_readers(const std::string& from, const std::string& to) {
    for (DraftNode& n : draft_.nodes)
      if (!n.removed) std::replace(n.inputs.begin(), n.inputs.end(), from, to);
  }

  void take_out(const Quantizer& q, const Spot& spot) {
    DraftNode& last = draft_.nodes[q.nodes.back()];
    if (q.values) {
      last.removed = true;
      draft_.constants[q.output] = *q.values;
      draft_.facts[q.output] = {DataType::kFloat, q.values->shape};
    } else if (!q.activation.empty()) {
      stay_as(q, last);
    } else if (spot.kind == SiteKind::kOutput) {
      // The layer gives what the quantizer gave, by its name.
      last.removed = true;
      DraftNode& layer = draft_.nodes[spot.node];
      std::replace(layer.outputs.begin(), layer.outputs.end(), q.input, q.output);
      rename_item(q.input, q.output);
      // Others that dequantize the same codes may have left their readers to it, or do so yet.
      replace_readers(q.input, q.output);
      renamed_[q.input] = q.output;
    } else {
      last.removed = true;
      const auto now = renamed_.find(q.input);
      replace_readers(q.output, now == renamed_.end() ? q.input : now->second);
    }
  }
  void rename_item(const std::string& from, const std::string& to) {
    for (Lifted::Item& item : lifted_.items)
      if (item.output == from) item.output = to;
  }
  // The float network keeps the activation that the quantizer stood for.
  void stay_as(const Quantizer& q, DraftNode& last) {
    last.domain.clear();
    last.opaque_reason.clear();
    last.attributes.clear();
    last.op = q.activation == "Relu" ? "Relu" : "Clip";
    last.inputs = {q.input};
    if (last.op == "Relu") return;
    constexpr int kLimitsAreInputs = 11;
    if (draft_.opset < kLimitsAreInputs) {
      last.attributes = {{"min", -q.scale[0]}, {"max", q.scale[0]}};
      return;
    }
    for (const float limit : {-q.scale[0], q.scale[0]}) {
      const std::string name = q.output + (limit < 0 ? "_least" : "_most");
      draft_.constants[name] = TensorData::of_floats({}, {limit});
      draft_.facts[name] = {DataType::kFloat, Shape{}};
      last.inputs.push_back(name);
    }
  }

  void drop_unread() {
    std::set<std::size_t> mine;
    for (std::size_t i = 0; i < found_.quantizers.size(); ++i)
      if (!taken_[i].empty()) mine.insert(at(i).nodes.begin(), at(i).nodes.end());
    for (bool again = true; again;) {
      again = false;
      std::unordered_set<std::string> read(draft_.outputs.begin(), draft_.outputs.end());
      for (const DraftNode& n : draft_.nodes)
        if (!n.removed) read.insert(n.inputs.begin(), n.inputs.end());
      for (const std::size_t i : mine) {
        DraftNode& n = draft_.nodes[i];
        if (n.removed || std::any_of(n.outputs.begin(), n.outputs.end(), [&](const std::string& t) { return read.count(t) > 0; }))
          continue;
        n.removed = true;
        again = true;
      }
    }
  }

  // "conv1.weight" rather than "conv1.weight_dequantized", when nothing else has the name now.
  void give_name_back(const Quantizer& q) {
    if (q.source.empty() || q.source == q.output) return;
    for (const DraftNode& n : draft_.nodes)
      if (!n.removed && std::find(n.inputs.begin(), n.inputs.end(), q.source) != n.inputs.end()) return;
    if (draft_.is_output(q.source)) return;
    draft_.constants[q.source] = *q.values;
    draft_.facts[q.source] = {DataType::kFloat, q.values->shape};
    draft_.constants.erase(q.output);
    replace_readers(q.output, q.source);
  }

  // --- messages

  void report(JobContext& job) const {
    std::size_t rules = 0;
    std::vector<std::pair<std::string, std::string>> left;
    for (std::size_t i = 0; i < found_.quantizers.size(); ++i) {
      if (!taken_[i].empty()) ++rules;
      else if (const auto why = why_.find(i); why != why_.end()) left.emplace_back(found_.quantizers[i].label, why->second);
    }
    for (const LeftOver& l : found_.left) left.emplace_back(draft_.nodes[l.node].label(), l.why);
    if (rules > 0)
      job.issue({Severity::kInfo, {}, std::to_string(rules) + " quantizers of the file became rules of the recipe.",
                 "The network itself is in float now; other formats can be assigned to its layers."});
    constexpr std::size_t kMostShown = 20;
    std::string more;
    for (std::size_t i = 0; i < left.size(); ++i) {
      if (i < kMostShown)
        job.issue({Severity::kInfo, left[i].first,
                   "The quantizer '" + left[i].first + "' stays a node of the network: " + left[i].second + ".",
                   "It is executed as the file has it; no rule of the recipe changes it."});
      else
        more += (more.empty() ? "" : ", ") + left[i].first;
    }
    if (!more.empty())
      job.issue({Severity::kInfo, {}, "These quantizers stay nodes of the network, too: " + more + ".", {}});
  }
};

}  // namespace

Result<Lifted> lift_quantizers(Draft& draft, const std::string& path, JobContext& job) {
  quantize_late(draft);
  return Placer(draft, path).run(job);
}

}  // namespace quanvas::onnx_import
