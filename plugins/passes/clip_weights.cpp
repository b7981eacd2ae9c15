// Clips outlier weights before ranges are found, so that a few of them do not make the step of all others large. The float
// network changes; errors are measured against the clipped one. The limit is a magnitude, as Brevitas' ClipFloatWeights has it,
// or so many deviations.
#include <algorithm>
#include <cmath>

#include "core/exec/pass_context.h"
#include "core/plugin/registry.h"
#include "plugins/passes/edit.h"

namespace quanvas {
namespace {

struct Clipped {
  std::vector<double> values;
  std::size_t count = 0;
  double before = 0, after = 0;  // largest magnitudes
};

// limit: a magnitude, or a number of deviations from the mean. None clipped: not stored, or not finite as a whole, which the
// layer's own check names.
Clipped clip(const Model& model, TensorId id, bool by_deviations, double limit) {
  Clipped out;
  const TensorData* data = initializer_data(model, id);
  if (!data || data->count() == 0) return out;
  const std::vector<float> w = data->to_floats();
  double mean = 0, squares = 0;
  for (const float v : w) mean += v;
  mean /= static_cast<double>(w.size());
  for (const float v : w) squares += (v - mean) * (v - mean);
  const double width = by_deviations ? limit * std::sqrt(squares / static_cast<double>(w.size())) : limit, middle = by_deviations ? mean : 0;
  if (!std::isfinite(width)) return out;
  for (const float v : w) {
    out.values.push_back(std::isfinite(v) ? std::clamp(static_cast<double>(v), middle - width, middle + width) : static_cast<double>(v));
    if (!std::isfinite(v)) continue;
    out.count += out.values.back() != static_cast<double>(v);
    out.before = std::max(out.before, std::fabs(static_cast<double>(v)));
    out.after = std::max(out.after, std::fabs(out.values.back()));
  }
  return out;
}

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
      for (std::size_t i = 0; i < layer.weights(); ++i) {
        const TensorId id = site_tensor(layer, {layer.node, SiteKind::kWeight, static_cast<int>(i)});
        if (id == kNoTensor || !done.insert(id).second) continue;
        const Clipped found = clip(model, id, by_deviations, limit);
        if (found.count == 0) continue;
        edit.overwrite_initializer(id, found.values);  // of a tied weight for all that read it
        ctx.layers.push_back({model.graph->find(layer.node)->name, found.before, found.after,
                              std::to_string(found.count) + " of " + std::to_string(found.values.size()) + " weights"});
        clipped += found.count;
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
