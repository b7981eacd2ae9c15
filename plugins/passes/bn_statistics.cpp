// Re-estimation of batch normalizations: quantized layers give other means and variances than those that were learned, and
// the normalization behind them expects the learned ones. They are measured again in the quantized network (Sun et al. 2019,
// "Hybrid 8-bit Floating Point Training and Inference for Deep Neural Networks", there called BN re-tuning).
#include <cmath>
#include <map>

#include <ATen/ATen.h>

#include "core/exec/chunks.h"
#include "core/exec/pass_context.h"
#include "core/graph/memory.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

constexpr std::int64_t kBytes = std::int64_t{1} << 30;  // of activations at a time

// Batch normalizations with statistics that are stored.
std::vector<const Node*> normalizations(const Model& model) {
  std::vector<const Node*> out;
  for (const Node& node : model.graph->nodes()) {
    if (node.op != "BatchNormalization" || !node.domain.empty() || !node.opaque_reason.empty() || node.integer("training_mode", 0) != 0) continue;
    const TensorData *mean = initializer_data(model, node.input(3)), *variance = initializer_data(model, node.input(4));
    if (!mean || !variance || mean->count() != variance->count() || mean->shape.size() != 1) continue;
    out.push_back(&node);
  }
  return out;
}

struct Sums {
  at::Tensor sum, squares;  // float64, per channel
  double count = 0;
};
using Found = std::map<NodeId, Sums>;

