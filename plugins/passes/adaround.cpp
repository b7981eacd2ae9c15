// Learns for each weight whether it goes up or down, all weights of a layer together (Nagel et al. 2020).
#include "core/algorithms/learned.h"

#include "core/plugin/registry.h"
#include "plugins/passes/rounding.h"

namespace quanvas {
namespace {

using algorithms::LearnedMethod;

class AdaRound final : public Pass {
 public:
  PluginInfo info() const override {
    return {"adaround", "Learned rounding",
            "Learns for each weight whether it is rounded up or down so that the layer's output stays, from rounding to nearest or from "
            "what an earlier pass has found; the error never grows (Nagel et al. 2020, AdaRound, arXiv 2004.10568; Cheng et al. 2023, "
            "AutoRound, arXiv 2309.05516)."};
  }
  PassStage stage() const override { return PassStage::kWeights; }
  Schema schema() const override {
    Schema schema{rounding::common_fields(true)};
    schema.fields.push_back(choice_field("method", "Method", "How the choices are learned.", "adaround",
                                         {{"adaround", "AdaRound",
                                           "Gates between both values that a regularizer closes in the end (Nagel et al. 2020), by Adam."},
                                          {"autoround", "AutoRound",
                                           "A shift of at most half a step before the rounding (Cheng et al. 2023), by the sign of the gradient; scales stay."}}));
    schema.fields.push_back(integer_field("iterations", "Iterations", "Steps of the descent; 0: 1000 of AdaRound, 200 of AutoRound.", 0, 0, 1000000));
    const algorithms::LearnedOptions defaults;
    schema.fields.push_back(real_field("rate", "Rate", "Step of Adam (AdaRound).", defaults.rate, 1e-6, 1));
    schema.fields.push_back(real_field("regularization", "Regularization",
                                       "Weight of the term that decides the gates, in units of the layer's own rounding error (AdaRound).",
                                       defaults.regularization, 0, 1000));
    schema.fields.push_back(real_field("warm_up", "Warm-up", "Part of the iterations before that term begins (AdaRound).", defaults.warm_up, 0, 1));
    return schema;
  }
  std::vector<Issue> check(const PassQuestion& question, const json& options) const override { return rounding::check(question, "Learned rounding", rounding::wants_quantized(options)); }
  Result<std::string> apply(PassContext& ctx, const json& options, JobContext& job) const override {
    algorithms::LearnedOptions learned;
    const bool signs = options["method"] == "autoround";
    learned.method = signs ? LearnedMethod::kSigns : LearnedMethod::kGates;
    learned.iterations = options["iterations"];
    if (learned.iterations == 0) learned.iterations = signs ? 200 : 1000;
    learned.rate = options["rate"];
    learned.regularization = options["regularization"];
    learned.warm_up = options["warm_up"];
    return rounding::run(ctx, options, job,
                         {"adaround", "Learned rounding", true, true, "the output error at the start",
                          "squared error of the output over the samples: at the start, now",
                          [&](rounding::Group& g) -> Result<algorithms::RoundingReport> {
                            if (!g.shared->has_value()) {
                              QUANVAS_TRY(auto made, algorithms::moments_of(*g.gram, algorithms::natural_order(g.n), g.stop));
                              *g.shared = std::make_shared<const algorithms::Moments>(std::move(made));
                            }
                            const auto& shared = *std::any_cast<std::shared_ptr<const algorithms::Moments>&>(*g.shared);
                            learned.stop = g.stop;
                            QUANVAS_TRY(const auto done, algorithms::learn_rounding(g.m, g.n, g.original, g.w, shared, *g.quantizer, learned));
                            algorithms::RoundingReport report;
                            report.before = done.before;
                            report.after = done.after;
                            report.dead = done.dead;
                            return report;
                          }});
  }
};

}  // namespace

QUANVAS_PLUGIN(Pass, AdaRound)

}  // namespace quanvas
