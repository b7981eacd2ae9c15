// Batch normalization becomes part of the layer before it: W' = W f, b' = beta + (b - mean) f per output channel,
// f = gamma / sqrt(variance + epsilon). In double, so that only the final rounding is seen.
#include <cmath>
#include <optional>

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

// What stands before the batch normalization: a layer with a weight, maybe an Add of one constant per channel.
struct Match {
  const Node* bn = nullptr;
  const Node* layer = nullptr;
  const Node* add = nullptr;
  Layer facts;
};

class Folder {
 public:
  explicit Folder(const Model& model) : model_(model), edit_(model), layers_(find_layers(*model.graph)) {}

  Result<std::string> run() {
    for (const Node& node : model_.graph->nodes()) {
      if (node.op != "BatchNormalization" || !node.domain.empty()) continue;
      ++found_;
      const std::string reason = fold(node);
      if (!reason.empty()) left_.push_back("'" + node.name + "' (" + reason + ")");
    }
    std::string text = "Folded " + std::to_string(found_ - left_.size()) + " of " + std::to_string(found_) +
                       " batch normalizations";
    if (!left_.empty()) text += "; left: " + join_some(left_);
    return text + ".";
  }
  bool changed() const { return found_ > left_.size(); }
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

  std::string match(const Node& bn, Match& m) const {
    if (bn.integer("training_mode", 0) != 0) return "it is in training mode";
    if (bn.integer("spatial", 1) == 0) return "it is not per channel";
    m.bn = &bn;
    const Node* before = private_producer(bn.input(0), bn);
    if (!before) return "its input is not the private result of one layer";
    if (before->op == "Add" && before->inputs.size() == 2) {
      m.add = before;
      const std::size_t data = constant_operand(*before) == 0 ? 1 : 0;
      before = constant_operand(*before) < 0 ? nullptr : private_producer(before->inputs[data], *before);
    }
    if (!before) return "its input is a sum of activations";
    m.layer = before;
    const Layer* facts = find_layer(layers_, before->id);
    if (!facts || facts->kind != LayerKind::kCompute || facts->weights() != 1 || is_recurrent(*before))
      return "'" + before->op + "' before it has no weight to fold into";
    m.facts = *facts;
    if (before->op == "MatMul" || before->op == "Gemm") {
      if (before->input(1) != facts->weight) return "the weight of '" + before->name + "' is its left operand";
      const auto& shape = model_.graph->tensor(facts->weight).shape;
      const auto& out = model_.graph->tensor(before->outputs[0]).shape;
      if (!shape || shape->size() != 2 || (before->op == "MatMul" && (!out || out->size() != 2)))
        return "'" + before->name + "' does not make a matrix";
    }
    if (before->input(2) != kNoTensor && facts->bias == kNoTensor)
      return "the bias of '" + before->name + "' is computed";
    return {};
  }

  int constant_operand(const Node& add) const {
    for (int i = 0; i < 2; ++i)
      if (initializer_data(model_, add.inputs[static_cast<std::size_t>(i)])) return i;
    return -1;
  }

  std::string fold(const Node& bn) {
    Match m;
    if (std::string reason = match(bn, m); !reason.empty()) return reason;
    const auto affine = affine_of(model_, bn);
    if (!affine) return affine.error().message;
    const std::size_t channels = affine->factor.size();
    const auto weight = scaled_weight(m, affine->factor);
    if (weight.empty()) return "the channels of '" + m.layer->name + "' do not match";
    // b' of the layer itself; the Add's constant is folded instead when there is one.
    std::vector<double> bias(channels, 0.0);
    if (m.add) {
      const TensorData* constant = initializer_data(model_, m.add->inputs[static_cast<std::size_t>(constant_operand(*m.add))]);
      const std::vector<float> c = constant->to_floats();
      // A convolution's output has the rank of its weight, and its channels on axis 1; a matrix has them last.
      const bool matrix = m.layer->op == "MatMul" || m.layer->op == "Gemm";
      const std::size_t rank = initializer_data(model_, m.facts.weight)->shape.size();
      if (c.size() != 1 && !is_per_channel(constant->shape, channels, matrix ? 0 : rank - 2))
        return "the Add before it is not one constant per channel";
      for (std::size_t i = 0; i < channels; ++i) bias[i] = c.size() == 1 ? c[0] : c[i];
    }
    if (m.facts.bias != kNoTensor) {
      const TensorData* own = initializer_data(model_, m.facts.bias);
      const std::vector<float> b = own ? own->to_floats() : std::vector<float>{};
      const double beta = m.layer->op == "Gemm" ? m.layer->real("beta", 1) : 1.0;
      if (b.size() != channels && b.size() != 1) return "the bias of '" + m.layer->name + "' is not one value per channel";
      for (std::size_t i = 0; i < channels; ++i) bias[i] += beta * (b.size() == 1 ? b[0] : b[i]);
    }
    for (std::size_t i = 0; i < channels; ++i) bias[i] = bias[i] * affine->factor[i] + affine->shift[i];
    apply(m, weight, bias);
    keep_statement(m, *affine, weight, bias);
    return {};
  }