class BnStatistics final : public Pass {
 public:
  PluginInfo info() const override {
    return {"bn-statistics", "Re-estimate batch normalization",
            "Measures mean and variance of each batch normalization again in the quantized network (Sun et al. 2019, Hybrid 8-bit Floating Point, BN re-tuning). For networks whose batch "
            "normalizations are not folded."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    return {{choice_field("variance", "Variance", "What replaces the learned variance.", "measured",
                          {{"measured", "Measured", "That of the quantized network."},
                           {"geometric", "Geometric mean", "Of the learned and the measured one: half of what quantization has changed of an output's norm is taken "
                                                           "back (norm correction)."}})}};
  }

  std::vector<Issue> check(const PassQuestion& q, const json&) const override {
    std::vector<Issue> out;
    if (!q.calibration_data) out.push_back({Severity::kError, "", "It needs calibration data.", "Declare a data set for calibration."});
    std::size_t mine = 0;
    for (const Node* n : normalizations(q.model)) mine += q.nodes.count(n->id);
    if (mine == 0)
      out.push_back({Severity::kError, "", "There is no batch normalization with stored statistics left in the network.", "Take 'fold-bn' out of the recipe, or this pass."});
    for (const Node& n : q.model.graph->nodes())
      if (n.op == "Dropout" && n.domain.empty())
        out.push_back({Severity::kError, n.name, "The statistics of batches are those of training, in which this Dropout drops.", "Export the network for inference."});
    if (q.model.graph->inputs().size() != 1) out.push_back({Severity::kError, "", "The network has several inputs, and the calibration data gives one.", ""});
    return out;
  }

  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const ModelPtr before = ctx.quantized.model;
    const Graph& graph = *before->graph;
    std::set<NodeId> all;
    for (const Node& n : graph.nodes())
      if (ctx.may_change(n.id)) all.insert(n.id);
    const Plan& plan = ctx.quantized.plan;
    for (const Issue& issue : check({*before, plan, all, ctx.calibration_data != nullptr, ctx.training_data != nullptr}, options))
      return fail(ErrorCode::kInvalidArgument, issue.message, issue.hint);
    std::map<TensorId, std::vector<const Node*>> wanted;
    std::vector<std::string> left;
    for (const Node* n : normalizations(*before)) {
      if (!all.count(n->id)) continue;
      const bool shared = graph.tensor(n->input(3)).consumers.size() != 1 || graph.tensor(n->input(4)).consumers.size() != 1;
      if (shared || is_graph_output(graph, n->input(3)) || is_graph_output(graph, n->input(4))) left.push_back("'" + n->name + "': its statistics are read elsewhere, too");
      else wanted[n->input(0)].push_back(n);
    }
    auto samples = ctx.calibration_samples;
    if (samples.empty()) samples = choose_samples(ctx.calibration_data->size(), 0, 0);
    QUANVAS_TRY(const auto runner, exec::Runner::create(before, &ctx.quantized.quantizers, ctx.device));
    Found total;
    QUANVAS_CHECK(exec::for_each_chunk<Found>(
        *ctx.calibration_data, samples, ctx.device, job, info().title,
        [&](exec::Chunk& chunk) -> Result<Found> {
          Found out;
          exec::RunHooks hooks;
          hooks.training = true;  // each batch normalized by its own statistics, as by those that are being found
          hooks.tap = [&](TensorId id, const at::Tensor& value) {
            const auto it = wanted.find(id);
            if (it == wanted.end() || value.dim() < 2) return;
            const at::Tensor x = value.to(at::kCPU, at::kDouble).transpose(0, 1).flatten(1);
            for (const Node* n : it->second) out[n->id] = {x.sum(1), x.square().sum(1), static_cast<double>(x.size(1))};
          };
          QUANVAS_CHECK(runner->run({chunk.input}, hooks));
          return out;
        },
        [&](std::int64_t, Found& found) -> Status {
          for (auto& [id, sums] : found) {
            const auto [it, fresh] = total.try_emplace(id, sums);
            if (fresh) continue;
            it->second.sum = it->second.sum + sums.sum;
            it->second.squares = it->second.squares + sums.squares;
            it->second.count += sums.count;
          }
          return {};
        },
        std::clamp<std::int64_t>(kBytes / live_bytes(graph), 2, exec::kChunkSize)));
    auto weights = std::make_shared<WeightStore>(*before->weights);
    double sum = 0, channels = 0;
    std::vector<const Node*> measured;
    for (const auto& [tensor, nodes] : wanted) measured.insert(measured.end(), nodes.begin(), nodes.end());
    for (const Node* node : measured) {
      const auto it = total.find(node->id);
      const TensorData *mean = initializer_data(*before, node->input(3)), *variance = initializer_data(*before, node->input(4));
      if (it == total.end() || it->second.sum.numel() != mean->count()) continue;
      const at::Tensor m = (it->second.sum / it->second.count).contiguous();
      at::Tensor v = (it->second.squares / it->second.count - m.square()).clamp_min(0).contiguous();
      if (!at::isfinite(m).all().item().toBool() || !at::isfinite(v).all().item().toBool())
        return fail(ErrorCode::kInvalidArgument, "The input of '" + node->name + "' is not finite on the calibration samples.", "Look at the samples and at the formats of the layers before it.");
      const auto old_mean = mean->to_floats(), old_variance = variance->to_floats();
      if (options["variance"] == "geometric")
        for (std::size_t c = 0; c < old_variance.size(); ++c) v.data_ptr<double>()[c] = std::sqrt(v.data_ptr<double>()[c] * std::max(0.0, static_cast<double>(old_variance[c])));
      double shift = 0;
      for (std::size_t c = 0; c < old_mean.size(); ++c) {
        const double d = m.data_ptr<double>()[c] - old_mean[c];
        shift += d * d / std::max(1e-12, static_cast<double>(old_variance[c]));
      }
      sum += shift, channels += static_cast<double>(old_mean.size());
      ctx.layers.push_back({node->name, std::sqrt(shift / static_cast<double>(old_mean.size())), 0, {}});
      const auto set = [&](TensorId id, const TensorData& old, const at::Tensor& values) {
        weights->set(graph.tensor(id).name, make_data(old.type, old.shape, {values.data_ptr<double>(), values.data_ptr<double>() + values.numel()}));
      };
      set(node->input(3), *mean, m);
      set(node->input(4), *variance, v);
    }
    ctx.measure = "shift of the means / deviation, root of the mean square over channels";
    ctx.quantized.model = std::make_shared<const Model>(Model{before->graph, weights, before->source});
    char text[160];
    std::snprintf(text, sizeof text, "Measured %zu batch normalization%s again, of which the means were off by %.3g deviations", ctx.layers.size(), ctx.layers.size() == 1 ? "" : "s",
                  channels > 0 ? std::sqrt(sum / channels) : 0.0);
    return text + (left.empty() ? std::string(".") : "; left: " + join_some(left) + ".");
  }
};

QUANVAS_PLUGIN(Pass, BnStatistics)

}  // namespace
}  // namespace quanvas
