// Clips outlier weights before ranges are found, so that a few of them do not make the step of all others large. The float
// network changes; errors are measured against the clipped one. The limit is a magnitude, as Brevitas' ClipFloatWeights has it,
// or so many deviations.
#include <cmath>

#include "core/exec/pass_context.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

class ClipWeights final : public Pass {
 public:
  PluginInfo info() const override {
    return {"clip-weights", "Clip outlier weights",
            "Limits weights to a magnitude or to so many standard deviations from their mean, before ranges are found; the float network changes (as "
            "ClipFloatWeights of Brevitas). For networks with a few weights far from all others."};
  }
  Schema schema() const override {
    return {{choice_field("limit", "Limit", "What the limit is.", "magnitude",
                          {{"magnitude", "A magnitude", "The same for all layers."}, {"deviations", "Standard deviations", "Of the weights of each layer, from their mean."}}),
             when(real_field("magnitude", "Magnitude", "Larger weights become this.", 15, 1e-6, 1e6), "limit", {"magnitude"}),
             when(real_field("deviations", "Deviations", "Weights farther from the mean are moved to the limit.", 6, 0.5, 100), "limit", {"deviations"})}};
  }
  PassStage stage() const override { return PassStage::kGraph; }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const bool by_deviations = options.at("limit").get<std::string>() == "deviations";
    const double limit = by_deviations ? options.value("deviations", 6.0) : options.value("magnitude", 15.0);
    const Model& model = *ctx.model;
    ModelEdit edit(model);
    std::set<TensorId> done;
    std::size_t clipped = 0;
    for (const Layer& layer : find_layers(*model.graph)) {
      QUANVAS_CHECK(job.check());
      if (layer.kind != LayerKind::kCompute) continue;
      for (std::size_t index = 0; index < layer.weights(); ++index) {
      const TensorId id = site_tensor(layer, {layer.node, SiteKind::kWeight, static_cast<int>(index)});
      const TensorData* data = id == kNoTensor ? nullptr : initializer_data(model, id);
      if (!data || data->count() == 0 || !done.insert(id).second) continue;
      const std::vector<float> w = data->to_floats();
      double mean = 0, squares = 0, largest = 0;
      for (const float v : w) mean += v;
      mean /= static_cast<double>(w.size());
      for (const float v : w) squares += (v - mean) * (v - mean), largest = std::max(largest, std::fabs(static_cast<double>(v)));
      const double width = by_deviations ? limit * std::sqrt(squares / static_cast<double>(w.size())) : limit, middle = by_deviations ? mean : 0;
      if (!std::isfinite(width)) continue;  // the layer's own check names such weights
      std::vector<double> values;
      std::size_t count = 0;
      double after = 0;
      for (const float v : w) {
        values.push_back(std::isfinite(v) ? std::clamp(static_cast<double>(v), middle - width, middle + width) : static_cast<double>(v));
        count += values.back() != static_cast<double>(v);
        after = std::max(after, std::fabs(values.back()));
      }
      if (count == 0) continue;
      const Node& node = *model.graph->find(layer.node);
      edit.overwrite_initializer(id, values);  // of a tied weight for all that read it
      ctx.layers.push_back({node.name, largest, after, std::to_string(count) + " of " + std::to_string(w.size()) + " weights"});
      clipped += count;
      }
    }
    ctx.measure = "largest magnitude of its weights";
    if (clipped > 0) {
      QUANVAS_TRY(ctx.model, edit.finish());
    }
    return "Clipped " + std::to_string(clipped) + (clipped == 1 ? " weight" : " weights") + " of " + std::to_string(ctx.layers.size()) + (ctx.layers.size() == 1 ? " layer." : " layers.");
  }
};

QUANVAS_PLUGIN(Pass, ClipWeights)

}  // namespace
}  // namespace quanvas
