// Batch normalization becomes part of the layer before it: W' = W f, b' = beta + (b - mean) f per output channel,
// f = gamma / sqrt(variance + epsilon); of several layers whose channels are joined before it; or else of the layers that read
// it: W' = W f per input channel, b' = b + W (beta - mean f). In double, so that only the final rounding is seen.
#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "core/graph/canonical.h"
#include "core/exec/pass_context.h"
#include "core/graph/layers.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"
#include "plugins/passes/normalized_means.h"

namespace quanvas {
namespace {

struct Affine {
  std::vector<double> factor, shift;      // y = factor * x + shift, per channel
  std::vector<double> mean, deviation;    // of y, as the normalization states them
};

Result<Affine> affine_of(const Model& model, const Node& bn) {
  std::vector<float> values[4];
  for (std::size_t i = 0; i < 4; ++i) {
    const TensorData* data = initializer_data(model, bn.input(i + 1));
    if (!data) return fail(ErrorCode::kUnsupported, "its parameters are computed, not stored");
    values[i] = data->to_floats();
    if (values[i].size() != values[0].size()) return fail(ErrorCode::kUnsupported, "its parameters differ in length");
  }
  Affine a;
  const double epsilon = bn.real("epsilon", 1e-5f);
  for (std::size_t c = 0; c < values[0].size(); ++c) {
    const double f = values[0][c] / std::sqrt(static_cast<double>(values[3][c]) + epsilon);
    const double shift = values[1][c] - values[2][c] * f;
    if (!std::isfinite(f) || !std::isfinite(shift))
      return fail(ErrorCode::kUnsupported, "its parameters are not finite or its variance is negative");
    a.factor.push_back(f);
    a.shift.push_back(shift);
    a.mean.push_back(static_cast<double>(values[1][c]));
    a.deviation.push_back(std::fabs(f) * std::sqrt(static_cast<double>(values[3][c])));
  }
  return a;
}

// What stands before a batch normalization or a part of its channels: a layer with a weight, maybe an Add of one constant per
// channel.
struct Match {
  const Node* layer = nullptr;
  const Node* add = nullptr;
  Layer facts;
  std::vector<double> weight, bias;  // of the layer with the normalization in it
  std::vector<double> mean, deviation;  // of what it gives then, as the normalization states them
};

// One walk over the graph. Each layer takes at most one normalization in it: what comes on top of that waits for the next walk.
class Folder {
 public:
  explicit Folder(const Model& model) : model_(model), edit_(model), layers_(find_layers(*model.graph)) {}

  void run() {
    for (const Node& node : model_.graph->nodes()) {
      if (node.op != "BatchNormalization" || !node.domain.empty()) continue;
      const std::string reason = fold(node);
      if (reason.empty()) ++folded_;
      else left_.push_back("'" + node.name + "' (" + reason + ")");
    }
  }
  std::size_t folded() const { return folded_; }
  const std::vector<std::string>& left() const { return left_; }
  Result<ModelPtr> finish() { return edit_.finish(); }

 private:
  // The only node that makes `id`, when `id` has no other reader than `reader` and is no output.
  const Node* private_producer(TensorId id, const Node& reader) const {
    const Graph& g = *model_.graph;
    if (id == kNoTensor) return nullptr;
    const TensorInfo& t = g.tensor(id);
    if (t.consumers.size() != 1 || t.consumers[0] != reader.id || is_graph_output(g, id)) return nullptr;
    return g.find(t.producer);
  }

  std::string fold(const Node& bn) {
    if (bn.integer("training_mode", 0) != 0) return "it is in training mode";
    if (bn.integer("spatial", 1) == 0) return "it is not per channel";
    const auto affine = affine_of(model_, bn);
    std::string before;
    if (affine) before = fold_into_makers(bn, *affine);
    else before = affine.error().message;
    if (before.empty() || !affine) return before;
    const std::string behind = fold_into_readers(bn, *affine);
    return behind.empty() ? behind : before + behind;
  }

  // Into the layer before it, or into all layers whose channels a concatenation puts side by side.
  std::string fold_into_makers(const Node& bn, const Affine& affine) {
    std::vector<Match> parts;
    std::vector<const Node*> joins;
    std::size_t first = 0;
    if (std::string reason = match_part(bn.input(0), bn, affine, first, parts, joins); !reason.empty()) return reason;
    if (first != affine.factor.size()) return "it has another number of channels than what it reads";
    const std::string output = model_.graph->tensor(bn.outputs[0]).name;
    for (const Match& m : parts) {
      apply(m);
      if (joins.empty()) keep_statement(m, output);  // nobody looks behind a concatenation
    }
    edit_.builder().remove_node(bn.id);
    const Node& last = !joins.empty() ? *joins[0] : parts[0].add ? *parts[0].add : *parts[0].layer;
    const NodeId maker = joins.empty() ? parts[0].layer->id : joins[0]->id;  // an Add is gone by now
    edit_.builder().replace_output(maker, model_.graph->tensor(last.outputs[0]).name, output);
    return {};
  }

