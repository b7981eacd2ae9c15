// Makes the largest weights smaller without changing the layers' outputs much, so that scales get finer (Zhang et al. 2024).
#include "core/algorithms/magr.h"

#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

class Magr final : public Pass {
 public:
  PluginInfo info() const override {
    return {"magr", "MagR",
            "Makes the largest weight of each row smaller where the layer's output allows it, before they are rounded; scales "
            "are found again (Zhang et al. 2024, MagR, arXiv 2406.00800). Put it before GPTQ, GPFQ or Qronos."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(false)};
    schema.fields.push_back(real_field("alpha", "Alpha", "What a smaller largest weight is worth against the output's error.", 0.01, 0, 100));
    schema.fields.push_back(integer_field("steps", "Steps", "Of proximal gradient descent.", 20, 1, 100000));
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json&) const override { return rounding::check(question, "MagR", 1, false); }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    const double alpha = options["alpha"];
    const int steps = options["steps"];
    return rounding::run(ctx, options, job,
                         {"magr", "MagR", false, false, "the largest weights",
                          "mean of the rows' largest weights (of groups: their sum)",
                          [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
                            QUANVAS_TRY(const auto done, algorithms::magr(g.m, g.n, g.w, *g.gram, {alpha, steps, g.stop}));
                            algorithms::RoundingReport report;
                            report.before = done.largest_before;
                            report.after = done.largest_after;
                            return report;
                          }});
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, Magr)

}  // namespace quanvas