  std::vector<double> scaled_weight(const Match& m, const std::vector<double>& factor) const {
    const TensorData* data = initializer_data(model_, m.facts.weight);
    if (!data) return {};
    const auto channel_of = channel_map(*data, m.facts, m.layer->op == "ConvTranspose");
    const std::vector<float> w = data->to_floats();
    std::vector<double> out(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      const auto c = static_cast<std::size_t>(channel_of(static_cast<std::int64_t>(i)));
      if (c >= factor.size()) return {};
      out[i] = static_cast<double>(w[i]) * factor[c];
    }
    const std::int64_t expected = data->shape[static_cast<std::size_t>(m.facts.channel_axis)] *
                                  (m.layer->op == "ConvTranspose" ? m.facts.group : 1);
    return expected == static_cast<std::int64_t>(factor.size()) ? out : std::vector<double>{};
  }

  void apply(const Match& m, const std::vector<double>& weight, const std::vector<double>& bias) {
    const Graph& g = *model_.graph;
    const TensorInfo& w = g.tensor(m.facts.weight);
    const TensorData* data = initializer_data(model_, m.facts.weight);
    const std::string output = g.tensor(m.bn->outputs[0]).name;
    edit_.replace_initializer(*m.layer, m.facts.weight, data->type, data->shape, weight);
    const auto channels = static_cast<std::int64_t>(bias.size());
    edit_.builder().remove_node(m.bn->id);
    const std::string name = edit_.new_initializer(m.layer->name + ".bias", w.type, {channels}, bias);
    edit_.builder().replace_input_at(m.layer->id, 2, name);
    if (m.layer->op == "Gemm") edit_.builder().set_attribute(m.layer->id, "beta", 1.0f);
    if (m.add) edit_.builder().remove_node(m.add->id);
    edit_.builder().replace_output(m.layer->id, g.tensor(m.layer->outputs[0]).name, output);
  }

  // For bias correction without data; nothing in the graph reads it.
  void keep_statement(const Match& m, const Affine& affine, const std::vector<double>& weight, const std::vector<double>& bias) {
    const Graph& g = *model_.graph;
    const TensorData* data = initializer_data(model_, m.facts.weight);
    const auto channels = static_cast<std::int64_t>(bias.size());
    const std::string name = folded_normalization(g.tensor(m.bn->outputs[0]).name, make_data(data->type, data->shape, weight),
                                                  make_data(g.tensor(m.facts.weight).type, {channels}, bias));
    std::vector<double> values = affine.mean;
    values.insert(values.end(), affine.deviation.begin(), affine.deviation.end());
    edit_.new_initializer(name, DataType::kFloat, {2, channels}, values);
  }

  const Model& model_;
  ModelEdit edit_;
  std::vector<Layer> layers_;
  std::size_t found_ = 0;
  std::vector<std::string> left_;
};

class FoldBatchNorm final : public Pass {
 public:
  PluginInfo info() const override {
    return {"fold-bn", "Fold batch normalization",
            "Multiplies the factors of a batch normalization into the convolution or matrix layer before it, as "
            "integer inference does (Jacob et al. 2018, section 3.2)."};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json&, JobContext& job) const override {
    QUANVAS_CHECK(job.check());
    Folder folder(*ctx.model);
    QUANVAS_TRY(std::string text, folder.run());
    if (folder.changed()) {
      QUANVAS_TRY(ctx.model, folder.finish());
    }
    return text;
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, FoldBatchNorm)

}  // namespace quanvas
