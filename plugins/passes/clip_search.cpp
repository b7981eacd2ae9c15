// Shrinks the ranges of weights' quantizers as far as the layers' outputs gain from it (Lin et al. 2024).
#include "core/algorithms/clip_search.h"

#include <cmath>

#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

class ClipSearch final : public Pass {
 public:
  PluginInfo info() const override {
    return {"clip-search", "Clipping search",
            "Shrinks the range of each weight scale to the fraction that leaves the least error of the layer's "
            "output: a few large weights "
            "are clipped, all others get a finer step; no output's error grows (Lin et al. 2024, AWQ, arXiv "
            "2306.00978). Put it "
            "before GPTQ, GPFQ, Qronos or learned rounding."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    const algorithms::ClipOptions defaults;
    schema.fields.push_back(integer_field("steps", "Steps", "Fractions that are tried beside the whole range.",
                                          defaults.steps, 1, 1000));
    schema.fields.push_back(real_field("max_shrink", "Largest shrink",
                                       "Part of the range that the smallest fraction takes away.",
                                       defaults.max_shrink, 0.01, 0.99));
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json&) const override {
    return rounding::check_scales(question, "Clipping search");
  }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    algorithms::ClipOptions o;
    o.steps = options["steps"];
    o.max_shrink = options["max_shrink"];
    o.stop = job.stop_token();
    rounding::Method method;
    method.id = "clip-search";
    method.title = "Clipping search";
    method.on_grid = false;
    method.measure = "the output error of rounding to nearest in the whole range";
    method.table = "squared error of the output over the samples, rounded to nearest: in the range as found, now";
    method.tune = [&](rounding::Whole& layer) -> Result<algorithms::RoundingReport> {
      algorithms::RoundingReport report;
      std::vector<algorithms::ClipMatrix> matrices;
      for (std::size_t g = 0; g < layer.views.size(); ++g) {
        std::any& shared = (*layer.shared)[g];
        if (!shared.has_value()) {
          QUANVAS_TRY(auto made,
                      algorithms::moments_of((*layer.grams)[g], algorithms::natural_order(layer.views[g].columns),
                                             layer.stop));
          shared = std::make_shared<const algorithms::Moments>(std::move(made));
        }
        const auto& moments = *std::any_cast<std::shared_ptr<const algorithms::Moments>&>(shared);
        matrices.push_back({layer.views[g], layer.w[g].data(), &moments});
        report.dead += moments.dead_count;
      }
      const auto done = algorithms::search_clip(matrices, *layer.params, o);
      if (!done && done.error().code != ErrorCode::kUnsupported) return Failure(done.error());
      if (!done) {
        report.before = report.after = std::nan("");
        layer.note = "left as it is: " + done.error().message;
        return report;
      }
      report.before = done->before;
      report.after = done->after;
      const auto count = static_cast<std::int64_t>(layer.params->scale.size());
      layer.note = std::to_string(done->changed) + " of " + std::to_string(count) +
                   (count == 1 ? " scale" : " scales") + " smaller";
      return report;
    };
    return rounding::run(ctx, options, job, method);
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, ClipSearch)

}  // namespace quanvas