  // The makers of `tensor`, whose channels begin at `first` of the normalization's; that is moved behind them.
  std::string match_part(TensorId tensor, const Node& reader, const Affine& affine, std::size_t& first, std::vector<Match>& parts,
                         std::vector<const Node*>& joins) const {
    const Node* before = private_producer(tensor, reader);
    if (!before)
      return joins.empty() ? "its input is not the private result of one layer"
                           : "what '" + joins.back()->name + "' joins is not all from layers of its own";
    if (before->op == "Concat" && before->domain.empty()) {
      const auto& shape = model_.graph->tensor(tensor).shape;
      const std::int64_t axis = before->integer("axis", 1);
      if (axis != 1 && !(shape && axis + static_cast<std::int64_t>(shape->size()) == 1))
        return "'" + before->name + "' does not join channels";
      joins.push_back(before);
      for (const TensorId part : before->inputs)
        if (std::string reason = match_part(part, *before, affine, first, parts, joins); !reason.empty()) return reason;
      return {};
    }
    Match m;
    if (before->op == "Add" && before->inputs.size() == 2) {
      m.add = before;
      const std::size_t data = constant_operand(*before) == 0 ? 1 : 0;
      before = constant_operand(*before) < 0 ? nullptr : private_producer(before->inputs[data], *before);
    }
    if (!before) return "its input is a sum of activations";
    if (std::string reason = match_layer(*before, m); !reason.empty()) return reason;
    if (touched_.count(before->id) || std::any_of(parts.begin(), parts.end(), [&](const Match& p) { return p.layer == before; }))
      return "'" + before->name + "' has taken another one";
    const std::size_t channels = output_channels(m);
    if (first + channels > affine.factor.size()) return "the channels of '" + before->name + "' do not match";
    const auto part = [&](const std::vector<double>& all) {
      return std::vector<double>(all.begin() + static_cast<std::ptrdiff_t>(first),
                                 all.begin() + static_cast<std::ptrdiff_t>(first + channels));
    };
    if (std::string reason = scale_outputs(m, {part(affine.factor), part(affine.shift), {}, {}}); !reason.empty()) return reason;
    m.mean = part(affine.mean), m.deviation = part(affine.deviation);
    first += channels;
    parts.push_back(std::move(m));
    return {};
  }

  std::string match_layer(const Node& node, Match& m) const {
    m.layer = &node;
    const Layer* facts = find_layer(layers_, node.id);
    if (!facts || facts->kind != LayerKind::kCompute || facts->weights() != 1 || is_recurrent(node) ||
        !initializer_data(model_, facts->weight))
      return "'" + node.op + "' before it has no weight to fold into";
    m.facts = *facts;
    if (initializer_data(model_, facts->weight)->shape.size() < 2) return "the weight of '" + node.name + "' has too few axes";
    if (is_matrix(node)) {
      if (node.input(1) != facts->weight) return "the weight of '" + node.name + "' is its left operand";
      const auto& shape = model_.graph->tensor(facts->weight).shape;
      const auto& out = model_.graph->tensor(node.outputs[0]).shape;
      if (!shape || shape->size() != 2 || (node.op == "MatMul" && (!out || out->size() != 2)))
        return "'" + node.name + "' does not make a matrix";
    }
    if (node.input(2) != kNoTensor && facts->bias == kNoTensor) return "the bias of '" + node.name + "' is computed";
    return {};
  }

  static bool is_matrix(const Node& node) { return node.op == "MatMul" || node.op == "Gemm"; }

  int constant_operand(const Node& add) const {
    for (int i = 0; i < 2; ++i)
      if (initializer_data(model_, add.inputs[static_cast<std::size_t>(i)])) return i;
    return -1;
  }

  std::size_t output_channels(const Match& m) const {
    const Shape& shape = initializer_data(model_, m.facts.weight)->shape;
    const auto axis = static_cast<std::size_t>(m.facts.channel_axis);
    return axis < shape.size() ? static_cast<std::size_t>(shape[axis] * (m.layer->op == "ConvTranspose" ? m.facts.group : 1)) : 0;
  }

  // The layer's own bias, of so many channels; with its Add's constant where it has one.
  std::string own_bias(const Match& m, std::vector<double>& bias) const {
    const std::size_t channels = bias.size();
    if (m.add) {
      const TensorData* constant = initializer_data(model_, m.add->inputs[static_cast<std::size_t>(constant_operand(*m.add))]);
      const std::vector<float> c = constant->to_floats();
      // A convolution's output has the rank of its weight, and its channels on axis 1; a matrix has them last.
      const std::size_t rank = initializer_data(model_, m.facts.weight)->shape.size();
      if (c.size() != 1 && !is_per_channel(constant->shape, channels, is_matrix(*m.layer) ? 0 : rank - 2))
        return "the Add before it is not one constant per channel";
      for (std::size_t i = 0; i < channels; ++i) bias[i] = c.size() == 1 ? c[0] : c[i];
    }
    if (m.facts.bias == kNoTensor) return {};
    const TensorData* own = initializer_data(model_, m.facts.bias);
    const std::vector<float> b = own ? own->to_floats() : std::vector<float>{};
    const double beta = m.layer->op == "Gemm" ? m.layer->real("beta", 1) : 1.0;
    if (b.size() != channels && b.size() != 1) return "the bias of '" + m.layer->name + "' is not one value per channel";
    for (std::size_t i = 0; i < channels; ++i) bias[i] += beta * (b.size() == 1 ? b[0] : b[i]);
    return {};
  }

  // W' = W f, b' = b f + shift.
  std::string scale_outputs(Match& m, const Affine& affine) const {
    const std::size_t channels = affine.factor.size();
    const TensorData* data = initializer_data(model_, m.facts.weight);
    const auto channel_of = channel_map(*data, m.facts, m.layer->op == "ConvTranspose");
    const std::vector<float> w = data->to_floats();
    m.weight.resize(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      const auto c = static_cast<std::size_t>(channel_of(static_cast<std::int64_t>(i)));
      if (c >= channels) return "the channels of '" + m.layer->name + "' do not match";
      m.weight[i] = static_cast<double>(w[i]) * affine.factor[c];
    }
    m.bias.assign(channels, 0.0);
    if (std::string reason = own_bias(m, m.bias); !reason.empty()) return reason;
    for (std::size_t i = 0; i < channels; ++i) m.bias[i] = m.bias[i] * affine.factor[i] + affine.shift[i];
    return {};
  }

  // Into all layers that read it: W' = W f along the inputs, b' = b + W shift. Empty, or why not, as the rest of a sentence.
  std::string fold_into_readers(const Node& bn, const Affine& affine) {
    const Graph& g = *model_.graph;
    const TensorId made = bn.outputs[0];
    if (is_graph_output(g, made) || g.tensor(made).consumers.empty()) return {"; it is an output of the network"};
    std::vector<Match> parts;
    for (const NodeId id : g.tensor(made).consumers) {
      const Node& reader = *g.find(id);
      Match m;
      const Layer* facts = find_layer(layers_, id);
      if (!facts || facts->kind != LayerKind::kCompute || facts->weights() != 1 || facts->inputs.size() != 1)
        return "; '" + reader.name + "' behind it is no layer with a weight";
      if (match_layer(reader, m).size() > 0 || touched_.count(id)) return "; '" + reader.name + "' behind it cannot take it";
      if (std::string reason = scale_inputs(m, bn, affine); !reason.empty()) return "; " + reason;
      parts.push_back(std::move(m));
    }
    for (const Match& m : parts) {
      edit_.builder().replace_input(m.layer->id, g.tensor(made).name, g.tensor(bn.input(0)).name);
      apply(m);
    }
    edit_.builder().remove_node(bn.id);
    return {};
  }

  std::string scale_inputs(Match& m, const Node& bn, const Affine& affine) const {
    const Node& node = *m.layer;
    const TensorData* data = initializer_data(model_, m.facts.weight);
    const std::vector<float> w = data->to_floats();
    const auto& shape = model_.graph->tensor(bn.input(0)).shape;
    if (is_matrix(node)) {
      if (!shape || shape->size() != 2 || node.integer("transA", 0) != 0)
        return "'" + node.name + "' behind it does not read its channels";
    } else if (node.op != "Conv") {
      return "'" + node.name + "' behind it sums up fewer of its values at the borders";
    } else if (const bool shifts = std::any_of(affine.shift.begin(), affine.shift.end(), [](double s) { return s != 0; });
               shifts && may_pad(node)) {
      return "'" + node.name + "' behind it pads with zeros, which are no zeros before the normalization";
    }
    const std::size_t outputs = output_channels(m), group = is_matrix(node) ? 1 : static_cast<std::size_t>(m.facts.group);
    std::int64_t behind = 1;
    for (std::size_t i = static_cast<std::size_t>(m.facts.reduction_axis) + 1; i < data->shape.size(); ++i)
      behind *= data->shape[i];
    const std::int64_t inputs = data->shape[static_cast<std::size_t>(m.facts.reduction_axis)];
    if (static_cast<std::size_t>(inputs) * group != affine.factor.size() || outputs % group != 0)
      return "the channels of '" + node.name + "' behind it do not match";
    const double alpha = node.op == "Gemm" ? node.real("alpha", 1) : 1.0;
    const auto channel_of = channel_map(*data, m.facts, false);
    m.bias.assign(outputs, 0.0);
    if (std::string reason = own_bias(m, m.bias); !reason.empty())
      return "the bias of '" + node.name + "' behind it is not one value per channel";
    m.weight.resize(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      const auto out = static_cast<std::size_t>(channel_of(static_cast<std::int64_t>(i)));
      const auto in = out / (outputs / group) * static_cast<std::size_t>(inputs) +
                      static_cast<std::size_t>(static_cast<std::int64_t>(i) / behind % inputs);
      m.weight[i] = static_cast<double>(w[i]) * affine.factor[in];
      m.bias[out] += alpha * static_cast<double>(w[i]) * affine.shift[in];
    }
    return {};
  }

  static bool may_pad(const Node& conv) {
    const auto pads = conv.integers("pads");
    return conv.text("auto_pad", "NOTSET").starts_with("SAME") ||
           std::any_of(pads.begin(), pads.end(), [](std::int64_t p) { return p != 0; });
  }

  void apply(const Match& m) {
    const Graph& g = *model_.graph;
    const TensorInfo& w = g.tensor(m.facts.weight);
    const TensorData* data = initializer_data(model_, m.facts.weight);
    edit_.replace_initializer(*m.layer, m.facts.weight, data->type, data->shape, m.weight);
    const std::string name =
        edit_.new_initializer(m.layer->name + ".bias", w.type, {static_cast<std::int64_t>(m.bias.size())}, m.bias);
    edit_.builder().replace_input_at(m.layer->id, 2, name);
    if (m.layer->op == "Gemm") edit_.builder().set_attribute(m.layer->id, "beta", 1.0f);
    touched_.insert(m.layer->id);
    if (!m.add) return;
    edit_.builder().remove_node(m.add->id);
    edit_.builder().replace_output(m.layer->id, g.tensor(m.layer->outputs[0]).name, g.tensor(m.add->outputs[0]).name);
  }

  // Of what the layer gives under this name, for bias correction without data; nothing in the graph reads it.
  void keep_statement(const Match& m, const std::string& output) {
    const TensorData* data = initializer_data(model_, m.facts.weight);
    const auto channels = static_cast<std::int64_t>(m.bias.size());
    const DataType type = model_.graph->tensor(m.facts.weight).type;
    const std::string name = folded_normalization(output, make_data(data->type, data->shape, m.weight), make_data(type, {channels}, m.bias));
    std::vector<double> values = m.mean;
    values.insert(values.end(), m.deviation.begin(), m.deviation.end());
    edit_.new_initializer(name, DataType::kFloat, {2, channels}, values);
  }

  const Model& model_;
  ModelEdit edit_;
  std::vector<Layer> layers_;
  std::set<NodeId> touched_;
  std::size_t folded_ = 0;
  std::vector<std::string> left_;
};

class FoldBatchNorm final : public Pass {
 public:
  PluginInfo info() const override {
    return {
        "fold-bn", "Fold batch normalization",
        "Multiplies the factors of a batch normalization into the convolution or matrix layer before it, into all layers whose "
        "channels are joined before it, or into the layers that read it, as integer inference does (Jacob et al. 2018, section "
        "3.2)."};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json&, JobContext& job) const override {
    std::size_t folded = 0;
    for (;;) {
      QUANVAS_CHECK(job.check());
      Folder folder(*ctx.model);
      folder.run();
      folded += folder.folded();
      if (folder.folded() == 0) {
        std::string text =
            "Folded " + std::to_string(folded) + " of " + std::to_string(folded + folder.left().size()) + " batch normalizations";
        if (!folder.left().empty()) text += "; left: " + join_some(folder.left());
        return text + ".";
      }
      QUANVAS_TRY(ctx.model, folder.finish());
    }
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, FoldBatchNorm)

}  // namespace quanvas
